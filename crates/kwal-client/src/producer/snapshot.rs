//! What the appends of a partition are doing now.

use super::{appends::Appends, results::loss, state::Failure};
use crate::{
    producer_id::Stamp,
    routing::Partition,
    state::{LastAcknowledged, PartitionState},
};

impl Appends {
    pub(super) fn snapshot(&self) -> PartitionState {
        let Partition { topic, index, .. } = &*self.partition;
        let (leader, throttled_for) = (self.partition.known_leader(), self.partition.throttled_for());
        // Nothing is changed, so that nothing has to be delivered.
        let state = self.state();
        let (requests, in_flight_bytes) = state.requests();
        let (waiting, in_doubt) = state.machine.pending();
        let identity = state.machine.identity();
        let acknowledged = state.machine.last_acknowledged().map(|last| LastAcknowledged {
            offsets: last
                .base_offset
                .zip(last.last_offset())
                .map(|(first, last)| first..last.saturating_add(1)),
            sequence: Some(last.stamp).filter(|stamp| *stamp != Stamp::NONE).map(|stamp| stamp.sequence),
            leader_epoch: Some(state.acknowledged_in).filter(|epoch| *epoch >= 0),
        });
        let ended = match state.machine.ended() {
            Some(Failure::Error(error)) => Some(error.clone()),
            Some(Failure::DataLoss { last, from }) => Some(self.call().error(loss(*last, *from))),
            Some(Failure::Deadline { .. }) | None => None,
        };
        PartitionState {
            topic: topic.to_string(),
            topic_id: self.partition.topic_id(),
            partition: *index,
            leader,
            exclusive: self.hold.as_ref().map(|hold| hold.name.clone()),
            producer_id: identity.map(|identity| identity.id),
            producer_epoch: identity.map(|identity| identity.epoch),
            in_flight: requests,
            in_flight_bytes,
            waiting,
            in_doubt,
            last_acknowledged: acknowledged,
            throttled_for,
            last_error: state.machine.last_error().cloned(),
            ended,
        }
    }
}
