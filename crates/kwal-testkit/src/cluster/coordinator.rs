//! The producer ids and epochs of transactional ids, as their coordinators know them. Transactions are not
//! implemented.

use std::collections::BTreeMap;

/// The state of all coordinators.
#[derive(Debug)]
pub(super) struct Coordinators {
    pub(super) names: BTreeMap<String, Name>,
    pub(super) next_producer_id: i64,
    /// The brokers with replicas of the transaction log: those that existed when it was created.
    pub(super) brokers: Vec<i32>,
}

/// The state of a transactional id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) producer_id: i64,
    /// The producer id before the current one, −1 if there was none.
    pub(super) previous_id: i64,
    pub(super) epoch: i16,
    /// The epoch that the holder had when it requested this one; −1 if it did not name one.
    pub(super) last_epoch: i16,
    /// In milliseconds since the epoch.
    pub(super) updated_at: i64,
}

impl Default for Coordinators {
    fn default() -> Self {
        // As from the second block of a controller, so that it differs from a default of 0.
        Self { names: BTreeMap::new(), next_producer_id: 1000, brokers: Vec::new() }
    }
}

impl Coordinators {
    pub(super) fn fresh_id(&mut self) -> i64 {
        let id = self.next_producer_id;
        self.next_producer_id += 1;
        id
    }
}
