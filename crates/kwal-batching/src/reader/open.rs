//! Where a reader begins.

use kwal_client::{
    OffsetAt, PartitionClient, Position,
    error::{Error, ErrorKind},
};
use kwal_protocol::wire::Uuid;

use super::{
    cursor::At,
    settings::{Settings, Start},
};

/// Where a reader begins, and where the log ends.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) at: At,
    /// Whether the place came from the leader.
    pub(crate) is_confirmed: bool,
    /// Whether it is the start of the log, wherever that is.
    pub(crate) is_earliest: bool,
    /// The topic that the place belongs to, if it is known.
    pub(crate) topic_id: Option<Uuid>,
    /// The end of the log, as far as it can be read.
    pub(crate) log_end: i64,
}

impl Opened {
    pub(crate) async fn find(
        partition: &PartitionClient,
        from: Start,
        settings: &Settings,
    ) -> Result<Self, Error> {
        if let Start::Position(Position { offset: offset @ ..0, .. }) = from {
            return Err(partition.invalid_read(format!("offset {offset} is negative")));
        }
        let offset = match from {
            Start::Position(position) => Some(position.offset),
            // The same as the end, which is looked up for itself.
            Start::At(OffsetAt::Latest) => None,
            Start::At(at) => match settings.get_offset(partition, at).await {
                Ok(offset) => Some(offset),
                // There is no such record yet.
                Err(error) if matches!(error.kind(), ErrorKind::OffsetNotFound { .. }) => None,
                Err(error) => return Err(error),
            },
        };
        let log_end = settings.get_offset(partition, OffsetAt::Latest).await?;
        let (epoch, topic_id) = match from {
            Start::Position(Position { leader_epoch, topic_id, .. }) => (leader_epoch, topic_id),
            Start::At(_) => (None, None),
        };
        Ok(Self {
            at: At { offset: offset.unwrap_or(log_end), epoch },
            is_confirmed: matches!(from, Start::At(_)),
            is_earliest: from == Start::At(OffsetAt::Earliest),
            topic_id,
            log_end,
        })
    }
}
