//! Names that the coordinator forgets (`transactional.id.expiration.ms`), and fences that partitions forget
//! (`producer.id.expiration.ms`).

use std::sync::Arc;
use std::time::Duration;

use kwal_client::Client;
use kwal_client::OffsetAt;
use kwal_tests::holder::{Command, Event, Job};
use kwal_tests::kafka::{ClusterConfig, Kafka, Node, Version};

use super::judge::{judge, open};
use super::processes::{
    CALLERS, acked, held, holds, is_fenced, job, open as open_appends, rest, rest_of_reports, start,
    start_with, stop_amid_appends,
};
use super::{connect, transactional_id};
use crate::fidelity::actions::set_producer_id_expiration;
use crate::fidelity::coordinators::init;
use crate::fidelity::world::until;
use crate::raw::Broker;

kwal_tests::suite! {
    own: [names_expire],
}

async fn names_expire(version: Version) {
    let properties = [
        ("transactional.id.expiration.ms", "4000"),
        ("transaction.remove.expired.transaction.cleanup.interval.ms", "200"),
        ("producer.id.expiration.check.interval.ms", "200"),
    ];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let kafka = Kafka::start(version, &ClusterConfig { properties, ..ClusterConfig::default() });
    let client = connect(&kafka).await;
    let (forgotten, renewed) = (kafka.topic("forgotten", 1, &[]).await, kafka.topic("renewed", 1, &[]).await);
    tokio::join!(a_new_producer_id(&kafka, &client, &forgotten), a_renewed_name(&kafka, &client, &renewed));
    a_forgotten_fence(&kafka).await;
}

/// The next holder has another producer id, and fences the one before.
async fn a_new_producer_id(kafka: &Kafka, client: &Client, topic: &str) {
    let mut a = start(kafka, topic, "a").await;
    stop_amid_appends(&mut a).await;
    is_forgotten(client, &transactional_id(topic), 1).await;
    let mut b = start(kafka, topic, "b").await;
    holds(&mut b).await;
    acked(&mut b, 20).await;
    a.resume();
    is_fenced(&mut a).await;
    // Appends do not count as a use of the name.
    is_forgotten(client, &transactional_id(topic), 2).await;
    let mut c = start(kafka, topic, "c").await;
    holds(&mut c).await;
    is_fenced(&mut b).await;
    acked(&mut c, 20).await;
    rest(&mut c).await;

    let stored = judge(kafka, 1, topic, &[&a, &b, &c]).await;
    for (before, next) in [(&a, &b), (&b, &c)] {
        let (before, next) = (held(before), held(next));
        assert_ne!(before.producer_id, next.producer_id);
        let is_fence = |offset: i64| {
            (stored[&offset].producer_id, stored[&offset].epoch) == (before.producer_id, i16::MAX)
        };
        assert!((before.barrier..next.barrier).any(is_fence), "{before:?} is not fenced by {next:?}");
    }
}

/// A holder that renews in time keeps its name, although it appends nothing.
async fn a_renewed_name(kafka: &Kafka, client: &Client, topic: &str) {
    let renewal = Some(RENEWAL);
    let mut a = start_with(Job { appends: false, renewal, ..job(kafka, topic, "a") }).await;
    let first = holds(&mut a).await;
    // A name that nobody uses, from later on, is forgotten twice.
    let mut connection = Broker::connect(&kafka.bootstrap()[0]).await;
    for times in 1..=2 {
        init(&mut connection, "unused", -1, -1, 4).await;
        is_forgotten(client, "unused", times).await;
    }
    assert_eq!(forgotten(client, &transactional_id(topic)).await, 0);
    let mut b = start(kafka, topic, "b").await;
    let second = holds(&mut b).await;
    assert_eq!(second.producer_id, first.producer_id);
    assert!(second.epoch > first.epoch + 2, "{first:?} {second:?}");
    // By its renewal.
    a.until(|event| matches!(event, Event::Fenced(_)).then_some(())).await;
    acked(&mut b, 20).await;
    rest(&mut b).await;
    judge(kafka, 1, topic, &[&a, &b]).await;
}

/// The broker ends with appends of a holder unanswered, and the partition forgets the takeover before the
/// holder goes on. To append them again would succeed.
async fn a_forgotten_fence(kafka: &Kafka) {
    let topic = kafka.topic("fence-forgotten", 1, &[]).await;
    let renewal = Some(RENEWAL);
    let mut a = start_with(Job { callers: CALLERS, renewal, ..job(kafka, &topic, "a") }).await;
    acked(&mut a, 20).await;
    on_broker(kafka, Node::pause).await;
    rest_of_reports(&mut a).await;
    assert_eq!(open_appends(&a), CALLERS as usize);
    a.pause();
    on_broker(kafka, Node::restart).await;
    let mut b = start(kafka, &topic, "b").await;
    acked(&mut b, 20).await;
    rest(&mut b).await;
    let mut log = open(kafka, &topic).await;
    set_producer_id_expiration(&mut log.connection, Some("200")).await;
    until("the producers have expired", async || {
        log.active_producers().await.active_producers.is_empty().then_some(())
    })
    .await;
    a.resume();
    is_fenced(&mut a).await;
    set_producer_id_expiration(&mut log.connection, None).await;
    b.tell(Command::Append).await;
    acked(&mut b, 20).await;
    rest(&mut b).await;
    judge(kafka, 1, &topic, &[&a, &b]).await;
}

async fn on_broker(kafka: &Kafka, action: fn(&Node) -> Result<(), String>) {
    let node = Arc::clone(kafka.cluster().unwrap().node(1));
    tokio::task::spawn_blocking(move || action(&node)).await.unwrap().unwrap();
}

/// How often a holder renews its name in these tests: the least.
const RENEWAL: Duration = Duration::from_secs(1);

/// Waits until the coordinator has forgotten a name so many times.
async fn is_forgotten(client: &Client, transactional_id: &str, times: usize) {
    while forgotten(client, transactional_id).await < times {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns how often the coordinator has forgotten a name: the tombstones in its log.
async fn forgotten(client: &Client, transactional_id: &str) -> usize {
    let log = client.partition_client("__transaction_state", 0).await.unwrap();
    let end = log.get_offset(OffsetAt::Latest).await.unwrap();
    let mut next = log.get_offset(OffsetAt::Earliest).await.unwrap();
    let mut tombstones = 0;
    while next < end {
        let fetched = log.fetch(next).await.unwrap();
        for record in fetched.records() {
            let record = record.unwrap();
            // The version and the length come before it.
            let is_name = record.key.is_some_and(|key| key.ends_with(transactional_id.as_bytes()));
            tombstones += usize::from(is_name && record.value.is_none());
        }
        next = fetched.next_offset;
    }
    tombstones
}
