//! Many small writers, one log: [`BatchProducer`] gathers the records of many callers into batches.
//!
//! A thousand tasks that append a record each would make a thousand batches, and wait for each other's
//! acknowledgements. Through one producer they share batches, and every task still gets the offset of its own
//! record, or its own error.
//!
//! # Which one
//!
//! | to append | use |
//! | --- | --- |
//! | records that belong together: on the log as a whole or not at all | [`PartitionClient::produce`] |
//! | several such batches from one task, one after the other without waiting | [`PartitionClient::reserve`], then [`submit`](kwal_client::Permit::submit) |
//! | a record at a time, from many tasks | [`BatchProducer::produce`] |
//! | many records from one task, or in the order of a lock of yours | [`BatchProducer::reserve`], then [`Slot::send`]; [`Acks`] keeps the order of the results |
//! | a thin stream, where fewer batches matter more than latency | a [`linger`](BatchProducerBuilder::linger) |
//! | things that are not records: several in one record, or one as several | an [`Aggregator`] |
//! | to several partitions, by key or by number | a [`Router`] |
//! | entries that may be larger than a batch | [`entry::Writer`](crate::entry::Writer) |
//!
//! A batch is what succeeds or fails as a whole. So records of different callers that are gathered share
//! their fate, and records that one caller hands over one by one may end up in different batches. What must
//! be on the log together goes into one record, into one input of an [`Aggregator`], or by
//! [`PartitionClient::produce`].
//!
//! # Group commit
//!
//! An idle log gets a record at once: the task that hands it over encodes it and submits the batch itself, as
//! [`PartitionClient::produce`] would. While that batch is under way, further records gather; its
//! acknowledgement sends them as the next one. So batches are as large as the log is busy, and there is
//! nothing to tune: no record waits for a timer.
//!
//! ```
//! # kwal_testkit::doctest(9121, async {
//! # use kwal_client::{Client, record::Record};
//! # let client = Client::connect(["localhost:9121"]).await?;
//! # client.controller_client().await?.create_topic("wal", 1, 1).await?;
//! # let partition = client.partition_client("wal", 0).await?;
//! use futures::future::try_join_all;
//! use kwal_batching::producer::BatchProducer;
//!
//! let wal = BatchProducer::new(partition);
//! let callers = (0..100).map(|caller: u32| wal.produce(Record::new("caller", caller.to_string())));
//! let appended = try_join_all(callers).await?;
//!
//! // Each has an offset of its own, in the order in which they were accepted.
//! assert!(appended.iter().map(|each| each.offset).eq((0..100).map(Some)));
//! // The first one did not wait for others. These came while it was under way, and went together.
//! assert_eq!((appended[0].batch.record_count, appended[1].batch.record_count), (1, 99));
//! # Ok(()) });
//! ```
//!
//! # What it promises
//!
//! * **Order.** Inputs of one producer lie on the log in the order in which they were accepted.
//!   [`produce`](BatchProducer::produce) accepts at the first poll of its future; [`Slot::send`] in the call,
//!   so that an order can be fixed under a lock. Callers that wait for memory are accepted in the order in
//!   which they came, and nobody passes them.
//! * **Exactly once, and no hole.** What is acknowledged is on the log once, with the offset that was
//!   returned. If a batch fails, everything that was accepted after it fails as well, until *all* of its
//!   callers have got their errors: nobody's record can be on the log that was accepted after another one
//!   that is not. See [When an input fails](#when-an-input-fails).
//! * **Nothing that was accepted is lost silently.** It is appended, or its caller gets an error. It is
//!   appended also if the caller is gone: if the future, the [`Ack`] or the last handle is dropped.
//! * **Back-pressure.** An input is accepted only when there is memory for it in the budget of the client
//!   ([`Limits::memory`](kwal_client::Limits::memory)) and one of the 64 places of the partition client.
//!   Until then `produce` and `reserve` wait, within their deadlines.
//! * **A bad input is its own.** A record that no broker takes, an aggregator that fails or panics: its
//!   caller gets the error or the panic, and the batch goes on without it.
//! * **[`flush`](BatchProducer::flush) is a barrier** on everything that was accepted before it.
//! * **[`close`](BatchProducer::close) accounts for all that has not ended**: it accepts nothing more, waits,
//!   and returns the batches of it that are not known to be on the log, each with its error and its records.
//!
//! Here the order of a state and the order of its log are the same, because both are fixed under one lock.
//! Nothing is awaited while it is held:
//!
//! ```
//! # kwal_testkit::doctest(9122, async {
//! # use kwal_client::{Client, OffsetAt};
//! # let client = Client::connect(["localhost:9122"]).await?;
//! # client.controller_client().await?.create_topic("wal", 1, 1).await?;
//! # let partition = client.partition_client("wal", 0).await?;
//! use std::sync::Mutex;
//!
//! use kwal_batching::producer::BatchProducer;
//! use kwal_client::{error::Error, record::Record};
//!
//! struct Account {
//!     balance: Mutex<i64>,
//!     wal: BatchProducer,
//! }
//!
//! impl Account {
//!     /// Changes the balance. Returns the new one when it is on the log.
//!     async fn add(&self, amount: i64) -> Result<i64, Error> {
//!         let slot = self.wal.reserve().await?; // waits for room, and is not in any order yet
//!         let (balance, ack) = {
//!             let mut balance = self.balance.lock().unwrap();
//!             *balance += amount;
//!             (*balance, slot.send(Record::new("balance", balance.to_string())))
//!         };
//!         ack.await?;
//!         Ok(balance)
//!     }
//! }
//!
//! let account = Account { balance: Mutex::default(), wal: BatchProducer::new(partition) };
//! let (first, second, third) = tokio::join!(account.add(100), account.add(-30), account.add(5));
//! assert_eq!((first?, second?, third?), (100, 70, 75));
//! # let (records, _) = account.wal.partition().fetch_records(0, 1..1_000_000, 1_000).await?;
//! # let balances = records.iter().map(|record| record.value.as_deref());
//! # assert!(balances.eq([&b"100"[..], b"70", b"75"].map(Some)));
//! # Ok(()) });
//! ```
//!
//! # Settings
//!
//! | setting | default | when to change it |
//! | --- | --- | --- |
//! | [`compression`](kwal_client::OpenPartition::compression) of the partition client | none | gathered records compress far better than single ones |
//! | [`max_bytes`](BatchProducerBuilder::max_bytes) | 1,000,000 | the topic's `max.message.bytes` is lower, or so much higher that it pays |
//! | [`max_records`](BatchProducerBuilder::max_records) | 100,000 | readers handle a batch at a time, and are to have small ones |
//! | [`linger`](BatchProducerBuilder::linger) | 0 | batches are small although it is the number of requests that costs |
//! | [`window`](BatchProducerBuilder::window) | 1 | the network takes longer than the broker's work |
//! | [`max_input_bytes`](BatchProducerBuilder::max_input_bytes) | [`Limits::batch`](kwal_client::Limits::batch), 16 MiB | callers may hand over what the topic does not take: with its `max.message.bytes`, 1 MiB unless set, such an input is its own error; otherwise all inputs behind it fail with it |
//! | [`Limits::memory`](kwal_client::Limits::memory) of the client | 256 MiB | [`Stats::waited`] grows: callers wait for memory |
//! | [`Deadlines::operation`](kwal_client::Deadlines::operation) of the client | 60 s | callers would rather have an error |
//!
//! # When an input fails
//!
//! As for every append, [`outcome`](kwal_client::error::Error::outcome) is whether it may be on the log, and
//! [`is_retriable`](kwal_client::error::Error::is_retriable) whether it can be tried again as it is.
//!
//! | error | outcome | what happened | what to do |
//! | --- | --- | --- | --- |
//! | `InvalidInput`, `BatchTooLarge` of the input | not applied | this input was not accepted; no other is affected | correct it |
//! | `DeadlineExceeded`, waiting for memory | not applied | there was no room in time | later again; slow down |
//! | `DeadlineExceeded`, otherwise | see there | the brokers did not answer in time | if it is unknown, resolve it; then again. After a [`deadline`](Produce::deadline) of the call there is no handle |
//! | `Broker`, such as INVALID_RECORD; `BatchTooLarge` of the topic | not applied | brokers do not take the batch | [`record_errors`](kwal_client::error::Error::record_errors) are those of this input: if there are none, another one is to blame, so hand it over again |
//! | `PrecedingAppendFailed` | see there | a batch before it failed | after that is dealt with, again |
//! | `Fenced`, `DataLoss`, `TopicRecreated` | see there | the partition client is at its end, and so is the producer | step down; compare with the log |
//! | `Closed` | see there | the producer, the client or its runtime has ended | begin anew, if at all |
//!
//! All callers of a batch get its error, and if it is in doubt a
//! [handle](kwal_client::error::Error::in_doubt). [`resolve`](PartitionClient::resolve) decides for the whole
//! batch, and the same whoever calls it; the offsets that it returns are those of the caller's own records.
//!
//! **Read or drop every result.** Until the last caller of a failed batch, and of those that failed with it,
//! has got its error or dropped its future or [`Ack`], every further input fails with
//! [`PrecedingAppendFailed`](kwal_client::error::ErrorKind::PrecedingAppendFailed). That is what makes the
//! promise of no hole: nobody can append something that follows from a record that is not on the log. So let
//! other tasks run before you try again, as here, and not in a loop that never waits. With
//! [`OnFailure::Continue`](kwal_client::OnFailure::Continue) of the partition client each batch is on its own
//! instead.
//!
//! ```
//! use std::time::Duration;
//!
//! use kwal_batching::producer::BatchProducer;
//! use kwal_client::{ClientBuilder, Resolution, error::{Error, Outcome}, record::Record};
//! # use kwal_testkit::EmbeddedCluster;
//!
//! /// Appends a record exactly once, however long that takes.
//! async fn append(wal: &BatchProducer, record: &Record) -> Result<(), Error> {
//!     loop {
//!         let Err(error) = wal.produce(record).await else { return Ok(()) };
//!         if let Some(batch) = error.in_doubt() {
//!             let fence = Record::new(None::<&str>, None::<&str>).header("fence", ""); // readers skip it
//!             if let Resolution::Appended(_) = wal.partition().resolve(batch, fence).await? {
//!                 return Ok(());
//!             }
//!         } else if error.outcome() == Outcome::Unknown || !error.is_retriable() {
//!             return Err(error);
//!         }
//!         tokio::time::sleep(Duration::from_millis(100)).await;
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cluster = EmbeddedCluster::builder().topic("wal", 1).start_in_memory()?;
//! # let client = ClientBuilder::new(cluster.bootstrap()).connector(cluster.connector()).build().await?;
//! # let wal = BatchProducer::new(client.partition_client("wal", 0).await?);
//! # let broker = cluster.brokers()[0];
//! # append(&wal, &Record::new("before", "")).await?;
//! # cluster.pause(broker)?;
//! # let resume = async {
//! #     tokio::time::sleep(Duration::from_secs(70)).await;
//! #     cluster.resume(broker).unwrap();
//! # };
//! let records = ["a", "b", "c"].map(|value| Record::new("key", value));
//! // The broker does not answer for a minute: some are in doubt, some not sent at all.
//! let appends = records.iter().map(|record| append(&wal, record));
//! let (appended, ()) = tokio::join!(futures::future::join_all(appends), resume);
//! # let mut values = Vec::new();
//! # for record in cluster.records("wal", 0)?.into_iter().filter(|record| record.value.is_some()) {
//! #     values.push(String::from_utf8(record.value.unwrap_or_default().to_vec())?);
//! # }
//! # values.sort();
//! # assert_eq!(values, ["", "a", "b", "c"]);
//! # assert!(wal.stats().failed >= 3);
//! assert!(appended.iter().all(Result::is_ok));
//! # Ok(()) }
//! ```
//!
//! # Cancellation
//!
//! Every future here can be dropped at any await, as in `select!` or by a timeout, and the producer goes on.
//! What was not accepted by then is not appended, and a [`Slot`] that is dropped gives its memory and its
//! place back. What was accepted is appended all the same; only its result is lost. To know whether a
//! [`produce`](BatchProducer::produce) that may be dropped was accepted, use
//! [`reserve`](BatchProducer::reserve) and [`Slot::send`]: the one can be dropped at will, the other is a
//! plain call, and the [`Ack`] can be awaited elsewhere.
//!
//! Dropping the last handle waits for nothing: what was accepted is sent as long as the runtime of the client
//! runs, so that of a process that ends may be left. Call [`close`](BatchProducer::close) first:
//!
//! ```
//! # kwal_testkit::doctest(9123, async {
//! # use kwal_client::{Client, record::Record};
//! # let client = Client::connect(["localhost:9123"]).await?;
//! # client.controller_client().await?.create_topic("wal", 1, 1).await?;
//! # let wal = kwal_batching::producer::BatchProducer::new(client.partition_client("wal", 0).await?);
//! # drop(wal.reserve().await?.send(Record::new("key", "value")));
//! use std::time::Duration;
//!
//! for undelivered in wal.close().deadline(Duration::from_secs(10)).await {
//!     eprintln!("{}", undelivered.error); // with its outcome
//!     for record in undelivered.records() {
//!         eprintln!("    {:?}: {:?}", record.key, record.value);
//!     }
//! }
//! # assert_eq!((wal.stats().appended, wal.stats().failed), (1, 0));
//! # Ok(()) });
//! ```
//!
//! What had failed before is not among them: its callers have got the error, or dropped what returns it.
//!
//! At the deadline what is left ends. What was not sent is not applied, and what is in flight is in doubt,
//! with its [handle](kwal_client::error::Error::in_doubt): keep that with the records,
//! [`resolve`](PartitionClient::resolve) it at the next start, the oldest first, and append those again that
//! are not applied. A process that is killed leaves no handle: where that matters, records have ids of their
//! own, and readers skip duplicates.
//!
//! ```
//! use std::time::Duration;
//!
//! use kwal_batching::producer::BatchProducer;
//! # use kwal_client::{ClientBuilder, Resolution, error::Outcome, record::Record};
//! # use kwal_testkit::EmbeddedCluster;
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cluster = EmbeddedCluster::builder().topic("wal", 1).start_in_memory()?;
//! # let client = ClientBuilder::new(cluster.bootstrap()).connector(cluster.connector()).build().await?;
//! # let wal = BatchProducer::new(client.partition_client("wal", 0).await?);
//! # wal.produce(Record::new("key", "before")).await?;
//! # cluster.pause(1)?;
//! # let ack = wal.reserve().await?.send(Record::new("key", "in flight"));
//! # tokio::time::sleep(Duration::from_millis(1)).await;
//! # drop(wal.reserve().await?.send(Record::new("key", "gathered")));
//!
//! let undelivered = wal.close().deadline(Duration::from_secs(2)).await;
//! let spooled = undelivered.iter().map(|each| (each.records(), each.error.in_doubt()));
//! # let handles: Vec<_> = spooled.map(|(records, in_doubt)| (records.len(), in_doubt.is_some())).collect();
//! # assert_eq!(handles, [(1, true), (1, false)]);
//! # assert_eq!(undelivered[1].error.outcome(), Outcome::NotApplied);
//! # assert!(ack.await.is_err());
//! # cluster.resume(1)?;
//! # let next = client.partition_client("wal", 0).await?;
//! # let in_doubt = undelivered[0].error.in_doubt().unwrap();
//! # let fence = Record::new(None::<&str>, None::<&str>).header("fence", "");
//! # let resolution = next.resolve(in_doubt, fence).await?;
//! # assert!(matches!(resolution, Resolution::Appended(_)), "the broker had it, and was slow");
//! # Ok(()) }
//! ```
//!
//! # What is kept in memory
//!
//! A record is encoded into the open batch when it is accepted, and is not kept besides. A batch counts
//! against the budget of the client ([`Limits::memory`](kwal_client::Limits::memory)) from its first record
//! until it is acknowledged; with compression twice, until it is submitted. The budget is one for all
//! producers, partition clients and readers of the client. A caller that waits for its acknowledgement costs
//! its future and a waker; nothing is allocated, spawned or sent over a channel for a record.
//!
//! # What it is doing
//!
//! Each [`Appended`] has how long its batch gathered ([`queued`](Appended::queued)) and how long its append
//! took ([`wire`](Appended::wire)). [`Stats`] has the same for all, and how large batches are:
//!
//! ```
//! # kwal_testkit::doctest(9124, async {
//! # use kwal_client::{Client, record::Record};
//! # let client = Client::connect(["localhost:9124"]).await?;
//! # client.controller_client().await?.create_topic("wal", 1, 1).await?;
//! # let wal = kwal_batching::producer::BatchProducer::new(client.partition_client("wal", 0).await?);
//! # let callers = (0..100).map(|caller: u32| wal.produce(Record::new("caller", caller.to_string())));
//! # futures::future::try_join_all(callers).await?;
//! let stats = wal.stats();
//! println!(
//!     "{} batches of {:.1} records; gathered for {:.1?}, on the wire for {:.1?}; {} callers wait",
//!     stats.batches,
//!     stats.mean_records(),
//!     stats.queued.mean(),
//!     stats.wire.mean(),
//!     stats.waiting,
//! );
//! # assert_eq!((stats.appended, stats.batches, stats.mean_records()), (100, 2, 50.0));
//! # assert!(stats.wire.count == 2 && stats.wire.mean() <= stats.wire.longest);
//! # Ok(()) });
//! ```
//!
//! | seen | means |
//! | --- | --- |
//! | `queued` is about half of `wire`, or more | the log is busy, and batches form; that is as it should be |
//! | `most_in_flight` is the partition client's maximum, batches are full | the broker is the limit: compress, or use more partitions |
//! | `waited` grows | callers come faster than the log takes them, and wait for memory |
//! | batches have one record each, in spite of many callers | they do not overlap: each waits for something else than the log |

mod accumulator;
mod ack;
mod aggregator;
mod completion;
mod driver;
mod end;
#[cfg(test)]
mod fixture;
mod gather;
mod murmur2;
mod produce;
mod router;
mod send;
mod shared;
mod slot;
mod split;
mod stats;

use std::{borrow::Borrow, fmt, sync::Arc, time::Duration};

use kwal_client::PartitionClient;

pub use self::{
    ack::{Ack, Acks, Appended},
    aggregator::{Aggregator, Records, Sink},
    end::{CloseProducer, Flush, Undelivered},
    produce::Produce,
    router::{CloseRouter, FlushRouter, OpenRouter, Router},
    slot::{Reserve, Slot},
    stats::{Stats, Timing},
};
use self::{driver::DriverGuard, shared::Shared};

/// Appends the records of many callers to one partition, in batches: [group commit](self#group-commit).
///
/// Cloning is cheap; clones are handles of the same producer. All of its inputs lie on the log in the order
/// in which they were accepted, exactly once if their callers got `Ok`, and without a hole:
///
/// * [`produce`](Self::produce) accepts an input at its first poll, unless it has to wait for memory: then in
///   turn. [`Slot::send`] accepts it in the call.
/// * If a batch fails, everything that was accepted after it and before *all* of its callers have got the
///   error, or have dropped what would return it, fails as well, with
///   [`PrecedingAppendFailed`](kwal_client::error::ErrorKind::PrecedingAppendFailed). A caller whose input
///   failed with it has to get that error, too, before anything goes on. So poll or drop every [`Ack`]: one
///   that is kept unread after a failure holds up everybody. With
///   [`OnFailure::Continue`](kwal_client::OnFailure::Continue) each batch is on its own.
///
/// The partition client may be used besides, and may be [exclusive](kwal_client::OpenPartition::exclusive).
/// Its compression, limits, deadlines and retries apply. Two producers over one partition client share its
/// order, and make smaller batches than one.
///
/// What was accepted is sent and acknowledged also if all callers are gone, and if the last handle is
/// dropped, as long as the runtime of the client runs. Dropping it waits for nothing: [`close`](Self::close)
/// does.
pub struct BatchProducer<A: Aggregator = Records> {
    shared: Arc<Shared<A>>,
    _handle: Arc<HandleGuard<A>>,
}

/// Lets the driver end when the last handle is dropped.
struct HandleGuard<A: Aggregator>(Arc<Shared<A>>);

impl<A: Aggregator> Drop for HandleGuard<A> {
    fn drop(&mut self) {
        self.0.unused();
    }
}

impl BatchProducer {
    /// Creates a producer with the default settings over a partition client.
    pub fn new(partition: PartitionClient) -> Self {
        Self::builder(partition).build()
    }

    /// Returns the settings of a producer, to be changed.
    pub fn builder(partition: PartitionClient) -> BatchProducerBuilder {
        BatchProducerBuilder { partition, aggregator: Records, settings: Settings::default() }
    }
}

impl<A: Aggregator> BatchProducer<A> {
    /// Appends an input, and waits until it is on the log.
    ///
    /// The future holds nothing but the input until it is polled, and makes no allocation unless it has to
    /// wait for memory. The input can be borrowed, so that it is there to be tried again.
    ///
    /// ```
    /// # kwal_testkit::doctest(9108, async {
    /// # use kwal_client::{Client, record::Record};
    /// # let client = Client::connect(["localhost:9108"]).await?;
    /// # client.controller_client().await?.create_topic("wal", 1, 1).await?;
    /// # let partition = client.partition_client("wal", 0).await?;
    /// use kwal_batching::producer::BatchProducer;
    ///
    /// let producer = BatchProducer::new(partition);
    /// let tasks: Vec<_> = (0..100)
    ///     .map(|task| {
    ///         let producer = producer.clone();
    ///         tokio::spawn(async move { producer.produce(Record::new("task", vec![task])).await })
    ///     })
    ///     .collect();
    /// let mut offsets = Vec::new();
    /// for task in tasks {
    ///     offsets.extend(task.await??.offset);
    /// }
    /// offsets.sort();
    /// assert!(offsets.into_iter().eq(0..100));
    /// assert!(producer.stats().batches < 100);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`Error::outcome`](kwal_client::error::Error::outcome) is whether the input may be on the log. Those
    /// of [`PartitionClient::produce`], of the batch that it is in: what only the broker finds in one input
    /// rejects all of the batch, and [`record_errors`](kwal_client::error::Error::record_errors) says in
    /// whose. [`InvalidInput`](kwal_client::error::ErrorKind::InvalidInput) and
    /// [`BatchTooLarge`](kwal_client::error::ErrorKind::BatchTooLarge) if the input itself is not accepted.
    /// [`Closed`](kwal_client::error::ErrorKind::Closed) after [`close`](Self::close), or if the runtime of
    /// the client has shut down.
    ///
    /// # Cancellation safety
    /// If it is dropped before it is accepted, the input is not appended. Later, it is appended all the same.
    pub fn produce<'a, I>(&'a self, input: I) -> Produce<'a, I, A>
    where
        I: Borrow<A::Input> + Send + 'a,
    {
        Produce::new(self, input)
    }

    /// Waits for a place for one input, whose order is then fixed by a plain call: [`Slot::send`].
    ///
    /// It is [`produce`](Self::produce) in two steps, for a task that has several inputs under way, or fixes
    /// their order under a lock of its own. [`Acks`] has an example.
    pub fn reserve(&self) -> Reserve<'_, A> {
        Reserve { producer: self, bytes: Reserve::<A>::BYTES, deadline: None }
    }

    /// Waits until everything that was accepted before has ended: a barrier, also for inputs whose callers
    /// are gone. What is being gathered does not linger, and is sent when the window has room.
    ///
    /// ```
    /// # kwal_testkit::doctest(9109, async {
    /// # use kwal_client::{Client, OffsetAt, record::Record};
    /// # let client = Client::connect(["localhost:9109"]).await?;
    /// # client.controller_client().await?.create_topic("wal", 1, 1).await?;
    /// # let partition = client.partition_client("wal", 0).await?;
    /// use kwal_batching::producer::BatchProducer;
    ///
    /// let producer = BatchProducer::new(partition.clone());
    /// for value in ["a", "b", "c"] {
    ///     drop(producer.reserve().await?.send(Record::new(None::<&str>, value)));
    /// }
    /// producer.flush().await?;
    /// assert_eq!(partition.get_offset(OffsetAt::Latest).await?, 3);
    /// # Ok(()) });
    /// ```
    pub fn flush(&self) -> Flush<'_, A> {
        Flush { producer: self, deadline: None }
    }

    /// Accepts nothing more, waits for what was accepted, and returns what is not known to be on the log. See
    /// [`CloseProducer`].
    pub fn close(&self) -> CloseProducer<'_, A> {
        CloseProducer { producer: self, deadline: None }
    }

    /// Returns what the producer has done, and is doing.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Returns the partition client.
    pub fn partition(&self) -> &PartitionClient {
        &self.shared.partition
    }
}

impl<A: Aggregator> Clone for BatchProducer<A> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), _handle: Arc::clone(&self._handle) }
    }
}

impl<A: Aggregator> fmt::Debug for BatchProducer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchProducer")
            .field("partition", &self.shared.partition)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// The settings of a producer.
#[derive(Clone, Copy, Debug)]
struct Settings {
    linger: Duration,
    max_records: usize,
    max_bytes: usize,
    max_input_bytes: usize,
    window: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            linger: Duration::ZERO,
            max_records: 100_000,
            max_bytes: 1_000_000,
            max_input_bytes: usize::MAX,
            window: 1,
        }
    }
}

/// A [`BatchProducer`] to be built.
///
/// Limits of zero count as one.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is built"]
pub struct BatchProducerBuilder<A: Aggregator = Records> {
    partition: PartitionClient,
    aggregator: A,
    settings: Settings,
}

impl<A: Aggregator> BatchProducerBuilder<A> {
    /// Sets how long a batch gathers at least, from its first input, unless it is full or flushed, or
    /// somebody waits for memory or a place. At most half of
    /// [`Deadlines::operation`](kwal_client::Deadlines::operation), so that there is time to append it.
    /// Default: zero.
    ///
    /// Without it, batches are as large as the log is busy, and nothing waits without a reason. It makes
    /// fewer and larger batches of a steady trickle, at the price of that much latency.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// Sets the most records of a batch. Default: 100,000.
    pub fn max_records(mut self, records: usize) -> Self {
        self.settings.max_records = records;
        self
    }

    /// Sets the most bytes of a batch on the wire, its header and the overhead of records included. Default:
    /// 1,000,000, which is within `max.message.bytes` of topics and brokers unless that was lowered.
    ///
    /// With compression, a batch gathers as much as is expected to become so many bytes, by what the last
    /// ones were compressed to. One that comes out larger is split. An input that is larger by itself goes
    /// alone, up to [`max_input_bytes`](Self::max_input_bytes).
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_bytes = bytes;
        self
    }

    /// Sets the most bytes of an input: of the batch that it is if it goes alone, its header of 61 bytes
    /// included, before compression. Default, and at most: [`Limits::batch`](kwal_client::Limits::batch).
    ///
    /// A larger one is not accepted: its caller, and nobody else, gets
    /// [`BatchTooLarge`](kwal_client::error::ErrorKind::BatchTooLarge). Without the limit, an input that
    /// exceeds the `max.message.bytes` of the topic is rejected by the broker, and all that were accepted
    /// after it fail with it. So set both to the same. With compression, what does not compress becomes up to
    /// 1/128 and 64 bytes larger than it was; leave room for it.
    pub fn max_input_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_input_bytes = bytes;
        self
    }

    /// Sets how many batches are in flight before inputs gather. Default: 1. At most the partition client's
    /// [`max_in_flight`](kwal_client::OpenPartition::max_in_flight), up to which full batches are sent
    /// anyway.
    ///
    /// A broker works on one request of a connection at a time, until all in-sync replicas have it. So a
    /// larger window only hides the time on the network, and makes batches smaller: try 2 or more where the
    /// way to the broker takes longer than its work.
    pub fn window(mut self, batches: usize) -> Self {
        self.settings.window = batches;
        self
    }

    /// Sets how inputs become records. Default: [`Records`], as they are.
    pub fn aggregator<B: Aggregator>(self, aggregator: B) -> BatchProducerBuilder<B> {
        let Self { partition, settings, .. } = self;
        BatchProducerBuilder { partition, aggregator, settings }
    }

    /// Builds the producer. Its task runs on the runtime of the client.
    pub fn build(self) -> BatchProducer<A> {
        let Self { partition, aggregator, settings } = self;
        let shared = Shared::new(partition, aggregator, settings);
        // Before the task is spawned: its runtime may abort it before the first poll.
        let guard = DriverGuard(Arc::clone(&shared));
        shared.partition.runtime().spawn(async move {
            driver::run(&guard.0).await;
        });
        BatchProducer { _handle: Arc::new(HandleGuard(Arc::clone(&shared))), shared }
    }
}
