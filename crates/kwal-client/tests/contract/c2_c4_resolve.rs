//! C2 and C4: what became of an append whose outcome is unknown.

use std::{future::IntoFuture, ops::Range, time::Duration};

use futures::future::join_all;
use kwal_client::{
    OpenPartition, PartitionClient, Resolution,
    error::{Error, ErrorKind, InDoubt, Outcome},
    record::Record,
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, messages::ProduceRequest, wire::Uuid};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::time::sleep;

use crate::support::{
    HOUR, Wire, WireMode, assert_took, broker, builder, deadlines, log, open, open_over, polled, record,
    settle, timed,
};

const SHORT: Duration = Duration::from_secs(3);

fn fence() -> Record {
    Record::new(None::<&str>, "fence")
}

/// What a broker does with an append so that its outcome is unknown.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is on the log.
    Appended,
    /// It never arrives.
    Lost,
}

impl Fate {
    const ALL: [Self; 2] = [Self::Appended, Self::Lost];

    fn is_appended(self) -> bool {
        matches!(self, Self::Appended)
    }

    /// Returns what has to become of an append at an offset.
    fn resolution(self, offsets: Range<i64>) -> Resolution {
        match self {
            Self::Appended => Resolution::Appended(offsets),
            Self::Lost => Resolution::NotApplied,
        }
    }
}

/// Appends records so that the outcome is unknown.
async fn lose(
    broker: &EmbeddedCluster,
    partition: &PartitionClient,
    records: &[Record],
    fate: Fate,
) -> InDoubt {
    if fate.is_appended() {
        broker.on(ApiKey::PRODUCE, Fault::LoseReply);
    }
    broker.on_all(ApiKey::PRODUCE, Fault::Drop);
    let error = partition.produce(records).deadline(SHORT).await.unwrap_err();
    broker.clear_faults();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    let in_doubt = error.in_doubt().unwrap().clone();
    assert_eq!(in_doubt.record_count, records.len());
    in_doubt
}

fn values(values: &[&str]) -> Vec<Record> {
    values.iter().map(|value| Record::new(None::<&str>, *value)).collect()
}

/// Asserts that brokers reject the batches of the first epoch of a producer id from now on.
async fn assert_fenced(broker: &EmbeddedCluster, partition: &PartitionClient) {
    let before = log(broker);
    let error = partition.produce(record("too late")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
    assert_eq!((error.outcome(), error.in_doubt()), (Outcome::NotApplied, None));
    assert_eq!(log(broker), before);
}

#[tokio::test(start_paused = true)]
async fn a_batch_in_doubt_is_found_or_never_appended() {
    for fate in Fate::ALL {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        partition.produce(record("a")).await.unwrap();
        let in_doubt = lose(&broker, &partition, &values(&["b", "c", "d"]), fate).await;
        let (id, ..) = wire.stamps()[0];
        let expected = InDoubt {
            topic: "wal".to_owned(),
            topic_id: broker.topic_id("wal"),
            partition: 0,
            producer_id: id,
            epoch: 0,
            sequence: 1,
            record_count: 3,
            after: Some(0),
            transactional_id: None,
            part: None,
        };
        assert_eq!(in_doubt, expected);
        let before = wire.count(ApiKey::PRODUCE);
        assert_eq!(partition.resolve(&in_doubt, fence()).await.unwrap(), fate.resolution(1..4), "{fate:?}");
        assert_eq!(wire.stamps()[before..], [(id, 1, 0)], "a fence on the next epoch");
        // The client goes on after the fence.
        partition.produce(record("e")).await.unwrap();
        assert_eq!(wire.stamps()[before..], [(id, 1, 0), (id, 1, 1)]);
        let expected: &[&str] = match fate {
            Fate::Appended => &["a", "b", "c", "d", "fence", "e"],
            Fate::Lost => &["a", "fence", "e"],
        };
        assert_eq!(log(&broker), expected);
        // Once more: nothing is appended for it.
        assert_eq!(partition.resolve(&in_doubt, fence()).await.unwrap(), fate.resolution(1..4));
        assert_eq!(log(&broker), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_batch_of_a_client_is_resolved_from_the_start_of_the_log() {
    for fate in Fate::ALL {
        let broker = broker();
        let other = open(&broker).await;
        other.produce(values(&["a", "b", "c"])).await.unwrap();
        broker.delete_records("wal", 0, 2).unwrap();
        let partition = open(&broker).await;
        let in_doubt = lose(&broker, &partition, &values(&["d", "e"]), fate).await;
        assert_eq!((in_doubt.after, in_doubt.sequence), (None, 0));
        assert_eq!(partition.resolve(&in_doubt, fence()).await.unwrap(), fate.resolution(3..5), "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_arrives_after_the_resolution_is_rejected() {
    for is_owner in [true, false] {
        let broker = broker();
        let partition = open(&broker).await;
        partition.produce(record("a")).await.unwrap();
        broker.on_all(ApiKey::PRODUCE, Fault::DelayRequest(HOUR));
        let error = partition.produce(record("late")).await.unwrap_err();
        broker.clear_faults();
        let resolver = if is_owner { partition.clone() } else { open(&broker).await };
        let resolution = resolver.resolve(error.in_doubt().unwrap(), fence()).await.unwrap();
        assert_eq!(resolution, Resolution::NotApplied);
        assert_eq!(log(&broker), ["a", "fence"]);
        sleep(2 * HOUR).await;
        assert_eq!(log(&broker), ["a", "fence"], "the late one was rejected");
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_acknowledgement_settles_a_batch_without_a_fence() {
    for fate in Fate::ALL {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        partition.produce(record("a")).await.unwrap();
        let in_doubt = lose(&broker, &partition, &values(&["b", "c"]), fate).await;
        partition.produce(record("d")).await.unwrap();
        let (before, expected) = (wire.count(ApiKey::PRODUCE), log(&broker));
        for _ in 0..2 {
            let resolution = partition.resolve(&in_doubt, fence()).await.unwrap();
            assert_eq!(resolution, fate.resolution(1..3), "{fate:?}");
        }
        assert_eq!((wire.count(ApiKey::PRODUCE), log(&broker)), (before, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn several_batches_in_doubt_take_one_fence() {
    for fate in Fate::ALL {
        let broker = broker();
        let partition = open(&broker).await;
        partition.produce(record("a")).await.unwrap();
        // The first ones are on the log, or none is.
        let mut in_doubt = Vec::new();
        for value in ["b", "c", "d"] {
            in_doubt.push(lose(&broker, &partition, &record(value), fate).await);
        }
        // Each on an epoch of its own, because the one before it was in doubt.
        let epochs: Vec<_> = in_doubt.iter().map(|in_doubt| in_doubt.epoch).collect();
        assert_eq!(epochs, [0, 1, 2]);
        for (offset, in_doubt) in [1, 2, 3].into_iter().zip(&in_doubt).rev() {
            let resolution = partition.resolve(in_doubt, fence()).await.unwrap();
            assert_eq!(resolution, fate.resolution(offset..offset + 1), "{fate:?}");
        }
        let fences = log(&broker).iter().filter(|value| *value == "fence").count();
        assert_eq!(fences, 1, "{:?}", log(&broker));
    }
}

#[tokio::test(start_paused = true)]
async fn batches_that_were_in_flight_together_are_resolved_one_by_one() {
    for appended in 0..=5 {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        partition.produce(record("a")).await.unwrap();
        // The first ones are appended all the same, and the others never arrive.
        broker.on_times(ApiKey::PRODUCE, appended, Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT));
        broker.on_all(ApiKey::PRODUCE, Fault::Drop);
        let values = ["b", "c", "d", "e", "f"];
        let appends = values.map(|value| partition.produce(record(value)).deadline(SHORT).into_future());
        let errors = join_all(appends).await.into_iter().map(Result::unwrap_err);
        let in_doubt: Vec<_> = errors.filter_map(|error| error.in_doubt().cloned()).collect();
        broker.clear_faults();
        let sequences: Vec<_> = in_doubt.iter().map(|in_doubt| in_doubt.sequence).collect();
        assert_eq!(sequences, [1, 2, 3, 4, 5]);
        for (in_doubt, offset) in in_doubt.iter().zip(1..) {
            assert_eq!((in_doubt.epoch, in_doubt.after), (0, Some(0)));
            let fate = if offset <= appended as i64 { Fate::Appended } else { Fate::Lost };
            let resolution = partition.resolve(in_doubt, fence()).await.unwrap();
            assert_eq!(resolution, fate.resolution(offset..offset + 1), "{appended}");
        }
        let mut expected = vec!["a"];
        expected.extend(&values[..appended]);
        expected.push("fence");
        assert_eq!(log(&broker), expected);
    }
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn another_process_resolves_a_batch_and_its_owner_is_fenced() {
    for fate in Fate::ALL {
        let broker = broker();
        let wire = Wire::to(&broker);
        let owner = open(&broker).await;
        owner.produce(record("a")).await.unwrap();
        let in_doubt = lose(&broker, &owner, &record("b"), fate).await;
        let kept = serde_json::to_string(&in_doubt).unwrap();

        let in_doubt: InDoubt = serde_json::from_str(&kept).unwrap();
        let resolver = open_over(&wire).await;
        assert_eq!(resolver.resolve(&in_doubt, fence()).await.unwrap(), fate.resolution(1..2), "{fate:?}");
        // On the last epoch, which the owner never reaches. On the next one, its batch of one record would
        // look the same to the broker as the fence, and be acknowledged with the offset of that.
        assert_eq!(wire.stamps(), [(in_doubt.producer_id, i16::MAX, 0)]);
        assert_fenced(&broker, &owner).await;
        // Also by itself, although it cannot append any more.
        assert_eq!(owner.resolve(&in_doubt, fence()).await.unwrap(), fate.resolution(1..2));
        // The resolver has an id of its own.
        resolver.produce(record("c")).await.unwrap();
        let expected: &[&str] = match fate {
            Fate::Appended => &["a", "b", "fence", "c"],
            Fate::Lost => &["a", "fence", "c"],
        };
        assert_eq!(log(&broker), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn fences_of_several_processes_count_as_one() {
    for fate in Fate::ALL {
        let broker = broker();
        let owner = open(&broker).await;
        owner.produce(record("a")).await.unwrap();
        let in_doubt = lose(&broker, &owner, &record("b"), fate).await;
        drop(owner);
        for value in ["fence", "another fence", "a third"] {
            let resolver = open(&broker).await;
            let fence = Record::new(None::<&str>, value);
            assert_eq!(resolver.resolve(&in_doubt, fence).await.unwrap(), fate.resolution(1..2), "{fate:?}");
            resolver.produce(record("c")).await.unwrap();
        }
        let expected: &[&str] = match fate {
            Fate::Appended => &["a", "b", "fence", "c", "c", "c"],
            Fate::Lost => &["a", "fence", "c", "c", "c"],
        };
        assert_eq!(log(&broker), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_fenced_is_not_used_again() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let owner = client.partition_client("wal", 0).await.unwrap();
    owner.produce(record("a")).await.unwrap();
    let in_doubt = lose(&broker, &owner, &record("b"), Fate::Lost).await;
    // Its id is idle now, for the next partition client of the same client.
    drop(owner);
    settle().await;
    let (resolver, next) =
        (client.partition_client("wal", 0).await.unwrap(), client.partition_client("wal", 0).await.unwrap());
    assert_eq!(resolver.resolve(&in_doubt, fence()).await.unwrap(), Resolution::NotApplied);
    next.produce(record("c")).await.unwrap();
    resolver.produce(record("d")).await.unwrap();
    assert_eq!(log(&broker), ["a", "fence", "c", "d"]);
    let ids: Vec<_> = broker.log("wal", 0).unwrap().iter().map(|batch| batch.header().producer_id).collect();
    assert_eq!(ids[..2], [in_doubt.producer_id; 2]);
    assert!(ids[2..].iter().all(|id| *id != in_doubt.producer_id), "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_producer_id_resolves_batches_of_others() {
    let broker = broker();
    let owner = open(&broker).await;
    let in_doubt = lose(&broker, &owner, &values(&["a", "b"]), Fate::Appended).await;
    let client = builder(&broker).build().await.unwrap();
    let plain: OpenPartition = client.partition_client("wal", 0).idempotent(false);
    let plain = plain.await.unwrap();
    assert_eq!(plain.resolve(&in_doubt, fence()).await.unwrap(), Resolution::Appended(0..2));
    // Its own cannot be resolved.
    broker.on_all(ApiKey::PRODUCE, Fault::LoseReply);
    let error = plain.produce(record("c")).await.unwrap_err();
    assert_eq!((error.outcome(), error.in_doubt()), (Outcome::Unknown, None));
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_since_cannot_be_known() {
    for (before, is_known) in [(1, true), (2, false), (3, false)] {
        let broker = broker();
        let partition = open(&broker).await;
        partition.produce(record("a")).await.unwrap();
        let in_doubt = lose(&broker, &partition, &record("b"), Fate::Appended).await;
        partition.produce(values(&["c", "d"])).await.unwrap();
        broker.delete_records("wal", 0, before).unwrap();
        for resolver in [&partition, &open(&broker).await] {
            let result = resolver.resolve(&in_doubt, fence()).await;
            if is_known {
                assert_eq!(result.unwrap(), Resolution::Appended(1..2));
                continue;
            }
            let error = result.unwrap_err();
            let ErrorKind::Trimmed { offset: 1, log_start, .. } = error.kind() else { panic!("{error}") };
            assert_eq!(*log_start, before);
            assert!(
                error.to_string().contains("so it cannot tell any more whether that was appended"),
                "{error}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_something_else_is_invalid_input() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let (partition, other) = (open(&broker).await, open_over(&wire).await);
    partition.produce(record("a")).await.unwrap();
    let in_doubt = lose(&broker, &partition, &record("b"), Fate::Appended).await;
    let requests = wire.all().len();
    let invalid = [
        InDoubt { partition: 1, ..in_doubt.clone() },
        InDoubt { partition: -1, ..in_doubt.clone() },
        InDoubt { topic_id: Some(Uuid([7; 16])), ..in_doubt.clone() },
        InDoubt { topic_id: None, topic: "other".to_owned(), ..in_doubt.clone() },
        InDoubt { producer_id: -1, ..in_doubt.clone() },
        InDoubt { producer_id: i64::MIN, ..in_doubt.clone() },
        InDoubt { epoch: -1, ..in_doubt.clone() },
        InDoubt { sequence: -1, ..in_doubt.clone() },
        InDoubt { record_count: 0, ..in_doubt.clone() },
        InDoubt { record_count: usize::MAX, ..in_doubt.clone() },
        InDoubt { after: Some(-1), ..in_doubt.clone() },
        InDoubt { after: Some(i64::MAX), ..in_doubt.clone() },
    ];
    let is_invalid = |error: &Error| {
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
        // The batch is as much in doubt as before.
        assert!(error.outcome() == Outcome::Unknown && error.in_doubt().is_some());
    };
    for invalid in invalid {
        is_invalid(&other.resolve(&invalid, fence()).await.unwrap_err());
    }
    // A fence that cannot be appended.
    let too_large = Record::new(None::<&str>, vec![0; 20 << 20]);
    let error = other.resolve(&in_doubt, too_large).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { .. }), "{error}");
    assert_eq!(wire.all().len(), requests, "nothing was sent");
    // Nothing can follow the last epoch.
    let last = InDoubt { epoch: i16::MAX, ..in_doubt.clone() };
    is_invalid(&other.resolve(&last, fence()).await.unwrap_err());
    assert_eq!(wire.count(ApiKey::PRODUCE), 0);
    // A topic id that is not known does not matter, and neither does its name if it is.
    for same in [InDoubt { topic_id: None, ..in_doubt.clone() }, InDoubt { topic: String::new(), ..in_doubt }]
    {
        assert_eq!(other.resolve(&same, fence()).await.unwrap(), Resolution::Appended(1..2));
    }
    assert_eq!(log(&broker), ["a", "b", "fence"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_a_topic_that_was_created_again_is_invalid_input() {
    let broker = broker();
    let partition = open(&broker).await;
    let in_doubt = lose(&broker, &partition, &record("a"), Fate::Appended).await;
    broker.recreate_topic("wal").unwrap();
    let error = open(&broker).await.resolve(&in_doubt, fence()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    assert_eq!(log(&broker), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_fence_is_on_the_log_once_whatever_is_retried() {
    let rejected = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
    for faults in [
        vec![Fault::LoseReply, Fault::LoseReply],
        vec![Fault::Drop, Fault::LoseReply],
        vec![
            Fault::ErrorAfter(ErrorCode::NOT_LEADER_OR_FOLLOWER),
            Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
        ],
        vec![Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT)],
        vec![Fault::ErrorAfter(ErrorCode::DUPLICATE_SEQUENCE_NUMBER)],
        // Of a broker that has a fence of another kind, and of one that was deposed.
        vec![Fault::ErrorAfter(rejected)],
        vec![Fault::Error(rejected)],
        vec![Fault::Error(rejected), Fault::LoseReply, Fault::ErrorAfter(rejected)],
    ] {
        for fate in Fate::ALL {
            let broker = broker();
            let owner = open(&broker).await;
            owner.produce(record("a")).await.unwrap();
            let in_doubt = lose(&broker, &owner, &record("b"), fate).await;
            let resolver = open(&broker).await;
            for fault in &faults {
                broker.on(ApiKey::PRODUCE, *fault);
            }
            let resolution = resolver.resolve(&in_doubt, fence()).await.unwrap();
            assert_eq!(resolution, fate.resolution(1..2), "{faults:?} {fate:?}");
            assert_eq!(broker.faults_left(), 0, "{faults:?}");
            let fences = log(&broker).iter().filter(|value| *value == "fence").count();
            assert_eq!(fences, 1, "{faults:?}");
            assert_fenced(&broker, &owner).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fence_whose_offset_is_not_reported_is_looked_for() {
    for is_owner in [true, false] {
        for fate in Fate::ALL {
            let broker = broker();
            let wire = Wire::to(&broker);
            let partition = open_over(&wire).await;
            partition.produce(record("a")).await.unwrap();
            let in_doubt = lose(&broker, &partition, &record("b"), fate).await;
            wire.edit::<ProduceRequest>(|response| {
                response.responses[0].partition_responses[0].base_offset = -1;
            });
            let resolver = if is_owner { partition } else { open_over(&wire).await };
            let resolution = resolver.resolve(&in_doubt, fence()).await.unwrap();
            assert_eq!(resolution, fate.resolution(1..2), "{is_owner} {fate:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolution_keeps_its_deadline_and_can_be_repeated() {
    for (is_owner, fate) in [(true, Fate::Lost), (false, Fate::Appended), (true, Fate::Appended)] {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        partition.produce(record("a")).await.unwrap();
        let in_doubt = lose(&broker, &partition, &record("b"), fate).await;
        let resolver = if is_owner { partition } else { open_over(&wire).await };
        wire.set(WireMode::Unreachable);
        for (deadline, given) in [(deadlines().operation, None), (SHORT, Some(SHORT))] {
            let mut resolve = resolver.resolve(&in_doubt, fence());
            if let Some(given) = given {
                resolve = resolve.deadline(given);
            }
            let (error, took) = timed(resolve).await;
            let error = error.unwrap_err();
            assert_took(took, deadline);
            assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error}");
            // What is in doubt is still the batch, not the fence.
            assert_eq!(error.in_doubt(), Some(&in_doubt));
        }
        wire.set(WireMode::Passing);
        let resolution = resolver.resolve(&in_doubt, fence()).await.unwrap();
        assert_eq!(resolution, fate.resolution(1..2), "{is_owner} {fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolution_does_not_fail_with_an_append_before_its_fence() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("a")).await.unwrap();
    let in_doubt = lose(&broker, &partition, &values(&["b"]), Fate::Lost).await;
    broker.stop(1).unwrap();
    let start = async {
        sleep(2 * SHORT).await;
        broker.restart(1).unwrap();
    };
    let append = partition.produce(record("c")).deadline(SHORT).into_future();
    let (append, resolution, ()) = tokio::join!(append, partition.resolve(&in_doubt, fence()), start);
    let error = append.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    assert_eq!(resolution.unwrap(), Resolution::NotApplied);
    assert_eq!(log(&broker), ["a", "fence"]);
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_is_rejected_is_not_applied() {
    for is_owner in [true, false] {
        for fate in Fate::ALL {
            let broker = broker();
            let partition = open(&broker).await;
            partition.produce(record("a")).await.unwrap();
            let in_doubt = lose(&broker, &partition, &record("b"), fate).await;
            let resolver = if is_owner { partition.clone() } else { open(&broker).await };
            let before = log(&broker);
            broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
            let error = resolver.resolve(&in_doubt, fence()).await.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::INVALID_RECORD), "{error}");
            assert_eq!((error.outcome(), error.in_doubt()), (Outcome::Unknown, Some(&in_doubt)));
            assert_eq!(log(&broker), before);
            // The owner goes on, and so does the resolution.
            partition.produce(record("c")).await.unwrap();
            assert_eq!(resolver.resolve(&in_doubt, fence()).await.unwrap(), fate.resolution(1..2));
            let fences = log(&broker).iter().filter(|value| *value == "fence").count();
            assert_eq!(fences, usize::from(!is_owner));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_after_the_fence_says_that_it_may_be_on_the_log() {
    for is_owner in [true, false] {
        let broker = broker();
        let partition = open(&broker).await;
        partition.produce(record("a")).await.unwrap();
        let in_doubt = lose(&broker, &partition, &record("b"), Fate::Appended).await;
        let resolver = if is_owner { partition } else { open(&broker).await };
        broker.on_all(ApiKey::FETCH, Fault::Error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
        let error = resolver.resolve(&in_doubt, fence()).await.unwrap_err();
        broker.clear_faults();
        assert_eq!(error.code(), Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert_eq!(log(&broker), ["a", "b", "fence"]);
        assert_eq!(resolver.resolve(&in_doubt, fence()).await.unwrap(), Resolution::Appended(1..2));
        assert_eq!(log(&broker), ["a", "b", "fence"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolution_that_is_dropped_can_be_repeated() {
    for is_owner in [true, false] {
        for fate in Fate::ALL {
            for polls in 0.. {
                let broker = broker();
                let partition = open(&broker).await;
                partition.produce(record("a")).await.unwrap();
                let in_doubt = lose(&broker, &partition, &record("b"), fate).await;
                let resolver = if is_owner { partition } else { open(&broker).await };
                let done = polled(resolver.resolve(&in_doubt, fence()), polls).await;
                settle().await;
                let resolution = resolver.resolve(&in_doubt, fence()).await.unwrap();
                assert_eq!(resolution, fate.resolution(1..2), "{is_owner} {polls}");
                resolver.produce(record("c")).await.unwrap();
                if let Some(done) = done {
                    assert_eq!(done.unwrap(), resolution);
                    break;
                }
                assert!(polls < 100, "it does not end");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_its_leader_alone_had_is_not_applied() {
    for is_owner in [true, false] {
        let cluster =
            EmbeddedCluster::builder().seed(5).brokers(2).topic("wal", 1).start_in_memory().unwrap();
        let client = builder(&cluster).build().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        // In sync, and nothing reaches it: so nothing is acknowledged.
        cluster.set_lag("wal", 0, 2, HOUR).unwrap();
        let error = partition.produce(record("b")).deadline(SHORT).await.unwrap_err();
        assert_eq!(log(&cluster), ["a", "b"]);
        cluster.elect_unclean("wal", 0, 2).unwrap();
        let resolver = if is_owner { partition } else { client.partition_client("wal", 0).await.unwrap() };
        let resolution = resolver.resolve(error.in_doubt().unwrap(), fence()).await.unwrap();
        assert_eq!(resolution, Resolution::NotApplied);
        assert_eq!(log(&cluster), ["a", "fence"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_found_on_the_next_leader() {
    for is_owner in [true, false] {
        let cluster =
            EmbeddedCluster::builder().seed(5).brokers(3).topic("wal", 1).start_in_memory().unwrap();
        let client = builder(&cluster).build().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        let in_doubt = lose(&cluster, &partition, &values(&["b", "c"]), Fate::Appended).await;
        let leader = cluster.leader("wal", 0).unwrap().unwrap();
        cluster.kill(leader).unwrap();
        let resolver = if is_owner { partition } else { client.partition_client("wal", 0).await.unwrap() };
        assert_eq!(resolver.resolve(&in_doubt, fence()).await.unwrap(), Resolution::Appended(1..3));
        resolver.produce(record("d")).await.unwrap();
        assert_eq!(log(&cluster), ["a", "b", "c", "fence", "d"]);
    }
}
