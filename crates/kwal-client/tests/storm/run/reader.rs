//! The reader of one partition.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use kwal_client::{
    Client, Fetched, OffsetAt, PartitionClient,
    error::{Error, ErrorKind},
};
use kwal_testkit::check::{ReadFailure, Reader, ReaderId};
use tokio::time::{Instant, sleep, timeout};

use super::{Shared, TOPIC, root, value};
use crate::support::chain;

/// Follows one partition, and sometimes seeks to an earlier offset.
pub(super) struct Tailer {
    shared: Arc<Shared>,
    client: Client,
    partition: PartitionClient,
    reader: ReaderId,
    offset: i64,
    rng: Rng,
}

impl Tailer {
    pub(super) async fn open(shared: &Arc<Shared>, client: &Client, partition: i32, rng: Rng) -> Self {
        let opened = shared.open(client, partition).await.unwrap();
        // A bare offset reads the records that are there now.
        let reader = shared.recorder.now().reader(Reader::new((TOPIC, partition), 0).without_epoch());
        let client = client.clone();
        Self { shared: Arc::clone(shared), client, partition: opened, reader, offset: 0, rng }
    }

    pub(super) async fn work(mut self, until: Instant) -> Self {
        while Instant::now() < until {
            match self.rng.u8(..16) {
                0 => {
                    let offset = self.rng.u64(..=self.offset.unsigned_abs()) as i64;
                    self.seek(offset);
                }
                1..6 => sleep(Duration::from_millis(self.rng.u64(..600))).await,
                _ => self.fetch().await,
            }
        }
        self
    }

    fn seek(&mut self, offset: i64) {
        self.offset = offset;
        self.shared.recorder.now().seek(self.reader, offset);
    }

    async fn fetch(&mut self) {
        let max_bytes = self.rng.choice([1, 200, 2_000, 1 << 20]).unwrap_or(1);
        let wait = Duration::from_millis(self.rng.u64(..1_500));
        let fetch = self.partition.fetch(self.offset).max_bytes(max_bytes).max_wait(wait);
        let fetch = self.shared.timed("fetch", fetch);
        let patience = Duration::from_millis(self.rng.u64(..3_000));
        let done = match self.rng.u8(..12) {
            0 => timeout(patience, fetch).await.ok(),
            _ => Some(fetch.await),
        };
        match done {
            None => self.shared.count_event("fetches dropped"),
            Some(Ok(fetched)) => self.offset = record_fetch(&self.shared, self.reader, &fetched),
            Some(Err(error)) => self.failed(error).await,
        }
    }

    async fn failed(&mut self, error: Error) {
        let failed = |failure| self.shared.recorder.now().read_failed(self.reader, failure);
        match root(&error) {
            ErrorKind::OffsetOutOfRange { log, .. } => {
                self.shared.count_event("fetches out of range");
                failed(ReadFailure::OutOfRange);
                let start = log.as_ref().map_or(0, |log| log.start);
                self.seek(start);
            }
            ErrorKind::TopicRecreated { .. } => {
                self.shared.count_event("topics recreated");
                failed(ReadFailure::Recreated);
                if let Some(opened) = self.shared.open(&self.client, self.partition.partition()).await {
                    self.partition = opened;
                }
                self.seek(0);
            }
            ErrorKind::Closed | ErrorKind::InvalidInput { .. } | ErrorKind::Corrupt => {
                self.shared.problem(format!("a fetch from {} failed: {}", self.offset, chain(&error)));
            }
            _ => {
                self.shared.count_event("fetches failed");
                failed(ReadFailure::Other);
            }
        }
    }
}

/// Records the result of a fetch. Returns the offset to continue at.
fn record_fetch(shared: &Shared, reader: ReaderId, fetched: &Fetched) -> i64 {
    let records = match fetched.records().collect::<Result<Vec<_>, _>>() {
        Ok(records) => records,
        Err(error) => {
            shared.problem(format!("records cannot be read: {}", chain(&error)));
            return fetched.from;
        }
    };
    shared.count_event(if records.is_empty() { "fetches without records" } else { "fetches with records" });
    let records = records.iter().map(|record| (record.offset, value(record)));
    shared.recorder.now().read(reader, records, fetched.next_offset);
    fetched.next_offset
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
        let next = record_fetch(shared, reader, &fetched);
        if next == offset {
            shared.problem(format!("no progress at {offset}, but the log ends at {end}"));
            break;
        }
        offset = next;
    }
    Ok(())
}
