//! What a broker does with a request, odd ones included: the same questions to each real Kafka, and to the embedded
//! broker, which must give the same answers. kwal's client leans on them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    CreatableConfig, CreatableTopic, CreateTopicsRequest, FetchPartition, FetchPartitionResponse,
    FetchRequest, FetchTopic, InitProducerIdRequest, ListOffsetsPartition, ListOffsetsRequest,
    ListOffsetsTopic, MetadataRequest, MetadataTopic, ProducePartition, ProduceRequest, ProduceTopic,
};
use kwal_protocol::record::{BatchBuilder, BatchHeader, Batches, Compression, EncodedBatch};
use kwal_protocol::wire::Spliced;
use kwal_testkit::{Dialect, EmbeddedCluster};
use kwal_tests::kafka::Kafka;
use tokio::time::Instant;

use crate::raw::Broker;

macro_rules! facts {
    ($($fact:ident),* $(,)?) => {
        $(async fn $fact(kafka: &'static Kafka) {
            of::$fact(&kafka.bootstrap()[0]).await;
        })*

        kwal_tests::suite! { shared: [$($fact),*], own: [] }

        mod embedded {
            mod as_3_9 {
                $(#[tokio::test]
                async fn $fact() {
                    let broker = super::super::embedded_as(kwal_testkit::Dialect::kafka_3_9()).await;
                    super::super::of::$fact(&broker.bootstrap()).await;
                })*
            }

            mod as_4_3 {
                $(#[tokio::test]
                async fn $fact() {
                    let broker = super::super::embedded_as(kwal_testkit::Dialect::kafka_4_3()).await;
                    super::super::of::$fact(&broker.bootstrap()).await;
                })*
            }
        }
    };
}

facts![
    sequences_of_a_known_producer,
    a_duplicate_is_known_by_its_numbers,
    any_sequence_of_an_unknown_producer,
    epochs,
    batches_that_are_refused,
    acks,
    batches_without_a_producer,
    log_append_time,
    fetches,
    a_long_poll,
    offsets,
    topics,
    unknown_topics,
];

mod of {
    use super::*;

    pub(super) async fn sequences_of_a_known_producer(address: &str) {
        let mut log = Log::new(address, &[]).await;
        let id = log.producer_id().await;
        for sequence in 0..7 {
            let offset = i64::from(sequence);
            assert_eq!(log.append(batch(1).stamp(id, 0, sequence)).await, (ErrorCode::NONE, offset));
        }
        // The last five are remembered, with their offsets; what is older is taken for a hole, as is a gap.
        for sequence in 2..7 {
            let again = log.append(batch(1).stamp(id, 0, sequence)).await;
            assert_eq!(again, (ErrorCode::NONE, i64::from(sequence)), "{sequence} again");
        }
        for sequence in [0, 1, 8, 100] {
            let (code, _) = log.append(batch(1).stamp(id, 0, sequence)).await;
            assert_eq!(code, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, "{sequence}");
        }
        assert_eq!(log.append(batch(3).stamp(id, 0, 7)).await, (ErrorCode::NONE, 7));
        assert_eq!(log.append(batch(1).stamp(id, 0, 10)).await, (ErrorCode::NONE, 10));
        assert_eq!(log.end().await, 11);
    }

    pub(super) async fn a_duplicate_is_known_by_its_numbers(address: &str) {
        let mut log = Log::new(address, &[]).await;
        let id = log.producer_id().await;
        assert_eq!(log.append(batch(1).stamp(id, 0, 0)).await, (ErrorCode::NONE, 0));
        let mut other = BatchBuilder::new(Compression::Lz4);
        other.push(0, Some(b"quite"), Some(b"another"), [("a", "b")]);
        assert_eq!(log.append(other.finish().unwrap().stamp(id, 0, 0)).await, (ErrorCode::NONE, 0));
        // Of another length, its last number differs, and it is no duplicate.
        let (code, _) = log.append(batch(2).stamp(id, 0, 0)).await;
        assert_eq!(code, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(log.end().await, 1);
    }

    pub(super) async fn any_sequence_of_an_unknown_producer(address: &str) {
        let mut log = Log::new(address, &[]).await;
        let id = log.producer_id().await;
        assert_eq!(log.append(batch(1).stamp(id, 0, 41)).await, (ErrorCode::NONE, 0));
        assert_eq!(log.append(batch(1).stamp(id, 0, 42)).await, (ErrorCode::NONE, 1));
        let (code, _) = log.append(batch(1).stamp(id, 0, 0)).await;
        assert_eq!(code, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        // An id that no coordinator has given out is as good.
        assert_eq!(log.append(batch(1).stamp(1 << 40, 7, 3)).await, (ErrorCode::NONE, 2));
        // Numbers begin again at 0 after the last.
        let last = log.producer_id().await;
        assert_eq!(log.append(batch(2).stamp(last, 0, i32::MAX - 1)).await, (ErrorCode::NONE, 3));
        assert_eq!(log.append(batch(1).stamp(last, 0, 0)).await, (ErrorCode::NONE, 5));
        let across = log.producer_id().await;
        assert_eq!(log.append(batch(3).stamp(across, 0, i32::MAX)).await, (ErrorCode::NONE, 6));
        assert_eq!(log.append(batch(1).stamp(across, 0, 2)).await, (ErrorCode::NONE, 9));
    }

    pub(super) async fn epochs(address: &str) {
        let mut log = Log::new(address, &[]).await;
        let id = log.producer_id().await;
        assert_eq!(log.append(batch(1).stamp(id, 0, 0)).await, (ErrorCode::NONE, 0));
        let (code, _) = log.append(batch(1).stamp(id, 1, 1)).await;
        assert_eq!(code, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, "an epoch begins at 0");
        assert_eq!(log.append(batch(1).stamp(id, 1, 0)).await, (ErrorCode::NONE, 1));
        for sequence in [0, 1] {
            let (code, _) = log.append(batch(1).stamp(id, 0, sequence)).await;
            assert_eq!(code, ErrorCode::INVALID_PRODUCER_EPOCH, "{sequence} of the epoch before");
        }
        assert_eq!(log.append(batch(1).stamp(id, 1, 1)).await, (ErrorCode::NONE, 2));
    }

    pub(super) async fn batches_that_are_refused(address: &str) {
        let mut log = Log::new(address, &[("max.message.bytes", "1000")]).await;
        let good = batch(1).to_bytes();
        let mut changed = BytesMut::from(&good[..]);
        *changed.last_mut().unwrap() ^= 1;
        let mut control = *Batches::new(good.clone()).next().unwrap().unwrap().header();
        control.attributes |= BatchHeader::CONTROL;
        let control = kwal_protocol::record::RawBatch { header: control, ..Default::default() };
        let large = {
            let mut batch = BatchBuilder::new(Compression::None);
            batch.push(0, None, Some(&[0; 1_000]), NO_HEADERS);
            batch.finish().unwrap().to_bytes()
        };
        let cases = [
            ("damaged", changed.freeze(), ErrorCode::CORRUPT_MESSAGE),
            ("too large", large, ErrorCode::MESSAGE_TOO_LARGE),
            ("two at once", [&good[..], &good[..]].concat().into(), ErrorCode::INVALID_RECORD),
            ("none", Bytes::new(), ErrorCode::INVALID_RECORD),
            ("control", control.encode().unwrap(), ErrorCode::INVALID_RECORD),
        ];
        for (what, bytes, wanted) in cases {
            let (code, offset) = log.append_bytes(bytes, -1).await;
            assert_eq!((code, offset), (wanted, -1), "{what}");
        }
        assert_eq!(log.end().await, 0);
        assert_eq!(log.append_bytes(good, -1).await, (ErrorCode::NONE, 0));
    }

    pub(super) async fn acks(address: &str) {
        let mut log = Log::new(address, &[]).await;
        assert_eq!(log.append_bytes(batch(1).to_bytes(), 1).await, (ErrorCode::NONE, 0));
        let (code, _) = log.append_bytes(batch(1).to_bytes(), 2).await;
        assert_eq!(code, ErrorCode::INVALID_REQUIRED_ACKS);
        // No answer to this one: the next answer is that of the next request, and it has been appended by then.
        log.broker.send(&log.produce(batch(1).to_bytes(), 0), 9).await;
        assert_eq!(log.end().await, 2);
    }

    pub(super) async fn batches_without_a_producer(address: &str) {
        let mut log = Log::new(address, &[]).await;
        for offset in 0..3 {
            assert_eq!(log.append(batch(1)).await, (ErrorCode::NONE, offset), "the same three times");
        }
        // Offsets count from 0 in what a producer sends; the log puts in its own, and the leader's epoch.
        let (code, _) = log.append(batch(2).at(1_000, 77)).await;
        assert_eq!(code, ErrorCode::INVALID_RECORD);
        assert_eq!(log.append(batch(2).at(0, 77)).await, (ErrorCode::NONE, 3));
        let fetched = log.fetch(0, 1 << 20).await;
        let headers: Vec<BatchHeader> =
            Batches::new(fetched.records.unwrap()).map(|batch| *batch.unwrap().header()).collect();
        let bases: Vec<i64> = headers.iter().map(|header| header.base_offset).collect();
        assert_eq!(bases, [0, 1, 2, 3]);
        assert!(headers.iter().all(|header| header.partition_leader_epoch == 0), "{headers:?}");
    }

    pub(super) async fn log_append_time(address: &str) {
        let mut log = Log::new(address, &[("message.timestamp.type", "LogAppendTime")]).await;
        let request = log.produce(batch(2).to_bytes(), -1);
        let answer = log.broker.call(&request, 9).await;
        let stamped = answer.responses[0].partition_responses[0].log_append_time_ms;
        assert!(stamped > TIME, "{stamped}");
        let fetched = log.fetch(0, 1 << 20).await;
        let batch = Batches::new(fetched.records.unwrap()).next().unwrap().unwrap();
        assert_eq!((batch.header().max_timestamp, batch.header().base_timestamp), (stamped, TIME));
        let records = batch.records(1 << 20).unwrap();
        assert!(records.iter().all(|record| record.unwrap().timestamp_ms == stamped));
        // Of a topic with the producer's time there is none to tell.
        let mut plain = Log::new(address, &[]).await;
        let request = plain.produce(super::batch(1).to_bytes(), -1);
        let answer = plain.broker.call(&request, 9).await;
        assert_eq!(answer.responses[0].partition_responses[0].log_append_time_ms, -1);
    }

    pub(super) async fn fetches(address: &str) {
        let mut log = Log::new(address, &[]).await;
        for _ in 0..3 {
            log.append(batch(5)).await;
        }
        let size = i32::try_from(batch(5).size_in_bytes()).unwrap();
        let whole = log.fetch(0, 1 << 20).await;
        assert_eq!(
            (whole.error_code, whole.high_watermark, whole.log_start_offset),
            (ErrorCode::NONE, 15, 0)
        );
        assert_eq!(bases(&whole), [0, 5, 10]);
        // From the middle of a batch, the whole of it comes.
        assert_eq!(bases(&log.fetch(7, 1 << 20).await), [5, 10]);
        // The first batch comes however little was asked for; behind it is what fits, cut off or not.
        for limit in [0, 1, size] {
            let fetched = log.fetch(5, limit).await;
            assert_eq!(bases(&fetched), [5], "{limit}");
        }
        let cut = log.fetch(5, size + 10).await;
        assert_eq!(bases(&cut), [5]);
        // At the end there is nothing; beyond it, and before the beginning, an error.
        let end = log.fetch(15, 1 << 20).await;
        assert_eq!((end.error_code, end.high_watermark), (ErrorCode::NONE, 15));
        assert_eq!(end.records.unwrap_or_default().len(), 0);
        for outside in [16, 1_000, -1] {
            let fetched = log.fetch(outside, 1 << 20).await;
            assert_eq!(fetched.error_code, ErrorCode::OFFSET_OUT_OF_RANGE, "{outside}");
        }
    }

    pub(super) async fn a_long_poll(address: &str) {
        let mut log = Log::new(address, &[]).await;
        let request = log.fetch_request(0, 1 << 20, 500, 1);
        let started = Instant::now();
        log.broker.call(&request, 11).await;
        assert!(started.elapsed() >= Duration::from_millis(490), "{:?}", started.elapsed());

        // An append on another connection ends the wait, but not before there is enough.
        let mut writer = Broker::leading(address, &log.topic).await;
        let enough = i32::try_from(batch(1).size_in_bytes() * 2).unwrap();
        let waiting = log.fetch_request(0, 1 << 20, 30_000, enough);
        let append = log.produce(batch(1).to_bytes(), -1);
        let started = Instant::now();
        let (answer, ()) = tokio::join!(log.broker.call(&waiting, 11), async {
            writer.call(&append, 9).await;
            writer.call(&append, 9).await;
        });
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        assert_eq!(bases(&answer.responses[0].partitions[0]), [0, 1]);
    }

    pub(super) async fn offsets(address: &str) {
        const EARLIEST: i64 = -2;
        const LATEST: i64 = -1;
        const MAX_TIMESTAMP: i64 = -3;
        let mut log = Log::new(address, &[]).await;
        for at in [EARLIEST, LATEST] {
            assert_eq!(log.offset(at).await, (0, -1), "{at} of an empty log");
        }
        assert_eq!(log.offset(MAX_TIMESTAMP).await, (-1, -1));
        assert_eq!(log.offset(TIME).await, (-1, -1));

        let mut times = BatchBuilder::new(Compression::Lz4);
        for ms in [10, 30, 20] {
            times.push(TIME + ms, None, Some(b"v"), NO_HEADERS);
        }
        log.append(times.finish().unwrap()).await;
        log.append(batch(1)).await;
        assert_eq!(log.offset(EARLIEST).await, (0, -1));
        assert_eq!(log.offset(LATEST).await, (4, -1));
        assert_eq!(log.offset(MAX_TIMESTAMP).await, (1, TIME + 30));
        // The first record that is not older.
        for (ms, wanted) in [(0, (0, 10)), (10, (0, 10)), (11, (1, 30)), (20, (1, 30)), (30, (1, 30))] {
            assert_eq!(log.offset(TIME + ms).await, (wanted.0, TIME + wanted.1), "{ms} ms");
        }
        assert_eq!(log.offset(TIME + 31).await, (-1, -1));
    }

    pub(super) async fn topics(address: &str) {
        let mut broker = Broker::connect(address).await;
        let name = unique("topics");
        let good = CreatableTopic {
            name: name.clone(),
            num_partitions: 2,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let config =
            |key: &str, value: &str| CreatableConfig { name: key.to_owned(), value: Some(value.to_owned()) };
        let refused = [
            (
                "no name",
                CreatableTopic { name: String::new(), ..good.clone() },
                ErrorCode::INVALID_TOPIC_EXCEPTION,
            ),
            (
                "dots",
                CreatableTopic { name: "..".to_owned(), ..good.clone() },
                ErrorCode::INVALID_TOPIC_EXCEPTION,
            ),
            (
                "space",
                CreatableTopic { name: "a b".to_owned(), ..good.clone() },
                ErrorCode::INVALID_TOPIC_EXCEPTION,
            ),
            (
                "long",
                CreatableTopic { name: "x".repeat(250), ..good.clone() },
                ErrorCode::INVALID_TOPIC_EXCEPTION,
            ),
            (
                "0 partitions",
                CreatableTopic { num_partitions: 0, ..good.clone() },
                ErrorCode::INVALID_PARTITIONS,
            ),
            (
                "more replicas than brokers",
                CreatableTopic { replication_factor: 30, ..good.clone() },
                ErrorCode::INVALID_REPLICATION_FACTOR,
            ),
            (
                "unknown config",
                CreatableTopic { configs: vec![config("no.such", "1")], ..good.clone() },
                ErrorCode::INVALID_CONFIG,
            ),
            (
                "bad config",
                CreatableTopic { configs: vec![config("retention.ms", "soon")], ..good.clone() },
                ErrorCode::INVALID_CONFIG,
            ),
        ];
        for (what, topic, wanted) in refused {
            assert_eq!(create(&mut broker, topic, false).await, wanted, "{what}");
        }
        assert_eq!(create(&mut broker, good.clone(), true).await, ErrorCode::NONE);
        assert_eq!(partitions(&mut broker, &name).await, Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        assert_eq!(create(&mut broker, good.clone(), false).await, ErrorCode::NONE);
        for validate_only in [true, false] {
            let again = create(&mut broker, good.clone(), validate_only).await;
            assert_eq!(again, ErrorCode::TOPIC_ALREADY_EXISTS);
        }
        while partitions(&mut broker, &name).await != Ok(2) {
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn unknown_topics(address: &str) {
        let mut log = Log::new(address, &[]).await;
        assert_eq!(partitions(&mut log.broker, "a b").await, Err(ErrorCode::INVALID_TOPIC_EXCEPTION));
        let nobody = unique("nobody-made");
        for _ in 0..2 {
            let found = partitions(&mut log.broker, &nobody).await;
            assert_eq!(found, Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        }
        let mut log = Log { partition: 1, ..log };
        let (code, _) = log.append(batch(1)).await;
        assert_eq!(code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(log.fetch(0, 1 << 20).await.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let mut log = Log { topic: nobody, partition: 0, ..log };
        let (code, _) = log.append(batch(1)).await;
        assert_eq!(code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(log.fetch(0, 1 << 20).await.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
}

async fn embedded_as(dialect: Dialect) -> EmbeddedCluster {
    EmbeddedCluster::builder().dialect(dialect).start().await.unwrap()
}

const TIME: i64 = 1_750_000_000_000;
const NO_HEADERS: [(&str, &str); 0] = [];

/// `count` records of the same time.
fn batch(count: u8) -> EncodedBatch {
    let mut batch = BatchBuilder::new(Compression::None);
    for index in 0..count {
        batch.push(TIME, Some(&[index]), Some(b"value"), NO_HEADERS);
    }
    batch.finish().unwrap()
}

fn bases(fetched: &FetchPartitionResponse) -> Vec<i64> {
    let batches = Batches::new(fetched.records.clone().unwrap());
    batches.map(|batch| batch.unwrap().header().base_offset).collect()
}

fn unique(what: &str) -> String {
    format!("{what}-{:016x}", fastrand::u64(..))
}

async fn create(broker: &mut Broker, topic: CreatableTopic, validate_only: bool) -> ErrorCode {
    let request =
        CreateTopicsRequest { topics: vec![topic], validate_only, ..CreateTopicsRequest::default() };
    broker.call(&request, 5).await.topics[0].error_code
}

/// How many partitions Metadata tells, without making the topic.
async fn partitions(broker: &mut Broker, topic: &str) -> Result<usize, ErrorCode> {
    let wanted = MetadataTopic { name: Some(topic.to_owned()), ..MetadataTopic::default() };
    let request = MetadataRequest {
        topics: Some(vec![wanted]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let answer = broker.call(&request, 9).await;
    match answer.topics[0].error_code {
        ErrorCode::NONE => Ok(answer.topics[0].partitions.len()),
        code => Err(code),
    }
}

/// A new topic of one partition, which leads where it is asked.
struct Log {
    broker: Broker,
    topic: String,
    partition: i32,
}

impl Log {
    async fn new(address: &str, configs: &[(&str, &str)]) -> Self {
        let mut broker = Broker::connect(address).await;
        let topic = unique("facts");
        let config = |(name, value): &(&str, &str)| CreatableConfig {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
        };
        let creatable = CreatableTopic {
            name: topic.clone(),
            num_partitions: 1,
            replication_factor: 1,
            // The batches are older than what is kept by default.
            configs: configs.iter().chain(&[("retention.ms", "-1")]).map(config).collect(),
            ..CreatableTopic::default()
        };
        assert_eq!(create(&mut broker, creatable, false).await, ErrorCode::NONE);
        let broker = Broker::leading(address, &topic).await;
        let mut log = Self { broker, topic, partition: 0 };
        // Until the broker knows of the leadership that the controller gave it.
        while log.fetch(0, 1).await.error_code != ErrorCode::NONE {
            tokio::task::yield_now().await;
        }
        log
    }

    async fn producer_id(&mut self) -> i64 {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        loop {
            let answer = self.broker.call(&request, 4).await;
            match answer.error_code {
                ErrorCode::NONE => return answer.producer_id,
                code => assert_eq!(code, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
            }
        }
    }

    async fn append(&mut self, batch: EncodedBatch) -> (ErrorCode, i64) {
        self.append_bytes(batch.to_bytes(), -1).await
    }

    async fn append_bytes(&mut self, records: Bytes, acks: i16) -> (ErrorCode, i64) {
        let request = self.produce(records, acks);
        let answer = self.broker.call(&request, 9).await;
        let partition = &answer.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    fn produce(&self, records: Bytes, acks: i16) -> ProduceRequest {
        let partition = ProducePartition { index: self.partition, records: Some(Spliced::from(records)) };
        let topic = ProduceTopic {
            name: self.topic.clone(),
            partition_data: vec![partition],
            ..ProduceTopic::default()
        };
        ProduceRequest { acks, timeout_ms: 10_000, topic_data: vec![topic], ..ProduceRequest::default() }
    }

    async fn fetch(&mut self, offset: i64, max_bytes: i32) -> FetchPartitionResponse {
        let request = self.fetch_request(offset, max_bytes, 0, 0);
        self.broker.call(&request, 11).await.responses.remove(0).partitions.remove(0)
    }

    fn fetch_request(&self, offset: i64, max_bytes: i32, max_wait_ms: i32, min_bytes: i32) -> FetchRequest {
        let partition = FetchPartition {
            partition: self.partition,
            fetch_offset: offset,
            partition_max_bytes: max_bytes,
            ..FetchPartition::default()
        };
        let topic =
            FetchTopic { topic: self.topic.clone(), partitions: vec![partition], ..FetchTopic::default() };
        FetchRequest { max_wait_ms, min_bytes, topics: vec![topic], ..FetchRequest::default() }
    }

    async fn end(&mut self) -> i64 {
        self.offset(-1).await.0
    }

    /// Offset and timestamp of ListOffsets.
    async fn offset(&mut self, timestamp: i64) -> (i64, i64) {
        let partition = ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() };
        let topic = ListOffsetsTopic { name: self.topic.clone(), partitions: vec![partition] };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
        let answer = self.broker.call(&request, 7).await;
        let partition = &answer.topics[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::NONE);
        (partition.offset, partition.timestamp)
    }
}
