//! The metadata cache: one snapshot for all, refreshed by one request for many callers.

mod snapshot;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{MetadataRequest, MetadataResponse, MetadataTopic},
    text::Printable,
};
use tracing::{debug, warn};

pub(crate) use self::snapshot::{LeaderUpdate, Metadata, TopicMetadata, address};
use crate::{
    error::{CallContext, Error, ErrorKind},
    pool::{Broker, BrokerRef, ConnectionPool},
};

/// Cluster metadata shared by all handles of a client. New broker addresses are pushed into the pool.
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
        self.change(|metadata| metadata.update(&response, broker));
        let topics = response.topics.into_iter();
        Ok(topics.filter_map(|topic| Some((topic.name?, topic.error_code))).collect())
    }

    /// Sends a Metadata request to any broker of this cluster. The snapshot stays as it is. Returns the
    /// broker's id as well, unless it is known by its bootstrap address alone.
    pub(crate) async fn request(
        &self,
        request: &MetadataRequest,
    ) -> Result<(Option<i32>, MetadataResponse), Error> {
        let call = CallContext::cluster(ApiKey::METADATA);
        let is_ours = |response: &MetadataResponse, broker: &Broker| match (
            &self.snapshot().cluster_id,
            &response.cluster_id,
        ) {
            (Some(was), Some(is)) if was != is => {
                warn!(%broker, was = %Printable(was), is = %Printable(is), "the broker belongs to another cluster");
                let kind = ErrorKind::OtherCluster { was: was.clone(), is: is.clone() };
                Err(Error::new(kind).with_context(call.at_broker(broker)))
            }
            _ => Ok(()),
        };
        let (broker, response) = self.pool.any_broker(request, is_ours).await?;
        let broker = match broker {
            BrokerRef::Id(id) => Some(id),
            BrokerRef::Seed(_) => None,
        };
        match response.error_code {
            ErrorCode::NONE => Ok((broker, response)),
            code => Err(call.error(ErrorKind::Broker { code, message: None })),
        }
    }

    /// Applies a response that no broker sent, for tests.
    #[cfg(test)]
    pub(crate) fn update(&self, response: &MetadataResponse) {
        self.change(|metadata| metadata.update(response, None));
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

    fn change(&self, change: impl FnOnce(&mut Metadata)) {
        let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut snapshot));
        // Under the lock, so that the pool gets the snapshots in their order.
        self.pool.update_brokers(&snapshot.brokers);
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
