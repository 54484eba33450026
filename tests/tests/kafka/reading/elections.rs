//! Records that were read and then lost in an unclean election: every reader is told from which offset on.

use std::collections::BTreeMap;
use std::ops::Range;

use futures::future::join_all;
use kwal_batching::reader::{OutOfRange, RecordStream, Replay, follow, replay};
use kwal_client::error::{Error, ErrorKind};
use kwal_client::{Client, ClientBuilder, Limits, PartitionClient, Position};
use kwal_protocol::api::ApiKey;
use kwal_protocol::messages::ApiVersionsRequest;
use kwal_testkit::wire::{Decision, Wire};
use kwal_tests::kafka::{ClusterConfig, Kafka, Node, Version};
use kwal_transport::Tcp;

use super::judge::{Stored, batches, diverges_at, stored};
use super::{append, connect, read_to_end, read_up_to, take, value};
use crate::faults::on_node;
use crate::segments::dumped;

kwal_tests::suite! {
    newer: [unclean],
}

/// The two brokers with replicas. The controller is left alone.
const ONE: u16 = 3;
const OTHER: u16 = 2;

/// What the leader of the readers has, and the next one has not. All records before are on both.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Loss {
    /// Records of an epoch of which the next leader has some.
    Known,
    /// Records of an epoch that the next leader does not know.
    Unknown,
    /// The same, and the next leader has others of an earlier epoch at their offsets.
    Forked,
}

/// The partitions of the topic. Those with an odd number get records after the election, beyond the lost
/// ones.
const LOSSES: [Loss; 6] =
    [Loss::Known, Loss::Known, Loss::Unknown, Loss::Unknown, Loss::Forked, Loss::Forked];

/// The first lost offset.
const LOST: i64 = 10;

impl Loss {
    /// Returns the offset after the last lost record.
    fn end(self) -> i64 {
        if self == Self::Known { 20 } else { 30 }
    }
}

async fn unclean(version: Version) {
    let properties = vec![("auto.leader.rebalance.enable".to_owned(), "false".to_owned())];
    let config = ClusterConfig { nodes: 3, controllers: 1, properties, ..ClusterConfig::default() };
    let kafka = Kafka::start(version, &config);
    let topic = create(&kafka).await;
    let partitions = open_all(&connect(&kafka).await, &topic).await;
    fill(&partitions, "both", 0..5).await;
    // In the end the other broker leads those with a known epoch.
    for (turn, offsets) in [5..8, 8..LOST].into_iter().enumerate() {
        let java = kafka.java();
        join_all((0..).zip(LOSSES).map(async |(number, loss)| {
            let is_other = (turn == 0) != (loss == Loss::Known);
            let replicas = if is_other { [OTHER, ONE] } else { [ONE, OTHER] };
            java.move_leader(&topic, number, &replicas).await;
        }))
        .await;
        fill(&partitions, "both", offsets).await;
    }
    on_node(&kafka, ONE, Node::stop).await;
    fill(&with(&partitions, &[Loss::Known]), "alone", LOST..Loss::Known.end()).await;
    fill(&with(&partitions, &[Loss::Forked]), "fork", LOST..20).await;
    let readers = Readers::begin_all(&kafka, &topic, &[Loss::Known]).await;
    on_node(&kafka, OTHER, Node::kill).await;
    on_node(&kafka, ONE, Node::start).await;
    readers.find_out(&kafka, OTHER, ONE).await;

    // Those that have appended before know of their loss.
    let partitions = open_all(&connect(&kafka).await, &topic).await;
    let losses = [Loss::Unknown, Loss::Forked];
    fill(&with(&partitions, &losses), "alone", LOST..Loss::Forked.end()).await;
    let readers = Readers::begin_all(&kafka, &topic, &losses).await;
    on_node(&kafka, ONE, Node::kill).await;
    on_node(&kafka, OTHER, Node::start).await;
    readers.find_out(&kafka, ONE, OTHER).await;
}

/// Creates the topic, led by the first broker.
async fn create(kafka: &Kafka) -> String {
    let topic = kafka.topic_name("unclean");
    let controller = connect(kafka).await.controller_client().await.unwrap();
    let create = controller.create_topic(&topic, -1, -1);
    let create = create.assignment(vec![vec![i32::from(ONE), i32::from(OTHER)]; LOSSES.len()]);
    create.config("min.insync.replicas", "1").config("unclean.leader.election.enable", "true").await.unwrap();
    topic
}

async fn open_all(client: &Client, topic: &str) -> Vec<PartitionClient> {
    let numbers = (0..).take(LOSSES.len());
    join_all(numbers.map(async |number| client.partition_client(topic, number).await.unwrap())).await
}

/// Returns the partitions with such losses.
fn with(partitions: &[PartitionClient], losses: &[Loss]) -> Vec<PartitionClient> {
    let partitions = partitions.iter().zip(LOSSES).filter(|(_, loss)| losses.contains(loss));
    partitions.map(|(partition, _)| partition.clone()).collect()
}

async fn fill(partitions: &[PartitionClient], label: &str, offsets: Range<i64>) {
    join_all(partitions.iter().map(async |partition| {
        for offset in offsets.clone() {
            assert_eq!(append(partition, format!("{label} {offset}")).await, offset);
        }
    }))
    .await;
}

/// Connects as a client whose brokers have no Fetch that verifies a leader epoch, by their list of versions.
fn without_epochs_in_fetches() -> Wire {
    let wire = Wire::new(Tcp::default());
    wire.rewrite::<ApiVersionsRequest>(|response| {
        let fetch = response.api_keys.iter_mut().find(|listed| listed.api_key == ApiKey::FETCH);
        fetch.unwrap().max_version = 11;
    });
    wire.on_request(|frame| {
        assert!(frame.api != ApiKey::FETCH || frame.version == 11, "{frame:?}");
        Decision::Pass
    });
    wire
}

/// The readers of some partitions, over two clients.
struct Readers {
    topic: String,
    readers: Vec<PartitionReaders>,
    old: Wire,
}

impl Readers {
    /// Begins to read before the election.
    async fn begin_all(kafka: &Kafka, topic: &str, losses: &[Loss]) -> Self {
        let old = without_epochs_in_fetches();
        let mut readers = Vec::new();
        for wire in [Wire::new(Tcp::default()), old.clone()] {
            // Some of them share requests.
            let limits = Limits::default().max_connections_per_broker(2);
            let client = ClientBuilder::new(kafka.bootstrap()).connector(wire).limits(limits);
            let client = client.build().await.unwrap();
            for (partition, loss) in open_all(&client, topic).await.into_iter().zip(LOSSES) {
                if losses.contains(&loss) {
                    readers.push(PartitionReaders::begin(partition, loss).await);
                }
            }
        }
        Self { topic: topic.to_owned(), readers, old }
    }

    /// Goes on after the election, and verifies positions that were kept.
    async fn find_out(self, kafka: &Kafka, before: u16, after: u16) {
        let Self { topic, readers, old } = self;
        let partitions = open_all(&connect(kafka).await, &topic).await;
        for reader in readers.iter().filter(|reader| reader.is_replaced()).take(readers.len() / 4) {
            for number in 0..50 {
                append(&partitions[reader.index()], format!("new {number}")).await;
            }
        }
        let clients = [Wire::new(Tcp::default()), without_epochs_in_fetches()];
        let clients = join_all(clients.map(async |wire| {
            let client = ClientBuilder::new(kafka.bootstrap()).connector(wire).build().await.unwrap();
            open_all(&client, &topic).await
        }))
        .await;
        for (index, reader) in readers.into_iter().enumerate() {
            let number = reader.partition.partition();
            // DumpLogSegments is asked once. The files of a broker that does not run are there.
            let [before, after] = if index == 0 {
                [stored(kafka, before, &topic, number).await, stored(kafka, after, &topic, number).await]
            } else {
                [before, after].map(|node| batches(&dumped(&kafka.segments(node, &topic, number))))
            };
            assert_eq!(diverges_at(&before, &after)..before.last().unwrap().offsets.end, reader.lost());
            let (loss, kept) = (reader.loss, reader.find_out(&after).await);
            for partitions in &clients {
                verify(&partitions[usize::try_from(number).unwrap()], loss, &kept, &after).await;
            }
        }
        assert!(old.requests(ApiKey::OFFSET_FOR_LEADER_EPOCH) > 0);
    }
}

/// The readers of one partition. Most of them have read some of what gets lost.
struct PartitionReaders {
    partition: PartitionClient,
    loss: Loss,
    /// They have read everything. The policy of the second one is for deleted records.
    streams: Vec<RecordStream>,
    /// They are to read everything, and have read up to these offsets.
    replays: Vec<(i64, Replay)>,
    /// By offset, as text.
    kept: BTreeMap<i64, String>,
}

impl PartitionReaders {
    async fn begin(partition: PartitionClient, loss: Loss) -> Self {
        let mut kept = BTreeMap::new();
        let mut replays = Vec::new();
        for end in [8, 15, loss.end()] {
            let mut replay_all = replay(&partition, 0).max_bytes(1).await.unwrap();
            while replay_all.position().offset < end {
                replay_all.next_batch().await.unwrap();
            }
            kept.insert(end, replay_all.position().to_string());
            if end < loss.end() {
                replays.push((end, replay_all));
            }
        }
        let mut streams = Vec::new();
        for out_of_range in [OutOfRange::Fail, OutOfRange::FromStart] {
            let mut stream = follow(&partition, 0).out_of_range(out_of_range).await.unwrap();
            assert_eq!(read_up_to(&mut stream, loss.end()).await.len() as i64, loss.end());
            streams.push(stream);
        }
        Self { partition, loss, streams, replays, kept }
    }

    fn index(&self) -> usize {
        usize::try_from(self.partition.partition()).unwrap()
    }

    fn lost(&self) -> Range<i64> {
        LOST..self.loss.end()
    }

    fn is_replaced(&self) -> bool {
        is_replaced(&self.partition)
    }

    /// Returns the positions that were kept.
    async fn find_out(self, after: &[Stored]) -> BTreeMap<i64, String> {
        let Self { partition, loss, streams, replays, kept } = self;
        for mut stream in streams {
            let error = stream.next_batch().await.unwrap_err();
            // A stream knows where each epoch began.
            is_truncated(&error, loss.end(), LOST);
            is_truncated(&stream.next_batch().await.unwrap_err(), loss.end(), LOST);
            assert_eq!(stream.position().offset, loss.end());
        }
        for (from, mut replay) in replays {
            let mut read = BTreeMap::new();
            let error = loop {
                match replay.next_batch().await {
                    Ok(Some(batch)) => take(&batch, &mut read),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            let is_before = from <= LOST;
            match error {
                // It has read none of what was lost, and its end is not there any more.
                Some(error) if is_before => {
                    assert!(!is_replaced(&partition), "{error:?}");
                    is_truncated(&error, end(after), end(after));
                    assert_eq!(read, records(after, from..end(after)));
                }
                Some(error) => {
                    is_truncated(&error, replay.position().offset, LOST);
                    // That was fetched ahead.
                    assert!(read.len() <= 1 && read.values().all(|value| value.starts_with("alone")));
                }
                // By now the log is long enough again.
                None => {
                    assert!(is_before && is_replaced(&partition), "from {from}");
                    assert_eq!(read, records(after, from..loss.end()));
                }
            }
        }
        kept
    }
}

/// Verifies positions by another client, to which they are text.
async fn verify(partition: &PartitionClient, loss: Loss, kept: &BTreeMap<i64, String>, after: &[Stored]) {
    for (offset, text) in kept {
        let position: Position = text.parse().unwrap();
        assert_eq!(position.offset, *offset);
        if *offset <= LOST {
            // What was read before it is still there.
            let mut replay = replay(partition, position).await.unwrap();
            assert_eq!(read_to_end(&mut replay).await, records(after, *offset..end(after)));
            continue;
        }
        let at = known_to_differ(after, position);
        assert!(loss == Loss::Forked || at == LOST, "{at}");
        is_truncated(&partition.fetch(position).await.unwrap_err(), *offset, at);
        let error = match replay(partition, position).await {
            Ok(mut replay) => replay.next_batch().await.unwrap_err(),
            Err(error) => error,
        };
        is_truncated(&error, *offset, at);
        let error = match follow(partition, position).await {
            Ok(mut stream) => stream.next_batch().await.unwrap_err(),
            Err(error) => error,
        };
        is_truncated(&error, *offset, at);
        // A bare offset reads what is there.
        match partition.fetch(*offset).await {
            Ok(fetched) => {
                let read = fetched.records().map(|record| record.unwrap());
                let read: BTreeMap<_, _> = read.map(|record| (record.offset, value(&record))).collect();
                assert_eq!(read, records(after, *offset..end(after)));
            }
            Err(error) => {
                let ErrorKind::BeyondEnd { end: at, .. } = error.kind() else { panic!("{error:?}") };
                assert!(*at < *offset && *at == end(after), "{error:?}");
            }
        }
    }
}

/// Returns the first offset that one position and the leader's epochs prove to differ.
fn known_to_differ(after: &[Stored], position: Position) -> i64 {
    let epoch = position.leader_epoch.unwrap();
    let later = after.iter().find(|batch| batch.leader_epoch > epoch);
    let end = later.map_or_else(|| end(after), |batch| batch.offsets.start);
    let is_known = after.iter().any(|batch| batch.leader_epoch == epoch);
    if is_known { end } else { end.min(position.offset - 1) }
}

fn is_replaced(partition: &PartitionClient) -> bool {
    partition.partition() % 2 == 1
}

fn end(batches: &[Stored]) -> i64 {
    batches.last().unwrap().offsets.end
}

fn records(batches: &[Stored], offsets: Range<i64>) -> BTreeMap<i64, String> {
    let records = batches.iter().flat_map(|batch| &batch.records).cloned();
    records.filter(|(offset, _)| offsets.contains(offset)).collect()
}

fn is_truncated(error: &Error, offset: i64, at: i64) {
    let ErrorKind::LogTruncated { position, diverged_at, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!((position.offset, *diverged_at), (offset, at), "{error:?}");
}
