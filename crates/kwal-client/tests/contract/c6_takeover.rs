//! C6: takeovers and renewals that are interrupted, or that logs and clusters get in the way of.

use std::{sync::Arc, time::Duration};

use kwal_client::{
    Client, PartitionClient,
    error::{Error, ErrorKind, Outcome},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{EmbeddedCluster, Fault, wire::Decision};
use tokio::time::sleep;

use crate::support::{HOUR, Wire, WireMode, broker, builder, hold, log, open, record, settle};

const SECOND: Duration = Duration::from_secs(1);
const ID: &str = "writer/wal/0";

async fn hold_by(client: &Client) -> Result<PartitionClient, Error> {
    client.partition_client("wal", 0).exclusive("writer").await
}

/// Asserts that a partition client cannot append any more, and that nothing of it reaches the log.
async fn assert_fenced(broker: &EmbeddedCluster, partition: &PartitionClient) {
    let before = log(broker);
    let error = partition.produce(record("too late")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
    assert_eq!(log(broker), before);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_rejected_for_good_does_not_fail_appends() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = hold_by(&wire.client().await).await.unwrap();
    for _ in 0..2 {
        sleep(11 * HOUR).await;
        partition.produce(record("a")).await.unwrap();
    }
    broker.on_all(ApiKey::INIT_PRODUCER_ID, Fault::Error(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED));
    wire.on_request(|frame| match frame.api {
        ApiKey::INIT_PRODUCER_ID => Decision::Delay(SECOND / 2),
        _ => Decision::Pass,
    });
    let before = wire.count(ApiKey::INIT_PRODUCER_ID);
    sleep(2 * HOUR + SECOND / 10).await;
    assert_eq!(wire.count(ApiKey::INIT_PRODUCER_ID), before + 1, "it is due, and runs");
    partition.produce(record("b")).await.unwrap();
    assert_eq!(partition.holder().unwrap().epoch, 0);
}

#[tokio::test(start_paused = true)]
async fn two_takeovers_of_one_client_have_one_holder() {
    for is_forgotten in [false, true] {
        let broker = broker();
        let earlier = hold(&broker).await;
        if is_forgotten {
            assert!(broker.forget_transactional_id(ID));
        }
        let client = builder(&broker).build().await.unwrap();
        let (one, other) = tokio::join!(hold_by(&client), hold_by(&client));
        let mut holders = 0;
        for opened in [one, other] {
            let result = match opened {
                Ok(partition) => partition.produce(record("a")).await.map(drop),
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => holders += 1,
                Err(error) => assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}"),
            }
        }
        assert_eq!(holders, 1);
        assert_fenced(&broker, &earlier).await;
        hold_by(&client).await.unwrap().produce(record("b")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_takeover_ends_at_its_deadline_at_every_step() {
    for api in [
        ApiKey::FIND_COORDINATOR,
        ApiKey::INIT_PRODUCER_ID,
        ApiKey::LIST_OFFSETS,
        ApiKey::PRODUCE,
        ApiKey::FETCH,
    ] {
        let broker = broker();
        let earlier = hold(&broker).await;
        earlier.produce(record("a")).await.unwrap();
        assert!(broker.forget_transactional_id(ID));
        broker.on_all(api, Fault::BlackHole);
        let client = builder(&broker).build().await.unwrap();
        let open = client.partition_client("wal", 0).exclusive("writer").deadline(3 * SECOND);
        let begun = tokio::time::Instant::now();
        let error = open.await.unwrap_err();
        assert!(begun.elapsed() <= 3 * SECOND, "{api}: {:?}", begun.elapsed());
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{api}: {error}");
        assert_eq!(error.in_doubt(), None, "{api}");
        // Only an append can have fenced it.
        if api != ApiKey::PRODUCE {
            assert_eq!(error.outcome(), Outcome::NotApplied, "{api}: {error}");
            assert_eq!(log(&broker), ["", "a"], "{api}");
        }
        broker.clear_faults();
        hold(&broker).await.produce(record("b")).await.unwrap();
        assert_fenced(&broker, &earlier).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_barrier_that_is_deleted_before_it_is_read_back_is_appended_again() {
    let broker = Arc::new(broker());
    let earlier = hold(&broker).await;
    let wire = Wire::to(&broker);
    let mut is_deleted = false;
    wire.on_response({
        let broker = Arc::clone(&broker);
        move |frame| {
            if frame.api == ApiKey::PRODUCE && !std::mem::replace(&mut is_deleted, true) {
                let end = broker.end_offset("wal", 0).unwrap();
                broker.delete_records("wal", 0, end).unwrap();
            }
            Decision::Pass
        }
    });
    let partition = hold_by(&wire.client().await).await.unwrap();
    let holder = partition.holder().unwrap();
    assert_eq!((holder.epoch, holder.barrier), (2, 2));
    assert_fenced(&broker, &earlier).await;
    partition.produce(record("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_takeover_follows_the_leader() {
    let broker = Arc::new(EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap());
    for nth in 1..=12 {
        let earlier = hold(&broker).await;
        earlier.produce(record(format!("{nth}"))).await.unwrap();
        if nth % 2 == 0 {
            assert!(broker.forget_transactional_id(ID));
        }
        let wire = Wire::to(&broker);
        let mut left = nth;
        wire.on_request({
            let broker = Arc::clone(&broker);
            move |_| {
                left -= 1;
                if left == 0 {
                    let leader = broker.leader("wal", 0).unwrap().unwrap();
                    broker.move_leader("wal", 0, leader % 3 + 1).unwrap();
                }
                Decision::Pass
            }
        });
        let partition = hold_by(&wire.client().await).await.unwrap();
        assert_fenced(&broker, &earlier).await;
        partition.produce(record("a")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_created_again_has_no_holder_yet() {
    let broker = broker();
    let earlier = hold(&broker).await;
    earlier.produce(record("a")).await.unwrap();
    broker.recreate_topic("wal").unwrap();
    assert!(earlier.produce(record("b")).await.is_err());
    assert_eq!(log(&broker).len(), 0, "it goes on with the topic that it has opened");
    let partition = hold(&broker).await;
    let holder = partition.holder().unwrap();
    assert_eq!((holder.epoch, holder.barrier), (1, 0));
    partition.produce(record("c")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_closed_takes_nothing_over() {
    let broker = broker();
    let earlier = hold(&broker).await;
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    wire.on_request(|frame| match frame.api {
        ApiKey::LIST_OFFSETS => Decision::Hold,
        _ => Decision::Pass,
    });
    let opening = tokio::spawn({
        let client = client.clone();
        async move { hold_by(&client).await }
    });
    while wire.count(ApiKey::LIST_OFFSETS) == 0 {
        settle().await;
    }
    client.close().await;
    let error = opening.await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
    earlier.produce(record("a")).await.unwrap();
    assert_eq!(log(&broker), ["", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_response_is_lost_is_made_again() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = hold_by(&wire.client().await).await.unwrap();
    broker.on_times(ApiKey::INIT_PRODUCER_ID, 2, Fault::LoseReply);
    sleep(30 * HOUR).await;
    assert_eq!(broker.faults_left(), 0);
    assert_eq!(partition.holder().unwrap().epoch, 1, "the coordinator returns the same epoch again");
    partition.produce(record("a")).await.unwrap();
    // A whole day without the coordinator.
    wire.set(WireMode::Unreachable);
    sleep(24 * HOUR).await;
    wire.set(WireMode::Passing);
    partition.produce(record("b")).await.unwrap();
    open(&broker).await.produce(record("c")).await.unwrap();
    assert_eq!(log(&broker), ["", "a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_producer_id_that_is_forgotten_during_a_takeover_is_fenced_too() {
    let broker = broker();
    hold(&broker).await.produce(record("a")).await.unwrap();
    assert!(broker.forget_transactional_id(ID));
    // It has not appended anything yet.
    let earlier = hold(&broker).await;
    let wire = Wire::to(&broker);
    let mut is_held = false;
    wire.on_request(move |frame| {
        match frame.api == ApiKey::LIST_OFFSETS && !std::mem::replace(&mut is_held, true) {
            true => Decision::Hold,
            false => Decision::Pass,
        }
    });
    let client = wire.client().await;
    let opening = tokio::spawn(async move { hold_by(&client).await });
    while wire.count(ApiKey::LIST_OFFSETS) == 0 {
        settle().await;
    }
    // It got an epoch of the same id, and gets another id when it asks again.
    assert!(broker.forget_transactional_id(ID));
    wire.release();
    let partition = opening.await.unwrap().unwrap();
    assert_ne!(partition.holder().unwrap().producer_id, earlier.holder().unwrap().producer_id);
    assert_fenced(&broker, &earlier).await;
    partition.produce(record("b")).await.unwrap();
}
