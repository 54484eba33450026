//! What a connection does about a request.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kwal_protocol::{
    api::{ApiKey, Body},
    error::{DecodeError, EncodeError},
    messages::{
        ApiVersionsResponse, CreatePartitionsResponse, CreateTopicsResponse, DeleteRecordsResponse,
        DeleteTopicsResponse, DescribeClusterResponse, DescribeConfigsResponse, DescribeProducersResponse,
        FetchResponse, FindCoordinatorResponse, IncrementalAlterConfigsResponse, InitProducerIdResponse,
        ListOffsetsResponse, MetadataResponse, OffsetForLeaderEpochResponse, ProduceResponse,
    },
    writer::Frame,
};

use super::exchange::{Exchange, Work};
use crate::fault::Fault;

/// What a connection does about a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Send a frame after `delay`, in some manner; then read nothing for as long as `mute`.
    Reply { frame: Frame, delay: Duration, manner: Manner, mute: Duration },
    /// Send nothing; then read nothing for as long as `mute`.
    Nothing { mute: Duration },
    /// Ask [`Cluster::resume`](super::Cluster::resume) later.
    Wait(Waiting),
    /// Close the connection.
    Close(CloseReason),
    /// Never answer anything any more, and leave the connection open.
    Ignore,
}

/// How an answer goes out.
#[derive(Debug)]
pub(crate) enum Manner {
    Whole,
    /// Only so many bytes; then the connection is closed.
    Cut(usize),
    /// So many bytes at a time, with a pause before each but the first.
    Trickle {
        bytes: usize,
        pause: Duration,
    },
    /// These bytes go out in its place.
    Garbage(Bytes),
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) until: Instant,
    /// A change may end the wait earlier; else only time does.
    pub(crate) heeds_changes: bool,
    pub(super) exchange: Exchange,
    pub(super) work: Work,
}

/// Why a broker closes a connection.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum CloseReason {
    #[error("the header of a request is malformed")]
    Header(#[source] DecodeError),
    #[error("{api} is not spoken at version {version}")]
    Unsupported { api: ApiKey, version: i16 },
    #[error("a request of {api} at version {version} is malformed")]
    Body {
        api: ApiKey,
        version: i16,
        #[source]
        error: DecodeError,
    },
    #[error("a response of {api} cannot be written")]
    Response {
        api: ApiKey,
        #[source]
        error: EncodeError,
    },
    #[error("a produce request with acks = 0 failed")]
    AcksZero,
    #[error("a produce request has null instead of records")]
    NoRecords,
    #[error("{0}")]
    Sasl(&'static str),
    #[error("{0:?}")]
    Fault(Fault),
    #[error("the broker has closed the connection")]
    Ended,
}

/// A response that can ask for a pause.
pub(super) trait Throttled: Body + 'static {
    fn throttle_time_ms(&mut self) -> &mut i32;
}

macro_rules! throttled {
    ($($response:ty),* $(,)?) => {
        $(
            impl Throttled for $response {
                fn throttle_time_ms(&mut self) -> &mut i32 {
                    &mut self.throttle_time_ms
                }
            }
        )*
    };
}

throttled!(
    ApiVersionsResponse,
    CreatePartitionsResponse,
    CreateTopicsResponse,
    DeleteRecordsResponse,
    DeleteTopicsResponse,
    DescribeClusterResponse,
    DescribeConfigsResponse,
    DescribeProducersResponse,
    FetchResponse,
    FindCoordinatorResponse,
    IncrementalAlterConfigsResponse,
    InitProducerIdResponse,
    ListOffsetsResponse,
    MetadataResponse,
    OffsetForLeaderEpochResponse,
    ProduceResponse,
);
