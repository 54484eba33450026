//! Reading.

use std::{future::IntoFuture, ops::Range, time::Duration};

use kwal_protocol::{
    api::ApiKey,
    compression::Decompressor,
    error_code::ErrorCode,
    messages::{
        FetchLeader, FetchPartition, FetchPartitionResponse, FetchRequest, FetchTopic, IsolationLevel,
    },
    record::{Batch, Batches, OwnedRecord, Records},
};
use kwal_transport::BoxFuture;
use tokio::time::Instant;

use super::{PartitionClient, leader_has_moved};
use crate::{error::Error, metadata::address, speak::versions};

/// What one fetch brought: batches, still packed, and where the log stands.
///
/// Their bytes are slices of the response. What keeps a batch, a record view or an [`OwnedRecord`] keeps the whole response
/// in memory; [`OwnedRecord::into_detached`] makes a copy that does not.
///
/// ```no_run
/// # async fn read(partition: kwal_client::PartitionClient, from: i64) -> Result<(), kwal_client::error::Error> {
/// let fetched = partition.fetch(from).await?;
/// let mut bytes = 0;
/// for records in fetched.records() {
///     let records = records?;
///     for record in records.iter() {
///         let record = fetched.check(record)?;
///         if record.offset >= from {
///             bytes += record.value.map_or(0, <[u8]>::len);
///         }
///     }
/// }
/// let _next = fetched.next_offset;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fetched {
    /// The whole batches, in offset order, checksums checked. The first one may begin before the offset asked for. Control
    /// batches (the markers of transactions) are among them.
    pub batches: Vec<Batch>,
    /// The offset asked for.
    pub from: i64,
    /// Where to go on: behind the last whole batch, or the offset asked for if there is none. Batches that hold no records
    /// move it too.
    pub next_offset: i64,
    /// The offset behind the last record that all in-sync replicas have. Right after an election it may be too low for a
    /// moment: ask [`get_offset`](PartitionClient::get_offset) where the log ends.
    pub high_watermark: i64,
    /// The offset before which no transaction is open; `None` if the broker did not say.
    pub last_stable_offset: Option<i64>,
    /// Where the log starts; `None` if the broker did not say.
    pub log_start_offset: Option<i64>,
    /// The size of the batches on the wire, in bytes, a last one that was cut off included.
    pub wire_bytes: usize,
    limit: usize,
    at: Box<crate::error::At>,
}

impl Fetched {
    /// The records of each batch that holds some, unpacked one batch at a time: each is decompressed once, if it is
    /// compressed, and otherwise a slice of the response. Control batches are passed over.
    ///
    /// Records before the offset asked for are among them, if the first batch began there. Records that are dropped before
    /// the next ones are asked for leave their memory to them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a batch that cannot be decompressed, or is larger than
    /// [`Limits::decompressed`](crate::Limits::decompressed).
    pub fn records(&self) -> impl Iterator<Item = Result<Records, Error>> + '_ {
        let data = self.batches.iter().filter(|batch| !batch.is_control());
        let mut decompressor = Decompressor::new();
        data.map(move |batch| self.check(batch.records_with(&mut decompressor, self.limit)))
    }

    /// Says of a batch that cannot be read where it was read from.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn check<T>(&self, result: Result<T, kwal_protocol::record::BatchError>) -> Result<T, Error> {
        result.map_err(|source| Error::Corrupt { at: self.at.clone(), source })
    }

    /// All records from the offset asked for on. Each has its own few words of memory; keys and values stay slices.
    ///
    /// # Errors
    /// As [`records`](Self::records), and for records that are malformed.
    pub fn to_records(&self) -> Result<Vec<OwnedRecord>, Error> {
        let mut all = Vec::new();
        for records in self.records() {
            for record in records? {
                let record = self.check(record)?;
                if record.offset >= self.from {
                    all.push(record);
                }
            }
        }
        Ok(all)
    }
}

/// A fetch to be: set what it should be like, then `.await` it.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct Fetch<'a> {
    partition: &'a PartitionClient,
    offset: i64,
    min_bytes: i32,
    max_bytes: i32,
    max_wait: Duration,
}

impl PartitionClient {
    /// Reads records from an offset on: owned ones, and the high watermark.
    ///
    /// `bytes` is how many are worth an answer, and how many the answer should have at the most, exclusive; a first batch
    /// larger than that comes all the same (KIP-74). `max_wait_ms` is how long the broker may wait for the former.
    ///
    /// For a look at the log. A loop should use [`fetch`](Self::fetch), which copies and allocates nothing per record and
    /// says where to go on: behind control batches and compacted ones the next offset is not the last record's plus one.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch), and for records that are malformed.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping it.
    pub async fn fetch_records(
        &self,
        offset: i64,
        bytes: Range<i32>,
        max_wait_ms: i32,
    ) -> Result<(Vec<OwnedRecord>, i64), Error> {
        let Ok(max_wait) = u64::try_from(max_wait_ms).map(Duration::from_millis) else {
            return Err(Error::InvalidInput(format!("a wait of {max_wait_ms} ms is negative")));
        };
        let fetch = self.fetch(offset).min_bytes(bytes.start).max_bytes(bytes.end.saturating_sub(1));
        let fetched = fetch.max_wait(max_wait).await?;
        Ok((fetched.to_records()?, fetched.high_watermark))
    }

    /// Reads batches from an offset on: as they are, nothing copied.
    ///
    /// At the end of the log the broker waits for more, and the answer is empty if none comes. An offset is only a
    /// number: after an unclean election, other records may lie there than before.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`] before the log's start and beyond its end; [`Error::Corrupt`] with the offset of a damaged
    /// batch, once the fetch begins with it: those before it are given out first; [`Error::DeadlineExceeded`].
    ///
    /// # Cancellation
    /// Nothing is lost by dropping it. The connection that it shares with other reads is free again when the broker has
    /// answered.
    pub fn fetch(&self, offset: i64) -> Fetch<'_> {
        Fetch {
            partition: self,
            offset,
            min_bytes: 1,
            max_bytes: 1 << 20,
            max_wait: Duration::from_millis(500),
        }
    }
}

impl Fetch<'_> {
    /// How many bytes are worth an answer before the wait is over. Default 1.
    pub fn min_bytes(mut self, bytes: i32) -> Self {
        self.min_bytes = bytes;
        self
    }

    /// How many bytes the answer should have at the most. A first batch larger than that comes all the same (KIP-74). Default
    /// 1 MiB: what stays in the cache is read fastest.
    pub fn max_bytes(mut self, bytes: i32) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long the broker may wait for the bytes. Default 500 ms; at the most half of
    /// [`Deadlines::operation`](crate::Deadlines::operation). Where sessions end, the wait may take several requests.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    async fn run(self) -> Result<Fetched, Error> {
        self.check_input()?;
        let core = &self.partition.core;
        let mut attempts = core.cluster.attempts(ApiKey::FETCH, core.place());
        let enough = usize::try_from(self.min_bytes.min(self.max_bytes)).unwrap_or_default();
        let mut wait = millis(self.max_wait.min(core.cluster.config.deadlines.operation / 2));
        loop {
            let mut used = 0;
            let begun = Instant::now();
            let attempt = self.attempt(wait, attempts.stale(), &mut used);
            let error = match attempts.within(attempt).await {
                Ok((fetched, waited)) => {
                    // A session that is to be renewed left no room for the whole wait: what is left of it comes now.
                    let cut = waited < wait && begun.elapsed() >= waited;
                    wait = millis(wait.saturating_sub(begun.elapsed()));
                    if fetched.wire_bytes >= enough || !cut || wait.is_zero() {
                        return Ok(fetched);
                    }
                    continue;
                }
                Err(Error::OffsetOutOfRange { offset, at, .. }) => {
                    let log = self.partition.log_range(&attempts).await;
                    return Err(Error::OffsetOutOfRange { offset, log, at });
                }
                Err(error) => error,
            };
            core.again(&mut attempts, error, used).await?;
        }
    }

    fn check_input(&self) -> Result<(), Error> {
        let what = match self {
            Self { offset: ..0, .. } => format!("offset {} is negative", self.offset),
            Self { min_bytes: ..0, .. } => format!("min_bytes {} is negative", self.min_bytes),
            Self { max_bytes: ..1, .. } => {
                format!("max_bytes {} leaves no room for anything", self.max_bytes)
            }
            _ => return Ok(()),
        };
        Err(Error::InvalidInput(what))
    }

    /// Answers also for how long the broker was asked to wait: as long as wanted, or shorter.
    async fn attempt(
        &self,
        wait: Duration,
        stale: u64,
        used: &mut u64,
    ) -> Result<(Fetched, Duration), Error> {
        let core = &self.partition.core;
        let leader = core.leader(stale, used).await?;
        let lane = core.cluster.lane_of(&core.fetches, leader.id, ApiKey::FETCH, core.place()).await?;
        let wait = lane.wait(wait);
        let request = FetchRequest {
            max_wait_ms: i32::try_from(wait.time.as_millis()).unwrap_or(i32::MAX),
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            isolation_level: IsolationLevel::READ_UNCOMMITTED,
            topics: vec![FetchTopic {
                topic: core.topic.clone(),
                topic_id: core.topic_id,
                partitions: vec![FetchPartition {
                    partition: core.partition,
                    current_leader_epoch: leader.epoch,
                    fetch_offset: self.offset,
                    partition_max_bytes: self.max_bytes,
                    ..FetchPartition::default()
                }],
            }],
            ..FetchRequest::default()
        };
        let limit = core.cluster.config.deadlines.request + wait.time;
        let mut response = loop {
            let versions = versions::<FetchRequest>(core.has_topic_id());
            let response = lane.call(&request, core.place(), versions, Some(limit)).await?;
            // Over its quota a reader is answered without anything, and is to ask again after the pause (KIP-219), which the
            // connection waits for.
            let is_throttled = response.throttle_time_ms > 0 && response.responses.is_empty();
            if response.error_code.is_error() || !is_throttled {
                break response;
            }
        };
        let at = || core.place().at(ApiKey::FETCH, Some(lane.broker()));
        if response.error_code.is_error() {
            return Err(Error::Broker { code: response.error_code, message: None, at: at() });
        }
        let answer = response.responses.pop().and_then(|mut topic| topic.partitions.pop());
        let Some(answer) = answer.filter(|answer| answer.partition_index == core.partition) else {
            return Err(Error::NoAnswer { at: at() });
        };
        if leader_has_moved(answer.error_code) {
            let FetchLeader { leader_id, leader_epoch } = answer.current_leader;
            let endpoint = response.node_endpoints.iter().find(|told| told.node_id == leader_id);
            let address = endpoint.and_then(|told| address(&told.host, told.port));
            core.take_hint(leader_id, leader_epoch, address);
        }
        Ok((self.read(answer, at())?, wait.time))
    }

    fn read(&self, answer: FetchPartitionResponse, at: Box<crate::error::At>) -> Result<Fetched, Error> {
        match answer.error_code {
            ErrorCode::NONE => {}
            ErrorCode::OFFSET_OUT_OF_RANGE => {
                return Err(Error::OffsetOutOfRange { offset: self.offset, log: None, at });
            }
            code => return Err(Error::Broker { code, message: None, at }),
        }
        let bytes = answer.records.unwrap_or_default();
        let wire_bytes = bytes.len();
        let mut batches = Vec::new();
        for batch in Batches::new(bytes) {
            match batch {
                Ok(batch) => batches.push(batch),
                // What is whole before it can be read; the next fetch begins with it and tells.
                Err(_) if !batches.is_empty() => break,
                Err(source) => return Err(Error::Corrupt { at, source }),
            }
        }
        let said = |offset: i64| (offset >= 0).then_some(offset);
        let next_offset = batches.last().map_or(self.offset, |batch| batch.next_offset().max(self.offset));
        Ok(Fetched {
            from: self.offset,
            next_offset,
            high_watermark: answer.high_watermark,
            last_stable_offset: said(answer.last_stable_offset),
            log_start_offset: said(answer.log_start_offset),
            wire_bytes,
            batches,
            limit: self.partition.core.cluster.config.limits.decompressed,
            at,
        })
    }
}

/// As it goes over the wire.
fn millis(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

impl<'a> IntoFuture for Fetch<'a> {
    type Output = Result<Fetched, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
