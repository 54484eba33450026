//! What clusters rarely do: leader epochs go back, metadata has no brokers, producer ids and connections are
//! refused.

use std::time::Duration;

use bytes::Bytes;
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{
        DescribeClusterRequest, InitProducerIdRequest, MetadataRequest, MetadataResponse, MetadataTopic,
        OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic, ProduceRequest,
    },
};
use kwal_testkit::{EmbeddedCluster, EmbeddedClusterBuilder, Error, Fault, FaultTarget, check::Recorder};

use crate::client::{Client, Place, STARTED_AT, batch, fetch, outcome, produce, values};

fn three() -> EmbeddedClusterBuilder {
    EmbeddedCluster::builder().brokers(3).started_at(STARTED_AT)
}

fn one(value: &str) -> Bytes {
    batch(&[value]).to_bytes()
}

async fn metadata(cluster: &EmbeddedCluster, broker: i32, topics: Option<&[&str]>) -> MetadataResponse {
    let topic = |name: &&str| MetadataTopic { name: Some((*name).to_owned()), ..Default::default() };
    let topics = topics.map(|topics| topics.iter().map(topic).collect());
    let request = MetadataRequest { topics, ..MetadataRequest::default() };
    Client::connect_to(cluster, broker).await.call(&request, 12).await
}

async fn fetch_in_epoch(client: &mut Client, place: &Place, epoch: i32) -> ErrorCode {
    let mut request = fetch(place, 0);
    request.topics[0].partitions[0].current_leader_epoch = epoch;
    client.call(&request, 17).await.responses[0].partitions[0].error_code
}

async fn end_of_epoch(client: &mut Client, leader_epoch: i32) -> (i32, i64) {
    let partitions = vec![OffsetForLeaderPartition { leader_epoch, ..Default::default() }];
    let topics = vec![OffsetForLeaderTopic { topic: "wal".to_owned(), partitions }];
    let request = OffsetForLeaderEpochRequest { topics, ..Default::default() };
    let found = client.call(&request, 4).await.topics[0].partitions[0].clone();
    (found.leader_epoch, found.end_offset)
}

#[tokio::test(start_paused = true)]
async fn a_leader_epoch_goes_back_and_everything_else_stays() {
    let cluster = three().topic("wal", 1).journal(1000).start_in_memory().unwrap();
    let recorder = Recorder::new();
    cluster.record_losses(&recorder);
    let place = Place::of(&cluster, "wal", 0);
    for (to, value) in [(1, "a"), (2, "b"), (3, "c"), (1, "d")] {
        cluster.move_leader("wal", 0, to).unwrap();
        let mut client = Client::connect_to(&cluster, to).await;
        assert!(outcome(&client.produce(&place, one(value)).await).is_ok());
    }
    let mut before = Client::connect_to(&cluster, 1).await;
    assert_eq!(fetch_in_epoch(&mut before, &place, 3).await, ErrorCode::NONE);
    // A broker that lags behind in metadata is restarted, too.
    cluster.hold_metadata(3).unwrap();
    cluster.rewind_leader_epoch("wal", 0, 2, 1).unwrap();
    assert!(before.receive_frame().await.is_none(), "connections are closed");
    for broker in cluster.brokers() {
        let seen = metadata(&cluster, broker, None).await;
        let partition = &seen.topics[0].partitions[0];
        assert_eq!((seen.topics[0].topic_id, partition.leader_id, partition.leader_epoch), (place.id, 2, 1));
    }
    let mut old = Client::connect_to(&cluster, 1).await;
    let refused = old.produce(&place, one("x")).await;
    assert_eq!(outcome(&refused), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    assert_eq!((refused.current_leader.leader_id, refused.current_leader.leader_epoch), (2, 1));
    let mut leader = Client::connect_to(&cluster, 2).await;
    assert_eq!(fetch_in_epoch(&mut leader, &place, 3).await, ErrorCode::UNKNOWN_LEADER_EPOCH);
    assert_eq!(fetch_in_epoch(&mut leader, &place, 0).await, ErrorCode::FENCED_LEADER_EPOCH);
    assert_eq!(fetch_in_epoch(&mut leader, &place, 1).await, ErrorCode::NONE);
    assert_eq!(outcome(&leader.produce(&place, one("e")).await), Ok(4));
    assert_eq!((end_of_epoch(&mut leader, 0).await, end_of_epoch(&mut leader, 1).await), ((0, 4), (1, 5)));
    assert_eq!(end_of_epoch(&mut leader, 3).await, (-1, -1), "nobody knows it any more");
    assert_eq!(cluster.in_sync("wal", 0).unwrap(), [1, 2, 3]);
    // It goes on from there, through epochs that were used before.
    for to in [3, 1, 2] {
        cluster.move_leader("wal", 0, to).unwrap();
        let mut client = Client::connect_to(&cluster, to).await;
        assert!(outcome(&client.produce(&place, one("f")).await).is_ok());
    }
    assert_eq!(cluster.leader_epoch("wal", 0).unwrap(), 4);
    for broker in cluster.brokers() {
        let records = cluster.replica_records(broker, "wal", 0).unwrap();
        let found: Vec<_> = records.iter().map(|record| record.value.as_deref().unwrap()).collect();
        assert_eq!(found, [b"a", b"b", b"c", b"d", b"e", b"f", b"f", b"f"], "{broker}");
    }
    assert_eq!(recorder.now().to_string(), "0 rewound wal-0\n", "nothing is lost");
    let journal = cluster.journal().to_string();
    assert!(journal.contains("the metadata of wal-0 is restored from a backup"), "{journal}");
}

/// A replica that was empty copies batches of later epochs before one of an earlier epoch.
#[tokio::test(start_paused = true)]
async fn followers_replicate_epochs_that_went_back() {
    let cluster = three().topic("wal", 1).start_in_memory().unwrap();
    let place = Place::of(&cluster, "wal", 0);
    cluster.shrink_isr("wal", 0, 3).unwrap();
    for to in [2, 1, 2, 1] {
        cluster.move_leader("wal", 0, to).unwrap();
        assert!(outcome(&Client::connect_to(&cluster, to).await.produce(&place, one("a")).await).is_ok());
    }
    cluster.rewind_leader_epoch("wal", 0, 1, 0).unwrap();
    assert_eq!(cluster.leader_epoch("wal", 0).unwrap(), 0);
    let mut client = Client::connect(&cluster).await;
    assert_eq!(outcome(&client.produce(&place, one("b")).await), Ok(4));
    cluster.set_lag("wal", 0, 3, Duration::ZERO).unwrap();
    assert_eq!(cluster.in_sync("wal", 0).unwrap(), [1, 2, 3]);
    assert_eq!(cluster.replica_records(3, "wal", 0).unwrap().len(), 5);
    cluster.move_leader("wal", 0, 3).unwrap();
    let mut client = Client::connect_to(&cluster, 3).await;
    assert_eq!(outcome(&client.produce(&place, one("c")).await), Ok(5));
    assert_eq!(cluster.replica_records(1, "wal", 0).unwrap().len(), 6);
}

/// Later elections cannot find records any more that a replica had alone, so they are cut off first.
#[tokio::test(start_paused = true)]
async fn replicas_agree_before_their_epochs_are_forgotten() {
    let cluster = three().topic("wal", 1).start_in_memory().unwrap();
    let recorder = Recorder::new();
    cluster.record_losses(&recorder);
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    assert_eq!(outcome(&client.produce(&place, one("a")).await), Ok(0));
    for follower in [2, 3] {
        cluster.set_lag("wal", 0, follower, Duration::MAX).unwrap();
    }
    let alone = ProduceRequest { acks: 1, ..produce(&place, one("alone")) };
    client.call(&alone, 13).await;
    assert_eq!(values(&cluster, &place), ["a", "alone"]);
    cluster.move_leader("wal", 0, 2).unwrap();
    cluster.rewind_leader_epoch("wal", 0, 2, 0).unwrap();
    let mut client = Client::connect_to(&cluster, 2).await;
    cluster.set_lag("wal", 0, 2, Duration::ZERO).unwrap();
    cluster.set_lag("wal", 0, 3, Duration::ZERO).unwrap();
    assert_eq!(outcome(&client.produce(&place, one("b")).await), Ok(1));
    for broker in cluster.brokers() {
        let records = cluster.replica_records(broker, "wal", 0).unwrap();
        assert_eq!(records.last().unwrap().value.as_deref(), Some(&b"b"[..]), "{broker}");
    }
    let recorded = recorder.now().to_string();
    assert_eq!(recorded, "0 unreplicated wal-0 1\n0 rewound wal-0\n", "it was never committed");
}

#[tokio::test]
async fn only_a_replica_in_sync_leads_in_an_earlier_epoch() {
    let cluster = three().topic("wal", 1).start_in_memory().unwrap();
    let error = cluster.rewind_leader_epoch("wal", 0, 2, 0).unwrap_err();
    assert_eq!(error.to_string(), "leader epoch 0 is not an earlier one: the partition is in epoch 0");
    cluster.move_leader("wal", 0, 2).unwrap();
    let error = cluster.rewind_leader_epoch("wal", 0, 2, -1).unwrap_err();
    assert!(matches!(error, Error::NotEarlier { epoch: -1, current: 1 }), "{error}");
    cluster.shrink_isr("wal", 0, 3).unwrap();
    for broker in [3, 4] {
        let error = cluster.rewind_leader_epoch("wal", 0, broker, 0).unwrap_err();
        assert!(matches!(error, Error::CannotLead { .. }), "{error}");
    }
    let error = cluster.rewind_leader_epoch("lost", 0, 1, 0).unwrap_err();
    assert!(matches!(error, Error::UnknownPartition { .. }), "{error}");
    assert_eq!((cluster.leader("wal", 0).unwrap(), cluster.leader_epoch("wal", 0).unwrap()), (Some(2), 1));
}

#[tokio::test]
async fn a_broker_that_has_not_learnt_of_the_cluster_names_nobody() {
    let cluster = three().topic("wal", 1).start_in_memory().unwrap();
    cluster.on_times(FaultTarget::api(ApiKey::METADATA).broker(2), 3, Fault::NoBrokers);
    let whole = metadata(&cluster, 1, None).await;
    let empty = metadata(&cluster, 2, None).await;
    assert_eq!((empty.brokers.len(), empty.controller_id, empty.topics.len()), (0, -1, 0));
    assert_eq!((empty.error_code, &empty.cluster_id), (ErrorCode::NONE, &whole.cluster_id));
    let named = metadata(&cluster, 2, Some(&["wal"])).await;
    assert_eq!(named.topics[0].name.as_deref(), Some("wal"));
    assert_eq!(named.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let topic = MetadataTopic { topic_id: cluster.topic_id("wal").unwrap(), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
    let by_id = Client::connect_to(&cluster, 2).await.call(&request, 12).await;
    assert_eq!(by_id.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_ID);
    assert_eq!(metadata(&cluster, 2, Some(&["wal"])).await.brokers.len(), 3, "it has learnt");

    cluster.on(ApiKey::DESCRIBE_CLUSTER, Fault::NoBrokers);
    let request = DescribeClusterRequest { endpoint_type: 1, ..Default::default() };
    let described = Client::connect(&cluster).await.call(&request, 1).await;
    assert_eq!((described.brokers.len(), described.controller_id), (0, -1));
    cluster.on(ApiKey::PRODUCE, Fault::NoBrokers);
    let place = Place::of(&cluster, "wal", 0);
    assert_eq!(outcome(&Client::connect(&cluster).await.produce(&place, one("a")).await), Ok(0));
    assert_eq!((cluster.fault_counts().without_brokers, cluster.faults_left()), (4, 0));
}

#[tokio::test]
async fn refused_producer_ids_stay_refused_and_new_ones_are_accepted() {
    for code in [ErrorCode::UNKNOWN_PRODUCER_ID, ErrorCode::INVALID_PRODUCER_ID_MAPPING] {
        let cluster = three().topic("wal", 2).start_in_memory().unwrap();
        let [place, other] = [0, 1].map(|partition| Place::of(&cluster, "wal", partition));
        cluster.move_leader("wal", 1, 1).unwrap();
        let mut client = Client::connect(&cluster).await;
        let request = InitProducerIdRequest { transactional_id: None, ..InitProducerIdRequest::default() };
        let old = client.call(&request, 4).await.producer_id;
        let stamped = |id, sequence| batch(&["a"]).stamp(id, 0, sequence).to_bytes();
        assert_eq!(outcome(&client.produce(&place, stamped(old, 0)).await), Ok(0));
        cluster.refuse_producers("wal", 0, code).unwrap();
        for sequence in [0, 1, 0] {
            assert_eq!(outcome(&client.produce(&place, stamped(old, sequence)).await), Err(code));
        }
        cluster.move_leader("wal", 0, 2).unwrap();
        let mut next = Client::connect_to(&cluster, 2).await;
        assert_eq!(outcome(&next.produce(&place, stamped(old, 1)).await), Err(code), "by every leader");
        let new = client.call(&request, 4).await.producer_id;
        assert_eq!(outcome(&next.produce(&place, stamped(new, 0)).await), Ok(1));
        assert_eq!(outcome(&next.produce(&place, one("no id")).await), Ok(2));
        assert_eq!(outcome(&client.produce(&other, stamped(old, 0)).await), Ok(0), "the other partition");
        assert_eq!(cluster.fault_counts().producer_ids, 4);
    }
}

#[tokio::test]
async fn a_broker_closes_connections_beyond_its_limit() {
    let cluster = three().start_in_memory().unwrap();
    let request = MetadataRequest::default();
    let mut first = Client::connect(&cluster).await;
    first.call(&request, 12).await;
    cluster.limit_connections(1, Some(2)).unwrap();
    let mut second = Client::connect(&cluster).await;
    second.call(&request, 12).await;
    for _ in 0..3 {
        let mut refused = Client::connect(&cluster).await;
        assert!(refused.receive_frame().await.is_none(), "accepted and closed");
    }
    first.call(&request, 12).await;
    let counted = cluster.connections_to(1).unwrap();
    assert_eq!((counted.open, counted.accepted, counted.most_open, counted.refused), (2, 2, 2, 3));
    Client::connect_to(&cluster, 2).await.call(&request, 12).await;
    assert_eq!((cluster.connections().refused, cluster.fault_counts().connections), (3, 3));
    drop(second);
    while cluster.connections_to(1).unwrap().open == 2 {
        tokio::task::yield_now().await;
    }
    Client::connect(&cluster).await.call(&request, 12).await;
    // An address that accepts and closes.
    cluster.limit_connections(1, Some(0)).unwrap();
    assert!(Client::connect(&cluster).await.receive_frame().await.is_none());
    first.call(&request, 12).await;
    cluster.limit_connections(1, None).unwrap();
    Client::connect(&cluster).await.call(&request, 12).await;
    assert!(matches!(cluster.limit_connections(4, None), Err(Error::UnknownBroker { broker: 4 })));
}

#[tokio::test]
async fn the_limit_of_connections_is_a_setting_of_brokers() {
    let cluster = three().setting("max.connections.per.ip", "1").start().await.unwrap();
    let request = MetadataRequest::default();
    let mut first = Client::connect(&cluster).await;
    first.call(&request, 12).await;
    assert!(Client::connect(&cluster).await.receive_frame().await.is_none());
    Client::connect_to(&cluster, 2).await.call(&request, 12).await;
    cluster.limit_connections(1, Some(9)).unwrap();
    Client::connect(&cluster).await.call(&request, 12).await;
}
