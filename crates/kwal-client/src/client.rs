//! The client of a cluster.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use kwal_protocol::{api::ApiKey, messages::MetadataRequest, wire::Uuid};
use kwal_transport::HostPort;
use tracing::Span;

use crate::{
    cluster::Cluster,
    controller::ControllerClient,
    error::{CallContext, Error},
    partition::OpenPartition,
    producer::Producers,
    request::{call_span, request},
    routing::{Deadline, Retry},
    state::ClientState,
};

/// A client of one cluster. Cloning is cheap; clones share connections, metadata and budgets.
///
/// Its tasks live on the runtime on which [`ClientBuilder::build`](crate::ClientBuilder::build) was called,
/// or on the one given to [`ClientBuilder::runtime`](crate::ClientBuilder::runtime). When that is gone, calls
/// end with [`ErrorKind::Closed`](crate::error::ErrorKind::Closed).
#[derive(Clone, Debug)]
pub struct Client {
    cluster: Arc<Cluster>,
    producers: Producers,
}

impl Client {
    /// Connects to the first bootstrap broker that answers.
    pub(crate) async fn open(cluster: Cluster) -> Result<Self, Error> {
        let call = CallContext::cluster(ApiKey::METADATA);
        let retry = Retry::new(&cluster, call, Deadline::after(cluster.config.deadlines.operation));
        retry.run(cluster.metadata.refresh()).await?;
        tracing::debug!(cluster = cluster.metadata.snapshot().cluster_id.as_deref(), "connected");
        Ok(Self { cluster: Arc::new(cluster), producers: Producers::default() })
    }

    /// Lists the topics that this client may see, by name.
    pub fn list_topics(&self) -> ListTopics<'_> {
        ListTopics { client: self, deadline: None }
    }

    /// Returns the brokers that are up, by id, as metadata last described them.
    ///
    /// A broker that one response does not list any more stays until another broker agrees.
    pub fn brokers(&self) -> Vec<(i32, HostPort)> {
        let metadata = self.cluster.metadata.snapshot();
        metadata.brokers.iter().map(|(id, address)| (*id, address.clone())).collect()
    }

    /// Returns the id of the cluster.
    pub fn cluster_id(&self) -> Option<String> {
        self.cluster.metadata.snapshot().cluster_id.clone()
    }

    /// Returns what the client is doing now, for a log, a health check, or troubleshooting:
    /// `println!("{}", client.state())` prints a few lines.
    ///
    /// It is a snapshot: by the time that it is read, it may be out of date. Nothing is requested for it, and
    /// nothing is waited for but locks that are held for a moment.
    pub fn state(&self) -> ClientState {
        let metadata = self.cluster.metadata.snapshot();
        ClientState {
            cluster_id: metadata.cluster_id.clone(),
            controller: metadata.controller,
            brokers: self.cluster.pool.brokers(),
            memory: self.cluster.memory.usage(),
        }
    }

    /// Returns [`Deadlines::operation`](crate::Deadlines::operation).
    #[doc(hidden)]
    pub fn operation_deadline(&self) -> Duration {
        self.cluster.config.deadlines.operation
    }

    /// Returns a client that creates, changes and describes topics.
    ///
    /// # Errors
    /// None today: each call finds the controller. Later versions may look it up here.
    pub async fn controller_client(&self) -> Result<ControllerClient, Error> {
        Ok(ControllerClient::new(Arc::clone(&self.cluster)))
    }

    /// Opens a client to append to a partition and read from it. Await it, or configure it first:
    /// [`OpenPartition::compression`], [`OpenPartition::idempotent`].
    ///
    /// The lookup never creates a topic, also on brokers that would.
    pub fn partition_client(&self, topic: impl Into<String>, partition: i32) -> OpenPartition {
        OpenPartition::new(Arc::clone(&self.cluster), self.producers.clone(), topic.into(), partition)
    }

    /// Ends the client: takes no more appends, waits until those that were submitted are completed, and
    /// closes all connections. See [`CloseClient`].
    pub fn close(&self) -> CloseClient<'_> {
        CloseClient { client: self, deadline: None }
    }
}

request! {
    /// The end of a client. Nothing happens until it is awaited.
    ///
    /// All partition clients are [closed](crate::PartitionClient::close) at the same time, then all
    /// connections. From then on every call of this client, its clones and what it opened ends with
    /// [`ErrorKind::Closed`](crate::error::ErrorKind::Closed).
    ///
    /// It returns the errors of all appends that failed meanwhile, those of one partition in the order in
    /// which they did. Empty means that everything that was submitted is on the log.
    ///
    /// # Cancellation safety
    /// If it is dropped, partition clients accept nothing more all the same, and what was submitted is
    /// completed. It can be called again.
    pub struct CloseClient<'a> -> Vec<Error> {
        client: &'a Client,
    }
}

impl CloseClient<'_> {
    fn span(&self) -> Span {
        call_span!("close")
    }

    async fn run(self) -> Vec<Error> {
        let Self { client: Client { cluster, producers }, deadline } = self;
        let deadline = Deadline::after(deadline.unwrap_or(cluster.config.deadlines.operation));
        let failed = producers.close(deadline).await;
        cluster.pool.close();
        failed
    }
}

request! {
    /// A list of all topics. Nothing happens until it is awaited.
    ///
    /// # Errors
    /// [`ErrorKind::DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded) if no broker answers;
    /// [`ErrorKind::Broker`](crate::error::ErrorKind::Broker) for what a broker rejects.
    ///
    /// # Cancellation safety
    /// Cancel safe.
    pub struct ListTopics<'a> -> Result<Vec<Topic>, Error> {
        client: &'a Client,
    }
}

impl ListTopics<'_> {
    fn span(&self) -> Span {
        call_span!("list_topics")
    }

    async fn run(self) -> Result<Vec<Topic>, Error> {
        let cluster = &self.client.cluster;
        let deadline = Deadline::after(self.deadline.unwrap_or(cluster.config.deadlines.operation));
        // All topics, so the shared snapshot is not for them.
        let request =
            MetadataRequest { topics: None, allow_auto_topic_creation: false, ..Default::default() };
        let mut retry = Retry::new(cluster, CallContext::cluster(ApiKey::METADATA), deadline);
        let response = loop {
            match retry.run(cluster.metadata.request(&request)).await {
                Ok((_, response)) => break response,
                Err(error) => retry.pause(error, 0).await?,
            }
        };
        let topics = response.topics.into_iter().filter(|topic| !topic.error_code.is_error());
        let mut topics: Vec<_> = topics
            .filter_map(|topic| {
                Some(Topic {
                    name: topic.name?,
                    id: (!topic.topic_id.is_zero()).then_some(topic.topic_id),
                    partitions: topic.partitions.len(),
                    is_internal: topic.is_internal,
                })
            })
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }
}

/// A topic in the result of [`Client::list_topics`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id (KIP-516); `None` if the broker is too old for topic ids.
    pub id: Option<Uuid>,
    /// How many partitions it has.
    pub partitions: usize,
    /// Whether it belongs to Kafka itself.
    pub is_internal: bool,
}
