//! Transactions, and readers that resume others or replay.

use kwal_testkit::check::{Covered, Writer, WriterId};

use super::{Partition, World, reader};

/// A transaction of a producer of its own.
pub(super) struct Transaction {
    pub(super) writer: WriterId,
    pub(super) offsets: Vec<usize>,
    /// Its marker, and whether it was committed. Without one it is open.
    pub(super) end: Option<(usize, bool)>,
    /// Whether it ended, even if its marker is lost.
    pub(super) ended: bool,
}

impl Transaction {
    pub(super) fn is_aborted(&self) -> bool {
        matches!(self.end, Some((_, false)))
    }
}

impl Partition {
    /// Begins a transaction, or goes on with one.
    pub(super) fn append_in_transaction(&mut self, world: &mut World<'_>) {
        let open = self.transactions.iter().position(|one| !one.ended && !one.offsets.is_empty());
        let index = open.filter(|_| world.rng.bool()).unwrap_or_else(|| {
            let writer = Writer::new(self.name).transactional().without_ids().on_failure_continue();
            let writer = world.history.writer(writer);
            self.transactions.push(Transaction { writer, offsets: Vec::new(), end: None, ended: false });
            self.transactions.len() - 1
        });
        let values: Vec<_> = (0..world.rng.usize(1..=world.workload.batch))
            .map(|_| {
                self.values += 1;
                format!("{}-{}", self.name.1, self.values)
            })
            .collect();
        let append = world.history.submit(self.transactions[index].writer, &values);
        world.history.unknown(append);
        let base = self.log.len();
        self.transactions[index].offsets.extend(base..base + values.len());
        self.land(None, values.into_iter().map(Some));
    }

    pub(super) fn end_transaction(&mut self, world: &mut World<'_>) {
        let open = self.transactions.iter().enumerate();
        let open: Vec<_> =
            open.filter(|(_, one)| one.end.is_none() && !one.offsets.is_empty()).map(|(i, _)| i).collect();
        if open.is_empty() {
            return;
        }
        let index = open[world.rng.usize(..open.len())];
        let committed = world.rng.bool();
        let marker = self.log.len();
        (self.transactions[index].end, self.transactions[index].ended) = (Some((marker, committed)), true);
        self.land(None, [None]);
        world.history.transaction_ended(self.transactions[index].writer, committed);
    }

    pub(super) fn last_stable(&self) -> usize {
        let open = self.transactions.iter().filter(|one| one.end.is_none());
        open.filter_map(|one| one.offsets.first().copied()).min().unwrap_or(self.log.len()).max(self.start)
    }

    /// Another process goes on at the position of a reader.
    pub(super) fn resume(&mut self, index: usize, world: &mut World<'_>) {
        let state = &mut self.readers[index];
        // What it has fetched ahead is not handed on.
        if state.ahead.as_ref().is_some_and(|ahead| ahead.end().is_some()) {
            return;
        }
        let resumed = reader(self.name, state.position as i64, state.bare, state.committed).resumes(state.id);
        state.id = world.history.reader(resumed);
    }

    pub(super) fn replay(&mut self, reader: usize, world: &mut World<'_>) {
        let state = &self.readers[reader];
        let (from, id) = (state.position, state.id);
        let end = if state.committed { self.last_stable() } else { self.log.len() };
        if state.ahead.is_some()
            || state.diverged.is_some()
            || state.recreated
            || !self.in_range(reader)
            || end < from
        {
            return;
        }
        match world.rng.bool() {
            true => world.history.replay(id, end as i64),
            false => world.history.replay_to(id, end as i64),
        }
        let (mut count, mut offsets) = (0, Vec::new());
        while self.readers[reader].position < end {
            let (records, next) = self.fetch(reader, world);
            count += records.len();
            offsets.extend(records.iter().map(|(offset, _)| *offset));
            self.readers[reader].position = next;
            world.history.read(id, records, next as i64);
        }
        let covered = Covered::new(from as i64..end as i64, count as u64);
        let gaps = (from as i64..end as i64).filter(|offset| offsets.binary_search(offset).is_err());
        world.history.replayed(id, gaps.fold(covered, |covered, offset| covered.gap(offset..offset + 1)));
    }
}
