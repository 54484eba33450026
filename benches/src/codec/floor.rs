//! The minimum work of any codec, in the fewest steps of safe Rust: without error texts and optional data.

use std::hint;

use bytes::Bytes;
use kwal_protocol::record::BatchHeader;

use super::{BASE_TIMESTAMP, Input, Look, Payload, RECORDS, Sum};

/// The start of the bytes that the checksum covers.
const CRC_START: usize = 21;

/// Copies everything into one buffer; returns its length.
#[inline(never)]
pub(super) fn copy(input: &Input) -> u64 {
    let mut buffer = input.scratch.borrow_mut();
    let out = &mut buffer[..];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    for Payload { key, value, headers } in &input.payloads {
        if let Some(key) = key {
            put(key);
        }
        put(value);
        for header in headers {
            put(header.key_bytes());
            put(header.value.as_deref().unwrap_or_default());
        }
    }
    at as u64
}

/// Computes the lengths, writes every byte once into a preallocated buffer, then the checksum.
#[inline(never)]
pub(super) fn encode<L: Look>(input: &Input) -> u64 {
    let mut buffer = input.scratch.borrow_mut();
    let out = &mut buffer[..];
    let mut at = 0;
    for (index, Payload { key, value, headers }) in input.payloads.iter().enumerate() {
        let delta = (index as u64) << 1;
        let mut len = 1 + 2 * len_varint(delta) + len_nullable(key.as_ref()) + len_nullable(Some(value));
        len += len_varint((headers.len() as u64) << 1);
        for header in headers {
            len += len_nullable(Some(header.key_bytes())) + len_nullable(header.value.as_ref());
        }
        put_varint(out, &mut at, (len as u64) << 1);
        out[at] = 0;
        at += 1;
        put_varint(out, &mut at, delta);
        put_varint(out, &mut at, delta);
        put_nullable(out, &mut at, key.as_ref());
        put_nullable(out, &mut at, Some(value));
        put_varint(out, &mut at, (headers.len() as u64) << 1);
        for header in headers {
            put_nullable(out, &mut at, Some(header.key_bytes()));
            put_nullable(out, &mut at, header.value.as_ref());
        }
    }
    hint::black_box(crc32c::crc32c(&out[..at]));
    L::bytes(&out[..at])
}

/// Computes the checksum and reads every varint once.
///
/// Headers are checked, so that they can be returned without errors.
#[inline(never)]
pub(super) fn lazy<L: Look>(input: &Input) -> u64 {
    let mut at = begin(&input.batch);
    let batch = &input.batch[..];
    let mut sum = Sum::<L>::new();
    for _ in 0..count(batch) {
        let _length = take_varint(batch, &mut at);
        at += 1;
        let timestamp = BASE_TIMESTAMP + take_varint(batch, &mut at);
        let offset = take_varint(batch, &mut at);
        let key = take_nullable(batch, &mut at);
        let value = take_nullable(batch, &mut at);
        let left = take_varint(batch, &mut at) as usize;
        let start = at;
        for _ in 0..left {
            take_nullable(batch, &mut at);
            take_nullable(batch, &mut at);
        }
        sum.record(offset, timestamp, key, value, Walk { left, bytes: &batch[start..at] });
    }
    sum.value
}

/// The same into a `Vec` of slices that keep the batch.
#[inline(never)]
pub(super) fn owned<L: Look>(input: &Input) -> u64 {
    let batch = &input.batch;
    let mut at = begin(batch);
    let mut records = Vec::with_capacity(RECORDS);
    for _ in 0..count(batch) {
        let _length = take_varint(batch, &mut at);
        at += 1;
        let timestamp = BASE_TIMESTAMP + take_varint(batch, &mut at);
        let offset = take_varint(batch, &mut at);
        let key = take_slice(batch, &mut at);
        let value = take_slice(batch, &mut at);
        let left = take_varint(batch, &mut at) as usize;
        let mut headers = Vec::with_capacity(left);
        for _ in 0..left {
            headers.push((take_slice(batch, &mut at), take_slice(batch, &mut at)));
        }
        records.push((offset, timestamp, key, value, headers));
    }
    let mut sum = Sum::<L>::new();
    for (offset, timestamp, key, value, headers) in &records {
        let headers =
            headers.iter().map(|(key, value)| (key.as_deref().unwrap_or_default(), value.as_deref()));
        sum.record(*offset, *timestamp, key.as_deref(), value.as_deref(), headers);
    }
    sum.value
}

/// Headers, borrowed.
struct Walk<'a> {
    left: usize,
    bytes: &'a [u8],
}

impl<'a> Iterator for Walk<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut at = 0;
        let header = (take_nullable(self.bytes, &mut at)?, take_nullable(self.bytes, &mut at));
        self.bytes = &self.bytes[at..];
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Walk<'_> {}

/// Verifies the checksum and returns the start of the records.
fn begin(batch: &[u8]) -> usize {
    let stored = u32::from_be_bytes([batch[17], batch[18], batch[19], batch[20]]);
    assert_eq!(stored, crc32c::crc32c(&batch[CRC_START..]));
    BatchHeader::LEN
}

fn count(batch: &[u8]) -> i32 {
    i32::from_be_bytes([batch[57], batch[58], batch[59], batch[60]])
}

#[inline]
const fn len_varint(value: u64) -> usize {
    (((63 - (value | 1).leading_zeros()) * 9 + 73) / 64) as usize
}

#[inline]
fn len_nullable(bytes: Option<&Bytes>) -> usize {
    bytes.map_or(1, |bytes| len_varint((bytes.len() as u64) << 1) + bytes.len())
}

#[inline]
fn put_varint(out: &mut [u8], at: &mut usize, mut value: u64) {
    while value >= 0x80 {
        out[*at] = value as u8 | 0x80;
        *at += 1;
        value >>= 7;
    }
    out[*at] = value as u8;
    *at += 1;
}

#[inline]
fn put_nullable(out: &mut [u8], at: &mut usize, bytes: Option<&Bytes>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, at, (bytes.len() as u64) << 1);
            out[*at..*at + bytes.len()].copy_from_slice(bytes);
            *at += bytes.len();
        }
        None => {
            out[*at] = 1;
            *at += 1;
        }
    }
}

#[inline]
fn take_varint(bytes: &[u8], at: &mut usize) -> i64 {
    // No varint here is longer than two bytes.
    let mut value = u64::from(bytes[*at]);
    *at += 1;
    if value >= 0x80 {
        let second = u64::from(bytes[*at]);
        *at += 1;
        assert!(second < 0x80);
        value = value & 0x7f | second << 7;
    }
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[inline]
fn take_nullable<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let len = usize::try_from(take_varint(bytes, at)).ok()?;
    let start = *at;
    *at += len;
    Some(&bytes[start..*at])
}

#[inline]
fn take_slice(bytes: &Bytes, at: &mut usize) -> Option<Bytes> {
    let len = usize::try_from(take_varint(bytes, at)).ok()?;
    let start = *at;
    *at += len;
    Some(bytes.slice(start..*at))
}
