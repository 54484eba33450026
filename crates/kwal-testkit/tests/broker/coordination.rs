//! Transactional ids, transactions written by tests, quotas, and compaction.

use std::time::Duration;

use bytes::Bytes;
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{
        DescribeProducersRequest, DescribeProducersTopic, FetchPartitionResponse, FetchRequest,
        FindCoordinatorRequest, InitProducerIdRequest, IsolationLevel, ListOffsetsPartition,
        ListOffsetsRequest, ListOffsetsTopic, ProduceRequest,
    },
    record::{Batches, CommittedBatches},
};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::time::{Instant, sleep};

use crate::client::{
    CODEC, Client, Place, STARTED_AT, batch, compressed, fetch, in_memory, outcome, produce, values,
};

/// Requests producer id and epoch for a transactional id; `held` are those to renew.
async fn init(
    client: &mut Client,
    name: &str,
    held: (i64, i16),
    version: i16,
) -> Result<(i64, i16), ErrorCode> {
    let request = InitProducerIdRequest {
        transactional_id: Some(name.to_owned()),
        transaction_timeout_ms: 60_000,
        producer_id: held.0,
        producer_epoch: held.1,
        ..InitProducerIdRequest::default()
    };
    let answer = client.call(&request, version).await;
    answer.error_code.ok().map(|()| (answer.producer_id, answer.producer_epoch))
}

const NOTHING: (i64, i16) = (-1, -1);

#[tokio::test]
async fn a_transactional_id_has_one_producer_id_and_each_call_bumps_the_epoch() {
    let cluster = in_memory();
    let mut client = Client::connect(&cluster).await;
    assert_eq!(cluster.coordinator("a"), Some(1));
    let fenced = Err(ErrorCode::PRODUCER_FENCED);
    let (id, epoch) = init(&mut client, "a", NOTHING, 4).await.unwrap();
    assert_eq!(epoch, 0);
    assert_eq!(init(&mut client, "a", NOTHING, 4).await, Ok((id, 1)));
    assert_eq!(init(&mut client, "a", (id, 1), 4).await, Ok((id, 2)), "renewed by its holder");
    assert_eq!(init(&mut client, "a", (id, 1), 4).await, Ok((id, 2)), "the answer was lost");
    assert_eq!(init(&mut client, "a", (id, 0), 4).await, fenced);
    assert_eq!(init(&mut client, "a", (id, 0), 3).await, Err(ErrorCode::INVALID_PRODUCER_EPOCH));
    assert_eq!(init(&mut client, "a", (id, 9), 4).await, fenced);
    assert_eq!(init(&mut client, "a", (id + 50, 2), 4).await, fenced);
    assert_eq!(init(&mut client, "a", NOTHING, 2).await, Ok((id, 3)), "another client");
    assert_eq!(init(&mut client, "a", (id, 2), 4).await, fenced, "the holder before");
    let (other, epoch) = init(&mut client, "b", (id, 3), 4).await.unwrap();
    assert!(other != id && epoch == 0, "another name has another id");
}

#[tokio::test]
async fn exhausted_epochs_get_another_producer_id() {
    let cluster = in_memory();
    let mut client = Client::connect(&cluster).await;
    assert_eq!(cluster.coordinator("a"), Some(1));
    let (id, _) = init(&mut client, "a", NOTHING, 4).await.unwrap();
    for epoch in 1..i16::MAX {
        assert_eq!(init(&mut client, "a", NOTHING, 4).await, Ok((id, epoch)));
    }
    let last = (id, i16::MAX - 1);
    let (next, epoch) = init(&mut client, "a", last, 4).await.unwrap();
    assert!(next != id && epoch == 0);
    assert_eq!(init(&mut client, "a", last, 4).await, Ok((next, 0)), "the answer was lost");
    assert_eq!(init(&mut client, "a", last, 4).await, Err(ErrorCode::PRODUCER_FENCED), "again");
    assert_eq!(init(&mut client, "a", (id, 5), 4).await, Err(ErrorCode::PRODUCER_FENCED));
    assert_eq!(init(&mut client, "a", (next, 0), 4).await, Ok((next, 1)));
    assert!(cluster.set_producer_epoch("a", i16::MAX - 2) && !cluster.set_producer_epoch("b", 1));
    assert_eq!(init(&mut client, "a", NOTHING, 4).await, Ok((next, i16::MAX - 1)));
    assert_eq!(init(&mut client, "a", NOTHING, 4).await, Ok((next + 1, 0)));
}

#[tokio::test(start_paused = true)]
async fn unused_transactional_ids_expire() {
    let builder = EmbeddedCluster::builder().setting("transactional.id.expiration.ms", "60000");
    let cluster = builder.start_in_memory().unwrap();
    let mut client = Client::connect(&cluster).await;
    assert_eq!(cluster.coordinator("a"), Some(1));
    let first = init(&mut client, "a", NOTHING, 4).await.unwrap();
    sleep(Duration::from_secs(3599)).await;
    assert_eq!(init(&mut client, "a", NOTHING, 4).await, Ok((first.0, 1)), "before the next check");
    sleep(Duration::from_secs(3601)).await;
    let second = init(&mut client, "a", NOTHING, 4).await.unwrap();
    assert!(second.0 != first.0 && second.1 == 0);
    assert!(cluster.forget_transactional_id("a") && !cluster.forget_transactional_id("a"));
    assert_ne!(init(&mut client, "a", NOTHING, 4).await.unwrap().0, second.0);
}

#[tokio::test(start_paused = true)]
async fn only_the_coordinator_knows_a_transactional_id() {
    let cluster = EmbeddedCluster::builder().brokers(3).start_in_memory().unwrap();
    let names: Vec<_> = (0..10).map(|n| format!("name-{n}")).collect();
    let find = async |broker: i32| {
        let coordinator_keys = names.clone();
        let request = FindCoordinatorRequest { key_type: 1, coordinator_keys, ..Default::default() };
        Client::connect_to(&cluster, broker).await.call(&request, 4).await.coordinators
    };
    let first = find(1).await;
    assert_eq!(first[0].error_code, ErrorCode::COORDINATOR_NOT_AVAILABLE, "it makes the topic");
    let found = find(1).await;
    assert_eq!(found, find(2).await, "all tell the same");
    let of_all: std::collections::BTreeSet<_> = found.iter().map(|found| found.node_id).collect();
    assert!(of_all.len() > 1, "they share the work");
    for (name, found) in names.iter().zip(&found) {
        assert_eq!(Some(found.node_id), cluster.coordinator(name));
        assert_eq!((&found.host, found.port), (&cluster.address(found.node_id).unwrap().host, 9092));
        for broker in [1, 2, 3] {
            let mut client = Client::connect_to(&cluster, broker).await;
            let expected = (broker != found.node_id).then_some(ErrorCode::NOT_COORDINATOR);
            assert_eq!(init(&mut client, name, NOTHING, 4).await.err(), expected);
        }
    }
    let name = names.iter().find(|name| cluster.coordinator(name) == Some(1)).unwrap();
    let request = FindCoordinatorRequest { key: name.clone(), key_type: 1, ..Default::default() };
    let one = Client::connect_to(&cluster, 2).await.call(&request, 3).await;
    assert_eq!((one.error_code, one.node_id, one.host.as_str()), (ErrorCode::NONE, 1, "broker-1"));

    cluster.stop(1).unwrap();
    let next = cluster.coordinator(name).unwrap();
    let loading = init(&mut Client::connect_to(&cluster, next).await, name, NOTHING, 4).await;
    assert_eq!(loading, Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    sleep(Duration::from_millis(200)).await;
    let renewed = init(&mut Client::connect_to(&cluster, next).await, name, NOTHING, 4).await;
    assert_eq!(renewed.unwrap().1, 1, "what it stands for is not forgotten");
    cluster.on(ApiKey::INIT_PRODUCER_ID, Fault::Error(ErrorCode::CONCURRENT_TRANSACTIONS));
    let busy = init(&mut Client::connect_to(&cluster, next).await, name, NOTHING, 4).await;
    assert_eq!(busy, Err(ErrorCode::CONCURRENT_TRANSACTIONS));
    assert!(cluster.topics().is_empty(), "that of the coordinators is not one of the test");
}

#[tokio::test(start_paused = true)]
async fn coordinators_move_and_load() {
    let cluster = EmbeddedCluster::builder().brokers(3).start_in_memory().unwrap();
    let before = cluster.coordinator("a").unwrap();
    let after = before % 3 + 1;
    let mut client = Client::connect_to(&cluster, before).await;
    let (id, _) = init(&mut client, "a", NOTHING, 4).await.unwrap();
    assert_eq!(init(&mut client, "a", (id, 0), 4).await, Ok((id, 1)));
    cluster.move_coordinator("a", after).unwrap();
    assert_eq!(cluster.coordinator("a"), Some(after));
    assert_eq!(init(&mut client, "a", (id, 1), 4).await, Err(ErrorCode::NOT_COORDINATOR));
    let mut client = Client::connect_to(&cluster, after).await;
    let loading = Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    assert_eq!(init(&mut client, "a", (id, 1), 4).await, loading);
    sleep(Duration::from_millis(200)).await;
    let forgiven = init(&mut client, "a", (id, 0), 4).await;
    assert_eq!(forgiven, Err(ErrorCode::PRODUCER_FENCED), "a lost answer is not in the log");
    assert_eq!(init(&mut client, "a", (id, 1), 4).await, Ok((id, 2)));

    cluster.hold_metadata(after).unwrap();
    cluster.move_coordinator("a", before).unwrap();
    assert_eq!(init(&mut client, "a", (id, 2), 4).await, Err(ErrorCode::NOT_COORDINATOR), "deposed unseen");
    cluster.release_metadata(after).unwrap();
    cluster.kill(before).unwrap();
    cluster.restart(before).unwrap();
    let mut client = Client::connect_to(&cluster, before).await;
    assert_eq!(init(&mut client, "a", (id, 2), 4).await, loading, "it has just started");
    sleep(Duration::from_millis(200)).await;
    assert_eq!(init(&mut client, "a", (id, 2), 4).await, Ok((id, 3)));

    let others: Vec<_> = (1..=3).filter(|broker| *broker != before).collect();
    others.iter().for_each(|broker| cluster.stop(*broker).unwrap());
    let unavailable = Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(init(&mut client, "a", (id, 3), 4).await, unavailable, "too few replicas");
    assert_eq!(init(&mut client, "a", (id, 9), 4).await, Err(ErrorCode::PRODUCER_FENCED));
    others.iter().for_each(|broker| cluster.restart(*broker).unwrap());
    assert_eq!(init(&mut client, "a", (id, 3), 4).await, Ok((id, 4)));
}

#[tokio::test(start_paused = true)]
async fn without_its_topic_there_is_no_coordinator() {
    let builder = EmbeddedCluster::builder().setting("transaction.state.log.replication.factor", "2");
    let cluster = builder.start_in_memory().unwrap();
    assert_eq!(cluster.coordinator("a"), None);
    assert!(cluster.move_coordinator("a", 1).is_err());
    let mut client = Client::connect(&cluster).await;
    let request = FindCoordinatorRequest { key: "a".to_owned(), key_type: 1, ..Default::default() };
    for _ in 0..3 {
        let found = client.call(&request, 3).await;
        assert_eq!((found.error_code, found.node_id), (ErrorCode::COORDINATOR_NOT_AVAILABLE, -1));
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(init(&mut client, "a", NOTHING, 4).await, Err(ErrorCode::NOT_COORDINATOR));
    cluster.add_broker().unwrap();
    assert!(cluster.coordinator("a").is_some(), "there are enough brokers now");
}

async fn read_committed(client: &mut Client, place: &Place) -> FetchPartitionResponse {
    let request = FetchRequest { isolation_level: IsolationLevel::READ_COMMITTED, ..fetch(place, 0) };
    client.call(&request, 18).await.responses[0].partitions[0].clone()
}

/// Returns the base offsets that a READ_COMMITTED reader gets, without markers.
fn committed(fetched: &FetchPartitionResponse) -> Vec<i64> {
    let aborted = fetched.aborted_transactions.clone().unwrap();
    let batches = Batches::new(fetched.records.clone().unwrap());
    let committed = CommittedBatches::new(batches, &aborted).map(Result::unwrap);
    committed.filter(|batch| !batch.is_control()).map(|batch| batch.base_offset()).collect()
}

#[tokio::test]
async fn readers_of_committed_records_wait_for_the_end_of_transactions() {
    let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    let part =
        |id: i64, sequence: i32| batch(&["t"]).with_transactional(true).stamp(id, 0, sequence).to_bytes();
    client.produce(&place, batch(&["a"]).to_bytes()).await;
    cluster.append_raw("wal", 0, part(7, 0)).unwrap();
    cluster.append_raw("wal", 0, part(8, 0)).unwrap();
    client.produce(&place, batch(&["b"]).to_bytes()).await;

    let fetched = read_committed(&mut client, &place).await;
    assert_eq!((fetched.high_watermark, fetched.last_stable_offset), (4, 1));
    assert_eq!(committed(&fetched), [0]);
    let partition = ListOffsetsPartition { timestamp: -1, ..Default::default() };
    let topics = vec![ListOffsetsTopic { name: "wal".to_owned(), partitions: vec![partition] }];
    let isolation_level = IsolationLevel::READ_COMMITTED;
    let latest = client.call(&ListOffsetsRequest { topics, isolation_level, ..Default::default() }, 11).await;
    assert_eq!(latest.topics[0].partitions[0].offset, 1);

    assert_eq!(cluster.end_transaction("wal", 0, (7, 0), false).unwrap(), 4);
    let fetched = read_committed(&mut client, &place).await;
    assert_eq!((fetched.last_stable_offset, committed(&fetched)), (2, vec![0]));
    assert_eq!(cluster.end_transaction("wal", 0, (8, 0), true).unwrap(), 5);
    let fetched = read_committed(&mut client, &place).await;
    assert_eq!((fetched.last_stable_offset, committed(&fetched)), (6, vec![0, 2, 3]));
    let aborted = fetched.aborted_transactions.unwrap();
    assert_eq!((aborted.len(), aborted[0].producer_id, aborted[0].first_offset), (1, 7, 1));
    assert_eq!(client.fetch(&place, 0).await.aborted_transactions, None, "not for other readers");

    cluster.move_leader("wal", 0, 3).unwrap();
    let mut client = Client::connect_to(&cluster, 3).await;
    assert_eq!(
        committed(&read_committed(&mut client, &place).await),
        [0, 2, 3],
        "the next leader knows it all"
    );
    cluster.delete_records("wal", 0, 5).unwrap();
    let fetched = client.call(&FetchRequest { isolation_level, ..fetch(&place, 5) }, 18).await;
    assert_eq!(fetched.responses[0].partitions[0].aborted_transactions, Some(vec![]));
}

#[tokio::test]
async fn a_marker_bumps_the_epoch_of_its_producer() {
    let cluster = in_memory();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    client.produce(&place, batch(&["a"]).stamp(7, 0, 0).to_bytes()).await;
    cluster.end_transaction("wal", 0, (7, 3), false).unwrap();
    let mut send = async |epoch, sequence| {
        outcome(&client.produce(&place, batch(&["a"]).stamp(7, epoch, sequence).to_bytes()).await)
    };
    assert_eq!(send(0, 1).await, Err(ErrorCode::INVALID_PRODUCER_EPOCH));
    assert_eq!(send(3, 1).await, Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    assert_eq!(send(3, 0).await, Ok(2));
    let topics = vec![DescribeProducersTopic { name: "wal".to_owned(), partition_indexes: vec![0] }];
    let known = client.call(&DescribeProducersRequest { topics }, 0).await.topics[0].partitions[0].clone();
    let producer = &known.active_producers[0];
    assert_eq!((producer.producer_id, producer.producer_epoch, producer.last_sequence), (7, 3, 0));
}

/// Six batches of 8 kB at once, at 2 kB/s: as with fifty times as much on a real broker.
#[tokio::test(start_paused = true)]
async fn requests_over_the_quota_are_carried_out_and_throttled() {
    let cluster = in_memory();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    cluster.limit_produce(None, Some(2_000));
    let large = batch(&[&"x".repeat(7_890)]).to_bytes();
    let begun = Instant::now();
    for _ in 0..6 {
        client.send(&produce(&place, large.clone()), 13).await;
    }
    let mut answered = Vec::new();
    let mut throttled = 0;
    for _ in 0..6 {
        let (_, answer) = client.receive::<ProduceRequest>(13).await.unwrap();
        assert!(outcome(&answer.responses[0].partition_responses[0]).is_ok());
        answered.push(begun.elapsed().as_secs());
        throttled += usize::from(answer.throttle_time_ms > 0);
    }
    assert_eq!((answered, throttled), (vec![0, 0, 0, 2, 8, 18], 3));
    cluster.limit_produce(None, None);
    cluster.limit_fetch(Some("test"), Some(1_000));
    let answer = client.call(&fetch(&place, 0), 18).await;
    assert!(answer.throttle_time_ms > 0 && answer.responses.is_empty(), "{answer:?}");
    cluster.limit_fetch(Some("test"), None);
    assert!(!client.fetch(&place, 0).await.records.unwrap().is_empty());
}

#[tokio::test]
async fn compaction_leaves_holes() {
    let cluster =
        EmbeddedCluster::builder().brokers(2).topic("wal", 1).started_at(STARTED_AT).start_in_memory();
    let cluster = cluster.unwrap();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    for batch in [compressed(CODEC, &["a", "b", "c"]), batch(&["d"]), batch(&["e", "f"])] {
        client.produce(&place, batch.to_bytes()).await;
    }
    cluster.compact("wal", 0, |record| !matches!(record.offset, 1 | 3 | 5)).unwrap();
    assert_eq!(values(&cluster, &place), ["a", "c", "e"]);
    let fetched = client.fetch(&place, 0).await.records.unwrap();
    let batches: Vec<_> = Batches::new(fetched).map(Result::unwrap).collect();
    let ranges: Vec<_> =
        batches.iter().map(|b| (b.base_offset(), b.next_offset(), b.header().count)).collect();
    assert_eq!(ranges, [(0, 3, 2), (3, 4, 0), (4, 6, 1)]);
    assert_eq!(cluster.replica_records(2, "wal", 0).unwrap().len(), 3);
    assert_eq!(outcome(&client.produce(&place, batch(&["g"]).to_bytes()).await), Ok(6));
}

#[tokio::test]
async fn a_recreated_topic_has_another_id_and_is_empty() {
    let cluster = EmbeddedCluster::builder().topic_with("wal", 2, &[("max.message.bytes", "500")]);
    let cluster = cluster.start_in_memory().unwrap();
    let old = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    client.produce(&old, batch(&["a"]).to_bytes()).await;
    let id = cluster.recreate_topic("wal").unwrap();
    assert_ne!(id, old.id);
    assert_eq!(
        outcome(&client.produce(&old, batch(&["b"]).to_bytes()).await),
        Err(ErrorCode::UNKNOWN_TOPIC_ID)
    );
    let new = Place::of(&cluster, "wal", 0);
    let large: Bytes = batch(&[&"x".repeat(600)]).to_bytes();
    assert_eq!(outcome(&client.produce(&new, large).await), Err(ErrorCode::MESSAGE_TOO_LARGE));
    assert_eq!(outcome(&client.produce(&new, batch(&["c"]).to_bytes()).await), Ok(0));
    assert!(cluster.recreate_topic("lost").is_err());
}
