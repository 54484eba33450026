//! How to test a write-ahead log of your own: a small one, and what it has to come through. To be copied.
//!
//! The cluster is inside the test, and so is the network. Time is tokio's, which is paused: it jumps to the
//! next moment when something is due, so that minutes pass in milliseconds, and the same way at every run.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::time::Duration;

use futures::StreamExt;
use kwal::{
    client::{
        Client, ClientBuilder, PartitionClient,
        error::{Error, Outcome},
    },
    consumer,
    protocol::ApiKey,
    record::Record,
};
use kwal_testkit::{
    EmbeddedCluster, Fault,
    check::{Expect, Log, Recorder, Tally, Writer, WriterId},
};
use tokio::time::{Instant, sleep};

// The log.

/// A log of text, in partition 0 of a topic.
struct Wal {
    partition: PartitionClient,
}

impl Wal {
    async fn open(client: &Client, topic: &str) -> Result<Self, Error> {
        Ok(Self { partition: client.partition_client(topic, 0).await? })
    }

    /// Appends an entry. When it returns its offset, the entry is there to stay; when it fails,
    /// [`outcome`](Error::outcome) says whether it may be there all the same.
    async fn append(&self, entry: &str) -> Result<i64, Error> {
        let record = Record::new(None::<&str>, entry.to_owned());
        Ok(self.partition.produce(vec![record]).await?.base_offset.expect("brokers report offsets"))
    }

    /// The entries from an offset on with their offsets, and the offset at which to go on later.
    async fn recover(&self, from: i64) -> Result<(Vec<(i64, String)>, i64), Error> {
        let mut replay = consumer::replay(&self.partition, from).await?;
        let mut entries = Vec::new();
        while let Some(record) = replay.next().await {
            let record = record?;
            let entry = record.value.unwrap_or_default();
            entries.push((record.offset, String::from_utf8_lossy(&entry).into_owned()));
        }
        Ok((entries, replay.position().offset))
    }
}

// What it has to come through.

#[tokio::test(start_paused = true)]
async fn reply_lost() {
    let fixture = Fixture::start(1).await;
    fixture.append("before").await;
    fixture.cluster.on_times(ApiKey::PRODUCE, 2, Fault::LoseReply);
    fixture.append("twice sent again").await;
    assert_eq!(fixture.cluster.requests(ApiKey::PRODUCE), 4);

    assert_eq!(fixture.recover(0).await, ["before", "twice sent again"]);
    assert_eq!(fixture.judge().acked, 2);
}

#[tokio::test(start_paused = true)]
async fn leader_moved() {
    let fixture = Fixture::start(3).await;
    for (leader, entry) in [(2, "a"), (3, "b"), (1, "c"), (2, "d")] {
        fixture.cluster.move_leader("wal", 0, leader).unwrap();
        fixture.append(entry).await;
    }
    assert_eq!(fixture.recover(0).await, ["a", "b", "c", "d"]);
    assert_eq!(fixture.recover(2).await, ["c", "d"]);
    assert_eq!(fixture.judge().acked, 4);
}

#[tokio::test(start_paused = true)]
async fn leader_killed_while_appending() {
    let fixture = Fixture::start(3).await;
    // An append takes 10 ms, so the leader dies with one on its log that it has not answered.
    fixture.cluster.on_all(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_millis(10)));
    let appends = async {
        for entry in 0..100 {
            fixture.append(&entry.to_string()).await;
        }
    };
    let kill = async {
        sleep(Duration::from_millis(505)).await;
        let leader = fixture.cluster.leader("wal", 0).unwrap().unwrap();
        fixture.cluster.kill(leader).unwrap();
    };
    let started = Instant::now();
    tokio::join!(appends, kill);
    // It was missed for so long before another one took its place.
    assert!(started.elapsed() > Duration::from_secs(9), "{:?}", started.elapsed());

    let expected: Vec<_> = (0..100).map(|entry| entry.to_string()).collect();
    assert_eq!(fixture.recover(0).await, expected);
    assert_eq!(fixture.judge().acked, 100);
}

/// The only broker is away for longer than an append may take.
#[tokio::test(start_paused = true)]
async fn nobody_there() {
    let fixture = Fixture::start(1).await;
    fixture.append("before").await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(1)));
    let kill = async {
        sleep(Duration::from_millis(500)).await;
        fixture.cluster.kill(1).unwrap();
    };
    tokio::join!(fixture.append("on the log, but who knows"), kill);
    fixture.append("not even sent").await;

    fixture.cluster.restart(1).unwrap();
    assert_eq!(fixture.recover(0).await, ["before", "on the log, but who knows"]);
    let told = fixture.judge();
    assert_eq!((told.acked, told.unknown, told.not_appended), (1, 1, 1));
}

/// A log on a cluster of its own, and a history of what it was asked to do and said.
struct Fixture {
    cluster: EmbeddedCluster,
    wal: Wal,
    recorder: Recorder,
    writer: WriterId,
}

impl Fixture {
    async fn start(brokers: i32) -> Self {
        let cluster = EmbeddedCluster::builder().brokers(brokers).topic("wal", 1).start_in_memory().unwrap();
        let wal = Wal::open(&client(&cluster).await, "wal").await.unwrap();
        let recorder = Recorder::new();
        // The client's deadline for a call, 60 s unless it is told otherwise.
        let writer = recorder.now().writer(Writer::new(("wal", 0)).deadline(Duration::from_secs(60)));
        Self { cluster, wal, recorder, writer }
    }

    /// Appends an entry, and notes what the log says of it. No two may be the same.
    async fn append(&self, entry: &str) {
        let ticket = self.recorder.submit(self.writer, [entry]);
        match self.wal.append(entry).await {
            Ok(offset) => ticket.acked(offset),
            Err(error) if error.outcome() == Outcome::NotApplied => ticket.not_appended(),
            Err(_) => ticket.unknown(),
        }
    }

    /// What another process finds, which may begin anywhere.
    async fn recover(&self, from: i64) -> Vec<String> {
        let wal = Wal::open(&client(&self.cluster).await, "wal").await.unwrap();
        let reader = self.recorder.now().reader(("wal", 0, from));
        let (entries, next) = wal.recover(from).await.unwrap();
        self.recorder.now().read(reader, entries.iter().map(|(offset, entry)| (*offset, entry)), next);
        entries.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Fails unless all that was said agrees with the log as it is now: what was acknowledged is there, once,
    /// in order, at its offset; what failed for certain is not; everybody read every entry once; nothing took
    /// too long.
    fn judge(self) -> Tally {
        let log = self.cluster.records("wal", 0).unwrap();
        let log = log.into_iter().map(|record| (record.offset, record.value.unwrap_or_default()));
        let mut history = self.recorder.now();
        history.log(Log::new(("wal", 0), 0..self.cluster.end_offset("wal", 0).unwrap(), log));
        let verdict = history.check(&Expect::default());
        verdict.assert();
        verdict.tally()
    }
}

async fn client(cluster: &EmbeddedCluster) -> Client {
    ClientBuilder::new(cluster.bootstrap()).connector(cluster.connector()).build().await.unwrap()
}
