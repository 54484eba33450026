//! Holds a log exclusively and appends numbered records, until its test ends.
//!
//! The test is at the address of the first argument: it reads [`Event`]s and writes [`Command`]s, each a line
//! of JSON. The second argument is the [`Job`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kwal_client::error::{Error, ErrorKind, Outcome};
use kwal_client::record::Record;
use kwal_client::{ClientBuilder, Deadlines, PartitionClient};
use kwal_tests::holder::{Command, Event, Failure, Job, parse};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

/// How long a caller pauses after an append. Leaves time to the brokers and to the other tests.
const PACE: Duration = Duration::from_millis(5);

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, job] = &arguments[..] else { panic!("an address and a job, not {arguments:?}") };
    let stream = TcpStream::connect(address).await.expect("the test listens");
    let (commands, reports) = stream.into_split();
    let (events, received) = mpsc::unbounded_channel();
    tokio::spawn(report(received, reports));
    let (appends, allowed) = watch::channel(false);
    tokio::spawn(hold(parse(job), events, allowed, appends.clone()));
    // Its end is that of the test.
    let mut commands = BufReader::new(commands).lines();
    while let Ok(Some(line)) = commands.next_line().await {
        appends.send_replace(matches!(parse(&line), Command::Append));
    }
}

/// Writes events as they come.
async fn report(mut events: mpsc::UnboundedReceiver<Event>, mut reports: OwnedWriteHalf) {
    while let Some(event) = events.recv().await {
        let line = serde_json::to_string(&event).expect("an event is JSON") + "\n";
        if reports.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn hold(
    job: Job,
    events: mpsc::UnboundedSender<Event>,
    allowed: watch::Receiver<bool>,
    appends: watch::Sender<bool>,
) {
    let send = |event| _ = events.send(event);
    let (partition, begun) = match take_over(&job).await {
        Ok(taken) => taken,
        Err(error) => return send(Event::Refused(failure(&error))),
    };
    let holder = partition.holder().expect("it was opened with a name");
    let kwal_client::Holder { producer_id, epoch, barrier, .. } = holder;
    send(Event::Holds { producer_id, epoch, barrier, after: begun.elapsed() });
    appends.send_replace(job.appends);
    let appender = Arc::new(Appender { job, partition, events, begun, next: AtomicU64::new(0) });
    for _ in 0..appender.job.callers {
        tokio::spawn(Arc::clone(&appender).append(allowed.clone()));
    }
    let error = appender.partition.fenced().await;
    appender.send(Event::Fenced(failure(&error)));
}

/// Returns the partition, and when its opening began.
async fn take_over(job: &Job) -> Result<(PartitionClient, Instant), Error> {
    let mut deadlines = Deadlines::default();
    if let Some(patience) = job.patience {
        deadlines = deadlines.request(patience).connect(patience);
    }
    let client = ClientBuilder::new(job.brokers.clone()).deadlines(deadlines).build().await?;
    let begun = Instant::now();
    let mut open = client.partition_client(&job.topic, 0).exclusive(&*job.name);
    if let Some(interval) = job.renewal {
        open = open.renewal(interval);
    }
    if let Some(interval) = job.probe {
        open = open.probe(interval);
    }
    Ok((open.await?, begun))
}

struct Appender {
    job: Job,
    partition: PartitionClient,
    events: mpsc::UnboundedSender<Event>,
    begun: Instant,
    next: AtomicU64,
}

impl Appender {
    /// Appends one record after the other, while it may, until another holder has the log.
    async fn append(self: Arc<Self>, mut allowed: watch::Receiver<bool>) {
        loop {
            if !*allowed.borrow_and_update() {
                self.send(Event::Idle);
                if allowed.wait_for(|allowed| *allowed).await.is_err() {
                    return;
                }
            }
            let value = format!("{}-{}", self.job.label, self.next.fetch_add(1, Ordering::Relaxed));
            self.send(Event::Begins { value: value.clone() });
            match self.partition.produce([Record::new(None::<&str>, value.clone())]).await {
                Ok(produced) => {
                    let offset = produced.base_offset;
                    self.send(Event::Acked { value, offset, after: self.begun.elapsed() });
                    sleep(PACE).await;
                }
                Err(error) => {
                    let failure = failure(&error);
                    let ends = failure.is_fenced;
                    self.send(Event::Failed { value, failure });
                    if ends {
                        return;
                    }
                }
            }
        }
    }

    fn send(&self, event: Event) {
        // Nobody is left to read it when the test has ended.
        let _ = self.events.send(event);
    }
}

fn failure(error: &Error) -> Failure {
    Failure {
        is_fenced: matches!(error.kind(), ErrorKind::Fenced),
        is_not_applied: error.outcome() == Outcome::NotApplied,
        text: error.to_string(),
    }
}
