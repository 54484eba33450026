//! Who reads.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use kwal_client::{
    Client, Fetched, OffsetAt, PartitionClient,
    error::{Error, ErrorKind},
};
use kwal_testkit::check::{ReadFailure, Reader, ReaderId};
use tokio::time::{Instant, sleep, timeout};

use super::{Scene, TOPIC, root};
use crate::support::chain;

/// Reads one partition, follows it, and begins again somewhere.
pub(super) struct Tailer {
    scene: Arc<Scene>,
    client: Client,
    partition: PartitionClient,
    reader: ReaderId,
    offset: i64,
    rng: Rng,
}

impl Tailer {
    pub(super) async fn take(scene: &Arc<Scene>, client: &Client, partition: i32, rng: Rng) -> Self {
        let opened = scene.open(client, partition).await.unwrap();
        // What a bare offset asks for is what is there now.
        let reader = scene.recorder.now().reader(Reader::new((TOPIC, partition), 0).without_epoch());
        let client = client.clone();
        Self { scene: Arc::clone(scene), client, partition: opened, reader, offset: 0, rng }
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
        self.scene.recorder.now().seek(self.reader, offset);
    }

    async fn fetch(&mut self) {
        let max_bytes = self.rng.choice([1, 200, 2_000, 1 << 20]).unwrap_or(1);
        let wait = Duration::from_millis(self.rng.u64(..1_500));
        let fetch = self.partition.fetch(self.offset).max_bytes(max_bytes).max_wait(wait);
        let fetch = self.scene.timed("fetch", fetch);
        let patience = Duration::from_millis(self.rng.u64(..3_000));
        let done = match self.rng.u8(..12) {
            0 => timeout(patience, fetch).await.ok(),
            _ => Some(fetch.await),
        };
        match done {
            None => self.scene.meet("fetches given up"),
            Some(Ok(fetched)) => self.offset = got(&self.scene, self.reader, &fetched),
            Some(Err(error)) => self.failed(error).await,
        }
    }

    async fn failed(&mut self, error: Error) {
        let failed = |failure| self.scene.recorder.now().read_failed(self.reader, failure);
        match root(&error) {
            ErrorKind::OffsetOutOfRange { log, .. } => {
                self.scene.meet("fetches out of range");
                failed(ReadFailure::OutOfRange);
                let start = log.as_ref().map_or(0, |log| log.start);
                self.seek(start);
            }
            ErrorKind::TopicRecreated { .. } => {
                self.scene.meet("topics made again");
                failed(ReadFailure::Recreated);
                if let Some(opened) = self.scene.open(&self.client, self.partition.partition()).await {
                    self.partition = opened;
                }
                self.seek(0);
            }
            ErrorKind::Closed | ErrorKind::InvalidInput { .. } | ErrorKind::Corrupt => {
                self.scene.problem(format!("a fetch from {} failed: {}", self.offset, chain(&error)));
            }
            _ => {
                self.scene.meet("fetches failed");
                failed(ReadFailure::Other);
            }
        }
    }
}

/// Records what a fetch brought; answers where to go on.
fn got(scene: &Scene, reader: ReaderId, fetched: &Fetched) -> i64 {
    let records = match fetched.records().collect::<Result<Vec<_>, _>>() {
        Ok(records) => records,
        Err(error) => {
            scene.problem(format!("records cannot be read: {}", chain(&error)));
            return fetched.from;
        }
    };
    scene.meet(if records.is_empty() { "fetches without" } else { "fetches with records" });
    let records = records.into_iter().map(|record| (record.offset, record.value.unwrap_or_default()));
    scene.recorder.now().read(reader, records, fetched.next_offset);
    fetched.next_offset
}

/// Reads the whole log when all is well: every record that there is.
pub(super) async fn read_to_the_end(scene: &Scene, client: &Client, partition: i32) {
    let read = async || {
        let Some(opened) = scene.open(client, partition).await else { return Ok(()) };
        whole(scene, &opened).await
    };
    let read = match read().await {
        // What the client knew of the topic was of the one before.
        Err(error) if matches!(error.kind(), ErrorKind::TopicRecreated { .. }) => read().await,
        read => read,
    };
    match read {
        Ok(()) => scene.meet("logs read to the end"),
        Err(error) => {
            scene.problem(format!("a log cannot be read when all is well again: {}", chain(&error)))
        }
    }
}

async fn whole(scene: &Scene, partition: &PartitionClient) -> Result<(), Error> {
    let mut offset = scene.timed("earliest", partition.get_offset(OffsetAt::Earliest)).await?;
    let end = scene.timed("latest", partition.get_offset(OffsetAt::Latest)).await?;
    let reader = Reader::new((TOPIC, partition.partition()), offset).without_epoch();
    let reader = scene.recorder.now().reader(reader);
    while offset < end {
        let fetched = scene.timed("fetch", partition.fetch(offset)).await?;
        let next = got(scene, reader, &fetched);
        if next == offset {
            scene.problem(format!("nothing comes at {offset}, and the log ends at {end}"));
            break;
        }
        offset = next;
    }
    Ok(())
}
