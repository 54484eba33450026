//! Actions of scenarios without a request in kwal-protocol, each for real and for embedded brokers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    AlterConfigsResource, AlterableConfig, DescribableLogDirTopic, DescribeLogDirsRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, ProducePartitionResponse, ProduceRequest,
};
use kwal_protocol::record::{Batch, ControlRecord, EncodedBatch, OwnedRecord};
use kwal_protocol::wire::Uuid;
use kwal_testkit::EmbeddedCluster;
use kwal_tests::kafka::{Kafka, Node};
use tokio::time::{Instant, sleep};

use super::coordinators::{init, is_transient};
use super::describe;
use super::log::{Log, PRODUCE};
use super::positions::{FILLER, keyed};
use super::world::{Backend, World, topic_metadata, until};
use crate::raw::Broker;

/// The longest that a leader lets a follower's fetch wait, `replica.fetch.wait.max.ms`.
const LONGEST_FETCH: Duration = Duration::from_millis(500);

/// Brokers.
impl World {
    /// Kills a broker.
    pub(crate) async fn kill(&self, node: i32) {
        match self.backend() {
            Backend::Real(kafka) => on(kafka, node, Node::kill).await,
            Backend::Embedded(cluster) => cluster.kill(node).unwrap(),
        }
    }

    /// Shuts a broker down.
    pub(crate) async fn stop(&self, node: i32) {
        match self.backend() {
            Backend::Real(kafka) => on(kafka, node, Node::stop).await,
            Backend::Embedded(cluster) => cluster.stop(node).unwrap(),
        }
    }

    /// Starts a broker again.
    pub(crate) async fn start(&self, node: i32) {
        match self.backend() {
            Backend::Real(kafka) => on(kafka, node, Node::start).await,
            Backend::Embedded(cluster) => cluster.restart(node).unwrap(),
        }
    }

    /// Suspends a broker.
    pub(crate) async fn pause(&self, node: i32) {
        match self.backend() {
            Backend::Real(kafka) => on(kafka, node, Node::pause).await,
            Backend::Embedded(cluster) => cluster.pause(node).unwrap(),
        }
    }

    /// Resumes a broker.
    pub(crate) async fn resume(&self, node: i32) {
        match self.backend() {
            Backend::Real(kafka) => on(kafka, node, Node::resume).await,
            Backend::Embedded(cluster) => cluster.resume(node).unwrap(),
        }
    }
}

/// Resumes or starts brokers that a scenario has paused or stopped, and waits until each lists all of them.
pub(super) async fn restore(kafka: &'static Kafka) {
    for node in kafka.cluster().unwrap().nodes() {
        let node = Arc::clone(node);
        let restored = tokio::task::spawn_blocking(move || match node.resume() {
            Ok(()) => Ok(()),
            // It is not running.
            Err(_) => node.start(),
        });
        restored.await.unwrap().unwrap();
    }
    let addresses = kafka.bootstrap();
    for address in &addresses {
        let mut connection = Broker::connect(address).await;
        until("all brokers are back", async || (connection.brokers().await == addresses.len()).then_some(()))
            .await;
    }
}

async fn on(kafka: &'static Kafka, node: i32, act: fn(&Node) -> Result<(), String>) {
    let node = Arc::clone(kafka.cluster().unwrap().node(u16::try_from(node).unwrap()));
    tokio::task::spawn_blocking(move || act(&node)).await.unwrap().unwrap();
}

/// Leaders.
impl World {
    /// Makes another in-sync replica the leader, and connects the log to it.
    pub(crate) async fn elect(&self, log: &mut Log, to: i32) {
        match self.backend() {
            Backend::Real(_) => {
                // To the controller: the other brokers may not know the new order yet.
                let mut connection = self.connect().await;
                let mut replicas =
                    topic_metadata(&mut connection, &log.topic).await.partitions[0].replica_nodes.clone();
                replicas.sort_by_key(|replica| *replica != to);
                let mut body = Body::default();
                // Timeout; one topic; one partition; its replicas; no tags.
                body.int(30_000).byte(2).short_text(&log.topic).byte(2).int(log.partition);
                body.byte(u8::try_from(replicas.len() + 1).unwrap());
                for replica in replicas {
                    body.int(replica);
                }
                body.bytes(&[0; 3]);
                let mut response =
                    body.send_flexible(&mut connection, ALTER_PARTITION_REASSIGNMENTS, 0).await;
                response.advance(1 + 4);
                assert_eq!(response.get_i16(), 0, "AlterPartitionReassignments");
                elect_leaders(&mut connection, log, PREFERRED).await;
            }
            Backend::Embedded(cluster) => cluster.move_leader(&log.topic, log.partition, to).unwrap(),
        }
        self.wait_for_leader(log, to).await;
    }

    /// Makes an out-of-sync replica the leader of a partition without leader, and connects the log to it.
    pub(crate) async fn elect_uncleanly(&self, log: &mut Log, to: i32) {
        match self.backend() {
            Backend::Real(_) => {
                let mut connection = self.connect().await;
                until("the replica is elected", async || {
                    elect_leaders(&mut connection, log, UNCLEAN).await;
                    let found = topic_metadata(&mut connection, &log.topic).await;
                    (found.partitions[0].leader_id == to).then_some(())
                })
                .await;
            }
            Backend::Embedded(cluster) => cluster.elect_unclean(&log.topic, log.partition, to).unwrap(),
        }
        self.wait_for_leader(log, to).await;
    }

    /// Waits until a broker acts as the leader, and connects the log to it.
    pub(crate) async fn wait_for_leader(&self, log: &mut Log, node: i32) {
        log.connection = self.connect_to(node).await;
        until("the leader leads", async || log.is_led_by_broker().await.then_some(())).await;
    }

    /// Waits until exactly these replicas are in sync according to the controller and the leader.
    pub(crate) async fn wait_until_in_sync(&self, log: &Log, nodes: &[i32]) {
        let mut brokers = vec![1];
        brokers.extend(nodes.first());
        for node in brokers {
            let mut connection = self.connect_to(node).await;
            until("the replicas are in sync", async || {
                let found = topic_metadata(&mut connection, &log.topic).await;
                let mut isr = found.partitions[0].isr_nodes.clone();
                isr.sort_unstable();
                let mut nodes = nodes.to_vec();
                nodes.sort_unstable();
                (isr == nodes).then_some(())
            })
            .await;
        }
    }

    /// Suspends a follower in sync, and waits until its leader is alone and owes it no answer.
    pub(crate) async fn pause_follower(&self, log: &Log, leader: i32, follower: i32) {
        loop {
            self.wait_until_in_sync(log, &[leader, follower]).await;
            let paused = Instant::now();
            self.pause(follower).await;
            self.wait_until_in_sync(log, &[leader]).await;
            // Else it was about to be fenced anyway, and its last fetch would bring it what is appended next.
            if paused.elapsed() > LONGEST_FETCH {
                return;
            }
            self.resume(follower).await;
        }
    }

    /// Waits until a follower has fetched this many bytes of a log, committed or not.
    pub(crate) async fn wait_until_replicated(&self, log: &Log, node: i32, bytes: usize) {
        match self.backend() {
            Backend::Real(_) => {
                let mut connection = self.connect_to(node).await;
                let topic =
                    DescribableLogDirTopic { topic: log.topic.clone(), partitions: vec![log.partition] };
                let request = DescribeLogDirsRequest { topics: Some(vec![topic]) };
                until("the follower has fetched it", async || {
                    let response = connection.call(&request, 1).await;
                    let size = response.results[0].topics.first()?.partitions[0].partition_size;
                    (size >= i64::try_from(bytes).unwrap()).then_some(())
                })
                .await;
            }
            Backend::Embedded(cluster) => {
                let copied = cluster.replica_end_offset(node, &log.topic, log.partition).unwrap();
                assert_eq!(copied, cluster.end_offset(&log.topic, log.partition).unwrap());
            }
        }
    }

    /// Waits until a broker lists another one as the leader, or none (−1).
    pub(crate) async fn wait_for_listed_leader(&self, log: &Log, node: i32, leader: i32) {
        let mut connection = self.connect_to(node).await;
        until("the leader is listed", async || {
            let found = topic_metadata(&mut connection, &log.topic).await;
            (found.partitions[0].leader_id == leader).then_some(())
        })
        .await;
    }
}

async fn elect_leaders(connection: &mut Broker, log: &Log, kind: u8) {
    let mut body = Body::default();
    body.byte(kind).int(1).text(&log.topic).int(1).int(log.partition).int(30_000);
    let mut response = body.send(connection, ELECT_LEADERS, 1).await;
    response.advance(4);
    assert_eq!(response.get_i16(), 0, "ElectLeaders");
}

/// Transactional ids.
impl World {
    /// Makes a broker the coordinator of all transactional ids.
    pub(crate) async fn move_coordinator(&self, name: &str, to: i32) {
        match self.backend() {
            Backend::Real(_) => {
                self.elect(&mut self.transaction_log().await, to).await;
                // A broker that resigns while it still loads keeps what it loads, and believes it when it is
                // elected again (3.9.2).
                init(&mut self.connect_to(to).await, &format!("{name}-loaded"), -1, -1, 4).await;
            }
            Backend::Embedded(cluster) => cluster.move_coordinator(name, to).unwrap(),
        }
    }

    /// Returns the log of all transactional ids.
    pub(crate) async fn transaction_log(&self) -> Log {
        let connection = self.connect().await;
        Log { connection, topic: TRANSACTION_STATE.to_owned(), id: Uuid::ZERO, partition: 0 }
    }

    /// Raises the epoch of a transactional id by as many calls as it takes.
    pub(crate) async fn raise_epoch(&self, name: &str, producer_id: i64, epoch: i16) {
        match self.backend() {
            Backend::Real(_) => {
                let mut connection = self.connect().await;
                let request = InitProducerIdRequest {
                    transactional_id: Some(name.to_owned()),
                    transaction_timeout_ms: 60_000,
                    ..InitProducerIdRequest::default()
                };
                let mut reached = 0;
                while reached < epoch {
                    let sent = (epoch - reached).min(100);
                    for _ in 0..sent {
                        connection.send(&request, 4).await;
                    }
                    for _ in 0..sent {
                        let response = connection.read_response::<InitProducerIdRequest>(4).await.unwrap();
                        if response.error_code == ErrorCode::NONE {
                            assert_eq!(response.producer_id, producer_id);
                            reached = response.producer_epoch;
                        } else {
                            assert!(is_transient(response.error_code), "{}", response.error_code);
                        }
                    }
                }
            }
            Backend::Embedded(cluster) => assert!(cluster.set_producer_epoch(name, epoch)),
        }
    }
}

/// The topic of the coordinators.
pub(crate) const TRANSACTION_STATE: &str = "__transaction_state";

/// A producer of transactions in one partition.
///
/// Real brokers take part through the coordinator. In the embedded cluster, batches and markers are appended
/// directly.
pub(crate) struct Transaction {
    name: String,
    pub(crate) producer: (i64, i16),
    sequence: i32,
    is_open: bool,
}

impl World {
    /// Initializes the next producer of a transactional id.
    pub(crate) async fn transaction(&self, log: &mut Log, name: &str) -> Transaction {
        let producer = init(&mut log.connection, name, -1, -1, 4).await;
        let producer = (producer.producer_id, producer.producer_epoch);
        Transaction { name: name.to_owned(), producer, sequence: 0, is_open: false }
    }

    /// Appends in a transaction, and begins one if none is open.
    pub(crate) async fn append_in_transaction(
        &self,
        transaction: &mut Transaction,
        log: &mut Log,
        batch: EncodedBatch,
    ) -> String {
        let (id, epoch) = transaction.producer;
        let marked = batch.stamp(id, epoch, transaction.sequence).with_transactional(true);
        let text = match self.backend() {
            Backend::Real(_) => {
                if !transaction.is_open {
                    transaction.add_partition(log).await;
                }
                let name = Some(transaction.name.clone());
                let request = ProduceRequest { transactional_id: name, ..log.produce(marked.to_bytes(), -1) };
                log.produce_by(&request, PRODUCE).await
            }
            Backend::Embedded(cluster) => {
                let base_offset = cluster.end_offset(&log.topic, log.partition).unwrap();
                cluster.append_raw(&log.topic, log.partition, marked.to_bytes()).unwrap();
                let placed =
                    ProducePartitionResponse { base_offset, log_start_offset: 0, ..Default::default() };
                describe::produced(&placed)
            }
        };
        transaction.is_open = true;
        transaction.sequence += i32::try_from(batch.record_count()).unwrap();
        text
    }

    /// Ends the transaction and waits for its marker.
    pub(crate) async fn end(&self, transaction: &mut Transaction, log: &mut Log, commit: bool) {
        match self.backend() {
            Backend::Real(_) => {
                let end = log.end().await;
                let code = transaction.end(log, commit).await;
                assert_eq!(code, ErrorCode::NONE);
                until("the marker is written", async || (log.end().await > end).then_some(())).await;
            }
            Backend::Embedded(cluster) => {
                let producer = transaction.producer;
                cluster.end_transaction(&log.topic, log.partition, producer, commit).unwrap();
            }
        }
        transaction.is_open = false;
    }
}

impl World {
    /// Fences the producer of a transactional id by initializing the next one, which aborts an open
    /// transaction.
    pub(crate) async fn take_over(&self, before: &Transaction, log: &mut Log) -> String {
        match self.backend() {
            Backend::Real(_) => {
                let end = log.end().await;
                let next = init(&mut log.connection, &before.name, -1, -1, 4).await;
                until("the marker is written", async || (log.end().await > end).then_some(())).await;
                describe::producer_id(&next)
            }
            Backend::Embedded(cluster) => {
                // The coordinator bumps the epoch to abort, and again for the next producer.
                let fence = init(&mut log.connection, &before.name, -1, -1, 4).await;
                let producer = (fence.producer_id, fence.producer_epoch);
                cluster.end_transaction(&log.topic, log.partition, producer, false).unwrap();
                describe::producer_id(&init(&mut log.connection, &before.name, -1, -1, 4).await)
            }
        }
    }
}

impl Transaction {
    /// Sends AddPartitionsToTxn.
    async fn add_partition(&self, log: &mut Log) {
        let mut body = Body::default();
        body.text(&self.name).bytes(&self.producer.0.to_be_bytes()).bytes(&self.producer.1.to_be_bytes());
        body.int(1).text(&log.topic).int(1).int(log.partition);
        until("the partition is in the transaction", async || {
            let mut response = body.send(&mut log.connection, ADD_PARTITIONS_TO_TXN, 0).await;
            // Throttle time; one topic; its name; one partition; its index.
            response.advance(4 + 4);
            let name = usize::try_from(response.get_i16()).unwrap();
            response.advance(name + 4 + 4);
            let code = ErrorCode(response.get_i16());
            assert!(code == ErrorCode::NONE || is_transient(code), "AddPartitionsToTxn: {code}");
            (code == ErrorCode::NONE).then_some(())
        })
        .await;
    }

    /// Sends EndTxn.
    async fn end(&self, log: &mut Log, commit: bool) -> ErrorCode {
        let mut body = Body::default();
        body.text(&self.name).bytes(&self.producer.0.to_be_bytes()).bytes(&self.producer.1.to_be_bytes());
        body.byte(u8::from(commit));
        until("the transaction ends", async || {
            let mut response = body.send(&mut log.connection, END_TXN, 0).await;
            response.advance(4);
            let code = ErrorCode(response.get_i16());
            (!is_transient(code)).then_some(code)
        })
        .await
    }
}

/// The cleaner.
impl World {
    /// Compacts everything that was appended so far, in so many passes. Each begins with a batch in a new
    /// segment, since the last segment is never compacted.
    pub(crate) async fn clean(&self, log: &mut Log, since: i64, passes: i64) {
        for pass in 0..passes {
            let base = log.end().await;
            // Offsets grow, and so do these timestamps, which are further apart than `segment.ms`.
            let text = log.append(keyed(since + (base + 1) * 2_000, &[FILLER])).await;
            assert!(text.starts_with("OK"), "{text}");
            match self.backend() {
                Backend::Real(kafka) => {
                    until("the cleaner has run", async || is_clean(kafka, log, base).then_some(())).await;
                }
                Backend::Embedded(cluster) => clean(cluster, log, base, pass > 0),
            }
        }
    }
}

/// Does in the embedded cluster what the cleaner does: the last record of each key stays, aborted records are
/// removed, and in a later pass tombstones and the markers of transactions without records.
fn clean(cluster: &EmbeddedCluster, log: &Log, base: i64, later: bool) {
    let batches = cluster.log(&log.topic, log.partition).unwrap();
    let mut aborted = BTreeSet::new();
    let mut open: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for batch in &batches {
        let header = batch.header();
        match batch.control().unwrap() {
            Some(ControlRecord::EndTransaction(end)) => {
                let offsets = open.remove(&header.producer_id).unwrap_or_default();
                aborted.extend(offsets.into_iter().filter(|_| !end.committed));
            }
            _ => open.entry(header.producer_id).or_default().extend(batch.base_offset()..batch.next_offset()),
        }
    }
    let mut last = BTreeMap::new();
    for record in cluster.records(&log.topic, log.partition).unwrap() {
        if record.offset < base && !aborted.contains(&record.offset) {
            last.insert(record.key.clone().unwrap(), record.offset);
        }
    }
    let keep = |record: &OwnedRecord| {
        let is_last = last.get(record.key.as_ref().unwrap()) == Some(&record.offset);
        record.offset >= base || is_last && (record.value.is_some() || !later)
    };
    // Of the committed transactions of these scenarios, records are left.
    let is_abort = |batch: &&Batch| matches!(batch.control(), Ok(Some(ControlRecord::EndTransaction(end))) if !end.committed);
    let ended: BTreeSet<_> = batches.iter().filter(is_abort).map(|batch| batch.base_offset()).collect();
    cluster
        .compact_batches(&log.topic, log.partition, keep, |header| {
            header.base_offset < base
                && (!header.is_control() || later && ended.contains(&header.base_offset))
        })
        .unwrap();
}

/// Returns whether the cleaner of any broker has finished a pass up to an offset, according to the file in
/// which it remembers that.
fn is_clean(kafka: &Kafka, log: &Log, base: i64) -> bool {
    let prefix = format!("{} {} ", log.topic, log.partition);
    kafka.cluster().unwrap().nodes().iter().any(|node| {
        let text = std::fs::read_to_string(node.data().join("cleaner-offset-checkpoint")).unwrap_or_default();
        let passed = text.lines().find_map(|line| line.strip_prefix(&prefix)?.parse::<i64>().ok());
        passed.is_some_and(|passed| passed >= base)
    })
}

/// Time.
impl World {
    /// Expires the producers of a partition, as if they were idle for `producer.id.expiration.ms`.
    pub(crate) async fn expire_producers(&self, log: &mut Log) {
        match self.backend() {
            Backend::Real(_) => {
                let mut connection = self.connect().await;
                set_producer_id_expiration(&mut connection, Some("200")).await;
                until("the producers have expired", async || {
                    (log.active_producers().await.active_producers.is_empty()).then_some(())
                })
                .await;
                set_producer_id_expiration(&mut connection, None).await;
            }
            Backend::Embedded(_) => sleep(Duration::from_secs(2 * 86_400)).await,
        }
    }

    /// Waits until the periodic check has expired the producers of a log.
    pub(crate) async fn run_producer_expiration(&self, log: &mut Log) {
        if let Backend::Embedded(_) = self.backend() {
            sleep(Duration::from_secs(3_600)).await;
        }
        until("the producers have expired", async || {
            (log.active_producers().await.active_producers.is_empty()).then_some(())
        })
        .await;
    }

    /// Waits longer than `transactional.id.expiration.ms`.
    pub(crate) async fn expire_transactional_ids(&self) {
        match self.backend() {
            Backend::Real(_) => sleep(Duration::from_millis(2_500)).await,
            Backend::Embedded(_) => sleep(Duration::from_secs(8 * 86_400)).await,
        }
    }
}

/// Sets `producer.id.expiration.ms` of all brokers.
pub(crate) async fn set_producer_id_expiration(connection: &mut Broker, value: Option<&str>) {
    let config = AlterableConfig {
        name: "producer.id.expiration.ms".to_owned(),
        config_operation: if value.is_some() { 0 } else { 1 },
        value: value.map(str::to_owned),
    };
    let resource =
        AlterConfigsResource { resource_type: 4, resource_name: String::new(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let response = connection.call(&request, 1).await;
    assert_eq!(response.responses[0].error_code, ErrorCode::NONE, "{response:?}");
}

/// Quotas.
impl World {
    /// Sets a quota for the connections of this world, `producer_byte_rate` or `consumer_byte_rate`, in bytes
    /// per second.
    pub(crate) async fn limit(&self, what: &str, bytes_per_second: f64) {
        match self.backend() {
            Backend::Real(_) => {
                let mut body = Body::default();
                // One entry with one entity.
                body.int(1).int(1).text("client-id").text(self.client_id());
                body.int(1).text(what).bytes(&bytes_per_second.to_be_bytes()).byte(0);
                // Not `validate_only`.
                body.byte(0);
                let mut connection = self.connect().await;
                let mut response = body.send(&mut connection, ALTER_CLIENT_QUOTAS, 0).await;
                response.advance(4 + 4);
                assert_eq!(response.get_i16(), 0, "AlterClientQuotas");
            }
            Backend::Embedded(cluster) => {
                let (client, limit) = (Some(self.client_id()), Some(bytes_per_second as u64));
                match what {
                    "producer_byte_rate" => cluster.limit_produce(client, limit),
                    _ => cluster.limit_fetch(client, limit),
                }
            }
        }
    }
}

const ADD_PARTITIONS_TO_TXN: i16 = 24;
const END_TXN: i16 = 26;
const ELECT_LEADERS: i16 = 43;
const ALTER_PARTITION_REASSIGNMENTS: i16 = 45;
const ALTER_CLIENT_QUOTAS: i16 = 49;

/// The kinds of elections of ElectLeaders.
const PREFERRED: u8 = 0;
const UNCLEAN: u8 = 1;

/// The body of a request, encoded by hand.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn byte(&mut self, value: u8) -> &mut Self {
        self.0.put_u8(value);
        self
    }

    fn int(&mut self, value: i32) -> &mut Self {
        self.0.put_i32(value);
        self
    }

    fn text(&mut self, value: &str) -> &mut Self {
        self.0.put_i16(i16::try_from(value.len()).unwrap());
        self.bytes(value.as_bytes())
    }

    /// Appends a compact string of less than 127 bytes.
    fn short_text(&mut self, value: &str) -> &mut Self {
        assert!(value.len() < 127);
        self.byte(value.len() as u8 + 1).bytes(value.as_bytes())
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.0.put_slice(value);
        self
    }

    /// Sends it with a non-flexible version and returns the body of the response.
    async fn send(&self, connection: &mut Broker, api: i16, version: i16) -> Bytes {
        self.send_with(connection, api, version, &[]).await
    }

    /// Sends it with a flexible version and returns the tags of the response's header and its body.
    async fn send_flexible(&self, connection: &mut Broker, api: i16, version: i16) -> Bytes {
        self.send_with(connection, api, version, &[0]).await
    }

    async fn send_with(&self, connection: &mut Broker, api: i16, version: i16, tags: &[u8]) -> Bytes {
        let mut frame = Vec::new();
        // Key, version, correlation id, no client id.
        frame.put_i32(i32::try_from(10 + tags.len() + self.0.len()).unwrap());
        frame.put_i16(api);
        frame.put_i16(version);
        frame.put_i32(7);
        frame.put_i16(-1);
        frame.put_slice(tags);
        frame.put_slice(&self.0);
        let mut response = connection
            .exchange(&frame)
            .await
            .unwrap_or_else(|| panic!("API {api}: the broker closed the connection"));
        assert_eq!(response.get_i32(), 7);
        response
    }
}
