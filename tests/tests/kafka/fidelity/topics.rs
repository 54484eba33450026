//! Topics: created, deleted, recreated and looked up.

use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    CreatableAssignment, CreatableConfig, CreatableTopic, CreateTopicsRequest, DeleteTopic,
    DeleteTopicsRequest, FetchRequest, MetadataRequest, MetadataTopic, ProduceRequest,
};
use kwal_protocol::wire::Uuid;

use super::describe;
use super::log::{Log, batch};
use super::world::{World, create, metadata, topic_metadata, until};
use crate::raw::Broker;

pub(super) async fn topics_made(world: &mut World) {
    let mut connection = world.connect().await;
    let name = world.name("made");
    let good = plain(&name, 2);
    for (what, topic) in [
        ("no name", plain("", 2)),
        ("a dot", plain(".", 2)),
        ("two dots", plain("..", 2)),
        ("a space", plain("a b", 2)),
        ("an umlaut", plain("ä", 2)),
        ("250 letters", plain(&"x".repeat(250), 2)),
        ("0 partitions", plain(&name, 0)),
        ("-2 partitions", plain(&name, -2)),
        ("0 replicas", CreatableTopic { replication_factor: 0, ..good.clone() }),
        ("-2 replicas", CreatableTopic { replication_factor: -2, ..good.clone() }),
        ("more replicas than brokers", CreatableTopic { replication_factor: 30, ..good.clone() }),
    ] {
        let text = made(&mut connection, vec![topic], false).await;
        world.record(format!("{what}: {text}"));
    }
    world.record(format!("validated: {}", made(&mut connection, vec![good.clone()], true).await));
    world.record(format!(
        "looked up: {}",
        describe::code(topic_metadata(&mut connection, &name).await.error_code)
    ));
    world.record(format!("made: {}", made(&mut connection, vec![good.clone()], false).await));
    for (what, validate_only) in [("validated", true), ("made", false)] {
        world.record(format!(
            "{what} again: {}",
            made(&mut connection, vec![good.clone()], validate_only).await
        ));
    }
    world.wait_for_topic(&name).await;
    world.record(format!("looked up: {}", describe::topic(&topic_metadata(&mut connection, &name).await)));
    let defaults = world.name("defaults");
    let topic = CreatableTopic { replication_factor: -1, ..plain(&defaults, -1) };
    world.record(format!("with the broker's numbers: {}", made(&mut connection, vec![topic], false).await));
}

pub(super) async fn topics_with_settings(world: &mut World) {
    let mut connection = world.connect().await;
    for (name, value) in [
        ("retention.ms", Some("-1")),
        ("retention.ms", Some("-2")),
        ("retention.ms", Some("soon")),
        ("retention.ms", Some(" 7 ")),
        ("retention.ms", None),
        ("no.such", Some("1")),
        ("max.message.bytes", Some("-1")),
        ("max.message.bytes", Some("1000000000000")),
        ("min.insync.replicas", Some("0")),
        ("min.insync.replicas", Some("5")),
        ("cleanup.policy", Some("delete,compact")),
        ("cleanup.policy", Some("keep")),
        ("cleanup.policy", Some("")),
        ("compression.type", Some("zip")),
        ("unclean.leader.election.enable", Some("yes")),
        ("unclean.leader.election.enable", Some("TRUE")),
        ("message.timestamp.type", Some("Now")),
        ("message.format.version", Some("2.0")),
        ("segment.bytes", Some("100")),
        ("segment.ms", Some("0")),
    ] {
        let topic = world.name(&format!("{name}-{}", value.unwrap_or("null").trim().replace(',', "-")));
        let config = CreatableConfig { name: name.to_owned(), value: value.map(str::to_owned) };
        let topic = CreatableTopic { configs: vec![config], ..plain(&topic, 1) };
        let text = made(&mut connection, vec![topic], true).await;
        world.record(format!("{name}={}: {text}", value.unwrap_or("null")));
    }
    let name = world.name("set-twice");
    let config =
        |value: &str| CreatableConfig { name: "retention.ms".to_owned(), value: Some(value.to_owned()) };
    let topic = CreatableTopic { configs: vec![config("5"), config("6")], ..plain(&name, 1) };
    world.record(format!("the same twice: {}", made(&mut connection, vec![topic], false).await));
}

pub(super) async fn topics_with_assignments(world: &mut World) {
    let mut connection = world.connect().await;
    let name = world.name("assigned");
    for (what, partitions, factor, assignments) in [
        ("a broker that is not there", -1, -1, &[(0, &[9][..])][..]),
        ("a broker twice", -1, -1, &[(0, &[1, 1])]),
        ("no brokers", -1, -1, &[(0, &[])]),
        ("a gap", -1, -1, &[(0, &[1]), (2, &[1])]),
        ("not from 0 on", -1, -1, &[(1, &[1])]),
        ("a partition twice", -1, -1, &[(0, &[1]), (0, &[1])]),
        ("partitions too", 1, -1, &[(0, &[1])]),
        ("replicas too", -1, 1, &[(0, &[1])]),
        ("a good one", -1, -1, &[(1, &[1]), (0, &[1])]),
    ] {
        let assignments = assignments.iter().map(|(partition_index, brokers)| CreatableAssignment {
            partition_index: *partition_index,
            broker_ids: brokers.to_vec(),
        });
        let topic = CreatableTopic {
            num_partitions: partitions,
            replication_factor: factor,
            assignments: assignments.collect(),
            ..plain(&name, 1)
        };
        world.record(format!("{what}: {}", made(&mut connection, vec![topic], false).await));
    }
}

/// Twice in one request.
pub(super) async fn a_topic_named_twice(world: &mut World) {
    let mut connection = world.connect().await;
    let (twice, once) = (world.name("twice"), world.name("once"));
    let topics = vec![plain(&twice, 1), plain(&once, 1), plain(&twice, 1)];
    world.record(made(&mut connection, topics, false).await);
    let request = DeleteTopicsRequest { topics: vec![by_name(&once), by_name(&once)], ..deadline() };
    world.record(format!("deleted twice: {}", deleted(&mut connection, request).await));
}

/// Their metrics would have the same name.
pub(super) async fn topic_names_that_collide(world: &mut World) {
    let mut connection = world.connect().await;
    let dots = world.name("col.lide");
    let underscores = dots.replace('.', "_");
    world.rename(&underscores, "col_lide");
    for (what, name) in [("with a dot", dots), ("with an underscore", underscores)] {
        world.record(format!("{what}: {}", made(&mut connection, vec![plain(&name, 1)], false).await));
    }
}

pub(super) async fn topics_deleted(world: &mut World) {
    let mut connection = world.connect().await;
    let one = world.log("by-name", &[]).await;
    let two = world.log("by-id", &[]).await;
    let nobody = world.name("nobody-made");
    let by_id = |topic_id| DeleteTopic { name: None, topic_id };
    for (what, topics) in [
        ("not there", vec![by_name(&nobody)]),
        ("a bad name", vec![by_name("a b")]),
        ("an unknown id", vec![by_id(Uuid([7; 16]))]),
        ("neither", vec![by_id(Uuid::ZERO)]),
        ("name and id", vec![DeleteTopic { name: Some(one.topic.clone()), topic_id: one.id }]),
        ("name and id of one", vec![by_name(&one.topic), by_id(one.id)]),
        ("by name", vec![by_name(&one.topic)]),
        ("by id", vec![by_id(two.id)]),
        ("by name again", vec![by_name(&one.topic)]),
        ("by id again", vec![by_id(two.id)]),
    ] {
        let request = DeleteTopicsRequest { topics, ..deadline() };
        world.record(format!("{what}: {}", deleted(&mut connection, request).await));
    }
    world.wait_until_gone(&two.topic).await;
    let mut two = two;
    world.record(format!("an append: {}", two.append(batch(1)).await));
    world.record(format!("a fetch: {}", two.fetch(0).await));
    world.record(format!("its end: {}", two.offset(-1, 0).await));
    let request = DeleteTopicsRequest { topic_names: vec![nobody], ..deadline() };
    let response = connection.call(&request, 5).await;
    let text =
        describe::rejection(response.responses[0].error_code, response.responses[0].error_message.as_deref());
    world.record(format!("DeleteTopics 5: {text}"));
}

/// It has the same name and another id, and begins at 0.
pub(super) async fn a_topic_made_again(world: &mut World) {
    let mut log = world.log("again", &[]).await;
    let id = log.producer_id().await;
    world.record(format!("0: {}", log.append(batch(3).stamp(id, 0, 0)).await));
    let request = DeleteTopicsRequest { topics: vec![by_name(&log.topic)], ..deadline() };
    deleted(&mut log.connection, request).await;
    world.wait_until_gone(&log.topic).await;
    let old = log.id;
    let text = old_id(&mut log, old).await;
    world.record(format!("while it is gone, {text}"));
    let code = create(&mut log.connection, world.creatable(&log.topic, &[&[1]], &[])).await;
    assert_eq!(code, ErrorCode::NONE);
    world.wait_for_topic(&log.topic).await;
    log.id = topic_metadata(&mut log.connection, &log.topic).await.topic_id;
    until("it is led", async || (log.end().await == 0).then_some(())).await;
    world.record(format!("the id is {}", if log.id == old { "the same" } else { "another" }));
    let text = old_id(&mut log, old).await;
    world.record(format!("made again, {text}"));
    world.record(format!("the last sequence again: {}", log.append(batch(1).stamp(id, 0, 2)).await));
    world.record(format!("from 0: {}", log.fetch(0).await));
    world.record(format!("from 3: {}", log.fetch(3).await));
}

/// Fetches with the old id, and appends with it if the broker supports topic ids in Produce.
async fn old_id(log: &mut Log, old: Uuid) -> String {
    let mut text = Vec::new();
    let mut request = log.fetch_request(0, 1000);
    request.topics[0].topic_id = old;
    assert!(log.connection.versions_of::<FetchRequest>().newest >= 13);
    let response = log.connection.call(&request, 13).await;
    text.push(format!("a fetch by the old id: {}", describe::fetched(&response.responses[0].partitions[0])));
    if log.connection.versions_of::<ProduceRequest>().newest >= 13 {
        let mut request = log.produce(batch(1).to_bytes(), -1);
        request.topic_data[0].topic_id = old;
        text.push(format!("an append by the old id: {}", log.produce_by(&request, 13).await));
    }
    text.join("; ")
}

/// Without creating them.
pub(super) async fn metadata_of_unknown_topics(world: &mut World) {
    let mut connection = world.connect().await;
    let nobody = world.name("nobody-made");
    for name in ["a b", "", &"x".repeat(250), &nobody, &nobody] {
        let text = describe::topic(&topic_metadata(&mut connection, name).await);
        world.record(text);
    }
    // Before version 4, the request cannot prevent the creation, so the name is invalid.
    let wanted = MetadataTopic { name: Some("a b".to_owned()), ..MetadataTopic::default() };
    let request = MetadataRequest { topics: Some(vec![wanted]), ..MetadataRequest::default() };
    for version in [1, 3, 9] {
        let response = connection.call(&request, version).await;
        world.record(format!("Metadata {version}: {}", describe::code(response.topics[0].error_code)));
    }
    let known = world.log("known", &[]).await;
    let topics = [&known.topic, &nobody, &known.topic]
        .map(|name| MetadataTopic { name: Some(name.clone()), ..MetadataTopic::default() });
    let request = MetadataRequest {
        topics: Some(topics.to_vec()),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let mut topics = connection.call(&request, 12).await.topics;
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    for topic in &topics {
        world.record(format!("asked with others: {}", describe::topic(topic)));
    }
}

pub(super) async fn metadata_by_topic_id(world: &mut World) {
    let log = world.log("by-id", &[]).await;
    let mut connection = world.connect().await;
    for (what, topic_id, name) in [
        ("its id", log.id, None),
        ("another id", Uuid([7; 16]), None),
        ("its id and name", log.id, Some(log.topic.clone())),
        ("neither", Uuid::ZERO, None),
    ] {
        let request = MetadataRequest {
            topics: Some(vec![MetadataTopic { topic_id, name }]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let text = match connection.try_call(&request, 12).await {
            Some(response) => match response.topics.first() {
                Some(topic) => describe::topic(topic),
                None => "no topic".to_owned(),
            },
            None => {
                connection = world.connect().await;
                "hangs up".to_owned()
            }
        };
        world.record(format!("{what}: {text}"));
    }
}

/// Null means all topics, an empty list none, except in version 0.
pub(super) async fn metadata_of_no_topics(world: &mut World) {
    let log = world.log("one-of-all", &[]).await;
    let mut connection = world.connect().await;
    for (what, version, topics) in [
        ("null", 12, None),
        ("null", 1, None),
        ("none", 12, Some(Vec::new())),
        ("none", 1, Some(Vec::new())),
        ("none", 0, Some(Vec::new())),
    ] {
        let request = MetadataRequest { topics, ..MetadataRequest::default() };
        let response = connection.call(&request, version).await;
        let there = response.topics.iter().any(|topic| topic.name.as_deref() == Some(&log.topic));
        let brokers: Vec<String> = response
            .brokers
            .iter()
            .map(|broker| {
                format!("{} at {}:{}, rack {:?}", broker.node_id, broker.host, broker.port, broker.rack)
            })
            .collect();
        world.record(format!(
            "{what} by Metadata {version}: {}; brokers {}; a cluster id: {}; a controller: {}",
            if there { "the topic" } else { "not the topic" },
            brokers.join(", "),
            response.cluster_id.is_some(),
            response.controller_id > 0,
        ));
    }
}

/// With `auto.create.topics.enable`, which is the default.
pub(super) async fn a_topic_made_by_asking(world: &mut World) {
    let mut connection = world.connect().await;
    let name = world.name("asked-for");
    let first = metadata(&mut connection, &name, true).await.topics.remove(0);
    // The first response reports an unknown topic or one without leader. Later ones contain it.
    let text = match first.error_code {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::LEADER_NOT_AVAILABLE => "not there yet".to_owned(),
        _ => describe::topic(&first),
    };
    world.record(format!("asked for: {text}"));
    world.wait_for_topic(&name).await;
    world.record(format!("then: {}", describe::topic(&topic_metadata(&mut connection, &name).await)));
    world.record(format!(
        "a bad name: {}",
        describe::topic(&metadata(&mut connection, "a b", true).await.topics[0])
    ));
}

fn plain(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    }
}

async fn made(connection: &mut Broker, topics: Vec<CreatableTopic>, validate_only: bool) -> String {
    let request = CreateTopicsRequest { topics, validate_only, ..CreateTopicsRequest::default() };
    let mut topics = connection.call(&request, 7).await.topics;
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    let text: Vec<String> = topics.iter().map(describe::created).collect();
    text.join("; ")
}

fn by_name(name: &str) -> DeleteTopic {
    DeleteTopic { name: Some(name.to_owned()), topic_id: Uuid::ZERO }
}

fn deadline() -> DeleteTopicsRequest {
    DeleteTopicsRequest { timeout_ms: 30_000, ..DeleteTopicsRequest::default() }
}

async fn deleted(connection: &mut Broker, request: DeleteTopicsRequest) -> String {
    let response = connection.call(&request, 6).await;
    let text = response.responses.iter().map(|topic| {
        let text = describe::rejection(topic.error_code, topic.error_message.as_deref());
        let name = topic.name.as_deref().unwrap_or("null");
        format!("{text}, {name:?}, {}", if topic.topic_id.is_zero() { "no id" } else { "an id" })
    });
    text.collect::<Vec<_>>().join("; ")
}
