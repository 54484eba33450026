//! Batches in doubt whose writer is cut off: another process resolves them.

use std::time::Duration;

use futures::future::join_all;
use kwal_client::error::{ErrorKind, InDoubt, Outcome};
use kwal_client::record::Record;
use kwal_client::{ClientBuilder, Deadlines, PartitionClient, Resolution};
use kwal_testkit::check::{Expect, Log, Recorder, WriterId};
use kwal_tests::kafka::Kafka;

use super::network::{Network, Route};

kwal_tests::suite! {
    shared: [another_client_resolves],
    own: [],
}

/// How many batches are appended before, and how many are in doubt.
const BEFORE: i64 = 10;
const IN_DOUBT: i64 = 5;

async fn another_client_resolves(kafka: &'static Kafka) {
    tokio::join!(resolve(kafka, Route::BlackHole, false), resolve(kafka, Route::LostResponses, true));
}

/// Appends, and then appends over a route where something gets lost.
async fn resolve(kafka: &Kafka, lost: Route, appended: bool) {
    let topic = kafka.topic("in-doubt", 1, &[]).await;
    let network = Network::new();
    let deadlines = Deadlines::default().operation(Duration::from_secs(3)).request(Duration::from_secs(2));
    let client = ClientBuilder::new(kafka.bootstrap()).connector(network.clone()).deadlines(deadlines);
    let client = client.build().await.unwrap();
    let partition = client.partition_client(&topic, 0).await.unwrap();
    let recorder = Recorder::new();
    let writer = recorder.now().writer((&*topic, 0));
    for number in 0..BEFORE {
        let ticket = recorder.submit(writer, [&*number.to_string()]);
        let produced = partition.produce([record(&number.to_string())]).await.unwrap();
        ticket.acked(produced.base_offset.unwrap());
    }
    for address in kafka.bootstrap() {
        network.route(port(&address), Some(lost));
    }
    let handles = append(&partition, &recorder, writer).await;

    // The handles are plain data.
    let handles = serde_json::to_string(&handles).unwrap();
    let handles: Vec<InDoubt> = serde_json::from_str(&handles).unwrap();
    let other = ClientBuilder::new(kafka.bootstrap()).build().await.unwrap();
    let other = other.partition_client(&topic, 0).await.unwrap();
    let fences = recorder.now().writer((&*topic, 0));
    for (offset, in_doubt) in (BEFORE..).zip(&handles) {
        let fence = format!("fence-{offset}");
        let ticket = recorder.start(fences, [&*fence]);
        let resolution = other.resolve(in_doubt, record(&fence)).await.unwrap();
        ticket.unknown();
        let expected =
            if appended { Resolution::Appended(offset..offset + 1) } else { Resolution::NotApplied };
        assert_eq!(resolution, expected, "{lost:?}: {in_doubt:?}");
        // Another time, it is the same.
        let ticket = recorder.start(fences, [&*format!("again-{offset}")]);
        let again = other.resolve(in_doubt, record(&format!("again-{offset}"))).await.unwrap();
        ticket.unknown();
        assert_eq!(again, resolution, "{lost:?}: {in_doubt:?}");
    }

    // What the first client appends would follow the fence.
    for address in kafka.bootstrap() {
        network.route(port(&address), None);
    }
    let ticket = recorder.submit(writer, ["after"]);
    // It has to notice first that its connections are dead.
    let error = partition.produce([record("after")]).deadline(Duration::from_secs(60)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Fenced), "{lost:?}: {error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied, "{lost:?}: {error:?}");
    ticket.not_appended();
    recorder.now().fenced(writer);
    let next = recorder.now().writer((&*topic, 0));
    let ticket = recorder.submit(next, ["next"]);
    let produced = other.produce([record("next")]).await.unwrap();
    ticket.acked(produced.base_offset.unwrap());

    let end = kafka.java().offset(&topic, 0, "latest").await;
    let records = kafka.java().consume(&topic, 0, 0, Some(end)).await.into_iter();
    let records = records.map(|record| (record.offset, record.value.unwrap()));
    recorder.now().log(Log::new((&*topic, 0), 0..end, records));
    recorder.now().check(&Expect::default()).assert();
}

/// Submits all batches at once. Returns their handles.
async fn append(partition: &PartitionClient, recorder: &Recorder, writer: WriterId) -> Vec<InDoubt> {
    let mut appends = Vec::new();
    for number in BEFORE..BEFORE + IN_DOUBT {
        let batch = partition.encode([record(&number.to_string())]).unwrap();
        let permit = partition.reserve(batch.size_in_bytes()).await.unwrap();
        let ticket = recorder.submit(writer, [&*number.to_string()]);
        let append = permit.submit(batch);
        appends.push(async move {
            let error = append.await.unwrap_err();
            ticket.unknown();
            assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
            error.in_doubt().unwrap().clone()
        });
    }
    join_all(appends).await
}

fn record(value: &str) -> Record {
    Record::new(None::<&str>, value)
}

fn port(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}
