//! ListOffsets: where the log begins, ends, or was at some time.

use kwal_protocol::messages::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use time::OffsetDateTime;

use super::Isolation;
use crate::{
    error::ErrorKind,
    routing::{Operation, Rejection, Route, only_partition},
};

/// Which offset to look up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OffsetAt {
    /// The first offset of the log; the end of the log if it is empty.
    Earliest,
    /// The offset after the last record that all in-sync replicas have: the next one to be written when no
    /// append is in flight. The leader withholds the answer until it is sure (KIP-207).
    Latest,
    /// The first record with this timestamp or a later one.
    Timestamp(OffsetDateTime),
    /// The record with the largest timestamp (KIP-734; Kafka 3.0).
    MaxTimestamp,
}

impl OffsetAt {
    /// Returns the `Timestamp` of `ListOffsetsRequest.json`.
    fn timestamp(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            // Rounded up: a record of the millisecond before is earlier.
            Self::Timestamp(at) => {
                let ms = -(-at.unix_timestamp_nanos()).div_euclid(1_000_000);
                i64::try_from(ms.max(0)).unwrap_or(i64::MAX)
            }
        }
    }
}

/// A lookup of an offset.
#[derive(Debug)]
pub(crate) struct ListOffset {
    pub(crate) at: OffsetAt,
    pub(crate) isolation: Isolation,
}

impl ListOffset {
    /// A lookup among all records.
    pub(crate) fn of(at: OffsetAt) -> Self {
        Self { at, isolation: Isolation::ReadUncommitted }
    }
}

impl Operation for ListOffset {
    type Request = ListOffsetsRequest;
    type Output = i64;

    fn request(&self, route: &Route<'_>) -> ListOffsetsRequest {
        ListOffsetsRequest {
            replica_id: -1,
            isolation_level: self.isolation.level(),
            topics: vec![ListOffsetsTopic {
                name: route.topic.to_owned(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: route.partition,
                    current_leader_epoch: route.leader_epoch,
                    timestamp: self.at.timestamp(),
                    ..ListOffsetsPartition::default()
                }],
            }],
            // For offsets in remote storage; the default of brokers is longer than the time limit of a
            // request.
            timeout_ms: route.timeout_ms(),
        }
    }

    fn response(&self, route: &Route<'_>, response: ListOffsetsResponse) -> Result<i64, Rejection> {
        let found = only_partition(
            response.topics,
            |topic| topic.name == route.topic,
            |topic| topic.partitions,
            |found| found.partition_index == route.partition,
        )?;
        Rejection::check(found.error_code)?;
        match (found.offset, self.at) {
            (0.., _) => Ok(found.offset),
            (-1, OffsetAt::Timestamp(_) | OffsetAt::MaxTimestamp) => {
                Err(Rejection::Kind(ErrorKind::OffsetNotFound { timestamp_ms: self.at.timestamp() }))
            }
            // Every log has a start and an end.
            _ => Err(Rejection::Missing),
        }
    }

    fn oldest_version(&self) -> i16 {
        match (self.at, self.isolation) {
            (OffsetAt::MaxTimestamp, _) => 7,
            (_, Isolation::ReadCommitted) => 2,
            (_, Isolation::ReadUncommitted) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::{
        error_code::ErrorCode,
        messages::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    };
    use time::Duration;

    use super::*;
    use crate::routing::rejected_code;

    #[test]
    fn one_offset_is_requested_of_the_known_leader() {
        let timestamp = OffsetAt::Timestamp(OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(1234));
        for (at, timestamp, oldest) in [
            (OffsetAt::Latest, -1, 0),
            (OffsetAt::Earliest, -2, 0),
            (OffsetAt::MaxTimestamp, -3, 7),
            (timestamp, 1234, 0),
        ] {
            let operation = ListOffset::of(at);
            let request = operation.request(&Route::of_partition("wal", 3));
            let partition = ListOffsetsPartition {
                partition_index: 3,
                current_leader_epoch: 7,
                timestamp,
                ..Default::default()
            };
            let topic = ListOffsetsTopic { name: "wal".to_owned(), partitions: vec![partition] };
            let expected = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![topic],
                timeout_ms: 9000,
                ..Default::default()
            };
            assert_eq!((request, operation.oldest_version()), (expected, oldest), "{at:?}");
        }
    }

    #[test]
    fn a_negative_offset_is_not_found_and_a_missing_partition_is_malformed() {
        let respond_to = |at, name: &str, partition_index, offset, error_code| {
            let found =
                ListOffsetsPartitionResponse { partition_index, offset, error_code, ..Default::default() };
            let topic = ListOffsetsTopicResponse { name: name.to_owned(), partitions: vec![found] };
            let response = ListOffsetsResponse { topics: vec![topic], ..Default::default() };
            ListOffset::of(at).response(&Route::of_partition("wal", 3), response)
        };
        let respond = |partition, offset, error_code| {
            respond_to(OffsetAt::MaxTimestamp, "wal", partition, offset, error_code)
        };
        assert_eq!(respond(3, 0, ErrorCode::NONE).unwrap(), 0);
        assert_eq!(respond(3, 17, ErrorCode::NONE).unwrap(), 17);
        let Err(Rejection::Kind(kind)) = respond(3, -1, ErrorCode::NONE) else { panic!("found") };
        assert!(matches!(kind, ErrorKind::OffsetNotFound { timestamp_ms: -3 }), "{kind:?}");
        assert!(matches!(respond(2, 17, ErrorCode::NONE), Err(Rejection::Missing)));
        let code = ErrorCode::OFFSET_NOT_AVAILABLE;
        assert_eq!(rejected_code(respond(3, 17, code)), (code, None));
        for (at, offset) in
            [(OffsetAt::MaxTimestamp, -2), (OffsetAt::Latest, -1), (OffsetAt::Earliest, i64::MIN)]
        {
            let result = respond_to(at, "wal", 3, offset, ErrorCode::NONE);
            assert!(matches!(result, Err(Rejection::Missing)), "{at:?}: {result:?}");
        }
        let other = respond_to(OffsetAt::Latest, "other", 3, 17, ErrorCode::NONE);
        assert!(matches!(other, Err(Rejection::Missing)), "{other:?}");
        let response = ListOffsetsResponse::default();
        let empty = ListOffset::of(OffsetAt::Latest).response(&Route::of_partition("wal", 3), response);
        assert!(matches!(empty, Err(Rejection::Missing)));
    }

    #[test]
    fn times_are_rounded_up() {
        for (nanos, ms) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2), (-5_000_000, 0)] {
            let at = OffsetAt::Timestamp(OffsetDateTime::UNIX_EPOCH + Duration::nanoseconds(nanos));
            assert_eq!(at.timestamp(), ms, "{nanos}");
        }
    }
}
