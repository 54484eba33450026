//! What each caller of a failed batch learns: about its own records, and not about those of others.

use std::time::Duration;

use kwal_batching::producer::{Ack, BatchProducer};
use kwal_client::{
    PartitionClient, Resolution,
    error::{ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::api::ApiKey;
use kwal_testkit::{EmbeddedCluster, Fault};

use crate::support::{broker, builder, open_warm, record, values};

/// Hands records over while another batch is in flight, so that they share the next one. The faults are for
/// that one.
async fn share(
    broker: &EmbeddedCluster,
    partition: &PartitionClient,
    records: impl IntoIterator<Item = Record>,
    faults: impl FnOnce(),
) -> Vec<Ack> {
    let producer = BatchProducer::new(partition.clone());
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(1)));
    let first = producer.reserve().await.unwrap().send(Record::new("first", "first"));
    let mut acks = Vec::new();
    for record in records {
        acks.push(producer.reserve().await.unwrap().send(record));
    }
    assert_eq!(producer.stats().gathering, acks.len() as u64);
    faults();
    first.await.unwrap();
    acks
}

#[tokio::test(start_paused = true)]
async fn resolving_a_batch_in_doubt_returns_the_offsets_of_the_own_records() {
    for is_appended in [true, false] {
        let broker = broker();
        let (_wire, _client, partition) = open_warm(&broker).await;
        let acks = share(&broker, &partition, ["a", "b", "c"].map(record), || {
            if is_appended {
                broker.on(ApiKey::PRODUCE, Fault::LoseReply);
            }
            broker.on_all(ApiKey::PRODUCE, Fault::Drop);
        })
        .await;
        let mut handles = Vec::new();
        for (index, ack) in acks.into_iter().enumerate() {
            let error = ack.await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
            let in_doubt = error.in_doubt().unwrap().clone();
            assert_eq!((in_doubt.record_count, in_doubt.part.clone()), (3, Some(index..index + 1)));
            handles.push(in_doubt);
        }
        broker.clear_faults();
        for (offset, in_doubt) in (2..).zip(&handles) {
            let expected = match is_appended {
                true => Resolution::Appended(offset..offset + 1),
                false => Resolution::NotApplied,
            };
            assert_eq!(partition.resolve(in_doubt, record("fence")).await.unwrap(), expected);
        }
        let mut in_doubt = handles.remove(0);
        in_doubt.part = Some(2..4);
        let error = partition.resolve(&in_doubt, record("fence")).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
        let log = values(&broker);
        assert_eq!(log[2..].contains(&"b".to_owned()), is_appended, "{log:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_caller_learns_whether_its_own_record_is_to_blame() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let controller = client.controller_client().await.unwrap();
    controller.alter_topic_configs("wal").set("cleanup.policy", "compact").await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let keyed = |value: &'static str| Record::new("key", value);
    // Compacted topics take no records without a key.
    let records = [keyed("a"), record("b"), keyed("c"), record("d")];
    let acks = share(&broker, &partition, records, || {}).await;
    for (index, ack) in acks.into_iter().enumerate() {
        let error = ack.await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
        let rejected: Vec<_> = error.record_errors().iter().map(|rejected| rejected.index).collect();
        assert_eq!(rejected, if index % 2 == 1 { vec![0] } else { vec![] }, "{index}");
    }
}
