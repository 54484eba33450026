//! The minimum work of reading a log: no client, one request ahead, one buffer.

use std::{error::Error, hint};

use bytes::{Bytes, BytesMut};
use kwal_protocol::{
    api::{Body, decode_response_header, encode_request},
    compression::Decompressor,
    messages::{
        FetchPartition, FetchRequest, FetchResponse, FetchTopic, ListOffsetsPartition, ListOffsetsRequest,
        ListOffsetsResponse, ListOffsetsTopic,
    },
    record::BatchHeader,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Content, Measured, Task};
use crate::walk::{LIMIT, first, next_offset, walk};

/// The newest version that names topics.
const FETCH: i16 = 12;
const LIST_OFFSETS: i16 = 8;
const LATEST: i64 = -1;

/// Reads the log with as little as possible: the next request is sent before the last response is looked
/// at; its buffer and that of decompression are used again; the checksum is computed; records are walked.
///
/// # Errors
/// Those of the stream; a batch is not as expected.
pub async fn floor(task: &Task) -> Result<Measured, Box<dyn Error>> {
    let address = task.bootstrap.first().ok_or("no address")?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut wire = Wire { stream, task, buffer: BytesMut::new() };
    let end = wire.end().await?;
    let mut reading = task.reading();
    let mut decompressor = Decompressor::new();
    wire.request(0).await?;
    let mut next = 0;
    while next < end {
        let records = wire.response().await?;
        next = next_offset(&records)?.max(next);
        if next < end {
            wire.request(next).await?;
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

/// Decompresses the batches of a log again and again, into one buffer, and nothing else.
///
/// # Errors
/// The codec is not part of this build.
pub fn codec_alone(task: &Task, content: Content) -> Result<Measured, Box<dyn Error>> {
    let templates = content.templates()?;
    let sums: Vec<_> = (0..templates.len()).map(|batch| content.batch_sum(batch)).collect();
    let bytes = (content.records * content.size) as u64;
    let mut decompressor = Decompressor::new();
    let mut reading = task.reading();
    for batch in 0..content.batches {
        let body = templates[batch % templates.len()].slice(BatchHeader::LEN..);
        hint::black_box(decompressor.decompress(content.codec, &body, LIMIT)?);
        reading.batch(content.records as u64, bytes, sums[batch % sums.len()]);
        reading.step()?;
    }
    reading.finish()
}

struct Wire<'a> {
    stream: TcpStream,
    task: &'a Task,
    buffer: BytesMut,
}

impl Wire<'_> {
    async fn end(&mut self) -> Result<i64, Box<dyn Error>> {
        let partition = ListOffsetsPartition { timestamp: LATEST, ..Default::default() };
        let topic = ListOffsetsTopic { name: self.task.topic.clone(), partitions: vec![partition] };
        let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
        let mut frame = encode_request(&request, LIST_OFFSETS, 0, None)?;
        self.stream.write_all_buf(&mut frame).await?;
        let frame = self.frame().await?;
        let version = ListOffsetsResponse::version(LIST_OFFSETS)?;
        let (_, body) = decode_response_header::<ListOffsetsResponse>(&frame, version)?;
        let response = ListOffsetsResponse::decode(&frame.slice(body.position()..), version)?;
        let found = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
        Ok(found.ok_or("no offset")?.offset)
    }

    async fn request(&mut self, fetch_offset: i64) -> Result<(), Box<dyn Error>> {
        let step = self.task.step;
        let partition = FetchPartition { fetch_offset, partition_max_bytes: step, ..Default::default() };
        let topic =
            FetchTopic { topic: self.task.topic.clone(), partitions: vec![partition], ..Default::default() };
        let request = FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: step,
            topics: vec![topic],
            ..Default::default()
        };
        let mut frame = encode_request(&request, FETCH, 0, None)?;
        Ok(self.stream.write_all_buf(&mut frame).await?)
    }

    /// Returns the records of a response.
    async fn response(&mut self) -> Result<Bytes, Box<dyn Error>> {
        let frame = self.frame().await?;
        let version = FetchResponse::version(FETCH)?;
        let (_, body) = decode_response_header::<FetchResponse>(&frame, version)?;
        let response = FetchResponse::decode(&frame.slice(body.position()..), version)?;
        let found = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
        Ok(found.and_then(|found| found.records).unwrap_or_default())
    }

    async fn frame(&mut self) -> Result<Bytes, Box<dyn Error>> {
        let len = usize::try_from(self.stream.read_i32().await?)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.reserve(len);
        let mut limited = (&mut self.stream).take(len as u64);
        while buffer.len() < len {
            if limited.read_buf(&mut buffer).await? == 0 {
                return Err("the peer closed the connection".into());
            }
        }
        Ok(buffer.freeze())
    }

    /// Takes the buffer back.
    fn give_back(&mut self, records: Bytes) {
        self.buffer = records.try_into_mut().unwrap_or_default();
    }
}
