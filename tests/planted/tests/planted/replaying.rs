//! Replays, streams, and what becomes of a log under them.

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use kwal_client::{
    FetchedBatch, Isolation, Limits, OffsetAt, PartitionClient, Position, error::Error, error::ErrorKind,
};
use kwal_protocol::{
    api::{ApiKey, Versions},
    messages::FetchRequest,
    record::{BatchBuilder, Compression, Headers},
};
use kwal_testkit::{
    EmbeddedCluster, Fault,
    check::{Covered, ReaderId, Writer, WriterId},
    wire::Wire,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    consumer::{RecordStream, Replay, follow, replay},
    fixture::{Fixture, MINUTE, read_failure},
    reading::open_over_wire,
    support::{polled, settle},
};

/// More polls than any read takes. One that makes no progress can take endless ones at the same time.
const POLLS: usize = 10_000;

/// A transaction of another producer.
struct Transaction<'a> {
    fixture: &'a Fixture,
    producer_id: i64,
    writer: WriterId,
    records: i32,
}

impl Transaction<'_> {
    fn append(&mut self, values: &[&str]) {
        let mut batch = BatchBuilder::new(Compression::None);
        for value in values {
            batch.push(1_700_000_000_000, None, Some(value.as_bytes()), &Headers::new());
        }
        let append = self.fixture.recorder.now().submit(self.writer, values.iter().copied());
        let (producer, sequence) = ((self.producer_id, 0), self.records);
        let batch = batch.finish().unwrap();
        self.fixture.cluster.append_in_transaction("wal", 0, producer, sequence, &batch).unwrap();
        self.records += values.len() as i32;
        self.fixture.recorder.now().unknown(append);
    }

    fn end(self, committed: bool) {
        self.fixture.recorder.now().transaction_ended(self.writer, committed);
        self.fixture.cluster.end_transaction("wal", 0, (self.producer_id, 0), committed).unwrap();
    }
}

impl Fixture {
    fn begin_transaction(&self, producer_id: i64) -> Transaction<'_> {
        let writer = Writer::new(("wal", 0)).without_ids().on_failure_continue().transactional();
        let writer = self.recorder.now().writer(writer);
        Transaction { fixture: self, producer_id, writer, records: 0 }
    }

    /// Records what a reader got.
    fn got(&self, reader: ReaderId, batch: Option<&FetchedBatch>, position: Position) {
        let records = batch.into_iter().flat_map(|batch| batch.records().map(Result::unwrap));
        let records: Vec<_> =
            records.map(|record| (record.offset, record.value.unwrap_or_default())).collect();
        self.recorder.now().read(reader, records, position.offset);
    }

    /// Reads a replay to its end, and records what it gave and covered: one call with a deadline of a minute.
    /// Returns the error that ended it.
    async fn replay(&self, reader: ReaderId, replay: &mut Replay) -> Option<Error> {
        let call = self.recorder.now().call("replay", MINUTE);
        let all = async {
            while let Some(batch) = replay.next_batch().await? {
                self.got(reader, Some(&batch), replay.position());
            }
            self.got(reader, None, replay.position());
            Ok(())
        };
        let Ok(Some(ended)) = timeout(MINUTE, polled(all, POLLS)).await else { return None };
        self.recorder.now().returned(call);
        match ended {
            Ok(()) => {
                let summary = replay.summary();
                let covered = Covered::new(summary.offsets.clone(), summary.records);
                let gaps = summary.gaps.iter().map(|gap| gap.offsets.clone());
                self.recorder.now().replayed(reader, gaps.fold(covered, Covered::gap));
                None
            }
            Err(error) => {
                self.recorder.now().read_failed(reader, read_failure(&error));
                Some(error)
            }
        }
    }

    /// Reads a stream up to an offset, within a minute. Returns the error that ended it.
    async fn follow(&self, reader: ReaderId, stream: &mut RecordStream, to: i64) -> Option<Error> {
        let all = async {
            while stream.position().offset < to {
                let batch = stream.next_batch().await?;
                self.got(reader, Some(&batch), stream.position());
            }
            Ok(())
        };
        let ended: Result<(), Error> = timeout(MINUTE, polled(all, POLLS)).await.ok()??;
        let error = ended.err()?;
        self.recorder.now().read_failed(reader, read_failure(&error));
        Some(error)
    }

    /// Replays the log from its first offset on.
    async fn replay_all(&self, partition: &PartitionClient) -> Option<Error> {
        let reader = self.reader(0);
        let mut replay = replay(partition, 0).await.unwrap();
        self.recorder.now().replay(reader, replay.progress().end);
        self.replay(reader, &mut replay).await
    }

    /// Replays the committed records.
    async fn replay_committed(&self, partition: &PartitionClient) {
        let reader = self.committed_reader();
        let mut replay = replay(partition, 0).isolation(Isolation::ReadCommitted).await.unwrap();
        self.recorder.now().replay(reader, replay.progress().end);
        self.replay(reader, &mut replay).await;
    }
}

/// The new leader does not know the high watermark yet.
pub(crate) async fn replayed_after_election() -> Fixture {
    let fixture = Fixture::brokers(3);
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    for broker in [2, 3] {
        fixture.cluster.set_lag("wal", 0, broker, Duration::from_millis(100)).unwrap();
    }
    wal.append(&["b"]).await;
    fixture.cluster.stop(1).unwrap();
    fixture.replay_all(&wal.partition).await;
    fixture
}

/// The log ends with the marker of a transaction.
pub(crate) async fn replayed_to_marker() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a", "b"]).await;
    let mut transaction = fixture.begin_transaction(77);
    transaction.append(&["c"]);
    transaction.end(true);
    fixture.replay_all(&wal.partition).await;
    fixture
}

pub(crate) async fn replayed_without_aborted() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    for (producer_id, committed) in [(77, false), (78, true)] {
        let mut transaction = fixture.begin_transaction(producer_id);
        transaction.append(&[&format!("{producer_id}")]);
        transaction.end(committed);
    }
    wal.append(&["a"]).await;
    fixture.replay_committed(&wal.partition).await;
    fixture
}

/// The broker lists the later of two aborted transactions first.
pub(crate) async fn replayed_with_unsorted_list() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    let [mut one, mut two] = [77, 78].map(|producer_id| fixture.begin_transaction(producer_id));
    one.append(&["one"]);
    two.append(&["two"]);
    two.end(false);
    one.end(false);
    wal.append(&["a"]).await;
    let (wire, partition) = open_over_wire(&fixture).await;
    wire.rewrite::<FetchRequest>(|response| {
        let aborted = response.responses[0].partitions[0].aborted_transactions.iter_mut().flatten();
        let mut aborted: Vec<_> = aborted.collect();
        if let [first, .., last] = &mut aborted[..]
            && first.first_offset < last.first_offset
        {
            std::mem::swap(*first, *last);
        }
    });
    fixture.replay_committed(&partition).await;
    fixture
}

/// A batch cannot be decompressed, and one that can follows.
pub(crate) async fn read_on_after_error() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = fixture.client().await.partition_client("wal", 0).compression(Compression::Lz4).await;
    fixture.appender(partition.unwrap(), MINUTE).append(&[&"x".repeat(1 << 20)]).await;
    fixture.open().await.append(&["a"]).await;
    let limits = Limits::default().decompressed(1 << 19);
    let client = fixture.builder().limits(limits).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let mut stream = follow(&partition, 0).await.unwrap();
    let first = stream.next().await;
    fixture.expect(first.is_some_and(|first| first.is_err()), "a batch was decompressed beyond the limit");
    fixture.expect(stream.next().await.is_none(), "a record came after an error");
    fixture
}

/// A replay ends within a batch, and is continued.
pub(crate) async fn followed_from_within_batch() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a", "b", "c", "d"]).await;
    let reader = fixture.reader(0);
    let mut replay = replay(&wal.partition, 0).end(2).await.unwrap();
    fixture.recorder.now().replay_to(reader, 2);
    fixture.replay(reader, &mut replay).await;
    fixture.expect(replay.summary().offsets == (0..2), "a replay went on after its end");
    let mut stream = replay.follow();
    wal.append(&["e"]).await;
    fixture.follow(reader, &mut stream, 5).await;
    fixture
}

/// A replay of everything is continued.
pub(crate) async fn followed_from_end() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    let reader = fixture.reader(0);
    let mut replay = replay(&wal.partition, OffsetAt::Earliest).await.unwrap();
    fixture.recorder.now().replay(reader, 1);
    fixture.replay(reader, &mut replay).await;
    let mut stream = replay.follow();
    wal.append(&["b"]).await;
    fixture.follow(reader, &mut stream, 2).await;
    fixture
}

/// Records are deleted before a replay begins at them.
pub(crate) async fn replayed_before_log_start() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    for value in ["a", "b", "c", "d"] {
        wal.append(&[value]).await;
    }
    fixture.cluster.delete_records("wal", 0, 3).unwrap();
    fixture.replay_all(&wal.partition).await;
    fixture
}

/// The leader has no batches for a while, although the log goes on.
pub(crate) async fn hole() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a", "b"]).await;
    let (wire, partition) = open_over_wire(&fixture).await;
    wire.rewrite::<FetchRequest>(|response| {
        response.responses[0].partitions[0].records = Some(bytes::Bytes::new());
    });
    let reader = fixture.reader(0);
    let next = fixture.read(reader, &partition, 0, 2, 1000).await;
    wire.clear_rewrites();
    fixture.read(reader, &partition, next, 2, 1000).await;
    fixture
}

/// A batch is damaged on its way to a replay.
pub(crate) async fn replayed_corrupt_batch() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    for value in ["a", "b"] {
        wal.append(&[value]).await;
    }
    let (wire, partition) = open_over_wire(&fixture).await;
    damage_first(&wire);
    fixture.replay_all(&partition).await;
    fixture
}

/// Damages the first batch of the log in each response that has it.
fn damage_first(wire: &Wire) {
    wire.rewrite::<FetchRequest>(|response| {
        if let Some(records) = response.responses[0].partitions[0].records.as_mut()
            && records.first_chunk() == Some(&[0; 8])
        {
            let mut damaged = bytes::BytesMut::from(&records[..]);
            damaged[20] ^= 1;
            *records = damaged.freeze();
        }
    });
}

/// Two partition clients share a connection.
async fn sharing(fixture: &Fixture) -> [PartitionClient; 2] {
    let limits = Limits::default().max_connections_per_broker(1);
    let client = fixture.builder().limits(limits).build().await.unwrap();
    let [one, two] = [0, 1].map(|index| client.partition_client("wal", index));
    let partitions = [one.await.unwrap(), two.await.unwrap()];
    for partition in &partitions {
        partition.fetch(0).max_wait(Duration::ZERO).await.unwrap();
    }
    partitions
}

/// They fetch at the same time.
pub(crate) async fn fetched_together() -> Fixture {
    let fixture = Fixture::one_broker();
    let [one, two] = sharing(&fixture).await;
    let client = fixture.client().await;
    for (partition, value) in ["a", "b"].into_iter().enumerate() {
        fixture.open_partition(&client, partition as i32).await.append(&[value]).await;
    }
    let (one, two) = tokio::join!(one.fetch(0).into_future(), two.fetch(0).into_future());
    for (fetched, value) in [(one, "a"), (two, "b")] {
        let records = fetched.ok().and_then(|fetched| fetched.records().next()).and_then(Result::ok);
        let is_own = records.is_some_and(|record| record.value.as_deref() == Some(value.as_bytes()));
        fixture.expect(is_own, "a fetch that shares a connection has no record of its partition");
    }
    fixture
}

/// One of them waits for records, and the other one has some to read.
pub(crate) async fn fetched_during_poll() -> Fixture {
    let fixture = Fixture::one_broker();
    let [idle, busy] = sharing(&fixture).await;
    fixture.open_partition(&fixture.client().await, 1).await.append(&["a"]).await;
    let poll = tokio::spawn(async move { idle.fetch(0).max_wait(Duration::from_secs(5)).await.map(drop) });
    settle().await;
    let begun = Instant::now();
    let fetched = busy.fetch(0).await.unwrap();
    let is_prompt = begun.elapsed() < Duration::from_millis(100);
    fixture.expect(fetched.next_offset == 1 && is_prompt, "a fetch waited for the long poll of another one");
    poll.await.unwrap().unwrap();
    fixture
}

/// The leader dies while a fetch waits for records beside another one, which nobody polls.
pub(crate) async fn fetched_beside_unpolled() -> Fixture {
    let fixture = Fixture::brokers(3);
    let partition = fixture.client().await.partition_client("wal", 0).await.unwrap();
    let mut unpolled = pin!(partition.fetch(0).max_wait(MINUTE / 2).into_future());
    let other = partition.clone();
    let waiting = async move { other.fetch(0).max_wait(MINUTE / 2).await.map(|fetched| fetched.next_offset) };
    fixture.expect(
        timeout(Duration::from_secs(1), &mut unpolled).await.is_err(),
        "a fetch did not wait for records",
    );
    let waiting = tokio::spawn(waiting);
    sleep(Duration::from_secs(1)).await;
    fixture.cluster.kill(fixture.cluster.leader("wal", 0).unwrap().unwrap()).unwrap();
    fixture.open().await.append(&["a"]).await;
    let fetched = timeout(Duration::from_secs(1), waiting).await;
    let is_prompt = fetched.is_ok_and(|fetched| fetched.unwrap().is_ok_and(|next_offset| next_offset == 1));
    fixture.expect(is_prompt, "a fetch waited for another one that nobody polls");
    fixture
}

/// A log loses its last records in an unclean election after a stream has read them, and gets others. Brokers
/// have versions of Fetch up to one.
pub(crate) async fn truncated(fetch: i16) -> Fixture {
    let builder = EmbeddedCluster::builder().brokers(3).cap(ApiKey::FETCH, Versions::new(0, fetch));
    let fixture = Fixture::start(builder);
    let wal = fixture.open().await;
    wal.append(&["a", "b"]).await;
    sleep(Duration::from_millis(10)).await;
    let behind = fixture.leave_behind();
    wal.append(&["c"]).await;
    fixture.next_epoch();
    wal.append(&["d"]).await;
    let reader = fixture.reader(0);
    let mut stream = follow(&wal.partition, 0).max_bytes(1).await.unwrap();
    fixture.follow(reader, &mut stream, 4).await;
    fixture.cluster.elect_unclean("wal", 0, behind).unwrap();
    let other = fixture.open().await;
    for value in ["v", "w", "x", "y", "z"] {
        other.append(&[value]).await;
    }
    fixture.expect_loss(reader, stream, 7).await;
    fixture
}

/// A stream has read what was appended after an unclean election, which another one undoes. The log has more
/// records of the first leader epoch then than the stream has read of it.
pub(crate) async fn truncated_to_longer_epoch() -> Fixture {
    let fixture = Fixture::brokers(3);
    let wal = fixture.open().await;
    wal.append(&["a", "b"]).await;
    sleep(Duration::from_millis(10)).await;
    let leader = fixture.cluster.leader("wal", 0).unwrap().unwrap();
    let behind = fixture.leave_behind();
    wal.append(&["c", "d", "e", "f"]).await;
    for broker in fixture.cluster.brokers() {
        fixture.cluster.set_lag("wal", 0, broker, Duration::MAX).unwrap();
    }
    fixture.cluster.elect_unclean("wal", 0, behind).unwrap();
    let other = fixture.open().await;
    for value in ["x", "y"] {
        other.append(&[value]).await;
    }
    let reader = fixture.reader(0);
    let mut stream = follow(&other.partition, 0).await.unwrap();
    fixture.follow(reader, &mut stream, 4).await;
    fixture.cluster.elect_unclean("wal", 0, leader).unwrap();
    fixture.recorder.now().truncated(("wal", 0), 2);
    for broker in fixture.cluster.brokers() {
        fixture.cluster.set_lag("wal", 0, broker, Duration::ZERO).unwrap();
    }
    fixture.expect_loss(reader, stream, 6).await;
    fixture
}

impl Fixture {
    /// Reads a stream on, which has to report that what it has read from offset 2 on is lost.
    async fn expect_loss(&self, reader: ReaderId, mut stream: RecordStream, to: i64) {
        let error = self.follow(reader, &mut stream, to).await;
        let is_reported =
            error.is_some_and(|error| matches!(error.kind(), ErrorKind::LogTruncated { diverged_at: 2, .. }));
        self.expect(is_reported, "a loss of what was read was not reported, or not all of it");
    }

    /// Lets a follower fall behind. Returns it.
    fn leave_behind(&self) -> i32 {
        let follower = self.follower();
        self.cluster.set_lag("wal", 0, follower, Duration::MAX).unwrap();
        self.cluster.shrink_isr("wal", 0, follower).unwrap();
        follower
    }

    fn next_epoch(&self) {
        self.cluster.move_leader("wal", 0, self.follower()).unwrap();
    }

    /// Returns a follower in sync.
    fn follower(&self) -> i32 {
        let leader = self.cluster.leader("wal", 0).unwrap();
        let in_sync = self.cluster.in_sync("wal", 0).unwrap();
        in_sync.into_iter().find(|broker| Some(*broker) != leader).unwrap()
    }
}

/// A position is kept, and the topic deleted and created again.
pub(crate) async fn kept_before_recreation() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a", "b"]).await;
    let kept = wal.partition.fetch(0).await.unwrap().position().to_string();
    fixture.cluster.recreate_topic("wal").unwrap();
    sleep(Duration::from_secs(1)).await;
    let wal = fixture.open().await;
    wal.append(&["c", "d", "e"]).await;
    let fetched = wal.partition.fetch(kept.parse::<Position>().unwrap()).await;
    let is_recreated = fetched.is_err_and(|error| matches!(error.kind(), ErrorKind::TopicRecreated { .. }));
    fixture.expect(is_recreated, "a position of a topic that is gone was read from");
    fixture
}

/// A stream has handed over a part of a response when the topic is created again.
pub(crate) async fn followed_over_recreation() -> Fixture {
    let old = Versions::new(0, 12);
    let builder = EmbeddedCluster::builder().cap(ApiKey::FETCH, old).cap(ApiKey::PRODUCE, old);
    let fixture = Fixture::start(builder);
    let wal = fixture.open().await;
    for value in ["a", "b", "c"] {
        wal.append(&[value]).await;
    }
    let reader = fixture.reader(0);
    let mut stream = follow(&wal.partition, 0).await.unwrap();
    // One response has all of them, and the next fetch waits for more.
    let batch = stream.next_batch().await.unwrap();
    fixture.recorder.now().fetched(reader);
    fixture.got(reader, Some(&batch), stream.position());
    fixture.cluster.recreate_topic("wal").unwrap();
    sleep(Duration::from_secs(1)).await;
    let recreated = fixture.open().await;
    for value in ["v", "w", "x", "y"] {
        recreated.append(&[value]).await;
    }
    fixture.cluster.on(ApiKey::FETCH, Fault::Drop);
    let error = fixture.follow(reader, &mut stream, 3).await;
    fixture.expect(error.is_none(), "what was fetched before the topic was created again is not there");
    if let Ok(batch) = stream.next_batch().await {
        fixture.recorder.now().fetched(reader);
        fixture.got(reader, Some(&batch), stream.position());
    }
    fixture
}

/// More is read than the memory budget has, one fetch after the other.
pub(crate) async fn read_much() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = scarce(&fixture).await;
    for _ in 0..100 {
        let fetched = partition.fetch(0).max_wait(Duration::ZERO).deadline(Duration::from_secs(5)).await;
        fixture.expect(fetched.is_ok(), "there is no memory for a read");
    }
    fixture
}

/// The caller decodes a batch without letting any other task run.
pub(crate) async fn fetched_ahead_while_decoding() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    for value in ["a", "b"] {
        wal.append(&[value]).await;
    }
    let (wire, partition) = open_over_wire(&fixture).await;
    let mut replay = replay(&partition, 0).max_bytes(1).await.unwrap();
    let before = wire.requests(ApiKey::FETCH);
    replay.next_batch().await.unwrap();
    fixture.expect(wire.requests(ApiKey::FETCH) == before + 2, "the next fetch is not on its way");
    fixture
}

/// More is fetched ahead than the memory budget has.
pub(crate) async fn fetched_ahead() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = scarce(&fixture).await;
    let ahead: Vec<_> = (0..1_000).map_while(|_| partition.fetch(0).ahead()).collect();
    fixture.expect(ahead.len() <= 64, "more is fetched ahead than the budget has");
    fixture
}

async fn scarce(fixture: &Fixture) -> PartitionClient {
    let limits = Limits::default().memory(64 << 10);
    fixture.builder().limits(limits).build().await.unwrap().partition_client("wal", 0).await.unwrap()
}
