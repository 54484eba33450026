use bytes::{Bytes, BytesMut};
use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        FetchLeader, FetchNodeEndpoint, FetchPartition, FetchTopic, FetchTopicResponse, IsolationLevel,
    },
    record::{BatchErrorKind, BatchHeader, RawBatch, RawRecord},
    wire::Uuid,
};
use kwal_transport::HostPort;

use super::*;
use crate::{error::ErrorKind, metadata::LeaderUpdate, routing::rejected_code};

const ID: Uuid = Uuid([5; 16]);
const SECOND: Duration = Duration::from_secs(1);

fn reading() -> Reading {
    Reading {
        partition: Arc::new(Partition::offline("wal", 3)),
        position: Position::from(100),
        isolation: Isolation::ReadUncommitted,
        min_bytes: 10,
        max_bytes: 1000,
        max_wait: 3 * SECOND,
        deadline: Deadline::after(60 * SECOND),
        ahead: None,
    }
}

fn read(reading: &Reading) -> Read<'_> {
    Read { reading, wait: 3 * SECOND }
}

fn route() -> Route<'static> {
    Route { topic_id: ID, long_poll: 2 * SECOND, ..Route::of_partition("wal", 3) }
}

/// A batch with one record at its beginning.
fn batch(base_offset: i64, last_offset_delta: i32) -> Bytes {
    let record = RawRecord { value: Some("value".into()), ..Default::default() };
    let header = BatchHeader { base_offset, last_offset_delta, ..Default::default() };
    RawBatch { header, records: vec![record], ..Default::default() }.encode().unwrap()
}

/// A batch with another byte at the end.
fn corrupt(batch: &Bytes) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..]);
    *bytes.last_mut().unwrap() ^= 1;
    bytes.freeze()
}

fn partition(error_code: ErrorCode) -> FetchPartitionResponse {
    FetchPartitionResponse { partition_index: 3, error_code, ..Default::default() }
}

fn respond(partition: FetchPartitionResponse) -> Result<Answer, Rejection> {
    let endpoint = |node_id, host: &str| FetchNodeEndpoint {
        node_id,
        host: host.to_owned(),
        port: 9092,
        ..Default::default()
    };
    let topic = FetchTopicResponse { topic_id: ID, partitions: vec![partition], ..Default::default() };
    let response = FetchResponse {
        responses: vec![topic],
        node_endpoints: vec![endpoint(4, "four"), endpoint(5, "five")],
        ..Default::default()
    };
    read(&reading()).response(&route(), response)
}

fn answer(batches: &[Bytes]) -> Result<Answer, Rejection> {
    let records = Some(Bytes::from(batches.concat()));
    respond(FetchPartitionResponse { records, ..partition(ErrorCode::NONE) })
}

fn fetched(batches: &[Bytes]) -> Result<Fetched, Rejection> {
    answer(batches).map(|answer| answer.fetched)
}

#[test]
fn the_wait_is_what_the_session_grants() {
    let partition = FetchPartition {
        partition: 3,
        current_leader_epoch: 7,
        fetch_offset: 100,
        partition_max_bytes: 1000,
        ..Default::default()
    };
    let topic = FetchTopic { topic: "wal".to_owned(), topic_id: ID, partitions: vec![partition] };
    let expected = FetchRequest {
        max_wait_ms: 2000,
        min_bytes: 10,
        max_bytes: 1000,
        isolation_level: IsolationLevel::READ_UNCOMMITTED,
        topics: vec![topic],
        ..Default::default()
    };
    assert_eq!(read(&reading()).request(&route()), expected);
    assert_eq!(read(&reading()).long_poll(), 3 * SECOND);
    let limit = read(&reading()).time_limit(&Deadlines::default(), 2 * SECOND);
    assert_eq!(limit, Some(12 * SECOND), "the granted wait is added");
}

#[test]
fn the_next_offset_is_that_after_the_last_whole_batch() {
    let cut = |batch: Bytes, bytes: usize| batch.slice(..bytes);
    for (batches, count, next) in [
        (vec![], 0, 100),
        // Records before the requested offset come with the batch that has it.
        (vec![batch(98, 4)], 1, 103),
        (vec![batch(100, 0), batch(101, 0)], 2, 102),
        // Compaction removes records and keeps the offsets of the batch.
        (vec![batch(100, 9), batch(120, 4)], 2, 125),
        (vec![batch(100, 9), cut(batch(110, 9), 70)], 1, 110),
        (vec![cut(batch(100, 9), 70)], 0, 100),
        // Only records before the requested offset.
        (vec![batch(90, 4)], 1, 100),
    ] {
        let fetched = fetched(&batches).unwrap();
        let text = format!("{batches:?}");
        assert_eq!(
            (fetched.batches().len(), fetched.next_offset, fetched.from),
            (count, next, 100),
            "{text}"
        );
        assert_eq!(fetched.wire_bytes, batches.iter().map(Bytes::len).sum::<usize>(), "{text}");
    }
}

#[test]
fn batches_before_a_corrupt_one_are_returned_first() {
    let good = fetched(&[batch(100, 4), corrupt(&batch(105, 4)), batch(110, 4)]).unwrap();
    assert_eq!((good.batches().len(), good.next_offset), (1, 105));
    let Err(Rejection::Corrupt(error, _)) = fetched(&[corrupt(&batch(105, 4)), batch(110, 4)]) else {
        panic!("not corrupt");
    };
    assert_eq!((error.position, error.base_offset), (0, Some(105)));
    assert!(matches!(error.kind, BatchErrorKind::Checksum { .. }), "{error:?}");
}

#[test]
fn a_response_out_of_order_is_corrupt_as_a_whole() {
    let message = |offset| {
        let header = BatchHeader { magic: 1, base_offset: offset, ..Default::default() };
        let record = RawRecord { value: Some("value".into()), ..Default::default() };
        RawBatch { header, records: vec![record], ..Default::default() }.encode().unwrap()
    };
    let (max, min) = (i64::MAX, i64::MIN);
    for (batches, (first, last, next)) in [
        // Twice, swapped, overlapping.
        (vec![batch(100, 4), batch(100, 4)], (100, 104, 105)),
        (vec![batch(105, 4), batch(100, 4)], (100, 104, 110)),
        (vec![batch(100, 4), batch(104, 4)], (104, 108, 105)),
        (vec![batch(98, 4), batch(103, 0), batch(99, 9)], (99, 108, 104)),
        (vec![message(100), message(100)], (100, 100, 101)),
        // No offsets, or such that do not exist.
        (vec![batch(100, -1)], (100, 99, 0)),
        (vec![batch(-1, 200)], (-1, 199, 0)),
        (vec![batch(max, 0)], (max, max, 0)),
        (vec![batch(max, 1)], (max, min, 0)),
    ] {
        let Err(Rejection::Corrupt(error, _)) = answer(&batches) else { panic!("{batches:?}") };
        assert_eq!(error.kind, BatchErrorKind::Offsets { first, last, next }, "{batches:?}");
        assert_eq!(error.base_offset, Some(first), "{batches:?}");
    }
    assert_eq!(fetched(&[message(100), message(107), batch(110, 0)]).unwrap().next_offset, 111);
}

#[test]
fn bytes_that_move_nothing_have_a_reason() {
    let stale = |first, last| BatchErrorKind::Offsets { first, last, next: 100 };
    let cut = |bytes| vec![batch(100, 9).slice(..bytes)];
    for (batches, reason) in [
        (vec![], None),
        (vec![batch(100, 0)], None),
        (vec![batch(90, 9)], Some((stale(90, 99), Some(90)))),
        (vec![batch(80, 4), batch(85, 4)], Some((stale(85, 89), Some(85)))),
        (cut(70), Some((BatchErrorKind::CutOff(70), Some(100)))),
        (cut(7), Some((BatchErrorKind::CutOff(7), None))),
    ] {
        let unread = answer(&batches).unwrap().unread.map(|(error, _)| (error.kind, error.base_offset));
        assert_eq!(unread, reason, "{batches:?}");
    }
}

#[test]
fn offsets_that_the_broker_does_not_report_are_none() {
    for (last_stable_offset, log_start_offset, stable, start) in
        [(-1, -1, None, None), (0, 0, Some(0), Some(0)), (99, 20, Some(99), Some(20))]
    {
        let found = FetchPartitionResponse {
            high_watermark: 101,
            last_stable_offset,
            log_start_offset,
            ..partition(ErrorCode::NONE)
        };
        let Answer { fetched, granted, .. } = respond(found).unwrap();
        assert_eq!((fetched.last_stable_offset, fetched.log_start_offset), (stable, start));
        assert_eq!(fetched.high_watermark, 101);
        assert_eq!(granted, 2 * SECOND);
    }
}

#[test]
fn an_offset_out_of_range_has_a_kind_of_its_own() {
    let result = respond(partition(ErrorCode::OFFSET_OUT_OF_RANGE));
    let Err(Rejection::Kind(kind)) = result else { panic!("{result:?}") };
    assert!(matches!(kind, ErrorKind::OffsetOutOfRange { offset: 100, log: None }), "{kind:?}");
}

#[test]
fn only_some_codes_report_a_new_leader() {
    let current_leader = FetchLeader { leader_id: 5, leader_epoch: 8 };
    for (code, is_reported) in [
        (ErrorCode::NOT_LEADER_OR_FOLLOWER, true),
        (ErrorCode::FENCED_LEADER_EPOCH, true),
        (ErrorCode::UNKNOWN_LEADER_EPOCH, false),
        (ErrorCode::KAFKA_STORAGE_ERROR, false),
    ] {
        let found = FetchPartitionResponse { current_leader: current_leader.clone(), ..partition(code) };
        let Err(Rejection::Code { code: found, message: None, leader }) = respond(found) else {
            panic!("{code}");
        };
        let update = LeaderUpdate {
            topic_id: ID,
            leader: 5,
            leader_epoch: 8,
            address: Some(HostPort::new("five", 9092)),
        };
        assert_eq!((found, leader), (code, is_reported.then_some(update)));
    }
}

#[test]
fn an_empty_response_is_throttled_or_malformed() {
    let empty = |throttle_time_ms, error_code| {
        let response = FetchResponse { throttle_time_ms, error_code, ..Default::default() };
        read(&reading()).response(&route(), response)
    };
    assert!(matches!(empty(1, ErrorCode::NONE), Err(Rejection::Throttled)));
    assert!(matches!(empty(0, ErrorCode::NONE), Err(Rejection::Missing)));
    let code = ErrorCode::FETCH_SESSION_ID_NOT_FOUND;
    assert_eq!(rejected_code(empty(1, code)), (code, None));
    let other = FetchPartitionResponse { partition_index: 2, ..partition(ErrorCode::NONE) };
    assert!(matches!(respond(other), Err(Rejection::Missing)));
}

#[test]
fn a_response_about_another_topic_is_malformed() {
    for (topic, topic_id, is_requested) in [
        ("wal", Uuid::ZERO, true),
        ("", ID, true),
        ("other", Uuid::ZERO, false),
        ("", Uuid([6; 16]), false),
        ("", Uuid::ZERO, false),
    ] {
        let partitions = vec![partition(ErrorCode::NONE)];
        let topic = FetchTopicResponse { topic: topic.to_owned(), topic_id, partitions };
        let response = FetchResponse { responses: vec![topic], ..Default::default() };
        let result = read(&reading()).response(&route(), response);
        assert_eq!(result.is_ok(), is_requested, "{result:?}");
        assert!(is_requested || matches!(result, Err(Rejection::Missing)), "{result:?}");
    }
}

#[test]
fn a_corrupt_batch_has_the_offsets_of_its_header_as_far_as_they_can_be() {
    let damaged = |base_offset, last_offset_delta| corrupt(&batch(base_offset, last_offset_delta));
    let max = i64::MAX;
    for (bytes, offsets) in [
        (damaged(100, 4), Some(100..105)),
        (damaged(90, 10), Some(90..101)),
        // Reading cannot go on after it.
        (damaged(90, 9), None),
        (damaged(100, -1), None),
        (damaged(-1, 200), None),
        (damaged(max, 0), None),
        (damaged(max - 1, 0), Some(max - 1..max)),
    ] {
        let result = answer(std::slice::from_ref(&bytes));
        let Err(Rejection::Corrupt(error, found)) = result else { panic!("{result:?}") };
        assert!(matches!(error.kind, BatchErrorKind::Checksum { .. }), "{error:?}");
        assert_eq!(found, offsets);
    }
}

#[test]
fn a_position_is_sent_with_its_epoch_to_brokers_that_verify_it() {
    let position = Position { topic_id: None, leader_epoch: Some(5), offset: 100 };
    let reading = Reading { position, isolation: Isolation::ReadCommitted, ..reading() };
    for (version, sent) in [(11, -1), (12, 5), (17, 5)] {
        let request = read(&reading).request(&Route { version, ..route() });
        assert_eq!(request.isolation_level, IsolationLevel::READ_COMMITTED);
        let partition = &request.topics[0].partitions[0];
        assert_eq!((partition.last_fetched_epoch, partition.fetch_offset), (sent, 100), "{version}");
    }
}
