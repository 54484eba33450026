//! C3: appends are on the log in submission order, without a hole.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use kwal_client::{
    Limits, PartitionClient, Produced,
    error::{Error, ErrorKind, Outcome},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::Fault;
use tokio::{task::JoinHandle, time::sleep};

use crate::support::{HOUR, Wire, broker, builder, log, open, open_over, record, settle, source};

/// Spawns an append.
fn submit(partition: &PartitionClient, value: impl Into<String>) -> JoinHandle<Result<Produced, Error>> {
    let (partition, value) = (partition.clone(), value.into());
    tokio::spawn(async move { partition.produce(record(value)).await })
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|i| i.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn appends_are_in_submission_order_whatever_the_faults() {
    let faults = [
        Fault::Pass,
        Fault::LoseReply,
        Fault::Drop,
        Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT),
        Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        Fault::Pass,
        Fault::Throttle(Duration::from_millis(300)),
        Fault::DelayRequest(Duration::from_secs(15)),
        Fault::DelayReply(Duration::from_secs(15)),
        Fault::WrongCorrelationId,
    ];
    let broker = broker();
    let partition = open(&broker).await;
    for round in 0..10 {
        for fault in &faults[round % 3..] {
            broker.on(ApiKey::PRODUCE, *fault);
        }
        let before = log(&broker).len();
        // More than the queue has places for.
        let values = numbers(200);
        let appends = join_all(values.iter().map(|value| partition.produce(record(value)).into_future()));
        for (i, produced) in appends.await.into_iter().enumerate() {
            assert_eq!(produced.unwrap().base_offset, Some((before + i) as i64), "round {round}");
        }
        assert_eq!(log(&broker)[before..], values, "round {round}");
        assert_eq!(broker.faults_left(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn appends_complete_in_submission_order() {
    let broker = broker();
    let partition = open(&broker).await;
    broker.on(ApiKey::PRODUCE, Fault::LoseReply);
    let appends: FuturesUnordered<_> =
        (0..300).map(|i| partition.produce(record(i.to_string())).into_future()).collect();
    let offsets: Vec<_> = appends.map(|produced| produced.unwrap().base_offset.unwrap()).collect().await;
    assert_eq!(offsets, (0..300).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn clones_share_the_order() {
    let broker = broker();
    let partition = open(&broker).await;
    let mut appends = Vec::new();
    for value in numbers(100) {
        appends.push(submit(&partition.clone(), value));
    }
    for append in appends {
        append.await.unwrap().unwrap();
    }
    assert_eq!(log(&broker), numbers(100));
}

/// On several threads, with so little memory that nearly all of them have to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn waiting_for_memory_keeps_the_order() {
    let broker = broker();
    let limits = Limits::default().memory(4 << 10);
    let client = builder(&broker).limits(limits).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let mut appends = Vec::new();
    for i in 0..1000 {
        let mut append = Box::pin({
            let partition = partition.clone();
            async move { partition.produce(record(i.to_string())).await }
        });
        // The first poll decides the order.
        let first = poll_fn(|cx| Poll::Ready(append.as_mut().poll(cx))).await;
        appends.push(tokio::spawn(async move {
            match first {
                Poll::Ready(done) => done,
                Poll::Pending => append.await,
            }
        }));
    }
    for append in appends {
        append.await.unwrap().unwrap();
    }
    assert!(log(&broker) == numbers(1000), "out of order");
}

#[tokio::test(start_paused = true)]
async fn appends_submitted_after_a_failed_one_fail_with_it() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("before")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(5)));
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    let good = submit(&partition, "good");
    let bad = submit(&partition, "bad");
    settle().await;
    let mut later = Vec::new();
    for i in 0..10 {
        later.push(submit(&partition, i.to_string()));
    }
    good.await.unwrap().unwrap();
    let error = bad.await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::INVALID_RECORD), Outcome::NotApplied));
    // The error has been returned, so this one does not fail with it.
    partition.produce(record("after")).await.unwrap();
    for append in later {
        let error = append.await.unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error:?}");
        assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::INVALID_RECORD), Outcome::NotApplied));
    }
    assert_eq!(log(&broker), ["before", "good", "after"]);
    // Behind the two in flight there was room for three of the later ones, which the broker rejected.
    assert_eq!(wire.count(ApiKey::PRODUCE), 4 + 3 + 1);
}

#[tokio::test(start_paused = true)]
async fn appends_submitted_after_one_in_doubt_are_not_applied() {
    let broker = broker();
    let partition = open(&broker).await;
    broker.on_all(ApiKey::PRODUCE, Fault::DelayRequest(HOUR));
    let in_doubt = submit(&partition, "in doubt");
    sleep(Duration::from_secs(30)).await;
    let later = [submit(&partition, "1"), submit(&partition, "2")];
    let error = in_doubt.await.unwrap().unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    broker.clear_faults();
    for append in later {
        let error = append.await.unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error:?}");
        let cause: &Error = source(&error);
        assert_eq!((error.outcome(), cause.outcome()), (Outcome::NotApplied, Outcome::Unknown));
    }
    partition.produce(record("after")).await.unwrap();
    sleep(2 * HOUR).await;
    assert_eq!(log(&broker), ["after"]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_one_partition_does_not_affect_another() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let one = client.partition_client("wal", 0).await.unwrap();
    let other = client.partition_client("wal", 1).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    let (a, b) = tokio::join!(one.produce(record("a")), other.produce(record("b")));
    assert!(a.is_ok() != b.is_ok(), "{a:?}, {b:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_submit_while_connections_end_lose_nothing() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let submitted = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let (partition, submitted) = (partition.clone(), Arc::clone(&submitted));
            tokio::spawn(async move {
                for i in 0..100 {
                    let value = format!("{thread}-{i}");
                    let batch = partition.encode(record(value.clone())).unwrap();
                    let permit = partition.reserve(batch.size_in_bytes()).await.unwrap();
                    let append = {
                        let mut submitted = submitted.lock().unwrap();
                        submitted.push(value);
                        permit.submit(batch)
                    };
                    if i % 3 == 0 {
                        append.await.unwrap();
                    }
                }
            })
        })
        .collect();
    let breaks = async {
        loop {
            broker.disconnect_all();
            sleep(Duration::from_millis(3)).await;
        }
    };
    tokio::select! {
        ended = join_all(threads) => ended.into_iter().for_each(|ended| ended.unwrap()),
        () = breaks => {}
    }
    assert!(client.close().await.is_empty());
    assert_eq!(log(&broker), *submitted.lock().unwrap());
}

/// A caller that has not seen an error yet cannot know that what it submits would leave a hole.
#[tokio::test(start_paused = true)]
async fn what_is_submitted_before_an_error_is_seen_fails_with_it() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("first")).await.unwrap();
    let submit = async |value: &str| {
        let batch = partition.encode(record(value)).unwrap();
        (partition.reserve(batch.size_in_bytes()).await.unwrap().submit(batch),)
    };
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    let (bad,) = submit("bad").await;
    settle().await;
    let (behind,) = submit("behind").await;
    let error = behind.await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error:?}");
    assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::INVALID_RECORD), Outcome::NotApplied));
    assert!(error.is_retriable());
    assert_eq!(bad.await.unwrap_err().code(), Some(ErrorCode::INVALID_RECORD));
    // It has been seen now. One that nobody waits for is not.
    partition.produce(record("after")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    drop(submit("bad again").await);
    settle().await;
    partition.produce(record("last")).await.unwrap();
    assert_eq!(log(&broker), ["first", "after", "last"]);
}
