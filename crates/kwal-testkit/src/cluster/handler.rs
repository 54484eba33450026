//! The interface of one API: a request type that handles itself.

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

/// An API that the cluster implements.
pub(super) trait Serve: Request<Response: Throttled> {
    /// Returns the response with `code` in every place that has one.
    fn error_response(&self, cluster: &Cluster, code: ErrorCode) -> Self::Response;

    /// Handles the request.
    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<Self::Response>;
}

/// The result of a request.
pub(super) enum Served<Response> {
    Reply(Response),
    /// The client expects no response.
    Silent {
        failed: bool,
    },
    Close(CloseReason),
    Wait {
        until: Instant,
        resume: Continuation<Self>,
    },
}

/// A response with a throttle time.
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
