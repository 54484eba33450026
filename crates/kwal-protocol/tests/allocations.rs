//! What reading and building batches allocates: nothing per record, and nothing that only a claim asks for.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use kwal_protocol::{
    compression::Compression,
    record::{BatchBuilder, BatchErrorKind, BatchHeader, Batches, EncodedBatch, Headers, OwnedRecord, crc},
};

const RECORDS: u32 = 1000;
/// The buffers, and what makes them shared: the same for a batch of any size.
const PER_BATCH: u64 = 4;

#[test]
fn building_allocates_nothing_per_record() {
    let headers = Headers::from([("trace", "4711"), ("type", "event")]);
    let allocated = measure(|| {
        build(Compression::None, &headers);
    });
    assert!(allocated.count_total <= PER_BATCH, "{allocated:?}");
}

#[test]
fn stamping_allocates_nothing() {
    let batch = build(Compression::None, &Headers::new());
    batch.body().clone().clear();
    let allocated = measure(|| {
        assert_ne!(batch.stamp(1, 2, 3).header_bytes(), batch.header_bytes());
    });
    assert_eq!(allocated.count_total, 0, "{allocated:?}");
}

#[test]
fn borrowed_records_allocate_nothing() {
    let headers = Headers::from([("trace", "4711"), ("type", "event")]);
    let bytes = build(Compression::None, &headers).to_bytes();
    let allocated = measure(|| {
        let batch = Batches::new(bytes.clone()).next().unwrap().unwrap();
        let records = batch.records(0).unwrap();
        let headers = records.iter().map(|record| record.unwrap().headers().count()).sum::<usize>();
        assert_eq!(headers, 2 * RECORDS as usize);
    });
    assert!(allocated.count_total <= PER_BATCH, "{allocated:?}");
}

#[test]
fn owned_records_allocate_their_list_of_headers_at_most() {
    let without = measure_owned(&Headers::new());
    assert!(without.count_total <= PER_BATCH, "{without:?}");
    let with = measure_owned(&Headers::from([("trace", "4711"), ("type", "event")]));
    assert!(with.count_total <= u64::from(RECORDS) + PER_BATCH, "{with:?}");
}

#[test]
#[cfg(feature = "compression-lz4")]
fn compressed_records_are_decompressed_once() {
    let bytes = build(Compression::Lz4, &Headers::new()).to_bytes();
    let allocated = measure(|| {
        let batch = Batches::new(bytes.clone()).next().unwrap().unwrap();
        let records = batch.records(1 << 20).unwrap();
        assert_eq!(records.iter().filter(|record| record.is_ok()).count(), RECORDS as usize);
    });
    assert!(allocated.count_total <= PER_BATCH, "{allocated:?}");
    assert!(allocated.bytes_max < 200_000, "{allocated:?}");
}

#[test]
fn claims_reserve_nothing() {
    // Two billion records, by the header; then one with a billion headers; then one of two gigabytes.
    let record = [&[26, 0, 0, 0, 1, 1][..], &[0xff, 0xff, 0xff, 0xff, 0x07], &[0; 3]].concat();
    for body in [vec![12, 0, 0, 0, 1, 1, 0], record, vec![0xfe, 0xff, 0xff, 0xff, 0x0f, 0]] {
        let header = BatchHeader {
            batch_length: (BatchHeader::LEN - BatchHeader::LOG_OVERHEAD + body.len()) as i32,
            count: i32::MAX,
            ..BatchHeader::default()
        };
        let mut bytes = [&header.to_bytes()[..], &body].concat();
        let sum = crc::checksum(&bytes[21..]);
        bytes[17..21].copy_from_slice(&sum.to_be_bytes());
        let bytes = Bytes::from(bytes);
        let allocated = measure(|| {
            let batch = Batches::new(bytes.clone()).next().unwrap().unwrap();
            let records: Result<Vec<OwnedRecord>, _> = batch.records(0).unwrap().into_iter().collect();
            let kind = records.unwrap_err().kind;
            let missing =
                matches!(kind, BatchErrorKind::RecordsMissing { .. } | BatchErrorKind::Record { .. });
            assert!(missing, "{kind:?}");
        });
        assert!(allocated.bytes_max < 4096, "{allocated:?}");
    }
}

fn build(compression: Compression, headers: &Headers) -> EncodedBatch {
    let mut builder = BatchBuilder::with_capacity(compression, 200_000);
    for i in 0..RECORDS {
        builder.push(i.into(), Some(b"a key"), Some(&[7; 100]), headers);
    }
    builder.finish().unwrap()
}

fn measure_owned(headers: &Headers) -> AllocationInfo {
    let bytes = build(Compression::None, headers).to_bytes();
    measure(|| {
        let batch = Batches::new(bytes.clone()).next().unwrap().unwrap();
        let records = batch.records(0).unwrap().into_iter();
        let headers_seen = records.map(|record| record.unwrap().headers.len()).sum::<usize>();
        assert_eq!(headers_seen, headers.len() * RECORDS as usize);
    })
}
