//! C1, C3: several batches in flight, and still in order, without a hole.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use kwal_client::{
    Acks, Append, OnFailure, OpenPartition, PartitionClient,
    error::{Error, ErrorKind, Outcome},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, messages::ProduceRequest, record::BatchHeader};
use kwal_testkit::{
    EmbeddedCluster, Fault, FaultTarget,
    wire::{Decision, Frame},
};
use tokio::time::sleep;

use crate::support::{Wire, broker, log, open_over, record, settle, source, timed};

const SECOND: Duration = Duration::from_secs(1);

/// Holds the responses to appends.
struct Hold {
    wire: Wire,
    is_on: Arc<AtomicBool>,
}

impl Hold {
    fn on(wire: &Wire) -> Self {
        let is_on = Arc::new(AtomicBool::new(true));
        wire.on_response({
            let is_on = Arc::clone(&is_on);
            move |frame| match frame.api == ApiKey::PRODUCE && is_on.load(Ordering::Relaxed) {
                true => Decision::Hold,
                false => Decision::Pass,
            }
        });
        Self { wire: wire.clone(), is_on }
    }

    /// Passes one response.
    async fn pass_one(&self) {
        self.wire.release();
        settle().await;
    }

    async fn end(self) {
        self.is_on.store(false, Ordering::Relaxed);
        self.wire.release();
        settle().await;
    }
}

/// Submits appends of one record each.
async fn submit(partition: &PartitionClient, values: impl IntoIterator<Item = String>) -> Vec<Append> {
    let mut appends = Vec::new();
    for value in values {
        let batch = partition.encode(record(value)).unwrap();
        let permit = partition.reserve(batch.size_in_bytes()).await.unwrap();
        appends.push(permit.submit(batch));
    }
    appends
}

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| number.to_string())
}

async fn open(wire: &Wire, settings: impl FnOnce(OpenPartition) -> OpenPartition) -> PartitionClient {
    settings(wire.client().await.partition_client("wal", 0)).await.unwrap()
}

/// Submits eight appends while responses are held. Returns how many were sent, and lets them be completed.
async fn in_flight(wire: &Wire, partition: &PartitionClient) -> usize {
    let before = wire.count(ApiKey::PRODUCE);
    let hold = Hold::on(wire);
    let appends = submit(partition, numbers(8)).await;
    settle().await;
    let sent = wire.count(ApiKey::PRODUCE) - before;
    hold.end().await;
    for append in appends {
        append.await.unwrap();
    }
    assert_eq!(wire.count(ApiKey::PRODUCE) - before, 8);
    sent
}

#[tokio::test(start_paused = true)]
async fn as_many_batches_are_in_flight_as_is_set() {
    for limit in 1..=5 {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open(&wire, |open| open.max_in_flight(limit)).await;
        partition.produce(record("first")).await.unwrap();
        assert_eq!(in_flight(&wire, &partition).await, limit);
        let expected: Vec<_> = ["first".to_owned()].into_iter().chain(numbers(8)).collect();
        assert_eq!(log(&broker), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn five_batches_are_in_flight_by_default_and_each_response_makes_room_for_one() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("first")).await.unwrap();
    let hold = Hold::on(&wire);
    let appends = submit(&partition, numbers(10)).await;
    settle().await;
    assert_eq!(wire.count(ApiKey::PRODUCE), 1 + 5);
    for passed in 1..=5 {
        hold.pass_one().await;
        assert_eq!(wire.count(ApiKey::PRODUCE), 1 + 5 + passed);
    }
    hold.end().await;
    for (number, append) in appends.into_iter().enumerate() {
        let produced = append.await.unwrap();
        assert_eq!((produced.base_offset, produced.attempts), (Some(1 + number as i64), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_from_one_to_five() {
    let broker = broker();
    let client = Wire::to(&broker).client().await;
    for limit in [0, 6, usize::MAX] {
        let error = client.partition_client("wal", 0).max_in_flight(limit).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
        assert!(error.to_string().contains("max_in_flight"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_batch_is_in_flight_until_the_first_acknowledgement() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    assert_eq!(in_flight(&wire, &partition).await, 1);
    assert_eq!(in_flight(&wire, &partition).await, 5);
    // And again in each epoch.
    broker.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    partition.produce(record("in doubt")).await.unwrap_err();
    assert_eq!(in_flight(&wire, &partition).await, 1);
    assert_eq!(wire.stamps().last().unwrap().1, 1, "the epoch");
    assert_eq!(in_flight(&wire, &partition).await, 5);
}

#[tokio::test(start_paused = true)]
async fn one_batch_is_in_flight_after_a_minute_without_an_acknowledgement() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("first")).await.unwrap();
    for (silence, expected) in [(59, 5), (60, 1), (3600, 1), (1, 5)] {
        sleep(silence * SECOND).await;
        assert_eq!(in_flight(&wire, &partition).await, expected, "{silence} s");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_producer_id_one_batch_is_in_flight() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open(&wire, |open| open.idempotent(false)).await;
    partition.produce(record("first")).await.unwrap();
    assert_eq!(in_flight(&wire, &partition).await, 1);
}

/// Records to which broker each batch goes, and its sequence number.
fn record_targets(wire: &Wire) -> Arc<Mutex<Vec<(String, i32)>>> {
    let targets = Arc::new(Mutex::new(Vec::new()));
    wire.on_request({
        let targets = Arc::clone(&targets);
        move |frame: &Frame| {
            if frame.api == ApiKey::PRODUCE {
                let request = frame.request::<ProduceRequest>().unwrap();
                let records = request.topic_data[0].partition_data[0].records.clone().unwrap().into_bytes();
                let sequence = BatchHeader::parse(&records).unwrap().base_sequence;
                targets.lock().unwrap().push((frame.to.host.clone(), sequence));
            }
            Decision::Pass
        }
    });
    targets
}

#[tokio::test(start_paused = true)]
async fn batches_in_flight_are_sent_again_to_the_new_leader_in_order_under_the_same_sequences() {
    let faults = [
        // None of them is carried out, or the first one, or the first one after it was sent again.
        Fault::BlackHole,
        Fault::LoseReply,
        Fault::Drop,
        Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT),
    ];
    for fault in faults {
        let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
        let wire = Wire::to(&cluster);
        let partition = open_over(&wire).await;
        partition.produce(record("first")).await.unwrap();
        let leader = cluster.leader("wal", 0).unwrap().unwrap();
        let targets = record_targets(&wire);
        cluster.on(FaultTarget::api(ApiKey::PRODUCE).broker(leader), fault);
        let appends = submit(&partition, numbers(5)).await;
        let next = leader % 3 + 1;
        // The requests have been written, and the leader has not read them.
        cluster.move_leader("wal", 0, next).unwrap();
        for (number, append) in appends.into_iter().enumerate() {
            let produced = append.await.unwrap();
            assert_eq!(produced.base_offset, Some(1 + number as i64), "{fault:?}");
        }
        let expected: Vec<_> = ["first".to_owned()].into_iter().chain(numbers(5)).collect();
        assert_eq!(log(&cluster), expected, "{fault:?}");
        let targets = targets.lock().unwrap().clone();
        let sent_to = |broker: i32| {
            let host = cluster.address(broker).unwrap().host;
            let sent = targets.iter().filter(|(to, _)| *to == host);
            sent.map(|(_, sequence)| *sequence).collect::<Vec<_>>()
        };
        assert_eq!(sent_to(leader)[..5], [1, 2, 3, 4, 5], "{fault:?}");
        assert_eq!(sent_to(next), [1, 2, 3, 4, 5], "{fault:?}");
        assert!(wire.stamps().iter().all(|(id, epoch, _)| (*id, *epoch) == (wire.stamps()[0].0, 0)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_leaves_no_hole_and_the_next_one_gets_its_sequence() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("first")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    // More than are in flight.
    let results = join_all(submit(&partition, numbers(8)).await).await;
    assert_eq!(results[0].as_ref().unwrap().base_offset, Some(1));
    let refused = results[1].as_ref().unwrap_err();
    assert_eq!((refused.code(), refused.outcome()), (Some(ErrorCode::INVALID_RECORD), Outcome::NotApplied));
    for result in &results[2..] {
        let error = result.as_ref().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error:?}");
        let cause: &Error = source(error);
        assert_eq!(cause.code(), Some(ErrorCode::INVALID_RECORD));
        assert_eq!((error.outcome(), error.in_doubt()), (Outcome::NotApplied, None));
    }
    partition.produce(record("next")).await.unwrap();
    assert_eq!(log(&broker), ["first", "0", "next"]);
    assert_eq!(wire.stamps().last().map(|(_, epoch, sequence)| (*epoch, *sequence)), Some((0, 2)));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_behind_a_batch_in_doubt_is_in_doubt() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("first")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    broker.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    let results = join_all(submit(&partition, numbers(8)).await).await;
    results[0].as_ref().unwrap();
    for (number, result) in results.iter().enumerate().skip(1) {
        let error = result.as_ref().unwrap_err();
        assert_eq!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), number > 1, "{error:?}");
        // The first response made room for one more.
        let is_sent = number <= 5;
        let outcome = if is_sent { Outcome::Unknown } else { Outcome::NotApplied };
        assert_eq!((error.outcome(), error.in_doubt().is_some()), (outcome, is_sent), "{number}");
        if let Some(in_doubt) = error.in_doubt() {
            assert_eq!((in_doubt.epoch, in_doubt.sequence), (0, 1 + number as i32));
        }
    }
    partition.produce(record("next")).await.unwrap();
    assert_eq!(wire.stamps().last().map(|(_, epoch, sequence)| (*epoch, *sequence)), Some((1, 0)));
    assert_eq!(log(&broker), ["first", "0", "1", "2", "3", "4", "5", "next"]);
}

#[tokio::test(start_paused = true)]
async fn with_continue_the_others_are_appended_all_the_same() {
    for fault in [Fault::Error(ErrorCode::INVALID_RECORD), Fault::Error(ErrorCode::MESSAGE_TOO_LARGE)] {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open(&wire, |open| open.on_failure(OnFailure::Continue)).await;
        partition.produce(record("first")).await.unwrap();
        broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
        broker.on(ApiKey::PRODUCE, fault);
        let results = join_all(submit(&partition, numbers(8)).await).await;
        for (number, result) in results.iter().enumerate() {
            assert_eq!(result.is_ok(), number != 1, "{number}: {result:?}");
        }
        assert_eq!(results[1].as_ref().unwrap_err().outcome(), Outcome::NotApplied);
        assert_eq!(log(&broker), ["first", "0", "2", "3", "4", "5", "6", "7"]);
        let stamps = wire.stamps();
        assert!(stamps.iter().all(|stamp| stamp.1 == 0), "{stamps:?}");
        assert_eq!(stamps.last().unwrap().2, 8 - 1, "no gap: {stamps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_in_sync_replicas_acknowledge_unless_the_leader_alone_is_chosen() {
    let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
    let wire = Wire::to(&cluster);
    let all = open_over(&wire).await;
    let leader_alone = open(&wire, |open| open.idempotent(false).acks(Acks::Leader)).await;
    for partition in [&all, &leader_alone] {
        partition.produce(record("first")).await.unwrap();
    }
    let leader = cluster.leader("wal", 0).unwrap().unwrap();
    for broker in (1..=3).filter(|broker| *broker != leader) {
        cluster.set_lag("wal", 0, broker, 5 * SECOND).unwrap();
    }
    let (produced, took) = timed(leader_alone.produce(record("leader"))).await;
    assert_eq!((produced.unwrap().base_offset, took), (Some(2), Duration::ZERO));
    let (produced, took) = timed(all.produce(record("all"))).await;
    assert_eq!(produced.unwrap().base_offset, Some(3));
    assert!(took >= 4 * SECOND, "{took:?}");
    let acks: Vec<_> = wire.seen(ApiKey::PRODUCE).iter().map(|seen| seen.acks.unwrap()).collect();
    assert_eq!(acks, [-1, 1, 1, -1]);
}

#[tokio::test(start_paused = true)]
async fn the_leader_alone_acknowledges_only_without_producer_ids() {
    let broker = broker();
    let client = Wire::to(&broker).client().await;
    let error = client.partition_client("wal", 0).acks(Acks::Leader).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
    client.partition_client("wal", 0).idempotent(false).acks(Acks::Leader).await.unwrap();
    client.partition_client("wal", 0).idempotent(false).acks(Acks::All).await.unwrap();
    client.partition_client("wal", 0).acks(Acks::All).await.unwrap();
}
