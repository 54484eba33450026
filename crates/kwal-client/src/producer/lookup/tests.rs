use bytes::Bytes;
use kwal_protocol::{
    messages::{FetchPartitionResponse, FetchTopicResponse, OffsetForLeaderEpochRequest},
    record::{BatchBuilder, Compression, Headers, RawBatch, RawRecord},
};
use kwal_testkit::{EmbeddedCluster, Fault, wire::Wire};
use tokio::{runtime::Handle, time::Instant};

use super::{
    super::{append::Append, settings::Acks},
    *,
};
use crate::{cluster::Cluster, config::Config};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn stamp(sequence: i32) -> Stamp {
    Stamp { identity: Identity { id: 4_000, epoch: 2 }, sequence }
}

/// Two brokers in memory, of which broker 1 leads the partition, and a partition of a client.
struct Fixture {
    brokers: EmbeddedCluster,
    wire: Wire,
    partition: Partition,
}

impl Fixture {
    async fn start() -> Self {
        let brokers = EmbeddedCluster::builder().seed(7).brokers(2).topic("wal", 1);
        let brokers = brokers.start_in_memory().unwrap();
        let wire = Wire::new(brokers.connector());
        let bootstrap = brokers.bootstrap().iter().map(|address| address.parse().unwrap()).collect();
        let config = Config {
            bootstrap,
            connect: std::sync::Arc::new(wire.clone()),
            seed: Some(7),
            ..Config::default()
        };
        let cluster = Cluster::new(config, Handle::current());
        cluster.metadata.refresh().await.unwrap();
        let deadline = Deadline::after(HOUR);
        let partition = Partition::find(cluster.into(), "wal".to_owned(), 0, deadline).await.unwrap();
        Self { brokers, wire, partition }
    }

    /// Appends a batch of the producer.
    async fn append(&self, sequence: i32, records: usize) -> Acknowledged {
        let mut builder = BatchBuilder::new(Compression::None);
        for _ in 0..records {
            builder.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &Headers::new());
        }
        let Stamp { identity: Identity { id, epoch }, .. } = stamp(sequence);
        let batch = builder.finish().unwrap().stamp(id, epoch, sequence);
        let append = Append { batch, in_doubt: false, acks: Acks::All };
        let target = Target::Leader(&self.partition, Purpose::Produce);
        let call = self.partition.call(ApiKey::PRODUCE);
        let deadline = Deadline::after(HOUR);
        let produced = routing::call(&self.partition.cluster, target, call, &append, deadline).await;
        let base_offset = produced.map_err(Error::from).unwrap().base_offset;
        Acknowledged { stamp: stamp(sequence), base_offset, records }
    }

    /// Appends a batch of another producer, of so many offsets after a hole.
    fn append_other(&self, hole: i64, offsets: i32) {
        let header =
            BatchHeader { base_offset: hole, last_offset_delta: offsets - 1, ..BatchHeader::default() };
        let batch = RawBatch { header, ..RawBatch::default() }.encode().unwrap();
        self.brokers.append_raw("wal", 0, batch).unwrap();
    }

    /// Returns the leader, as the cluster names it now.
    async fn leader(&self) -> Leader {
        let (call, mut generation) = (self.partition.call(ApiKey::PRODUCE), 0);
        self.partition.leader(call, 0, &mut generation).await.unwrap();
        self.partition.leader(call, generation, &mut 0).await.unwrap()
    }

    async fn look_up_in(&self, last: &Acknowledged, acknowledged_in: i32) -> Result<Found, Error> {
        let leader = self.leader().await;
        look_up(&self.partition, leader, last, acknowledged_in, &Tracker::new()).await
    }

    /// Looks up a batch that was acknowledged in the first leader epoch.
    async fn look_up(&self, last: &Acknowledged) -> Found {
        self.look_up_in(last, 0).await.unwrap()
    }

    async fn find(&self, sequence: i32, records: usize, range: Range<i64>) -> Result<Option<i64>, Error> {
        find(&self.partition, stamp(sequence), records, range, Deadline::after(HOUR)).await
    }

    /// Elects broker 2, which has nothing that was appended after `shrink`.
    fn lose(&self) {
        self.brokers.elect_unclean("wal", 0, 2).unwrap();
    }

    fn shrink(&self) {
        self.brokers.shrink_isr("wal", 0, 2).unwrap();
    }
}

fn lost(from: i64) -> Found {
    Found::Lost { from: Some(from) }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_present_on_its_leader_and_on_the_next_one() {
    let fixture = Fixture::start().await;
    let first = fixture.append(0, 3).await;
    assert_eq!(fixture.look_up(&first).await, Found::Present);
    let second = fixture.append(3, 2).await;
    fixture.append_other(0, 4);
    for leader in [1, 2, 1] {
        if fixture.brokers.leader("wal", 0).unwrap() != Some(leader) {
            fixture.brokers.move_leader("wal", 0, leader).unwrap();
        }
        assert_eq!(fixture.leader().await.id, leader);
        for last in [&first, &second] {
            assert_eq!(fixture.look_up(last).await, Found::Present);
        }
    }
    // Where it is unknown, nothing can be compared.
    let unknown = Acknowledged { stamp: stamp(9), base_offset: None, records: 1 };
    assert_eq!(fixture.look_up(&unknown).await, Found::Present);
}

#[tokio::test(start_paused = true)]
async fn another_batch_in_its_place_is_a_loss() {
    let fixture = Fixture::start().await;
    fixture.append(0, 3).await;
    let last = fixture.append(3, 2).await;
    fixture.append(5, 1).await;
    assert_eq!(last.base_offset, Some(3));
    assert_eq!(fixture.look_up(&last).await, Found::Present);
    let Stamp { identity: Identity { id, epoch }, .. } = last.stamp;
    let other = |id, epoch, sequence| Stamp { identity: Identity { id, epoch }, sequence };
    for wrong in [
        Acknowledged { stamp: other(id + 1, epoch, 3), ..last },
        Acknowledged { stamp: other(id, epoch + 1, 3), ..last },
        Acknowledged { stamp: other(id, epoch - 1, 3), ..last },
        Acknowledged { stamp: other(id, epoch, 4), ..last },
        Acknowledged { stamp: other(id, epoch, 0), ..last },
        Acknowledged { records: 1, ..last },
        Acknowledged { records: 3, ..last },
    ] {
        assert_eq!(fixture.look_up(&wrong).await, lost(3), "{wrong:?}");
    }
    // In the middle of the batch, and of the one before it.
    for base_offset in [1, 2, 4] {
        let wrong = Acknowledged { base_offset: Some(base_offset), ..last };
        assert_eq!(fixture.look_up(&wrong).await, lost(base_offset));
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_log_that_lost_the_batch_is_the_first_lost_offset() {
    // How many batches are lost, and how many offsets others have filled up since.
    for (batches, filled) in [(1, 0), (1, 1), (1, 9), (3, 0), (3, 1), (3, 5), (3, 9)] {
        let fixture = Fixture::start().await;
        fixture.append(0, 3).await;
        fixture.shrink();
        let mut last = fixture.append(3, 2).await;
        for batch in 1..batches {
            last = fixture.append(3 + batch * 2, 2).await;
        }
        assert_eq!(last.base_offset, Some(i64::from(3 + (batches - 1) * 2)));
        assert_eq!(fixture.look_up(&last).await, Found::Present);
        fixture.lose();
        for _ in 0..filled {
            fixture.append_other(0, 1);
        }
        assert_eq!(fixture.look_up(&last).await, lost(3), "{batches} {filled}");
        // In an epoch that is not known, the range begins with the batch itself.
        let unknown = fixture.look_up_in(&last, -1).await.unwrap();
        assert_eq!(unknown, Found::Lost { from: last.base_offset });
    }
}

#[tokio::test(start_paused = true)]
async fn a_range_does_not_begin_after_the_batch() {
    let fixture = Fixture::start().await;
    fixture.append(0, 3).await;
    fixture.shrink();
    let last = fixture.append(3, 2).await;
    fixture.lose();
    fixture.append_other(0, 9);
    // Too late an epoch: all that was appended in it.
    assert_eq!(fixture.look_up_in(&last, 1).await.unwrap(), lost(3));
    // An epoch that the leader does not know.
    assert_eq!(fixture.look_up_in(&last, 7).await.unwrap(), lost(3));
    // A broker that does not say.
    let denied = Fault::Error(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    fixture.brokers.on(ApiKey::OFFSET_FOR_LEADER_EPOCH, denied);
    assert_eq!(fixture.look_up(&last).await, lost(3));
    fixture.brokers.on(ApiKey::OFFSET_FOR_LEADER_EPOCH, Fault::Error(ErrorCode::FENCED_LEADER_EPOCH));
    let error = fixture.look_up_in(&last, 0).await.unwrap_err();
    assert_eq!((error.code(), error.is_retriable()), (Some(ErrorCode::FENCED_LEADER_EPOCH), true));
}

#[tokio::test(start_paused = true)]
async fn retention_and_compaction_are_no_loss() {
    let fixture = Fixture::start().await;
    let last = fixture.append(0, 3).await;
    fixture.append_other(0, 5);
    // Its records, but not its header; then those of its neighbour.
    fixture.brokers.compact("wal", 0, |record| record.offset != 1).unwrap();
    assert_eq!(fixture.look_up(&last).await, Found::Present);
    fixture.brokers.compact("wal", 0, |_| false).unwrap();
    assert_eq!(fixture.look_up(&last).await, Found::Present);
    // A whole batch, in a hole between others.
    fixture.append_other(10, 1);
    for base_offset in [8, 12, 17] {
        let gone = Acknowledged { stamp: stamp(8), base_offset: Some(base_offset), records: 1 };
        assert_eq!(fixture.look_up(&gone).await, Found::Present, "{base_offset}");
    }
    for before in [2, 3, 19] {
        fixture.brokers.delete_records("wal", 0, before).unwrap();
        assert_eq!(fixture.look_up(&last).await, Found::Present, "{before}");
    }
    // The log is empty, and so is that of the next leader.
    assert_eq!(fixture.brokers.end_offset("wal", 0).unwrap(), 19);
    fixture.brokers.move_leader("wal", 0, 2).unwrap();
    assert_eq!(fixture.look_up(&last).await, Found::Present);
    // But not what was acknowledged beyond its end.
    let beyond = Acknowledged { stamp: stamp(8), base_offset: Some(19), records: 1 };
    assert_eq!(fixture.look_up(&beyond).await, lost(19));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_is_asked_again_until_its_high_watermark_is_right() {
    let fixture = Fixture::start().await;
    fixture.append(0, 3).await;
    fixture.brokers.set_lag("wal", 0, 2, SECOND).unwrap();
    let last = fixture.append(3, 2).await;
    // The next leader does not know at first what broker 1 has.
    fixture.brokers.set_lag("wal", 0, 1, 5 * SECOND).unwrap();
    fixture.brokers.move_leader("wal", 0, 2).unwrap();
    assert!(fixture.brokers.high_watermark("wal", 0).unwrap() < 5);
    let error = fixture.look_up_in(&last, 0).await.unwrap_err();
    assert_eq!((error.code(), error.is_retriable()), (Some(ErrorCode::OFFSET_NOT_AVAILABLE), true));
    assert_eq!(error.recovery(), Recovery::Retry);
    sleep(20 * SECOND).await;
    assert_eq!(fixture.brokers.high_watermark("wal", 0).unwrap(), 5);
    assert_eq!(fixture.look_up(&last).await, Found::Present);
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_decides_nothing() {
    let fixture = Fixture::start().await;
    let last = fixture.append(0, 3).await;
    let deposed = fixture.leader().await;
    fixture.brokers.move_leader("wal", 0, 2).unwrap();
    let tracker = Tracker::new();
    let error = look_up(&fixture.partition, deposed, &last, 0, &tracker).await.unwrap_err();
    assert!(error.is_retriable(), "{error}");
    assert_eq!(error.recovery(), Recovery::Refresh, "{error}");
    // One that is down is no evidence, either.
    let leader = fixture.leader().await;
    fixture.brokers.kill(2).unwrap();
    let error = look_up(&fixture.partition, leader, &last, 0, &tracker).await.unwrap_err();
    assert_eq!(error.recovery(), Recovery::Refresh, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_not_answer_may_be_asked_again() {
    let fixture = Fixture::start().await;
    fixture.append(0, 3).await;
    fixture.shrink();
    let last = fixture.append(3, 2).await;
    fixture.brokers.on(ApiKey::FETCH, Fault::BlackHole);
    let begun = Instant::now();
    let error = fixture.look_up_in(&last, 0).await.unwrap_err();
    assert_eq!((error.recovery(), begun.elapsed()), (Recovery::Refresh, Deadlines::default().request));
    // Also when the loss is known already.
    fixture.lose();
    fixture.append_other(0, 9);
    fixture.brokers.on(ApiKey::OFFSET_FOR_LEADER_EPOCH, Fault::Drop);
    let error = fixture.look_up_in(&last, 0).await.unwrap_err();
    assert_eq!(error.recovery(), Recovery::Refresh, "{error}");
    assert_eq!(fixture.look_up(&last).await, lost(3));
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_read_the_end_of_the_log_decides() {
    let fixture = Fixture::start().await;
    fixture.append(0, 3).await;
    fixture.shrink();
    let last = fixture.append(3, 2).await;
    fixture.brokers.on_all(ApiKey::FETCH, Fault::Error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    assert_eq!(fixture.look_up(&last).await, Found::Present);
    fixture.lose();
    assert_eq!(fixture.look_up(&last).await, lost(3));
    // What is there in its place cannot be seen.
    fixture.append_other(0, 1);
    assert_eq!(fixture.look_up(&last).await, lost(3));
    fixture.append_other(0, 1);
    assert_eq!(fixture.look_up(&last).await, Found::Present);
}

#[tokio::test(start_paused = true)]
async fn a_look_up_reads_one_batch() {
    let fixture = Fixture::start().await;
    let last = fixture.append(0, 3).await;
    for sequence in 3..50 {
        fixture.append(sequence, 1).await;
    }
    let before = fixture.wire.requests(ApiKey::FETCH);
    let largest = std::sync::Arc::new(std::sync::Mutex::new(0));
    let seen = std::sync::Arc::clone(&largest);
    fixture.wire.rewrite::<FetchRequest>(move |response| {
        let bytes = response.responses[0].partitions[0].records.as_ref().map_or(0, Bytes::len);
        let mut largest = seen.lock().unwrap();
        *largest = bytes.max(*largest);
    });
    assert_eq!(fixture.look_up(&last).await, Found::Present);
    assert_eq!(fixture.wire.requests(ApiKey::FETCH), before + 1);
    assert_eq!(fixture.wire.requests(OffsetForLeaderEpochRequest::KEY), 0);
    let expected = fixture.brokers.log("wal", 0).unwrap()[0].size_in_bytes();
    assert_eq!(*largest.lock().unwrap(), expected);
}

/// Replaces the records of all fetch responses from an offset on.
fn empty_from(fixture: &Fixture, offset: i64) {
    fixture.wire.rewrite::<FetchRequest>(move |response| {
        for found in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            let bytes = found.records.take().unwrap_or_default();
            let batches = kwal_protocol::record::Batches::new(bytes).map(Result::unwrap);
            let kept = batches.filter(|batch| batch.base_offset() < offset);
            found.records = Some(kept.flat_map(|batch| batch.bytes().to_vec()).collect());
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_log_that_goes_on_without_batches_was_compacted() {
    let fixture = Fixture::start().await;
    let last = fixture.append(0, 3).await;
    fixture.append_other(0, 1);
    empty_from(&fixture, 0);
    let before = fixture.wire.requests(ApiKey::FETCH);
    assert_eq!(fixture.look_up(&last).await, Found::Present);
    assert_eq!(fixture.wire.requests(ApiKey::FETCH), before + u64::from(log::STUCK_ROUNDS));
}

#[tokio::test(start_paused = true)]
async fn a_high_watermark_within_the_batch_is_not_right_yet() {
    let fixture = Fixture::start().await;
    let last = fixture.append(0, 3).await;
    for high_watermark in [0, 1, 2] {
        fixture.wire.rewrite::<FetchRequest>(move |response| {
            let found = &mut response.responses[0].partitions[0];
            (found.records, found.high_watermark) = (None, high_watermark);
        });
        let error = fixture.look_up_in(&last, 0).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::OFFSET_NOT_AVAILABLE), "{high_watermark}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scan_finds_a_batch_among_many() {
    let fixture = Fixture::start().await;
    let mut appended = Vec::new();
    for sequence in 0..60 {
        appended.push((sequence, fixture.append(sequence, 1).await.base_offset));
        fixture.append_other(sequence.into(), 2);
    }
    let end = fixture.brokers.end_offset("wal", 0).unwrap();
    // A few batches at a time.
    fixture.wire.rewrite::<FetchRequest>(|response| {
        for found in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            let bytes = found.records.take().unwrap_or_default();
            let batches = kwal_protocol::record::Batches::new(bytes).map(Result::unwrap);
            found.records = Some(batches.take(3).flat_map(|batch| batch.bytes().to_vec()).collect());
        }
    });
    for (sequence, offset) in appended {
        assert_eq!(fixture.find(sequence, 1, 0..end).await.unwrap(), offset);
        let offset = offset.unwrap();
        // From the batch itself on, and up to it.
        assert_eq!(fixture.find(sequence, 1, offset..offset + 1).await.unwrap(), Some(offset));
        assert_eq!(fixture.find(sequence, 1, 0..offset).await.unwrap(), None);
        assert_eq!(fixture.find(sequence, 2, 0..end).await.unwrap(), None);
    }
    assert_eq!(fixture.find(60, 1, 0..end).await.unwrap(), None);
    assert_eq!(fixture.find(0, 1, 7..7).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_scan_passes_over_what_compaction_left() {
    let fixture = Fixture::start().await;
    fixture.append(0, 3).await;
    fixture.append_other(20, 5);
    fixture.brokers.end_transaction("wal", 0, (5_000, 0), false).unwrap();
    let last = fixture.append(3, 2).await;
    fixture.append_other(40, 5);
    fixture.brokers.compact("wal", 0, |_| false).unwrap();
    let end = fixture.brokers.end_offset("wal", 0).unwrap();
    assert_eq!(fixture.find(3, 2, 1..end).await.unwrap(), last.base_offset);
    assert_eq!(fixture.find(5, 1, 1..end).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_scan_ends_with_an_error_where_the_log_does_not_have_the_range() {
    let fixture = Fixture::start().await;
    for sequence in 0..20 {
        fixture.append(sequence, 1).await;
    }
    fixture.brokers.delete_records("wal", 0, 5).unwrap();
    assert_eq!(fixture.find(9, 1, 5..20).await.unwrap(), Some(9));
    // Both what is before its start and what is beyond its end.
    let reversed = Range { start: 21, end: 19 };
    for (range, offset) in [(4..20, 4), (0..20, 0), (5..21, 20), (20..25, 20), (21..25, 21), (reversed, 21)] {
        let error = fixture.find(99, 1, range.clone()).await.unwrap_err();
        let found = match error.kind() {
            ErrorKind::Trimmed { offset, log_start: 5 } if offset < &5 => offset,
            ErrorKind::BeyondEnd { offset, end: 20 } if offset >= &20 => offset,
            other => panic!("{range:?}: {other:?}"),
        };
        assert_eq!(*found, offset, "{range:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_does_not_move_ends() {
    let fixture = Fixture::start().await;
    for sequence in 0..20 {
        fixture.append(sequence, 1).await;
    }
    empty_from(&fixture, 10);
    assert_eq!(fixture.find(9, 1, 0..20).await.unwrap(), Some(9));
    let before = fixture.wire.requests(ApiKey::FETCH);
    let error = fixture.find(10, 1, 0..20).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::MalformedResponse), "{error}");
    assert_eq!(fixture.wire.requests(ApiKey::FETCH), before + 1 + u64::from(log::STUCK_ROUNDS));
}

#[test]
fn a_batch_without_a_producer_is_compared_as_far_as_its_format_goes() {
    let batch = |header: BatchHeader| {
        let record = RawRecord { value: Some("value".into()), ..RawRecord::default() };
        let bytes = RawBatch { header, records: vec![record], ..RawBatch::default() }.encode().unwrap();
        kwal_protocol::record::Batches::new(bytes).next().unwrap().unwrap()
    };
    let last = Acknowledged { stamp: Stamp::NONE, base_offset: Some(9), records: 1 };
    let header = BatchHeader { base_offset: 9, ..BatchHeader::default() };
    assert!(is_it(&batch(header), &last, 9));
    assert!(!is_it(&batch(header), &Acknowledged { records: 2, ..last }, 9));
    assert!(!is_it(&batch(BatchHeader { producer_id: 17, ..header }), &last, 9));
    for magic in [0, 1] {
        let message = batch(BatchHeader { magic, ..header });
        assert!(is_it(&message, &last, 9));
        assert!(!is_it(&message, &Acknowledged { stamp: stamp(0), ..last }, 9));
    }
}

#[test]
fn numbers_that_cannot_be_true_are_not_the_batch() {
    let batch = |header| {
        let bytes = RawBatch { header, ..RawBatch::default() }.encode().unwrap();
        kwal_protocol::record::Batches::new(bytes).next().unwrap().unwrap()
    };
    let header = BatchHeader {
        producer_id: 4_000,
        producer_epoch: 2,
        base_sequence: 9,
        last_offset_delta: 2,
        ..BatchHeader::default()
    };
    assert!(has_stamp(&batch(header), stamp(9), 3));
    for last_offset_delta in [-1, -2, i32::MIN, i32::MAX] {
        let other = batch(BatchHeader { last_offset_delta, ..header });
        for records in [3, usize::MAX] {
            assert!(!has_stamp(&other, stamp(9), records), "{last_offset_delta} {records}");
        }
    }
}

#[test]
fn a_response_without_a_whole_batch_is_corrupt() {
    let read = ReadBatches {
        from: FetchFrom {
            position: Position::from(0),
            isolation: Isolation::default(),
            min_bytes: 1,
            max_bytes: 1,
            frame: 1_000,
        },
        wait: SECOND,
    };
    let respond = |records: &'static [u8]| {
        let found =
            FetchPartitionResponse { records: Some(records.into()), high_watermark: 9, ..Default::default() };
        let topic =
            FetchTopicResponse { topic: "wal".to_owned(), partitions: vec![found], ..Default::default() };
        let response = FetchResponse { responses: vec![topic], ..Default::default() };
        read.response(&Route::of_partition("wal", 0), response).unwrap()
    };
    assert!(respond(b"cut off").batches.unread.is_some());
    let empty = respond(b"");
    assert!(empty.batches.unread.is_none() && empty.batches.batches.is_empty());
    assert_eq!((empty.batches.next_offset, empty.high_watermark), (0, 9));
}
