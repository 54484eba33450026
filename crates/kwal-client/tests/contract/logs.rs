//! What a program sees of the client in its logs at the level `INFO`, and its spans.

use std::time::Duration;

use futures::{StreamExt, future::join_all};
use kwal_batching::reader;
use kwal_client::{OffsetAt, PartitionClient, Resolution, error::Outcome, record::Record};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    record::{BatchBuilder, Compression, Headers},
};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::{task::JoinHandle, time::sleep};
use tracing::Level;

use crate::{
    c4_authentication::{cluster, plain, users},
    recording::Recording,
    support::{Wire, WireMode, broker, builder, open, open_over, record, timed},
};

const SECOND: Duration = Duration::from_secs(1);

/// Asserts that there is one line, with a level and these parts.
#[track_caller]
fn assert_line(lines: Vec<String>, level: Level, parts: &[&str]) {
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    assert!(line.starts_with(level.as_str()), "{line}");
    for part in parts.iter().chain(&["messaging.system=\"kafka\""]) {
        assert!(line.contains(part), "{part:?} in {line}");
    }
}

#[track_caller]
fn assert_none(lines: Vec<String>) {
    assert_eq!(lines, [""; 0]);
}

fn spawn_append(partition: &PartitionClient, deadline: Duration) -> JoinHandle<()> {
    let partition = partition.clone();
    tokio::spawn(async move {
        partition.produce(record("b")).deadline(deadline).await.unwrap();
    })
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_when_all_is_well() {
    let log = Recording::at(Level::INFO);
    let cluster = EmbeddedCluster::builder().brokers(3).start_in_memory().unwrap();
    let client = builder(&cluster).build().await.unwrap();
    let controller = client.controller_client().await.unwrap();
    controller.create_topic("wal", 1, 3).await.unwrap();
    let partition = client.partition_client("wal", 0).exclusive("name").await.unwrap();
    for _ in 0..100 {
        partition.produce(record("a")).await.unwrap();
    }
    // Elections, too.
    for leader in [2, 3, 1] {
        cluster.move_leader("wal", 0, leader).unwrap();
        partition.produce(record("a")).await.unwrap();
        partition.fetch(1).await.unwrap();
    }
    let mut replay = reader::replay(&partition, OffsetAt::Earliest).await.unwrap();
    while replay.next_batch().await.unwrap().is_some() {}
    controller.audit("wal").await.unwrap();
    partition.delete_records(50).await.unwrap();
    controller.delete_topic("wal").await.unwrap();
    client.close().await;
    assert_none(log.take());
}

#[tokio::test(start_paused = true)]
async fn what_succeeds_within_a_second_or_waits_for_records_says_nothing() {
    let broker = broker();
    let partition = open(&broker).await;
    let log = Recording::at(Level::INFO);
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    partition.produce(record("a")).await.unwrap();
    broker.on(ApiKey::FETCH, Fault::Error(ErrorCode::LEADER_NOT_AVAILABLE));
    let (fetched, took) = timed(partition.fetch(1).max_wait(20 * SECOND)).await;
    fetched.unwrap();
    assert!(took >= 20 * SECOND, "{took:?}");
    // A fetch that had waited for long when it failed.
    let waiting = partition.clone();
    let fetch = tokio::spawn(async move { waiting.fetch(1).max_wait(20 * SECOND).await });
    sleep(10 * SECOND).await;
    broker.kill(1).unwrap();
    sleep(SECOND / 10).await;
    broker.restart(1).unwrap();
    fetch.await.unwrap().unwrap();
    assert_none(log.take());
}

/// However many calls need it, of however many partitions.
#[tokio::test(start_paused = true)]
async fn a_broker_that_cannot_be_reached_says_so_once_and_that_it_is_over() {
    let broker = EmbeddedCluster::builder().topic("wal", 50).start_in_memory().unwrap();
    let client = builder(&broker).build().await.unwrap();
    let opening = (0..50).map(|index| client.partition_client("wal", index).into_future());
    let partitions: Vec<_> = join_all(opening).await.into_iter().map(Result::unwrap).collect();
    join_all(partitions.iter().map(|partition| partition.produce(record("a")).into_future())).await;
    let log = Recording::at(Level::INFO);
    broker.kill(1).unwrap();
    let appends: Vec<_> = partitions.iter().map(|partition| spawn_append(partition, 120 * SECOND)).collect();
    sleep(SECOND / 2).await;
    assert_none(log.take());
    sleep(60 * SECOND - SECOND / 2).await;
    let parts = [
        "message=the broker cannot be reached",
        "server.address=\"broker-1\" server.port=9092",
        "error.type=Connect",
        "nothing listens there",
    ];
    assert_line(log.take(), Level::WARN, &parts);
    broker.restart(1).unwrap();
    for append in appends {
        append.await.unwrap();
    }
    let lines = log.take();
    let after = lines.first().and_then(|line| line.split_once(" after=")).map(|(_, after)| after.to_owned());
    let parts = ["message=connected to the broker again", "server.address=\"broker-1\" server.port=9092"];
    assert_line(lines, Level::INFO, &parts);
    assert!(
        after.as_ref().is_some_and(|after| after.starts_with("60.") || after.starts_with("61.")),
        "{after:?}"
    );
}

/// Each broker has a line, and the calls have none of their own.
#[tokio::test(start_paused = true)]
async fn when_no_broker_can_be_reached_each_has_a_line() {
    let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
    let partition = open(&cluster).await;
    partition.produce(record("a")).await.unwrap();
    let log = Recording::at(Level::INFO);
    for id in 1..=3 {
        cluster.kill(id).unwrap();
    }
    let append = spawn_append(&partition, 120 * SECOND);
    sleep(30 * SECOND).await;
    let mut lines = log.take();
    lines.sort();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for (line, broker) in lines.into_iter().zip(["broker-1", "broker-2", "broker-3"]) {
        let address = format!("server.address=\"{broker}\"");
        assert_line(vec![line], Level::WARN, &["the broker cannot be reached", &address]);
    }
    for id in 1..=3 {
        cluster.restart(id).unwrap();
    }
    append.await.unwrap();
    let lines = log.take();
    let again = lines.iter().all(|line| line.contains("message=connected to the broker again"));
    assert!(again && (1..=3).contains(&lines.len()), "{lines:#?}");
}

/// One that cannot be reached says nothing of those that do not answer.
#[tokio::test(start_paused = true)]
async fn an_outage_says_so_although_a_broker_was_missed_before() {
    let cluster = EmbeddedCluster::builder().brokers(2).topic_assigned("wal", &[&[1], &[2]]);
    let cluster = cluster.start_in_memory().unwrap();
    let client = builder(&cluster).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let missed = client.partition_client("wal", 1).await.unwrap();
    let log = Recording::at(Level::INFO);
    cluster.kill(2).unwrap();
    missed.get_offset(OffsetAt::Latest).deadline(10 * SECOND).await.unwrap_err();
    assert_eq!(log.take_with("server.address=\"broker-2\"").len(), 1);
    // The client goes on trying the one that is down, too.
    cluster.on_all(ApiKey::METADATA, Fault::Drop);
    cluster.on_all(ApiKey::LIST_OFFSETS, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    partition.get_offset(OffsetAt::Latest).deadline(20 * SECOND).await.unwrap_err();
    let lines = log.take_with("error.type=NoBroker");
    assert_line(lines, Level::WARN, &["message=still retrying", "broker-2:9092"]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_says_so_once() {
    let broker = broker();
    let partition = open(&broker).await;
    let log = Recording::at(Level::INFO);
    broker.on_all(ApiKey::LIST_OFFSETS, Fault::Drop);
    let lookup = |partition: PartitionClient| {
        tokio::spawn(async move { partition.get_offset(OffsetAt::Latest).deadline(90 * SECOND).await })
    };
    let (first, second) = (lookup(partition.clone()), lookup(partition.clone()));
    sleep(60 * SECOND).await;
    let parts = ["message=the broker does not answer", "response to ListOffsets", "error.type=Connection"];
    assert_line(log.take(), Level::WARN, &parts);
    broker.clear_faults();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_line(
        log.take(),
        Level::INFO,
        &["message=calls succeed again", "messaging.operation.name=ListOffsets"],
    );
}

/// Each of the two has a line for its beginning, and one for its end.
#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_and_then_cannot_be_reached_says_both() {
    let broker = broker();
    let partition = open(&broker).await;
    let log = Recording::at(Level::INFO);
    broker.on_all(ApiKey::LIST_OFFSETS, Fault::Drop);
    let same = partition.clone();
    let lookup = tokio::spawn(async move { same.get_offset(OffsetAt::Latest).deadline(90 * SECOND).await });
    sleep(10 * SECOND).await;
    assert_line(log.take(), Level::WARN, &["message=the broker does not answer"]);
    broker.kill(1).unwrap();
    sleep(10 * SECOND).await;
    assert_line(log.take(), Level::WARN, &["message=the broker cannot be reached"]);
    broker.restart(1).unwrap();
    sleep(10 * SECOND).await;
    assert_line(log.take(), Level::INFO, &["message=connected to the broker again"]);
    broker.clear_faults();
    lookup.await.unwrap().unwrap();
    assert_line(log.take(), Level::INFO, &["message=calls succeed again"]);
}

/// An attempt that hangs after one without a response. Each of the two has a line, and an end of its own.
#[tokio::test(start_paused = true)]
async fn a_broker_that_is_cut_off_says_that_it_does_not_answer_and_cannot_be_reached() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    let log = Recording::at(Level::INFO);
    wire.set(WireMode::Unreachable);
    broker.on(ApiKey::LIST_OFFSETS, Fault::Drop);
    let lookup =
        tokio::spawn(async move { partition.get_offset(OffsetAt::Latest).deadline(150 * SECOND).await });
    sleep(100 * SECOND).await;
    let [silent, unreachable] = log.take().try_into().unwrap();
    assert_line(vec![silent], Level::WARN, &["message=the broker does not answer"]);
    assert_line(vec![unreachable], Level::WARN, &["message=the broker cannot be reached"]);
    wire.set(WireMode::Passing);
    lookup.await.unwrap().unwrap();
    let [connected, answers] = log.take().try_into().unwrap();
    assert_line(vec![connected], Level::INFO, &["message=connected to the broker again"]);
    assert_line(vec![answers], Level::INFO, &["message=calls succeed again"]);
}

/// One line for the partition, whatever is called.
#[tokio::test(start_paused = true)]
async fn a_partition_without_a_leader_says_so_once_and_that_it_is_over() {
    let cluster = EmbeddedCluster::builder().brokers(3).topic_assigned("wal", &[&[2], &[2]]);
    let cluster = cluster.start_in_memory().unwrap();
    let client = builder(&cluster).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let another = client.partition_client("wal", 1).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    let log = Recording::at(Level::INFO);
    cluster.stop(2).unwrap();
    let append = spawn_append(&partition, 120 * SECOND);
    let same = partition.clone();
    let offset = tokio::spawn(async move { same.get_offset(OffsetAt::Latest).deadline(120 * SECOND).await });
    sleep(60 * SECOND).await;
    let parts = [
        "message=the partition has no leader",
        "messaging.destination.name=\"wal\" messaging.destination.partition.id=0",
        "error.type=LEADER_NOT_AVAILABLE",
    ];
    assert_line(log.take(), Level::WARN, &parts);
    // Another partition has a line of its own, also if its call gives up.
    another.get_offset(OffsetAt::Latest).deadline(5 * SECOND).await.unwrap_err();
    let parts = ["message=the partition has no leader", "messaging.destination.partition.id=1"];
    assert_line(log.take(), Level::WARN, &parts);

    cluster.restart(2).unwrap();
    append.await.unwrap();
    offset.await.unwrap().unwrap();
    let parts = ["message=calls succeed again", "messaging.destination.partition.id=0", "after=6"];
    assert_line(log.take(), Level::INFO, &parts);
    another.get_offset(OffsetAt::Latest).await.unwrap();
    let parts = ["message=calls succeed again", "messaging.destination.partition.id=1"];
    assert_line(log.take(), Level::INFO, &parts);
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_retried_for_another_reason_say_so() {
    let broker = broker();
    let partition = open(&broker).await;
    let log = Recording::at(Level::INFO);
    broker.on_all(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let append = spawn_append(&partition, 60 * SECOND);
    sleep(20 * SECOND).await;
    let parts = ["message=still retrying", "messaging.operation.name=Produce", "NOT_ENOUGH_REPLICAS"];
    assert_line(log.take(), Level::WARN, &parts);
    // A read does not end it.
    partition.get_offset(OffsetAt::Latest).await.unwrap();
    assert_none(log.take());
    broker.clear_faults();
    append.await.unwrap();
    assert_line(
        log.take(),
        Level::INFO,
        &["message=calls succeed again", "messaging.operation.name=Produce"],
    );
}

/// What comes and goes is reported once a minute.
#[tokio::test(start_paused = true)]
async fn a_trouble_that_comes_back_within_a_minute_says_nothing() {
    let broker = broker();
    let partition = open(&broker).await;
    let log = Recording::at(Level::INFO);
    // Almost three minutes.
    for _ in 0..20 {
        broker.on_all(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
        let append = spawn_append(&partition, 60 * SECOND);
        sleep(8 * SECOND).await;
        broker.clear_faults();
        append.await.unwrap();
    }
    let lines = log.take();
    let (begins, ends): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.starts_with("WARN"));
    assert_eq!((begins.len(), ends.len()), (3, 3), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_missing_says_so_once() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let log = Recording::at(Level::INFO);
    client.partition_client("nothing", 0).await.unwrap_err();
    let parts = [
        "message=the topic or the partition is missing",
        "messaging.destination.name=\"nothing\"",
        "error.type=UNKNOWN_TOPIC_OR_PARTITION",
    ];
    assert_line(log.take(), Level::WARN, &parts);
    client.partition_client("nothing", 0).await.unwrap_err();
    assert_none(log.take());
    broker.create_topic("nothing", 1).unwrap();
    client.partition_client("nothing", 0).await.unwrap();
    assert_line(log.take(), Level::INFO, &["message=calls succeed again", "\"nothing\""]);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_says_so_once_and_that_it_is_over() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("a")).await.unwrap();
    let log = Recording::at(Level::INFO);
    // A short one is nothing to look at.
    broker.on(ApiKey::PRODUCE, Fault::Throttle(SECOND / 2));
    for _ in 0..2 {
        partition.produce(record("b")).await.unwrap();
    }
    assert_none(log.take());
    broker.on_times(ApiKey::PRODUCE, 10, Fault::Throttle(3 * SECOND));
    for _ in 0..10 {
        partition.produce(record("c")).await.unwrap();
    }
    let parts = ["message=throttled by the broker", "server.address=\"broker-1\"", "pause=3s"];
    assert_line(log.take(), Level::WARN, &parts);
    partition.produce(record("d")).await.unwrap();
    assert_line(log.take(), Level::INFO, &["message=no longer throttled by the broker", "after=30"]);
}

/// A throttle is over when its pause is, although no call shows it.
#[tokio::test(start_paused = true)]
async fn throttles_far_apart_are_not_one() {
    let broker = broker();
    let partition = open(&broker).await;
    let log = Recording::at(Level::INFO);
    for _ in 0..3 {
        broker.on(ApiKey::PRODUCE, Fault::Throttle(SECOND / 200));
        partition.produce(record("a")).await.unwrap();
        sleep(240 * SECOND).await;
    }
    assert_none(log.take());
    for after in ["after=3", "after=5"] {
        let pause = if after == "after=3" { 3 } else { 5 };
        broker.on(ApiKey::PRODUCE, Fault::Throttle(pause * SECOND));
        partition.produce(record("b")).await.unwrap();
        assert_line(log.take(), Level::WARN, &["message=throttled by the broker", "after=0ns"]);
        sleep(240 * SECOND).await;
        partition.produce(record("c")).await.unwrap();
        assert_line(log.take(), Level::INFO, &["message=no longer throttled by the broker", after]);
    }
}

/// A program may settle a doubt by other means than `resolve`.
#[tokio::test(start_paused = true)]
async fn each_append_in_doubt_says_so_and_the_last_that_all_are_resolved() {
    let broker = broker();
    let partition = open(&broker).await;
    let log = Recording::at(Level::INFO);
    let mut in_doubt = Vec::new();
    for pause in [0, 1, 60] {
        sleep(pause * SECOND).await;
        broker.on(ApiKey::PRODUCE, Fault::LoseReply);
        broker.on_all(ApiKey::PRODUCE, Fault::Drop);
        let error = partition.produce(record("a")).deadline(5 * SECOND).await.unwrap_err();
        in_doubt.push(error.in_doubt().unwrap().clone());
        broker.clear_faults();
        // It has the handle, with which an operator can settle it.
        let parts = ["message=an append is in doubt", "in doubt: producer id "];
        assert_line(log.take_with("an append is in doubt"), Level::WARN, &parts);
    }
    let count = in_doubt.len();
    for (index, in_doubt) in in_doubt.iter().enumerate() {
        partition.resolve(in_doubt, Record::new(None::<&str>, "fence")).await.unwrap();
        let is_last = index + 1 == count;
        assert_eq!(log.take_with("in doubt").len(), usize::from(is_last), "{index}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_in_doubt_says_so_once_and_that_it_is_resolved() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("a")).await.unwrap();
    let log = Recording::at(Level::INFO);
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(20 * SECOND));
    let error = partition.produce(record("b")).deadline(5 * SECOND).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    let parts = [
        "message=an append is in doubt: it may be on the log",
        "messaging.destination.name=\"wal\" messaging.destination.partition.id=0",
        "error.type=DeadlineExceeded",
    ];
    assert_line(log.take(), Level::WARN, &parts);
    let fence = Record::new(None::<&str>, "fence");
    let resolution = partition.resolve(error.in_doubt().unwrap(), fence).await.unwrap();
    assert_eq!(resolution, Resolution::Appended(1..2));
    let lines = log.take_with("append in doubt");
    assert_line(lines, Level::INFO, &["message=the append in doubt is resolved", "messaging.kafka.offset=1"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_fails_without_its_caller_says_so() {
    let broker = broker();
    let partition = open(&broker).await;
    let log = Recording::at(Level::INFO);
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    let batch = partition.encode(record("a")).unwrap();
    drop(partition.reserve(batch.size_in_bytes()).await.unwrap().submit(batch));
    sleep(SECOND).await;
    let parts = ["message=an append failed and its caller is gone", "error.type=INVALID_RECORD"];
    assert_line(log.take(), Level::WARN, &parts);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_authentication_says_so_once_with_the_words_of_the_broker() {
    let broker = cluster(users().failure_delay(Duration::ZERO));
    let log = Recording::at(Level::INFO);
    builder(&broker).sasl(plain()).build().await.unwrap();
    assert_none(log.take());
    let wrong = kwal_client::sasl::Sasl::plain("alice", "wrong").danger_send_unencrypted();
    builder(&broker).sasl(wrong).build().await.unwrap_err();
    let parts = [
        "message=the broker refuses the authentication",
        "server.address=\"broker-1\"",
        "Authentication failed: Invalid username or password",
    ];
    assert_line(log.take(), Level::WARN, &parts);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_at_a_batch_says_so_and_that_it_goes_on() {
    let broker = broker();
    let partition = open(&broker).await;
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(1_700_000_000_000, None, Some(b"a"), &Headers::new());
    let mut bytes = builder.finish().unwrap().to_bytes().to_vec();
    // A codec that nobody knows.
    bytes[22] |= 7;
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    broker.append_raw("wal", 0, bytes.into()).unwrap();
    let log = Recording::at(Level::INFO);
    let mut stream = reader::follow(&partition, 0).await.unwrap();
    for _ in 0..3 {
        stream.next_batch().await.unwrap_err();
    }
    let parts = [
        "message=a reader stops at a batch that cannot be read",
        "messaging.kafka.offset=0",
        "error.type=Corrupt",
    ];
    assert_line(log.take(), Level::WARN, &parts);
    // Another reader stops there, later.
    sleep(60 * SECOND).await;
    let mut another = reader::follow(&partition, 0).await.unwrap();
    another.next_batch().await.unwrap_err();
    assert_line(log.take(), Level::WARN, &["message=a reader stops at a batch that cannot be read"]);
    sleep(10 * SECOND).await;
    assert_eq!(stream.skip_unreadable(), Some(0..1));
    let parts = ["message=the reader goes on after the batch that cannot be read", "after=70"];
    assert_line(log.take(), Level::INFO, &parts);

    // The policy says so beforehand.
    sleep(60 * SECOND).await;
    let skip = reader::Unreadable::Skip;
    let mut replay = reader::replay(&partition, 0).unreadable(skip).await.unwrap();
    assert!(replay.next().await.is_none());
    let parts = ["message=a reader leaves out a batch that cannot be read", "messaging.kafka.offset=0"];
    assert_line(log.take(), Level::WARN, &parts);
}

#[tokio::test(start_paused = true)]
async fn a_call_has_a_span_with_what_it_does_and_what_came_of_it() {
    let broker = broker();
    let partition = open(&broker).await;
    let log = Recording::at(Level::DEBUG);
    partition.produce(record("a")).await.unwrap();
    let spans = log.take_with("span");
    let of_append = "span append messaging.system=\"kafka\" messaging.operation.name=\"append\" \
                     messaging.destination.name=\"wal\" messaging.destination.partition.id=0 \
                     messaging.batch.message_count=1";
    assert_eq!(spans.first().map(String::as_str), Some(of_append), "{spans:#?}");
    assert!(spans.contains(&"span messaging.kafka.offset=0".to_owned()), "{spans:#?}");
    assert!(spans.contains(&"span attempts=1".to_owned()), "{spans:#?}");
    let tomorrow = time::OffsetDateTime::now_utc() + time::Duration::DAY;
    partition.get_offset(OffsetAt::Timestamp(tomorrow)).await.unwrap_err();
    let spans = log.take_with("span");
    assert!(spans[0].starts_with("span get_offset "), "{spans:#?}");
    assert_eq!(spans.last().map(String::as_str), Some("span error.type=OffsetNotFound"), "{spans:#?}");
}

/// Also if metadata leaves the broker out for a while.
#[tokio::test(start_paused = true)]
async fn connections_that_are_shared_are_reported_once() {
    let cluster = EmbeddedCluster::builder().brokers(2).topic_assigned("wal", &[&[2, 1]]);
    let cluster = cluster.start_in_memory().unwrap();
    let log = Recording::at(Level::INFO);
    let partition = open(&cluster).await;
    let mut lines = Vec::new();
    for _ in 0..3 {
        cluster.limit_connections(2, Some(1)).unwrap();
        partition.produce(record("a")).await.unwrap();
        partition.fetch(0).await.unwrap();
        lines.extend(log.take_with("no further connection to the broker can be opened"));
        cluster.kill(2).unwrap();
        partition.produce(record("b")).await.unwrap();
        cluster.restart(2).unwrap();
        sleep(60 * SECOND).await;
        cluster.move_leader("wal", 0, 2).unwrap();
    }
    assert_line(lines, Level::WARN, &["server.address=\"broker-2\""]);
}
