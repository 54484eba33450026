//! What a reader covered: offsets, records, and the ranges that have none.

use std::{fmt, ops::Range};

use kwal_client::{Gap, GapReason};

/// What a [`Replay`](super::Replay) or a [`RecordStream`](super::RecordStream) has covered so far.
///
/// Each offset of [`offsets`](Self::offsets) is accounted for once: either its record was handed over, or it
/// has none, and [`without_records`](Self::without_records) counts it by its reason.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// From where reading began to where it goes on.
    ///
    /// If a policy moves a reader back, to a log that ends before its position, the summary begins anew
    /// there.
    pub offsets: Range<i64>,
    /// How many records were handed over. Of a batch that the caller could not decode, as many as its header
    /// counts.
    pub records: u64,
    /// The size of the batches that were handed over, on the wire, in bytes.
    pub bytes: u64,
    /// The ranges between batches that have no records, in offset order; adjacent ones of the same reason are
    /// one. At most [`MAX_GAPS`](Self::MAX_GAPS): beyond that, those of
    /// [`GapReason::is_expected`](GapReason::is_expected) are left out, and `without_records` still counts
    /// them.
    pub gaps: Vec<Gap>,
    /// How many offsets have no record, by reason. Those that compaction removed within a batch count as
    /// empty, and have no gap.
    pub without_records: WithoutRecords,
    /// What lay beyond the end when reading began: from the last stable offset to the high watermark, if
    /// open transactions held it back.
    pub beyond: Option<Range<i64>>,
}

/// How many offsets have no record, by [reason](GapReason).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct WithoutRecords {
    /// See [`GapReason::Control`].
    pub control: u64,
    /// See [`GapReason::Aborted`].
    pub aborted: u64,
    /// See [`GapReason::Empty`].
    pub empty: u64,
    /// See [`GapReason::Trimmed`].
    pub trimmed: u64,
    /// See [`GapReason::Passed`].
    pub passed: u64,
    /// See [`GapReason::Unreadable`].
    pub unreadable: u64,
}

impl WithoutRecords {
    /// Returns their sum.
    pub const fn total(&self) -> u64 {
        let Self { control, aborted, empty, trimmed, passed, unreadable } = *self;
        control + aborted + empty + trimmed + passed + unreadable
    }

    fn of(&mut self, reason: GapReason) -> &mut u64 {
        match reason {
            GapReason::Control => &mut self.control,
            GapReason::Aborted => &mut self.aborted,
            GapReason::Trimmed => &mut self.trimmed,
            GapReason::Passed => &mut self.passed,
            GapReason::Unreadable => &mut self.unreadable,
            _ => &mut self.empty,
        }
    }
}

impl Summary {
    /// The most ranges that are listed.
    pub const MAX_GAPS: usize = 1_000;

    pub(crate) fn new(from: i64) -> Self {
        Self { offsets: from..from, ..Self::default() }
    }

    /// Notes offsets without records.
    pub(crate) fn pass(&mut self, offsets: Range<i64>, reason: GapReason) {
        if offsets.is_empty() {
            return;
        }
        *self.without_records.of(reason) += len(&offsets);
        match self.gaps.last_mut() {
            Some(last) if last.reason == reason && last.offsets.end == offsets.start => {
                last.offsets.end = offsets.end;
            }
            _ => self.list(Gap::new(offsets, reason)),
        }
    }

    /// Notes offsets without records within a batch.
    pub(crate) fn pass_within(&mut self, count: u64) {
        self.without_records.empty += count;
    }

    fn list(&mut self, gap: Gap) {
        if self.gaps.len() == Self::MAX_GAPS {
            // What was missed is worth more than markers.
            let expected = self.gaps.iter().position(|gap| gap.reason.is_expected());
            match expected {
                Some(index) if !gap.reason.is_expected() => self.gaps.remove(index),
                _ => return,
            };
        }
        self.gaps.push(gap);
    }
}

/// In one line: offsets, records, bytes, and what has no records.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offsets, records, bytes, without_records, beyond, .. } = self;
        write!(f, "offsets {} to {}: {records} records, {bytes} bytes", offsets.start, offsets.end)?;
        if without_records.total() > 0 {
            write!(f, "; without records: {without_records}")?;
        }
        match beyond {
            Some(beyond) => write!(f, "; beyond the end: {} to {}", beyond.start, beyond.end),
            None => Ok(()),
        }
    }
}

/// The reasons that there are, each with its number of offsets.
impl fmt::Display for WithoutRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { control, aborted, empty, trimmed, passed, unreadable } = *self;
        let all = [
            (control, "control"),
            (aborted, "aborted"),
            (empty, "empty"),
            (trimmed, "trimmed"),
            (passed, "passed"),
            (unreadable, "unreadable"),
        ];
        let mut separator = "";
        for (count, reason) in all.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{count} {reason}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// How far a replay is: for a progress bar.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The offset where reading goes on.
    pub position: i64,
    /// The offset where the replay ends.
    pub end: i64,
    /// The size of the batches that were handed over so far, on the wire, in bytes.
    pub bytes: u64,
}

/// Returns how many offsets a range has.
pub(crate) fn len(offsets: &Range<i64>) -> u64 {
    if offsets.is_empty() { 0 } else { offsets.end.abs_diff(offsets.start) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_gaps_of_a_reason_are_one() {
        let mut summary = Summary::new(0);
        for (offsets, reason) in [
            (0..1, GapReason::Control),
            (1..2, GapReason::Control),
            (2..2, GapReason::Empty),
            (2..5, GapReason::Aborted),
            (6..8, GapReason::Aborted),
            (8..9, GapReason::Control),
        ] {
            summary.pass(offsets, reason);
        }
        summary.pass_within(3);
        let gaps: Vec<_> = summary.gaps.iter().map(|gap| (gap.offsets.clone(), gap.reason)).collect();
        let expected = [
            (0..2, GapReason::Control),
            (2..5, GapReason::Aborted),
            (6..8, GapReason::Aborted),
            (8..9, GapReason::Control),
        ];
        assert_eq!(gaps, expected);
        let counts = WithoutRecords { control: 3, aborted: 5, empty: 3, ..Default::default() };
        assert_eq!((summary.without_records, counts.total()), (counts, 11));
    }

    #[test]
    fn gaps_are_bounded_and_keep_what_was_missed() {
        let mut summary = Summary::new(0);
        let mark = |summary: &mut Summary, at: i64, reason| summary.pass(2 * at..2 * at + 1, reason);
        for at in 0..2_000 {
            mark(&mut summary, at, GapReason::Control);
        }
        assert_eq!((summary.gaps.len(), summary.gaps[999].offsets.clone()), (1_000, 1_998..1_999));
        for at in 2_000..2_003 {
            mark(&mut summary, at, GapReason::Unreadable);
        }
        mark(&mut summary, 2_003, GapReason::Control);
        assert_eq!((summary.gaps.len(), summary.gaps[0].offsets.clone()), (1_000, 6..7));
        assert_eq!(summary.gaps[999], Gap::new(4_004..4_005, GapReason::Unreadable));
        for at in 2_004..5_000 {
            mark(&mut summary, at, GapReason::Trimmed);
        }
        assert_eq!(summary.gaps.len(), 1_000);
        assert!(summary.gaps.iter().all(|gap| !gap.reason.is_expected()));
        let counts = WithoutRecords { control: 2_001, unreadable: 3, trimmed: 2_996, ..Default::default() };
        assert_eq!(summary.without_records, counts);
    }

    #[test]
    fn it_is_one_line() {
        let mut summary = Summary::new(5);
        (summary.offsets.end, summary.records, summary.bytes) = (28, 20, 760);
        assert_eq!(summary.to_string(), "offsets 5 to 28: 20 records, 760 bytes");
        summary.pass(8..10, GapReason::Control);
        summary.pass(12..13, GapReason::Unreadable);
        summary.beyond = Some(28..31);
        let text = "offsets 5 to 28: 20 records, 760 bytes; without records: 2 control, 1 unreadable; beyond the end: 28 to 31";
        assert_eq!(summary.to_string(), text);
    }

    #[test]
    fn the_largest_range_has_a_length() {
        assert_eq!(len(&(0..i64::MAX)), i64::MAX as u64);
        assert_eq!(len(&(i64::MIN..i64::MAX)), u64::MAX);
        let (start, end) = (5, -7);
        assert_eq!((len(&(5..5)), len(&(start..end))), (0, 0));
    }
}
