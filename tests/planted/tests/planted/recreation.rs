//! A topic that is created again while batches are in flight, whose requests name it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kwal_client::error::ErrorKind;
use kwal_protocol::{
    api::ApiKey,
    messages::MetadataRequest,
    record::{BatchBuilder, Compression, Headers},
};
use kwal_testkit::{Dialect, EmbeddedCluster, wire::Decision};
use tokio::time::Instant;

use crate::{
    fixture::{Appender, Fixture, MINUTE},
    support::{HOUR, Wire, settle},
};

fn start() -> Fixture {
    Fixture::start(EmbeddedCluster::builder().brokers(3).dialect(Dialect::kafka_3_9()))
}

/// The first of several batches waits for a replica when the topic is created again. Another producer has
/// appended more to it than there was before the broker goes on with the others.
async fn recreate_in_flight(fixture: &Fixture, wal: &Appender) {
    wal.append(&["a"]).await;
    let cluster = &fixture.cluster;
    let leader = cluster.leader("wal", 0).unwrap().unwrap();
    let follower = cluster.replicas("wal", 0).unwrap().into_iter().find(|replica| *replica != leader);
    cluster.set_lag("wal", 0, follower.unwrap(), HOUR).unwrap();
    let mut appends = Vec::new();
    for value in ["b", "c", "d"] {
        appends.push(wal.submit(&[value]).await);
    }
    settle().await;
    let other = fixture.open().await;
    cluster.recreate_topic("wal").unwrap();
    let values = ["v", "w", "x", "y", "z"];
    let ticket = other.record(&values);
    let mut batch = BatchBuilder::new(Compression::None);
    for value in values {
        batch.push(0, None, Some(value.as_bytes()), &Headers::new());
    }
    cluster.append_raw("wal", 0, batch.finish().unwrap().to_bytes()).unwrap();
    ticket.acked(0);
    for append in appends {
        append.await.unwrap();
    }
}

pub(crate) async fn recreated_in_flight() -> Fixture {
    let fixture = start();
    let wal = fixture.open().await;
    recreate_in_flight(&fixture, &wal).await;
    fixture
}

/// All brokers but the leader still name the former topic for a while.
pub(crate) async fn metadata_lags() -> Fixture {
    let fixture = start();
    let wire = Wire::to(&fixture.cluster);
    let partition = wire.client().await.partition_client("wal", 0).await.unwrap();
    let (former, until) = (partition.topic_id().unwrap(), Instant::now() + Duration::from_secs(5));
    wire.edit::<MetadataRequest>(move |response| {
        for topic in response.topics.iter_mut().filter(|_| Instant::now() < until) {
            topic.topic_id = former;
        }
    });
    let wal = fixture.appender(partition, MINUTE);
    recreate_in_flight(&fixture, &wal).await;
    fixture
}

/// The acknowledgement arrives after metadata has named the new topic.
pub(crate) async fn acknowledged_late() -> Fixture {
    let fixture = start();
    let wire = Wire::to(&fixture.cluster);
    let partition = wire.client().await.partition_client("wal", 0).await.unwrap();
    let wal = fixture.appender(partition, MINUTE);
    wal.append(&["a"]).await;
    let is_held = Arc::new(AtomicBool::new(true));
    wire.on_response({
        let is_held = Arc::clone(&is_held);
        move |frame| match frame.api == ApiKey::PRODUCE && is_held.load(Ordering::Relaxed) {
            true => Decision::Hold,
            false => Decision::Pass,
        }
    });
    let append = wal.submit(&["b"]).await;
    settle().await;
    fixture.cluster.recreate_topic("wal").unwrap();
    let read = wal.partition.fetch(0).await;
    fixture.expect(read.is_err(), "the new topic was read");
    is_held.store(false, Ordering::Relaxed);
    wire.release();
    let appended = append.await.unwrap();
    fixture.expect(appended.is_none(), "an append was acknowledged that may be on the former log");
    fixture
}

/// A topic was created again, and of three brokers only that is left which has not heard of it.
pub(crate) async fn only_a_broker_that_lags_is_left() -> Fixture {
    let fixture = Fixture::brokers(3);
    let client = fixture.client().await;
    let former = fixture.open_partition(&client, 0).await;
    former.append(&["a"]).await;
    fixture.cluster.hold_metadata(3).unwrap();
    fixture.cluster.recreate_topic("wal").unwrap();
    former.append(&["b"]).await;
    let wal = fixture.open_partition(&client, 0).await;
    wal.append(&["c"]).await;
    for broker in [1, 2] {
        fixture.cluster.kill(broker).unwrap();
    }
    let error = wal.try_append(&["d"]).await.err();
    let is_taken_for_another =
        error.is_some_and(|error| matches!(error.kind(), ErrorKind::TopicRecreated { .. }));
    fixture.expect(!is_taken_for_another, "a topic is taken for the one before it");
    for broker in [1, 2] {
        fixture.cluster.restart(broker).unwrap();
    }
    fixture.cluster.release_metadata(3).unwrap();
    wal.append(&["e"]).await;
    fixture
}
