//! Replicas: their logs, the ISR, and what elections lose.

use std::time::Duration;

use bytes::Bytes;
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{
        FetchPartitionResponse, FetchRequest, ListOffsetsPartition, ListOffsetsPartitionResponse,
        ListOffsetsRequest, ListOffsetsTopic, OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
        OffsetForLeaderTopic, ProduceRequest,
    },
};
use kwal_testkit::{Dialect, EmbeddedCluster, EmbeddedClusterBuilder, Error, Fault};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, Place, STARTED_AT, batch, fetch, outcome, produce, values};

fn three() -> EmbeddedClusterBuilder {
    EmbeddedCluster::builder().brokers(3).started_at(STARTED_AT)
}

fn strict() -> EmbeddedCluster {
    three().topic_with("wal", 1, &[("min.insync.replicas", "2")]).start_in_memory().unwrap()
}

fn one(value: &str) -> Bytes {
    batch(&[value]).to_bytes()
}

fn never() -> Duration {
    Duration::MAX
}

/// Returns the values in the log of each replica.
fn replicas(cluster: &EmbeddedCluster) -> [Vec<String>; 3] {
    [1, 2, 3].map(|broker| {
        let records = cluster.replica_records(broker, "wal", 0).unwrap();
        records.iter().map(|r| String::from_utf8_lossy(r.value.as_deref().unwrap()).into_owned()).collect()
    })
}

/// Produces with acks = 1.
async fn produce_to_one(client: &mut Client, place: &Place, value: &str) -> Result<i64, ErrorCode> {
    let request = ProduceRequest { acks: 1, ..produce(place, one(value)) };
    outcome(&client.call(&request, 13).await.responses[0].partition_responses[0])
}

async fn latest(client: &mut Client, version: i16) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition { timestamp: -1, ..Default::default() };
    let topics = vec![ListOffsetsTopic { name: "wal".to_owned(), partitions: vec![partition] }];
    client.call(&ListOffsetsRequest { topics, ..Default::default() }, version).await.topics[0].partitions[0]
        .clone()
}

/// Returns the end of a leader epoch according to the leader: epoch and offset.
async fn end_of_epoch(client: &mut Client, leader_epoch: i32) -> (i32, i64) {
    let partitions = vec![OffsetForLeaderPartition { leader_epoch, ..Default::default() }];
    let topics = vec![OffsetForLeaderTopic { topic: "wal".to_owned(), partitions }];
    let request = OffsetForLeaderEpochRequest { topics, ..Default::default() };
    let found = client.call(&request, 4).await.topics[0].partitions[0].clone();
    (found.leader_epoch, found.end_offset)
}

#[tokio::test]
async fn every_replica_has_acknowledged_records() {
    let cluster = strict();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    for value in ["a", "b"] {
        assert!(outcome(&client.produce(&place, one(value)).await).is_ok());
    }
    assert_eq!(replicas(&cluster), [["a", "b"]; 3]);
    assert_eq!(cluster.high_watermark("wal", 0).unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_append_waits_for_the_isr_and_blocks_its_connection() {
    let cluster = strict();
    let place = Place::of(&cluster, "wal", 0);
    cluster.set_lag("wal", 0, 3, Duration::from_millis(700)).unwrap();
    let mut client = Client::connect(&cluster).await;
    let begun = Instant::now();
    client.send(&produce(&place, one("a")), 13).await;
    client.send(&fetch(&place, 0), 18).await;
    let mut other = Client::connect(&cluster).await;
    assert_eq!(other.fetch(&place, 0).await.high_watermark, 0, "not all in sync have it");
    assert_eq!(values(&cluster, &place), ["a"], "though it is on the log");
    let (_, answer) = client.receive::<ProduceRequest>(13).await.unwrap();
    assert_eq!(outcome(&answer.responses[0].partition_responses[0]), Ok(0));
    assert_eq!(begun.elapsed(), Duration::from_millis(700));
    let (_, fetched) = client.receive::<FetchRequest>(18).await.unwrap();
    assert_eq!(fetched.responses[0].partitions[0].high_watermark, 1);
    // With acks = 1 there is no wait.
    let begun = Instant::now();
    assert_eq!(produce_to_one(&mut client, &place, "b").await, Ok(1));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_times_out_stays_on_the_log() {
    let cluster = strict();
    let place = Place::of(&cluster, "wal", 0);
    cluster.set_lag("wal", 0, 2, never()).unwrap();
    let mut client = Client::connect(&cluster).await;
    let begun = Instant::now();
    let batch = batch(&["a"]).stamp(1, 0, 0).to_bytes();
    let answer = client.produce(&place, batch.clone()).await;
    assert_eq!(
        (outcome(&answer), begun.elapsed()),
        (Err(ErrorCode::REQUEST_TIMED_OUT), Duration::from_secs(1))
    );
    assert_eq!(values(&cluster, &place), ["a"]);
    // A retry waits as well, and gets the first offset.
    client.send(&produce(&place, batch), 13).await;
    assert!(timeout(Duration::from_millis(500), client.receive_frame()).await.is_err());
    cluster.set_lag("wal", 0, 2, Duration::ZERO).unwrap();
    let (_, answer) = client.receive::<ProduceRequest>(13).await.unwrap();
    assert_eq!(outcome(&answer.responses[0].partition_responses[0]), Ok(0));
    assert_eq!(values(&cluster, &place), ["a"], "not twice");
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_lags_for_long_is_out_of_sync() {
    let cluster = strict();
    let place = Place::of(&cluster, "wal", 0);
    cluster.set_lag("wal", 0, 2, never()).unwrap();
    let mut client = Client::connect(&cluster).await;
    let request = ProduceRequest { timeout_ms: 60_000, ..produce(&place, one("a")) };
    let begun = Instant::now();
    let answer = client.call(&request, 13).await;
    assert_eq!(outcome(&answer.responses[0].partition_responses[0]), Ok(0));
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
    assert_eq!(cluster.in_sync("wal", 0).unwrap(), [1, 3]);
    cluster.set_lag("wal", 0, 2, Duration::ZERO).unwrap();
    assert_eq!(cluster.in_sync("wal", 0).unwrap(), [1, 2, 3]);
    assert_eq!(replicas(&cluster), [["a"]; 3]);
}

#[tokio::test]
async fn too_few_in_sync_reject_acks_all() {
    let cluster = strict();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    cluster.shrink_isr("wal", 0, 2).unwrap();
    assert_eq!(outcome(&client.produce(&place, one("a")).await), Ok(0));
    cluster.shrink_isr("wal", 0, 3).unwrap();
    assert!(matches!(cluster.shrink_isr("wal", 0, 1), Err(Error::IsLeader { broker: 1 })));
    let answer = client.produce(&place, one("b")).await;
    assert_eq!(outcome(&answer), Err(ErrorCode::NOT_ENOUGH_REPLICAS));
    assert_eq!(values(&cluster, &place), ["a"]);
    assert_eq!(produce_to_one(&mut client, &place, "c").await, Ok(1));
    assert_eq!(cluster.high_watermark("wal", 0).unwrap(), 1, "and what only one has is not read");
    cluster.set_lag("wal", 0, 3, Duration::ZERO).unwrap();
    assert_eq!(
        (cluster.in_sync("wal", 0).unwrap(), cluster.high_watermark("wal", 0).unwrap()),
        (vec![1, 3], 2)
    );
}

/// Before 3.7 the high watermark advances with too few replicas in sync, and a waiting append gets an error.
#[tokio::test(start_paused = true)]
async fn too_few_in_sync_after_the_append() {
    let builder = three().dialect(Dialect::kafka_2_8());
    let cluster = builder.topic_with("wal", 1, &[("min.insync.replicas", "2")]).start_in_memory().unwrap();
    let place = Place::of(&cluster, "wal", 0);
    for broker in [2, 3] {
        cluster.set_lag("wal", 0, broker, never()).unwrap();
    }
    let mut client = Client::connect(&cluster).await;
    client.send(&ProduceRequest { timeout_ms: 60_000, ..produce(&place, one("a")) }, 9).await;
    sleep(Duration::from_secs(1)).await;
    for broker in [2, 3] {
        cluster.shrink_isr("wal", 0, broker).unwrap();
    }
    let (_, answer) = client.receive::<ProduceRequest>(9).await.unwrap();
    let answer = outcome(&answer.responses[0].partition_responses[0]);
    assert_eq!(answer, Err(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND));
    assert_eq!(values(&cluster, &place), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_leader_is_deposed_may_be_on_the_log_or_not() {
    for kept in [true, false] {
        let cluster = strict();
        let place = Place::of(&cluster, "wal", 0);
        let mut client = Client::connect(&cluster).await;
        // Broker 3 never has it; broker 2 has it or not.
        cluster.set_lag("wal", 0, 3, never()).unwrap();
        if !kept {
            cluster.set_lag("wal", 0, 2, never()).unwrap();
        }
        client.send(&produce(&place, one("a")), 13).await;
        sleep(Duration::from_millis(1)).await;
        cluster.move_leader("wal", 0, 2).unwrap();
        let (_, answer) = client.receive::<ProduceRequest>(13).await.unwrap();
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(outcome(answer), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        assert_eq!((answer.current_leader.leader_id, answer.current_leader.leader_epoch), (2, 1));
        let expected: &[&str] = if kept { &["a"] } else { &[] };
        assert_eq!(replicas(&cluster)[..2], [expected, expected], "cut off from the old leader's log");
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_election_the_high_watermark_lags() {
    let cluster = strict();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    client.produce(&place, one("a")).await;
    // Followers have the record at once, and learn of the high watermark later.
    for broker in [2, 3] {
        cluster.set_lag("wal", 0, broker, Duration::from_millis(100)).unwrap();
    }
    client.produce(&place, one("b")).await;
    cluster.stop(1).unwrap();
    assert_eq!(cluster.leader("wal", 0).unwrap(), Some(2));
    let mut client = Client::connect_to(&cluster, 2).await;
    let fetched = client.fetch(&place, 0).await;
    assert_eq!(
        (fetched.error_code, fetched.high_watermark),
        (ErrorCode::NONE, 1),
        "it is acknowledged, and 2 records are"
    );
    assert_eq!(latest(&mut client, 11).await.error_code, ErrorCode::OFFSET_NOT_AVAILABLE);
    assert_eq!(latest(&mut client, 4).await.error_code, ErrorCode::LEADER_NOT_AVAILABLE);
    sleep(Duration::from_millis(300)).await;
    let found = latest(&mut client, 11).await;
    assert_eq!((found.error_code, found.offset, found.leader_epoch), (ErrorCode::NONE, 2, 1));
    assert_eq!(client.fetch(&place, 0).await.high_watermark, 2);
}

#[tokio::test(start_paused = true)]
async fn an_unclean_election_loses_what_was_acknowledged() {
    for how in ["forced", "by setting"] {
        let unclean = [("unclean.leader.election.enable", "true")];
        let cluster = three().topic_with("wal", 1, &unclean).start_in_memory().unwrap();
        let place = Place::of(&cluster, "wal", 0);
        let mut client = Client::connect(&cluster).await;
        client.produce(&place, batch(&["a"]).stamp(7, 0, 0).to_bytes()).await;
        cluster.shrink_isr("wal", 0, 3).unwrap();
        for (sequence, value) in [(1, "b"), (2, "c")] {
            let batch = batch(&[value]).stamp(7, 0, sequence).to_bytes();
            assert_eq!(outcome(&client.produce(&place, batch).await), Ok(i64::from(sequence)));
        }
        match how {
            "forced" => cluster.elect_unclean("wal", 0, 3).unwrap(),
            _ => {
                cluster.kill(2).unwrap();
                sleep(Duration::from_secs(10)).await;
                cluster.kill(1).unwrap();
                sleep(Duration::from_secs(10)).await;
            }
        }
        assert_eq!(
            (cluster.leader("wal", 0).unwrap(), cluster.leader_epoch("wal", 0).unwrap()),
            (Some(3), 1)
        );
        let mut client = Client::connect_to(&cluster, 3).await;
        // What is lost leaves a gap, and is rejected as one.
        let next = client.produce(&place, batch(&["d"]).stamp(7, 0, 3).to_bytes()).await;
        assert_eq!(outcome(&next), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        assert_eq!(outcome(&client.produce(&place, one("x")).await), Ok(1));
        // A reader at 3 in epoch 0 gets the offset where the logs diverge.
        let mut reader = fetch(&place, 3);
        reader.topics[0].partitions[0].last_fetched_epoch = 0;
        let answer = client.call(&reader, 18).await.responses[0].partitions[0].clone();
        assert_eq!((answer.diverging_epoch.epoch, answer.diverging_epoch.end_offset), (0, 1));
        assert_eq!(end_of_epoch(&mut client, 0).await, (0, 1));
        assert_eq!(client.fetch(&place, 3).await.error_code, ErrorCode::OFFSET_OUT_OF_RANGE);
        if how == "by setting" {
            cluster.restart(1).unwrap();
            cluster.restart(2).unwrap();
        }
        assert_eq!(replicas(&cluster), [["a", "x"]; 3], "{how}");
        cluster.set_lag("wal", 0, 3, Duration::ZERO).unwrap();
        cluster.move_leader("wal", 0, 1).unwrap();
        let mut client = Client::connect(&cluster).await;
        let again = client.produce(&place, batch(&["b"]).stamp(7, 0, 1).to_bytes()).await;
        assert_eq!(outcome(&again), Ok(2), "what was cut off is forgotten also of producers");
    }
}

#[tokio::test(start_paused = true)]
async fn without_unclean_elections_replicas_out_of_sync_do_not_lead() {
    let cluster = strict();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    cluster.shrink_isr("wal", 0, 3).unwrap();
    client.produce(&place, one("a")).await;
    for broker in [2, 1] {
        cluster.kill(broker).unwrap();
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!((cluster.leader("wal", 0).unwrap(), cluster.in_sync("wal", 0).unwrap()), (None, vec![1]));
    let mut client = Client::connect_to(&cluster, 3).await;
    let answer = client.produce(&place, one("b")).await;
    assert_eq!(outcome(&answer), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    cluster.restart(2).unwrap();
    assert_eq!(cluster.leader("wal", 0).unwrap(), None, "it was in sync, but not the last");
    cluster.restart(1).unwrap();
    assert_eq!(
        (cluster.leader("wal", 0).unwrap(), values(&cluster, &place)),
        (Some(1), vec!["a".to_owned()])
    );
    assert_eq!(cluster.in_sync("wal", 0).unwrap(), [1, 2]);
}

/// A deposed leader that does not know it yet goes on serving its clients, and nothing of that is kept.
#[tokio::test(start_paused = true)]
async fn a_deposed_leader_accepts_what_will_be_truncated() {
    let cluster = strict();
    let place = Place::of(&cluster, "wal", 0);
    let mut old = Client::connect(&cluster).await;
    old.produce(&place, one("a")).await;
    cluster.hold_metadata(1).unwrap();
    cluster.move_leader("wal", 0, 2).unwrap();
    let mut new = Client::connect_to(&cluster, 2).await;
    assert_eq!(produce_to_one(&mut old, &place, "lost").await, Ok(1));
    let waited = old.produce(&place, one("lost too")).await;
    assert_eq!(outcome(&waited), Err(ErrorCode::REQUEST_TIMED_OUT));
    assert_eq!(old.fetch(&place, 0).await.high_watermark, 1);
    assert_eq!(produce_to_one(&mut new, &place, "b").await, Ok(1));
    assert_eq!(replicas(&cluster)[0], ["a", "lost", "lost too"]);
    cluster.release_metadata(1).unwrap();
    assert_eq!(replicas(&cluster), [["a", "b"]; 3]);
    assert_eq!(produce_to_one(&mut old, &place, "c").await, Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
}

/// The leader decides which replicas are in sync, even if it learns of no other change.
#[tokio::test(start_paused = true)]
async fn a_deposed_leader_does_not_acknowledge_what_it_has_alone() {
    let cluster = three().topic("wal", 1).start_in_memory().unwrap();
    let place = Place::of(&cluster, "wal", 0);
    for follower in [2, 3] {
        cluster.shrink_isr("wal", 0, follower).unwrap();
    }
    let mut old = Client::connect(&cluster).await;
    cluster.hold_metadata(1).unwrap();
    assert_eq!(outcome(&old.produce(&place, one("a")).await), Ok(0), "it is the only one in sync");
    cluster.set_lag("wal", 0, 2, Duration::ZERO).unwrap();
    assert_eq!(cluster.in_sync("wal", 0).unwrap(), [1, 2]);
    cluster.move_leader("wal", 0, 2).unwrap();
    let waited = old.produce(&place, one("b")).await;
    assert_eq!(outcome(&waited), Err(ErrorCode::REQUEST_TIMED_OUT));
    cluster.release_metadata(1).unwrap();
    assert_eq!(values(&cluster, &place), ["a"]);
}

/// What a leader appends before it learns of its next epoch belongs to its last one.
#[tokio::test(start_paused = true)]
async fn a_leader_begins_its_epoch_when_it_learns_of_it() {
    let cluster = strict();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    client.produce(&place, one("a")).await;
    cluster.hold_metadata(1).unwrap();
    cluster.move_leader("wal", 0, 2).unwrap();
    cluster.move_leader("wal", 0, 1).unwrap();
    assert_eq!(produce_to_one(&mut client, &place, "b").await, Ok(1));
    cluster.release_metadata(1).unwrap();
    assert_eq!(outcome(&client.produce(&place, one("c")).await), Ok(2));
    assert_eq!(replicas(&cluster), [["a", "b", "c"]; 3]);
    assert_eq!((end_of_epoch(&mut client, 0).await, end_of_epoch(&mut client, 2).await), ((0, 2), (2, 3)));
}

/// A follower answers up to its own high watermark (KIP-392).
#[tokio::test]
async fn followers_are_read_from() {
    let cluster = strict();
    let place = Place::of(&cluster, "wal", 0);
    Client::connect(&cluster).await.produce(&place, one("a")).await;
    let mut follower = Client::connect_to(&cluster, 2).await;
    let read = async |follower: &mut Client, version| -> FetchPartitionResponse {
        follower.call(&fetch(&place, 0), version).await.responses[0].partitions[0].clone()
    };
    assert_eq!(read(&mut follower, 10).await.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER);
    let fetched = read(&mut follower, 11).await;
    assert_eq!((fetched.error_code, fetched.high_watermark), (ErrorCode::NONE, 1));
    assert!(!fetched.records.unwrap().is_empty());
    cluster.move_leader("wal", 0, 3).unwrap();
    let mut request = fetch(&place, 0);
    request.topics[0].partitions[0].current_leader_epoch = 0;
    let answer = follower.call(&request, 18).await;
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(partition.error_code, ErrorCode::FENCED_LEADER_EPOCH);
    assert_eq!((partition.current_leader.leader_id, answer.node_endpoints[0].node_id), (3, 3));
}

#[tokio::test]
async fn the_next_leader_has_the_producer_state_of_deleted_records_too() {
    let cluster = strict();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    for sequence in 0..3 {
        client.produce(&place, batch(&["a"]).stamp(7, 1, sequence).to_bytes()).await;
    }
    cluster.delete_records("wal", 0, 3).unwrap();
    client.produce(&place, one("b")).await;
    cluster.kill(1).unwrap();
    cluster.restart(1).unwrap();
    // A truncation does not undo a deletion.
    cluster.set_lag("wal", 0, 2, never()).unwrap();
    let mut client = Client::connect(&cluster).await;
    assert_eq!(produce_to_one(&mut client, &place, "lost").await, Ok(4));
    cluster.elect_unclean("wal", 0, 2).unwrap();
    cluster.set_lag("wal", 0, 2, Duration::ZERO).unwrap();
    cluster.move_leader("wal", 0, 1).unwrap();
    let mut send = async |epoch, sequence| {
        outcome(&client.produce(&place, batch(&["a"]).stamp(7, epoch, sequence).to_bytes()).await)
    };
    assert_eq!(send(0, 3).await, Err(ErrorCode::INVALID_PRODUCER_EPOCH));
    assert_eq!(send(1, 2).await, Ok(2), "a duplicate");
    assert_eq!(send(1, 4).await, Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    assert_eq!(send(1, 3).await, Ok(4));
    assert_eq!(cluster.start_offset("wal", 0).unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn idle_producers_expire() {
    let cluster =
        three().topic("wal", 1).setting("producer.id.expiration.ms", "60000").start_in_memory().unwrap();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    let mut send = async |sequence| {
        outcome(&client.produce(&place, batch(&["a"]).stamp(7, 0, sequence).to_bytes()).await)
    };
    assert_eq!(send(0).await, Ok(0));
    sleep(Duration::from_secs(599)).await;
    assert_eq!(send(9).await, Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), "before the next check");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(send(9).await, Ok(1));
    cluster.forget_producers("wal", 0).unwrap();
    assert_eq!(send(5).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn an_error_after_an_append_that_waits() {
    let cluster = strict();
    let place = Place::of(&cluster, "wal", 0);
    cluster.set_lag("wal", 0, 3, Duration::from_millis(100)).unwrap();
    cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    let mut client = Client::connect(&cluster).await;
    let answer = client.produce(&place, one("a")).await;
    assert_eq!(outcome(&answer), Err(ErrorCode::UNKNOWN_SERVER_ERROR));
    assert_eq!(replicas(&cluster), [["a"]; 3]);
}
