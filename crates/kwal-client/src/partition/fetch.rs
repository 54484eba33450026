//! Fetch: reading batches from a position on.

use std::{
    fmt,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use kwal_protocol::{
    api::ApiKey,
    messages::{
        FetchPartitionResponse, FetchRequest, FetchResponse, OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse,
    },
    record::{BatchError, OwnedRecord},
};
use kwal_transport::BoxFuture;
use tokio::time::Instant;
use tracing::Span;

use super::{Fetched, PartitionClient, fetched::Source};
use crate::{
    config::Deadlines,
    duration::whole_millis,
    error::{Error, ErrorKind},
    log::{
        self, EpochEnd, FetchFrom, FetchedBatches, IsCompacted, Isolation, Sorted, diverged_at,
        is_verified_by_fetch,
    },
    memory::Reservation,
    pool::Purpose,
    position::Position,
    request::{call_span, request, within},
    routing::{self, Deadline, Fetching, Operation, Partition, Rejection, Route, Target},
};

impl PartitionClient {
    /// Reads batches from a position on, as they are on the log. Nothing is copied.
    ///
    /// At the end of the log the broker waits for more, and the result is empty if none arrives.
    ///
    /// What the [position](Position) knows is verified: the topic id against that of this partition client,
    /// and by the leader epoch (KIP-320) whether the log still has what was read before it. A bare offset is
    /// only a number: after an unclean election, other records may have it than before. The leader epoch is
    /// verified by brokers since Kafka 2.7 with the fetch itself, since Kafka 2.1 by one more request for
    /// each leader, and not at all by older ones.
    ///
    /// ```no_run
    /// use kwal_client::{PartitionClient, Position, error::{Error, ErrorKind}};
    ///
    /// /// Applies what has come since, and returns the position to keep with the state.
    /// async fn catch_up(partition: &PartitionClient, from: Position) -> Result<Position, Error> {
    ///     match partition.fetch(from).await {
    ///         Ok(fetched) => {
    ///             fetched.for_each(|record| println!("apply {}", record.offset))?;
    ///             Ok(fetched.position())
    ///         }
    ///         Err(error) => {
    ///             if let ErrorKind::LogTruncated { diverged_at, .. } = error.kind() {
    ///                 eprintln!("the state has records from {diverged_at} on that are lost");
    ///             }
    ///             Err(error)
    ///         }
    ///     }
    /// }
    /// ```
    pub fn fetch(&self, from: impl Into<Position>) -> Fetch<'_> {
        Fetch {
            partition: self,
            position: from.into(),
            isolation: Isolation::default(),
            min_bytes: 1,
            max_bytes: 1 << 20,
            max_wait: Duration::from_millis(500),
            deadline: None,
        }
    }

    /// Returns where reading goes on after a record that was read from this partition.
    pub fn position_after(&self, record: &OwnedRecord) -> Position {
        Position {
            topic_id: self.topic_id(),
            leader_epoch: (record.leader_epoch >= 0).then_some(record.leader_epoch),
            offset: record.offset.saturating_add(1),
        }
    }

    /// Reads records from an offset on. Returns owned records and the high watermark.
    ///
    /// `bytes` is how many bytes the broker waits for and how many the response may have, exclusive; a first
    /// batch larger than that is returned all the same (KIP-74). `max_wait_ms` is how long the broker waits.
    ///
    /// For a look at the log. A loop should use [`fetch`](Self::fetch), which copies nothing and reports
    /// where to continue: after control batches and compacted ones, the next offset is not that of the last
    /// record plus one.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch), and [`ErrorKind::Corrupt`] for malformed records.
    ///
    /// # Cancellation safety
    /// Cancel safe.
    pub async fn fetch_records(
        &self,
        offset: i64,
        bytes: Range<i32>,
        max_wait_ms: i32,
    ) -> Result<(Vec<OwnedRecord>, i64), Error> {
        let Ok(max_wait) = u64::try_from(max_wait_ms).map(Duration::from_millis) else {
            return Err(self.invalid_fetch(format!("a wait of {max_wait_ms} ms is negative")));
        };
        if bytes.is_empty() || bytes.end <= 1 {
            let Range { start, end } = bytes;
            return Err(self.invalid_fetch(format!("bytes {start}..{end} leave no room for records")));
        }
        let fetch = self.fetch(offset).min_bytes(bytes.start).max_bytes(bytes.end.saturating_sub(1));
        let fetched = fetch.max_wait(max_wait).await?;
        let records = fetched.records().collect::<Result<_, _>>()?;
        Ok((records, fetched.high_watermark))
    }

    fn invalid_fetch(&self, reason: String) -> Error {
        self.partition.call(ApiKey::FETCH).invalid_input(reason)
    }
}

request! {
    /// A fetch. Nothing happens until it is awaited.
    ///
    /// # Errors
    /// [`ErrorKind::Trimmed`] before the start of the log and [`ErrorKind::BeyondEnd`] beyond its end;
    /// [`ErrorKind::LogTruncated`] if the log lost what was read before the position;
    /// [`ErrorKind::TopicRecreated`] for a position of another topic, and if the topic was deleted and
    /// created again; [`ErrorKind::EpochUnknown`] if the position is newer than the leader. None of them
    /// moves anything: where to go on is the caller's decision.
    ///
    /// [`ErrorKind::Corrupt`] with the offsets of a damaged batch, once the fetch begins with it: those
    /// before it are returned first; the same for batches that are not in offset order, and for bytes without
    /// a whole batch from the offset on, [`ErrorKind::MalformedResponse`] for no bytes at all, if that is all
    /// that three requests in a row get although the log goes on; those of every read. No bytes at all are no
    /// error if the topic is compacted: then all batches up to the high watermark are gone, and the result is
    /// a [gap](Fetched::gaps). To know it, this client needs the right `DescribeConfigs` on the topic.
    ///
    /// # Shared connections
    /// A broker works on one request of a connection at a time, also while that waits for records. A
    /// partition client with a connection of its own sends each fetch alone, unless another of its fetches is
    /// under way. Beyond
    /// [`Limits::max_connections_per_broker`](crate::Limits::max_connections_per_broker) they share
    /// connections, and then their fetches are combined into one request, of at most 500 ms. A fetch that
    /// comes while that is under way is asked over the connection for short requests, without a wait, at once
    /// and every 20 ms until the next request has it. So no reader waits for the long poll of another: a
    /// record is read as soon as with a connection of its own, or at most 20 ms later right after other
    /// records were read. While nobody appends, each shared connection makes two requests a second, and fifty
    /// short ones if those that share it cannot be in one request: several readers of one partition, of both
    /// isolation levels, or more than 1,000. A fetch with more than one as [`min_bytes`](Self::min_bytes) is
    /// not combined, and waits for its turn on the connection.
    ///
    /// # Cancellation safety
    /// Cancel safe. What the broker responds to a fetch that was dropped is discarded. One that was sent
    /// alone occupies its connection until then: later fetches wait for it, at most; a second one makes them
    /// use a fresh connection. A fetch that is dropped while it waits is not sent.
    pub struct Fetch<'a> -> Result<Fetched, Error> {
        partition: &'a PartitionClient,
        position: Position,
        isolation: Isolation,
        min_bytes: i32,
        max_bytes: i32,
        max_wait: Duration,
    }
}

impl Fetch<'_> {
    /// Sets which records of transactions are read. Default: all of them.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Sets how many bytes the broker waits for. Default 1.
    pub fn min_bytes(mut self, bytes: i32) -> Self {
        self.min_bytes = bytes;
        self
    }

    /// Sets how many bytes the response may have. A first batch larger than that is returned all the same
    /// (KIP-74). Default 1 MiB, which fits into the cache and so is read fastest. What exceeds
    /// [`Limits::frame`](crate::Limits::frame), or the part of one fetch in
    /// [`Limits::memory`](crate::Limits::memory), is not asked for.
    pub fn max_bytes(mut self, bytes: i32) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets how long the broker waits for the bytes. Default 500 ms; at most half of the deadline. If
    /// sessions expire, the wait may take several requests. On a [shared
    /// connection](Self#shared-connections), it may end after half of the time, together with the waits of
    /// others.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    fn span(&self) -> Span {
        call_span!("fetch", self.partition.topic(), self.partition.partition(); messaging.kafka.offset = self.position.offset)
    }

    async fn run(self) -> Result<Fetched, Error> {
        self.reading(None)?.run().await
    }

    /// Starts a fetch for later, so that its response is on its way while the last one is worked on. It is
    /// sent when it is polled for the first time, and then needs no polls until its result is wanted.
    ///
    /// It takes memory ([`Limits::memory`](crate::Limits::memory)) only if there is room now, and all of
    /// these together at most half of what reads may hold, so that readers which come late for their results
    /// never hold up others. `None` otherwise: then await the fetch when its result is wanted.
    ///
    /// ```no_run
    /// # use kwal_client::{PartitionClient, error::Error};
    /// # async fn read(partition: PartitionClient) -> Result<(), Error> {
    /// use futures::FutureExt;
    ///
    /// let mut fetched = partition.fetch(0).await?;
    /// loop {
    ///     let mut ahead = partition.fetch(fetched.position()).ahead();
    ///     // The first poll sends it.
    ///     let done = ahead.as_mut().and_then(FutureExt::now_or_never);
    ///     fetched.for_each(|record| println!("{}", record.offset))?;
    ///     fetched = match (done, ahead) {
    ///         (Some(next), _) => next?,
    ///         (None, Some(ahead)) => ahead.await?,
    ///         (None, None) => partition.fetch(fetched.position()).await?,
    ///     };
    /// }
    /// # }
    /// ```
    pub fn ahead(self) -> Option<FetchAhead> {
        let partition = &self.partition.partition;
        let max_bytes = self.max_bytes.min(partition.cluster.most_per_fetch());
        let bytes = usize::try_from(max_bytes).unwrap_or_default();
        let memory = partition.cluster.memory.try_reserve_ahead(bytes)?;
        let span = self.span();
        let reading = self.reading(Some(Arc::new(memory)));
        Some(FetchAhead(within(span, Box::pin(async move { reading?.run().await }))))
    }

    fn reading(self, ahead: Option<Arc<Reservation>>) -> Result<Reading, Error> {
        self.validate()?;
        let Self { partition, position, isolation, min_bytes, max_bytes, max_wait, deadline } = self;
        let deadline = partition.deadline(deadline);
        let max_wait = whole_millis(max_wait.min(deadline.after / 2));
        let partition = Arc::clone(&partition.partition);
        let max_bytes = max_bytes.min(partition.cluster.most_per_fetch());
        Ok(Reading { partition, position, isolation, min_bytes, max_bytes, max_wait, deadline, ahead })
    }

    fn validate(&self) -> Result<(), Error> {
        let Self { partition, position, min_bytes, max_bytes, .. } = *self;
        let Position { topic_id, leader_epoch, offset } = position;
        let problem = match () {
            () if offset < 0 => format!("offset {offset} is negative"),
            () if leader_epoch.is_some_and(|epoch| epoch < 0) => {
                format!("the leader epoch of position {position} is negative")
            }
            () if min_bytes < 0 => format!("min_bytes {min_bytes} is negative"),
            () if max_bytes < 1 => format!("max_bytes {max_bytes} leaves no room for records"),
            () => {
                return match (topic_id, partition.topic_id()) {
                    (Some(was), Some(is)) if was != is => {
                        let call = partition.partition.call(ApiKey::FETCH);
                        Err(call.error(ErrorKind::TopicRecreated { was, is }))
                    }
                    _ => Ok(()),
                };
            }
        };
        Err(partition.invalid_fetch(problem))
    }
}

/// A fetch that was started for later: [`Fetch::ahead`]. Its memory is free again when it has completed or is
/// dropped.
///
/// # Errors
/// Those of [`Fetch`].
///
/// # Cancellation safety
/// Cancel safe, as [`Fetch`].
#[must_use = "it is sent when it is polled"]
pub struct FetchAhead(BoxFuture<'static, Result<Fetched, Error>>);

impl Future for FetchAhead {
    type Output = Result<Fetched, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for FetchAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchAhead").finish_non_exhaustive()
    }
}

/// A fetch that is under way. It may take several requests.
#[derive(Clone, Debug)]
struct Reading {
    partition: Arc<Partition>,
    position: Position,
    isolation: Isolation,
    min_bytes: i32,
    max_bytes: i32,
    max_wait: Duration,
    deadline: Deadline,
    /// Memory that was reserved before.
    ahead: Option<Arc<Reservation>>,
}

impl Reading {
    async fn run(self) -> Result<Fetched, Error> {
        let fetched = self.fetch().await?;
        self.partition.metrics.fetched(fetched.wire_bytes, fetched.batches());
        Ok(fetched)
    }

    async fn fetch(&self) -> Result<Fetched, Error> {
        let Self { partition, position: Position { offset, .. }, deadline, max_wait, .. } = self;
        let enough = usize::try_from(self.min_bytes.min(self.max_bytes)).unwrap_or_default();
        let (mut wait, mut stuck, mut hole_end) = (*max_wait, 0, i64::MAX);
        loop {
            let begun = Instant::now();
            let Answer { fetched, granted, unread, .. } = match self.verified(wait).await {
                Ok(Some(answer)) => answer,
                Ok(None) => continue,
                Err(error) => {
                    // The log may have got the offset in the meantime.
                    let error = log::with_range(partition, error, *deadline).await;
                    match error.kind() {
                        ErrorKind::OffsetOutOfRange { log: Some(_), .. } if stuck + 1 < log::STUCK_ROUNDS => {
                        }
                        _ => return Err(error),
                    }
                    stuck += 1;
                    log::pause(partition, *deadline).await;
                    continue;
                }
            };
            // A session that nears its end granted a part of the wait. The rest of it follows.
            let was_shortened = granted < wait && begun.elapsed() >= granted;
            wait = whole_millis(wait.saturating_sub(begun.elapsed()));
            let claims_more = unread.is_some() || fetched.readable_end(self.isolation) > *offset;
            if fetched.next_offset == *offset
                && claims_more
                && log::end_offset_at(partition, self.isolation, *deadline).await? > *offset
            {
                stuck += 1;
                let is_empty = unread.is_none() && fetched.wire_bytes == 0;
                hole_end =
                    if is_empty { hole_end.min(fetched.readable_end(self.isolation)) } else { *offset };
                if stuck == log::STUCK_ROUNDS {
                    return match hole_end > *offset && self.is_compacted().await {
                        true => Ok(fetched.with_hole(hole_end)),
                        false => Err(fetched.stuck(unread)),
                    };
                }
                log::pause(partition, *deadline).await;
                // Records in remote storage may take the whole wait.
                wait = *max_wait;
            } else if fetched.wire_bytes >= enough || !was_shortened || wait.is_zero() {
                return Ok(fetched);
            }
        }
    }

    /// Whether compaction may have removed all batches up to the end of the log, as that of brokers before
    /// Kafka 4.0 does (KAFKA-17076).
    async fn is_compacted(&self) -> bool {
        log::call(&self.partition, &IsCompacted, self.deadline).await.unwrap_or(false)
    }

    /// Fetches once, from a leader whose log has what was read before the position. `None` if the leader
    /// changed before that was known.
    async fn verified(&self, wait: Duration) -> Result<Option<Answer>, Error> {
        let Self { partition, position, .. } = self;
        let answer = match self.fetch_once(wait).await {
            Ok(answer) => answer,
            // It may be out of range because it was lost.
            Err(error) if error.kind().is_out_of_range() && position.leader_epoch.is_some() => {
                self.verify().await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let Answer { leader_epoch, is_verified, ref fetched, .. } = answer;
        if !is_verified {
            if !partition.has_verified(leader_epoch, *position)
                && self.verify().await?.is_some_and(|asked_in| asked_in != leader_epoch)
            {
                return Ok(None);
            }
            partition.set_verified(leader_epoch, fetched.position());
        }
        Ok(Some(answer))
    }

    /// Asks the leader where the position's epoch ends on its log, and fails if that is before the position.
    /// Returns the leader's own epoch; `None` if the broker is too old for the question.
    async fn verify(&self) -> Result<Option<i32>, Error> {
        let Self { partition, position, deadline, .. } = self;
        let AskedEpochEnd { end, asked_in } =
            match log::call(partition, &PositionEpoch { position: *position }, *deadline).await {
                Ok(end) => end,
                Err(error) if matches!(error.kind(), ErrorKind::Unsupported { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
        match diverged_at(*position, end.leader_epoch, end.end_offset) {
            Some(diverged_at) => {
                let kind = ErrorKind::LogTruncated { position: *position, diverged_at };
                Err(partition.call(ApiKey::FETCH).error(kind))
            }
            None => Ok(Some(asked_in)),
        }
    }

    async fn fetch_once(&self, wait: Duration) -> Result<Answer, Error> {
        let Self { partition, deadline, .. } = self;
        let read = Read { reading: self, wait };
        let target = Target::Leader(partition, Purpose::Fetch);
        let call = partition.call(ApiKey::FETCH);
        Ok(routing::call(&partition.cluster, target, call, &read, *deadline).await?)
    }
}

/// Where an epoch ends, and the leader epoch in which that was asked.
#[derive(Debug)]
struct AskedEpochEnd {
    end: log::EpochEndOffset,
    asked_in: i32,
}

/// A lookup of where the epoch of a position ends.
#[derive(Debug)]
struct PositionEpoch {
    position: Position,
}

impl PositionEpoch {
    fn end(&self) -> EpochEnd {
        EpochEnd { leader_epoch: self.position.epoch() }
    }
}

impl Operation for PositionEpoch {
    type Request = OffsetForLeaderEpochRequest;
    type Output = AskedEpochEnd;

    fn request(&self, route: &Route<'_>) -> OffsetForLeaderEpochRequest {
        self.end().request(route)
    }

    fn response(
        &self,
        route: &Route<'_>,
        response: OffsetForLeaderEpochResponse,
    ) -> Result<AskedEpochEnd, Rejection> {
        let leader_epoch = route.leader_epoch;
        match self.end().response(route, response)? {
            Some(end) => Ok(AskedEpochEnd { end, asked_in: leader_epoch }),
            None => Err(Rejection::Kind(ErrorKind::EpochUnknown { position: self.position, leader_epoch })),
        }
    }
}

/// What one request got.
#[derive(Debug)]
struct Answer {
    fetched: Fetched,
    /// How long the broker was allowed to wait.
    granted: Duration,
    /// Why the bytes, if there are any, have nothing from the requested offset on, and the offsets of the
    /// batch that cannot be read there.
    unread: Option<(BatchError, Option<Range<i64>>)>,
    /// The leader epoch in which the broker was asked.
    leader_epoch: i32,
    /// Whether the broker has verified the position, or there is nothing to verify.
    is_verified: bool,
}

#[derive(Debug)]
struct Read<'a> {
    reading: &'a Reading,
    wait: Duration,
}

impl Operation for Read<'_> {
    type Request = FetchRequest;
    type Output = Answer;

    fn request(&self, route: &Route<'_>) -> FetchRequest {
        self.from().request(route)
    }

    fn response(&self, route: &Route<'_>, response: FetchResponse) -> Result<Answer, Rejection> {
        self.answer(route, self.from().partition(route, response)?)
    }

    fn long_poll(&self) -> Duration {
        self.wait
    }

    fn time_limit(&self, deadlines: &Deadlines, granted: Duration) -> Option<Duration> {
        Some(deadlines.request.saturating_add(granted))
    }

    fn fetching(&self) -> Option<Fetching<'_, FetchRequest>> {
        let Reading { max_bytes, min_bytes, ahead, .. } = self.reading;
        Some(Fetching::new(*max_bytes, *min_bytes, ahead.as_ref()))
    }
}

impl Read<'_> {
    fn from(&self) -> FetchFrom {
        let Reading { ref partition, position, isolation, min_bytes, max_bytes, .. } = *self.reading;
        FetchFrom { position, isolation, min_bytes, max_bytes, frame: partition.cluster.config.limits.frame }
    }

    fn answer(&self, route: &Route<'_>, found: FetchPartitionResponse) -> Result<Answer, Rejection> {
        let Reading { partition, position, isolation, .. } = self.reading;
        let bytes = found.records.unwrap_or_default();
        let wire_bytes = bytes.len();
        let FetchedBatches { batches, unread, .. } = self.from().batches(bytes)?;
        let aborted = match isolation {
            Isolation::ReadUncommitted => None,
            Isolation::ReadCommitted => Some(found.aborted_transactions.as_deref().unwrap_or_default()),
        };
        let mut sorted = Sorted::new(batches, position.offset, aborted);
        let undecoded = sorted.unread.take().map(|(error, offsets)| (error, Some(offsets)));
        let leader_epoch =
            if sorted.next_offset > position.offset { sorted.leader_epoch } else { position.leader_epoch };
        let known = |offset: i64| (offset >= 0).then_some(offset);
        let config = &partition.cluster.config;
        let source = Source {
            topic: Arc::clone(&partition.topic),
            topic_id: partition.topic_id(),
            partition: partition.index,
            decompressed_limit: config.limits.decompressed,
            decompressors: Arc::clone(&partition.cluster.decompressors),
            broker: route.broker.cloned(),
        };
        let fetched = Fetched {
            from: position.offset,
            next_offset: sorted.next_offset,
            high_watermark: found.high_watermark,
            last_stable_offset: known(found.last_stable_offset),
            log_start_offset: known(found.log_start_offset),
            wire_bytes,
            batches: sorted.batches,
            gaps: sorted.gaps,
            leader_epoch,
            source: Arc::new(source),
        };
        let is_verified =
            position.leader_epoch.is_none() || route.leader_epoch < 0 || is_verified_by_fetch(route);
        Ok(Answer {
            fetched,
            granted: route.long_poll,
            unread: unread.map(|error| (error, None)).or(undecoded),
            leader_epoch: route.leader_epoch,
            is_verified,
        })
    }
}

#[cfg(test)]
mod tests;
