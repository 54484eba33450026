//! C6: once a barrier of a new holder is on the log, no append of an earlier holder can follow it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kwal_client::{
    Acks, Holder, PartitionClient,
    error::{ErrorKind, Outcome},
    record::{Barrier, Record},
};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{InitProducerIdRequest, InitProducerIdResponse},
    record::{BatchBuilder, BatchHeader, Compression, Headers},
};
use kwal_testkit::{EmbeddedCluster, Fault, wire::Decision};
use tokio::time::{sleep, timeout};

use crate::support::{HOUR, Wire, WireMode, broker, builder, hold, log, open, polled, record, settle};

const DAY: Duration = Duration::from_secs(24 * 3600);
const ID: &str = "writer/wal/0";

async fn hold_over(wire: &Wire) -> PartitionClient {
    wire.client().await.partition_client("wal", 0).exclusive("writer").await.unwrap()
}

/// Records the ids and epochs with which epochs are requested.
fn record_held(wire: &Wire) -> Arc<Mutex<Vec<(i64, i16)>>> {
    let held = Arc::new(Mutex::new(Vec::new()));
    wire.on_request({
        let held = Arc::clone(&held);
        move |frame| {
            if let Some(request) = frame.request::<InitProducerIdRequest>() {
                held.lock().unwrap().push((request.producer_id, request.producer_epoch));
            }
            Decision::Pass
        }
    });
    held
}

/// Returns the headers of the batches on the log and the barriers in them.
fn batches(broker: &EmbeddedCluster) -> Vec<(BatchHeader, Option<Barrier>)> {
    let batches = broker.log("wal", 0).unwrap();
    batches
        .iter()
        .map(|batch| {
            let records = batch.records(1 << 20).unwrap();
            let first = (&records).into_iter().next().unwrap().unwrap();
            (*batch.header(), Barrier::parse(&first))
        })
        .collect()
}

/// Asserts that a partition client cannot append any more, and that nothing of it reaches the log.
async fn assert_fenced(broker: &EmbeddedCluster, partition: &PartitionClient) {
    let before = log(broker);
    let error = partition.produce(record("too late")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
    assert_eq!((error.outcome(), error.in_doubt()), (Outcome::NotApplied, None));
    assert_eq!(log(broker), before);
    let error = partition.fenced().await;
    assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_new_holder_ends_the_earlier_one() {
    let broker = broker();
    open(&broker).await.produce(record("before")).await.unwrap();
    let first = hold(&broker).await;
    let held = first.holder().unwrap();
    assert_eq!((held.name.as_str(), held.epoch, held.barrier), ("writer", 0, 1));
    assert_eq!(first.produce(record("first")).await.unwrap().base_offset, Some(2));
    let second = hold(&broker).await;
    let held_then = second.holder().unwrap();
    assert_eq!(held_then.producer_id, held.producer_id);
    assert_eq!((held_then.epoch, held_then.barrier), (1, 3));
    assert_fenced(&broker, &first).await;
    assert_eq!(second.produce(record("second")).await.unwrap().base_offset, Some(4));
    assert_eq!(log(&broker), ["before", "", "first", "", "second"]);
    // Barriers are what the docs say.
    for (offset, holder) in [(1, held), (3, held_then)] {
        let records = broker.records("wal", 0).unwrap();
        let barrier = Barrier::parse(&records[offset]).unwrap();
        let Holder { name, producer_id, epoch, .. } = holder;
        assert_eq!((barrier.name, barrier.producer_id, barrier.epoch), (name, producer_id, epoch));
        assert_eq!(records[offset].key.as_deref(), Some(ID.as_bytes()));
    }
    // Readers are not concerned, and writers without the name neither.
    open(&broker).await.produce(record("other")).await.unwrap();
    assert_eq!(first.fetch_records(0, 1..1_000_000, 1_000).await.unwrap().0.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn holders_of_other_partitions_and_names_do_not_meet() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let first = hold(&broker).await;
    let partition = client.partition_client("wal", 1).exclusive("writer").await.unwrap();
    let other = client.partition_client("wal", 0).exclusive("other").await.unwrap();
    for partition in [&first, &partition, &other] {
        partition.produce(record("a")).await.unwrap();
    }
    let ids = [&first, &partition, &other].map(|partition| partition.holder().unwrap().producer_id);
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
    assert_eq!(open(&broker).await.holder(), None);
}

#[tokio::test(start_paused = true)]
async fn the_producer_id_of_the_last_barrier_is_fenced_where_the_name_was_forgotten() {
    for appends in [0, 1, 3_000] {
        let broker = broker();
        let first = hold(&broker).await;
        for append in 0..appends {
            // The last barrier is further from the end than the first part that is searched.
            first.produce(record(format!("{append}"))).await.unwrap();
        }
        assert!(broker.forget_transactional_id(ID));
        let second = hold(&broker).await;
        let [one, two] = [&first, &second].map(|partition| partition.holder().unwrap());
        assert_ne!(one.producer_id, two.producer_id);
        // The coordinator is asked again before a fence is sent, which lies before the barrier.
        assert_eq!((two.epoch, two.barrier), (1, appends + 2));
        assert_fenced(&broker, &first).await;
        second.produce(record("second")).await.unwrap();
        let batches = batches(&broker);
        let [.., (fence, fenced), (header, barrier), _] = &batches[..] else { panic!("{batches:?}") };
        assert_eq!((fence.producer_id, fence.producer_epoch), (one.producer_id, i16::MAX));
        assert_eq!((header.producer_id, header.producer_epoch), (two.producer_id, 1));
        assert_eq!(fenced, barrier, "the same record");
        // Twice forgotten.
        assert!(broker.forget_transactional_id(ID));
        let third = hold(&broker).await;
        assert_fenced(&broker, &second).await;
        third.produce(record("third")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_is_there_already_is_no_trouble() {
    let broker = broker();
    let first = hold(&broker).await;
    assert!(broker.forget_transactional_id(ID));
    let wire = Wire::to(&broker);
    // The next one dies between fence and barrier.
    let (mut seen, client) = (0, wire.client().await);
    wire.on_request(move |frame| {
        seen += usize::from(frame.api == ApiKey::PRODUCE);
        match seen {
            0 | 1 => Decision::Pass,
            _ => Decision::Cut(0),
        }
    });
    let open = client.partition_client("wal", 0).exclusive("writer").deadline(Duration::from_secs(1));
    let error = open.await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert!(error.to_string().contains("taking over the log"), "{error}");
    assert_eq!(batches(&broker).len(), 2, "barrier, fence");
    assert_fenced(&broker, &first).await;
    let third = hold(&broker).await;
    assert_eq!(third.holder().unwrap().barrier, 2, "the same fence serves");
    third.produce(record("third")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lost_responses_are_no_trouble() {
    for api in [
        ApiKey::FIND_COORDINATOR,
        ApiKey::INIT_PRODUCER_ID,
        ApiKey::PRODUCE,
        ApiKey::FETCH,
        ApiKey::LIST_OFFSETS,
    ] {
        for fault in [Fault::LoseReply, Fault::Drop] {
            let broker = broker();
            let first = hold(&broker).await;
            broker.on_times(api, 2, fault);
            let second = hold(&broker).await;
            assert_eq!(broker.faults_left(), 0, "{api}");
            assert_fenced(&broker, &first).await;
            assert_eq!(second.produce(record("a")).await.unwrap().base_offset, Some(2), "{api} {fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_that_is_dropped_anywhere_leaves_a_log_that_can_be_taken_over() {
    for times in 0..400 {
        let broker = broker();
        let first = hold(&broker).await;
        first.produce(record("first")).await.unwrap();
        if times % 2 == 0 {
            assert!(broker.forget_transactional_id(ID));
        }
        let client = builder(&broker).build().await.unwrap();
        let dropped = polled(client.partition_client("wal", 0).exclusive("writer"), times).await;
        let done = dropped.is_some();
        drop(dropped);
        let third = hold(&broker).await;
        assert_fenced(&broker, &first).await;
        third.produce(record("third")).await.unwrap();
        if done {
            assert!(times > 10, "{times}");
            return;
        }
    }
    panic!("it never ends");
}

#[tokio::test(start_paused = true)]
async fn an_epoch_under_which_somebody_else_has_appended_is_not_taken() {
    for batches in 1..=7 {
        let broker = broker();
        let first = hold(&broker).await;
        first.produce(record("first")).await.unwrap();
        // Somebody raises the epoch past the coordinator.
        let (id, epoch) = (first.holder().unwrap().producer_id, 1);
        for sequence in 0..batches {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(0, None, Some(b"stranger"), &Headers::default());
            let batch = builder.finish().unwrap().stamp(id, epoch, sequence).to_bytes();
            broker.append_raw("wal", 0, batch).unwrap();
        }
        let client = builder(&broker).build().await.unwrap();
        let error = client.partition_client("wal", 0).exclusive("writer").await.unwrap_err();
        let ErrorKind::EpochTaken { producer_id, epoch: taken, offset, .. } = error.kind() else {
            panic!("{error:?}")
        };
        // Brokers remember five batches.
        assert_eq!((*producer_id, *taken, *offset), (id, epoch, (batches <= 5).then_some(2)));
        assert_eq!(error.outcome(), Outcome::NotApplied);
        assert_eq!(log(&broker).len(), 2 + batches as usize, "nothing was appended, and nothing is lost");
        // The next epoch is free.
        let third = hold(&broker).await;
        assert_eq!(third.holder().unwrap().epoch, 2);
        third.produce(record("third")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn doubts_raise_the_epoch_by_the_coordinator() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = hold_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::LoseReply);
    broker.on_all(ApiKey::PRODUCE, Fault::Drop);
    let error = partition.produce(record("b")).deadline(Duration::from_secs(3)).await.unwrap_err();
    broker.clear_faults();
    let in_doubt = error.in_doubt().unwrap().clone();
    assert_eq!(in_doubt.transactional_id.as_deref(), Some(ID));
    let before = wire.count(ApiKey::INIT_PRODUCER_ID);
    let fence = Record::new(None::<&str>, "fence");
    let resolution = partition.resolve(&in_doubt, fence.clone()).await.unwrap();
    assert_eq!(resolution, kwal_client::Resolution::Appended(2..3));
    assert_eq!(wire.count(ApiKey::INIT_PRODUCER_ID), before + 1);
    assert_eq!(partition.holder().unwrap().epoch, 1);
    partition.produce(record("c")).await.unwrap();
    // The coordinator knows the epoch, so the next holder gets another one.
    let second = hold(&broker).await;
    assert_eq!(second.holder().unwrap().epoch, 2);
    assert_fenced(&broker, &partition).await;
    // The next holder can resolve the batch, too, and nothing is appended for it: its barrier is later.
    let before = log(&broker);
    assert_eq!(second.resolve(&in_doubt, fence.clone()).await.unwrap(), resolution);
    assert_eq!(log(&broker), before);
    // Without the name, a fence would keep away everybody who has it.
    let error = open(&broker).await.resolve(&in_doubt, fence).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    assert!(error.to_string().contains(r#"exclusive("writer")"#), "{error}");
    second.produce(record("d")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_fenced_does_not_fence_those_after_it() {
    for is_forgotten in [false, true] {
        let broker = broker();
        let first = hold(&broker).await;
        if is_forgotten {
            assert!(broker.forget_transactional_id(ID));
        }
        let second = hold(&broker).await;
        second.produce(record("a")).await.unwrap();
        broker.on_all(ApiKey::PRODUCE, Fault::Drop);
        let error = second.produce(record("b")).deadline(Duration::from_secs(3)).await.unwrap_err();
        broker.clear_faults();
        let in_doubt = error.in_doubt().unwrap().clone();
        let fence = Record::new(None::<&str>, "fence");
        let error = first.resolve(&in_doubt, fence).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
        second.produce(record("c")).await.unwrap();
        assert_eq!(log(&broker).last().unwrap(), "c");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_renewed_daily_with_id_and_epoch() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let held = record_held(&wire);
    let partition = hold_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    let id = partition.holder().unwrap().producer_id;
    for day in 1..=9 {
        sleep(DAY).await;
        settle().await;
        let holder = partition.holder().unwrap();
        assert_eq!((holder.producer_id, holder.epoch, holder.barrier), (id, day, 0), "without an append");
    }
    let expected: Vec<_> = std::iter::once((-1, -1)).chain((0..9).map(|epoch| (id, epoch))).collect();
    assert_eq!(*held.lock().unwrap(), expected);
    assert_eq!(log(&broker), ["", "a"], "a renewal writes nothing");
    partition.produce(record("b")).await.unwrap();
    // A week is over, and the name is still known.
    assert_eq!(hold(&broker).await.holder().unwrap().producer_id, id);
    assert_fenced(&broker, &partition).await;
}

#[tokio::test(start_paused = true)]
async fn a_renewal_notices_another_holder() {
    for is_forgotten in [false, true] {
        let broker = broker();
        let first = hold(&broker).await;
        if is_forgotten {
            assert!(broker.forget_transactional_id(ID));
        }
        let second = hold(&broker).await;
        let epoch = second.holder().unwrap().epoch;
        let error = timeout(DAY + HOUR, first.fenced()).await.unwrap();
        assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
        second.produce(record("a")).await.unwrap();
        assert_eq!(second.holder().unwrap().epoch, epoch + 1, "its own renewal");
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_name_was_forgotten_steps_down() {
    let broker = broker();
    let partition = hold(&broker).await;
    assert!(broker.forget_transactional_id(ID));
    let error = partition.fenced().await;
    assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
    assert!(error.to_string().contains("the coordinator forgot the producer id"), "{error}");
    hold(&broker).await.produce(record("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_does_not_disturb_appends() {
    let broker = broker();
    let partition = hold(&broker).await;
    broker.on_all(ApiKey::FIND_COORDINATOR, Fault::Error(ErrorCode::COORDINATOR_NOT_AVAILABLE));
    for _ in 0..60 {
        sleep(HOUR).await;
        partition.produce(record("a")).deadline(Duration::from_secs(1)).await.unwrap();
    }
    assert_eq!(partition.holder().unwrap().epoch, 0);
    broker.clear_faults();
    sleep(2 * HOUR).await;
    assert!(partition.holder().unwrap().epoch > 0);
    partition.produce(record("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_long_silence_a_holder_asks_before_it_appends() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let first = hold_over(&wire).await;
    first.produce(record("first")).await.unwrap();
    // Nothing of it gets through for some days, and the next holder does not append either.
    wire.set(WireMode::Unreachable);
    let second = hold(&broker).await;
    sleep(3 * DAY).await;
    broker.forget_producers("wal", 0).unwrap();
    wire.set(WireMode::Passing);
    // The partition would take its batch: only the coordinator knows better.
    assert_fenced(&broker, &first).await;
    second.produce(record("second")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_probe_notices_another_holder() {
    for is_forgotten in [false, true] {
        let broker = broker();
        let client = builder(&broker).build().await.unwrap();
        let minute = Duration::from_secs(60);
        let first = client.partition_client("wal", 0).exclusive("writer").probe(minute).await.unwrap();
        assert!(timeout(HOUR, first.fenced()).await.is_err(), "nobody has taken over");
        if is_forgotten {
            assert!(broker.forget_transactional_id(ID));
        }
        let _second = hold(&broker).await;
        let error = timeout(2 * minute, first.fenced()).await.unwrap();
        assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
        assert_eq!(error.context().api, Some(ApiKey::DESCRIBE_PRODUCERS));
        assert_fenced(&broker, &first).await;
    }
}

#[tokio::test(start_paused = true)]
async fn fenced_ends_with_the_partition_client() {
    let broker = broker();
    for partition in [hold(&broker).await, open(&broker).await] {
        assert!(timeout(HOUR, partition.fenced()).await.is_err());
        partition.close().await;
        let error = partition.fenced().await;
        assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_exclusive_is_rejected_before_anything_is_sent() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let before = broker.requests(ApiKey::METADATA);
    let open = || client.partition_client("wal", 0);
    let long = "x".repeat(256);
    for (open, reason) in [
        (open().exclusive(""), "name"),
        (open().exclusive(long), "255"),
        (open().exclusive("a\nb"), "control"),
        (open().exclusive("a").idempotent(false), "idempotent"),
        (open().exclusive("a").idempotent(false).acks(Acks::Leader), "idempotent"),
        (open().exclusive("a").acks(Acks::Leader), "acks"),
        (open().exclusive("a").renewal(Duration::from_millis(999)), "renewal: 999ms is less than 1s"),
        (open().exclusive("a").probe(Duration::from_millis(99)), "probe: 99ms is less than 100ms"),
        (open().renewal(HOUR), "exclusive"),
        (open().probe(HOUR), "exclusive"),
    ] {
        let error = open.await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert_eq!(broker.requests(ApiKey::METADATA), before);
    assert_eq!(broker.requests(ApiKey::FIND_COORDINATOR), 0);
    // Extreme times are no trouble.
    let partition = open().exclusive("a/b c").renewal(Duration::MAX).probe(Duration::MAX).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    let (second, tenth) = (Duration::from_secs(1), Duration::from_millis(100));
    let partition = open().exclusive("a/b c").renewal(second).probe(tenth).await.unwrap();
    partition.produce(record("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn answers_of_a_coordinator_that_cannot_be_true_are_errors() {
    for (id, epoch) in [(-1, 0), (7, -1), (7, i16::MAX), (i64::MIN, i16::MIN)] {
        let broker = broker();
        let wire = Wire::to(&broker);
        wire.edit::<InitProducerIdRequest>(move |response: &mut InitProducerIdResponse| {
            (response.producer_id, response.producer_epoch) = (id, epoch);
        });
        let client = wire.client().await;
        let error = client.partition_client("wal", 0).exclusive("writer").await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::MalformedResponse), "{error}");
        assert_eq!(wire.count(ApiKey::PRODUCE), 0);
    }
}
