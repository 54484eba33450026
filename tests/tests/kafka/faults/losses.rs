//! Acknowledged records that an unclean election loses are reported, and nothing else is taken for a loss.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::join_all;
use kwal_client::error::{Error, ErrorKind, Outcome};
use kwal_client::record::Record;
use kwal_client::{Client, ClientBuilder, PartitionClient};
use kwal_testkit::check::{Expect, Log, Recorder, Writer, WriterId};
use kwal_tests::kafka::{ClusterConfig, Kafka, Version};
use tokio::task::yield_now;

use super::leaders::on_node;
use super::load::Scenario;
use super::network::{Break, Network};

kwal_tests::suite! {
    older: [a_loss_is_reported],
    newer: [nothing_else_is_a_loss],
}

/// Three brokers. The controller is on the first, which is left alone.
fn start(version: Version) -> Kafka {
    let properties = [
        ("auto.leader.rebalance.enable", "false"),
        ("log.initial.task.delay.ms", "100"),
        ("log.retention.check.interval.ms", "300"),
        ("log.cleaner.backoff.ms", "300"),
    ];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Kafka::start(version, &ClusterConfig { nodes: 3, controllers: 1, properties, ..ClusterConfig::default() })
}

const FOLLOWER: u16 = 2;
const LEADER: u16 = 3;

/// Creates a topic whose partitions all have these replicas.
async fn topic(
    kafka: &Kafka,
    client: &Client,
    what: &str,
    partitions: usize,
    replicas: &[u16],
    configs: &[(&str, &str)],
) -> String {
    let topic = kafka.topic_name(what);
    let replicas: Vec<i32> = replicas.iter().copied().map(i32::from).collect();
    let controller = client.controller_client().await.unwrap();
    let create = controller.create_topic(&topic, -1, -1).assignment(vec![replicas; partitions]);
    let create = create.config("min.insync.replicas", "1");
    configs.iter().fold(create, |create, (name, value)| create.config(*name, *value)).await.unwrap();
    topic
}

/// How many callers append to each partition.
const CALLERS: [usize; 4] = [1, 32, 1, 32];
/// The partition whose lost records another client replaces.
const REPLACED: i32 = 2;
/// The partition that is appended to during the election.
const BUSY: i32 = 3;

async fn a_loss_is_reported(version: Version) {
    let kafka = start(version);
    let client = ClientBuilder::new(kafka.bootstrap()).connector(Network::new()).build().await.unwrap();
    let unclean = [("unclean.leader.election.enable", "true")];
    let topic = topic(&kafka, &client, "unclean", CALLERS.len(), &[LEADER, FOLLOWER], &unclean).await;
    let recorder = Recorder::new();
    let mut writers = Vec::new();
    for (number, callers) in (0..).zip(CALLERS) {
        let partition = client.partition_client(&topic, number).await.unwrap();
        let writer = recorder.now().writer(Writer::new((&*topic, number)));
        let appender = Appender { partition, recorder: recorder.clone(), writer, callers };
        appender.append(0..64).await;
        writers.push(Arc::new(appender));
    }
    on_node(&kafka, FOLLOWER, |node| node.stop()).await;
    for writer in &writers {
        writer.append(64..128).await;
    }
    let busy = Arc::clone(&writers[BUSY as usize]);
    let busy = tokio::spawn(async move { busy.append_until_it_fails().await });
    on_node(&kafka, LEADER, |node| node.kill()).await;
    on_node(&kafka, FOLLOWER, |node| node.start()).await;
    replace(&kafka, &topic, &recorder).await;
    let acked_end = busy.await.unwrap().max(128);

    for (number, writer) in (0..).zip(&writers) {
        // The files of a broker that does not run are there.
        let (before, after) =
            tokio::join!(kafka.dump_log(LEADER, &topic, number), kafka.dump_log(FOLLOWER, &topic, number));
        let lost = lost(&before, &after);
        let acked = lost.start..if number == BUSY { acked_end } else { 128 };
        assert_eq!(lost.start, 64);
        assert!(number == BUSY || lost == acked, "{lost:?}");
        let error = writer.fail("after").await;
        kwal_tests::report(format_args!("{version}, partition {number}: {lost:?} are lost: {error}"));
        let ErrorKind::DataLoss { producer_id, epoch, sequence, offsets, .. } = error.kind() else {
            panic!("{error:?}")
        };
        assert_eq!(offsets.as_ref(), Some(&acked), "{error:?}");
        let last = numbers(&before, acked.end - 1, ["producerId", "producerEpoch", "baseSequence"]);
        assert_eq!(last, [*producer_id, i64::from(*epoch), i64::from(*sequence)], "{error:?}");
        // Nothing was sent to the new leader before the loss was found.
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error:?}");
        recorder.now().truncated((&*topic, number), lost.start);
        recorder.now().lost(writer.writer);
        // It does not append any more; another one does.
        let error = writer.fail("ended").await;
        assert!(matches!(error.kind(), ErrorKind::DataLoss { .. }), "{error:?}");
        assert_eq!(error.outcome(), Outcome::NotApplied);
        let partition = client.partition_client(&topic, number).await.unwrap();
        let next = recorder.now().writer(Writer::new((&*topic, number)));
        let next = Appender { partition, recorder: recorder.clone(), writer: next, callers: writer.callers };
        next.append(2_000..2_032).await;
    }
    on_node(&kafka, LEADER, |node| node.start()).await;
    for number in (0..).take(CALLERS.len()) {
        log(&kafka, &topic, number, &recorder).await;
    }
    recorder.now().check(&Expect::default()).assert();
}

/// Lets another client fill the offsets of the lost records of one partition, when there is a leader.
async fn replace(kafka: &Kafka, topic: &str, recorder: &Recorder) {
    let other = ClientBuilder::new(kafka.bootstrap()).build().await.unwrap();
    let partition = other.partition_client(topic, REPLACED).await.unwrap();
    let writer = recorder.now().writer((topic, REPLACED));
    Appender { partition, recorder: recorder.clone(), writer, callers: 1 }.append(1000..1080).await;
}

/// Returns the offsets of the batches that only the first output of DumpLogSegments has.
fn lost(before: &str, after: &str) -> Range<i64> {
    let (before, after) = (batches(before), batches(after));
    let mut lost = before.iter().filter(|(offset, batch)| after.get(offset) != Some(batch));
    let first = *lost.next().expect("a lost batch").0;
    assert!(first > 0, "{before:?} {after:?}");
    let (last, _) = before.last_key_value().unwrap();
    // They are the last ones.
    assert_eq!(lost.next_back().map_or(first, |(offset, _)| *offset), *last);
    let last_offset = field(&before[last], "lastOffset");
    first..last_offset.parse::<i64>().unwrap() + 1
}

/// Returns the lines about batches by base offset.
fn batches(dump: &str) -> BTreeMap<i64, String> {
    let lines = dump.lines().filter(|line| line.starts_with("baseOffset: "));
    let identity = |line: &str| {
        // The same batch can be at another position of another file.
        ["lastOffset", "count", "baseSequence", "producerId", "producerEpoch", "crc"]
            .map(|name| format!("{name}: {} ", field(line, name)))
            .concat()
    };
    lines.map(|line| (field(line, "baseOffset").parse().unwrap(), identity(line))).collect()
}

/// Returns numbers of the batch at an offset.
fn numbers<const N: usize>(dump: &str, offset: i64, names: [&str; N]) -> [i64; N] {
    let start = format!("baseOffset: {offset} ");
    let line =
        dump.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{offset}: {dump}"));
    names.map(|name| field(line, name).parse().unwrap())
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let mut words = line.split_whitespace();
    words.find(|word| word.strip_suffix(':') == Some(name)).unwrap_or_else(|| panic!("{name} in {line}"));
    words.next().unwrap()
}

async fn log(kafka: &Kafka, topic: &str, partition: i32, recorder: &Recorder) {
    let java = kafka.java();
    let start = java.offset(topic, partition, "earliest").await;
    let end = java.offset(topic, partition, "latest").await;
    let records = java.consume(topic, partition, start, Some(end)).await;
    // Retention may have deleted some of them meanwhile.
    let start = java.offset(topic, partition, "earliest").await;
    let records = records.into_iter().filter(|record| record.offset >= start);
    let records = records.map(|record| (record.offset, record.value.unwrap()));
    let mut history = recorder.now();
    history.deleted((topic, partition), start);
    history.log(Log::new((topic, partition), start..end, records));
}

/// Appends to one partition, and expects that it succeeds.
struct Appender {
    partition: PartitionClient,
    recorder: Recorder,
    writer: WriterId,
    callers: usize,
}

impl Appender {
    /// Appends a record for each number.
    async fn append(&self, numbers: Range<u32>) {
        let numbers: Vec<u32> = numbers.collect();
        for numbers in numbers.chunks(self.callers) {
            let appends = numbers.iter().map(async |number| self.produce(&number.to_string()).await.unwrap());
            join_all(appends).await;
        }
    }

    /// Appends until every caller has an error. Returns the offset after the last acknowledged record.
    async fn append_until_it_fails(&self) -> i64 {
        let next = AtomicU32::new(10_000);
        let callers = (0..self.callers).map(async |_| {
            let mut end = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                match self.produce(&number.to_string()).await {
                    Ok(offset) => end = offset + 1,
                    Err(_) => return end,
                }
            }
        });
        join_all(callers).await.into_iter().max().unwrap()
    }

    /// Appends a record and returns the error.
    async fn fail(&self, what: &str) -> Error {
        self.produce(what).await.unwrap_err()
    }

    /// Appends a record and returns its offset.
    async fn produce(&self, what: &str) -> Result<i64, Error> {
        let value = format!("{}-{what}", self.partition.partition());
        let ticket = self.recorder.queue(self.writer, [&*value]);
        let result = self.partition.produce(vec![Record::new("key", value)]).await;
        match &result {
            Ok(produced) => ticket.acked(produced.base_offset.unwrap()),
            Err(error) if error.outcome() == Outcome::Unknown => ticket.unknown(),
            Err(_) => ticket.not_appended(),
        }
        result.map(|produced| produced.base_offset.unwrap())
    }
}

async fn nothing_else_is_a_loss(version: Version) {
    let kafka = start(version);
    tokio::join!(deleted(&kafka), expired(&kafka), compacted(&kafka));
    restarted(&kafka).await;
}

/// The only replica of each partition is shut down and started, again and again.
async fn restarted(kafka: &Kafka) {
    let request = Duration::from_secs(10);
    let one = [("min.insync.replicas", "1")];
    let mut scenario = Scenario::start(kafka, "restarted", &[i32::from(LEADER)], &one, request).await;
    for _ in 0..if kwal_tests::long() { 10 } else { 2 } {
        scenario.progress(20).await;
        on_node(kafka, LEADER, |node| {
            node.stop()?;
            node.start()
        })
        .await;
    }
    scenario.progress(20).await;
    scenario.finish(kafka).await;
}

/// A partition whose appends go on over another connection or another leader each time something happens.
struct Moving<'a> {
    kafka: &'a Kafka,
    network: Network,
    appender: Appender,
    topic: String,
    next: u32,
    leader: u16,
}

impl<'a> Moving<'a> {
    async fn start(kafka: &'a Kafka, what: &str, configs: &[(&str, &str)]) -> Self {
        let network = Network::new();
        let client = ClientBuilder::new(kafka.bootstrap()).connector(network.clone()).build().await.unwrap();
        let topic = topic(kafka, &client, what, 1, &[LEADER, FOLLOWER], configs).await;
        let partition = client.partition_client(&topic, 0).await.unwrap();
        let recorder = Recorder::new();
        let writer = recorder.now().writer((&*topic, 0));
        let appender = Appender { partition, recorder, writer, callers: 1 };
        Self { kafka, network, appender, topic, next: 0, leader: LEADER }
    }

    async fn append(&mut self, count: u32) {
        let numbers = self.next..self.next + count;
        self.next = numbers.end;
        self.appender.append(numbers).await;
    }

    /// Closes the connections.
    fn cut(&self) {
        let address = &self.kafka.bootstrap()[usize::from(self.leader) - 1];
        self.network.break_all(address.rsplit_once(':').unwrap().1.parse().unwrap(), Break::Cut);
    }

    async fn change_leader(&mut self) {
        self.leader = LEADER + FOLLOWER - self.leader;
        let replicas = [self.leader, LEADER + FOLLOWER - self.leader];
        self.kafka.java().move_leader(&self.topic, 0, &replicas).await;
    }

    async fn offset(&self, at: &str) -> i64 {
        self.kafka.java().offset(&self.topic, 0, at).await
    }

    async fn finish(self) {
        log(self.kafka, &self.topic, 0, &self.appender.recorder).await;
        self.appender.recorder.now().check(&Expect::default()).assert();
    }
}

/// The last record, or all, are deleted by DeleteRecords.
async fn deleted(kafka: &Kafka) {
    let mut moving = Moving::start(kafka, "deleted", &[]).await;
    for round in 0..4 {
        moving.append(10).await;
        let end = moving.offset("latest").await;
        kafka.java().delete_records(&moving.topic, 0, end - round % 2).await;
        if round < 2 {
            moving.cut();
        } else {
            moving.change_leader().await;
        }
    }
    moving.append(10).await;
    moving.finish().await;
}

/// All records are deleted by retention.
async fn expired(kafka: &Kafka) {
    let mut moving = Moving::start(kafka, "expired", &[("retention.ms", "500"), ("segment.ms", "400")]).await;
    for round in 0..2 {
        moving.append(10).await;
        while moving.offset("earliest").await < moving.offset("latest").await {
            yield_now().await;
        }
        if round == 0 {
            moving.cut();
        } else {
            moving.change_leader().await;
        }
    }
    moving.append(10).await;
    moving.finish().await;
}

/// Compaction removes all records but the last one of another client.
async fn compacted(kafka: &Kafka) {
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "400"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("min.compaction.lag.ms", "0"),
        ("max.compaction.lag.ms", "500"),
    ];
    let mut moving = Moving::start(kafka, "compacted", &configs).await;
    let other = ClientBuilder::new(kafka.bootstrap()).build().await.unwrap();
    let other = other.partition_client(&moving.topic, 0).await.unwrap();
    for round in 0..2 {
        moving.append(10).await;
        let end = moving.offset("latest").await;
        loop {
            // The active segment is not compacted.
            other.produce(vec![Record::new("key", "other")]).await.unwrap();
            let records = kafka.java().consume(&moving.topic, 0, 0, None).await;
            if records.iter().all(|record| record.offset >= end) {
                break;
            }
        }
        if round == 0 {
            moving.cut();
        } else {
            moving.change_leader().await;
        }
    }
    moving.append(10).await;
}
