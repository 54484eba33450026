//! Requests of kwal-protocol on a connection without a client.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use kwal_protocol::api::{ApiKey, Body, Request, Versions, decode_response_header, encode_request};
use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
    MetadataRequest, MetadataResponse, MetadataTopic,
};
use kwal_protocol::wire::{Uuid, Wire as _};
use kwal_tests::kafka::Kafka;
use kwal_transport::{Connect, Stream, Tcp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A connection that exchanges frames one at a time.
pub(crate) struct Broker {
    stream: Stream,
    client_id: String,
    versions: ApiVersionsResponse,
    correlation_id: i32,
    /// The correlation ids of the expected responses.
    awaited: VecDeque<i32>,
}

/// A feature that some tests need and some brokers lack.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ability {
    Quotas,
    DeleteRecords,
    Transactions,
}

/// Returns whether the brokers lack a feature, and reports it, since the test covers less without.
pub(crate) async fn lacks(kafka: &Kafka, ability: Ability) -> bool {
    let api = match ability {
        // AlterClientQuotas and EndTxn, which the client never calls.
        Ability::Quotas => ApiKey(49),
        Ability::Transactions => ApiKey(26),
        Ability::DeleteRecords => ApiKey::DELETE_RECORDS,
    };
    let address = &kafka.bootstrap()[0];
    let lacks = Broker::connect(address).await.versions_of_api(api).is_none();
    if lacks {
        kwal_tests::report(format_args!(
            "{address} does not support {api}: skipping the parts that need {ability:?}"
        ));
    }
    lacks
}

impl Broker {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = Tcp::default().connect(&address.parse().unwrap()).await.unwrap();
        Self::over(stream, "kwal-tests").await
    }

    /// Uses an open stream.
    pub(crate) async fn over(stream: Stream, client_id: &str) -> Self {
        let mut broker = Self {
            stream,
            client_id: client_id.to_owned(),
            versions: ApiVersionsResponse::default(),
            correlation_id: 0,
            awaited: VecDeque::new(),
        };
        broker.versions = broker.call(&ApiVersionsRequest::default(), 0).await;
        broker
    }

    /// Connects to the leader of partition 0, as soon as it knows that it leads.
    pub(crate) async fn leading(address: &str, topic: &str) -> Self {
        let mut broker = Self::connect(address).await;
        let mut address = address.to_owned();
        loop {
            let response = broker.metadata_of(topic).await;
            let leader =
                response.topics[0].partitions.iter().find(|partition| partition.partition_index == 0);
            let leader = leader.and_then(|partition| {
                response.brokers.iter().find(|broker| broker.node_id == partition.leader_id)
            });
            match leader.map(|leader| format!("{}:{}", leader.host, leader.port)) {
                Some(named) if named == address => return broker,
                Some(named) => {
                    broker = Self::connect(&named).await;
                    address = named;
                }
                None => tokio::task::yield_now().await,
            }
        }
    }

    pub(crate) fn versions_of<R: Request>(&self) -> Versions {
        self.versions_of_api(R::KEY).unwrap()
    }

    /// Returns the versions of an API that the broker lists; `None` if it does not list the API.
    pub(crate) fn versions_of_api(&self, api: ApiKey) -> Option<Versions> {
        let listed = self.versions.api_keys.iter().find(|listed| listed.api_key == api)?;
        Some(Versions::new(listed.min_version, listed.max_version))
    }

    /// Returns the versions that both support. There must be several, or the test would show little.
    pub(crate) fn common<R: Request>(&self) -> std::ops::RangeInclusive<i16> {
        let theirs = self.versions_of::<R>();
        let common = R::VERSIONS.oldest.max(theirs.oldest)..=R::VERSIONS.newest.min(theirs.newest);
        assert!(common.clone().count() > 1, "{}: {theirs}", R::KEY);
        common
    }

    pub(crate) async fn topic_id(&mut self, topic: &str) -> Uuid {
        self.metadata_of(topic).await.topics[0].topic_id
    }

    /// Returns whether the broker leads partition 0 and knows that everything before its term is committed:
    /// until then, a leader withholds the end of the log (KIP-207).
    pub(crate) async fn leads(&mut self, topic: &str) -> bool {
        const LATEST: i64 = -1;
        let partition = ListOffsetsPartition { timestamp: LATEST, ..ListOffsetsPartition::default() };
        let topic = ListOffsetsTopic { name: topic.to_owned(), partitions: vec![partition] };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
        self.call(&request, 7).await.topics[0].partitions[0].error_code == ErrorCode::NONE
    }

    /// Returns how many brokers it lists.
    pub(crate) async fn brokers(&mut self) -> usize {
        let request = MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() };
        self.call(&request, 12).await.brokers.len()
    }

    async fn metadata_of(&mut self, topic: &str) -> MetadataResponse {
        let wanted = MetadataTopic { name: Some(topic.to_owned()), ..MetadataTopic::default() };
        let request = MetadataRequest { topics: Some(vec![wanted]), ..MetadataRequest::default() };
        self.call(&request, 12).await
    }

    pub(crate) async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let response = self.try_call(request, version).await;
        response.unwrap_or_else(|| panic!("{} version {version}: the broker closed the connection", R::KEY))
    }

    /// Like [`Self::call`]; `None` if the broker closes the connection.
    pub(crate) async fn try_call<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        self.send(request, version).await;
        self.read_response::<R>(version).await
    }

    /// Reads the response to the oldest request without one.
    pub(crate) async fn read_response<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let frame = self.receive().await?;
        let decoded = R::Response::version(version).unwrap();
        let (correlation_id, mut reader) = decode_response_header::<R::Response>(&frame, decoded).unwrap();
        assert_eq!(Some(correlation_id), self.awaited.pop_front());
        let response = R::Response::read(&mut reader, decoded)
            .unwrap_or_else(|e| panic!("{} version {version}: {e}", R::KEY));
        reader.finish().unwrap_or_else(|e| panic!("{} version {version}: {e}", R::KEY));
        Some(response)
    }

    /// Sends a request without reading the response.
    pub(crate) async fn send<R: Request>(&mut self, request: &R, version: i16) {
        self.correlation_id += 1;
        if request.expects_reply() {
            self.awaited.push_back(self.correlation_id);
        }
        let mut frame = encode_request(request, version, self.correlation_id, Some(&self.client_id)).unwrap();
        let bytes = frame.copy_to_bytes(frame.remaining());
        self.write(&bytes).await;
    }

    /// Writes a frame and reads one, without its length; `None` if the broker closes the connection.
    pub(crate) async fn exchange(&mut self, frame: &[u8]) -> Option<Bytes> {
        self.write(frame).await;
        self.receive().await
    }

    /// Writes bytes. If the broker closes the connection, the next read reports it.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Reads a frame, without its length; `None` if the broker closes the connection.
    pub(crate) async fn receive(&mut self) -> Option<Bytes> {
        let length = self.stream.read_i32().await.ok()?;
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut frame).await.unwrap();
        Some(Bytes::from(frame))
    }
}
