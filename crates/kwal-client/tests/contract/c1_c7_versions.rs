//! C1 and C7 with every supported version of every API.

use kwal_client::{
    ConfigSource, OffsetAt, Resolution,
    error::{ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::api::{ApiKey, Versions};
use kwal_testkit::{Dialect, EmbeddedCluster};

use crate::support::{Wire, in_doubt, log, record};

/// The versions that the client supports.
pub(crate) const SUPPORTED: [(ApiKey, i16, i16); 13] = [
    (ApiKey::PRODUCE, 3, 13),
    (ApiKey::FETCH, 4, 17),
    (ApiKey::LIST_OFFSETS, 1, 10),
    (ApiKey::METADATA, 4, 13),
    (ApiKey::CREATE_TOPICS, 2, 7),
    (ApiKey::DELETE_TOPICS, 1, 6),
    (ApiKey::INIT_PRODUCER_ID, 0, 5),
    (ApiKey::DELETE_RECORDS, 0, 2),
    (ApiKey::OFFSET_FOR_LEADER_EPOCH, 2, 4),
    (ApiKey::DESCRIBE_CONFIGS, 1, 4),
    (ApiKey::CREATE_PARTITIONS, 0, 3),
    (ApiKey::INCREMENTAL_ALTER_CONFIGS, 0, 1),
    (ApiKey::DESCRIBE_CLUSTER, 0, 2),
];

/// Runs every operation on a broker of this dialect. Returns the newest version used of each API.
async fn run_every_operation(dialect: Dialect) -> Vec<(ApiKey, i16)> {
    let broker = EmbeddedCluster::builder().dialect(dialect).start_in_memory().unwrap();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let controller = client.controller_client().await.unwrap();
    let created = controller.create_topic("wal", 2, 1).config("retention.ms", "-1").await.unwrap();
    assert_eq!((created.name.as_str(), created.partitions, created.replication_factor), ("wal", 2, 1));
    let partition = client.partition_client("wal", 0).await.unwrap();
    broker.on(ApiKey::PRODUCE, kwal_testkit::Fault::LoseReply);
    let produced = partition.produce([record("a"), record("b")].concat()).await.unwrap();
    assert_eq!((produced.offsets(), produced.attempts), (Some(0..2), 2));
    partition.produce(record("c")).await.unwrap();
    let (records, high_watermark) = partition.fetch_records(1, 1..1_000_000, 100).await.unwrap();
    let values: Vec<_> = records.iter().map(|record| record.value.as_deref().unwrap()).collect();
    assert_eq!((values, high_watermark), (vec![&b"b"[..], b"c"], 3));
    assert_eq!(partition.get_offset(OffsetAt::Earliest).await.unwrap(), 0);
    assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), 3);
    let listed = client.list_topics().await.unwrap();
    assert_eq!((listed.len(), listed[0].partitions), (1, 2));
    assert_eq!(log(&broker), ["a", "b", "c"]);
    assert_eq!(partition.delete_records(1).await.unwrap(), 1);
    assert_eq!(partition.offset_for_leader_epoch(0).await.unwrap().unwrap().end_offset, 3);
    controller.create_partitions("wal", 3).await.unwrap();
    controller.alter_topic_configs("wal").set("retention.ms", "5").await.unwrap();
    let configs = controller.describe_topic_configs("wal").only(["retention.ms"]).await.unwrap();
    let retention = &configs["retention.ms"];
    assert_eq!((retention.value.as_deref(), retention.source), (Some("5"), ConfigSource::Topic));
    assert_eq!(controller.describe_cluster().await.unwrap().brokers.len(), 1);
    let fence = Record::new(None::<&str>, "fence");
    assert_eq!(partition.resolve(&in_doubt(), fence).await.unwrap(), Resolution::NotApplied);
    assert_eq!(log(&broker), ["b", "c", "fence"]);
    controller.delete_topic("wal").await.unwrap();
    assert_eq!(broker.topics(), [""; 0]);
    let newest = |api| wire.seen(api).iter().map(|seen| seen.version).max().unwrap();
    SUPPORTED.iter().map(|(api, ..)| (*api, newest(*api))).collect()
}

#[tokio::test(start_paused = true)]
async fn every_version_of_every_request_works() {
    for (api, oldest, newest) in SUPPORTED {
        for version in oldest..=newest {
            let used =
                run_every_operation(Dialect::kafka_4_3().cap(api, Versions::new(version, version))).await;
            assert!(used.contains(&(api, version)), "{api} {version}: {used:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_common_version_is_used() {
    let used = run_every_operation(Dialect::kafka_4_3()).await;
    assert_eq!(used, SUPPORTED.map(|(api, _, newest)| (api, newest)));
    let used = run_every_operation(Dialect::kafka_3_9()).await;
    assert!(used.contains(&(ApiKey::PRODUCE, 11)) && used.contains(&(ApiKey::FETCH, 17)), "{used:?}");
    let used = run_every_operation(Dialect::kafka_2_8()).await;
    assert!(used.contains(&(ApiKey::PRODUCE, 9)) && used.contains(&(ApiKey::FETCH, 12)), "{used:?}");
    let oldest = SUPPORTED.iter().fold(Dialect::kafka_2_8(), |dialect, (api, oldest, _)| {
        dialect.cap(*api, Versions::new(0, (*oldest).max(i16::from(*api == ApiKey::LIST_OFFSETS))))
    });
    let used = run_every_operation(oldest.cap(ApiKey::API_VERSIONS, Versions::new(0, 0))).await;
    assert_eq!(used, SUPPORTED.map(|(api, oldest, _)| (api, oldest)));
}

#[tokio::test(start_paused = true)]
async fn the_version_request_falls_back_for_old_brokers() {
    for newest in 0..=4 {
        let dialect = Dialect::kafka_4_3().cap(ApiKey::API_VERSIONS, Versions::new(0, newest));
        let broker = EmbeddedCluster::builder().dialect(dialect).topic("wal", 1).start_in_memory().unwrap();
        let wire = Wire::to(&broker);
        wire.client().await.partition_client("wal", 0).await.unwrap().produce(record("a")).await.unwrap();
        let requested: Vec<_> = wire.seen(ApiKey::API_VERSIONS).iter().map(|seen| seen.version).collect();
        let per_connection = match newest {
            4 => vec![4],
            newest => vec![4, newest],
        };
        assert_eq!(requested, per_connection.repeat(wire.connections()), "up to {newest}");
    }
}

#[tokio::test(start_paused = true)]
async fn topics_are_named_by_id_only_if_the_id_is_known() {
    for (newest, produce, fetch) in [(9, 12, 12), (10, 13, 17)] {
        let dialect = Dialect::kafka_4_3().cap(ApiKey::METADATA, Versions::new(0, newest));
        let used = run_every_operation(dialect).await;
        assert!(used.contains(&(ApiKey::PRODUCE, produce)), "{newest}: {used:?}");
        assert!(used.contains(&(ApiKey::FETCH, fetch)), "{newest}: {used:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_without_producer_ids_is_reported_with_the_setting_to_change() {
    let dialect = Dialect::kafka_2_8().without(ApiKey::INIT_PRODUCER_ID);
    let broker = EmbeddedCluster::builder().dialect(dialect).topic("wal", 1).start_in_memory().unwrap();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    assert_eq!(partition.fetch(0).await.unwrap().next_offset, 0);
    let error = partition.produce(record("a")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unsupported { theirs: None, .. }), "{error:?}");
    assert_eq!((error.outcome(), error.is_retriable()), (Outcome::NotApplied, false));
    assert!(error.to_string().contains("idempotent(false)"), "{error}");
    assert_eq!(wire.count(ApiKey::PRODUCE), 0);
    let partition = client.partition_client("wal", 0).idempotent(false).await.unwrap();
    partition.produce(record("b")).await.unwrap();
    assert_eq!(log(&broker), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_common_version_is_reported_and_not_sent() {
    for (api, oldest, newest) in
        [(ApiKey::FETCH, 18, 18), (ApiKey::LIST_OFFSETS, 11, 11), (ApiKey::METADATA, 0, 3)]
    {
        let dialect = Dialect::kafka_4_3().cap(api, Versions::new(oldest, newest));
        let broker = EmbeddedCluster::builder().dialect(dialect).topic("wal", 1).start_in_memory().unwrap();
        let wire = Wire::to(&broker);
        let error = match api {
            ApiKey::METADATA => wire.builder().build().await.unwrap_err(),
            _ => {
                let partition = wire.client().await.partition_client("wal", 0).await.unwrap();
                match api {
                    ApiKey::FETCH => partition.fetch(0).await.unwrap_err(),
                    _ => partition.get_offset(OffsetAt::Latest).await.unwrap_err(),
                }
            }
        };
        let ErrorKind::Unsupported { theirs: Some(theirs), ours, .. } = error.kind() else {
            panic!("{error:?}")
        };
        assert_eq!(*theirs, Versions::new(oldest, newest));
        assert!(
            error.to_string().contains(&format!("the broker supports versions {theirs}, this client {ours}")),
            "{error}"
        );
        assert_eq!(wire.count(api), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_timestamp_requires_a_broker_that_supports_it() {
    for (newest, known) in [(6, false), (7, true)] {
        let dialect = Dialect::kafka_4_3().cap(ApiKey::LIST_OFFSETS, Versions::new(1, newest));
        let broker = EmbeddedCluster::builder().dialect(dialect).topic("wal", 1).start_in_memory().unwrap();
        let wire = Wire::to(&broker);
        let partition = wire.client().await.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        match partition.get_offset(OffsetAt::MaxTimestamp).await {
            Ok(offset) => assert_eq!((offset, known), (0, true)),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }), "{error:?}");
                assert!(!known);
            }
        }
        assert_eq!(wire.count(ApiKey::LIST_OFFSETS), usize::from(known));
    }
}
