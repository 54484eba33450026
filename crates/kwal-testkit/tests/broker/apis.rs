//! Each API at each of its versions, and the requests that it rejects.

use kwal_protocol::{
    api::{ApiKey, Versions},
    error_code::ErrorCode,
    messages::{
        ApiVersionsRequest, CreatableAssignment, CreatableConfig, CreatableTopic, CreateTopicsRequest,
        CreateTopicsResult, DeleteTopic, DeleteTopicsRequest, InitProducerIdRequest, ListOffsetsPartition,
        ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsTopic, MetadataRequest, MetadataTopic,
    },
    wire::Uuid,
};
use kwal_testkit::{Dialect, EmbeddedCluster};

use crate::client::{
    CODEC, Client, Place, STARTED_AT, batch, both, compressed, fetch, in_memory, outcome, produce, values,
};

fn versions(api: ApiKey) -> std::ops::RangeInclusive<i16> {
    let Versions { oldest, newest } = Dialect::kafka_4_3().versions(api).unwrap();
    oldest..=newest
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: "kwal".to_owned(),
        client_software_version: "0.1.0".to_owned(),
    }
}

#[tokio::test]
async fn api_versions_at_every_version() {
    for broker in both().await {
        let mut client = Client::connect(&broker).await;
        for version in versions(ApiKey::API_VERSIONS) {
            let response = client.call(&api_versions(), version).await;
            assert_eq!(response.error_code, ErrorCode::NONE);
            let listed = |key| {
                let api = response.api_keys.iter().find(|api| api.api_key == key);
                api.map(|api| (api.min_version, api.max_version))
            };
            assert_eq!(response.api_keys.len(), 18);
            assert_eq!(listed(ApiKey::PRODUCE), Some((0, 13)), "as Kafka 4.3 lists it");
            assert_eq!(listed(ApiKey::FETCH), Some((4, 18)));
            assert_eq!(listed(ApiKey::INIT_PRODUCER_ID), Some((0, 5)));
        }
    }
}

#[tokio::test]
async fn api_versions_newer_than_the_broker_are_answered_in_version_0() {
    let broker = EmbeddedCluster::builder().dialect(Dialect::kafka_2_8()).start_in_memory().unwrap();
    let mut client = Client::connect(&broker).await;
    // By hand: version 4 with its header, decoded as version 0.
    client.send(&api_versions(), 4).await;
    let frame = client.receive_frame().await.unwrap();
    assert_eq!(&frame[..], b"\0\0\0\x01\0\x23\0\0\0\x01\0\x12\0\0\0\x03");
    let response = client.call(&api_versions(), 3).await;
    assert_eq!(response.error_code, ErrorCode::NONE, "the connection goes on");
}

#[tokio::test]
async fn invalid_software_names_are_rejected() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    for request in [
        ApiVersionsRequest::default(),
        ApiVersionsRequest { client_software_version: "0 1".to_owned(), ..api_versions() },
    ] {
        assert_eq!(client.call(&request, 3).await.error_code, ErrorCode::INVALID_REQUEST);
        assert_eq!(client.call(&request, 2).await.error_code, ErrorCode::NONE, "not requested");
    }
}

#[tokio::test]
async fn other_unknown_versions_and_apis_close_the_connection() {
    for broker in both().await {
        let place = Place::of(&broker, "wal", 0);
        let mut client = Client::connect(&broker).await;
        client.send(&produce(&place, batch(&["a"]).to_bytes()), 2).await;
        assert!(client.receive_frame().await.is_none());
        let mut client = Client::connect(&broker).await;
        // Key 9999, version 0.
        client.send_bytes(&b"\0\0\0\x0a\x27\x0f\0\0\0\0\0\x01\xff\xff"[..]).await;
        assert!(client.receive_frame().await.is_none());
        assert_eq!(broker.end_offset("wal", 0).unwrap(), 0);
    }
    let broker =
        EmbeddedCluster::builder().cap(ApiKey::METADATA, Versions::new(0, 4)).start_in_memory().unwrap();
    let mut client = Client::connect(&broker).await;
    client.call(&MetadataRequest::default(), 4).await;
    client.send(&MetadataRequest::default(), 5).await;
    assert!(client.receive_frame().await.is_none());
}

#[tokio::test]
async fn records_are_written_and_read_at_every_version() {
    for broker in both().await {
        let mut client = Client::connect(&broker).await;
        let place = Place::of(&broker, "wal", 1);
        let mut expected = Vec::new();
        for version in versions(ApiKey::PRODUCE) {
            let value = format!("version {version}");
            let answer = client.call(&produce(&place, batch(&[&value, "b"]).to_bytes()), version).await;
            let topic = &answer.responses[0];
            let named =
                if version >= 13 { (String::new(), place.id) } else { ("wal".to_owned(), Uuid::ZERO) };
            assert_eq!((topic.name.clone(), topic.topic_id), named);
            let partition = &topic.partition_responses[0];
            assert_eq!((partition.index, outcome(partition)), (1, Ok(expected.len() as i64)));
            assert_eq!(partition.log_append_time_ms, -1);
            assert_eq!(partition.log_start_offset, if version >= 5 { 0 } else { -1 });
            expected.extend([value, "b".to_owned()]);
        }
        assert_eq!(values(&broker, &place), expected);
        for version in versions(ApiKey::FETCH) {
            let answer = client.call(&fetch(&place, 0), version).await;
            let read = &answer.responses[0].partitions[0];
            assert_eq!(read.error_code, ErrorCode::NONE);
            assert_eq!((read.partition_index, read.high_watermark), (1, expected.len() as i64));
            assert_eq!(read.last_stable_offset, expected.len() as i64);
            let log: Vec<_> =
                broker.log("wal", 1).unwrap().iter().map(|batch| batch.bytes().clone()).collect();
            assert_eq!(read.records.as_deref().unwrap(), log.concat());
        }
    }
}

#[tokio::test]
async fn metadata_at_every_version() {
    for broker in both().await {
        let mut client = Client::connect(&broker).await;
        let named = |name: &str| MetadataTopic { name: Some(name.to_owned()), topic_id: Uuid::ZERO };
        for version in versions(ApiKey::METADATA) {
            let topics = Some(vec![named("wal"), named("nope"), named("a b")]);
            let request = MetadataRequest { topics, ..MetadataRequest::default() };
            let answer = client.call(&request, version).await;
            let broker_told = &answer.brokers[0];
            assert_eq!(format!("{}:{}", broker_told.host, broker_told.port), broker.bootstrap()[0]);
            let [wal, nope, invalid] = &answer.topics[..] else { panic!("{answer:?}") };
            assert_eq!((wal.error_code, wal.partitions.len()), (ErrorCode::NONE, 2));
            let id = broker.topic_id("wal").unwrap();
            assert_eq!(wal.topic_id, if version >= 10 { id } else { Uuid::ZERO });
            let partition = &wal.partitions[1];
            assert_eq!((partition.partition_index, partition.leader_id), (1, broker_told.node_id));
            assert_eq!(partition.leader_epoch, if version >= 7 { 0 } else { -1 });
            assert_eq!(nope.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
            assert_eq!(invalid.error_code, ErrorCode::INVALID_TOPIC_EXCEPTION);

            let none = MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() };
            let count = client.call(&none, version).await.topics.len();
            assert_eq!(count, usize::from(version == 0), "empty means all in version 0 alone");
            if version >= 1 {
                let all = MetadataRequest { topics: None, ..MetadataRequest::default() };
                assert_eq!(client.call(&all, version).await.topics.len(), 1);
            }
            if version >= 10 {
                let by_id = |topic_id| MetadataRequest {
                    topics: Some(vec![MetadataTopic { name: None, topic_id }]),
                    ..MetadataRequest::default()
                };
                let answer = client.call(&by_id(id), version).await;
                let found = &answer.topics[0];
                match version {
                    // The schema has the field, but it has a meaning only from version 12 on.
                    10 | 11 => assert_eq!(found.error_code, ErrorCode::INVALID_REQUEST),
                    _ => assert_eq!(found.name.as_deref(), Some("wal")),
                }
                if version >= 12 {
                    let answer = client.call(&by_id(Uuid([9; 16])), version).await;
                    assert_eq!(answer.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_ID);
                    assert_eq!(answer.topics[0].name, None);
                }
            }
        }
        assert_eq!(broker.topics(), ["wal"], "a look-up creates no topic");
    }
}

#[tokio::test]
async fn permissions_are_returned_on_request() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    let request = MetadataRequest {
        topics: None,
        include_cluster_authorized_operations: true,
        include_topic_authorized_operations: true,
        ..MetadataRequest::default()
    };
    let answer = client.call(&request, 9).await;
    assert_eq!(answer.cluster_authorized_operations, 8096);
    assert_eq!(answer.topics[0].topic_authorized_operations, 3576);
}

#[tokio::test]
async fn topics_are_created_by_metadata_only_where_both_sides_allow_it() {
    let broker =
        EmbeddedCluster::builder().auto_create_topics(true).default_partitions(3).start_in_memory().unwrap();
    let mut client = Client::connect(&broker).await;
    let topics = Some(vec![MetadataTopic { name: Some("new".to_owned()), topic_id: Uuid::ZERO }]);
    let mut request =
        MetadataRequest { topics, allow_auto_topic_creation: false, ..MetadataRequest::default() };
    for expected in [0, 0] {
        let answer = client.call(&request, 12).await;
        assert_eq!(answer.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(broker.topics().len(), expected);
    }
    request.allow_auto_topic_creation = true;
    let answer = client.call(&request, 12).await;
    assert_eq!(answer.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "being created");
    let answer = client.call(&request, 12).await;
    assert_eq!((answer.topics[0].error_code, answer.topics[0].partitions.len()), (ErrorCode::NONE, 3));
}

fn topic(name: &str) -> CreatableTopic {
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: 2,
        replication_factor: 1,
        ..CreatableTopic::default()
    }
}

async fn create(client: &mut Client, topic: CreatableTopic) -> CreateTopicsResult {
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    client.call(&request, 7).await.topics.remove(0)
}

#[tokio::test]
async fn topics_are_created_and_deleted_at_every_version() {
    for broker in both().await {
        let mut client = Client::connect(&broker).await;
        for version in versions(ApiKey::CREATE_TOPICS) {
            let mut made = topic("created");
            made.configs =
                vec![CreatableConfig { name: "retention.ms".to_owned(), value: Some("-1".to_owned()) }];
            let mut request = CreateTopicsRequest { topics: vec![made], ..CreateTopicsRequest::default() };
            request.validate_only = true;
            assert_eq!(client.call(&request, version).await.topics[0].error_code, ErrorCode::NONE);
            assert_eq!(broker.topics(), ["wal"], "only looked at");
            request.validate_only = false;
            let answer = client.call(&request, version).await.topics.remove(0);
            assert_eq!(answer.error_code, ErrorCode::NONE);
            let id = broker.topic_id("created").unwrap();
            if version >= 5 {
                assert_eq!((answer.num_partitions, answer.replication_factor), (2, 1));
                let configs = answer.configs.unwrap();
                let retention = configs.iter().find(|config| config.name == "retention.ms").unwrap();
                assert_eq!((retention.value.as_deref(), retention.config_source), (Some("-1"), 1));
            }
            assert_eq!(answer.topic_id, if version >= 7 { id } else { Uuid::ZERO });
            let again = client.call(&request, version).await.topics.remove(0);
            assert_eq!(again.error_code, ErrorCode::TOPIC_ALREADY_EXISTS);
            broker.delete_topic("created").unwrap();
        }
        for version in versions(ApiKey::DELETE_TOPICS) {
            let id = broker.create_topic("gone", 1).unwrap();
            let mut request = DeleteTopicsRequest::default();
            if version >= 6 {
                request.topics = vec![DeleteTopic { name: None, topic_id: id }];
            } else {
                request.topic_names = vec!["gone".to_owned()];
            }
            let answer = client.call(&request, version).await.responses.remove(0);
            assert_eq!((answer.name.as_deref(), answer.error_code), (Some("gone"), ErrorCode::NONE));
            let answer = client.call(&request, version).await.responses.remove(0);
            let unknown = match version {
                6 => ErrorCode::UNKNOWN_TOPIC_ID,
                _ => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            };
            assert_eq!(answer.error_code, unknown);
        }
        assert_eq!(broker.topics(), ["wal"]);
    }
}

#[tokio::test]
async fn topics_that_cannot_be_created() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    let with_config = |name: &str, value: Option<&str>| CreatableTopic {
        configs: vec![CreatableConfig { name: name.to_owned(), value: value.map(str::to_owned) }],
        ..topic("new")
    };
    let assigned = |assignments: &[(i32, &[i32])]| CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: assignments
            .iter()
            .map(|(partition, brokers)| CreatableAssignment {
                partition_index: *partition,
                broker_ids: brokers.to_vec(),
            })
            .collect(),
        ..topic("new")
    };
    let cases = [
        (topic("wal"), ErrorCode::TOPIC_ALREADY_EXISTS),
        (topic(""), ErrorCode::INVALID_TOPIC_EXCEPTION),
        (topic(".."), ErrorCode::INVALID_TOPIC_EXCEPTION),
        (topic("a/b"), ErrorCode::INVALID_TOPIC_EXCEPTION),
        (topic(&"x".repeat(250)), ErrorCode::INVALID_TOPIC_EXCEPTION),
        (CreatableTopic { num_partitions: 0, ..topic("new") }, ErrorCode::INVALID_PARTITIONS),
        (CreatableTopic { num_partitions: -2, ..topic("new") }, ErrorCode::INVALID_PARTITIONS),
        (CreatableTopic { num_partitions: i32::MAX, ..topic("new") }, ErrorCode::POLICY_VIOLATION),
        (CreatableTopic { replication_factor: 0, ..topic("new") }, ErrorCode::INVALID_REPLICATION_FACTOR),
        (CreatableTopic { replication_factor: 2, ..topic("new") }, ErrorCode::INVALID_REPLICATION_FACTOR),
        (with_config("max.mesage.bytes", Some("1")), ErrorCode::INVALID_CONFIG),
        (with_config("max.message.bytes", None), ErrorCode::INVALID_CONFIG),
        (with_config("max.message.bytes", Some("-1")), ErrorCode::INVALID_CONFIG),
        (assigned(&[(0, &[1]), (0, &[1])]), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
        (assigned(&[(1, &[1])]), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
        (assigned(&[(0, &[])]), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
        (assigned(&[(0, &[7])]), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
        (CreatableTopic { num_partitions: 1, ..assigned(&[(0, &[1])]) }, ErrorCode::INVALID_REQUEST),
    ];
    for (topic, code) in cases {
        let title = format!("{topic:?}");
        let answer = create(&mut client, topic).await;
        assert_eq!(answer.error_code, code, "{title}");
        assert!(answer.error_message.is_some_and(|message| !message.is_empty()), "{title}");
    }
    let twice =
        CreateTopicsRequest { topics: vec![topic("new"), topic("new")], ..CreateTopicsRequest::default() };
    let answer = client.call(&twice, 7).await;
    let codes: Vec<_> = answer.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [ErrorCode::INVALID_REQUEST], "answered once");
    assert_eq!(broker.topics(), ["wal"]);

    assert_eq!(create(&mut client, assigned(&[(1, &[1]), (0, &[1])])).await.error_code, ErrorCode::NONE);
    let defaults = CreatableTopic { num_partitions: -1, replication_factor: -1, ..topic("a.b") };
    assert_eq!(create(&mut client, defaults).await.num_partitions, 1);
    let answer = create(&mut client, topic("a_b")).await;
    assert_eq!(answer.error_code, ErrorCode::INVALID_TOPIC_EXCEPTION, "collides with a.b");
}

#[tokio::test]
async fn producer_ids_at_every_version() {
    for broker in both().await {
        let mut client = Client::connect(&broker).await;
        let mut last = 0;
        for version in versions(ApiKey::INIT_PRODUCER_ID) {
            let mut request =
                InitProducerIdRequest { transactional_id: None, ..InitProducerIdRequest::default() };
            let answer = client.call(&request, version).await;
            assert_eq!((answer.error_code, answer.producer_epoch), (ErrorCode::NONE, 0));
            assert!(answer.producer_id > last, "always another");
            last = answer.producer_id;
            if version >= 3 {
                (request.producer_id, request.producer_epoch) = (last, 0);
                let answer = client.call(&request, version).await;
                assert_eq!((answer.producer_id, answer.producer_epoch), (last + 1, 0), "not the same raised");
                last = answer.producer_id;
                request.producer_epoch = -1;
                assert_eq!(client.call(&request, version).await.error_code, ErrorCode::INVALID_REQUEST);
            }
        }
        assert_eq!(broker.coordinator("name"), Some(1));
        for (name, code) in
            [("", ErrorCode::INVALID_REQUEST), ("name", ErrorCode::INVALID_TRANSACTION_TIMEOUT)]
        {
            let transactional_id = Some(name.to_owned());
            let request = InitProducerIdRequest { transactional_id, ..InitProducerIdRequest::default() };
            let answer = client.call(&request, 5).await;
            assert_eq!((answer.error_code, answer.producer_id, answer.producer_epoch), (code, -1, -1));
        }
    }
}

/// Timestamp, offset and leader epoch, or the error.
async fn look_up(
    client: &mut Client,
    partition: ListOffsetsPartition,
    version: i16,
) -> Result<(i64, i64, i32), ErrorCode> {
    let topic = ListOffsetsTopic { name: "wal".to_owned(), partitions: vec![partition] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
    let answer = client.call(&request, version).await;
    let ListOffsetsPartitionResponse { error_code, timestamp, offset, leader_epoch, .. } =
        answer.topics[0].partitions[0];
    error_code.ok().map(|()| (timestamp, offset, leader_epoch))
}

fn at(timestamp: i64) -> ListOffsetsPartition {
    ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() }
}

#[tokio::test]
async fn offsets_at_every_version() {
    for broker in both().await {
        let mut client = Client::connect(&broker).await;
        let place = Place::of(&broker, "wal", 0);
        assert_eq!(look_up(&mut client, at(-1), 11).await, Ok((-1, 0, 0)), "an empty log");
        assert_eq!(look_up(&mut client, at(-2), 11).await, Ok((-1, 0, 0)), "an empty log");
        assert_eq!(look_up(&mut client, at(-3), 11).await, Ok((-1, -1, -1)), "an empty log");
        client.produce(&place, batch(&["a", "b", "c"]).to_bytes()).await;
        client.produce(&place, compressed(CODEC, &["d", "e", "f", "g"]).to_bytes()).await;
        for version in versions(ApiKey::LIST_OFFSETS) {
            let epoch = if version >= 4 { 0 } else { -1 };
            let since = |newest_version: i16, found| match version >= newest_version {
                true => Ok(found),
                false => Err(ErrorCode::UNSUPPORTED_VERSION),
            };
            for (timestamp, expected) in [
                (-1, Ok((-1, 7, epoch))),
                (-2, Ok((-1, 0, epoch))),
                (-3, since(7, (STARTED_AT + 3, 6, epoch))),
                (-4, since(8, (-1, 0, epoch))),
                (-5, since(9, (-1, -1, -1))),
                (-6, since(11, (-1, -1, -1))),
                (-7, Err(ErrorCode::UNSUPPORTED_VERSION)),
                (0, Ok((STARTED_AT, 0, epoch))),
                (STARTED_AT + 1, Ok((STARTED_AT + 1, 1, epoch))),
                (STARTED_AT + 3, Ok((STARTED_AT + 3, 6, epoch))),
                (STARTED_AT + 4, Ok((-1, -1, -1))),
            ] {
                let found = look_up(&mut client, at(timestamp), version).await;
                assert_eq!(found, expected, "{timestamp} at version {version}");
            }
        }
    }
}

#[tokio::test]
async fn offsets_of_missing_partitions() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    let elsewhere = ListOffsetsPartition { partition_index: 2, ..at(-1) };
    let unknown = Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(look_up(&mut client, elsewhere, 11).await, unknown);
    let newer = ListOffsetsPartition { current_leader_epoch: 1, ..at(-1) };
    assert_eq!(look_up(&mut client, newer, 11).await, Err(ErrorCode::UNKNOWN_LEADER_EPOCH));
    let current = ListOffsetsPartition { current_leader_epoch: 0, ..at(-1) };
    assert_eq!(look_up(&mut client, current, 11).await, Ok((-1, 0, 0)));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_ids() {
    let ids = |seed| {
        let broker = EmbeddedCluster::builder().seed(seed).start_in_memory().unwrap();
        [broker.create_topic("a", 1).unwrap(), broker.create_topic("b", 1).unwrap()]
    };
    assert_eq!(ids(1), ids(1));
    assert_ne!(ids(1), ids(2));
    assert_ne!(ids(1)[0], ids(1)[1]);
}
