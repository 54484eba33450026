//! Partitions, configs, and descriptions of cluster and producers.

use bytes::Bytes;
use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    AlterConfigsResource, AlterableConfig, CreatableTopic, CreatePartitionsAssignment,
    CreatePartitionsRequest, CreatePartitionsTopic, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeConfigsResource, DescribeProducersRequest, DescribeProducersTopic,
    IncrementalAlterConfigsRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};

use super::describe;
use super::log::batch_at;
use super::world::{World, create, topic_metadata, until};
use crate::raw::Broker;

pub(super) async fn partitions_added(world: &mut World) {
    let mut log = world.log("grown", &[]).await;
    let name = log.topic.clone();
    let nobody = world.name("nobody-made");
    let topic = |name: &str, count, assignments: Option<&[&[i32]]>| CreatePartitionsTopic {
        name: name.to_owned(),
        count,
        assignments: assignments.map(|assignments| {
            let brokers = assignments.iter().map(|brokers| brokers.to_vec());
            brokers.map(|broker_ids| CreatePartitionsAssignment { broker_ids }).collect()
        }),
    };
    for (what, topics, validate_only) in [
        ("as many", vec![topic(&name, 1, None)], false),
        ("none", vec![topic(&name, 0, None)], false),
        ("-1", vec![topic(&name, -1, None)], false),
        ("of nobody's topic", vec![topic(&nobody, 2, None)], false),
        ("validated", vec![topic(&name, 3, None)], true),
        ("too few assigned", vec![topic(&name, 3, Some(&[&[1]]))], false),
        ("too many assigned", vec![topic(&name, 2, Some(&[&[1], &[1]]))], false),
        ("assigned to nobody", vec![topic(&name, 2, Some(&[&[9]]))], false),
        ("assigned to none", vec![topic(&name, 2, Some(&[&[]]))], false),
        ("more replicas assigned", vec![topic(&name, 2, Some(&[&[1, 1]]))], false),
        ("twice in a request", vec![topic(&name, 2, None), topic(&name, 3, None)], false),
        ("two", vec![topic(&name, 2, None)], false),
        ("fewer", vec![topic(&name, 1, None)], false),
        ("three, assigned", vec![topic(&name, 3, Some(&[&[1]]))], false),
    ] {
        let request = CreatePartitionsRequest { topics, timeout_ms: 30_000, validate_only };
        let response = log.connection.call(&request, 3).await;
        let text: Vec<String> = response
            .results
            .iter()
            .map(|topic| describe::rejection(topic.error_code, topic.error_message.as_deref()))
            .collect();
        world.record(format!("{what}: {}", text.join("; ")));
    }
    let found = until("three partitions are there", async || {
        let found = topic_metadata(&mut log.connection, &name).await;
        (found.partitions.len() == 3).then_some(found)
    })
    .await;
    world.record(describe::topic(&found));
}

pub(super) async fn settings_described(world: &mut World) {
    let settings = [
        ("min.insync.replicas", "1"),
        ("max.message.bytes", "5000"),
        ("file.delete.delay.ms", " 10000 "),
        ("preallocate", "TRUE"),
    ];
    let mut log = world.log("described", &settings).await;
    let nobody = world.name("nobody-made");
    let plain = world.name("plain");
    let topic = CreatableTopic {
        name: plain.clone(),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    assert_eq!(create(&mut log.connection, topic).await, ErrorCode::NONE);
    world.wait_for_topic(&plain).await;
    let keys = |keys: &[&str]| Some(keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>());
    for (what, kind, name, wanted) in [
        ("some", TOPIC, log.topic.as_str(), keys(&["retention.ms", "max.message.bytes", "cleanup.policy"])),
        ("odd values", TOPIC, log.topic.as_str(), keys(&["file.delete.delay.ms", "preallocate"])),
        (
            "defaults",
            TOPIC,
            plain.as_str(),
            keys(&["retention.ms", "segment.ms", "segment.jitter.ms", "flush.ms", "compression.type"]),
        ),
        ("one that is not there", TOPIC, log.topic.as_str(), keys(&["no.such", "segment.bytes"])),
        ("nobody's topic", TOPIC, nobody.as_str(), None),
        ("a bad name", TOPIC, "a b", None),
        ("no name", TOPIC, "", None),
        ("a broker that is not there", BROKER, "9", keys(&["node.id"])),
        ("a broker of letters", BROKER, "x", None),
        ("an unknown kind", 77, "x", None),
        ("of the broker", BROKER, "1", keys(&["producer.id.expiration.ms", "message.max.bytes"])),
        ("of all brokers", BROKER, "", keys(&["producer.id.expiration.ms"])),
    ] {
        let resource = DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.to_owned(),
            configuration_keys: wanted,
        };
        let request = DescribeConfigsRequest {
            resources: vec![resource],
            include_synonyms: true,
            include_documentation: false,
        };
        let Some(response) = log.connection.try_call(&request, 4).await else {
            world.record(format!("{what}: hangs up"));
            log.connection = world.connect().await;
            continue;
        };
        let result = &response.results[0];
        world.record(format!(
            "{what}: {}",
            describe::rejection(result.error_code, result.error_message.as_deref())
        ));
        let mut configs = result.configs.clone();
        configs.sort_by(|one, other| one.name.cmp(&other.name));
        for config in configs {
            let synonyms: Vec<String> = config
                .synonyms
                .iter()
                .map(|synonym| format!("{}={:?} from {}", synonym.name, synonym.value, synonym.source))
                .collect();
            world.record(format!(
                "  {}={:?} from {}, kind {}{}{}, synonyms [{}]",
                config.name,
                config.value,
                config.config_source,
                config.config_type,
                if config.read_only { ", read only" } else { "" },
                if config.is_sensitive { ", a secret" } else { "" },
                synonyms.join(", ")
            ));
        }
    }
    let resource = DescribeConfigsResource {
        resource_type: TOPIC,
        resource_name: log.topic.clone(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() };
    let response = log.connection.call(&request, 4).await;
    let mut names: Vec<&str> = response.results[0].configs.iter().map(|config| &*config.name).collect();
    names.sort_unstable();
    world.record(format!("all: {}", names.join(" ")));
}

pub(super) async fn settings_changed(world: &mut World) {
    let mut log = world.log("changed", &[("max.message.bytes", "5000")]).await;
    let name = log.topic.clone();
    let nobody = world.name("nobody-made");
    let change = |name: &str, config_operation: i8, value: Option<&str>| AlterableConfig {
        name: name.to_owned(),
        config_operation,
        value: value.map(str::to_owned),
    };
    for (what, kind, resource, configs, validate_only) in [
        ("of nobody's topic", TOPIC, &nobody, vec![change("retention.ms", SET, Some("5"))], false),
        ("an unknown kind", 77, &name, vec![change("retention.ms", SET, Some("5"))], false),
        ("one that is not there", TOPIC, &name, vec![change("no.such", SET, Some("5"))], false),
        ("a bad value", TOPIC, &name, vec![change("retention.ms", SET, Some("soon"))], false),
        ("no value", TOPIC, &name, vec![change("retention.ms", SET, None)], false),
        ("no such operation", TOPIC, &name, vec![change("retention.ms", 9, Some("5"))], false),
        ("added to what is no list", TOPIC, &name, vec![change("retention.ms", APPEND, Some("5"))], false),
        (
            "the same twice",
            TOPIC,
            &name,
            vec![change("retention.ms", SET, Some("5")), change("retention.ms", DELETE, None)],
            false,
        ),
        (
            "one good, one bad",
            TOPIC,
            &name,
            vec![change("segment.ms", SET, Some("9")), change("no.such", SET, None)],
            false,
        ),
        ("validated", TOPIC, &name, vec![change("segment.ms", SET, Some("9"))], true),
        ("set", TOPIC, &name, vec![change("segment.ms", SET, Some("10000"))], false),
        ("added to a list", TOPIC, &name, vec![change("cleanup.policy", APPEND, Some("compact"))], false),
        ("taken from a list", TOPIC, &name, vec![change("cleanup.policy", SUBTRACT, Some("delete"))], false),
        ("taken back", TOPIC, &name, vec![change("max.message.bytes", DELETE, None)], false),
        ("taken back again", TOPIC, &name, vec![change("max.message.bytes", DELETE, None)], false),
    ] {
        let resource = AlterConfigsResource { resource_type: kind, resource_name: resource.clone(), configs };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only };
        let Some(response) = log.connection.try_call(&request, 1).await else {
            world.record(format!("{what}: hangs up"));
            log.connection = world.connect().await;
            continue;
        };
        let result = &response.responses[0];
        world.record(format!(
            "{what}: {}",
            describe::rejection(result.error_code, result.error_message.as_deref())
        ));
    }
    let set = until("the changes are known", async || {
        let set = set_by_topic(&mut log.connection, &name).await;
        (set.contains("compact") && !set.contains("delete") && !set.contains("max.message.bytes"))
            .then_some(set)
    })
    .await;
    world.record(format!("set now: {set}"));
    world.record(format!("a record without a key: {}", log.append(batch_at(&[1])).await));
}

/// Describes the configs that are set for the topic.
async fn set_by_topic(connection: &mut Broker, topic: &str) -> String {
    let resource = DescribeConfigsResource {
        resource_type: TOPIC,
        resource_name: topic.to_owned(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() };
    let response = connection.call(&request, 4).await;
    let configs =
        response.results[0].configs.iter().filter(|config| config.config_source == describe::TOPIC_CONFIG);
    let mut set: Vec<String> = configs
        .map(|config| format!("{}={}", config.name, config.value.as_deref().unwrap_or("null")))
        .collect();
    set.sort_unstable();
    set.join(" ")
}

pub(super) async fn the_cluster_described(world: &mut World) {
    let mut connection = world.connect().await;
    for (version, endpoint_type) in [(0, 1), (1, 1), (1, 2), (1, 7)] {
        let request = DescribeClusterRequest { endpoint_type, ..DescribeClusterRequest::default() };
        let response = connection.call(&request, version).await;
        let brokers: Vec<String> = response
            .brokers
            .iter()
            .map(|broker| format!("{} at {}:{}", broker.broker_id, broker.host, broker.port))
            .collect();
        world.record(format!(
            "version {version}, endpoints {endpoint_type}: {}, brokers [{}], a controller: {}, a cluster id: {}",
            describe::rejection(response.error_code, response.error_message.as_deref()),
            brokers.join(", "),
            response.controller_id > 0,
            !response.cluster_id.is_empty(),
        ));
    }
}

pub(super) async fn producers_described(world: &mut World) {
    let mut log = world.log("written", &[]).await;
    world.record(format!("of a new partition: {}", log.producers().await));
    for partition in [1, -1] {
        log.partition = partition;
        world.record(format!("partition {partition}: {}", log.producers().await));
    }
    let nobody = world.name("nobody-made");
    for name in [nobody.as_str(), "a b"] {
        let topic = DescribeProducersTopic { name: name.to_owned(), partition_indexes: vec![0] };
        let request = DescribeProducersRequest { topics: vec![topic] };
        let response = log.connection.call(&request, 0).await;
        let text = describe::active_producers(&response.topics[0].partitions[0]);
        world.record(format!("{name}: {text}"));
    }
}

/// On a listener without SASL.
pub(super) async fn sasl_where_there_is_none(world: &mut World) {
    let mut connection = world.connect().await;
    let request = SaslHandshakeRequest { mechanism: "PLAIN".to_owned() };
    let text = match connection.try_call(&request, 1).await {
        Some(response) => {
            format!("{}, mechanisms {:?}", describe::code(response.error_code), response.mechanisms)
        }
        None => "hangs up".to_owned(),
    };
    world.record(format!("SaslHandshake: {text}"));
    let request = SaslAuthenticateRequest { auth_bytes: Bytes::from_static(b"\0alice\0secret") };
    let text = match connection.try_call(&request, 2).await {
        Some(response) => describe::rejection(response.error_code, response.error_message.as_deref()),
        None => "hangs up".to_owned(),
    };
    world.record(format!("SaslAuthenticate: {text}"));
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;
