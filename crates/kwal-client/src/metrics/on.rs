//! Metrics, with the feature.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::metrics::{Counter, Gauge, Histogram};
use kwal_protocol::{
    api::ApiKey,
    connection::{EncodedRequest, RawResponse},
    record::{Batch, Compression, EncodedBatch},
};
use tokio::time::Instant;

use super::table::{self, Metric};
use crate::{
    error::{Class, Error, Outcome},
    state::Purpose,
};

/// Describes the metrics to the recorder.
pub(crate) fn describe() {
    table::ALL.iter().for_each(Metric::describe);
}

/// An attempt has failed, and another one follows.
pub(crate) fn retried(api: ApiKey, error: &Error) {
    table::RETRIES.counter(&[&api.to_string(), &Class(error).to_string()]).increment(1);
}

/// A call has ended with an error.
pub(crate) fn call_failed(api: ApiKey, error: &Error) {
    table::CALL_FAILURES.counter(&[&api.to_string(), &Class(error).to_string()]).increment(1);
}

/// The connections to a broker for one purpose.
#[derive(Clone, Debug)]
pub(crate) struct BrokerMetrics {
    broker: String,
    purpose: Purpose,
}

impl BrokerMetrics {
    /// `broker` is its id, unless it is a bootstrap address.
    pub(crate) fn new(broker: Option<i32>, purpose: Purpose) -> Self {
        Self { broker: broker.map_or_else(|| "bootstrap".to_owned(), |id| id.to_string()), purpose }
    }

    /// An attempt to connect has failed.
    pub(crate) fn not_connected(&self, error: &Error) {
        table::CONNECT_FAILURES.counter(&[&self.broker, &Class(error).to_string()]).increment(1);
    }

    /// Returns the metrics of a connection that is not open yet.
    pub(crate) fn connection(&self) -> ConnectionMetrics {
        let labels = &[&*self.broker, self.purpose.name()];
        ConnectionMetrics {
            broker: self.broker.clone(),
            apis: Vec::new(),
            in_flight: table::REQUESTS_IN_FLIGHT.gauge(labels),
            counted: 0,
            throttle: table::THROTTLE.histogram(&labels[..1]),
            opened: table::CONNECTIONS_OPENED.counter(labels),
            closed: table::CONNECTIONS_CLOSED.counter(labels),
            open: table::CONNECTIONS_OPEN.gauge(labels),
            is_open: false,
        }
    }
}

/// A connection. When it is dropped, gauges no longer count it.
#[derive(Debug)]
pub(crate) struct ConnectionMetrics {
    broker: String,
    /// Those that were used.
    apis: Vec<(ApiKey, ApiMetrics)>,
    in_flight: Gauge,
    /// How many requests the gauge counts.
    counted: usize,
    throttle: Histogram,
    opened: Counter,
    closed: Counter,
    open: Gauge,
    is_open: bool,
}

/// The requests of one API.
#[derive(Debug)]
struct ApiMetrics {
    requests: Counter,
    request_bytes: Counter,
    response_bytes: Counter,
    queue: Histogram,
    duration: Histogram,
}

impl ConnectionMetrics {
    /// The connection is ready for requests.
    pub(crate) fn opened(&mut self) {
        self.is_open = true;
        self.opened.increment(1);
        self.open.increment(1);
    }

    /// The last byte of a request was written.
    pub(crate) fn written(&mut self, now: Instant, request: &mut RequestTiming) {
        request.written = Some(now);
        let metrics = self.api(request.api);
        metrics.requests.increment(1);
        metrics.request_bytes.increment(request.bytes);
        metrics.queue.record(now.saturating_duration_since(request.begun));
    }

    /// The response to a request has arrived.
    pub(crate) fn responded(&mut self, request: &RequestTiming, response: &RawResponse) {
        let metrics = self.api(request.api);
        metrics.response_bytes.increment(response.frame().len() as u64);
        if let Some(written) = request.written {
            metrics.duration.record(written.elapsed());
        }
    }

    /// The broker demands a pause.
    pub(crate) fn throttled(&self, pause: Duration) {
        self.throttle.record(pause);
    }

    /// So many requests have no response yet.
    pub(crate) fn in_flight(&mut self, count: usize) {
        if count != self.counted {
            self.in_flight.increment(count as f64 - self.counted as f64);
            self.counted = count;
        }
    }

    fn api(&mut self, api: ApiKey) -> &ApiMetrics {
        let found = self.apis.iter().position(|(known, _)| *known == api);
        let index = found.unwrap_or_else(|| {
            let labels = &[&*api.to_string(), &*self.broker];
            let metrics = ApiMetrics {
                requests: table::REQUESTS.counter(labels),
                request_bytes: table::REQUEST_BYTES.counter(labels),
                response_bytes: table::RESPONSE_BYTES.counter(labels),
                queue: table::REQUEST_QUEUE.histogram(labels),
                duration: table::REQUEST_DURATION.histogram(labels),
            };
            self.apis.push((api, metrics));
            self.apis.len() - 1
        });
        &self.apis[index].1
    }
}

impl Drop for ConnectionMetrics {
    fn drop(&mut self) {
        self.in_flight(0);
        if self.is_open {
            self.closed.increment(1);
            self.open.decrement(1);
        }
    }
}

/// The times of a request.
#[derive(Debug)]
pub(crate) struct RequestTiming {
    api: ApiKey,
    bytes: u64,
    begun: Instant,
    written: Option<Instant>,
}

impl RequestTiming {
    /// A connection is given a request.
    pub(crate) fn begin(request: &EncodedRequest) -> Self {
        Self {
            api: request.key(),
            bytes: request.size_in_bytes() as u64,
            begun: Instant::now(),
            written: None,
        }
    }
}

/// The memory budget of a client.
#[derive(Debug)]
pub(crate) struct BudgetMetrics {
    limit: Gauge,
    bytes: usize,
}

impl BudgetMetrics {
    pub(crate) fn new(bytes: usize) -> Self {
        let limit = table::MEMORY_LIMIT.gauge(&[]);
        limit.increment(bytes as f64);
        Self { limit, bytes }
    }
}

impl Drop for BudgetMetrics {
    fn drop(&mut self) {
        self.limit.decrement(self.bytes as f64);
    }
}

/// What appends or reads hold of a budget.
#[derive(Debug)]
pub(crate) struct UsageMetrics {
    used: Gauge,
    waits: Counter,
}

impl UsageMetrics {
    pub(crate) fn new(side: &str) -> Self {
        Self { used: table::MEMORY_USED.gauge(&[side]), waits: table::MEMORY_WAITS.counter(&[side]) }
    }

    /// They hold so many bytes, and held so many before.
    pub(crate) fn changed(&self, before: usize, now: usize) {
        self.used.increment(now as f64 - before as f64);
    }

    /// One of them has to wait.
    pub(crate) fn waited(&self) {
        self.waits.increment(1);
    }
}

/// The appends and the fetches of a partition client. They are registered when the first one ends.
#[derive(Debug)]
pub(crate) struct PartitionMetrics {
    topic: Arc<str>,
    partition: String,
    appends: OnceLock<AppendMetrics>,
    fetches: OnceLock<FetchMetrics>,
}

#[derive(Debug)]
struct AppendMetrics {
    records: Counter,
    bytes: Counter,
    duration: Histogram,
    in_doubt: Counter,
    fenced: Counter,
    is_fenced: AtomicBool,
}

#[derive(Debug)]
struct FetchMetrics {
    records: Counter,
    bytes: Counter,
}

impl PartitionMetrics {
    pub(crate) fn new(topic: &Arc<str>, partition: i32) -> Self {
        Self {
            topic: Arc::clone(topic),
            partition: partition.to_string(),
            appends: OnceLock::new(),
            fetches: OnceLock::new(),
        }
    }

    /// A batch was acknowledged.
    pub(crate) fn appended(&self, timing: AppendTiming, records: usize, bytes: usize) {
        let metrics = self.appends();
        metrics.records.increment(records as u64);
        metrics.bytes.increment(bytes as u64);
        metrics.duration.record(timing.begun.elapsed());
    }

    /// A batch has ended with an error.
    pub(crate) fn append_failed(&self, error: &Error) {
        let metrics = self.appends();
        table::APPEND_FAILURES
            .counter(&[&self.topic, &self.partition, &Class(error).to_string()])
            .increment(1);
        if error.outcome() == Outcome::Unknown {
            metrics.in_doubt.increment(1);
        }
    }

    /// Another writer has taken over. Counted once, however often it is reported.
    pub(crate) fn fenced(&self) {
        let metrics = self.appends();
        if !metrics.is_fenced.swap(true, Ordering::Relaxed) {
            metrics.fenced.increment(1);
        }
    }

    /// A fetch has ended.
    pub(crate) fn fetched(&self, bytes: usize, batches: &[Batch]) {
        let metrics = self.fetches.get_or_init(|| {
            let labels = &[&*self.topic, &*self.partition];
            FetchMetrics {
                records: table::FETCHED_RECORDS.counter(labels),
                bytes: table::FETCHED_BYTES.counter(labels),
            }
        });
        let records = batches.iter().filter(|batch| !batch.is_control());
        let records = records.map(|batch| u64::try_from(batch.header().count).unwrap_or_default());
        metrics.records.increment(records.sum());
        metrics.bytes.increment(bytes as u64);
    }

    fn appends(&self) -> &AppendMetrics {
        self.appends.get_or_init(|| {
            let labels = &[&*self.topic, &*self.partition];
            AppendMetrics {
                records: table::APPENDED_RECORDS.counter(labels),
                bytes: table::APPENDED_BYTES.counter(labels),
                duration: table::APPEND_DURATION.histogram(labels),
                in_doubt: table::APPENDS_IN_DOUBT.counter(labels),
                fenced: table::FENCED.counter(labels),
                is_fenced: AtomicBool::new(false),
            }
        })
    }
}

/// When an append began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppendTiming {
    begun: Instant,
}

impl AppendTiming {
    /// An append that has so long, until then.
    pub(crate) fn begin(until: Instant, after: Duration) -> Self {
        Self { begun: until.checked_sub(after).unwrap_or(until) }
    }
}

/// The batches of a batch producer. They are registered at the first one.
#[derive(Debug)]
pub struct BatchMetrics {
    topic: String,
    partition: String,
    registered: OnceLock<RegisteredBatchMetrics>,
}

#[derive(Debug)]
struct RegisteredBatchMetrics {
    records: Histogram,
    bytes: Histogram,
    compression: OnceLock<Histogram>,
    gather: Histogram,
}

impl BatchMetrics {
    /// Of a producer to this partition.
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { topic: topic.to_owned(), partition: partition.to_string(), registered: OnceLock::new() }
    }

    /// A batch is submitted whose records were gathered for so long.
    pub fn submitted(&self, batch: &EncodedBatch, gathered: Duration) {
        let labels = &[&*self.topic, &*self.partition];
        let metrics = self.registered.get_or_init(|| RegisteredBatchMetrics {
            records: table::BATCH_RECORDS.histogram(labels),
            bytes: table::BATCH_BYTES.histogram(labels),
            compression: OnceLock::new(),
            gather: table::BATCH_GATHER.histogram(labels),
        });
        metrics.records.record(batch.record_count() as f64);
        metrics.bytes.record(batch.size_in_bytes() as f64);
        metrics.gather.record(gathered);
        if batch.compression() != Compression::None {
            let compression = metrics.compression.get_or_init(|| table::BATCH_COMPRESSION.histogram(labels));
            compression.record(batch.uncompressed_size() as f64 / batch.size_in_bytes() as f64);
        }
    }
}

/// A reader. When it is dropped, the gauge no longer counts it.
#[derive(Debug)]
pub struct ReaderMetrics {
    lag: Gauge,
    /// What the gauge counts.
    counted: i64,
}

impl ReaderMetrics {
    /// Of a reader of this partition.
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { lag: table::READER_LAG.gauge(&[topic, &partition.to_string()]), counted: 0 }
    }

    /// So many offsets are left to the end of the log.
    pub fn lag(&mut self, lag: i64) {
        if lag != self.counted {
            self.lag.increment(lag as f64 - self.counted as f64);
            self.counted = lag;
        }
    }
}

impl Drop for ReaderMetrics {
    fn drop(&mut self) {
        self.lag(0);
    }
}
