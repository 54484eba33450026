//! Asking where leader epochs end.

use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic},
};

use super::PartitionClient;
use crate::{error::Error, speak::Speak};

/// Where the records of a leader epoch end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EpochEnd {
    /// The largest epoch in the leader's log that is not above the one asked for.
    pub leader_epoch: i32,
    /// The offset behind the last record of that epoch; of the current epoch, the end of the leader's log.
    pub end_offset: i64,
}

impl PartitionClient {
    /// Asks the leader where the records of a leader epoch end in its log (KIP-101, KIP-320); `None` if it cannot tell: it
    /// does not know so new an epoch.
    ///
    /// Who has read up to some offset in some epoch, and gets an older epoch or a lower offset, has read what is no longer in
    /// the log from there on: an unclean election lost it. The other way round it proves nothing about a single record.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a negative epoch; [`Error::Unsupported`] for a broker before Kafka 2.1;
    /// [`Error::TopicRecreated`]; [`Error::DeadlineExceeded`].
    ///
    /// # Cancellation
    /// Nothing is lost by dropping it.
    pub async fn offset_for_leader_epoch(&self, leader_epoch: i32) -> Result<Option<EpochEnd>, Error> {
        if leader_epoch < 0 {
            return Err(Error::InvalidInput(format!("leader epoch {leader_epoch} is negative")));
        }
        let core = &self.core;
        let mut attempts = core.cluster.attempts(ApiKey::OFFSET_FOR_LEADER_EPOCH, core.place());
        loop {
            let mut used = 0;
            let attempt = self.try_leader_epoch(leader_epoch, attempts.stale(), &mut used);
            match attempts.within(attempt).await {
                Ok(end) => return Ok(end),
                Err(error) => core.again(&mut attempts, error, used).await?,
            }
        }
    }

    async fn try_leader_epoch(
        &self,
        leader_epoch: i32,
        stale: u64,
        used: &mut u64,
    ) -> Result<Option<EpochEnd>, Error> {
        let core = &self.core;
        let leader = core.leader(stale, used).await?;
        let request = OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![OffsetForLeaderTopic {
                topic: core.topic.clone(),
                partitions: vec![OffsetForLeaderPartition {
                    partition: core.partition,
                    current_leader_epoch: leader.epoch,
                    leader_epoch,
                }],
            }],
        };
        let api = ApiKey::OFFSET_FOR_LEADER_EPOCH;
        let lane = core.cluster.lane(leader.id, api, core.place()).await?;
        let mut response = lane.call(&request, core.place(), OffsetForLeaderEpochRequest::OURS, None).await?;
        let at = || core.place().at(api, Some(lane.broker()));
        let answer = response.topics.pop().and_then(|mut topic| topic.partitions.pop());
        let Some(answer) = answer.filter(|answer| answer.partition == core.partition) else {
            return Err(Error::NoAnswer { at: at() });
        };
        match answer.error_code {
            ErrorCode::NONE if answer.leader_epoch >= 0 && answer.end_offset >= 0 => {
                Ok(Some(EpochEnd { leader_epoch: answer.leader_epoch, end_offset: answer.end_offset }))
            }
            ErrorCode::NONE => Ok(None),
            code => Err(Error::Broker { code, message: None, at: at() }),
        }
    }
}
