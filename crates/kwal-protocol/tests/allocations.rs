//! The allocations of reading and building batches: none per record, and none by the claim of a length.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use kwal_protocol::{
    compression::{Compression, Compressor, Decompressor},
    record::{BatchBuilder, BatchErrorKind, BatchHeader, Batches, EncodedBatch, Headers, OwnedRecord, crc},
};

const RECORDS: u32 = 1000;
/// The buffers and their reference counts: the same for a batch of any size.
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
fn compressed_records_are_decompressed_once() {
    let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
    for codec in codecs() {
        let bytes = build(codec, &Headers::new()).to_bytes();
        let count = |decompressor: &mut Decompressor| {
            let batch = Batches::new(bytes.clone()).next().unwrap().unwrap();
            let records = batch.records_with(decompressor, 1 << 20).unwrap();
            assert_eq!(records.iter().filter(|record| record.is_ok()).count(), RECORDS as usize);
        };
        // The buffer may have to be replaced by a larger one: this input gives 116 kB at an extreme ratio.
        let allocated = measure(|| count(&mut Decompressor::new()));
        assert!(allocated.count_total <= 2 * PER_BATCH, "{codec}: {allocated:?}");
        assert!(allocated.bytes_max < 300_000, "{codec}: {allocated:?}");
        // With reused memory only the reference count is allocated.
        count(&mut decompressor);
        let allocated = measure(|| count(&mut decompressor));
        assert!(allocated.count_total <= 2, "{codec}: {allocated:?}");
        assert!(allocated.bytes_max < 100, "{codec}: {allocated:?}");

        // The output alone.
        let mut finish = || {
            let mut builder = BatchBuilder::with_capacity_of(&mut compressor, codec, 200_000);
            builder.push(0, None, Some(&[7; 100_000]), &Headers::new());
            builder.finish_with(&mut compressor).unwrap()
        };
        finish();
        let allocated = measure(|| drop(finish()));
        assert!(allocated.count_total <= 2 && allocated.bytes_max < 10_000, "{codec}: {allocated:?}");
    }
}

/// Memory is not reserved by the claim of a few bytes, for any codec.
#[test]
fn claims_of_compressed_batches_reserve_nothing() {
    let bomb = vec![0; 64 << 20];
    for codec in codecs() {
        let squeezed = codec.compress(&bomb).unwrap();
        let allocated = measure(|| {
            assert!(codec.decompress(&squeezed, 1 << 20).is_err(), "{codec}");
        });
        assert!(allocated.bytes_max < 4 << 20, "{codec}: {allocated:?}");
        // The same truncated, with a limit that would allow all of it.
        let allocated = measure(|| {
            assert!(codec.decompress(&squeezed[..squeezed.len() / 1000], 1 << 30).is_err(), "{codec}");
        });
        assert!(allocated.bytes_max < 4 << 20, "{codec}: {allocated:?}");
    }
}

fn codecs() -> impl Iterator<Item = Compression> {
    Compression::ALL.into_iter().filter(|codec| *codec != Compression::None && codec.is_built_in())
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
