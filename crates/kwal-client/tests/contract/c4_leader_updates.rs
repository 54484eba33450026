//! C4: a broker that rejects a request may report the new leader (KIP-951). It saves a refresh, but may be
//! wrong.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kwal_client::error::ErrorKind;
use kwal_protocol::{
    api::{ApiKey, Versions},
    error_code::ErrorCode,
    messages::{FetchNodeEndpoint, FetchRequest, ProduceNodeEndpoint, ProduceRequest},
};
use kwal_testkit::{Dialect, EmbeddedCluster, Fault};
use tokio::time::sleep;

use crate::{
    c4_brokers::Three,
    support::{deadlines, record, replicate, timed},
};

/// Makes rejected appends and fetches report a leader.
fn report_leader(three: &Three, leader: i32, epoch: i32, endpoint: Option<&'static str>) {
    three.wire.edit::<ProduceRequest>(move |response| {
        let partitions = response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses);
        for partition in partitions.filter(|partition| partition.error_code.is_error()) {
            (partition.current_leader.leader_id, partition.current_leader.leader_epoch) = (leader, epoch);
        }
        response.node_endpoints = endpoint
            .map(|host| ProduceNodeEndpoint {
                node_id: leader,
                host: host.to_owned(),
                port: 9092,
                rack: None,
            })
            .into_iter()
            .collect();
    });
    three.wire.edit::<FetchRequest>(move |response| {
        let partitions = response.responses.iter_mut().flat_map(|topic| &mut topic.partitions);
        for partition in partitions.filter(|partition| partition.error_code.is_error()) {
            (partition.current_leader.leader_id, partition.current_leader.leader_epoch) = (leader, epoch);
        }
        response.node_endpoints = endpoint
            .map(|host| FetchNodeEndpoint { node_id: leader, host: host.to_owned(), port: 9092, rack: None })
            .into_iter()
            .collect();
    });
}

#[tokio::test(start_paused = true)]
async fn a_reported_leader_is_used_at_once() {
    for code in [ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::FENCED_LEADER_EPOCH] {
        let three = Three::start(3);
        three.set_brokers(&[(1, "one")]);
        let client = three.client().await;
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        partition.fetch(0).await.unwrap();
        report_leader(&three, 2, 2, Some("two"));
        while three.brokers[1].leader_epoch("wal", 0).unwrap() < 2 {
            three.brokers[1].stop(1).unwrap();
            three.brokers[1].restart(1).unwrap();
        }
        replicate(&three.brokers[0], &three.brokers[1], 0);
        let metadata_requests = three.metadata_requests();
        three.brokers[0].on(ApiKey::PRODUCE, Fault::Error(code));
        let (produced, took) = timed(partition.produce(record("b"))).await;
        assert_eq!((produced.unwrap().attempts, took), (2, Duration::ZERO));
        assert_eq!(three.brokers[1].end_offset("wal", 0).unwrap(), 2);
        assert_eq!(three.brokers[1].requests(ApiKey::FETCH), 1, "it looks up the last acknowledged batch");
        // Reads use it too.
        assert_eq!(partition.fetch(0).await.unwrap().next_offset, 2);
        assert_eq!(three.brokers[1].requests(ApiKey::FETCH), 2);
        assert_eq!(three.metadata_requests(), metadata_requests, "metadata is not refreshed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reported_leader_that_is_old_or_unknown_is_ignored() {
    for (leader, epoch, endpoint) in
        [(2, 1, Some("two")), (2, 0, Some("two")), (-1, -1, None), (-1, 9, None), (9, 9, None)]
    {
        let three = Three::start(3);
        three.set_epoch(1);
        let client = three.client().await;
        let partition = client.partition_client("wal", 0).await.unwrap();
        report_leader(&three, leader, epoch, endpoint);
        three.brokers[0].on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        let metadata_requests = three.metadata_requests();
        let (produced, took) = timed(partition.produce(record("a"))).await;
        assert_eq!(produced.unwrap().attempts, 2);
        assert!(!took.is_zero(), "there was a pause");
        assert_eq!(three.metadata_requests(), metadata_requests + 1);
        assert_eq!(three.brokers[0].end_offset("wal", 0).unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn brokers_that_report_each_other_as_leader_are_retried_with_pauses() {
    let three = Three::start(1);
    let client = three.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    let epoch = Arc::new(Mutex::new(1));
    three.wire.edit::<ProduceRequest>(move |response| {
        let mut epoch = epoch.lock().unwrap();
        *epoch += 1;
        let partitions = response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses);
        for partition in partitions.filter(|partition| partition.error_code.is_error()) {
            let leader = &mut partition.current_leader;
            (leader.leader_id, leader.leader_epoch) = (*epoch % 3 + 1, *epoch);
        }
    });
    for broker in &three.brokers {
        broker.on_all(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    }
    let (result, took) = timed(partition.produce(record("a"))).await;
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
    assert!(took <= deadlines().operation);
    let sent = three.wire.count(ApiKey::PRODUCE);
    // Two for each pause, which soon takes at least half a second.
    assert!(sent <= 2 * 130, "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_reported_leader_that_is_dead_is_looked_up_again() {
    let three = Three::start(1);
    three.set_epoch(1);
    let client = three.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    report_leader(&three, 2, 2, None);
    three.brokers[1].stop(1).unwrap();
    three.brokers[0].on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    let append = tokio::spawn({
        let partition = partition.clone();
        async move { timed(partition.produce(record("a"))).await }
    });
    sleep(Duration::from_secs(3)).await;
    assert!(!append.is_finished(), "metadata with an older epoch is ignored");
    three.lead(|_| 3);
    three.set_epoch(3);
    let (produced, took) = append.await.unwrap();
    produced.unwrap();
    assert!(took <= Duration::from_secs(4), "{took:?}");
    assert_eq!(three.brokers[2].end_offset("wal", 0).unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn versions_without_a_reported_leader_refresh_metadata() {
    let old = EmbeddedCluster::builder()
        .dialect(Dialect::kafka_2_8())
        .cap(ApiKey::PRODUCE, Versions::new(0, 9))
        .cap(ApiKey::FETCH, Versions::new(0, 11));
    let three = Three::start_as(&old, 1);
    let client = three.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    three.lead(|_| 2);
    three.brokers[0].on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    assert_eq!(partition.produce(record("a")).await.unwrap().attempts, 2);
    assert_eq!(three.brokers[1].end_offset("wal", 0).unwrap(), 1);
}
