//! A process that holds a log exclusively: the program `holder`, which a test starts, suspends and kills.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::kafka::install;
use crate::process::Guarded;

/// What a process is to hold. The only argument of the program, as JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Job {
    /// Its name among the processes of a test, with which its records begin.
    pub label: String,
    /// `host:port` of the brokers.
    pub brokers: Vec<String>,
    /// The topic, whose partition 0 it holds.
    pub topic: String,
    /// The name under which it is held.
    pub name: String,
    /// How many tasks append. The records of each are appended one after the other.
    pub callers: u32,
    /// Whether it appends as soon as it holds the log, or waits for [`Command::Append`].
    pub appends: bool,
    /// The time limits of a request and of a connection. Default: those of the client.
    pub patience: Option<Duration>,
    /// The interval of renewals.
    pub renewal: Option<Duration>,
    /// The interval of probes.
    pub probe: Option<Duration>,
}

impl Job {
    /// Creates a job with one caller, which appends at once.
    pub fn new(label: &str, brokers: Vec<String>, topic: &str, name: &str) -> Self {
        Self {
            label: label.to_owned(),
            brokers,
            topic: topic.to_owned(),
            name: name.to_owned(),
            callers: 1,
            appends: true,
            patience: None,
            renewal: None,
            probe: None,
        }
    }
}

/// What a process is told while it runs.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Command {
    /// To append, until further notice.
    Append,
    /// To finish the appends that are open and begin no further ones. It reports [`Event::Idle`] then.
    Rest,
}

/// What a process reports. `after` is the time since it began to open the partition.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Event {
    /// It holds the log.
    Holds {
        /// The producer id.
        producer_id: i64,
        /// The epoch of the barrier.
        epoch: i16,
        /// The offset of the barrier.
        barrier: i64,
        /// The time of the takeover.
        after: Duration,
    },
    /// The takeover failed.
    Refused(Failure),
    /// An append begins.
    Begins {
        /// The value of the record.
        value: String,
    },
    /// An append was acknowledged.
    Acked {
        /// The value of the record.
        value: String,
        /// Its offset, unless a later acknowledgement proved it alone.
        offset: Option<i64>,
        /// When.
        after: Duration,
    },
    /// An append failed. After [`Failure::is_fenced`], its caller ends.
    Failed {
        /// The value of the record.
        value: String,
        /// Why.
        failure: Failure,
    },
    /// No append is open.
    Idle,
    /// Another process has the log: `fenced()` has returned.
    Fenced(Failure),
}

/// An error.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Failure {
    /// Whether it is `ErrorKind::Fenced`.
    pub is_fenced: bool,
    /// Whether its outcome is `NotApplied`.
    pub is_not_applied: bool,
    /// The text.
    pub text: String,
}

/// The running program. It does not outlive this process.
#[derive(Debug)]
pub struct Holder {
    job: Job,
    process: Guarded,
    commands: OwnedWriteHalf,
    reports: Lines<BufReader<OwnedReadHalf>>,
    events: Vec<Event>,
}

impl Holder {
    /// Starts the program at `path`. It takes over the log.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn start(path: &Path, job: Job) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address").to_string();
        let run = install::RUN.as_ref().unwrap_or_else(|e| panic!("{e}"));
        let dir = run.dir.join(format!("holder-{}-{}", job.label, install::uuid()));
        std::fs::create_dir_all(dir.join("data")).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let arguments = [address, serde_json::to_string(&job).expect("a job is JSON")];
        let command = [path.as_os_str()].into_iter().chain(arguments.iter().map(AsRef::as_ref));
        let process = Guarded::start(command, &dir.join("log"), &dir.join("data"));
        let process = process.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let accepted = timeout(PATIENCE, listener.accept()).await;
        let (stream, _) = accepted
            .unwrap_or_else(|_| panic!("holder {} does not report: see {}", job.label, dir.display()))
            .expect("a connection can be accepted");
        let (reports, commands) = stream.into_split();
        Self { job, process, commands, reports: BufReader::new(reports).lines(), events: Vec::new() }
    }

    /// Returns what it is to hold.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Returns what it has reported, as far as [`Self::next`] has returned it.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Waits for its next report.
    ///
    /// # Panics
    ///
    /// If it ends, or reports nothing for two minutes.
    pub async fn next(&mut self) -> Event {
        let label = &self.job.label;
        let line = timeout(PATIENCE, self.reports.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("{label} reports nothing after {:?}", self.events.last()));
        let line = line.ok().flatten().unwrap_or_else(|| panic!("{label} ended after {:?}", self.events));
        let event: Event = parse(&line);
        self.events.push(event.clone());
        event
    }

    /// Reads what it has reported before it was killed.
    pub async fn last_reports(&mut self) {
        while let Ok(Some(line)) = self.reports.next_line().await {
            self.events.push(parse(&line));
        }
    }

    /// Waits until a report is what `find` looks for.
    ///
    /// # Panics
    ///
    /// As [`Self::next`].
    pub async fn until<T>(&mut self, mut find: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = find(&self.next().await) {
                return found;
            }
        }
    }

    /// Sends a command.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub async fn tell(&mut self, command: Command) {
        let line = serde_json::to_string(&command).expect("a command is JSON") + "\n";
        let sent = self.commands.write_all(line.as_bytes()).await;
        sent.unwrap_or_else(|e| panic!("{} has ended: {e}", self.job.label));
    }

    /// Suspends it.
    ///
    /// # Panics
    ///
    /// If it has ended, as those below.
    pub fn pause(&self) {
        self.act(Guarded::suspend);
    }

    /// Resumes it.
    pub fn resume(&self) {
        self.act(|process| process.signal(Signal::CONT));
    }

    /// Kills it.
    pub fn kill(&self) {
        self.act(|process| process.signal(Signal::KILL));
    }

    fn act(&self, act: impl FnOnce(&Guarded) -> io::Result<()>) {
        act(&self.process).unwrap_or_else(|e| panic!("{}: {e}", self.job.label));
    }
}

/// How long a report may take. Brokers may have to elect a leader first, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Parses a line that the other process has written.
///
/// # Panics
///
/// If it is something else.
pub fn parse<T: DeserializeOwned>(line: &str) -> T {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))
}
