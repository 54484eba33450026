//! The API versions that this client speaks: one table.
//!
//! The codec supports more. Below these ranges a request could not express what the client needs: Metadata 4
//! is the first that can forbid topic creation, OffsetForLeaderEpoch 2 the first with the current leader
//! epoch, DescribeConfigs 1 the first that reports where values come from, Produce 3 and Fetch 4 the first
//! with today's record batches, FindCoordinator 1 the first that finds those of transactional ids. From its
//! version 4 on, the request has another shape and nothing else that is needed.

use std::time::Duration;

use kwal_protocol::{
    api::{Request, Versions, decode_response_header},
    connection::RawResponse,
    error::DecodeError,
    messages::{
        CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeClusterRequest, DescribeConfigsRequest, DescribeProducersRequest, FetchRequest,
        FindCoordinatorRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, ListOffsetsRequest,
        MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest, ProduceResponse,
    },
    reader::Reader,
    wire::Version,
};

/// A request that the client sends.
pub(crate) trait ClientRequest: Request {
    /// The versions that the client speaks.
    const SUPPORTED: Versions;
    /// The first version that names topics by id, which the client may not know.
    const BY_TOPIC_ID: Option<i16>;

    /// Returns how long a response wants its connection to pause (KIP-219), without decoding more of it than
    /// needed.
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
    )*
        /// The APIs of the table.
        #[cfg(test)]
        const APIS: &[kwal_protocol::api::ApiKey] = &[$(<$request as kwal_protocol::api::Body>::KEY),*];
    };
}

macro_rules! throttle_time_ms {
    (first, $request:ident, $response:ident) => {
        first_i32::<$request>($response)
    };
    (last, $request:ident, $response:ident) => {
        skip_results($response)
    };
}

/// Reads the first field of a response.
fn first_i32<R: Request>(response: &RawResponse) -> Result<i32, DecodeError> {
    let (_, mut body) = decode_response_header::<R::Response>(response.frame(), response.version())?;
    Ok(i32::from_be_bytes(body.array()?))
}

/// Reads the throttle time of a Produce response, which is after the results, without decoding those: it is
/// read of every append.
fn skip_results(response: &RawResponse) -> Result<i32, DecodeError> {
    // The usual response has none.
    if response.appended().is_some() {
        return Ok(0);
    }
    let version = response.version();
    let (_, mut body) = decode_response_header::<ProduceResponse>(response.frame(), version)?;
    let number = version.number;
    for _ in 0..count(&mut body, version)? {
        match number {
            13.. => body.skip(16)?,
            _ => skip_string(&mut body, version)?,
        }
        for _ in 0..count(&mut body, version)? {
            // Partition, error code, offset; log append time; log start offset.
            body.skip(4 + 2 + 8 + if number >= 2 { 8 } else { 0 } + if number >= 5 { 8 } else { 0 })?;
            if number >= 8 {
                for _ in 0..count(&mut body, version)? {
                    body.skip(4)?;
                    skip_string(&mut body, version)?;
                    skip_tags(&mut body, version)?;
                }
                skip_string(&mut body, version)?;
            }
            skip_tags(&mut body, version)?;
        }
        skip_tags(&mut body, version)?;
    }
    let throttle_time_ms = i32::from_be_bytes(body.array()?);
    skip_tags(&mut body, version)?;
    body.finish()?;
    Ok(throttle_time_ms)
}

/// Reads the number of elements of an array. Each of them has bytes, so that too many end with an error.
fn count(body: &mut Reader<'_>, version: Version) -> Result<u32, DecodeError> {
    match version.flexible {
        true => Ok(body.uvarint()?.saturating_sub(1)),
        false => Ok(u32::try_from(i32::from_be_bytes(body.array()?)).unwrap_or_default()),
    }
}

fn skip_string(body: &mut Reader<'_>, version: Version) -> Result<(), DecodeError> {
    match version.flexible {
        true => {
            let len = body.uvarint()?.saturating_sub(1);
            body.skip(len as usize)
        }
        false => {
            let len = i16::from_be_bytes(body.array()?);
            body.skip(usize::try_from(len).unwrap_or_default())
        }
    }
}

fn skip_tags(body: &mut Reader<'_>, version: Version) -> Result<(), DecodeError> {
    if version.flexible {
        for _ in 0..body.uvarint()? {
            body.uvarint()?;
            let len = body.uvarint()?;
            body.skip(len as usize)?;
        }
    }
    Ok(())
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
    DescribeProducersRequest 0-0, throttle time first;
    FindCoordinatorRequest 1-3, throttle time first;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::{Buf, BytesMut};
    use kwal_protocol::{
        api::{ApiKey, encode_response},
        connection::{Connection, ConnectionConfig, Event},
        messages::{
            ApiVersion, ApiVersionsResponse, CreatePartitionsResponse, CreateTopicsResponse,
            DeleteRecordsResponse, DeleteTopicsResponse, DescribeClusterResponse, DescribeConfigsResponse,
            DescribeProducersResponse, FetchResponse, FindCoordinatorResponse,
            IncrementalAlterConfigsResponse, InitProducerIdResponse, ListOffsetsResponse,
            ListOffsetsTopicResponse, MetadataResponse, OffsetForLeaderEpochResponse, ProduceLeader,
            ProduceNodeEndpoint, ProducePartitionResponse, ProduceTopicResponse, RecordError,
        },
    };
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn without_a_topic_id_versions_stay_below() {
        assert_eq!(ProduceRequest::supported(true), Versions::new(3, 13));
        assert_eq!(ProduceRequest::supported(false), Versions::new(3, 12));
        assert_eq!(MetadataRequest::supported(false), Versions::new(4, 13));
    }

    /// A response as a connection returns it; only its first bytes, as many as `len`, after its length.
    fn received<R: ClientRequest>(
        request: &R,
        response: &R::Response,
        version: i16,
        len: Option<usize>,
    ) -> RawResponse {
        let now = Instant::now().into_std();
        let mut connection = Connection::new(ConnectionConfig::default(), now);
        let (id, _) = connection.poll_transmit().unwrap();
        let api = ApiVersion { api_key: R::KEY, min_version: version, max_version: version };
        let versions = ApiVersionsResponse { api_keys: vec![api], ..Default::default() };
        let mut frame = encode_response(&versions, 4, id.0).unwrap();
        let mut inbox = BytesMut::from(frame.copy_to_bytes(frame.remaining()));
        connection.handle_input(now, &mut inbox).unwrap();
        let Some(Event::Ready(versions)) = connection.poll_event() else { panic!("not ready") };
        connection.send(now, versions.encode(request, R::SUPPORTED).unwrap(), ()).unwrap();
        let (id, _) = connection.poll_transmit().unwrap();
        let mut frame = encode_response(response, version, id.0).unwrap();
        let mut frame = frame.copy_to_bytes(frame.remaining()).slice(4..);
        frame.truncate(len.unwrap_or(frame.len()));
        inbox.extend_from_slice(&(frame.len() as i32).to_be_bytes());
        inbox.extend_from_slice(&frame);
        connection.handle_input(now, &mut inbox).unwrap();
        let Some(Event::Response((), response)) = connection.poll_event() else { panic!("no response") };
        response
    }

    /// Checks the throttle time in each version of a request, in responses that `with` makes of milliseconds.
    fn check<R: ClientRequest>(request: &R, with: impl Fn(i32) -> R::Response) -> ApiKey {
        let Versions { oldest, newest } = R::SUPPORTED;
        for version in oldest..=newest {
            let read = |ms, len| R::throttle_time(&received(request, &with(ms), version, len));
            let is_reported = (R::KEY, version) != (ApiKey::LIST_OFFSETS, 1);
            for ms in [0, 1, 0x0102_0304, i32::MAX] {
                let expected = if is_reported { ms as u64 } else { 0 };
                assert_eq!(read(ms, None), Duration::from_millis(expected), "{} {version}: {ms}", R::KEY);
            }
            assert_eq!(read(-1, None), Duration::ZERO, "{} {version}: negative", R::KEY);
            // The correlation id, then at most the tagged fields of the header and half of the throttle time.
            for len in 4..8 {
                assert_eq!(read(i32::MAX, Some(len)), Duration::ZERO, "{} {version}: {len} bytes", R::KEY);
            }
        }
        R::KEY
    }

    #[test]
    fn throttle_times_are_read_in_every_version() {
        // Without acks, the broker does not respond.
        let produce = ProduceRequest { acks: -1, ..Default::default() };
        let mut checked = vec![
            check(&produce, |throttle_time_ms| ProduceResponse {
                responses: vec![ProduceTopicResponse::default(); 2],
                throttle_time_ms,
                ..Default::default()
            }),
            // In version 1 it begins with the number of topics.
            check(&ListOffsetsRequest::default(), |throttle_time_ms| ListOffsetsResponse {
                throttle_time_ms,
                topics: vec![ListOffsetsTopicResponse::default(); 2],
            }),
        ];
        macro_rules! check {
            ($($request:ident $response:ident,)*) => {
                $( checked.push(check(&$request::default(), |throttle_time_ms| $response {
                    throttle_time_ms,
                    ..Default::default()
                })); )*
            };
        }
        check! {
            FetchRequest FetchResponse,
            MetadataRequest MetadataResponse,
            CreateTopicsRequest CreateTopicsResponse,
            DeleteTopicsRequest DeleteTopicsResponse,
            DeleteRecordsRequest DeleteRecordsResponse,
            InitProducerIdRequest InitProducerIdResponse,
            OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse,
            DescribeConfigsRequest DescribeConfigsResponse,
            CreatePartitionsRequest CreatePartitionsResponse,
            IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
            DescribeClusterRequest DescribeClusterResponse,
            DescribeProducersRequest DescribeProducersResponse,
            FindCoordinatorRequest FindCoordinatorResponse,
        }
        let (checked, all): (BTreeSet<_>, BTreeSet<_>) = (checked.iter().collect(), APIS.iter().collect());
        assert_eq!(checked, all);
    }

    #[test]
    fn results_are_skipped_whatever_they_have() {
        let request = ProduceRequest { acks: -1, ..Default::default() };
        let error = |message: Option<&str>| RecordError {
            batch_index: 3,
            batch_index_error_message: message.map(str::to_owned),
        };
        let long = "x".repeat(300);
        let rejected = ProducePartitionResponse {
            record_errors: vec![error(None), error(Some(&long)), error(Some(""))],
            error_message: Some(long.clone()),
            current_leader: ProduceLeader { leader_id: 2, leader_epoch: 9 },
            ..Default::default()
        };
        let topic = |name: &str, count| ProduceTopicResponse {
            name: name.to_owned(),
            partition_responses: vec![rejected.clone(); count],
            ..Default::default()
        };
        let endpoint =
            ProduceNodeEndpoint { node_id: 2, host: "two".to_owned(), port: 9092, rack: Some(long.clone()) };
        let Versions { oldest, newest } = ProduceRequest::SUPPORTED;
        for version in oldest..=newest {
            for (responses, node_endpoints) in [
                (vec![], vec![]),
                (vec![topic("", 0), topic(&long, 1)], vec![endpoint.clone(), ProduceNodeEndpoint::default()]),
                (vec![topic("wal", 200)], vec![]),
            ] {
                let mut response = ProduceResponse { responses, throttle_time_ms: 1_234, node_endpoints };
                if version < 10 {
                    response.node_endpoints.clear();
                    let partitions =
                        response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses);
                    partitions.for_each(|partition| partition.current_leader = ProduceLeader::default());
                }
                let received = received(&request, &response, version, None);
                assert_eq!(received.decode::<ProduceRequest>().unwrap().throttle_time_ms, 1_234);
                assert_eq!(
                    ProduceRequest::throttle_time(&received),
                    Duration::from_millis(1_234),
                    "{version}"
                );
            }
        }
    }

    #[test]
    fn a_throttle_time_at_the_end_needs_the_whole_response() {
        let request = ProduceRequest { acks: -1, ..Default::default() };
        let response = ProduceResponse {
            responses: vec![ProduceTopicResponse::default()],
            throttle_time_ms: i32::MAX,
            ..Default::default()
        };
        let Versions { oldest, newest } = ProduceRequest::SUPPORTED;
        for version in oldest..=newest {
            let whole = received(&request, &response, version, None).frame().len();
            for len in 4..whole {
                let cut = received(&request, &response, version, Some(len));
                assert_eq!(
                    ProduceRequest::throttle_time(&cut),
                    Duration::ZERO,
                    "{version}: {len} of {whole}"
                );
            }
        }
    }
}
