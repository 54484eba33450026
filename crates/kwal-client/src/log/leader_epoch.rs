//! OffsetForLeaderEpoch: where the records of a leader epoch end.

use kwal_protocol::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use crate::routing::{Operation, Rejection, Route, only_partition};

/// Where the records of a leader epoch end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EpochEndOffset {
    /// The largest epoch in the leader's log that is not above the requested one.
    pub leader_epoch: i32,
    /// The offset after the last record of that epoch; for the current epoch, the end of the leader's log.
    pub end_offset: i64,
}

/// A lookup of where an epoch ends.
#[derive(Debug)]
pub(crate) struct EpochEnd {
    pub(crate) leader_epoch: i32,
}

impl Operation for EpochEnd {
    type Request = OffsetForLeaderEpochRequest;
    type Output = Option<EpochEndOffset>;

    fn request(&self, route: &Route<'_>) -> OffsetForLeaderEpochRequest {
        OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![OffsetForLeaderTopic {
                topic: route.topic.to_owned(),
                partitions: vec![OffsetForLeaderPartition {
                    partition: route.partition,
                    current_leader_epoch: route.leader_epoch,
                    leader_epoch: self.leader_epoch,
                }],
            }],
        }
    }

    fn response(
        &self,
        route: &Route<'_>,
        response: OffsetForLeaderEpochResponse,
    ) -> Result<Option<EpochEndOffset>, Rejection> {
        let found = only_partition(
            response.topics,
            |topic| topic.topic == route.topic,
            |topic| topic.partitions,
            |found| found.partition == route.partition,
        )?;
        Rejection::check(found.error_code)?;
        match (found.leader_epoch, found.end_offset) {
            (-1, -1) => Ok(None),
            (leader_epoch @ 0.., end_offset @ 0..) if leader_epoch <= self.leader_epoch => {
                Ok(Some(EpochEndOffset { leader_epoch, end_offset }))
            }
            _ => Err(Rejection::Missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::{
        error_code::ErrorCode,
        messages::{EpochEndOffset as PartitionResponse, OffsetForLeaderTopicResult},
    };

    use super::*;

    #[test]
    fn an_epoch_is_requested_of_the_known_leader() {
        let request = EpochEnd { leader_epoch: 5 }.request(&Route::of_partition("wal", 3));
        let partition = OffsetForLeaderPartition { partition: 3, current_leader_epoch: 7, leader_epoch: 5 };
        let topic = OffsetForLeaderTopic { topic: "wal".to_owned(), partitions: vec![partition] };
        assert_eq!(request, OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] });
    }

    #[test]
    fn an_unknown_epoch_is_none_and_a_missing_partition_is_malformed() {
        let route = Route::of_partition("wal", 3);
        let respond = |partition, leader_epoch, end_offset, error_code| {
            let found = PartitionResponse { partition, leader_epoch, end_offset, error_code };
            let topic = OffsetForLeaderTopicResult { topic: "wal".to_owned(), partitions: vec![found] };
            let response = OffsetForLeaderEpochResponse { topics: vec![topic], ..Default::default() };
            EpochEnd { leader_epoch: 5 }.response(&route, response)
        };
        let end = EpochEndOffset { leader_epoch: 4, end_offset: 17 };
        assert_eq!(respond(3, 4, 17, ErrorCode::NONE).unwrap(), Some(end));
        assert_eq!(respond(3, -1, -1, ErrorCode::NONE).unwrap(), None);
        assert!(matches!(respond(2, 4, 17, ErrorCode::NONE), Err(Rejection::Missing)));
        // A later epoch than the requested one, and half an answer.
        for (leader_epoch, end_offset) in [(6, 17), (-1, 17), (4, -1), (-2, -2)] {
            assert!(matches!(respond(3, leader_epoch, end_offset, ErrorCode::NONE), Err(Rejection::Missing)));
        }
        let fenced = respond(3, 4, 17, ErrorCode::FENCED_LEADER_EPOCH);
        assert!(matches!(fenced, Err(Rejection::Code { code: ErrorCode::FENCED_LEADER_EPOCH, .. })));
    }
}
