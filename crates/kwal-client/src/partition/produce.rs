//! Appending.

use std::{ops::Range, sync::Arc, time::Duration};

use kwal_protocol::{
    api::ApiKey,
    compression::Compressor,
    record::{BatchBuilder, EncodedBatch},
};
use tokio::{
    sync::oneshot,
    task::unconstrained,
    time::{Instant, timeout_at},
};

use super::{PartitionClient, queue::Job};
use crate::{
    error::{Error, Outcome},
    record::Record,
};

/// Where an append is on the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Produced {
    /// The offset of the first record. The others follow without a gap.
    pub base_offset: i64,
    /// How many records there are.
    pub record_count: usize,
    /// The time that the broker gave to the records, in milliseconds since the epoch; `None` unless the topic has
    /// `message.timestamp.type=LogAppendTime`.
    pub log_append_time_ms: Option<i64>,
    /// Where the log started when the broker answered; `None` if it did not say.
    pub log_start_offset: Option<i64>,
    /// The size of the batch on the wire and in the log, in bytes.
    pub wire_bytes: usize,
    /// How many attempts it took. One that did not come as far as sending the batch counts too: for want of a leader, a
    /// connection or a producer id.
    pub attempts: u32,
}

impl Produced {
    /// The offsets of the records, in the order in which they were given.
    pub fn offsets(&self) -> Range<i64> {
        self.base_offset..self.base_offset + self.record_count as i64
    }
}

impl PartitionClient {
    /// Appends records as one batch: all of them or none, one behind the other.
    ///
    /// `Ok` means that every in-sync replica has them (acks = all). Until then lost replies, leader changes, reconnects and
    /// throttling are retried with the same batch, and the broker drops what it has already: it is on the log once.
    /// Batches lie there in the order in which they were submitted, which is that of the first polls: from then on a batch waits
    /// in turn until there is room for it ([`Limits::appends`](crate::Limits::appends)), and then its place is fixed. One
    /// batch of a partition is sent after the other.
    ///
    /// # Cancellation
    /// Dropped before its place is fixed, the batch is not appended. Dropped later, it is appended all the same, and later
    /// ones lie behind it.
    ///
    /// # Errors
    /// [`Error::outcome`] says whether the batch may be on the log. [`Error::InvalidInput`] for no records at all;
    /// [`Error::BatchTooLarge`]; [`Error::Behind`] if one submitted before it failed;
    /// [`Error::DeadlineExceeded`] after [`Deadlines::operation`](crate::Deadlines::operation). After [`Error::Fenced`] and
    /// [`Error::Lost`] this client appends no more.
    pub async fn produce(&self, records: Vec<Record>) -> Result<Produced, Error> {
        let batch = self.encode(&records)?;
        drop(records);
        self.append(batch).await
    }

    fn encode(&self, records: &[Record]) -> Result<EncodedBatch, Error> {
        if records.is_empty() {
            return Err(Error::InvalidInput("no records to append".to_owned()));
        }
        let payload = |record: &Record| {
            let headers = record.headers.iter();
            let headers: usize = headers
                .map(|header| {
                    header.key_bytes().len() + header.value.as_ref().map_or(0, |value| value.len()) + 10
                })
                .sum();
            let len = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len());
            len(&record.key) + len(&record.value) + headers + 20
        };
        let size: usize = records.iter().map(payload).sum();
        self.check_size(size, records.len())?;
        self.core.cluster.with_compressor(|compressor| self.build(records, size, compressor))
    }

    fn build(
        &self,
        records: &[Record],
        size: usize,
        compressor: &mut Compressor,
    ) -> Result<EncodedBatch, Error> {
        let mut builder = BatchBuilder::with_capacity_of(compressor, self.compression, size);
        if let Some(level) = self.level {
            builder = builder.level(level);
        }
        for record in records {
            builder.push(
                record.timestamp_ms(),
                record.key.as_deref(),
                record.value.as_deref(),
                &record.headers,
            );
        }
        let batch = builder.finish_with(compressor).map_err(Error::Encode)?;
        self.check_size(batch.size_in_bytes().max(batch.uncompressed_size()), batch.record_count())?;
        Ok(batch)
    }

    fn check_size(&self, size: usize, records: usize) -> Result<(), Error> {
        let limit = self.core.cluster.config.limits.batch;
        match size <= limit {
            true => Ok(()),
            false => {
                let at = self.core.place().at(ApiKey::PRODUCE, None);
                Err(Error::BatchTooLarge { size, records, limit: Some(limit), at })
            }
        }
    }

    async fn append(&self, batch: EncodedBatch) -> Result<Produced, Error> {
        let after = self.core.cluster.config.deadlines.operation;
        let deadline = Instant::now() + after;
        let at = |outcome| {
            let mut at = self.core.place().at(ApiKey::PRODUCE, None);
            at.outcome = outcome;
            at
        };
        // Nothing but the want of room may make it wait here, or another one could get in before it.
        let submitted = self.submit(batch, deadline);
        let done = match timeout_at(deadline, unconstrained(submitted)).await {
            Ok(Some(done)) => done,
            Ok(None) => return Err(Error::Closed { at: at(Outcome::NotAppended) }),
            Err(_) => {
                return Err(Error::DeadlineExceeded { after, at: at(Outcome::NotAppended), last: None });
            }
        };
        match timeout_at(deadline + GRACE, done).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::Closed { at: at(Outcome::Unknown) }),
            Err(_) => Err(Error::DeadlineExceeded { after, at: at(Outcome::Unknown), last: None }),
        }
    }

    /// Waits for room, in turn, and fixes the place of a batch. `None` if the writer is gone.
    async fn submit(
        &self,
        batch: EncodedBatch,
        deadline: Instant,
    ) -> Option<oneshot::Receiver<Result<Produced, Error>>> {
        let _turn = self.queue.turn.lock().await;
        let memory = self.core.cluster.reserve(batch.size_in_bytes()).await;
        let place = Arc::clone(&self.queue.room).acquire_owned().await.ok()?;
        let (reply, done) = oneshot::channel();
        let job = Job { batch, deadline, reply, _room: [memory, place] };
        self.queue.submit(job).then_some(done)
    }
}

/// The writer keeps the deadlines. Only if nobody drives its runtime, who waits for it has to look to itself.
const GRACE: Duration = Duration::from_millis(100);
