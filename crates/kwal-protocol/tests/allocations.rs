//! The allocations of reading and building batches: none per record, and none by the claim of a length.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use kwal_protocol::{
    api::{Body, Request},
    compression::{Compression, Compressor, Decompressor},
    error::DecodeErrorKind,
    messages::*,
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
    batch.body().clear();
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

/// Neither growth nor a copy at the end takes more than the limit.
#[test]
fn decompression_takes_no_more_than_its_limit() {
    const LIMIT: usize = 1 << 20;
    // The state of the codecs.
    const STATE: usize = 64 << 10;
    let noise: Vec<u8> =
        (0..LIMIT as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    for codec in codecs() {
        for len in [1000, LIMIT / 4, LIMIT / 3, LIMIT / 2, LIMIT / 2 + 1, LIMIT * 3 / 4, LIMIT] {
            // Of a ratio beyond all that is expected, and of others.
            for repeat in [1, 300, 3_000] {
                let input: Vec<_> =
                    noise.iter().flat_map(|byte| [*byte; 3_000].into_iter().take(repeat)).take(len).collect();
                let squeezed = codec.compress(&input).unwrap();
                let allocated = measure(|| {
                    assert!(codec.decompress(&squeezed, LIMIT).unwrap() == input, "{codec} {len} {repeat}");
                });
                let most = allocated.bytes_max as usize;
                assert!(most <= LIMIT + STATE, "{codec} {len} {repeat}: {most}");
                // The same where the limit is just not enough.
                let allocated = measure(|| {
                    assert!(codec.decompress(&squeezed, len - 1).is_err(), "{codec} {len} {repeat}");
                });
                let most = allocated.bytes_max as usize;
                assert!(most <= len + STATE, "{codec} {len} {repeat}: {most} for {}", len - 1);
            }
        }
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

/// A response of many elements that are as small as possible takes a small multiple of its length.
#[test]
fn small_elements_take_a_multiple_of_their_bytes() {
    const N: usize = 5_000;
    many::<FetchRequest>(FetchResponse { responses: vec![Default::default(); N], ..Default::default() });
    let topic = FetchTopicResponse { partitions: vec![Default::default(); N], ..Default::default() };
    many::<FetchRequest>(FetchResponse { responses: vec![topic], ..Default::default() });
    let partition = FetchPartitionResponse {
        aborted_transactions: Some(vec![Default::default(); N]),
        ..Default::default()
    };
    let topic = FetchTopicResponse { partitions: vec![partition], ..Default::default() };
    many::<FetchRequest>(FetchResponse { responses: vec![topic], ..Default::default() });
    many::<FetchRequest>(FetchResponse { node_endpoints: vec![Default::default(); N], ..Default::default() });

    many::<ProduceRequest>(ProduceResponse { responses: vec![Default::default(); N], ..Default::default() });
    let topic =
        ProduceTopicResponse { partition_responses: vec![Default::default(); N], ..Default::default() };
    many::<ProduceRequest>(ProduceResponse { responses: vec![topic], ..Default::default() });
    let partition =
        ProducePartitionResponse { record_errors: vec![Default::default(); N], ..Default::default() };
    let topic = ProduceTopicResponse { partition_responses: vec![partition], ..Default::default() };
    many::<ProduceRequest>(ProduceResponse { responses: vec![topic], ..Default::default() });

    many::<ListOffsetsRequest>(ListOffsetsResponse {
        topics: vec![Default::default(); N],
        ..Default::default()
    });
    let topic = ListOffsetsTopicResponse { partitions: vec![Default::default(); N], ..Default::default() };
    many::<ListOffsetsRequest>(ListOffsetsResponse { topics: vec![topic], ..Default::default() });

    many::<MetadataRequest>(MetadataResponse { brokers: vec![Default::default(); N], ..Default::default() });
    many::<MetadataRequest>(MetadataResponse { topics: vec![Default::default(); N], ..Default::default() });
    let topic = MetadataTopicResponse { partitions: vec![Default::default(); N], ..Default::default() };
    many::<MetadataRequest>(MetadataResponse { topics: vec![topic], ..Default::default() });

    many::<ApiVersionsRequest>(ApiVersionsResponse {
        api_keys: vec![Default::default(); N],
        ..Default::default()
    });
    many::<ApiVersionsRequest>(ApiVersionsResponse {
        supported_features: vec![Default::default(); N],
        ..Default::default()
    });
}

/// Decodes a response in every version that can carry it.
fn many<R: Request>(response: R::Response) {
    let mut seen = 0;
    for number in R::VERSIONS.oldest..=R::VERSIONS.newest {
        let version = R::Response::version(number).unwrap();
        let Ok(bytes) = response.encode(version) else { continue };
        // Nothing is left over of it.
        let bytes = Bytes::from(bytes.to_vec());
        let allocated = measure(|| match R::Response::decode(&bytes, version) {
            Ok(decoded) => drop(decoded),
            Err(error) => {
                assert!(
                    matches!(error.kind, DecodeErrorKind::TooMuchMemory(_)),
                    "{} {number}: {error}",
                    R::KEY
                );
            }
        });
        let most = 8 * bytes.len() as u64 + (64 << 10);
        assert!(allocated.bytes_max <= most, "{} {number}: {} bytes, {allocated:?}", R::KEY, bytes.len());
        seen += 1;
    }
    assert!(seen > 0);
}

/// What a large cluster responds fits into the limits of a connection and of a reader.
#[test]
fn a_large_cluster_is_decoded() {
    let name = |i: i32| format!("topic-{i}");
    for (topics, partitions, replicas) in [(1, 100_000, 3), (100_000, 1, 1)] {
        let partition = |partition_index| MetadataPartition {
            partition_index,
            replica_nodes: (0..replicas).collect(),
            isr_nodes: (0..replicas).collect(),
            ..Default::default()
        };
        let topic = |i| MetadataTopicResponse {
            name: Some(name(i)),
            partitions: (0..partitions).map(partition).collect(),
            ..Default::default()
        };
        let topics = (0..topics).map(topic).collect();
        large::<MetadataRequest>(MetadataResponse { topics, ..Default::default() }, 16 << 20);
    }
    let partition = |partition_index| LogDirPartition { partition_index, ..Default::default() };
    let topic = |i| LogDirTopic { name: name(i), partitions: (0..10).map(partition).collect() };
    let results =
        vec![DescribeLogDirsResult { topics: (0..10_000).map(topic).collect(), ..Default::default() }];
    large::<DescribeLogDirsRequest>(DescribeLogDirsResponse { results, ..Default::default() }, 4 << 20);

    let synonym = |value: &str| ConfigSynonym {
        name: "log.retention.ms".to_owned(),
        value: Some(value.to_owned()),
        ..Default::default()
    };
    let config = DescribedConfig {
        name: "retention.ms".to_owned(),
        value: Some("1".to_owned()),
        synonyms: vec![synonym("1"), synonym("2")],
        ..Default::default()
    };
    let result = |i| DescribeConfigsResult {
        resource_name: name(i),
        configs: vec![config.clone(); 40],
        ..Default::default()
    };
    let results = (0..1000).map(result).collect();
    large::<DescribeConfigsRequest>(DescribeConfigsResponse { results, ..Default::default() }, 16 << 20);

    let partition = |partition_index| ListOffsetsPartitionResponse { partition_index, ..Default::default() };
    let topic = |i| ListOffsetsTopicResponse { name: name(i), partitions: (0..10).map(partition).collect() };
    let topics = (0..10_000).map(topic).collect();
    large::<ListOffsetsRequest>(ListOffsetsResponse { topics, ..Default::default() }, 4 << 20);

    // A fetch of many partitions at their end.
    let partition = |partition_index| FetchPartitionResponse {
        partition_index,
        records: Some(Bytes::new()),
        ..Default::default()
    };
    let topic = |_| FetchTopicResponse { partitions: (0..10).map(partition).collect(), ..Default::default() };
    let responses = (0..10_000).map(topic).collect();
    large::<FetchRequest>(FetchResponse { responses, ..Default::default() }, 16 << 20);
}

fn large<R: Request>(response: R::Response, limit: usize) {
    for number in [R::VERSIONS.oldest, R::VERSIONS.newest] {
        let version = R::Response::version(number).unwrap();
        let bytes = response.encode(version).unwrap();
        assert!(bytes.len() < limit, "{} {number}: {} bytes", R::KEY, bytes.len());
        drop(
            R::Response::decode(&bytes, version)
                .unwrap_or_else(|error| panic!("{} {number}: {error}", R::KEY)),
        );
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
