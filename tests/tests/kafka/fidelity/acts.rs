//! What is done to brokers, where kwal-protocol has no request for it: once for real ones, once for embedded ones.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    AlterConfigsResource, AlterableConfig, DescribableLogDirTopic, DescribeLogDirsRequest,
    IncrementalAlterConfigsRequest, ProducePartitionResponse, ProduceRequest,
};
use kwal_protocol::record::EncodedBatch;
use kwal_tests::kafka::{Kafka, Node};
use tokio::time::sleep;

use super::coordinators::{init, is_passing};
use super::log::{Log, PRODUCE};
use super::tell;
use super::world::{Place, World, topic_metadata, until};
use crate::raw::Broker;

/// Brokers.
impl World {
    /// Ends a broker without a word.
    pub(crate) async fn kill(&self, node: i32) {
        match self.place() {
            Place::Real(kafka) => on(kafka, node, Node::kill).await,
            Place::Embedded(cluster) => cluster.kill(node).unwrap(),
        }
    }

    /// Shuts a broker down in good order.
    pub(crate) async fn stop(&self, node: i32) {
        match self.place() {
            Place::Real(kafka) => on(kafka, node, Node::stop).await,
            Place::Embedded(cluster) => cluster.stop(node).unwrap(),
        }
    }

    /// Starts it again.
    pub(crate) async fn start(&self, node: i32) {
        match self.place() {
            Place::Real(kafka) => on(kafka, node, Node::start).await,
            Place::Embedded(cluster) => cluster.restart(node).unwrap(),
        }
    }

    /// Lets a broker fall silent.
    pub(crate) async fn pause(&self, node: i32) {
        match self.place() {
            Place::Real(kafka) => on(kafka, node, Node::pause).await,
            Place::Embedded(cluster) => cluster.pause(node).unwrap(),
        }
    }

    /// Lets it go on.
    pub(crate) async fn resume(&self, node: i32) {
        match self.place() {
            Place::Real(kafka) => on(kafka, node, Node::resume).await,
            Place::Embedded(cluster) => cluster.resume(node).unwrap(),
        }
    }
}

/// Brings back what a scenario has left paused or down, and waits until all know of all.
pub(super) async fn restore(kafka: &'static Kafka) {
    for node in kafka.cluster().unwrap().nodes() {
        let node = Arc::clone(node);
        let restored = tokio::task::spawn_blocking(move || match node.resume() {
            Ok(()) => Ok(()),
            // It does not run.
            Err(_) => node.start(),
        });
        restored.await.unwrap().unwrap();
    }
    for address in kafka.bootstrap() {
        let mut link = Broker::connect(&address).await;
        until("all brokers are back", async || (link.brokers().await == 3).then_some(())).await;
    }
}

async fn on(kafka: &'static Kafka, node: i32, act: fn(&Node) -> Result<(), String>) {
    let node = Arc::clone(kafka.cluster().unwrap().node(u16::try_from(node).unwrap()));
    tokio::task::spawn_blocking(move || act(&node)).await.unwrap().unwrap();
}

/// Leaders.
impl World {
    /// Makes another replica the leader, one that is in sync; the log's connection goes to it.
    pub(crate) async fn elect(&self, log: &mut Log, to: i32) {
        match self.place() {
            Place::Real(_) => {
                // The controller's: the others may not know of the new order yet.
                let mut link = self.link().await;
                let mut replicas =
                    topic_metadata(&mut link, &log.topic).await.partitions[0].replica_nodes.clone();
                replicas.sort_by_key(|replica| *replica != to);
                let mut body = Body::default();
                // Time; one topic; one partition; its replicas; no tags.
                body.int(30_000).byte(2).short_text(&log.topic).byte(2).int(log.partition);
                body.byte(u8::try_from(replicas.len() + 1).unwrap());
                for replica in replicas {
                    body.int(replica);
                }
                body.bytes(&[0; 3]);
                let mut answer = body.send_flexible(&mut link, ALTER_PARTITION_REASSIGNMENTS, 0).await;
                answer.advance(1 + 4);
                assert_eq!(answer.get_i16(), 0, "AlterPartitionReassignments");
                elect_leaders(&mut link, log, PREFERRED).await;
            }
            Place::Embedded(cluster) => cluster.move_leader(&log.topic, log.partition, to).unwrap(),
        }
        self.wait_for_leader(log, to).await;
    }

    /// Makes a replica the leader that has not got all, where there is no leader; the log's connection goes to it.
    pub(crate) async fn elect_uncleanly(&self, log: &mut Log, to: i32) {
        match self.place() {
            Place::Real(_) => {
                let mut link = self.link().await;
                until("there is somebody to elect", async || {
                    elect_leaders(&mut link, log, UNCLEAN).await;
                    let found = topic_metadata(&mut link, &log.topic).await;
                    (found.partitions[0].leader_id == to).then_some(())
                })
                .await;
            }
            Place::Embedded(cluster) => cluster.elect_unclean(&log.topic, log.partition, to).unwrap(),
        }
        self.wait_for_leader(log, to).await;
    }

    /// Until a broker says itself that it leads, and answers as the leader; the log's connection goes to it.
    pub(crate) async fn wait_for_leader(&self, log: &mut Log, node: i32) {
        log.link = self.link_to(node).await;
        until("the leader leads", async || log.is_led_here().await.then_some(())).await;
    }

    /// Until these and no others are in sync, as the controller says and as the leader does.
    pub(crate) async fn wait_until_in_sync(&self, log: &Log, nodes: &[i32]) {
        let mut asked = vec![1];
        asked.extend(nodes.first());
        for node in asked {
            let mut link = self.link_to(node).await;
            until("they are in sync", async || {
                let found = topic_metadata(&mut link, &log.topic).await;
                let mut isr = found.partitions[0].isr_nodes.clone();
                isr.sort_unstable();
                let mut nodes = nodes.to_vec();
                nodes.sort_unstable();
                (isr == nodes).then_some(())
            })
            .await;
        }
    }

    /// Until a follower has fetched so many bytes of a log, committed or not.
    pub(crate) async fn wait_until_copied(&self, log: &Log, node: i32, bytes: usize) {
        match self.place() {
            Place::Real(_) => {
                let mut link = self.link_to(node).await;
                let topic =
                    DescribableLogDirTopic { topic: log.topic.clone(), partitions: vec![log.partition] };
                let request = DescribeLogDirsRequest { topics: Some(vec![topic]) };
                until("the follower has it", async || {
                    let answer = link.call(&request, 1).await;
                    let size = answer.results[0].topics.first()?.partitions[0].partition_size;
                    (size >= i64::try_from(bytes).unwrap()).then_some(())
                })
                .await;
            }
            Place::Embedded(cluster) => {
                let copied = cluster.replica_end_offset(node, &log.topic, log.partition).unwrap();
                assert_eq!(copied, cluster.end_offset(&log.topic, log.partition).unwrap());
            }
        }
    }

    /// Until a broker says that another one leads, or that nobody does (−1).
    pub(crate) async fn wait_until_told(&self, log: &Log, node: i32, leader: i32) {
        let mut link = self.link_to(node).await;
        until("the leader is told", async || {
            let found = topic_metadata(&mut link, &log.topic).await;
            (found.partitions[0].leader_id == leader).then_some(())
        })
        .await;
    }
}

async fn elect_leaders(link: &mut Broker, log: &Log, kind: u8) {
    let mut body = Body::default();
    body.byte(kind).int(1).text(&log.topic).int(1).int(log.partition).int(30_000);
    let mut answer = body.send(link, ELECT_LEADERS, 1).await;
    answer.advance(4);
    assert_eq!(answer.get_i16(), 0, "ElectLeaders");
}

/// A transaction, open or between two, of one partition.
///
/// Real brokers have it from its coordinator; into the log of embedded ones its batches and markers are put as they are.
pub(crate) struct Transaction {
    name: String,
    pub(crate) producer: (i64, i16),
    sequence: i32,
    is_open: bool,
}

impl World {
    /// The name's next holder, who has not begun a transaction yet.
    pub(crate) async fn transaction(&self, log: &mut Log, name: &str) -> Transaction {
        let producer = init(&mut log.link, name, -1, -1, 4).await;
        let producer = (producer.producer_id, producer.producer_epoch);
        Transaction { name: name.to_owned(), producer, sequence: 0, is_open: false }
    }

    /// Appends within a transaction, which it begins if there is none.
    pub(crate) async fn append_in(
        &self,
        transaction: &mut Transaction,
        log: &mut Log,
        batch: EncodedBatch,
    ) -> String {
        let (id, epoch) = transaction.producer;
        let marked = batch.stamp(id, epoch, transaction.sequence).with_transactional(true);
        let told = match self.place() {
            Place::Real(_) => {
                if !transaction.is_open {
                    transaction.take_in(log).await;
                }
                let name = Some(transaction.name.clone());
                let request = ProduceRequest { transactional_id: name, ..log.produce(marked.to_bytes(), -1) };
                log.produce_by(&request, PRODUCE).await
            }
            Place::Embedded(cluster) => {
                let base_offset = cluster.end_offset(&log.topic, log.partition).unwrap();
                cluster.append_raw(&log.topic, log.partition, marked.to_bytes()).unwrap();
                let placed =
                    ProducePartitionResponse { base_offset, log_start_offset: 0, ..Default::default() };
                tell::produced(&placed)
            }
        };
        transaction.is_open = true;
        transaction.sequence += i32::try_from(batch.record_count()).unwrap();
        told
    }

    /// Ends it, and waits for its marker.
    pub(crate) async fn end(&self, transaction: &mut Transaction, log: &mut Log, commit: bool) {
        match self.place() {
            Place::Real(_) => {
                let end = log.end().await;
                let code = transaction.end(log, commit).await;
                assert_eq!(code, ErrorCode::NONE);
                until("the marker is there", async || (log.end().await > end).then_some(())).await;
            }
            Place::Embedded(cluster) => {
                let producer = transaction.producer;
                cluster.end_transaction(&log.topic, log.partition, producer, commit).unwrap();
            }
        }
        transaction.is_open = false;
    }
}

impl World {
    /// Takes the name from who holds it; what it has begun is aborted.
    pub(crate) async fn take_over(&self, before: &Transaction, log: &mut Log) -> String {
        match self.place() {
            Place::Real(_) => {
                let end = log.end().await;
                let next = init(&mut log.link, &before.name, -1, -1, 4).await;
                until("the marker is there", async || (log.end().await > end).then_some(())).await;
                tell::producer_id(&next)
            }
            Place::Embedded(cluster) => {
                // The coordinator takes an epoch to abort with, before the next holder gets its own.
                let fence = init(&mut log.link, &before.name, -1, -1, 4).await;
                let producer = (fence.producer_id, fence.producer_epoch);
                cluster.end_transaction(&log.topic, log.partition, producer, false).unwrap();
                tell::producer_id(&init(&mut log.link, &before.name, -1, -1, 4).await)
            }
        }
    }
}

impl Transaction {
    /// AddPartitionsToTxn.
    async fn take_in(&self, log: &mut Log) {
        let mut body = Body::default();
        body.text(&self.name).bytes(&self.producer.0.to_be_bytes()).bytes(&self.producer.1.to_be_bytes());
        body.int(1).text(&log.topic).int(1).int(log.partition);
        until("the partition is in the transaction", async || {
            let mut answer = body.send(&mut log.link, ADD_PARTITIONS_TO_TXN, 0).await;
            // Throttle; one topic; its name; one partition; its number.
            answer.advance(4 + 4);
            let name = usize::try_from(answer.get_i16()).unwrap();
            answer.advance(name + 4 + 4);
            let code = ErrorCode(answer.get_i16());
            assert!(code == ErrorCode::NONE || is_passing(code), "AddPartitionsToTxn: {code}");
            (code == ErrorCode::NONE).then_some(())
        })
        .await;
    }

    /// EndTxn.
    async fn end(&self, log: &mut Log, commit: bool) -> ErrorCode {
        let mut body = Body::default();
        body.text(&self.name).bytes(&self.producer.0.to_be_bytes()).bytes(&self.producer.1.to_be_bytes());
        body.byte(u8::from(commit));
        until("the transaction ends", async || {
            let mut answer = body.send(&mut log.link, END_TXN, 0).await;
            answer.advance(4);
            let code = ErrorCode(answer.get_i16());
            (!is_passing(code)).then_some(code)
        })
        .await
    }
}

/// Time.
impl World {
    /// Lets a partition forget its producers, as it does when they are silent for `producer.id.expiration.ms`.
    pub(crate) async fn expire_producers(&self, log: &mut Log) {
        match self.place() {
            Place::Real(_) => {
                let mut link = self.link().await;
                set_for_all(&mut link, Some("200")).await;
                until("the producers are forgotten", async || {
                    (log.active_producers().await.active_producers.is_empty()).then_some(())
                })
                .await;
                set_for_all(&mut link, None).await;
            }
            Place::Embedded(_) => sleep(Duration::from_secs(2 * 86_400)).await,
        }
    }

    /// Until a partition has looked for producers to forget and has forgotten those of a log.
    pub(crate) async fn look_for_expired_producers(&self, log: &mut Log) {
        if let Place::Embedded(_) = self.place() {
            sleep(Duration::from_secs(3_600)).await;
        }
        until("the producers are forgotten", async || {
            (log.active_producers().await.active_producers.is_empty()).then_some(())
        })
        .await;
    }

    /// Waits for longer than `transactional.id.expiration.ms`.
    pub(crate) async fn expire_names(&self) {
        match self.place() {
            Place::Real(_) => sleep(Duration::from_millis(2_500)).await,
            Place::Embedded(_) => sleep(Duration::from_secs(8 * 86_400)).await,
        }
    }
}

/// `producer.id.expiration.ms` of all brokers.
async fn set_for_all(link: &mut Broker, value: Option<&str>) {
    let config = AlterableConfig {
        name: "producer.id.expiration.ms".to_owned(),
        config_operation: if value.is_some() { 0 } else { 1 },
        value: value.map(str::to_owned),
    };
    let resource =
        AlterConfigsResource { resource_type: 4, resource_name: String::new(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let answer = link.call(&request, 1).await;
    assert_eq!(answer.responses[0].error_code, ErrorCode::NONE, "{answer:?}");
}

/// Quotas.
impl World {
    /// Limits what the connections of this world produce or fetch, in bytes a second: `producer_byte_rate` or
    /// `consumer_byte_rate`.
    pub(crate) async fn limit(&self, what: &str, bytes_per_second: f64) {
        match self.place() {
            Place::Real(_) => {
                let mut body = Body::default();
                // One entry, of one entity.
                body.int(1).int(1).text("client-id").text(self.client_id());
                body.int(1).text(what).bytes(&bytes_per_second.to_be_bytes()).byte(0);
                // Not only to be validated.
                body.byte(0);
                let mut link = self.link().await;
                let mut answer = body.send(&mut link, ALTER_CLIENT_QUOTAS, 0).await;
                answer.advance(4 + 4);
                assert_eq!(answer.get_i16(), 0, "AlterClientQuotas");
            }
            Place::Embedded(cluster) => {
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

/// What kind of election ElectLeaders is to hold.
const PREFERRED: u8 = 0;
const UNCLEAN: u8 = 1;

/// The body of a request that is written here by hand.
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

    /// As a flexible version has it, if it is short.
    fn short_text(&mut self, value: &str) -> &mut Self {
        assert!(value.len() < 127);
        self.byte(value.len() as u8 + 1).bytes(value.as_bytes())
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.0.put_slice(value);
        self
    }

    /// In a version before the flexible ones; the body of the answer.
    async fn send(&self, link: &mut Broker, api: i16, version: i16) -> Bytes {
        self.send_with(link, api, version, &[]).await
    }

    /// In a flexible version; the body of the answer, and before it the tags of its header.
    async fn send_flexible(&self, link: &mut Broker, api: i16, version: i16) -> Bytes {
        self.send_with(link, api, version, &[0]).await
    }

    async fn send_with(&self, link: &mut Broker, api: i16, version: i16, tags: &[u8]) -> Bytes {
        let mut frame = Vec::new();
        // Key, version, correlation id, no client id.
        frame.put_i32(i32::try_from(10 + tags.len() + self.0.len()).unwrap());
        frame.put_i16(api);
        frame.put_i16(version);
        frame.put_i32(7);
        frame.put_i16(-1);
        frame.put_slice(tags);
        frame.put_slice(&self.0);
        let mut answer =
            link.exchange(&frame).await.unwrap_or_else(|| panic!("API {api}: the broker hung up"));
        assert_eq!(answer.get_i32(), 7);
        answer
    }
}
