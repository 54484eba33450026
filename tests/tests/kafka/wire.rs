//! Every message of kwal-protocol to a broker and back, in every version that both support.
//!
//! The golden vectors show how Kafka's classes encode the messages; here a broker decodes them.

use bytes::Buf;
use kwal_protocol::api::{Body, decode_response_header, encode_request};
use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, CreatableConfig, CreatableTopic, CreateTopicsRequest,
    DeleteTopic, DeleteTopicsRequest, FetchPartition, FetchRequest, FetchTopic, InitProducerIdRequest,
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, MetadataRequest, MetadataTopic,
    ProducePartition, ProduceRequest, ProduceTopic,
};
use kwal_protocol::record::{BatchBuilder, Batches, Compression, NO_TIMESTAMP};
use kwal_protocol::wire::{Spliced, Uuid, Wire as _};
use kwal_tests::kafka::Kafka;

use crate::raw::Broker;

kwal_tests::suite! {
    shared: [
        api_versions,
        metadata,
        create_and_delete_topics,
        produce_and_fetch,
        producer_ids,
        unsupported_versions,
    ],
    own: [],
}

async fn api_versions(kafka: &'static Kafka) {
    let mut broker = Broker::connect(&kafka.bootstrap()[0]).await;
    let request = ApiVersionsRequest {
        client_software_name: "kwal".to_owned(),
        client_software_version: "0.1.0".to_owned(),
    };
    let versions = broker.common::<ApiVersionsRequest>();
    assert_eq!(versions.clone().last(), Some(4));
    for version in versions {
        let response = broker.call(&request, version).await;
        assert_eq!(response.error_code, ErrorCode::NONE, "version {version}");
        assert!(response.api_keys.len() > 30, "version {version}: {response:?}");
    }
    // A version that no broker has: error 35 and the supported range, encoded as version 0.
    let mut frame = encode_request(&ApiVersionsRequest::default(), 4, 5, Some("kwal")).unwrap();
    let mut bytes = frame.copy_to_bytes(frame.remaining()).to_vec();
    bytes[6..8].copy_from_slice(&99_i16.to_be_bytes());
    let response = broker.exchange(&bytes).await.unwrap();
    let version = ApiVersionsResponse::version(0).unwrap();
    let (_, mut body) = decode_response_header::<ApiVersionsResponse>(&response, version).unwrap();
    let response = ApiVersionsResponse::read(&mut body, version).unwrap();
    assert_eq!(response.error_code, ErrorCode::UNSUPPORTED_VERSION);
}

async fn metadata(kafka: &'static Kafka) {
    let topic = kafka.topic("metadata", 3, &[]).await;
    let mut broker = Broker::leading(&kafka.bootstrap()[0], &topic).await;
    for version in broker.common::<MetadataRequest>() {
        let wanted = MetadataTopic { name: Some(topic.clone()), ..MetadataTopic::default() };
        let request = MetadataRequest { topics: Some(vec![wanted]), ..MetadataRequest::default() };
        let response = broker.call(&request, version).await;
        assert!(!response.brokers.is_empty(), "version {version}");
        assert_eq!(response.topics.len(), 1, "version {version}");
        assert_eq!(response.topics[0].error_code, ErrorCode::NONE, "version {version}");
        assert_eq!(response.topics[0].partitions.len(), 3, "version {version}");
        assert_eq!(response.topics[0].topic_id.is_zero(), version < 10, "version {version}");
    }
}

async fn create_and_delete_topics(kafka: &'static Kafka) {
    let mut broker = Broker::connect(&kafka.bootstrap()[0]).await;
    let mut topics = Vec::new();
    for version in broker.common::<CreateTopicsRequest>() {
        let name = kafka.topic_name("created");
        let topic = CreatableTopic {
            name: name.clone(),
            num_partitions: 2,
            replication_factor: 1,
            configs: vec![CreatableConfig { name: "retention.ms".to_owned(), value: Some("-1".to_owned()) }],
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let response = broker.call(&request, version).await;
        assert_eq!(response.topics[0].error_code, ErrorCode::NONE, "version {version}: {response:?}");
        let again = broker.call(&request, version).await;
        assert_eq!(again.topics[0].error_code, ErrorCode::TOPIC_ALREADY_EXISTS, "version {version}");
        topics.push(name);
    }
    for version in broker.common::<DeleteTopicsRequest>() {
        let name = kafka.topic("deleted", 1, &[]).await;
        let mut request = DeleteTopicsRequest { timeout_ms: 10_000, ..DeleteTopicsRequest::default() };
        if version < 6 {
            request.topic_names.push(name.clone());
        } else {
            request.topics.push(DeleteTopic { name: Some(name.clone()), ..DeleteTopic::default() });
        }
        let response = broker.call(&request, version).await;
        assert_eq!(response.responses[0].error_code, ErrorCode::NONE, "version {version}: {response:?}");
        topics.push(name);
    }
    let last = topics.pop().unwrap();
    // The controller has deleted it; the broker learns of it a little later.
    while kafka.java().topics().await.contains(&last) {
        tokio::task::yield_now().await;
    }
}

async fn produce_and_fetch(kafka: &'static Kafka) {
    let topic = kafka.topic("records", 1, &[]).await;
    let mut broker = Broker::leading(&kafka.bootstrap()[0], &topic).await;
    let topic_id = broker.topic_id(&topic).await;

    let (mut end, mut values) = (0, Vec::new());
    for version in broker.common::<ProduceRequest>().filter(|version| *version >= 3) {
        let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4];
        let compression = codecs[version as usize % codecs.len()];
        let mut batch = BatchBuilder::new(compression);
        let value = version.to_string();
        for key in 0..3_u8 {
            batch.push(1_750_000_000_000, Some(&[key]), Some(value.as_bytes()), [("a", "b")]);
        }
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![ProduceTopic {
                name: if version < 13 { topic.clone() } else { String::new() },
                topic_id: if version < 13 { Uuid::ZERO } else { topic_id },
                partition_data: vec![ProducePartition {
                    index: 0,
                    records: Some(Spliced::from(batch.finish().unwrap().to_bytes())),
                }],
            }],
            ..ProduceRequest::default()
        };
        let response = broker.call(&request, version).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, ErrorCode::NONE, "version {version}: {response:?}");
        assert_eq!(partition.base_offset, end, "version {version}");
        end += 3;
        values.push(value);
    }
    assert!(end >= 24, "{end} records");

    for version in broker.common::<ListOffsetsRequest>() {
        let partition = ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic { name: topic.clone(), partitions: vec![partition] }],
            ..ListOffsetsRequest::default()
        };
        let response = broker.call(&request, version).await;
        let partition = &response.topics[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::NONE, "version {version}");
        let latest = if version == 0 { partition.old_style_offsets[0] } else { partition.offset };
        assert_eq!(latest, end, "version {version}");
    }

    for version in broker.common::<FetchRequest>() {
        // Before version 4 the broker converts batches to the old message formats. They have no headers, and
        // what then exceeds the size of the batch is cut off.
        let magic = match version {
            0 | 1 => 0,
            2 | 3 => 1,
            _ => 2,
        };
        let mut next = 0;
        while next < end {
            let request = FetchRequest {
                max_wait_ms: 1_000,
                min_bytes: 1,
                topics: vec![FetchTopic {
                    topic: if version < 13 { topic.clone() } else { String::new() },
                    topic_id: if version < 13 { Uuid::ZERO } else { topic_id },
                    partitions: vec![FetchPartition {
                        partition_max_bytes: 1 << 20,
                        fetch_offset: next,
                        ..FetchPartition::default()
                    }],
                }],
                ..FetchRequest::default()
            };
            let response = broker.call(&request, version).await;
            let partition = &response.responses[0].partitions[0];
            assert_eq!(partition.error_code, ErrorCode::NONE, "version {version}: {response:?}");
            assert_eq!(partition.high_watermark, end, "version {version}");
            let before = next;
            for batch in Batches::new(partition.records.clone().unwrap()) {
                let batch = batch.unwrap();
                assert_eq!(batch.magic(), magic, "version {version}");
                for record in &batch.records(1 << 20).unwrap() {
                    let record = record.unwrap();
                    assert_eq!(record.offset, next, "version {version}");
                    assert_eq!(record.key, Some(&[(next % 3) as u8][..]), "version {version}");
                    assert_eq!(record.value, Some(values[next as usize / 3].as_bytes()), "version {version}");
                    assert_eq!(record.headers().len(), usize::from(magic == 2), "version {version}");
                    let timestamp = if magic == 0 { NO_TIMESTAMP } else { 1_750_000_000_000 };
                    assert_eq!(record.timestamp_ms, timestamp, "version {version}");
                    next += 1;
                }
                assert_eq!(batch.next_offset(), next, "version {version}");
            }
            assert!(next > before && (magic < 2 || next == end), "version {version}");
        }
    }
}

async fn producer_ids(kafka: &'static Kafka) {
    let mut broker = Broker::connect(&kafka.bootstrap()[0]).await;
    let mut last = -1;
    for version in broker.common::<InitProducerIdRequest>() {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        let mut response = broker.call(&request, version).await;
        // A broker that has just started has no block of ids yet.
        while response.error_code == ErrorCode::COORDINATOR_LOAD_IN_PROGRESS {
            response = broker.call(&request, version).await;
        }
        assert_eq!(response.error_code, ErrorCode::NONE, "version {version}: {response:?}");
        assert!(response.producer_id > last, "version {version}: {} after {last}", response.producer_id);
        last = response.producer_id;
    }
}

/// The broker closes the connection without a response.
async fn unsupported_versions(kafka: &'static Kafka) {
    let mut broker = Broker::connect(&kafka.bootstrap()[0]).await;
    let beyond = broker.versions_of::<MetadataRequest>().newest + 1;
    let mut frame = encode_request(&MetadataRequest::default(), 12, 5, Some("kwal")).unwrap();
    let mut bytes = frame.copy_to_bytes(frame.remaining()).to_vec();
    bytes[6..8].copy_from_slice(&beyond.to_be_bytes());
    assert_eq!(broker.exchange(&bytes).await, None);
}
