//! Producers of several partitions, on a topic of their own: the checker knows one producer a partition.

use std::time::Duration;

use kwal_client::{batching::producer::Router, record::Record};
use kwal_protocol::api::ApiKey;
use kwal_testkit::{Fault, FaultTarget};

use crate::fixture::Fixture;

async fn open(fixture: &Fixture) -> Router {
    fixture.cluster.create_topic("routed", 5).unwrap();
    Router::open(&fixture.client().await, "routed").await.unwrap()
}

/// Hands over a record for each partition. All but the first one are acknowledged a second later.
async fn send(fixture: &Fixture, router: &Router) {
    for partition in 1..5 {
        let appends = FaultTarget::api(ApiKey::PRODUCE).partition("routed", partition);
        fixture.cluster.on_all(appends, Fault::DelayReply(Duration::from_secs(1)));
    }
    for producer in router.producers() {
        drop(producer.reserve().await.unwrap().send(Record::new("key", "value")));
    }
}

pub(crate) async fn by_key() -> Fixture {
    let fixture = Fixture::one_broker();
    let router = open(&fixture).await;
    // As Kafka's own class returns them.
    for (key, partition) in [("account", 1), ("account-17", 4), ("größer", 2), ("21", 0)] {
        let found = router.for_key(key.as_bytes()).partition().partition();
        fixture.expect(found == partition, "a key has another partition than Java's");
    }
    fixture
}

pub(crate) async fn flushed() -> Fixture {
    let fixture = Fixture::one_broker();
    let router = open(&fixture).await;
    send(&fixture, &router).await;
    router.flush().await.unwrap();
    fixture.expect(router.stats().appended == 5, "the barrier did not wait for a partition");
    fixture
}

pub(crate) async fn closed() -> Fixture {
    let fixture = Fixture::one_broker();
    let router = open(&fixture).await;
    send(&fixture, &router).await;
    fixture.expect(router.close().await.is_empty(), "something is not on the log");
    fixture.expect(router.stats().appended == 5, "the end did not wait for a partition");
    for producer in router.producers() {
        let late = producer.produce(Record::new("key", "late")).await;
        fixture.expect(late.is_err(), "a partition is open after the end");
    }
    fixture
}
