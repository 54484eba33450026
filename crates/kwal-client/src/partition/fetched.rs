//! The result of a fetch: batches as they are on the log, and their records on demand.

use std::{fmt, iter::FusedIterator, mem, ops::Range, sync::Arc};

use kwal_protocol::{
    api::ApiKey,
    record::{Batch, BatchError, BatchHeader, OwnedRecord, RecordCursor, RecordView},
    wire::Uuid,
};

use crate::{
    decompressors::{Decompressors, LentDecompressor},
    error::{CallContext, Error, ErrorKind},
    log::{Gap, GapReason, Isolation, Order},
    pool::Broker,
    position::Position,
};

/// The result of one fetch: encoded batches, and the offsets of the log.
///
/// All bytes are slices of the response. A batch, a record view or an [`OwnedRecord`] keeps the whole
/// response in memory; [`OwnedRecord::into_detached`] makes a copy that does not.
///
/// ```no_run
/// # use kwal_client::{PartitionClient, Position, error::Error};
/// # async fn read(partition: PartitionClient, from: Position) -> Result<(), Error> {
/// let fetched = partition.fetch(from).await?;
/// for record in fetched.records() {
///     let record = record?;
///     println!("{}: {:?}", record.offset, record.value);
/// }
/// let _next = fetched.position();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Fetched {
    /// The requested offset.
    pub from: i64,
    /// The offset to continue at: after the last whole batch, or the requested offset if there is none.
    /// Batches without records advance it as well.
    pub next_offset: i64,
    /// The offset after the last record that all in-sync replicas have. Right after an election it may be too
    /// low for a moment: [`get_offset`](crate::PartitionClient::get_offset) reports where the log ends.
    pub high_watermark: i64,
    /// The offset before which no transaction is open; `None` if the broker did not report it.
    pub last_stable_offset: Option<i64>,
    /// The first offset of the log; `None` if the broker did not report it.
    pub log_start_offset: Option<i64>,
    /// The size of the batches on the wire, in bytes, including a last one that was cut off.
    pub wire_bytes: usize,
    pub(super) batches: Vec<Batch>,
    pub(super) gaps: Vec<Gap>,
    /// The leader epoch of the last record before `next_offset`.
    pub(super) leader_epoch: Option<i32>,
    pub(super) source: Arc<Source>,
}

/// Where batches came from, and what it takes to read them. Not the partition itself, which would keep
/// connections open.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) topic: Arc<str>,
    pub(super) topic_id: Option<Uuid>,
    pub(super) partition: i32,
    pub(super) decompressed_limit: usize,
    pub(super) decompressors: Arc<Decompressors>,
    /// The broker that responded, for errors.
    pub(super) broker: Option<Arc<Broker>>,
}

/// Prints offsets and sizes, and no records.
impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("from", &self.from)
            .field("next_offset", &self.next_offset)
            .field("high_watermark", &self.high_watermark)
            .field("last_stable_offset", &self.last_stable_offset)
            .field("log_start_offset", &self.log_start_offset)
            .field("wire_bytes", &self.wire_bytes)
            .field("batches", &self.batches.len())
            .field("gaps", &self.gaps)
            .finish_non_exhaustive()
    }
}

impl Fetched {
    /// Returns where to continue: the [next offset](Self#structfield.next_offset) with topic id and leader
    /// epoch, so that it can be verified when it is used.
    pub fn position(&self) -> Position {
        self.source.position(self.leader_epoch, self.next_offset)
    }

    /// Returns up to where the log can be read, as the response says.
    #[doc(hidden)]
    pub fn readable_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable_offset.unwrap_or(self.high_watermark),
        }
    }

    /// Returns the records from the requested offset on, in offset order. Keys, values and headers are
    /// slices.
    ///
    /// Batches are decompressed one at a time. Control batches (transaction markers) and the records of a
    /// first batch before the requested offset are skipped, and with
    /// [`Isolation::ReadCommitted`] those of aborted transactions.
    ///
    /// # Errors
    /// An item is [`ErrorKind::Corrupt`] for a batch that cannot be decompressed or exceeds
    /// [`Limits::decompressed`](crate::Limits::decompressed), for a malformed record, and for one that is not
    /// in offset order. It is the last one.
    pub fn records(&self) -> FetchedRecords<'_> {
        FetchedRecords { fetched: self, batches: self.batches.iter(), after: 0, records: None }
    }

    /// Calls a function with each record that [`records`](Self::records) returns. Nothing is allocated per
    /// record.
    ///
    /// ```no_run
    /// # async fn read(partition: kwal_client::PartitionClient) -> Result<(), kwal_client::error::Error> {
    /// let fetched = partition.fetch(0).await?;
    /// let mut bytes = 0;
    /// fetched.for_each(|record| bytes += record.value.map_or(0, <[u8]>::len))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`records`](Self::records). Records before the corrupt one have been passed to the function.
    pub fn for_each(&self, mut consume: impl FnMut(RecordView<'_>)) -> Result<(), Error> {
        self.try_for_each(|record| {
            consume(record);
            Ok(())
        })
    }

    /// Calls a fallible function with each record, as [`for_each`](Self::for_each), and stops at its first
    /// error.
    ///
    /// # Errors
    /// That of the function; as [`records`](Self::records) otherwise.
    pub fn try_for_each<E: From<Error>>(
        &self,
        mut consume: impl FnMut(RecordView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut decompressor, mut order) = (self.source.decompressors.lend(), Order::default());
        for batch in self.batches.iter().filter(|batch| has_records(batch)) {
            order.begin(batch);
            self.source.visit(batch, self.from..i64::MAX, &mut order, &mut decompressor, &mut consume)?;
        }
        Ok(())
    }

    /// Returns the whole batches in offset order, with valid checksums. The first one may begin before the
    /// requested offset. Control batches are included, and with
    /// [`Isolation::ReadCommitted`] those of aborted transactions are not.
    ///
    /// They have the producer id and the epoch of their producer. So a reader can check itself that a log
    /// which is written [exclusively](crate::OpenPartition::exclusive) has one writer at a time: after a
    /// barrier, there is no batch of another producer id or of an earlier epoch, except that another barrier
    /// begins the time of the next holder. This is strict: it also reports the rare log on which a
    /// [takeover failed](crate::record::Barrier#fences) after its barrier was appended.
    ///
    /// ```no_run
    /// use kwal_client::{Fetched, record::Barrier};
    ///
    /// /// Checks batches from where the log was read before. `last` is the producer id and the epoch of the
    /// /// last batch, if there was a barrier before it.
    /// fn check(fetched: &Fetched, last: &mut Option<(i64, i16)>) -> Result<(), String> {
    ///     for batch in fetched.batches() {
    ///         let producer = batch.producer_id().zip(batch.producer_epoch());
    ///         let is_barrier = Barrier::in_batch(batch).is_some();
    ///         if let (Some((id, epoch)), false) = (*last, is_barrier) {
    ///             // The holder raises its epoch now and then.
    ///             if !producer.is_some_and(|producer| producer.0 == id && producer.1 >= epoch) {
    ///                 let offset = batch.base_offset();
    ///                 return Err(format!("offset {offset} is of {producer:?} and not of {id}"));
    ///             }
    ///         }
    ///         if last.is_some() || is_barrier {
    ///             *last = producer;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// Returns the batches that have records to read, each for itself.
    pub fn into_batches(self) -> impl ExactSizeIterator<Item = FetchedBatch> + FusedIterator {
        let Self { from, batches, source, .. } = self;
        let batches: Vec<_> = batches.into_iter().filter(has_records).collect();
        let mut after = 0;
        batches.into_iter().map(move |batch| {
            let after = mem::replace(&mut after, batch.next_offset());
            FetchedBatch { batch, from, until: i64::MAX, after, source: Arc::clone(&source) }
        })
    }

    /// Returns the offsets from the requested one to the [next](Self#structfield.next_offset) that have no
    /// records to read, in order, and why. Those that compaction took out of the middle of a batch are not
    /// among them.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Returns the result of a fetch that got nothing because no batch is left up to an offset. Which epoch
    /// the last of them was of is not known.
    pub(super) fn with_hole(mut self, end: i64) -> Self {
        self.gaps.push(Gap { offsets: self.next_offset..end, reason: GapReason::Empty });
        (self.next_offset, self.leader_epoch) = (end, None);
        self
    }

    /// Returns the error of a fetch that moved nothing although the log goes on.
    pub(super) fn stuck(&self, unread: Option<(BatchError, Option<Range<i64>>)>) -> Error {
        match unread {
            Some((error, offsets)) => self.source.corrupt(error, offsets),
            None => self.source.error(ErrorKind::MalformedResponse.into()),
        }
    }
}

/// Whether a batch has records for applications.
fn has_records(batch: &Batch) -> bool {
    // Before magic 2, headers do not count them.
    !batch.is_control() && (batch.magic() != BatchHeader::MAGIC || batch.header().count != 0)
}

impl Source {
    fn position(&self, leader_epoch: Option<i32>, offset: i64) -> Position {
        Position { topic_id: self.topic_id, leader_epoch, offset }
    }

    /// Calls a function with the records of a batch at some offsets.
    fn visit<E: From<Error>>(
        &self,
        batch: &Batch,
        offsets_due: Range<i64>,
        order: &mut Order,
        decompressor: &mut LentDecompressor,
        consume: &mut impl FnMut(RecordView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let records = match batch.records_with(decompressor, self.decompressed_limit) {
            Ok(records) => records,
            Err(error) => return Err(self.corrupt_batch(batch, error).into()),
        };
        for record in &records {
            let record = match record {
                Ok(record) => record,
                Err(error) => return Err(self.corrupt_batch(batch, error).into()),
            };
            if let Err(error) = order.check(record.offset) {
                return Err(self.corrupt_batch(batch, error).into());
            }
            if record.offset >= offsets_due.end {
                break;
            }
            if record.offset >= offsets_due.start {
                consume(record)?;
            }
        }
        Ok(())
    }

    #[cold]
    fn corrupt_batch(&self, batch: &Batch, error: BatchError) -> Error {
        self.corrupt(error, offsets(batch))
    }

    fn corrupt(&self, error: BatchError, offsets: Option<Range<i64>>) -> Error {
        self.error(Error::corrupt(error, offsets))
    }

    fn error(&self, error: Error) -> Error {
        let call = CallContext::partition(ApiKey::FETCH, &self.topic, self.partition);
        error.with_context(match &self.broker {
            Some(broker) => call.at_broker(broker),
            None => call.context(),
        })
    }
}

/// Returns the offsets that a batch covers, as far as its header has them.
fn offsets(batch: &Batch) -> Option<Range<i64>> {
    (batch.magic() == BatchHeader::MAGIC).then(|| batch.base_offset()..batch.next_offset())
}

/// One batch of a fetch, with records to read.
///
/// It keeps the whole response in memory, as its records do: copy what is kept for long by
/// [`OwnedRecord::into_detached`].
#[derive(Clone)]
pub struct FetchedBatch {
    batch: Batch,
    /// Records before it were not asked for.
    from: i64,
    /// Those from this offset on are left out.
    until: i64,
    /// Where the batch before it in the response ends.
    after: i64,
    source: Arc<Source>,
}

impl FetchedBatch {
    /// Returns the batch as it is on the log, with producer id, epoch and timestamps. It may begin before the
    /// requested offset.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Returns the offsets that it covers, from the requested one on.
    pub fn offsets(&self) -> Range<i64> {
        let first =
            if self.batch.magic() == BatchHeader::MAGIC { self.batch.base_offset() } else { self.from };
        first.max(self.from)..self.end()
    }

    fn end(&self) -> i64 {
        self.batch.next_offset().min(self.until)
    }

    /// Whether records may be left out at its end. Before magic 2, the header does not exclude it.
    fn is_cut(&self) -> bool {
        self.until < self.batch.next_offset() || self.batch.magic() != BatchHeader::MAGIC
    }

    /// Returns the epoch of the leader that appended it; `None` before magic 2.
    pub fn leader_epoch(&self) -> Option<i32> {
        let epoch = self.batch.header().partition_leader_epoch;
        (epoch >= 0).then_some(epoch)
    }

    /// Returns where reading goes on after it.
    pub fn position(&self) -> Position {
        self.source.position(self.leader_epoch(), self.end())
    }

    /// Returns where reading goes on after its record at an offset.
    pub fn position_after(&self, offset: i64) -> Position {
        self.source.position(self.leader_epoch(), offset.saturating_add(1))
    }

    /// Returns the same batch without the records before an offset.
    #[must_use]
    pub fn starting_at(mut self, offset: i64) -> Self {
        self.from = self.from.max(offset);
        self
    }

    /// Returns the same batch without the records from an offset on.
    #[must_use]
    pub fn ending_at(mut self, offset: i64) -> Self {
        self.until = self.until.min(offset);
        self
    }

    /// Returns its records from the requested offset on, in offset order. Keys, values and headers are slices
    /// of the response, or of the one buffer into which the batch is decompressed.
    ///
    /// # Errors
    /// As [`Fetched::records`].
    pub fn records(&self) -> BatchRecords {
        BatchRecords::new(self.clone())
    }

    /// Calls a function with each record. Nothing is allocated per record.
    ///
    /// # Errors
    /// As [`Fetched::records`]. Records before the corrupt one have been passed to the function.
    pub fn for_each(&self, mut consume: impl FnMut(RecordView<'_>)) -> Result<(), Error> {
        self.try_for_each(|record| {
            consume(record);
            Ok(())
        })
    }

    /// Calls a fallible function with each record, and stops at its first error.
    ///
    /// # Errors
    /// That of the function; as [`Fetched::records`] otherwise.
    pub fn try_for_each<E: From<Error>>(
        &self,
        mut consume: impl FnMut(RecordView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut decompressor = self.source.decompressors.lend();
        let due = self.from..self.until;
        self.source.visit(&self.batch, due, &mut self.order(), &mut decompressor, &mut consume)
    }

    fn order(&self) -> Order {
        let mut order = Order::after(self.after);
        order.begin(&self.batch);
        order
    }
}

/// Prints offsets and size, and no records.
impl fmt::Debug for FetchedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchedBatch")
            .field("offsets", &self.offsets())
            .field("size_in_bytes", &self.batch.size_in_bytes())
            .finish_non_exhaustive()
    }
}

/// The iterator of [`FetchedBatch::records`]: the owned records of one batch. It ends after an error.
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct BatchRecords {
    batch: FetchedBatch,
    is_cut: bool,
    order: Order,
    state: BatchState,
}

/// How far the records of a batch have been returned.
enum BatchState {
    /// Not decompressed yet.
    Whole,
    Decoding(RecordCursor),
    Done,
}

impl BatchRecords {
    fn new(batch: FetchedBatch) -> Self {
        let (is_cut, order) = (batch.is_cut(), batch.order());
        Self { batch, is_cut, order, state: BatchState::Whole }
    }

    /// Whether the last record has been returned, and no error is left either. Before the first one this is
    /// not known yet, and false.
    #[inline]
    pub fn is_at_end(&self) -> bool {
        match &self.state {
            BatchState::Whole => false,
            BatchState::Decoding(cursor) if self.is_cut => self.ends_at_cut(cursor),
            BatchState::Decoding(cursor) => cursor.is_at_end(),
            BatchState::Done => true,
        }
    }

    #[cold]
    fn ends_at_cut(&self, cursor: &RecordCursor) -> bool {
        match cursor.peek() {
            Some(Ok(next)) => {
                next.offset >= self.batch.until && self.order.clone().check(next.offset).is_ok()
            }
            Some(Err(_)) => false,
            None => true,
        }
    }

    /// Decompresses the batch, and returns its first record.
    #[cold]
    fn begin(&mut self) -> Option<Result<OwnedRecord, Error>> {
        if matches!(self.state, BatchState::Done) {
            return None;
        }
        let FetchedBatch { batch, source, .. } = &self.batch;
        let records = batch.records_with(&mut source.decompressors.lend(), source.decompressed_limit);
        match records {
            Ok(records) => self.state = BatchState::Decoding(RecordCursor::new(records)),
            Err(error) => return Some(Err(self.fail(error))),
        }
        self.next()
    }

    #[cold]
    fn fail(&mut self, error: BatchError) -> Error {
        self.state = BatchState::Done;
        let FetchedBatch { batch, source, .. } = &self.batch;
        source.corrupt_batch(batch, error)
    }
}

impl Iterator for BatchRecords {
    type Item = Result<OwnedRecord, Error>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let BatchState::Decoding(cursor) = &mut self.state else { return self.begin() };
        let error = loop {
            let (record, bytes) = match cursor.advance() {
                Some(Ok(next)) => next,
                Some(Err(error)) => break error,
                None => {
                    self.state = BatchState::Done;
                    return None;
                }
            };
            if let Err(error) = self.order.check(record.offset) {
                break error;
            }
            if record.offset >= self.batch.until {
                self.state = BatchState::Done;
                return None;
            }
            if record.offset >= self.batch.from {
                return Some(Ok(record.to_slices(bytes)));
            }
        };
        Some(Err(self.fail(error)))
    }
}

impl FusedIterator for BatchRecords {}

/// Prints the batch, and no records.
impl fmt::Debug for BatchRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchRecords").field("batch", &self.batch).finish_non_exhaustive()
    }
}

/// The iterator of [`Fetched::records`].
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct FetchedRecords<'a> {
    fetched: &'a Fetched,
    batches: std::slice::Iter<'a, Batch>,
    /// Where the batch before the next one ends.
    after: i64,
    /// Those of the current batch.
    records: Option<BatchRecords>,
}

impl Iterator for FetchedRecords<'_> {
    type Item = Result<OwnedRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(records) = &mut self.records
                && let Some(next) = records.next()
            {
                if next.is_err() {
                    // What comes after a corrupt batch would leave a hole.
                    self.batches = [].iter();
                }
                return Some(next);
            }
            let batch = self.batches.by_ref().find(|batch| has_records(batch))?.clone();
            let Fetched { from, source, .. } = self.fetched;
            let after = mem::replace(&mut self.after, batch.next_offset());
            let batch =
                FetchedBatch { batch, from: *from, until: i64::MAX, after, source: Arc::clone(source) };
            self.records = Some(BatchRecords::new(batch));
        }
    }
}

impl FusedIterator for FetchedRecords<'_> {}

impl fmt::Debug for FetchedRecords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchedRecords").field("fetched", &self.fetched).finish_non_exhaustive()
    }
}
