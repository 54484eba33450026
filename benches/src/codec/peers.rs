//! kafka-protocol and the protocol module of rskafka.

use std::io::Cursor;

use bytes::BytesMut;
use kafka_protocol::{
    protocol::StrBytes,
    records::{
        self as theirs, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, RecordBatchDecoder,
        RecordBatchEncoder, RecordEncodeOptions,
    },
};
use kwal_protocol::record::BatchHeader;
use rskafka::protocol::{
    record::{
        ControlBatchOrRecords, Record, RecordBatch, RecordBatchCompression, RecordBatchTimestampType,
        RecordHeader,
    },
    traits::{ReadType, WriteType},
};

use super::{BASE_TIMESTAMP, Input, Look, Payload, Sum, timestamp};

pub(super) fn kafka_protocol_records(payloads: &[Payload]) -> Vec<theirs::Record> {
    let record = |(index, payload): (usize, &Payload)| {
        let header = |header: &kwal_protocol::record::Header| {
            (StrBytes::from_string(header.key().into_owned()), header.value.clone())
        };
        theirs::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            timestamp_type: theirs::TimestampType::Creation,
            offset: index as i64,
            sequence: index as i32,
            timestamp: timestamp(index),
            key: payload.key.clone(),
            value: Some(payload.value.clone()),
            headers: payload.headers.iter().map(header).collect(),
        }
    };
    payloads.iter().enumerate().map(record).collect()
}

#[inline(never)]
pub(super) fn kafka_protocol_encode<L: Look>(input: &Input) -> u64 {
    let mut out = BytesMut::with_capacity(input.batch.len());
    let options = RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
    RecordBatchEncoder::encode(&mut out, &input.kafka_protocol, &options).expect("these are records");
    L::bytes(&out[BatchHeader::LEN..])
}

#[inline(never)]
pub(super) fn kafka_protocol_decode<L: Look>(input: &Input) -> u64 {
    let decoded = RecordBatchDecoder::decode(&mut input.batch.clone()).expect("the batch is in order");
    let mut sum = Sum::<L>::new();
    for record in &decoded.records {
        let headers = record.headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        sum.record(record.offset, record.timestamp, key, value, headers);
    }
    sum.value
}

pub(super) fn rskafka_batch(payloads: &[Payload]) -> RecordBatch {
    let record = |(index, payload): (usize, &Payload)| {
        let header = |header: &kwal_protocol::record::Header| RecordHeader {
            key: header.key().into_owned(),
            value: header.value.as_deref().unwrap_or_default().to_vec(),
        };
        Record {
            timestamp_delta: index as i64,
            offset_delta: index as i32,
            key: payload.key.as_deref().map(<[u8]>::to_vec),
            value: Some(payload.value.to_vec()),
            headers: payload.headers.iter().map(header).collect(),
        }
    };
    RecordBatch {
        base_offset: 0,
        partition_leader_epoch: -1,
        last_offset_delta: payloads.len() as i32 - 1,
        first_timestamp: BASE_TIMESTAMP,
        max_timestamp: timestamp(payloads.len() - 1),
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        records: ControlBatchOrRecords::Records(payloads.iter().enumerate().map(record).collect()),
        compression: RecordBatchCompression::NoCompression,
        is_transactional: false,
        timestamp_type: RecordBatchTimestampType::CreateTime,
    }
}

#[inline(never)]
pub(super) fn rskafka_encode<L: Look>(input: &Input) -> u64 {
    let mut out = Vec::with_capacity(input.batch.len());
    input.rskafka.write(&mut out).expect("these are records");
    L::bytes(&out[BatchHeader::LEN..])
}

#[inline(never)]
pub(super) fn rskafka_decode<L: Look>(input: &Input) -> u64 {
    let batch = RecordBatch::read(&mut Cursor::new(&input.batch[..])).expect("the batch is in order");
    let mut sum = Sum::<L>::new();
    if let ControlBatchOrRecords::Records(records) = &batch.records {
        for record in records {
            let headers = record.headers.iter().map(|h| (h.key.as_bytes(), Some(&h.value[..])));
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let timestamp = batch.first_timestamp + record.timestamp_delta;
            sum.record(batch.base_offset + i64::from(record.offset_delta), timestamp, key, value, headers);
        }
    }
    sum.value
}
