//! Who is there, who leads what, and a connection to each: what all clients of one cluster share.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use kwal_protocol::{
    api::{ApiKey, Versions},
    compression::Compressor,
    connection::{CallError, ConnectionConfig},
    error_code::ErrorCode,
    messages::{MetadataRequest, MetadataTopic},
};
use kwal_transport::{HostPort, TransportError};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::debug;

use crate::{
    attempts::Attempts,
    config::Config,
    driver::{Failed, Link},
    error::{At, Error, Outcome, Recovery},
    metadata::{Metadata, TopicMetadata},
    partition::ProducerState,
    speak::Speak,
};

/// One unit of the budget for appends.
const BUDGET_UNIT: usize = 1024;

pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) runtime: Handle,
    metadata: RwLock<Arc<Metadata>>,
    /// Held while metadata is asked for, so that many who need it ask once. Counts the answers.
    refresh: tokio::sync::Mutex<u64>,
    lanes: Mutex<HashMap<LaneKey, Arc<Lane>>>,
    rng: Mutex<Rng>,
    next_lane: AtomicUsize,
    budget: Arc<Semaphore>,
    /// Producer ids that nobody uses at the moment, by partition: who opens the partition next goes on with one, so that there
    /// are never more of them than there were partition clients at the same time.
    idle_producers: Mutex<HashMap<(String, i32), Vec<ProducerState>>>,
    /// For one batch at a time: whoever finds it taken makes one of its own.
    compressor: Mutex<Compressor>,
}

/// A connection that some calls share. Requests of one connection are worked on one at a time, so what may take long (an
/// append that waits for replicas, a fetch that waits for records) has its own.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum LaneKind {
    /// What is short.
    Shared,
    /// Appends of the partition clients with this number.
    Produce(usize),
    /// Reads of the partition clients with this number.
    Fetch(usize),
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Target {
    Broker(i32),
    /// A bootstrap address by its index: used until the brokers are known, and when none of them answers.
    Bootstrap(usize),
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct LaneKey {
    target: Target,
    kind: LaneKind,
}

#[derive(Debug, Default)]
struct Lane {
    open: tokio::sync::Mutex<Option<(Link, HostPort)>>,
}

/// What a call is about: for its errors.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place<'a> {
    pub(crate) topic: Option<&'a str>,
    pub(crate) partition: Option<i32>,
}

impl Place<'_> {
    pub(crate) fn at(&self, api: ApiKey, broker: Option<String>) -> Box<At> {
        Box::new(At {
            api: Some(api),
            topic: self.topic.map(str::to_owned),
            partition: self.partition,
            broker,
            outcome: Outcome::NotAppended,
        })
    }
}

impl Cluster {
    /// Connects to the first bootstrap broker that answers.
    pub(crate) async fn connect(config: Config, runtime: Handle) -> Result<Arc<Self>, Error> {
        let seed = config.seed;
        let units = (config.limits.appends / BUDGET_UNIT).clamp(1, Semaphore::MAX_PERMITS);
        let this = Arc::new(Self {
            config,
            runtime,
            metadata: RwLock::default(),
            refresh: tokio::sync::Mutex::default(),
            lanes: Mutex::default(),
            rng: Mutex::new(seed.map_or_else(Rng::new, Rng::with_seed)),
            next_lane: AtomicUsize::new(0),
            budget: Arc::new(Semaphore::new(units)),
            idle_producers: Mutex::default(),
            compressor: Mutex::default(),
        });
        let attempts = this.attempts(ApiKey::METADATA, Place::default());
        attempts.within(this.refresh(&[])).await?;
        debug!(cluster = this.metadata().cluster_id.as_deref(), "connected");
        Ok(this)
    }

    /// The attempts of an operation that begins now.
    pub(crate) fn attempts<'a>(&self, api: ApiKey, place: Place<'a>) -> Attempts<'a> {
        self.attempts_until(Instant::now() + self.config.deadlines.operation, api, place)
    }

    pub(crate) fn attempts_until<'a>(
        &self,
        deadline: Instant,
        api: ApiKey,
        place: Place<'a>,
    ) -> Attempts<'a> {
        Attempts::new(&self.config, self.fork_rng(), deadline, api, place)
    }

    /// Lends the memory that codecs work with.
    pub(crate) fn with_compressor<T>(&self, work: impl FnOnce(&mut Compressor) -> T) -> T {
        match self.compressor.try_lock() {
            Ok(mut compressor) => work(&mut compressor),
            Err(_taken) => work(&mut Compressor::new()),
        }
    }

    fn fork_rng(&self) -> Rng {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }

    pub(crate) fn next_lane(&self) -> usize {
        self.next_lane.fetch_add(1, Ordering::Relaxed) % self.config.limits.lanes.max(1)
    }

    /// Waits for room for an append of so many bytes, and holds it until dropped.
    pub(crate) async fn reserve(&self, bytes: usize) -> tokio::sync::OwnedSemaphorePermit {
        let limit = (self.config.limits.appends / BUDGET_UNIT).max(1);
        let units = bytes.div_ceil(BUDGET_UNIT).clamp(1, limit);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        match Arc::clone(&self.budget).acquire_many_owned(units).await {
            Ok(permit) => permit,
            Err(_) => unreachable!("the budget is never closed"),
        }
    }

    pub(crate) fn metadata(&self) -> Arc<Metadata> {
        Arc::clone(&self.metadata.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known of a topic, learnt after the answer number `stale`.
    pub(crate) async fn topic(&self, topic: &str, stale: u64) -> Result<Arc<TopicMetadata>, Error> {
        let known = || {
            let metadata = self.metadata();
            let known = metadata.topics.get(topic)?;
            (known.as_of > stale && !known.error.is_error()).then(|| Arc::clone(known))
        };
        if let Some(known) = known() {
            return Ok(known);
        }
        let mut count = self.refresh.lock().await;
        if let Some(known) = known() {
            return Ok(known);
        }
        self.ask_metadata(&[topic], &mut count).await?;
        if let Some(known) = known() {
            return Ok(known);
        }
        let code = match self.metadata().topics.get(topic) {
            Some(told) if told.error.is_error() => told.error,
            // The answer did not speak of the topic.
            _ => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        };
        self.forget(topic);
        let place = Place { topic: Some(topic), partition: None };
        Err(Error::Broker { code, message: None, at: place.at(ApiKey::METADATA, None) })
    }

    /// Asks anew for the brokers, and for these topics.
    pub(crate) async fn refresh(&self, topics: &[&str]) -> Result<(), Error> {
        let mut count = self.refresh.lock().await;
        self.ask_metadata(topics, &mut count).await
    }

    pub(crate) fn forget(&self, topic: &str) {
        let mut metadata = self.metadata.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut metadata).topics.remove(topic);
    }

    async fn ask_metadata(&self, topics: &[&str], count: &mut u64) -> Result<(), Error> {
        let topic =
            |name: &&str| MetadataTopic { name: Some((*name).to_owned()), ..MetadataTopic::default() };
        let request = MetadataRequest {
            topics: Some(topics.iter().map(topic).collect()),
            // Looking a topic up never creates it.
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let response = self.call_any(&request).await?;
        if response.error_code.is_error() {
            let at = Place::default().at(ApiKey::METADATA, None);
            return Err(Error::Broker { code: response.error_code, message: None, at });
        }
        *count += 1;
        let next = Arc::new(self.metadata().with(&response, *count));
        debug!(brokers = next.brokers.len(), topics = response.topics.len(), "metadata");
        self.drop_lanes_to_others(&next.brokers);
        *self.metadata.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Connections to brokers that are gone, and to bootstrap addresses once brokers are known, are let go.
    fn drop_lanes_to_others(&self, brokers: &BTreeMap<i32, HostPort>) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|key, _| match key.target {
            Target::Broker(id) => brokers.contains_key(&id),
            Target::Bootstrap(_) => brokers.is_empty(),
        });
    }

    /// Calls whichever broker answers: those that are known, from a random one on, then the bootstrap addresses.
    pub(crate) async fn call_any<R: Speak>(&self, request: &R) -> Result<R::Response, Error> {
        let known: Vec<_> = self.metadata().brokers.keys().copied().collect();
        let from = self.fork_rng().usize(..known.len().max(1));
        let known = known.iter().cycle().skip(from).take(known.len()).map(|id| Target::Broker(*id));
        let targets = known.chain((0..self.config.bootstrap.len()).map(Target::Bootstrap));
        let mut attempts = Vec::new();
        for target in targets {
            match self.call_target(target, request).await {
                Ok(response) => return Ok(response),
                // Another broker would not help.
                Err(error) if error.recovery() == Recovery::Fail => return Err(error),
                Err(error) => attempts.push((self.name(target), error)),
            }
        }
        Err(Error::NoBroker { attempts })
    }

    async fn call_target<R: Speak>(&self, target: Target, request: &R) -> Result<R::Response, Error> {
        let place = Place::default();
        let lane = self.open_lane(LaneKey { target, kind: LaneKind::Shared }, R::KEY, place).await?;
        lane.call(request, place, R::OURS, None).await
    }

    /// The connection for a kind of calls to a broker.
    pub(crate) async fn lane<'a>(
        &'a self,
        broker: i32,
        kind: LaneKind,
        api: ApiKey,
        place: Place<'_>,
    ) -> Result<OpenLane<'a>, Error> {
        self.open_lane(LaneKey { target: Target::Broker(broker), kind }, api, place).await
    }

    async fn open_lane<'a>(
        &'a self,
        key: LaneKey,
        api: ApiKey,
        place: Place<'_>,
    ) -> Result<OpenLane<'a>, Error> {
        let link = self.link(key, api, place).await?;
        Ok(OpenLane { cluster: self, target: key.target, link })
    }

    /// The connection of a lane; made if there is none, or if the broker has moved.
    async fn link(&self, key: LaneKey, api: ApiKey, place: Place<'_>) -> Result<Link, Error> {
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(lanes.entry(key).or_default())
        };
        let mut open = lane.open.lock().await;
        let address = self.address(key.target);
        match (&*open, &address) {
            (Some((link, to)), Some(address)) if link.is_open() && to == address => return Ok(link.clone()),
            _ => *open = None,
        }
        let at = || place.at(api, Some(self.name(key.target)));
        let Some(address) = address else {
            // Metadata named a leader that it has no address for; the next answer may have.
            let code = ErrorCode::BROKER_NOT_AVAILABLE;
            return Err(Error::Broker { code, message: None, at: at() });
        };
        let link = self.open(&address, at).await?;
        debug!(broker = %self.name(key.target), kind = ?key.kind, "connected");
        *open = Some((link.clone(), address));
        Ok(link)
    }

    async fn open(&self, address: &HostPort, at: impl Fn() -> Box<At>) -> Result<Link, Error> {
        let limit = self.config.deadlines.connect;
        let begun = Instant::now();
        let stream = match timeout(limit, self.config.connect.connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(Error::Connect { at: at(), source: Arc::new(source) }),
            Err(_) => {
                let source = TransportError::other(
                    address.clone(),
                    TookTooLong { limit, way: self.config.way.clone() },
                );
                return Err(Error::Connect { at: at(), source: Arc::new(source) });
            }
        };
        let config = ConnectionConfig {
            client_id: Some(self.config.client_id.clone()),
            max_frame_len: self.config.limits.frame,
            request_timeout: self.config.deadlines.request,
            handshake_timeout: limit.saturating_sub(begun.elapsed()),
            ..ConnectionConfig::default()
        };
        Link::open(stream, config, &self.runtime).await.map_err(|error| match error {
            Some(source) => Error::Connection { at: at(), source },
            None => Error::Closed { at: at() },
        })
    }

    fn address(&self, target: Target) -> Option<HostPort> {
        match target {
            Target::Broker(id) => self.metadata().brokers.get(&id).cloned(),
            Target::Bootstrap(index) => self.config.bootstrap.get(index).cloned(),
        }
    }

    /// What a broker is called in errors and logs.
    fn name(&self, target: Target) -> String {
        match (target, self.address(target)) {
            (Target::Broker(id), Some(address)) => format!("broker {id} ({address})"),
            (Target::Broker(id), None) => format!("broker {id}"),
            (Target::Bootstrap(_), Some(address)) => address.to_string(),
            (Target::Bootstrap(index), None) => format!("bootstrap broker {index}"),
        }
    }

    pub(crate) fn take_producer(&self, topic: &str, partition: i32) -> Option<ProducerState> {
        let mut idle = self.idle_producers.lock().unwrap_or_else(PoisonError::into_inner);
        idle.get_mut(&(topic.to_owned(), partition))?.pop()
    }

    pub(crate) fn give_producer(&self, topic: &str, partition: i32, producer: ProducerState) {
        let mut idle = self.idle_producers.lock().unwrap_or_else(PoisonError::into_inner);
        idle.entry((topic.to_owned(), partition)).or_default().push(producer);
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata = self.metadata();
        f.debug_struct("Cluster")
            .field("id", &metadata.cluster_id)
            .field("brokers", &metadata.brokers)
            .finish_non_exhaustive()
    }
}

/// A connection that is ready for calls.
#[derive(Debug)]
pub(crate) struct OpenLane<'a> {
    cluster: &'a Cluster,
    target: Target,
    link: Link,
}

impl OpenLane<'_> {
    /// The version that requests of this kind are sent in, if there is any.
    pub(crate) fn version<R: Speak>(&self) -> Option<i16> {
        self.link.session().negotiate(R::KEY, R::OURS).ok()
    }

    /// Makes a call. `limit` is for a request with which the broker itself waits.
    ///
    /// Its outcome counts as unknown from the moment that its bytes are handed to the stream until there is an answer.
    pub(crate) async fn call<R: Speak>(
        &self,
        request: &R,
        place: Place<'_>,
        ours: Versions,
        limit: Option<Duration>,
    ) -> Result<R::Response, Error> {
        let at = |outcome| {
            let mut at = place.at(R::KEY, Some(self.broker()));
            if R::KEY.changes_something() {
                at.outcome = outcome;
            }
            at
        };
        let call = self.link.session().encode(request, ours).map_err(|error| match error {
            CallError::Unsupported { ours, theirs, .. } => {
                Error::Unsupported { ours, theirs, at: at(Outcome::NotAppended) }
            }
            error => Error::InvalidInput(format!("{}: {error}", at(Outcome::NotAppended))),
        })?;
        let call = match limit {
            Some(limit) => call.with_timeout(limit),
            None => call,
        };
        let reply = self.link.call(call).await.map_err(|Failed { error, sent }| {
            let at = at(if sent { Outcome::Unknown } else { Outcome::NotAppended });
            match error {
                Some(source) => Error::Connection { at, source },
                None => Error::Closed { at },
            }
        })?;
        let response =
            reply.decode::<R>().map_err(|source| Error::Decode { at: at(Outcome::Unknown), source })?;
        let pause = R::throttle_time_ms(&response);
        if pause > 0 {
            debug!(api = %R::KEY, pause, "the broker throttles");
            self.link.throttle(Duration::from_millis(pause.unsigned_abs().into()));
        }
        Ok(response)
    }

    /// What the broker is called in errors.
    pub(crate) fn broker(&self) -> String {
        self.cluster.name(self.target)
    }
}

/// A connection that was not there in time.
#[derive(Debug)]
struct TookTooLong {
    limit: Duration,
    way: String,
}

impl fmt::Display for TookTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection within {:?}{}", self.limit, self.way)
    }
}

impl std::error::Error for TookTooLong {}
