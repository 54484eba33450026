//! Puts entries together from their fragments: the state machine, without IO.
//!
//! A reader offers it each record in offset order. Before it takes one, it may have to give up an entry, one
//! at a time: that is [`Step::Before`], and the same record is offered again. So between two steps the
//! state is always that of an offset, from which [`Assembler::checkpoint`] can be resumed.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use kwal_client::{Position, record::Barrier};
use kwal_protocol::record::{Headers, OwnedRecord};

use super::{
    checkpoint::Checkpoint,
    header::{EntryId, Fragment, MalformedFragment},
    item::{Corruption, Entry, Incomplete, Reason},
};

/// How many entries that were reported are remembered, so that what comes of them later is skipped.
const MAX_GIVEN_UP: usize = 1_000;
/// What an unfinished entry takes beside its bytes, about.
const OVERHEAD: usize = 512;
/// What a header takes beside its bytes, about.
const OF_HEADER: usize = 64;

/// What an assembler keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_entry_bytes: usize,
    pub(super) memory: usize,
    pub(super) max_unfinished: usize,
    pub(super) max_span: i64,
}

impl Limits {
    fn max_entry_bytes(&self) -> usize {
        self.max_entry_bytes.min(self.memory)
    }
}

/// A record that was read, and where it comes from.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) record: OwnedRecord,
    /// What its headers say, if it is a fragment.
    pub(super) fragment: Option<Result<Fragment, MalformedFragment>>,

    /// Where reading has to begin in order to get it.
    pub(super) before: Position,
    /// Where reading goes on after it.
    pub(super) after: Position,
    /// The producer id and the epoch of its batch.
    pub(super) producer: Option<(i64, i16)>,
}

impl Arrival {
    fn offset(&self) -> i64 {
        self.record.offset
    }

    fn value(&self) -> &[u8] {
        self.record.value.as_deref().unwrap_or_default()
    }
}

/// What an assembler does with a record.
#[derive(Debug)]
pub(super) enum Step {
    /// It gave up an entry, and has not taken the record.
    Before(Incomplete),
    /// It took it.
    Taken,
    /// It is an entry by itself.
    Plain,
    /// It was the last one of an entry that is whole.
    Entry(Entry),
    /// The entry of the fragment is not whole.
    Incomplete(Incomplete),
}

/// The entries that are unfinished.
#[derive(Debug)]
pub(super) struct Assembler {
    pub(super) limits: Limits,
    open: BTreeMap<EntryId, Open>,
    /// Those that are open, by the offset of their first record.
    oldest: BTreeMap<i64, EntryId>,
    /// In the order in which they were given up.
    given_up: VecDeque<GivenUp>,
    /// What all that are open take.
    bytes: usize,
    /// What ends before this offset was returned before.
    until: i64,
    /// The offset of the last record that was taken.
    taken: i64,
}

/// An entry whose end was not read.
#[derive(Debug)]
struct Open {
    /// What the headers of each of its fragments say; the index is that of the last one.
    fragment: Fragment,
    /// Whether its beginning was not read. That was reported, unless the entry goes on after `until`.
    is_headless: bool,
    first: i64,
    last: i64,
    before: Position,
    producer: Option<(i64, i16)>,
    timestamp_ms: i64,
    key: Option<Bytes>,
    headers: Headers,
    value: Vec<u8>,
    crc32c: u32,
    /// What it takes beside the capacity of `value`.
    overhead: usize,
}

impl Open {
    fn new(fragment: Fragment, arrival: &Arrival) -> Self {
        Self {
            fragment,
            is_headless: true,
            first: arrival.offset(),
            last: arrival.offset(),
            before: arrival.before,
            producer: arrival.producer,
            timestamp_ms: arrival.record.timestamp_ms,
            key: None,
            headers: Headers::new(),
            value: Vec::new(),
            crc32c: 0,
            overhead: OVERHEAD,
        }
    }

    fn size(&self) -> usize {
        self.overhead + self.value.capacity()
    }

    /// Returns what is wrong with its next fragment.
    fn check(&self, fragment: Fragment, value: &[u8]) -> Option<Corruption> {
        let expected = Fragment { index: fragment.index, ..self.fragment };
        let next = self.fragment.index + 1;
        let end = self.value.len() as u64 + value.len() as u64;
        match fragment {
            fragment if fragment != expected => Some(Corruption::Headers),
            Fragment { index, .. } if index < next => Some(Corruption::Duplicate),
            Fragment { index, .. } if index > next => Some(Corruption::Missing),
            Fragment { length, .. } if end > length || (fragment.is_last() && end < length) => {
                Some(Corruption::Length)
            }
            _ => None,
        }
    }

    /// Returns the capacity that its value has to have for so many bytes more: at most twice what arrived,
    /// whatever the headers say.
    fn capacity_for(&self, more: usize) -> usize {
        let (needed, capacity) = (self.value.len() + more, self.value.capacity());
        if needed <= capacity {
            return capacity;
        }
        let length = usize::try_from(self.fragment.length).unwrap_or(usize::MAX);
        capacity.saturating_mul(2).min(length).max(needed)
    }

    fn push(&mut self, value: &[u8], capacity: usize) {
        self.value.reserve_exact(capacity - self.value.len());
        self.value.extend_from_slice(value);
        self.crc32c = crc32c::crc32c_append(self.crc32c, value);
    }

    fn report(&self, entry: EntryId, reason: Reason) -> Incomplete {
        Incomplete {
            entry: Some(entry),
            reason: if self.is_headless { Reason::CutOff } else { reason },
            first: self.first,
            last: self.last,
            length: self.fragment.length,
            arrived: self.value.len() as u64,
        }
    }
}

/// An entry that was reported.
#[derive(Clone, Copy, Debug)]
struct GivenUp {
    entry: EntryId,
    /// The offset of the last record of it that was read.
    last: i64,
    /// Whether none can follow.
    is_ended: bool,
}

impl Assembler {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: BTreeMap::new(),
            oldest: BTreeMap::new(),
            given_up: VecDeque::new(),
            bytes: 0,
            until: i64::MIN,
            taken: i64::MIN,
        }
    }

    /// Goes on where another one was.
    pub(super) fn resume(&mut self, checkpoint: &Checkpoint) {
        self.until = checkpoint.until;
        let skipped = checkpoint.given_up.len().saturating_sub(MAX_GIVEN_UP);
        let given_up = checkpoint.given_up.iter().skip(skipped);
        self.given_up =
            given_up.map(|entry| GivenUp { entry: *entry, last: i64::MIN, is_ended: false }).collect();
    }

    /// Returns where another one can go on, if all before a position was offered, and all that came of it was
    /// returned.
    pub(super) fn checkpoint(&self, position: Position) -> Checkpoint {
        // What is open is of what is gone, and the next record ends it.
        if self.is_rewound(position.offset) {
            return position.into();
        }
        let oldest = self.oldest.values().next().and_then(|entry| self.open.get(entry));
        Checkpoint {
            from: oldest.map_or(position, |oldest| oldest.before),
            until: position.offset.max(self.until),
            given_up: self.given_up.iter().map(|given_up| given_up.entry).collect(),
        }
    }

    /// Returns what is unfinished, in the order of first records.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = Incomplete> {
        let open = |entry: &EntryId| Some(self.open.get(entry)?.report(*entry, Reason::Unfinished));
        self.oldest.values().filter_map(open)
    }

    /// Gives up an entry because the caller says so.
    pub(super) fn give_up(&mut self, entry: EntryId) -> Option<Incomplete> {
        self.end(entry, Reason::Unfinished, false)
    }

    /// Whether the log was moved back to an offset.
    pub(super) fn is_rewound(&self, offset: i64) -> bool {
        offset <= self.taken
    }

    /// Offers a record.
    pub(super) fn offer(&mut self, arrival: &Arrival) -> Step {
        let offset = arrival.offset();
        let given_up = if self.is_rewound(offset) { self.rewind() } else { self.overdue(offset) };
        if let Some(given_up) = given_up {
            return Step::Before(given_up);
        }
        let step = match arrival.fragment {
            Some(Ok(fragment)) => self.offer_fragment(fragment, arrival),
            Some(Err(malformed)) => self.malformed(arrival, malformed),
            None => self.plain(arrival),
        };
        if !matches!(step, Step::Before(_)) {
            self.taken = offset;
        }
        step
    }

    /// Whether what ends at an offset was returned before.
    fn is_known(&self, offset: i64) -> bool {
        offset < self.until
    }

    /// Gives up one entry because reading was moved back. Forgets everything when there is none left.
    fn rewind(&mut self) -> Option<Incomplete> {
        if let Some(entry) = self.oldest.values().next().copied() {
            return self.end(entry, Reason::Unfinished, true);
        }
        self.given_up.clear();
        (self.until, self.taken) = (i64::MIN, i64::MIN);
        None
    }

    /// Gives up one entry that began too far before an offset, if there is one.
    fn overdue(&mut self, offset: i64) -> Option<Incomplete> {
        let (first, _) = self.oldest.first_key_value()?;
        let is_overdue = offset.saturating_sub(*first) > self.limits.max_span;
        if is_overdue { self.evict() } else { None }
    }

    fn plain(&mut self, arrival: &Arrival) -> Step {
        if let Some(abandoned) = self.fence(arrival) {
            return Step::Before(abandoned);
        }
        if self.is_known(arrival.offset()) { Step::Taken } else { Step::Plain }
    }

    /// Gives up one entry that a barrier shuts out, if there is one.
    fn fence(&mut self, arrival: &Arrival) -> Option<Incomplete> {
        let (id, epoch) = arrival.producer.filter(|_| !self.open.is_empty())?;
        Barrier::parse(&arrival.record)?;
        let is_fenced =
            |open: &Open| open.producer.is_some_and(|producer| producer.0 == id && producer.1 < epoch);
        loop {
            let mut oldest = self.oldest.values().copied();
            let entry = oldest.find(|entry| self.open.get(entry).is_some_and(is_fenced))?;
            let incomplete = self.end(entry, Reason::Abandoned, true);
            if !self.is_known(arrival.offset()) {
                return incomplete;
            }
        }
    }

    /// Reports a record that is not a fragment, and looks like one.
    fn malformed(&self, arrival: &Arrival, malformed: MalformedFragment) -> Step {
        if self.is_known(arrival.offset()) {
            return Step::Taken;
        }
        let (offset, arrived) = (arrival.offset(), arrival.value().len() as u64);
        let reason = Reason::Malformed(malformed);
        let (first, last, length) = (offset, offset, arrived);
        Step::Incomplete(Incomplete { entry: None, reason, first, last, length, arrived })
    }

    fn offer_fragment(&mut self, fragment: Fragment, arrival: &Arrival) -> Step {
        let (entry, offset) = (fragment.entry, arrival.offset());
        // A writer finishes one entry before it begins the next.
        let earlier = EntryId { number: 0, ..entry }..entry;
        while let Some(abandoned) = self.open.range(earlier.clone()).next().map(|(entry, _)| *entry) {
            let incomplete = self.end(abandoned, Reason::Abandoned, true);
            if let Some(incomplete) = incomplete.filter(|_| !self.is_known(offset)) {
                return Step::Before(incomplete);
            }
        }
        if self.skip(fragment, offset, earlier) {
            return Step::Taken;
        }
        let value = arrival.value();
        let Some(open) = self.open.get_mut(&entry) else {
            return match fragment.index {
                0 => self.begin(fragment, arrival),
                _ => self.begin_headless(fragment, arrival),
            };
        };
        let problem = match open.is_headless {
            false => open.check(fragment, value).map(Reason::Corrupt),
            true if fragment.is_last() || offset >= self.until => Some(Reason::CutOff),
            true => {
                open.last = offset;
                return Step::Taken;
            }
        };
        if let Some(reason) = problem {
            open.last = offset;
            return self.fail(entry, reason, fragment.is_last());
        }
        let capacity = open.capacity_for(value.len());
        let more = capacity - open.value.capacity();
        if let Some(evicted) = self.make_room(more) {
            return Step::Before(evicted);
        }
        let Some(open) = self.open.get_mut(&entry) else { return Step::Taken };
        let before = open.size();
        open.push(value, capacity);
        self.bytes += open.size() - before;
        (open.last, open.fragment, open.producer) = (offset, fragment, arrival.producer);
        match (fragment.is_last(), open.crc32c == fragment.crc32c) {
            (false, _) => Step::Taken,
            (true, true) => self.finish(entry, arrival.after),
            (true, false) => self.fail(entry, Reason::Corrupt(Corruption::Checksum), true),
        }
    }

    /// Whether a fragment is of an entry that was reported.
    fn skip(&mut self, fragment: Fragment, offset: i64, earlier: std::ops::Range<EntryId>) -> bool {
        if self.given_up.is_empty() {
            return false;
        }
        let mut is_given_up = false;
        for given_up in self.given_up.iter_mut().filter(|given_up| !given_up.is_ended) {
            if given_up.entry == fragment.entry {
                is_given_up = true;
                (given_up.last, given_up.is_ended) = (offset, fragment.is_last());
            }
            given_up.is_ended |= earlier.contains(&given_up.entry);
        }
        self.forget();
        is_given_up
    }

    /// Begins an entry with its first fragment.
    fn begin(&mut self, fragment: Fragment, arrival: &Arrival) -> Step {
        let value = arrival.value();
        let mut open = Open { is_headless: false, ..Open::new(fragment, arrival) };
        // The first four headers are those of the fragment, then comes the key.
        let own = || arrival.record.headers.iter().skip(4);
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        open.overhead +=
            own().map(|header| OF_HEADER + header.key_bytes().len() + len(&header.value)).sum::<usize>();
        let capacity = open.capacity_for(value.len());
        let reason = if value.len() as u64 > fragment.length {
            Some(Reason::Corrupt(Corruption::Length))
        } else if fragment.length > self.limits.max_entry_bytes() as u64
            || open.overhead.saturating_add(capacity) > self.limits.memory
        {
            Some(Reason::TooLarge)
        } else {
            None
        };
        if let Some(reason) = reason {
            let arrived = value.len() as u64;
            let incomplete = Incomplete { arrived, ..open.report(fragment.entry, reason) };
            self.remember(fragment.entry, arrival.offset(), false);
            return if self.is_known(arrival.offset()) { Step::Taken } else { Step::Incomplete(incomplete) };
        }
        if let Some(evicted) = self.make_place().or_else(|| self.make_room(open.overhead + capacity)) {
            return Step::Before(evicted);
        }
        open.push(value, capacity);
        // Copied: the response that it came in is not kept.
        let mut own = own().map(|header| {
            let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
            (copy(header.key_bytes()), header.value.as_ref().map(copy))
        });
        open.key = own.next().and_then(|(_, key)| key);
        open.headers = own.collect();
        self.insert(fragment.entry, open);
        Step::Taken
    }

    /// Begins an entry with another fragment than its first one.
    fn begin_headless(&mut self, fragment: Fragment, arrival: &Arrival) -> Step {
        let open = Open::new(fragment, arrival);
        if self.is_known(arrival.offset()) && !fragment.is_last() {
            // It was reported, or its beginning was removed since. The latter shows if it goes on.
            if let Some(evicted) = self.make_place().or_else(|| self.make_room(open.overhead)) {
                return Step::Before(evicted);
            }
            self.insert(fragment.entry, open);
            return Step::Taken;
        }
        let arrived = arrival.value().len() as u64;
        let incomplete = Incomplete { arrived, ..open.report(fragment.entry, Reason::CutOff) };
        self.remember(fragment.entry, arrival.offset(), fragment.is_last());
        if self.is_known(arrival.offset()) { Step::Taken } else { Step::Incomplete(incomplete) }
    }

    fn insert(&mut self, entry: EntryId, open: Open) {
        self.bytes += open.size();
        self.oldest.insert(open.first, entry);
        self.open.insert(entry, open);
    }

    fn remove(&mut self, entry: EntryId) -> Option<Open> {
        let open = self.open.remove(&entry)?;
        self.oldest.remove(&open.first);
        self.bytes -= open.size();
        Some(open)
    }

    /// Returns an entry that is whole.
    fn finish(&mut self, entry: EntryId, position: Position) -> Step {
        let Some(open) = self.remove(entry) else { return Step::Taken };
        self.forget();
        if self.is_known(open.last) {
            return Step::Taken;
        }
        let Open { fragment, first, last, timestamp_ms, key, headers, value, .. } = open;
        let (value, fragments) = (Some(value.into()), fragment.count);
        Step::Entry(Entry { key, value, headers, timestamp_ms, first, last, fragments, position })
    }

    /// Reports an entry that is not whole, at its fragment that was offered.
    fn fail(&mut self, entry: EntryId, reason: Reason, is_ended: bool) -> Step {
        match self.end(entry, reason, is_ended) {
            Some(incomplete) if !self.is_known(incomplete.last) => Step::Incomplete(incomplete),
            _ => Step::Taken,
        }
    }

    fn end(&mut self, entry: EntryId, reason: Reason, is_ended: bool) -> Option<Incomplete> {
        let open = self.remove(entry)?;
        self.remember(entry, open.last, is_ended);
        Some(open.report(entry, reason))
    }

    /// Gives up the oldest entry.
    fn evict(&mut self) -> Option<Incomplete> {
        let entry = *self.oldest.values().next()?;
        self.end(entry, Reason::Evicted, false)
    }

    /// Gives up the oldest entry if there is no room for so many bytes more.
    fn make_room(&mut self, more: usize) -> Option<Incomplete> {
        let fits = self.bytes.saturating_add(more) <= self.limits.memory;
        if fits { None } else { self.evict() }
    }

    /// Gives up the oldest entry if there is no place for one more.
    fn make_place(&mut self) -> Option<Incomplete> {
        let fits = self.open.len() < self.limits.max_unfinished.max(1);
        if fits { None } else { self.evict() }
    }

    /// Remembers an entry that was given up.
    fn remember(&mut self, entry: EntryId, last: i64, is_ended: bool) {
        self.given_up.push_back(GivenUp { entry, last, is_ended });
        self.forget();
        if self.given_up.len() > MAX_GIVEN_UP {
            self.given_up.pop_front();
        }
    }

    /// Forgets entries of which nothing can come: neither later nor when reading resumes at the oldest one.
    fn forget(&mut self) {
        let from = self.oldest.keys().next().copied().unwrap_or(i64::MAX);
        self.given_up.retain(|given_up| !given_up.is_ended || given_up.last >= from);
    }
}

#[cfg(test)]
mod tests;
