//! The brokers of a scenario, real or embedded, and its recorded lines.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    CreatableAssignment, CreatableConfig, CreatableTopic, CreateTopicsRequest, MetadataRequest,
    MetadataResponse, MetadataTopic, MetadataTopicResponse,
};
use kwal_testkit::EmbeddedCluster;
use kwal_tests::kafka::Kafka;
use kwal_transport::{Connect, Tcp};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::log::Log;
use crate::raw::Broker;

/// The brokers of a scenario and its recorded lines.
///
/// Everything that differs between runs (names of topics, ids, addresses, times) is replaced in the lines.
pub(crate) struct World {
    backend: Backend,
    /// Part of all names, which makes them unique.
    tag: String,
    /// Replacements in lines: addresses, ids and names of topics.
    names: Vec<(String, String)>,
    /// Producer ids, recorded as P1, P2… in order of their first occurrence.
    producers: Vec<i64>,
    started: (OffsetDateTime, Instant),
    lines: Rc<RefCell<Vec<String>>>,
}

/// The kind of the brokers.
pub(crate) enum Backend {
    Real(&'static Kafka),
    Embedded(EmbeddedCluster),
}

impl World {
    /// Creates a world that records to `lines`. `now` is the current time.
    pub(crate) fn new(backend: Backend, now: OffsetDateTime, lines: Rc<RefCell<Vec<String>>>) -> Self {
        let mut world = Self {
            backend,
            tag: format!("{:016x}", fastrand::u64(..)),
            names: Vec::new(),
            producers: Vec::new(),
            started: (now, Instant::now()),
            lines,
        };
        for (id, address) in (1..).zip(world.addresses()) {
            world.names.push((address, format!("<broker {id}>")));
        }
        world
    }

    /// Records a line.
    pub(crate) fn record(&mut self, line: impl AsRef<str>) {
        let mut line = line.as_ref().to_owned();
        for (what, name) in &self.names {
            line = line.replace(what, name);
        }
        line = self.name_producers(&line);
        line = name_times(&line);
        self.lines.borrow_mut().push(line);
    }

    /// Returns the number of lines, for [`Self::discard_since`].
    pub(crate) fn mark(&self) -> usize {
        self.lines.borrow().len()
    }

    /// Discards the lines since `mark`, when the brokers were too slow for them to be meaningful.
    pub(crate) fn discard_since(&self, mark: usize) {
        self.lines.borrow_mut().truncate(mark);
    }

    /// Returns a unique name for a topic or anything else. It is recorded as `what`.
    pub(crate) fn name(&mut self, what: &str) -> String {
        let name = format!("{what}-{}-{}", self.tag, self.names.len());
        self.rename(&name, what);
        name
    }

    /// Records `what` as `name` from now on.
    pub(crate) fn rename(&mut self, what: &str, name: &str) {
        if !self.names.iter().any(|(known, _)| known == what) {
            self.names.push((what.to_owned(), name.to_owned()));
            // A string that contains another one is replaced first.
            self.names.sort_by_key(|(what, _)| std::cmp::Reverse(what.len()));
        }
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Returns the client id of all connections.
    pub(crate) fn client_id(&self) -> &str {
        &self.tag
    }

    /// Connects to broker 1.
    pub(crate) async fn connect(&self) -> Broker {
        self.connect_to(1).await
    }

    /// Connects to a broker.
    pub(crate) async fn connect_to(&self, node: i32) -> Broker {
        let address = &self.addresses()[usize::try_from(node).unwrap() - 1];
        let connector: Arc<dyn Connect> = match &self.backend {
            Backend::Real(_) => Arc::new(Tcp::default()),
            Backend::Embedded(cluster) => cluster.connector(),
        };
        let stream = connector.connect(&address.parse().unwrap()).await.unwrap();
        Broker::over(stream, &self.tag).await
    }

    /// Returns the current time in milliseconds since the epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        let (started, monotonic) = self.started;
        ((started + monotonic.elapsed()).unix_timestamp_nanos() / 1_000_000) as i64
    }

    /// Creates a topic with one partition on broker 1.
    pub(crate) async fn log(&mut self, what: &str, settings: &[(&str, &str)]) -> Log {
        self.log_on(what, &[1], settings).await
    }

    /// Creates a topic with one partition. The first replica leads it.
    pub(crate) async fn log_on(&mut self, what: &str, replicas: &[i32], settings: &[(&str, &str)]) -> Log {
        let topic = self.name(what);
        let mut connection = self.connect_to(replicas[0]).await;
        let code = create(&mut connection, self.creatable(&topic, &[replicas], settings)).await;
        assert_eq!(code, ErrorCode::NONE, "{what}");
        self.wait_for_topic(&topic).await;
        let found = topic_metadata(&mut connection, &topic).await;
        self.rename(&found.topic_id.to_string(), &format!("<id of {what}>"));
        let mut log = Log { connection, topic, id: found.topic_id, partition: 0 };
        until("the leader leads", async || log.is_led_by_broker().await.then_some(())).await;
        log
    }

    /// Returns a topic to create, with a list of replicas for each partition.
    ///
    /// Retention is unlimited, since the batches are older than the default retention.
    pub(crate) fn creatable(
        &self,
        topic: &str,
        replicas: &[&[i32]],
        settings: &[(&str, &str)],
    ) -> CreatableTopic {
        let assignments = (0..).zip(replicas).map(|(partition_index, replicas)| CreatableAssignment {
            partition_index,
            broker_ids: replicas.to_vec(),
        });
        let configs = settings.iter().chain(&[("retention.ms", "-1")]).map(|(name, value)| CreatableConfig {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
        });
        CreatableTopic {
            name: topic.to_owned(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: assignments.collect(),
            configs: configs.collect(),
        }
    }

    /// Waits until every broker lists the topic and its leaders.
    pub(crate) async fn wait_for_topic(&self, topic: &str) {
        for node in 1..=self.nodes() {
            let mut connection = self.connect_to(node).await;
            until("the topic is known", async || {
                let found = topic_metadata(&mut connection, topic).await;
                let led = found.partitions.iter().all(|partition| partition.leader_id >= 0);
                (found.error_code == ErrorCode::NONE && led).then_some(())
            })
            .await;
        }
    }

    /// Waits until no broker lists the topic.
    pub(crate) async fn wait_until_gone(&self, topic: &str) {
        for node in 1..=self.nodes() {
            let mut connection = self.connect_to(node).await;
            until("the topic is gone", async || {
                let found = topic_metadata(&mut connection, topic).await;
                (found.error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION).then_some(())
            })
            .await;
        }
    }

    pub(crate) fn nodes(&self) -> i32 {
        i32::try_from(self.addresses().len()).unwrap()
    }

    fn addresses(&self) -> Vec<String> {
        match &self.backend {
            Backend::Real(kafka) => kafka.bootstrap(),
            Backend::Embedded(broker) => broker.bootstrap(),
        }
    }

    /// Replaces `<id 1000>` with P1.
    fn name_producers(&mut self, line: &str) -> String {
        let mut parts = line.split("<id ");
        let mut named = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            match part.split_once('>').and_then(|(id, rest)| Some((id.parse::<i64>().ok()?, rest))) {
                Some((id, rest)) => {
                    let known = self.producers.iter().position(|known| *known == id);
                    let index = known.unwrap_or_else(|| {
                        self.producers.push(id);
                        self.producers.len() - 1
                    });
                    named.push_str(&format!("P{}{rest}", index + 1));
                }
                None => named.push_str(&format!("<id {part}")),
            }
        }
        named
    }
}

/// Replaces milliseconds since the epoch with `<time>`, also where Kafka has added them to the smallest
/// number.
fn name_times(line: &str) -> String {
    let mut named = String::new();
    let mut digits = String::new();
    for char in line.chars().chain(['\n']) {
        if char.is_ascii_digit() {
            digits.push(char);
            continue;
        }
        let is_time = digits.len() == 13 && digits.starts_with("17")
            || digits.len() == 19 && digits.starts_with("92233702");
        match is_time {
            true => named.push_str("<time>"),
            false => named.push_str(&digits),
        }
        digits.clear();
        named.push(char);
    }
    named.pop();
    named
}

/// Repeats `attempt` until it returns a value, for at most a minute.
pub(crate) async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < deadline, "timed out after a minute: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn create(connection: &mut Broker, topic: CreatableTopic) -> ErrorCode {
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    connection.call(&request, 7).await.topics[0].error_code
}

/// Returns the metadata of a topic without creating it.
pub(crate) async fn topic_metadata(connection: &mut Broker, topic: &str) -> MetadataTopicResponse {
    metadata(connection, topic, false).await.topics.remove(0)
}

pub(crate) async fn metadata(connection: &mut Broker, topic: &str, make: bool) -> MetadataResponse {
    let wanted = MetadataTopic { name: Some(topic.to_owned()), ..MetadataTopic::default() };
    let request = MetadataRequest {
        topics: Some(vec![wanted]),
        allow_auto_topic_creation: make,
        ..MetadataRequest::default()
    };
    connection.call(&request, 12).await
}
