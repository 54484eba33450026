//! C7: a response out of order is corrupt, and a reader that cannot get on learns why.

use std::time::Duration;

use bytes::Bytes;
use kwal_client::{
    FetchedBatch, PartitionClient, RetryPolicy,
    error::{Error, ErrorKind, Outcome},
};
use kwal_protocol::{
    api::ApiKey,
    messages::{FetchRequest, FetchResponse},
    record::{BatchError, BatchErrorKind, BatchHeader, OwnedRecord, RawBatch, RawRecord},
};
use kwal_testkit::EmbeddedCluster;

use crate::support::{HOUR, Wire, broker, open_over, record, source, timed};

/// Opens a partition whose log has the values of offsets 0 to 3, in two batches.
async fn two_batches(broker: &EmbeddedCluster, wire: &Wire) -> PartitionClient {
    let partition = open_over(wire).await;
    for offset in [0, 2] {
        let two = [record(format!("value {offset}")), record(format!("value {}", offset + 1))].concat();
        partition.produce(two).await.unwrap();
    }
    assert_eq!(broker.end_offset("wal", 0).unwrap(), 4);
    partition
}

/// Changes the bytes of every fetch.
fn edit(wire: &Wire, mut change: impl FnMut(Bytes) -> Bytes + Send + 'static) {
    wire.edit::<FetchRequest>(move |response| {
        let records = records(response);
        *records = Some(change(records.take().unwrap_or_default()));
    });
}

fn records(response: &mut FetchResponse) -> &mut Option<Bytes> {
    &mut response.responses[0].partitions[0].records
}

#[track_caller]
fn corrupt(error: &Error) -> &BatchError {
    assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error:?}");
    assert_eq!((error.outcome(), error.is_retriable()), (Outcome::NotApplied, false));
    let context = error.context();
    assert_eq!((context.topic.as_deref(), context.partition), (Some("wal"), Some(0)));
    source(error)
}

#[tokio::test(start_paused = true)]
async fn batches_out_of_order_are_corrupt() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = two_batches(&broker, &wire).await;
    // The indices of the batches in the response.
    for (order, (first, last, next)) in [
        (vec![0, 0, 1], (0, 1, 2)),
        (vec![1, 0], (0, 1, 4)),
        (vec![0, 1, 1], (2, 3, 4)),
        (vec![0, 1, 0], (0, 1, 4)),
    ] {
        edit(&wire, move |bytes| {
            let size = bytes.len() / 2;
            order.iter().flat_map(|index| bytes.slice(index * size..(index + 1) * size)).collect()
        });
        let errors = [
            partition.fetch(0).await.unwrap_err(),
            partition.fetch_records(0, 1..1000, 0).await.unwrap_err(),
        ];
        for error in errors {
            let source = corrupt(&error);
            assert_eq!(source.kind, BatchErrorKind::Offsets { first, last, next });
            assert_eq!(source.base_offset, Some(first));
        }
    }
    wire.clear_edits();
    assert_eq!(partition.fetch(0).await.unwrap().next_offset, 4);
}

#[tokio::test(start_paused = true)]
async fn records_out_of_order_are_corrupt() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = two_batches(&broker, &wire).await;
    // The batch covers 4 offsets, and begins at offset 4.
    for (deltas, read, (offset, next)) in [
        (vec![0, 2, 1], vec![4, 6], (5, 7)),
        (vec![0, 1, 1], vec![4, 5], (5, 6)),
        (vec![3, 3], vec![7], (7, 8)),
        (vec![0, 4], vec![4], (8, 5)),
        (vec![-1, 0], vec![], (3, 4)),
        (vec![0, i32::MAX], vec![4], (4 + i64::from(i32::MAX), 5)),
        (vec![0, i32::MIN], vec![4], (4 + i64::from(i32::MIN), 5)),
    ] {
        let record = |offset_delta| RawRecord { offset_delta, ..Default::default() };
        let raw = RawBatch {
            header: BatchHeader { base_offset: 4, last_offset_delta: 3, ..Default::default() },
            records: deltas.iter().copied().map(record).collect(),
            ..Default::default()
        };
        let raw = raw.encode().unwrap();
        edit(&wire, move |bytes| [bytes, raw.clone()].concat().into());
        let fetched = partition.fetch(2).await.unwrap();
        // A caller that does not read the records can continue.
        assert_eq!(fetched.next_offset, 8);
        let mut offsets = Vec::new();
        let by_reference = fetched.for_each(|record| offsets.push(record.offset)).unwrap_err();
        let last = fetched.clone().into_batches().last().unwrap();
        for end in 4..=8 {
            read_to_end(&last.clone().ending_at(end));
        }
        let mut records = fetched.records();
        let owned: Vec<_> = records.by_ref().map_while(|record| record.ok()).map(|r| r.offset).collect();
        assert!(records.next().is_none(), "nothing follows the error");
        let of_records = fetched.records().find_map(Result::err).unwrap();
        let of_call = partition.fetch_records(2, 1..1000, 0).await.unwrap_err();
        assert_eq!((&offsets, &owned), (&[&[2, 3], &read[..]].concat(), &offsets), "{deltas:?}");
        for error in [by_reference, of_records, of_call] {
            let source = corrupt(&error);
            assert_eq!(source.kind, BatchErrorKind::RecordOffset { offset, next, last: 7 }, "{deltas:?}");
            assert_eq!(source.base_offset, Some(4));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_batch_that_is_always_cut_off_is_corrupt() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = two_batches(&broker, &wire).await;
    for (bytes, base_offset) in [(80, Some(2)), (61, Some(2)), (8, Some(2)), (7, None), (1, None)] {
        let fetches = wire.count(ApiKey::FETCH);
        edit(&wire, move |all| all.slice(..bytes));
        let (error, took) = timed(partition.fetch(2).max_wait(Duration::from_secs(20))).await;
        let error = error.unwrap_err();
        let source = corrupt(&error);
        assert_eq!((&source.kind, source.base_offset), (&BatchErrorKind::CutOff(bytes), base_offset));
        assert_eq!(wire.count(ApiKey::FETCH) - fetches, 3);
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    // The pause between the requests ends with the deadline.
    let slow = wire.builder().retry(RetryPolicy::default().initial(HOUR).max(HOUR)).build().await.unwrap();
    let slow = slow.partition_client("wal", 0).await.unwrap();
    let deadline = Duration::from_secs(5);
    let (error, took) = timed(slow.fetch(2).deadline(deadline)).await;
    let error = error.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
    assert_eq!(took, deadline);
    // Once is no error.
    let mut is_first = true;
    edit(&wire, move |all| if std::mem::take(&mut is_first) { all.slice(..80) } else { all });
    assert_eq!(partition.fetch(2).await.unwrap().next_offset, 4);
}

#[tokio::test(start_paused = true)]
async fn batches_before_the_offset_are_an_error_only_if_the_log_goes_on() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = two_batches(&broker, &wire).await;
    let mut first = None;
    edit(&wire, move |all| first.get_or_insert_with(|| all.slice(..all.len() / 2)).clone());
    // The response to every fetch has offsets 0 and 1.
    assert_eq!(partition.fetch(0).await.unwrap().next_offset, 2);
    for from in [2, 3] {
        let error = partition.fetch(from).await.unwrap_err();
        assert_eq!(corrupt(&error).kind, BatchErrorKind::Offsets { first: 0, last: 1, next: from });
    }
    let fetched = partition.fetch(4).await.unwrap();
    assert_eq!((fetched.next_offset, fetched.records().count()), (4, 0), "the end of the log");
}

#[tokio::test(start_paused = true)]
async fn no_bytes_for_ever_are_an_error_if_the_log_goes_on() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = two_batches(&broker, &wire).await;
    wire.edit::<FetchRequest>(|response| *records(response) = None);
    let fetches = wire.count(ApiKey::FETCH);
    let error = partition.fetch(0).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::MalformedResponse), "{error:?}");
    assert_eq!((error.outcome(), error.context().partition), (Outcome::NotApplied, Some(0)));
    assert_eq!(wire.count(ApiKey::FETCH) - fetches, 3);

    // A high watermark alone does not say that the log goes on.
    wire.edit::<FetchRequest>(|response| response.responses[0].partitions[0].high_watermark = 100);
    let fetched = partition.fetch(4).await.unwrap();
    assert_eq!((fetched.next_offset, fetched.high_watermark), (4, 100));
    // Nor is anything looked up at the end of the log.
    wire.clear_edits();
    let lookups = wire.count(ApiKey::LIST_OFFSETS);
    assert_eq!(partition.fetch(4).await.unwrap().next_offset, 4);
    assert_eq!(wire.count(ApiKey::LIST_OFFSETS), lookups);
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_batch_claims_no_offset_of_the_next_one() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = two_batches(&broker, &wire).await;
    for (last_offset_delta, claimed) in [(0, 0..1), (1, 0..2), (2, 0..2), (1_000_000, 0..2)] {
        edit(&wire, move |bytes| {
            let mut bytes = bytes.to_vec();
            let mut header = BatchHeader::parse(&bytes).unwrap();
            header.last_offset_delta = last_offset_delta;
            bytes[..BatchHeader::LEN].copy_from_slice(&header.to_bytes());
            // The checksum is that of another content.
            bytes[BatchHeader::LEN + 1] ^= 1;
            bytes.into()
        });
        let error = partition.fetch(0).await.unwrap_err();
        let ErrorKind::Corrupt { offsets, .. } = error.kind() else { panic!("{error:?}") };
        assert_eq!(*offsets, Some(claimed), "{last_offset_delta}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_can_be_cut_at_both_ends() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    let values: Vec<_> = (0..6).flat_map(|offset| record(format!("value {offset}"))).collect();
    partition.produce(values).await.unwrap();
    let batch = partition.fetch(1).await.unwrap().into_batches().next().unwrap();
    for (start, end, expected) in [(0, 9, 1..6), (0, 4, 1..4), (3, 4, 3..4), (2, 5, 2..5), (4, 4, 4..4)] {
        let cut = batch.clone().starting_at(start).ending_at(end);
        assert_eq!((cut.offsets(), cut.position().offset), (expected.clone(), expected.end));
        let mut offsets = Vec::new();
        cut.for_each(|record| offsets.push(record.offset)).unwrap();
        let owned: Vec<_> = read_to_end(&cut).into_iter().map(|record| record.unwrap().offset).collect();
        assert_eq!((&offsets, &owned), (&expected.collect(), &offsets));
        // It can only be cut further.
        assert_eq!(cut.starting_at(0).ending_at(9).offsets().count(), offsets.len());
    }
}

/// Returns all records of a batch, or its error. The end is known as soon as nothing follows.
fn read_to_end(batch: &FetchedBatch) -> Vec<Result<OwnedRecord, Error>> {
    let (count, mut records) = (batch.records().count(), batch.records());
    assert!(!records.is_at_end());
    let read = (1..=count).map(|number| {
        let next = records.next().unwrap();
        assert_eq!(records.is_at_end(), number == count);
        next
    });
    let read = read.collect();
    assert!(records.next().is_none() && records.is_at_end());
    read
}
