//! A client without a runtime: it lists the topics of a cluster, and reads the beginning of one.
//!
//! ```sh
//! cargo run -p kwal-protocol --example tiny_client -- localhost:9092 wal
//! ```
//!
//! Without an address it talks to a broker in a thread of its own, which has a topic with two records.

use std::{
    env, io,
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    time::Instant,
};

use bytes::{Buf, BytesMut};
use kwal_protocol::{
    api::Request,
    connection::{Connection, ConnectionConfig, Event, NegotiatedVersions},
    messages::{FetchPartition, FetchRequest, FetchTopic, MetadataRequest, MetadataTopic},
    record::Batches,
};

#[path = "tiny_client/peer.rs"]
mod peer;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let Some(address) = arguments.next() else { return talk_to_a_peer() };
    let mut client = Client::connect(&address)?;
    for topic in client.topics()? {
        println!("{topic}");
    }
    if let Some(topic) = arguments.next() {
        println!("{:#?}", client.read(&topic)?);
    }
    Ok(())
}

pub(crate) fn talk_to_a_peer() -> Result<()> {
    let (address, peer) = peer::start()?;
    let mut client = Client::connect(address)?;
    assert_eq!(client.topics()?, ["wal"]);
    assert_eq!(client.read("wal")?, ["+100", "-30"]);
    drop(client);
    println!("the topic `wal` has +100 and -30");
    peer.join().map_err(|_| "the peer panicked")?
}

/// A connection to one broker, with one request at a time.
pub(crate) struct Client {
    wire: Wire,
    versions: Arc<NegotiatedVersions>,
}

impl Client {
    /// Connects. What the two sides speak is negotiated by ApiVersions, the first request.
    pub(crate) fn connect(broker: impl ToSocketAddrs) -> Result<Self> {
        let stream = TcpStream::connect(broker)?;
        let connection = Connection::new(ConnectionConfig::default(), now());
        let mut wire = Wire { stream, inbox: BytesMut::new(), connection };
        match wire.next()? {
            Event::Ready(versions) => Ok(Self { wire, versions }),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// Sends a request in the newest version that both sides have, and waits for its response.
    fn call<R: Request>(&mut self, request: &R) -> Result<R::Response> {
        let encoded = self.versions.encode(request, R::VERSIONS)?;
        self.wire.connection.send(now(), encoded, ())?;
        match self.wire.next()? {
            Event::Response((), response) => Ok(response.decode::<R>()?),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// Returns the names of all topics.
    pub(crate) fn topics(&mut self) -> Result<Vec<String>> {
        let metadata = self.call(&MetadataRequest { topics: None, ..MetadataRequest::default() })?;
        Ok(metadata.topics.into_iter().filter_map(|topic| topic.name).collect())
    }

    /// Returns the values of the first records of partition 0, from its leader.
    pub(crate) fn read(&mut self, topic: &str) -> Result<Vec<String>> {
        let named = MetadataTopic { name: Some(topic.to_owned()), ..MetadataTopic::default() };
        let topics = Some(vec![named]);
        let request = MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() };
        let metadata = self.call(&request)?;
        let found = metadata.topics.first().ok_or("no answer about the topic")?;
        found.error_code.ok()?;
        let partition = found.partitions.iter().find(|partition| partition.partition_index == 0);
        let leader = partition.ok_or("no partition 0")?.leader_id;
        let leader = metadata.brokers.iter().find(|broker| broker.node_id == leader).ok_or("no leader")?;
        let mut leader = Self::connect((leader.host.as_str(), u16::try_from(leader.port)?))?;

        // From offset 0 on, at once. Brokers want the topic's name, or since Kafka 3.1 its id.
        let wanted = FetchPartition { partition_max_bytes: 1 << 20, ..FetchPartition::default() };
        let (topic, topic_id) = (topic.to_owned(), found.topic_id);
        let topics = vec![FetchTopic { topic, topic_id, partitions: vec![wanted] }];
        let request = FetchRequest { min_bytes: 1, max_bytes: 1 << 20, topics, ..FetchRequest::default() };
        let fetched = leader.call(&request)?;
        fetched.error_code.ok()?;
        let topic = fetched.responses.into_iter().next().ok_or("nothing of the topic")?;
        let partition = topic.partitions.into_iter().next().ok_or("nothing of the partition")?;
        partition.error_code.ok()?;

        let mut values = Vec::new();
        // A last batch that the limit cut off is left out.
        for batch in Batches::new(partition.records.unwrap_or_default()) {
            let batch = batch?;
            if batch.is_control() {
                continue;
            }
            for record in &batch.records(16 << 20 /* decompressed, in bytes */)? {
                let value = record?.value.unwrap_or_default();
                values.push(String::from_utf8_lossy(value).into_owned());
            }
        }
        Ok(values)
    }
}

/// A stream and the state of the connection, which knows no stream and no clock.
struct Wire {
    stream: TcpStream,
    inbox: BytesMut,
    connection: Connection,
}

impl Wire {
    /// Moves bytes until there is an event.
    fn next(&mut self) -> Result<Event> {
        loop {
            while let Some((id, mut frame)) = self.connection.poll_transmit() {
                self.stream.write_all(&frame.copy_to_bytes(frame.remaining()))?;
                self.connection.handle_transmitted(now(), id);
            }
            if let Some(event) = self.connection.poll_event() {
                return Ok(event);
            }
            // Time limits of requests, and pauses that a quota demands.
            let left = self.connection.poll_timeout().map(|at| at.saturating_duration_since(now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.connection.handle_timeout(now());
                continue;
            }
            self.stream.set_read_timeout(left)?;
            let mut piece = [0; 16 << 10];
            match self.stream.read(&mut piece) {
                Ok(0) => self.connection.handle_eof(),
                Ok(len) => {
                    self.inbox.extend_from_slice(&piece[..len]);
                    // An error is also an event.
                    let _ = self.connection.handle_input(now(), &mut self.inbox);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => self.connection.handle_io_error(error),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an application has a clock")]
fn now() -> Instant {
    Instant::now()
}
