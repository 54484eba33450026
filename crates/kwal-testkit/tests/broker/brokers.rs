//! Several brokers: leaders, metadata, and what a test can do to them.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{
        CreatableTopic, CreateTopicsRequest, FetchRequest, ListOffsetsPartition, ListOffsetsRequest,
        ListOffsetsTopic, MetadataRequest, MetadataResponse, ProduceRequest,
    },
};
use kwal_testkit::{Connections, Dialect, EmbeddedCluster, Error};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, Place, STARTED_AT, batch, fetch, outcome, produce, values};

fn three() -> EmbeddedCluster {
    let builder = EmbeddedCluster::builder().brokers(3).topic("wal", 3).started_at(STARTED_AT);
    builder.start_in_memory().unwrap()
}

fn one(value: &str) -> Bytes {
    batch(&[value]).to_bytes()
}

async fn metadata(cluster: &EmbeddedCluster, broker: i32) -> MetadataResponse {
    let all = MetadataRequest { topics: None, ..MetadataRequest::default() };
    Client::connect_to(cluster, broker).await.call(&all, 11).await
}

/// Leader and leader epoch of each partition, in the metadata of a broker.
fn leaders(metadata: &MetadataResponse) -> Vec<(i32, i32)> {
    metadata.topics[0].partitions.iter().map(|found| (found.leader_id, found.leader_epoch)).collect()
}

#[tokio::test]
async fn every_broker_knows_all_brokers_and_leads_its_share() {
    let builder = || EmbeddedCluster::builder().brokers(3).topic("wal", 3);
    for cluster in [builder().start().await.unwrap(), builder().start_in_memory().unwrap()] {
        assert_eq!(cluster.bootstrap().len(), 3);
        for broker in cluster.brokers() {
            let seen = metadata(&cluster, broker).await;
            let at = |id| cluster.address(id).unwrap();
            let brokers: Vec<_> = seen.brokers.iter().map(|b| (b.node_id, b.host.clone(), b.port)).collect();
            let expected: Vec<_> = (1..4).map(|id| (id, at(id).host, i32::from(at(id).port))).collect();
            assert_eq!(brokers, expected);
            assert_eq!(leaders(&seen), [(1, 0), (2, 0), (3, 0)]);
            assert_eq!(seen.topics[0].partitions[1].replica_nodes, [2, 3, 1]);
        }
        for partition in 0..3 {
            let place = Place::of(&cluster, "wal", partition);
            for broker in cluster.brokers() {
                let mut client = Client::connect_to(&cluster, broker).await;
                let expected = match cluster.leader("wal", partition).unwrap() == Some(broker) {
                    true => Ok(0),
                    false => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
                };
                assert_eq!(outcome(&client.produce(&place, one("a")).await), expected);
            }
        }
        assert_eq!(cluster.requests(ApiKey::PRODUCE), 9);
        assert_eq!(cluster.requests_to(2, ApiKey::PRODUCE).unwrap(), 3);
    }
    let names: Vec<_> = builder().start_in_memory().unwrap().bootstrap();
    assert_eq!(names, ["broker-1:9092", "broker-2:9092", "broker-3:9092"]);
}

#[tokio::test]
async fn replicas_are_assigned_as_requested() {
    let builder = EmbeddedCluster::builder().brokers(4).topic_assigned("wal", &[&[4, 2], &[3, 1]]);
    let cluster =
        builder.topic("usual", 1).setting("default.replication.factor", "2").start_in_memory().unwrap();
    assert_eq!(
        (cluster.leader("wal", 0).unwrap(), cluster.replicas("wal", 1).unwrap()),
        (Some(4), vec![3, 1])
    );
    assert_eq!(cluster.replicas("usual", 0).unwrap(), [1, 2]);
    cluster.create_topic_assigned("more", &[&[2]]).unwrap();
    assert_eq!(cluster.in_sync("more", 0).unwrap(), [2]);
    let error = cluster.create_topic_assigned("nowhere", &[&[5]]).unwrap_err();
    assert!(
        matches!(error, Error::CreateTopic { code: ErrorCode::INVALID_REPLICA_ASSIGNMENT, .. }),
        "{error}"
    );
}

/// A broker that is not the leader names the leader and its address (KIP-951).
#[tokio::test]
async fn a_broker_that_is_not_the_leader_names_the_leader() {
    let cluster = three();
    cluster.create_topic_assigned("narrow", &[&[2, 3]]).unwrap();
    cluster.move_leader("narrow", 0, 3).unwrap();
    let place = Place::of(&cluster, "narrow", 0);
    let mut client = Client::connect_to(&cluster, 1).await;
    let at = cluster.address(3).unwrap();
    for (version, named) in [(9, false), (10, true), (13, true)] {
        let answer = client.call(&produce(&place, one("a")), version).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(outcome(partition), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        let leader = (partition.current_leader.leader_id, partition.current_leader.leader_epoch);
        assert_eq!(leader, if named { (3, 1) } else { (-1, -1) }, "Produce {version}");
        let nodes: Vec<_> =
            answer.node_endpoints.iter().map(|n| (n.node_id, n.host.clone(), n.port)).collect();
        let expected = vec![(3, at.host.clone(), i32::from(at.port))];
        assert_eq!(nodes, if named { expected } else { vec![] }, "Produce {version}");
    }
    for (version, named) in [(12, false), (15, false), (16, true), (18, true)] {
        let answer = client.call(&fetch(&place, 0), version).await;
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER);
        let leader = (partition.current_leader.leader_id, partition.current_leader.leader_epoch);
        assert_eq!(leader, if named { (3, 1) } else { (-1, -1) }, "Fetch {version}");
        assert_eq!(answer.node_endpoints.len(), usize::from(named), "Fetch {version}");
    }
}

#[tokio::test]
async fn old_and_future_epochs_are_rejected() {
    let cluster = three();
    cluster.move_leader("wal", 0, 2).unwrap();
    cluster.move_leader("wal", 0, 2).unwrap();
    assert_eq!(cluster.leader_epoch("wal", 0).unwrap(), 1, "it led already");
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect_to(&cluster, 2).await;
    let codes = [
        (-1, ErrorCode::NONE),
        (0, ErrorCode::FENCED_LEADER_EPOCH),
        (1, ErrorCode::NONE),
        (2, ErrorCode::UNKNOWN_LEADER_EPOCH),
    ];
    for (epoch, expected) in codes {
        let mut request = fetch(&place, 0);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let answer = client.call(&request, 18).await;
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, expected, "Fetch with epoch {epoch}");
        assert_eq!(partition.current_leader.leader_id, if epoch == 0 { 2 } else { -1 });

        let partition =
            ListOffsetsPartition { current_leader_epoch: epoch, timestamp: -1, ..Default::default() };
        let topics = vec![ListOffsetsTopic { name: "wal".to_owned(), partitions: vec![partition] }];
        let answer = client.call(&ListOffsetsRequest { topics, ..Default::default() }, 9).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, expected, "ListOffsets with epoch {epoch}");
    }
}

#[tokio::test]
async fn a_stopped_broker_hands_over_its_partitions_and_returns_in_sync() {
    let cluster = three();
    let place = Place::of(&cluster, "wal", 0);
    let mut old = Client::connect_to(&cluster, 1).await;
    assert_eq!(outcome(&old.produce(&place, one("a")).await), Ok(0));
    cluster.stop(1).unwrap();
    assert!(old.receive_frame().await.is_none());
    let refused = cluster.connector().connect(&cluster.address(1).unwrap()).await.unwrap_err();
    assert!(refused.is_refused(), "{refused}");

    let seen = metadata(&cluster, 2).await;
    assert_eq!(seen.brokers.iter().map(|broker| broker.node_id).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((leaders(&seen), seen.controller_id), (vec![(2, 1), (2, 0), (3, 0)], 2));
    let partition = &seen.topics[0].partitions[0];
    assert_eq!((&partition.isr_nodes[..], &partition.offline_replicas[..]), (&[2, 3][..], &[1][..]));
    let mut new = Client::connect_to(&cluster, 2).await;
    assert_eq!(outcome(&new.produce(&place, one("b")).await), Ok(1));

    cluster.restart(1).unwrap();
    assert_eq!(cluster.in_sync("wal", 0).unwrap(), [1, 2, 3]);
    assert_eq!(cluster.leader("wal", 0).unwrap(), Some(2), "leaders do not move back by themselves");
    cluster.move_leader("wal", 0, 1).unwrap();
    let mut again = Client::connect_to(&cluster, 1).await;
    assert_eq!(outcome(&again.produce(&place, one("c")).await), Ok(2));
    assert_eq!(values(&cluster, &place), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_replaced_when_its_session_times_out() {
    let cluster = three();
    cluster.kill(1).unwrap();
    assert_eq!(leaders(&metadata(&cluster, 2).await)[0], (1, 0), "no broker knows yet");
    sleep(Duration::from_millis(8_999)).await;
    assert_eq!(cluster.leader("wal", 0).unwrap(), Some(1));
    sleep(Duration::from_millis(2)).await;
    assert_eq!(leaders(&metadata(&cluster, 2).await)[0], (2, 1));
    // If the clock goes back, nothing happens at all.
    cluster.kill(3).unwrap();
    sleep(Duration::from_secs(5)).await;
    cluster.restart(3).unwrap();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(leaders(&metadata(&cluster, 2).await)[2], (3, 0));
    // The last replica in sync stays in the ISR until it is back.
    for broker in [2, 3] {
        cluster.kill(broker).unwrap();
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!((cluster.leader("wal", 0).unwrap(), cluster.in_sync("wal", 0).unwrap()), (None, vec![3]));
    cluster.restart(1).unwrap();
    let seen = metadata(&cluster, 1).await;
    assert_eq!(seen.topics[0].partitions[0].error_code, ErrorCode::LEADER_NOT_AVAILABLE);
    cluster.restart(3).unwrap();
    assert_eq!(cluster.leader("wal", 0).unwrap(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_paused_broker_keeps_its_connections_and_does_not_answer() {
    let cluster = three();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect_to(&cluster, 1).await;
    cluster.pause(1).unwrap();
    client.send(&produce(&place, one("a")), 13).await;
    let mut other = Client::connect_to(&cluster, 1).await;
    other.send(&fetch(&place, 0), 18).await;
    assert!(timeout(Duration::from_secs(8), client.receive_frame()).await.is_err());
    assert_eq!((cluster.end_offset("wal", 0).unwrap(), cluster.leader("wal", 0).unwrap()), (0, Some(1)));
    cluster.resume(1).unwrap();
    let (_, answer) = client.receive::<ProduceRequest>(13).await.unwrap();
    assert_eq!(outcome(&answer.responses[0].partition_responses[0]), Ok(0));
    assert!(other.receive::<FetchRequest>(18).await.is_some());

    cluster.pause(1).unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(cluster.leader("wal", 0).unwrap(), Some(2), "given up");
    cluster.resume(1).unwrap();
    assert_eq!(cluster.in_sync("wal", 0).unwrap(), [1, 2, 3]);
    let answer = client.produce(&place, one("b")).await;
    assert_eq!(outcome(&answer), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_fetch_ends_with_an_election() {
    let cluster = three();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect_to(&cluster, 1).await;
    let begun = Instant::now();
    let mut request = FetchRequest { max_wait_ms: 60_000, ..fetch(&place, 0) };
    request.topics[0].partitions[0].current_leader_epoch = 0;
    client.send(&request, 18).await;
    sleep(Duration::from_secs(1)).await;
    cluster.move_leader("wal", 0, 2).unwrap();
    let (_, answer) = client.receive::<FetchRequest>(18).await.unwrap();
    assert_eq!(answer.responses[0].partitions[0].error_code, ErrorCode::FENCED_LEADER_EPOCH);
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test]
async fn brokers_come_and_go() {
    for cluster in [three(), EmbeddedCluster::builder().brokers(3).topic("wal", 3).start().await.unwrap()] {
        assert_eq!(cluster.add_broker().unwrap(), 4);
        cluster.create_topic_assigned("new", &[&[4, 1]]).unwrap();
        let place = Place::of(&cluster, "new", 0);
        let mut client = Client::connect_to(&cluster, 4).await;
        assert_eq!(outcome(&client.produce(&place, one("a")).await), Ok(0));

        cluster.remove_broker(4).unwrap();
        assert!(client.receive_frame().await.is_none());
        assert_eq!(cluster.leader("new", 0).unwrap(), Some(1));
        let seen = metadata(&cluster, 1).await;
        assert_eq!(seen.brokers.iter().map(|broker| broker.node_id).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(matches!(cluster.restart(4), Err(Error::UnknownBroker { broker: 4 })));
        assert_eq!(cluster.add_broker().unwrap(), 5, "a number is not used again");
        assert_eq!(cluster.brokers(), [1, 2, 3, 5]);
    }
}

#[tokio::test]
async fn a_broker_without_updates_returns_stale_metadata() {
    let cluster = three();
    cluster.hold_metadata(3).unwrap();
    cluster.move_leader("wal", 0, 2).unwrap();
    cluster.create_topic("young", 1).unwrap();
    cluster.add_broker().unwrap();
    let (fresh, stale) = (metadata(&cluster, 1).await, metadata(&cluster, 3).await);
    let seen = |metadata: &MetadataResponse| {
        let topic = metadata.topics.iter().find(|topic| topic.name.as_deref() == Some("wal")).unwrap();
        (metadata.brokers.len(), metadata.topics.len(), topic.partitions[0].leader_id)
    };
    assert_eq!((seen(&fresh), seen(&stale)), ((4, 2, 2), (3, 1, 1)));
    cluster.release_metadata(3).unwrap();
    assert_eq!(metadata(&cluster, 3).await, fresh);
}

/// With ZooKeeper, brokers do not forward requests for the controller.
#[tokio::test]
async fn only_the_controller_creates_topics_in_kafka_2_8() {
    let old =
        || EmbeddedCluster::builder().brokers(2).dialect(Dialect::kafka_2_8()).start_in_memory().unwrap();
    let new = || EmbeddedCluster::builder().brokers(2).start_in_memory().unwrap();
    for (cluster, elsewhere) in [(old(), ErrorCode::NOT_CONTROLLER), (new(), ErrorCode::NONE)] {
        cluster.move_controller(2).unwrap();
        assert_eq!(metadata(&cluster, 1).await.controller_id, 2);
        for (broker, name, expected) in [(1, "a", elsewhere), (2, "b", ErrorCode::NONE)] {
            let topic = CreatableTopic {
                name: name.to_owned(),
                num_partitions: 1,
                replication_factor: 1,
                ..CreatableTopic::default()
            };
            let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
            let answer = Client::connect_to(&cluster, broker).await.call(&request, 5).await;
            assert_eq!(answer.topics[0].error_code, expected);
        }
        cluster.stop(2).unwrap();
        assert_eq!(cluster.controller(), Some(1));
    }
}

#[tokio::test]
async fn connections_are_counted_by_broker_and_together() {
    let cluster = three();
    let mut clients = BTreeMap::new();
    for (broker, count) in [(1, 3), (2, 1)] {
        for _ in 0..count {
            let mut client = Client::connect_to(&cluster, broker).await;
            client.call(&MetadataRequest::default(), 12).await;
            clients.entry(broker).or_insert_with(Vec::new).push(client);
        }
    }
    let counted = |open, accepted, most_open| Connections { open, accepted, most_open, refused: 0 };
    assert_eq!(cluster.connections_to(1).unwrap(), counted(3, 3, 3));
    assert_eq!(cluster.connections(), counted(4, 4, 4));
    cluster.disconnect(1).unwrap();
    assert_eq!(cluster.connections_to(1).unwrap(), counted(0, 3, 3));
    for mut client in clients.remove(&1).unwrap() {
        assert!(client.receive_frame().await.is_none());
    }
    let mut again = Client::connect_to(&cluster, 1).await;
    again.call(&MetadataRequest::default(), 12).await;
    assert_eq!(cluster.connections_to(1).unwrap(), counted(1, 4, 3));
    assert_eq!(cluster.connections_to(2).unwrap(), counted(1, 1, 1));
    assert_eq!(cluster.connections(), counted(2, 5, 4));
    assert_eq!(cluster.connections_to(3).unwrap(), Connections::default());
}

#[tokio::test]
async fn missing_brokers_and_partitions_are_errors() {
    let cluster = three();
    for error in [
        cluster.kill(4).unwrap_err(),
        cluster.pause(4).unwrap_err(),
        cluster.restart(4).unwrap_err(),
        cluster.address(4).unwrap_err(),
        cluster.requests_to(4, ApiKey::FETCH).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "broker 4 does not exist");
    }
    let error = cluster.move_leader("wal", 0, 4).unwrap_err();
    assert_eq!(error.to_string(), "broker 4 cannot lead: it is not alive or not in sync");
    assert!(matches!(cluster.leader("wal", 7), Err(Error::UnknownPartition { .. })));
    assert!(matches!(cluster.move_leader("lost", 0, 1), Err(Error::UnknownPartition { .. })));
}
