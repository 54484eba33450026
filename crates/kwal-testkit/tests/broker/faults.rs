//! Each fault, and how brokers stop.

use std::time::Duration;

use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{
        AlterConfigsResource, ApiVersionsRequest, CreatableTopic, CreatePartitionsRequest,
        CreatePartitionsTopic, CreateTopicsRequest, DeleteRecordsPartition, DeleteRecordsRequest,
        DeleteRecordsTopic, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
        DescribeConfigsResource, DescribeProducersRequest, DescribeProducersTopic, FindCoordinatorRequest,
        IncrementalAlterConfigsRequest, InitProducerIdRequest, ListOffsetsPartition, ListOffsetsRequest,
        ListOffsetsTopic, MetadataRequest, OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
        OffsetForLeaderTopic, ProduceRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
    },
};
use kwal_testkit::{Dialect, EmbeddedCluster, Fault};
use kwal_transport::{HostPort, memory::MemoryNetwork};
use tokio::time::{Instant, timeout};

use crate::client::{Client, Place, batch, both, fetch, in_memory, outcome, produce, values};

#[tokio::test]
async fn an_error_on_each_api() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    let code = ErrorCode::KAFKA_STORAGE_ERROR;
    for api in Dialect::default().apis() {
        broker.on(api, Fault::Error(code));
    }
    assert_eq!(outcome(&client.produce(&place, batch(&["a"]).to_bytes()).await), Err(code));
    assert_eq!(client.fetch(&place, 0).await.error_code, code);
    let partitions = vec![ListOffsetsPartition { timestamp: -1, ..Default::default() }];
    let topics = vec![ListOffsetsTopic { name: "wal".to_owned(), partitions }];
    let offsets = client.call(&ListOffsetsRequest { topics, ..Default::default() }, 11).await;
    assert_eq!(offsets.topics[0].partitions[0].error_code, code);
    let metadata = client.call(&MetadataRequest { topics: None, ..Default::default() }, 13).await;
    assert_eq!((metadata.error_code, metadata.topics[0].error_code), (code, code));
    assert_eq!(client.call(&ApiVersionsRequest::default(), 0).await.error_code, code);
    let topics = vec![CreatableTopic { name: "new".to_owned(), ..Default::default() }];
    let created = client.call(&CreateTopicsRequest { topics, ..Default::default() }, 7).await;
    assert_eq!(created.topics[0].error_code, code);
    let gone = DeleteTopicsRequest { topic_names: vec!["wal".to_owned()], ..Default::default() };
    assert_eq!(client.call(&gone, 5).await.responses[0].error_code, code);
    let id = client.call(&InitProducerIdRequest { transactional_id: None, ..Default::default() }, 5).await;
    assert_eq!((id.error_code, id.producer_id), (code, -1));
    refused_administration(&mut client, code).await;

    assert_eq!(client.call(&SaslHandshakeRequest::default(), 1).await.error_code, code);
    assert_eq!(client.call(&SaslAuthenticateRequest::default(), 2).await.error_code, code);

    assert_eq!(broker.faults_left(), 0);
    assert_eq!((broker.topics(), broker.end_offset("wal", 0).unwrap()), (vec!["wal".to_owned()], 0));
    assert_eq!(outcome(&client.produce(&place, batch(&["a"]).to_bytes()).await), Ok(0), "only once");
    assert!(Dialect::default().apis().all(|api| broker.requests(api) >= 1));
}

async fn refused_administration(client: &mut Client, code: ErrorCode) {
    let name = "wal".to_owned();
    let partitions = vec![DeleteRecordsPartition::default()];
    let topics = vec![DeleteRecordsTopic { name: name.clone(), partitions }];
    let deleted = client.call(&DeleteRecordsRequest { topics, ..Default::default() }, 2).await;
    assert_eq!(deleted.topics[0].partitions[0].error_code, code);
    let partitions = vec![OffsetForLeaderPartition::default()];
    let topics = vec![OffsetForLeaderTopic { topic: name.clone(), partitions }];
    let epochs = client.call(&OffsetForLeaderEpochRequest { topics, ..Default::default() }, 4).await;
    assert_eq!(epochs.topics[0].partitions[0].error_code, code);
    let topics = vec![CreatePartitionsTopic { name: name.clone(), count: 3, assignments: None }];
    let created = client.call(&CreatePartitionsRequest { topics, ..Default::default() }, 3).await;
    assert_eq!(created.results[0].error_code, code);
    let resources = vec![DescribeConfigsResource {
        resource_type: 2,
        resource_name: name.clone(),
        configuration_keys: None,
    }];
    let described = client.call(&DescribeConfigsRequest { resources, ..Default::default() }, 4).await;
    assert_eq!(described.results[0].error_code, code);
    let resources =
        vec![AlterConfigsResource { resource_type: 2, resource_name: name, ..Default::default() }];
    let altered = client.call(&IncrementalAlterConfigsRequest { resources, ..Default::default() }, 1).await;
    assert_eq!(altered.responses[0].error_code, code);
    assert_eq!(client.call(&DescribeClusterRequest::default(), 1).await.error_code, code);
    let request = FindCoordinatorRequest { coordinator_keys: vec!["name".to_owned()], ..Default::default() };
    assert_eq!(client.call(&request, 6).await.coordinators[0].error_code, code);
    let topics = vec![DescribeProducersTopic { name: "wal".to_owned(), partition_indexes: vec![0] }];
    let producers = client.call(&DescribeProducersRequest { topics }, 0).await;
    assert_eq!(producers.topics[0].partitions[0].error_code, code);
}

#[tokio::test]
async fn an_error_after_the_append() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    broker.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT));
    let sent = batch(&["a"]).stamp(1, 0, 0).to_bytes();
    let answer = client.produce(&place, sent.clone()).await;
    assert_eq!(outcome(&answer), Err(ErrorCode::REQUEST_TIMED_OUT));
    assert_eq!(values(&broker, &place), ["a"]);
    assert_eq!(outcome(&client.produce(&place, sent).await), Ok(0));
    assert_eq!(values(&broker, &place), ["a"], "not twice");
}

#[tokio::test]
async fn connections_that_end_before_or_after_the_append() {
    for broker in both().await {
        let place = Place::of(&broker, "wal", 0);
        for (fault, appended) in [(Fault::Drop, 0), (Fault::LoseReply, 1)] {
            let mut client = Client::connect(&broker).await;
            broker.on_times(ApiKey::PRODUCE, 2, Fault::Pass);
            broker.on(ApiKey::PRODUCE, fault);
            let end = broker.end_offset("wal", 0).unwrap();
            for _ in 0..2 {
                client.produce(&place, batch(&["a"]).to_bytes()).await;
            }
            client.send(&produce(&place, batch(&["a"]).to_bytes()), 13).await;
            assert!(client.receive_frame().await.is_none(), "{fault:?}");
            assert_eq!(broker.end_offset("wal", 0).unwrap(), end + 2 + appended, "{fault:?}");
        }
        assert_eq!(broker.requests(ApiKey::PRODUCE), 6);
        assert_eq!(broker.connections().accepted, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn delays_before_and_after_the_append() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let pause = Duration::from_secs(20);
    for (fault, appended) in [(Fault::DelayRequest(pause), 0), (Fault::DelayReply(pause), 1)] {
        let mut client = Client::connect(&broker).await;
        broker.on(ApiKey::PRODUCE, fault);
        let end = broker.end_offset("wal", 0).unwrap();
        let begun = Instant::now();
        client.send(&produce(&place, batch(&["a"]).to_bytes()), 13).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(broker.end_offset("wal", 0).unwrap(), end + appended, "{fault:?}");
        let (_, answer) = client.receive::<ProduceRequest>(13).await.unwrap();
        assert_eq!(outcome(&answer.responses[0].partition_responses[0]), Ok(end));
        assert_eq!(begun.elapsed(), pause, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_beyond_the_clocks_range() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    broker.on(ApiKey::METADATA, Fault::DelayRequest(Duration::MAX));
    client.send(&MetadataRequest::default(), 12).await;
    assert!(timeout(Duration::from_secs(1 << 20), client.receive_frame()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_throttled_request_is_carried_out_and_the_next_one_waits() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    let pause = Duration::from_millis(7500);
    broker.on(ApiKey::PRODUCE, Fault::Throttle(pause));
    let begun = Instant::now();
    let answer = client.call(&produce(&place, batch(&["a"]).to_bytes()), 13).await;
    assert_eq!((answer.throttle_time_ms, begun.elapsed()), (7500, Duration::ZERO));
    assert_eq!(outcome(&answer.responses[0].partition_responses[0]), Ok(0));
    let answer = client.call(&fetch(&place, 0), 18).await;
    assert_eq!((answer.throttle_time_ms, begun.elapsed()), (0, pause));

    let mut other = Client::connect(&broker).await;
    broker.on_all(ApiKey::PRODUCE, Fault::Throttle(pause));
    let begun = Instant::now();
    let silent = ProduceRequest { acks: 0, ..produce(&place, batch(&["b"]).to_bytes()) };
    client.send(&silent, 13).await;
    other.call(&fetch(&place, 0), 18).await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "another connection is not held back");
    client.call(&fetch(&place, 0), 18).await;
    assert_eq!(begun.elapsed(), pause, "a request without an answer is throttled too");
    assert_eq!(broker.faults_left(), 1);
    broker.clear_faults();
    assert_eq!(broker.faults_left(), 0);
    assert_eq!(client.call(&produce(&place, batch(&["c"]).to_bytes()), 13).await.throttle_time_ms, 0);
    assert_eq!(values(&broker, &place), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_wrong_correlation_id() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    broker.on(ApiKey::METADATA, Fault::WrongCorrelationId);
    let id = client.send(&MetadataRequest::default(), 12).await;
    let (answered, _) = client.receive::<MetadataRequest>(12).await.unwrap();
    assert_ne!(answered, id);
}

#[tokio::test(start_paused = true)]
async fn a_black_hole() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    broker.on(ApiKey::FETCH, Fault::BlackHole);
    client.send(&fetch(&place, 0), 18).await;
    for _ in 0..100 {
        client.send(&produce(&place, batch(&[&"x".repeat(10_000)]).to_bytes()), 13).await;
    }
    assert!(timeout(Duration::from_secs(86_400), client.receive_frame()).await.is_err());
    assert_eq!(broker.end_offset("wal", 0).unwrap(), 0);
    assert_eq!((broker.connections().open, broker.requests(ApiKey::FETCH)), (1, 1));
    let mut other = Client::connect(&broker).await;
    assert_eq!(other.fetch(&place, 0).await.high_watermark, 0);
}

#[tokio::test]
async fn connections_end_with_the_broker_and_the_log_outlives_a_restart() {
    for broker in both().await {
        let place = Place::of(&broker, "wal", 0);
        let mut client = Client::connect(&broker).await;
        client.produce(&place, batch(&["a"]).stamp(1, 0, 0).to_bytes()).await;
        broker.disconnect_all();
        assert!(client.receive_frame().await.is_none());
        let mut client = Client::connect(&broker).await;
        client.produce(&place, batch(&["b"]).stamp(1, 0, 1).to_bytes()).await;

        broker.stop(1).unwrap();
        assert!(client.receive_frame().await.is_none());
        assert_eq!(broker.connections().open, 0);
        let refused = broker.connector().connect(&broker.address(1).unwrap()).await.unwrap_err();
        assert!(refused.is_refused(), "{refused:?}");
        broker.restart(1).unwrap();
        let mut client = Client::connect(&broker).await;
        let again = client.produce(&place, batch(&["b"]).stamp(1, 0, 1).to_bytes()).await;
        assert_eq!(outcome(&again), Ok(1), "the producer is still known");
        assert_eq!(values(&broker, &place), ["a", "b"]);

        let (connector, address) = (broker.connector(), broker.address(1).unwrap());
        drop(broker);
        assert!(client.receive_frame().await.is_none());
        assert!(connector.connect(&address).await.is_err());
    }
}

#[tokio::test]
async fn two_brokers_in_one_network() {
    let network = MemoryNetwork::default();
    let start = |host: &str| EmbeddedCluster::builder().start_in(&network, HostPort::new(host, 9092));
    let (one, two) = (start("one").unwrap(), start("two").unwrap());
    one.create_topic("a", 1).unwrap();
    for (broker, topics) in [(&one, 1), (&two, 0)] {
        let mut client = Client::connect(broker).await;
        let all = MetadataRequest { topics: None, ..MetadataRequest::default() };
        let answer = client.call(&all, 12).await;
        assert_eq!(
            (answer.topics.len(), &answer.brokers[0].host),
            (topics, &broker.address(1).unwrap().host)
        );
    }
    let taken = start("one").unwrap_err();
    assert_eq!(taken.to_string(), "cannot listen in memory");
}

#[tokio::test]
async fn an_advertised_address_is_in_metadata() {
    let broker =
        EmbeddedCluster::builder().advertised(1, HostPort::new("proxy", 1234)).start().await.unwrap();
    let mut client = Client::connect(&broker).await;
    let answer = client.call(&MetadataRequest::default(), 12).await;
    assert_eq!((answer.brokers[0].host.as_str(), answer.brokers[0].port), ("proxy", 1234));
}

#[tokio::test]
async fn topics_that_cannot_be_created_fail_the_start() {
    let error = EmbeddedCluster::builder().topic("a b", 1).start_in_memory().unwrap_err();
    let message = "topic \"a b\" cannot be created (INVALID_TOPIC_EXCEPTION): \
                \"a b\" is not a topic name: 1 to 249 letters, digits, '.', '_' and '-'";
    assert_eq!(error.to_string(), message);
}
