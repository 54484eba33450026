//! The appends of one partition: encoding, the order in which they are submitted, and the task that sends
//! them.

mod append;
mod appends;
mod exclusive;
mod fence;
mod init;
mod lookup;
mod permit;
mod producers;
mod resolve;
mod results;
mod settings;
mod snapshot;
mod state;
mod task;

use std::{future::poll_fn, ops::Range, pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use kwal_protocol::{
    compression::Compressor,
    record::{BatchBuilder, Compression, EncodedBatch},
    wire::Uuid,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, oneshot},
    task::{AbortHandle, unconstrained},
    time::timeout_at,
};

use self::{
    appends::{Appends, PendingBatch},
    results::Reply,
    state::Standing,
};
pub use self::{
    exclusive::Holder,
    permit::{Append, Permit},
    resolve::{Resolution, Resolve},
    results::Answer,
    settings::{Acks, OnFailure},
};
pub(crate) use self::{
    exclusive::{Exclusive, Hold, take_over},
    producers::Producers,
    settings::{Encoding, Settings},
};
use crate::{
    error::{Error, ErrorKind, InDoubt, Progress},
    memory::Reservation,
    metrics::AppendTiming,
    position::Position,
    record::Record,
    routing::{Deadline, Partition},
    state::PartitionState,
};

/// The result of an append: where the batch is on the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Produced {
    /// The id of the topic; `None` if the brokers are too old for topic ids.
    pub topic_id: Option<Uuid>,
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
    /// How many times it was sent.
    pub attempts: u32,
}

impl Produced {
    /// Returns the offsets of the records, in the order in which they were given; `None` if
    /// [`base_offset`](Self::base_offset) is not known.
    pub fn offsets(&self) -> Option<Range<i64>> {
        let base_offset = self.base_offset?;
        Some(base_offset..base_offset.saturating_add_unsigned(self.record_count as u64))
    }

    /// Returns where reading goes on after the records; `None` if [`base_offset`](Self::base_offset) is not
    /// known.
    ///
    /// It has no leader epoch, because an acknowledgement has none. So it does not show a loss of these
    /// records as long as the log goes on beyond them; a position of a reader does.
    pub fn position(&self) -> Option<Position> {
        let offset = self.offsets()?.end;
        Some(Position { topic_id: self.topic_id, leader_epoch: None, offset })
    }
}

/// A handle to append to one partition. Clones share producer id and order; the task ends with the last one.
#[derive(Clone, Debug)]
pub(crate) struct Producer {
    appends: Arc<Appends>,
    _handle: Arc<HandleGuard>,
}

/// Lets the task end when the last handle is dropped.
#[derive(Debug)]
struct HandleGuard(Arc<Appends>);

impl Drop for HandleGuard {
    fn drop(&mut self) {
        self.0.unused();
    }
}

/// Ends what is left when the task ends, also when its runtime aborts it.
#[derive(Debug)]
struct TaskGuard {
    appends: Arc<Appends>,
    /// The task that looks for other holders.
    probe: Option<AbortHandle>,
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.appends.end();
        if let Some(probe) = &self.probe {
            probe.abort();
        }
    }
}

impl Producer {
    /// Spawns the task. It connects to the leader and gets a producer id at the first append: a client that
    /// only reads needs neither.
    ///
    /// With a `hold`, it has both from the start.
    pub(crate) fn open(
        partition: Arc<Partition>,
        settings: Settings,
        hold: Option<Hold>,
    ) -> Result<Self, Error> {
        let appends = Appends::new(partition, settings, hold);
        let runtime = &appends.partition.cluster.runtime;
        let probe = appends.hold.as_ref().and_then(|hold| hold.probe).map(|interval| {
            runtime.spawn(exclusive::watch(Arc::downgrade(&appends), interval)).abort_handle()
        });
        // Before the task is spawned: its runtime may abort it before the first poll.
        let guard = TaskGuard { appends: Arc::clone(&appends), probe };
        let task = runtime.spawn({
            let appends = Arc::clone(&appends);
            async move {
                let _guard = guard;
                task::run(appends).await;
            }
        });
        // A runtime that has shut down drops it at once.
        if task.is_finished() {
            return Err(appends.call().error(ErrorKind::Closed));
        }
        let handle = Arc::new(HandleGuard(Arc::clone(&appends)));
        Ok(Self { appends, _handle: handle })
    }

    /// Appends records as one batch.
    pub(crate) async fn produce(
        &self,
        records: impl AsRef<[Record]>,
        deadline: Deadline,
    ) -> Result<Produced, Error> {
        self.append(records, deadline, false).await
    }

    async fn append(
        &self,
        records: impl AsRef<[Record]>,
        deadline: Deadline,
        is_fence: bool,
    ) -> Result<Produced, Error> {
        let all = records.as_ref();
        let size = self.check(all)?;
        let mut progress = Progress::Queue;
        let submitted = {
            // Must not yield to tokio's cooperative budget: a later call could overtake this one.
            let mut submitted = pin!(unconstrained(async {
                // The first caller submits first.
                let _turn = self.appends.turn().await;
                // Before the batch is encoded: what waits here holds only the caller's records.
                let (memory, place) = self.reserve(self.upper_bound(size), &mut progress).await?;
                let batch = self.encode(all, size)?;
                memory.shrink(batch.memory());
                Ok::<_, Error>(self.submit(batch, memory, Some(place), deadline, is_fence))
            }));
            match poll_fn(|cx| Poll::Ready(submitted.as_mut().poll(cx))).await {
                // Mostly nothing has to be waited for, and no timer is needed.
                Poll::Ready(submitted) => Some(submitted),
                Poll::Pending => {
                    let timeout = match Handle::try_current() {
                        Ok(_) => timeout_at(deadline.at, submitted),
                        // A call from elsewhere works whether or not it has to wait.
                        Err(_) => {
                            let _entered = self.appends.partition.cluster.runtime.enter();
                            timeout_at(deadline.at, submitted)
                        }
                    };
                    timeout.await.ok()
                }
            }
        };
        let append = submitted
            .unwrap_or_else(|| Err(self.not_submitted(deadline, progress)))
            .inspect_err(|error| self.appends.partition.metrics.append_failed(error))?;
        drop(records);
        append.await
    }

    /// Waits for a permit to append a batch of so many bytes.
    pub(crate) async fn permit(
        &self,
        bytes: usize,
        deadline: Deadline,
        append_deadline: Duration,
    ) -> Result<Permit, Error> {
        self.check_size(bytes, 0)?;
        let mut progress = Progress::Queue;
        let reserved = timeout_at(deadline.at, self.reserve(bytes, &mut progress)).await;
        let (memory, place) = match reserved {
            Ok(reserved) => reserved?,
            Err(_) => return Err(self.not_submitted(deadline, progress)),
        };
        let (place, size, deadline) = (Some(place), bytes, append_deadline);
        Ok(Permit { producer: self.clone(), memory, place, size, deadline })
    }

    /// Takes a permit to append a batch of so many bytes, if nothing has to be waited for.
    pub(crate) fn try_permit(&self, bytes: usize, append_deadline: Duration) -> Option<Permit> {
        self.check_size(bytes, 0).ok()?;
        let place = self.appends.try_place()?;
        let memory = self.appends.partition.cluster.memory.try_reserve_append(bytes)?;
        let (place, size, deadline) = (Some(place), bytes, append_deadline);
        Some(Permit { producer: self.clone(), memory, place, size, deadline })
    }

    /// Waits for a place, then for memory: what waits for a place takes none from other partitions.
    async fn reserve(
        &self,
        bytes: usize,
        progress: &mut Progress,
    ) -> Result<(Reservation, OwnedSemaphorePermit), Error> {
        let closed = || self.appends.call().error(ErrorKind::Closed);
        *progress = Progress::Queue;
        let place = self.appends.place().await.ok_or_else(closed)?;
        *progress = Progress::Memory;
        tokio::select! {
            biased;
            memory = self.appends.partition.cluster.memory.reserve_append(bytes) => Ok((memory, place)),
            () = self.appends.closed() => Err(closed()),
        }
    }

    /// Fixes the place of a batch.
    fn submit(
        &self,
        batch: EncodedBatch,
        memory: Reservation,
        place: Option<OwnedSemaphorePermit>,
        deadline: Deadline,
        is_fence: bool,
    ) -> Append {
        let (sender, answer) = oneshot::channel();
        self.submit_to(Reply::Future(sender), batch, memory, place, deadline, is_fence);
        Append::new(&self.appends, answer, deadline)
    }

    /// Fixes the place of a batch, and says where its result goes.
    fn submit_to(
        &self,
        reply: Reply,
        batch: EncodedBatch,
        memory: Reservation,
        place: Option<OwnedSemaphorePermit>,
        deadline: Deadline,
        is_fence: bool,
    ) {
        let (_memory, _place) = (memory, place);
        let timing = AppendTiming::begin(deadline.at, deadline.after);
        let pending = PendingBatch { batch, reply, reported: None, is_fence, timing, _memory, _place };
        self.appends.submit(pending, deadline);
    }

    fn not_submitted(&self, deadline: Deadline, progress: Progress) -> Error {
        self.appends.call().error(ErrorKind::DeadlineExceeded { after: deadline.after, progress })
    }

    /// Returns an empty batch with room for so many bytes of records.
    pub(crate) fn batch_builder(&self, bytes: usize) -> BatchBuilder {
        self.with_compressor(|compressor| self.builder(compressor, bytes))
    }

    /// Compresses a batch and computes its checksum. It may be larger than the limit on batches.
    pub(crate) fn finish(&self, builder: BatchBuilder) -> Result<EncodedBatch, Error> {
        self.with_compressor(|compressor| self.finish_with(builder, compressor))
    }

    /// Encodes records as one batch.
    pub(crate) fn encode_records(&self, records: &[Record]) -> Result<EncodedBatch, Error> {
        self.encode(records, self.check(records)?)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.appends.settings
    }

    /// Returns the result of an append that failed before it was submitted.
    pub(crate) fn failed(&self, error: Error) -> Answer {
        self.appends.failed(error)
    }

    pub(crate) fn end_group(&self, group: usize, after: Duration) {
        self.appends.end_group(group, after);
    }

    pub(crate) fn preceding_failed(&self) -> Error {
        self.appends.preceding_failed()
    }

    /// Returns who holds the log; `None` unless it is held exclusively.
    pub(crate) fn holder(&self) -> Option<Holder> {
        self.appends.holder()
    }

    /// Returns what the partition client is doing now.
    pub(crate) fn snapshot(&self) -> PartitionState {
        self.appends.snapshot()
    }

    /// Waits until nothing can be appended any more, and returns why.
    pub(crate) async fn ended(&self) -> Error {
        self.appends.ended().await
    }

    /// Takes no more appends, and waits for those that were submitted. Returns the errors of those that
    /// failed.
    pub(crate) async fn close(&self, deadline: Deadline) -> Vec<Error> {
        self.appends.close(deadline).await
    }

    /// Encodes a fence for another producer id.
    async fn encode_fence(
        &self,
        fence: &Record,
        deadline: Deadline,
    ) -> Result<(EncodedBatch, Reservation), Error> {
        let records = std::slice::from_ref(fence);
        let size = BatchSize::of(records);
        let memory = self.appends.partition.cluster.memory.reserve_append(self.upper_bound(size));
        match timeout_at(deadline.at, memory).await {
            Ok(memory) => Ok((self.encode(records, size)?, memory)),
            Err(_) => Err(self.not_submitted(deadline, Progress::Memory)),
        }
    }

    /// Returns what the producer knows about a batch in doubt.
    fn standing(&self, in_doubt: &InDoubt) -> Standing {
        self.appends.standing(resolve::stamp(in_doubt))
    }

    /// Appends a record that is to fence earlier epochs.
    async fn append_fence(&self, fence: Record, deadline: Deadline) -> Result<Produced, Error> {
        self.append([fence], deadline, true).await
    }

    /// Rejects an append that cannot succeed, before it waits for anything.
    pub(crate) fn check(&self, records: &[Record]) -> Result<BatchSize, Error> {
        if records.is_empty() {
            return Err(self.appends.call().invalid_input("no records to append"));
        }
        let size = BatchSize::of(records);
        // One pass over the records for both.
        if size.may_be_before_1970
            && let Some(index) = records.iter().position(|record| record.timestamp_ms() < 0)
        {
            let reason = format!(
                "record {index} has a timestamp before 1970, {}: Kafka has no such timestamps",
                records[index].timestamp
            );
            return Err(Error::invalid_input(reason));
        }
        self.check_size(size.at_least, records.len())?;
        Ok(size)
    }

    /// Returns how many bytes the batch may take while it is encoded: as it is, and once more where it is
    /// compressed.
    fn upper_bound(&self, size: BatchSize) -> usize {
        match self.appends.settings.encoding.compression {
            Compression::None => size.at_most,
            _ => size.at_most.saturating_mul(2),
        }
    }

    fn encode(&self, records: &[Record], size: BatchSize) -> Result<EncodedBatch, Error> {
        self.with_compressor(|compressor| self.encode_with(records, size, compressor))
    }

    /// Lends the memory that codecs work with, which only compressed batches need.
    fn with_compressor<T>(&self, work: impl FnOnce(&mut Compressor) -> T) -> T {
        match self.appends.settings.encoding.compression {
            Compression::None => self.appends.partition.cluster.with_new_compressor(work),
            _ => self.appends.partition.cluster.with_compressor(work),
        }
    }

    fn encode_with(
        &self,
        records: &[Record],
        size: BatchSize,
        compressor: &mut Compressor,
    ) -> Result<EncodedBatch, Error> {
        let mut builder = self.builder(compressor, self.capacity(size));
        for record in records {
            let Record { key, value, headers, .. } = record;
            builder.push_shared(record.timestamp_ms(), key.as_deref(), value.as_ref(), headers);
        }
        let batch = self.finish_with(builder, compressor)?;
        self.check_size(batch.size_in_bytes().max(batch.uncompressed_size()), batch.record_count())?;
        Ok(batch)
    }

    /// Returns how many bytes of the batch are likely to be in its buffer.
    fn capacity(&self, size: BatchSize) -> usize {
        match self.appends.settings.encoding.compression {
            Compression::None => size.likely - size.large_values,
            _ => size.likely,
        }
    }

    fn builder(&self, compressor: &mut Compressor, bytes: usize) -> BatchBuilder {
        let Encoding { compression, level } = self.appends.settings.encoding;
        let builder = BatchBuilder::with_capacity_of(compressor, compression, bytes);
        match level {
            Some(level) => builder.level(level),
            None => builder,
        }
    }

    fn finish_with(&self, builder: BatchBuilder, compressor: &mut Compressor) -> Result<EncodedBatch, Error> {
        let batch = builder.finish_with(compressor)?;
        self.appends.partition.cluster.buffers.watch(batch.uncompressed_size());
        Ok(batch)
    }

    fn check_size(&self, size: usize, records: usize) -> Result<(), Error> {
        match size <= self.appends.partition.cluster.config.limits.batch {
            true => Ok(()),
            false => Err(self.batch_too_large(size, records)),
        }
    }

    pub(crate) fn batch_too_large(&self, size: usize, records: usize) -> Error {
        let limit = Some(self.appends.partition.cluster.config.limits.batch);
        self.appends.call().error(ErrorKind::BatchTooLarge { size, records, limit, is_input: false })
    }
}

/// The size of a batch before it is encoded, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BatchSize {
    /// With the smallest possible overhead.
    at_least: usize,
    /// With the usual overhead of a record. A buffer of this size does not grow while such records are
    /// encoded, which would double it.
    likely: usize,
    /// With the largest possible overhead.
    at_most: usize,
    /// The values that an uncompressed batch shares with the caller.
    large_values: usize,
    /// Whether any timestamp is of 1970 or earlier, where the clock of its offset shows so.
    may_be_before_1970: bool,
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
        let (mut payload, mut headers, mut large_values) = (0, 0, 0);
        let mut may_be_before_1970 = false;
        for record in records {
            let value = len(&record.value);
            payload += len(&record.key) + value;
            if BatchBuilder::shares(Compression::None, value) {
                large_values += value;
            }
            may_be_before_1970 |= record.timestamp.year() <= 1970;
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
            large_values,
            may_be_before_1970,
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
