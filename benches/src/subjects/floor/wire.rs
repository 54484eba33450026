//! A connection to the leader.

use bytes::{Bytes, BytesMut};
use kwal_protocol::{
    api::{Body, decode_response_header, encode_request},
    messages::{MetadataRequest, MetadataResponse, MetadataTopic},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::shared::{Failure, Task};

const METADATA: i16 = 8;

/// A connection, and the buffer that its responses are read into.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    buffer: BytesMut,
}

impl Wire {
    /// Connects to the leader of partition 0.
    pub(super) async fn connect(task: &Task) -> Result<Self, Failure> {
        let brokers = task.brokers();
        let mut wire = Self::to(brokers.first().ok_or("no address")?).await?;
        let topic = MetadataTopic { name: Some(task.topic.clone()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let mut frame = encode_request(&request, METADATA, 0, None)?;
        wire.stream.write_all_buf(&mut frame).await?;
        let metadata: MetadataResponse = decode(&wire.response().await?, METADATA)?;
        let partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
        let leader = partitions.into_iter().find(|partition| partition.partition_index == 0);
        let leader = leader.ok_or("the topic has no partition")?.leader_id;
        let broker = metadata.brokers.iter().find(|broker| broker.node_id == leader);
        let broker = broker.ok_or("the partition has no leader")?;
        Self::to(&format!("{}:{}", broker.host, broker.port)).await
    }

    async fn to(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::new() })
    }

    /// Reads a response, without its length.
    pub(super) async fn response(&mut self) -> Result<Bytes, Failure> {
        let len = usize::try_from(self.stream.read_i32().await?)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.reserve(len);
        let mut limited = (&mut self.stream).take(len as u64);
        while buffer.len() < len {
            if limited.read_buf(&mut buffer).await? == 0 {
                return Err("the peer closed the connection".into());
            }
        }
        Ok(buffer.freeze())
    }

    /// Takes a response or a part of it back, to use its memory again.
    pub(super) fn give_back(&mut self, response: Bytes) {
        self.buffer = response.try_into_mut().unwrap_or_default();
    }
}

/// Decodes a response with its header.
pub(super) fn decode<B: Body>(frame: &Bytes, version: i16) -> Result<B, Failure> {
    let version = B::version(version)?;
    let (_, body) = decode_response_header::<B>(frame, version)?;
    Ok(B::decode(&frame.slice(body.position()..), version)?)
}
