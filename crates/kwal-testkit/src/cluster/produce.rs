use std::time::{Duration, Instant};

use bytes::Bytes;
use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        ProduceLeader, ProduceNodeEndpoint, ProducePartition, ProducePartitionResponse, ProduceRequest,
        ProduceResponse, ProduceTopicResponse, RecordError,
    },
    record::{Batch, BatchError, BatchErrorKind, BatchHeader, Batches, Compression, NO_TIMESTAMP, RawBatch},
};
use kwal_transport::HostPort;

use super::{
    action::{CloseReason, Continuation},
    coordinator::is_internal,
    handler::{Serve, Served},
    lookup::{Found, TopicKey},
    node::Connected,
    partition::PartitionId,
    replica::Replica,
    request::RequestContext,
    state::{Cluster, Now, later},
};
use crate::{log::MAX_UNCOMPRESSED, producers::Expiry, topic_config::TopicConfig};

impl Serve for ProduceRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> ProduceResponse {
        let topics = self.topic_data.iter().map(|topic| ProduceTopicResponse {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partition_responses: topic
                .partition_data
                .iter()
                .map(|partition| Refusal::new(code, None).answer(partition.index))
                .collect(),
        });
        ProduceResponse { responses: topics.collect(), ..ProduceResponse::default() }
    }

    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<ProduceResponse> {
        let RequestContext { version, from, .. } = *context;
        let (acks, by_id) = (self.acks, version >= BY_ID);
        let mut all = self.topic_data.iter().flat_map(|topic| &topic.partition_data);
        if all.clone().any(|data| data.records.is_none()) {
            return Served::Close(CloseReason::NoRecords);
        }
        if self.transactional_id.is_none() && all.any(is_transactional) {
            let code = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
            return match acks {
                0 => Served::Silent { failed: true },
                _ => Served::Reply(self.error_response(cluster, code)),
            };
        }
        let timeout = Duration::from_millis(u64::try_from(self.timeout_ms).unwrap_or_default());
        let (mut failed, mut waits) = (false, Vec::new());
        let topics = self.topic_data.into_iter().enumerate().map(|(at, topic)| {
            let key = match by_id {
                true => TopicKey::Id(topic.topic_id),
                false => TopicKey::Name(&topic.name),
            };
            let partitions = topic.partition_data.into_iter().enumerate().map(|(part, data)| {
                let index = data.index;
                let records = data.records.map(|records| records.into_bytes()).unwrap_or_default();
                match cluster.append(Append { key, index, records, acks }, context) {
                    Ok((response, place)) => {
                        waits.push(Wait { at: (at, part), ..place });
                        response
                    }
                    Err(refusal) => {
                        failed = true;
                        let moved = refusal.code == ErrorCode::NOT_LEADER_OR_FOLLOWER
                            && version >= HAS_CURRENT_LEADER;
                        let leader = moved.then(|| cluster.known_leader(from.node, key, index)).flatten();
                        let (leader_id, leader_epoch) = leader.unwrap_or((-1, -1));
                        let current_leader = ProduceLeader { leader_id, leader_epoch };
                        ProducePartitionResponse { current_leader, ..refusal.answer(index) }
                    }
                }
            });
            let partition_responses = partitions.collect();
            ProduceTopicResponse { name: topic.name, topic_id: topic.topic_id, partition_responses }
        });
        let responses = topics.collect();
        match acks {
            0 => return Served::Silent { failed },
            -1 => {}
            _ => waits.clear(),
        }
        let appended =
            Appended { response: ProduceResponse { responses, ..Default::default() }, waits, from, version };
        cluster.acknowledge(appended, later(cluster.now, timeout))
    }
}

/// Appended batches that are acknowledged when all replicas in sync have them.
#[derive(Debug)]
pub(super) struct Appended {
    response: ProduceResponse,
    waits: Vec<Wait>,
    from: Connected,
    version: i16,
}

/// A batch that is to be acknowledged.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// The indices of its topic and partition in the response.
    at: (usize, usize),
    id: PartitionId,
    leader_epoch: i32,
    /// The high watermark that shows that all replicas in sync have it.
    end: i64,
}

impl Cluster {
    /// Responds, if every batch can be acknowledged or has failed by now.
    pub(super) fn acknowledge(&mut self, appended: Appended, until: Instant) -> Served<ProduceResponse> {
        let Appended { mut response, mut waits, from, version } = appended;
        let over = self.now.monotonic >= until;
        waits.retain(|wait| {
            let code = match self.replication_result(from.node, wait) {
                None if over => ErrorCode::REQUEST_TIMED_OUT,
                None => return true,
                Some(code) => code,
            };
            let (topic, partition) = wait.at;
            let answer = &mut response.responses[topic].partition_responses[partition];
            if code.is_error() {
                // The response has the offset all the same.
                (answer.error_code, answer.error_message) = (code, code.text().map(str::to_owned));
            }
            if code == ErrorCode::NOT_LEADER_OR_FOLLOWER && version >= HAS_CURRENT_LEADER {
                let key = TopicKey::Id(wait.id.topic);
                let (leader_id, leader_epoch) =
                    self.known_leader(from.node, key, wait.id.index).unwrap_or((-1, -1));
                answer.current_leader = ProduceLeader { leader_id, leader_epoch };
            }
            false
        });
        if !waits.is_empty() {
            let appended = Appended { response, waits, from, version };
            let resume = Continuation::new(move |cluster| cluster.acknowledge(appended, until));
            return Served::Wait { until, resume };
        }
        response.node_endpoints = endpoints(self, from.node, &response.responses);
        Served::Reply(response)
    }

    /// Returns `None` while not all replicas in sync have a batch.
    fn replication_result(&mut self, node: i32, wait: &Wait) -> Option<ErrorCode> {
        let Wait { id, leader_epoch, end, .. } = *wait;
        let waits_for_min_isr = self.settings.dialect.waits_for_min_isr();
        match self.led(node, TopicKey::Id(id.topic), id.index, -1) {
            Err(ErrorCode::UNKNOWN_TOPIC_ID) => Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            Err(code) => Some(code),
            Ok(found) if found.state.leader_epoch != leader_epoch => Some(ErrorCode::NOT_LEADER_OR_FOLLOWER),
            Ok(found) if found.replica.high_watermark < end => None,
            Ok(found) => match found.state.isr.len() < found.min_isr(waits_for_min_isr) {
                true => Some(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND),
                false => Some(ErrorCode::NONE),
            },
        }
    }
}

/// Returns the addresses of the leaders that a response names (KIP-951).
fn endpoints(cluster: &Cluster, node: i32, topics: &[ProduceTopicResponse]) -> Vec<ProduceNodeEndpoint> {
    let partitions = topics.iter().flat_map(|topic| &topic.partition_responses);
    let leaders = partitions.map(|partition| partition.current_leader.leader_id);
    let endpoint = |(node_id, address): (i32, HostPort)| ProduceNodeEndpoint {
        node_id,
        host: address.host,
        port: address.port.into(),
        rack: None,
    };
    cluster.endpoints_of(node, leaders).into_iter().map(endpoint).collect()
}

/// A batch and its partition.
struct Append<'a> {
    key: TopicKey<'a>,
    index: i32,
    records: Bytes,
    acks: i16,
}

/// Why a batch was not appended.
struct Refusal {
    code: ErrorCode,
    message: Option<String>,
    log_start: i64,
    records: Vec<RecordError>,
}

impl Refusal {
    fn new(code: ErrorCode, message: Option<String>) -> Self {
        Self { code, message, log_start: -1, records: Vec::new() }
    }

    fn with_message(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(code, Some(message.into()))
    }

    fn answer(self, index: i32) -> ProducePartitionResponse {
        ProducePartitionResponse {
            index,
            error_code: self.code,
            base_offset: -1,
            log_start_offset: self.log_start,
            record_errors: self.records,
            error_message: self.message.or_else(|| self.code.text().map(str::to_owned)),
            ..ProducePartitionResponse::default()
        }
    }
}

impl Cluster {
    /// Appends a batch, unless it is a duplicate or rejected.
    fn append(
        &mut self,
        call: Append<'_>,
        context: &RequestContext,
    ) -> Result<(ProducePartitionResponse, Wait), Refusal> {
        let Append { key, index, records, acks } = call;
        let RequestContext { version, from, .. } = *context;
        let (now, expiry) = (self.now, self.producer_expiry());
        if self.topic_name(key).is_some_and(is_internal) {
            return Err(Refusal::new(ErrorCode::INVALID_TOPIC_EXCEPTION, None));
        }
        let waits_for_min_isr = self.settings.dialect.waits_for_min_isr();
        let found = self.led(from.node, key, index, -1).map_err(|code| Refusal::new(code, None))?;
        let config = found.config;
        let batch = sole_batch(records, config, version)?;
        let header = *batch.header();
        if !matches!(acks, -1..=1) {
            return Err(Refusal::with_message(ErrorCode::INVALID_REQUIRED_ACKS, format!("acks = {acks}")));
        }
        if header.is_transactional() {
            // Kafka's code if no transaction is open (KIP-890).
            let code = match version >= VERIFIES_TRANSACTIONS {
                true => ErrorCode::TRANSACTION_ABORTABLE,
                false => ErrorCode::NOT_ENOUGH_REPLICAS,
            };
            return Err(Refusal::with_message(code, "there are no transactions here"));
        }
        let (in_sync, needed) = (found.state.isr.len(), found.min_isr(waits_for_min_isr));
        if acks == -1 && in_sync < needed {
            let message = format!("{in_sync} in sync, and min.insync.replicas is {needed}");
            let log_start = found.replica.log.start();
            return Err(Refusal {
                log_start,
                ..Refusal::with_message(ErrorCode::NOT_ENOUGH_REPLICAS, message)
            });
        }
        if let Some((_, code)) =
            found.refused_ids.filter(|(below, _)| (0..*below).contains(&header.producer_id))
        {
            let log_start = found.replica.log.start();
            self.fault_counts.producer_ids += 1;
            return Err(Refusal { log_start, ..Refusal::new(code, None) });
        }
        let known = &mut found.replica.known;
        known.producers.expire(expiry, |id| known.transactions.begun_at(id).is_some());
        let known = check_header(&header).and_then(|()| check_records(&batch, config, now)).and_then(
            |max_timestamp| match header.producer_id {
                NO_PRODUCER => Ok((None, max_timestamp)),
                _ => match known.producers.check(&header) {
                    Ok(known) => Ok((known, max_timestamp)),
                    Err((code, message)) => Err(Refusal::with_message(code, message)),
                },
            },
        );
        let log_start_offset = found.replica.log.start();
        let (known, max_timestamp) =
            known.map_err(|refusal| Refusal { log_start: log_start_offset, ..refusal })?;
        let append_time = config.log_append_time.then_some(now.unix_ms);
        let batch = in_codec(batch, config.compression);
        let (id, leader_epoch, sole) = (found.id, found.state.leader_epoch, found.state.isr == [from.node]);
        let (base_offset, log_append_time, end) = match known {
            Some(appended) => (appended.first_offset, Some(appended.timestamp), appended.last_offset + 1),
            None => {
                let base_offset = place(found.replica, batch, leader_epoch, append_time, max_timestamp, now);
                let end = found.replica.log.end();
                if sole && needed <= 1 {
                    // Also of a leader that does not know yet that it was deposed.
                    found.replica.high_watermark = end;
                }
                self.changed = true;
                self.appended(from);
                self.replicate(id);
                (base_offset, append_time, end)
            }
        };
        let response = ProducePartitionResponse {
            index,
            base_offset,
            log_append_time_ms: log_append_time.unwrap_or(NO_TIMESTAMP),
            log_start_offset,
            ..ProducePartitionResponse::default()
        };
        Ok((response, Wait { at: (0, 0), id, leader_epoch, end }))
    }

    /// Returns the expiration of producer ids.
    pub(super) fn producer_expiry(&self) -> Expiry {
        let broker = &self.settings.broker;
        Expiry {
            checked_at: self.last_run("producer.id.expiration.check.interval.ms"),
            after_ms: broker.number("producer.id.expiration.ms"),
        }
    }
}

impl Found<'_> {
    /// Returns how many replicas in sync an append with acks = all needs.
    fn min_isr(&self, capped: bool) -> usize {
        match capped {
            true => self.config.min_isr.min(self.state.replicas.len()),
            false => self.config.min_isr,
        }
    }
}

/// Recompresses a batch if the topic sets another codec (`compression.type`) that can be written.
fn in_codec(batch: Batch, codec: Option<Compression>) -> Batch {
    let Some(codec) = codec.filter(|codec| batch.header().compression().is_ok_and(|own| own != *codec))
    else {
        return batch;
    };
    let rewritten = || {
        let mut raw = RawBatch::from_batch(&batch, MAX_UNCOMPRESSED).ok()?;
        raw.header.attributes = raw.header.attributes & !BatchHeader::COMPRESSION_MASK | codec as i16;
        Batches::new(raw.encode().ok()?).next()?.ok()
    };
    rewritten().unwrap_or(batch)
}

/// Appends a checked batch with the timestamps of the log.
fn place(
    replica: &mut Replica,
    batch: Batch,
    partition_leader_epoch: i32,
    log_append_time: Option<i64>,
    max_timestamp: Option<i64>,
    now: Now,
) -> i64 {
    let (original, bytes) = (*batch.header(), batch.bytes().clone());
    // The log changes the bytes in place if it is their only owner.
    drop(batch);
    let time_kind = match log_append_time {
        Some(_) => BatchHeader::LOG_APPEND_TIME,
        None => 0,
    };
    let base_offset = replica.log.end();
    let header = BatchHeader {
        base_offset,
        partition_leader_epoch,
        attributes: original.attributes & !BatchHeader::LOG_APPEND_TIME | time_kind,
        max_timestamp: log_append_time.or(max_timestamp).unwrap_or(original.max_timestamp),
        ..original
    };
    replica.append(bytes, &header, now.unix_ms);
    base_offset
}

/// The first version with topic ids.
const BY_ID: i16 = 13;
/// The first version with the current leader in the response (KIP-951).
const HAS_CURRENT_LEADER: i16 = 10;
/// The first version that verifies transactions (KIP-890).
const VERIFIES_TRANSACTIONS: i16 = 11;
/// The first version that supports zstd (KIP-110).
const TAKES_ZSTD: i16 = 7;
/// The position of the magic byte in a batch, the same in older formats.
const MAGIC_AT: usize = 16;
/// The id of batches without a producer.
const NO_PRODUCER: i64 = -1;

fn is_transactional(data: &ProducePartition) -> bool {
    let records = data.records.clone().unwrap_or_default().into_bytes();
    BatchHeader::parse(&records).is_ok_and(|header| header.is_transactional())
}

/// Decodes the single batch of a partition (KIP-98). An incomplete one after it is dropped.
fn sole_batch(records: Bytes, config: &TopicConfig, version: i16) -> Result<Batch, Refusal> {
    let invalid = |message: &str| Refusal::with_message(ErrorCode::INVALID_RECORD, message);
    if let Ok(header) = BatchHeader::parse(&records) {
        let (size, limit) = (header.size_in_bytes(), config.max_message_bytes);
        if size > limit as i64 && size <= records.len() as i64 {
            let message = format!("the batch has {size} bytes, and max.message.bytes is {limit}");
            return Err(Refusal::with_message(ErrorCode::MESSAGE_TOO_LARGE, message));
        }
    }
    // Before the checksum is verified: older formats have it elsewhere.
    if matches!(records.get(MAGIC_AT), Some(0 | 1)) {
        return Err(invalid("a batch needs magic 2"));
    }
    let mut batches = Batches::new(records);
    let batch =
        batches.next().ok_or_else(|| invalid("a partition needs a whole batch"))?.map_err(unreadable)?;
    match batch.header().compression() {
        Ok(Compression::Zstd) if version < TAKES_ZSTD => {
            let message = format!("Produce {version} does not take zstd");
            return Err(Refusal::with_message(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message));
        }
        // Unknown codecs are detected later.
        _ => {}
    }
    match batches.next() {
        None => {}
        Some(Ok(_)) => return Err(invalid("a partition takes only one batch")),
        Some(Err(error)) => return Err(unreadable(error)),
    }
    Ok(batch)
}

fn unreadable(error: BatchError) -> Refusal {
    Refusal::with_message(ErrorCode::CORRUPT_MESSAGE, format!("{error}: {}", error.kind))
}

/// Checks the header of a client's batch as Kafka does.
fn check_header(header: &BatchHeader) -> Result<(), Refusal> {
    let BatchHeader { base_offset, last_offset_delta, count, producer_id, base_sequence, .. } = *header;
    let message = if base_offset != 0 {
        format!("the base offset is {base_offset} instead of 0")
    } else if count <= 0 || last_offset_delta != count - 1 {
        format!("{count} records take the offsets 0 to {last_offset_delta}")
    } else if header.is_control() {
        "clients write no control batches".to_owned()
    } else if producer_id != NO_PRODUCER && base_sequence < 0 {
        format!("producer {producer_id} gives the sequence {base_sequence}")
    } else {
        return Ok(());
    };
    Err(Refusal::with_message(ErrorCode::INVALID_RECORD, message))
}

/// Checks the records as Kafka does; returns their newest timestamp.
///
/// Codecs that are not built in are not checked.
fn check_records(batch: &Batch, config: &TopicConfig, now: Now) -> Result<Option<i64>, Refusal> {
    if batch.header().compression().is_ok_and(|codec| !codec.is_built_in()) {
        return Ok(None);
    }
    let mut newest = NO_TIMESTAMP;
    let mut errors = Vec::new();
    let mut code = ErrorCode::INVALID_RECORD;
    for (index, record) in batch.records(MAX_UNCOMPRESSED).map_err(malformed)?.iter().enumerate() {
        let record = record.map_err(malformed)?;
        newest = newest.max(record.timestamp_ms);
        let message = if record.offset_delta != index as i32 {
            format!("the offset delta is {} instead of {index}", record.offset_delta)
        } else if config.compacted && record.key.is_none() {
            "a compacted topic takes no record without a key".to_owned()
        } else if !config.log_append_time && is_outside_of_range(record.timestamp_ms, config, now) {
            code = ErrorCode::INVALID_TIMESTAMP;
            format!("the timestamp {} is too far from {}", record.timestamp_ms, now.unix_ms)
        } else {
            continue;
        };
        errors.push(RecordError { batch_index: index as i32, batch_index_error_message: Some(message) });
    }
    let Some(first) = errors.first() else { return Ok(Some(newest)) };
    let text = first.batch_index_error_message.as_deref().unwrap_or_default();
    let message = format!("record {}: {text}", first.batch_index);
    Err(Refusal { records: errors, ..Refusal::with_message(code, message) })
}

fn malformed(error: BatchError) -> Refusal {
    let code = match error.kind {
        BatchErrorKind::Compression(_) => ErrorCode::UNKNOWN_SERVER_ERROR,
        _ => ErrorCode::INVALID_RECORD,
    };
    Refusal::with_message(code, format!("{error}: {}", error.kind))
}

fn is_outside_of_range(timestamp: i64, config: &TopicConfig, now: Now) -> bool {
    timestamp != NO_TIMESTAMP
        && (now.unix_ms.saturating_sub(timestamp) > config.timestamp_before_max
            || timestamp.saturating_sub(now.unix_ms) > config.timestamp_after_max)
}
