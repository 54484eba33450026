//! Requests of the codec on a plain connection.

use bytes::{Buf, Bytes};
use kwal_protocol::api::{Body, Request, Versions, decode_response_header, encode_request};
use kwal_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse, MetadataTopic,
};
use kwal_protocol::wire::{Uuid, Wire as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection without a client: frames, one at a time.
pub(crate) struct Broker {
    stream: TcpStream,
    versions: ApiVersionsResponse,
    correlation_id: i32,
}

impl Broker {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut broker = Self { stream, versions: ApiVersionsResponse::default(), correlation_id: 0 };
        broker.versions = broker.call(&ApiVersionsRequest::default(), 0).await;
        broker
    }

    /// A connection to the leader of partition 0, once it knows that it is.
    pub(crate) async fn leading(address: &str, topic: &str) -> Self {
        let mut broker = Self::connect(address).await;
        let mut address = address.to_owned();
        loop {
            let answer = broker.metadata_of(topic).await;
            let leader = answer.topics[0].partitions.iter().find(|partition| partition.partition_index == 0);
            let leader = leader.and_then(|partition| {
                answer.brokers.iter().find(|broker| broker.node_id == partition.leader_id)
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
        let api = self.versions.api_keys.iter().find(|api| api.api_key == R::KEY).unwrap();
        Versions::new(api.min_version, api.max_version)
    }

    /// What both know; not one version, or the test would show nothing.
    pub(crate) fn common<R: Request>(&self) -> std::ops::RangeInclusive<i16> {
        let theirs = self.versions_of::<R>();
        let common = R::VERSIONS.oldest.max(theirs.oldest)..=R::VERSIONS.newest.min(theirs.newest);
        assert!(common.clone().count() > 1, "{}: {theirs}", R::KEY);
        common
    }

    pub(crate) async fn topic_id(&mut self, topic: &str) -> Uuid {
        self.metadata_of(topic).await.topics[0].topic_id
    }

    async fn metadata_of(&mut self, topic: &str) -> MetadataResponse {
        let wanted = MetadataTopic { name: Some(topic.to_owned()), ..MetadataTopic::default() };
        let request = MetadataRequest { topics: Some(vec![wanted]), ..MetadataRequest::default() };
        self.call(&request, 12).await
    }

    pub(crate) async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.send(request, version).await;
        let answer = self.receive().await;
        let answer = answer.unwrap_or_else(|| panic!("{} version {version}: the broker hung up", R::KEY));
        let decoded = R::Response::version(version).unwrap();
        let (correlation_id, mut reader) = decode_response_header::<R::Response>(&answer, decoded).unwrap();
        assert_eq!(correlation_id, self.correlation_id);
        let response = R::Response::read(&mut reader, decoded)
            .unwrap_or_else(|e| panic!("{} version {version}: {e}", R::KEY));
        reader.finish().unwrap_or_else(|e| panic!("{} version {version}: {e}", R::KEY));
        response
    }

    /// Sends a request without reading an answer.
    pub(crate) async fn send<R: Request>(&mut self, request: &R, version: i16) {
        self.correlation_id += 1;
        let mut frame = encode_request(request, version, self.correlation_id, Some("kwal-tests")).unwrap();
        let bytes = frame.copy_to_bytes(frame.remaining());
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Writes a frame and reads one, without its length; `None` if the broker hangs up.
    pub(crate) async fn exchange(&mut self, frame: &[u8]) -> Option<Bytes> {
        self.stream.write_all(frame).await.unwrap();
        self.receive().await
    }

    async fn receive(&mut self) -> Option<Bytes> {
        let length = self.stream.read_i32().await.ok()?;
        let mut answer = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut answer).await.unwrap();
        Some(Bytes::from(answer))
    }
}
