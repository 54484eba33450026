//! Messages of magic 0 and 1 and their wrappers, composed by hand where no golden vector has them.

#![cfg_attr(not(feature = "compression-lz4"), allow(dead_code, reason = "wrappers need a codec"))]

use bytes::Bytes;
use kwal_protocol::{
    compression::Compression,
    record::{BatchErrorKind, Batches, Headers, NO_TIMESTAMP, OwnedRecord, RawBatch, TimestampType},
};
use proptest::{collection::vec, option, prelude::*};

const LIMIT: usize = 1 << 20;
const LOG_APPEND_TIME: i8 = 8;
const NONE: i8 = 0;

/// A message; `timestamp` is omitted in magic 0.
#[derive(Clone, Debug)]
struct Message {
    magic: i8,
    offset: i64,
    attributes: i8,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Message {
    fn new(magic: i8, offset: i64, value: &str) -> Self {
        let value = Some(value.as_bytes().to_vec());
        Self { magic, offset, attributes: NONE, timestamp: 1_000 + offset, key: None, value }
    }

    /// A wrapper of other messages.
    fn wrapper(magic: i8, offset: i64, codec: Compression, messages: &[u8]) -> Self {
        let value = Some(codec.compress(messages).unwrap().to_vec());
        let attributes = codec.id() as i8;
        Self { magic, offset, attributes, timestamp: 5_000, key: None, value }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut content = vec![self.magic as u8, self.attributes as u8];
        if self.magic == 1 {
            content.extend(self.timestamp.to_be_bytes());
        }
        for field in [&self.key, &self.value] {
            content.extend(field.as_ref().map_or(-1, |field| field.len() as i32).to_be_bytes());
            content.extend(field.iter().flatten());
        }
        let size = content.len() as i32 + 4;
        let crc = crc32fast::hash(&content);
        [&self.offset.to_be_bytes()[..], &size.to_be_bytes(), &crc.to_be_bytes(), &content].concat()
    }
}

fn bytes_of(messages: &[Message]) -> Vec<u8> {
    messages.iter().flat_map(Message::to_bytes).collect()
}

/// The records of the only batch, or its error.
fn records(bytes: Vec<u8>) -> Result<Vec<OwnedRecord>, BatchErrorKind> {
    let mut batches = Batches::new(bytes.into());
    let batch = batches.next().unwrap().map_err(|error| error.kind)?;
    assert!(batches.next().is_none());
    let records = batch.records(LIMIT).map_err(|error| error.kind)?;
    let lazy: Vec<_> = records.iter().map(|record| record.map(|record| record.to_detached())).collect();
    let count = records.count();
    let owned: Vec<_> = records.into_iter().collect();
    assert_eq!(lazy, owned);
    assert_eq!(owned.len(), count as usize);
    owned.into_iter().map(|record| record.map_err(|error| error.kind)).collect()
}

fn offsets(records: &[OwnedRecord]) -> Vec<i64> {
    records.iter().map(|record| record.offset).collect()
}

fn three(magic: i8) -> Vec<u8> {
    bytes_of(&[Message::new(magic, 0, "a"), Message::new(magic, 1, "b"), Message::new(magic, 2, "c")])
}

#[test]
fn one_message_is_a_batch() {
    for magic in [0, 1] {
        let bytes = Bytes::from(Message::new(magic, 42, "value").to_bytes());
        let batch = Batches::new(bytes.clone()).next().unwrap().unwrap();
        assert_eq!((batch.magic(), batch.base_offset(), batch.next_offset()), (magic, 42, 43));
        assert_eq!((batch.size_in_bytes(), batch.header().count), (bytes.len(), 1));
        assert_eq!((batch.header().producer_id, batch.header().base_sequence), (-1, -1));
        assert_eq!(batch.header().size_in_bytes(), bytes.len() as i64);
        let timestamp = if magic == 0 { NO_TIMESTAMP } else { 1_042 };
        let expected = OwnedRecord {
            offset: 42,
            timestamp_ms: timestamp,
            leader_epoch: -1,
            key: None,
            value: Some(Bytes::from("value")),
            headers: Headers::new(),
        };
        assert_eq!(records(bytes.to_vec()).unwrap(), [expected]);
        let raw = RawBatch::from_batch(&batch, LIMIT).unwrap();
        assert_eq!(raw.encode().unwrap(), bytes);
        let moved = Batches::new(batch.to_bytes_at(77, 5)).next().unwrap().unwrap();
        assert_eq!((moved.next_offset(), moved.header().crc), (78, batch.header().crc));
    }
}

/// The attribute bits above the codec have no meaning here.
#[test]
fn bits_of_later_formats_are_ignored() {
    for magic in [0, 1] {
        let message = Message { attributes: 0x78, ..Message::new(magic, 0, "x") };
        let batch = Batches::new(message.to_bytes().into()).next().unwrap().unwrap();
        assert!(!batch.is_control() && !batch.is_transactional());
        assert_eq!((batch.producer_id(), batch.producer_epoch()), (None, None));
        assert_eq!(batch.header().delete_horizon_ms(), None);
        let expected = [TimestampType::NoTimestamp, TimestampType::LogAppendTime][magic as usize];
        assert_eq!(batch.timestamp_type(), expected);
    }
}

#[test]
#[cfg(feature = "compression-lz4")]
fn offsets_of_wrappers() {
    let lz4 = Compression::Lz4;
    let wrapped = |magic, offset, inner: &[u8]| {
        records(Message::wrapper(magic, offset, lz4, inner).to_bytes()).map(|records| offsets(&records))
    };
    assert_eq!(wrapped(1, 500, &three(1)), Ok(vec![498, 499, 500]));
    assert_eq!(wrapped(0, 500, &three(0)), Ok(vec![0, 1, 2]));
    // The wrappers of some producers have the offset 0.
    assert_eq!(wrapped(1, 0, &three(1)), Ok(vec![0, 1, 2]));
    assert_eq!(wrapped(1, 1, &three(1)), Err(BatchErrorKind::WrapperOffset { offset: 1, last: 2 }));
    // As after compaction.
    let holes = bytes_of(&[Message::new(1, 3, "a"), Message::new(1, 7, "b")]);
    assert_eq!(wrapped(1, 107, &holes), Ok(vec![103, 107]));
    // Older messages in newer wrappers and the reverse.
    assert_eq!(wrapped(1, 500, &three(0)), Ok(vec![498, 499, 500]));
    assert_eq!(wrapped(0, 500, &three(1)), Ok(vec![0, 1, 2]));
    // A truncated message is ignored, as at the end of a log.
    let inner = three(1);
    for len in inner.len() * 2 / 3..inner.len() {
        assert_eq!(wrapped(1, 500, &inner[..len]), Ok(vec![499, 500]), "{len}");
    }
}

#[test]
#[cfg(feature = "compression-lz4")]
fn times_of_wrappers() {
    let times = |wrapper: Message| -> Vec<i64> {
        let records = records(wrapper.to_bytes()).unwrap();
        records.iter().map(|record| record.timestamp_ms).collect()
    };
    let wrapper = |magic, inner: &[u8]| Message::wrapper(magic, 2, Compression::Lz4, inner);
    assert_eq!(times(wrapper(1, &three(1))), [1_000, 1_001, 1_002]);
    assert_eq!(times(wrapper(0, &three(1))), [1_000, 1_001, 1_002]);
    assert_eq!(times(wrapper(1, &three(0))), [NO_TIMESTAMP; 3]);
    let appended = |inner: &[u8]| {
        let wrapper = wrapper(1, inner);
        Message { attributes: wrapper.attributes | LOG_APPEND_TIME, ..wrapper }
    };
    assert_eq!(times(appended(&three(1))), [5_000; 3]);
    assert_eq!(times(appended(&three(0))), [NO_TIMESTAMP; 3]);
}

#[test]
#[cfg(feature = "compression-lz4")]
fn malformed_wrappers_are_rejected() {
    let lz4 = Compression::Lz4;
    let refused =
        |magic, inner: &[u8]| records(Message::wrapper(magic, 2, lz4, inner).to_bytes()).unwrap_err();
    for magic in [0, 1] {
        let nested = [three(magic), Message::wrapper(magic, 3, lz4, &three(magic)).to_bytes()].concat();
        assert_eq!(refused(magic, &nested), BatchErrorKind::Nested { index: 3 });
        assert_eq!(refused(magic, &[]), BatchErrorKind::NoMessages);
        assert_eq!(refused(magic, &three(magic)[..20]), BatchErrorKind::NoMessages);
        let mut flipped = three(magic);
        *flipped.last_mut().unwrap() ^= 1;
        assert!(matches!(refused(magic, &flipped), BatchErrorKind::Checksum { .. }));
        let mut short = three(magic);
        short[11] = 13;
        let text = |kind: BatchErrorKind| {
            format!(
                "{kind}: {}",
                std::error::Error::source(&kind).map(ToString::to_string).unwrap_or_default()
            )
        };
        assert_eq!(
            text(refused(magic, &short)),
            "record 0 is malformed: 13 is not allowed here at byte 8 in size"
        );
        let newer = Message { magic: 2, ..Message::new(magic, 3, "d") };
        let newer = [three(magic), newer.to_bytes()].concat();
        let at = three(magic).len() + 16;
        assert_eq!(
            text(refused(magic, &newer)),
            format!("record 3 is malformed: 2 is not allowed here at byte {at} in magic")
        );
        let null = Message { value: None, ..Message::wrapper(magic, 2, lz4, b"") };
        assert_eq!(records(null.to_bytes()).unwrap_err(), BatchErrorKind::NoMessages);
        let zstd = Message { attributes: 4, ..Message::new(magic, 0, "") };
        let codec = Compression::Zstd;
        assert_eq!(records(zstd.to_bytes()).unwrap_err(), BatchErrorKind::CodecOfLaterMagic { magic, codec });
        let unknown = Message { attributes: 7, ..Message::new(magic, 0, "") };
        assert!(matches!(records(unknown.to_bytes()).unwrap_err(), BatchErrorKind::Compression(_)));
    }
}

/// In magic 0 its writers computed it over the wrong bytes.
#[test]
#[cfg(feature = "compression-lz4")]
fn the_header_checksum_of_lz4_counts_from_magic_1_on() {
    for magic in [0, 1] {
        let mut wrapper = Message::wrapper(magic, 2, Compression::Lz4, &three(magic));
        wrapper.value.as_mut().unwrap()[6] = 0x1a;
        assert_eq!(records(wrapper.to_bytes()).is_ok(), magic == 0);
    }
}

#[test]
#[cfg(feature = "compression-lz4")]
fn wrappers_are_not_larger_than_the_limit() {
    let zeros = Message { value: Some(vec![0; 100_000]), ..Message::new(1, 0, "") }.to_bytes();
    let wrapper = Message::wrapper(1, 0, Compression::Lz4, &zeros).to_bytes();
    let batch = Batches::new(wrapper.into()).next().unwrap().unwrap();
    assert_eq!(batch.records(zeros.len()).unwrap().count(), 1);
    assert!(batch.records(zeros.len() - 1).is_err());
}

#[test]
#[cfg(feature = "compression-lz4")]
fn offsets_too_far_apart_are_read_but_not_as_a_raw_batch() {
    let inner = bytes_of(&[Message::new(0, 0, "a"), Message::new(0, i64::MAX / 2, "b")]);
    let wrapper = Message::wrapper(0, 5, Compression::Lz4, &inner);
    assert_eq!(offsets(&records(wrapper.to_bytes()).unwrap()), [0, i64::MAX / 2]);
    let batch = Batches::new(wrapper.to_bytes().into()).next().unwrap().unwrap();
    let fault = RawBatch::from_batch(&batch, LIMIT).unwrap_err().kind;
    assert_eq!(fault, BatchErrorKind::OffsetsApart { first: 0, other: i64::MAX / 2 });
}

#[test]
fn only_plain_messages_are_written() {
    let bytes = Message::new(1, 42, "value").to_bytes();
    let raw = RawBatch::from_batch(&Batches::new(bytes.into()).next().unwrap().unwrap(), LIMIT).unwrap();
    let mut two = raw.clone();
    two.records.push(two.records[0].clone());
    let mut none = raw.clone();
    none.records.clear();
    let mut with_headers = raw.clone();
    with_headers.records[0].headers = Headers::from([("a", "b")]);
    let mut compressed = raw;
    compressed.header.attributes = 1;
    for odd in [two, none, with_headers, compressed] {
        assert_eq!(
            odd.encode().unwrap_err().to_string(),
            "a message of magic 1 is one record, without headers and codec"
        );
    }
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let field = || option::of(vec(any::<u8>(), 0..20));
    let message = (0..2i8, any::<bool>(), 0..1_000_000i64, field(), field(), 0..5i64);
    vec(message, 1..10).prop_map(|messages| {
        let mut offset = 0;
        let message = |(magic, appended, timestamp, key, value, hole)| {
            offset += 1 + hole;
            let attributes = if appended { LOG_APPEND_TIME } else { NONE };
            Message { magic, offset, attributes, timestamp, key, value }
        };
        messages.into_iter().map(message).collect()
    })
}

proptest! {
    #[test]
    fn plain_messages_round_trip(messages in messages()) {
        let bytes = Bytes::from(bytes_of(&messages));
        let batches: Vec<_> = Batches::new(bytes.clone()).map(Result::unwrap).collect();
        let mut again = Vec::new();
        for (batch, message) in batches.iter().zip(&messages) {
            let raw = RawBatch::from_batch(batch, LIMIT).unwrap();
            prop_assert_eq!(raw.records[0].key.as_deref(), message.key.as_deref());
            prop_assert_eq!(raw.records[0].value.as_deref(), message.value.as_deref());
            prop_assert_eq!(raw.offset(&raw.records[0]), message.offset);
            again.extend(raw.encode().unwrap());
        }
        prop_assert_eq!(again, bytes);
    }

    /// Any content of a wrapper is either decoded or rejected.
    #[test]
    #[cfg(feature = "compression-lz4")]
    fn no_wrapper_is_a_panic(
        messages in messages(),
        flips in vec((any::<prop::sample::Index>(), 1..=255u8), 0..4),
        magic in 0..2i8,
        offset in any::<i64>(),
    ) {
        let mut inner = bytes_of(&messages);
        let plain = flips.is_empty();
        for (index, flip) in flips {
            let at = index.index(inner.len());
            inner[at] ^= flip;
        }
        let wrapper = Message::wrapper(magic, offset, Compression::Lz4, &inner).to_bytes();
        match records(wrapper) {
            Ok(records) => prop_assert!(records.len() <= messages.len()),
            Err(fault) => prop_assert!(!plain || matches!(fault, BatchErrorKind::WrapperOffset { .. }), "{}", fault),
        }
    }
}
