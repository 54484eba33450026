//! A broker that answers at once, so that no broker hides what a client costs: readers from memory, and
//! writers before it counts and sums what they have sent.
//!
//! It is a process of its own, and has one thread per connection. With a delay it has two: one answers, the
//! other sends each response when it is due, so that requests in flight wait together.

use std::{
    convert::Infallible,
    io::{self, IoSlice, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use bytes::{Buf, Bytes};
use kwal_protocol::{
    api::{ApiKey, Body, decode_request_header, encode_response},
    compression::Decompressor,
    error_code::ErrorCode,
    messages::{
        AnyRequest, ApiVersion, ApiVersionsResponse, Coordinator, DescribeConfigsRequest,
        DescribeConfigsResponse, DescribeConfigsResult, EpochEndOffset, FetchPartitionResponse, FetchRequest,
        FetchResponse, FetchTopicResponse, FindCoordinatorRequest, FindCoordinatorResponse,
        InitProducerIdResponse, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
        ListOffsetsTopicResponse, MetadataBroker, MetadataPartition, MetadataResponse, MetadataTopicResponse,
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
        ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopicResponse,
    },
    wire::Uuid,
    writer::Frame,
};
use tokio::time::Instant;

use crate::{
    content,
    shared::{Failure, Task, Work, sum},
    walk::{first, next_offset, walk},
};

/// The versions of the sink, as those of Kafka 4.3: API, oldest, newest.
///
/// By the versions of appends, librdkafka also decides which record batches the broker has.
const APIS: [(ApiKey, i16, i16); 9] = [
    (ApiKey::PRODUCE, 0, 13),
    (ApiKey::FETCH, 4, 18),
    (ApiKey::LIST_OFFSETS, 1, 11),
    (ApiKey::METADATA, 0, 13),
    (ApiKey::FIND_COORDINATOR, 0, 6),
    (ApiKey::API_VERSIONS, 0, 4),
    (ApiKey::INIT_PRODUCER_ID, 0, 5),
    (ApiKey::OFFSET_FOR_LEADER_EPOCH, 2, 4),
    (ApiKey::DESCRIBE_CONFIGS, 1, 4),
];
const NODE_ID: i32 = 1;
const TOPIC_ID: Uuid = Uuid([7; 16]);
const LATEST: i64 = -1;
/// The pieces of a response: its head, the records and what follows them.
const PIECES: usize = 8;

/// The producer id of everybody.
const PRODUCER_ID: i64 = 1;

/// What is sent, and what is to be done around it.
struct Answer {
    frame: Frame,
    /// How long the response waits first.
    wait: Duration,
    /// What has been appended, to be counted once the response is sent.
    appended: Vec<Bytes>,
}

/// The records that were appended: their number, and the sum of their values.
#[derive(Clone, Debug, Default)]
pub struct Appended(Arc<Mutex<(u64, u64)>>);

impl Appended {
    fn lock(&self) -> MutexGuard<'_, (u64, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what was appended since the last call, everything included that has been acknowledged.
    pub fn take(&self) -> (u64, u64) {
        std::mem::take(&mut self.lock())
    }
}

/// Serves the log of a task that reads, in each partition the same, until the process ends. What is appended
/// is counted and not kept.
///
/// `is_ready` gets the port, and what is appended.
///
/// # Errors
/// The codec is not part of this build; the port cannot be opened.
pub fn serve(task: &Task, is_ready: impl FnOnce(u16, Appended)) -> Result<(), Failure> {
    let (log, begins) = match task.work {
        Work::Read => content::log(task)?,
        _ => Default::default(),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let appended = Appended::default();
    let sink = Sink {
        port,
        topic: task.topic.clone(),
        partitions: i32::try_from(task.partitions)?,
        delay: Duration::from_micros(task.delay_us),
        log,
        begins,
        records: task.records,
        appended: appended.clone(),
        next_offset: AtomicI64::new(0),
    };
    let sink = Arc::new(sink);
    is_ready(port, appended);
    for stream in listener.incoming() {
        let (stream, sink) = (stream?, Arc::clone(&sink));
        thread::spawn(move || {
            let Err(error) = sink.connection(stream);
            // Clients end with their process.
            if !error.is::<io::Error>() {
                eprintln!("client-sink: {error}");
            }
        });
    }
    Ok(())
}

#[derive(Debug)]
struct Sink {
    port: u16,
    topic: String,
    partitions: i32,
    /// Of every response.
    delay: Duration,
    log: Bytes,
    /// Where each batch begins.
    begins: Vec<usize>,
    /// Per batch.
    records: usize,
    appended: Appended,
    /// The offset of the next record that is appended.
    next_offset: AtomicI64,
}

impl Sink {
    fn connection(&self, mut stream: TcpStream) -> Result<Infallible, Failure> {
        stream.set_nodelay(true)?;
        let mut responses = Responses::new(&stream, self.delay)?;
        let mut decompressor = Decompressor::new();
        let mut frame = Vec::new();
        loop {
            let mut len = [0; 4];
            stream.read_exact(&mut len)?;
            frame.resize(usize::try_from(i32::from_be_bytes(len))?, 0);
            stream.read_exact(&mut frame)?;
            let request = Bytes::from(frame);
            let Answer { frame: response, wait, appended } = self.answer(&request)?;
            thread::sleep(wait);
            if appended.is_empty() {
                responses.send(response)?;
            } else {
                // Nobody can ask for the counts between the response and its records.
                let mut counted = self.appended.lock();
                responses.send(response)?;
                for mut batches in appended.iter().map(|batches| &batches[..]) {
                    while let Some((batch, rest)) = first(batches) {
                        walk(batch, &mut decompressor, |value| {
                            *counted = (counted.0 + 1, counted.1.wrapping_add(sum(value)));
                        })?;
                        batches = rest;
                    }
                }
            }
            drop(appended);
            // The same memory again, unless the response has a part of the request.
            frame = request.try_into_mut().map(Vec::from).unwrap_or_default();
        }
    }

    fn answer(&self, frame: &Bytes) -> Result<Answer, Failure> {
        let (header, body) = decode_request_header(frame)?;
        let (key, mut version) = (header.request_api_key, header.request_api_version);
        let respond = Respond { version, correlation_id: header.correlation_id };
        if key == ApiKey::API_VERSIONS {
            let error_code = match version {
                0..=4 => ErrorCode::NONE,
                _ => ErrorCode::UNSUPPORTED_VERSION,
            };
            if error_code != ErrorCode::NONE {
                version = 0;
            }
            return Respond { version, ..respond }.with(&versions(error_code));
        }
        let body = frame.slice(body.position()..);
        let request = AnyRequest::decode(key, version, &body)
            .ok_or_else(|| format!("the sink does not know {key:?} {version}"))??;
        match request {
            AnyRequest::Metadata(_) => respond.with(&self.metadata()),
            AnyRequest::ListOffsets(request) => respond.with(&self.offsets(request, version)),
            AnyRequest::Fetch(request) => {
                let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or_default());
                let (response, is_empty) = self.fetch(request);
                let answer = respond.with(&response)?;
                Ok(Answer { wait: if is_empty { wait } else { Duration::ZERO }, ..answer })
            }
            AnyRequest::InitProducerId(_) => {
                respond.with(&InitProducerIdResponse { producer_id: PRODUCER_ID, ..Default::default() })
            }
            AnyRequest::Produce(request) => {
                let (response, appended) = self.append(request)?;
                Ok(Answer { appended, ..respond.with(&response)? })
            }
            AnyRequest::OffsetForLeaderEpoch(request) => respond.with(&self.epochs(request)),
            AnyRequest::DescribeConfigs(request) => respond.with(&configs(request)),
            AnyRequest::FindCoordinator(request) => respond.with(&no_coordinator(request)),
            other => Err(format!("the sink does not know {:?}", other.key()).into()),
        }
    }

    fn end(&self) -> i64 {
        (self.begins.len() * self.records) as i64
    }

    fn metadata(&self) -> MetadataResponse {
        let partition = |partition_index| MetadataPartition {
            partition_index,
            leader_id: NODE_ID,
            leader_epoch: 0,
            replica_nodes: vec![NODE_ID],
            isr_nodes: vec![NODE_ID],
            ..Default::default()
        };
        let topic = MetadataTopicResponse {
            name: Some(self.topic.clone()),
            topic_id: TOPIC_ID,
            partitions: (0..self.partitions).map(partition).collect(),
            ..Default::default()
        };
        let broker = MetadataBroker {
            node_id: NODE_ID,
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: self.port.into(),
            rack: None,
        };
        MetadataResponse {
            brokers: vec![broker],
            cluster_id: Some("sink".to_owned()),
            controller_id: NODE_ID,
            topics: vec![topic],
            ..Default::default()
        }
    }

    fn offsets(&self, request: ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
        let topic = |topic: kwal_protocol::messages::ListOffsetsTopic| ListOffsetsTopicResponse {
            name: topic.name,
            partitions: topic
                .partitions
                .into_iter()
                .map(|asked| ListOffsetsPartitionResponse {
                    partition_index: asked.partition_index,
                    offset: if asked.timestamp == LATEST { self.end() } else { 0 },
                    leader_epoch: if version >= 4 { 0 } else { -1 },
                    ..Default::default()
                })
                .collect(),
        };
        ListOffsetsResponse { topics: request.topics.into_iter().map(topic).collect(), ..Default::default() }
    }

    /// Returns the response, and whether it is empty.
    fn fetch(&self, request: FetchRequest) -> (FetchResponse, bool) {
        let mut is_empty = true;
        let max_bytes = request.max_bytes;
        let topic = |topic: kwal_protocol::messages::FetchTopic| FetchTopicResponse {
            topic: topic.topic,
            topic_id: topic.topic_id,
            partitions: topic
                .partitions
                .into_iter()
                .map(|asked| {
                    let records = self.read(asked.fetch_offset, asked.partition_max_bytes.min(max_bytes));
                    is_empty &= records.is_empty();
                    FetchPartitionResponse {
                        partition_index: asked.partition,
                        high_watermark: self.end(),
                        last_stable_offset: self.end(),
                        log_start_offset: 0,
                        records: Some(records),
                        preferred_read_replica: -1,
                        ..Default::default()
                    }
                })
                .collect(),
        };
        let responses = request.topics.into_iter().map(topic).collect();
        (FetchResponse { responses, ..Default::default() }, is_empty)
    }

    /// Returns bytes from the batch on that has an offset, the first one whole (KIP-74) and the last one cut
    /// off: as a broker does.
    fn read(&self, offset: i64, max_bytes: i32) -> Bytes {
        let batch = usize::try_from(offset).unwrap_or_default() / self.records;
        let Some(&begin) = self.begins.get(batch) else { return Bytes::new() };
        let whole = self.begins.get(batch + 1).copied().unwrap_or(self.log.len());
        let most = begin + usize::try_from(max_bytes).unwrap_or_default();
        self.log.slice(begin..most.max(whole).min(self.log.len()))
    }

    /// Returns the response, and the records.
    fn append(&self, request: ProduceRequest) -> Result<(ProduceResponse, Vec<Bytes>), Failure> {
        let mut appended = Vec::new();
        let mut responses = Vec::new();
        for topic in request.topic_data {
            let mut partition_responses = Vec::new();
            for partition in topic.partition_data {
                let records = partition.records.unwrap_or_default().into_bytes();
                let count = next_offset(&records)?;
                let base_offset = self.next_offset.fetch_add(count, Ordering::Relaxed);
                let index = partition.index;
                partition_responses.push(ProducePartitionResponse {
                    index,
                    base_offset,
                    log_start_offset: 0,
                    ..Default::default()
                });
                appended.push(records);
            }
            let (name, topic_id) = (topic.name, topic.topic_id);
            responses.push(ProduceTopicResponse { name, topic_id, partition_responses });
        }
        Ok((ProduceResponse { responses, ..Default::default() }, appended))
    }

    fn epochs(&self, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
        let topic = |topic: kwal_protocol::messages::OffsetForLeaderTopic| OffsetForLeaderTopicResult {
            topic: topic.topic,
            partitions: topic
                .partitions
                .into_iter()
                .map(|asked| EpochEndOffset {
                    partition: asked.partition,
                    leader_epoch: 0,
                    end_offset: self.end(),
                    ..Default::default()
                })
                .collect(),
        };
        let topics = request.topics.into_iter().map(topic).collect();
        OffsetForLeaderEpochResponse { topics, ..Default::default() }
    }
}

#[derive(Clone, Copy)]
struct Respond {
    version: i16,
    correlation_id: i32,
}

impl Respond {
    fn with<B: Body>(self, response: &B) -> Result<Answer, Failure> {
        let frame = encode_response(response, self.version, self.correlation_id)?;
        Ok(Answer { frame, wait: Duration::ZERO, appended: Vec::new() })
    }
}

fn versions(error_code: ErrorCode) -> ApiVersionsResponse {
    let api = |(api_key, min_version, max_version)| ApiVersion { api_key, min_version, max_version };
    ApiVersionsResponse { error_code, api_keys: APIS.map(api).into(), ..Default::default() }
}

fn configs(request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let result = |asked: kwal_protocol::messages::DescribeConfigsResource| DescribeConfigsResult {
        resource_type: asked.resource_type,
        resource_name: asked.resource_name,
        ..Default::default()
    };
    DescribeConfigsResponse {
        results: request.resources.into_iter().map(result).collect(),
        ..Default::default()
    }
}

/// There are no groups.
fn no_coordinator(request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let error_code = ErrorCode::COORDINATOR_NOT_AVAILABLE;
    let coordinator = |key| Coordinator { key, node_id: -1, error_code, ..Default::default() };
    FindCoordinatorResponse {
        error_code,
        node_id: -1,
        coordinators: request.coordinator_keys.into_iter().map(coordinator).collect(),
        ..Default::default()
    }
}

/// Sends the responses of a connection, at once or by a thread that delays each by the same time.
enum Responses {
    AtOnce(TcpStream),
    Later(mpsc::Sender<(Instant, Frame)>, Duration),
}

impl Responses {
    fn new(stream: &TcpStream, delay: Duration) -> io::Result<Self> {
        let mut stream = stream.try_clone()?;
        if delay.is_zero() {
            return Ok(Self::AtOnce(stream));
        }
        let (sender, due) = mpsc::channel::<(Instant, Frame)>();
        thread::spawn(move || {
            for (at, response) in due {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                if write(&mut stream, response).is_err() {
                    return;
                }
            }
        });
        Ok(Self::Later(sender, delay))
    }

    fn send(&mut self, response: Frame) -> io::Result<()> {
        match self {
            Self::AtOnce(stream) => write(stream, response),
            Self::Later(sender, delay) => {
                sender.send((Instant::now() + *delay, response)).map_err(|_| io::ErrorKind::BrokenPipe.into())
            }
        }
    }
}

fn write(stream: &mut TcpStream, mut frame: Frame) -> io::Result<()> {
    while frame.has_remaining() {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let count = frame.chunks_vectored(&mut pieces);
        let written = stream.write_vectored(&pieces[..count])?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        frame.advance(written);
    }
    Ok(())
}
