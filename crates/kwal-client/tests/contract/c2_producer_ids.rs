//! C2: one producer id for each partition, and no more ids than partition clients at the same time.

use std::time::Duration;

use kwal_client::{
    OffsetAt, Resolution,
    error::{ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::Fault;

use crate::support::{
    HOUR, Wire, assert_took, broker, builder, log, open_over, polled, record, settle, timed,
};

#[tokio::test(start_paused = true)]
async fn a_partition_client_for_each_append_reuses_the_same_id() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    for i in 0..20 {
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record(i.to_string())).await.unwrap();
    }
    assert_eq!(broker.requests(ApiKey::INIT_PRODUCER_ID), 1);
    let stamps = wire.stamps();
    assert!(stamps.iter().zip(0..).all(|(stamp, i)| *stamp == (stamps[0].0, 0, i)), "{stamps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_several_threads_ids_are_reused_too() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for i in 0..50 {
                    let partition = client.partition_client("wal", 0).await.unwrap();
                    partition.produce(record(i.to_string())).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let ids = broker.requests(ApiKey::INIT_PRODUCER_ID);
    assert!(ids <= 4, "{ids} ids for four tasks");
    assert_eq!(log(&broker).len(), 200);
}

#[tokio::test(start_paused = true)]
async fn clones_share_an_id_and_other_clients_have_their_own() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let one = client.partition_client("wal", 0).await.unwrap();
    one.clone().produce(record("a")).await.unwrap();
    one.produce(record("b")).await.unwrap();
    let second = client.partition_client("wal", 0).await.unwrap();
    second.produce(record("c")).await.unwrap();
    one.produce(record("d")).await.unwrap();
    let other = client.partition_client("wal", 1).await.unwrap();
    other.produce(record("e")).await.unwrap();
    let [a, b, c, d, e] = wire.stamps()[..] else { panic!("{:?}", wire.stamps()) };
    assert_eq!((b, d), ((a.0, 0, 1), (a.0, 0, 2)));
    assert_eq!((c.2, e.2), (0, 0));
    assert!(a.0 != c.0 && a.0 != e.0 && c.0 != e.0);
    assert_eq!(log(&broker), ["a", "b", "c", "d"]);

    // Both are reused, and no other id is requested.
    drop((one, second));
    let again =
        [client.partition_client("wal", 0).await.unwrap(), client.partition_client("wal", 0).await.unwrap()];
    for partition in again {
        partition.produce(record("f")).await.unwrap();
    }
    assert_eq!(broker.requests(ApiKey::INIT_PRODUCER_ID), 3);
}

#[tokio::test(start_paused = true)]
async fn the_epoch_raised_after_an_append_in_doubt_is_kept() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    let error = partition.produce(record("b")).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    drop(partition);
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("c")).await.unwrap();
    let id = wire.stamps()[0].0;
    assert_eq!(wire.stamps(), [(id, 0, 0), (id, 0, 1), (id, 1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_id_is_not_reused() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_PRODUCER_EPOCH));
    partition.produce(record("a")).await.unwrap_err();
    drop(partition);
    client.partition_client("wal", 0).await.unwrap().produce(record("b")).await.unwrap();
    assert_ne!(wire.stamps()[0].0, wire.stamps()[1].0);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_fenced_while_it_was_in_use_is_not_reused() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let open = async || client.partition_client("wal", 0).await.unwrap();
    let owner = open().await;
    owner.produce(record("a")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    let error = owner.produce(record("b")).await.unwrap_err();
    let fence = Record::new(None::<&str>, "fence");
    let resolved = open().await.resolve(error.in_doubt().unwrap(), fence).await.unwrap();
    assert_eq!(resolved, Resolution::Appended(1..2));
    // It goes without having learnt that it was fenced.
    drop(owner);
    settle().await;
    open().await.produce(record("c")).await.unwrap();
    assert_eq!(log(&broker), ["a", "b", "fence", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_append_keeps_its_id_until_it_is_completed() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::LoseReply);
    assert!(polled(partition.produce(record("a")), 1).await.is_none());
    drop(partition);
    let second = client.partition_client("wal", 0).await.unwrap();
    second.produce(record("b")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stamps = wire.stamps();
    let of = |id| stamps.iter().filter(|stamp| stamp.0 == id).count();
    assert_eq!((of(stamps[0].0), stamps.len()), (2, 3), "{stamps:?}");
    let mut values = log(&broker);
    values.sort();
    assert_eq!(values, ["a", "b"]);
    // Two at the same time needed two ids; no further one is requested.
    drop(second);
    for _ in 0..3 {
        client.partition_client("wal", 0).await.unwrap().produce(record("c")).await.unwrap();
    }
    assert_eq!(broker.requests(ApiKey::INIT_PRODUCER_ID), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_without_idempotence_takes_no_id() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    for idempotent in [true, false, true, false, true] {
        let partition = client.partition_client("wal", 0).idempotent(idempotent).await.unwrap();
        partition.produce(record("a")).await.unwrap();
    }
    assert_eq!(broker.requests(ApiKey::INIT_PRODUCER_ID), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_only_reads_takes_no_id_and_does_not_wait_for_one() {
    let broker = broker();
    let wire = Wire::to(&broker);
    broker.on_all(ApiKey::INIT_PRODUCER_ID, Fault::DelayReply(HOUR));
    let client = wire.client().await;
    let (opened, took) = timed(client.partition_client("wal", 0).into_future()).await;
    let partition = opened.unwrap();
    assert_eq!(took, Duration::ZERO);
    partition.fetch(0).max_wait(Duration::ZERO).await.unwrap();
    partition.get_offset(OffsetAt::Latest).await.unwrap();
    tokio::time::sleep(HOUR).await;
    assert_eq!((wire.count(ApiKey::INIT_PRODUCER_ID), wire.open().0), (0, 2), "no connection for appends");
    // The first append waits for it within its deadline.
    let limit = Duration::from_secs(15);
    let (error, took) = timed(partition.produce(record("a")).deadline(limit)).await;
    let error = error.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_took(took, limit);
    broker.clear_faults();
    partition.produce(record("b")).await.unwrap();
    assert_eq!(log(&broker), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_dropped_while_it_waits_for_an_id_loses_none() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    client.partition_client("wal", 0).await.unwrap().produce(record("a")).await.unwrap();
    let mut polls = 0;
    loop {
        polls += 1;
        // The connections have to be opened again each time.
        broker.disconnect_all();
        settle().await;
        let partition = client.partition_client("wal", 0).await.unwrap();
        match polled(partition.produce(record("b")), polls).await {
            Some(produced) => {
                produced.unwrap();
                break;
            }
            None => settle().await,
        }
    }
    assert!(polls > 1);
    client.partition_client("wal", 0).await.unwrap().produce(record("c")).await.unwrap();
    assert_eq!(broker.requests(ApiKey::INIT_PRODUCER_ID), 1);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_not_available_yet_is_requested_again_by_the_append() {
    let broker = broker();
    let wire = Wire::to(&broker);
    broker.on_times(ApiKey::INIT_PRODUCER_ID, 3, Fault::Error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    assert_eq!(log(&broker), ["a"]);
    assert_eq!(broker.requests(ApiKey::INIT_PRODUCER_ID), 4);

    broker.on_all(ApiKey::INIT_PRODUCER_ID, Fault::Error(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
    let partition = open_over(&wire).await;
    assert!(partition.fetch(0).await.is_ok(), "a client that only reads does not need an id");
    let error = partition.produce(record("b")).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
    assert_eq!(error.outcome(), Outcome::NotApplied);
}
