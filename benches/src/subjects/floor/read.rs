//! The minimum work of reading a log: no client, one request ahead, one buffer.

use bytes::Bytes;
use kwal_protocol::{
    api::encode_request,
    compression::Decompressor,
    messages::{
        FetchPartition, FetchRequest, FetchResponse, FetchTopic, ListOffsetsPartition, ListOffsetsRequest,
        ListOffsetsResponse, ListOffsetsTopic,
    },
};
use tokio::io::AsyncWriteExt;

use super::wire::{Wire, decode};
use crate::{
    shared::{Failure, Measured, Task},
    walk::{first, next_offset, walk},
};

/// The newest version that names topics.
const FETCH: i16 = 12;
const LIST_OFFSETS: i16 = 8;
const LATEST: i64 = -1;

/// Reads the log with as little as possible: the next request is sent before the last response is looked
/// at; its buffer and that of decompression are used again; the checksum is computed; records are walked.
///
/// # Errors
/// Those of the stream; a batch is not as expected.
pub(crate) async fn read(task: &Task) -> Result<Measured, Failure> {
    let mut wire = Wire::connect(task).await?;
    let end = end(&mut wire, task).await?;
    let mut reading = task.reading();
    let mut decompressor = Decompressor::new();
    request(&mut wire, task, 0).await?;
    let mut next = 0;
    while next < end {
        let records = response(&mut wire).await?;
        next = next_offset(&records)?.max(next);
        if next < end {
            request(&mut wire, task, next).await?;
        }
        let mut rest = &records[..];
        while let Some((batch, others)) = first(rest) {
            rest = others;
            walk(batch, &mut decompressor, |value| reading.value(value))?;
        }
        reading.step()?;
        wire.give_back(records);
    }
    reading.finish()
}

async fn end(wire: &mut Wire, task: &Task) -> Result<i64, Failure> {
    let partition = ListOffsetsPartition { timestamp: LATEST, ..Default::default() };
    let topic = ListOffsetsTopic { name: task.topic.clone(), partitions: vec![partition] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    let mut frame = encode_request(&request, LIST_OFFSETS, 0, None)?;
    wire.stream.write_all_buf(&mut frame).await?;
    let response: ListOffsetsResponse = decode(&wire.response().await?, LIST_OFFSETS)?;
    let found = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
    Ok(found.ok_or("no offset")?.offset)
}

async fn request(wire: &mut Wire, task: &Task, fetch_offset: i64) -> Result<(), Failure> {
    let step = task.step;
    let partition = FetchPartition { fetch_offset, partition_max_bytes: step, ..Default::default() };
    let topic = FetchTopic { topic: task.topic.clone(), partitions: vec![partition], ..Default::default() };
    let request = FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: step,
        topics: vec![topic],
        ..Default::default()
    };
    let mut frame = encode_request(&request, FETCH, 0, None)?;
    Ok(wire.stream.write_all_buf(&mut frame).await?)
}

/// Returns the records of a response.
async fn response(wire: &mut Wire) -> Result<Bytes, Failure> {
    let response: FetchResponse = decode(&wire.response().await?, FETCH)?;
    let found = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
    Ok(found.and_then(|found| found.records).unwrap_or_default())
}
