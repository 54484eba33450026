//! Properties of any records.

use std::io::IoSlice;

use bytes::{Buf, Bytes};
use kwal_protocol::{
    api::encode_request,
    buffers::Buffers,
    compression::{Compression, Compressor},
    messages::{ProducePartition, ProduceRequest, ProduceTopic},
    record::{BatchBuilder, BatchHeader, Batches, Header, Headers, NO_TIMESTAMP, OwnedRecord, crc},
    wire::Spliced,
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

/// Values around the size from which on they are shared.
fn large_records() -> impl Strategy<Value = Vec<OwnedRecord>> {
    let len = prop_oneof![
        2 => 0..40usize,
        2 => BatchBuilder::SHARE_FROM - 2..BatchBuilder::SHARE_FROM + 3,
        1 => Just(3 * BatchBuilder::SHARE_FROM),
    ];
    let value = (len, any::<u8>()).prop_map(|(len, first)| {
        (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(first)).collect::<Vec<_>>().into()
    });
    let value = option::of(value);
    vec((records(), value), 1..8).prop_map(|records| {
        records.into_iter().map(|(mut records, value)| OwnedRecord { value, ..records.remove(0) }).collect()
    })
}

proptest! {
    /// Whatever pieces a batch is made of, it is byte for byte the same: on the wire, in one piece, by its
    /// checksum, after a rollback, and when it is forwarded.
    #[test]
    fn a_batch_of_pieces_is_the_same_as_one_of_copies(
        records in large_records(),
        codec in prop_oneof![4 => Just(Compression::None), 1 => codecs()],
        is_pooled in any::<bool>(),
        cut in 0..8usize,
    ) {
        let buffers = Buffers::new(1 << 20);
        let mut compressor = if is_pooled { Compressor::with_buffers(buffers.clone()) } else { Compressor::new() };
        let mut copied = BatchBuilder::new(codec);
        let mut pieced = BatchBuilder::with_capacity_of(&mut compressor, codec, 50_000);
        for (index, OwnedRecord { timestamp_ms, key, value, headers, .. }) in records.iter().enumerate() {
            let checkpoint = pieced.checkpoint();
            if index == cut {
                // What is undone leaves nothing.
                pieced.push_shared(1, None, Some(&Bytes::from(vec![9; 20_000])), headers);
                pieced.rollback(checkpoint);
            }
            copied.push(*timestamp_ms, key.as_deref(), value.as_deref(), headers);
            pieced.push_shared(*timestamp_ms, key.as_deref(), value.as_ref(), headers);
            prop_assert_eq!(copied.size_in_bytes(), pieced.size_in_bytes());
        }
        let (copied, pieced) = (copied.finish().unwrap(), pieced.finish_with(&mut compressor).unwrap());
        let [copied, pieced] = [copied, pieced].map(|batch| batch.stamp(5, 6, 7).with_transactional(true));
        let bytes = copied.to_bytes();
        prop_assert_eq!(&pieced.to_bytes(), &bytes);
        prop_assert_eq!(pieced.header(), copied.header());
        prop_assert_eq!(pieced.body(), copied.body());
        prop_assert_eq!(pieced.size_in_bytes(), bytes.len());
        prop_assert_eq!(pieced.uncompressed_size(), copied.uncompressed_size());
        prop_assert!(pieced.memory() >= pieced.size_in_bytes());
        prop_assert_eq!(&pieced.to_spliced(), &Spliced::from(bytes.clone()));
        prop_assert_eq!(pieced.to_spliced().into_bytes(), bytes.clone());

        // In a request, which is sent in the pieces of its frame.
        let request = |records| ProduceRequest {
            topic_data: vec![ProduceTopic {
                partition_data: vec![ProducePartition { index: 3, records: Some(records) }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let [expected, mut frame] = [Spliced::from(bytes.clone()), pieced.to_spliced()]
            .map(|records| encode_request(&request(records), 9, 4, None).unwrap());
        let (mut sent, mut expected) = (Vec::new(), expected);
        let expected = expected.copy_to_bytes(expected.remaining());
        while frame.has_remaining() {
            let mut pieces = [IoSlice::new(&[]); 5];
            let used = frame.chunks_vectored(&mut pieces);
            prop_assert_eq!(frame.chunk(), &pieces[0][..]);
            // As much as a stream may take of them.
            let all = pieces[..used].iter().flat_map(|piece| piece.iter().copied());
            let part: Vec<_> = all.take(17_000).collect();
            frame.advance(part.len());
            sent.extend(part);
        }
        prop_assert_eq!(sent, expected);

        // Values are those of the caller, with the same memory.
        let is_shared = |value: &Bytes| BatchBuilder::shares(codec, value.len());
        let shared = records.iter().filter_map(|record| record.value.as_ref()).filter(|value| is_shared(value));
        let mut frame = encode_request(&request(pieced.to_spliced()), 9, 4, None).unwrap();
        for value in shared {
            while frame.chunk().as_ptr() != value.as_ptr() {
                prop_assert!(frame.has_remaining());
                frame.advance(1);
            }
        }

        let read = Batches::new(bytes).next().unwrap().unwrap();
        let read: Vec<_> = read.records(LIMIT).unwrap().iter().map(|record| record.unwrap().to_detached()).collect();
        let values = |records: &[OwnedRecord]| records.iter().map(|record| record.value.clone()).collect::<Vec<_>>();
        prop_assert_eq!(values(&read), values(&records));
        drop((pieced, copied, frame));
        prop_assert_eq!(buffers.shared_bytes(), 0);
        prop_assert_eq!(buffers.kept_bytes() > 0, is_pooled);
    }

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
