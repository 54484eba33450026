//! The metadata cache: one snapshot for all, refreshed by one request for many callers.

mod check;
mod snapshot;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{MetadataRequest, MetadataResponse, MetadataTopic},
};
use kwal_transport::HostPort;
use tracing::{debug, warn};

pub(crate) use self::{
    check::{are_distinct, is_consistent},
    snapshot::{LeaderUpdate, Metadata, TopicMetadata, address},
};
use self::{
    check::{check, retain_requested},
    snapshot::Contradictions,
};
use crate::{
    error::{CallContext, Error, ErrorKind},
    pool::{Broker, BrokerRef, ConnectionPool},
};

/// Cluster metadata shared by all handles of a client. New broker addresses are pushed into the pool.
///
/// One response adds to what is known. What it contradicts, a second broker has to contradict as well, since
/// one broker may lag, be starting, or be cut off from the cluster.
#[derive(Debug)]
pub(crate) struct MetadataCache {
    pool: Arc<ConnectionPool>,
    snapshot: RwLock<Arc<Metadata>>,
    /// Locked during a refresh, so that callers that need one at the same time share it.
    refresh: tokio::sync::Mutex<RefreshResult>,
    queue: Mutex<RefreshQueue>,
}

/// What callers that wait for a refresh need.
#[derive(Debug, Default)]
struct RefreshQueue {
    topics: BTreeSet<String>,
    /// How many refreshes have ended, successful or not.
    ended: u64,
}

/// The result of the last refresh, for every caller that waited for it.
#[derive(Debug)]
struct RefreshResult {
    /// Its number among all refreshes.
    number: u64,
    /// The error code of each topic, or why no broker answered.
    topics: Result<BTreeMap<String, ErrorCode>, Error>,
}

impl MetadataCache {
    pub(crate) fn new(pool: Arc<ConnectionPool>) -> Self {
        Self {
            pool,
            snapshot: RwLock::default(),
            refresh: tokio::sync::Mutex::new(RefreshResult { number: 0, topics: Ok(BTreeMap::new()) }),
            queue: Mutex::default(),
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Metadata> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the topic of a call from metadata newer than `min_generation`, refreshed if necessary.
    pub(crate) async fn topic(
        &self,
        call: CallContext<'_>,
        min_generation: u64,
    ) -> Result<Arc<TopicMetadata>, Error> {
        let name = call.topic.unwrap_or_default();
        let known = || {
            let snapshot = self.snapshot();
            let known = snapshot.topics.get(name)?;
            (known.generation(call.partition) > min_generation).then(|| Arc::clone(known))
        };
        if let Some(known) = known() {
            return Ok(known);
        }
        let code = self.refresh_unless(Some(name), || known().is_some()).await?;
        known().ok_or_else(|| {
            let code = match code {
                // The response did not mention the topic.
                ErrorCode::NONE => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                code => code,
            };
            call.with_api(ApiKey::METADATA).error(ErrorKind::Broker { code, message: None })
        })
    }

    /// Refreshes brokers and controller.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        self.refresh_unless(None, || false).await.map(drop)
    }

    /// Refreshes metadata unless `is_fresh` reports that another task just did. Returns the error code of the
    /// topic.
    ///
    /// Single flight: callers that arrive during a refresh share its result, success or failure. What they
    /// need in addition is requested together by the next one.
    async fn refresh_unless(
        &self,
        topic: Option<&str>,
        is_fresh: impl Fn() -> bool,
    ) -> Result<ErrorCode, Error> {
        let before = {
            let mut queue = self.queue();
            queue.topics.extend(topic.map(str::to_owned));
            queue.ended
        };
        let mut last = self.refresh.lock().await;
        if is_fresh() {
            return Ok(ErrorCode::NONE);
        }
        if last.number == before || !last.covers(topic) {
            let mut topics = self.queue().topics.clone();
            topics.extend(topic.map(str::to_owned));
            last.topics = self.request_topics(&topics).await;
            let mut queue = self.queue();
            queue.ended += 1;
            queue.topics.retain(|topic| !topics.contains(topic));
            last.number = queue.ended;
        }
        let codes = last.topics.as_ref().map_err(Clone::clone)?;
        Ok(topic.and_then(|topic| codes.get(topic)).copied().unwrap_or_default())
    }

    fn queue(&self) -> MutexGuard<'_, RefreshQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request_topics(&self, topics: &BTreeSet<String>) -> Result<BTreeMap<String, ErrorCode>, Error> {
        let topic = |name: &String| MetadataTopic { name: Some(name.clone()), ..MetadataTopic::default() };
        let request = MetadataRequest {
            topics: Some(topics.iter().map(topic).collect()),
            // A lookup never creates a topic.
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let (broker, response) = self.request(&request).await?;
        debug!(brokers = response.brokers.len(), topics = response.topics.len(), "metadata");
        let contradictions = self.change(|metadata| metadata.update(&response, broker.id()));
        if !contradictions.is_empty() {
            let contradictions = match self.second_opinion(&request, &response, broker, &contradictions).await
            {
                Some((broker, second)) => {
                    let others = self.change(|metadata| metadata.update(&second, broker.id()));
                    contradictions.shared_with(others)
                }
                None => contradictions.without_second_opinion(&self.snapshot()),
            };
            self.change(|metadata| metadata.accept(contradictions));
        }
        let topics = response.topics.into_iter();
        Ok(topics.filter_map(|topic| Some((topic.name?, topic.error_code))).collect())
    }

    /// Asks another broker for the same metadata: one that the first response lists, otherwise one that it
    /// does not, or a bootstrap address. `None` if none of them answers soon.
    async fn second_opinion(
        &self,
        request: &MetadataRequest,
        first: &MetadataResponse,
        by: BrokerRef,
        contradictions: &Contradictions,
    ) -> Option<(BrokerRef, MetadataResponse)> {
        let listed = first.brokers.iter().map(|broker| broker.node_id);
        let listed = listed.filter(|id| !contradictions.brokers.contains_key(id)).collect();
        let contradicted = contradictions.brokers.keys().copied().collect();
        let accept = |response: &MetadataResponse, broker: &Broker| self.accept(request, response, broker);
        let (broker, mut response) =
            self.pool.another_broker(request, by, [listed, contradicted], accept).await?;
        retain_requested(request, &mut response);
        (!response.error_code.is_error()).then_some((broker, response))
    }

    /// Sends a Metadata request to any broker of this cluster. The snapshot stays as it is. Returns the
    /// broker as well.
    pub(crate) async fn request(
        &self,
        request: &MetadataRequest,
    ) -> Result<(BrokerRef, MetadataResponse), Error> {
        let accept = |response: &MetadataResponse, broker: &Broker| self.accept(request, response, broker);
        let (broker, mut response) = self.pool.any_broker(request, accept).await?;
        retain_requested(request, &mut response);
        match response.error_code {
            ErrorCode::NONE => Ok((broker, response)),
            code => {
                let call = CallContext::cluster(ApiKey::METADATA);
                Err(call.error(ErrorKind::Broker { code, message: None }))
            }
        }
    }

    /// Rejects a response to which that of another broker is preferable.
    fn accept(
        &self,
        request: &MetadataRequest,
        response: &MetadataResponse,
        broker: &Broker,
    ) -> Result<(), Error> {
        let kind = match (&self.snapshot().cluster_id, &response.cluster_id, response.error_code) {
            (_, _, code @ ErrorCode::REBOOTSTRAP_REQUIRED) => {
                self.rebootstrap(broker);
                ErrorKind::Broker { code, message: None }
            }
            // Everything else in it may be missing.
            (_, _, code) if code.is_error() => return Ok(()),
            (Some(was), Some(is), _) if was != is => {
                self.pool.troubles().other_cluster(&broker.address, was, is);
                ErrorKind::OtherCluster { was: was.clone(), is: is.clone() }
            }
            _ => match check(request, response) {
                Ok(()) => return Ok(()),
                Err(kind) => kind,
            },
        };
        Err(Error::new(kind).with_context(CallContext::cluster(ApiKey::METADATA).at_broker(broker)))
    }

    /// Forgets what was learnt and closes all connections, as a broker requires (KIP-1102). The next requests
    /// go to the bootstrap addresses, whose names are resolved again.
    ///
    /// The id of the cluster is kept: another cluster does not have the same logs.
    pub(crate) fn rebootstrap(&self, broker: &Broker) {
        // The answers to other requests of the time before require the same.
        if broker.is_retired() {
            return;
        }
        let has_forgotten = {
            let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
            let has_brokers = !snapshot.brokers.is_empty();
            Arc::make_mut(&mut snapshot).forget_all();
            self.pool.reset();
            has_brokers
        };
        // Not for each attempt if the bootstrap addresses require it as well. Nothing is locked: a subscriber
        // may ask for the state of the client.
        if has_forgotten {
            let HostPort { host, port } = &broker.address;
            warn!(
                messaging.system = "kafka",
                server.address = host,
                server.port = port,
                "the broker requires clients to start again from the bootstrap addresses"
            );
        }
    }

    /// Applies a response that no broker sent, for tests.
    #[cfg(test)]
    pub(crate) fn update(&self, response: &MetadataResponse) {
        self.change(|metadata| {
            let contradictions = metadata.update(response, None);
            metadata.accept(contradictions);
        });
    }

    /// Notes that the leader of an epoch denies that it leads: an older epoch may be the right one.
    pub(crate) fn deny(&self, topic: &str, partition: i32, leader: i32, leader_epoch: i32) {
        // Changes copy the snapshot, and all calls to a former leader report it.
        if self.snapshot().is_believed(topic, partition, leader, leader_epoch) {
            debug!(topic, partition, leader, leader_epoch, "the leader denies that it leads");
            self.change(|metadata| metadata.deny(topic, partition, leader, leader_epoch));
        }
    }

    /// Applies a broker's report of the current leader (KIP-951), if it is newer than the snapshot.
    pub(crate) fn apply_leader_update(&self, topic: &str, partition: i32, update: LeaderUpdate) {
        debug!(topic, partition, ?update, "the broker reports the leader");
        self.change(|metadata| metadata.apply_leader_update(topic, partition, update));
    }

    /// Removes a topic, which was changed or deleted.
    pub(crate) fn forget(&self, topic: &str) {
        self.change(|metadata| {
            metadata.topics.remove(topic);
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut Metadata) -> T) -> T {
        let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(Arc::make_mut(&mut snapshot));
        // Under the lock, so that the pool gets the snapshots in their order.
        self.pool.update_brokers(&snapshot.brokers);
        result
    }
}

impl RefreshResult {
    /// Whether another refresh could not say more about the topic.
    fn covers(&self, topic: Option<&str>) -> bool {
        match (&self.topics, topic) {
            (Ok(codes), Some(topic)) => codes.get(topic).is_some_and(|code| code.is_error()),
            _ => true,
        }
    }
}
