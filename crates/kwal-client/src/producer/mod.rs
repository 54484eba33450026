//! The appends of one partition: encoding, the order in which they are submitted, and the task that sends
//! them.

mod append;
mod init;
mod queue;
mod task;

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use kwal_protocol::{
    api::ApiKey,
    compression::Compressor,
    record::{BatchBuilder, Compression, EncodedBatch},
};
use tokio::{sync::oneshot, task::unconstrained, time::timeout_at};

use self::{
    queue::{HandleGuard, PendingBatch, Queue, TaskGuard},
    task::ProducerTask,
};
use crate::{
    error::{Error, ErrorKind, Outcome, Progress},
    record::Record,
    routing::{Deadline, Partition},
};

/// The result of an append: where the batch is on the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Produced {
    /// The offset of the first record. The others follow without a gap. `None` if the broker appended them
    /// and did not report where: some services never do, and Kafka need not for a batch that it had already.
    pub base_offset: Option<i64>,
    /// How many records there are.
    pub record_count: usize,
    /// The timestamp that the broker reports, in milliseconds since the epoch: that of the records if the
    /// topic has `message.timestamp.type=LogAppendTime`. Otherwise `None`, except after a retry that the
    /// broker recognised.
    pub log_append_time_ms: Option<i64>,
    /// The first offset of the log when the broker responded; `None` if it did not report it.
    pub log_start_offset: Option<i64>,
    /// The size of the batch on the wire and in the log, in bytes.
    pub wire_bytes: usize,
    /// How many attempts it took. One that ended before the batch was sent counts as well: without a leader,
    /// a connection or a producer id.
    pub attempts: u32,
}

impl Produced {
    /// Returns the offsets of the records, in the order in which they were given; `None` if
    /// [`base_offset`](Self::base_offset) is not known.
    pub fn offsets(&self) -> Option<Range<i64>> {
        let base_offset = self.base_offset?;
        Some(base_offset..base_offset.saturating_add_unsigned(self.record_count as u64))
    }
}

/// How the batches of a partition client are encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoding {
    pub(crate) compression: Compression,
    pub(crate) level: Option<i32>,
}

/// A handle to append to one partition. Clones share producer id and order; the task ends with the last one.
#[derive(Clone, Debug)]
pub(crate) struct Producer {
    partition: Arc<Partition>,
    queue: Arc<Queue>,
    _handle: Arc<HandleGuard>,
    encoding: Encoding,
}

/// How long a caller waits for the producer task beyond the deadline.
///
/// The producer task enforces deadlines. This grace period only matters when its runtime is not being polled.
const GRACE: Duration = Duration::from_millis(100);

impl Producer {
    /// Spawns the task. It connects to the leader and gets a producer id at the first append: a client that
    /// only reads needs neither.
    pub(crate) fn open(
        partition: Arc<Partition>,
        idempotent: bool,
        encoding: Encoding,
    ) -> Result<Self, Error> {
        let queue = Arc::new(Queue::default());
        let task = ProducerTask::new(Arc::clone(&partition), Arc::clone(&queue), idempotent);
        let handle = Arc::new(HandleGuard::new(Arc::clone(&partition), Arc::clone(&queue)));
        // Before the task is spawned: its runtime may abort it before the first poll.
        let guard = TaskGuard::new(Arc::clone(&partition), Arc::clone(&queue));
        let task = partition.cluster.runtime.spawn(async move {
            let _guard = guard;
            task.run().await;
        });
        // A runtime that has shut down drops it at once.
        if task.is_finished() {
            return Err(partition.call(ApiKey::PRODUCE).error(ErrorKind::Closed));
        }
        Ok(Self { partition, queue, _handle: handle, encoding })
    }

    /// Appends records as one batch.
    pub(crate) async fn produce(
        &self,
        records: impl AsRef<[Record]>,
        deadline: Deadline,
    ) -> Result<Produced, Error> {
        let error = |kind, outcome| self.partition.call(ApiKey::PRODUCE).error(kind).with_outcome(outcome);
        let size = self.check(records.as_ref())?;
        // Must not yield to tokio's cooperative budget: a later call could overtake this one.
        let mut progress = Progress::Queue;
        let submitted = unconstrained(self.submit(records.as_ref(), size, deadline, &mut progress));
        let submitted = timeout_at(deadline.at, submitted).await;
        let exceeded = |progress| ErrorKind::DeadlineExceeded { after: deadline.after, progress };
        let result = match submitted {
            Ok(Ok(Some(result))) => result,
            Ok(Ok(None)) => return Err(error(ErrorKind::Closed, Outcome::NotApplied)),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(error(exceeded(progress), Outcome::NotApplied)),
        };
        drop(records);
        match timeout_at(deadline.at + GRACE, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(error(ErrorKind::Closed, Outcome::Unknown)),
            Err(_) => Err(error(exceeded(Progress::Runtime), Outcome::Unknown)),
        }
    }

    /// Waits in turn for memory and for a place in the queue, then encodes the batch and fixes its place.
    /// `None` if the task is gone.
    async fn submit(
        &self,
        records: &[Record],
        size: BatchSize,
        deadline: Deadline,
        progress: &mut Progress,
    ) -> Result<Option<oneshot::Receiver<Result<Produced, Error>>>, Error> {
        let cluster = &self.partition.cluster;
        let _turn = self.queue.turn.lock().await;
        *progress = Progress::Memory;
        // Before the batch is encoded: what waits here holds only the caller's records.
        let mut memory = cluster.memory.reserve(self.upper_bound(size)).await;
        *progress = Progress::Queue;
        let Some(place) = self.queue.place().await else { return Ok(None) };
        let batch = match self.encoding.compression {
            Compression::None => self.encode(records, size, &mut Compressor::new())?,
            _ => cluster.with_compressor(|compressor| self.encode(records, size, compressor))?,
        };
        memory.shrink(self.held(size, &batch));
        let (response, result) = oneshot::channel();
        let pending = PendingBatch { batch, deadline, response, _memory: memory, _place: place };
        Ok(self.queue.submit(pending).then_some(result))
    }

    /// Rejects an append that cannot succeed, before it waits for anything.
    fn check(&self, records: &[Record]) -> Result<BatchSize, Error> {
        if records.is_empty() {
            return Err(Error::invalid_input("no records to append"));
        }
        if let Some(index) = records.iter().position(|record| record.timestamp_ms() < 0) {
            let reason = format!(
                "record {index} has a timestamp before 1970, {}: Kafka has no such timestamps",
                records[index].timestamp
            );
            return Err(Error::invalid_input(reason));
        }
        let size = BatchSize::of(records);
        self.check_size(size.at_least, records.len())?;
        Ok(size)
    }

    /// Returns how many bytes the batch may take while it is encoded: as it is, and once more where it is
    /// compressed.
    fn upper_bound(&self, size: BatchSize) -> usize {
        match self.encoding.compression {
            Compression::None => size.at_most,
            _ => size.at_most.saturating_mul(2),
        }
    }

    /// Returns how many bytes an encoded batch holds: its buffer has the capacity with which it was created.
    fn held(&self, size: BatchSize, batch: &EncodedBatch) -> usize {
        match self.encoding.compression {
            Compression::None => size.likely.max(batch.size_in_bytes()),
            _ => batch.size_in_bytes(),
        }
    }

    fn encode(
        &self,
        records: &[Record],
        size: BatchSize,
        compressor: &mut Compressor,
    ) -> Result<EncodedBatch, Error> {
        let Encoding { compression, level } = self.encoding;
        let mut builder = BatchBuilder::with_capacity_of(compressor, compression, size.likely);
        if let Some(level) = level {
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
        let batch = builder.finish_with(compressor)?;
        self.check_size(batch.size_in_bytes().max(batch.uncompressed_size()), batch.record_count())?;
        Ok(batch)
    }

    fn check_size(&self, size: usize, records: usize) -> Result<(), Error> {
        let limit = self.partition.cluster.config.limits.batch;
        match size <= limit {
            true => Ok(()),
            false => {
                let kind = ErrorKind::BatchTooLarge { size, records, limit: Some(limit) };
                Err(self.partition.call(ApiKey::PRODUCE).error(kind))
            }
        }
    }
}

/// The size of a batch before it is encoded, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct BatchSize {
    /// With the smallest possible overhead.
    at_least: usize,
    /// With the usual overhead of a record. A buffer of this size does not grow while such records are
    /// encoded, which would double it.
    likely: usize,
    /// With the largest possible overhead.
    at_most: usize,
}

impl BatchSize {
    /// The header of a batch (`record_set` of Kafka's message format, version 2).
    const BATCH: usize = 61;
    /// Length, attributes, timestamp delta, offset delta, lengths of key and value, number of headers; most
    /// as varints.
    const RECORD: (usize, usize, usize) = (7, 20, 5 + 1 + 10 + 5 + 5 + 5 + 5);
    /// The lengths of name and value, as varints.
    const HEADER: (usize, usize) = (2, 10);

    fn of(records: &[Record]) -> Self {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let (mut payload, mut headers) = (0, 0);
        for record in records {
            payload += len(&record.key) + len(&record.value);
            for header in record.headers.iter() {
                payload += header.key_bytes().len() + header.value.as_ref().map_or(0, |value| value.len());
                headers += 1;
            }
        }
        let with =
            |record: usize, header: usize| Self::BATCH + payload + headers * header + records.len() * record;
        let ((smallest, usual, largest), (shortest, longest)) = (Self::RECORD, Self::HEADER);
        Self {
            at_least: with(smallest, shortest),
            likely: with(usual, longest),
            at_most: with(largest, longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_batch_is_bounded_before_it_is_encoded() {
        let record = |key: Option<&str>, value: usize| Record::new(key, vec![7; value]);
        for records in [
            vec![Record::new(None::<&str>, None::<&str>)],
            vec![record(None, 0), record(Some(""), 100), record(Some("key"), 20_000)],
            vec![record(Some("key"), 5).header("a", "b").header("none", None::<&str>); 300],
        ] {
            let size = BatchSize::of(&records);
            let mut builder = BatchBuilder::new(Compression::None);
            for record in &records {
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                builder.push(record.timestamp_ms(), key, value, &record.headers);
            }
            let encoded = builder.finish().unwrap().size_in_bytes();
            assert!(size.at_least <= encoded && encoded <= size.at_most, "{size:?} {encoded}");
        }
    }
}
