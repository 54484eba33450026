//! Appends and reads over connections that break, stall and lose responses, while leaders move. The log at
//! the end is the judge.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kwal_client::error::{ErrorKind, Outcome};
use kwal_client::record::Record;
use kwal_client::{ClientBuilder, Deadlines, PartitionClient};
use kwal_protocol::api::ApiKey;
use kwal_testkit::check::{Expect, Log, ReadFailure, Reader, Recorder, Writer, WriterId};
use kwal_testkit::wire::{Decision, Wire};
use kwal_tests::kafka::{ClusterConfig, Kafka, Version};
use kwal_transport::Tcp;
use tokio::time::{Instant, sleep};

kwal_tests::suite! {
    own: [results_match_the_log],
}

/// How often each fault must have hit an append.
const ENOUGH: usize = 5;
const PARTITIONS: i32 = 2;
/// How many appends of a partition are in flight.
const AT_ONCE: usize = 4;

async fn results_match_the_log(version: Version) {
    let config = ClusterConfig {
        nodes: 3,
        properties: vec![("auto.leader.rebalance.enable".to_owned(), "false".to_owned())],
        ..ClusterConfig::default()
    };
    let kafka = Kafka::start(version, &config);
    let topic = kafka.topic("faulty-network", PARTITIONS, &[]).await;
    let network = FaultyNetwork::new(u64::from(version == Version::V4_3_1));
    let deadlines = Deadlines::default()
        .operation(Duration::from_secs(30))
        .request(Duration::from_secs(1))
        .connect(Duration::from_secs(5));
    let builder = ClientBuilder::new(kafka.bootstrap()).connector(network.wire.clone()).deadlines(deadlines);
    let client = builder.build().await.unwrap();
    let recorder = Recorder::new();
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for number in 0..PARTITIONS {
        let partition = client.partition_client(&topic, number).await.unwrap();
        let writer = Writer::new((&*topic, number)).deadline(deadlines.operation);
        let writer = recorder.now().writer(writer);
        tasks.push(tokio::spawn(append(partition.clone(), recorder.clone(), writer, Arc::clone(&done))));
        tasks.push(tokio::spawn(read(partition, recorder.clone(), Arc::clone(&done))));
    }

    let limit = Instant::now() + Duration::from_secs(120);
    let mut leader: u16 = 0;
    while !network.has_injected_enough() || leader < 4 {
        assert!(Instant::now() < limit, "{:?}", network.injected());
        leader += 1;
        let mut replicas = [1, 2, 3];
        replicas.rotate_left(usize::from(leader % 3));
        kafka.java().move_leader(&topic, i32::from(leader) % PARTITIONS, &replicas).await;
        sleep(Duration::from_millis(500)).await;
    }
    done.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }

    let ends = kafka.end_offsets(&topic).await;
    for (number, end) in (0..PARTITIONS).zip(ends) {
        let records = kafka.java().consume(&topic, number, 0, None).await.into_iter();
        let records = records.map(|record| (record.offset, record.value.unwrap()));
        recorder.now().log(Log::new((&*topic, number), 0..end, records));
    }
    let verdict = recorder.now().check(&Expect::default().grace(Duration::from_millis(100)));
    verdict.assert();
    kwal_tests::report(format_args!("{version}: {}; {:?}", verdict.tally(), network.injected()));
    let tally = verdict.tally();
    assert!(tally.acked > 100 && tally.acked * 10 > tally.appends * 9, "{tally}");
}

/// Appends distinct records, [`AT_ONCE`] at a time.
async fn append(partition: PartitionClient, recorder: Recorder, writer: WriterId, done: Arc<AtomicBool>) {
    let mut next: u64 = 0;
    while !done.load(Ordering::Relaxed) {
        let appends = (0..AT_ONCE).map(|_| {
            let value = format!("{}-{next}", partition.partition());
            next += 1;
            let ticket = recorder.queue(writer, [&*value]);
            let append = partition.produce(vec![Record::new(None::<&str>, value)]);
            async move {
                match append.await {
                    Ok(produced) => ticket.acked(produced.base_offset.unwrap()),
                    Err(error) => match error.outcome() {
                        Outcome::NotApplied => ticket.not_appended(),
                        Outcome::Unknown => ticket.unknown(),
                    },
                }
            }
        });
        futures::future::join_all(appends).await;
    }
}

/// Reads from the beginning.
async fn read(partition: PartitionClient, recorder: Recorder, done: Arc<AtomicBool>) {
    let mut next = 0;
    let reader = recorder.now().reader(Reader::new((partition.topic(), partition.partition()), next));
    while !done.load(Ordering::Relaxed) {
        match partition.fetch(next).max_wait(Duration::from_millis(300)).await {
            Ok(fetched) => {
                let mut records = Vec::new();
                for record in fetched.records() {
                    let record = record.unwrap();
                    records.push((record.offset, record.value.unwrap().to_vec()));
                }
                next = fetched.next_offset;
                recorder.now().read(reader, records, next);
            }
            Err(error) => {
                let is_out_of_range = matches!(
                    error.kind(),
                    ErrorKind::Trimmed { .. }
                        | ErrorKind::BeyondEnd { .. }
                        | ErrorKind::OffsetOutOfRange { .. }
                );
                assert!(!is_out_of_range, "{error}");
                recorder.now().read_failed(reader, ReadFailure::Other);
            }
        }
    }
}

/// TCP that injects a [`Fault`] into one of ten appends.
#[derive(Clone, Debug)]
struct FaultyNetwork {
    wire: Wire,
    injected: Arc<Mutex<BTreeMap<Fault, usize>>>,
}

/// A fault of a connection, beginning with a request.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fault {
    /// The connection breaks in the middle of the request.
    CutRequest,
    /// The broker responds, and the connection breaks before the response.
    CutResponse,
    /// No response arrives any more.
    DropResponses,
    /// One response is delayed.
    DelayResponse,
}

impl Fault {
    const ALL: [Self; 4] = [Self::CutRequest, Self::CutResponse, Self::DropResponses, Self::DelayResponse];
}

impl FaultyNetwork {
    fn new(seed: u64) -> Self {
        let network = Self { wire: Wire::new(Tcp::default()), injected: Arc::default() };
        let mut rng = fastrand::Rng::with_seed(seed);
        let injected = Arc::clone(&network.injected);
        // By connection.
        let faults = Arc::new(Mutex::new(BTreeMap::new()));
        network.wire.on_request({
            let faults = Arc::clone(&faults);
            move |frame| {
                let mut faults = faults.lock().unwrap();
                if frame.api != ApiKey::PRODUCE || faults.contains_key(&frame.connection) || rng.u8(..10) > 0
                {
                    return Decision::Pass;
                }
                let fault = rng.choice(Fault::ALL).unwrap();
                *injected.lock().unwrap().entry(fault).or_default() += 1;
                if fault == Fault::CutRequest {
                    return Decision::Cut(frame.bytes.len() / 2);
                }
                faults.insert(frame.connection, fault);
                Decision::Pass
            }
        });
        network.wire.on_response(move |frame| {
            let mut faults = faults.lock().unwrap();
            match faults.get(&frame.connection) {
                None | Some(Fault::CutRequest) => Decision::Pass,
                Some(Fault::CutResponse) => Decision::Cut(0),
                Some(Fault::DropResponses) => Decision::Discard,
                Some(Fault::DelayResponse) => {
                    // Once; another fault may follow.
                    faults.remove(&frame.connection);
                    Decision::Delay(Duration::from_millis(300))
                }
            }
        });
        network
    }

    fn injected(&self) -> BTreeMap<Fault, usize> {
        self.injected.lock().unwrap().clone()
    }

    fn has_injected_enough(&self) -> bool {
        let injected = self.injected();
        Fault::ALL.iter().all(|fault| injected.get(fault).is_some_and(|times| *times >= ENOUGH))
    }
}
