//! The brokers that a scenario asks, real or embedded, and what it has seen of them.

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

/// Brokers, and what was seen of them.
///
/// Everything in it that differs from run to run (names of topics, ids, addresses, times) has a name in what is seen.
pub(crate) struct World {
    place: Place,
    /// Part of all names here, so that nobody else has them.
    tag: String,
    /// What is written otherwise in a line: addresses, ids and names of topics.
    names: Vec<(String, String)>,
    /// Named P1, P2… as they are first seen.
    producers: Vec<i64>,
    started: (OffsetDateTime, Instant),
    lines: Rc<RefCell<Vec<String>>>,
}

/// Where the brokers are.
pub(crate) enum Place {
    Real(&'static Kafka),
    Embedded(EmbeddedCluster),
}

impl World {
    /// What is seen goes to `lines`. It is `now`.
    pub(crate) fn new(place: Place, now: OffsetDateTime, lines: Rc<RefCell<Vec<String>>>) -> Self {
        let mut world = Self {
            place,
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

    /// Writes down what was seen.
    pub(crate) fn saw(&mut self, line: impl AsRef<str>) {
        let mut line = line.as_ref().to_owned();
        for (what, name) in &self.names {
            line = line.replace(what, name);
        }
        line = self.name_producers(&line);
        line = name_times(&line);
        self.lines.borrow_mut().push(line);
    }

    /// How much was seen so far.
    pub(crate) fn mark(&self) -> usize {
        self.lines.borrow().len()
    }

    /// Forgets what was seen since: the brokers were too slow for it to mean anything.
    pub(crate) fn forget_since(&self, mark: usize) {
        self.lines.borrow_mut().truncate(mark);
    }

    /// A name for a topic (or for anything else) that nobody has; what is seen calls it `what`.
    pub(crate) fn name(&mut self, what: &str) -> String {
        let name = format!("{what}-{}-{}", self.tag, self.names.len());
        self.calls(&name, what);
        name
    }

    /// What is seen says `name` for `what`.
    pub(crate) fn calls(&mut self, what: &str, name: &str) {
        if !self.names.iter().any(|(known, _)| known == what) {
            self.names.push((what.to_owned(), name.to_owned()));
            // What is part of another comes after it.
            self.names.sort_by_key(|(what, _)| std::cmp::Reverse(what.len()));
        }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The client id of all connections.
    pub(crate) fn client_id(&self) -> &str {
        &self.tag
    }

    /// A connection to broker 1.
    pub(crate) async fn link(&self) -> Broker {
        self.link_to(1).await
    }

    /// A connection to a broker.
    pub(crate) async fn link_to(&self, node: i32) -> Broker {
        let address = &self.addresses()[usize::try_from(node).unwrap() - 1];
        let connector: Arc<dyn Connect> = match &self.place {
            Place::Real(_) => Arc::new(Tcp::default()),
            Place::Embedded(cluster) => cluster.connector(),
        };
        let stream = connector.connect(&address.parse().unwrap()).await.unwrap();
        Broker::over(stream, &self.tag).await
    }

    /// The time of now, in milliseconds since the epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        let (started, monotonic) = self.started;
        ((started + monotonic.elapsed()).unix_timestamp_nanos() / 1_000_000) as i64
    }

    /// A new topic of one partition on broker 1.
    pub(crate) async fn log(&mut self, what: &str, settings: &[(&str, &str)]) -> Log {
        self.log_on(what, &[1], settings).await
    }

    /// A new topic of one partition, the first of its replicas leading.
    pub(crate) async fn log_on(&mut self, what: &str, replicas: &[i32], settings: &[(&str, &str)]) -> Log {
        let topic = self.name(what);
        let mut link = self.link_to(replicas[0]).await;
        let code = create(&mut link, self.creatable(&topic, &[replicas], settings)).await;
        assert_eq!(code, ErrorCode::NONE, "{what}");
        self.wait_for_topic(&topic).await;
        let found = topic_metadata(&mut link, &topic).await;
        self.calls(&found.topic_id.to_string(), &format!("<id of {what}>"));
        let mut log = Log { link, topic, id: found.topic_id, partition: 0 };
        until("the leader leads", async || log.is_led_here().await.then_some(())).await;
        log
    }

    /// A topic to be made, a list of replicas for each partition.
    ///
    /// The batches are older than what is kept by default, so that all is kept.
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

    /// Until every broker knows of it and of its leaders.
    pub(crate) async fn wait_for_topic(&self, topic: &str) {
        for node in 1..=self.nodes() {
            let mut link = self.link_to(node).await;
            until("the topic is known", async || {
                let found = topic_metadata(&mut link, topic).await;
                let led = found.partitions.iter().all(|partition| partition.leader_id >= 0);
                (found.error_code == ErrorCode::NONE && led).then_some(())
            })
            .await;
        }
    }

    /// Until no broker knows of it.
    pub(crate) async fn wait_until_gone(&self, topic: &str) {
        for node in 1..=self.nodes() {
            let mut link = self.link_to(node).await;
            until("the topic is gone", async || {
                let found = topic_metadata(&mut link, topic).await;
                (found.error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION).then_some(())
            })
            .await;
        }
    }

    pub(crate) fn nodes(&self) -> i32 {
        i32::try_from(self.addresses().len()).unwrap()
    }

    fn addresses(&self) -> Vec<String> {
        match &self.place {
            Place::Real(kafka) => kafka.bootstrap(),
            Place::Embedded(broker) => broker.bootstrap(),
        }
    }

    /// `<id 1000>` becomes P1.
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

/// Milliseconds since the epoch become `<time>`, also where Kafka has added them to the least of all numbers.
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

/// Asks until there is an answer, for at most a minute.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "a minute long it did not come to pass: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn create(link: &mut Broker, topic: CreatableTopic) -> ErrorCode {
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    link.call(&request, 7).await.topics[0].error_code
}

/// Metadata of a topic, which is not made by asking.
pub(crate) async fn topic_metadata(link: &mut Broker, topic: &str) -> MetadataTopicResponse {
    metadata(link, topic, false).await.topics.remove(0)
}

pub(crate) async fn metadata(link: &mut Broker, topic: &str, make: bool) -> MetadataResponse {
    let wanted = MetadataTopic { name: Some(topic.to_owned()), ..MetadataTopic::default() };
    let request = MetadataRequest {
        topics: Some(vec![wanted]),
        allow_auto_topic_creation: make,
        ..MetadataRequest::default()
    };
    link.call(&request, 12).await
}
