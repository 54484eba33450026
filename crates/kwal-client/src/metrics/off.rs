//! Without the feature: nothing.

use std::{sync::Arc, time::Duration};

use kwal_protocol::{
    api::ApiKey,
    connection::{EncodedRequest, RawResponse},
    record::{Batch, EncodedBatch},
};
use tokio::time::Instant;

use crate::{error::Error, state::Purpose};

#[inline]
pub(crate) fn describe() {}

#[inline]
pub(crate) fn retried(_api: ApiKey, _error: &Error) {}

#[inline]
pub(crate) fn call_failed(_api: ApiKey, _error: &Error) {}

#[derive(Clone, Debug)]
pub(crate) struct BrokerMetrics;

impl BrokerMetrics {
    #[inline]
    pub(crate) fn new(_broker: Option<i32>, _purpose: Purpose) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn not_connected(&self, _error: &Error) {}

    #[inline]
    pub(crate) fn connection(&self) -> ConnectionMetrics {
        ConnectionMetrics
    }
}

#[derive(Debug)]
pub(crate) struct ConnectionMetrics;

#[allow(clippy::needless_pass_by_ref_mut, reason = "as with the feature")]
impl ConnectionMetrics {
    #[inline]
    pub(crate) fn opened(&mut self) {}

    #[inline]
    pub(crate) fn written(&mut self, _now: Instant, _request: &mut RequestTiming) {}

    #[inline]
    pub(crate) fn responded(&mut self, _request: &RequestTiming, _response: &RawResponse) {}

    #[inline]
    pub(crate) fn throttled(&self, _pause: Duration) {}

    #[inline]
    pub(crate) fn in_flight(&mut self, _count: usize) {}
}

#[derive(Debug)]
pub(crate) struct RequestTiming;

impl RequestTiming {
    #[inline]
    pub(crate) fn begin(_request: &EncodedRequest) -> Self {
        Self
    }
}

#[derive(Debug)]
pub(crate) struct BudgetMetrics;

impl BudgetMetrics {
    #[inline]
    pub(crate) fn new(_bytes: usize) -> Self {
        Self
    }
}

#[derive(Debug)]
pub(crate) struct UsageMetrics;

impl UsageMetrics {
    #[inline]
    pub(crate) fn new(_side: &str) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn changed(&self, _before: usize, _now: usize) {}

    #[inline]
    pub(crate) fn waited(&self) {}
}

#[derive(Debug)]
pub(crate) struct PartitionMetrics;

impl PartitionMetrics {
    #[inline]
    pub(crate) fn new(_topic: &Arc<str>, _partition: i32) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn appended(&self, _timing: AppendTiming, _records: usize, _bytes: usize) {}

    #[inline]
    pub(crate) fn append_failed(&self, _error: &Error) {}

    #[inline]
    pub(crate) fn fenced(&self) {}

    #[inline]
    pub(crate) fn fetched(&self, _bytes: usize, _batches: &[Batch]) {}
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct AppendTiming;

impl AppendTiming {
    #[inline]
    pub(crate) fn begin(_until: Instant, _after: Duration) -> Self {
        Self
    }
}

/// The batches of a batch producer.
#[derive(Debug)]
pub struct BatchMetrics;

impl BatchMetrics {
    /// Of a producer to this partition.
    #[inline]
    pub fn new(_topic: &str, _partition: i32) -> Self {
        Self
    }

    /// A batch is submitted whose records were gathered for so long.
    #[inline]
    pub fn submitted(&self, _batch: &EncodedBatch, _gathered: Duration) {}
}

/// A reader.
#[derive(Debug)]
pub struct ReaderMetrics;

#[allow(clippy::needless_pass_by_ref_mut, reason = "as with the feature")]
impl ReaderMetrics {
    /// Of a reader of this partition.
    #[inline]
    pub fn new(_topic: &str, _partition: i32) -> Self {
        Self
    }

    /// So many offsets are left to the end of the log.
    #[inline]
    pub fn lag(&mut self, _lag: i64) {}
}
