//! Who is there, who leads what, and a connection to each: what all clients of one cluster share.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use fastrand::Rng;
use futures::{StreamExt, stream::FuturesUnordered};
use kwal_protocol::{
    api::{ApiKey, Versions},
    compression::Compressor,
    connection::{CallError, ConnectionConfig, ConnectionError},
    error_code::ErrorCode,
    messages::{MetadataRequest, MetadataResponse, MetadataTopic},
};
use kwal_transport::{HostPort, TransportError};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::{debug, warn};

use crate::{
    attempts::Attempts,
    config::Config,
    driver::{Failed, Link, Wait},
    error::{At, Error, Outcome, Recovery},
    lanes::{Lane, Lanes, Share, Target},
    metadata::{LeaderHint, Metadata, TopicMetadata},
    partition::ProducerState,
    renewal::Renewals,
    speak::Speak,
};

/// One unit of the budget for appends.
const BUDGET_UNIT: usize = 1024;

pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) runtime: Handle,
    metadata: RwLock<Arc<Metadata>>,
    /// Held while metadata is asked for, so that many who need it ask once.
    refresh: tokio::sync::Mutex<LastAnswer>,
    wanted: Mutex<Wanted>,
    lanes: Lanes,
    rng: Mutex<Rng>,
    budget: Arc<Semaphore>,
    /// Producer ids that nobody uses at the moment, by partition: who opens the partition next goes on with one, so that there
    /// are never more of them than there were partition clients at the same time.
    idle_producers: Mutex<HashMap<(String, i32), Vec<ProducerState>>>,
    /// For one batch at a time: whoever finds it taken makes one of its own.
    compressor: Mutex<Compressor>,
}

/// What those who wait for metadata want of it.
#[derive(Debug, Default)]
struct Wanted {
    topics: BTreeSet<String>,
    /// How often metadata has been asked for, with an answer or in vain.
    asked: u64,
}

/// What came of asking for metadata the last time: for all who waited for it.
#[derive(Debug)]
struct LastAnswer {
    /// How often it had been asked for by then.
    number: u64,
    /// What was told of each topic, or why nobody could be asked.
    told: Result<BTreeMap<String, ErrorCode>, Error>,
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
        let lanes = Lanes::new(config.limits.lanes);
        let this = Arc::new(Self {
            config,
            runtime,
            metadata: RwLock::default(),
            refresh: tokio::sync::Mutex::new(LastAnswer { number: 0, told: Ok(BTreeMap::new()) }),
            wanted: Mutex::default(),
            lanes,
            rng: Mutex::new(seed.map_or_else(Rng::new, Rng::with_seed)),
            budget: Arc::new(Semaphore::new(units)),
            idle_producers: Mutex::default(),
            compressor: Mutex::default(),
        });
        let attempts = this.attempts(ApiKey::METADATA, Place::default());
        attempts.within(this.refresh()).await?;
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

    /// What is known of the topic of a place, or of its partition, learnt after the news number `stale`.
    pub(crate) async fn topic(&self, place: Place<'_>, stale: u64) -> Result<Arc<TopicMetadata>, Error> {
        let name = place.topic.unwrap_or_default();
        let known = || {
            let metadata = self.metadata();
            let known = metadata.topics.get(name)?;
            (known.as_of(place.partition) > stale).then(|| Arc::clone(known))
        };
        if let Some(known) = known() {
            return Ok(known);
        }
        let code = self.ask(Some(name), || known().is_some()).await?;
        known().ok_or_else(|| {
            let code = match code {
                // The answer did not speak of the topic.
                ErrorCode::NONE => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                code => code,
            };
            Error::Broker { code, message: None, at: place.at(ApiKey::METADATA, None) }
        })
    }

    /// Asks anew for the brokers and the controller.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        self.ask(None, || false).await.map(drop)
    }

    /// Asks for metadata, unless it is `enough` what others have learnt meanwhile; answers what was told of the topic.
    ///
    /// Who comes while somebody asks waits for what comes of it, a failure included; what is wanted meanwhile is asked for
    /// together.
    async fn ask(&self, topic: Option<&str>, enough: impl Fn() -> bool) -> Result<ErrorCode, Error> {
        let wanted = || self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = {
            let mut wanted = wanted();
            wanted.topics.extend(topic.map(str::to_owned));
            wanted.asked
        };
        let mut last = self.refresh.lock().await;
        if enough() {
            return Ok(ErrorCode::NONE);
        }
        if last.number == before || !last.serves(topic) {
            let mut topics = wanted().topics.clone();
            topics.extend(topic.map(str::to_owned));
            last.told = self.ask_metadata(&topics).await;
            let mut wanted = wanted();
            wanted.asked += 1;
            wanted.topics.retain(|topic| !topics.contains(topic));
            last.number = wanted.asked;
        }
        let told = last.told.as_ref().map_err(Clone::clone)?;
        Ok(topic.and_then(|topic| told.get(topic)).copied().unwrap_or_default())
    }

    pub(crate) fn forget(&self, topic: &str) {
        self.change_metadata(|metadata| {
            metadata.topics.remove(topic);
        });
    }

    async fn ask_metadata(&self, topics: &BTreeSet<String>) -> Result<BTreeMap<String, ErrorCode>, Error> {
        let topic = |name: &String| MetadataTopic { name: Some(name.clone()), ..MetadataTopic::default() };
        let request = MetadataRequest {
            topics: Some(topics.iter().map(topic).collect()),
            // Looking a topic up never creates it.
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let (by, response) = self.call_for_metadata(&request).await?;
        debug!(brokers = response.brokers.len(), topics = response.topics.len(), "metadata");
        self.change_metadata(|metadata| metadata.learn(&response, by));
        let told = response.topics.into_iter();
        Ok(told.filter_map(|told| Some((told.name?, told.error_code))).collect())
    }

    /// Takes a broker's word for who leads a partition now (KIP-951), if that is news.
    pub(crate) fn take_hint(&self, place: Place<'_>, hint: LeaderHint) {
        let (Some(topic), Some(partition)) = (place.topic, place.partition) else { return };
        debug!(topic, partition, ?hint, "the broker says who leads");
        self.change_metadata(|metadata| metadata.take_hint(topic, partition, hint));
    }

    /// Connections to brokers that are gone or elsewhere, and to bootstrap addresses once brokers are known, are let go.
    fn change_metadata(&self, change: impl FnOnce(&mut Metadata)) {
        change(Arc::make_mut(&mut self.metadata.write().unwrap_or_else(PoisonError::into_inner)));
        let brokers = &self.metadata().brokers;
        self.lanes.retire(|target, address| match target {
            Target::Broker(id) => brokers.get(&id) == Some(address),
            Target::Bootstrap(_) => brokers.is_empty(),
        });
    }

    /// Asks whichever broker answers first for metadata, and says which one it was, unless it is known by its bootstrap address
    /// alone. One of another cluster does not count.
    pub(crate) async fn call_for_metadata(
        &self,
        request: &MetadataRequest,
    ) -> Result<(Option<i32>, MetadataResponse), Error> {
        let is_ours = |response: &MetadataResponse, broker: String| match (
            &self.metadata().cluster_id,
            &response.cluster_id,
        ) {
            (Some(was), Some(is)) if was != is => {
                warn!(broker, was, is, "a broker of another cluster answers");
                Err(Error::OtherCluster { broker, was: was.clone(), is: is.clone() })
            }
            _ => Ok(()),
        };
        let (target, response) = self.first_answer(request, is_ours).await?;
        let by = match target {
            Target::Broker(id) => Some(id),
            Target::Bootstrap(_) => None,
        };
        match response.error_code {
            ErrorCode::NONE => Ok((by, response)),
            code => {
                let at = Place::default().at(ApiKey::METADATA, None);
                Err(Error::Broker { code, message: None, at })
            }
        }
    }

    /// Calls whichever broker answers first.
    pub(crate) async fn call_any<R: Speak>(&self, request: &R) -> Result<R::Response, Error> {
        self.first_answer(request, |_, _| Ok(())).await.map(|(_, response)| response)
    }

    /// Calls brokers until one has answered what can be accepted; says which one it was. A bootstrap address that was asked
    /// besides is let go, once brokers are known.
    async fn first_answer<R: Speak>(
        &self,
        request: &R,
        accept: impl Fn(&R::Response, String) -> Result<(), Error>,
    ) -> Result<(Target, R::Response), Error> {
        let answer = self.call_in_order(request, accept).await;
        if !self.metadata().brokers.is_empty() {
            self.lanes.leave_bootstrap();
        }
        answer
    }

    /// Calls one broker after the other, and the next one besides when one takes long.
    async fn call_in_order<R: Speak>(
        &self,
        request: &R,
        accept: impl Fn(&R::Response, String) -> Result<(), Error>,
    ) -> Result<(Target, R::Response), Error> {
        let call = async |target| {
            let place = Place::default();
            let result = async {
                let lane = self.shared_lane(target, R::KEY, place).await?;
                let response = lane.call(request, place, R::OURS, None).await?;
                accept(&response, lane.broker()).map(|()| response)
            };
            (target, result.await)
        };
        let order = self.order();
        let pause = self.config.deadlines.request.min(self.config.deadlines.connect);
        let pause = (pause / 10).min(pause / u32::try_from(order.len()).unwrap_or(u32::MAX).max(1));
        let mut order = order.into_iter().peekable();
        let mut calls = FuturesUnordered::new();
        let mut last = None;
        let mut failed = Vec::new();
        loop {
            if let Some(target) = order.next() {
                last = Some(target);
                calls.push(call(target));
            }
            let patience = match (last, order.peek()) {
                (_, None) => None,
                // A slow answer is no reason yet to begin again from the start.
                (Some(Target::Broker(_)), Some(Target::Bootstrap(_))) => {
                    Some(self.config.deadlines.request / 2)
                }
                _ => Some(pause),
            };
            let next = match patience {
                Some(patience) => timeout(patience, calls.next()).await,
                None => Ok(calls.next().await),
            };
            match (next, last) {
                (Ok(Some((target, Ok(response)))), _) => {
                    self.lanes.suspect(target, false);
                    return Ok((target, response));
                }
                // Another broker would not help.
                (Ok(Some((_, Err(error)))), _)
                    if error.recovery() == Recovery::Fail && !error.is_of_this_broker()
                        || matches!(error, Error::Credentials { .. }) =>
                {
                    return Err(error);
                }
                (Ok(Some((target, Err(error)))), _) => {
                    self.lanes.suspect(target, true);
                    failed.push((target, error));
                }
                (Ok(None), _) => return Err(self.nobody(failed)),
                (Err(_), Some(slow)) => {
                    debug!(broker = self.name(slow), "no answer yet, another one is asked besides");
                    self.lanes.suspect(slow, true);
                }
                (Err(_), None) => {}
            }
        }
    }

    fn nobody(&self, mut failed: Vec<(Target, Error)>) -> Error {
        match failed.iter().position(|(_, error)| error.is_of_this_broker()) {
            // Nobody else could be asked, and trying again would not mend it.
            Some(index) => failed.swap_remove(index).1,
            None => {
                let named = |(target, error)| (self.name(target), error);
                Error::NoBroker { attempts: failed.into_iter().map(named).collect() }
            }
        }
    }

    /// Has others asked before this broker from now on, until it has answered.
    pub(crate) fn doubt(&self, broker: i32) {
        self.lanes.suspect(Target::Broker(broker), true);
    }

    /// Whom to ask: the brokers that are known, from a random one on, those last with which there was trouble; then the
    /// bootstrap addresses.
    fn order(&self) -> Vec<Target> {
        let mut known: Vec<_> = self.metadata().brokers.keys().copied().map(Target::Broker).collect();
        if !known.is_empty() {
            // The same on machines of 32 and 64 bits.
            let from = self.fork_rng().u64(..known.len() as u64);
            known.rotate_left(from as usize);
            known.sort_by_cached_key(|target| self.lanes.is_suspect(*target));
        }
        known.extend((0..self.config.bootstrap.len()).map(Target::Bootstrap));
        known
    }

    /// The connection to a broker for what is short.
    pub(crate) async fn lane(&self, broker: i32, api: ApiKey, place: Place<'_>) -> Result<OpenLane, Error> {
        self.shared_lane(Target::Broker(broker), api, place).await
    }

    async fn shared_lane(&self, target: Target, api: ApiKey, place: Place<'_>) -> Result<OpenLane, Error> {
        self.open_lane(self.lanes.shared(target, || self.address(target)), target, api, place).await
    }

    /// The connection to a broker that a partition client has a share in.
    pub(crate) async fn lane_of(
        &self,
        share: &Share,
        broker: i32,
        api: ApiKey,
        place: Place<'_>,
    ) -> Result<OpenLane, Error> {
        let target = Target::Broker(broker);
        self.open_lane(self.lanes.of(share, target, || self.address(target)), target, api, place).await
    }

    async fn open_lane(
        &self,
        lane: Option<Arc<Lane>>,
        target: Target,
        api: ApiKey,
        place: Place<'_>,
    ) -> Result<OpenLane, Error> {
        // Metadata named a leader that it has no address for, or no longer; the next answer may have.
        let gone = |broker| Error::Broker {
            code: ErrorCode::BROKER_NOT_AVAILABLE,
            message: None,
            at: place.at(api, Some(broker)),
        };
        let Some(lane) = lane else { return Err(gone(self.name(target))) };
        let link = tokio::select! {
            biased;
            () = lane.peer.gone() => return Err(gone(lane.peer.to_string())),
            link = self.link(&lane, || place.at(api, Some(lane.peer.to_string()))) => link?,
        };
        Ok(OpenLane { lane, link })
    }

    /// The connection of a lane; made if there is none.
    async fn link(&self, lane: &Lane, at: impl Fn() -> Box<At>) -> Result<Link, Error> {
        if let Some(link) = lane.link() {
            return Ok(link);
        }
        let before = lane.peer.failures();
        let _turn = lane.turn.lock().await;
        if let Some(link) = lane.link() {
            return Ok(link);
        }
        // Shorter than the shortest pause between attempts, so that who has failed may try again after it.
        let moment = (self.config.retry.initial / 2).max(Duration::from_millis(1));
        if let Some(error) = lane.peer.failed_since(before, moment) {
            return Err(error.placed(at()));
        }
        match self.open(&lane.peer.address, at).await {
            Ok(link) => {
                debug!(broker = %lane.peer, kind = ?lane.kind, "connected");
                lane.peer.has_connected();
                lane.keep(&link);
                Ok(link)
            }
            Err(error) => {
                lane.peer.has_failed(&error);
                Err(error)
            }
        }
    }

    async fn open(&self, address: &HostPort, at: impl Fn() -> Box<At>) -> Result<Link, Error> {
        let limit = self.config.deadlines.connect;
        let begun = Instant::now();
        let left = || limit.saturating_sub(begun.elapsed());
        // What there is to authenticate with comes first: without it, a connection would be of no use.
        let sasl = match &self.config.sasl {
            Some(sasl) => {
                let mechanism = sasl.begin(limit).await.map_err(|unready| unready.into_error(at()))?;
                Some((mechanism, sasl.clone()))
            }
            None => None,
        };
        let stream = match timeout(left(), self.config.connect.connect(address)).await {
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
        if let Some((mechanism, sasl)) = &sasl
            && !sasl.may_use(stream.is_encrypted())
        {
            return Err(Error::Unencrypted { mechanism: mechanism.name().to_owned(), at: at() });
        }
        let config = ConnectionConfig {
            client_id: Some(self.config.client_id.clone()),
            max_frame_len: self.config.limits.frame,
            request_timeout: self.config.deadlines.request,
            handshake_timeout: left(),
            ..ConnectionConfig::default()
        };
        let sasl = sasl.map(|(mechanism, sasl)| {
            let (longest, rng) = (self.config.deadlines.request, Mutex::new(self.fork_rng()));
            (mechanism, Renewals { sasl, longest, limit, rng })
        });
        Link::open(stream, config, sasl, &self.runtime).await.map_err(|error| match error {
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
        let idle = idle.get_mut(&(topic.to_owned(), partition))?;
        idle.pop()
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

impl LastAnswer {
    /// Whether it says all that can be said of the topic.
    fn serves(&self, topic: Option<&str>) -> bool {
        match (&self.told, topic) {
            (Ok(told), Some(topic)) => told.get(topic).is_some_and(|code| code.is_error()),
            _ => true,
        }
    }
}

/// A connection that is ready for calls.
#[derive(Debug)]
pub(crate) struct OpenLane {
    lane: Arc<Lane>,
    link: Link,
}

impl OpenLane {
    /// The version that requests of this kind are sent in, if there is any.
    pub(crate) fn version<R: Speak>(&self) -> Option<i16> {
        self.link.session().negotiate(R::KEY, R::OURS).ok()
    }

    /// How long the broker may wait with the answer to the next request, of the time that is wanted; see [`Link::wait`].
    pub(crate) fn wait(&self, wanted: Duration) -> Wait {
        self.link.wait(wanted)
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
        let reply = tokio::select! {
            biased;
            reply = self.link.call(call) => reply,
            // Nobody leads from there any more: another broker may know at once what this one would be waited for in vain.
            () = self.lane.peer.gone() => Err(Failed { error: Some(ConnectionError::Closed), sent: true }),
        };
        let reply = reply.map_err(|Failed { error, sent }| {
            self.lane.peer.suspect(true);
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
        self.lane.peer.to_string()
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
