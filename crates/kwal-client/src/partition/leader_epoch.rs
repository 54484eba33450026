//! Where the records of a leader epoch end.

use kwal_protocol::api::ApiKey;
use tracing::Span;

use super::PartitionClient;
use crate::{
    error::Error,
    log::{EpochEnd, EpochEndOffset},
    request::{call_span, request},
};

impl PartitionClient {
    /// Asks the leader where the records of a leader epoch end in its log (KIP-101, KIP-320). `None` if it
    /// does not know the epoch because it is newer than its own.
    ///
    /// A reader that has read up to some offset in some epoch, and gets an older epoch or a lower offset, has
    /// read records that are no longer in the log from there on: an unclean election lost them. The reverse
    /// proves nothing about a single record.
    pub fn offset_for_leader_epoch(&self, leader_epoch: i32) -> OffsetForLeaderEpoch<'_> {
        OffsetForLeaderEpoch { partition: self, leader_epoch, deadline: None }
    }
}

request! {
    /// A lookup of where a leader epoch ends. Nothing happens until it is awaited.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for a negative epoch;
    /// [`ErrorKind::Unsupported`](crate::error::ErrorKind::Unsupported) for a broker before Kafka 2.1; those
    /// of every read.
    ///
    /// # Cancellation safety
    /// Cancel safe.
    pub struct OffsetForLeaderEpoch<'a> -> Result<Option<EpochEndOffset>, Error> {
        partition: &'a PartitionClient,
        leader_epoch: i32,
    }
}

impl OffsetForLeaderEpoch<'_> {
    fn span(&self) -> Span {
        call_span!("offset_for_leader_epoch", self.partition.topic(), self.partition.partition())
    }

    async fn run(self) -> Result<Option<EpochEndOffset>, Error> {
        if self.leader_epoch < 0 {
            let call = self.partition.partition.call(ApiKey::OFFSET_FOR_LEADER_EPOCH);
            return Err(call.invalid_input(format!("leader epoch {} is negative", self.leader_epoch)));
        }
        let deadline = self.partition.deadline(self.deadline);
        self.partition.call(&EpochEnd { leader_epoch: self.leader_epoch }, deadline).await
    }
}
