//! Replays and streams of one partition.

use std::{future::poll_fn, ops::Range, pin::pin, sync::Arc, time::Duration};

use fastrand::Rng;
use futures::StreamExt;
use kwal_client::{
    Client, FetchedBatch, GapReason, Isolation, OffsetAt, PartitionClient, Position,
    error::{Error, ErrorKind},
};
use kwal_protocol::record::OwnedRecord;
use kwal_testkit::{
    Hazard,
    check::{Covered, ReadFailure, Reader, ReaderId, Value},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    LONG, Shared, TOPIC,
    reader::{How, Kept},
    value,
};
use crate::{
    consumer::{OutOfRange, RecordStream, Replay, Start, Summary, follow, replay},
    support::{chain, polled},
};

/// Replays and follows one partition, again and again.
pub(super) struct Replayer {
    shared: Arc<Shared>,
    /// It reads with one of them at a time.
    clients: [Client; 2],
    partition: PartitionClient,
    how: How,
    kept: Vec<Kept>,
    /// The last offset that it got to.
    offset: i64,
    rng: Rng,
}

/// A replay or a stream, and what the checker knows of it.
struct Reading {
    source: Source,
    reader: ReaderId,
    policy: OutOfRange,
    /// Whether it knows the epoch of everything that its reader has got.
    knows_all: bool,
    /// Its position, where its summary began, and how many offsets it had left out by its policy.
    before: (Position, i64, u64),
}

enum Source {
    Replay(Replay),
    Stream(RecordStream),
}

/// What one call brought.
enum Step {
    Records(Vec<OwnedRecord>),
    /// The end of a replay, or of the records after an error.
    End,
    Failed(Error),
    Dropped,
}

impl Replayer {
    pub(super) async fn open(
        shared: &Arc<Shared>,
        clients: [&Client; 2],
        partition: i32,
        mut rng: Rng,
    ) -> Self {
        let opened = shared.open(clients[0], partition).await.unwrap();
        let how = How::of(shared, partition, true, &mut rng);
        let clients = clients.map(Client::clone);
        Self { shared: Arc::clone(shared), clients, partition: opened, how, kept: Vec::new(), offset: 0, rng }
    }

    pub(super) async fn work(mut self, until: Instant) -> Self {
        while Instant::now() < until {
            let Some(reading) = self.begin().await else {
                sleep(Duration::from_millis(self.rng.u64(..300))).await;
                continue;
            };
            let patience = match self.rng.u8(..4) {
                0 => Duration::from_millis(self.rng.u64(..2_000)),
                _ => LONG,
            };
            let end = until.min(Instant::now() + patience);
            let open = self.read(reading, end).await;
            // With nothing in its way, a replay ends.
            if let Some(reading) = open.filter(|open| open.is_replay() && Instant::now() >= until)
                && self.read(reading, until + LONG).await.is_some_and(|open| open.is_replay())
            {
                self.shared.problem(format!("a replay of {} does not end", self.partition.partition()));
            }
            sleep(Duration::from_millis(self.rng.u64(..300))).await;
        }
        self
    }

    /// Opens a replay or a stream somewhere.
    async fn begin(&mut self) -> Option<Reading> {
        let (start, offset) = match self.rng.u8(..4) {
            0 => {
                let offset = self.rng.i64(0..=self.offset.saturating_add(2));
                (Start::from(offset), offset)
            }
            _ => (Start::from(OffsetAt::Earliest), 0),
        };
        let kept = match self.kept.len() as u64 {
            0 => None,
            _ if self.rng.bool() => None,
            kept => Some(self.kept.swap_remove(self.rng.u64(..kept) as usize)),
        };
        let (start, offset, reader) = match kept {
            Some(Kept { text, reader }) => match text.parse::<Position>() {
                Ok(position) => (Start::from(position), position.offset, reader),
                Err(error) => {
                    self.shared.problem(format!("{text} is not read back: {error}"));
                    return None;
                }
            },
            None => (start, offset, self.shared.recorder.now().reader(self.how.describe(offset))),
        };
        let knows_all = !matches!(start, Start::Position(Position { leader_epoch: Some(_), .. }));
        if !knows_all {
            self.shared.count_event("streams resumed");
        }
        let policy = self.rng.choice(POLICIES.iter().copied()).unwrap_or_default();
        let opened = match self.rng.u8(..3) {
            0 => self.open_stream(start, policy, reader).await,
            _ => self.open_replay(start, offset, policy, reader).await,
        };
        match opened {
            Ok(source) => {
                let before = (source.position(), source.summary().offsets.start, 0);
                Some(Reading { source, reader, policy, knows_all, before })
            }
            Err(error) => {
                self.failed(None, reader, offset, knows_all, &error).await;
                None
            }
        }
    }

    async fn open_stream(
        &mut self,
        start: Start,
        policy: OutOfRange,
        reader: ReaderId,
    ) -> Result<Source, Error> {
        let is_at_end = start == Start::from(OffsetAt::Earliest) && self.rng.u8(..4) == 0;
        let start = if is_at_end { Start::from(OffsetAt::Latest) } else { start };
        let opening = follow(&self.partition, start).isolation(self.how.isolation).out_of_range(policy);
        let opening = opening.max_bytes(self.max_bytes()).max_wait(self.max_wait());
        let stream = self.shared.timed_within("follow", self.lookups(), opening).await?;
        match is_at_end {
            true => self.shared.recorder.now().seek(reader, stream.position().offset),
            false => _ = self.began_later(reader, start, stream.position()),
        }
        self.shared.count_event("streams opened");
        Ok(Source::Stream(stream))
    }

    async fn open_replay(
        &mut self,
        start: Start,
        offset: i64,
        policy: OutOfRange,
        reader: ReaderId,
    ) -> Result<Source, Error> {
        let given = (self.rng.u8(..4) == 0).then(|| self.rng.i64(offset..=self.offset.max(offset) + 1));
        let opening = replay(&self.partition, start).isolation(self.how.isolation).out_of_range(policy);
        let opening = opening.max_bytes(self.max_bytes()).max_wait(self.max_wait());
        let opening = given.into_iter().fold(opening, |opening, end| opening.end(end));
        let replay = self.shared.timed_within("replay", self.lookups(), opening).await?;
        let end = replay.progress().end;
        // Then the checker does not know what was acknowledged before the end was looked up.
        let is_late = self.began_later(reader, start, replay.position());
        match given.is_some() || is_late {
            true => self.shared.recorder.now().replay_to(reader, end),
            false => self.shared.recorder.now().replay(reader, end),
        }
        self.shared.count_event("replays opened");
        if self.how.isolation == Isolation::ReadCommitted {
            self.shared.count_event("replays of committed records");
        }
        if replay.summary().beyond.is_some() {
            self.shared.count_event("replays that end before open transactions");
        }
        Ok(Source::Replay(replay))
    }

    /// Records that a reader begins at the start of the log, if that is not the first offset. Returns whether
    /// it does.
    fn began_later(&self, reader: ReaderId, start: Start, at: Position) -> bool {
        let is_late = matches!(start, Start::At(_)) && at.offset > 0;
        if is_late {
            let failure = ReadFailure::Trimmed { log_start: at.offset };
            self.shared.recorder.now().read_failed(reader, failure);
        }
        is_late
    }

    fn max_bytes(&mut self) -> i32 {
        self.rng.choice([1, 200, 2_000, 1 << 20]).unwrap_or(1)
    }

    fn max_wait(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(1..1_500))
    }

    /// The time that the lookups of an opening have.
    fn lookups(&self) -> Duration {
        3 * self.shared.plan.deadlines.operation
    }

    /// Reads until a time, or until the end of a replay or an error that ends it. Returns it if it can be
    /// read on.
    async fn read(&mut self, mut reading: Reading, until: Instant) -> Option<Reading> {
        while Instant::now() < until {
            if self.rng.u8(..12) == 0 {
                self.keep(&mut reading);
            }
            if reading.is_replay() && self.rng.u8(..24) == 0 {
                reading = self.follow(reading);
            }
            match self.step(&mut reading, until).await {
                Step::Records(records) => self.got(&mut reading, &records),
                Step::Dropped => self.shared.count_event("reads dropped"),
                Step::End => {
                    self.ended(&mut reading);
                    if !reading.is_replay() || self.rng.bool() {
                        return None;
                    }
                    reading = self.follow(reading);
                }
                Step::Failed(error) => {
                    self.got(&mut reading, &[]);
                    let (reader, knows_all) = (reading.reader, reading.knows_all);
                    if self.failed(Some(&mut reading), reader, 0, knows_all, &error).await {
                        return None;
                    }
                    // A throttle that a call cannot outlast fails it at once.
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        Some(reading)
    }

    /// Makes one call, and drops it now and then.
    async fn step(&mut self, reading: &mut Reading, until: Instant) -> Step {
        let by_record = self.rng.u8(..3) == 0;
        let (shared, reader) = (Arc::clone(&self.shared), reading.reader);
        let call = async {
            let read = waits(async {
                match &mut reading.source {
                    Source::Replay(replay) if by_record => record(replay.next().await),
                    Source::Stream(stream) if by_record => record(stream.next().await),
                    Source::Replay(replay) => match replay.next_batch().await {
                        Ok(Some(batch)) => records(&batch),
                        Ok(None) => Step::End,
                        Err(error) => Step::Failed(error),
                    },
                    Source::Stream(stream) => match stream.next_batch().await {
                        Ok(batch) => records(&batch),
                        Err(error) => Step::Failed(error),
                    },
                }
            });
            let (step, has_waited) = read.await;
            if has_waited && matches!(step, Step::Records(_)) {
                // It had nothing in hand.
                shared.recorder.now().fetched(reader);
            }
            step
        };
        let left = until - Instant::now();
        match self.rng.u8(..12) {
            0 => polled(call, self.rng.u64(1..8) as usize).await,
            1 => timeout(left.min(Duration::from_millis(self.rng.u64(..1_000))), call).await.ok(),
            _ => timeout(left, call).await.ok(),
        }
        .unwrap_or(Step::Dropped)
    }

    /// Records what a call brought, and where the reader is now.
    fn got(&mut self, reading: &mut Reading, records: &[OwnedRecord]) {
        let (position, summary) = (reading.source.position(), reading.source.summary());
        let (before, start, jumped) = reading.before;
        let reader = reading.reader;
        let is_reset = summary.offsets.start != start && summary.offsets.start < before.offset;
        let is_moved = is_reset || jumped != jumps(summary);
        let mut history = self.shared.recorder.now();
        if is_reset {
            history.seek(reader, summary.offsets.start);
        } else if before.offset < summary.offsets.start {
            // It was to begin at the start of the log, which is later by now.
            history.read_failed(reader, ReadFailure::Trimmed { log_start: summary.offsets.start });
        }
        if let Source::Replay(replay) = &reading.source
            && summary.offsets.start != start
        {
            // Its summary begins again.
            history.replay_to(reader, replay.progress().end);
        }
        for gap in summary.gaps.iter().filter(|gap| is_moved && (is_reset || gap.offsets.end > before.offset))
        {
            let Range { start, end } = gap.offsets;
            match gap.reason {
                GapReason::Trimmed | GapReason::Passed if is_reset || start > before.offset => {
                    history.read(reader, NOTHING, start);
                }
                _ => {}
            }
            match gap.reason {
                GapReason::Trimmed => history.read_failed(reader, ReadFailure::Trimmed { log_start: end }),
                GapReason::Passed => history.seek(reader, end),
                _ => {}
            }
        }
        if position != before || !records.is_empty() {
            let values = records.iter().map(|record| (record.offset, value(record)));
            history.read(reader, values, position.offset);
        }
        if position.leader_epoch.is_none() && position.offset != before.offset {
            // Nothing of the batches before it is left, so it cannot be verified.
            history.seek(reader, position.offset);
        }
        drop(history);
        let summary = reading.source.summary();
        reading.before = (position, summary.offsets.start, jumps(summary));
        self.offset = position.offset;
        if is_moved {
            self.shared.count_event("readers moved by their policy");
            if reading.policy == OutOfRange::Fail {
                self.shared.problem(format!("a reader at {before} was moved to {position} without an error"));
            }
        }
    }

    /// Keeps the position, for another process.
    fn keep(&mut self, reading: &mut Reading) {
        self.got(reading, &[]);
        let position = reading.source.position();
        if position.leader_epoch.is_some() {
            let heir = self.how.describe(position.offset).resumes(reading.reader);
            let reader = self.shared.recorder.now().reader(heir);
            self.kept.push(Kept { text: position.to_string(), reader });
        }
    }

    /// Goes on without an end.
    fn follow(&self, reading: Reading) -> Reading {
        let source = match reading.source {
            Source::Replay(replay) => Source::Stream(replay.follow()),
            stream @ Source::Stream(_) => stream,
        };
        self.shared.count_event("replays followed");
        Reading { source, ..reading }
    }

    /// Records the end of a replay.
    fn ended(&mut self, reading: &mut Reading) {
        self.got(reading, &[]);
        let Source::Replay(replay) = &reading.source else {
            return self.shared.problem("a stream has ended without an error".to_owned());
        };
        self.shared.check_summary(replay.summary());
        self.shared.recorder.now().replayed(reading.reader, covered(replay.summary()));
        self.shared.count_event("replays ended");
    }

    /// Records an error. Returns whether it ends the reader.
    async fn failed(
        &mut self,
        reading: Option<&mut Reading>,
        reader: ReaderId,
        offset: i64,
        knows_all: bool,
        error: &Error,
    ) -> bool {
        let begun = Position::from(offset);
        let position = reading.as_ref().map_or(begun, |reading| reading.source.position());
        let failure = match *error.kind() {
            // The end of a replay that the caller gave.
            ErrorKind::BeyondEnd { .. } if reading.is_none() => Some(ReadFailure::Other),
            // What it has read itself, it knows to the first record that is lost.
            ErrorKind::LogTruncated { diverged_at, .. } if knows_all => {
                self.shared.count_event("log truncations");
                Some(ReadFailure::Truncated { diverged_at })
            }
            _ => self.shared.read_failure(position, error),
        };
        let Some(failure) = failure else { return true };
        self.shared.recorder.now().read_failed(reader, failure);
        let is_final = failure != ReadFailure::OutOfRange && !error.is_retriable();
        if let (Some(reading), true) = (reading, is_final) {
            self.check_final(reading, error).await;
        }
        if failure == ReadFailure::Recreated || self.rng.u8(..4) == 0 && is_final {
            self.clients.swap(0, 1);
            if let Some(opened) = self.shared.open(&self.clients[0], self.partition.partition()).await {
                self.partition = opened;
            }
        }
        is_final
    }

    /// Checks that nothing comes after an error that ended a reader.
    async fn check_final(&self, reading: &mut Reading, error: &Error) {
        let again = match &mut reading.source {
            Source::Replay(replay) => {
                replay.next_batch().await.map(|batch| batch.map(|batch| batch.offsets()))
            }
            Source::Stream(stream) => stream.next_batch().await.map(|batch| Some(batch.offsets())),
        };
        let is_same = again.as_ref().is_err_and(|again| again.to_string() == error.to_string());
        if !is_same || reading.source.position() != reading.before.0 {
            self.shared.problem(format!("after {}, a reader went on with {again:?}", chain(error)));
        }
    }
}

impl Reading {
    fn is_replay(&self) -> bool {
        matches!(self.source, Source::Replay(_))
    }
}

impl Source {
    fn position(&self) -> Position {
        match self {
            Self::Replay(replay) => replay.position(),
            Self::Stream(stream) => stream.position(),
        }
    }

    fn summary(&self) -> &Summary {
        match self {
            Self::Replay(replay) => replay.summary(),
            Self::Stream(stream) => stream.summary(),
        }
    }
}

impl Shared {
    /// Checks that each offset of a summary is accounted for once.
    fn check_summary(&self, summary: &Summary) {
        let Range { start, end } = summary.offsets;
        let counted = summary.records + summary.without_records.total();
        if u64::try_from(end - start) != Ok(counted) {
            self.problem(format!("{counted} offsets are accounted for in {summary:?}"));
        }
    }

    /// Replays a whole log after the storm.
    pub(super) async fn replay_to_the_end(&self, client: &Client, partition: i32, rng: &mut Rng) {
        let Some(opened) = self.open(client, partition).await else { return };
        let isolation = if rng.bool() { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
        let reader = Reader::new((TOPIC, partition), 0);
        let reader = if isolation == Isolation::ReadCommitted { reader.committed() } else { reader };
        let reader = self.recorder.now().reader(reader);
        let read = async {
            let mut replay = replay(&opened, OffsetAt::Earliest).isolation(isolation).await?;
            if replay.position().offset > 0 {
                let failure = ReadFailure::Trimmed { log_start: replay.position().offset };
                self.recorder.now().read_failed(reader, failure);
            }
            self.recorder.now().replay(reader, replay.progress().end);
            while replay.next_batch().await?.is_some() {}
            Ok::<_, Error>(replay)
        };
        match timeout(LONG, read).await {
            Ok(Ok(replay)) => {
                self.check_summary(replay.summary());
                self.recorder.now().replayed(reader, covered(replay.summary()));
                self.count_event("logs replayed to the end");
            }
            // The leader does not know the epochs that its records have.
            Ok(Err(error)) if self.plan.has(Hazard::EpochRewinds) && is_about_epochs(&error) => {}
            Ok(Err(error)) => {
                self.problem(format!("a log cannot be replayed after the storm: {}", chain(&error)));
            }
            Err(_) => self.problem(format!("a replay of {partition} after the storm does not end")),
        }
    }
}

fn is_about_epochs(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::EpochUnknown { .. } | ErrorKind::LogTruncated { .. })
        || error.cause().and_then(|cause| cause.downcast_ref()).is_some_and(is_about_epochs)
}

/// Returns how many offsets a policy has left out.
fn jumps(summary: &Summary) -> u64 {
    summary.without_records.trimmed + summary.without_records.passed
}

/// Describes what a replay covered to the checker.
fn covered(summary: &Summary) -> Covered {
    let Summary { offsets, records, gaps, .. } = summary;
    // Those that a policy passed have records.
    let gaps = gaps.iter().filter(|gap| gap.reason != GapReason::Passed);
    gaps.fold(Covered::new(offsets.clone(), *records), |covered, gap| covered.gap(gap.offsets.clone()))
}

/// Returns the result of a future, and whether it had to wait for it.
async fn waits<T>(future: impl Future<Output = T>) -> (T, bool) {
    let (mut future, mut has_waited) = (pin!(future), false);
    poll_fn(|cx| {
        let poll = future.as_mut().poll(cx);
        has_waited |= poll.is_pending();
        poll.map(|done| (done, has_waited))
    })
    .await
}

fn record(next: Option<Result<OwnedRecord, Error>>) -> Step {
    match next {
        Some(Ok(record)) => Step::Records(vec![record]),
        Some(Err(error)) => Step::Failed(error),
        None => Step::End,
    }
}

fn records(batch: &FetchedBatch) -> Step {
    batch.records().collect::<Result<_, _>>().map_or_else(Step::Failed, Step::Records)
}

/// No records.
const NOTHING: [(i64, Value); 0] = [];

const POLICIES: &[OutOfRange] =
    &[OutOfRange::Fail, OutOfRange::Fail, OutOfRange::FromStart, OutOfRange::FromEnd];
