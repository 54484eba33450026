//! The minimum work of appending batches: no client, one buffer, one write per batch.
//!
//! The request is put together by hand, in an old version whose lengths have a fixed size, so that the head
//! is encoded once.

use std::{collections::VecDeque, io::IoSlice};

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::{io::AsyncWriteExt, time::Instant};

use super::wire::Wire;
use crate::shared::{
    Failure, Measured, Meter, Task,
    append::{self, Appender},
};

/// The newest version without compact lengths.
const PRODUCE: i16 = 8;
const TIMEOUT_MS: i32 = 30_000;
/// The header of a batch, and in it the length, the checksum, what that covers, and the record counts.
const BATCH: usize = 61;
const BATCH_LENGTH: usize = 8;
const CRC: usize = 17;
const CRC_START: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const COUNT: usize = 57;

/// Appends with as little as possible, and with slices of the caller's values if `is_sliced`.
pub(crate) async fn append(task: &Task, is_sliced: bool) -> Result<Measured, Failure> {
    let wire = Wire::connect(task).await?;
    let floor = Floor {
        wire,
        head: head(&task.topic),
        request: Vec::new(),
        cuts: Vec::new(),
        is_sliced,
        partitions: task.partitions,
        in_flight: task.partitions * task.window,
        // Before its error code: correlation id, topics, name, partitions, index.
        error_at: 4 + 4 + 2 + task.topic.len() + 4 + 4,
        timestamp_ms: OffsetDateTime::now_utc().unix_timestamp() * 1_000,
    };
    append::run(task, floor).await
}

#[derive(Debug)]
struct Floor {
    wire: Wire,
    /// The request before the batch.
    head: Vec<u8>,
    request: Vec<u8>,
    /// Where the values are in the request that are not copied into it.
    cuts: Vec<usize>,
    is_sliced: bool,
    partitions: usize,
    in_flight: usize,
    error_at: usize,
    /// Of all records.
    timestamp_ms: i64,
}

/// Returns the request up to the batch. Its length, correlation id, partition and the size of the records are
/// set for each.
fn head(topic: &str) -> Vec<u8> {
    let mut head = vec![0; 4];
    let mut put = |bytes: &[u8]| head.extend_from_slice(bytes);
    put(&[0, 0]);
    put(&PRODUCE.to_be_bytes());
    put(&[0; 4]);
    // No client id, no transactional id.
    put(&[0xff; 2]);
    put(&[0xff; 2]);
    // All replicas acknowledge.
    put(&[0xff; 2]);
    put(&TIMEOUT_MS.to_be_bytes());
    put(&1_i32.to_be_bytes());
    put(&(topic.len() as i16).to_be_bytes());
    put(topic.as_bytes());
    put(&1_i32.to_be_bytes());
    put(&[0; 8]);
    head
}

impl Floor {
    /// Puts the request together in the buffer.
    fn encode(&mut self, partition: i32, values: &[Bytes]) {
        let Self { head, request, cuts, is_sliced, timestamp_ms, .. } = self;
        request.clear();
        cuts.clear();
        request.extend_from_slice(head);
        request.resize(head.len() + BATCH, 0);
        for (delta, value) in values.iter().enumerate() {
            let (delta_len, value_len) = (varint_len(delta as u64 * 2), varint_len(value.len() as u64 * 2));
            // Attributes, timestamp, no key, no headers.
            let len = 1 + 1 + delta_len + 1 + value_len + value.len() + 1;
            varint(request, len as u64 * 2);
            request.extend_from_slice(&[0, 0]);
            varint(request, delta as u64 * 2);
            request.push(1);
            varint(request, value.len() as u64 * 2);
            if *is_sliced {
                cuts.push(request.len());
            } else {
                request.extend_from_slice(value);
            }
            request.push(0);
        }
        let sliced: usize = if *is_sliced { values.iter().map(Bytes::len).sum() } else { 0 };
        let (at, len) = (head.len(), request.len() + sliced);
        let mut set = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
        let be = |number: usize| (number as u32).to_be_bytes();
        set(0, &be(len - 4));
        set(at - 8, &partition.to_be_bytes());
        set(at - 4, &be(len - at));
        set(at + BATCH_LENGTH, &be(len - at - 12));
        // No leader epoch is known; format 2.
        set(at + 12, &[0xff, 0xff, 0xff, 0xff, 2]);
        set(at + LAST_OFFSET_DELTA, &be(values.len() - 1));
        for timestamp in [27, 35] {
            set(at + timestamp, &timestamp_ms.to_be_bytes());
        }
        // Neither producer id nor epoch nor sequence number.
        set(at + COUNT - 14, &[0xff; 14]);
        set(at + COUNT, &be(values.len()));
        let mut crc = 0;
        for piece in pieces(&request[at + CRC_START..], at + CRC_START, cuts, values) {
            crc = crc32c::crc32c_append(crc, piece);
        }
        request[at + CRC..at + CRC + 4].copy_from_slice(&crc.to_be_bytes());
    }

    async fn write(&mut self, values: &[Bytes]) -> Result<(), Failure> {
        let Self { wire, request, cuts, .. } = self;
        if cuts.is_empty() {
            return Ok(wire.stream.write_all(request).await?);
        }
        let mut slices: Vec<_> = pieces(request, 0, cuts, values).map(IoSlice::new).collect();
        let mut slices = &mut slices[..];
        while !slices.is_empty() {
            let written = wire.stream.write_vectored(slices).await?;
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }

    async fn acknowledged(&mut self) -> Result<(), Failure> {
        let response = self.wire.response().await?;
        if response.get(self.error_at..self.error_at + 2) != Some(&[0, 0]) {
            return Err("the append failed".into());
        }
        self.wire.give_back(response);
        Ok(())
    }
}

/// Returns the pieces of a request from `begin` on, with the values in between that were not copied.
fn pieces<'a>(
    request: &'a [u8],
    begin: usize,
    cuts: &'a [usize],
    values: &'a [Bytes],
) -> impl Iterator<Item = &'a [u8]> {
    let ends = cuts.iter().map(move |cut| cut - begin).chain([request.len()]);
    let begins = [0].into_iter().chain(cuts.iter().map(move |cut| cut - begin));
    let framing = begins.zip(ends).map(|(begin, end)| &request[begin..end]);
    let values = values[..cuts.len()].iter().map(|value| &value[..]).chain([&[][..]]);
    framing.zip(values).flat_map(|(framing, value)| [framing, value]).filter(|piece| !piece.is_empty())
}

#[inline]
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

const fn varint_len(number: u64) -> usize {
    (number | 1).ilog2() as usize / 7 + 1
}

impl Appender for Floor {
    type Batch = Vec<Bytes>;

    fn batch(&self, values: &[Vec<u8>]) -> Vec<Bytes> {
        values.iter().cloned().map(Bytes::from).collect()
    }

    async fn round(&mut self, batches: Vec<Vec<Bytes>>, meter: &mut Meter) -> Result<(), Failure> {
        let mut in_flight = VecDeque::new();
        for (index, values) in batches.into_iter().enumerate() {
            if in_flight.len() == self.in_flight
                && let Some(begin) = in_flight.pop_front()
            {
                self.acknowledged().await?;
                meter.append(Instant::elapsed(&begin));
            }
            let begin = Instant::now();
            self.encode((index % self.partitions) as i32, &values);
            self.write(&values).await?;
            in_flight.push_back(begin);
        }
        for begin in in_flight {
            self.acknowledged().await?;
            meter.append(begin.elapsed());
        }
        Ok(())
    }
}
