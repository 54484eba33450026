//! Records events in the journal, losses in a recorder, and the faults that clients felt.

use std::time::Duration;

use kwal_protocol::api::ApiKey;

use super::{
    action::Action,
    node::Connected,
    partition::{PartitionId, State},
    request::Pending,
    state::Cluster,
};
use crate::{
    check::{Recorder, TopicPartition},
    fault::FaultCounts,
    journal::{Journal, JournalEvent},
};

impl Cluster {
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn fault_counts(&self) -> FaultCounts {
        self.fault_counts
    }

    /// Records losses that no client can prevent, from now on.
    pub(crate) fn record_losses(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// Returns what records the losses.
    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// Records that a broker has returned the end of a log that it does not lead any more.
    pub(super) fn record_stale_end(&self, node: i32, topic: &str, index: i32, end: i64) {
        let leads = self.partition(topic, index).is_none_or(|found| found.state.leader == Some(node));
        if let Some(recorder) = self.recorder.as_ref().filter(|_| !leads) {
            recorder.now().stale_end((topic, index), end);
        }
    }

    /// Records an event.
    pub(crate) fn record(&mut self, event: JournalEvent) {
        if let Some(recorder) = &self.recorder {
            let mut history = recorder.now();
            match &event {
                JournalEvent::DataLoss { partition, from } => history.truncated(partition.clone(), *from),
                JournalEvent::Truncated { partition, from, .. } => {
                    history.unreplicated(partition.clone(), *from);
                }
                JournalEvent::Deleted { partition, before } => history.deleted(partition.clone(), *before),
                JournalEvent::Recreated { topic, partitions } => {
                    (0..*partitions).for_each(|index| history.recreated((topic.as_str(), index)));
                }
                _ => {}
            }
        }
        let at = self.now.monotonic.checked_duration_since(self.started).unwrap_or(Duration::ZERO);
        self.journal.push(at, event);
    }

    /// Records a note.
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.journal.is_kept() {
            self.record(JournalEvent::Note(text()));
        }
    }

    /// Records that a request closes its connection.
    pub(crate) fn record_close(&mut self, from: Connected, answer: &Action) {
        if let Action::Close(reason) = answer {
            let number = from.number;
            self.note(|| format!("{} c{number} will be closed: {reason}", from.node));
        }
    }

    /// Records what has changed of a partition.
    pub(super) fn record_partition(&mut self, id: PartitionId) {
        let now = self.now.monotonic;
        let Some(partition) = self.partition_by_id(id) else { return };
        let cuts = std::mem::take(&mut partition.cuts);
        // Once for all replicas that lose it at the same time.
        let lost = partition.lost.take().map(|from| (from, now));
        let lost =
            lost.filter(|lost| partition.recorded_loss.replace(*lost) != Some(*lost)).map(|(from, _)| from);
        let state = (partition.state != partition.recorded).then(|| partition.state.clone());
        if let Some(state) = &state {
            partition.recorded = state.clone();
        }
        if cuts.is_empty() && lost.is_none() && state.is_none() {
            return;
        }
        let name = self.partition_name(id);
        if let Some(from) = lost {
            self.record(JournalEvent::DataLoss { partition: name.clone(), from });
        }
        if let Some(state) = state {
            let State { leader, leader_epoch, isr, .. } = state;
            self.record(JournalEvent::LeaderAndIsr { partition: name.clone(), leader, leader_epoch, isr });
        }
        for (broker, from) in cuts {
            self.record(JournalEvent::Truncated { partition: name.clone(), broker, from });
        }
    }

    /// Records that the beginning of a partition was deleted at the broker that leads it, or takes itself for
    /// its leader.
    pub(super) fn record_deletion(&mut self, id: PartitionId, before: i64) {
        let partition = self.partition_name(id);
        self.record(JournalEvent::Deleted { partition, before });
    }

    pub(super) fn partition_name(&self, id: PartitionId) -> TopicPartition {
        let topic = self.names.get(&id.topic).cloned().unwrap_or_default();
        TopicPartition { topic, partition: id.index }
    }
}

/// Counts of faults that clients felt.
impl Cluster {
    /// Notes that a reply was sent.
    pub(crate) fn reply_sent(&mut self, connection: Connected) {
        self.pending.remove(&connection.number);
    }

    /// Notes that the request of a connection has appended a batch.
    pub(super) fn appended(&mut self, connection: Connected) {
        if let Some(pending) = self.pending.get_mut(&connection.number) {
            pending.appended = true;
        }
    }

    /// Notes that clients that disconnect from a broker from now on have a reason.
    pub(super) fn mark_faulty(&mut self, node: i32) {
        self.pending
            .values_mut()
            .filter(|pending| pending.node == node)
            .for_each(|pending| pending.faulty = true);
    }

    /// Counts the requests of a broker whose connections are closed.
    pub(super) fn count_faults(&mut self, node: i32) {
        let of_node = |(number, pending): (&u64, &Pending)| (pending.node == node).then_some(*number);
        let numbers: Vec<_> = self.pending.iter().filter_map(of_node).collect();
        numbers.into_iter().for_each(|number| self.count_fault(number));
    }

    /// Counts a request whose connection is closed, or whose response is wrong.
    pub(super) fn count_fault(&mut self, number: u64) {
        let Some(pending) = self.pending.remove(&number) else { return };
        match pending.api {
            ApiKey::PRODUCE => self.fault_counts.produces += u64::from(pending.appended),
            ApiKey::FETCH => self.fault_counts.fetches += 1,
            ApiKey::API_VERSIONS | ApiKey::SASL_HANDSHAKE | ApiKey::SASL_AUTHENTICATE => {
                self.fault_counts.handshakes += 1;
            }
            _ => {}
        }
    }

    /// Notes that a connection has ended, closed by either side.
    pub(super) fn connection_ended(&mut self, number: u64) {
        match self.pending.get(&number) {
            Some(pending) if pending.faulty => self.count_fault(number),
            _ => drop(self.pending.remove(&number)),
        }
    }

    /// Counts a fault of a connection before its first request.
    pub(super) fn count_refused_connection(&mut self) {
        self.fault_counts.handshakes += 1;
    }
}
