//! The producer ids and epochs of transactional ids, as their coordinators know them. Transactions are not
//! implemented.
//!
//! As in Kafka, the coordinator of a transactional id is the leader of a partition of an internal topic. Its
//! replicas move like any other; the state itself is kept here and is never lost.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{CreatableConfig, CreatableTopic},
};

use super::{election::CannotLead, lookup::TopicKey, state::Cluster};

/// The state of all coordinators.
#[derive(Debug)]
pub(super) struct Coordinators {
    pub(super) names: BTreeMap<String, Name>,
    pub(super) next_producer_id: i64,
}

/// The state of a transactional id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) producer_id: i64,
    /// The producer id before the current one, −1 if there was none.
    pub(super) previous_id: i64,
    pub(super) epoch: i16,
    /// The epoch that the holder had when it requested this one; −1 if it did not name one.
    ///
    /// It is not on the log of the coordinators, so only the same coordinator knows it.
    pub(super) last_epoch: i16,
    /// When the coordinator that knows `last_epoch` began.
    pub(super) coordinator_since: Option<Instant>,
    /// In milliseconds since the epoch.
    pub(super) updated_at: i64,
}

/// The time during which a broker coordinates a transactional id without interruption.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    /// `None` from the creation of the partition on.
    pub(super) since: Option<Instant>,
    /// Whether enough replicas are in sync.
    pub(super) may_write: bool,
}

impl Default for Coordinators {
    fn default() -> Self {
        // As from the second block of a controller, so that it differs from a default of 0.
        Self { names: BTreeMap::new(), next_producer_id: 1000 }
    }
}

impl Coordinators {
    pub(super) fn fresh_id(&mut self) -> i64 {
        let id = self.next_producer_id;
        self.next_producer_id += 1;
        id
    }
}

impl Cluster {
    /// Returns a producer id that nobody else has.
    pub(crate) fn new_producer_id(&mut self) -> i64 {
        self.coordinators.fresh_id()
    }

    /// Returns the coordinator of a transactional id, as `node` knows it.
    ///
    /// As in Kafka, the first call creates the topic and fails.
    pub(super) fn find_coordinator(&mut self, node: i32, name: &str) -> Option<i32> {
        if !self.topics.contains_key(TRANSACTION_LOG) {
            self.create_transaction_log();
            return None;
        }
        let (_, states) = self.states(node, TRANSACTION_LOG)?;
        states.get(partition_of(name, states.len()))?.leader
    }

    /// Returns the broker that coordinates a transactional id.
    pub(crate) fn coordinator(&mut self, name: &str) -> Option<i32> {
        self.create_transaction_log();
        let partitions = &self.topics.get(TRANSACTION_LOG)?.partitions;
        partitions.get(partition_of(name, partitions.len()))?.state.leader
    }

    /// Makes a broker the coordinator of a transactional id, and of those in the same partition.
    pub(crate) fn move_coordinator(&mut self, name: &str, to: i32) -> Result<(), CannotLead> {
        self.create_transaction_log();
        let partitions = self.topics.get(TRANSACTION_LOG).map_or(0, |topic| topic.partitions.len());
        self.move_leader(TRANSACTION_LOG, partition_of(name, partitions) as i32, to)
    }

    /// Returns the term of a broker as the coordinator of a transactional id, or why it is not one now.
    pub(super) fn term(&mut self, node: i32, name: &str) -> Result<Term, ErrorCode> {
        let not_here = ErrorCode::NOT_COORDINATOR;
        let partitions = &self.topics.get(TRANSACTION_LOG).ok_or(not_here)?.partitions;
        let index = partition_of(name, partitions.len());
        let state = &partitions.get(index).ok_or(not_here)?.state;
        // A broker that was deposed unseen cannot write to the log.
        let (leads, in_sync) = (state.leader == Some(node), state.isr.len());
        let now = self.now.monotonic;
        let found = self.led(node, TopicKey::Name(TRANSACTION_LOG), index as i32, -1);
        let found = found.ok().filter(|_| leads).ok_or(not_here)?;
        let since = found.replica.led_since;
        if since.is_some_and(|since| now.saturating_duration_since(since) < LOADING) {
            return Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        }
        Ok(Term { since, may_write: in_sync >= found.config.min_isr })
    }

    /// Makes a broker that has just started load what it coordinates.
    pub(super) fn reload_coordinator(&mut self, node: i32) {
        let now = self.now.monotonic;
        let Some(topic) = self.topics.get_mut(TRANSACTION_LOG) else { return };
        for replica in topic.partitions.iter_mut().filter_map(|partition| partition.replicas.get_mut(&node)) {
            replica.led_since = Some(now);
        }
    }

    /// Creates the topic of the coordinators, if it does not exist and there are enough brokers.
    pub(super) fn create_transaction_log(&mut self) {
        if self.topics.contains_key(TRANSACTION_LOG) {
            return;
        }
        let number = |setting: &str| self.settings.broker.number(setting);
        let config =
            |name: &str, value: String| CreatableConfig { name: name.to_owned(), value: Some(value) };
        let topic = CreatableTopic {
            name: TRANSACTION_LOG.to_owned(),
            num_partitions: number("transaction.state.log.num.partitions") as i32,
            replication_factor: number("transaction.state.log.replication.factor") as i16,
            configs: vec![
                config("cleanup.policy", "compact".to_owned()),
                config("min.insync.replicas", number("transaction.state.log.min.isr").to_string()),
            ],
            ..CreatableTopic::default()
        };
        if let Err((_, message)) = self.create_topic(&topic) {
            self.note(|| format!("there is no coordinator: {message}"));
        }
    }

    pub(crate) fn transactional_ids(&self) -> Vec<String> {
        self.coordinators.names.keys().cloned().collect()
    }

    /// Forgets a transactional id, as `transactional.id.expiration.ms` does.
    ///
    /// Returns `false` if it was unknown.
    pub(crate) fn forget_name(&mut self, name: &str) -> bool {
        self.note(|| format!("the transactional id {name} is forgotten"));
        self.coordinators.names.remove(name).is_some()
    }

    /// Sets the epoch of a transactional id, as that many calls of InitProducerId do.
    ///
    /// Returns `false` if it is unknown.
    pub(crate) fn set_producer_epoch(&mut self, name: &str, epoch: i16) -> bool {
        let Some(known) = self.coordinators.names.get_mut(name) else { return false };
        (known.epoch, known.last_epoch) = (epoch, -1);
        true
    }
}

/// Returns whether brokers alone write to a topic.
pub(super) fn is_internal(topic: &str) -> bool {
    topic == TRANSACTION_LOG
}

/// Returns the partition of a transactional id, as Kafka does.
fn partition_of(name: &str, partitions: usize) -> usize {
    java_hash(name) as usize % partitions.max(1)
}

/// `String.hashCode` without its sign.
fn java_hash(text: &str) -> u32 {
    let hash =
        text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.unsigned_abs() & (i32::MAX as u32)
}

/// The topic of the coordinators.
const TRANSACTION_LOG: &str = "__transaction_state";
/// How long a new coordinator loads its partition.
const LOADING: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::java_hash;

    #[test]
    fn the_hash_is_javas() {
        for (text, hash) in [("", 0), ("a", 97), ("hello", 99_162_322), ("polygenelubricants", 0)] {
            assert_eq!(java_hash(text), hash, "{text}");
        }
    }
}
