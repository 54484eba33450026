//! Generates correct histories by seed, from a model of a log, of writers and of readers.

mod ahead;
pub(crate) mod callers;
mod transactions;

use std::{collections::VecDeque, time::Duration};

use fastrand::Rng;
use kwal_testkit::check::{
    AppendId, Expect, History, Log, ReadFailure, Reader, ReaderId, Tally, Writer, WriterId,
};

use self::{ahead::Ahead, transactions::Transaction};

/// What may happen that not every history should have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Workload {
    /// Unclean elections, deleted records, topics that are created again.
    pub(crate) losses: bool,
    /// The largest number of records of an append.
    pub(crate) batch: usize,
    pub(crate) steps: usize,
}

/// A correct history.
pub(crate) fn generate(seed: u64, workload: Workload) -> History {
    let mut rng = Rng::with_seed(seed);
    let mut history = History::new();
    let mut partitions: Vec<_> = (0..2).map(|number| Partition::new(&mut history, number)).collect();
    let mut now = Duration::ZERO;
    for _ in 0..workload.steps {
        // Many events have the same time.
        if rng.bool() {
            now += Duration::from_millis(rng.u64(1..10));
        }
        history.at(now);
        let partition = rng.usize(..partitions.len());
        let mut world = World { history: &mut history, rng: &mut rng, workload };
        partitions[partition].step(&mut world);
    }
    history.at(now + Duration::from_secs(1));
    for partition in &partitions {
        history.log(partition.log());
    }
    history
}

struct World<'a> {
    history: &'a mut History,
    rng: &'a mut Rng,
    workload: Workload,
}

struct Partition {
    name: (&'static str, i32),
    /// By offset from 0; `None` holds no record.
    log: Vec<Option<String>>,
    /// The base offsets of its batches, and their producers.
    batches: Vec<(usize, Option<(i64, i16)>)>,
    start: usize,
    writers: Vec<State>,
    readers: Vec<ReaderState>,
    values: usize,
    takeovers: usize,
    /// The producer of the name, as the coordinator knows it.
    named: (i64, i16),
    transactions: Vec<Transaction>,
    /// Appends of unknown outcome whose fate is decided, and their values.
    decided: Vec<(AppendId, Vec<String>)>,
}

struct State {
    id: WriterId,
    exclusive: bool,
    producer: (i64, i16),
    goes_on: bool,
    ended: bool,
    /// The offset after the acknowledged records that it knows of.
    acked: usize,
    /// Submitted appends that are not on the log.
    queue: VecDeque<Pending>,
}

struct Pending {
    append: AppendId,
    values: Vec<String>,
    given_up: bool,
}

struct ReaderState {
    id: ReaderId,
    bare: bool,
    committed: bool,
    position: usize,
    /// The first offset of lost records that it has seen.
    diverged: Option<usize>,
    recreated: bool,
    /// `None` if it does not fetch ahead.
    ahead: Option<Ahead>,
}

impl ReaderState {
    /// Returns the offset after everything that it has fetched.
    fn fetched(&self) -> usize {
        self.ahead.as_ref().and_then(Ahead::end).unwrap_or(self.position)
    }
}

impl State {
    fn new(history: &mut History, name: (&'static str, i32), goes_on: bool) -> Self {
        let writer = match goes_on {
            false => Writer::new(name).deadline(Duration::from_secs(60)),
            true => Writer::new(name).deadline(Duration::from_secs(90)).on_failure_continue(),
        };
        let id = history.writer(writer);
        Self {
            id,
            exclusive: false,
            producer: (id.0 as i64, 0),
            goes_on,
            ended: false,
            acked: 0,
            queue: VecDeque::new(),
        }
    }
}

impl Partition {
    fn new(history: &mut History, number: i32) -> Self {
        let name = ("wal", number);
        let mut writers = Vec::new();
        for goes_on in [false, true] {
            writers.push(State::new(history, name, goes_on));
        }
        let mut readers = Vec::new();
        for (bare, committed, ahead) in
            [(false, false, false), (true, false, false), (false, true, false), (false, false, true)]
        {
            let id = history.reader(reader(name, 0, bare, committed));
            let ahead = ahead.then(Ahead::default);
            let (position, diverged, recreated) = (0, None, false);
            readers.push(ReaderState { id, bare, committed, position, diverged, recreated, ahead });
        }
        Self {
            name,
            log: Vec::new(),
            batches: Vec::new(),
            start: 0,
            writers,
            readers,
            values: 0,
            takeovers: 0,
            named: (1_000, -1),
            transactions: Vec::new(),
            decided: Vec::new(),
        }
    }

    fn land(&mut self, producer: Option<(i64, i16)>, batch: impl IntoIterator<Item = Option<String>>) {
        self.batches.push((self.log.len(), producer));
        self.log.extend(batch);
    }

    /// A record that is a barrier; only some of them are those of a writer of the history.
    fn land_barrier(&mut self, producer: (i64, i16)) {
        self.takeovers += 1;
        self.land(Some(producer), [Some(format!("~barrier~{}", self.takeovers))]);
    }

    fn step(&mut self, world: &mut World<'_>) {
        let writer = world.rng.usize(..self.writers.len());
        let reader = world.rng.usize(..self.readers.len());
        match world.rng.u8(..112) {
            100..105 => self.append_in_transaction(world),
            105..107 => self.end_transaction(world),
            107..110 => self.replay(reader, world),
            110.. => self.resume(reader, world),
            0..35 => self.submit(writer, world),
            35..65 => self.serve(writer, world),
            65..68 => self.give_up(writer, world),
            68..70 => self.land(None, [None]),
            70..72 => self.take_over(world),
            72..90 => self.read(reader, world),
            90..94 => self.resolve(world),
            94 => self.close(writer, world),
            99 => self.renew(writer),
            95 => world.history.read_failed(self.readers[reader].id, ReadFailure::Other),
            96 if world.workload.losses => self.truncate(world),
            97 if world.workload.losses => {
                self.start = world.rng.usize(self.start..=self.log.len());
                world.history.deleted(self.name, self.start as i64);
            }
            98 if world.workload.losses && world.rng.u8(..4) == 0 => self.recreate(world),
            _ => {}
        }
    }

    /// A holder gets the next epoch from its coordinator, of which nothing is on the log.
    fn renew(&mut self, writer: usize) {
        let state = &mut self.writers[writer];
        if state.exclusive && !state.ended {
            self.named.1 += 1;
            state.producer = self.named;
        }
    }

    fn submit(&mut self, writer: usize, world: &mut World<'_>) {
        let values: Vec<_> = (0..world.rng.usize(1..=world.workload.batch))
            .map(|_| {
                self.values += 1;
                format!("{}-{}", self.name.1, self.values)
            })
            .collect();
        let state = &mut self.writers[writer];
        let append = match world.rng.u8(..10) {
            0 => {
                let append = world.history.queue(state.id, &values);
                world.history.withdrawn(append);
                return;
            }
            1 => world.history.queue(state.id, &values),
            2 => world.history.start(state.id, &values),
            _ => world.history.submit(state.id, &values),
        };
        if state.ended {
            world.history.not_appended(append);
        } else {
            state.queue.push_back(Pending { append, values, given_up: false });
        }
    }

    /// The next append of a writer succeeds or fails, and its caller gets the result.
    fn serve(&mut self, writer: usize, world: &mut World<'_>) {
        let Some(pending) = self.writers[writer].queue.pop_front() else { return };
        let base = self.log.len() as i64;
        let fate = world.rng.u8(..20);
        if fate < 16 {
            self.land(Some(self.writers[writer].producer), pending.values.iter().cloned().map(Some));
        }
        match (pending.given_up, fate) {
            (false, 0..14) => {
                self.writers[writer].acked = self.log.len();
                return world.history.acked(pending.append, base);
            }
            (true, 0..16) => return,
            _ => {}
        }
        // The failure precedes its report: appends submitted in between, at the same time, do not depend on
        // it.
        let behind = if self.writers[writer].goes_on {
            VecDeque::new()
        } else {
            std::mem::take(&mut self.writers[writer].queue)
        };
        if world.rng.bool() {
            self.submit(writer, world);
        }
        if !pending.given_up {
            match fate {
                14..18 => {
                    world.history.unknown(pending.append);
                    self.decided.push((pending.append, pending.values));
                }
                _ => world.history.not_appended(pending.append),
            }
        }
        fail(behind, world);
    }

    /// Somebody finds out what became of an append.
    fn resolve(&self, world: &mut World<'_>) {
        if self.decided.is_empty() {
            return;
        }
        let (append, values) = &self.decided[world.rng.usize(..self.decided.len())];
        world.history.resolve(*append);
        let is_first = |record: &Option<String>| record.as_ref() == values.first();
        let base = self.log.iter().position(is_first);
        // Without an answer now and then, and if it may have been deleted.
        if world.rng.u8(..4) == 0 || base.is_some_and(|base| base < self.start) {
            return;
        }
        world.history.resolved(*append, base.map(|base| base as i64));
    }

    /// A writer is closed, and another one goes on.
    fn close(&mut self, writer: usize, world: &mut World<'_>) {
        let state = &mut self.writers[writer];
        if state.exclusive || state.ended {
            return;
        }
        world.history.close(state.id);
        let left = std::mem::take(&mut state.queue);
        let failed = left.iter().filter(|pending| !pending.given_up).count();
        fail(left, world);
        world.history.closed(state.id, failed);
        *state = State::new(world.history, self.name, state.goes_on);
    }

    fn give_up(&mut self, writer: usize, world: &mut World<'_>) {
        let queue = &mut self.writers[writer].queue;
        if queue.is_empty() {
            return;
        }
        let index = world.rng.usize(..queue.len());
        if !std::mem::replace(&mut queue[index].given_up, true) {
            world.history.dropped(queue[index].append);
        }
    }

    /// Another holder of the name.
    fn take_over(&mut self, world: &mut World<'_>) {
        let id = world.history.writer(Writer::new(self.name).exclusive("me"));
        let (known, epoch) = self.named;
        self.named = (known, epoch + 1);
        if world.rng.u8(..4) == 0 {
            // The coordinator has forgotten the name.
            if epoch >= 0 {
                self.land_barrier((known, i16::MAX));
            }
            self.named = (known + 1, 0);
        }
        let offset = self.log.len() as i64;
        self.land_barrier(self.named);
        for earlier in self.writers.iter_mut().filter(|writer| writer.exclusive && !writer.ended) {
            let behind = std::mem::take(&mut earlier.queue);
            world.history.fenced(earlier.id);
            earlier.ended = true;
            fail(behind, world);
        }
        // It may not learn that it is the writer now.
        let is_confirmed = world.rng.u8(..5) > 0;
        match world.rng.bool() {
            _ if !is_confirmed => {}
            true => world.history.barrier(id, offset),
            false => world.history.barrier_as(id, offset, self.named),
        }
        self.writers.push(State {
            id,
            exclusive: true,
            producer: self.named,
            goes_on: false,
            ended: !is_confirmed,
            acked: 0,
            queue: VecDeque::new(),
        });
    }

    /// What a reader would get now.
    fn fetch(&self, reader: usize, world: &mut World<'_>) -> (Vec<(i64, String)>, usize) {
        self.fetch_from(reader, self.readers[reader].position, world)
    }

    fn fetch_from(
        &self,
        reader: usize,
        position: usize,
        world: &mut World<'_>,
    ) -> (Vec<(i64, String)>, usize) {
        let committed = self.readers[reader].committed;
        let end = if committed { self.last_stable().max(position) } else { self.log.len() };
        let next = world.rng.usize(position..=end.min(position + 20));
        let aborted = |offset: &usize| {
            committed && self.transactions.iter().any(|one| one.is_aborted() && one.offsets.contains(offset))
        };
        let offsets = (position..next).filter(|offset| !aborted(offset));
        let records = offsets.filter_map(|offset| Some((offset as i64, self.log[offset].clone()?)));
        (records.collect(), next)
    }

    fn in_range(&self, reader: usize) -> bool {
        (self.start..=self.log.len()).contains(&self.readers[reader].position)
    }

    fn read(&mut self, reader: usize, world: &mut World<'_>) {
        if self.read_ahead(reader, world) {
            return;
        }
        let state = &mut self.readers[reader];
        let failure = match (std::mem::take(&mut state.recreated), state.diverged.take(), state.bare) {
            (true, ..) => Some((ReadFailure::Recreated, self.start)),
            (false, Some(diverged), false) => {
                let at = diverged.max(self.start);
                let failure = ReadFailure::Truncated { diverged_at: diverged as i64 };
                Some((failure, at))
            }
            _ if !self.in_range(reader) => {
                let position = self.readers[reader].position;
                Some((ReadFailure::OutOfRange, position.clamp(self.start, self.log.len())))
            }
            _ => None,
        };
        let Some((failure, position)) = failure else {
            let (records, next) = self.fetch(reader, world);
            if self.readers[reader].ahead.is_some() {
                self.receive(reader, (records, next), world);
                self.hand_over(reader, world);
                return;
            }
            let state = &mut self.readers[reader];
            state.position = next;
            return world.history.read(state.id, records, next as i64);
        };
        let state = &mut self.readers[reader];
        world.history.read_failed(state.id, failure);
        world.history.seek(state.id, position as i64);
        state.position = position;
    }

    fn truncate(&mut self, world: &mut World<'_>) {
        // Brokers cut between batches.
        let outcomes = self.batches.iter().map(|(offset, _)| *offset).filter(|offset| *offset >= self.start);
        let outcomes: Vec<_> = outcomes.chain([self.log.len()]).collect();
        let offset = outcomes[world.rng.usize(..outcomes.len())];
        self.lose(offset, world, |world, name| world.history.truncated(name, offset as i64));
        for reader in &mut self.readers {
            if reader.fetched() > offset {
                let diverged = reader.diverged.map_or(offset, |diverged| diverged.min(offset));
                reader.diverged = Some(diverged);
            }
        }
    }

    fn recreate(&mut self, world: &mut World<'_>) {
        self.start = 0;
        self.lose(0, world, |world, name| world.history.recreated(name));
        for reader in &mut self.readers {
            reader.recreated = true;
        }
    }

    /// Responses and acknowledgements may be on their way while it happens.
    fn lose(&mut self, offset: usize, world: &mut World<'_>, happened: impl Fn(&mut World<'_>, (&str, i32))) {
        let under_way: Vec<_> = (0..self.readers.len())
            .map(|reader| {
                let state = &self.readers[reader];
                let answered = state.diverged.is_none() && !state.recreated && self.in_range(reader);
                // One that fetches ahead has its responses already.
                (answered && state.ahead.is_none() && world.rng.bool()).then(|| self.fetch(reader, world))
            })
            .collect();
        let writer = world.rng.usize(..self.writers.len());
        let acked = if world.rng.bool() { self.writers[writer].queue.pop_front() } else { None };
        let base = self.log.len() as i64;
        if let Some(acked) = &acked {
            self.land(Some(self.writers[writer].producer), acked.values.iter().cloned().map(Some));
            self.writers[writer].acked = self.log.len();
        }
        self.log.truncate(offset);
        self.batches.retain(|(batch, _)| *batch < offset);
        for one in &mut self.transactions {
            one.offsets.retain(|at| *at < offset);
            one.end = one.end.filter(|(marker, _)| *marker < offset);
        }
        happened(world, self.name);
        if let Some(acked) = acked.filter(|acked| !acked.given_up) {
            world.history.acked(acked.append, base);
        }
        self.end_losers(offset, world);
        for (reader, read) in self.readers.iter_mut().zip(under_way) {
            if let Some((records, next)) = read {
                world.history.read(reader.id, records, next as i64);
                reader.position = next;
            }
        }
    }

    /// A writer that has lost acknowledged records learns it and stops; another one continues.
    fn end_losers(&mut self, offset: usize, world: &mut World<'_>) {
        for writer in self.writers.iter_mut().filter(|writer| writer.acked > offset && !writer.ended) {
            let behind = std::mem::take(&mut writer.queue);
            world.history.lost(writer.id);
            fail(behind, world);
            match writer.exclusive {
                true => writer.ended = true,
                false => *writer = State::new(world.history, self.name, writer.goes_on),
            }
        }
    }

    fn log(&self) -> Log {
        let records = self.log.iter().enumerate().skip(self.start);
        let (mut log, mut found) = (Vec::new(), Vec::new());
        for (offset, value) in records {
            match value {
                Some(value) => found.push((offset as i64, value)),
                None => log.push(offset as i64),
            }
        }
        let all = Log::new(self.name, self.start as i64..self.log.len() as i64, found);
        let all = log.into_iter().fold(all, |log, offset| log.empty(offset..offset + 1));
        let aborted = self.transactions.iter().filter(|one| one.is_aborted());
        let mut aborted: Vec<_> = aborted.flat_map(|one| &one.offsets).map(|offset| *offset as i64).collect();
        aborted.sort_unstable();
        let aborted = aborted.into_iter().filter(|offset| *offset >= self.start as i64);
        let all = aborted.fold(all, |log, offset| log.aborted(offset..offset + 1));
        let all = all.last_stable(self.last_stable() as i64);
        let ends = self.batches.iter().skip(1).map(|(base, _)| *base).chain([self.log.len()]);
        self.batches.iter().zip(ends).fold(all, |log, ((base, producer), end)| {
            let offsets = (*base).max(self.start) as i64..end as i64;
            match producer {
                Some(producer) if !offsets.is_empty() => log.producer(offsets, *producer),
                _ => log,
            }
        })
    }
}

fn reader(name: (&'static str, i32), offset: i64, bare: bool, committed: bool) -> Reader {
    let reader = Reader::new(name, offset);
    let reader = if bare { reader.without_epoch() } else { reader };
    if committed { reader.committed() } else { reader }
}

fn fail(behind: VecDeque<Pending>, world: &mut World<'_>) {
    for pending in behind.into_iter().filter(|pending| !pending.given_up) {
        world.history.not_appended(pending.append);
    }
}

#[test]
fn what_is_right_passes() {
    let mut all = Tally::default();
    let seeds = std::env::var("KWAL_CHECK_SEEDS").map_or(150, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let history = generate(seed, Workload { losses: seed % 3 != 0, batch: 4, steps: 600 });
        let verdict = history.check(&Expect::default());
        assert!(verdict.holds(), "seed {seed}: {verdict}");
        let tally = verdict.tally();
        all.acked += tally.acked;
        all.not_appended += tally.not_appended;
        all.unknown += tally.unknown;
        all.dropped += tally.dropped;
        all.open += tally.open;
        all.read += tally.read;
        if seed < 20 {
            assert_eq!(history.to_string().parse::<History>().as_ref(), Ok(&history), "seed {seed}");
        }
    }
    for count in [all.acked, all.not_appended, all.unknown, all.dropped, all.open, all.read] {
        assert!(count > 1_000, "it was always the same: {all}");
    }
}

#[test]
fn a_seed_makes_one_history() {
    let workload = Workload { losses: true, batch: 4, steps: 600 };
    assert_eq!(generate(7, workload).to_string(), generate(7, workload).to_string());
    assert_ne!(generate(7, workload).to_string(), generate(8, workload).to_string());
}

/// A million records, to detect anything that grows faster than their number.
#[test]
fn large_histories_are_checked_in_linear_time() {
    let records = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let mut history = History::new();
    let name = ("wal", 0);
    let writer = history.writer(name);
    let reader = history.reader(Reader::new(name, 0));
    let mut log = Vec::new();
    for base in (0..records).step_by(10) {
        let append = history.submit(writer, base..base + 10);
        match base % 500 {
            0 => history.unknown(append),
            10 => history.not_appended(append),
            _ => {}
        }
        if base % 500 != 10 {
            let at = log.len() as i64;
            if base % 500 != 0 {
                history.acked(append, at);
            }
            log.extend((at..).zip(base..base + 10));
            history.read(reader, log[at as usize..].iter().copied(), log.len() as i64);
        }
    }
    history.log(Log::new(name, 0..log.len() as i64, log.clone()));
    let begun = tokio::time::Instant::now();
    history.check(&Expect::default()).assert();
    let took = begun.elapsed();
    println!("{records} records were judged in {took:?}");

    // Also if everything about it is wrong.
    log.reverse();
    history.log(Log::new(name, 0..log.len() as i64, (0..).zip(log.iter().map(|(_, value)| *value))));
    let begun = tokio::time::Instant::now();
    let verdict = history.check(&Expect::default());
    println!("{} violations were found in {:?}", verdict.violations().len(), begun.elapsed());
    assert!(!verdict.holds());
}
