//! The offsets of the log: its begin, its end, the offset at a time.

use tracing::Span;

use super::PartitionClient;
use crate::{
    error::Error,
    log::{Isolation, ListOffset, OffsetAt},
    request::{call_span, request},
};

impl PartitionClient {
    /// Looks up an offset.
    pub fn get_offset(&self, at: OffsetAt) -> GetOffset<'_> {
        GetOffset { partition: self, at, isolation: Isolation::default(), deadline: None }
    }
}

request! {
    /// A lookup of an offset. Nothing happens until it is awaited.
    ///
    /// # Errors
    /// [`ErrorKind::OffsetNotFound`](crate::error::ErrorKind::OffsetNotFound) if no record has such a
    /// timestamp; [`ErrorKind::Unsupported`](crate::error::ErrorKind::Unsupported) for
    /// [`OffsetAt::MaxTimestamp`] and a broker before Kafka 3.0; those of every read.
    ///
    /// # Cancellation safety
    /// Cancel safe.
    pub struct GetOffset<'a> -> Result<i64, Error> {
        partition: &'a PartitionClient,
        at: OffsetAt,
        isolation: Isolation,
    }
}

impl GetOffset<'_> {
    /// Sets which records of transactions count. Default: all of them. With
    /// [`Isolation::ReadCommitted`], the log ends at the last stable offset, and what lies beyond it is not
    /// found by its time either.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    fn span(&self) -> Span {
        call_span!("get_offset", self.partition.topic(), self.partition.partition())
    }

    async fn run(self) -> Result<i64, Error> {
        let deadline = self.partition.deadline(self.deadline);
        self.partition.call(&ListOffset { at: self.at, isolation: self.isolation }, deadline).await
    }
}
