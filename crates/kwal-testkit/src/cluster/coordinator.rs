//! The producer ids and epochs of transactional ids, as their coordinators know them. Transactions are not implemented.

use std::collections::BTreeMap;

/// What coordinators know.
#[derive(Debug)]
pub(super) struct Coordinators {
    pub(super) names: BTreeMap<String, Name>,
    pub(super) next_producer_id: i64,
    /// The brokers that have the log of the transactional ids: those that there were when it was made.
    pub(super) brokers: Vec<i32>,
}

/// What a transactional id stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) producer_id: i64,
    /// The id before the last was used up; −1 if there was none.
    pub(super) previous_id: i64,
    pub(super) epoch: i16,
    /// The epoch of the holder who asked for this one; −1 if somebody else did.
    pub(super) last_epoch: i16,
    /// In milliseconds since the epoch.
    pub(super) updated_at: i64,
}

impl Default for Coordinators {
    fn default() -> Self {
        // As from the second block of a controller, so that it is told apart from a forgotten field.
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
