//! Requests of the codec on a plain connection.

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

/// A connection without a client: frames, one at a time.
pub(crate) struct Broker {
    stream: Stream,
    client_id: String,
    versions: ApiVersionsResponse,
    correlation_id: i32,
    /// The ids of the answers that are to come.
    awaited: VecDeque<i32>,
}

/// What brokers may lack that some tests need of them, not of the client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ability {
    Quotas,
    DeleteRecords,
    Transactions,
}

/// Whether these brokers cannot do this; it is told, since less is shown without.
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
            "{address} does not offer {api}: what takes {ability:?} is left out"
        ));
    }
    lacks
}

impl Broker {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = Tcp::default().connect(&address.parse().unwrap()).await.unwrap();
        Self::over(stream, "kwal-tests").await
    }

    /// The same over a stream that is there already.
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
        self.versions_of_api(R::KEY).unwrap()
    }

    /// What the broker lists of an API; `None` if it does not list it.
    pub(crate) fn versions_of_api(&self, api: ApiKey) -> Option<Versions> {
        let listed = self.versions.api_keys.iter().find(|listed| listed.api_key == api)?;
        Some(Versions::new(listed.min_version, listed.max_version))
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

    /// Whether it leads partition 0 and knows that everything before its term is committed: until then, a leader withholds
    /// the end of the log (KIP-207).
    pub(crate) async fn leads(&mut self, topic: &str) -> bool {
        const LATEST: i64 = -1;
        let partition = ListOffsetsPartition { timestamp: LATEST, ..ListOffsetsPartition::default() };
        let topic = ListOffsetsTopic { name: topic.to_owned(), partitions: vec![partition] };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
        self.call(&request, 7).await.topics[0].partitions[0].error_code == ErrorCode::NONE
    }

    /// How many brokers it knows of.
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
        let answer = self.ask(request, version).await;
        answer.unwrap_or_else(|| panic!("{} version {version}: the broker hung up", R::KEY))
    }

    /// The same; `None` if the broker hangs up instead of answering.
    pub(crate) async fn ask<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        self.send(request, version).await;
        self.answer::<R>(version).await
    }

    /// Reads the answer to the first request that was sent and has none yet.
    pub(crate) async fn answer<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let answer = self.receive().await?;
        let decoded = R::Response::version(version).unwrap();
        let (correlation_id, mut reader) = decode_response_header::<R::Response>(&answer, decoded).unwrap();
        assert_eq!(Some(correlation_id), self.awaited.pop_front());
        let response = R::Response::read(&mut reader, decoded)
            .unwrap_or_else(|e| panic!("{} version {version}: {e}", R::KEY));
        reader.finish().unwrap_or_else(|e| panic!("{} version {version}: {e}", R::KEY));
        Some(response)
    }

    /// Sends a request without reading an answer.
    pub(crate) async fn send<R: Request>(&mut self, request: &R, version: i16) {
        self.correlation_id += 1;
        if request.expects_reply() {
            self.awaited.push_back(self.correlation_id);
        }
        let mut frame = encode_request(request, version, self.correlation_id, Some(&self.client_id)).unwrap();
        let bytes = frame.copy_to_bytes(frame.remaining());
        self.write(&bytes).await;
    }

    /// Writes a frame and reads one, without its length; `None` if the broker hangs up.
    pub(crate) async fn exchange(&mut self, frame: &[u8]) -> Option<Bytes> {
        self.write(frame).await;
        self.receive().await
    }

    /// Writes bytes. That the broker hangs up meanwhile shows when it is read from.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Reads a frame, without its length; `None` if the broker hangs up.
    pub(crate) async fn receive(&mut self) -> Option<Bytes> {
        let length = self.stream.read_i32().await.ok()?;
        let mut answer = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut answer).await.unwrap();
        Some(Bytes::from(answer))
    }
}
