//! A client with one connection, and helpers to encode and decode records.

use bytes::{Buf, Bytes};
use kwal_protocol::{
    api::{Body, Request, decode_response_header, encode_request},
    error_code::ErrorCode,
    messages::{
        FetchPartition, FetchPartitionResponse, FetchRequest, FetchTopic, ProducePartition,
        ProducePartitionResponse, ProduceRequest, ProduceTopic,
    },
    record::{BatchBuilder, Compression, EncodedBatch, Headers},
    wire::Uuid,
};
use kwal_testkit::EmbeddedCluster;
use kwal_transport::{Connect, HostPort, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) struct Client {
    stream: Stream,
    sent: i32,
}

impl Client {
    /// Connects to the first broker.
    pub(crate) async fn connect(cluster: &EmbeddedCluster) -> Self {
        Self::connect_to(cluster, 1).await
    }

    pub(crate) async fn connect_to(cluster: &EmbeddedCluster, broker: i32) -> Self {
        Self::connect_by(&*cluster.connector(), &cluster.address(broker).unwrap()).await
    }

    pub(crate) async fn connect_by(connector: &dyn Connect, address: &HostPort) -> Self {
        Self { stream: connector.connect(address).await.unwrap(), sent: 0 }
    }

    /// Sends a request and reads its response.
    pub(crate) async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let id = self.send(request, version).await;
        let (answered, response) = self.receive::<R>(version).await.expect("closed instead of answered");
        assert_eq!(answered, id, "the answer is to another request");
        response
    }

    /// Sends a request; returns its correlation id.
    pub(crate) async fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        self.sent += 1;
        let mut frame = encode_request(request, version, self.sent, Some("test")).unwrap();
        self.stream.write_all_buf(&mut frame).await.unwrap();
        self.sent
    }

    pub(crate) async fn send_bytes(&mut self, mut bytes: impl Buf) {
        // The broker may have closed already.
        let _ = self.stream.write_all_buf(&mut bytes).await;
    }

    /// Reads the next response and its correlation id; `None` if the broker has closed the connection.
    pub(crate) async fn receive<R: Request>(&mut self, version: i16) -> Option<(i32, R::Response)> {
        let frame = self.receive_frame().await?;
        let version = R::Response::version(version).unwrap();
        let (id, body) = decode_response_header::<R::Response>(&frame, version).unwrap();
        let body = frame.slice(body.position()..);
        Some((id, R::Response::decode(&body, version).unwrap()))
    }

    pub(crate) async fn receive_frame(&mut self) -> Option<Bytes> {
        let mut len = [0; 4];
        match self.stream.read(&mut len[..1]).await {
            Ok(1) => {}
            _ => return None,
        }
        self.stream.read_exact(&mut len[1..]).await.unwrap();
        let mut frame = vec![0; i32::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut frame).await.unwrap();
        Some(frame.into())
    }

    /// Reads the next frame with its length, or as much of it as arrives before the end.
    pub(crate) async fn receive_bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let expected = match bytes.first_chunk() {
                Some(len) => 4 + u32::from_be_bytes(*len) as usize,
                None => 4,
            };
            let mut byte = [0];
            if bytes.len() == expected || !matches!(self.stream.read(&mut byte).await, Ok(1)) {
                return bytes;
            }
            bytes.push(byte[0]);
        }
    }

    /// Produces one batch with acks = all.
    pub(crate) async fn produce(
        &mut self,
        place: &Place,
        batch: impl Into<Bytes>,
    ) -> ProducePartitionResponse {
        let version = 13;
        let response = self.call(&produce(place, batch), version).await;
        response.responses[0].partition_responses[0].clone()
    }

    /// Fetches without waiting.
    pub(crate) async fn fetch(&mut self, place: &Place, offset: i64) -> FetchPartitionResponse {
        self.call(&fetch(place, offset), 18).await.responses[0].partitions[0].clone()
    }
}

/// A partition with its topic's name and id.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) topic: &'static str,
    pub(crate) id: Uuid,
    pub(crate) partition: i32,
}

impl Place {
    pub(crate) fn of(broker: &EmbeddedCluster, topic: &'static str, partition: i32) -> Self {
        Self { topic, id: broker.topic_id(topic).unwrap_or_default(), partition }
    }
}

pub(crate) fn produce(place: &Place, batch: impl Into<Bytes>) -> ProduceRequest {
    let data = ProducePartition { index: place.partition, records: Some(batch.into().into()) };
    let topic = ProduceTopic { name: place.topic.to_owned(), topic_id: place.id, partition_data: vec![data] };
    ProduceRequest { acks: -1, timeout_ms: 1000, topic_data: vec![topic], ..ProduceRequest::default() }
}

/// A fetch that does not wait.
pub(crate) fn fetch(place: &Place, offset: i64) -> FetchRequest {
    let partition = FetchPartition {
        partition: place.partition,
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    let topic = FetchTopic { topic: place.topic.to_owned(), topic_id: place.id, partitions: vec![partition] };
    FetchRequest { min_bytes: 1, topics: vec![topic], ..FetchRequest::default() }
}

/// Encodes a batch of these values, with timestamps that ascend from [`STARTED_AT`].
pub(crate) fn batch(values: &[&str]) -> EncodedBatch {
    compressed(Compression::None, values)
}

/// A codec that is built in, if there is one.
pub(crate) const CODEC: Compression = match cfg!(feature = "compression-lz4") {
    true => Compression::Lz4,
    false => Compression::None,
};

/// All codecs that are built in.
pub(crate) fn codecs() -> impl Iterator<Item = Compression> {
    Compression::ALL.into_iter().filter(|codec| codec.is_built_in())
}

pub(crate) fn compressed(compression: Compression, values: &[&str]) -> EncodedBatch {
    let mut builder = BatchBuilder::new(compression);
    for (index, value) in values.iter().enumerate() {
        let headers = Headers::from([("index", index.to_string())]);
        builder.push(STARTED_AT + index as i64, Some(b"key"), Some(value.as_bytes()), &headers);
    }
    builder.finish().unwrap()
}

/// Returns the value of every record of a partition.
pub(crate) fn values(broker: &EmbeddedCluster, place: &Place) -> Vec<String> {
    let records = broker.records(place.topic, place.partition).unwrap();
    records
        .iter()
        .map(|record| String::from_utf8(record.value.as_deref().unwrap().to_vec()).unwrap())
        .collect()
}

/// Returns the offset of a produced batch, or its error.
pub(crate) fn outcome(response: &ProducePartitionResponse) -> Result<i64, ErrorCode> {
    response.error_code.ok().map(|()| response.base_offset)
}

/// The time at which the brokers start.
pub(crate) const STARTED_AT: i64 = 1_700_000_000_000;

/// Starts a broker with a topic `wal` of two partitions, in memory.
pub(crate) fn in_memory() -> EmbeddedCluster {
    EmbeddedCluster::builder().topic("wal", 2).started_at(STARTED_AT).start_in_memory().unwrap()
}

/// Starts the same broker once over TCP and once in memory.
pub(crate) async fn both() -> [EmbeddedCluster; 2] {
    let tcp = EmbeddedCluster::builder().topic("wal", 2).started_at(STARTED_AT).start().await.unwrap();
    [tcp, in_memory()]
}
