//! One partition: appends, reads, offsets.

mod delete_records;
mod fetch;
mod leader_epoch;
mod offsets;
mod produce;
mod queue;
mod writer;

use std::{fmt, future::IntoFuture, sync::Arc};

use kwal_protocol::{
    api::ApiKey, compression::CompressionError, error_code::ErrorCode, record::Compression, wire::Uuid,
};
use kwal_transport::{BoxFuture, HostPort};
use tokio::time::Instant;
use tracing::debug;

pub(crate) use self::writer::ProducerState;
pub use self::{
    delete_records::DeleteBefore,
    fetch::{Fetch, Fetched},
    leader_epoch::EpochEnd,
    offsets::OffsetAt,
    produce::Produced,
};
use self::{queue::Queue, writer::Writer};
use crate::{
    attempts::Attempts,
    client::Client,
    cluster::{Cluster, Place},
    error::Error,
    lanes::{LaneKind, Share},
    metadata::{LeaderHint, TopicMetadata},
};

/// Appends to one partition and reads from it.
///
/// Made by [`Client::partition_client`]. Cloning is cheap; clones share producer id and order of appends.
///
/// What it promises, in short: an append is `Ok` only when every in-sync replica has it; it is on the log at most once
/// whatever is retried; appends lie on the log in the order in which they were submitted, without a hole; every call ends
/// within its [deadline](crate::Deadlines); any future can be dropped at any time.
///
/// A partition client is meant to be kept. Its appends go over one connection to the leader and its reads over another, each
/// shared with others beyond [`Limits::lanes`](crate::Limits::lanes) of them, so that an append never waits behind a long poll.
///
/// It goes where the leader goes. That another broker leads now is learnt when a call comes to the one that did: nothing is
/// asked for in the background. That broker refuses an append, ends a long poll and says who leads in its place (KIP-951,
/// since Kafka 3.7), or the cluster is asked. If it does not answer at all, the call is made elsewhere as soon as its
/// connection breaks, the request is [overdue](crate::Deadlines::request), or the cluster does not count it among its
/// brokers any more.
#[derive(Clone)]
pub struct PartitionClient {
    core: Arc<Core>,
    queue: Arc<Queue>,
    /// The last one to go lets the writer end.
    _open: Arc<queue::Open>,
    compression: Compression,
    level: Option<i32>,
}

impl fmt::Debug for PartitionClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Core { topic, partition, topic_id, .. } = &*self.core;
        f.debug_struct("PartitionClient")
            .field("topic", topic)
            .field("partition", partition)
            .field("topic_id", topic_id)
            .finish_non_exhaustive()
    }
}

/// What reading and writing have in common.
#[derive(Debug)]
struct Core {
    cluster: Arc<Cluster>,
    topic: String,
    partition: i32,
    /// The id of the topic when the client was made; zero where the brokers are too old to tell.
    topic_id: Uuid,
    /// Where its appends go, and where its reads do.
    appends: Share,
    fetches: Share,
}

/// Who leads the partition, as far as known.
#[derive(Clone, Copy, Debug)]
struct Leader {
    id: i32,
    epoch: i32,
    /// Not only itself says so.
    confirmed: bool,
}

impl Leader {
    fn is(self, other: Self) -> bool {
        (self.id, self.epoch) == (other.id, other.epoch)
    }
}

impl PartitionClient {
    /// The topic.
    pub fn topic(&self) -> &str {
        &self.core.topic
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.core.partition
    }
}

impl Core {
    fn place(&self) -> Place<'_> {
        Place { topic: Some(&self.topic), partition: Some(self.partition) }
    }

    fn has_topic_id(&self) -> bool {
        !self.topic_id.is_zero()
    }

    /// Who leads, learnt after the news number `stale`; `used` becomes the number of the news relied on.
    async fn leader(&self, stale: u64, used: &mut u64) -> Result<Leader, Error> {
        let mut topic = self.cluster.topic(self.place(), stale).await?;
        if self.is_other(&topic) {
            // A broker that is behind may tell of the topic before this one, so it takes two answers.
            topic = self.cluster.topic(self.place(), topic.as_of(Some(self.partition))).await?;
        }
        *used = topic.as_of(Some(self.partition));
        if self.is_other(&topic) {
            return Err(Error::TopicRecreated {
                topic: self.topic.clone(),
                was: self.topic_id,
                is: topic.id,
            });
        }
        leader_of(&topic, self.place())
    }

    fn is_other(&self, topic: &TopicMetadata) -> bool {
        self.has_topic_id() && !topic.id.is_zero() && topic.id != self.topic_id
    }

    /// Takes a broker's word for who leads the partition now.
    fn take_hint(&self, leader: i32, leader_epoch: i32, address: Option<HostPort>) {
        let hint = LeaderHint { topic_id: self.topic_id, leader, leader_epoch, address };
        self.cluster.take_hint(self.place(), hint);
    }

    /// Pauses before the next attempt, or says why there is none. The pause is spared when the leader has moved and there is
    /// news of where to: from the broker that was asked, or because others have asked meanwhile.
    async fn again(&self, attempts: &mut Attempts<'_>, error: Error, used: u64) -> Result<(), Error> {
        let has_moved = matches!(error, Error::Broker { code, .. } if leader_has_moved(code));
        let is_known = || {
            let metadata = self.cluster.metadata();
            metadata.topics.get(&self.topic).is_some_and(|topic| topic.as_of(Some(self.partition)) > used)
        };
        match has_moved && is_known() {
            true => attempts.again_elsewhere(error, used).await,
            false => attempts.again(error, used).await,
        }
    }
}

/// Whether a broker that answers so may say who leads in its place (KIP-951).
fn leader_has_moved(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::FENCED_LEADER_EPOCH)
}

fn leader_of(topic: &TopicMetadata, place: Place<'_>) -> Result<Leader, Error> {
    let index = place.partition.unwrap_or_default();
    let Some(partition) = topic.partitions.get(&index) else {
        return Err(Error::UnknownPartition {
            topic: place.topic.unwrap_or_default().to_owned(),
            partition: index,
            partitions: topic.partitions.len(),
        });
    };
    match partition.leader {
        Some(id) => Ok(Leader { id, epoch: partition.leader_epoch, confirmed: partition.confirmed }),
        None => {
            let code = match partition.error {
                ErrorCode::NONE => ErrorCode::LEADER_NOT_AVAILABLE,
                code => code,
            };
            Err(Error::Broker { code, message: None, at: place.at(ApiKey::METADATA, None) })
        }
    }
}

/// A partition client to be: set what it should be like, then `.await` it.
///
/// # Errors
/// [`Error::UnknownTopic`] and [`Error::UnknownPartition`] after
/// [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic); [`Error::DeadlineExceeded`] if there is no leader for the
/// whole deadline; what else the brokers refuse.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct OpenPartition {
    client: Client,
    topic: String,
    partition: i32,
    compression: Compression,
    level: Option<i32>,
    idempotent: bool,
}

impl OpenPartition {
    pub(crate) fn new(client: Client, topic: String, partition: i32) -> Self {
        Self { client, topic, partition, compression: Compression::None, level: None, idempotent: true }
    }

    /// How the batches of [`produce`](PartitionClient::produce) are compressed. Default: not at all.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// At which level they are compressed: gzip has 1 to 9, zstd −131072 to 22, the others none. Default: 6 and 3.
    pub fn compression_level(mut self, level: i32) -> Self {
        self.level = Some(level);
        self
    }

    /// Whether batches carry a producer id and sequence number, by which brokers tell a retry from a new batch (KIP-98).
    /// Default: they do.
    ///
    /// Without, a batch whose outcome is open is never sent again: the call ends with
    /// [`Outcome::Unknown`](crate::error::Outcome). Only for brokers that have no producer ids.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    async fn open(self) -> Result<PartitionClient, Error> {
        let Self { client, topic, partition, compression, level, idempotent } = self;
        crate::client::check_topic(&topic)?;
        if partition < 0 {
            return Err(Error::InvalidInput(format!("partition {partition} is negative")));
        }
        if !compression.is_built_in() {
            let error = CompressionError::NotBuiltIn { codec: compression };
            return Err(Error::InvalidInput(format!("compression: {error}")));
        }
        let cluster = client.into_cluster();
        let place = Place { topic: Some(&topic), partition: Some(partition) };
        let deadline = Instant::now() + cluster.config.deadlines.operation;
        let (topic_id, leader) = find(&cluster, place, deadline).await?;
        let (appends, fetches) = (Share::new(LaneKind::Produce), Share::new(LaneKind::Fetch));
        let core = Arc::new(Core { cluster, topic, partition, topic_id, appends, fetches });
        let queue = Arc::new(Queue::default());
        let mut writer = Writer::new(Arc::clone(&core), Arc::clone(&queue), idempotent);
        // Brought along, so that the first append is as quick as the others. What fails here, fails there with its reason: who
        // only reads may not need it.
        let attempts = core.cluster.attempts_until(deadline, ApiKey::PRODUCE, core.place());
        match attempts.within(writer.prepare(leader)).await {
            Ok(()) => {}
            Err(error @ Error::Closed { .. }) => return Err(error),
            Err(error) => debug!(%error, "not prepared for appends"),
        }
        writer.rest();
        let open = Arc::new(queue::Open { core: Arc::clone(&core), queue: Arc::clone(&queue) });
        core.cluster.runtime.spawn(writer.run());
        Ok(PartitionClient { core, queue, _open: open, compression, level })
    }
}

/// The topic's id, and who leads the partition.
async fn find(cluster: &Cluster, place: Place<'_>, deadline: Instant) -> Result<(Uuid, Leader), Error> {
    let mut attempts = cluster.attempts_until(deadline, ApiKey::METADATA, place);
    loop {
        let mut used = 0;
        let attempt = async {
            let topic = cluster.topic(place, attempts.stale()).await?;
            used = topic.as_of(place.partition);
            leader_of(&topic, place).map(|leader| (topic.id, leader))
        };
        match attempts.within(attempt).await {
            Ok(found) => return Ok(found),
            Err(error) => attempts.again(error, used).await?,
        }
    }
}

impl IntoFuture for OpenPartition {
    type Output = Result<PartitionClient, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}
