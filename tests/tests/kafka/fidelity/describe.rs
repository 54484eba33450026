//! Responses as short lines: every field that a broker chooses, without anything that differs between runs.
//!
//! What the [`World`](super::world::World) replaces is in angle brackets: `<id 1000>` for a producer id.

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

/// Describes a code and the broker's message, which is between “ and ”.
pub(crate) fn rejection(error_code: ErrorCode, message: Option<&str>) -> String {
    match message {
        None => code(error_code),
        Some(message) => format!("{} {}", code(error_code), quoted(message)),
    }
}

pub(crate) fn quoted(message: &str) -> String {
    format!("“{}”", message.split_whitespace().collect::<Vec<_>>().join(" "))
}

pub(crate) fn produced(response: &ProducePartitionResponse) -> String {
    let mut text = code(response.error_code);
    if response.base_offset != -1 {
        let _ = write!(text, ", offset {}", response.base_offset);
    }
    if response.log_append_time_ms != -1 {
        text.push_str(", stamped");
    }
    if response.log_start_offset != -1 {
        let _ = write!(text, ", log start {}", response.log_start_offset);
    }
    if response.current_leader.leader_id != -1 || response.current_leader.leader_epoch != -1 {
        let leader = &response.current_leader;
        let _ = write!(text, ", leader {} in epoch {}", leader.leader_id, leader.leader_epoch);
    }
    for record in &response.record_errors {
        let _ = write!(text, ", record {}", record.batch_index);
        if let Some(message) = &record.batch_index_error_message {
            let _ = write!(text, " {}", quoted(message));
        }
    }
    if let Some(message) = &response.error_message {
        let _ = write!(text, " {}", quoted(message));
    }
    text
}

pub(crate) fn fetched(response: &FetchPartitionResponse) -> String {
    let mut text = code(response.error_code);
    for (what, value) in [
        ("high watermark", response.high_watermark),
        ("last stable", response.last_stable_offset),
        ("log start", response.log_start_offset),
        ("read from broker", response.preferred_read_replica.into()),
    ] {
        if value != -1 {
            let _ = write!(text, ", {what} {value}");
        }
    }
    if response.diverging_epoch.epoch != -1 || response.diverging_epoch.end_offset != -1 {
        let diverging = &response.diverging_epoch;
        let _ = write!(text, ", diverging: epoch {} ends at {}", diverging.epoch, diverging.end_offset);
    }
    if response.current_leader.leader_id != -1 || response.current_leader.leader_epoch != -1 {
        let leader = &response.current_leader;
        let _ = write!(text, ", leader {} in epoch {}", leader.leader_id, leader.leader_epoch);
    }
    match &response.aborted_transactions {
        None => {}
        Some(aborted) if aborted.is_empty() => text.push_str(", aborted: none"),
        Some(aborted) => {
            for aborted in aborted {
                let _ = write!(text, ", aborted: <id {}> from {}", aborted.producer_id, aborted.first_offset);
            }
        }
    }
    match &response.records {
        None => text.push_str(", records: null"),
        Some(records) if records.is_empty() => text.push_str(", no records"),
        Some(records) => {
            let _ = write!(text, ", records {}", batches(records.clone()));
        }
    }
    text
}

/// Describes batches as `0-4 P1/0:0; 5-6; …`, and whether the last one is cut off.
fn batches(records: bytes::Bytes) -> String {
    let mut text = Vec::new();
    let mut batches = Batches::new(records);
    for found in batches.by_ref() {
        match found {
            Ok(found) => text.push(batch(&found)),
            Err(e) => text.push(format!("unreadable: {:?}", e.kind)),
        }
    }
    if batches.torn() > 0 {
        text.push("a part of the next".to_owned());
    }
    text.join("; ")
}

pub(crate) fn batch(batch: &Batch) -> String {
    let header = batch.header();
    let mut text = match header.last_offset_delta {
        0 => batch.base_offset().to_string(),
        _ => format!("{}-{}", batch.base_offset(), batch.last_offset()),
    };
    if header.is_control() {
        let raw = RawBatch::from_batch(batch, 1 << 20).unwrap();
        let marker = match raw.records.first().map(|record| record.control().unwrap()) {
            Some(ControlRecord::EndTransaction(end)) if end.committed => "commit".to_owned(),
            Some(ControlRecord::EndTransaction(_)) => "abort".to_owned(),
            Some(other) => format!("{other:?}"),
            None => "emptied marker".to_owned(),
        };
        let _ = write!(text, " {marker}");
    } else if header.is_transactional() {
        text.push_str(" transactional");
    }
    if header.producer_id != -1 {
        let _ =
            write!(text, " <id {}>/{}:{}", header.producer_id, header.producer_epoch, header.base_sequence);
    }
    match header.compression() {
        Ok(Compression::None) => {}
        Ok(codec) => {
            let _ = write!(text, " {}", codec.name());
        }
        Err(_) => text.push_str(" of an unknown codec"),
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        text.push_str(" stamped");
    }
    if header.partition_leader_epoch != 0 {
        let _ = write!(text, " in epoch {}", header.partition_leader_epoch);
    }
    text
}

/// Describes an offset. Its timestamp is relative to `since`.
pub(crate) fn offset(response: &ListOffsetsPartitionResponse, since: i64) -> String {
    let mut text = code(response.error_code);
    if response.error_code == ErrorCode::NONE || response.offset != -1 {
        let _ = write!(text, ", offset {}", response.offset);
    }
    if response.timestamp != -1 {
        let _ = write!(text, ", {} ms", response.timestamp - since);
    }
    if response.leader_epoch != -1 {
        let _ = write!(text, ", epoch {}", response.leader_epoch);
    }
    text
}

pub(crate) fn epoch_end(response: &EpochEndOffset) -> String {
    match (response.leader_epoch, response.end_offset) {
        (-1, -1) => code(response.error_code),
        (epoch, end) => format!("{}, epoch {epoch} ends at {end}", code(response.error_code)),
    }
}

pub(crate) fn producer_id(response: &InitProducerIdResponse) -> String {
    match response.producer_id {
        -1 => format!("{}, epoch {}", code(response.error_code), response.producer_epoch),
        id => format!("{}, <id {id}>, epoch {}", code(response.error_code), response.producer_epoch),
    }
}

pub(crate) fn topic(response: &MetadataTopicResponse) -> String {
    let mut text = code(response.error_code);
    let _ = match &response.name {
        Some(name) => write!(text, ", {name:?}"),
        None => write!(text, ", no name"),
    };
    if response.is_internal {
        text.push_str(", internal");
    }
    if !response.partitions.is_empty() {
        let mut partitions: Vec<_> = response.partitions.iter().collect();
        partitions.sort_by_key(|partition| partition.partition_index);
        for each in partitions {
            let _ = write!(text, "; {}: {}", each.partition_index, partition(each));
        }
    }
    text
}

pub(crate) fn partition(response: &MetadataPartition) -> String {
    let MetadataPartition { leader_id, leader_epoch, replica_nodes, isr_nodes, .. } = response;
    let mut text = match response.error_code {
        ErrorCode::NONE => String::new(),
        error_code => format!("{}, ", code(error_code)),
    };
    let mut isr = isr_nodes.clone();
    isr.sort_unstable();
    let _ = write!(
        text,
        "leader {leader_id} in epoch {leader_epoch}, replicas {replica_nodes:?}, in sync {isr:?}"
    );
    if !response.offline_replicas.is_empty() {
        let _ = write!(text, ", offline {:?}", response.offline_replicas);
    }
    text
}

pub(crate) fn created(response: &CreateTopicsResult) -> String {
    let mut text = rejection(response.error_code, response.error_message.as_deref());
    if response.num_partitions != -1 || response.replication_factor != -1 {
        let _ = write!(
            text,
            ", {} partitions, {} replicas",
            response.num_partitions, response.replication_factor
        );
    }
    if response.topic_id.is_zero() {
        text.push_str(", no id");
    }
    match &response.configs {
        None => text.push_str(", settings: null"),
        Some(configs) => {
            let set = configs.iter().filter(|config| config.config_source == TOPIC_CONFIG);
            let mut set: Vec<_> = set
                .map(|config| format!("{}={}", config.name, config.value.as_deref().unwrap_or("null")))
                .collect();
            set.sort_unstable();
            if !set.is_empty() {
                let _ = write!(text, ", with {}", set.join(" "));
            }
        }
    }
    text
}

/// The `config_source` of configs that are set for the topic.
pub(crate) const TOPIC_CONFIG: i8 = 1;

pub(crate) fn active_producers(response: &DescribeProducersPartitionResult) -> String {
    let mut text = rejection(response.error_code, response.error_message.as_deref());
    for producer in &response.active_producers {
        let _ = write!(
            text,
            ", <id {}> epoch {} last sequence {}, coordinator epoch {}, transaction from {}",
            producer.producer_id,
            producer.producer_epoch,
            producer.last_sequence,
            producer.coordinator_epoch,
            producer.current_txn_start_offset,
        );
    }
    text
}
