//! Checks what replays promised and say that they covered.

use std::ops::Range;

use super::{logs::record_at, reads::Judge, types::Covered, verdict::Rule};

/// A replay that was opened.
pub(super) struct OpenReplay {
    event: usize,
    /// The position of the reader, if known.
    from: Option<i64>,
    pub(super) end: i64,
    /// The number of records that the reader got since then; `None` if no read is recorded.
    pub(super) read: Option<u64>,
}

impl Judge<'_, '_, '_> {
    /// Checks that the end of a replay is not before anything that was acknowledged earlier.
    pub(super) fn replay(&mut self, event: usize, end: i64, given: bool) {
        self.replay = Some(OpenReplay { event, from: self.position, end, read: None });
        // A transaction that was open may have ended by now.
        let stable = self.log.last_stable.is_none_or(|stable| stable >= self.log.offsets.end);
        let unstable = self.reader.reader.committed && (self.partition.has_transactions || !stable);
        if given || unstable || self.partition.is_stale(end, event) {
            return;
        }
        let first = self.log.records.partition_point(|(offset, _)| *offset < end);
        let acked = self.log.records[first..].iter().find(|(offset, value)| {
            let Some((append, record)) = self.facts.owner(value) else { return false };
            let append = &self.facts.appends[append];
            if self.facts.writers[append.writer].writer.leader_acks {
                // It may be after the high watermark.
                return false;
            }
            let at = append.acked_at().map(|base| base.saturating_add(record as i64));
            let by = append.end.map_or(usize::MAX, |(event, ..)| event);
            at == Some(*offset) && by <= self.since && self.partition.lost(append.event, *offset).is_none()
        });
        if let Some((offset, value)) = acked {
            let id = self.reader.id;
            self.violated(Rule::Replay, event, *offset, || {
                format!(
                    "the replay of {id} is to end at {end}, and {value} was acknowledged at {offset} before"
                )
            });
        }
    }

    /// Checks that a replay reached its end, and that what it says it covered is what it gave.
    pub(super) fn replayed(&mut self, event: usize, covered: &Covered) {
        let id = self.reader.id;
        let Covered { offsets, records, gaps } = covered;
        let Some(open) = self.replay.take() else {
            self.violated(Rule::History, event, offsets.start, || format!("{id} has not opened a replay"));
            return;
        };
        if offsets.end < open.end {
            self.violated(Rule::Replay, event, offsets.end, || {
                format!("the replay of {id} ended at {}, and it was to end at {}", offsets.end, open.end)
            });
        }
        if let Some(from) = open.from {
            self.check_skipped(event, from, offsets.start);
        }
        match open.read {
            Some(read) => {
                if let Some(position) = self.position.filter(|position| *position != offsets.end) {
                    self.violated(Rule::Replay, event, offsets.end, || {
                        format!(
                            "the replay of {id} says it ended at {}, and it is at {position}",
                            offsets.end
                        )
                    });
                }
                if read != *records {
                    self.violated(Rule::Replay, event, offsets.start, || {
                        format!("the replay of {id} says it covered {records} records, and it gave {read}")
                    });
                }
            }
            None => self.check_number(event, open.event, offsets, *records),
        }
        let mut next = offsets.start;
        for gap in gaps {
            if gap.start < next || gap.end < gap.start || gap.end > offsets.end {
                self.violated(Rule::Replay, event, gap.start, || {
                    format!("the gap {gap:?} of {id} is out of order, or outside of {offsets:?}")
                });
                return;
            }
            next = gap.end;
            self.check_gap(event, open.event, gap);
        }
        self.position = Some(offsets.end);
    }

    /// Checks the number of records of a replay whose reads are not recorded.
    fn check_number(&mut self, event: usize, opened: usize, offsets: &Range<i64>, records: u64) {
        let on_log = self.required(opened, event, offsets);
        let count = on_log.len() as u64;
        let most = u64::try_from(offsets.end.saturating_sub(offsets.start)).unwrap_or_default();
        let id = self.reader.id;
        if records > most {
            self.violated(Rule::Replay, event, offsets.start, || {
                format!("the replay of {id} covered {records} records, more than {offsets:?} can have")
            });
        } else if count > records {
            self.violated(Rule::Replay, event, on_log[0], || {
                format!("the replay of {id} covered {records} records, and {count} are in {offsets:?}")
            });
        }
    }

    fn check_gap(&mut self, event: usize, opened: usize, gap: &Range<i64>) {
        let on_log = self.required(opened, event, gap);
        if let Some(offset) = on_log.first() {
            let id = self.reader.id;
            let value = record_at(self.log, *offset).cloned();
            self.violated(Rule::Replay, event, *offset, || {
                let value = value.map(|value| value.to_string()).unwrap_or_default();
                format!("the gap {gap:?} of {id} has {value} at {offset}")
            });
        }
    }

    /// Returns the offsets of the records on the log that a reader had to get between two events.
    fn required(&self, opened: usize, event: usize, offsets: &Range<i64>) -> Vec<i64> {
        let records = &self.log.records;
        let first = records.partition_point(|(offset, _)| *offset < offsets.start);
        let within = records[first..].iter().take_while(|(offset, _)| *offset < offsets.end);
        let required = within.filter(|(offset, value)| {
            self.is_required(event, *offset, value) && self.partition.lost(opened, *offset).is_none()
        });
        required.map(|(offset, _)| *offset).collect()
    }
}
