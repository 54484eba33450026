//! Storms next to a simple client: what they affect, what they repair, and that the same seed gives the same
//! storm.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use kwal_protocol::{
    api::{ApiKey, Body, Request, decode_response_header, encode_request},
    messages::{
        ApiVersionsRequest, IsolationLevel, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
        ProducePartitionResponse,
    },
};
use kwal_testkit::{
    EmbeddedCluster, Fault, FaultTarget, Hazard, JournalEvent, Storm, StormReport, check::Recorder,
};
use kwal_transport::Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use crate::client::{Client, Place, STARTED_AT, batch, fetch, outcome, produce, values};

const PATIENCE: Duration = Duration::from_secs(2);

/// A client that accepts any response.
pub(crate) struct Sturdy<'a> {
    cluster: &'a EmbeddedCluster,
    place: Place,
    stream: Option<Stream>,
    sent: i32,
}

impl<'a> Sturdy<'a> {
    pub(crate) fn new(cluster: &'a EmbeddedCluster) -> Self {
        Self { cluster, place: Place::of(cluster, "wal", 0), stream: None, sent: 0 }
    }

    /// Returns the leader's response; without one, it gives up the connection.
    pub(crate) async fn call<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        let answer = timeout(PATIENCE, async {
            if self.stream.is_none() {
                let leader = self.cluster.leader("wal", 0).unwrap().unwrap_or(1);
                let address = self.cluster.address(leader).unwrap();
                self.stream = Some(self.cluster.connector().connect(&address).await.ok()?);
                self.exchange(&ApiVersionsRequest::default(), 0).await?;
            }
            self.exchange(request, version).await
        });
        let answer = answer.await.ok().flatten();
        if answer.is_none() {
            self.stream = None;
        }
        answer
    }

    async fn exchange<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        self.sent += 1;
        let stream = self.stream.as_mut()?;
        let mut frame = encode_request(request, version, self.sent, Some("sturdy")).unwrap();
        stream.write_all_buf(&mut frame).await.ok()?;
        let len = stream.read_u32().await.ok()?;
        let mut frame = vec![0; len.min(1 << 20) as usize];
        stream.read_exact(&mut frame).await.ok()?;
        let frame = Bytes::from(frame);
        let format = R::Response::version(version).unwrap();
        let (id, reader) = decode_response_header::<R::Response>(&frame, format).ok()?;
        let response = R::Response::decode(&frame.slice(reader.position()..), format).ok()?;
        (id == self.sent).then_some(response)
    }

    /// Closes the connection, since another broker may lead by now.
    pub(crate) async fn give_up(&mut self) {
        self.stream = None;
        sleep(Duration::from_millis(50)).await;
    }

    /// Returns the end of the log from ListOffsets.
    pub(crate) async fn end(&mut self, place: &Place, isolation_level: IsolationLevel) -> Option<i64> {
        let partition = ListOffsetsPartition {
            partition_index: place.partition,
            timestamp: -1,
            ..ListOffsetsPartition::default()
        };
        let topic = ListOffsetsTopic { name: place.topic.to_owned(), partitions: vec![partition] };
        let request =
            ListOffsetsRequest { replica_id: -1, isolation_level, topics: vec![topic], ..Default::default() };
        let answer = self.call(&request, 7).await?;
        let found = answer.topics.first()?.partitions.first()?.clone();
        if found.error_code.is_error() {
            self.give_up().await;
        }
        (!found.error_code.is_error()).then_some(found.offset)
    }

    /// Appends record after record, each until it is acknowledged; returns how many were.
    async fn append(mut self, until: Instant) -> usize {
        let mut acked = 0;
        while Instant::now() < until {
            let value = acked.to_string();
            let sent = batch(&[&value]).stamp(77, 0, acked as i32).to_bytes();
            let answer = self.call(&produce(&self.place.clone(), sent), 13).await;
            let recorded = answer.and_then(|answer| -> Option<ProducePartitionResponse> {
                answer.responses.first()?.partition_responses.first().cloned()
            });
            match recorded.as_ref().map(outcome) {
                Some(Ok(_)) => {
                    acked += 1;
                    // Responses take no time here, and without a pause no time would pass.
                    sleep(Duration::from_millis(100)).await;
                }
                _ => {
                    self.stream = None;
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
        acked
    }

    /// Fetches repeatedly, with and without waiting.
    async fn read(mut self, until: Instant) {
        let mut offset = 0;
        while Instant::now() < until {
            let request = kwal_protocol::messages::FetchRequest {
                max_wait_ms: 500,
                ..fetch(&self.place.clone(), offset)
            };
            match self.call(&request, 18).await {
                Some(answer) if !answer.responses.is_empty() => {
                    let partition = &answer.responses[0].partitions[0];
                    match partition.error_code.is_error() {
                        true => self.stream = None,
                        false => offset = partition.high_watermark.max(0),
                    }
                }
                _ => {}
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What a storm does to a cluster, and what is left.
struct Outcome {
    journal: String,
    report: StormReport,
    acked: usize,
    values: Vec<String>,
    lost: bool,
}

fn storm(seed: u64, storm: impl FnOnce(Storm) -> Storm) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let builder =
            EmbeddedCluster::builder().brokers(3).seed(seed).started_at(STARTED_AT).journal(100_000);
        let settings = [("min.insync.replicas", "2")];
        let cluster = builder.topic_with("wal", 1, &settings).start_in_memory().unwrap();
        let time = Duration::from_secs(60);
        let until = Instant::now() + time;
        let storm = storm(Storm::new(seed));
        let (report, acked, ()) = tokio::join!(
            storm.run(&cluster, time),
            Sturdy::new(&cluster).append(until),
            Sturdy::new(&cluster).read(until),
        );
        let journal = cluster.journal();
        Outcome {
            report: report.unwrap(),
            acked,
            values: values(&cluster, &Place::of(&cluster, "wal", 0)),
            lost: journal.entries().any(|entry| matches!(entry.event, JournalEvent::DataLoss { .. })),
            journal: journal.to_string(),
        }
    })
}

#[test]
fn the_same_seed_is_the_same_storm() {
    let lossy = |storm: Storm| storm.with(Hazard::UncleanElections).with(Hazard::ProducerExpiry);
    let all = |storm| RARE.iter().fold(lossy(storm), |storm, hazard| storm.with(*hazard));
    for seed in [1, 2, 3] {
        let (one, two) = (storm(seed, all), storm(seed, all));
        for (first, second) in one.journal.lines().zip(two.journal.lines()) {
            assert_eq!(first, second, "seed {seed}");
        }
        assert_eq!((one.journal.len(), one.report), (two.journal.len(), two.report));
    }
    assert_ne!(storm(1, all).journal, storm(2, all).journal);
}

const RARE: &[Hazard] = &[
    Hazard::EpochRewinds,
    Hazard::EmptyMetadata,
    Hazard::RefusedProducerIds,
    Hazard::RefusedConnections,
    Hazard::ConnectionLimits,
];

#[test]
fn rare_hazards_happen_if_they_are_added_and_lose_nothing_acknowledged() {
    let mut sum = StormReport::default();
    for seed in 0..10 {
        // This client has one producer id for ever.
        let added = RARE.iter().filter(|hazard| **hazard != Hazard::RefusedProducerIds);
        let Outcome { journal, report, acked, values, lost } =
            storm(seed, |storm| added.fold(storm, |storm, hazard| storm.with(*hazard)));
        assert!(!lost && acked > 5, "seed {seed}: {acked} acknowledged\n{journal}");
        let expected: Vec<_> = (0..acked).map(|value| value.to_string()).collect();
        assert_eq!(values[..acked], expected, "seed {seed}\n{journal}");
        sum.add(&report);
        assert!(RARE.iter().all(|hazard| storm(seed, |storm| storm).report.count(*hazard) == 0));
    }
    for hazard in RARE {
        assert_eq!(sum.count(*hazard) > 0, *hazard != Hazard::RefusedProducerIds, "{hazard:?}: {sum}");
    }
    assert!(sum.fault_counts.connections > 0, "{sum}");
}

#[test]
fn a_storm_affects_everything_and_loses_nothing_acknowledged() {
    let mut sum = StormReport::default();
    for seed in 0..25 {
        let Outcome { journal, report, acked, values, lost } = storm(seed, |storm| storm);
        assert!(!lost && acked > 5, "seed {seed}: {acked} acknowledged\n{journal}");
        let expected: Vec<_> = (0..acked).map(|value| value.to_string()).collect();
        // One more may be there without an acknowledgement.
        assert_eq!(values[..acked], expected, "seed {seed}\n{journal}");
        assert!(values.len() <= acked + 1, "seed {seed}: {values:?}\n{journal}");
        sum.add(&report);
    }
    println!("{sum}");
    assert!(
        sum.fault_counts.produces > 0 && sum.fault_counts.fetches > 0 && sum.fault_counts.handshakes > 0,
        "{sum}"
    );
    let calm = [Hazard::UncleanElections, Hazard::ProducerExpiry, Hazard::Recreation];
    assert!(calm.iter().all(|hazard| sum.count(*hazard) == 0), "{sum}");
    for hazard in [
        Hazard::Faults,
        Hazard::Disconnects,
        Hazard::Kills,
        Hazard::Restarts,
        Hazard::Pauses,
        Hazard::Elections,
        Hazard::Shrinking,
        Hazard::Lag,
        Hazard::StaleMetadata,
    ] {
        assert!(sum.count(hazard) > 0, "{hazard:?}: {sum}");
    }
}

#[tokio::test(start_paused = true)]
async fn losses_are_recorded_when_they_happen() {
    let cluster =
        EmbeddedCluster::builder().brokers(2).topic("wal", 1).journal(100).start_in_memory().unwrap();
    let recorder = Recorder::new();
    cluster.record_losses(&recorder);
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    client.produce(&place, batch(&["a"]).to_bytes()).await;
    cluster.shrink_isr("wal", 0, 2).unwrap();
    client.produce(&place, batch(&["b"]).to_bytes()).await;
    cluster.elect_unclean("wal", 0, 2).unwrap();
    cluster.delete_records("wal", 0, 1).unwrap();
    cluster.recreate_topic("wal").unwrap();
    let recorded = recorder.now().to_string();
    let events: Vec<_> =
        recorded.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expected =
        ["0 truncated wal-0 1", "0 unreplicated wal-0 1", "0 deleted wal-0 1", "0 recreated wal-0"];
    assert_eq!(events, expected);
    let journal = cluster.journal().to_string();
    for line in [
        "0.000 topic wal is made",
        "0.000 1 c1 opened",
        "0.000 1 c1 #1 > Produce 13 acks=-1 wal-0 -1/-1:-1x1",
        "0.000 1 c1 #1 < Produce @0",
        "0.000 wal-0 at 2 falls out of sync",
        "0.000 wal-0 is led by 1 in epoch 0, in sync 1",
        "0.000 wal-0 has lost replicated records from 1 on",
        "0.000 wal-0 is led by 2 in epoch 1, in sync 2",
        "0.000 wal-0 at 1 is truncated at 1",
        "0.000 wal-0 begins at 1 now",
        "0.000 wal was deleted and created again",
    ] {
        assert!(journal.lines().any(|recorded| recorded.trim() == line), "{line}\n{journal}");
    }
}

/// A leader that does not learn of the election goes on with lost records.
///
/// It acknowledges more if it is alone in its ISR.
#[tokio::test(start_paused = true)]
async fn losses_of_a_deposed_leader_are_recorded_when_they_happen() {
    let cluster = EmbeddedCluster::builder().brokers(2).topic("wal", 1).start_in_memory().unwrap();
    let recorder = Recorder::new();
    cluster.record_losses(&recorder);
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    client.produce(&place, batch(&["a"]).to_bytes()).await;
    cluster.shrink_isr("wal", 0, 2).unwrap();
    client.produce(&place, batch(&["b"]).to_bytes()).await;
    cluster.hold_metadata(1).unwrap();
    cluster.elect_unclean("wal", 0, 2).unwrap();
    assert_eq!(outcome(&client.produce(&place, batch(&["c"]).to_bytes()).await), Ok(2));
    assert_eq!(client.fetch(&place, 0).await.high_watermark, 3);
    sleep(Duration::from_secs(1)).await;
    cluster.release_metadata(1).unwrap();
    assert_eq!(
        recorder.now().to_string(),
        "0 truncated wal-0 1\n1 truncated wal-0 1\n1 unreplicated wal-0 1\n"
    );
}

/// What an earlier leader committed counts, also while the last leader's own high watermark is lower.
#[tokio::test(start_paused = true)]
async fn losses_of_records_above_a_lagging_high_watermark_are_recorded() {
    let builder = EmbeddedCluster::builder().brokers(3).topic_with("wal", 1, &[("min.insync.replicas", "2")]);
    let cluster = builder.start_in_memory().unwrap();
    let recorder = Recorder::new();
    cluster.record_losses(&recorder);
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    client.produce(&place, batch(&["a"]).to_bytes()).await;
    cluster.shrink_isr("wal", 0, 3).unwrap();
    cluster.set_lag("wal", 0, 2, Duration::from_millis(500)).unwrap();
    assert_eq!(outcome(&client.produce(&place, batch(&["b"]).to_bytes()).await), Ok(1));
    // Broker 2 has the record and does not know yet that it is committed.
    cluster.stop(1).unwrap();
    assert_eq!((cluster.leader("wal", 0).unwrap(), cluster.high_watermark("wal", 0).unwrap()), (Some(2), 1));
    cluster.elect_unclean("wal", 0, 3).unwrap();
    assert_eq!(recorder.now().to_string(), "0.5 truncated wal-0 1\n");
}

#[tokio::test(start_paused = true)]
async fn replies_that_are_cut_trickle_or_are_garbage() {
    let cluster = EmbeddedCluster::builder().topic("wal", 1).seed(3).start_in_memory().unwrap();
    let place = Place::of(&cluster, "wal", 0);
    let one = || batch(&["a"]).to_bytes();
    let frame = async |client: &mut Client| {
        client.send(&produce(&place, one()), 13).await;
        client.receive_bytes().await
    };
    let whole = frame(&mut Client::connect(&cluster).await).await;
    assert!(whole.len() > 30);
    for bytes in [0, 3, 4, 20] {
        cluster.on(ApiKey::PRODUCE, Fault::CutReply(bytes));
        let cut = frame(&mut Client::connect(&cluster).await).await;
        assert_eq!(cut.len(), bytes);
    }
    let mut client = Client::connect(&cluster).await;
    cluster.on(ApiKey::PRODUCE, Fault::Trickle { bytes: 7, pause: Duration::from_millis(10) });
    let begun = Instant::now();
    let trickled = frame(&mut client).await;
    assert_eq!(trickled.len(), whole.len());
    assert!(begun.elapsed() >= Duration::from_millis(10 * (whole.len() as u64 / 7)));
    cluster.on(ApiKey::PRODUCE, Fault::Garbage);
    let garbage = frame(&mut client).await;
    assert_eq!((garbage.len(), &garbage[..4]), (whole.len(), &whole[..4]));
    assert_ne!(garbage[8..], whole[8..]);
    assert_eq!(cluster.end_offset("wal", 0).unwrap(), 7, "all were carried out");
    assert_eq!((cluster.faults_left(), cluster.fault_counts().produces), (0, 5));
}

#[tokio::test(start_paused = true)]
async fn faults_are_aimed() {
    let cluster = EmbeddedCluster::builder().brokers(2).topic("wal", 2).start_in_memory().unwrap();
    let places = [0, 1].map(|partition| Place::of(&cluster, "wal", partition));
    cluster.on(FaultTarget::api(ApiKey::PRODUCE).partition("wal", 1).after(1), Fault::Drop);
    cluster.on(FaultTarget::requests().broker(2).partition("wal", 1), Fault::LoseReply);
    let mut done = BTreeSet::new();
    for attempt in 0..3 {
        for (place, broker) in places.iter().zip([1, 2]) {
            let mut client = Client::connect_to(&cluster, broker).await;
            client.send(&produce(place, batch(&["a"]).to_bytes()), 13).await;
            if client.receive_frame().await.is_some() {
                done.insert((place.partition, attempt));
            }
        }
    }
    assert_eq!(done, BTreeSet::from([(0, 0), (0, 1), (0, 2), (1, 2)]));
    let ends = [0, 1].map(|partition| cluster.end_offset("wal", partition).unwrap());
    assert_eq!(ends, [3, 2], "the first was lost on its way back, the second on its way there");

    cluster.on(FaultTarget::connections().broker(1), Fault::Drop);
    cluster.on(FaultTarget::connections(), Fault::BlackHole);
    assert!(Client::connect(&cluster).await.receive_frame().await.is_none());
    let mut deaf = Client::connect_to(&cluster, 2).await;
    deaf.send(&ApiVersionsRequest::default(), 0).await;
    assert!(timeout(Duration::from_secs(60), deaf.receive_frame()).await.is_err());
    assert_eq!((cluster.faults_left(), cluster.fault_counts().handshakes), (0, 2));
}
