//! Rights on real brokers with an authorizer: what each call takes, and what it says if that is missing. The
//! facade has the table.

use futures::future::BoxFuture;
use kwal_client::error::{Error, Outcome};
use kwal_client::record::Record;
use kwal_client::sasl::Sasl;
use kwal_client::{Client, ClientBuilder, ControllerClient, Finding, OffsetAt, PartitionClient, Severity};
use kwal_protocol::error_code::ErrorCode;
use kwal_tests::kafka::{ClusterConfig, Kafka, Listener, PASSWORD, USER, Version};
use tokio::task::yield_now;

kwal_tests::suite! { own: [each_call_takes_the_documented_rights] }

async fn each_call_takes_the_documented_rights(version: Version) {
    let kafka = start(version);
    let alice = Alice::connect(&kafka).await;
    for topic in TOPICS.iter().map(|(topic, _)| topic).filter(|topic| !NEW.contains(topic)) {
        kafka.java().create_topic(topic, 1, &[]).await;
    }
    let on_topic = |(topic, rights): (&'static str, &'static [&'static str])| {
        rights.iter().map(move |right| (*right, "Topic", topic))
    };
    kafka.java().grant(USER, &TOPICS.into_iter().flat_map(on_topic).collect::<Vec<_>>()).await;
    until(async || alice.rights_at_broker_and_controller().await == [true; 2]).await;

    without_any_right(&alice).await;
    for call in &CALLS {
        for (topic, rights) in TOPICS.into_iter().filter(|(topic, _)| !APART.contains(topic)) {
            call.check(&alice, topic, rights).await;
        }
    }
    topics_created(&alice).await;
    rights_on_the_cluster(&kafka, &alice).await;
    rights_revoked(&kafka, &alice).await;
}

/// All topics, and the only rights to each.
const TOPICS: [(&str, &[&str]); 13] = [
    ("none", &[]),
    ("describe", &["Describe"]),
    ("read", &["Read"]),
    ("write", &["Write"]),
    ("create", &["Create"]),
    ("delete", &["Delete"]),
    ("alter", &["Alter"]),
    ("describe-configs", &["DescribeConfigs"]),
    ("alter-configs", &["AlterConfigs"]),
    ("compare", &["Describe", "DescribeConfigs"]),
    ("ensure", &["Create", "Describe"]),
    ("report", &["Create", "DescribeConfigs"]),
    ("revoke", &["Read", "Write", "Delete"]),
];
/// Those that do not exist at first.
const NEW: [&str; 3] = ["create", "ensure", "report"];
/// Those with tests of their own.
const APART: [&str; 3] = ["ensure", "report", "revoke"];

/// A call that takes rights to a topic.
struct Call {
    name: &'static str,
    /// In the order in which they are checked.
    takes: &'static [&'static str],
    run: for<'a> fn(&'a Alice, &'a str) -> BoxFuture<'a, Result<(), Error>>,
}

macro_rules! calls {
    ($($name:ident: $takes:expr, |$alice:ident, $topic:ident| $call:expr;)*) => {
        [$(Call {
            name: stringify!($name),
            takes: &$takes,
            run: |$alice, $topic| Box::pin(async move { $call.await.map(drop) }),
        }),*]
    };
}

/// The first one creates a topic, and the last one deletes one.
const CALLS: [Call; 13] = calls! {
    create_topic: ["Create"], |alice, topic| alice.controller.create_topic(topic, 1, 1);
    ensure_topic: ["Describe", "DescribeConfigs"],
        |alice, topic| alice.controller.ensure_topic(topic, 1, 1).config("retention.ms", "-1");
    partition_client: ["Describe"], |alice, topic| alice.open(topic);
    get_offset: ["Describe"], |alice, topic| alice.open(topic).await?.get_offset(OffsetAt::Latest);
    offset_for_leader_epoch: ["Describe"],
        |alice, topic| alice.open(topic).await?.offset_for_leader_epoch(0);
    // The right to one topic includes that to a producer id, so that the others lack nothing else.
    produce: ["Describe", "Write"], |alice, topic| alice.open(topic).await?.produce(one());
    fetch: ["Describe", "Read"], |alice, topic| alice.open(topic).await?.fetch(0);
    delete_records: ["Describe", "Delete"], |alice, topic| alice.open(topic).await?.delete_records(0);
    audit: ["Describe"], |alice, topic| alice.controller.audit(topic);
    describe_topic_configs: ["DescribeConfigs"],
        |alice, topic| alice.controller.describe_topic_configs(topic);
    alter_topic_configs: ["AlterConfigs"],
        |alice, topic| alice.controller.alter_topic_configs(topic).set("retention.ms", "-1");
    create_partitions: ["Alter"], |alice, topic| alice.controller.create_partitions(topic, 2);
    delete_topic: ["Delete"], |alice, topic| alice.controller.delete_topic(topic);
};

impl Call {
    /// Checks that it succeeds, or names the first right that it lacks.
    async fn check(&self, alice: &Alice, topic: &str, rights: &[&str]) {
        let Self { name, takes, run } = self;
        let result = run(alice, topic).await;
        match takes.iter().find(|needed| !rights.iter().any(|right| includes(right, needed))) {
            None => result.unwrap_or_else(|error| panic!("{name} of {topic}: {error}")),
            Some(missing) => denied(result, &format!("it takes the right `{missing}` on the topic")),
        }
    }
}

fn includes(right: &str, other: &str) -> bool {
    right == other
        || match other {
            "Describe" => ["Read", "Write", "Delete", "Alter"].contains(&right),
            "DescribeConfigs" => right == "AlterConfigs",
            _ => false,
        }
}

/// Checks that a call was denied for good, and names what it takes.
#[track_caller]
fn denied<T>(result: Result<T, Error>, takes: &str) {
    let Err(error) = result else { panic!("not denied, although {takes}") };
    let text = error.to_string();
    let code = match takes.contains("on the topic") {
        true => ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        false => ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
    };
    assert!(error.code() == Some(code) && text.contains(takes), "{takes} is not in {text}");
    assert!(!error.is_retriable() && error.outcome() == Outcome::NotApplied, "{error:?}");
}

/// What every client may do, and what it sees of topics that it may not describe.
async fn without_any_right(alice: &Alice) {
    assert_eq!(alice.client.brokers().len(), 1);
    assert_eq!(alice.controller.describe_cluster().await.unwrap().brokers.len(), 1);
    let mut listed: Vec<_> =
        alice.client.list_topics().await.unwrap().into_iter().map(|it| it.name).collect();
    listed.sort_unstable();
    assert_eq!(listed, ["alter", "compare", "delete", "describe", "read", "revoke", "write"]);
    // The answer does not tell whether they exist.
    for topic in ["none", "create", "missing"] {
        denied(alice.open(topic).await, "it takes the right `Describe` on the topic");
        denied(alice.controller.delete_topic(topic).await, "it takes the right `Delete` on the topic");
    }
}

/// The numbers that the broker chose are configs.
async fn topics_created(alice: &Alice) {
    let created = alice.controller.create_topic("report", -1, -1).await.unwrap();
    assert_eq!((created.partitions, created.replication_factor), (1, 1));
    let ensure = || alice.controller.ensure_topic("ensure", -1, -1);
    let created = ensure().config("retention.ms", "-1").await.unwrap();
    assert_eq!((created.created, created.partitions, created.replication_factor), (true, -1, -1));
    let found = ensure().await.unwrap();
    assert_eq!((found.created, found.partitions, found.replication_factor), (false, 1, 1));
    let compared = ensure().config("retention.ms", "-1").await;
    denied(compared, "it takes the right `DescribeConfigs` on the topic");
}

/// `Create` on the cluster is one for all topics, and `DescribeConfigs` is for the configs of brokers.
async fn rights_on_the_cluster(kafka: &Kafka, alice: &Alice) {
    let of_brokers = [
        "producer.id.expiration.ms on the cluster.",
        "transactional.id.expiration.ms on the cluster.",
        "transaction.state.log.replication.factor on the cluster.",
        "transaction.state.log.min.isr on the cluster.",
    ];
    let of_all = [&["topic configs on the topic."], &of_brokers[..]].concat();
    assert_eq!(alice.unknown_settings("describe").await, of_all);
    assert_eq!(alice.unknown_settings("compare").await, of_brokers);
    let create = || alice.controller.create_topic("new", 1, 1);
    denied(create().await, "it takes the right `Create` on the topic or on the cluster");
    kafka.java().grant(USER, &["Create", "DescribeConfigs"].map(on_cluster)).await;
    until(async || create().validate_only(true).await.is_ok()).await;
    create().await.unwrap();
    until(async || alice.unknown_settings("compare").await.is_empty()).await;
}

/// Without their rights, clients that are open lack what a new one does.
async fn rights_revoked(kafka: &Kafka, alice: &Alice) {
    let partition = alice.open("revoke").await.unwrap();
    partition.produce(one()).await.unwrap();
    let without_id = alice.client.partition_client("revoke", 0).idempotent(false).await.unwrap();
    let other = Alice::connect(kafka).await;
    let never_appended = other.open("revoke").await.unwrap();
    kafka.java().revoke_all(USER).await;
    until(async || alice.rights_at_broker_and_controller().await == [false; 2]).await;

    denied(partition.get_offset(OffsetAt::Latest).await, "it takes the right `Describe` on the topic");
    denied(partition.offset_for_leader_epoch(0).await, "it takes the right `Describe` on the topic");
    denied(partition.fetch(0).await, "it takes the right `Read` on the topic");
    denied(partition.delete_records(0).await, "it takes the right `Delete` on the topic");
    denied(partition.produce(one()).await, "it takes the right `Write` on the topic");
    denied(without_id.produce(one()).await, "it takes the right `Write` on the topic");
    let id = "a producer id takes the right `IdempotentWrite` on the cluster or, since Kafka 2.8, `Write` on any topic";
    denied(never_appended.produce(one()).await, id);

    kafka.java().grant(USER, &[on_cluster("IdempotentWrite")]).await;
    let by_cluster = Some(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
    until(async || never_appended.produce(one()).await.unwrap_err().code() != by_cluster).await;
    denied(never_appended.produce(one()).await, "it takes the right `Write` on the topic");
}

fn start(version: Version) -> Kafka {
    let properties = [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        // The brokers themselves and Java, on listeners without authentication.
        ("super.users", "User:ANONYMOUS"),
    ];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let listeners = vec![
        Listener::new("PLAINTEXT", "PLAINTEXT"),
        Listener::new("SASL_PLAINTEXT", "SASL_PLAINTEXT").sasl(&["PLAIN"]),
    ];
    Kafka::start(version, &ClusterConfig { listeners, properties, ..ClusterConfig::default() })
}

/// A user with rights.
struct Alice {
    client: Client,
    controller: ControllerClient,
}

impl Alice {
    async fn connect(kafka: &Kafka) -> Self {
        let client = ClientBuilder::new(kafka.cluster().unwrap().addresses("SASL_PLAINTEXT"))
            .sasl(Sasl::plain(USER, PASSWORD).danger_send_unencrypted())
            .build()
            .await
            .unwrap();
        let controller = client.controller_client().await.unwrap();
        Self { client, controller }
    }

    async fn open(&self, topic: &str) -> Result<PartitionClient, Error> {
        self.client.partition_client(topic, 0).await
    }

    /// Returns the settings that an audit of the topic cannot read, and where the right to it is missing.
    async fn unknown_settings(&self, topic: &str) -> Vec<String> {
        let findings = self.controller.audit(topic).await.unwrap();
        let unknown = findings.iter().filter(|finding| finding.severity == Severity::Unknown);
        let setting_and_resource = |finding: &Finding| {
            let (_, resource) = finding.why.split_once("Allow this client `DescribeConfigs`").unwrap();
            format!("{}{resource}", finding.setting)
        };
        unknown.map(setting_and_resource).collect()
    }

    /// Returns whether each of them applies the rights to topics: both do so a moment after they change.
    async fn rights_at_broker_and_controller(&self) -> [bool; 2] {
        let alter = self.controller.alter_topic_configs("alter-configs").set("retention.ms", "-1");
        let describe = self.controller.describe_topic_configs("describe-configs");
        [describe.await.is_ok(), alter.validate_only(true).await.is_ok()]
    }
}

async fn until(is_so: impl AsyncFn() -> bool) {
    while !is_so().await {
        yield_now().await;
    }
}

fn on_cluster(right: &str) -> (&str, &'static str, &'static str) {
    (right, "Cluster", "kafka-cluster")
}

fn one() -> Vec<Record> {
    vec![Record::new("key", "value")]
}
