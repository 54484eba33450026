//! The assembler against what the log says of each entry by itself.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{super::header::HeaderWriter, *};

/// What becomes of the fragments of an entry on their way to the log.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Whole,
    /// So many are there, and the rest is not.
    Dropped(usize),
    Removed(usize),
    /// A bit of its value is another one.
    Flipped(usize),
    Twice(usize),
    /// Its headers say something else.
    Contradicts(usize),
    /// Its value is longer.
    Longer(usize),
    Shorter(usize),
}

/// An entry of a writer: the lengths of its fragments.
type Plan = (Vec<usize>, Fate);

/// Who appends next: a writer, or somebody who appends plain records.
const WRITERS: usize = 4;

fn plan() -> impl Strategy<Value = Plan> {
    let fate = |count: usize| {
        prop_oneof![
            8 => Just(Fate::Whole),
            3 => (1..count).prop_map(Fate::Dropped),
            1 => (0..count).prop_map(Fate::Removed),
            1 => (0..count).prop_map(Fate::Flipped),
            1 => (0..count).prop_map(Fate::Twice),
            1 => (1..count).prop_map(Fate::Contradicts),
            1 => (0..count).prop_map(Fate::Longer),
            1 => (0..count).prop_map(Fate::Shorter),
        ]
    };
    prop::collection::vec(1..200_usize, 2..6)
        .prop_flat_map(move |lens| (fate(lens.len()), Just(lens)).prop_map(|(fate, lens)| (lens, fate)))
}

fn log() -> impl Strategy<Value = Vec<OwnedRecord>> {
    let plans = prop::collection::vec(prop::collection::vec(plan(), 0..4), WRITERS);
    (plans, prop::collection::vec((0..=WRITERS, 0..6_usize), 0..60)).prop_map(|(plans, turns)| {
        let mut writers: Vec<Vec<OwnedRecord>> = plans
            .into_iter()
            .enumerate()
            .map(|(writer, plans)| {
                plans
                    .into_iter()
                    .enumerate()
                    .flat_map(|(number, plan)| fragments(writer, number, plan))
                    .rev()
                    .collect()
            })
            .collect();
        let mut log = Vec::new();
        for (writer, times) in turns.into_iter().chain((0..WRITERS).map(|writer| (writer, usize::MAX))) {
            match writers.get_mut(writer) {
                Some(queue) => log.extend((0..times).map_while(|_| queue.pop())),
                None => log.push(record(Some("plain"), Bytes::from_static(b"p"), Headers::new())),
            }
        }
        for (index, record) in log.iter_mut().enumerate() {
            // With gaps.
            record.offset = 2 * index as i64 + 1;
        }
        log
    })
}

fn record(key: Option<&'static str>, value: Bytes, headers: Headers) -> OwnedRecord {
    let key = key.map(|key| Bytes::from_static(key.as_bytes()));
    OwnedRecord { offset: 0, timestamp_ms: 7, leader_epoch: 3, key, value: Some(value), headers }
}

fn id(writer: usize, number: usize) -> EntryId {
    EntryId { writer: [writer as u8; 16], number: number as u64 }
}

/// Returns the value of an entry: what is at an index depends on all of it.
fn content(entry: EntryId, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u64 * 31 + entry.number * 7 + u64::from(entry.writer[0])) as u8).collect()
}

fn fragments(writer: usize, number: usize, (lens, fate): Plan) -> Vec<OwnedRecord> {
    let entry = id(writer, number);
    let (count, length) = (lens.len(), lens.iter().sum());
    let value = content(entry, length);
    let headers = HeaderWriter::new(entry, count as u32, length, crc32c::crc32c(&value));
    let other = HeaderWriter::new(entry, count as u32, length + 1, crc32c::crc32c(&value));
    let mut rest = Bytes::from(value);
    let mut fragments = Vec::new();
    for (index, len) in lens.iter().enumerate() {
        let mut part = rest.split_to(*len).to_vec();
        let headers = match fate {
            Fate::Contradicts(at) if at == index => &other,
            _ => &headers,
        };
        match fate {
            Fate::Flipped(at) if at == index => part[0] ^= 1,
            Fate::Longer(at) if at == index => part.push(0),
            Fate::Shorter(at) if at == index => drop(part.pop()),
            Fate::Dropped(at) if at == index => break,
            Fate::Removed(at) if at == index => continue,
            _ => {}
        }
        let headers = match index {
            0 => headers.first(Some("key".into()), [("own", "header")].into()),
            _ => headers.further(index as u32),
        };
        let fragment = record(None, part.into(), headers);
        fragments.extend(matches!(fate, Fate::Twice(at) if at == index).then(|| fragment.clone()));
        fragments.push(fragment);
    }
    fragments
}

/// What comes of a log, and at which offset: a plain record, an entry, or what is wrong with one.
type Event = (i64, Option<EntryId>, Option<Reason>);

/// Returns what has to come of a log: each entry is judged by its own fragments alone.
fn expected(log: &[OwnedRecord]) -> (Vec<Event>, BTreeSet<EntryId>) {
    let parsed: Vec<_> =
        log.iter().map(|record| (record, Fragment::parse(record).map(Result::unwrap))).collect();
    let plain = parsed.iter().filter(|(_, fragment)| fragment.is_none());
    let mut events: Vec<Event> = plain.map(|(record, _)| (record.offset, None, None)).collect();
    let mut unfinished = BTreeSet::new();
    let entries: BTreeSet<_> =
        parsed.iter().filter_map(|(_, fragment)| Some(fragment.as_ref()?.entry)).collect();
    for entry in entries {
        let of = |fragment: &Fragment| fragment.entry == entry;
        let all = parsed.iter().filter_map(|(record, fragment)| Some((*record, fragment.filter(of)?)));
        let mut all = all.collect::<Vec<_>>().into_iter().peekable();
        // More than once if something comes after its last fragment.
        while all.peek().is_some() {
            let (mut value, mut headers, mut next, mut event) = (Vec::new(), None, 0, None);
            for (record, fragment) in all.by_ref() {
                let what = (fragment.count, fragment.length, fragment.crc32c);
                let problem = match headers {
                    _ if fragment.index != 0 && headers.is_none() => Some(Reason::CutOff),
                    Some(first) if first != what => Some(Reason::Corrupt(Corruption::Headers)),
                    _ if fragment.index < next => Some(Reason::Corrupt(Corruption::Duplicate)),
                    _ if fragment.index > next => Some(Reason::Corrupt(Corruption::Missing)),
                    _ => {
                        value.extend_from_slice(record.value.as_ref().unwrap());
                        let len = value.len() as u64;
                        let is_last = fragment.index + 1 == fragment.count;
                        if len > fragment.length || (is_last && len < fragment.length) {
                            Some(Reason::Corrupt(Corruption::Length))
                        } else if is_last && value != content(entry, value.len()) {
                            Some(Reason::Corrupt(Corruption::Checksum))
                        } else {
                            None
                        }
                    }
                };
                (headers, next) = (Some(what), fragment.index + 1);
                let is_last = fragment.index + 1 == fragment.count;
                if event.is_none() && (problem.is_some() || is_last) {
                    event = Some((record.offset, Some(entry), problem));
                }
                if is_last {
                    break;
                }
            }
            let later = |(_, fragment): &&(&OwnedRecord, Option<Fragment>)| {
                fragment.is_some_and(|other| {
                    other.entry.writer == entry.writer && other.entry.number > entry.number
                })
            };
            match (event, parsed.iter().find(later)) {
                (Some(event), _) => events.push(event),
                (None, Some((record, _))) => {
                    events.push((record.offset, Some(entry), Some(Reason::Abandoned)));
                }
                (None, None) => drop(unfinished.insert(entry)),
            }
        }
    }
    events.sort_by_key(|event| format!("{event:?}"));
    (events, unfinished)
}

/// A reader of a log in memory.
struct Reading<'a> {
    assembler: Assembler,
    /// What was not taken.
    log: &'a [OwnedRecord],
}

#[derive(Clone, Debug, PartialEq)]
enum Got {
    Plain,
    Entry(Entry),
    Incomplete(Incomplete),
}

impl<'a> Reading<'a> {
    fn new(limits: Limits, log: &'a [OwnedRecord]) -> Self {
        Self { assembler: Assembler::new(limits), log }
    }

    fn resumed(limits: Limits, checkpoint: &Checkpoint, log: &'a [OwnedRecord]) -> Self {
        let from = log.iter().position(|record| record.offset >= checkpoint.from.offset);
        let mut reading = Self::new(limits, &log[from.unwrap_or(log.len())..]);
        reading.assembler.resume(checkpoint);
        reading
    }

    /// Returns where it is: before its next record.
    fn position(&self) -> Position {
        Position::from(self.log.first().map_or(1_000_000, |record| (record.offset - 1).max(0)))
    }

    fn checkpoint(&self) -> Checkpoint {
        let checkpoint = self.assembler.checkpoint(self.position());
        assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint.clone()));
        checkpoint
    }

    /// Offers the next record, and returns what comes of it.
    fn step(&mut self) -> Option<(i64, Option<Got>)> {
        let (record, rest) = self.log.split_first()?;
        let after = Position::from(record.offset + 1);
        let fragment = Fragment::parse(record);
        let arrival =
            Arrival { record: record.clone(), fragment, before: self.position(), after, producer: None };
        let got = match self.assembler.offer(&arrival) {
            Step::Before(incomplete) => return Some((record.offset, Some(Got::Incomplete(incomplete)))),
            Step::Taken => None,
            Step::Plain => Some(Got::Plain),
            Step::Entry(entry) => Some(Got::Entry(entry)),
            Step::Incomplete(incomplete) => Some(Got::Incomplete(incomplete)),
        };
        self.log = rest;
        Some((record.offset, got))
    }

    /// Reads all of the log.
    fn all(mut self) -> (Vec<(i64, Got)>, Vec<Incomplete>) {
        let mut got = Vec::new();
        while let Some((offset, one)) = self.step() {
            got.extend(one.map(|one| (offset, one)));
            self.check();
        }
        (got, self.assembler.unfinished().collect())
    }

    /// Checks what it keeps.
    fn check(&self) {
        let Assembler { limits, open, oldest, given_up, bytes, .. } = &self.assembler;
        assert_eq!(*bytes, open.values().map(Open::size).sum::<usize>());
        assert!(*bytes <= limits.memory && open.len() <= limits.max_unfinished.max(1));
        assert!(
            oldest.values().eq(open
                .iter()
                .map(|(entry, open)| (open.first, entry))
                .collect::<BTreeMap<_, _>>()
                .values()
                .copied())
        );
        assert!(given_up.len() <= MAX_GIVEN_UP);
        for open in open.values() {
            let (arrived, length) = (open.value.len(), open.fragment.length as usize);
            assert!(open.value.capacity() <= (2 * arrived).min(length.max(arrived)), "{open:?}");
        }
    }
}

const UNLIMITED: Limits =
    Limits { max_entry_bytes: 1 << 30, memory: 1 << 30, max_unfinished: 1_000, max_span: 1_000_000 };

fn event((offset, got): &(i64, Got)) -> Event {
    match got {
        Got::Plain => (*offset, None, None),
        Got::Entry(entry) => {
            // Its content names it.
            let value = entry.value.as_ref().unwrap();
            let named = |id: &EntryId| content(*id, value.len()) == value[..];
            let all = (0..WRITERS).flat_map(|writer| (0..4).map(move |number| id(writer, number)));
            assert_eq!(
                (entry.last, entry.key.as_deref(), entry.timestamp_ms),
                (*offset, Some(&b"key"[..]), 7)
            );
            assert_eq!(entry.headers, Headers::from([("own", "header")]));
            let mut found = all.filter(named);
            let found = found.next().unwrap();
            (*offset, Some(found), None)
        }
        Got::Incomplete(incomplete) => (*offset, incomplete.entry, Some(incomplete.reason)),
    }
}

fn cases(short: u32) -> ProptestConfig {
    let is_long = std::env::var("KWAL_LONG").is_ok_and(|value| value == "1");
    ProptestConfig::with_cases(if is_long { 200 * short } else { short })
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn each_entry_comes_once_or_is_reported_once(log in log(), from in 0..40_usize) {
        let log = &log[from.min(log.len())..];
        let (got, unfinished) = Reading::new(UNLIMITED, log).all();
        prop_assert!(got.is_sorted_by_key(|(offset, _)| *offset));
        let mut events: Vec<_> = got.iter().map(event).collect();
        events.sort_by_key(|event| format!("{event:?}"));
        let (expected, still_open) = expected(log);
        prop_assert_eq!(events, expected);
        let unfinished: BTreeSet<_> = unfinished.iter().map(|one| one.entry.unwrap()).collect();
        prop_assert_eq!(unfinished, still_open);
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    (300..900_usize, 600..4_000_usize, 1..5_usize, 4..80_i64).prop_map(
        |(max_entry_bytes, memory, max_unfinished, max_span)| Limits {
            max_entry_bytes,
            memory,
            max_unfinished,
            max_span,
        },
    )
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn nothing_is_lost_silently_within_limits(log in log(), limits in limits()) {
        let (got, unfinished) = Reading::new(limits, &log).all();
        let (all, _) = Reading::new(UNLIMITED, &log).all();
        let (events, all): (Vec<_>, Vec<_>) = (got.iter().map(event).collect(), all.iter().map(event).collect());
        // What it returns would be returned without limits as well, in the same order.
        let is_returned = |event: &&Event| event.2.is_none();
        let mut others = all.iter().filter(is_returned);
        prop_assert!(events.iter().filter(is_returned).all(|event| others.any(|other| other == event)));
        // Each entry that is there comes, is reported, or is unfinished; and only once, but for copies of
        // its last fragment.
        let mut named: Vec<_> = events.iter().filter_map(|event| event.1).collect();
        named.extend(unfinished.iter().map(|one| one.entry.unwrap()));
        for entry in log.iter().filter_map(|record| Some(Fragment::parse(record)?.unwrap().entry)) {
            let count = named.iter().filter(|other| **other == entry).count();
            let copies = all.iter().filter(|event| event.1 == Some(entry)).count();
            prop_assert!(count >= 1 && count <= copies.max(1), "{entry}: {count}, {copies}");
        }
    }

    #[test]
    fn a_resumed_reader_goes_on_with_the_same(log in log(), limits in prop_oneof![Just(UNLIMITED), limits()]) {
        let (got, unfinished) = Reading::new(limits, &log).all();
        let mut reading = Reading::new(limits, &log);
        let mut returned = 0;
        loop {
            let checkpoint = reading.checkpoint();
            let (rest, left) = Reading::resumed(limits, &checkpoint, &log).all();
            prop_assert_eq!((&rest[..], &left), (&got[returned..], &unfinished), "{}", checkpoint);
            // And once more, from within what is read again.
            let mut resumed = Reading::resumed(limits, &checkpoint, &log);
            if resumed.step().is_some_and(|(_, got)| got.is_none()) {
                let (rest, left) = Reading::resumed(limits, &resumed.checkpoint(), &log).all();
                prop_assert_eq!((&rest[..], &left), (&got[returned..], &unfinished), "again {}", checkpoint);
            }
            let Some((_, one)) = reading.step() else { break };
            returned += usize::from(one.is_some());
        }
    }
}

/// A first fragment of another writer each, which announces far more than it has.
fn announced(writer: u64, offset: i64) -> OwnedRecord {
    let entry = EntryId { writer: u128::from(writer).to_be_bytes(), number: 0 };
    let headers = HeaderWriter::new(entry, 1_000, 100 << 20, 7).first(None, Headers::new());
    OwnedRecord { offset, ..record(None, Bytes::from_static(b"x"), headers) }
}

#[test]
fn what_headers_announce_takes_no_memory() {
    let limits = Limits { max_entry_bytes: 128 << 20, memory: 256 << 20, ..UNLIMITED };
    let log: Vec<_> = (0..3_000).map(|at| announced(at as u64, at)).collect();
    let mut reading = Reading::new(limits, &log);
    let mut evicted = Vec::new();
    while let Some((_, got)) = reading.step() {
        if let Some(Got::Incomplete(incomplete)) = got {
            assert_eq!((incomplete.reason, incomplete.arrived), (Reason::Evicted, 1));
            evicted.push(incomplete.first);
        }
        assert!(reading.assembler.bytes < 1_000 * 1_024 && reading.assembler.open.len() <= 1_000);
    }
    assert!(evicted.into_iter().eq(0..2_000));
    // As many reports are remembered, and each of those entries is skipped.
    assert_eq!(reading.checkpoint().given_up.len(), MAX_GIVEN_UP);
    assert_eq!(reading.checkpoint().from.offset, 1_999);
    let resumed = Reading::resumed(limits, &reading.checkpoint(), &log);
    assert_eq!(resumed.all().0, []);
}

#[test]
fn a_log_that_is_moved_back_is_read_anew() {
    let log: Vec<_> = (0..4).map(|at| announced(1, 10 + at)).take(1).collect();
    let mut reading = Reading::new(UNLIMITED, &log);
    assert_eq!(reading.step(), Some((10, None)));
    let plain = OwnedRecord { offset: 7, ..record(Some("k"), Bytes::new(), Headers::new()) };
    let again = [plain, announced(1, 10)];
    reading.log = &again;
    let Some((7, Some(Got::Incomplete(incomplete)))) = reading.step() else { panic!() };
    assert_eq!((incomplete.reason, incomplete.first), (Reason::Unfinished, 10));
    assert_eq!(reading.step(), Some((7, Some(Got::Plain))));
    // What was reported is of another log.
    assert_eq!(reading.step(), Some((10, None)));
    assert_eq!(reading.assembler.unfinished().count(), 1);
    assert!(reading.assembler.given_up.is_empty());
}

/// Retention removes the beginning of an entry that was unfinished, between two readers.
#[test]
fn an_entry_that_loses_its_beginning_is_reported_by_the_reader_that_resumes() {
    let mut log = fragments(1, 0, (vec![10; 6], Fate::Whole));
    for (index, record) in log.iter_mut().enumerate() {
        record.offset = 2 * index as i64 + 1;
    }
    for read in 1..6 {
        for removed in 1..6 {
            let mut reading = Reading::new(UNLIMITED, &log);
            for _ in 0..read {
                assert_eq!(reading.step().unwrap().1, None);
            }
            let checkpoint = reading.checkpoint();
            let (got, unfinished) = Reading::resumed(UNLIMITED, &checkpoint, &log[removed..]).all();
            assert_eq!((got.len(), unfinished.len()), (1, 0), "{read} {removed}");
            let (_, Got::Incomplete(incomplete)) = &got[0] else { panic!("{got:?}") };
            assert_eq!((incomplete.reason, incomplete.first), (Reason::CutOff, 2 * removed as i64 + 1));
            // As long as nothing more comes, it is unfinished.
            let early = Reading::resumed(UNLIMITED, &checkpoint, &log[removed.min(read)..read]);
            let (got, unfinished) = early.all();
            assert_eq!((got.len(), unfinished.len()), (0, usize::from(removed < read)));
        }
    }
}

/// A record with headers that say what they like.
fn hostile() -> impl Strategy<Value = OwnedRecord> {
    let number = prop_oneof![0..3_u64, Just(u64::MAX)];
    let count = prop_oneof![2..5_u32, Just(u32::MAX)];
    let length = prop_oneof![0..60_usize, Just(usize::MAX), Just(1 << 40)];
    let index = prop_oneof![4 => 0..5_u32, 1 => Just(u32::MAX)];
    let own = prop::collection::vec(0..300_usize, 0..3);
    let crc32c = prop_oneof![Just(0), Just(crc32c::crc32c(&[0; 30])), any::<u32>()];
    let parts = (0..3_u8, number, count, length, crc32c, index, 0..40_usize, own, 0..6_u8);
    parts.prop_map(|(writer, number, count, length, crc32c, index, len, own, kind)| {
        let entry = EntryId { writer: [writer; 16], number };
        let headers = HeaderWriter::new(entry, count, length, crc32c);
        let own: Headers = own.into_iter().map(|len| ("own", "x".repeat(len))).collect();
        let headers = match (kind, index % count) {
            (0, _) => own,
            (_, 0) => headers.first(Some("key".into()), own),
            (_, index) => headers.further(index),
        };
        record(None, vec![0; len].into(), headers)
    })
}

proptest! {
    #![proptest_config(cases(200))]

    /// Whatever is on a log, memory and work are bounded.
    #[test]
    fn no_log_exceeds_the_limits(
        mut log in prop::collection::vec((hostile(), -3..8_i64), 0..60),
        (entry, memory, unfinished, span) in (0..100_usize, OVERHEAD..3_000, 0..4_usize, 0..60_i64),
        until in 0..100_i64, given_up in prop::collection::vec((0..3_u8, 0..3_u64), 0..4),
        resume_at in 0..60_usize,
    ) {
        let mut offset = 0;
        for (record, step) in &mut log {
            // Offsets that go back, and some that are there twice.
            offset = (offset + *step).max(0);
            record.offset = offset;
        }
        let log: Vec<_> = log.into_iter().map(|(record, _)| record).collect();
        let limits = Limits { max_entry_bytes: entry, memory, max_unfinished: unfinished, max_span: span };
        let id = |(writer, number): (u8, u64)| EntryId { writer: [writer; 16], number };
        let given_up = given_up.into_iter().map(id).collect();
        let checkpoint = Checkpoint { from: Position::from(0), until, given_up };
        let mut reading = Reading::resumed(limits, &checkpoint, &log);
        let mut steps = 0;
        while let Some((_, got)) = reading.step() {
            reading.check();
            if let Some(Got::Entry(entry)) = got {
                prop_assert!(entry.value.unwrap().len() <= memory.min(limits.max_entry_bytes));
            }
            // Each ends an entry that was open, or takes a record.
            steps += 1;
            prop_assert!(steps <= 2 * log.len() + 1);
            if log.len() - reading.log.len() == resume_at {
                let checkpoint = reading.checkpoint();
                prop_assert!(checkpoint.from.offset <= checkpoint.until);
                drop(Reading::resumed(limits, &checkpoint, &log).all());
            }
        }
    }
}
