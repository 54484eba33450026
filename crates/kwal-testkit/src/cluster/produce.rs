use bytes::Bytes;
use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopicResponse, RecordError,
    },
    record::{Batch, BatchError, BatchErrorKind, BatchHeader, Batches, Compression, NO_TIMESTAMP},
};

use super::{Arrival, Cluster, Now, Partition, Serve, Served, TopicKey};
use crate::{log::MAX_UNCOMPRESSED, topic_config::TopicConfig};

impl Serve for ProduceRequest {
    fn refuse(&self, _: &Cluster, code: ErrorCode) -> ProduceResponse {
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

    fn serve(self, cluster: &mut Cluster, arrival: &Arrival) -> Served<ProduceResponse> {
        let (acks, by_id) = (self.acks, arrival.exchange.version >= BY_ID);
        let has_transaction = self.transactional_id.is_some();
        let mut failed = false;
        let topics = self.topic_data.into_iter().map(|topic| {
            let key = match by_id {
                true => TopicKey::Id(topic.topic_id),
                false => TopicKey::Name(&topic.name),
            };
            let partitions = topic.partition_data.into_iter().map(|data| {
                let index = data.index;
                let records = data.records.map(|records| records.into_bytes()).unwrap_or_default();
                let call = Append { key, index, records, acks, has_transaction };
                match cluster.append(call, arrival) {
                    Ok(appended) => appended,
                    Err(refusal) => {
                        failed = true;
                        refusal.answer(index)
                    }
                }
            });
            let partition_responses = partitions.collect();
            ProduceTopicResponse { name: topic.name, topic_id: topic.topic_id, partition_responses }
        });
        let responses = topics.collect();
        match acks {
            0 => Served::Silent { failed },
            _ => Served::Reply(ProduceResponse { responses, ..ProduceResponse::default() }),
        }
    }
}

/// One batch and where it is to go.
struct Append<'a> {
    key: TopicKey<'a>,
    index: i32,
    records: Bytes,
    acks: i16,
    has_transaction: bool,
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

    fn saying(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(code, Some(message.into()))
    }

    fn answer(self, index: i32) -> ProducePartitionResponse {
        ProducePartitionResponse {
            index,
            error_code: self.code,
            base_offset: -1,
            log_start_offset: self.log_start,
            record_errors: self.records,
            error_message: self.message,
            ..ProducePartitionResponse::default()
        }
    }
}

impl Cluster {
    /// Appends one batch, unless it is there already or is refused.
    fn append(&mut self, call: Append<'_>, arrival: &Arrival) -> Result<ProducePartitionResponse, Refusal> {
        let Append { key, index, records, acks, has_transaction } = call;
        let version = arrival.exchange.version;
        let led = self.led(arrival.exchange.node, key, index, -1);
        let (config, partition) = led.map_err(|code| Refusal::new(code, None))?;
        let batch = sole_batch(records, config, version)?;
        let header = *batch.header();
        if !matches!(acks, -1..=1) {
            return Err(Refusal::saying(ErrorCode::INVALID_REQUIRED_ACKS, format!("acks = {acks}")));
        }
        let (in_sync, needed) = (partition.replicas.len(), config.min_insync_replicas);
        if acks == -1 && in_sync < needed {
            let message = format!("{in_sync} replicas are in sync, {needed} are needed");
            return Err(Refusal::saying(ErrorCode::NOT_ENOUGH_REPLICAS, message));
        }
        let log_append_time = config.log_append_time.then_some(arrival.now.unix_ms);
        let producer = check_header(&header, has_transaction)
            .and_then(|()| check_records(&batch, config, arrival.now))
            .and_then(|()| match header.producer_id {
                NO_PRODUCER => Ok(None),
                _ => partition
                    .producers
                    .check(&header)
                    .map_err(|(code, message)| Refusal::saying(code, message)),
            });
        let log_start = partition.log.start();
        let known = producer.map_err(|refusal| Refusal { log_start, ..refusal })?;
        let (base_offset, log_append_time) = match known {
            Some(appended) => (appended.first_offset, Some(appended.timestamp)),
            None => (place(partition, batch, log_append_time), log_append_time),
        };
        self.changed |= known.is_none();
        Ok(ProducePartitionResponse {
            index,
            base_offset,
            log_append_time_ms: log_append_time.unwrap_or(NO_TIMESTAMP),
            log_start_offset: log_start,
            ..ProducePartitionResponse::default()
        })
    }
}

fn place(partition: &mut Partition, batch: Batch, log_append_time: Option<i64>) -> i64 {
    let (header, bytes) = (*batch.header(), batch.bytes().clone());
    // The log changes the bytes in place if it is the only one that has them.
    drop(batch);
    let base_offset = partition.log.append(bytes, &header, partition.leader_epoch, log_append_time);
    if header.producer_id != NO_PRODUCER {
        let timestamp = log_append_time.unwrap_or(header.max_timestamp);
        partition.producers.note(&header, base_offset, timestamp);
    }
    base_offset
}

/// The first version that has topics by id.
const BY_ID: i16 = 13;
/// The first version that takes zstd (KIP-110).
const TAKES_ZSTD: i16 = 7;
/// The id of a producer that has none.
const NO_PRODUCER: i64 = -1;

/// The one batch that each partition must get (KIP-98), whole and of the right checksum. What is torn behind it is dropped.
fn sole_batch(records: Bytes, config: &TopicConfig, version: i16) -> Result<Batch, Refusal> {
    let invalid = |message: &str| Refusal::saying(ErrorCode::INVALID_RECORD, message);
    if let Ok(header) = BatchHeader::parse(&records) {
        let (size, limit) = (header.size_in_bytes(), config.max_message_bytes);
        if size > limit as i64 && size <= records.len() as i64 {
            let message = format!("the batch has {size} bytes, and max.message.bytes is {limit}");
            return Err(Refusal::saying(ErrorCode::MESSAGE_TOO_LARGE, message));
        }
    }
    let mut batches = Batches::new(records);
    let batch =
        batches.next().ok_or_else(|| invalid("a partition needs a whole batch"))?.map_err(unreadable)?;
    let header = *batch.header();
    if header.magic != BatchHeader::MAGIC {
        return Err(invalid("a batch needs magic 2"));
    }
    match header.compression() {
        Ok(Compression::Zstd) if version < TAKES_ZSTD => {
            let message = format!("Produce {version} does not take zstd");
            return Err(Refusal::saying(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message));
        }
        Ok(_) => {}
        Err(error) => return Err(Refusal::saying(ErrorCode::CORRUPT_MESSAGE, error.to_string())),
    }
    match batches.next() {
        None => {}
        Some(Ok(_)) => return Err(invalid("a partition takes only one batch")),
        Some(Err(error)) => return Err(unreadable(error)),
    }
    Ok(batch)
}

fn unreadable(error: BatchError) -> Refusal {
    let code = match error.kind {
        BatchErrorKind::Magic(0 | 1) => ErrorCode::INVALID_RECORD,
        _ => ErrorCode::CORRUPT_MESSAGE,
    };
    Refusal::saying(code, format!("{error}: {}", error.kind))
}

/// What Kafka wants of the header of a client's batch.
fn check_header(header: &BatchHeader, has_transaction: bool) -> Result<(), Refusal> {
    let BatchHeader { base_offset, last_offset_delta, count, producer_id, base_sequence, .. } = *header;
    let (code, message) = if base_offset != 0 {
        (ErrorCode::INVALID_RECORD, format!("the base offset is {base_offset} instead of 0"))
    } else if count <= 0 || last_offset_delta != count - 1 {
        let message = format!("{count} records take the offsets 0 to {last_offset_delta}");
        (ErrorCode::INVALID_RECORD, message)
    } else if header.is_control() {
        (ErrorCode::INVALID_RECORD, "clients write no control batches".to_owned())
    } else if producer_id != NO_PRODUCER && base_sequence < 0 {
        (ErrorCode::INVALID_RECORD, format!("producer {producer_id} gives the sequence {base_sequence}"))
    } else if header.is_transactional() && !has_transaction {
        let message = "a transactional batch needs a transactional id".to_owned();
        (ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, message)
    } else if header.is_transactional() {
        (ErrorCode::INVALID_TXN_STATE, "there are no transactions here".to_owned())
    } else {
        return Ok(());
    };
    Err(Refusal::saying(code, message))
}

/// What Kafka wants of the records. Those in a codec that is not built in are taken as they are.
fn check_records(batch: &Batch, config: &TopicConfig, now: Now) -> Result<(), Refusal> {
    let malformed =
        |error: BatchError| Refusal::saying(ErrorCode::INVALID_RECORD, format!("{error}: {}", error.kind));
    if !batch.header().compression().is_ok_and(Compression::is_built_in) {
        return Ok(());
    }
    let mut errors = Vec::new();
    let mut code = ErrorCode::INVALID_RECORD;
    for (index, record) in batch.records(MAX_UNCOMPRESSED).map_err(malformed)?.iter().enumerate() {
        let record = record.map_err(malformed)?;
        let message = if record.offset_delta != index as i32 {
            format!("the offset delta is {} instead of {index}", record.offset_delta)
        } else if config.compacted && record.key.is_none() {
            "a compacted topic takes no record without a key".to_owned()
        } else if !config.log_append_time && is_odd_time(record.timestamp_ms, config, now) {
            code = ErrorCode::INVALID_TIMESTAMP;
            format!("the timestamp {} is too far from {}", record.timestamp_ms, now.unix_ms)
        } else {
            continue;
        };
        errors.push(RecordError { batch_index: index as i32, batch_index_error_message: Some(message) });
    }
    let Some(first) = errors.first() else { return Ok(()) };
    let text = first.batch_index_error_message.as_deref().unwrap_or_default();
    let message = format!("record {}: {text}", first.batch_index);
    Err(Refusal { records: errors, ..Refusal::saying(code, message) })
}

fn is_odd_time(timestamp: i64, config: &TopicConfig, now: Now) -> bool {
    timestamp != NO_TIMESTAMP
        && (now.unix_ms.saturating_sub(timestamp) > config.timestamp_before_max
            || timestamp.saturating_sub(now.unix_ms) > config.timestamp_after_max)
}
