//! Metadata that is wrong.

use std::time::Duration;

use kwal_protocol::{
    api::ApiKey,
    messages::{MetadataRequest, MetadataResponse},
};
use kwal_testkit::wire::Wire;

use crate::{
    fixture::{Appender, Fixture},
    support::settle,
};

/// Opens partition 0 over a wire that changes metadata.
async fn open(
    fixture: &Fixture,
    edit: impl FnMut(&mut MetadataResponse) + Send + 'static,
) -> (Wire, kwal_client::Client, Appender) {
    let wire = Wire::new(fixture.cluster.connector());
    wire.rewrite::<MetadataRequest>(edit);
    let client = fixture.builder().connector(wire.clone()).build().await.unwrap();
    let wal = fixture.open_partition(&client, 0).await;
    (wire, client, wal)
}

/// Metadata is restored from a backup, and the leader moves.
pub(crate) async fn older_epoch_restored() -> Fixture {
    let fixture = Fixture::brokers(3);
    let (wire, _client, wal) = open(&fixture, |response| {
        let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        partitions.for_each(|partition| partition.leader_epoch += 100);
    })
    .await;
    wal.append(&["a"]).await;
    wire.clear_rewrites();
    let leader = fixture.cluster.leader("wal", 0).unwrap();
    let others = fixture.cluster.in_sync("wal", 0).unwrap();
    let to = others.into_iter().find(|id| Some(*id) != leader).unwrap();
    fixture.cluster.move_leader("wal", 0, to).unwrap();
    fixture.expect(wal.append(&["b"]).await.is_some(), "an append does not find the new leader");
    fixture
}

/// A broker does not list the leader, once, while that one works on a fetch.
pub(crate) async fn leader_not_listed_once() -> Fixture {
    let fixture = Fixture::brokers(3);
    let (wire, client, wal) = open(&fixture, |_| {}).await;
    let leader = fixture.cluster.leader("wal", 0).unwrap();
    let fetch = tokio::spawn({
        let partition = wal.partition.clone();
        async move { partition.fetch(0).max_wait(Duration::from_secs(5)).await }
    });
    settle().await;
    let mut times = 1;
    wire.rewrite::<MetadataRequest>(move |response| {
        if times > 0 {
            times -= 1;
            response.brokers.retain(|broker| Some(broker.node_id) != leader);
        }
    });
    fixture.cluster.create_topic("other", 1).unwrap();
    client.partition_client("other", 0).await.unwrap();
    fetch.await.unwrap().unwrap();
    fixture.expect(fixture.cluster.requests(ApiKey::FETCH) == 1, "the fetch was sent again");
    fixture
}
