//! A partition and the broker that leads it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kwal_protocol::{api::ApiKey, error_code::ErrorCode, wire::Uuid};
use tokio::time::Instant;

use super::{
    Trace,
    retry::{Deadline, Retry, pause_until},
};
use crate::{
    cluster::Cluster,
    error::{CallContext, Error, ErrorKind},
    metadata::{LeaderUpdate, TopicMetadata},
    metrics::PartitionMetrics,
    pool::{Lease, Purpose},
    position::Position,
    producer_id::PartitionKey,
    state::LeaderState,
};

/// A partition of a topic: what appends and reads of one partition client have in common.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) cluster: Arc<Cluster>,
    /// Shared with what was fetched, which outlives this.
    pub(crate) topic: Arc<str>,
    pub(crate) index: i32,
    /// The id of the topic when the partition was opened; zero where the brokers are too old for topic ids.
    pub(crate) topic_id: Uuid,
    produce: Lease,
    fetch: Lease,
    /// The last position that a leader has verified, and its epoch: for brokers that do not verify with each
    /// fetch.
    verified: Mutex<Option<(i32, Position)>>,
    pub(crate) metrics: PartitionMetrics,
}

/// The leader of a partition, as far as known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leader {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    /// Whether a broker other than the leader named it.
    pub(crate) confirmed: bool,
}

impl Leader {
    /// Whether both are the same broker in the same epoch.
    pub(crate) fn is(self, other: Self) -> bool {
        (self.id, self.epoch) == (other.id, other.epoch)
    }
}

impl Partition {
    /// Looks up a partition that has a leader, until the deadline.
    pub(crate) async fn find(
        cluster: Arc<Cluster>,
        topic: String,
        index: i32,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let call = CallContext::partition(ApiKey::METADATA, &topic, index);
        let mut retry = Retry::new(&cluster, call, deadline);
        let topic_id = loop {
            let mut generation = 0;
            let attempt = async {
                let topic = cluster.metadata.topic(call, retry.min_generation()).await?;
                generation = topic.generation(call.partition);
                leader_of(&topic, call).map(|_| topic.id)
            };
            match retry.run(attempt).await {
                Ok(found) => break found,
                Err(error) => retry.pause(error, generation).await?,
            }
        };
        Ok(Self::new(cluster, topic, index, topic_id))
    }

    pub(super) fn new(cluster: Arc<Cluster>, topic: String, index: i32, topic_id: Uuid) -> Self {
        let (produce, fetch) = (Lease::new(Purpose::Produce), Lease::new(Purpose::Fetch));
        let topic = topic.into();
        let metrics = PartitionMetrics::new(&topic, index);
        Self { cluster, topic, index, topic_id, produce, fetch, verified: Mutex::default(), metrics }
    }

    /// A partition of a cluster that nothing connects to, for tests of operations.
    #[cfg(test)]
    pub(crate) fn offline(topic: &str, index: i32) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let config = crate::config::Config::default();
        let cluster = Arc::new(Cluster::new(config, runtime.handle().clone()));
        Self::new(cluster, topic.to_owned(), index, Uuid::default())
    }

    pub(crate) fn call(&self, api: ApiKey) -> CallContext<'_> {
        CallContext::partition(api, &self.topic, self.index)
    }

    /// Returns the id of the topic when the partition was opened; `None` where the brokers are too old.
    pub(crate) fn topic_id(&self) -> Option<Uuid> {
        (!self.topic_id.is_zero()).then_some(self.topic_id)
    }

    pub(crate) fn key(&self) -> PartitionKey {
        let Self { topic, topic_id, index, .. } = self;
        PartitionKey { topic: Arc::clone(topic), topic_id: *topic_id, partition: *index }
    }

    /// Whether a leader has verified this position, or has sent what lies before it.
    pub(crate) fn has_verified(&self, leader_epoch: i32, position: Position) -> bool {
        *self.verified() == Some((leader_epoch, position))
    }

    /// Notes a position that a leader has verified.
    pub(crate) fn set_verified(&self, leader_epoch: i32, position: Position) {
        *self.verified() = Some((leader_epoch, position));
    }

    fn verified(&self) -> MutexGuard<'_, Option<(i32, Position)>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the lease of a purpose; `None` for the general connection.
    pub(crate) fn lease(&self, purpose: Purpose) -> Option<&Lease> {
        match purpose {
            Purpose::General => None,
            Purpose::Produce => Some(&self.produce),
            Purpose::Fetch => Some(&self.fetch),
        }
    }

    /// Returns the leader from metadata newer than `min_generation`. `used` becomes the generation of that
    /// metadata.
    pub(crate) async fn leader(
        &self,
        call: CallContext<'_>,
        min_generation: u64,
        used: &mut u64,
    ) -> Result<Leader, Error> {
        let metadata = &self.cluster.metadata;
        let mut topic = metadata.topic(call, min_generation).await?;
        if self.is_other(&topic) {
            // The error ends this partition client, and a new one has to find the topic as it is now, not as
            // it was when this one was last in use.
            topic = metadata.topic(call, topic.generation(call.partition)).await?;
        }
        *used = topic.generation(call.partition);
        if self.is_other(&topic) {
            return Err(call.error(ErrorKind::TopicRecreated { was: self.topic_id, is: topic.id }));
        }
        leader_of(&topic, call)
    }

    /// Returns the generation of the metadata that names this leader in this epoch; `None` if it names
    /// another one.
    pub(crate) fn led_by(&self, leader: Leader) -> Option<u64> {
        let metadata = self.cluster.metadata.snapshot();
        let topic = metadata.topics.get(&*self.topic).filter(|topic| !self.is_other(topic))?;
        let partition = topic.partitions.get(&self.index)?;
        let is_same = (partition.leader, partition.leader_epoch) == (Some(leader.id), leader.epoch);
        is_same.then(|| topic.generation(Some(self.index)))
    }

    /// Returns the leader as metadata names it now; `None` if it names none, or another topic.
    pub(crate) fn known_leader(&self) -> Option<LeaderState> {
        let metadata = self.cluster.metadata.snapshot();
        let topic = metadata.topics.get(&*self.topic).filter(|topic| !self.is_other(topic))?;
        let partition = topic.partitions.get(&self.index)?;
        let id = partition.leader?;
        let epoch = Some(partition.leader_epoch).filter(|epoch| *epoch >= 0);
        Some(LeaderState { id, address: metadata.brokers.get(&id).cloned(), epoch })
    }

    /// Returns how much longer the connection for appends or that for fetches is throttled.
    pub(crate) fn throttled_for(&self) -> Option<Duration> {
        self.produce.throttled_for().max(self.fetch.throttled_for())
    }

    /// Returns the id of the topic that has the name now, if metadata says that it is another one.
    pub(crate) fn recreated_as(&self) -> Option<Uuid> {
        let metadata = self.cluster.metadata.snapshot();
        metadata.topics.get(&*self.topic).filter(|topic| self.is_other(topic)).map(|topic| topic.id)
    }

    /// Whether metadata is about another topic of the same name.
    fn is_other(&self, topic: &TopicMetadata) -> bool {
        !self.topic_id.is_zero() && !topic.id.is_zero() && topic.id != self.topic_id
    }

    /// Applies a broker's report of the current leader.
    pub(crate) fn apply_leader_update(&self, update: LeaderUpdate) {
        self.cluster.metadata.apply_leader_update(&self.topic, self.index, update);
    }

    /// Pauses before the next attempt, or returns why there is none.
    pub(crate) async fn pause(
        &self,
        retry: &mut Retry<'_>,
        error: Error,
        trace: &Trace,
    ) -> Result<(), Error> {
        pause_until(self.plan(retry, error, trace)?).await;
        Ok(())
    }

    /// Returns when the next attempt may begin, or why there is none.
    ///
    /// No pause is needed if the leader has moved and its successor is known: reported by the broker itself,
    /// or because another call refreshed metadata in the meantime.
    pub(crate) fn plan(&self, retry: &mut Retry<'_>, error: Error, trace: &Trace) -> Result<Instant, Error> {
        let generation = trace.generation;
        if let (ErrorKind::Broker { code, .. }, Some(leader)) = (error.kind(), trace.leader)
            && denies_leading(*code)
        {
            self.cluster.metadata.deny(&self.topic, self.index, leader.id, leader.epoch);
        }
        let has_moved = matches!(error.kind(), ErrorKind::Broker { code, .. } if leader_has_moved(*code));
        let is_known = || {
            let metadata = self.cluster.metadata.snapshot();
            let topic = metadata.topics.get(&*self.topic);
            topic.is_some_and(|topic| topic.generation(Some(self.index)) > generation)
        };
        match has_moved && is_known() {
            true => retry.plan_once(error, generation),
            false => retry.plan(error, generation),
        }
    }
}

/// Whether a broker that responds with this code may report the new leader (KIP-951).
pub(crate) fn leader_has_moved(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::FENCED_LEADER_EPOCH)
}

/// Whether a broker that responds with this code does not lead the partition, at least not in that epoch, and
/// knows of no newer one.
pub(crate) fn denies_leading(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NOT_LEADER_OR_FOLLOWER
            | ErrorCode::REPLICA_NOT_AVAILABLE
            | ErrorCode::UNKNOWN_LEADER_EPOCH
            | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode::UNKNOWN_TOPIC_ID
            | ErrorCode::INCONSISTENT_TOPIC_ID
    )
}

fn leader_of(topic: &TopicMetadata, call: CallContext<'_>) -> Result<Leader, Error> {
    let index = call.partition.unwrap_or_default();
    let Some(partition) = topic.partitions.get(&index) else {
        let partitions = topic.partitions.len();
        return Err(call.error(ErrorKind::UnknownPartition { partitions, waited: Duration::ZERO }));
    };
    match partition.leader {
        Some(id) => Ok(Leader { id, epoch: partition.leader_epoch, confirmed: partition.confirmed }),
        None => {
            let code = match partition.error {
                ErrorCode::NONE => ErrorCode::LEADER_NOT_AVAILABLE,
                code => code,
            };
            Err(call.with_api(ApiKey::METADATA).error(ErrorKind::Broker { code, message: None }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kwal_protocol::messages::{MetadataPartition, MetadataResponse, MetadataTopicResponse};
    use tokio::time::Instant;

    use super::{
        super::tests::{ID, cluster, moved},
        *,
    };

    fn partition() -> Partition {
        Partition::new(cluster(), "wal".to_owned(), 0, ID)
    }

    #[tokio::test]
    async fn a_partition_without_a_leader_reports_why() {
        let partition = |partition_index, leader_id, error_code| MetadataPartition {
            partition_index,
            leader_id,
            leader_epoch: 7,
            error_code,
            ..Default::default()
        };
        let topic = MetadataTopicResponse {
            name: Some("wal".to_owned()),
            topic_id: ID,
            partitions: vec![
                partition(0, 2, ErrorCode::NONE),
                partition(1, -1, ErrorCode::NONE),
                partition(2, -1, ErrorCode::LISTENER_NOT_FOUND),
                // The leader is known all the same.
                partition(3, 2, ErrorCode::REPLICA_NOT_AVAILABLE),
            ],
            ..Default::default()
        };
        let cluster = cluster();
        cluster.metadata.update(&MetadataResponse { topics: vec![topic], ..Default::default() });
        let leader = |index| {
            let topic = &cluster.metadata.snapshot().topics["wal"];
            leader_of(topic, CallContext::partition(ApiKey::FETCH, "wal", index))
        };
        for index in [0, 3] {
            let leader = leader(index).unwrap();
            assert_eq!((leader.id, leader.epoch), (2, 7));
        }
        for (index, code) in [(1, ErrorCode::LEADER_NOT_AVAILABLE), (2, ErrorCode::LISTENER_NOT_FOUND)] {
            let error = leader(index).unwrap_err();
            assert_eq!((error.code(), error.context().api), (Some(code), Some(ApiKey::METADATA)));
        }
        let error = leader(4).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::UnknownPartition { partitions: 4, .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_topic_with_another_id_is_another_one() {
        let (zero, other) = (Uuid::default(), Uuid([6; 16]));
        for (opened, found, is_other) in
            [(ID, ID, false), (ID, other, true), (ID, zero, false), (zero, other, false), (zero, zero, false)]
        {
            let partition = Partition::new(cluster(), "wal".to_owned(), 0, opened);
            let mut topic = TopicMetadata::default();
            topic.id = found;
            assert_eq!(partition.is_other(&topic), is_other, "{opened} {found}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_pause_is_needed_once_the_new_leader_is_known() {
        let moved_error = |partition: &Partition| {
            let code = ErrorCode::NOT_LEADER_OR_FOLLOWER;
            partition.call(ApiKey::FETCH).error(ErrorKind::Broker { code, message: None })
        };
        for (is_reported, pauses) in [(false, [true, true]), (true, [false, true])] {
            let partition = partition();
            let call = partition.call(ApiKey::FETCH);
            let mut trace = Trace::default();
            partition.leader(call, 0, &mut trace.generation).await.unwrap();
            if is_reported {
                partition.apply_leader_update(moved());
            }
            let mut retry = Retry::new(&partition.cluster, call, Deadline::after(Duration::from_secs(60)));
            // Not twice in a row: brokers may name each other.
            for paused in pauses {
                let begun = Instant::now();
                partition.pause(&mut retry, moved_error(&partition), &trace).await.unwrap();
                assert_eq!(!begun.elapsed().is_zero(), paused, "reported: {is_reported}");
                assert_eq!(retry.min_generation(), trace.generation);
            }
        }
        // Another error says nothing about the leader.
        let partition = partition();
        partition.apply_leader_update(moved());
        let call = partition.call(ApiKey::FETCH);
        let mut retry = Retry::new(&partition.cluster, call, Deadline::after(Duration::from_secs(60)));
        let code = ErrorCode::KAFKA_STORAGE_ERROR;
        let begun = Instant::now();
        let error = call.error(ErrorKind::Broker { code, message: None });
        let trace = Trace { generation: 1, ..Trace::default() };
        partition.pause(&mut retry, error, &trace).await.unwrap();
        assert!(!begun.elapsed().is_zero());
    }
}
