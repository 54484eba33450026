//! Appending.

use std::{ops::Range, sync::Arc};

use kwal_protocol::{
    api::ApiKey,
    record::{BatchBuilder, EncodedBatch},
};
use tokio::{
    sync::oneshot,
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
    /// How many attempts it took.
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
    /// Batches lie there in the order in which they were submitted: the place is fixed once there is room for the batch
    /// ([`Limits::appends`](crate::Limits::appends)), and one batch of a partition is sent after the other.
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
        let mut builder = BatchBuilder::with_capacity(self.compression, size);
        for record in records {
            builder.push(
                record.timestamp_ms(),
                record.key.as_deref(),
                record.value.as_deref(),
                &record.headers,
            );
        }
        let batch = builder.finish().map_err(Error::Encode)?;
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
        let cluster = &self.core.cluster;
        let after = cluster.config.deadlines.operation;
        let deadline = Instant::now() + after;
        let at = || self.core.place().at(ApiKey::PRODUCE, None);
        let room = async {
            let memory = cluster.reserve(batch.size_in_bytes()).await;
            let place = Arc::clone(&self.queue.room).acquire_owned().await;
            place.map(|place| [memory, place])
        };
        let room = match timeout_at(deadline, room).await {
            Ok(Ok(room)) => room,
            Ok(Err(_)) => return Err(Error::Closed { at: at() }),
            Err(_) => return Err(Error::DeadlineExceeded { after, at: at(), last: None }),
        };
        let (reply, done) = oneshot::channel();
        if !self.queue.submit(Job { batch, deadline, reply, _room: room }) {
            return Err(Error::Closed { at: at() });
        }
        // The writer keeps the deadline.
        done.await.unwrap_or_else(|_| {
            let mut at = at();
            at.outcome = Outcome::Unknown;
            Err(Error::Closed { at })
        })
    }
}
