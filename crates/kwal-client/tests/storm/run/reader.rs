//! The reader of one partition.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use kwal_client::{
    Client, Fetched, Isolation, OffsetAt, PartitionClient, Position,
    error::{Error, ErrorKind},
};
use kwal_testkit::{
    Hazard,
    check::{ReadFailure, Reader, ReaderId},
};
use tokio::time::{Instant, sleep, timeout};

use super::{Shared, TOPIC, root, value};
use crate::support::chain;

/// Follows one partition fetch by fetch, and sometimes goes on elsewhere.
pub(super) struct Tailer {
    shared: Arc<Shared>,
    /// It reads with one of them at a time.
    clients: [Client; 2],
    partition: PartitionClient,
    how: How,
    reader: ReaderId,
    position: Position,
    kept: Vec<Kept>,
    rng: Rng,
}

/// How a partition is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    partition: i32,
    /// It fetches from positions, and not from bare offsets.
    pub(super) by_position: bool,
    pub(super) isolation: Isolation,
}

/// A position that was kept, as the reader of another process that starts there.
pub(super) struct Kept {
    pub(super) text: String,
    pub(super) reader: ReaderId,
}

impl How {
    pub(super) fn of(shared: &Shared, partition: i32, by_position: bool, rng: &mut Rng) -> Self {
        let committed = if shared.plan.has(Hazard::Transactions) { rng.bool() } else { rng.u8(..8) == 0 };
        let isolation = if committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
        Self { partition, by_position, isolation }
    }

    /// Describes a reader to the checker.
    pub(super) fn describe(self, offset: i64) -> Reader {
        let reader = Reader::new((TOPIC, self.partition), offset);
        // A bare offset reads the records that are there now.
        let reader = if self.by_position { reader } else { reader.without_epoch() };
        if self.isolation == Isolation::ReadCommitted { reader.committed() } else { reader }
    }
}

impl Tailer {
    pub(super) async fn open(
        shared: &Arc<Shared>,
        clients: [&Client; 2],
        partition: i32,
        by_position: bool,
        mut rng: Rng,
    ) -> Self {
        let opened = shared.open(clients[0], partition).await.unwrap();
        let how = How::of(shared, partition, by_position, &mut rng);
        let reader = shared.recorder.now().reader(how.describe(0));
        Self {
            shared: Arc::clone(shared),
            clients: clients.map(Client::clone),
            partition: opened,
            how,
            reader,
            position: Position::from(0),
            kept: Vec::new(),
            rng,
        }
    }

    pub(super) async fn work(mut self, until: Instant) -> Self {
        while Instant::now() < until {
            match self.rng.u8(..16) {
                0 => {
                    let offset = self.rng.u64(..=self.position.offset.unsigned_abs()) as i64;
                    self.seek(offset);
                }
                1..6 => sleep(Duration::from_millis(self.rng.u64(..600))).await,
                6 if self.how.by_position => self.keep(),
                7 if self.how.by_position => self.resume().await,
                _ => self.fetch().await,
            }
        }
        self
    }

    fn seek(&mut self, offset: i64) {
        self.position = Position::from(offset);
        self.shared.recorder.now().seek(self.reader, offset);
    }

    /// Keeps the position, if it can be verified.
    fn keep(&mut self) {
        if self.position.leader_epoch.is_some() {
            let heir = self.how.describe(self.position.offset).resumes(self.reader);
            let reader = self.shared.recorder.now().reader(heir);
            self.kept.push(Kept { text: self.position.to_string(), reader });
            self.shared.count_event("positions kept");
        }
    }

    /// Goes on at a position that was kept, perhaps as another process.
    async fn resume(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let Kept { text, reader } = self.kept.swap_remove(self.rng.u64(..self.kept.len() as u64) as usize);
        match text.parse() {
            Ok(position) => (self.position, self.reader) = (position, reader),
            Err(error) => return self.shared.problem(format!("{text} is not read back: {error}")),
        }
        self.shared.count_event("positions resumed");
        if self.rng.bool() {
            self.clients.swap(0, 1);
            self.reopen().await;
        }
    }

    async fn reopen(&mut self) {
        if let Some(opened) = self.shared.open(&self.clients[0], self.how.partition).await {
            self.partition = opened;
        }
    }

    async fn fetch(&mut self) {
        let max_bytes = self.rng.choice([1, 200, 2_000, 1 << 20]).unwrap_or(1);
        let wait = Duration::from_millis(self.rng.u64(..1_500));
        let How { by_position, isolation, .. } = self.how;
        let from = if by_position { self.position } else { Position::from(self.position.offset) };
        let fetch = self.partition.fetch(from).isolation(isolation).max_bytes(max_bytes).max_wait(wait);
        let fetch = self.shared.timed("fetch", fetch);
        let patience = Duration::from_millis(self.rng.u64(..3_000));
        let done = match self.rng.u8(..12) {
            0 => timeout(patience, fetch).await.ok(),
            _ => Some(fetch.await),
        };
        match done {
            None => self.shared.count_event("fetches dropped"),
            Some(Ok(fetched)) => self.fetched(from, &fetched),
            Some(Err(error)) => self.failed(&error).await,
        }
    }

    fn fetched(&mut self, from: Position, fetched: &Fetched) {
        let Some(position) = record_fetch(&self.shared, self.reader, fetched) else { return };
        if from.leader_epoch.is_some() {
            self.shared.count_event("fetches from positions");
        }
        if self.how.isolation == Isolation::ReadCommitted {
            self.shared.count_event("fetches of committed records");
        }
        self.position = position;
        if self.how.by_position && position.leader_epoch.is_none() {
            // Nothing of the batches before it is left, so it cannot be verified.
            self.seek(position.offset);
        }
    }

    async fn failed(&mut self, error: &Error) {
        let Some(failure) = self.shared.read_failure(self.position, error) else { return };
        self.shared.recorder.now().read_failed(self.reader, failure);
        match failure {
            ReadFailure::Trimmed { log_start } => self.seek(log_start),
            ReadFailure::BeyondEnd { .. } | ReadFailure::OutOfRange | ReadFailure::Truncated { .. } => {
                self.seek(0);
            }
            ReadFailure::EpochUnknown => self.seek(self.position.offset),
            ReadFailure::Recreated => {
                self.reopen().await;
                self.seek(0);
            }
            _ => {}
        }
    }
}

impl Shared {
    /// Counts the error of a fetch from a position, and describes it to the checker. `None` if it is one that
    /// no storm may cause.
    pub(super) fn read_failure(&self, position: Position, error: &Error) -> Option<ReadFailure> {
        let (event, failure) = match *root(error) {
            ErrorKind::Trimmed { log_start, .. } => {
                ("fetches before the log start", ReadFailure::Trimmed { log_start })
            }
            ErrorKind::BeyondEnd { end, .. } => ("fetches beyond the end", ReadFailure::BeyondEnd { end }),
            ErrorKind::OffsetOutOfRange { .. } => ("fetches failed", ReadFailure::OutOfRange),
            // What one position knows may not reach back to the first record that is lost.
            ErrorKind::LogTruncated { diverged_at, .. } if diverged_at < position.offset => {
                ("fetches of truncated logs", ReadFailure::Truncated { diverged_at: 0 })
            }
            ErrorKind::EpochUnknown { .. } => ("fetches of unknown epochs", ReadFailure::EpochUnknown),
            ErrorKind::TopicRecreated { .. } => ("topics recreated", ReadFailure::Recreated),
            ErrorKind::Closed
            | ErrorKind::InvalidInput { .. }
            | ErrorKind::Corrupt { .. }
            | ErrorKind::LogTruncated { .. } => {
                self.problem(format!("a fetch from {position} failed: {}", chain(error)));
                return None;
            }
            _ => ("fetches failed", ReadFailure::Other),
        };
        self.count_event(event);
        if matches!(
            failure,
            ReadFailure::Trimmed { .. } | ReadFailure::BeyondEnd { .. } | ReadFailure::OutOfRange
        ) {
            self.count_event("fetches out of range");
        }
        Some(failure)
    }
}

/// Records the result of a fetch. Returns the position to continue at.
fn record_fetch(shared: &Shared, reader: ReaderId, fetched: &Fetched) -> Option<Position> {
    let records = match fetched.records().collect::<Result<Vec<_>, _>>() {
        Ok(records) => records,
        Err(error) => {
            shared.problem(format!("records cannot be read: {}", chain(&error)));
            return None;
        }
    };
    shared.count_event(if records.is_empty() { "fetches without records" } else { "fetches with records" });
    let records = records.iter().map(|record| (record.offset, value(record)));
    shared.recorder.now().read(reader, records, fetched.next_offset);
    Some(fetched.position())
}

/// Reads the whole log after the storm.
pub(super) async fn read_to_the_end(shared: &Shared, client: &Client, partition: i32) {
    let read = async || {
        let Some(opened) = shared.open(client, partition).await else { return Ok(()) };
        read_whole_log(shared, &opened).await
    };
    let read = match read().await {
        // The client's metadata was of the deleted topic.
        Err(error) if matches!(error.kind(), ErrorKind::TopicRecreated { .. }) => read().await,
        read => read,
    };
    match read {
        Ok(()) => shared.count_event("logs read to the end"),
        Err(error) => shared.problem(format!("a log cannot be read after the storm: {}", chain(&error))),
    }
}

async fn read_whole_log(shared: &Shared, partition: &PartitionClient) -> Result<(), Error> {
    let mut offset = shared.timed("earliest", partition.get_offset(OffsetAt::Earliest)).await?;
    let end = shared.timed("latest", partition.get_offset(OffsetAt::Latest)).await?;
    let reader = Reader::new((TOPIC, partition.partition()), offset).without_epoch();
    let reader = shared.recorder.now().reader(reader);
    while offset < end {
        let fetched = shared.timed("fetch", partition.fetch(offset)).await?;
        let next = record_fetch(shared, reader, &fetched).map_or(offset, |position| position.offset);
        if next == offset {
            shared.problem(format!("no progress at {offset}, but the log ends at {end}"));
            break;
        }
        offset = next;
    }
    Ok(())
}
