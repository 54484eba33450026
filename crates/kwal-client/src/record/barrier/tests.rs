//! A barrier that is written is read as it was, and nothing else is read as one.

use bytes::Bytes;
use kwal_protocol::record::{BatchBuilder, Batches, Compression, Header, Headers};
use proptest::{collection::vec, prelude::*};

use super::*;

const KEY: &str = "writer-1/wal/0";

fn barrier() -> Barrier {
    let mark = [0, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xff, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60];
    Barrier { name: "writer-1".to_owned(), producer_id: 4_001, epoch: 2, mark }
}

/// Returns the record as it is read: key, value and headers are the same.
fn read(record: Record) -> OwnedRecord {
    let Record { key, value, headers, .. } = record;
    OwnedRecord { offset: 7, timestamp_ms: 0, leader_epoch: 0, key, value, headers }
}

/// Reads a record as an owned one, and borrowed from a batch.
fn parse(record: &OwnedRecord) -> Option<Barrier> {
    let parsed = Barrier::parse(record);
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &record.headers);
    let bytes = batch.finish().unwrap().to_bytes();
    let records = Batches::new(bytes).next().unwrap().unwrap().records(1 << 20).unwrap();
    assert_eq!(Barrier::parse(&records.iter().next().unwrap().unwrap()), parsed);
    parsed
}

/// A record is a barrier only if it is, byte by byte, the record of that barrier.
fn assert_one_form(record: &OwnedRecord) -> Result<(), TestCaseError> {
    if let Some(barrier) = parse(record) {
        let key = std::str::from_utf8(record.key.as_deref().unwrap()).unwrap();
        prop_assert_eq!(&OwnedRecord { offset: 7, timestamp_ms: 0, ..read(barrier.to_record(key)) }, record);
    }
    Ok(())
}

#[test]
fn its_record_is_as_documented() {
    let record = barrier().to_record(&transactional_id("writer-1", "wal", 0));
    assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(KEY.as_bytes()), Some(&b""[..])));
    let headers = [
        ("kwal.barrier", "writer-1"),
        ("kwal.producer-id", "4001"),
        ("kwal.epoch", "2"),
        ("kwal.mark", "000123456789abcdefff102030405060"),
    ];
    assert_eq!(record.headers, headers.into());
    assert_eq!(parse(&read(record)), Some(barrier()));
    let text = "barrier of writer-1: producer id 4001, epoch 2, mark 000123456789abcdefff102030405060";
    assert_eq!(barrier().to_string(), text);
}

#[test]
fn a_name_may_have_slashes_and_a_text_no_line_ends() {
    let named = |name: &str| Barrier { name: name.to_owned(), ..barrier() };
    for (name, key) in [("a/b", "a/b/wal/0"), ("/", "//wal/0"), ("a/wal/0", "a/wal/0/wal/0")] {
        assert_eq!(transactional_id(name, "wal", 0), key);
        assert_eq!(parse(&read(named(name).to_record(key))), Some(named(name)));
    }
    assert!(named("a\u{2028}b").to_string().starts_with(r"barrier of a\u{2028}b: "));
}

#[test]
fn records_that_resemble_a_barrier() {
    let valid = || read(barrier().to_record(KEY));
    let headers: Vec<_> = valid().headers.into_iter().collect();
    let with = |headers: Vec<Header>| OwnedRecord { headers: headers.into(), ..valid() };
    let value = |at: usize, value: Option<&'static [u8]>| {
        let mut headers = headers.clone();
        headers[at].value = value.map(Bytes::from_static);
        with(headers)
    };
    let key = |key: &'static str| OwnedRecord { key: Some(key.into()), ..valid() };
    let none: Vec<OwnedRecord> = vec![
        OwnedRecord { key: None, ..valid() },
        OwnedRecord { value: None, ..valid() },
        OwnedRecord { value: Some("x".into()), ..valid() },
        OwnedRecord { headers: Headers::new(), ..valid() },
        key(""),
        key("writer-1"),
        key("writer-1/wal"),
        key("writer-1/wal/"),
        key("writer-1/wal/00"),
        key("writer-1/wal/-1"),
        key("writer-1/wal/2147483648"),
        key("writer-1/wal/0/0"),
        key("writer-1//0"),
        key("writer-1/w al/0"),
        key("writer-2/wal/0"),
        with(headers.iter().cloned().rev().collect()),
        with(headers.iter().cloned().chain([Header::new("trace", "1")]).collect()),
        with([Header::new("trace", "1")].into_iter().chain(headers.iter().cloned()).collect()),
        with(headers.iter().chain(&headers[3..]).cloned().collect()),
        with(headers[..3].iter().chain(&headers[2..3]).cloned().collect()),
        with(headers[..3].iter().cloned().chain([Header::new("kwal.Mark", [b'0'; 32])]).collect()),
        value(0, Some(b"writer")),
        value(0, Some(b"")),
        value(0, Some(b"writer-1\xff")),
        value(1, Some(b"")),
        value(1, Some(b"-1")),
        value(1, Some(b"+1")),
        value(1, Some(b"04001")),
        value(1, Some(b"4001 ")),
        value(1, Some(b"9223372036854775808")),
        value(2, Some(b"32768")),
        value(2, Some(b"-1")),
        value(2, Some(b"02")),
        value(3, Some(b"000123456789ABCDEFFF102030405060")),
        value(3, Some(b"000123456789abcdefff10203040506")),
        value(3, Some(b"000123456789abcdefff1020304050601")),
        value(3, Some(b"000123456789abcdefff10203040506g")),
    ];
    let null = (0..headers.len()).map(|at| value(at, None));
    for record in none.into_iter().chain(null) {
        assert_eq!(parse(&record), None, "{record:?}");
    }
    let too_long = "x".repeat(256);
    for (name, is_name) in [("a\nb", false), (&*too_long, false), (&too_long[1..], true)] {
        let named = Barrier { name: name.to_owned(), ..barrier() };
        let record = read(named.to_record(&transactional_id(name, "wal", 0)));
        assert_eq!(parse(&record), is_name.then_some(named));
    }
}

/// Returns a batch of some records, as it is on the log.
fn batch(records: &[&Record], codec: Compression, producer: (i64, i16)) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    for Record { key, value, headers, .. } in records {
        builder.push(0, key.as_deref(), value.as_deref(), headers);
    }
    let batch = builder.finish().unwrap().stamp(producer.0, producer.1, 0);
    Batches::new(batch.to_bytes()).next().unwrap().unwrap()
}

#[test]
fn a_batch_is_a_barrier_if_it_is_of_the_holder_that_its_record_names() {
    let Barrier { producer_id, epoch, .. } = barrier();
    let own = (producer_id, epoch);
    let record = barrier().to_record(KEY);
    let long = Barrier { name: "ä".repeat(127), producer_id: i64::MAX, epoch: i16::MAX, ..barrier() };
    let long_record = long.to_record(&transactional_id(&long.name, &"x".repeat(249), i32::MAX));
    for codec in [Compression::None, Compression::Gzip] {
        let batch = |records: &[&Record], producer| batch(records, codec, producer);
        assert_eq!(Barrier::in_batch(&batch(&[&record], own)), Some(barrier()));
        let long_batch = batch(&[&long_record], (i64::MAX, i16::MAX));
        assert!(batch(&[&long_record], own).size_in_bytes() * 2 < Barrier::MAX_LEN);
        assert_eq!(Barrier::in_batch(&long_batch), Some(long.clone()));
        for none in [
            batch(&[&record], (producer_id, i16::MAX)),
            batch(&[&record], (producer_id, epoch + 1)),
            batch(&[&record], (producer_id + 1, epoch)),
            batch(&[&record], (-1, -1)),
            batch(&[&record, &record], own),
            batch(&[&Record::new(KEY, "")], own),
            batch(&[&Record::new(KEY, vec![0; Barrier::MAX_LEN])], own),
        ] {
            assert_eq!(Barrier::in_batch(&none), None, "{none:?}");
        }
    }
}

fn barriers() -> impl Strategy<Value = (Barrier, String)> {
    let name = "[^\\p{Cc}]{1,60}";
    let parts = (name, 0..=i64::MAX, 0..=i16::MAX, any::<[u8; 16]>(), "[a-zA-Z0-9_-]{1,249}", 0..=i32::MAX);
    parts.prop_map(|(name, producer_id, epoch, mark, topic, partition)| {
        let transactional_id = transactional_id(&name, &topic, partition);
        (Barrier { name, producer_id, epoch, mark }, transactional_id)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read((barrier, transactional_id) in barriers()) {
        prop_assert_eq!(parse(&read(barrier.to_record(&transactional_id))), Some(barrier));
    }

    #[test]
    fn every_edit_is_another_barrier_or_none(
        (barrier, transactional_id) in barriers(),
        part in 0..9_usize,
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"0/-+ aA"[..])],
        kind in 0..3,
    ) {
        let mut record = read(barrier.to_record(&transactional_id));
        let edit = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            match kind {
                0 => bytes.truncate(at.index(bytes.len() + 1)),
                1 => bytes.insert(at.index(bytes.len() + 1), byte),
                _ => {
                    let at = at.index(bytes.len().max(1));
                    bytes.iter_mut().skip(at).take(1).for_each(|edited| *edited = byte);
                }
            }
            Bytes::from(bytes)
        };
        match part {
            8 => record.key = record.key.as_deref().map(edit),
            _ => {
                let mut headers: Vec<_> = record.headers.into_iter().collect();
                let header = &mut headers[part / 2];
                *header = match part % 2 {
                    0 => Header::new(edit(header.key_bytes()), header.value.clone()),
                    _ => Header::new(header.key_bytes(), header.value.as_deref().map(edit)),
                };
                record.headers = headers.into();
            }
        }
        assert_one_form(&record)?;
    }

    #[test]
    fn no_bytes_are_read_as_a_barrier_that_they_are_not(
        key in prop::option::of(vec(any::<u8>(), 0..40)),
        value in prop::option::of(vec(any::<u8>(), 0..2)),
        names in vec(prop_oneof![
            prop::sample::select(&[NAME, PRODUCER_ID, EPOCH, MARK][..]).prop_map(|name| name.as_bytes().to_vec()),
            vec(any::<u8>(), 0..20),
        ], 0..6),
        values in vec(prop::option::of(vec(any::<u8>(), 0..40)), 6),
    ) {
        let headers = names.into_iter().zip(values).collect();
        let record = OwnedRecord {
            offset: 7,
            timestamp_ms: 0,
            leader_epoch: 0,
            key: key.map(Bytes::from),
            value: value.map(Bytes::from),
            headers,
        };
        assert_one_form(&record)?;
    }
}
