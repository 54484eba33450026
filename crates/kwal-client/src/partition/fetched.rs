//! The result of a fetch: batches as they are on the log, and their records on demand.

use std::{fmt, sync::Arc};

use kwal_protocol::{
    api::ApiKey,
    compression::Decompressor,
    record::{Batch, BatchError, OwnedRecord, OwnedRecords, RecordView},
};

use crate::{
    error::{CallContext, Error, ErrorKind},
    log::Order,
    pool::Broker,
};

/// The result of one fetch: encoded batches, and the offsets of the log.
///
/// All bytes are slices of the response. A batch, a record view or an [`OwnedRecord`] keeps the whole
/// response in memory; [`OwnedRecord::into_detached`] makes a copy that does not.
///
/// ```no_run
/// # use kwal_client::{PartitionClient, error::Error};
/// # async fn read(partition: PartitionClient, from: i64) -> Result<(), Error> {
/// let fetched = partition.fetch(from).await?;
/// for record in fetched.records() {
///     let record = record?;
///     println!("{}: {:?}", record.offset, record.value);
/// }
/// let _next = fetched.next_offset;
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
    // Not the partition itself, which would keep connections open.
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) decompressed_limit: usize,
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
            .finish_non_exhaustive()
    }
}

impl Fetched {
    /// Returns the records from the requested offset on, in offset order. Keys, values and headers are
    /// slices.
    ///
    /// Batches are decompressed one at a time. Control batches (transaction markers) and the records of a
    /// first batch before the requested offset are skipped.
    ///
    /// # Errors
    /// An item is [`ErrorKind::Corrupt`] for a batch that cannot be decompressed or exceeds
    /// [`Limits::decompressed`](crate::Limits::decompressed), for a malformed record, and for one that is not
    /// in offset order. It is the last one.
    pub fn records(&self) -> FetchedRecords<'_> {
        FetchedRecords {
            fetched: self,
            batches: self.batches.iter(),
            records: None,
            order: Order::default(),
            decompressor: Decompressor::new(),
        }
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
        let (mut decompressor, mut order) = (Decompressor::new(), Order::default());
        for batch in self.batches.iter().filter(|batch| !batch.is_control()) {
            order.begin(batch);
            let records = batch.records_with(&mut decompressor, self.decompressed_limit);
            for record in &records.map_err(|error| self.corrupt(error))? {
                let record = record.map_err(|error| self.corrupt(error))?;
                order.check(record.offset).map_err(|error| self.corrupt(error))?;
                if record.offset >= self.from {
                    consume(record)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the whole batches in offset order, with valid checksums. The first one may begin before the
    /// requested offset. Control batches are included.
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

    /// Returns the error of a fetch that moved nothing although the log goes on.
    pub(super) fn stuck(&self, unread: Option<BatchError>) -> Error {
        match unread {
            Some(error) => self.corrupt(error),
            None => self.error(ErrorKind::MalformedResponse.into()),
        }
    }

    fn corrupt(&self, error: BatchError) -> Error {
        self.error(error.into())
    }

    fn error(&self, error: Error) -> Error {
        let call = CallContext::partition(ApiKey::FETCH, &self.topic, self.partition);
        error.with_context(match &self.broker {
            Some(broker) => call.at_broker(broker),
            None => call.context(),
        })
    }
}

/// The iterator of [`Fetched::records`].
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct FetchedRecords<'a> {
    fetched: &'a Fetched,
    batches: std::slice::Iter<'a, Batch>,
    /// Those of the current batch.
    records: Option<OwnedRecords>,
    order: Order,
    decompressor: Decompressor,
}

impl FetchedRecords<'_> {
    fn next_record(&mut self) -> Result<Option<OwnedRecord>, BatchError> {
        loop {
            while let Some(record) = self.records.as_mut().and_then(Iterator::next) {
                let record = record?;
                self.order.check(record.offset)?;
                if record.offset >= self.fetched.from {
                    return Ok(Some(record));
                }
            }
            self.records = None;
            let Some(batch) = self.batches.by_ref().find(|batch| !batch.is_control()) else {
                return Ok(None);
            };
            self.order.begin(batch);
            let records = batch.records_with(&mut self.decompressor, self.fetched.decompressed_limit)?;
            self.records = Some(records.into_iter());
        }
    }
}

impl Iterator for FetchedRecords<'_> {
    type Item = Result<OwnedRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_record() {
            Ok(record) => record.map(Ok),
            Err(error) => {
                // What comes after a corrupt batch would leave a hole.
                (self.batches, self.records) = ([].iter(), None);
                Some(Err(self.fetched.corrupt(error)))
            }
        }
    }
}

impl std::iter::FusedIterator for FetchedRecords<'_> {}

impl fmt::Debug for FetchedRecords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchedRecords").field("fetched", &self.fetched).finish_non_exhaustive()
    }
}
