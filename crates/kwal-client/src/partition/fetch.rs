//! Fetch: reading batches from an offset on.

use std::{ops::Range, sync::Arc, time::Duration};

use kwal_protocol::{
    api::ApiKey,
    messages::{FetchPartitionResponse, FetchRequest, FetchResponse},
    record::{BatchError, OwnedRecord},
};
use tokio::time::{Instant, sleep_until};

use super::{Fetched, PartitionClient};
use crate::{
    config::Deadlines,
    duration::whole_millis,
    error::Error,
    log::{self, FetchFrom, FetchedBatches},
    pool::Purpose,
    request::request,
    routing::{self, Deadline, Operation, Partition, Rejection, Route, Target},
};

impl PartitionClient {
    /// Reads batches from an offset on, as they are on the log. Nothing is copied.
    ///
    /// At the end of the log the broker waits for more, and the result is empty if none arrives. An offset is
    /// only a number: after an unclean election, other records may have it than before.
    pub fn fetch(&self, offset: i64) -> Fetch<'_> {
        Fetch {
            partition: self,
            offset,
            min_bytes: 1,
            max_bytes: 1 << 20,
            max_wait: Duration::from_millis(500),
            deadline: None,
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
    /// As [`fetch`](Self::fetch), and [`ErrorKind::Corrupt`](crate::error::ErrorKind::Corrupt) for malformed
    /// records.
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
    /// [`ErrorKind::OffsetOutOfRange`](crate::error::ErrorKind::OffsetOutOfRange) before the start of the log
    /// and beyond its end; [`ErrorKind::Corrupt`](crate::error::ErrorKind::Corrupt) with the offset of a
    /// damaged batch, once the fetch begins with it: those before it are returned first; the same for batches
    /// that are not in offset order, and for bytes without a whole batch from the offset on,
    /// [`ErrorKind::MalformedResponse`](crate::error::ErrorKind::MalformedResponse) for no bytes at all, if
    /// that is all that three requests in a row get although the log goes on; those of every read.
    ///
    /// # Cancellation safety
    /// Cancel safe. The connection that it shares with other fetches is free again when the broker has
    /// responded. Later fetches wait for one that was dropped in this way, at most; a second one makes them
    /// use a fresh connection. A fetch that is dropped while it waits is not sent.
    pub struct Fetch<'a> -> Result<Fetched, Error> {
        partition: &'a PartitionClient,
        offset: i64,
        min_bytes: i32,
        max_bytes: i32,
        max_wait: Duration,
    }
}

impl Fetch<'_> {
    /// Sets how many bytes the broker waits for. Default 1.
    pub fn min_bytes(mut self, bytes: i32) -> Self {
        self.min_bytes = bytes;
        self
    }

    /// Sets how many bytes the response may have. A first batch larger than that is returned all the same
    /// (KIP-74). Default 1 MiB, which fits into the cache and so is read fastest. What exceeds
    /// [`Limits::frame`](crate::Limits::frame) is not asked for.
    pub fn max_bytes(mut self, bytes: i32) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets how long the broker waits for the bytes. Default 500 ms; at most half of the deadline. If
    /// sessions expire, the wait may take several requests.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    async fn run(self) -> Result<Fetched, Error> {
        self.validate()?;
        let partition = self.partition;
        let deadline = partition.deadline(self.deadline);
        let enough = usize::try_from(self.min_bytes.min(self.max_bytes)).unwrap_or_default();
        let max_wait = whole_millis(self.max_wait.min(deadline.after / 2));
        let (mut wait, mut stuck) = (max_wait, 0);
        loop {
            let begun = Instant::now();
            let Answer { fetched, granted, unread } = match self.fetch_once(wait, deadline).await {
                Ok(answer) => answer,
                Err(error) => return Err(log::with_range(&partition.partition, error, deadline).await),
            };
            // A session that nears its end granted a part of the wait. The rest of it follows.
            let was_shortened = granted < wait && begun.elapsed() >= granted;
            wait = whole_millis(wait.saturating_sub(begun.elapsed()));
            let claims_more = unread.is_some() || fetched.high_watermark > self.offset;
            if fetched.next_offset == self.offset
                && claims_more
                && log::end_offset(&partition.partition, deadline).await? > self.offset
            {
                stuck += 1;
                if stuck == STUCK_ROUNDS {
                    return Err(fetched.stuck(unread));
                }
                let pause = partition.partition.cluster.config.retry.initial;
                sleep_until(deadline.at.min(Instant::now() + pause)).await;
                // Records in remote storage may take the whole wait.
                wait = max_wait;
            } else if fetched.wire_bytes >= enough || !was_shortened || wait.is_zero() {
                return Ok(fetched);
            }
        }
    }

    fn validate(&self) -> Result<(), Error> {
        let problem = match self {
            Self { offset: ..0, .. } => format!("offset {} is negative", self.offset),
            Self { min_bytes: ..0, .. } => format!("min_bytes {} is negative", self.min_bytes),
            Self { max_bytes: ..1, .. } => {
                format!("max_bytes {} leaves no room for records", self.max_bytes)
            }
            _ => return Ok(()),
        };
        Err(self.partition.invalid_fetch(problem))
    }

    async fn fetch_once(&self, wait: Duration, deadline: Deadline) -> Result<Answer, Error> {
        let PartitionClient { partition, .. } = self.partition;
        let read = Read {
            offset: self.offset,
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            wait,
            partition: Arc::clone(partition),
        };
        let target = Target::Leader(partition, Purpose::Fetch);
        let call = partition.call(ApiKey::FETCH);
        Ok(routing::call(&partition.cluster, target, call, &read, deadline).await?)
    }
}

/// How many responses in a row may move nothing although the log goes on.
const STUCK_ROUNDS: u32 = 3;

/// What one request got.
#[derive(Debug)]
struct Answer {
    fetched: Fetched,
    /// How long the broker was allowed to wait.
    granted: Duration,
    /// Why the bytes, if there are any, have nothing from the requested offset on.
    unread: Option<BatchError>,
}

#[derive(Debug)]
struct Read {
    offset: i64,
    min_bytes: i32,
    max_bytes: i32,
    wait: Duration,
    partition: Arc<Partition>,
}

impl Operation for Read {
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
}

impl Read {
    fn from(&self) -> FetchFrom {
        let Self { offset, min_bytes, max_bytes, .. } = *self;
        FetchFrom { offset, min_bytes, max_bytes, frame: self.partition.cluster.config.limits.frame }
    }

    fn answer(&self, route: &Route<'_>, found: FetchPartitionResponse) -> Result<Answer, Rejection> {
        let bytes = found.records.unwrap_or_default();
        let wire_bytes = bytes.len();
        let FetchedBatches { batches, next_offset, unread } = self.from().batches(bytes)?;
        let known = |offset: i64| (offset >= 0).then_some(offset);
        let fetched = Fetched {
            from: self.offset,
            next_offset,
            high_watermark: found.high_watermark,
            last_stable_offset: known(found.last_stable_offset),
            log_start_offset: known(found.log_start_offset),
            wire_bytes,
            batches,
            topic: Arc::clone(&self.partition.topic),
            partition: self.partition.index,
            decompressed_limit: self.partition.cluster.config.limits.decompressed,
            broker: route.broker.cloned(),
        };
        Ok(Answer { fetched, granted: route.long_poll, unread })
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kwal_protocol::{
        error_code::ErrorCode,
        messages::{
            FetchLeader, FetchNodeEndpoint, FetchPartition, FetchTopic, FetchTopicResponse, IsolationLevel,
        },
        record::{BatchErrorKind, BatchHeader, RawBatch, RawRecord},
        wire::Uuid,
    };
    use kwal_transport::HostPort;

    use super::*;
    use crate::{error::ErrorKind, metadata::LeaderUpdate, routing::rejected_code};

    const ID: Uuid = Uuid([5; 16]);
    const SECOND: Duration = Duration::from_secs(1);

    fn read() -> Read {
        Read {
            offset: 100,
            min_bytes: 10,
            max_bytes: 1000,
            wait: 3 * SECOND,
            partition: Arc::new(Partition::offline("wal", 3)),
        }
    }

    fn route() -> Route<'static> {
        Route { topic_id: ID, long_poll: 2 * SECOND, ..Route::of_partition("wal", 3) }
    }

    /// A batch with one record at its beginning.
    fn batch(base_offset: i64, last_offset_delta: i32) -> Bytes {
        let record = RawRecord { value: Some("value".into()), ..Default::default() };
        let header = BatchHeader { base_offset, last_offset_delta, ..Default::default() };
        RawBatch { header, records: vec![record], ..Default::default() }.encode().unwrap()
    }

    /// A batch with another byte at the end.
    fn corrupt(batch: &Bytes) -> Bytes {
        let mut bytes = BytesMut::from(&batch[..]);
        *bytes.last_mut().unwrap() ^= 1;
        bytes.freeze()
    }

    fn partition(error_code: ErrorCode) -> FetchPartitionResponse {
        FetchPartitionResponse { partition_index: 3, error_code, ..Default::default() }
    }

    fn respond(partition: FetchPartitionResponse) -> Result<Answer, Rejection> {
        let endpoint = |node_id, host: &str| FetchNodeEndpoint {
            node_id,
            host: host.to_owned(),
            port: 9092,
            ..Default::default()
        };
        let topic = FetchTopicResponse { topic_id: ID, partitions: vec![partition], ..Default::default() };
        let response = FetchResponse {
            responses: vec![topic],
            node_endpoints: vec![endpoint(4, "four"), endpoint(5, "five")],
            ..Default::default()
        };
        read().response(&route(), response)
    }

    fn answer(batches: &[Bytes]) -> Result<Answer, Rejection> {
        let records = Some(Bytes::from(batches.concat()));
        respond(FetchPartitionResponse { records, ..partition(ErrorCode::NONE) })
    }

    fn fetched(batches: &[Bytes]) -> Result<Fetched, Rejection> {
        answer(batches).map(|answer| answer.fetched)
    }

    #[test]
    fn the_wait_is_what_the_session_grants() {
        let partition = FetchPartition {
            partition: 3,
            current_leader_epoch: 7,
            fetch_offset: 100,
            partition_max_bytes: 1000,
            ..Default::default()
        };
        let topic = FetchTopic { topic: "wal".to_owned(), topic_id: ID, partitions: vec![partition] };
        let expected = FetchRequest {
            max_wait_ms: 2000,
            min_bytes: 10,
            max_bytes: 1000,
            isolation_level: IsolationLevel::READ_UNCOMMITTED,
            topics: vec![topic],
            ..Default::default()
        };
        assert_eq!(read().request(&route()), expected);
        assert_eq!(read().long_poll(), 3 * SECOND);
        let limit = read().time_limit(&Deadlines::default(), 2 * SECOND);
        assert_eq!(limit, Some(12 * SECOND), "the granted wait is added");
    }

    #[test]
    fn the_next_offset_is_that_after_the_last_whole_batch() {
        let cut = |batch: Bytes, bytes: usize| batch.slice(..bytes);
        for (batches, count, next) in [
            (vec![], 0, 100),
            // Records before the requested offset come with the batch that has it.
            (vec![batch(98, 4)], 1, 103),
            (vec![batch(100, 0), batch(101, 0)], 2, 102),
            // Compaction removes records and keeps the offsets of the batch.
            (vec![batch(100, 9), batch(120, 4)], 2, 125),
            (vec![batch(100, 9), cut(batch(110, 9), 70)], 1, 110),
            (vec![cut(batch(100, 9), 70)], 0, 100),
            // Only records before the requested offset.
            (vec![batch(90, 4)], 1, 100),
        ] {
            let fetched = fetched(&batches).unwrap();
            let text = format!("{batches:?}");
            assert_eq!(
                (fetched.batches().len(), fetched.next_offset, fetched.from),
                (count, next, 100),
                "{text}"
            );
            assert_eq!(fetched.wire_bytes, batches.iter().map(Bytes::len).sum::<usize>(), "{text}");
        }
    }

    #[test]
    fn batches_before_a_corrupt_one_are_returned_first() {
        let good = fetched(&[batch(100, 4), corrupt(&batch(105, 4)), batch(110, 4)]).unwrap();
        assert_eq!((good.batches().len(), good.next_offset), (1, 105));
        let Err(Rejection::Corrupt(error)) = fetched(&[corrupt(&batch(105, 4)), batch(110, 4)]) else {
            panic!("not corrupt");
        };
        assert_eq!((error.position, error.base_offset), (0, Some(105)));
        assert!(matches!(error.kind, BatchErrorKind::Checksum { .. }), "{error:?}");
    }

    #[test]
    fn a_response_out_of_order_is_corrupt_as_a_whole() {
        let message = |offset| {
            let header = BatchHeader { magic: 1, base_offset: offset, ..Default::default() };
            let record = RawRecord { value: Some("value".into()), ..Default::default() };
            RawBatch { header, records: vec![record], ..Default::default() }.encode().unwrap()
        };
        let (max, min) = (i64::MAX, i64::MIN);
        for (batches, (first, last, next)) in [
            // Twice, swapped, overlapping.
            (vec![batch(100, 4), batch(100, 4)], (100, 104, 105)),
            (vec![batch(105, 4), batch(100, 4)], (100, 104, 110)),
            (vec![batch(100, 4), batch(104, 4)], (104, 108, 105)),
            (vec![batch(98, 4), batch(103, 0), batch(99, 9)], (99, 108, 104)),
            (vec![message(100), message(100)], (100, 100, 101)),
            // No offsets, or such that do not exist.
            (vec![batch(100, -1)], (100, 99, 0)),
            (vec![batch(-1, 200)], (-1, 199, 0)),
            (vec![batch(max, 0)], (max, max, 0)),
            (vec![batch(max, 1)], (max, min, 0)),
        ] {
            let Err(Rejection::Corrupt(error)) = answer(&batches) else { panic!("{batches:?}") };
            assert_eq!(error.kind, BatchErrorKind::Offsets { first, last, next }, "{batches:?}");
            assert_eq!(error.base_offset, Some(first), "{batches:?}");
        }
        assert_eq!(fetched(&[message(100), message(107), batch(110, 0)]).unwrap().next_offset, 111);
    }

    #[test]
    fn bytes_that_move_nothing_have_a_reason() {
        let stale = |first, last| BatchErrorKind::Offsets { first, last, next: 100 };
        let cut = |bytes| vec![batch(100, 9).slice(..bytes)];
        for (batches, reason) in [
            (vec![], None),
            (vec![batch(100, 0)], None),
            (vec![batch(90, 9)], Some((stale(90, 99), Some(90)))),
            (vec![batch(80, 4), batch(85, 4)], Some((stale(85, 89), Some(85)))),
            (cut(70), Some((BatchErrorKind::CutOff(70), Some(100)))),
            (cut(7), Some((BatchErrorKind::CutOff(7), None))),
        ] {
            let unread = answer(&batches).unwrap().unread.map(|error| (error.kind, error.base_offset));
            assert_eq!(unread, reason, "{batches:?}");
        }
    }

    #[test]
    fn offsets_that_the_broker_does_not_report_are_none() {
        for (last_stable_offset, log_start_offset, stable, start) in
            [(-1, -1, None, None), (0, 0, Some(0), Some(0)), (99, 20, Some(99), Some(20))]
        {
            let found = FetchPartitionResponse {
                high_watermark: 101,
                last_stable_offset,
                log_start_offset,
                ..partition(ErrorCode::NONE)
            };
            let Answer { fetched, granted, .. } = respond(found).unwrap();
            assert_eq!((fetched.last_stable_offset, fetched.log_start_offset), (stable, start));
            assert_eq!(fetched.high_watermark, 101);
            assert_eq!(granted, 2 * SECOND);
        }
    }

    #[test]
    fn an_offset_out_of_range_has_a_kind_of_its_own() {
        let result = respond(partition(ErrorCode::OFFSET_OUT_OF_RANGE));
        let Err(Rejection::Kind(kind)) = result else { panic!("{result:?}") };
        assert!(matches!(kind, ErrorKind::OffsetOutOfRange { offset: 100, log: None }), "{kind:?}");
    }

    #[test]
    fn only_some_codes_report_a_new_leader() {
        let current_leader = FetchLeader { leader_id: 5, leader_epoch: 8 };
        for (code, is_reported) in [
            (ErrorCode::NOT_LEADER_OR_FOLLOWER, true),
            (ErrorCode::FENCED_LEADER_EPOCH, true),
            (ErrorCode::UNKNOWN_LEADER_EPOCH, false),
            (ErrorCode::KAFKA_STORAGE_ERROR, false),
        ] {
            let found = FetchPartitionResponse { current_leader: current_leader.clone(), ..partition(code) };
            let Err(Rejection::Code { code: found, message: None, leader }) = respond(found) else {
                panic!("{code}");
            };
            let update = LeaderUpdate {
                topic_id: ID,
                leader: 5,
                leader_epoch: 8,
                address: Some(HostPort::new("five", 9092)),
            };
            assert_eq!((found, leader), (code, is_reported.then_some(update)));
        }
    }

    #[test]
    fn an_empty_response_is_throttled_or_malformed() {
        let empty = |throttle_time_ms, error_code| {
            let response = FetchResponse { throttle_time_ms, error_code, ..Default::default() };
            read().response(&route(), response)
        };
        assert!(matches!(empty(1, ErrorCode::NONE), Err(Rejection::Throttled)));
        assert!(matches!(empty(0, ErrorCode::NONE), Err(Rejection::Missing)));
        let code = ErrorCode::FETCH_SESSION_ID_NOT_FOUND;
        assert_eq!(rejected_code(empty(1, code)), (code, None));
        let other = FetchPartitionResponse { partition_index: 2, ..partition(ErrorCode::NONE) };
        assert!(matches!(respond(other), Err(Rejection::Missing)));
    }

    #[test]
    fn a_response_about_another_topic_is_malformed() {
        for (topic, topic_id, is_requested) in [
            ("wal", Uuid::ZERO, true),
            ("", ID, true),
            ("other", Uuid::ZERO, false),
            ("", Uuid([6; 16]), false),
            ("", Uuid::ZERO, false),
        ] {
            let partitions = vec![partition(ErrorCode::NONE)];
            let topic = FetchTopicResponse { topic: topic.to_owned(), topic_id, partitions };
            let response = FetchResponse { responses: vec![topic], ..Default::default() };
            let result = read().response(&route(), response);
            assert_eq!(result.is_ok(), is_requested, "{result:?}");
            assert!(is_requested || matches!(result, Err(Rejection::Missing)), "{result:?}");
        }
    }
}
