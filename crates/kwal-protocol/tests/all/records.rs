//! Record batches against the golden vectors: see `tests/vectors/README.md`.

use bytes::Bytes;
use kwal_protocol::{
    compression::Compression,
    record::{
        BatchBuilder, BatchError, BatchHeader, Batches, EncodedBatch, Header, HeaderView, NotForwardable,
        OwnedRecord, RawBatch, RecordCursor, RecordView, TimestampType, crc,
    },
};
use serde_json::Value;

use crate::support::{unhex, vectors};

const LIMIT: usize = 16 << 20;

/// The vectors that this build can decode: those in built-in codecs.
fn readable() -> Vec<Value> {
    let mut all = vectors("records");
    let count = all.len();
    all.retain(|vector| !needs_more(vector));
    assert_eq!(count, 503, "another set of vectors");
    let complete = Compression::ALL.into_iter().all(Compression::can_decompress);
    assert!(all.len() == count || !complete && all.len() > 250, "{} are left", all.len());
    all
}

/// Whether a vector needs a codec that is not built in.
fn needs_more(vector: &Value) -> bool {
    let name = vector["name"].as_str().unwrap();
    let batches = vector["batches"].as_array().unwrap();
    let missing = |codec: &Compression| !codec.can_decompress();
    let mut codecs = Compression::ALL.into_iter().filter(missing).map(Compression::name);
    let in_batches = |codec: &str| batches.iter().any(|batch| batch["compression"] == codec);
    codecs.any(|codec| name.contains(codec) || in_batches(codec))
}

/// All batches, and the error after them.
fn read(bytes: &Bytes) -> (Vec<RawBatch>, usize, Option<BatchError>) {
    let mut batches = Batches::new(bytes.clone());
    let mut read = Vec::new();
    while let Some(batch) = batches.next() {
        match batch.and_then(|batch| RawBatch::from_batch(&batch, LIMIT)) {
            Ok(batch) => read.push(batch),
            Err(fault) => return (read, batches.consumed(), Some(fault)),
        }
    }
    (read, batches.consumed(), None)
}

#[test]
fn batches_match_kafkas_description() {
    for vector in readable() {
        let (name, bytes) = (&vector["name"], unhex(&vector["hex"]));
        let (batches, consumed, fault) = read(&bytes);
        let mut expected = vector["batches"].clone();
        for batch in expected.as_array_mut().unwrap() {
            batch.as_object_mut().unwrap().remove("uncompressedRecords");
        }
        assert_eq!(serde_json::to_value(&batches).unwrap(), expected, "{name}");
        if vector["expect"] == "ok" {
            assert_eq!(fault, None, "{name}");
            assert_eq!(vector["consumedBytes"], consumed, "{name}");
            assert_eq!(vector["trailingBytes"], bytes.len() - consumed, "{name}");
        } else {
            let fault = fault.unwrap_or_else(|| panic!("{name} is read"));
            assert_eq!(vector["failedBatch"], batches.len(), "{name}: {fault}");
            assert_eq!(vector["failedAt"], fault.position, "{name}: {fault}");
        }
    }
}

#[test]
fn decompressed_records_equal_the_uncompressed_ones() {
    let mut seen = 0;
    for vector in readable() {
        let batches = Batches::new(unhex(&vector["hex"]));
        for (batch, expected) in batches.zip(vector["batches"].as_array().unwrap()) {
            if let Some(expected) = expected.get("uncompressedRecords") {
                assert_eq!(
                    *batch.unwrap().records(LIMIT).unwrap().bytes(),
                    unhex(expected),
                    "{}",
                    vector["name"]
                );
                seen += 1;
            }
        }
    }
    let codecs = Compression::ALL.into_iter().filter(|codec| codec.can_decompress()).count() - 1;
    assert!(seen >= 20 * codecs, "{seen}");
}

/// As `DefaultRecordBatch.iterator` of Kafka 3.9.2 and 4.3.1.
#[test]
fn a_batch_that_counts_no_records_has_none_whatever_its_codec_and_its_bytes() {
    for codec in 0..8 {
        for body in [&b""[..], b"neither a record nor a stream", &[0; 8]] {
            let header = BatchHeader {
                base_offset: 100,
                batch_length: (BatchHeader::LEN - BatchHeader::LOG_OVERHEAD + body.len()) as i32,
                attributes: codec,
                last_offset_delta: 9,
                ..BatchHeader::default()
            };
            let mut bytes = [&header.to_bytes()[..], body].concat();
            let crc = crc::checksum(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            let batch = Batches::new(bytes.into()).next().unwrap().unwrap();
            let records = batch.records(0).unwrap();
            assert_eq!((batch.next_offset(), records.count()), (110, 0), "{codec} {body:?}");
            assert!(records.iter().next().is_none() && records.into_iter().next().is_none(), "{codec}");
            assert_eq!(RawBatch::from_batch(&batch, 0).unwrap().records, [], "{codec} {body:?}");
        }
    }
}

#[test]
fn raw_batches_encode_to_the_same_bytes() {
    let mut seen = 0;
    for vector in readable().iter().filter(|vector| vector["reencode"] == true) {
        let expected = unhex(&vector["hex"]);
        let from_json: Vec<RawBatch> = serde_json::from_value(vector["batches"].clone()).unwrap();
        let (from_bytes, ..) = read(&expected);
        assert_eq!(from_json, from_bytes, "{}", vector["name"]);
        let encoded: Vec<_> = from_json.iter().flat_map(|batch| batch.encode().unwrap()).collect();
        assert_eq!(encoded, expected, "{}", vector["name"]);
        seen += 1;
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn compressed_batches_round_trip() {
    for vector in readable().iter().filter(|vector| vector["reencode"] == false && vector["expect"] == "ok") {
        // Before magic 2, compressed messages are only read.
        for batch in read(&unhex(&vector["hex"])).0.into_iter().filter(|batch| batch.header.magic == 2) {
            if !batch.header.compression().unwrap().is_built_in() {
                assert!(batch.encode().is_err(), "{}", vector["name"]);
                continue;
            }
            let (again, _, fault) = read(&batch.encode().unwrap());
            assert_eq!(fault, None, "{}", vector["name"]);
            assert_eq!(again[0].records, batch.records, "{}", vector["name"]);
        }
    }
}

#[test]
fn a_producers_batches_are_built_to_the_byte() {
    let mut seen = 0;
    for vector in readable().iter().filter(|vector| vector["clientStyle"] == true) {
        let expected = unhex(&vector["hex"]);
        let mut encoded = Vec::new();
        for raw in read(&expected).0 {
            let mut builder = BatchBuilder::new(raw.header.compression().unwrap());
            for (i, record) in raw.records.iter().enumerate() {
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                let index = builder.push(raw.timestamp_ms(record), key, value, &record.headers);
                assert_eq!(index as usize, i);
            }
            let (header, size) = (raw.header, builder.size_in_bytes());
            let batch = builder
                .finish()
                .unwrap()
                .stamp(header.producer_id, header.producer_epoch, header.base_sequence)
                .with_transactional(header.is_transactional())
                .at(header.base_offset, header.partition_leader_epoch);
            assert_eq!(batch.header(), header, "{}", vector["name"]);
            assert_eq!(batch.to_bytes(), [&batch.header_bytes()[..], &batch.body()].concat());
            assert_eq!((batch.size_in_bytes(), batch.uncompressed_size()), (size, size));
            assert_eq!(batch.record_count(), raw.records.len());
            encoded.extend(batch.to_bytes());
        }
        assert_eq!(encoded, expected, "{}", vector["name"]);
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}

/// A forwarded batch has the same records and checksum but no producer.
///
/// Batches that brokers reject are refused.
#[test]
fn fetched_batches_are_forwarded() {
    let (mut sent, mut refused) = (0, [0; 6]);
    for vector in readable() {
        for batch in Batches::new(unhex(&vector["hex"])).map_while(Result::ok) {
            let (name, header) = (&vector["name"], batch.header());
            let fault = match EncodedBatch::from_fetched(&batch) {
                Ok(sent_on) => {
                    let again = Batches::new(sent_on.to_bytes()).next().unwrap().unwrap();
                    assert_eq!(again.bytes()[61..], batch.bytes()[61..], "{name}");
                    let expected = BatchHeader {
                        base_offset: 0,
                        partition_leader_epoch: -1,
                        producer_id: -1,
                        producer_epoch: -1,
                        base_sequence: -1,
                        attributes: header.attributes & BatchHeader::COMPRESSION_MASK,
                        crc: again.header().crc,
                        ..*header
                    };
                    assert_eq!(*again.header(), expected, "{name}");
                    let stamped = sent_on.stamp(1, 2, 3).to_bytes();
                    assert_eq!(Batches::new(stamped).next().unwrap().unwrap().header().producer_id, 1);
                    sent += 1;
                    continue;
                }
                Err(fault) => fault,
            };
            let (reason, is_so) = match fault {
                NotForwardable::Magic { magic, .. } => (0, magic == header.magic && magic < 2),
                NotForwardable::Control { .. } => (1, header.is_control()),
                NotForwardable::Transactional { .. } => (2, header.is_transactional()),
                NotForwardable::Holes { count, offsets, .. } => {
                    (3, i64::from(count) != offsets || count <= 0)
                }
                NotForwardable::LogAppendTime { .. } => {
                    (4, header.timestamp_type() == TimestampType::LogAppendTime)
                }
                NotForwardable::Codec { .. } => (5, header.compression().is_err()),
                other => panic!("{name}: {other}"),
            };
            assert!(is_so, "{name}: {fault}");
            refused[reason] += 1;
        }
    }
    assert!(sent > 50 && refused.iter().all(|count| *count > 0), "{sent} {refused:?}");
}

#[test]
fn borrowed_and_owned_records_are_the_same() {
    for vector in readable() {
        for batch in Batches::new(unhex(&vector["hex"])).map_while(Result::ok) {
            let Ok(records) = batch.records(LIMIT) else { continue };
            let borrowed: Vec<_> = records.iter().map(|record| record.map(owned)).collect();
            let detached: Vec<_> =
                records.iter().map(|record| record.map(|record| record.to_detached())).collect();
            let sliced: Vec<_> = records.clone().into_iter().collect();
            assert_eq!(borrowed, sliced, "{}", vector["name"]);
            assert_eq!(detached, sliced, "{}", vector["name"]);
            for record in sliced.into_iter().flatten() {
                assert_eq!(record.clone().into_detached(), record);
            }
            // The iterator stays at its end after an error.
            let mut iter = records.iter();
            while iter.by_ref().next().is_some_and(|record| record.is_ok()) {}
            assert!(iter.next().is_none());
            // So does a cursor, which sees what is next before it is there.
            let mut cursor = RecordCursor::new(records);
            let others = Bytes::from_static(b"others");
            for record in &borrowed {
                assert!(!cursor.is_at_end());
                assert_eq!(cursor.peek().unwrap().map(owned), *record);
                let lent = cursor.advance().unwrap().map(|(record, bytes)| {
                    assert_eq!(record.to_slices(&others), record.to_slices(bytes));
                    let (value, slice) = (record.value.unwrap_or_default(), record.to_slices(bytes).value);
                    assert!(value.is_empty() || slice.unwrap().as_ptr() == value.as_ptr());
                    owned(record)
                });
                assert_eq!(lent, *record);
            }
            assert!(cursor.is_at_end() && cursor.peek().is_none() && cursor.advance().is_none());
        }
    }
}

fn owned(record: RecordView<'_>) -> OwnedRecord {
    let header = |header: HeaderView<'_>| Header::new(header.key, header.value);
    OwnedRecord {
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        leader_epoch: record.leader_epoch,
        key: record.key.map(Bytes::copy_from_slice),
        value: record.value.map(Bytes::copy_from_slice),
        headers: record.headers().map(header).collect(),
    }
}

/// A truncated tail is dropped silently at any length.
///
/// If it is hidden by a wrong length it is an error, never a panic.
#[test]
fn every_truncation_is_a_torn_tail_or_an_error() {
    for vector in readable().iter().filter(|vector| vector["hex"].as_str().unwrap().len() < 4000) {
        let bytes = unhex(&vector["hex"]);
        let (whole, ..) = read(&bytes);
        for len in 0..bytes.len() {
            let (batches, consumed, fault) = read(&bytes.slice(..len));
            assert_eq!(batches, whole[..batches.len()], "{} cut to {len}", vector["name"]);
            assert!(consumed <= len);
            if vector["expect"] == "ok" {
                assert_eq!(fault, None, "{} cut to {len}", vector["name"]);
            }
        }
    }
}

/// The checksum is recomputed, so that any bytes are decoded: they give records or errors.
#[test]
fn no_flipped_bit_is_a_panic() {
    for vector in readable().iter().filter(|vector| vector["hex"].as_str().unwrap().len() < 600) {
        let bytes = unhex(&vector["hex"]);
        for batch in Batches::new(bytes).map_while(Result::ok) {
            for bit in 16 * 8..batch.size_in_bytes() * 8 {
                let mut flipped = batch.bytes().to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                if flipped[16] == 2 {
                    let crc = crc::checksum(&flipped[21..]);
                    flipped[17..21].copy_from_slice(&crc.to_be_bytes());
                } else {
                    let crc = crc32fast::hash(&flipped[16..]);
                    flipped[12..16].copy_from_slice(&crc.to_be_bytes());
                }
                let (batches, _, fault) = read(&flipped.into());
                assert_eq!(batches.len() + usize::from(fault.is_some()), 1);
            }
        }
    }
}

#[test]
fn headers_of_batches_give_the_next_offset() {
    for vector in readable() {
        let batches = Batches::new(unhex(&vector["hex"])).map_while(Result::ok);
        for (batch, expected) in batches.zip(vector["batches"].as_array().unwrap()) {
            let last = expected["lastOffset"].as_i64().unwrap();
            assert_eq!(batch.next_offset(), last.wrapping_add(1), "{}", vector["name"]);
            assert_eq!(batch.magic(), expected["magic"]);
            assert_eq!(batch.is_control(), expected["control"].as_bool().unwrap_or(false));
            let timestamp_type = match batch.timestamp_type() {
                TimestampType::CreateTime => "CREATE_TIME",
                TimestampType::LogAppendTime => "LOG_APPEND_TIME",
                _ => "NO_TIMESTAMP_TYPE",
            };
            assert_eq!(timestamp_type, expected["timestampType"]);
        }
    }
}
