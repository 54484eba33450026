//! The minimum work of an append, one batch in one frame and its response, and of a fetch.

use std::{hint, io};

use bytes::Bytes;
use kwal::{record::Record, transport::Stream};
use kwal_protocol::compression::Decompressor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::peer;
use crate::{
    shared::Failure,
    walk::{first, next_offset, walk},
};

/// The version of a fetch.
const FETCH: i16 = 12;
/// What stands before the records of a request: length, header, topic, partition.
const HEAD: usize = 64;
/// The header of a batch.
const BATCH: usize = 61;
/// The start of the bytes that the checksum covers.
const CRC_START: usize = 21;

/// A client that can do nothing else.
#[derive(Debug)]
pub(super) struct Floor {
    stream: Stream,
    request: Vec<u8>,
    response: Vec<u8>,
    next_id: i32,
    /// Where the records are in the response to a fetch, which has so many bytes.
    records_at: usize,
    fetched: usize,
    decompressor: Decompressor,
}

impl Floor {
    /// The peer answers a fetch with this batch.
    pub(super) fn new(stream: Stream, batch: &Bytes) -> Self {
        let (response, records_at) = peer::fetched(FETCH, batch);
        let fetched = response.len();
        Self {
            stream,
            request: Vec::with_capacity(2_048),
            response: vec![0; fetched.max(1_024)],
            next_id: 0,
            records_at,
            fetched,
            decompressor: Decompressor::new(),
        }
    }

    /// Writes once, reads the response, computes the checksum and walks the records. Returns the number of
    /// offsets.
    pub(super) async fn fetch(&mut self, value: impl FnMut(&[u8])) -> Result<i64, Failure> {
        let Self { stream, request, response, next_id, records_at, fetched, decompressor } = self;
        request.clear();
        request.resize(HEAD, 0);
        let len = (HEAD - 4) as u32;
        request[..4].copy_from_slice(&len.to_be_bytes());
        request[4..8].copy_from_slice(&[0, 1, 0, FETCH as u8]);
        request[8..12].copy_from_slice(&next_id.to_be_bytes());
        if stream.write(request).await? != request.len() {
            return Err("the request was not written".into());
        }
        let response = &mut response[..*fetched];
        let mut read = 0;
        while read < *fetched {
            read += stream.read(&mut response[read..]).await?;
        }
        if response[4..8] != next_id.to_be_bytes() {
            return Err("another response".into());
        }
        *next_id += 1;
        let records = &response[*records_at..];
        let (batch, _) = first(records).ok_or("no batch")?;
        let base_offset = batch.first_chunk().copied().map_or(0, i64::from_be_bytes);
        walk(batch, decompressor, value)?;
        Ok(next_offset(batch)? - base_offset)
    }

    /// Copies each value once, computes the checksum, writes once and reads once.
    pub(super) async fn append(&mut self, records: &[Record]) -> io::Result<i64> {
        let Self { stream, request, response, next_id, .. } = self;
        request.clear();
        request.resize(HEAD + BATCH, 0);
        for value in records.iter().filter_map(|record| record.value.as_ref()) {
            // Of a record: length, attributes, timestamp, offset, no key, the length of the value.
            request.extend_from_slice(&[0, 0, 0, 0, 0, 1]);
            request.extend_from_slice(value);
            request.push(0);
        }
        let len = (request.len() - 4) as u32;
        request[..4].copy_from_slice(&len.to_be_bytes());
        // Produce, version 13.
        request[4..8].copy_from_slice(&[0, 0, 0, 13]);
        request[8..12].copy_from_slice(&next_id.to_be_bytes());
        let crc = crc32c::crc32c(&request[HEAD + CRC_START..]);
        request[HEAD + 17..HEAD + CRC_START].copy_from_slice(&crc.to_be_bytes());
        if stream.write(request).await? != request.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let read = stream.read(response).await?;
        let id = response[..read].get(4..8).unwrap_or_default();
        if id != next_id.to_be_bytes() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        *next_id += 1;
        // Somewhere in there.
        Ok(hint::black_box(i64::from(response[read - 9])))
    }
}
