//! How one API is handled: a request type that carries itself out.

use std::time::Instant;

use kwal_protocol::{
    api::{Body, Request},
    error_code::ErrorCode,
    messages::{
        ApiVersionsResponse, CreatePartitionsResponse, CreateTopicsResponse, DeleteRecordsResponse,
        DeleteTopicsResponse, DescribeClusterResponse, DescribeConfigsResponse, DescribeProducersResponse,
        FetchResponse, FindCoordinatorResponse, IncrementalAlterConfigsResponse, InitProducerIdResponse,
        ListOffsetsResponse, MetadataResponse, OffsetForLeaderEpochResponse, ProduceResponse,
    },
};

use super::{
    action::{CloseReason, Continuation},
    request::RequestContext,
    state::Cluster,
};

/// An API as the cluster answers it.
pub(super) trait Serve: Request<Response: Throttled> {
    /// The answer that says `code` wherever it can.
    fn error_response(&self, cluster: &Cluster, code: ErrorCode) -> Self::Response;

    /// Carries the request out.
    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<Self::Response>;
}

/// What came of a request.
pub(super) enum Served<Response> {
    Reply(Response),
    /// No answer was wanted.
    Silent {
        failed: bool,
    },
    Close(CloseReason),
    Wait {
        until: Instant,
        resume: Continuation<Self>,
    },
}

/// A response that can ask for a pause.
pub(super) trait Throttled: Body + Send + 'static {
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
