//! Checks that each partition has one exclusive writer of a name at a time.

use std::collections::BTreeMap;

use super::{Judge, is_empty, record_at};
use crate::check::{
    facts::Barrier,
    types::{Log, Producer},
    value::Value,
    verdict::Rule,
};

/// The exclusive writers of one name.
#[derive(Default)]
struct Holders {
    /// By offset: the offset, the event and the writer.
    barriers: Vec<(i64, usize, usize)>,
    /// The writers whose barrier was lost, with the event of the barrier.
    lost: BTreeMap<usize, usize>,
}

/// Why a record of an exclusive writer is misplaced.
enum Fault {
    /// A later writer's barrier is at this lower offset.
    Behind(i64, usize),
    /// Its own writer's barrier comes only after it.
    Before,
}

impl Holders {
    fn at_fault(&self, writer: usize, offset: i64) -> Option<Fault> {
        let before = &self.barriers[..self.barriers.partition_point(|(barrier, ..)| *barrier < offset)];
        let (barrier, _, holder) = match (before.last(), self.lost.get(&writer)) {
            (Some((.., holder)), _) if *holder == writer => return None,
            // The offset no longer shows which of them is the later one.
            (_, Some(had)) => before.iter().find(|(_, event, holder)| event > had && *holder != writer)?,
            (last, None) => match (last, self.barriers.iter().find(|(.., holder)| *holder == writer)?) {
                (Some(last), (own, ..)) if *own < offset => last,
                _ => return Some(Fault::Before),
            },
        };
        Some(Fault::Behind(*barrier, *holder))
    }
}

impl Judge<'_, '_, '_> {
    /// Checks that barriers are at their offsets, and that no earlier writer appended after them.
    pub(super) fn barriers(&mut self) {
        let partition = self.partition;
        let mut of_name: BTreeMap<&Value, Holders> = BTreeMap::new();
        for barrier @ Barrier { event, writer, offset, .. } in &partition.barriers {
            let Some(name) = &self.facts.writers[*writer].writer.exclusive else {
                self.finds(barrier);
                continue;
            };
            let there = self.finds(barrier);
            let holders = of_name.entry(name).or_default();
            if there {
                holders.barriers.push((*offset, *event, *writer));
            } else {
                holders.lost.insert(*writer, *event);
            }
        }
        for holders in of_name.values_mut() {
            holders.barriers.sort_unstable();
        }
        if of_name.is_empty() {
            return;
        }
        let mut reported = None;
        for (offset, value) in &self.log.records {
            let Some((index, _)) = self.facts.owner(value) else { continue };
            let writer = self.facts.appends[index].writer;
            let name = self.facts.writers[writer].writer.exclusive.as_ref();
            let Some(holders) = name.and_then(|name| of_name.get(name)) else { continue };
            let problem = match holders.at_fault(writer, *offset) {
                Some(Fault::Behind(barrier, holder)) => {
                    format!("after the barrier of {} at {barrier}", self.facts.writers[holder].id)
                }
                Some(Fault::Before) => "before its barrier".to_owned(),
                None => continue,
            };
            if reported.replace(index) != Some(index) {
                let id = self.facts.writers[writer].id;
                self.violated(Rule::OneWriter, index, Some(*offset), |append| {
                    format!("{} of {id} is at {offset}, {problem}", append.id)
                });
            }
        }
    }

    /// Checks that a barrier is on the log, unless it was lost; returns whether it counts.
    fn finds(&mut self, barrier: &Barrier) -> bool {
        let Barrier { event, offset, writer, .. } = *barrier;
        let there = record_at(self.log, offset).map(|value| self.facts.owner(value).is_none());
        // It was appended before the writer learned of it.
        let since = self.facts.writers[writer].opened;
        if self.partition.lost(since, offset).is_some() {
            // It may be there all the same, unless another barrier took its offset.
            let later = self.partition.barriers.iter().rev().find(|barrier| barrier.offset == offset);
            return there == Some(true)
                && later.is_none_or(|later| later.event == event)
                && self.is_still(barrier);
        }
        if there == Some(true) || is_empty(self.log, offset) {
            return true;
        }
        self.missing.extend(there.is_none().then_some(offset));
        if event < self.event && !self.is_excused(since, offset) {
            let writer = self.facts.writers[writer].id;
            self.verdict.violated(Rule::Durable, [(event, None), (self.event, Some(offset))], || {
                format!("the barrier of {writer} is missing at {offset}")
            });
        }
        true
    }

    /// Checks that no batch on an earlier epoch of its producer id follows a barrier, confirmed or not.
    pub(super) fn epochs(&mut self) {
        let mut barriers: Vec<_> = self.partition.barriers.iter().map(|barrier| barrier.offset).collect();
        barriers.sort_unstable();
        let log = self.log;
        // By producer id: the epoch and the offset of the barrier on the highest epoch.
        let mut fenced: BTreeMap<i64, (i16, i64)> = BTreeMap::new();
        for (offsets, producer) in &log.producers {
            if let Some((epoch, barrier)) =
                fenced.get(&producer.id).filter(|(epoch, _)| producer.epoch < *epoch)
            {
                let owner = record_at(log, offsets.start).and_then(|value| self.facts.owner(value));
                let append = owner.map(|(append, _)| self.append(append).events());
                let events = append.into_iter().flatten().chain([(self.event, Some(offsets.start))]);
                self.verdict.violated(Rule::OneWriter, events, || {
                    let (at, id) = (offsets.start, producer.id);
                    format!(
                        "a batch of {producer} is at {at}, after the barrier of {id}/{epoch} at {barrier}"
                    )
                });
            }
            let value = record_at(log, offsets.start);
            let is_barrier = value.is_some_and(|value| {
                value.is_barrier()
                    || self.facts.owner(value).is_none() && barriers.binary_search(&offsets.start).is_ok()
            });
            if is_barrier && fenced.get(&producer.id).is_none_or(|(epoch, _)| *epoch < producer.epoch) {
                fenced.insert(producer.id, (producer.epoch, offsets.start));
            }
        }
    }

    /// Checks that barriers and appends of exclusive writers are of the producers that the history names.
    pub(super) fn producers(&mut self) {
        let (partition, log) = (self.partition, self.log);
        if log.producers.is_empty() {
            return;
        }
        let mut of_writers = BTreeMap::new();
        for barrier @ Barrier { event, writer, offset, producer } in &partition.barriers {
            let Some(producer) = producer else { continue };
            of_writers.insert(*writer, (*event, *producer));
            let own = record_at(log, *offset).is_some_and(|value| self.facts.owner(value).is_none());
            if own && self.is_latest_at(barrier) && producer_at(log, *offset) != Some(*producer) {
                let id = self.facts.writers[*writer].id;
                let there = name(producer_at(log, *offset));
                self.verdict.violated(Rule::OneWriter, [(*event, None), (self.event, Some(*offset))], || {
                    format!("the barrier of {id} at {offset} is of {there}, not of {producer}")
                });
            }
        }
        let mut reported = None;
        for (offset, value) in &log.records {
            let Some((index, _)) = self.facts.owner(value) else { continue };
            let writer = self.facts.appends[index].writer;
            let Some((barrier, own)) = of_writers.get(&writer) else { continue };
            let there = producer_at(log, *offset);
            let is_own = there.is_some_and(|there| there.id == own.id && there.epoch >= own.epoch);
            if is_own || reported.replace(index) == Some(index) {
                continue;
            }
            let append = &self.facts.appends[index];
            let events = append.events().chain([(*barrier, None), (self.event, Some(*offset))]);
            self.verdict.violated(Rule::OneWriter, events, || {
                let id = self.facts.writers[writer].id;
                let there = name(there);
                format!("{} of {id} is at {offset} and of {there}, and its barrier is of {own}", append.id)
            });
        }
    }

    /// Returns whether the record at the offset of a barrier that may have been lost is that barrier, and not
    /// one that nobody has confirmed.
    fn is_still(&self, barrier: &Barrier) -> bool {
        match barrier.producer.filter(|_| !self.log.producers.is_empty()) {
            Some(producer) => producer_at(self.log, barrier.offset) == Some(producer),
            None => record_at(self.log, barrier.offset).is_some_and(|value| !value.is_barrier()),
        }
    }

    /// Returns whether the record at the offset of a barrier is that barrier, if it is one at all.
    fn is_latest_at(&self, barrier: &Barrier) -> bool {
        let since = self.facts.writers[barrier.writer].opened;
        let lost = self.partition.lost(since, barrier.offset).is_some();
        let mut later = self.partition.barriers.iter().filter(|other| other.event > barrier.event);
        !lost && later.all(|other| other.offset != barrier.offset)
    }
}

/// Returns the producer of the batch at an offset.
pub(super) fn producer_at(log: &Log, offset: i64) -> Option<Producer> {
    let index = log.producers.partition_point(|(offsets, _)| offsets.end <= offset);
    log.producers.get(index).filter(|(offsets, _)| offsets.contains(&offset)).map(|(_, producer)| *producer)
}

fn name(producer: Option<Producer>) -> String {
    producer.map_or_else(|| "no producer".to_owned(), |producer| producer.to_string())
}
