use std::time::{Duration, Instant};

use bytes::Bytes;
use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        DivergingEpoch, FetchLeader, FetchNodeEndpoint, FetchPartition, FetchPartitionResponse, FetchRequest,
        FetchResponse, FetchTopic, FetchTopicResponse, IsolationLevel,
    },
    record::Compression,
};
use kwal_transport::HostPort;

use super::{
    action::Continuation,
    handler::{Serve, Served},
    lookup::TopicKey,
    replica::Replica,
    request::RequestContext,
    state::{Cluster, later},
};
use crate::log::ReadLimit;

impl Serve for FetchRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> FetchResponse {
        let topics = self.topics.iter().map(|topic| FetchTopicResponse {
            topic: topic.topic.clone(),
            topic_id: topic.topic_id,
            partitions: topic.partitions.iter().map(|partition| refused(partition, code)).collect(),
        });
        FetchResponse { responses: topics.collect(), ..FetchResponse::default() }
    }

    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<FetchResponse> {
        if let Err(error_code) = check_session(&self) {
            return Served::Reply(FetchResponse { error_code, ..FetchResponse::default() });
        }
        let wait = Duration::from_millis(u64::try_from(self.max_wait_ms).unwrap_or_default());
        let until = later(cluster.now, wait);
        cluster.fetch(self, *context, until)
    }
}

impl Cluster {
    /// Responds to a fetch, if there is enough to read or it has waited long enough.
    fn fetch(
        &mut self,
        request: FetchRequest,
        context: RequestContext,
        until: Instant,
    ) -> Served<FetchResponse> {
        if self.now.monotonic < until && !self.can_be_answered(&request, &context) {
            let resume = Continuation::new(move |cluster| cluster.fetch(request, context, until));
            return Served::Wait { until, resume };
        }
        Served::Reply(self.read_all(&request, &context))
    }

    /// Returns whether there is enough to read, or an error that waiting would not resolve.
    fn can_be_answered(&mut self, request: &FetchRequest, context: &RequestContext) -> bool {
        let enough = limit(request.min_bytes).min(max_bytes(request));
        let mut readable = 0;
        for topic in &request.topics {
            for requested in &topic.partitions {
                match self.readable(topic, requested, context) {
                    Ok(replica) => {
                        let end = end_for(replica, request.isolation_level);
                        let enough = limit(requested.partition_max_bytes);
                        readable += replica.log.bytes_between(requested.fetch_offset, end, enough);
                    }
                    Err(_) => return true,
                }
            }
        }
        readable >= enough || request.topics.is_empty()
    }

    fn read_all(&mut self, request: &FetchRequest, context: &RequestContext) -> FetchResponse {
        let mut room = max_bytes(request);
        let mut first = true;
        let mut responses = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let mut read = |requested: &FetchPartition| {
                let replica = match self.readable(topic, requested, context) {
                    Ok(replica) => replica,
                    Err(refusal) => {
                        let current_leader = self.current_leader(topic, requested, &refusal, context);
                        return FetchPartitionResponse { current_leader, ..refusal.answer(requested) };
                    }
                };
                let limit = ReadLimit {
                    below: end_for(replica, request.isolation_level),
                    bytes: limit(requested.partition_max_bytes).min(room),
                    first_anyway: first,
                };
                let records = replica.log.read(requested.fetch_offset, limit);
                room = room.saturating_sub(records.len());
                first &= records.is_empty();
                answer(requested, replica, request.isolation_level, records)
            };
            responses.push(FetchTopicResponse {
                topic: topic.topic.clone(),
                topic_id: topic.topic_id,
                partitions: topic.partitions.iter().map(&mut read).collect(),
            });
        }
        let node_endpoints = endpoints(self, context.from.node, &responses);
        FetchResponse { responses, node_endpoints, ..FetchResponse::default() }
    }

    /// Returns the leader, for clients that fetched from another broker (KIP-951).
    fn current_leader(
        &self,
        topic: &FetchTopic,
        requested: &FetchPartition,
        refusal: &Refusal,
        context: &RequestContext,
    ) -> FetchLeader {
        let moved = matches!(
            refusal,
            Refusal::Code(ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::FENCED_LEADER_EPOCH)
        );
        if !moved || context.version < HAS_CURRENT_LEADER {
            return FetchLeader::default();
        }
        let known = self.known_leader(context.from.node, key(topic, context.version), requested.partition);
        let (leader_id, leader_epoch) = known.unwrap_or((-1, -1));
        FetchLeader { leader_id, leader_epoch }
    }

    /// Returns the replica, if it can be read at the requested offset.
    fn readable(
        &mut self,
        topic: &FetchTopic,
        requested: &FetchPartition,
        context: &RequestContext,
    ) -> Result<&Replica, Refusal> {
        let RequestContext { version, from, .. } = *context;
        let refuses_zstd = version < READS_ZSTD && self.settings.dialect.refuses_zstd();
        let (key, epoch) = (key(topic, version), requested.current_leader_epoch.max(-1));
        // Followers serve fetches, too (KIP-392).
        let found = match version >= FROM_FOLLOWERS {
            true => self.found(from.node, key, requested.partition, epoch),
            false => self.led(from.node, key, requested.partition, epoch),
        };
        let found = found.map_err(Refusal::Code)?;
        if refuses_zstd && found.config.compression == Some(Compression::Zstd) {
            return Err(Refusal::Code(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE));
        }
        let replica = &*found.replica;
        let log = &replica.log;
        if requested.last_fetched_epoch >= 0 {
            match log.end_of_epoch(requested.last_fetched_epoch) {
                None => return Err(Refusal::Code(ErrorCode::OFFSET_OUT_OF_RANGE)),
                Some(_) if requested.fetch_offset < log.start() => {
                    return Err(Refusal::Code(ErrorCode::OFFSET_OUT_OF_RANGE));
                }
                Some((epoch, end))
                    if epoch < requested.last_fetched_epoch || end < requested.fetch_offset =>
                {
                    return Err(Refusal::Diverged {
                        epoch,
                        end_offset: end,
                        high_watermark: replica.high_watermark,
                        last_stable: replica.last_stable(),
                        log_start: log.start(),
                    });
                }
                Some(_) => {}
            }
        }
        if !(log.start()..=log.end()).contains(&requested.fetch_offset) {
            return Err(Refusal::Code(ErrorCode::OFFSET_OUT_OF_RANGE));
        }
        if requested.partition_max_bytes < 0 {
            return Err(Refusal::Code(ErrorCode::UNKNOWN_SERVER_ERROR));
        }
        Ok(replica)
    }
}

/// Returns the offset up to which a reader may read: the high watermark, or the last stable offset.
pub(super) fn end_for(replica: &Replica, isolation: IsolationLevel) -> i64 {
    match isolation {
        IsolationLevel::READ_COMMITTED => replica.last_stable(),
        _ => replica.high_watermark,
    }
}

/// Why nothing is read.
enum Refusal {
    Code(ErrorCode),
    /// The records of the client and the log diverge (KIP-595).
    Diverged {
        epoch: i32,
        end_offset: i64,
        high_watermark: i64,
        last_stable: i64,
        log_start: i64,
    },
}

impl Refusal {
    fn answer(self, requested: &FetchPartition) -> FetchPartitionResponse {
        match self {
            Self::Code(code) => refused(requested, code),
            Self::Diverged { epoch, end_offset, high_watermark, last_stable, log_start } => {
                FetchPartitionResponse {
                    diverging_epoch: DivergingEpoch { epoch, end_offset },
                    high_watermark,
                    last_stable_offset: last_stable,
                    log_start_offset: log_start,
                    ..refused(requested, ErrorCode::NONE)
                }
            }
        }
    }
}

/// The first version with topic ids.
const BY_ID: i16 = 13;
/// The first version that supports zstd (KIP-110).
const READS_ZSTD: i16 = 10;
/// The first version in which followers answer clients.
const FROM_FOLLOWERS: i16 = 11;
/// The first version with the current leader in the response (KIP-951).
const HAS_CURRENT_LEADER: i16 = 16;
/// The default of `fetch.max.bytes`.
const BROKER_MAX_BYTES: usize = 55 << 20;

fn key(topic: &FetchTopic, version: i16) -> TopicKey<'_> {
    match version >= BY_ID {
        true => TopicKey::Id(topic.topic_id),
        false => TopicKey::Name(&topic.topic),
    }
}

/// Returns the addresses of the leaders that a response names (KIP-951).
fn endpoints(cluster: &Cluster, node: i32, topics: &[FetchTopicResponse]) -> Vec<FetchNodeEndpoint> {
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    let leaders = partitions.map(|partition| partition.current_leader.leader_id);
    let endpoint = |(node_id, address): (i32, HostPort)| FetchNodeEndpoint {
        node_id,
        host: address.host,
        port: address.port.into(),
        rack: None,
    };
    cluster.endpoints_of(node, leaders).into_iter().map(endpoint).collect()
}

fn max_bytes(request: &FetchRequest) -> usize {
    limit(request.max_bytes).min(BROKER_MAX_BYTES)
}

fn limit(bytes: i32) -> usize {
    usize::try_from(bytes).unwrap_or_default()
}

/// Checks the session epoch. Like any broker may, this one opens no fetch sessions (KIP-227).
fn check_session(request: &FetchRequest) -> Result<(), ErrorCode> {
    match request.session_epoch {
        // Without a session, closing one, or requesting one.
        -1 | 0 => Ok(()),
        _ => Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
    }
}

fn answer(
    requested: &FetchPartition,
    replica: &Replica,
    isolation: IsolationLevel,
    records: Bytes,
) -> FetchPartitionResponse {
    let offset = requested.fetch_offset;
    // Kafka looks up to which offset the records reach only roughly, in an index that short logs do not have.
    let aborted = || match offset < end_for(replica, isolation) {
        true if replica.log.ends_with_hole(offset) => None,
        true => Some(replica.known.transactions.aborted(offset, replica.log.end())),
        false => Some(Vec::new()),
    };
    FetchPartitionResponse {
        partition_index: requested.partition,
        high_watermark: replica.high_watermark,
        last_stable_offset: replica.last_stable(),
        log_start_offset: replica.log.start(),
        aborted_transactions: (isolation == IsolationLevel::READ_COMMITTED).then(aborted).flatten(),
        records: Some(records),
        ..FetchPartitionResponse::default()
    }
}

fn refused(requested: &FetchPartition, code: ErrorCode) -> FetchPartitionResponse {
    // If Kafka fails before it reads the log, its response has an empty list in place of null.
    let converts = code == ErrorCode::UNSUPPORTED_COMPRESSION_TYPE;
    let early = matches!(code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID);
    FetchPartitionResponse {
        partition_index: requested.partition,
        error_code: code,
        high_watermark: -1,
        aborted_transactions: (early || converts).then(Vec::new),
        records: (!converts).then(Bytes::new),
        ..FetchPartitionResponse::default()
    }
}
