//! The offsets of the log: its begin, its end, the offset at a time.

use super::PartitionClient;
use crate::{
    error::Error,
    log::{ListOffset, OffsetAt},
    request::request,
};

impl PartitionClient {
    /// Looks up an offset.
    pub fn get_offset(&self, at: OffsetAt) -> GetOffset<'_> {
        GetOffset { partition: self, at, deadline: None }
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
    }
}

impl GetOffset<'_> {
    async fn run(self) -> Result<i64, Error> {
        let deadline = self.partition.deadline(self.deadline);
        self.partition.call(&ListOffset { at: self.at }, deadline).await
    }
}
