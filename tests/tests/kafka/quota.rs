//! Appends under a quota, verified by the checker of kwal-testkit.

use std::time::Duration;

use kwal_client::ClientBuilder;
use kwal_client::record::Record;
use kwal_testkit::check::{Expect, Log, Recorder, Rule, Ticket, Verdict, WriterId};
use kwal_tests::kafka::{Kafka, Version};
use kwal_tests::message::pseudo_random;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rskafka::chrono::{TimeZone, Utc};
use rskafka::client::partition::{Compression, UnknownTopicHandling};

kwal_tests::suite! {
    older: [throttled_appends_are_not_repeated],
}

/// A throttled append succeeds like any other (KIP-219). rskafka 0.6 treats it as a failure and appends
/// again.
async fn throttled_appends_are_not_repeated(version: Version) {
    let kafka = Kafka::shared(version);
    let (kwal, librdkafka, rskafka) =
        tokio::join!(check(kafka, by_kwal), check(kafka, by_librdkafka), check(kafka, by_rskafka));
    kwal.assert();
    librdkafka.assert();
    for tally in [kwal.tally(), librdkafka.tally(), rskafka.tally()] {
        assert_eq!((tally.appends, tally.acked), (BATCHES as usize, BATCHES as usize), "{tally}");
    }
    kwal_tests::report(format_args!("Kafka {version}, rskafka: {}", rskafka.tally()));
    assert!(rskafka.broken().eq([Rule::Once]), "{rskafka}");
}

/// 2 MB. The quota has a burst of ten seconds.
const BATCHES: u64 = 40;
const BYTES_PER_SECOND: u64 = 100_000;

/// Lets a client append to its own topic under its own quota, and checks the log.
async fn check(kafka: &'static Kafka, append: impl AsyncFnOnce(&Kafka, Workload)) -> Verdict {
    let topic = kafka.topic("quota", 1, &[]).await;
    kafka.java().producer_quota(&topic, Some(BYTES_PER_SECOND)).await;
    let recorder = Recorder::new();
    let writer = recorder.now().writer((&*topic, 0));
    append(kafka, Workload { recorder: recorder.clone(), writer, topic: topic.clone() }).await;
    kafka.java().producer_quota(&topic, None).await;
    let records = kafka.java().consume(&topic, 0, 0, None).await;
    let end = kafka.end_offsets(&topic).await[0];
    let records = records.into_iter().map(|record| (record.offset, record.value.unwrap()));
    recorder.now().log(Log::new((&*topic, 0), 0..end, records));
    recorder.now().check(&Expect::default())
}

/// What a client appends, and where it records the results.
struct Workload {
    recorder: Recorder,
    writer: WriterId,
    /// Also the client id of the quota.
    topic: String,
}

impl Workload {
    /// Returns batches of one record, recorded as submitted when they are taken.
    fn batches(&self) -> impl Iterator<Item = (Ticket, Vec<u8>)> + '_ {
        (0..BATCHES).map(|batch| {
            let value = pseudo_random(50_000, batch);
            (self.recorder.submit(self.writer, [&value]), value)
        })
    }
}

async fn by_kwal(kafka: &Kafka, workload: Workload) {
    let client = ClientBuilder::new(kafka.bootstrap()).client_id(&workload.topic).build().await.unwrap();
    let partition = client.partition_client(&workload.topic, 0).await.unwrap();
    for (ticket, value) in workload.batches() {
        let produced = partition.produce(vec![Record::new(None::<&str>, value)]).await.unwrap();
        ticket.acked(produced.base_offset.unwrap());
    }
}

async fn by_rskafka(kafka: &Kafka, workload: Workload) {
    let client = rskafka::client::ClientBuilder::new(kafka.bootstrap()).client_id(&*workload.topic);
    let client = client.build().await.unwrap();
    let partition = client.partition_client(&workload.topic, 0, UnknownTopicHandling::Retry).await.unwrap();
    for (ticket, value) in workload.batches() {
        let record = rskafka::record::Record {
            key: None,
            value: Some(value),
            headers: Default::default(),
            timestamp: Utc.timestamp_millis_opt(1_750_000_000_000).unwrap(),
        };
        let offsets = partition.produce(vec![record], Compression::NoCompression).await.unwrap();
        ticket.acked(offsets[0]);
    }
}

/// Idempotent, with up to five requests in flight.
async fn by_librdkafka(kafka: &Kafka, workload: Workload) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka.bootstrap().join(","))
        .set("client.id", &workload.topic)
        .set("enable.idempotence", "true")
        .set("batch.num.messages", "1");
    let append = move || {
        let producer: BaseProducer<Tickets> = config.create_with_context(Tickets).unwrap();
        for (ticket, value) in workload.batches() {
            let record: BaseRecord<'_, (), _, _> =
                BaseRecord::with_opaque_to(&workload.topic, Box::new(ticket)).partition(0).payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(120)).unwrap();
    };
    tokio::task::spawn_blocking(append).await.unwrap();
}

struct Tickets;

impl ClientContext for Tickets {}

impl ProducerContext for Tickets {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        match result {
            Ok(message) => ticket.acked(message.offset()),
            Err(_) => ticket.unknown(),
        }
    }
}
