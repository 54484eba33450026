//! Answers in words: every field that a broker chooses, in a short line, with nothing in it that a second run would
//! change. What the [`World`](super::world::World) has to name is in angle brackets: `<id 1000>` for a producer id.

use std::fmt::Write as _;

use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    CreateTopicsResult, DescribeProducersPartitionResult, EpochEndOffset, FetchPartitionResponse,
    InitProducerIdResponse, ListOffsetsPartitionResponse, MetadataPartition, MetadataTopicResponse,
    ProducePartitionResponse,
};
use kwal_protocol::record::{Batch, Batches, Compression, ControlRecord, RawBatch, TimestampType};

pub(crate) fn code(code: ErrorCode) -> String {
    match code {
        ErrorCode::NONE => "OK".to_owned(),
        code => code.name().map_or_else(|| format!("error {}", code.0), str::to_owned),
    }
}

/// A code and the broker's words for it, which stand between “ and ”.
pub(crate) fn refusal(error_code: ErrorCode, message: Option<&str>) -> String {
    match message {
        None => code(error_code),
        Some(message) => format!("{} {}", code(error_code), quoted(message)),
    }
}

pub(crate) fn quoted(message: &str) -> String {
    format!("“{}”", message.split_whitespace().collect::<Vec<_>>().join(" "))
}

pub(crate) fn produced(answer: &ProducePartitionResponse) -> String {
    let mut told = code(answer.error_code);
    if answer.base_offset != -1 {
        let _ = write!(told, ", offset {}", answer.base_offset);
    }
    if answer.log_append_time_ms != -1 {
        told.push_str(", stamped");
    }
    if answer.log_start_offset != -1 {
        let _ = write!(told, ", log start {}", answer.log_start_offset);
    }
    if answer.current_leader.leader_id != -1 || answer.current_leader.leader_epoch != -1 {
        let leader = &answer.current_leader;
        let _ = write!(told, ", leader {} in epoch {}", leader.leader_id, leader.leader_epoch);
    }
    for record in &answer.record_errors {
        let _ = write!(told, ", record {}", record.batch_index);
        if let Some(message) = &record.batch_index_error_message {
            let _ = write!(told, " {}", quoted(message));
        }
    }
    if let Some(message) = &answer.error_message {
        let _ = write!(told, " {}", quoted(message));
    }
    told
}

pub(crate) fn fetched(answer: &FetchPartitionResponse) -> String {
    let mut told = code(answer.error_code);
    for (what, value) in [
        ("high watermark", answer.high_watermark),
        ("last stable", answer.last_stable_offset),
        ("log start", answer.log_start_offset),
        ("read from broker", answer.preferred_read_replica.into()),
    ] {
        if value != -1 {
            let _ = write!(told, ", {what} {value}");
        }
    }
    if answer.diverging_epoch.epoch != -1 || answer.diverging_epoch.end_offset != -1 {
        let diverging = &answer.diverging_epoch;
        let _ = write!(told, ", diverging: epoch {} ends at {}", diverging.epoch, diverging.end_offset);
    }
    if answer.current_leader.leader_id != -1 || answer.current_leader.leader_epoch != -1 {
        let leader = &answer.current_leader;
        let _ = write!(told, ", leader {} in epoch {}", leader.leader_id, leader.leader_epoch);
    }
    match &answer.aborted_transactions {
        None => {}
        Some(aborted) if aborted.is_empty() => told.push_str(", aborted: none"),
        Some(aborted) => {
            for aborted in aborted {
                let _ = write!(told, ", aborted: <id {}> from {}", aborted.producer_id, aborted.first_offset);
            }
        }
    }
    match &answer.records {
        None => told.push_str(", records: null"),
        Some(records) if records.is_empty() => told.push_str(", no records"),
        Some(records) => {
            let _ = write!(told, ", records {}", batches(records.clone()));
        }
    }
    told
}

/// `0-4 P1/0:0, 5-6, …`, and whether the end is cut off.
fn batches(records: bytes::Bytes) -> String {
    let mut told = Vec::new();
    let mut batches = Batches::new(records);
    for found in batches.by_ref() {
        match found {
            Ok(found) => told.push(batch(&found)),
            Err(e) => told.push(format!("unreadable: {:?}", e.kind)),
        }
    }
    if batches.torn() > 0 {
        told.push("a part of the next".to_owned());
    }
    told.join("; ")
}

fn batch(batch: &Batch) -> String {
    let header = batch.header();
    let mut told = match header.last_offset_delta {
        0 => batch.base_offset().to_string(),
        _ => format!("{}-{}", batch.base_offset(), batch.last_offset()),
    };
    if header.is_control() {
        let raw = RawBatch::from_batch(batch, 1 << 20).unwrap();
        let marker = match raw.records[0].control().unwrap() {
            ControlRecord::EndTransaction(end) if end.committed => "commit".to_owned(),
            ControlRecord::EndTransaction(_) => "abort".to_owned(),
            other => format!("{other:?}"),
        };
        let _ = write!(told, " {marker}");
    } else if header.is_transactional() {
        told.push_str(" transactional");
    }
    if header.producer_id != -1 {
        let _ =
            write!(told, " <id {}>/{}:{}", header.producer_id, header.producer_epoch, header.base_sequence);
    }
    match header.compression() {
        Ok(Compression::None) => {}
        Ok(codec) => {
            let _ = write!(told, " {}", codec.name());
        }
        Err(_) => told.push_str(" of an unknown codec"),
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        told.push_str(" stamped");
    }
    if header.partition_leader_epoch != 0 {
        let _ = write!(told, " in epoch {}", header.partition_leader_epoch);
    }
    told
}

/// A timestamp is told as what it is past `since`.
pub(crate) fn offset(answer: &ListOffsetsPartitionResponse, since: i64) -> String {
    let mut told = code(answer.error_code);
    if answer.error_code == ErrorCode::NONE || answer.offset != -1 {
        let _ = write!(told, ", offset {}", answer.offset);
    }
    if answer.timestamp != -1 {
        let _ = write!(told, ", {} ms", answer.timestamp - since);
    }
    if answer.leader_epoch != -1 {
        let _ = write!(told, ", epoch {}", answer.leader_epoch);
    }
    told
}

pub(crate) fn epoch_end(answer: &EpochEndOffset) -> String {
    match (answer.leader_epoch, answer.end_offset) {
        (-1, -1) => code(answer.error_code),
        (epoch, end) => format!("{}, epoch {epoch} ends at {end}", code(answer.error_code)),
    }
}

pub(crate) fn producer_id(answer: &InitProducerIdResponse) -> String {
    match answer.producer_id {
        -1 => format!("{}, epoch {}", code(answer.error_code), answer.producer_epoch),
        id => format!("{}, <id {id}>, epoch {}", code(answer.error_code), answer.producer_epoch),
    }
}

pub(crate) fn topic(answer: &MetadataTopicResponse) -> String {
    let mut told = code(answer.error_code);
    let _ = match &answer.name {
        Some(name) => write!(told, ", {name:?}"),
        None => write!(told, ", no name"),
    };
    if answer.is_internal {
        told.push_str(", internal");
    }
    if !answer.partitions.is_empty() {
        let mut partitions: Vec<_> = answer.partitions.iter().collect();
        partitions.sort_by_key(|partition| partition.partition_index);
        for each in partitions {
            let _ = write!(told, "; {}: {}", each.partition_index, partition(each));
        }
    }
    told
}

pub(crate) fn partition(answer: &MetadataPartition) -> String {
    let MetadataPartition { leader_id, leader_epoch, replica_nodes, isr_nodes, .. } = answer;
    let mut told = match answer.error_code {
        ErrorCode::NONE => String::new(),
        error_code => format!("{}, ", code(error_code)),
    };
    let mut isr = isr_nodes.clone();
    isr.sort_unstable();
    let _ = write!(
        told,
        "leader {leader_id} in epoch {leader_epoch}, replicas {replica_nodes:?}, in sync {isr:?}"
    );
    if !answer.offline_replicas.is_empty() {
        let _ = write!(told, ", offline {:?}", answer.offline_replicas);
    }
    told
}

pub(crate) fn created(answer: &CreateTopicsResult) -> String {
    let mut told = refusal(answer.error_code, answer.error_message.as_deref());
    if answer.num_partitions != -1 || answer.replication_factor != -1 {
        let _ =
            write!(told, ", {} partitions, {} replicas", answer.num_partitions, answer.replication_factor);
    }
    if answer.topic_id.is_zero() {
        told.push_str(", no id");
    }
    match &answer.configs {
        None => told.push_str(", settings: null"),
        Some(configs) => {
            let set = configs.iter().filter(|config| config.config_source == FROM_TOPIC);
            let mut set: Vec<_> = set
                .map(|config| format!("{}={}", config.name, config.value.as_deref().unwrap_or("null")))
                .collect();
            set.sort_unstable();
            if !set.is_empty() {
                let _ = write!(told, ", with {}", set.join(" "));
            }
        }
    }
    told
}

/// What `config_source` is of a setting of the topic itself.
pub(crate) const FROM_TOPIC: i8 = 1;

pub(crate) fn active_producers(answer: &DescribeProducersPartitionResult) -> String {
    let mut told = refusal(answer.error_code, answer.error_message.as_deref());
    for producer in &answer.active_producers {
        let _ = write!(
            told,
            ", <id {}> epoch {} last sequence {}, coordinator epoch {}, transaction from {}",
            producer.producer_id,
            producer.producer_epoch,
            producer.last_sequence,
            producer.coordinator_epoch,
            producer.current_txn_start_offset,
        );
    }
    told
}
