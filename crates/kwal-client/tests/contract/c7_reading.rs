//! C7: records come in offset order, once each, whatever the log contains.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kwal_client::{Fetched, OffsetAt, PartitionClient, error::ErrorKind, record::Record};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::FetchRequest,
    record::{BatchBuilder, BatchError, BatchErrorKind, BatchHeader, Compression, Headers},
};
use kwal_testkit::{EmbeddedCluster, Fault};
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::support::{HOUR, Wire, broker, deadlines, large, open, open_over, record, source, timed};

/// Encodes a batch.
fn batch(values: &[&str], compression: Compression) -> BytesMut {
    let mut builder = BatchBuilder::new(compression);
    for value in values {
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &Headers::new());
    }
    BytesMut::from(&builder.finish().unwrap().to_bytes()[..])
}

/// Changes the header of a batch and updates its checksum.
fn with_header(mut batch: BytesMut, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(&batch).unwrap();
    change(&mut header);
    batch[..BatchHeader::LEN].copy_from_slice(&header.to_bytes());
    seal(&mut batch);
    batch.freeze()
}

/// The position after the checksum, from which it is computed.
const CRC_START: usize = 21;

fn seal(batch: &mut BytesMut) {
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
}

/// Returns a transaction marker.
fn control() -> Bytes {
    with_header(batch(&["marker"], Compression::None), |header| header.attributes |= 0b11_0000)
}

/// Returns what compaction leaves of a batch of which it removes all records.
fn emptied(count: i32) -> Bytes {
    let mut empty = batch(&["gone"], Compression::None);
    empty.truncate(BatchHeader::LEN);
    with_header(empty, |header| {
        header.batch_length = (BatchHeader::LEN - BatchHeader::LOG_OVERHEAD) as i32;
        header.count = 0;
        header.last_offset_delta = count - 1;
    })
}

/// The same of a batch with a codec, known or not: compaction keeps its id.
fn emptied_of(codec: i16) -> Bytes {
    with_header(BytesMut::from(&emptied(1)[..]), |header| header.attributes |= codec)
}

/// Reads to the end of the log. Returns offsets and values, and the number of fetches.
async fn replay(partition: &PartitionClient, from: i64, max_bytes: i32) -> (Vec<(i64, String)>, usize) {
    let end = partition.get_offset(OffsetAt::Latest).await.unwrap();
    let (mut next, mut records, mut fetches) = (from, Vec::new(), 0);
    while next < end {
        let fetched = partition.fetch(next).max_bytes(max_bytes).await.unwrap();
        assert!(fetched.next_offset > next, "no progress at {next}");
        for record in fetched.records().collect::<Result<Vec<_>, _>>().unwrap() {
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            records.push((record.offset, value));
        }
        next = fetched.next_offset;
        fetches += 1;
    }
    (records, fetches)
}

fn expected(offsets: &[i64]) -> Vec<(i64, String)> {
    offsets.iter().map(|offset| (*offset, format!("value {offset}"))).collect()
}

#[tokio::test(start_paused = true)]
async fn each_record_comes_once_in_offset_order_whatever_the_size_of_a_fetch() {
    let broker = broker();
    let partition = open(&broker).await;
    let mut offset = 0;
    for count in [3, 1, 4, 1, 5, 9, 2, 6] {
        let values = (offset..offset + count).map(|offset| record(format!("value {offset}")));
        partition.produce(values.collect::<Vec<_>>().concat()).await.unwrap();
        offset += count;
    }
    let all: Vec<_> = (0..offset).collect();
    for max_bytes in [1, 100, 150, 200, 333, 500, 1000, 1 << 20] {
        for from in [0, 1, 2, 3, 4, 20, 30] {
            let (records, fetches) = replay(&partition, from, max_bytes).await;
            assert_eq!(records, expected(&all[from as usize..]), "from {from} by {max_bytes}");
            assert!(max_bytes > 1 || from > 0 || fetches == 8, "one batch at a time");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_may_begin_inside_a_batch() {
    let broker = broker();
    let partition = open(&broker).await;
    let values = (0..10).map(|offset| record(format!("value {offset}")));
    partition.produce(values.collect::<Vec<_>>().concat()).await.unwrap();
    let fetched = partition.fetch(7).await.unwrap();
    assert_eq!((fetched.from, fetched.next_offset, fetched.batches()[0].base_offset()), (7, 10, 0));
    let (records, high_watermark) = partition.fetch_records(7, 1..1_000_000, 100).await.unwrap();
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [7, 8, 9]);
    assert_eq!(high_watermark, 10);
}

#[tokio::test(start_paused = true)]
async fn batches_without_records_are_skipped_and_advance_the_position() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("value 0")).await.unwrap();
    broker.append_raw("wal", 0, control()).unwrap();
    broker.append_raw("wal", 0, emptied(5)).unwrap();
    broker.append_raw("wal", 0, control()).unwrap();
    broker
        .append_raw(
            "wal",
            0,
            with_header(batch(&["value 13"], Compression::None), |header| {
                // Compaction removed the records around it and the batches before it.
                header.base_offset = 5;
                header.last_offset_delta = 3;
            }),
        )
        .unwrap();
    broker.append_raw("wal", 0, emptied(2)).unwrap();
    assert_eq!(broker.end_offset("wal", 0).unwrap(), 19);
    for max_bytes in [1, 100, 1 << 20] {
        for from in 0..19 {
            let (records, _) = replay(&partition, from, max_bytes).await;
            let left: Vec<_> = [0, 13].into_iter().filter(|offset| *offset >= from).collect();
            assert_eq!(records, expected(&left), "from {from} by {max_bytes}");
        }
    }
    let fetched = partition.fetch(1).max_bytes(1).await.unwrap();
    assert!(fetched.batches()[0].is_control());
    assert_eq!((fetched.next_offset, fetched.records().count()), (2, 0));
    let fetched = partition.fetch(17).await.unwrap();
    assert_eq!(
        (fetched.next_offset, fetched.records().collect::<Result<Vec<_>, _>>().unwrap().len()),
        (19, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn emptied_batches_of_every_codec_are_skipped() {
    let broker = broker();
    let partition = open(&broker).await;
    for codec in 0..8 {
        broker.append_raw("wal", 0, emptied_of(codec)).unwrap();
        let end = 2 * i64::from(codec) + 2;
        partition.produce(record(format!("value {}", end - 1))).await.unwrap();
        for max_bytes in [1, 1 << 20] {
            assert_eq!(replay(&partition, end - 2, max_bytes).await.0, expected(&[end - 1]), "{codec}");
        }
        let mut offsets = Vec::new();
        partition.fetch(end - 2).await.unwrap().for_each(|record| offsets.push(record.offset)).unwrap();
        assert_eq!(offsets, [end - 1], "{codec}");
    }
    assert_eq!(replay(&partition, 0, 1 << 20).await.0, expected(&[1, 3, 5, 7, 9, 11, 13, 15]));
}

#[tokio::test(start_paused = true)]
async fn a_last_batch_that_is_cut_off_is_not_an_error() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    let size = partition.produce(record("value 0")).await.unwrap().wire_bytes;
    partition.produce(record("value 1")).await.unwrap();
    for cut in 0..size {
        wire.edit::<FetchRequest>(move |response| {
            let records = &mut response.responses[0].partitions[0].records;
            records.as_mut().unwrap().truncate(size + cut);
        });
        let fetched = partition.fetch(0).await.unwrap();
        assert_eq!((fetched.next_offset, fetched.batches().len(), fetched.wire_bytes), (1, 1, size + cut));
    }
    wire.clear_edits();
    let (records, _) = replay(&partition, 0, (size + size / 2) as i32).await;
    assert_eq!(records, expected(&[0, 1]));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_an_error_with_its_offset() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    let size = partition.produce(record("value 0")).await.unwrap().wire_bytes;
    partition.produce(record("value 1")).await.unwrap();
    // After the length and the leader epoch, each byte is covered by the checksum, or is the magic byte or
    // the checksum.
    for byte in 16..size {
        let damage = |at: usize| {
            wire.edit::<FetchRequest>(move |response| {
                let records = response.responses[0].partitions[0].records.as_mut().unwrap();
                let mut damaged = BytesMut::from(&records[..]);
                damaged[at] ^= 0x40;
                *records = damaged.freeze();
            });
        };
        // The valid batch before it is returned first.
        damage(size + byte);
        let fetched = partition.fetch(0).await.unwrap();
        assert_eq!((fetched.batches().len(), fetched.next_offset), (1, 1), "byte {byte}");
        damage(byte);
        let error = partition.fetch(1).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error:?}");
        let source: &BatchError = source(&error);
        assert_eq!((source.base_offset, source.position), (Some(1), 0), "byte {byte}");
        assert!(!error.is_retriable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_missing_records_is_an_error_with_its_offset() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("value 0")).await.unwrap();
    broker
        .append_raw("wal", 0, with_header(batch(&["value 1"], Compression::None), |header| header.count = 2))
        .unwrap();
    let fetched = partition.fetch(0).await.unwrap();
    let error = fetched.records().collect::<Result<Vec<_>, _>>().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error:?}");
    let source: &BatchError = source(&error);
    assert_eq!(source.base_offset, Some(1));
    assert!(matches!(source.kind, BatchErrorKind::RecordsMissing { count: 2, found: 1 }), "{source:?}");
    partition.fetch_records(0, 1..1000, 0).await.unwrap_err();
    // A caller that does not read the records can continue.
    assert_eq!(fetched.next_offset, 2);
}

#[tokio::test(start_paused = true)]
async fn records_and_for_each_stop_at_a_corrupt_record() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("value 0")).await.unwrap();
    let mut corrupt = batch(&["value 1", "value 2", "value 3"], Compression::None);
    // The three records have the same size; the second one claims to be a byte longer.
    let second = BatchHeader::LEN + (corrupt.len() - BatchHeader::LEN) / 3;
    assert_eq!(corrupt[second], corrupt[BatchHeader::LEN]);
    corrupt[second] += 2;
    seal(&mut corrupt);
    broker.append_raw("wal", 0, corrupt.freeze()).unwrap();
    partition.produce(record("value 4")).await.unwrap();

    for from in [0, 1, 2, 3] {
        let fetched = partition.fetch(from).await.unwrap();
        // A caller that does not read the records can continue.
        assert_eq!((fetched.batches().len(), fetched.next_offset), (3 - usize::from(from > 0), 5));
        let expected: Vec<_> = (from..2).collect();

        let mut records = fetched.records();
        for offset in &expected {
            assert_eq!(records.next().unwrap().unwrap().offset, *offset);
        }
        let error = records.next().unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error:?}");
        let batch_error: &BatchError = source(&error);
        assert_eq!(batch_error.base_offset, Some(1));
        assert!(matches!(batch_error.kind, BatchErrorKind::Record { index: 1, .. }), "{batch_error:?}");
        let context = error.context();
        assert_eq!((context.topic.as_deref(), context.partition), (Some("wal"), Some(0)));
        assert!(records.next().is_none() && records.next().is_none(), "nothing follows the error");

        let mut offsets = Vec::new();
        let same = fetched.for_each(|record| offsets.push(record.offset)).unwrap_err();
        assert_eq!((offsets, same.to_string()), (expected, error.to_string()));
    }
    // A fetch that begins after it is not affected.
    let mut values = Vec::new();
    let fetched = partition.fetch(4).await.unwrap();
    fetched.for_each(|record| values.push(record.value.unwrap().to_vec())).unwrap();
    assert_eq!(values, [b"value 4"]);
}

#[tokio::test(start_paused = true)]
async fn an_offset_before_the_log_is_trimmed_and_one_after_it_is_beyond_its_end() {
    let broker = broker();
    let partition = open(&broker).await;
    for i in 0..10 {
        partition.produce(record(i.to_string())).await.unwrap();
    }
    broker.delete_records("wal", 0, 4).unwrap();
    for offset in [0, 3, 11, i64::MAX] {
        let error = partition.fetch(offset).await.unwrap_err();
        let requested = match error.kind() {
            ErrorKind::Trimmed { offset, log_start: 4, .. } if offset < &4 => offset,
            ErrorKind::BeyondEnd { offset, end: 10, .. } if offset > &10 => offset,
            other => panic!("{offset}: {other:?}"),
        };
        assert_eq!(*requested, offset);
        assert!(!error.is_retriable());
    }
    assert_eq!(partition.fetch(4).await.unwrap().log_start_offset, Some(4));
    assert_eq!(partition.fetch(10).max_wait(Duration::ZERO).await.unwrap().next_offset, 10);
}

#[tokio::test(start_paused = true)]
async fn an_offset_out_of_range_is_reported_also_if_the_range_is_not_available() {
    let broker = broker();
    let partition = open(&broker).await;
    broker.on_all(ApiKey::LIST_OFFSETS, Fault::BlackHole);
    let (error, took) = timed(partition.fetch(5)).await;
    let error = error.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::OffsetOutOfRange { offset: 5, log: None, .. }), "{error:?}");
    assert!(took <= deadlines().request, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_record_larger_than_the_fetch_limit_is_returned() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(large(500_000)).await.unwrap();
    partition.produce(record("value 1")).await.unwrap();
    let fetched = partition.fetch(0).max_bytes(1).await.unwrap();
    assert_eq!((fetched.next_offset, fetched.batches().len()), (1, 1));
    let (records, _) = partition.fetch_records(0, 1..2, 0).await.unwrap();
    assert_eq!(records[0].value.as_ref().unwrap().len(), 500_000);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_the_log_a_fetch_waits_for_more() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    let wait = Duration::from_secs(3);
    let (fetched, took) = timed(partition.fetch(0).max_wait(wait)).await;
    let fetched = fetched.unwrap();
    let Fetched { next_offset: 0, high_watermark: 0, wire_bytes: 0, .. } = fetched else {
        panic!("not the end: {fetched:?}")
    };
    assert_eq!((fetched.batches().len(), took), (0, wait));
    let (_, took) = timed(partition.fetch(0)).await;
    assert_eq!(took, Duration::from_millis(500), "the default");

    let waiting = tokio::spawn({
        let partition = partition.clone();
        async move { timed(partition.fetch(0).max_wait(wait)).await }
    });
    sleep(wait / 2).await;
    partition.produce(record("value 0")).await.unwrap();
    let (fetched, took) = waiting.await.unwrap();
    assert_eq!((fetched.unwrap().next_offset, took), (1, wait / 2));

    // It waits for more bytes than there are.
    let (fetched, took) = timed(partition.fetch(0).min_bytes(1_000).max_wait(wait)).await;
    assert_eq!((fetched.unwrap().next_offset, took), (1, wait));
    // At most half of the deadline.
    let (fetched, took) = timed(partition.fetch(1).max_wait(HOUR)).await;
    assert_eq!((fetched.unwrap().next_offset, took), (1, deadlines().operation / 2));
    assert_eq!(wire.count(ApiKey::FETCH), 5, "one request each");
}

#[tokio::test(start_paused = true)]
async fn reads_are_retried_after_transient_errors() {
    let codes = [
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::UNKNOWN_TOPIC_ID,
        ErrorCode::INCONSISTENT_TOPIC_ID,
        ErrorCode::LEADER_NOT_AVAILABLE,
        ErrorCode::REPLICA_NOT_AVAILABLE,
        ErrorCode::FENCED_LEADER_EPOCH,
        ErrorCode::UNKNOWN_LEADER_EPOCH,
        ErrorCode::OFFSET_NOT_AVAILABLE,
        ErrorCode::KAFKA_STORAGE_ERROR,
    ];
    let mut faults: Vec<_> = codes.into_iter().map(Fault::Error).collect();
    faults.extend([Fault::Drop, Fault::LoseReply, Fault::WrongCorrelationId, Fault::DelayReply(HOUR)]);
    for fault in faults {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        partition.produce(record("value 0")).await.unwrap();
        for api in [ApiKey::FETCH, ApiKey::LIST_OFFSETS] {
            broker.on(api, fault);
            match api {
                ApiKey::FETCH => assert_eq!(partition.fetch(0).await.unwrap().next_offset, 1),
                _ => assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), 1),
            }
            assert_eq!(wire.count(api), 2, "{fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_are_looked_up() {
    let broker = EmbeddedCluster::builder().topic("wal", 1).start_in_memory().unwrap();
    let partition = open(&broker).await;
    for at in [OffsetAt::Earliest, OffsetAt::Latest] {
        assert_eq!(partition.get_offset(at).await.unwrap(), 0);
    }
    let error = partition.get_offset(OffsetAt::MaxTimestamp).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::OffsetNotFound { .. }), "{error:?}");
    assert!(!error.to_string().contains("-3"), "{error}");
    let time = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    for seconds in [0, 20, 10] {
        let timestamp = time + Duration::from_secs(seconds);
        partition.produce(vec![Record { timestamp, ..record("a").remove(0) }]).await.unwrap();
    }
    broker.delete_records("wal", 0, 1).unwrap();
    assert_eq!(partition.get_offset(OffsetAt::Earliest).await.unwrap(), 1);
    assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), 3);
    assert_eq!(partition.get_offset(OffsetAt::MaxTimestamp).await.unwrap(), 1);
    for (seconds, offset) in [(0, 1), (11, 1), (20, 1)] {
        let at = OffsetAt::Timestamp(time + Duration::from_secs(seconds));
        assert_eq!(partition.get_offset(at).await.unwrap(), offset, "{seconds}");
    }
    let error = partition.get_offset(OffsetAt::Timestamp(time + Duration::from_secs(21))).await.unwrap_err();
    let ErrorKind::OffsetNotFound { timestamp_ms: 1_700_000_021_000, .. } = error.kind() else {
        panic!("{error:?}")
    };
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_record_is_read_as_it_was_written() {
    let broker = broker();
    let partition = open(&broker).await;
    let time = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    let odd = |key: Option<&[u8]>, value: Option<&[u8]>| {
        let mut record = Record::new(key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        record.timestamp = time;
        record
    };
    let records = vec![
        odd(None, None),
        odd(Some(b""), Some(b"")),
        odd(Some(b"\x00\xff"), None),
        odd(None, Some(&[7; 70_000])),
        odd(Some(b"k"), Some(b"v"))
            .header("a", "1")
            .header("a", "2")
            .header("", None::<&str>)
            .header("e", ""),
    ];
    partition.produce(records.clone()).await.unwrap();
    let (read, _) = partition.fetch_records(0, 1..1_000_000, 0).await.unwrap();
    assert_eq!(read.len(), records.len());
    for (i, (read, record)) in read.iter().zip(&records).enumerate() {
        assert_eq!((&read.key, &read.value, &read.headers), (&record.key, &record.value, &record.headers));
        assert_eq!((read.offset, read.timestamp()), (i as i64, Some(time)));
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_arguments_are_rejected_before_anything_is_sent() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    let errors = [
        partition.fetch(-1).await.unwrap_err(),
        partition.fetch(0).min_bytes(-1).await.unwrap_err(),
        partition.fetch(0).max_bytes(0).await.unwrap_err(),
        partition.fetch_records(0, 0..1, 0).await.unwrap_err(),
        partition.fetch_records(0, 1..1_000, -1).await.unwrap_err(),
        partition.fetch_records(0, 0..0, 0).await.unwrap_err(),
        partition.fetch_records(0, i32::MIN..i32::MIN, 0).await.unwrap_err(),
        partition.offset_for_leader_epoch(-1).await.unwrap_err(),
        partition.delete_records(-1).await.unwrap_err(),
        partition.produce(Vec::new()).await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| matches!(error.kind(), ErrorKind::InvalidInput { .. })), "{errors:?}");
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert!(texts.iter().all(|text| text.starts_with("wal/0: ")), "{texts:?}");
    // In the words of the caller's input.
    assert_eq!(texts[3], "wal/0: bytes 0..1 leave no room for records");
    assert_eq!(texts[5], "wal/0: bytes 0..0 leave no room for records");
    assert_eq!(wire.count(ApiKey::FETCH) + wire.count(ApiKey::PRODUCE), 0);
}

#[cfg(feature = "compression-lz4")]
#[tokio::test(start_paused = true)]
async fn compressed_batches_are_read_like_others() {
    let broker = broker();
    let client = crate::support::builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).compression(Compression::Lz4).await.unwrap();
    for i in 0..5 {
        let two = [record(format!("value {}", 2 * i)), record(format!("value {}", 2 * i + 1))].concat();
        partition.produce(two).await.unwrap();
    }
    let all: Vec<_> = (0..10).collect();
    for from in [0, 3, 9] {
        assert_eq!(replay(&partition, from, 100).await.0, expected(&all[from as usize..]));
    }
    // A batch that cannot be decompressed is an error with its offset.
    let mut broken = batch(&["a"], Compression::Lz4);
    broken[BatchHeader::LEN] ^= 0xff;
    seal(&mut broken);
    broker.append_raw("wal", 0, broken.freeze()).unwrap();
    let error = partition.fetch(10).await.unwrap().records().collect::<Result<Vec<_>, _>>().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error:?}");
    let source: &BatchError = source(&error);
    assert_eq!(source.base_offset, Some(10));
}
