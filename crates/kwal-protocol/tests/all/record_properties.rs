//! Properties of any records.

use bytes::Bytes;
use kwal_protocol::{
    compression::Compression,
    record::{BatchBuilder, BatchHeader, Batches, Header, Headers, NO_TIMESTAMP, OwnedRecord, crc},
};
use proptest::{collection::vec, option, prelude::*};

const LIMIT: usize = 16 << 20;

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 8180..8200)].prop_map(Bytes::from)
}

fn headers() -> impl Strategy<Value = Headers> {
    let header = ("[a-zé]{0,5}", option::of(bytes())).prop_map(Header::from);
    vec(header, 0..4).prop_map(Headers::from)
}

fn records() -> impl Strategy<Value = Vec<OwnedRecord>> {
    let record = (
        prop_oneof![0..100i64, NO_TIMESTAMP..=i64::MAX],
        option::of(bytes()),
        option::of(bytes()),
        headers(),
    );
    let record = record.prop_map(|(timestamp_ms, key, value, headers)| OwnedRecord {
        offset: 0,
        timestamp_ms,
        leader_epoch: -1,
        key,
        value,
        headers,
    });
    vec(record, 1..20).prop_map(|mut records| {
        records.iter_mut().zip(0..).for_each(|(record, offset)| record.offset = offset);
        records
    })
}

fn codecs() -> impl Strategy<Value = Compression> {
    proptest::sample::select(
        Compression::ALL.into_iter().filter(|codec| codec.is_built_in()).collect::<Vec<_>>(),
    )
}

proptest! {
    #[test]
    fn built_batches_are_read(records in records(), codec in codecs(), base_offset in 0..i64::MAX - 20) {
        let mut builder = BatchBuilder::new(codec);
        for record in &records {
            builder.push(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &record.headers);
        }
        let size = builder.size_in_bytes();
        let batch = builder.finish().unwrap().stamp(7, 8, 9).at(base_offset, 3);
        prop_assert_eq!(batch.uncompressed_size(), size);
        prop_assert_eq!(batch.compression(), codec);

        let mut batches = Batches::new([batch.to_bytes(), batch.to_bytes()].concat().into());
        let read = batches.next().unwrap().unwrap();
        prop_assert_eq!(*read.header(), batch.header());
        prop_assert_eq!(read.next_offset(), base_offset + records.len() as i64);
        prop_assert_eq!(read.header().max_timestamp, records.iter().map(|r| r.timestamp_ms).max().unwrap());
        let read = read.records(LIMIT).unwrap();
        let lazy: Vec<_> = read.iter().map(|record| record.unwrap().to_detached()).collect();
        let owned: Vec<_> = read.into_iter().map(Result::unwrap).collect();
        prop_assert_eq!(&lazy, &owned);
        let at = |r: OwnedRecord| OwnedRecord { offset: r.offset + base_offset, leader_epoch: 3, ..r };
        let expected = records.into_iter().map(at);
        prop_assert_eq!(owned, expected.collect::<Vec<_>>());
        prop_assert_eq!(batches.next().unwrap().unwrap().position(), batch.size_in_bytes());
        prop_assert!(batches.next().is_none());
        prop_assert_eq!(batches.torn(), 0);
    }

    /// After a header with a valid checksum, so that the records are decoded.
    #[test]
    fn arbitrary_records_are_rejected_without_a_panic(body in vec(any::<u8>(), 0..200), codec in 0..8i16, count in -1..20i32) {
        let header = BatchHeader {
            batch_length: (BatchHeader::LEN - BatchHeader::LOG_OVERHEAD + body.len()) as i32,
            attributes: codec,
            count,
            ..BatchHeader::default()
        };
        let mut bytes = [&header.to_bytes()[..], &body].concat();
        let sum = crc::checksum(&bytes[21..]);
        bytes[17..21].copy_from_slice(&sum.to_be_bytes());
        let batch = Batches::new(bytes.into()).next().unwrap().unwrap();
        if let Ok(records) = batch.records(LIMIT) {
            let lazy: Vec<_> = records.iter().map(|record| record.map(|record| record.to_detached())).collect();
            let owned: Vec<_> = records.into_iter().collect();
            prop_assert_eq!(&lazy, &owned);
            // Either all of them, or the last one is the only error.
            let faults = owned.iter().filter(|record| record.is_err()).count();
            prop_assert!(faults == 0 && owned.len() == count as usize || faults == 1 && owned.last().unwrap().is_err());
        }
        prop_assert!(Batches::new(body.into()).map_while(Result::ok).count() < 10);
    }
}

/// The last byte of such a record is a length of 0.
#[test]
fn a_trailing_empty_field_is_read() {
    let headers = Headers::from([("", ""), ("a", "")]);
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(0, Some(b""), Some(b""), &headers);
    builder.push(0, None, Some(b""), &Headers::new());
    let bytes = builder.finish().unwrap().to_bytes();
    let records = Batches::new(bytes).next().unwrap().unwrap().records(LIMIT).unwrap();
    let detached: Vec<_> = records.iter().map(|record| record.unwrap().to_detached()).collect();
    let owned: Vec<_> = records.into_iter().map(Result::unwrap).collect();
    assert_eq!(detached, owned);
    assert_eq!((owned[0].key.as_deref(), owned[0].value.as_deref()), (Some(&b""[..]), Some(&b""[..])));
    assert_eq!((&owned[0].headers, owned[1].key.as_deref()), (&headers, None));
}
