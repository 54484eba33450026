//! The cursor against a model of a log.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Records at the offsets whose bit is set.
    Data(u8),
    Control,
    Aborted,
    /// A batch without records.
    Emptied,
    /// No batch at all.
    Missing,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    start: i64,
    end: i64,
    epoch: i32,
    kind: Kind,
}

/// A log as the leader has it.
#[derive(Clone, Debug)]
struct Log(Vec<Segment>);

/// The result of a fetch.
struct Answer {
    batches: Vec<Segment>,
    gaps: Vec<Gap>,
    to: At,
}

impl Log {
    fn new(segments: &[(i64, i32, Kind)]) -> Self {
        let mut log = Self(Vec::new());
        log.extend(0, segments);
        log
    }

    fn extend(&mut self, mut epoch: i32, segments: &[(i64, i32, Kind)]) {
        for (len, step, kind) in segments {
            epoch += step;
            let start = self.end();
            self.0.push(Segment { start, end: start + len, epoch, kind: *kind });
        }
    }

    fn end(&self) -> i64 {
        self.0.last().map_or(0, |segment| segment.end)
    }

    fn at(&self, offset: i64) -> Option<&Segment> {
        self.0.iter().find(|segment| (segment.start..segment.end).contains(&offset))
    }

    /// The offsets of records in a range.
    fn records(&self, offsets: Range<i64>) -> Vec<i64> {
        self.0.iter().flat_map(|segment| segment.records()).filter(|at| offsets.contains(at)).collect()
    }

    /// Fetches `count` segments, as a client does that reports batches with records and gaps.
    fn fetch(&self, from: At, count: usize) -> Answer {
        let mut answer = Answer { batches: Vec::new(), gaps: Vec::new(), to: from };
        let segments = self.0.iter().filter(|segment| segment.end > from.offset);
        for segment in segments.filter(|segment| segment.kind != Kind::Missing).take(count) {
            answer.to = At { offset: segment.end, epoch: Some(segment.epoch) };
            let reason = match segment.kind {
                Kind::Control => GapReason::Control,
                Kind::Aborted => GapReason::Aborted,
                Kind::Emptied => GapReason::Empty,
                _ => {
                    answer.batches.push(*segment);
                    continue;
                }
            };
            answer.gaps.push(Gap::new(segment.start.max(from.offset)..segment.end, reason));
        }
        // A compacted log may end with a hole.
        if answer.to == from && self.end() > from.offset {
            answer.gaps.push(Gap::new(from.offset..self.end(), GapReason::Empty));
            answer.to.offset = self.end();
        }
        answer
    }

    /// Returns the largest epoch that is not above one, and where it ends.
    fn epoch_end(&self, epoch: i32) -> Option<(i32, i64)> {
        let known = self.0.iter().filter(|segment| segment.kind != Kind::Missing);
        let last = known.clone().rfind(|segment| segment.epoch <= epoch)?;
        let next = known.clone().find(|segment| segment.epoch > epoch);
        Some((last.epoch, next.map_or_else(|| self.end(), |segment| segment.start)))
    }
}

impl Segment {
    fn records(&self) -> impl Iterator<Item = i64> + use<> {
        let Self { start, end, kind, .. } = *self;
        (start..end).filter(move |at| matches!(kind, Kind::Data(bits) if bits >> (at - start) & 1 == 1))
    }

    fn reason(&self) -> GapReason {
        match self.kind {
            Kind::Control => GapReason::Control,
            Kind::Aborted => GapReason::Aborted,
            _ => GapReason::Empty,
        }
    }
}

/// A reader over the model, as thin as the real one.
struct Reader<'a> {
    log: &'a Log,
    cursor: Cursor,
    batches: VecDeque<(Segment, bool)>,
    records: Vec<i64>,
}

impl<'a> Reader<'a> {
    fn new(log: &'a Log, at: At, end: Option<i64>) -> Self {
        let cursor = Cursor::new(at, end, log.end(), true);
        Self { log, cursor, batches: VecDeque::new(), records: Vec::new() }
    }

    /// Reads one batch: its first records one by one, the rest at once or, if it is `suspended`, later.
    /// Returns false at the end.
    fn read(&mut self, fetch: usize, one_by_one: usize, suspended: bool) -> bool {
        loop {
            if self.cursor.is_done() {
                return false;
            }
            let Some((segment, is_rest)) = self.batches.pop_front() else {
                self.cursor.exhausted();
                if self.cursor.is_done() {
                    return false;
                }
                let answer = self.log.fetch(self.cursor.at(), fetch);
                if answer.to == self.cursor.at() {
                    assert_eq!((self.cursor.lag(), answer.to.offset), (0, self.log.end()));
                    return false;
                }
                self.cursor.fetched(answer.to, answer.gaps, self.log.end());
                self.batches = answer.batches.into_iter().map(|segment| (segment, false)).collect();
                continue;
            };
            let bytes = if is_rest { 0 } else { 1_000 };
            let due = match self.cursor.begin(&(segment.start..segment.end), Some(segment.epoch), bytes) {
                Due::Nothing => continue,
                Due::AfterEnd => {
                    self.batches.push_front((segment, is_rest));
                    continue;
                }
                Due::Offsets(due) => due,
            };
            let read = self.records.len();
            let mut records = segment.records().filter(|at| due.contains(at));
            for record in records.by_ref().take(one_by_one) {
                self.cursor.record(record);
                self.check();
                self.records.push(record);
            }
            if suspended && self.records.len() > read {
                let is_rest = self.cursor.suspend_batch() || is_rest;
                self.batches.push_front((segment, is_rest));
            } else {
                let rest: Vec<_> = records.collect();
                self.cursor.end_batch(rest.len() as u64);
                self.records.extend(rest);
                if due.end < segment.end {
                    self.batches.push_front((segment, true));
                }
            }
            if self.batches.is_empty() {
                self.cursor.exhausted();
            }
            self.check();
            return true;
        }
    }

    /// Checks position, epoch and summary.
    fn check(&self) {
        let At { offset, epoch } = self.cursor.at();
        let summary = &self.cursor.summary;
        assert_eq!(summary.offsets.end, offset);
        assert_eq!(self.cursor.lag(), self.log.end() - offset);
        let real = |segment: &&Segment| segment.kind != Kind::Missing;
        if let Some(epoch) = epoch.filter(|_| offset > summary.offsets.start) {
            let before = self.log.0.iter().filter(real).rfind(|segment| segment.start < offset);
            assert_eq!(before.map(|segment| segment.epoch), Some(epoch), "{:?}", self.cursor);
        }
        for gap in &summary.gaps {
            assert!(gap.offsets.end <= offset && gap.offsets.start >= summary.offsets.start);
            for at in gap.offsets.clone() {
                let segment = self.log.at(at).unwrap();
                assert_eq!(segment.reason(), gap.reason, "{at}");
                assert!(segment.records().all(|record| record != at), "{at}");
            }
        }
    }

    /// Checks that all records were read, and that every offset is accounted for.
    fn finish(&self, to: i64) {
        let summary = &self.cursor.summary;
        assert_eq!(summary.offsets.end, to.max(summary.offsets.start));
        assert_eq!(self.records, self.log.records(summary.offsets.clone()));
        assert_eq!(summary.records, self.records.len() as u64);
        assert_eq!(summary.records + summary.without_records.total(), len(&summary.offsets));
        let is_read = |segment: &&Segment| {
            let part = segment.start.max(summary.offsets.start)..segment.end.min(to);
            matches!(segment.kind, Kind::Data(_)) && !part.is_empty()
        };
        assert_eq!(summary.bytes, 1_000 * self.log.0.iter().filter(is_read).count() as u64);
    }
}

fn segments() -> impl Strategy<Value = Vec<(i64, i32, Kind)>> {
    let kind = prop_oneof![
        4 => any::<u8>().prop_map(Kind::Data),
        2 => Just(Kind::Data(0xff)),
        1 => Just(Kind::Control),
        1 => Just(Kind::Aborted),
        1 => Just(Kind::Emptied),
        1 => Just(Kind::Missing),
    ];
    prop::collection::vec((1..6_i64, prop_oneof![3 => Just(0), 1 => 1..3_i32], kind), 0..12)
}

proptest! {
    #[test]
    fn a_replay_ends_and_following_it_goes_on_without_gap_or_repeat(
        (first, second) in (segments(), segments()),
        (start, end) in (0..40_i64, 0..40_i64),
        (fetch, steps) in (1..6_usize, prop::collection::vec((0..4_usize, any::<bool>()), 1..8)),
    ) {
        let log = Log::new(&[first, second].concat());
        let (start, end) = (start.min(log.end()), end.min(log.end()));
        let mut steps = steps.iter().cycle();
        let mut reader = Reader::new(&log, At { offset: start, epoch: None }, Some(end));
        while { let (one_by_one, suspended) = *steps.next().unwrap(); reader.read(fetch, one_by_one, suspended) } {
            prop_assert!(reader.records.iter().all(|record| *record < end));
        }
        prop_assert!(reader.cursor.is_done());
        reader.finish(end);

        reader.cursor.unbound();
        while { let (one_by_one, suspended) = *steps.next().unwrap(); reader.read(fetch, one_by_one, suspended) } {}
        reader.cursor.exhausted();
        reader.finish(log.end());
        prop_assert_eq!(reader.cursor.lag(), 0);
    }

    #[test]
    fn a_stream_knows_exactly_where_the_log_differs_from_what_it_read(
        (kept, lost, new) in (segments(), segments(), segments()),
        (start, fetch, longer) in (0..40_i64, 1..6_usize, 0..2_i32),
    ) {
        let full = |segments: Vec<(i64, i32, Kind)>| -> Vec<_> {
            segments.into_iter().map(|(len, step, _)| (len, step, Kind::Data(0xff))).collect()
        };
        let (kept, mut lost, mut new) = (full(kept), full(lost), full(new));
        let base = Log::new(&kept);
        let epoch = base.0.last().map_or(0, |segment| segment.epoch);
        let Some(first) = lost.first_mut() else { return Ok(()) };
        // Either the new leader lacks the end of an epoch, or it has more of it than the lost one, which had
        // begun the next one.
        first.1 += longer;
        let differs_in_epoch = first.1 > 0;
        let mut log = base.clone();
        log.extend(epoch, &lost);
        let mut elected = base.clone();
        let last = log.0.last().unwrap().epoch;
        if differs_in_epoch && !kept.is_empty() {
            elected.extend(epoch, &[(2, 0, Kind::Data(0xff))]);
        }
        if let Some(first) = new.first_mut() {
            first.1 += last + 1 - epoch;
        }
        elected.extend(epoch, &new);

        let start = start.min(log.end());
        let mut reader = Reader::new(&log, At { offset: start, epoch: None }, None);
        while reader.read(fetch, 0, false) {}
        let at = reader.cursor.at();
        prop_assert_eq!(at.offset, log.end());
        let Some(epoch) = at.epoch else { return Ok(()) };
        let found = reader.cursor.diverged_at(elected.epoch_end(epoch));
        if start <= base.end() {
            prop_assert_eq!(found, Some(base.end()));
        } else {
            // It did not read where the log differs: what is known to be lost begins no later than there.
            prop_assert!(found.is_some_and(|found| found <= start), "{:?}", found);
        }
    }
}

fn at(offset: i64, epoch: i32) -> At {
    At { offset, epoch: Some(epoch) }
}

#[test]
fn a_batch_that_cannot_be_read_is_skipped_from_the_position_on() {
    let mut cursor = Cursor::new(at(3, 1), None, 20, true);
    cursor.fetched(at(15, 2), [Gap::new(5..6, GapReason::Control)], 20);
    assert_eq!(cursor.begin(&(0..5), Some(1), 100), Due::Offsets(3..5));
    cursor.end_batch(2);
    // One that fails at its second record.
    assert_eq!(cursor.begin(&(6..10), Some(2), 100), Due::Offsets(6..10));
    cursor.record(6);
    assert_eq!(cursor.skip_unreadable(&(6..10)), 7..10);
    assert_eq!(cursor.at(), At { offset: 10, epoch: None });
    // One that was never begun, after a hole.
    assert_eq!(cursor.skip_unreadable(&(12..15)), 12..15);
    cursor.exhausted();
    assert!(cursor.fetched.is_none());
    let summary = &cursor.summary;
    assert_eq!((summary.offsets.clone(), summary.records, summary.bytes), (3..15, 3, 200));
    let gaps: Vec<_> = summary.gaps.iter().map(|gap| (gap.offsets.clone(), gap.reason)).collect();
    let expected = [
        (5..6, GapReason::Control),
        (7..10, GapReason::Unreadable),
        (10..12, GapReason::Empty),
        (12..15, GapReason::Unreadable),
    ];
    assert_eq!(gaps, expected);
    assert_eq!(summary.records + summary.without_records.total(), 12);

    // A replay covers no more than its range.
    let mut cursor = Cursor::new(at(3, 1), Some(8), 20, true);
    assert_eq!(cursor.skip_unreadable(&(2..30)), 3..8);
    assert!(cursor.is_done());
    assert_eq!(cursor.summary.without_records.unreadable, 5);
}

#[test]
fn a_reset_says_what_was_passed() {
    // To the start of the log, or to its end.
    for (target, trimmed, passed) in [(10, 7, 0), (30, 7, 20)] {
        let mut cursor = Cursor::new(at(3, 1), None, 30, false);
        cursor.reset(target, Some(10));
        assert_eq!(cursor.at(), At { offset: target, epoch: None });
        let found = cursor.summary.without_records;
        assert_eq!((found.trimmed, found.passed, found.total()), (trimmed, passed, trimmed + passed));
        assert_eq!(cursor.summary.offsets, 3..target);
    }
    // A replay covers its range, and the stream after it meets the rest.
    let mut cursor = Cursor::new(at(3, 1), Some(8), 30, false);
    cursor.reset(10, Some(10));
    assert!(cursor.is_done());
    assert_eq!((cursor.at().offset, cursor.summary.without_records.trimmed), (8, 5));
    cursor.unbound();
    cursor.reset(10, Some(10));
    assert_eq!((cursor.summary.offsets.clone(), cursor.summary.without_records.trimmed), (3..10, 7));
    // Backwards, to a log that ends before the position.
    let mut cursor = Cursor::new(at(300, 1), Some(20), 20, false);
    assert!(!cursor.is_done(), "the position has to be confirmed");
    cursor.reset(0, None);
    assert_eq!((cursor.at().offset, cursor.summary.offsets.clone()), (0, 0..0));
    cursor.reset(20, Some(0));
    assert!(cursor.is_done());
    assert_eq!(cursor.summary.without_records.passed, 20);
}

#[test]
fn a_truncated_log_ends_before_the_replay_does() {
    let mut cursor = Cursor::new(at(5, 1), Some(10), 10, true);
    cursor.fetched(at(5, 1), [], 7);
    assert_eq!(cursor.log_end(), 10, "the high watermark of a new leader may be too low");
    assert!(!cursor.confirm_log_end(10));
    assert!(cursor.confirm_log_end(9));
    assert_eq!(cursor.lag(), 4);
    cursor.unbound();
    assert!(!cursor.confirm_log_end(2));
    assert_eq!(cursor.lag(), 0);
}

#[test]
fn an_empty_fetch_confirms_the_position() {
    let mut cursor = Cursor::new(at(10, 1), Some(10), 10, false);
    assert!(!cursor.is_done());
    cursor.fetched(at(10, 1), [], 10);
    assert!(cursor.is_done());
    cursor.exhausted();
    assert!(cursor.at() == at(10, 1) && cursor.fetched.is_none());
}

#[test]
fn an_end_between_two_epochs_has_none() {
    for (epoch, known) in [(1, Some(1)), (2, None)] {
        let mut cursor = Cursor::new(at(0, 1), Some(7), 20, true);
        cursor.fetched(at(12, epoch), [Gap::new(5..8, GapReason::Aborted)], 20);
        assert_eq!(cursor.begin(&(0..5), Some(1), 0), Due::Offsets(0..5));
        cursor.end_batch(5);
        assert_eq!(cursor.at(), at(5, 1));
        assert_eq!(cursor.begin(&(8..12), Some(epoch), 0), Due::AfterEnd);
        assert_eq!((cursor.at(), cursor.is_done()), (At { offset: 7, epoch: known }, true));
        // The rest of the gap is left for the stream.
        assert_eq!(cursor.summary.without_records.aborted, 2);
        cursor.unbound();
        assert_eq!(cursor.begin(&(8..12), Some(epoch), 0), Due::Offsets(8..12));
        cursor.end_batch(4);
        assert_eq!((cursor.at(), cursor.summary.without_records.aborted), (at(12, epoch), 3));
    }
}

#[test]
fn the_largest_offsets_do_not_overflow() {
    let mut cursor = Cursor::new(at(i64::MAX - 2, i32::MAX), Some(i64::MAX), i64::MAX, true);
    cursor.fetched(at(i64::MAX, i32::MAX), [], i64::MAX);
    let due = cursor.begin(&(i64::MAX - 5..i64::MAX), Some(i32::MAX), 1);
    assert_eq!(due, Due::Offsets(i64::MAX - 2..i64::MAX));
    cursor.record(i64::MAX - 1);
    cursor.record(i64::MAX);
    cursor.end_batch(0);
    cursor.exhausted();
    assert!(cursor.is_done());
    let mut cursor = Cursor::new(At { offset: i64::MIN, epoch: Some(-1) }, None, i64::MAX, false);
    assert_eq!(cursor.lag(), i64::MAX);
    cursor.skip_unreadable(&(0..i64::MAX));
    cursor.reset(i64::MAX, Some(i64::MIN));
    assert_eq!(cursor.at().offset, i64::MAX);
}
