//! C4: how connections are shared, which call waits for which, and the runtime of the client.

use std::{pin::pin, sync::mpsc, thread, time::Duration};

use futures::{FutureExt, future::join_all};
use kwal_client::{
    Limits, OffsetAt, PartitionClient,
    error::{ErrorKind, Outcome},
};
use kwal_protocol::api::ApiKey;
use kwal_testkit::Fault;
use tokio::runtime::{Builder, Runtime};

use crate::support::{HOUR, Wire, broker, builder, chain, deadlines, log, open_over, record, settle, timed};

#[tokio::test(start_paused = true)]
async fn partitions_share_a_few_connections() {
    let broker = broker();
    broker.create_topic("wide", 200).unwrap();
    let wire = Wire::to(&broker);
    let limit = 4;
    let limits = Limits::default().max_connections_per_broker(limit);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let partitions: Vec<_> = join_all((0..200).map(|i| client.partition_client("wide", i).into_future()))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let work = async |partition: &PartitionClient| {
        let (produced, fetched, offset, topics) = tokio::join!(
            partition.produce(record("a")),
            partition.fetch(0),
            partition.get_offset(OffsetAt::Earliest),
            client.list_topics(),
        );
        assert_eq!((produced.unwrap().base_offset, fetched.unwrap().next_offset), (Some(0), 1));
        assert_eq!((offset.unwrap(), topics.unwrap().len()), (0, 2));
    };
    join_all(partitions.iter().map(work)).await;
    let (open, most) = wire.open();
    assert_eq!((open, most), (2 * limit + 1, 2 * limit + 1));

    drop(partitions);
    drop(client);
    settle().await;
    assert_eq!(wire.open().0, 0, "all connections are closed with the last handle");
}

#[tokio::test(start_paused = true)]
async fn more_callers_than_a_connection_can_carry_all_succeed() {
    let broker = broker();
    broker.create_topic("wide", 2000).unwrap();
    let limits = Limits::default().max_connections_per_broker(1);
    let client = builder(&broker).limits(limits).build().await.unwrap();
    let opening = (0..2000).map(|i| client.partition_client("wide", i).into_future());
    let partitions = join_all(opening).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let appends =
        join_all(partitions.iter().map(|partition| partition.produce(record("a")).into_future())).await;
    assert!(appends.iter().all(|produced| produced.as_ref().unwrap().attempts == 1));
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_for_a_slow_append_or_a_long_poll() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let one = client.partition_client("wal", 0).await.unwrap();
    let other = client.partition_client("wal", 1).await.unwrap();
    one.fetch(0).max_wait(Duration::ZERO).await.unwrap();
    other.fetch(0).max_wait(Duration::ZERO).await.unwrap();
    // An append waits for replicas, and a fetch for records.
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(9)));
    let append = tokio::spawn({
        let one = one.clone();
        async move { timed(one.produce(record("a"))).await }
    });
    settle().await;
    let fetch = tokio::spawn({
        let one = one.clone();
        async move { timed(one.fetch(1).max_wait(Duration::from_secs(20))).await }
    });
    settle().await;
    let (results, took) = timed(async {
        other.produce(record("b")).await.unwrap();
        other.fetch(0).await.unwrap();
        one.get_offset(OffsetAt::Latest).await.unwrap();
        client.list_topics().await.unwrap();
    })
    .await;
    assert_eq!((results, took), ((), Duration::ZERO));
    let (produced, took) = append.await.unwrap();
    produced.unwrap();
    assert_eq!(took, Duration::from_secs(9));
    one.produce(record("c")).await.unwrap();
    let (fetched, took) = fetch.await.unwrap();
    assert_eq!(fetched.unwrap().next_offset, 2);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_queued_on_a_shared_connection_do_not_time_out() {
    let broker = broker();
    broker.create_topic("wide", 60).unwrap();
    let wire = Wire::to(&broker);
    let limits = Limits::default().max_connections_per_broker(1);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let partitions: Vec<_> = join_all((0..60).map(|i| client.partition_client("wide", i).into_future()))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    // A broker works on one request at a time: the last one is read long after the time limit of a request.
    let wait = Duration::from_millis(500);
    // Fetches that want more than the first record are not combined.
    let fetch =
        async |partition: &PartitionClient, wait| timed(partition.fetch(0).min_bytes(2).max_wait(wait)).await;
    let fetches = join_all(partitions.iter().map(|partition| fetch(partition, wait))).await;
    assert!(fetches.iter().all(|(fetched, _)| fetched.is_ok()));
    assert_eq!(fetches.iter().map(|(_, took)| *took).max(), Some(60 * wait));
    assert_eq!(wire.count(ApiKey::FETCH), 60);

    let long = deadlines().request * 2;
    let (first, second) = tokio::join!(fetch(&partitions[0], long), fetch(&partitions[1], wait),);
    assert_eq!((first.0.is_ok(), first.1), (true, long));
    assert_eq!((second.0.is_ok(), second.1), (true, long + wait));
    assert_eq!(wire.count(ApiKey::FETCH), 62);

    let almost = deadlines().request * 9 / 10;
    broker.on_times(ApiKey::PRODUCE, 5, Fault::DelayReply(almost));
    let appends =
        join_all(partitions[..5].iter().map(|partition| partition.produce(record("a")).into_future())).await;
    assert!(appends.iter().all(|produced| produced.as_ref().unwrap().attempts == 1));
    assert_eq!(wire.count(ApiKey::PRODUCE), 5);
}

#[tokio::test(start_paused = true)]
async fn a_response_with_a_wrong_correlation_id_closes_the_connection() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    let before = wire.connections();
    broker.on(ApiKey::PRODUCE, Fault::WrongCorrelationId);
    assert_eq!(partition.produce(record("b")).await.unwrap().attempts, 2);
    broker.on(ApiKey::FETCH, Fault::WrongCorrelationId);
    assert_eq!(partition.fetch(0).await.unwrap().next_offset, 2);
    assert_eq!(wire.connections(), before + 3);
    assert_eq!(log(&broker), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_speak_kafka_is_recognized_by_its_first_bytes() {
    use tokio::io::AsyncWriteExt;
    for (bytes, protocol) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "HTTP"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "TLS"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "SSH-2.0"),
    ] {
        let network = kwal_transport::memory::MemoryNetwork::default();
        let mut listener = network.listen(kwal_transport::HostPort::new("other", 80)).unwrap();
        tokio::spawn(async move {
            loop {
                let mut stream = listener.accept().await;
                stream.write_all(bytes).await.unwrap();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                });
            }
        });
        let build = kwal_client::ClientBuilder::new(vec!["other:80".to_owned()]).connector(network).build();
        let (result, took) = timed(build).await;
        let error = result.unwrap_err();
        assert!(chain(&error).contains(protocol), "{error}");
        assert_eq!(took, Duration::ZERO);
    }
}

/// A client whose tasks run on one runtime while its callers run on another.
struct TwoRuntimes {
    client_runtime: Runtime,
    caller_runtime: Runtime,
    broker: kwal_testkit::EmbeddedCluster,
    client: kwal_client::Client,
    partition: PartitionClient,
}

impl TwoRuntimes {
    fn new(client_runtime: Runtime) -> Self {
        let caller_runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (broker, builder) = caller_runtime.block_on(async {
            let broker = broker();
            let builder = builder(&broker);
            (broker, builder)
        });
        // By default, tasks run on the runtime on which the client is built.
        let (client, partition) = client_runtime.block_on(async {
            let client = builder.build().await.unwrap();
            let partition = client.partition_client("wal", 0).await.unwrap();
            partition.produce(record("a")).await.unwrap();
            partition.fetch(0).await.unwrap();
            (client, partition)
        });
        Self { client_runtime, caller_runtime, broker, client, partition }
    }
}

#[test]
fn calls_fail_at_once_after_the_runtime_of_the_client_has_shut_down() {
    let client_runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let TwoRuntimes { client_runtime, caller_runtime, broker, client, partition } =
        TwoRuntimes::new(client_runtime);
    caller_runtime.block_on(async {
        partition.produce(record("b")).await.unwrap();
        broker.on(ApiKey::PRODUCE, Fault::DelayReply(HOUR));
        broker.on(ApiKey::FETCH, Fault::DelayReply(HOUR));
        let spawn_call = |append: bool| {
            let partition = partition.clone();
            tokio::spawn(async move {
                match append {
                    true => partition.produce(record("c")).await.map(drop),
                    false => partition.fetch(0).await.map(drop),
                }
            })
        };
        let (append, queued, fetch) = (spawn_call(true), spawn_call(true), spawn_call(false));
        while broker.requests(ApiKey::PRODUCE) < 3 || broker.requests(ApiKey::FETCH) < 2 {
            tokio::task::yield_now().await;
        }
        client_runtime.shutdown_background();
        for (call, outcome) in
            [(append, Outcome::Unknown), (queued, Outcome::Unknown), (fetch, Outcome::NotApplied)]
        {
            let error = call.await.unwrap().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Closed), "{error:?}");
            assert_eq!(error.outcome(), outcome);
        }

        let errors = [
            partition.produce(record("d")).await.unwrap_err(),
            partition.fetch(0).await.unwrap_err(),
            partition.get_offset(OffsetAt::Latest).await.unwrap_err(),
            client.list_topics().await.unwrap_err(),
            client.partition_client("wal", 1).await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error.kind(), ErrorKind::Closed), "{error:?}");
            assert_eq!((error.outcome(), error.is_retriable()), (Outcome::NotApplied, false));
        }
        assert_eq!(log(&broker), ["a", "b", "c"]);
    });
}

#[test]
fn calls_end_at_their_deadline_if_the_runtime_of_the_client_is_not_driven() {
    let client_runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let TwoRuntimes { client_runtime, caller_runtime, broker, client, partition } =
        TwoRuntimes::new(client_runtime);
    let paused = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    paused.block_on(async {
        let limit = deadlines().operation;
        let (error, took) = timed(partition.produce(record("b"))).await;
        let error = error.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
        assert!(took >= limit && took < limit + Duration::from_secs(1), "{took:?}");
        let (error, took) = timed(partition.fetch(0)).await;
        assert!(
            matches!(error.as_ref().unwrap_err().kind(), ErrorKind::DeadlineExceeded { .. }),
            "{error:?}"
        );
        assert_eq!(took, limit);
        let (error, took) = timed(client.list_topics()).await;
        assert!(
            matches!(error.as_ref().unwrap_err().kind(), ErrorKind::DeadlineExceeded { .. }),
            "{error:?}"
        );
        assert_eq!(took, limit);
    });
    // When its runtime is driven again, the client is usable.
    client_runtime.block_on(partition.produce(record("c")).into_future()).unwrap();
    drop((broker, caller_runtime));
}

#[test]
fn the_runtime_of_the_tasks_can_be_set() {
    let client_runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let caller_runtime = Builder::new_current_thread().enable_all().build().unwrap();
    caller_runtime.block_on(async {
        let broker = {
            let _entered = client_runtime.enter();
            broker()
        };
        let client = builder(&broker).runtime(client_runtime.handle().clone()).build().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        assert_eq!(partition.fetch(0).await.unwrap().next_offset, 1);
        client_runtime.shutdown_background();
        let error = partition.produce(record("b")).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed), "{error:?}");
    });
}

/// What a task has woken does not run on its thread before the task yields: the producer task, here.
#[test]
fn an_append_ends_at_its_deadline_in_a_task_that_blocks_its_thread() {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let append = async {
            let broker = broker();
            let client = builder(&broker).build().await.unwrap();
            let partition = client.partition_client("wal", 0).await.unwrap();
            partition.produce(record("a")).await.unwrap();
            broker.on_all(ApiKey::PRODUCE, Fault::BlackHole);
            let blocking = async move {
                let append = partition.produce(record("b")).deadline(Duration::from_millis(200));
                futures::executor::block_on(append.into_future()).unwrap_err()
            };
            tokio::spawn(blocking).await.unwrap()
        };
        done.send(runtime.block_on(append)).unwrap();
    });
    let error = ended.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
}

/// Without a runtime, it does not matter whether an append has to wait.
#[test]
fn an_append_can_wait_for_another_one_outside_of_a_runtime() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (broker, partition, permits) = runtime.block_on(async {
        let broker = broker();
        let client = builder(&broker).build().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        let mut permits = Vec::new();
        while let Some(permit) = partition.try_reserve(100) {
            permits.push(permit);
        }
        (broker, partition, permits)
    });
    let mut append = pin!(partition.produce(record("a")).into_future());
    assert!(append.as_mut().now_or_never().is_none(), "there is no place");
    drop(permits);
    futures::executor::block_on(append).unwrap();
    assert_eq!(log(&broker), ["a"]);
}
