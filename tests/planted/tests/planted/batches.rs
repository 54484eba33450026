//! Producers that gather the inputs of many callers into batches.

use std::{
    error::Error as StdError,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::join_all, stream::FuturesUnordered};
use kwal_client::{
    Limits, PartitionClient,
    batching::producer::{Ack, Aggregator, Appended, BatchProducer, BatchProducerBuilder, Sink, Slot},
    error::{Error, Outcome},
    record::Record,
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, record::Compression};
use kwal_testkit::{EmbeddedCluster, Fault, FaultTarget, check::Ticket, wire::Decision};
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    fixture::{Appender, Fixture, MINUTE},
    reading::open_over_wire,
    support::{polled, settle},
};

const SECOND: Duration = Duration::from_secs(1);
const REJECTED: Fault = Fault::Error(ErrorCode::INVALID_RECORD);
/// What appends may hold.
const MEMORY: usize = 48 << 10;

/// A producer whose inputs are recorded as the appends of one writer.
struct Batches {
    producer: BatchProducer,
    wal: Appender,
}

/// An input that was handed over.
struct Sent {
    ack: Ack,
    ticket: Ticket,
}

impl Sent {
    /// Waits for the result, longer than it may take, and records it.
    async fn done(self) -> Option<Result<Appended, Error>> {
        let result = timeout(2 * MINUTE, self.ack).await.ok()?;
        note(self.ticket, &result);
        Some(result)
    }
}

fn note(ticket: Ticket, result: &Result<Appended, Error>) {
    match result {
        Ok(Appended { offset: Some(offset), .. }) => ticket.acked(*offset),
        Ok(_) => ticket.acked_at_unknown_offset(),
        Err(error) => match error.outcome() {
            Outcome::NotApplied => ticket.not_appended(),
            Outcome::Unknown => ticket.unknown(),
        },
    }
}

fn record(value: &str) -> Record {
    Record::new(None::<&str>, value.to_owned())
}

impl Batches {
    async fn open(
        fixture: &Fixture,
        with: impl FnOnce(BatchProducerBuilder) -> BatchProducerBuilder,
    ) -> Self {
        let wal = fixture.open().await;
        // From here on an append takes one request.
        wal.append(&["warm"]).await;
        Self { producer: with(BatchProducer::builder(wal.partition.clone())).build(), wal }
    }

    async fn slot(&self) -> Slot {
        self.producer.reserve().await.unwrap()
    }

    fn send_with(&self, slot: Slot, value: &str) -> Sent {
        let ticket = self.wal.record(&[value]);
        Sent { ack: slot.send(record(value)), ticket }
    }

    async fn send(&self, value: &str) -> Sent {
        self.send_with(self.slot().await, value)
    }

    async fn send_all(&self, values: std::ops::Range<usize>) -> Vec<Sent> {
        let mut sent = Vec::new();
        for value in values {
            sent.push(self.send(&value.to_string()).await);
        }
        sent
    }

    /// Waits for the results, whichever comes first.
    async fn all_done(&self, sent: impl IntoIterator<Item = Sent>) {
        let mut sent: FuturesUnordered<_> = sent.into_iter().map(Sent::done).collect();
        while sent.next().await.is_some() {}
    }

    /// Appends one record on a task of its own.
    fn spawn(&self, value: &str) -> JoinHandle<()> {
        let (ticket, producer, record) = (self.wal.record(&[value]), self.producer.clone(), record(value));
        tokio::spawn(async move { note(ticket, &producer.produce(record).await) })
    }

    /// Appends one record, and waits for it as a caller does that does nothing else.
    async fn produce(&self, value: &str) -> Option<Result<Appended, Error>> {
        let ticket = self.wal.record(&[value]);
        let result = timeout(2 * MINUTE, self.producer.produce(record(value))).await.ok()?;
        note(ticket, &result);
        Some(result)
    }
}

fn delay(fixture: &Fixture) {
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
}

/// Several inputs share a batch.
pub(crate) async fn gathered() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder).await;
    delay(&fixture);
    let sent = wal.send_all(0..6).await;
    wal.all_done(sent).await;
    fixture
}

/// A caller waits from the first poll on.
pub(crate) async fn awaited_from_the_start() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder).await;
    wal.produce("a").await;
    fixture
}

/// A caller begins to wait when its batch is under way.
pub(crate) async fn awaited_later() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder).await;
    delay(&fixture);
    let sent = wal.send("a").await;
    settle().await;
    sent.done().await;
    fixture
}

/// More batches are full than may be in flight.
pub(crate) async fn many_full() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder.max_records(2)).await;
    delay(&fixture);
    let sent = wal.send_all(0..30).await;
    wal.all_done(sent).await;
    fixture
}

/// Hands over a record that takes long to encode, on another thread, and returns meanwhile.
async fn encoding(fixture: &Fixture) -> (Batches, std::thread::JoinHandle<Sent>) {
    let partition = fixture.client().await.partition_client("wal", 0).compression(Compression::Gzip);
    let wal = fixture.appender(partition.await.unwrap(), MINUTE);
    wal.append(&["warm"]).await;
    let producer = BatchProducer::builder(wal.partition.clone()).window(3).max_bytes(8 << 20).build();
    let slot = producer.reserve().bytes(1 << 20).await.unwrap();
    let mut seed = 1_u64;
    let value: String = (0..400_000)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b' ' + (seed >> 57) as u8 % 90)
        })
        .collect();
    let ticket = wal.record(&[&value]);
    let record = record(&value);
    // With the clock of the others.
    let runtime = Handle::current();
    let thread = std::thread::spawn(move || {
        let _clock = runtime.enter();
        Sent { ack: slot.send(record), ticket }
    });
    while producer.stats().in_flight == 0 {
        std::thread::yield_now();
    }
    (Batches { producer, wal }, thread)
}

pub(crate) async fn overtaken_while_encoding() -> Fixture {
    let fixture = Fixture::one_broker();
    let (wal, thread) = encoding(&fixture).await;
    let small = wal.send("small").await;
    let large = thread.join().unwrap();
    wal.all_done([small, large]).await;
    fixture
}

pub(crate) async fn flushed_while_encoding() -> Fixture {
    let fixture = Fixture::one_broker();
    let (wal, thread) = encoding(&fixture).await;
    let mut flush = pin!(wal.producer.flush().into_future());
    let at_once = polled(&mut flush, 1).await;
    fixture.expect(at_once.is_none(), "the barrier did not wait for what is being encoded");
    let sent = thread.join().unwrap();
    if at_once.is_none() {
        flush.await.unwrap();
    }
    sent.done().await;
    fixture
}

/// A record waits for memory, and there is room for a smaller one in the open batch.
pub(crate) async fn waiting_for_memory() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = open_scarce(&fixture).await;
    delay(&fixture);
    let sent = wal.send_all(0..2).await;
    let (large, small) = ("x".repeat(MEMORY - 1_000), "y".to_owned());
    let mut calls = Vec::new();
    for value in [large, small] {
        calls.push(wal.spawn(&value));
        settle().await;
    }
    wal.all_done(sent).await;
    join_all(calls).await;
    fixture
}

/// A batch is rejected while others are gathered behind it. Its only caller gets the error at once.
pub(crate) async fn rejected_with_others_gathered() -> Fixture {
    let fixture = Fixture::one_broker();
    let (wire, partition) = open_over_wire(&fixture).await;
    let wal = fixture.appender(partition.clone(), MINUTE);
    let wal = Batches { producer: BatchProducer::new(partition), wal };
    wal.wal.append(&["warm"]).await;
    wire.on_response(|frame| match frame.api {
        ApiKey::PRODUCE => Decision::Delay(SECOND),
        _ => Decision::Pass,
    });
    fixture.cluster.on(ApiKey::PRODUCE, REJECTED);
    // It is woken before the task of the producer.
    let first = wal.spawn("a");
    settle().await;
    let behind = wal.send_all(0..3).await;
    wal.all_done(behind).await;
    first.await.unwrap();
    wal.produce("after").await;
    fixture
}

/// A batch of several inputs is rejected, and another one is handed over before anybody has got the error.
pub(crate) async fn handed_over_before_the_error() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder.linger(10 * SECOND)).await;
    let slot = wal.slot().await;
    fixture.cluster.on(ApiKey::PRODUCE, REJECTED);
    let rejected = wal.send_all(0..3).await;
    sleep(15 * SECOND).await;
    // It lingers, and is sent when all have got the error.
    let behind = wal.send_with(slot, "behind");
    sleep(5 * SECOND).await;
    for sent in rejected {
        sent.done().await;
    }
    behind.done().await;
    wal.produce("after").await;
    fixture
}

/// A batch is rejected, and the response of the one behind it comes later. Another one is handed over before
/// its caller has got the error.
pub(crate) async fn handed_over_before_the_error_of_the_next() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder.window(2)).await;
    fixture.cluster.on(ApiKey::PRODUCE, REJECTED);
    delay(&fixture);
    let (rejected, behind) = (wal.send("a").await, wal.send("b").await);
    rejected.done().await;
    sleep(2 * SECOND).await;
    let next = wal.send("c").await;
    settle().await;
    behind.done().await;
    next.done().await;
    wal.produce("after").await;
    fixture
}

/// Callers that append again as soon as they get an error.
pub(crate) async fn again_at_once() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder.max_records(4)).await;
    fixture.cluster.on(FaultTarget::api(ApiKey::PRODUCE).after(1), REJECTED);
    let callers = (0..12).map(|caller| {
        let wal = &wal;
        async move {
            for attempt in 0..20 {
                if let Some(Ok(_)) = wal.produce(&format!("{caller}-{attempt}")).await {
                    return true;
                }
            }
            false
        }
    });
    let all = join_all(callers).await;
    fixture.expect(all.into_iter().all(|is_appended| is_appended), "callers do not get on after a failure");
    fixture
}

/// One batch is in flight, and another one is gathered.
async fn busy(fixture: &Fixture) -> (Batches, Vec<Sent>) {
    let wal = Batches::open(fixture, |builder| builder).await;
    delay(fixture);
    delay(fixture);
    let sent = wal.send_all(0..4).await;
    (wal, sent)
}

pub(crate) async fn flushed_in_flight() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder).await;
    delay(&fixture);
    let sent = wal.send("a").await;
    wal.producer.flush().await.unwrap();
    fixture.expect(wal.producer.stats().appended == 1, "the barrier did not wait for what is in flight");
    sent.done().await;
    fixture
}

pub(crate) async fn flushed_while_gathering() -> Fixture {
    let fixture = Fixture::one_broker();
    let (wal, sent) = busy(&fixture).await;
    wal.producer.flush().await.unwrap();
    fixture.expect(wal.producer.stats().appended == 4, "the barrier did not wait for what is gathered");
    wal.all_done(sent).await;
    fixture
}

pub(crate) async fn closed_while_gathering() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder.linger(10 * SECOND)).await;
    let sent = wal.send_all(0..4).await;
    fixture.expect(wal.producer.close().await.is_empty(), "something is not on the log");
    fixture.expect(wal.producer.stats().appended == 4, "the end did not wait for what is gathered");
    wal.all_done(sent).await;
    fixture
}

pub(crate) async fn closed_at_deadline() -> Fixture {
    let fixture = Fixture::one_broker();
    let (wal, sent) = busy(&fixture).await;
    let undelivered = wal.producer.close().deadline(SECOND / 2).await;
    let records: Vec<_> = undelivered.iter().map(|undelivered| undelivered.records().len()).collect();
    fixture.expect(records == [1, 3], "the end does not return everything that is left");
    wal.all_done(sent).await;
    fixture
}

pub(crate) async fn sent_after_close() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder).await;
    let slot = wal.slot().await;
    fixture.expect(wal.producer.close().await.is_empty(), "something is not on the log");
    let late = wal.send_with(slot, "late");
    let is_appended = matches!(late.done().await, Some(Ok(_)));
    fixture.expect(!is_appended, "a producer accepts inputs after its end");
    fixture
}

/// A batch gathers for a few seconds, and then there is no response.
pub(crate) async fn gathered_for_long() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(5 * SECOND));
    fixture.cluster.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    let sent = wal.send_all(0..2).await;
    wal.all_done(sent).await;
    fixture
}

pub(crate) async fn last_handle_dropped() -> Fixture {
    let fixture = Fixture::one_broker();
    let (Batches { producer, wal }, sent) = busy(&fixture).await;
    drop(producer);
    let waited = async {
        for sent in sent {
            sent.done().await;
        }
    };
    fixture.expect(timeout(MINUTE, waited).await.is_ok(), "what was accepted has no result");
    drop(wal);
    fixture
}

/// With little memory.
async fn open_scarce(fixture: &Fixture) -> Batches {
    let client = fixture.builder().limits(Limits::default().memory(MEMORY / 3 * 4)).build().await.unwrap();
    let wal = fixture.open_partition(&client, 0).await;
    wal.append(&["warm"]).await;
    Batches { producer: BatchProducer::new(wal.partition.clone()), wal }
}

/// A slot is used for more than was reserved.
pub(crate) async fn slot_overdrawn() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = open_scarce(&fixture).await;
    delay(&fixture);
    let (first, slot) = (wal.send("a").await, wal.slot().await);
    let rest = wal.wal.partition.reserve(MEMORY - (4 << 10)).await.unwrap();
    let large = wal.send_with(slot, &"x".repeat(20 << 10));
    drop(rest);
    let free = wal.wal.partition.try_reserve(MEMORY - (10 << 10));
    fixture.expect(free.is_none(), "a record does not count against the memory");
    drop(free);
    wal.all_done([first, large]).await;
    fixture
}

/// An aggregator that panics.
struct Panics;

impl Aggregator for Panics {
    type Input = ();
    type Tag = ();

    fn size_hint(&self, (): &()) -> usize {
        MEMORY / 2
    }

    fn add(&self, (): &(), _: &mut Sink<'_>) -> Result<(), Box<dyn StdError + Send + Sync>> {
        std::panic::resume_unwind(Box::new("it panics"))
    }
}

pub(crate) async fn first_input_panics() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = open_scarce(&fixture).await.wal.partition;
    let producer = BatchProducer::builder(partition.clone()).aggregator(Panics).build();
    let slot = producer.reserve().bytes(MEMORY / 2).await.unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| slot.send(()))).is_err());
    fixture.expect(partition.try_reserve(MEMORY).is_some(), "an input that panicked keeps its memory");
    fixture
}

/// Parts of records. Those that begin with `!` fail, after they have ended the record if they have two.
struct Parts;

impl Aggregator for Parts {
    type Input = str;
    type Tag = ();

    fn size_hint(&self, part: &str) -> usize {
        part.len()
    }

    fn add(&self, part: &str, sink: &mut Sink<'_>) -> Result<(), Box<dyn StdError + Send + Sync>> {
        sink.packed().extend_from_slice(part.as_bytes());
        if part.starts_with("!!") {
            sink.end_packed();
        }
        if part.starts_with('!') { Err("it fails".into()) } else { Ok(()) }
    }
}

/// Opens a topic of its own, for what is not recorded one by one.
async fn open_other(fixture: &Fixture) -> PartitionClient {
    fixture.cluster.create_topic("other", 1).unwrap();
    fixture.client().await.partition_client("other", 0).await.unwrap()
}

pub(crate) async fn part_rejected() -> Fixture {
    let fixture = Fixture::one_broker();
    let producer = BatchProducer::builder(open_other(&fixture).await).aggregator(Parts).build();
    delay(&fixture);
    let mut acks = Vec::new();
    for part in ["first", "a", "!", "b", "!!", "c"] {
        acks.push(producer.reserve().await.unwrap().send(part));
    }
    let results = join_all(acks).await;
    fixture.expect(results.iter().filter(|result| result.is_ok()).count() == 4, "a part has another result");
    let records = fixture.cluster.records("other", 0).unwrap();
    let values: Vec<_> = records.iter().map(|record| record.value.as_deref().unwrap_or_default()).collect();
    fixture.expect(values == [&b"first"[..], b"abc"], "a record is not made of the parts that were accepted");
    fixture.expect(records.iter().all(|record| record.timestamp_ms > 0), "a record has lost its time");
    fixture
}

/// Records. Those that begin with `!` fail after they have been added.
struct Checked;

impl Aggregator for Checked {
    type Input = str;
    type Tag = ();

    fn size_hint(&self, value: &str) -> usize {
        value.len()
    }

    fn add(&self, value: &str, sink: &mut Sink<'_>) -> Result<(), Box<dyn StdError + Send + Sync>> {
        sink.push(&record(value))?;
        if value.starts_with('!') { Err("it fails".into()) } else { Ok(()) }
    }
}

pub(crate) async fn input_rejected() -> Fixture {
    let fixture = Fixture::one_broker();
    let producer = BatchProducer::builder(open_other(&fixture).await).aggregator(Checked).build();
    delay(&fixture);
    let mut acks = Vec::new();
    for value in ["first", "a", "!b", "c"] {
        acks.push(producer.reserve().await.unwrap().send(value));
    }
    let results = join_all(acks).await;
    fixture.expect(results[2].is_err(), "an input that fails is accepted");
    let records = fixture.cluster.records("other", 0).unwrap();
    fixture.expect(records.len() == 3, "an input that failed is on the log");
    fixture
}

/// An input that the topic does not take is handed over between others.
pub(crate) async fn too_large_for_the_topic() -> Fixture {
    let fixture = Fixture::start(EmbeddedCluster::builder().setting("message.max.bytes", "2000"));
    let wal = Batches::open(&fixture, |builder| builder.max_input_bytes(2_000)).await;
    delay(&fixture);
    let a = wal.send("a").await;
    let mut large = pin!(wal.send(&"x".repeat(2_500)).await.done());
    // It fails at once, unless it is accepted.
    let refused = large.as_mut().now_or_never();
    let b = wal.send("b").await;
    for sent in [a, b] {
        let is_appended = matches!(sent.done().await, Some(Ok(_)));
        fixture.expect(is_appended, "an input that is too large fails others");
    }
    if refused.is_none() {
        large.await;
    }
    fixture
}

pub(crate) async fn idle() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder).await;
    let begun = Instant::now();
    wal.produce("a").await;
    fixture.expect(begun.elapsed().is_zero(), "an idle log does not get a record at once");
    fixture
}

pub(crate) async fn flushed_while_lingering() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder.linger(10 * SECOND)).await;
    let sent = wal.send("a").await;
    let begun = Instant::now();
    wal.producer.flush().await.unwrap();
    fixture.expect(begun.elapsed().is_zero(), "a batch lingers at the barrier");
    sent.done().await;
    fixture
}

pub(crate) async fn full_while_lingering() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = Batches::open(&fixture, |builder| builder.linger(10 * SECOND).max_records(2)).await;
    let begun = Instant::now();
    let sent = wal.send_all(0..2).await;
    wal.all_done(sent).await;
    fixture.expect(begun.elapsed().is_zero(), "a full batch lingers");
    fixture
}

pub(crate) async fn busy_log() -> Fixture {
    let fixture = Fixture::one_broker();
    let (wal, sent) = busy(&fixture).await;
    settle().await;
    let stats = wal.producer.stats();
    fixture.expect((stats.in_flight, stats.gathering) == (1, 3), "records do not gather");
    wal.all_done(sent).await;
    fixture
}

pub(crate) async fn callers_come_back() -> Fixture {
    let fixture = Fixture::one_broker();
    let producer = BatchProducer::new(open_other(&fixture).await);
    let callers = (0..10).map(|caller: usize| {
        let producer = producer.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                producer.produce(Record::new(None::<&str>, caller.to_string())).await.unwrap();
            }
        })
    });
    join_all(callers.collect::<Vec<_>>()).await;
    fixture.expect(producer.stats().batches <= 25, "callers that come back do not share a batch");
    fixture
}
