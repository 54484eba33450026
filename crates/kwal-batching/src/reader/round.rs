//! One round trip of a reader: a fetch, and the lookups that its result needs.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use kwal_client::{
    FetchAhead, Fetched, OffsetAt, PartitionClient, Position,
    error::{Error, ErrorKind},
};

use super::settings::{OutOfRange, Settings};

/// What a round trip brings.
#[derive(Debug)]
pub(crate) enum Round {
    Fetched {
        fetched: Fetched,
        /// The end of the log, if the fetch got nothing and its own may be too low.
        log_end: Option<i64>,
    },
    /// The position is out of range. Reading goes on at the target, by the policy.
    Reset { target: i64, log_start: Option<i64> },
    /// The log begins later than when the reader was opened, to begin at its start.
    Restart { log_start: i64 },
    /// The log differs from what was read. The leader's epoch is the largest one that is not above that of
    /// the position, with the offset where it ends.
    Truncated { error: Error, leader: Option<(i32, i64)> },
}

/// What is asked.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) partition: PartitionClient,
    pub(crate) settings: Settings,
    pub(crate) from: Position,
    /// Where the log ends, as far as it is known.
    pub(crate) log_end: i64,
    /// Whether the position is the start of the log, and nothing was read.
    pub(crate) is_earliest: bool,
}

/// A round trip that is under way.
pub(crate) struct PendingRound(Pin<Box<dyn Future<Output = Result<Round, Error>> + Send>>);

impl PendingRound {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Round, Error>> {
        self.0.as_mut().poll(cx)
    }
}

/// A fetch that was sent before its turn.
pub(crate) struct Ahead {
    from: Position,
    fetch: FetchAhead,
    /// Its result, if it has one already.
    result: Option<Result<Fetched, Error>>,
}

impl Ahead {
    /// Begins a fetch for later, if there is memory for it now. It is sent once the task of its connection
    /// runs.
    pub(crate) fn send(
        partition: &PartitionClient,
        settings: Settings,
        from: Position,
        cx: &mut Context<'_>,
    ) -> Option<Self> {
        let fetch = settings.fetch(partition, from).ahead()?;
        let mut ahead = Self { from, fetch, result: None };
        if let Poll::Ready(result) = Pin::new(&mut ahead.fetch).poll(cx) {
            ahead.result = Some(result);
        }
        Some(ahead)
    }

    /// Returns where it begins.
    pub(crate) fn offset(&self) -> i64 {
        self.from.offset
    }

    async fn fetched(self) -> Result<Fetched, Error> {
        match self.result {
            Some(result) => result,
            None => self.fetch.await,
        }
    }
}

impl Ask {
    /// Asks, or takes what was fetched ahead. Nothing is sent before it is polled.
    pub(crate) fn begin(self, ahead: Option<Ahead>) -> PendingRound {
        PendingRound(Box::pin(self.run(ahead)))
    }

    async fn run(self, ahead: Option<Ahead>) -> Result<Round, Error> {
        let ahead = match ahead {
            // An error of a fetch that was sent long ago says nothing about now.
            Some(ahead) => ahead.fetched().await.ok(),
            None => None,
        };
        let fetched = match ahead {
            Some(fetched) => Ok(fetched),
            None => self.settings.fetch(&self.partition, self.from).await,
        };
        match fetched {
            Ok(fetched) => {
                let may_be_low = fetched.next_offset == self.from.offset
                    && fetched.readable_end(self.settings.isolation) < self.log_end;
                let log_end = if may_be_low { Some(self.offset(OffsetAt::Latest).await?) } else { None };
                Ok(Round::Fetched { fetched, log_end })
            }
            Err(error) => self.go_on(error).await,
        }
    }

    /// Asks about an earlier epoch after an error about a loss.
    pub(crate) fn look_up(self, error: Error, leader_epoch: i32) -> PendingRound {
        PendingRound(Box::pin(async move {
            let leader = self.epoch_end(Some(leader_epoch)).await;
            Ok(Round::Truncated { error, leader })
        }))
    }

    /// Returns what to do about an error.
    async fn go_on(&self, error: Error) -> Result<Round, Error> {
        let policy = self.settings.out_of_range;
        let (target, log_start) = match *error.kind() {
            ErrorKind::LogTruncated { position, .. } => {
                let leader = self.epoch_end(position.leader_epoch).await;
                return Ok(Round::Truncated { error, leader });
            }
            ErrorKind::Trimmed { log_start, .. } if self.is_earliest => {
                return Ok(Round::Restart { log_start });
            }
            ErrorKind::Trimmed { log_start, .. } => match policy {
                OutOfRange::Fail => return Err(error),
                OutOfRange::FromStart => (log_start, Some(log_start)),
                // The last stable offset may be that of a batch before the log start.
                OutOfRange::FromEnd => (self.offset(OffsetAt::Latest).await?.max(log_start), Some(log_start)),
            },
            ErrorKind::BeyondEnd { end, .. } => match policy {
                OutOfRange::Fail => return Err(error),
                OutOfRange::FromStart => {
                    let log_start = self.offset(OffsetAt::Earliest).await?;
                    (log_start, Some(log_start))
                }
                // With read committed, that is the last stable offset. What was appended since is not passed.
                OutOfRange::FromEnd => (self.offset(OffsetAt::Latest).await?.min(end), None),
            },
            _ => return Err(error),
        };
        Ok(Round::Reset { target, log_start })
    }

    /// Returns the largest epoch of the leader that is not above another one, and where it ends; `None` if it
    /// cannot be had.
    async fn epoch_end(&self, leader_epoch: Option<i32>) -> Option<(i32, i64)> {
        let lookup = self.partition.offset_for_leader_epoch(leader_epoch?);
        let lookup = match self.settings.deadline {
            Some(deadline) => lookup.deadline(deadline),
            None => lookup,
        };
        let end = lookup.await.ok()??;
        Some((end.leader_epoch, end.end_offset))
    }

    async fn offset(&self, at: OffsetAt) -> Result<i64, Error> {
        self.settings.get_offset(&self.partition, at).await
    }
}
