//! Fetched batches: without aborted transactions, and forwarded to another topic.

use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    FetchPartition, FetchPartitionResponse, FetchRequest, FetchTopic, IsolationLevel, ProducePartition,
    ProduceRequest, ProduceTopic,
};
use kwal_protocol::record::{Batches, CommittedBatches, Compression, EncodedBatch, NotForwardable};
use kwal_protocol::wire::Spliced;
use kwal_tests::kafka::Kafka;
use kwal_tests::message::{Message, samples};
use time::OffsetDateTime;

use crate::raw::{Ability, Broker, lacks};

kwal_tests::suite! {
    shared: [aborted_transactions_are_skipped, fetched_batches_are_forwarded],
    own: [],
}

/// The last versions with topic names.
const FETCH: i16 = 12;
const PRODUCE: i16 = 9;

async fn fetch(broker: &mut Broker, topic: &str, from: i64) -> FetchPartitionResponse {
    let request = FetchRequest {
        max_wait_ms: 1_000,
        min_bytes: 1,
        isolation_level: IsolationLevel::READ_COMMITTED,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                fetch_offset: from,
                partition_max_bytes: 8 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let response = broker.call(&request, FETCH).await;
    let partition = response.responses[0].partitions[0].clone();
    assert_eq!(partition.error_code, ErrorCode::NONE, "{partition:?}");
    partition
}

/// Returns messages with current timestamps like those of markers: batches with distant timestamps would be
/// in different segments, and so in different fetches.
fn messages() -> Vec<Message> {
    let now = (OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as i64;
    (0..3).map(|i| Message::new(now + i, None, Some(b"value"))).collect()
}

async fn aborted_transactions_are_skipped(kafka: &'static Kafka) {
    let topic = kafka.topic("aborted", 1, &[]).await;
    let messages = messages();
    let (mut end, mut committed) = (0, Vec::new());
    let transactions: &[bool] = match lacks(kafka, Ability::Transactions).await {
        true => &[],
        false => &[false, true, false, false, true],
    };
    for commit in transactions.iter().copied() {
        kafka.java().produce_in_transaction(&topic, 0, &messages, commit).await;
        if commit {
            committed.extend(end..end + 3);
        }
        end += 4;
    }
    kafka.java().produce(&topic, 0, "none", &messages).await;
    committed.extend(end..end + 3);
    end += 3;

    let mut broker = Broker::leading(&kafka.bootstrap()[0], &topic).await;
    // From before, within and after each transaction.
    for from in 0..end {
        let (mut next, mut offsets) = (from, Vec::new());
        while next < end {
            let partition = fetch(&mut broker, &topic, next).await;
            let mut aborted = partition.aborted_transactions.unwrap();
            aborted.reverse();
            let mut batches = CommittedBatches::new(Batches::new(partition.records.unwrap()), &aborted);
            for batch in batches.by_ref() {
                let batch = batch.unwrap();
                if !batch.is_control() {
                    let records = batch.records(1 << 20).unwrap();
                    offsets
                        .extend(records.iter().map(|record| record.unwrap().offset).filter(|o| *o >= from));
                }
            }
            next = batches.next_offset().unwrap();
        }
        let expected: Vec<i64> = committed.iter().copied().filter(|offset| *offset >= from).collect();
        assert_eq!(offsets, expected, "from {from}");
    }
}

async fn fetched_batches_are_forwarded(kafka: &'static Kafka) {
    let source = kafka.topic("forward-from", 1, &[]).await;
    let target = kafka.topic("forward-to", 1, &[]).await;
    let java = kafka.java();
    for codec in Compression::ALL {
        java.produce(&source, 0, codec.name(), &samples()).await;
    }
    let transactions = !lacks(kafka, Ability::Transactions).await;
    if transactions {
        java.produce_in_transaction(&source, 0, &samples()[..1], true).await;
    }

    let mut from = Broker::leading(&kafka.bootstrap()[0], &source).await;
    let mut to = Broker::leading(&kafka.bootstrap()[0], &target).await;
    let end = java.offset(&source, 0, "latest").await;
    let (mut next, mut rejected) = (0, Vec::new());
    while next < end {
        let partition = fetch(&mut from, &source, next).await;
        for batch in Batches::new(partition.records.unwrap()) {
            let batch = batch.unwrap();
            next = batch.next_offset();
            let forwarded = match EncodedBatch::from_fetched(&batch) {
                Ok(forwarded) => forwarded,
                Err(error) => {
                    rejected.push(error);
                    continue;
                }
            };
            assert_eq!(forwarded.body(), batch.bytes()[61..]);
            let records = Some(Spliced::from(forwarded.to_bytes()));
            let request = ProduceRequest {
                acks: -1,
                timeout_ms: 10_000,
                topic_data: vec![ProduceTopic {
                    name: target.clone(),
                    partition_data: vec![ProducePartition { index: 0, records }],
                    ..ProduceTopic::default()
                }],
                ..ProduceRequest::default()
            };
            let response = to.call(&request, PRODUCE).await;
            let partition = &response.responses[0].partition_responses[0];
            assert_eq!(partition.error_code, ErrorCode::NONE, "{response:?}");
            assert_eq!(partition.base_offset, batch.base_offset());
        }
    }
    let mut forwarded_end = end;
    if transactions {
        let (base_offset, marker) = (end - 2, end - 1);
        let expected =
            [NotForwardable::Transactional { base_offset }, NotForwardable::Control { base_offset: marker }];
        assert_eq!(rejected, expected);
        forwarded_end = base_offset;
    }
    let sent = java.consume(&source, 0, 0, Some(forwarded_end)).await;
    assert_eq!(java.consume(&target, 0, 0, None).await, sent);
}
