//! Fetch: reading batches from an offset on.

use std::{ops::Range, sync::Arc, time::Duration};

use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{
        FetchLeader, FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopic,
        IsolationLevel,
    },
    record::{Batches, OwnedRecord},
};
use tokio::time::Instant;

use super::{Fetched, PartitionClient};
use crate::{
    config::Deadlines,
    error::{Error, ErrorKind},
    metadata::{LeaderUpdate, address},
    pool::Purpose,
    request::request,
    routing::{
        self, Deadline, Operation, Partition, Rejection, Route, Target, leader_has_moved, millis,
        only_partition,
    },
};

impl PartitionClient {
    /// Reads batches from an offset on, as they are on the log. Nothing is copied.
    ///
    /// At the end of the log the broker waits for more, and the result is empty if none arrives. An offset is only a number:
    /// after an unclean election, other records may have it than before.
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
    /// `bytes` is how many bytes the broker waits for and how many the response may have, exclusive; a first batch larger than
    /// that is returned all the same (KIP-74). `max_wait_ms` is how long the broker waits.
    ///
    /// For a look at the log. A loop should use [`fetch`](Self::fetch), which copies nothing and reports where to continue:
    /// after control batches and compacted ones, the next offset is not that of the last record plus one.
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
            return Err(Error::invalid_input(format!("a wait of {max_wait_ms} ms is negative")));
        };
        let fetch = self.fetch(offset).min_bytes(bytes.start).max_bytes(bytes.end.saturating_sub(1));
        let fetched = fetch.max_wait(max_wait).await?;
        let records = fetched.records().collect::<Result<_, _>>()?;
        Ok((records, fetched.high_watermark))
    }
}

request! {
    /// A fetch. Nothing happens until it is awaited.
    ///
    /// # Errors
    /// [`ErrorKind::OffsetOutOfRange`] before the start of the log and beyond its end; [`ErrorKind::Corrupt`] with the offset
    /// of a damaged batch, once the fetch begins with it: those before it are returned first; those of every read.
    ///
    /// # Cancellation safety
    /// Cancel safe. The connection that it shares with other fetches is free again when the broker has responded.
    pub struct Fetch<'a> -> Fetched {
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

    /// Sets how many bytes the response may have. A first batch larger than that is returned all the same (KIP-74). Default
    /// 1 MiB, which fits into the cache and so is read fastest.
    pub fn max_bytes(mut self, bytes: i32) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets how long the broker waits for the bytes. Default 500 ms; at most half of the deadline. If sessions expire, the wait
    /// may take several requests.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    async fn run(self) -> Result<Fetched, Error> {
        self.validate()?;
        let partition = self.partition;
        let deadline = partition.deadline(self.deadline);
        let enough = usize::try_from(self.min_bytes.min(self.max_bytes)).unwrap_or_default();
        let mut wait = whole_millis(self.max_wait.min(deadline.after / 2));
        loop {
            let begun = Instant::now();
            let (fetched, granted) = match self.fetch_once(wait, deadline).await {
                Ok(fetched) => fetched,
                Err(error) => return Err(partition.with_log_range(error, deadline).await),
            };
            // A session that nears its end granted a part of the wait. The rest of it follows.
            let was_shortened = granted < wait && begun.elapsed() >= granted;
            wait = whole_millis(wait.saturating_sub(begun.elapsed()));
            if fetched.wire_bytes >= enough || !was_shortened || wait.is_zero() {
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
        Err(Error::invalid_input(problem))
    }

    /// Returns what was fetched, and how long the broker was allowed to wait.
    async fn fetch_once(&self, wait: Duration, deadline: Deadline) -> Result<(Fetched, Duration), Error> {
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
    type Output = (Fetched, Duration);

    fn request(&self, route: &Route<'_>) -> FetchRequest {
        FetchRequest {
            max_wait_ms: millis(route.long_poll),
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            isolation_level: IsolationLevel::READ_UNCOMMITTED,
            topics: vec![FetchTopic {
                topic: route.topic.to_owned(),
                topic_id: route.topic_id,
                partitions: vec![FetchPartition {
                    partition: route.partition,
                    current_leader_epoch: route.leader_epoch,
                    fetch_offset: self.offset,
                    partition_max_bytes: self.max_bytes,
                    ..FetchPartition::default()
                }],
            }],
            ..FetchRequest::default()
        }
    }

    fn response(&self, route: &Route<'_>, response: FetchResponse) -> Result<(Fetched, Duration), Rejection> {
        let FetchResponse { throttle_time_ms, error_code, responses, node_endpoints, .. } = response;
        Rejection::check(error_code)?;
        if throttle_time_ms > 0 && responses.is_empty() {
            return Err(Rejection::Throttled);
        }
        let found = only_partition(
            responses,
            |topic| topic.partitions,
            |found| found.partition_index == route.partition,
        )?;
        match found.error_code {
            ErrorCode::NONE => Ok((self.fetched(route, found)?, route.long_poll)),
            ErrorCode::OFFSET_OUT_OF_RANGE => {
                Err(Rejection::Kind(ErrorKind::OffsetOutOfRange { offset: self.offset, log: None }))
            }
            code => {
                let FetchLeader { leader_id, leader_epoch } = found.current_leader;
                let endpoint = node_endpoints.iter().find(|endpoint| endpoint.node_id == leader_id);
                let leader = leader_has_moved(code).then(|| LeaderUpdate {
                    topic_id: route.topic_id,
                    leader: leader_id,
                    leader_epoch,
                    address: endpoint.and_then(|endpoint| address(&endpoint.host, endpoint.port)),
                });
                Err(Rejection::Code { code, message: None, leader })
            }
        }
    }

    fn long_poll(&self) -> Duration {
        self.wait
    }

    fn time_limit(&self, deadlines: &Deadlines, granted: Duration) -> Option<Duration> {
        Some(deadlines.request.saturating_add(granted))
    }
}

impl Read {
    fn fetched(&self, route: &Route<'_>, found: FetchPartitionResponse) -> Result<Fetched, Rejection> {
        let bytes = found.records.unwrap_or_default();
        let wire_bytes = bytes.len();
        let mut batches = Vec::new();
        for batch in Batches::new(bytes) {
            match batch {
                Ok(batch) => batches.push(batch),
                // The batches before it can be read. The next fetch begins with it and reports it.
                Err(_) if !batches.is_empty() => break,
                Err(source) => return Err(Rejection::Corrupt(source)),
            }
        }
        let known = |offset: i64| (offset >= 0).then_some(offset);
        Ok(Fetched {
            from: self.offset,
            next_offset: batches.last().map_or(self.offset, |batch| batch.next_offset().max(self.offset)),
            high_watermark: found.high_watermark,
            last_stable_offset: known(found.last_stable_offset),
            log_start_offset: known(found.log_start_offset),
            wire_bytes,
            batches,
            topic: Arc::clone(&self.partition.topic),
            partition: self.partition.index,
            decompressed_limit: self.partition.cluster.config.limits.decompressed,
            broker: route.broker.cloned(),
        })
    }
}

/// Cuts a duration to whole milliseconds, as the protocol has them.
fn whole_millis(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}
