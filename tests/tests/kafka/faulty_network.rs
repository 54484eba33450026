//! Appends and reads over connections that break, stall and lose what was answered, while leaders move; judged by what lies on
//! the log in the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kwal_client::error::{Error, ErrorKind, Outcome};
use kwal_client::record::Record;
use kwal_client::{ClientBuilder, Deadlines, PartitionClient};
use kwal_protocol::api::ApiKey;
use kwal_testkit::check::{Expect, Log, ReadFailure, Reader, Recorder, Writer, WriterId};
use kwal_testkit::wire::{Decision, Wire};
use kwal_tests::kafka::{ClusterConfig, Kafka, Version};
use kwal_transport::Tcp;
use tokio::time::{Instant, sleep};

kwal_tests::suite! {
    own: [the_log_is_what_everybody_was_told],
}

/// How often each thing is to have gone wrong with an append.
const ENOUGH: usize = 5;
const PARTITIONS: i32 = 2;
/// How many appends of a partition are under way.
const AT_ONCE: usize = 4;

async fn the_log_is_what_everybody_was_told(version: Version) {
    let config = ClusterConfig {
        nodes: 3,
        properties: vec![("auto.leader.rebalance.enable".to_owned(), "false".to_owned())],
        ..ClusterConfig::default()
    };
    let kafka = Kafka::start(version, &config);
    let topic = kafka.topic("foul", PARTITIONS, &[]).await;
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
    while !network.has_done_enough() || leader < 4 {
        assert!(Instant::now() < limit, "{:?}", network.met());
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
    kwal_tests::report(format_args!("{version}: {}; {:?}", verdict.tally(), network.met()));
    let tally = verdict.tally();
    assert!(tally.acked > 100 && tally.acked * 10 > tally.appends * 9, "{tally}");
}

/// Appends records that are all different, some at a time.
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
                    Ok(produced) => ticket.acked(produced.base_offset),
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

/// Reads from the start on.
async fn read(partition: PartitionClient, recorder: Recorder, done: Arc<AtomicBool>) {
    let mut next = 0;
    let reader = recorder.now().reader(Reader::new((partition.topic(), partition.partition()), next));
    while !done.load(Ordering::Relaxed) {
        match partition.fetch(next).max_wait(Duration::from_millis(300)).await {
            Ok(fetched) => {
                let mut records = Vec::new();
                for batch in fetched.batches() {
                    for record in batch.records(1 << 20).unwrap().iter() {
                        let record = record.unwrap();
                        // A fetch may begin in the middle of a batch.
                        if record.offset >= next {
                            records.push((record.offset, record.value.unwrap().to_vec()));
                        }
                    }
                }
                next = fetched.next_offset;
                recorder.now().read(reader, records, next);
            }
            Err(error @ Error::OffsetOutOfRange { .. }) => panic!("{error}"),
            Err(_) => recorder.now().read_failed(reader, ReadFailure::Other),
        }
    }
}

/// TCP on which an append now and then meets a [`Fate`].
#[derive(Clone, Debug)]
struct FaultyNetwork {
    wire: Wire,
    met: Arc<Mutex<BTreeMap<Fate, usize>>>,
}

/// What goes wrong with a connection from a request on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fate {
    /// It breaks in the middle of the request.
    Cut,
    /// The broker answers, and the connection breaks on the way back.
    Lost,
    /// Nothing comes back any more.
    Silent,
    /// What comes back takes its time.
    Slow,
}

impl Fate {
    const ALL: [Self; 4] = [Self::Cut, Self::Lost, Self::Silent, Self::Slow];
}

impl FaultyNetwork {
    fn new(seed: u64) -> Self {
        let network = Self { wire: Wire::new(Tcp::default()), met: Arc::default() };
        let mut rng = fastrand::Rng::with_seed(seed);
        let met = Arc::clone(&network.met);
        // By connection.
        let fates = Arc::new(Mutex::new(BTreeMap::new()));
        network.wire.on_request({
            let fates = Arc::clone(&fates);
            move |frame| {
                let mut fates = fates.lock().unwrap();
                if frame.api != ApiKey::PRODUCE || fates.contains_key(&frame.connection) || rng.u8(..10) > 0 {
                    return Decision::Pass;
                }
                let fate = rng.choice(Fate::ALL).unwrap();
                *met.lock().unwrap().entry(fate).or_default() += 1;
                if fate == Fate::Cut {
                    return Decision::Cut(frame.bytes.len() / 2);
                }
                fates.insert(frame.connection, fate);
                Decision::Pass
            }
        });
        network.wire.on_response(move |frame| {
            let mut fates = fates.lock().unwrap();
            match fates.get(&frame.connection) {
                None | Some(Fate::Cut) => Decision::Pass,
                Some(Fate::Lost) => Decision::Cut(0),
                Some(Fate::Silent) => Decision::Discard,
                Some(Fate::Slow) => {
                    // Once; then another fate may follow.
                    fates.remove(&frame.connection);
                    Decision::Delay(Duration::from_millis(300))
                }
            }
        });
        network
    }

    fn met(&self) -> BTreeMap<Fate, usize> {
        self.met.lock().unwrap().clone()
    }

    fn has_done_enough(&self) -> bool {
        let met = self.met();
        Fate::ALL.iter().all(|fate| met.get(fate).is_some_and(|times| *times >= ENOUGH))
    }
}
