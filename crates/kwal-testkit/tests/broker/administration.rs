//! The APIs that describe and change topics, logs and the cluster, compared with Kafka 3.9.2 and 4.3.1.

use kwal_protocol::{
    api::{ApiKey, Versions},
    error_code::ErrorCode,
    messages::{
        AlterConfigsResource, AlterConfigsResult, AlterableConfig, CreatePartitionsAssignment,
        CreatePartitionsRequest, CreatePartitionsTopic, CreatePartitionsTopicResult, DeleteRecordsPartition,
        DeleteRecordsRequest, DeleteRecordsTopic, DescribeClusterRequest, DescribeConfigsRequest,
        DescribeConfigsResource, DescribeConfigsResult, DescribedConfig, IncrementalAlterConfigsRequest,
        OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
    },
};
use kwal_testkit::{Dialect, EmbeddedCluster, Error};

use crate::client::{Client, Place, STARTED_AT, batch, both, in_memory, outcome};

fn versions(api: ApiKey) -> std::ops::RangeInclusive<i16> {
    let Versions { oldest, newest } = Dialect::kafka_3_9().versions(api).unwrap();
    let latest = Dialect::kafka_4_3().versions(api).unwrap().newest;
    oldest..=newest.max(latest)
}

/// A broker that supports every version of an API that any release has.
async fn all_versions(api: ApiKey) -> EmbeddedCluster {
    let dialect = match Dialect::kafka_4_3().versions(api) == Dialect::kafka_3_9().versions(api) {
        true => Dialect::kafka_4_3(),
        false if api == ApiKey::DESCRIBE_CLUSTER => Dialect::kafka_4_3(),
        false => Dialect::kafka_3_9(),
    };
    EmbeddedCluster::builder().dialect(dialect).topic("wal", 2).started_at(STARTED_AT).start().await.unwrap()
}

fn partitions(name: &str, count: i32, assignment: Option<&[&[i32]]>) -> CreatePartitionsTopic {
    let assigned = |brokers: &&[i32]| CreatePartitionsAssignment { broker_ids: brokers.to_vec() };
    CreatePartitionsTopic {
        name: name.to_owned(),
        count,
        assignments: assignment.map(|assignment| assignment.iter().map(assigned).collect()),
    }
}

async fn create(
    client: &mut Client,
    topic: CreatePartitionsTopic,
    version: i16,
    validate_only: bool,
) -> CreatePartitionsTopicResult {
    let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms: 1000, validate_only };
    client.call(&request, version).await.results.remove(0)
}

#[tokio::test]
async fn partitions_are_added_at_every_version() {
    for broker in both().await {
        let mut client = Client::connect(&broker).await;
        let mut count = 2;
        for version in versions(ApiKey::CREATE_PARTITIONS) {
            count += 1;
            let before = broker.start_offset("wal", count - 1);
            assert!(matches!(before, Err(Error::UnknownPartition { .. })));
            let checked = create(&mut client, partitions("wal", count, None), version, true).await;
            assert_eq!(checked.error_code, ErrorCode::NONE);
            assert!(broker.start_offset("wal", count - 1).is_err(), "only looked at");
            let answer = create(&mut client, partitions("wal", count, None), version, false).await;
            assert_eq!((answer.name.as_str(), answer.error_code), ("wal", ErrorCode::NONE));
            let place = Place::of(&broker, "wal", count - 1);
            let produced = client.produce(&place, batch(&["a"]).to_bytes()).await;
            assert_eq!(outcome(&produced), Ok(0), "it can be appended to");
        }
    }
}

#[tokio::test]
async fn partitions_that_cannot_be_added() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    let invalid = ErrorCode::INVALID_PARTITIONS;
    let misassigned = ErrorCode::INVALID_REPLICA_ASSIGNMENT;
    let cases: &[(CreatePartitionsTopic, ErrorCode, Option<&str>)] = &[
        (partitions("wal", 2, None), invalid, Some("Topic already has 2 partition(s).")),
        (
            partitions("wal", 1, None),
            invalid,
            Some("The topic wal currently has 2 partition(s); 1 would not be an increase."),
        ),
        (
            partitions("wal", -1, None),
            invalid,
            Some("The topic wal currently has 2 partition(s); -1 would not be an increase."),
        ),
        (partitions("missing", 3, None), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, None),
        (partitions("wal", 20_000, None), ErrorCode::UNKNOWN_SERVER_ERROR, None),
        (
            partitions("wal", 4, Some(&[&[1]])),
            misassigned,
            Some("Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."),
        ),
        (
            partitions("wal", 3, Some(&[&[7]])),
            misassigned,
            Some("The manual partition assignment includes broker 7, but no such broker is registered."),
        ),
        (
            partitions("wal", 3, Some(&[&[1, 1]])),
            misassigned,
            Some("The manual partition assignment includes the broker 1 more than once."),
        ),
        (
            partitions("wal", 3, Some(&[&[]])),
            misassigned,
            Some("The manual partition assignment includes an empty replica list."),
        ),
    ];
    for (topic, code, message) in cases {
        let answer = create(&mut client, topic.clone(), 3, false).await;
        assert_eq!((answer.error_code, answer.error_message.as_deref()), (*code, *message), "{topic:?}");
    }
    let twice = vec![partitions("wal", 3, None), partitions("wal", 4, None)];
    let request = CreatePartitionsRequest { topics: twice, ..CreatePartitionsRequest::default() };
    let codes: Vec<_> =
        client.call(&request, 3).await.results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [ErrorCode::INVALID_REQUEST], "answered once");
    assert!(broker.start_offset("wal", 2).is_err());
    let assigned = create(&mut client, partitions("wal", 4, Some(&[&[1], &[1]])), 3, false).await;
    assert_eq!(assigned.error_code, ErrorCode::NONE);
    assert_eq!(broker.start_offset("wal", 3).unwrap(), 0);
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

async fn describe_at(
    client: &mut Client,
    version: i16,
    kind: i8,
    name: &str,
    names: Option<&[&str]>,
    include_synonyms: bool,
) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.to_owned(),
        configuration_keys: names.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
    };
    let include_documentation = false;
    let request =
        DescribeConfigsRequest { resources: vec![resource], include_synonyms, include_documentation };
    client.call(&request, version).await.results.remove(0)
}

async fn described(client: &mut Client, name: &str) -> DescribedConfig {
    describe_at(client, 4, TOPIC, "wal", Some(&[name]), true).await.configs.remove(0)
}

#[tokio::test]
async fn settings_are_described_at_every_version() {
    let broker = all_versions(ApiKey::DESCRIBE_CONFIGS).await;
    broker.create_topic_with("own", 1, &[("retention.ms", "-1")]).unwrap();
    let mut client = Client::connect(&broker).await;
    for version in versions(ApiKey::DESCRIBE_CONFIGS) {
        for (topic, value, source) in [("own", "-1", 1), ("wal", "604800000", 5)] {
            let names = Some(&["retention.ms", "nope"][..]);
            let response = describe_at(&mut client, version, TOPIC, topic, names, version > 0).await;
            assert_eq!((response.error_code, response.error_message.as_deref()), (ErrorCode::NONE, Some("")));
            let [config] = &response.configs[..] else { panic!("{response:?}") };
            assert_eq!(config.value.as_deref(), Some(value));
            assert_eq!(config.config_source, if version >= 1 { source } else { -1 });
            assert_eq!(config.is_default, version == 0 && source == 5);
            assert_eq!(config.config_type, if version >= 3 { 5 } else { 0 });
            let synonyms = usize::from(version > 0 && topic == "own");
            assert_eq!(config.synonyms.len(), synonyms, "{config:?}");
        }
        let all = describe_at(&mut client, version, TOPIC, "wal", None, false).await.configs;
        assert!(all.len() > 30 && all.iter().all(|config| config.synonyms.is_empty()));
        let empty = describe_at(&mut client, version, TOPIC, "wal", Some(&[]), false).await.configs;
        assert_eq!(empty, all, "an empty list asks for all, as with Kafka");
    }
}

#[tokio::test]
async fn settings_of_missing_resources() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    let request = ErrorCode::INVALID_REQUEST;
    for (kind, name, code, message) in [
        (TOPIC, "missing", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ""),
        (TOPIC, "a b", ErrorCode::INVALID_TOPIC_EXCEPTION, "Topic name is invalid: 'a b'"),
        (BROKER, "7", request, "Unexpected broker id, expected 1 or empty string, but received 7"),
        (BROKER, "abc", request, "Broker id must be an integer, but it is: abc"),
        (3, "1", request, "Unknown resource type 3"),
    ] {
        let response = describe_at(&mut client, 4, kind, name, None, false).await;
        assert_eq!((response.error_code, response.error_message.as_deref()), (code, Some(message)), "{name}");
        assert_eq!((response.resource_type, response.resource_name.as_str()), (kind, name));
    }
}

#[tokio::test]
async fn broker_settings_are_described_and_are_defaults_of_topics() {
    let broker = EmbeddedCluster::builder()
        .setting("producer.id.expiration.ms", "60000")
        .setting("log.retention.ms", "1000")
        .default_partitions(3)
        .topic("wal", 1)
        .start_in_memory()
        .unwrap();
    let mut client = Client::connect(&broker).await;
    let response = describe_at(&mut client, 4, BROKER, "1", None, true).await;
    let of = |name: &str| response.configs.iter().find(|config| config.name == name).unwrap();
    let short = |name: &str| (of(name).value.as_deref(), of(name).config_source, of(name).read_only);
    assert_eq!(short("producer.id.expiration.ms"), (Some("60000"), 4, false));
    assert_eq!(short("transactional.id.expiration.ms"), (Some("604800000"), 5, true));
    assert_eq!(short("num.partitions"), (Some("3"), 4, true));
    assert_eq!(short("node.id"), (Some("1"), 4, true));
    assert!(of("ssl.keystore.password").is_sensitive);
    assert_eq!(of("ssl.keystore.password").value, None);
    assert_eq!(described(&mut client, "retention.ms").await.config_source, 4);
    let synonyms = described(&mut client, "retention.ms").await.synonyms;
    let synonyms: Vec<_> = synonyms.iter().map(|one| (one.value.as_deref().unwrap(), one.source)).collect();
    assert_eq!(synonyms, [("1000", 4)], "the broker's own default is one of hours");

    for (name, value) in [("log.retention.years", "1"), ("min.insync.replicas", "none")] {
        let error = EmbeddedCluster::builder().setting(name, value).start_in_memory().unwrap_err();
        assert!(matches!(error, Error::InvalidSetting { .. }), "{error}");
    }
}

type Change<'a> = (&'a str, i8, Option<&'a str>);
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn alteration(kind: i8, name: &str, changes: &[Change<'_>]) -> AlterConfigsResource {
    let change = |(name, config_operation, value): &Change<'_>| AlterableConfig {
        name: (*name).to_owned(),
        config_operation: *config_operation,
        value: value.map(str::to_owned),
    };
    AlterConfigsResource {
        resource_type: kind,
        resource_name: name.to_owned(),
        configs: changes.iter().map(change).collect(),
    }
}

async fn alter(
    client: &mut Client,
    version: i16,
    resource: AlterConfigsResource,
    validate_only: bool,
) -> AlterConfigsResult {
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only };
    client.call(&request, version).await.responses.remove(0)
}

#[tokio::test]
async fn settings_are_altered_at_every_version() {
    for broker in both().await {
        let mut client = Client::connect(&broker).await;
        for version in versions(ApiKey::INCREMENTAL_ALTER_CONFIGS) {
            let mut change = async |changes: &[Change<'_>], validate_only| {
                let answer = alter(&mut client, version, alteration(TOPIC, "wal", changes), validate_only);
                let answer = answer.await;
                assert_eq!((answer.error_code, answer.error_message), (ErrorCode::NONE, None), "{changes:?}");
                let retention = described(&mut client, "retention.ms").await;
                let cleanup = described(&mut client, "cleanup.policy").await;
                [retention, cleanup].map(|config| (config.value.unwrap(), config.config_source))
            };
            let is = |retention: (&str, i8), cleanup: (&str, i8)| {
                [retention, cleanup].map(|(value, source)| (value.to_owned(), source))
            };
            let (default, delete) = (("604800000", 5), ("delete", 5));
            assert_eq!(change(&[("retention.ms", SET, Some("5"))], true).await, is(default, delete));
            assert_eq!(change(&[("retention.ms", SET, Some("5"))], false).await, is(("5", 1), delete));
            let both = ("delete,compact", 1);
            for _ in 0..2 {
                let append = [("cleanup.policy", APPEND, Some("compact"))];
                assert_eq!(change(&append, false).await, is(("5", 1), both), "added to the default, once");
            }
            let more = [("retention.ms", DELETE, None), ("cleanup.policy", SUBTRACT, Some("delete"))];
            assert_eq!(change(&more, false).await, is(default, ("compact", 1)));
            let none = [("cleanup.policy", SUBTRACT, Some("compact,other"))];
            assert_eq!(change(&none, false).await, is(default, ("", 1)));
            let gone = [("cleanup.policy", DELETE, None), ("nope", DELETE, None)];
            assert_eq!(change(&gone, false).await, is(default, delete));
            assert_eq!(change(&[], false).await, is(default, delete));
        }
    }
}

#[tokio::test]
async fn settings_that_cannot_be_altered() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    let (request, config) = (ErrorCode::INVALID_REQUEST, ErrorCode::INVALID_CONFIG);
    let valid: Change<'_> = ("retention.bytes", SET, Some("1"));
    let cases: &[(i8, &str, &[Change<'_>], ErrorCode, &str)] = &[
        (
            TOPIC,
            "missing",
            &[valid],
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            "The topic 'missing' does not exist.",
        ),
        (TOPIC, "a b", &[valid], ErrorCode::INVALID_TOPIC_EXCEPTION, "Topic name is invalid: 'a b'"),
        (TOPIC, "", &[valid], request, "Default topic resources are not allowed."),
        (
            TOPIC,
            "wal",
            &[valid, ("retention.ms", SET, None)],
            request,
            "Null value not supported for : retention.ms",
        ),
        (TOPIC, "wal", &[valid, valid], request, "Error due to duplicate config keys"),
        (
            TOPIC,
            "wal",
            &[valid, ("retention.ms", SET, Some("soon"))],
            config,
            "Invalid value soon for configuration retention.ms: Not a number of type LONG",
        ),
        (TOPIC, "wal", &[valid, ("nope", SET, Some("1"))], config, "Unknown topic config name: nope"),
        (
            TOPIC,
            "wal",
            &[valid, ("retention.ms", APPEND, Some("1"))],
            config,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            TOPIC,
            "wal",
            &[valid, ("cleanup.policy", APPEND, Some("keep"))],
            config,
            "Invalid value keep for configuration cleanup.policy: String must be one of: compact, delete",
        ),
        (3, "1", &[valid], request, "Unknown resource type 3"),
        (BROKER, "1", &[valid], request, "the embedded broker alters no settings of brokers"),
    ];
    for (kind, name, changes, code, message) in cases {
        for validate_only in [true, false] {
            let answer = alter(&mut client, 1, alteration(*kind, name, changes), validate_only).await;
            let response = (answer.error_code, answer.error_message.as_deref());
            assert_eq!(response, (*code, Some(*message)), "{name} {changes:?}");
        }
    }
    let unknown = alteration(TOPIC, "wal", &[valid, ("retention.ms", 9, Some("1"))]);
    assert_eq!(alter(&mut client, 1, unknown, false).await.error_code, ErrorCode::UNKNOWN_SERVER_ERROR);
    let twice = vec![alteration(TOPIC, "wal", &[valid]), alteration(TOPIC, "wal", &[])];
    let twice = IncrementalAlterConfigsRequest { resources: twice, ..Default::default() };
    let codes: Vec<_> = client.call(&twice, 1).await.responses.iter().map(|one| one.error_code).collect();
    assert_eq!(codes, [request; 2]);
    assert_eq!(
        described(&mut client, "retention.bytes").await.value.as_deref(),
        Some("-1"),
        "all or nothing"
    );
}

#[tokio::test]
async fn altered_settings_apply_to_the_next_append() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    let place = Place::of(&broker, "wal", 0);
    let one = batch(&["a"]).to_bytes();
    let limit = (one.len() - 1).to_string();
    for (change, code) in [
        (("max.message.bytes", SET, Some(limit.as_str())), ErrorCode::MESSAGE_TOO_LARGE),
        (("max.message.bytes", DELETE, None), ErrorCode::NONE),
    ] {
        let answer = alter(&mut client, 1, alteration(TOPIC, "wal", &[change]), false).await;
        assert_eq!(answer.error_code, ErrorCode::NONE);
        assert_eq!(client.produce(&place, one.clone()).await.error_code, code);
    }
}

async fn delete_before(
    client: &mut Client,
    version: i16,
    name: &str,
    partition_index: i32,
    offset: i64,
) -> Result<i64, ErrorCode> {
    let partitions = vec![DeleteRecordsPartition { partition_index, offset }];
    let topic = DeleteRecordsTopic { name: name.to_owned(), partitions };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1000 };
    let answer = client.call(&request, version).await.topics.remove(0);
    assert_eq!((answer.name.as_str(), answer.partitions[0].partition_index), (name, partition_index));
    let answer = &answer.partitions[0];
    assert!(answer.error_code == ErrorCode::NONE || answer.low_watermark == -1);
    answer.error_code.ok().map(|()| answer.low_watermark)
}

#[tokio::test]
async fn records_are_deleted_at_every_version() {
    for version in versions(ApiKey::DELETE_RECORDS) {
        for broker in both().await {
            let mut client = Client::connect(&broker).await;
            client.produce(&Place::of(&broker, "wal", 0), batch(&["a", "b", "c"]).to_bytes()).await;
            for (before, start) in [(0, 0), (2, 2), (1, 2), (-1, 3), (3, 3)] {
                assert_eq!(
                    delete_before(&mut client, version, "wal", 0, before).await,
                    Ok(start),
                    "{before}"
                );
                assert_eq!(broker.start_offset("wal", 0).unwrap(), start);
            }
            let answer = client.fetch(&Place::of(&broker, "wal", 0), 2).await;
            assert_eq!((answer.error_code, answer.log_start_offset), (ErrorCode::OFFSET_OUT_OF_RANGE, -1));
            let answer = client.fetch(&Place::of(&broker, "wal", 0), 3).await;
            assert_eq!((answer.error_code, answer.log_start_offset), (ErrorCode::NONE, 3));
        }
    }
}

#[tokio::test]
async fn records_that_cannot_be_deleted() {
    let broker = in_memory();
    broker.create_topic_with("compacted", 1, &[("cleanup.policy", "compact")]).unwrap();
    broker.create_topic_with("both", 1, &[("cleanup.policy", "compact,delete")]).unwrap();
    let mut client = Client::connect(&broker).await;
    for (topic, partition, offset, code) in [
        ("missing", 0, 0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("wal", 2, 0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("wal", 0, 1, ErrorCode::OFFSET_OUT_OF_RANGE),
        ("wal", 0, -2, ErrorCode::OFFSET_OUT_OF_RANGE),
        ("compacted", 0, 0, ErrorCode::POLICY_VIOLATION),
        ("compacted", 0, -1, ErrorCode::POLICY_VIOLATION),
    ] {
        assert_eq!(
            delete_before(&mut client, 2, topic, partition, offset).await,
            Err(code),
            "{topic} {offset}"
        );
    }
    assert_eq!(delete_before(&mut client, 2, "both", 0, -1).await, Ok(0));
}

#[tokio::test]
async fn the_cluster_is_described_at_every_version() {
    for broker in both().await {
        let mut client = Client::connect(&broker).await;
        for version in 0..=Dialect::kafka_4_3().versions(ApiKey::DESCRIBE_CLUSTER).unwrap().newest {
            let mut request = DescribeClusterRequest::default();
            let answer = client.call(&request, version).await;
            assert_eq!((answer.error_code, answer.controller_id), (ErrorCode::NONE, 1));
            assert_eq!(answer.cluster_id.len(), 22);
            assert_eq!(answer.cluster_authorized_operations, i32::MIN);
            let [response] = &answer.brokers[..] else { panic!("{answer:?}") };
            let place =
                (response.broker_id, format!("{}:{}", response.host, response.port), response.rack.clone());
            assert_eq!(place, (1, broker.bootstrap().remove(0), None));
            request.include_cluster_authorized_operations = true;
            assert_eq!(client.call(&request, version).await.cluster_authorized_operations, 8096);
            if version == 0 {
                continue;
            }
            for (endpoint_type, code) in
                [(2, ErrorCode::MISMATCHED_ENDPOINT_TYPE), (7, ErrorCode::UNSUPPORTED_ENDPOINT_TYPE)]
            {
                request.endpoint_type = endpoint_type;
                let answer = client.call(&request, version).await;
                assert_eq!((answer.error_code, answer.brokers.len()), (code, 0));
            }
        }
    }
}

async fn end_of_epoch(
    client: &mut Client,
    version: i16,
    topic: &str,
    requested: OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    let topic = OffsetForLeaderTopic { topic: topic.to_owned(), partitions: vec![requested] };
    let request = OffsetForLeaderEpochRequest { topics: vec![topic], ..Default::default() };
    let answer = client.call(&request, version).await.topics.remove(0).partitions.remove(0);
    answer.error_code.ok().map(|()| (answer.leader_epoch, answer.end_offset))
}

#[tokio::test]
async fn ends_of_leader_epochs_at_every_version() {
    let broker = all_versions(ApiKey::OFFSET_FOR_LEADER_EPOCH).await;
    let mut client = Client::connect(&broker).await;
    let of = |leader_epoch| OffsetForLeaderPartition { leader_epoch, ..Default::default() };
    assert_eq!(end_of_epoch(&mut client, 4, "wal", of(0)).await, Ok((0, 0)), "an empty log");
    let place = Place::of(&broker, "wal", 0);
    let request = crate::client::produce(&place, batch(&["a", "b"]).to_bytes());
    client.call(&request, 11).await;
    for version in versions(ApiKey::OFFSET_FOR_LEADER_EPOCH) {
        let epoch = if version >= 1 { 0 } else { -1 };
        assert_eq!(end_of_epoch(&mut client, version, "wal", of(0)).await, Ok((epoch, 2)));
        for unknown in [1, -1] {
            assert_eq!(end_of_epoch(&mut client, version, "wal", of(unknown)).await, Ok((-1, -1)));
        }
        let unknown = Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(end_of_epoch(&mut client, version, "missing", of(0)).await, unknown);
        let elsewhere = OffsetForLeaderPartition { partition: 9, ..of(0) };
        assert_eq!(end_of_epoch(&mut client, version, "wal", elsewhere).await, unknown);
        if version >= 2 {
            for (current_leader_epoch, expected) in [
                (0, Ok((0, 2))),
                (1, Err(ErrorCode::UNKNOWN_LEADER_EPOCH)),
                (-2, Err(ErrorCode::FENCED_LEADER_EPOCH)),
            ] {
                let requested = OffsetForLeaderPartition { current_leader_epoch, ..of(0) };
                assert_eq!(end_of_epoch(&mut client, version, "wal", requested).await, expected);
            }
        }
    }
}
