//! `kwal topics`: listing, creating, describing and deleting topics.

use std::collections::BTreeMap;

use clap::Subcommand;
use kwal::client::{ConfigSource, ConfigValue, CreatedTopic, EnsuredTopic, TopicDescription};
use serde::Serialize;

use super::{MAY_HAVE_CHANGED, Session, ids};
use crate::{
    exit::{Exit, Failure},
    output::{Table, escaped, optional, plural, warn},
};

/// Lists, creates, describes and deletes topics
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists the topics that this client may describe
    #[command(after_long_help = "\
JSON: an object a line, {\"name\", \"id\", \"partitions\", \"internal\"}.

Examples:
  kwal topics list
  kwal topics list --internal --json | jq -r .name")]
    List {
        /// Internal topics as well, such as __consumer_offsets
        #[arg(long)]
        internal: bool,
    },
    /// Creates a topic
    ///
    /// A log is one partition. It survives the loss of a broker with three replicas, two of which have to be
    /// in sync, and with retention.ms=-1 it keeps its records until they are trimmed. `kwal audit` says what
    /// is missing.
    #[command(after_long_help = "\
JSON: one object, {\"name\", \"id\", \"created\", \"partitions\", \"replication_factor\", \"differences\"}.

Exits with 3 if the topic exists; see `kwal topics ensure`.

Examples:
  kwal topics create wal --partitions 4 --replication-factor 3 \\
      --set min.insync.replicas=2 --set retention.ms=-1 && kwal audit wal")]
    Create(NewTopic),
    /// Creates a topic unless it exists, and compares it with what was asked for if it does
    ///
    /// An existing topic stays as it is. Exits with 1 if it differs.
    #[command(after_long_help = "\
JSON: one object, {\"name\", \"id\", \"created\", \"partitions\", \"replication_factor\", \"differences\": [text]}.

Examples:
  kwal topics ensure wal --partitions 4 --set min.insync.replicas=2")]
    Ensure(NewTopic),
    /// Describes a topic: leaders, replicas, leader epochs and configs
    #[command(after_long_help = "\
Configs are those that are set for the topic or matter to a log; --all prints the others as well.

JSON: one object, {\"name\", \"id\", \"partitions\": [{\"index\", \"leader\", \"leader_epoch\", \"replicas\",
\"in_sync\", \"offline\"}], \"configs\": {NAME: {\"value\", \"source\"}}}; configs is null if this client may
not describe them.

Exits with 1 if a partition has no leader, or replicas that are not in sync.

Examples:
  kwal topics describe wal
  kwal topics describe wal --json | jq '.partitions[] | select(.in_sync | length < 2)'")]
    Describe {
        /// The topic
        topic: String,
        /// All configs
        #[arg(long)]
        all: bool,
    },
    /// Deletes a topic with all its records
    #[command(after_long_help = "\
It asks on a terminal; elsewhere it takes --yes.

JSON: one object, {\"name\", \"deleted\"}.

Examples:
  kwal topics delete wal-test --yes")]
    Delete {
        /// The topic
        topic: String,
        /// Does not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct NewTopic {
    /// The topic
    topic: String,
    /// How many partitions; -1 is the brokers' default
    #[arg(short, long, value_name = "N", default_value_t = 1, allow_hyphen_values = true)]
    partitions: i32,
    /// How many replicas of each partition; -1 is the brokers' default
    #[arg(short, long, value_name = "N", default_value_t = -1, allow_hyphen_values = true)]
    replication_factor: i16,
    /// A config of the topic; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    configs: Vec<(String, String)>,
}

pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as name=value".to_owned()),
    }
}

pub(crate) async fn run(session: &mut Session, args: Args) -> Result<Exit, Failure> {
    match args.action {
        Action::List { internal } => list(session, internal).await,
        Action::Create(topic) => create(session, topic, false).await,
        Action::Ensure(topic) => create(session, topic, true).await,
        Action::Describe { topic, all } => describe(session, &topic, all).await,
        Action::Delete { topic, yes } => delete(session, topic, yes).await,
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    id: Option<String>,
    partitions: usize,
    internal: bool,
}

async fn list(session: &mut Session, internal: bool) -> Result<Exit, Failure> {
    let client = session.client().await?;
    let mut topics = session.interrupt.or(client.list_topics()).await?;
    topics.retain(|topic| internal || !topic.is_internal);
    topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut table = Table::new(&["TOPIC", ">PARTITIONS", "ID"]);
    for topic in &topics {
        let id = topic.id.map(|id| id.to_string());
        if session.out.is_json() {
            let (name, internal) = (topic.name.as_str(), topic.is_internal);
            session.out.json(&Listed { name, id, partitions: topic.partitions, internal })?;
        } else {
            table.row([escaped(topic.name.as_bytes()), topic.partitions.to_string(), optional(id)]);
        }
    }
    session.out.table(table)?;
    Ok(Exit::Success)
}

#[derive(Serialize)]
struct Exists {
    name: String,
    id: Option<String>,
    created: bool,
    partitions: i32,
    replication_factor: i16,
    differences: Vec<String>,
}

impl From<CreatedTopic> for Exists {
    fn from(topic: CreatedTopic) -> Self {
        let CreatedTopic { name, id, partitions, replication_factor, .. } = topic;
        let id = id.map(|id| id.to_string());
        Self { name, id, created: true, partitions, replication_factor, differences: Vec::new() }
    }
}

impl From<EnsuredTopic> for Exists {
    fn from(topic: EnsuredTopic) -> Self {
        let EnsuredTopic { name, id, created, partitions, replication_factor, differences, .. } = topic;
        let id = id.map(|id| id.to_string());
        let differences = differences.iter().map(ToString::to_string).collect();
        Self { name, id, created, partitions, replication_factor, differences }
    }
}

impl Exists {
    fn print(&self, session: &mut Session) -> Result<(), Failure> {
        let Self { name, id: _, created, partitions, replication_factor, differences } = self;
        if session.out.is_json() {
            return session.out.json(self);
        }
        let count = |number: i64| optional((number >= 0).then_some(number));
        session.out.line(format_args!(
            "topic {name} {}: partitions {}, replication factor {}",
            if *created { "was created" } else { "exists" },
            count((*partitions).into()),
            count((*replication_factor).into())
        ))?;
        for difference in differences {
            session.out.line(format_args!("differs: {difference}"))?;
        }
        Ok(())
    }
}

/// Creates a topic, which may exist already if `or_compare`.
async fn create(session: &mut Session, topic: NewTopic, or_compare: bool) -> Result<Exit, Failure> {
    let controller = session.controller().await?;
    let NewTopic { topic, partitions, replication_factor, configs } = topic;
    let interrupt = &session.interrupt;
    let exists = match or_compare {
        false => {
            let create = controller.create_topic(topic, partitions, replication_factor);
            let create = configs.into_iter().fold(create, |create, (name, value)| create.config(name, value));
            Exists::from(interrupt.or_say(MAY_HAVE_CHANGED, create).await?)
        }
        true => {
            let ensure = controller.ensure_topic(topic, partitions, replication_factor);
            let ensure = configs.into_iter().fold(ensure, |ensure, (name, value)| ensure.config(name, value));
            Exists::from(interrupt.or_say(MAY_HAVE_CHANGED, ensure).await?)
        }
    };
    exists.print(session)?;
    Ok(if exists.differences.is_empty() { Exit::Success } else { Exit::Negative })
}

/// The configs that decide what becomes of a log.
const MATTER: [&str; 9] = [
    "cleanup.policy",
    "max.message.bytes",
    "message.timestamp.type",
    "min.insync.replicas",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.ms",
    "unclean.leader.election.enable",
];

#[derive(Serialize)]
struct Described<'a> {
    name: &'a str,
    id: Option<String>,
    partitions: Vec<DescribedPartition<'a>>,
    configs: Option<BTreeMap<&'a str, DescribedConfig<'a>>>,
}

#[derive(Serialize)]
struct DescribedPartition<'a> {
    index: i32,
    leader: Option<i32>,
    leader_epoch: Option<i32>,
    replicas: &'a [i32],
    in_sync: &'a [i32],
    offline: &'a [i32],
}

#[derive(Serialize)]
struct DescribedConfig<'a> {
    value: Option<&'a str>,
    source: String,
}

async fn describe(session: &mut Session, topic: &str, all: bool) -> Result<Exit, Failure> {
    let controller = session.controller().await?;
    let description = session.interrupt.or(controller.describe_topic(topic)).await?;
    let configs = match session.interrupt.or(controller.describe_topic_configs(topic)).await {
        Ok(configs) => Some(configs),
        // What can be described is described.
        Err(Failure::Client(error)) => {
            warn(&format!("configs are unknown: {error}"));
            None
        }
        Err(failure) => return Err(failure),
    };
    let is_shown = |name: &str, config: &ConfigValue| {
        all || config.source == ConfigSource::Topic || MATTER.contains(&name)
    };
    let configs: Option<BTreeMap<&str, &ConfigValue>> = configs.as_ref().map(|configs| {
        let shown = configs.iter().filter(|(name, config)| is_shown(name, config));
        shown.map(|(name, config)| (name.as_str(), config)).collect()
    });
    match session.out.is_json() {
        true => session.out.json(&described(&description, configs.as_ref()))?,
        false => print_description(session, &description, configs.as_ref())?,
    }
    let is_whole = description
        .partitions
        .iter()
        .all(|partition| partition.leader.is_some() && partition.in_sync.len() == partition.replicas.len());
    Ok(if is_whole { Exit::Success } else { Exit::Negative })
}

fn described<'a>(
    topic: &'a TopicDescription,
    configs: Option<&BTreeMap<&'a str, &'a ConfigValue>>,
) -> Described<'a> {
    let partitions = topic.partitions.iter().map(|partition| DescribedPartition {
        index: partition.index,
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        replicas: &partition.replicas,
        in_sync: &partition.in_sync,
        offline: &partition.offline,
    });
    let config = |config: &&'a ConfigValue| DescribedConfig {
        value: config.value.as_deref(),
        source: config.source.to_string(),
    };
    Described {
        name: &topic.name,
        id: topic.id.map(|id| id.to_string()),
        partitions: partitions.collect(),
        configs: configs.map(|configs| configs.iter().map(|(name, value)| (*name, config(value))).collect()),
    }
}

fn print_description(
    session: &mut Session,
    topic: &TopicDescription,
    configs: Option<&BTreeMap<&str, &ConfigValue>>,
) -> Result<(), Failure> {
    let mut table = Table::new(&["TOPIC", ">PARTITIONS", "ID"]);
    let id = optional(topic.id.map(|id| id.to_string()));
    table.row([escaped(topic.name.as_bytes()), topic.partitions.len().to_string(), id]);
    session.out.table(table)?;
    session.out.line("")?;
    let mut table = Table::new(&[">PARTITION", ">LEADER", ">EPOCH", "REPLICAS", "IN SYNC", "OFFLINE"]);
    for partition in &topic.partitions {
        table.row([
            partition.index.to_string(),
            optional(partition.leader),
            optional(partition.leader_epoch),
            ids(&partition.replicas),
            ids(&partition.in_sync),
            ids(&partition.offline),
        ]);
    }
    session.out.table(table)?;
    let Some(configs) = configs else { return Ok(()) };
    let mut table = Table::new(&["CONFIG", "VALUE", "SOURCE"]);
    for (name, config) in configs {
        let value = config.value.as_deref().map(|value| escaped(value.as_bytes()));
        table.row([escaped(name.as_bytes()), optional(value), config.source.to_string()]);
    }
    session.out.line("")?;
    session.out.table(table)
}

#[derive(Serialize)]
struct Deleted<'a> {
    name: &'a str,
    deleted: bool,
}

async fn delete(session: &mut Session, topic: String, yes: bool) -> Result<Exit, Failure> {
    let controller = session.controller().await?;
    let description = session.interrupt.or(controller.describe_topic(&topic)).await?;
    let count = plural(description.partitions.len() as u64, "partition");
    let question = format!("delete topic {topic} with {count} and all records");
    if !session.confirm(&question, yes).await? {
        if session.out.is_json() {
            session.out.json(&Deleted { name: &topic, deleted: false })?;
        }
        return Ok(Exit::Negative);
    }
    session.interrupt.or_say(MAY_HAVE_CHANGED, controller.delete_topic(&topic)).await?;
    if session.out.is_json() {
        session.out.json(&Deleted { name: &topic, deleted: true })?;
    } else {
        session.out.line(format_args!("topic {topic} was deleted"))?;
    }
    Ok(Exit::Success)
}
