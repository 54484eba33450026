//! Which versions of which API this client speaks: one table.
//!
//! The codec knows more. Below these ranges a request could not say what the client must say (Metadata 4 is the first that
//! can forbid to create a topic, OffsetForLeaderEpoch 2 the first that says which leader it takes the broker for, DescribeConfigs
//! 1 the first that tells where values come from, Produce 3 and Fetch 4 the first with today's record batches).

use kwal_protocol::{
    api::{Request, Versions},
    messages::{
        CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeClusterRequest, DescribeConfigsRequest, FetchRequest, IncrementalAlterConfigsRequest,
        InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
        ProduceRequest,
    },
};

/// A request that the client sends.
pub(crate) trait Speak: Request {
    const OURS: Versions;
    /// From this version on the request names topics by id, which the client may not know.
    const BY_TOPIC_ID: Option<i16>;

    /// For how long the broker wants this connection to pause, in milliseconds (KIP-219).
    fn throttle_time_ms(response: &Self::Response) -> i32;
}

macro_rules! speak {
    ($($request:ident $oldest:literal - $newest:literal $(, ids from $ids:literal)?;)*) => { $(
        impl Speak for $request {
            const OURS: Versions = Versions::new($oldest, $newest);
            const BY_TOPIC_ID: Option<i16> = [$(Some($ids),)? None][0];

            fn throttle_time_ms(response: &Self::Response) -> i32 {
                response.throttle_time_ms
            }
        }
    )* };
}

speak! {
    ProduceRequest 3-13, ids from 13;
    FetchRequest 4-17, ids from 13;
    ListOffsetsRequest 1-10;
    MetadataRequest 4-13;
    CreateTopicsRequest 2-7;
    DeleteTopicsRequest 1-6;
    DeleteRecordsRequest 0-2;
    InitProducerIdRequest 0-5;
    OffsetForLeaderEpochRequest 2-4;
    DescribeConfigsRequest 1-4;
    CreatePartitionsRequest 0-3;
    IncrementalAlterConfigsRequest 0-1;
    DescribeClusterRequest 0-2;
}

/// The versions to speak, with or without topic ids.
pub(crate) fn versions<R: Speak>(topic_id_known: bool) -> Versions {
    match R::BY_TOPIC_ID {
        Some(first) if !topic_id_known => Versions::new(R::OURS.oldest, first - 1),
        _ => R::OURS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_topic_id_versions_stay_below() {
        assert_eq!(versions::<ProduceRequest>(true), Versions::new(3, 13));
        assert_eq!(versions::<ProduceRequest>(false), Versions::new(3, 12));
        assert_eq!(versions::<MetadataRequest>(false), Versions::new(4, 13));
    }
}
