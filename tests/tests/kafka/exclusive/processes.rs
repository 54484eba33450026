//! Processes that hold a log, and what they wait for.

use std::path::Path;
use std::time::Duration;

use kwal_tests::holder::{Command, Event, Holder, Job};
use kwal_tests::kafka::Kafka;

use super::NAME;

/// How many tasks append in a process.
pub(super) const CALLERS: u32 = 4;

/// Starts a process that takes over the log.
pub(super) async fn start(kafka: &Kafka, topic: &str, label: &str) -> Holder {
    start_with(Job { callers: CALLERS, ..job(kafka, topic, label) }).await
}

/// Starts a process for a job.
pub(super) async fn start_with(job: Job) -> Holder {
    Holder::start(Path::new(env!("CARGO_BIN_EXE_holder")), job).await
}

/// Returns the job of a process with one caller.
pub(super) fn job(kafka: &Kafka, topic: &str, label: &str) -> Job {
    Job::new(label, kafka.bootstrap(), topic, NAME)
}

/// What a process reports when it holds the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
    pub(super) barrier: i64,
    /// The time of the takeover.
    pub(super) after: Duration,
}

/// Waits until a process holds the log.
pub(super) async fn holds(holder: &mut Holder) -> Held {
    holder.until(held_by).await
}

/// Returns how a process holds the log, which it has reported.
pub(super) fn held(holder: &Holder) -> Held {
    holder.events().iter().find_map(held_by).unwrap()
}

fn held_by(event: &Event) -> Option<Held> {
    match *event {
        Event::Holds { producer_id, epoch, barrier, after } => {
            Some(Held { producer_id, epoch, barrier, after })
        }
        Event::Refused(ref failure) => panic!("{}", failure.text),
        _ => None,
    }
}

/// Waits for further acknowledgements. Returns when the last one came, since the takeover began.
pub(super) async fn acked(holder: &mut Holder, count: usize) -> Duration {
    let mut seen = 0;
    let is_last = |event: &Event| match event {
        Event::Acked { after, .. } => {
            seen += 1;
            (seen == count).then_some(*after)
        }
        Event::Fenced(failure) => panic!("{}", failure.text),
        _ => None,
    };
    holder.until(is_last).await
}

/// Suspends a process in the middle of appends, after some more that were acknowledged.
pub(super) async fn stop_amid_appends(holder: &mut Holder) {
    loop {
        acked(holder, 20).await;
        holder.until(|event| matches!(event, Event::Begins { .. }).then_some(())).await;
        holder.pause();
        rest_of_reports(holder).await;
        if open(holder) > 0 {
            return;
        }
        holder.resume();
    }
}

/// Reads what a process has reported that cannot go on.
pub(super) async fn rest_of_reports(holder: &mut Holder) {
    // Reports that are on their way take less.
    while tokio::time::timeout(Duration::from_millis(200), holder.next()).await.is_ok() {}
}

/// Returns how many of its appends are open, as far as its reports were read.
pub(super) fn open(holder: &Holder) -> usize {
    let mut open = 0;
    for event in holder.events() {
        match event {
            Event::Begins { .. } => open += 1,
            Event::Acked { .. } | Event::Failed { .. } => open -= 1,
            _ => {}
        }
    }
    open
}

/// Waits until a process knows that another one has the log: each of its callers, by an append, and what
/// waits for `fenced()`.
pub(super) async fn is_fenced(holder: &mut Holder) {
    let count = |events: &[Event]| {
        let by_append = |event: &&Event| matches!(event, Event::Failed { failure, .. } if failure.is_fenced);
        let by_event = |event: &&Event| matches!(event, Event::Fenced(failure) if failure.is_fenced);
        (events.iter().filter(by_append).count(), events.iter().filter(by_event).count())
    };
    let callers = holder.job().callers as usize;
    while count(holder.events()) != (callers, 1) {
        holder.next().await;
    }
}

/// Makes a process finish its appends.
pub(super) async fn rest(holder: &mut Holder) {
    holder.tell(Command::Rest).await;
    for _ in 0..holder.job().callers {
        holder.until(|event| matches!(event, Event::Idle).then_some(())).await;
    }
}
