//! C3 to C9: batch producers under threads that do what they like, in real time.
//!
//! `KWAL_LONG=1` runs it for minutes, from the seed `KWAL_SEED`.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use kwal_batching::producer::{Ack, Acks, BatchProducer};
use kwal_client::{
    Limits, PartitionClient,
    error::{Error, ErrorKind, Outcome},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, record::Compression};
use kwal_testkit::{EmbeddedCluster, Fault, FaultTarget};
use tokio::{
    runtime::{Builder, Handle},
    time::Instant,
};

use crate::support::{Held, Rng, broker, builder, open_warm, record, send, values};

/// How long one run may take until it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of one input: its value, and its offset or whether it may be on the log.
#[derive(Debug)]
struct Ended {
    value: String,
    result: Option<Result<Option<i64>, Outcome>>,
}

/// Unparks a thread.
struct Unpark(thread::Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::Release);
        self.0.unpark();
    }
}

fn unpark() -> (Arc<Unpark>, Waker) {
    let unpark = Arc::new(Unpark(thread::current(), AtomicBool::new(true)));
    (Arc::clone(&unpark), Waker::from(unpark))
}

/// Awaits a future on this thread, and polls it only when it was woken.
fn block_on<F: Future>(future: F) -> F::Output {
    let (woken, waker) = unpark();
    let mut future = pin!(future);
    loop {
        while !woken.1.swap(false, Ordering::Acquire) {
            thread::park();
        }
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
    }
}

/// Polls a future at most so many times, as often as it is woken within a moment.
fn poll_some<F: Future + Unpin>(future: &mut F, times: u64) -> Option<F::Output> {
    let (woken, waker) = unpark();
    for _ in 0..times {
        if !woken.1.swap(false, Ordering::Acquire) {
            thread::park_timeout(Duration::from_micros(50));
        }
        if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
    }
    None
}

/// A caller on a thread of its own.
struct Caller {
    producer: BatchProducer,
    name: u64,
    next: u64,
    rng: Rng,
    ended: Vec<Ended>,
    /// For all calls but `produce`, which needs none as long as that of the client runs.
    runtime: Handle,
    ends: bool,
    /// Where results are awaited that this caller does not want to.
    elsewhere: mpsc::Sender<(String, Ack)>,
}

fn outcome(result: Result<kwal_batching::producer::Appended, Error>) -> Result<Option<i64>, Outcome> {
    result.map(|appended| appended.offset).map_err(|error| {
        let kind = error.kind();
        let is_expected = matches!(
            kind,
            ErrorKind::PrecedingAppendFailed | ErrorKind::DeadlineExceeded { .. } | ErrorKind::Closed
        ) || error.code() == Some(ErrorCode::INVALID_RECORD);
        assert!(is_expected, "{error:?}");
        error.outcome()
    })
}

impl Caller {
    fn value(&mut self) -> String {
        self.next += 1;
        format!("{}-{}{}", self.name, self.next, "+".repeat(self.rng.below(200) as usize))
    }

    fn ended(&mut self, value: String, result: Option<Result<Option<i64>, Outcome>>) {
        self.ended.push(Ended { value, result });
    }

    fn run(mut self, operations: u64) -> Vec<Ended> {
        for _ in 0..operations {
            let (runtime, operation) = (self.runtime.clone(), self.rng.below(12));
            let _entered = (self.ends || operation > 6).then(|| runtime.enter());
            match operation {
                0..=4 => {
                    let value = self.value();
                    let result = block_on(self.producer.produce(record(value.clone())));
                    self.ended(value, Some(outcome(result)));
                }
                5 => self.dropped(),
                6 => self.moved(),
                7 | 8 => self.pipeline(),
                9 => {
                    let (value, times) = (self.value(), 1 + self.rng.below(3));
                    let producer = self.producer.clone();
                    let mut reserve = producer.reserve().into_future();
                    let slot = self.rng.below(2) == 0 && poll_some(&mut reserve, times).is_some();
                    if !slot {
                        drop(reserve);
                        let result =
                            block_on(async { producer.reserve().await?.send(record(&*value)).await });
                        self.ended(value, Some(outcome(result)));
                    }
                }
                10 => drop(block_on(self.producer.flush().into_future())),
                _ => {
                    let times = self.rng.below(3);
                    drop(poll_some(&mut self.producer.flush().into_future(), times));
                }
            }
        }
        self.ended
    }

    /// Polls a call a few times and drops it.
    fn dropped(&mut self) {
        let (value, times) = (self.value(), self.rng.below(4));
        let result = poll_some(&mut self.producer.produce(record(value.clone())), times);
        self.ended(value, result.map(outcome));
    }

    /// Polls a call with one waker, and awaits it with others.
    fn moved(&mut self) {
        let value = self.value();
        let producer = self.producer.clone();
        let mut produce = producer.produce(record(value.clone())).deadline(Duration::from_secs(30));
        let times = 1 + self.rng.below(3);
        let result = match poll_some(&mut produce, times) {
            Some(result) => result,
            None => thread::scope(|scope| {
                let runtime = &self.runtime;
                let awaits = move || {
                    let _entered = runtime.enter();
                    block_on(produce)
                };
                scope.spawn(awaits).join().unwrap()
            }),
        };
        self.ended(value, Some(outcome(result)));
    }

    /// Hands several inputs over before it looks at any result.
    fn pipeline(&mut self) {
        let (mut acks, mut sent) = (Acks::new(), Vec::new());
        let producer = self.producer.clone();
        for _ in 0..1 + self.rng.below(8) {
            let value = self.value();
            // Several that wait for places at a time could wait for each other.
            let Some(Ok(slot)) = poll_some(&mut producer.reserve().into_future(), 1) else { break };
            let ack = slot.send(record(&*value));
            match self.rng.below(8) {
                0 => self.elsewhere.send((value, ack)).unwrap(),
                1 => self.ended(value, None),
                _ => {
                    acks.push(ack);
                    sent.push(value);
                }
            }
        }
        let mut has_failed = false;
        for value in sent {
            let result =
                block_on(std::future::poll_fn(|cx| futures::Stream::poll_next(Pin::new(&mut acks), cx)));
            let result = outcome(result.unwrap());
            assert!(result.is_err() || !has_failed, "{value} is on the log behind one that failed");
            has_failed |= result.is_err();
            self.ended(value, Some(result));
        }
    }
}

struct Run {
    seed: u64,
    callers: u64,
    operations: u64,
    /// Whether something is closed while the callers are at it.
    ends: bool,
}

impl Run {
    fn settings(rng: &mut Rng, partition: PartitionClient) -> BatchProducer {
        let linger = [0, 0, 0, 200, 2_000][rng.below(5) as usize];
        BatchProducer::builder(partition)
            .linger(Duration::from_micros(linger))
            .window(1 + rng.below(5) as usize)
            .max_records([1, 3, 100_000][rng.below(3) as usize])
            .max_bytes([400, 3_000, 1_000_000][rng.below(3) as usize])
            .build()
    }

    /// Opens a partition client, and returns how many small appends can be under way.
    async fn open(rng: &mut Rng, broker: &EmbeddedCluster) -> (PartitionClient, usize) {
        let (memory, places) = [(8, 6), (40, 30), (1 << 10, 64)][rng.below(3) as usize];
        let memory = memory << 10;
        let limits = Limits::default().memory(memory).batch(64 << 10);
        let client = builder(broker).limits(limits).build().await.unwrap();
        let compression = if rng.below(3) == 0 { Compression::Lz4 } else { Compression::None };
        let partition = client.partition_client("wal", 0).compression(compression).await.unwrap();
        (partition, places)
    }

    fn run(&self) {
        let mut rng = Rng(self.seed);
        // That of the broker and of calls: the one of the client may end.
        let outer = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (broker, (partition, places), runtime) = {
            let runtime = match rng.below(4) as usize {
                0 => Builder::new_current_thread().enable_all().build().unwrap(),
                threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap(),
            };
            let broker = outer.block_on(async { broker() });
            let partition = runtime.block_on(Self::open(&mut rng, &broker));
            (broker, partition, runtime)
        };
        // One without threads of its own runs on this one, until it is told to end.
        let (end, is_ended) = tokio::sync::oneshot::channel::<()>();
        let runtime = thread::spawn(move || {
            let _ = runtime.block_on(is_ended);
            runtime.shutdown_background();
        });
        let mut end = Some(end);
        let producer = Self::settings(&mut rng, partition.clone());
        for _ in 0..rng.below(8) {
            let fault = match rng.below(4) {
                0 | 1 => Fault::Error(ErrorCode::INVALID_RECORD),
                2 => Fault::LoseReply,
                _ => Fault::DelayReply(Duration::from_millis(rng.below(20))),
            };
            broker.on(FaultTarget::api(ApiKey::PRODUCE).after(rng.below(40) as usize), fault);
        }
        let (elsewhere, others) = mpsc::channel::<(String, Ack)>();
        let awaits = thread::spawn(move || {
            let await_one = |(value, ack)| Ended { value, result: Some(outcome(block_on(ack))) };
            others.into_iter().map(await_one).collect::<Vec<_>>()
        });
        let callers: Vec<_> = (0..self.callers)
            .map(|name| {
                let (producer, elsewhere, rng) = (producer.clone(), elsewhere.clone(), rng.fork());
                let runtime = outer.handle().clone();
                let (ends, ended) = (self.ends, Vec::new());
                let caller = Caller { producer, name, next: 0, rng, ended, runtime, ends, elsewhere };
                let operations = self.operations;
                thread::spawn(move || caller.run(operations))
            })
            .collect();
        drop(elsewhere);
        if self.ends {
            thread::sleep(Duration::from_micros(rng.below(30_000)));
            let deadline = Duration::from_millis(rng.below(20));
            match rng.below(4) {
                0 => drop(outer.block_on(partition.close().deadline(deadline).into_future())),
                1 => drop(outer.block_on(producer.close().deadline(deadline).into_future())),
                2 => drop(outer.block_on(async {
                    tokio::join!(producer.close().deadline(deadline), partition.close().deadline(deadline))
                })),
                _ => end.take().into_iter().for_each(|end| end.send(()).unwrap()),
            }
        }
        let mut ended: Vec<_> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        ended.extend(awaits.join().unwrap());
        let rest = outer.block_on(producer.close().into_future());
        self.check(&broker, &ended);
        for undelivered in rest {
            for record in undelivered.records() {
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                let result = Some(Err(undelivered.error.outcome()));
                self.check(&broker, &[Ended { value, result }]);
            }
        }
        self.check_idle(&partition, &producer, places);
        drop(end);
        runtime.join().unwrap();
    }

    /// Each value is on the log at most once, and where its caller was told.
    fn check(&self, broker: &EmbeddedCluster, ended: &[Ended]) {
        let seed = self.seed;
        let log = values(broker);
        let mut at = BTreeMap::new();
        let mut last = BTreeMap::new();
        for (offset, value) in log.iter().enumerate() {
            assert_eq!(at.insert(value.as_str(), offset as i64), None, "{seed}: {value} is there twice");
            let (name, number) = value.trim_end_matches('+').split_once('-').unwrap();
            let number: u64 = number.parse().unwrap();
            let before = last.insert(name, number);
            assert!(before < Some(number), "{seed}: {value} is behind {before:?}");
        }
        for Ended { value, result } in ended {
            let found = at.get(value.as_str()).copied();
            match result {
                Some(Ok(offset)) => assert!(
                    found.is_some() && (offset.is_none() || *offset == found),
                    "{seed}: {value} {offset:?} {found:?}"
                ),
                Some(Err(Outcome::NotApplied)) => assert_eq!(found, None, "{seed}: {value}"),
                Some(Err(Outcome::Unknown)) | None => {}
            }
        }
    }

    /// All memory and all places are free, and nobody is counted.
    fn check_idle(&self, partition: &PartitionClient, producer: &BatchProducer, most: usize) {
        let seed = self.seed;
        let begun = Instant::now();
        loop {
            let stats = producer.stats();
            let counts = (stats.in_flight, stats.gathering, stats.waiting);
            let is_free = partition.try_reserve(48 << 10).is_some();
            let places: Vec<_> = std::iter::from_fn(|| partition.try_reserve(1)).collect();
            // Nothing is free where nothing is taken any more.
            if counts == (0, 0, 0) && (self.ends || is_free && places.len() == most) {
                assert_eq!(stats.batches, stats.wire.count, "{seed}: {stats:?}");
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{seed}: {} {is_free} {stats:?}",
                places.len()
            );
            thread::yield_now();
        }
    }
}

/// Runs it, and fails if it is stuck.
fn watched(run: Run) {
    let (seed, (done, is_done)) = (run.seed, mpsc::channel());
    let thread = thread::spawn(move || {
        run.run();
        let _ = done.send(());
    });
    match is_done.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("seed {seed} is stuck"),
        _ => thread.join().unwrap_or_else(|_| panic!("seed {seed} failed")),
    }
}

#[test]
fn callers_on_threads_get_their_answers() {
    let is_long = std::env::var_os("KWAL_LONG").is_some();
    let seed = std::env::var("KWAL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let begun = Instant::now();
    let most = Duration::from_secs(if is_long { 240 } else { 2 });
    let runs = (seed..).take_while(|_| begun.elapsed() < most);
    let count =
        runs.map(|seed| watched(Run { seed, callers: 6, operations: 40, ends: seed % 3 == 0 })).count();
    eprintln!("{count} runs");
}

#[cfg(target_os = "linux")]
/// Returns how much time the threads of this process have worked, in hundredths of a second.
fn worked() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<_> = stat.rsplit(") ").next()?.split(' ').collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// A producer that waits for something does not work meanwhile.
#[test]
#[cfg(target_os = "linux")]
#[ignore = "it has to be alone in its process, and takes 5 s"]
fn nothing_works_while_it_waits() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let broker = broker();
        let (wire, _client, partition) = open_warm(&broker).await;
        let build = |linger| {
            let producer = BatchProducer::builder(partition.clone()).linger(Duration::from_secs(linger));
            producer.max_records(3).window(2).build()
        };
        let (producer, lingers) = (build(0), build(20));
        let rests = async |what: &str| {
            let before = worked().unwrap();
            tokio::time::sleep(Duration::from_millis(700)).await;
            let worked = worked().unwrap() - before;
            assert!(worked < 15, "{what}: {worked}");
        };
        rests("idle").await;
        let ack = lingers.reserve().await.unwrap().send(record("lingers"));
        rests("with a linger").await;
        let held = Held::new(&wire);
        let acks = send(&producer, 0..50).await;
        rests("with a full window").await;
        let places: Vec<_> = std::iter::from_fn(|| partition.try_reserve(1)).collect();
        let (waits, more) = (producer.reserve(), producer.produce(record("waits")));
        let waiting = async { tokio::join!(waits, more) };
        assert!(tokio::time::timeout(Duration::from_millis(10), waiting).await.is_err());
        rests("after some have waited").await;
        let mut flush = producer.flush().into_future();
        assert!(crate::support::poll_once(&mut flush).await.is_pending());
        rests("with a flush").await;
        drop(places);
        held.release();
        for ack in acks {
            ack.await.unwrap();
        }
        flush.await.unwrap();
        lingers.flush().await.unwrap();
        ack.await.unwrap();
        rests("idle again").await;
        broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
        let unread = send(&producer, 0..2).await;
        let behind = tokio::time::timeout(Duration::from_secs(2), producer.produce(record("behind"))).await;
        assert!(behind.unwrap().is_err());
        rests("with an error that nobody has got").await;
        drop(unread);
        producer.produce(record("after")).await.unwrap();
    });
}

/// Callers that try again at once get on, as many as they are.
#[test]
fn many_callers_that_try_again_at_once_get_on() {
    for threads in [0, 4] {
        let runtime = match threads {
            0 => Builder::new_current_thread().enable_all().build(),
            threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
        };
        let most = runtime.unwrap().block_on(async {
            let broker = broker();
            let (_wire, _client, partition) = open_warm(&broker).await;
            let producer = BatchProducer::new(partition);
            for batches in 1..4 {
                broker.on(
                    FaultTarget::api(ApiKey::PRODUCE).after(batches),
                    Fault::Error(ErrorCode::INVALID_RECORD),
                );
            }
            let callers = (0..1_000).map(|caller| {
                let producer = producer.clone();
                tokio::spawn(async move {
                    let mut failures = 0;
                    for i in 0..5 {
                        loop {
                            let record = record(format!("{caller}-{i}"));
                            let result = match caller % 2 {
                                0 => producer.produce(record).await,
                                _ => producer.reserve().await.unwrap().send(record).await,
                            };
                            if result.is_ok() {
                                break;
                            }
                            failures += 1;
                        }
                    }
                    failures
                })
            });
            let callers: Vec<_> = callers.collect();
            let callers = async {
                let mut most = 0;
                for caller in callers {
                    most = most.max(caller.await.unwrap());
                }
                most
            };
            let most = tokio::time::timeout(Duration::from_secs(30), callers).await.expect("they get on");
            assert_eq!(values(&broker).len(), 5_001);
            most
        });
        eprintln!("{most} failures");
    }
}
