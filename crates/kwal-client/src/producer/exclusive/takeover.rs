//! Takes over a log.

use std::{ops::Range, sync::Arc};

use kwal_protocol::{
    api::ApiKey,
    compression::CompressionError,
    error_code::ErrorCode,
    record::{Batch, BatchBuilder, BatchError, BatchErrorKind, BatchHeader, Compression, EncodedBatch},
};
use tokio::time::Instant;

use super::{
    super::{
        Produced,
        append::Append,
        fence,
        init::NextEpoch,
        lookup::{find, find_batch},
        settings::Acks,
    },
    Exclusive, Hold,
    holders::Holders,
    next_epoch,
};
use crate::{
    error::{CallContext, Context, Error, ErrorKind, Outcome, Progress, Source},
    log,
    pool::Purpose,
    producer_id::{Acknowledged, Identity, ProducerState, Stamp},
    record::Barrier,
    routing::{self, Deadline, Partition, Retry, Target},
};

/// The topic in which coordinators keep what they know.
const TRANSACTION_LOG: &str = "__transaction_state";
/// How many offsets before the end of the log are searched first for the last barrier.
const FIRST_WINDOW: i64 = 1_000;
/// By how much each further part is larger than the one after it.
const GROWTH: i64 = 4;

/// Takes over the log of a partition: from the barrier on, no earlier holder of the name can append.
///
/// # Errors
/// With [`Outcome::Unknown`], the earlier holder may be fenced already.
pub(crate) async fn take_over(
    partition: &Partition,
    exclusive: &Exclusive,
    deadline: Deadline,
) -> Result<Hold, Error> {
    let Exclusive { name, probe, .. } = exclusive;
    let transactional_id = Hold::transactional_id(partition, name);
    let takeover = Takeover { partition, name, transactional_id: &transactional_id, deadline };
    let held = takeover.run().await.map_err(|error| takeover.failed(error))?;
    let Held { start, barrier, confirmed_at } = held;
    Ok(Hold { name: name.clone(), transactional_id, barrier, start, confirmed_at, probe: *probe })
}

struct Takeover<'a> {
    partition: &'a Partition,
    name: &'a str,
    transactional_id: &'a str,
    deadline: Deadline,
}

/// A log that was taken over.
struct Held {
    start: ProducerState,
    /// The offset of the barrier.
    barrier: i64,
    /// When the barrier was sent. It may have waited here for long since it was read back, if the process was
    /// stopped.
    confirmed_at: Instant,
}

/// What the log says about earlier holders.
#[derive(Debug)]
struct Searched {
    /// The offsets that were searched.
    range: Range<i64>,
    /// Other producer ids of the name that nothing on the log keeps away for certain.
    previous: Vec<i64>,
}

/// What was read back.
#[derive(Debug)]
enum ReadBack {
    Held,
    /// The batch at the offset is of somebody else.
    Taken,
    /// Another holder took over in between.
    Overtaken,
    /// The log does not have it any more, or lost what was searched.
    Gone,
}

impl Takeover<'_> {
    async fn run(&self) -> Result<Held, Error> {
        loop {
            let mut identity = self.next_epoch(None).await?;
            let searched = self.search(identity.id).await?;
            if !searched.previous.is_empty() {
                // The coordinator may have forgotten the name meanwhile and given out one of these ids. If
                // that one were fenced for good, nobody could take over any more.
                let renewed = self.next_epoch(Some(identity)).await?;
                // The search took the id before for the own one, and an earlier holder may have it.
                if renewed.id != identity.id {
                    continue;
                }
                identity = renewed;
            }
            let barrier = self.barrier(identity);
            let batch = self.encode(&barrier)?;
            for previous in &searched.previous {
                fence::append(self.partition, *previous, &batch, searched.range.start, self.deadline).await?;
            }
            let confirmed_at = Instant::now();
            let offset = self.append(&batch, identity, &searched).await?;
            let error = match self.read_back(&barrier, searched.range.end, offset).await? {
                ReadBack::Held => {
                    let stamp = Stamp { identity, sequence: 0 };
                    let acknowledged = Acknowledged { stamp, base_offset: Some(offset), records: 1 };
                    let last_acknowledged = Some(acknowledged);
                    let start = ProducerState { identity, next_sequence: 1, last_acknowledged };
                    return Ok(Held { start, barrier: offset, confirmed_at });
                }
                ReadBack::Gone => continue,
                ReadBack::Taken => self.epoch_taken(identity, Some(offset)),
                ReadBack::Overtaken => self.overtaken(self.call().context()),
            };
            return Err(error);
        }
    }

    /// Gets the next epoch of the name. It fences nobody yet: partitions do not know of it. With the one that
    /// is `held`, it fails if there is another holder by now.
    async fn next_epoch(&self, held: Option<Identity>) -> Result<Identity, Error> {
        let Self { partition, transactional_id, deadline, .. } = *self;
        let operation = NextEpoch { transactional_id, held };
        let mut retry = Retry::new(&partition.cluster, self.call(), deadline);
        let mut unavailable_since = None;
        loop {
            let error = match retry.run(next_epoch(partition, &operation, retry.tracker())).await {
                Ok(identity) => return Ok(identity),
                Err(error) => error,
            };
            match error.code() {
                Some(ErrorCode::COORDINATOR_NOT_AVAILABLE) => {
                    let since = *unavailable_since.get_or_insert_with(Instant::now);
                    let patience = partition.cluster.config.deadlines.unknown_topic;
                    if since.elapsed() >= patience && self.has_no_transaction_log().await {
                        let brokers = partition.cluster.metadata.snapshot().brokers.len();
                        return Err(self.call().error(ErrorKind::NoTransactionLog { brokers }));
                    }
                }
                _ => unavailable_since = None,
            }
            retry.pause(error, 0).await?;
        }
    }

    /// Whether brokers say that they have no transaction log. The first look for a coordinator creates it.
    async fn has_no_transaction_log(&self) -> bool {
        let call = CallContext::topic(ApiKey::METADATA, TRANSACTION_LOG);
        let topic = self.partition.cluster.metadata.topic(call, 0);
        let found = tokio::time::timeout_at(self.deadline.at, topic).await;
        let code = found.ok().and_then(|found| found.err()).and_then(|error| error.code());
        code == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// Searches the log backward for the producer ids of earlier holders.
    async fn search(&self, id: i64) -> Result<Searched, Error> {
        let Self { partition, deadline, .. } = *self;
        loop {
            let log = log::range(partition, deadline).await?;
            let (mut end, mut window, mut holders) = (log.end, FIRST_WINDOW, Holders::new(id));
            loop {
                let start = end.saturating_sub(window).max(log.start);
                match self.search_part(&mut holders, start..end).await {
                    // The start of the log has moved, as with retention. The rest is searched again.
                    Err(error) if is_out_of_range(&error) => break,
                    Err(error) => return Err(error),
                    Ok(()) if start > log.start && !holders.are_certain() => {
                        (end, window) = (start, window.saturating_mul(GROWTH));
                    }
                    Ok(()) => {
                        return Ok(Searched { range: start..log.end, previous: holders.previous() });
                    }
                }
            }
            log::pause(partition, deadline).await;
            if Instant::now() >= deadline.at {
                return Err(self.deadline_exceeded());
            }
        }
    }

    /// Searches a part of the log that lies before those that were searched.
    async fn search_part(&self, holders: &mut Holders, range: Range<i64>) -> Result<(), Error> {
        let note = |batch: &Batch| {
            let BatchHeader { producer_id, producer_epoch, .. } = *batch.header();
            match self.barrier_in(batch)? {
                Some(_) => holders.note_barrier(producer_id),
                // Holders append neither control batches nor fences, which resolve appends of earlier ones.
                None if batch.is_control() || producer_epoch == Identity::FENCE_EPOCH => {}
                None => holders.note_append(producer_id),
            }
            Ok(false)
        };
        find_batch(self.partition, note, range, self.deadline).await?;
        holders.end_part();
        Ok(())
    }

    fn barrier(&self, identity: Identity) -> Barrier {
        let mark = self.partition.cluster.random.id();
        Barrier { name: self.name.to_owned(), producer_id: identity.id, epoch: identity.epoch, mark }
    }

    /// Encodes a barrier as a batch. It is not compressed, so that every reader can read it.
    fn encode(&self, barrier: &Barrier) -> Result<EncodedBatch, Error> {
        let record = barrier.to_record(self.transactional_id);
        let mut builder = BatchBuilder::new(Compression::None);
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.push(record.timestamp_ms(), key, value, &record.headers);
        Ok(builder.finish()?)
    }

    /// Appends the barrier as the first batch of an epoch. Returns its offset.
    async fn append(
        &self,
        batch: &EncodedBatch,
        identity: Identity,
        searched: &Searched,
    ) -> Result<i64, Error> {
        let Self { partition, deadline, .. } = *self;
        let stamp = Stamp { identity, sequence: 0 };
        let batch = batch.stamp(identity.id, identity.epoch, stamp.sequence);
        // An acknowledgement without an offset may be of an attempt before.
        let append = Append { batch, in_doubt: true, acks: Acks::All };
        let target = Target::Leader(partition, Purpose::Produce);
        let call = partition.call(ApiKey::PRODUCE);
        loop {
            match routing::call(&partition.cluster, target, call, &append, deadline).await {
                Ok(Produced { base_offset: Some(offset), .. }) => return Ok(offset),
                Ok(_) => {}
                Err(failed)
                    if failed.has_code(ErrorCode::INVALID_PRODUCER_EPOCH)
                        || failed.has_code(ErrorCode::PRODUCER_FENCED) =>
                {
                    return Err(self.overtaken(failed.error.context().clone()));
                }
                // Somebody has gone on under the epoch already.
                Err(failed) if failed.has_code(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER) => {
                    return Err(self.epoch_taken(identity, None));
                }
                Err(failed) => return Err(failed.into()),
            }
            // Brokers need not report where it is.
            let range = searched.range.end..log::end_offset(partition, deadline).await?;
            if let Some(offset) = find(partition, stamp, 1, range, deadline).await? {
                return Ok(offset);
            }
            log::pause(partition, deadline).await;
        }
    }

    /// Reads the log from where it was searched to the offset at which the barrier was acknowledged. Brokers
    /// answer a batch of another producer with the same id, epoch and sequence number in the same way.
    async fn read_back(&self, barrier: &Barrier, searched: i64, offset: i64) -> Result<ReadBack, Error> {
        let (mut is_held, mut is_overtaken) = (false, false);
        let note = |batch: &Batch| {
            let BatchHeader { producer_id, producer_epoch, .. } = *batch.header();
            match self.barrier_in(batch)? {
                Some(found) if found == *barrier => is_held |= batch.base_offset() == offset,
                Some(_) if producer_epoch == Identity::FENCE_EPOCH => {}
                Some(_) => is_overtaken |= producer_id != barrier.producer_id,
                None => {}
            }
            Ok(false)
        };
        let range = searched.min(offset)..offset.saturating_add(1);
        match find_batch(self.partition, note, range, self.deadline).await {
            // Below where the search ended: an unclean election has taken away what was searched, or it is
            // not of this attempt.
            Ok(_) if offset < searched && is_held => Ok(ReadBack::Gone),
            Err(error) if offset < searched && is_out_of_range(&error) => Ok(ReadBack::Taken),
            Err(error) if is_out_of_range(&error) => Ok(ReadBack::Gone),
            Err(error) => Err(error),
            Ok(_) if is_overtaken => Ok(ReadBack::Overtaken),
            Ok(_) if is_held => Ok(ReadBack::Held),
            Ok(_) => Ok(ReadBack::Taken),
        }
    }

    /// Returns the barrier of the name that a batch is, or by which it fences another producer id.
    ///
    /// A copy of one, as a mirror makes, has neither the producer id and epoch that it names nor the last
    /// epoch.
    fn barrier_in(&self, batch: &Batch) -> Result<Option<Barrier>, Error> {
        let header = batch.header();
        if header.magic != BatchHeader::MAGIC
            || header.count != 1
            || batch.is_control()
            || batch.size_in_bytes() > Barrier::MAX_LEN
        {
            return Ok(None);
        }
        let at = |source| Error::from(source).with_context(self.partition.call(ApiKey::FETCH).context());
        let records = match batch.records(Barrier::MAX_LEN) {
            Err(error) if is_too_large(&error) => return Ok(None),
            records => records.map_err(at)?,
        };
        let Some(record) = records.iter().next() else { return Ok(None) };
        let record = record.map_err(at)?;
        // The key has the name.
        let barrier =
            Barrier::parse(&record).filter(|_| record.key == Some(self.transactional_id.as_bytes()));
        let is_own = |barrier: &Barrier| {
            (header.producer_id, header.producer_epoch) == (barrier.producer_id, barrier.epoch)
        };
        Ok(barrier.filter(|barrier| header.producer_epoch == Identity::FENCE_EPOCH || is_own(barrier)))
    }

    /// The error of a takeover that another one of the name got ahead of.
    fn overtaken(&self, context: Context) -> Error {
        let transactional_id = Some(self.transactional_id.to_owned());
        let why = "another process opened it by the same name at the same time";
        let error = Error::new(ErrorKind::Fenced).with_context(Context { transactional_id, ..context });
        error.with_source(Source::Other(Arc::from(Box::from(why))))
    }

    fn epoch_taken(&self, identity: Identity, offset: Option<i64>) -> Error {
        let Identity { id: producer_id, epoch } = identity;
        self.call().error(ErrorKind::EpochTaken { producer_id, epoch, offset })
    }

    /// Makes the error of a step that of the takeover. The caller has no batch in doubt, whatever became of
    /// the barrier.
    fn failed(&self, error: Error) -> Error {
        let is_step = error.context().api != Some(ApiKey::INIT_PRODUCER_ID);
        let outcome = error.outcome();
        match error.kind() {
            ErrorKind::DeadlineExceeded { .. } if is_step => {
                let source = Source::Call(Arc::new(error.with_outcome(Outcome::NotApplied)));
                self.deadline_exceeded().with_source(source).with_outcome(outcome)
            }
            _ if is_step && outcome == Outcome::Unknown => {
                let context = Context { api: Some(ApiKey::INIT_PRODUCER_ID), ..error.context().clone() };
                error.with_context(context)
            }
            _ => error,
        }
    }

    fn deadline_exceeded(&self) -> Error {
        let (after, progress) = (self.deadline.after, Progress::Takeover);
        self.call().error(ErrorKind::DeadlineExceeded { after, progress })
    }

    fn call(&self) -> CallContext<'_> {
        self.partition.call(ApiKey::INIT_PRODUCER_ID).with_transactional_id(self.transactional_id)
    }
}

/// Whether a batch has more than can be a barrier.
fn is_too_large(error: &BatchError) -> bool {
    matches!(error.kind, BatchErrorKind::Compression(CompressionError::TooLarge { .. }))
}

fn is_out_of_range(error: &Error) -> bool {
    error.kind().is_out_of_range()
}
