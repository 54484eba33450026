//! Asking for offsets.

use std::ops::Range;

use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic},
};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::PartitionClient;
use crate::{attempts::Attempts, error::Error, speak::Speak};

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OffsetAt {
    /// The first offset of the log; the end of the log if it is empty.
    Earliest,
    /// The offset behind the last record that all in-sync replicas have: the next one to be written, when nothing is under
    /// way. The leader withholds the answer until it is sure (KIP-207).
    Latest,
    /// The first record with this timestamp or a later one.
    Timestamp(OffsetDateTime),
    /// The record with the largest timestamp (KIP-734; Kafka 3.0).
    MaxTimestamp,
}

impl OffsetAt {
    /// As `ListOffsetsRequest.json` has it.
    fn timestamp(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            // Rounded up: a record of the millisecond before is earlier.
            Self::Timestamp(at) => {
                let ms = -(-at.unix_timestamp_nanos()).div_euclid(1_000_000);
                i64::try_from(ms.max(0)).unwrap_or(i64::MAX)
            }
        }
    }
}

impl PartitionClient {
    /// Looks an offset up.
    ///
    /// # Errors
    /// [`Error::OffsetNotFound`] if no record has such a timestamp; [`Error::Unsupported`] for
    /// [`OffsetAt::MaxTimestamp`] of a broker before 3.0; [`Error::DeadlineExceeded`].
    ///
    /// # Cancellation
    /// Nothing is lost by dropping it.
    pub async fn get_offset(&self, at: OffsetAt) -> Result<i64, Error> {
        let core = &self.core;
        let mut attempts = core.cluster.attempts(ApiKey::LIST_OFFSETS, core.place());
        loop {
            let mut used = 0;
            match attempts.within(self.try_offset(at, attempts.stale(), &mut used)).await {
                Ok(offset) => return Ok(offset),
                Err(error) => core.again(&mut attempts, error, used).await?,
            }
        }
    }

    /// The first offset of the log and the one behind its last record, if they can be had within the time of a request: for an
    /// error that is certain without them.
    pub(super) async fn log_range(&self, attempts: &Attempts<'_>) -> Option<Range<i64>> {
        let range = async {
            let start = self.get_offset(OffsetAt::Earliest).await?;
            let end = self.get_offset(OffsetAt::Latest).await?;
            Ok::<_, Error>(start..end)
        };
        timeout(self.core.cluster.config.deadlines.request, attempts.within(range)).await.ok()?.ok()
    }

    async fn try_offset(&self, asked: OffsetAt, stale: u64, used: &mut u64) -> Result<i64, Error> {
        let core = &self.core;
        let leader = core.leader(stale, used).await?;
        let timestamp = asked.timestamp();
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: core.topic.clone(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: core.partition,
                    current_leader_epoch: leader.epoch,
                    timestamp,
                    ..ListOffsetsPartition::default()
                }],
            }],
            ..ListOffsetsRequest::default()
        };
        let mut ours = ListOffsetsRequest::OURS;
        if asked == OffsetAt::MaxTimestamp {
            ours.oldest = 7;
        }
        let lane = core.cluster.lane(leader.id, ApiKey::LIST_OFFSETS, core.place()).await?;
        let mut response = lane.call(&request, core.place(), ours, None).await?;
        let at = || core.place().at(ApiKey::LIST_OFFSETS, Some(lane.broker()));
        let answer = response.topics.pop().and_then(|mut topic| topic.partitions.pop());
        let Some(answer) = answer.filter(|answer| answer.partition_index == core.partition) else {
            return Err(Error::NoAnswer { at: at() });
        };
        match answer.error_code {
            ErrorCode::NONE if answer.offset >= 0 => Ok(answer.offset),
            ErrorCode::NONE => Err(Error::OffsetNotFound { timestamp_ms: timestamp, at: at() }),
            code => Err(Error::Broker { code, message: None, at: at() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn times_are_rounded_up() {
        for (nanos, ms) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2), (-5_000_000, 0)] {
            let at = OffsetAt::Timestamp(OffsetDateTime::UNIX_EPOCH + Duration::nanoseconds(nanos));
            assert_eq!(at.timestamp(), ms, "{nanos}");
        }
    }
}
