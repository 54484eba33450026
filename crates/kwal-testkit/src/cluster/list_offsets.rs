use std::collections::BTreeSet;

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        IsolationLevel, ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest,
        ListOffsetsResponse, ListOffsetsTopicResponse,
    },
    record::{BatchError, NO_TIMESTAMP},
};

use super::{
    fetch::end_for,
    handler::{Serve, Served},
    lookup::TopicKey,
    request::RequestContext,
    state::Cluster,
};

impl Serve for ListOffsetsRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> ListOffsetsResponse {
        self.answer(|_, partition| refused(partition, code))
    }

    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<ListOffsetsResponse> {
        let twice = self.repeated();
        Served::Reply(self.answer(|topic, partition| {
            if twice.contains(&(topic.to_owned(), partition.partition_index)) {
                return refused(partition, ErrorCode::INVALID_REQUEST);
            }
            let found = cluster.look_up(topic, partition, self.isolation_level, context);
            if let (Ok(found), LATEST) = (&found, partition.timestamp) {
                let (node, index) = (context.from.node, partition.partition_index);
                cluster.record_stale_end(node, topic, index, found.offset);
            }
            match found {
                Ok(found) => ListOffsetsPartitionResponse {
                    partition_index: partition.partition_index,
                    timestamp: found.timestamp,
                    offset: found.offset,
                    leader_epoch: match context.version >= HAS_LEADER_EPOCH {
                        true => found.leader_epoch,
                        false => -1,
                    },
                    ..ListOffsetsPartitionResponse::default()
                },
                Err(code) => refused(partition, code),
            }
        }))
    }
}

trait AnswerEach {
    /// Returns the partitions that the request names more than once.
    fn repeated(&self) -> BTreeSet<(String, i32)>;

    fn answer(
        &self,
        each: impl FnMut(&str, &ListOffsetsPartition) -> ListOffsetsPartitionResponse,
    ) -> ListOffsetsResponse;
}

impl AnswerEach for ListOffsetsRequest {
    fn repeated(&self) -> BTreeSet<(String, i32)> {
        let mut known = BTreeSet::new();
        let all = self.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| (topic.name.clone(), partition.partition_index))
        });
        all.filter(|partition| !known.insert(partition.clone())).collect()
    }

    fn answer(
        &self,
        mut each: impl FnMut(&str, &ListOffsetsPartition) -> ListOffsetsPartitionResponse,
    ) -> ListOffsetsResponse {
        let topics = self.topics.iter().map(|topic| ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions: topic.partitions.iter().map(|partition| each(&topic.name, partition)).collect(),
        });
        ListOffsetsResponse { topics: topics.collect(), ..ListOffsetsResponse::default() }
    }
}

/// A found offset; −1 where there is none.
struct Found {
    timestamp: i64,
    offset: i64,
    leader_epoch: i32,
}

impl Cluster {
    fn look_up(
        &mut self,
        topic: &str,
        requested: &ListOffsetsPartition,
        isolation: IsolationLevel,
        context: &RequestContext,
    ) -> Result<Found, ErrorCode> {
        let key = TopicKey::Name(topic);
        let led =
            self.led(context.from.node, key, requested.partition_index, requested.current_leader_epoch)?;
        let (replica, log, leader_epoch) = (&*led.replica, &led.replica.log, led.state.leader_epoch);
        let end = end_for(replica, isolation);
        let at = |offset: i64| Found {
            timestamp: NO_TIMESTAMP,
            offset,
            leader_epoch: log.epoch_at(offset).unwrap_or(-1),
        };
        // After an election the high watermark may be too low for a while (KIP-207).
        let settled = match replica.high_watermark < replica.led_from {
            true if context.version >= WAITS_FOR_HIGH_WATERMARK => Err(ErrorCode::OFFSET_NOT_AVAILABLE),
            true => Err(ErrorCode::LEADER_NOT_AVAILABLE),
            false => Ok(()),
        };
        let record = |found: Result<Option<(i64, i64)>, BatchError>| match found {
            Ok(Some((timestamp, offset))) if offset < end => Ok(Found { timestamp, ..at(offset) }),
            Ok(_) => settled.map(|()| at(-1)),
            Err(_) => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
        };
        match (requested.timestamp, context.version) {
            (LATEST, _) => settled.map(|()| Found { leader_epoch, ..at(end) }),
            // There is no remote storage, so everything is local.
            (EARLIEST, _) | (EARLIEST_LOCAL, 8..) => Ok(at(log.start())),
            (LATEST_TIERED, 9..) | (EARLIEST_PENDING_UPLOAD, 11..) => Ok(at(-1)),
            (MAX_TIMESTAMP, 7..) => record(log.at_max_timestamp()).map(|found| match found.offset {
                -1 => found,
                offset => Found {
                    leader_epoch: log.epoch_at(offset).or_else(|| log.epoch_of_newest()).unwrap_or(-1),
                    ..found
                },
            }),
            (timestamp @ 0.., _) => record(log.at_timestamp(timestamp)),
            _ => Err(ErrorCode::UNSUPPORTED_VERSION),
        }
    }
}

/// The first version with a code for an offset that is not available yet.
const WAITS_FOR_HIGH_WATERMARK: i16 = 5;
/// The first version with leader epochs.
const HAS_LEADER_EPOCH: i16 = 4;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

fn refused(partition: &ListOffsetsPartition, code: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index: partition.partition_index,
        error_code: code,
        ..ListOffsetsPartitionResponse::default()
    }
}
