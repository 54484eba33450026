//! What is told of what happens: to the journal, to a recorder, and to who counts the hits.

use std::time::Duration;

use kwal_protocol::api::ApiKey;

use super::{Answer, Cluster, Connected, PartitionId, Pending};
use crate::{
    check::{Recorder, TopicPartition},
    fault::Hits,
    journal::{Journal, What},
};

impl Cluster {
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn hits(&self) -> Hits {
        self.hits
    }

    /// Tells somebody of what excuses that records are gone.
    pub(crate) fn excuse_to(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// Writes down what happens.
    pub(crate) fn tell(&mut self, what: What) {
        if let Some(recorder) = &self.recorder {
            let mut history = recorder.now();
            match &what {
                What::Lost { partition, from } => history.truncated(partition.clone(), *from),
                What::Deleted { partition, before } => history.deleted(partition.clone(), *before),
                What::Recreated { topic, partitions } => {
                    (0..*partitions).for_each(|index| history.recreated((topic.as_str(), index)));
                }
                _ => {}
            }
        }
        let at = self.now.monotonic.checked_duration_since(self.started).unwrap_or(Duration::ZERO);
        self.journal.push(at, what);
    }

    /// The same of anything in words.
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.journal.is_kept() {
            self.tell(What::Note(text()));
        }
    }

    /// Tells how a request ended that is not answered.
    pub(crate) fn tell_end(&mut self, from: Connected, answer: &Answer) {
        if let Answer::Close(reason) = answer {
            let number = from.number;
            self.note(|| format!("{} c{number} is to be closed: {reason}", from.node));
        }
    }

    /// Tells what has changed of a partition.
    pub(super) fn tell_partition(&mut self, id: PartitionId) {
        let now = self.now.monotonic;
        let Some(partition) = self.partition_by_id(id) else { return };
        let cuts = std::mem::take(&mut partition.cuts);
        // Once for all replicas that lose it at the same time.
        let lost = partition.lost.take().map(|from| (from, now));
        let lost =
            lost.filter(|lost| partition.told_lost.replace(*lost) != Some(*lost)).map(|(from, _)| from);
        let state = (partition.state != partition.told).then(|| partition.state.clone());
        if let Some(state) = &state {
            partition.told = state.clone();
        }
        if cuts.is_empty() && lost.is_none() && state.is_none() {
            return;
        }
        let name = self.partition_name(id);
        if let Some(from) = lost {
            self.tell(What::Lost { partition: name.clone(), from });
        }
        if let Some(state) = state {
            let (leader, epoch, in_sync) = (state.leader, state.leader_epoch, state.isr);
            self.tell(What::Leads { partition: name.clone(), leader, epoch, in_sync });
        }
        for (broker, from) in cuts {
            self.tell(What::Truncated { partition: name.clone(), broker, from });
        }
    }

    /// Tells that the beginning of a partition is gone.
    pub(super) fn tell_deletion(&mut self, id: PartitionId) {
        let Some(partition) = self.partition_by_id(id) else { return };
        let Some(before) = partition.authority().map(|replica| replica.log.start()) else { return };
        let partition = self.partition_name(id);
        self.tell(What::Deleted { partition, before });
    }

    pub(super) fn partition_name(&self, id: PartitionId) -> TopicPartition {
        let topic = self.names.get(&id.topic).cloned().unwrap_or_default();
        TopicPartition { topic, partition: id.index }
    }
}

/// Hits.
impl Cluster {
    /// An answer is out.
    pub(crate) fn answered(&mut self, connection: Connected) {
        self.pending.remove(&connection.number);
    }

    /// The request that a connection is about is one that was appended.
    pub(super) fn appended(&mut self, connection: Connected) {
        if let Some(pending) = self.pending.get_mut(&connection.number) {
            pending.appended = true;
        }
    }

    /// Clients that leave a broker from now on may have been right to.
    pub(super) fn blame(&mut self, node: i32) {
        self.pending
            .values_mut()
            .filter(|pending| pending.node == node)
            .for_each(|pending| pending.faulty = true);
    }

    /// All connections of a broker end.
    pub(super) fn count_hits(&mut self, node: i32) {
        let of_node = |(number, pending): (&u64, &Pending)| (pending.node == node).then_some(*number);
        let numbers: Vec<_> = self.pending.iter().filter_map(of_node).collect();
        numbers.into_iter().for_each(|number| self.count_hit(number));
    }

    /// A connection ends, or its client is lied to.
    pub(super) fn count_hit(&mut self, number: u64) {
        let Some(pending) = self.pending.remove(&number) else { return };
        match pending.api {
            ApiKey::PRODUCE => self.hits.produces += u64::from(pending.appended),
            ApiKey::FETCH => self.hits.fetches += 1,
            ApiKey::API_VERSIONS | ApiKey::SASL_HANDSHAKE | ApiKey::SASL_AUTHENTICATE => {
                self.hits.handshakes += 1;
            }
            _ => {}
        }
    }

    /// A connection is over, by whoever's doing.
    pub(super) fn settle(&mut self, number: u64) {
        match self.pending.get(&number) {
            Some(pending) if pending.faulty => self.count_hit(number),
            _ => drop(self.pending.remove(&number)),
        }
    }

    /// A connection meets a fault before any request.
    pub(super) fn count_refused(&mut self) {
        self.hits.handshakes += 1;
    }
}
