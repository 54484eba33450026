//! The broker without its sockets: request frames in, answers out, time as an argument.
//!
//! Nothing here waits, reads a clock or starts a task. What has to wait is an [`Answer::Wait`], which is handed back to
//! [`Cluster::resume`] when its time has come or something has changed.

mod about;
mod api_versions;
mod configs;
mod coordinator;
mod create_partitions;
mod delete_records;
mod describe_cluster;
mod describe_producers;
mod election;
mod fetch;
mod list_offsets;
mod metadata;
mod node;
mod offset_for_leader_epoch;
mod partition;
mod produce;
mod quota;
mod replica;
mod replication;
mod tell;
mod topics;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kwal_protocol::{
    api::{ApiKey, Body, Request, decode_request_header, encode_response},
    error::{DecodeError, EncodeError},
    error_code::ErrorCode,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, CreatePartitionsRequest, CreatePartitionsResponse,
        CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse,
        DeleteTopicsRequest, DeleteTopicsResponse, DescribeClusterRequest, DescribeClusterResponse,
        DescribeConfigsRequest, DescribeConfigsResponse, DescribeProducersRequest, DescribeProducersResponse,
        FetchRequest, FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse,
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, InitProducerIdRequest,
        InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse,
    },
    wire::Uuid,
    writer::Frame,
};

pub use self::node::Connections;
use self::{
    about::{About, says},
    coordinator::Coordinators,
    delete_records::Deleting,
    election::Event,
    node::Node,
    partition::TopicKey,
    produce::Appended,
    quota::Quotas,
};
pub(crate) use self::{
    election::CannotLead,
    node::Connected,
    partition::{Partition, PartitionId, Topic},
    quota::Kind as Limited,
    replica::Replica,
};
use crate::{
    check::Recorder,
    dialect::Dialect,
    fault::{Coming, Fault, Hits, Script},
    journal::{Journal, What},
    topic_config::BrokerConfig,
};

/// What the brokers of a cluster know and hold.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) faults: Script,
    nodes: BTreeMap<i32, Node>,
    /// The highest number that a broker ever had.
    last_node: i32,
    /// The one that takes the requests for the controller.
    controller: i32,
    cluster_id: Uuid,
    topics: BTreeMap<String, Topic>,
    names: BTreeMap<Uuid, String>,
    coordinators: Coordinators,
    quotas: Quotas,
    /// The ids of clients that quotas care for.
    clients: Vec<String>,
    next_connection: u64,
    connections: Connections,
    requests: BTreeMap<ApiKey, u64>,
    /// The request that each connection is about to be answered, by its number.
    pending: BTreeMap<u64, Pending>,
    hits: Hits,
    journal: Journal,
    /// Who is told what excuses that records are gone.
    recorder: Option<Recorder>,
    random: fastrand::Rng,
    /// What time will bring: by its moment, and in the order it was planned.
    events: BTreeMap<(Instant, u64), Event>,
    now: Now,
    started: Instant,
    started_unix_ms: i64,
    next_event: u64,
    /// Something happened that a waiting request may have waited for.
    changed: bool,
    /// Connections were closed that do not know of it yet.
    closed: bool,
}

/// What is chosen when a cluster is made.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) dialect: Dialect,
    pub(crate) auto_create: bool,
    pub(crate) default_partitions: i32,
    pub(crate) seed: Option<u64>,
    pub(crate) broker: BrokerConfig,
    /// `None` if nobody has to authenticate.
    pub(crate) sasl: Option<crate::sasl::Sasl>,
    /// How many entries of the journal are kept.
    pub(crate) journal: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dialect: Dialect::default(),
            auto_create: false,
            default_partitions: 1,
            seed: None,
            broker: BrokerConfig::default(),
            sasl: None,
            journal: 0,
        }
    }
}

/// The moment of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// For waits.
    pub(crate) monotonic: Instant,
    /// For timestamps: milliseconds since the epoch.
    pub(crate) unix_ms: i64,
}

/// What a connection does about a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Send a frame after `delay`, in some manner; then read nothing for as long as `mute`.
    Reply { frame: Frame, delay: Duration, manner: Manner, mute: Duration },
    /// Send nothing; then read nothing for as long as `mute`.
    Nothing { mute: Duration },
    /// Ask [`Cluster::resume`] later.
    Wait(Waiting),
    /// Close the connection.
    Close(CloseReason),
    /// Never answer anything any more, and leave the connection open.
    Ignore,
}

/// How an answer goes out.
#[derive(Debug)]
pub(crate) enum Manner {
    Whole,
    /// Only so many bytes; then the connection is closed.
    Cut(usize),
    /// So many bytes at a time, with a pause before each but the first.
    Trickle {
        bytes: usize,
        pause: Duration,
    },
    /// These bytes go out in its place.
    Garbage(Bytes),
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) until: Instant,
    /// A change may end the wait earlier; else only time does.
    pub(crate) heeds_changes: bool,
    exchange: Exchange,
    work: Work,
}

/// Why a broker closes a connection.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum CloseReason {
    #[error("the header of a request is malformed")]
    Header(#[source] DecodeError),
    #[error("{api} is not spoken at version {version}")]
    Unsupported { api: ApiKey, version: i16 },
    #[error("a request of {api} at version {version} is malformed")]
    Body {
        api: ApiKey,
        version: i16,
        #[source]
        error: DecodeError,
    },
    #[error("a response of {api} cannot be written")]
    Response {
        api: ApiKey,
        #[source]
        error: EncodeError,
    },
    #[error("a produce request with acks = 0 failed")]
    AcksZero,
    #[error("a produce request has null instead of records")]
    NoRecords,
    #[error("{0}")]
    Sasl(&'static str),
    #[error("{0:?}")]
    Fault(Fault),
    #[error("the broker has closed the connection")]
    Ended,
}

/// A request on its way to its answer.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    from: Connected,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    /// Of its body, in bytes.
    size: usize,
    /// Its client's id, if quotas care.
    client: Option<ClientId>,
    fault: Fault,
}

/// A request that is to be answered, and what becomes of a client whose connection ends before.
#[derive(Clone, Copy, Debug)]
struct Pending {
    node: i32,
    api: ApiKey,
    /// Something was appended.
    appended: bool,
    /// If the connection ends, it is not because the client had enough of it.
    faulty: bool,
}

/// A client's id, by its place in [`Cluster::clients`].
#[derive(Clone, Copy, Debug)]
struct ClientId(usize);

/// What is left to be done for a request that waits.
#[derive(Debug)]
enum Work {
    /// Everything: its body has not been looked at.
    Arrived(Bytes),
    Fetch(FetchRequest),
    Produce(Appended),
    Delete(Deleting),
}

impl Cluster {
    pub(crate) fn new(settings: Settings, now: Now) -> Self {
        let mut random = settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self {
            cluster_id: id(&mut random),
            faults: Script::default(),
            nodes: BTreeMap::new(),
            last_node: 0,
            controller: -1,
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            coordinators: Coordinators::default(),
            quotas: Quotas::default(),
            clients: Vec::new(),
            next_connection: 1,
            connections: Connections::default(),
            requests: BTreeMap::new(),
            pending: BTreeMap::new(),
            hits: Hits::default(),
            journal: Journal::new(settings.journal),
            recorder: None,
            started: now.monotonic,
            random,
            events: BTreeMap::new(),
            now,
            started_unix_ms: now.unix_ms,
            next_event: 0,
            changed: false,
            closed: false,
            settings,
        }
    }

    /// Takes a request frame, without its length, that has arrived at a broker.
    ///
    /// It should be the only owner of the frame: what is appended is then not copied.
    pub(crate) fn handle(&mut self, from: Connected, now: Now, frame: Bytes) -> Answer {
        self.advance(now);
        let answer = self.take_request(from, now, frame);
        self.tell_end(from, &answer);
        answer
    }

    fn take_request(&mut self, from: Connected, now: Now, frame: Bytes) -> Answer {
        if !self.nodes.get(&from.node).is_some_and(|node| node.has(from)) {
            return Answer::Close(CloseReason::Ended);
        }
        let (header, body) = match decode_request_header(&frame) {
            Ok((header, reader)) => (header, frame.slice(reader.position()..)),
            Err(error) => return Answer::Close(CloseReason::Header(error)),
        };
        drop(frame);
        let (api, version) = (header.request_api_key, header.request_api_version);
        self.count(from, api);
        let client = self.quotas.any().then(|| self.client(header.client_id.unwrap_or_default()));
        let (correlation_id, size) = (header.correlation_id, body.len());
        let mut exchange = Exchange { from, api, version, correlation_id, size, client, fault: Fault::Pass };
        if !self.settings.dialect.answers(api, version) {
            return match api {
                ApiKey::API_VERSIONS => {
                    let (version, response) = self.unknown_api_versions();
                    exchange.version = version;
                    self.reply::<ApiVersionsRequest>(exchange, response, Duration::ZERO)
                }
                _ => Answer::Close(CloseReason::Unsupported { api, version }),
            };
        }
        exchange.fault = self.meet(from, (api, version, correlation_id), &body);
        match exchange.fault {
            Fault::Drop => Answer::Close(CloseReason::Fault(exchange.fault)),
            Fault::BlackHole => Answer::Ignore,
            Fault::DelayRequest(delay) => Answer::Wait(Waiting {
                until: later(now, delay),
                heeds_changes: false,
                exchange,
                work: Work::Arrived(body),
            }),
            _ => self.dispatch(now, exchange, body),
        }
    }

    /// Looks again at a request that waited.
    pub(crate) fn resume(&mut self, now: Now, waiting: Waiting) -> Answer {
        self.advance(now);
        let from = waiting.exchange.from;
        let answer = match self.is_open(from) {
            true => self.look_again(now, waiting),
            false => Answer::Close(CloseReason::Ended),
        };
        self.tell_end(from, &answer);
        answer
    }

    fn look_again(&mut self, now: Now, waiting: Waiting) -> Answer {
        match waiting.work {
            Work::Arrived(body) => self.dispatch(now, waiting.exchange, body),
            Work::Fetch(request) => {
                let arrival = Arrival { now, exchange: waiting.exchange, until: Some(waiting.until) };
                self.serve(arrival, request)
            }
            Work::Produce(appended) => {
                let (exchange, until) = (waiting.exchange, waiting.until);
                let served = self.acknowledge(appended, until);
                self.answer::<ProduceRequest>(exchange, served, None)
            }
            Work::Delete(deleting) => {
                let (exchange, until) = (waiting.exchange, waiting.until);
                let served = self.deleted_everywhere(deleting, until);
                self.answer::<DeleteRecordsRequest>(exchange, served, None)
            }
        }
    }

    /// Whether anything has changed, since the last call, that ends the wait of a request.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// A request of an API has arrived.
    pub(crate) fn count(&mut self, from: Connected, api: ApiKey) {
        *self.requests.entry(api).or_default() += 1;
        if let Some(node) = self.nodes.get_mut(&from.node) {
            *node.requests.entry(api).or_default() += 1;
        }
    }

    /// How many requests of an API have arrived, at any broker.
    pub(crate) fn requests(&self, api: ApiKey) -> u64 {
        self.requests.get(&api).copied().unwrap_or_default()
    }

    /// Limits a client in bytes a second.
    pub(crate) fn limit(&mut self, what: Limited, client: Option<&str>, bytes_per_second: Option<u64>) {
        self.quotas.limit(what, client, bytes_per_second);
        if !self.quotas.any() {
            self.clients.clear();
        }
    }

    /// When brokers last did what they do every so often, as a setting says; long ago if they have not done it yet.
    fn looked_at(&self, setting: &str) -> i64 {
        let every = self.settings.broker.number(setting).max(1);
        match self.now.unix_ms.saturating_sub(self.started_unix_ms) / every {
            ..=0 => i64::MIN,
            times => self.started_unix_ms.saturating_add(times.saturating_mul(every)),
        }
    }

    fn client(&mut self, id: String) -> ClientId {
        let known = self.clients.iter().position(|known| *known == id);
        ClientId(known.unwrap_or_else(|| {
            self.clients.push(id);
            self.clients.len() - 1
        }))
    }

    /// The pause that an answer costs its client.
    fn pause_after<B: Body>(&mut self, exchange: Exchange, response: &B) -> Duration {
        match exchange.api {
            ApiKey::PRODUCE => self.pause_for(Limited::Produce, exchange, exchange.size),
            ApiKey::FETCH if exchange.client.is_some() => {
                let encoded = encode_response(response, exchange.version, exchange.correlation_id);
                let size = encoded.map_or(0, |frame| frame.remaining());
                self.pause_for(Limited::Fetch, exchange, size)
            }
            _ => Duration::ZERO,
        }
    }

    fn pause_for(&mut self, what: Limited, exchange: Exchange, bytes: usize) -> Duration {
        let client = exchange.client.and_then(|ClientId(at)| self.clients.get(at));
        let Some(client) = client else { return Duration::ZERO };
        self.quotas.count(what, exchange.from.node, client, bytes, self.now.unix_ms)
    }

    fn dispatch(&mut self, now: Now, mut exchange: Exchange, body: Bytes) -> Answer {
        if !self.controls(exchange.from.node) && is_for_controller(exchange.api) {
            exchange.fault = Fault::Error(ErrorCode::NOT_CONTROLLER);
        }
        let arrival = Arrival { now, exchange, until: None };
        match exchange.api {
            ApiKey::PRODUCE => self.read::<ProduceRequest>(arrival, body),
            ApiKey::FETCH => self.read::<FetchRequest>(arrival, body),
            ApiKey::LIST_OFFSETS => self.read::<ListOffsetsRequest>(arrival, body),
            ApiKey::METADATA => self.read::<MetadataRequest>(arrival, body),
            ApiKey::API_VERSIONS => self.read::<ApiVersionsRequest>(arrival, body),
            ApiKey::CREATE_TOPICS => self.read::<CreateTopicsRequest>(arrival, body),
            ApiKey::DELETE_TOPICS => self.read::<DeleteTopicsRequest>(arrival, body),
            ApiKey::INIT_PRODUCER_ID => self.read::<InitProducerIdRequest>(arrival, body),
            ApiKey::CREATE_PARTITIONS => self.read::<CreatePartitionsRequest>(arrival, body),
            ApiKey::DESCRIBE_CONFIGS => self.read::<DescribeConfigsRequest>(arrival, body),
            ApiKey::INCREMENTAL_ALTER_CONFIGS => self.read::<IncrementalAlterConfigsRequest>(arrival, body),
            ApiKey::DELETE_RECORDS => self.read::<DeleteRecordsRequest>(arrival, body),
            ApiKey::DESCRIBE_CLUSTER => self.read::<DescribeClusterRequest>(arrival, body),
            ApiKey::DESCRIBE_PRODUCERS => self.read::<DescribeProducersRequest>(arrival, body),
            ApiKey::FIND_COORDINATOR => self.read::<FindCoordinatorRequest>(arrival, body),
            ApiKey::OFFSET_FOR_LEADER_EPOCH => self.read::<OffsetForLeaderEpochRequest>(arrival, body),
            api => Answer::Close(CloseReason::Unsupported { api, version: exchange.version }),
        }
    }

    fn read<R: Serve>(&mut self, arrival: Arrival, body: Bytes) -> Answer {
        let Exchange { api, version: number, .. } = arrival.exchange;
        let Ok(version) = R::version(number) else {
            return Answer::Close(CloseReason::Unsupported { api, version: number });
        };
        match R::decode(&body, version) {
            Ok(request) => {
                drop(body);
                self.serve(arrival, request)
            }
            Err(error) => Answer::Close(CloseReason::Body { api, version: number, error }),
        }
    }

    fn serve<R: Serve>(&mut self, arrival: Arrival, request: R) -> Answer {
        let exchange = arrival.exchange;
        if let Fault::Error(code) = exchange.fault {
            return match request.expects_reply() {
                true => {
                    let refused = request.refuse(self, code);
                    self.reply::<R>(exchange, refused, Duration::ZERO)
                }
                false => Answer::Close(CloseReason::AcksZero),
            };
        }
        let instead = match exchange.fault {
            Fault::ErrorAfter(code) => Some(request.refuse(self, code)),
            _ => None,
        };
        let served = request.serve(self, &arrival);
        self.answer::<R>(exchange, served, instead)
    }

    /// Answers, and tells of it.
    fn reply<R: Serve>(&mut self, exchange: Exchange, response: R::Response, pause: Duration) -> Answer {
        let Exchange { from, api, correlation_id, fault, .. } = exchange;
        if self.journal.is_kept() {
            let (connection, broker) = (from.number, from.node);
            let says = says(&response);
            self.tell(What::Answer { connection, broker, api, correlation_id, says });
        }
        self.deliver(from, fault, exchange.reply::<R>(response, pause))
    }

    /// What a fault makes of an answer.
    pub(crate) fn deliver(&mut self, from: Connected, fault: Fault, mut answer: Answer) -> Answer {
        if matches!(fault, Fault::Garbage | Fault::WrongCorrelationId | Fault::ErrorAfter(_)) {
            // What is answered is not what has happened.
            self.count_hit(from.number);
        }
        let Answer::Reply { frame, delay, manner, .. } = &mut answer else { return answer };
        match fault {
            Fault::LoseReply => return Answer::Close(CloseReason::Fault(fault)),
            Fault::DelayReply(pause) => *delay = pause,
            Fault::CutReply(bytes) => *manner = Manner::Cut(bytes),
            Fault::Trickle { bytes, pause } => *manner = Manner::Trickle { bytes: bytes.max(1), pause },
            Fault::Garbage => {
                let mut bytes = BytesMut::new();
                bytes.put(frame);
                self.random.fill(bytes.get_mut(BEHIND_CORRELATION_ID..).unwrap_or_default());
                *manner = Manner::Garbage(bytes.freeze());
            }
            _ => {}
        }
        answer
    }

    /// What a request that has arrived meets; it is told of.
    pub(crate) fn meet(
        &mut self,
        from: Connected,
        (api, version, correlation_id): (ApiKey, i16, i32),
        body: &Bytes,
    ) -> Fault {
        let mut about = About::default();
        if self.journal.is_kept() || self.faults.minds_partitions(api) {
            about = self.about(api, version, body);
        }
        let coming = Coming { api: Some(api), broker: from.node, partitions: &about.partitions };
        let fault = self.faults.take(coming, &mut self.random);
        let faulty = fault != Fault::Pass;
        let pending = Pending { node: from.node, api, appended: false, faulty };
        self.pending.insert(from.number, pending);
        if self.journal.is_kept() {
            let (connection, broker, asks) = (from.number, from.node, about.asks);
            self.tell(What::Request { connection, broker, api, version, correlation_id, fault, asks });
        }
        fault
    }

    fn answer<R: Serve>(
        &mut self,
        exchange: Exchange,
        served: Served<R::Response>,
        instead: Option<R::Response>,
    ) -> Answer {
        match served {
            Served::Reply(response) => {
                let pause = self.pause_after(exchange, &response);
                let response = match pause.is_zero() || exchange.api != ApiKey::FETCH {
                    true => instead.unwrap_or(response),
                    false => R::Response::default(),
                };
                self.reply::<R>(exchange, response, pause)
            }
            Served::Silent { failed } => {
                let pause = self.pause_for(Limited::Produce, exchange, exchange.size);
                exchange.no_reply(failed || instead.is_some(), pause)
            }
            Served::Close(reason) => Answer::Close(reason),
            Served::Wait { until, work } => {
                Answer::Wait(Waiting { until, heeds_changes: true, exchange, work })
            }
        }
    }
}

/// An API as the cluster answers it.
trait Serve: Request<Response: Throttled> {
    /// The answer that says `code` wherever it can.
    fn refuse(&self, cluster: &Cluster, code: ErrorCode) -> Self::Response;

    /// Carries the request out.
    fn serve(self, cluster: &mut Cluster, arrival: &Arrival) -> Served<Self::Response>;
}

/// What came of a request.
enum Served<Response> {
    Reply(Response),
    /// No answer was wanted.
    Silent {
        failed: bool,
    },
    Close(CloseReason),
    Wait {
        until: Instant,
        work: Work,
    },
}

/// When and how a request came.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    now: Now,
    exchange: Exchange,
    /// It has waited already, and until then it may.
    until: Option<Instant>,
}

impl Exchange {
    /// Answers; a `pause` for a quota follows the answer.
    fn reply<R: Serve>(self, mut response: R::Response, pause: Duration) -> Answer {
        let mut correlation_id = self.correlation_id;
        let mut mute = pause;
        match self.fault {
            Fault::WrongCorrelationId => correlation_id = correlation_id.wrapping_add(1),
            Fault::Throttle(pause) => mute = mute.max(pause),
            _ => {}
        }
        if !mute.is_zero() {
            *response.throttle_time_ms() = i32::try_from(mute.as_millis()).unwrap_or(i32::MAX);
        }
        match encode_response(&response, self.version, correlation_id) {
            Ok(frame) => Answer::Reply { frame, delay: Duration::ZERO, manner: Manner::Whole, mute },
            Err(error) => Answer::Close(CloseReason::Response { api: self.api, error }),
        }
    }

    fn no_reply(self, failed: bool, pause: Duration) -> Answer {
        match self.fault {
            Fault::LoseReply => Answer::Close(CloseReason::Fault(self.fault)),
            _ if failed => Answer::Close(CloseReason::AcksZero),
            Fault::Throttle(mute) => Answer::Nothing { mute: mute.max(pause) },
            _ => Answer::Nothing { mute: pause },
        }
    }
}

/// A response that can ask for a pause.
trait Throttled: Body + 'static {
    fn throttle_time_ms(&mut self) -> &mut i32;
}

macro_rules! throttled {
    ($($response:ty),* $(,)?) => {
        $(
            impl Throttled for $response {
                fn throttle_time_ms(&mut self) -> &mut i32 {
                    &mut self.throttle_time_ms
                }
            }
        )*
    };
}

throttled!(
    ApiVersionsResponse,
    CreatePartitionsResponse,
    CreateTopicsResponse,
    DeleteRecordsResponse,
    DeleteTopicsResponse,
    DescribeClusterResponse,
    DescribeConfigsResponse,
    DescribeProducersResponse,
    FetchResponse,
    FindCoordinatorResponse,
    IncrementalAlterConfigsResponse,
    InitProducerIdResponse,
    ListOffsetsResponse,
    MetadataResponse,
    OffsetForLeaderEpochResponse,
    ProduceResponse,
);

/// Where in an answer anything may be that is not its length or its correlation id.
const BEHIND_CORRELATION_ID: usize = 8;

/// What only the controller does, where brokers do not pass it on.
fn is_for_controller(api: ApiKey) -> bool {
    matches!(api, ApiKey::CREATE_TOPICS | ApiKey::DELETE_TOPICS | ApiKey::CREATE_PARTITIONS)
}

/// A random id that is not one of Kafka's own (version 4, RFC 9562).
fn id(random: &mut fastrand::Rng) -> Uuid {
    let mut bytes = random.u128(..).to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Uuid(bytes)
}

impl Now {
    /// Another moment of the same clock.
    fn at(self, monotonic: Instant) -> Self {
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let unix_ms = match monotonic.checked_duration_since(self.monotonic) {
            Some(later) => self.unix_ms.saturating_add(millis(later)),
            None => self.unix_ms.saturating_sub(millis(self.monotonic - monotonic)),
        };
        Self { monotonic, unix_ms }
    }
}

/// A pause that no clock can count lasts for ever, which is as long as anybody waits.
fn later(now: Now, pause: Duration) -> Instant {
    now.monotonic.checked_add(pause).unwrap_or_else(|| now.monotonic + FOR_EVER)
}

const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

#[cfg(test)]
mod tests {
    use kwal_protocol::{
        api::encode_request,
        messages::{CreatableTopic, ProducePartition, ProduceTopic},
        record::{BatchBuilder, Compression, Headers},
    };
    use kwal_transport::HostPort;

    use super::*;

    #[test]
    fn what_is_appended_stays_where_it_was_received() {
        let now = Now { monotonic: tokio::time::Instant::now().into_std(), unix_ms: 0 };
        let mut cluster = Cluster::new(Settings::default(), now);
        cluster.register(1, HostPort::new("broker", 9092));
        let (from, _) = cluster.open(1).unwrap();
        let topic = CreatableTopic { num_partitions: 1, replication_factor: 1, ..CreatableTopic::default() };
        cluster.create_simply(&CreatableTopic { name: "wal".to_owned(), ..topic }).unwrap();
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(1, None, Some(&[7; 10_000]), &Headers::new());
        let batch = builder.finish().unwrap().to_bytes();
        let data = ProducePartition { index: 0, records: Some(batch.into()) };
        let topic =
            ProduceTopic { name: "wal".to_owned(), partition_data: vec![data], ..ProduceTopic::default() };
        let request = ProduceRequest { acks: -1, topic_data: vec![topic], ..ProduceRequest::default() };
        let mut frame = encode_request(&request, 12, 1, None).unwrap();
        frame.advance(4);
        let frame = Bytes::from(frame.copy_to_bytes(frame.remaining()).to_vec());
        let received = frame.as_ptr_range();
        assert!(matches!(cluster.handle(from, now, frame), Answer::Reply { .. }));
        let stored = cluster.partition("wal", 0).unwrap().authority().unwrap().log.batches().next().unwrap();
        assert!(received.contains(&stored.as_ptr()), "copied");
    }
}
