//! Appends and reads over connections that break, stall and lose what was answered, while leaders move; judged by what lies on
//! the log in the end.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use kwal_client::error::{ErrorKind, Outcome};
use kwal_client::record::Record;
use kwal_client::{ClientBuilder, Deadlines, PartitionClient};
use kwal_protocol::api::ApiKey;
use kwal_testkit::check::{Expect, Log, ReadFailure, Reader, Recorder, Writer, WriterId};
use kwal_tests::kafka::{ClusterConfig, Kafka, Version};
use kwal_transport::{BoxFuture, Connect, HostPort, Stream, Tcp, TransportError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::sniffer::Frames;

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
    let weather = Weather::new(u64::from(version == Version::V4_3_1));
    let deadlines = Deadlines::default()
        .operation(Duration::from_secs(30))
        .request(Duration::from_secs(1))
        .connect(Duration::from_secs(5));
    let builder = ClientBuilder::new(kafka.bootstrap()).connector(weather.clone()).deadlines(deadlines);
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
    while !weather.has_done_enough() || leader < 4 {
        assert!(Instant::now() < limit, "{:?}", weather.met());
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
    kwal_tests::report(format_args!("{version}: {}; {:?}", verdict.tally(), weather.met()));
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
                for record in fetched.records() {
                    let record = record.unwrap();
                    records.push((record.offset, record.value.unwrap().to_vec()));
                }
                next = fetched.next_offset;
                recorder.now().read(reader, records, next);
            }
            Err(error) => {
                assert!(!matches!(error.kind(), ErrorKind::OffsetOutOfRange { .. }), "{error}");
                recorder.now().read_failed(reader, ReadFailure::Other);
            }
        }
    }
}

/// TCP on which an append now and then meets a [`Fate`].
#[derive(Clone, Debug)]
struct Weather(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rng: fastrand::Rng,
    met: BTreeMap<Fate, usize>,
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

impl Weather {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { rng: fastrand::Rng::with_seed(seed), met: BTreeMap::new() })))
    }

    fn draw(&self) -> Option<Fate> {
        let State { rng, met } = &mut *self.0.lock().unwrap();
        if rng.u8(..10) > 0 {
            return None;
        }
        let fate = *rng.choice(&Fate::ALL)?;
        *met.entry(fate).or_default() += 1;
        Some(fate)
    }

    fn met(&self) -> BTreeMap<Fate, usize> {
        self.0.lock().unwrap().met.clone()
    }

    fn has_done_enough(&self) -> bool {
        let met = self.met();
        Fate::ALL.iter().all(|fate| met.get(fate).is_some_and(|times| *times >= ENOUGH))
    }
}

impl Connect for Weather {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async {
            let stream = Tcp::default().connect(to).await?;
            let peer = stream.peer().to_owned();
            let weather = self.clone();
            let pause = Box::pin(sleep(Duration::ZERO));
            let exposed = Exposed { stream, weather, frames: Frames::default(), fate: None, pause };
            Ok(Stream::new(exposed, peer))
        })
    }
}

/// A connection in foul weather.
struct Exposed {
    stream: Stream,
    weather: Weather,
    frames: Frames,
    fate: Option<Fate>,
    /// Before anything is read.
    pause: Pin<Box<Sleep>>,
}

impl AsyncRead for Exposed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.pause.as_mut().poll(cx));
        let before = buffer.filled().len();
        loop {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
            let is_over = buffer.filled().len() == before;
            match self.fate {
                Some(Fate::Lost) if self.frames.are_whole() => {
                    buffer.set_filled(before);
                    return Poll::Ready(Ok(()));
                }
                Some(Fate::Silent) if !is_over => buffer.set_filled(before),
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for Exposed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.fate == Some(Fate::Cut) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        // The first bytes of a frame tell what it is, and are not all of it.
        let bytes = &bytes[..bytes.len().min(16)];
        let wrote = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        let mut appends = 0;
        self.frames.pass(&bytes[..wrote], |api| appends += usize::from(api == ApiKey::PRODUCE));
        if appends > 0 && self.fate.is_none() {
            match self.weather.draw() {
                Some(Fate::Slow) => {
                    self.pause = Box::pin(sleep(Duration::from_millis(300)));
                }
                fate => self.fate = fate,
            }
        }
        Poll::Ready(Ok(wrote))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
