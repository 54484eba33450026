//! Correct histories of callers that share a batched writer.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use fastrand::Rng;
use kwal_testkit::check::{AppendId, CallId, History, Log, Writer, WriterId};

/// An input that was accepted.
#[derive(Clone)]
struct Input {
    append: AppendId,
    value: String,
    /// Its caller has the result, or has dropped it.
    is_ended: bool,
}

/// How a batch ends.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Fate {
    Appended,
    /// Nobody gets to know whether it is on the log; and whether it is.
    Unknown(bool),
    Absent,
}

/// A flush or a close that waits.
struct Waiting {
    call: CallId,
    left: BTreeSet<AppendId>,
    failed: bool,
}

struct Model {
    history: History,
    rng: Rng,
    now: Duration,
    log: Vec<String>,
    writer: WriterId,
    open: Vec<Input>,
    in_flight: VecDeque<Vec<Input>>,
    /// Those that a close has returned as unknown.
    abandoned: VecDeque<Vec<Input>>,
    after: Option<AppendId>,
    last: Option<AppendId>,
    flushes: Vec<Waiting>,
    accepted: usize,
}

/// Generates a correct history of one batched writer after the other.
pub(crate) fn generate(seed: u64, steps: usize) -> History {
    let mut history = History::new();
    let writer = history.writer(Writer::new(("wal", 0)).batched());
    let mut model = Model {
        history,
        rng: Rng::with_seed(seed),
        now: Duration::ZERO,
        log: Vec::new(),
        writer,
        open: Vec::new(),
        in_flight: VecDeque::new(),
        abandoned: VecDeque::new(),
        after: None,
        last: None,
        flushes: Vec::new(),
        accepted: 0,
    };
    for _ in 0..steps {
        model.step();
    }
    let Model { mut history, log, now, .. } = model;
    history.at(now + Duration::from_secs(1));
    history.log(Log::new(("wal", 0), 0..log.len() as i64, (0..).zip(&log)));
    history
}

impl Model {
    fn pass(&mut self) {
        self.now += Duration::from_millis(1);
        self.history.at(self.now);
    }

    fn step(&mut self) {
        if self.rng.bool() {
            self.pass();
        }
        match self.rng.u8(..40) {
            0..18 => self.accept(),
            18..25 => self.send(),
            25..31 => self.end(Fate::Appended),
            31 => self.end(Fate::Absent),
            32 => {
                let is_there = self.rng.bool();
                self.end(Fate::Unknown(is_there));
            }
            33..35 => self.give_up(),
            35..38 => self.flush(),
            38 => self.end_abandoned(),
            _ if self.rng.u8(..3) == 0 => self.close(),
            _ => {}
        }
    }

    fn accept(&mut self) {
        self.accepted += 1;
        let value = format!("x{}", self.accepted);
        let append = self.history.submit(self.writer, [&value]);
        self.last = Some(append);
        self.open.push(Input { append, value, is_ended: false });
    }

    fn send(&mut self) {
        if !self.open.is_empty() && self.in_flight.len() < 3 {
            self.in_flight.push_back(std::mem::take(&mut self.open));
        }
    }

    /// The first batch in flight ends. Those behind one that fails fail as well.
    fn end(&mut self, fate: Fate) {
        let Some(batch) = self.in_flight.pop_front() else { return };
        if fate == Fate::Appended {
            return self.end_batch(batch, fate);
        }
        let behind: Vec<_> = self.in_flight.drain(..).chain([std::mem::take(&mut self.open)]).collect();
        self.after = self.last;
        self.end_batch(batch, fate);
        for batch in behind {
            self.end_batch(batch, Fate::Absent);
        }
    }

    fn end_batch(&mut self, batch: Vec<Input>, fate: Fate) {
        let base = self.log.len() as i64;
        if matches!(fate, Fate::Appended | Fate::Unknown(true)) {
            self.log.extend(batch.iter().map(|input| input.value.clone()));
        }
        for wait in &mut self.flushes {
            for input in &batch {
                wait.failed |= wait.left.remove(&input.append) && fate != Fate::Appended;
            }
        }
        let mut results: Vec<_> =
            batch.into_iter().zip(base..).filter(|(input, _)| !input.is_ended).collect();
        self.rng.shuffle(&mut results);
        for (input, offset) in results {
            match fate {
                Fate::Appended => self.history.acked(input.append, offset),
                Fate::Unknown(_) => self.history.unknown(input.append),
                Fate::Absent => self.history.not_appended(input.append),
            }
        }
        let (done, left) = self.flushes.drain(..).partition(|wait| wait.left.is_empty());
        self.flushes = left;
        let done: Vec<Waiting> = done;
        for wait in done {
            self.history.flushed(wait.call, wait.failed);
            self.history.returned(wait.call);
        }
    }

    fn end_abandoned(&mut self) {
        let Some(batch) = self.abandoned.pop_front() else { return };
        let fate = match self.rng.u8(..3) {
            0 => Fate::Appended,
            1 => Fate::Unknown(self.rng.bool()),
            _ => Fate::Absent,
        };
        if fate == Fate::Appended {
            return self.end_batch(batch, fate);
        }
        let behind = std::mem::take(&mut self.abandoned);
        self.end_batch(batch, fate);
        for batch in behind {
            self.end_batch(batch, Fate::Absent);
        }
    }

    fn give_up(&mut self) {
        let inputs = self.open.iter_mut().chain(self.in_flight.iter_mut().flatten());
        let mut inputs: Vec<_> = inputs.filter(|input| !input.is_ended).collect();
        if !inputs.is_empty() {
            let input = inputs.swap_remove(self.rng.usize(..inputs.len()));
            input.is_ended = true;
            self.history.dropped(input.append);
        }
    }

    /// Everything that has not ended.
    fn left(&self) -> BTreeSet<AppendId> {
        self.open.iter().chain(self.in_flight.iter().flatten()).map(|input| input.append).collect()
    }

    fn flush(&mut self) {
        let call = self.history.call("flush", Duration::from_secs(60));
        self.history.flush(call, self.writer, self.after);
        match self.left() {
            left if left.is_empty() => {
                self.history.flushed(call, false);
                self.history.returned(call);
            }
            left => self.flushes.push(Waiting { call, left, failed: false }),
        }
    }

    /// The writer is closed, perhaps before everything has ended, and another one goes on.
    fn close(&mut self) {
        let call = self.history.call("close", Duration::from_secs(60));
        self.history.drain(call, self.writer, self.after);
        let (mut absent, mut unknown) = (Vec::new(), Vec::new());
        let values = |batch: &[Input]| batch.iter().map(|input| input.value.clone()).collect::<Vec<_>>();
        let is_late = self.rng.bool();
        if !is_late {
            self.send();
        }
        while let Some(batch) = self.in_flight.front().cloned().filter(|_| !is_late || self.rng.bool()) {
            self.pass();
            let fate = match self.rng.u8(..8) {
                0 => Fate::Absent,
                1 => Fate::Unknown(self.rng.bool()),
                _ => Fate::Appended,
            };
            match fate {
                Fate::Appended => {}
                Fate::Absent => absent.extend(values(&batch)),
                Fate::Unknown(_) => unknown.extend(values(&batch)),
            }
            if fate != Fate::Appended {
                let behind = self.in_flight.iter().skip(1).chain([&self.open]);
                absent.extend(behind.flat_map(|batch| values(batch)));
            }
            self.end(fate);
        }
        self.pass();
        absent.extend(values(&self.open));
        let open = std::mem::take(&mut self.open);
        self.end_batch(open, Fate::Absent);
        unknown.extend(self.in_flight.iter().flat_map(|batch| values(batch)));
        // Those that wait in vain.
        self.flushes.clear();
        self.history.drained(call, absent, unknown);
        self.history.returned(call);
        self.end_abandoned();
        while !self.abandoned.is_empty() {
            self.end_abandoned();
        }
        self.abandoned = std::mem::take(&mut self.in_flight);
        self.writer = self.history.writer(Writer::new(("wal", 0)).batched());
        (self.after, self.last) = (None, None);
    }
}
