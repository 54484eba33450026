//! One batch of records through every codec: kwal's, those of its peers, and the floors.
//!
//! A floor is the minimum work of any codec.
//!
//! All codecs get the same records, and their results are compared byte by byte before the measurement.

mod floor;
mod peers;

use std::{cell::RefCell, fmt};

use bytes::Bytes;
use kwal_protocol::{
    compression::Compression,
    record::{BatchBuilder, BatchHeader, Batches, Headers},
};

use crate::values;

/// Records per batch.
pub const RECORDS: usize = 1000;
/// The timestamp of the first record; the others follow in steps of one millisecond.
const BASE_TIMESTAMP: i64 = 1_700_000_000_000;

/// The shape of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// A value of 100 bytes.
    Small,
    /// A value of 100 bytes, a key of 16 and two headers.
    Headers,
    /// A value of 1 KiB.
    Large,
}

impl Shape {
    /// All shapes.
    pub const ALL: [Self; 3] = [Self::Small, Self::Headers, Self::Large];

    /// Returns the name, without spaces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "100B",
            Self::Headers => "100B+key+headers",
            Self::Large => "1KiB",
        }
    }

    fn payloads(self) -> Vec<Payload> {
        let size = if self == Self::Large { 1024 } else { 100 };
        let payload = |(index, value): (usize, Vec<u8>)| {
            let (key, headers) = match self {
                Self::Headers => (
                    Some(Bytes::from(format!("key-{index:012}"))),
                    [("trace", "0123456789abcdef"), ("type", "event")].into(),
                ),
                _ => (None, Headers::new()),
            };
            Payload { key, value: value.into(), headers }
        };
        values(RECORDS, size, 4).into_iter().enumerate().map(payload).collect()
    }
}

/// An operation on a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Encodes records, with their checksum.
    Encode,
    /// Decodes borrowed records, with checksum and headers verified.
    Lazy,
    /// Decodes a `Vec` of owned records, with the checksum verified.
    Owned,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 3] = [Self::Encode, Self::Lazy, Self::Owned];

    /// Returns the name, without spaces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Lazy => "lazy-decode",
            Self::Owned => "owned-decode",
        }
    }

    /// A measured codec.
    pub const fn subjects(self) -> &'static [Subject] {
        match self {
            Self::Encode => &[
                Subject::Copy,
                Subject::Crc,
                Subject::CrcFast,
                Subject::Floor,
                Subject::Kwal,
                Subject::KafkaProtocol,
                Subject::Rskafka,
            ],
            Self::Lazy => &[Subject::Floor, Subject::Kwal],
            Self::Owned => &[Subject::Floor, Subject::Kwal, Subject::KafkaProtocol, Subject::Rskafka],
        }
    }
}

/// The measured codecs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// Copies keys, values and headers into one buffer, nothing else.
    Copy,
    /// The checksum alone, by the crate that kwal uses.
    Crc,
    /// The checksum alone, by crc-fast, which is faster on processors with AVX-512.
    CrcFast,
    /// A loop of the minimum work: copy or slice, varints, checksum (by the crate that kwal uses).
    Floor,
    /// kwal-protocol.
    Kwal,
    /// kafka-protocol 0.18.
    KafkaProtocol,
    /// The codec inside of rskafka 0.6.
    Rskafka,
}

impl Subject {
    /// Returns the name, without spaces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Crc => "crc",
            Self::CrcFast => "crc-fast",
            Self::Floor => "floor",
            Self::Kwal => "kwal",
            Self::KafkaProtocol => "kafka-protocol",
            Self::Rskafka => "rskafka",
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Case {
    /// The operation.
    pub operation: Operation,
    /// The shape of the records.
    pub shape: Shape,
    /// The codec.
    pub subject: Subject,
}

impl Case {
    /// Returns the floor to compare with.
    #[must_use]
    pub const fn floor(self) -> Self {
        Self { subject: Subject::Floor, ..self }
    }

    /// All measurements, grouped by operation and shape.
    pub fn all() -> impl Iterator<Item = Self> {
        Operation::ALL.into_iter().flat_map(|operation| {
            Shape::ALL.into_iter().flat_map(move |shape| {
                operation.subjects().iter().map(move |&subject| Self { operation, shape, subject })
            })
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.operation.name(), self.shape.name(), self.subject.name())
    }
}

/// The records of one shape in the types of each codec.
#[derive(Debug)]
pub struct Input {
    shape: Shape,
    payloads: Vec<Payload>,
    /// The whole batch, header included.
    batch: Bytes,
    kafka_protocol: Vec<kafka_protocol::records::Record>,
    rskafka: rskafka::protocol::record::RecordBatch,
    /// Space for the records section.
    scratch: RefCell<Vec<u8>>,
}

#[derive(Debug)]
struct Payload {
    key: Option<Bytes>,
    value: Bytes,
    headers: Headers,
}

impl Input {
    /// The same at every call.
    pub fn new(shape: Shape) -> Self {
        let payloads = shape.payloads();
        let mut builder = BatchBuilder::new(Compression::None);
        for (index, payload) in payloads.iter().enumerate() {
            let Payload { key, value, headers } = payload;
            builder.push(timestamp(index), key.as_deref(), Some(value), headers);
        }
        let batch = builder.finish().expect("a thousand records are a batch").to_bytes();
        Self {
            shape,
            scratch: vec![0; batch.len()].into(),
            batch,
            kafka_protocol: peers::kafka_protocol_records(&payloads),
            rskafka: peers::rskafka_batch(&payloads),
            payloads,
        }
    }

    /// Runs the operation once. The result is equal for all codecs of an operation with the same `L`.
    #[inline]
    pub fn run<L: Look>(&self, operation: Operation, subject: Subject) -> u64 {
        match (operation, subject) {
            (_, Subject::Copy) => floor::copy(self),
            (_, Subject::Crc) => crc32c::crc32c(&self.batch[BatchHeader::LEN..]).into(),
            (_, Subject::CrcFast) => {
                crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &self.batch[BatchHeader::LEN..])
            }
            (Operation::Encode, Subject::Floor) => floor::encode::<L>(self),
            (Operation::Encode, Subject::Kwal) => self.encode::<L>(),
            (Operation::Encode, Subject::KafkaProtocol) => peers::kafka_protocol_encode::<L>(self),
            (Operation::Encode, Subject::Rskafka) => peers::rskafka_encode::<L>(self),
            (Operation::Lazy, Subject::Floor) => floor::lazy::<L>(self),
            (Operation::Lazy, _) => self.lazy::<L>(),
            (Operation::Owned, Subject::Floor) => floor::owned::<L>(self),
            (Operation::Owned, Subject::Kwal) => self.owned::<L>(),
            (Operation::Owned, Subject::KafkaProtocol) => peers::kafka_protocol_decode::<L>(self),
            (Operation::Owned, Subject::Rskafka) => peers::rskafka_decode::<L>(self),
        }
    }

    /// Compares the results of all codecs, byte by byte.
    ///
    /// # Errors
    /// The codecs whose results differ.
    pub fn check(&self) -> Result<(), String> {
        let mut decoded = Sum::<Every>::new();
        for (index, Payload { key, value, headers }) in self.payloads.iter().enumerate() {
            let headers = headers.iter().map(|h| (&h.key_bytes()[..], h.value.as_deref()));
            decoded.record(index as i64, timestamp(index), key.as_deref(), Some(value), headers);
        }
        let encoded = Every::bytes(&self.batch[BatchHeader::LEN..]);
        for operation in Operation::ALL {
            let expected = if operation == Operation::Encode { encoded } else { decoded.value };
            for &subject in operation.subjects() {
                let made = self.run::<Every>(operation, subject);
                let expected = match subject {
                    Subject::Copy => self.payload_size() as u64,
                    Subject::CrcFast => self.run::<Every>(operation, Subject::Crc),
                    Subject::Crc => made,
                    _ => expected,
                };
                if made != expected {
                    let case = Case { operation, shape: self.shape, subject };
                    return Err(format!(
                        "{case} makes something else of the records: {made}, not {expected}"
                    ));
                }
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn encode<L: Look>(&self) -> u64 {
        let mut builder = BatchBuilder::with_capacity(Compression::None, self.batch.len());
        for (index, payload) in self.payloads.iter().enumerate() {
            let Payload { key, value, headers } = payload;
            builder.push(timestamp(index), key.as_deref(), Some(value), headers);
        }
        L::bytes(&builder.finish().expect("a thousand records are a batch").body())
    }

    #[inline(never)]
    fn lazy<L: Look>(&self) -> u64 {
        let mut sum = Sum::<L>::new();
        for batch in Batches::new(self.batch.clone()) {
            let records = batch.and_then(|batch| batch.records(0)).expect("the batch is in order");
            for record in &records {
                let record = record.expect("the record is in order");
                let headers = record.headers().map(|header| (header.key, header.value));
                sum.record(record.offset, record.timestamp_ms, record.key, record.value, headers);
            }
        }
        sum.value
    }

    #[inline(never)]
    fn owned<L: Look>(&self) -> u64 {
        let mut owned = Vec::with_capacity(RECORDS);
        for batch in Batches::new(self.batch.clone()) {
            let records = batch.and_then(|batch| batch.records(0)).expect("the batch is in order");
            owned.extend(records.into_iter().map(|record| record.expect("the record is in order")));
        }
        let mut sum = Sum::<L>::new();
        for record in &owned {
            let headers = record.headers.iter().map(|h| (&h.key_bytes()[..], h.value.as_deref()));
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            sum.record(record.offset, record.timestamp_ms, key, value, headers);
        }
        sum.value
    }

    fn payload_size(&self) -> usize {
        let size = |payload: &Payload| {
            let headers =
                payload.headers.iter().map(|h| h.key_bytes().len() + h.value.as_ref().map_or(0, Bytes::len));
            payload.key.as_ref().map_or(0, Bytes::len) + payload.value.len() + headers.sum::<usize>()
        };
        self.payloads.iter().map(size).sum()
    }
}

const fn timestamp(index: usize) -> i64 {
    BASE_TIMESTAMP + index as i64
}

/// How closely results are inspected.
pub trait Look {
    /// A value that depends on the bytes.
    fn bytes(bytes: &[u8]) -> u64;

    /// The same for headers.
    fn headers<'a>(headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> u64;
}

/// Lengths and first bytes: enough to keep the work from being optimized away, at almost no cost.
#[derive(Clone, Copy, Debug)]
pub struct Glance;

impl Look for Glance {
    #[inline]
    fn bytes(bytes: &[u8]) -> u64 {
        bytes.len() as u64 + bytes.first().map_or(0, |byte| u64::from(*byte))
    }

    #[inline]
    fn headers<'a>(headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> u64 {
        headers.len() as u64
    }
}

/// Every byte at its position.
#[derive(Clone, Copy, Debug)]
pub struct Every;

impl Look for Every {
    fn bytes(bytes: &[u8]) -> u64 {
        bytes.iter().fold(bytes.len() as u64, |sum, byte| mix(sum, u64::from(*byte)))
    }

    fn headers<'a>(headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> u64 {
        headers
            .fold(0, |sum, (key, value)| mix(mix(sum, Self::bytes(key)), value.map_or(u64::MAX, Self::bytes)))
    }
}

fn mix(sum: u64, next: u64) -> u64 {
    sum.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ next
}

/// The value of a record, inspected with `L`.
struct Sum<L> {
    value: u64,
    look: std::marker::PhantomData<L>,
}

impl<L: Look> Sum<L> {
    const fn new() -> Self {
        Self { value: 0, look: std::marker::PhantomData }
    }

    #[inline]
    fn record<'a>(
        &mut self,
        offset: i64,
        timestamp: i64,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) {
        let parts = [
            offset as u64,
            timestamp as u64,
            key.map_or(0, L::bytes),
            value.map_or(0, L::bytes),
            L::headers(headers),
        ];
        self.value = parts.into_iter().fold(self.value.rotate_left(1), u64::wrapping_add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_make_the_same_of_the_records() {
        for shape in Shape::ALL {
            assert_eq!(Input::new(shape).check(), Ok(()));
        }
    }
}
