//! Cutting the beginning off the log.

use kwal_protocol::{
    api::ApiKey,
    error_code::{Effect, ErrorCode},
    messages::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic},
};

use super::PartitionClient;
use crate::{error::Error, speak::Speak};

/// Up to where records are deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeleteBefore {
    /// All before this offset.
    Offset(i64),
    /// All that every in-sync replica has: the log is empty then, but for what is being appended.
    HighWatermark,
}

impl From<i64> for DeleteBefore {
    fn from(offset: i64) -> Self {
        Self::Offset(offset)
    }
}

impl DeleteBefore {
    /// As `DeleteRecordsRequest.json` has it.
    fn offset(self) -> i64 {
        match self {
            Self::Offset(offset) => offset,
            Self::HighWatermark => -1,
        }
    }
}

impl PartitionClient {
    /// Deletes the records before an offset, or all (KIP-107); answers where the log starts now. An offset before the log's
    /// start deletes nothing.
    ///
    /// Records are gone for every reader when this is `Ok`. Their bytes are freed later, whole segments at a time.
    ///
    /// ```no_run
    /// # async fn prune(partition: kwal_client::PartitionClient, applied: i64) -> Result<(), kwal_client::error::Error> {
    /// let start = partition.delete_records(applied).await?;
    /// assert!(start >= applied);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`] beyond the high watermark, with what the log has; [`Error::NotDeletable`] if the topic is
    /// compacted only; [`Error::Broker`] for what else the broker refuses; [`Error::DeadlineExceeded`]. Its
    /// [`Error::outcome`] is `Unknown` if the records may be deleted all the same. It can be called again without harm.
    ///
    /// # Cancellation
    /// Dropped, the records may be deleted or not.
    pub async fn delete_records(&self, before: impl Into<DeleteBefore>) -> Result<i64, Error> {
        let before = before.into();
        if let DeleteBefore::Offset(offset @ ..0) = before {
            return Err(Error::InvalidInput(format!("offset {offset} is negative")));
        }
        let core = &self.core;
        let mut attempts = core.cluster.attempts(ApiKey::DELETE_RECORDS, core.place());
        let mut open = false;
        loop {
            let mut used = 0;
            let error = match attempts.within(self.try_delete(before, attempts.stale(), &mut used)).await {
                Ok(start) => return Ok(start),
                Err(Error::OffsetOutOfRange { offset, at, .. }) => {
                    let log = self.log_range(&attempts).await;
                    Error::OffsetOutOfRange { offset, log, at }
                }
                Err(error) => error,
            };
            let cut = matches!(error, Error::DeadlineExceeded { .. });
            open |= cut || error.effect() == Effect::Unknown;
            if let Err(error) = core.again(&mut attempts, error, used).await {
                let at = || core.place().at(ApiKey::DELETE_RECORDS, None);
                return Err(if open { error.unsettled(at) } else { error });
            }
        }
    }

    async fn try_delete(&self, before: DeleteBefore, stale: u64, used: &mut u64) -> Result<i64, Error> {
        let core = &self.core;
        let leader = core.leader(stale, used).await?;
        let wait = core.cluster.config.deadlines.request * 9 / 10;
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: core.topic.clone(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: core.partition,
                    offset: before.offset(),
                }],
            }],
            timeout_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        };
        let lane = core.cluster.lane(leader.id, ApiKey::DELETE_RECORDS, core.place()).await?;
        let mut response = lane.call(&request, core.place(), DeleteRecordsRequest::OURS, None).await?;
        let at = || core.place().at(ApiKey::DELETE_RECORDS, Some(lane.broker()));
        let answer = response.topics.pop().and_then(|mut topic| topic.partitions.pop());
        let Some(answer) = answer.filter(|answer| answer.partition_index == core.partition) else {
            return Err(Error::NoAnswer { at: at() });
        };
        match answer.error_code {
            ErrorCode::NONE => Ok(answer.low_watermark),
            ErrorCode::OFFSET_OUT_OF_RANGE => {
                Err(Error::OffsetOutOfRange { offset: before.offset(), log: None, at: at() })
            }
            ErrorCode::POLICY_VIOLATION => Err(Error::NotDeletable { at: at() }),
            code => Err(Error::Broker { code, message: None, at: at() }),
        }
    }
}
