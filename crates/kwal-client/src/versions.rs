//! The API versions that this client speaks: one table.
//!
//! The codec supports more. Below these ranges a request could not express what the client needs: Metadata 4 is the first that
//! can forbid topic creation, OffsetForLeaderEpoch 2 the first with the current leader epoch, DescribeConfigs 1 the first that
//! reports where values come from, Produce 3 and Fetch 4 the first with today's record batches.

use std::time::Duration;

use kwal_protocol::{
    api::{Request, Versions, decode_response_header},
    connection::RawResponse,
    error::DecodeError,
    messages::{
        CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeClusterRequest, DescribeConfigsRequest, FetchRequest, IncrementalAlterConfigsRequest,
        InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
        ProduceRequest,
    },
};

/// A request that the client sends.
pub(crate) trait ClientRequest: Request {
    /// The versions that the client speaks.
    const SUPPORTED: Versions;
    /// The first version that names topics by id, which the client may not know.
    const BY_TOPIC_ID: Option<i16>;

    /// Returns how long a response wants its connection to pause (KIP-219), without decoding more of it than needed.
    ///
    /// Zero also if the response is malformed, which its decoder reports.
    fn throttle_time(response: &RawResponse) -> Duration;

    /// The versions to negotiate.
    fn supported(is_topic_id_known: bool) -> Versions {
        match Self::BY_TOPIC_ID {
            Some(first) if !is_topic_id_known => Versions::new(Self::SUPPORTED.oldest, first - 1),
            _ => Self::SUPPORTED,
        }
    }
}

macro_rules! supported {
    ($($request:ident $oldest:literal - $newest:literal $(, ids from $ids:literal)?, throttle time $place:ident $(from $first:literal)?;)*) => { $(
        impl ClientRequest for $request {
            const SUPPORTED: Versions = Versions::new($oldest, $newest);
            const BY_TOPIC_ID: Option<i16> = [$(Some($ids),)? None][0];

            fn throttle_time(response: &RawResponse) -> Duration {
                $( if response.version().number < $first { return Duration::ZERO; } )?
                let ms = throttle_time_ms!($place, $request, response);
                Duration::from_millis(u64::try_from(ms.unwrap_or_default()).unwrap_or_default())
            }
        }
    )* };
}

macro_rules! throttle_time_ms {
    (first, $request:ident, $response:ident) => {
        first_i32::<$request>($response)
    };
    (last, $request:ident, $response:ident) => {
        $response.decode::<$request>().map(|response| response.throttle_time_ms)
    };
}

/// Reads the first field of a response.
fn first_i32<R: Request>(response: &RawResponse) -> Result<i32, DecodeError> {
    let (_, mut body) = decode_response_header::<R::Response>(response.frame(), response.version())?;
    Ok(i32::from_be_bytes(body.array()?))
}

supported! {
    ProduceRequest 3-13, ids from 13, throttle time last;
    FetchRequest 4-17, ids from 13, throttle time first;
    ListOffsetsRequest 1-10, throttle time first from 2;
    MetadataRequest 4-13, throttle time first;
    CreateTopicsRequest 2-7, throttle time first;
    DeleteTopicsRequest 1-6, throttle time first;
    DeleteRecordsRequest 0-2, throttle time first;
    InitProducerIdRequest 0-5, throttle time first;
    OffsetForLeaderEpochRequest 2-4, throttle time first;
    DescribeConfigsRequest 1-4, throttle time first;
    CreatePartitionsRequest 0-3, throttle time first;
    IncrementalAlterConfigsRequest 0-1, throttle time first;
    DescribeClusterRequest 0-2, throttle time first;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_topic_id_versions_stay_below() {
        assert_eq!(ProduceRequest::supported(true), Versions::new(3, 13));
        assert_eq!(ProduceRequest::supported(false), Versions::new(3, 12));
        assert_eq!(MetadataRequest::supported(false), Versions::new(4, 13));
    }
}
