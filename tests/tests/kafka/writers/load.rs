//! Tasks that append sequences of numbers, and what is found of them on the log.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, ready};
use futures::poll;
use kwal_batching::producer::{Appended, BatchProducer};
use kwal_batching::reader;
use kwal_client::error::{Error, Outcome};
use kwal_client::record::{Barrier, Record};
use kwal_client::{OffsetAt, PartitionClient};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How many records of a task are under way.
const WINDOW: usize = 32;

/// How a task fixes the order of its records.
#[derive(Clone, Copy, Debug)]
pub(super) enum Writer {
    /// By plain calls.
    Slots,
    /// By the first polls of futures.
    Polls,
    /// By plain calls under a lock: one sequence for all tasks of this kind.
    Locked,
}

/// What became of a sequence of records, whose numbers are 0, 1, 2, …
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// The offsets of those that were acknowledged.
    offsets: Vec<i64>,
    /// The errors of those that followed.
    pub(super) errors: Vec<Error>,
}

/// The result of a record.
struct Told {
    number: u32,
    result: Result<i64, Error>,
}

/// Tasks that append.
pub(super) struct Load {
    is_over: Arc<AtomicBool>,
    /// How many records were acknowledged.
    acknowledged: watch::Receiver<u64>,
    /// Each with the number of its sequence.
    tasks: Vec<(u32, JoinHandle<Vec<Told>>)>,
}

impl Load {
    /// Starts a task for each writer, which pauses after each record if it has a pace.
    pub(super) fn start(producer: &BatchProducer, writers: &[Writer], pace: Option<Duration>) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let (acknowledged, receiver) = watch::channel(0);
        let acknowledged = Arc::new(acknowledged);
        let locked = Arc::<Mutex<u32>>::default();
        let tasks = (0..).zip(writers).map(|(index, writer)| {
            // That of all tasks with a lock is the first one behind the others.
            let sequence = if let Writer::Locked = writer { writers.len() as u32 } else { index };
            let task = Task {
                producer: producer.clone(),
                writer: *writer,
                sequence,
                next: 0,
                locked: Arc::clone(&locked),
                is_over: Arc::clone(&is_over),
                acknowledged: Arc::clone(&acknowledged),
                told: Vec::new(),
            };
            (sequence, tokio::spawn(task.run(pace)))
        });
        Self { tasks: tasks.collect(), is_over, acknowledged: receiver }
    }

    /// Waits until so many records are acknowledged.
    pub(super) async fn progress(&mut self, records: u64) {
        let reached = self.acknowledged.wait_for(|acknowledged| *acknowledged >= records);
        drop(timeout(Duration::from_secs(240), reached).await.expect("appends go on").unwrap());
    }

    /// Waits until so many more are.
    pub(super) async fn advance(&mut self, records: u64) {
        let now = *self.acknowledged.borrow();
        self.progress(now + records).await;
    }

    /// Ends the tasks when their records have ended.
    pub(super) async fn end(self) -> BTreeMap<u32, Sequence> {
        self.is_over.store(true, Ordering::Relaxed);
        self.failed().await
    }

    /// Waits until all tasks have ended, as they do after an error.
    pub(super) async fn failed(self) -> BTreeMap<u32, Sequence> {
        let mut told = BTreeMap::<u32, Vec<Told>>::new();
        for (sequence, task) in self.tasks {
            told.entry(sequence).or_default().append(&mut task.await.unwrap());
        }
        told.into_iter().map(|(sequence, told)| (sequence, Sequence::new(told))).collect()
    }
}

impl Sequence {
    fn new(mut told: Vec<Told>) -> Self {
        told.sort_by_key(|told| told.number);
        assert!(told.iter().map(|told| told.number).eq(0..told.len() as u32));
        let mut sequence = Self::default();
        for Told { number, result } in told {
            match result {
                Ok(offset) if sequence.errors.is_empty() => sequence.offsets.push(offset),
                Ok(_) => panic!("record {number} was appended after {:?}", sequence.errors),
                Err(error) => sequence.errors.push(error),
            }
        }
        sequence
    }
}

struct Task {
    producer: BatchProducer,
    writer: Writer,
    sequence: u32,
    /// The number of its next record, without a lock.
    next: u32,
    /// That of the tasks with a lock.
    locked: Arc<Mutex<u32>>,
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<watch::Sender<u64>>,
    told: Vec<Told>,
}

/// A record that was handed over.
struct UnderWay {
    number: u32,
    append: BoxFuture<'static, Result<Appended, Error>>,
}

impl Task {
    async fn run(mut self, pace: Option<Duration>) -> Vec<Told> {
        let mut under_way = VecDeque::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let Some(handed_over) = self.hand_over().await else { break };
            under_way.push_back(handed_over);
            if under_way.len() == WINDOW
                && let Some(first) = under_way.pop_front()
                && !self.end(first).await
            {
                break;
            }
            if let Some(pace) = pace {
                sleep(pace).await;
            }
        }
        for each in under_way {
            self.end(each).await;
        }
        self.told
    }

    /// Waits for the result of a record. Returns whether it was acknowledged.
    async fn end(&mut self, UnderWay { number, append }: UnderWay) -> bool {
        let result = append.await.map(|appended| appended.offset.unwrap());
        let is_acknowledged = result.is_ok();
        self.told.push(Told { number, result });
        self.acknowledged.send_modify(|acknowledged| *acknowledged += u64::from(is_acknowledged));
        is_acknowledged
    }

    /// Hands over the next record, unless the producer has no place any more.
    async fn hand_over(&mut self) -> Option<UnderWay> {
        let (sequence, number) = (self.sequence, self.next);
        if let Writer::Polls = self.writer {
            self.next += 1;
            let producer = self.producer.clone();
            // It owns the producer, and its first poll is that of the append.
            let mut append: BoxFuture<'static, _> =
                Box::pin(async move { producer.produce(record(sequence, number)).await });
            return Some(match poll!(Pin::new(&mut append)) {
                Poll::Ready(result) => UnderWay { number, append: Box::pin(ready(result)) },
                Poll::Pending => UnderWay { number, append },
            });
        }
        let slot = self.producer.reserve().await.ok()?;
        if let Writer::Slots = self.writer {
            self.next += 1;
            return Some(UnderWay { number, append: Box::pin(slot.send(record(sequence, number))) });
        }
        let mut next = self.locked.lock().unwrap();
        let number = *next;
        *next += 1;
        Some(UnderWay { number, append: Box::pin(slot.send(record(sequence, number))) })
    }
}

/// A record of a sequence.
pub(super) fn record(sequence: u32, number: u32) -> Record {
    Record::new(None::<&str>, [sequence.to_be_bytes(), number.to_be_bytes()].concat())
}

/// The sequence and number of each record on a log, by offset; barriers are left out.
pub(super) struct Found(BTreeMap<i64, (u32, u32)>);

/// Reads a log to its end.
pub(super) async fn find(partition: &PartitionClient) -> Found {
    let mut found = BTreeMap::new();
    let mut replay = reader::replay(partition, OffsetAt::Earliest).await.unwrap();
    while let Some(batch) = replay.next_batch().await.unwrap() {
        for record in batch.records().map(Result::unwrap) {
            if Barrier::parse(&record).is_none() {
                let value: [u8; 8] = record.value.as_deref().unwrap().try_into().unwrap();
                let (sequence, number) = value.split_at(4);
                let numbers = [sequence, number].map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
                found.insert(record.offset, numbers.into());
            }
        }
    }
    Found(found)
}

impl Found {
    pub(super) fn offsets(&self) -> impl Iterator<Item = i64> {
        self.0.keys().copied()
    }

    pub(super) fn remove(&mut self, offset: i64) -> Option<(u32, u32)> {
        self.0.remove(&offset)
    }

    /// Checks that each sequence is there in its order, once and without a hole; that every acknowledged
    /// record lies where its task was told; and that what was not applied is not there. Returns the number of
    /// records.
    pub(super) fn check(&self, sequences: &BTreeMap<u32, Sequence>) -> u64 {
        let mut next: BTreeMap<u32, u32> = sequences.keys().map(|sequence| (*sequence, 0)).collect();
        for (offset, (sequence, number)) in &self.0 {
            let next = next.get_mut(sequence).unwrap_or_else(|| panic!("{offset}: no sequence {sequence}"));
            assert_eq!(number, next, "sequence {sequence} at offset {offset}");
            *next += 1;
            let Sequence { offsets, errors } = &sequences[sequence];
            let number = *number as usize;
            match offsets.get(number) {
                Some(acknowledged) => assert_eq!(acknowledged, offset, "{sequence}: {number}"),
                None => assert_eq!(errors[number - offsets.len()].outcome(), Outcome::Unknown),
            }
        }
        for (sequence, Sequence { offsets, .. }) in sequences {
            assert!(next[sequence] as usize >= offsets.len(), "records of {sequence} are missing");
        }
        self.0.len() as u64
    }
}
