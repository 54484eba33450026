//! C6, where it is hardest to keep: takeovers at the same time, slow coordinators, odd logs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kwal_client::{
    Deadlines, Limits, PartitionClient,
    error::{Error, ErrorKind, Outcome},
    record::{Barrier, Record},
};
use kwal_protocol::{
    api::ApiKey,
    record::{BatchBuilder, Compression, Headers, OwnedRecord},
};
use kwal_testkit::{Dialect, EmbeddedCluster, Fault, wire::Decision};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::support::{HOUR, Wire, broker, builder, hold, log, open, record, settle};

const DAY: Duration = Duration::from_secs(24 * 3600);
const ID: &str = "writer/wal/0";

/// Holds requests of an API while the switch is on.
fn hold_requests(wire: &Wire, api: ApiKey) -> Arc<AtomicBool> {
    let is_held = Arc::new(AtomicBool::new(true));
    wire.on_request({
        let is_held = Arc::clone(&is_held);
        move |frame| match frame.api == api && is_held.load(Ordering::Relaxed) {
            true => Decision::Hold,
            false => Decision::Pass,
        }
    });
    is_held
}

fn spawn_hold(wire: &Wire) -> JoinHandle<Result<PartitionClient, Error>> {
    let wire = wire.clone();
    tokio::spawn(async move { wire.client().await.partition_client("wal", 0).exclusive("writer").await })
}

#[track_caller]
fn assert_is_fenced(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_takeover_that_came_too_late_does_not_hide_the_holder() {
    let broker = broker();
    // Two of them at the same time, and the name is forgotten in between.
    let [first, second] = [Wire::to(&broker), Wire::to(&broker)];
    let [first_held, second_held] = [&first, &second].map(|wire| hold_requests(wire, ApiKey::PRODUCE));
    let one = spawn_hold(&first);
    while first.count(ApiKey::PRODUCE) == 0 {
        settle().await;
    }
    assert!(broker.forget_transactional_id(ID));
    let two = spawn_hold(&second);
    while second.count(ApiKey::PRODUCE) == 0 {
        settle().await;
    }
    first_held.store(false, Ordering::Relaxed);
    first.release();
    let holder = one.await.unwrap().unwrap();
    second_held.store(false, Ordering::Relaxed);
    second.release();
    assert_is_fenced(&two.await.unwrap().unwrap_err());
    holder.produce(record("of the holder")).await.unwrap();
    // Its barrier is there nevertheless, and the id is that of those who come next.
    let next = hold(&broker).await;
    assert_is_fenced(&holder.produce(record("too late")).await.unwrap_err());
    next.produce(record("next")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_overtaken_by_a_renewal_fences_nobody() {
    let broker = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    client.partition_client("wal", 0).exclusive("writer").await.unwrap();
    let coordinator = broker.coordinator(ID).unwrap();
    let leader = broker.brokers().into_iter().find(|id| *id != coordinator).unwrap();
    if broker.leader("wal", 0).unwrap() != Some(leader) {
        broker.move_leader("wal", 0, leader).unwrap();
    }
    let second = Duration::from_secs(1);
    let open = client.partition_client("wal", 0).exclusive("writer");
    let partition = open.renewal(10 * second).probe(9 * second).await.unwrap();
    partition.produce(record("of the first epoch")).await.unwrap();
    let is_held = hold_requests(&wire, ApiKey::DESCRIBE_PRODUCERS);
    sleep(11 * second).await;
    assert_eq!(partition.holder().unwrap().epoch, 2);
    partition.produce(record("of the next epoch")).await.unwrap();
    is_held.store(false, Ordering::Relaxed);
    wire.release();
    assert!(timeout(5 * second, partition.fenced()).await.is_err());
    partition.produce(record("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_takeover_that_was_stopped_for_days_asks_before_it_appends() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let is_held = Arc::new(AtomicBool::new(true));
    wire.on_response({
        let is_held = Arc::clone(&is_held);
        move |frame| match frame.api == ApiKey::FETCH && is_held.load(Ordering::Relaxed) {
            true => Decision::Hold,
            false => Decision::Pass,
        }
    });
    let mut patient = Deadlines::default().operation(10 * DAY);
    patient.request = 10 * DAY;
    let client = wire.builder().deadlines(patient).build().await.unwrap();
    // It has appended its barrier, and reads it back.
    let first = tokio::spawn(client.partition_client("wal", 0).exclusive("writer").into_future());
    while log(&broker).is_empty() {
        settle().await;
    }
    assert_eq!(log(&broker).len(), 1);
    let second = hold(&broker).await;
    sleep(3 * DAY).await;
    broker.forget_producers("wal", 0).unwrap();
    is_held.store(false, Ordering::Relaxed);
    wire.release();
    if let Ok(first) = first.await.unwrap() {
        assert_is_fenced(&first.produce(record("too late")).await.unwrap_err());
    }
    second.produce(record("a")).await.unwrap();
    assert_eq!(log(&broker), ["", "", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_never_answers_does_not_stall_appends() {
    let broker = broker();
    let partition = hold(&broker).await;
    broker.on_all(ApiKey::INIT_PRODUCER_ID, Fault::BlackHole);
    for append in 0..60 * 60 {
        sleep(HOUR / 60).await;
        let produced = partition.produce(record("a")).deadline(Duration::from_secs(2)).await;
        produced.unwrap_or_else(|error| panic!("{append}: {error}"));
    }
}

#[tokio::test(start_paused = true)]
async fn copies_of_barriers_are_records_like_others() {
    let broker = broker();
    hold(&broker).await;
    let [OwnedRecord { key, value, headers, .. }] =
        <[_; 1]>::try_from(broker.records("wal", 0).unwrap()).unwrap();
    let copy = vec![Record { headers, ..Record::new(key, value) }];
    let mirror = open(&broker).await;
    mirror.produce(copy.clone()).await.unwrap();
    let second = hold(&broker).await;
    second.produce(record("second")).await.unwrap();
    mirror.produce(copy).await.unwrap();
    assert!(broker.forget_transactional_id(ID));
    let third = hold(&broker).await;
    assert_is_fenced(&second.produce(record("too late")).await.unwrap_err());
    third.produce(record("third")).await.unwrap();
    mirror.produce(record("mirror")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn batches_that_cannot_be_barriers_are_not_read() {
    let broker = broker();
    let mut builder_ = BatchBuilder::new(Compression::Gzip);
    builder_.push(0, None, Some(&vec![7; 300_000]), &Headers::default());
    let batch = builder_.finish().unwrap().to_bytes();
    broker.append_raw("wal", 0, batch).unwrap();
    let limits = Limits::default().decompressed(100_000);
    let client = builder(&broker).limits(limits).build().await.unwrap();
    let partition = client.partition_client("wal", 0).exclusive("writer").await.unwrap();
    partition.produce(record("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unclean_election_during_a_takeover_is_not_taken_for_another_writer() {
    let broker = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
    let leader = broker.leader("wal", 0).unwrap().unwrap();
    let other = broker.brokers().into_iter().find(|id| *id != leader).unwrap();
    let nameless = open(&broker).await;
    for _ in 0..3 {
        nameless.produce(record("a")).await.unwrap();
    }
    broker.set_lag("wal", 0, other, Duration::MAX).unwrap();
    broker.shrink_isr("wal", 0, other).unwrap();
    for _ in 0..3 {
        nameless.produce(record("b")).await.unwrap();
    }
    let wire = Wire::to(&broker);
    let is_held = hold_requests(&wire, ApiKey::PRODUCE);
    let opening = spawn_hold(&wire);
    settle().await;
    broker.elect_unclean("wal", 0, other).unwrap();
    is_held.store(false, Ordering::Relaxed);
    wire.release();
    let partition = opening.await.unwrap().unwrap();
    partition.produce(record("c")).await.unwrap();
    let Some(Barrier { epoch, .. }) =
        broker.records("wal", 0).unwrap().iter().filter_map(Barrier::parse).last()
    else {
        panic!()
    };
    assert_eq!(partition.holder().unwrap().epoch, epoch);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_holder_that_is_dropped() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    client.partition_client("wal", 0).exclusive("writer").await.unwrap();
    sleep(HOUR).await;
    let before = tasks();
    for probe in [DAY, Duration::MAX] {
        for _ in 0..50 {
            client.partition_client("wal", 0).exclusive("writer").probe(probe).await.unwrap();
        }
    }
    sleep(HOUR).await;
    assert!(tasks() <= before, "{} tasks, {before} before", tasks());
    drop(client);
    sleep(HOUR).await;
    assert_eq!(wire.open().0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_takeover_does_not_outlive_its_client() {
    for millis in [0, 1, 5, 20] {
        let broker = broker();
        let wire = Wire::to(&broker);
        let is_held = hold_requests(&wire, ApiKey::PRODUCE);
        let client = wire.client().await;
        let opening = tokio::spawn(client.partition_client("wal", 0).exclusive("writer").into_future());
        sleep(Duration::from_millis(millis)).await;
        client.close().await;
        is_held.store(false, Ordering::Relaxed);
        wire.release();
        let error = timeout(HOUR, opening).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed), "{millis}: {error}");
        sleep(HOUR).await;
        assert_eq!(wire.open().0, 0);
    }
}

/// Takes over on a broker, twice, and asserts that only the later holder can append.
async fn assert_exclusive(broker: &EmbeddedCluster) {
    let first = hold(broker).await;
    first.produce(keyed("first")).await.unwrap();
    let second = hold(broker).await;
    assert_is_fenced(&first.produce(keyed("too late")).await.unwrap_err());
    second.produce(keyed("second")).await.unwrap();
    assert_eq!(log(broker), ["", "first", "", "second"]);
    assert!(broker.forget_transactional_id(ID));
    let third = hold(broker).await;
    assert_ne!(third.holder().unwrap().producer_id, second.holder().unwrap().producer_id);
    assert_is_fenced(&second.produce(keyed("too late")).await.unwrap_err());
    third.produce(keyed("third")).await.unwrap();
}

/// Returns a record that compacted topics take, too.
fn keyed(value: &str) -> Vec<Record> {
    vec![Record::new(Some(value.to_owned()), value.to_owned())]
}

#[tokio::test(start_paused = true)]
async fn topics_of_every_kind_can_be_taken_over() {
    for (name, value) in [
        ("compression.type", "gzip"),
        ("compression.type", "lz4"),
        ("compression.type", "uncompressed"),
        ("message.timestamp.type", "LogAppendTime"),
        ("cleanup.policy", "compact"),
    ] {
        let builder = EmbeddedCluster::builder().topic_with("wal", 1, &[(name, value)]);
        assert_exclusive(&builder.start_in_memory().unwrap()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn logs_on_older_brokers_can_be_taken_over() {
    for dialect in [Dialect::kafka_2_8(), Dialect::kafka_3_9()] {
        let builder = EmbeddedCluster::builder().dialect(dialect).topic("wal", 1);
        assert_exclusive(&builder.start_in_memory().unwrap()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_takeover_goes_on_where_the_epochs_end() {
    let broker = broker();
    let mut holder = hold(&broker).await;
    let first = holder.holder().unwrap();
    holder.produce(record("first")).await.unwrap();
    assert!(broker.set_producer_epoch(ID, i16::MAX - 3));
    for epoch in [i16::MAX - 2, i16::MAX - 1] {
        let next = hold(&broker).await;
        let held = next.holder().unwrap();
        assert_eq!((held.producer_id, held.epoch), (first.producer_id, epoch));
        assert_is_fenced(&holder.produce(record("too late")).await.unwrap_err());
        next.produce(record("a")).await.unwrap();
        holder = next;
    }
    let next = hold(&broker).await;
    assert_ne!(next.holder().unwrap().producer_id, first.producer_id);
    assert_is_fenced(&holder.produce(record("too late")).await.unwrap_err());
    next.produce(record("next")).await.unwrap();
    assert_is_fenced(&holder.produce(record("too late")).await.unwrap_err());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_uses_the_last_epoch_and_then_steps_down() {
    let broker = broker();
    hold(&broker).await;
    assert!(broker.set_producer_epoch(ID, i16::MAX - 3));
    let client = builder(&broker).build().await.unwrap();
    let open = client.partition_client("wal", 0).exclusive("writer");
    let partition = open.renewal(Duration::from_secs(10)).await.unwrap();
    assert_eq!(partition.holder().unwrap().epoch, i16::MAX - 2);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(partition.holder().unwrap().epoch, i16::MAX - 1);
    partition.produce(record("under the last epoch")).await.unwrap();
    sleep(Duration::from_secs(11)).await;
    assert_is_fenced(&timeout(HOUR, partition.fenced()).await.unwrap());
    hold(&broker).await.produce(record("next")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_permit_from_before_a_fence_appends_nothing() {
    let broker = broker();
    let first = hold(&broker).await;
    let batch = first.encode(record("too late")).unwrap();
    let permit = first.reserve(batch.size_in_bytes()).await.unwrap();
    let another = first.reserve(batch.size_in_bytes()).await.unwrap();
    hold(&broker).await;
    assert_is_fenced(&permit.submit(batch.clone()).await.unwrap_err());
    assert_is_fenced(&another.submit(batch).await.unwrap_err());
    assert_eq!(log(&broker), ["", ""]);
}

#[tokio::test(start_paused = true)]
async fn a_close_does_not_wait_for_a_renewal_that_is_not_answered() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).exclusive("writer").await.unwrap();
    let is_held = hold_requests(&wire, ApiKey::INIT_PRODUCER_ID);
    // So long a silence makes the renewal mandatory.
    sleep(2 * DAY).await;
    let append = tokio::spawn({
        let partition = partition.clone();
        async move { partition.produce(record("a")).deadline(HOUR).await }
    });
    settle().await;
    timeout(HOUR, partition.close()).await.unwrap();
    let error = timeout(HOUR, append).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    assert_eq!(log(&broker), [""]);
    is_held.store(false, Ordering::Relaxed);
    wire.release();
    drop((partition, client));
    sleep(HOUR).await;
    assert_eq!(wire.open().0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_takeover_waits_for_replicas_in_sync() {
    let settings = [("min.insync.replicas", "2")];
    let broker =
        EmbeddedCluster::builder().brokers(3).topic_with("wal", 1, &settings).start_in_memory().unwrap();
    let first = hold(&broker).await;
    let leader = broker.leader("wal", 0).unwrap().unwrap();
    let others: Vec<_> = broker.brokers().into_iter().filter(|id| *id != leader).collect();
    for id in &others {
        broker.set_lag("wal", 0, *id, Duration::MAX).unwrap();
        broker.shrink_isr("wal", 0, *id).unwrap();
    }
    let client = builder(&broker).build().await.unwrap();
    let open = || client.partition_client("wal", 0).exclusive("writer");
    let error = open().deadline(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error}");
    let opening = tokio::spawn(open().into_future());
    settle().await;
    for id in &others {
        broker.set_lag("wal", 0, *id, Duration::ZERO).unwrap();
    }
    let second = opening.await.unwrap().unwrap();
    assert_is_fenced(&first.produce(record("too late")).await.unwrap_err());
    second.produce(record("second")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_longest_name_is_found_again() {
    let broker = broker();
    // Two bytes each, and one.
    let name = format!("{}a", "ä".repeat(127));
    let client = builder(&broker).build().await.unwrap();
    let open = async || client.partition_client("wal", 0).exclusive(name.clone()).await.unwrap();
    let first = open().await;
    first.produce(record("first")).await.unwrap();
    assert!(broker.forget_transactional_id(&format!("{name}/wal/0")));
    let second = open().await;
    assert_eq!(second.holder().unwrap().name, name);
    assert_is_fenced(&first.produce(record("too late")).await.unwrap_err());
    second.produce(record("second")).await.unwrap();
}
