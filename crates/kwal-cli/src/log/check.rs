//! What is doubtful about a log: what no sequence of appends, elections, retention and compaction leaves.

use std::{collections::HashMap, fmt, ops::Range};

use kwal::record::{Barrier, Batch};
use kwal_protocol::record::BatchHeader;

use super::content::is_fence;
use crate::output::{escaped, time_text};

/// A doubtful place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Doubt {
    /// The batch, or a record of it, cannot be read.
    Unreadable(String),
    /// The batch begins before the end of the one before it.
    OffsetBack { next: i64 },
    /// The leader epoch is lower than that of the batch before it.
    LeaderEpochBack { before: i32 },
    /// The epoch of the producer is lower than before.
    ProducerEpochBack { before: i16 },
    /// Sequence numbers of the producer are missing.
    SequenceGap { expected: i32 },
    /// The producer has appended this sequence number before, or the broker had forgotten the producer.
    DuplicateSequence { expected: i32 },
    /// An exclusive writer has taken over before it, and it is not of that writer.
    NotOfHolder { name: String, barrier: i64 },
    /// The timestamps are lower than those of the batch before it, as with several writers, or clocks that
    /// were set back.
    TimeBack { before: i64 },
}

impl Doubt {
    /// The name of its kind, in JSON.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::OffsetBack { .. } => "offset-back",
            Self::LeaderEpochBack { .. } => "leader-epoch-back",
            Self::ProducerEpochBack { .. } => "producer-epoch-back",
            Self::SequenceGap { .. } => "sequence-gap",
            Self::DuplicateSequence { .. } => "duplicate-sequence",
            Self::NotOfHolder { .. } => "not-of-holder",
            Self::TimeBack { .. } => "time-back",
        }
    }

    /// Whether it is a fault of the log, and not of the clocks of its writers.
    pub(crate) fn is_finding(&self) -> bool {
        !matches!(self, Self::TimeBack { .. })
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(problem) => f.write_str(problem),
            Self::OffsetBack { next } => write!(f, "offset goes back: {next} would be next"),
            Self::LeaderEpochBack { before } => write!(f, "leader epoch falls from {before}"),
            Self::ProducerEpochBack { before } => write!(f, "producer epoch falls from {before}"),
            Self::SequenceGap { expected } => write!(f, "sequence gap: {expected} would be next"),
            Self::DuplicateSequence { expected } => write!(f, "duplicate sequence: {expected} would be next"),
            Self::NotOfHolder { name, barrier } => {
                write!(f, "not of the holder {}, whose barrier is at {barrier}", escaped(name.as_bytes()))
            }
            Self::TimeBack { before } => write!(f, "time goes back from {}", time_text(*before)),
        }
    }
}

/// Whether a batch after a barrier is not of the holder who took over by it.
///
/// A control batch ends a transaction that began earlier, and a fence shuts out an earlier producer.
pub(crate) fn is_of_other(batch: &Batch, holder: &Barrier) -> bool {
    let producer = batch.producer_id().zip(batch.producer_epoch());
    // The holder raises its epoch now and then.
    let is_own = producer.is_some_and(|(id, epoch)| id == holder.producer_id && epoch >= holder.epoch);
    !is_own && !batch.is_control() && !is_fence(batch)
}

/// Checks batches in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    next_offset: Option<i64>,
    leader_epoch: i32,
    max_timestamp: Option<i64>,
    /// The end of the last range of offsets without a batch.
    last_hole: Option<i64>,
    producers: HashMap<i64, Producer>,
    /// The last barrier and its offset, if no later one can have been lost.
    holder: Option<(Barrier, i64)>,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// `None` after a marker, which has no sequence number.
    next_sequence: Option<i32>,
    last_offset: i64,
    /// Where its open transaction begins.
    transaction: Option<i64>,
}

/// What was found at a batch.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Noted {
    /// Offsets without a batch in front of it.
    pub(crate) hole: Option<Range<i64>>,
    pub(crate) doubts: Vec<Doubt>,
}

/// How many producers are remembered. More than a broker keeps for a partition of a log.
const MAX_PRODUCERS: usize = 100_000;

impl Checker {
    /// Takes offsets that cannot be read.
    pub(crate) fn pass(&mut self, offsets: &Range<i64>) -> Noted {
        let mut noted = Noted::default();
        self.place(offsets.start, &mut noted);
        // What was in it is unknown.
        self.last_hole = Some(offsets.end);
        self.holder = None;
        self.next_offset = self.next_offset.max(Some(offsets.end));
        noted
    }

    /// Takes the next batch.
    pub(crate) fn note(&mut self, batch: &Batch) -> Noted {
        let mut noted = Noted::default();
        let header = batch.header();
        if header.magic != BatchHeader::MAGIC {
            // A wrapper has the offset of its last message.
            self.next_offset = self.next_offset.max(Some(batch.next_offset()));
            return noted;
        }
        self.place(header.base_offset, &mut noted);
        self.next_offset = self.next_offset.max(Some(header.next_offset()));
        if header.partition_leader_epoch < self.leader_epoch {
            noted.doubts.push(Doubt::LeaderEpochBack { before: self.leader_epoch });
        }
        self.leader_epoch = header.partition_leader_epoch;
        if !header.is_control() && header.max_timestamp >= 0 {
            let before = self.max_timestamp.replace(header.max_timestamp);
            if let Some(before) = before.filter(|before| *before > header.max_timestamp) {
                noted.doubts.push(Doubt::TimeBack { before });
            }
        }
        if header.producer_id >= 0 {
            self.produced(header, &mut noted);
        }
        self.held(batch, &mut noted);
        noted
    }

    /// Returns the transactions that are open: producer ids, and where each begins.
    pub(crate) fn open_transactions(&self) -> Vec<(i64, i64)> {
        let open = self.producers.iter().filter_map(|(id, producer)| Some((*id, producer.transaction?)));
        let mut open: Vec<_> = open.collect();
        open.sort_unstable_by_key(|(_, from)| *from);
        open
    }

    fn place(&mut self, base_offset: i64, noted: &mut Noted) {
        let Some(next) = self.next_offset else { return };
        if base_offset < next {
            noted.doubts.push(Doubt::OffsetBack { next });
        } else if base_offset > next {
            noted.hole = Some(next..base_offset);
            self.last_hole = Some(base_offset);
        }
    }

    fn produced(&mut self, header: &BatchHeader, noted: &mut Noted) {
        let is_marker = header.is_control();
        let last_hole = self.last_hole;
        if self.producers.len() >= MAX_PRODUCERS && !self.producers.contains_key(&header.producer_id) {
            self.forget_half();
        }
        // One that is seen for the first time may begin anywhere: what was before it may have been removed.
        let producer = self.producers.entry(header.producer_id).or_insert(Producer {
            epoch: header.producer_epoch,
            next_sequence: None,
            last_offset: header.base_offset,
            transaction: None,
        });
        if header.producer_epoch < producer.epoch {
            noted.doubts.push(Doubt::ProducerEpochBack { before: producer.epoch });
        } else if !is_marker {
            // Each epoch begins at 0.
            let raised = header.producer_epoch > producer.epoch;
            let expected = if raised { Some(0) } else { producer.next_sequence };
            if let Some(expected) = expected.filter(|expected| *expected != header.base_sequence) {
                let is_ahead = header.base_sequence.wrapping_sub(expected) > 0 && header.base_sequence != 0;
                // Compaction removes batches of a producer but its last one.
                let is_explained = last_hole.is_some_and(|hole| hole > producer.last_offset);
                match is_ahead {
                    true if is_explained => {}
                    true => noted.doubts.push(Doubt::SequenceGap { expected }),
                    false => noted.doubts.push(Doubt::DuplicateSequence { expected }),
                }
            }
        }
        producer.last_offset = header.last_offset();
        match is_marker {
            true => {
                if header.producer_epoch > producer.epoch {
                    producer.next_sequence = Some(0);
                }
                producer.transaction = None;
            }
            false => {
                producer.next_sequence = Some(header.last_sequence().wrapping_add(1) & i32::MAX);
                if header.is_transactional() {
                    producer.transaction.get_or_insert(header.base_offset);
                }
            }
        }
        producer.epoch = producer.epoch.max(header.producer_epoch);
    }

    fn held(&mut self, batch: &Batch, noted: &mut Noted) {
        if let Some(barrier) = Barrier::in_batch(batch) {
            self.holder = Some((barrier, batch.base_offset()));
        } else if noted.hole.is_some() || (batch.header().count == 0 && !batch.is_control()) {
            // Compaction removes a barrier when its name has taken over again. The hole may have been one.
            self.holder = None;
        } else if let Some((holder, offset)) = &self.holder
            && is_of_other(batch, holder)
        {
            noted.doubts.push(Doubt::NotOfHolder { name: holder.name.clone(), barrier: *offset });
        }
    }

    /// Forgets the producers that appended least recently.
    fn forget_half(&mut self) {
        let mut offsets: Vec<_> = self.producers.values().map(|producer| producer.last_offset).collect();
        let middle = offsets.len() / 2;
        let (_, median, _) = offsets.select_nth_unstable(middle);
        let median = *median;
        self.producers.retain(|_, producer| producer.last_offset > median);
    }
}

#[cfg(test)]
mod tests {
    use kwal::record::{BatchBuilder, Compression, HeaderView};
    use kwal_protocol::record::Batches;

    use super::*;

    /// A batch of some records at an offset.
    struct Made {
        at: i64,
        records: usize,
        producer: (i64, i16, i32),
        leader_epoch: i32,
        time: i64,
    }

    const ONE: Made = Made { at: 0, records: 1, producer: (7, 0, 0), leader_epoch: 0, time: 1_000 };

    fn batch(made: &Made) -> Batch {
        let mut builder = BatchBuilder::new(Compression::None);
        for _ in 0..made.records {
            builder.push(made.time, None, Some(b"x"), std::iter::empty::<HeaderView<'_>>());
        }
        let (id, epoch, sequence) = made.producer;
        let batch = builder.finish().unwrap().stamp(id, epoch, sequence).at(made.at, made.leader_epoch);
        Batches::new(batch.to_bytes()).next().unwrap().unwrap()
    }

    /// What is found at the last of some batches; nothing is found at those before it.
    fn last(batches: &[Made]) -> Noted {
        let mut checker = Checker::default();
        let (last, first) = batches.split_last().unwrap();
        for made in first {
            let noted = checker.note(&batch(made));
            assert_eq!(noted.doubts, [], "at {}", made.at);
        }
        checker.note(&batch(last))
    }

    #[test]
    fn doubts() {
        let cases = [
            (Made { at: 0, ..ONE }, Some(Doubt::OffsetBack { next: 1 })),
            (Made { leader_epoch: -1, ..ONE }, Some(Doubt::LeaderEpochBack { before: 0 })),
            (Made { time: 999, ..ONE }, Some(Doubt::TimeBack { before: 1_000 })),
            (Made { producer: (7, 0, 2), ..ONE }, Some(Doubt::SequenceGap { expected: 1 })),
            (Made { producer: (7, 0, 0), ..ONE }, Some(Doubt::DuplicateSequence { expected: 1 })),
            (Made { producer: (7, 1, 1), ..ONE }, Some(Doubt::SequenceGap { expected: 0 })),
            (Made { producer: (7, 1, 0), ..ONE }, None),
            (Made { producer: (8, 0, 40), ..ONE }, None),
            (Made { producer: (-1, -1, -1), ..ONE }, None),
        ];
        for (next, expected) in cases {
            let at = if expected == Some(Doubt::OffsetBack { next: 1 }) { 0 } else { 1 };
            let is_as_before = next.producer == ONE.producer
                && expected.as_ref().is_none_or(|doubt| !matches!(doubt, Doubt::DuplicateSequence { .. }));
            let producer = if is_as_before { (7, 0, 1) } else { next.producer };
            let noted = last(&[ONE, Made { at, producer, ..next }]);
            assert_eq!(noted, Noted { hole: None, doubts: expected.into_iter().collect() });
        }
        let epochs = [Made { producer: (7, 3, 0), ..ONE }, Made { at: 1, producer: (7, 2, 0), ..ONE }];
        assert_eq!(last(&epochs).doubts, [Doubt::ProducerEpochBack { before: 3 }]);
    }

    /// A barrier of a producer at an offset.
    fn barrier(at: i64, (id, epoch): (i64, i16)) -> Batch {
        let (id_text, epoch_text) = (id.to_string(), epoch.to_string());
        let headers = [
            ("kwal.barrier", "w"),
            ("kwal.producer-id", &id_text),
            ("kwal.epoch", &epoch_text),
            ("kwal.mark", "000102030405060708090a0b0c0d0e0f"),
        ];
        let headers =
            headers.map(|(key, value)| HeaderView { key: key.as_bytes(), value: Some(value.as_bytes()) });
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(1_000, Some(b"w/wal/0"), Some(b""), headers);
        let batch = builder.finish().unwrap().stamp(id, epoch, 0).at(at, 0);
        Batches::new(batch.to_bytes()).next().unwrap().unwrap()
    }

    #[test]
    fn after_a_barrier_there_is_one_writer() {
        let not_of_holder = Doubt::NotOfHolder { name: "w".to_owned(), barrier: 0 };
        let next = |made: &Made, before: Option<&Made>| {
            let mut checker = Checker::default();
            assert_eq!(checker.note(&barrier(0, (7, 1))), Noted::default());
            if let Some(before) = before {
                checker.note(&batch(before));
            }
            checker.note(&batch(made)).doubts
        };
        for (producer, records, expected) in [
            ((7, 1, 1), 1, vec![]),
            ((7, 2, 0), 1, vec![]),
            ((7, 0, 0), 1, vec![Doubt::ProducerEpochBack { before: 1 }, not_of_holder.clone()]),
            ((8, 1, 0), 1, vec![not_of_holder.clone()]),
            ((-1, -1, -1), 1, vec![not_of_holder.clone()]),
            ((8, i16::MAX, 0), 1, vec![]),
            // More than the one record of a fence.
            ((8, i16::MAX, 0), 2, vec![not_of_holder.clone()]),
        ] {
            assert_eq!(next(&Made { at: 1, producer, records, ..ONE }, None), expected, "{producer:?}");
        }
        // Compaction may have removed a later barrier.
        let after_hole = Made { at: 3, producer: (8, 0, 0), ..ONE };
        assert_eq!(next(&after_hole, None), []);
        assert_eq!(next(&Made { at: 4, producer: (8, 0, 1), ..ONE }, Some(&after_hole)), []);
    }

    #[test]
    fn a_hole_explains_missing_sequence_numbers() {
        let noted = last(&[ONE, Made { at: 4, producer: (7, 0, 4), ..ONE }]);
        assert_eq!(noted, Noted { hole: Some(1..4), doubts: vec![] });
        let noted = last(&[
            ONE,
            Made { at: 4, producer: (7, 0, 4), ..ONE },
            Made { at: 5, producer: (7, 0, 6), ..ONE },
        ]);
        assert_eq!(noted.doubts, [Doubt::SequenceGap { expected: 5 }]);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let two = Made { records: 2, producer: (7, 0, i32::MAX - 1), ..ONE };
        assert_eq!(last(&[two, Made { at: 2, producer: (7, 0, 0), ..ONE }]).doubts, []);
        let across = Made { records: 3, producer: (7, 0, i32::MAX - 1), ..ONE };
        assert_eq!(last(&[across, Made { at: 3, producer: (7, 0, 1), ..ONE }]).doubts, []);
    }

    #[test]
    fn producers_are_forgotten_one_half_at_a_time() {
        let mut checker = Checker::default();
        for id in 0..=MAX_PRODUCERS as i64 {
            let header = BatchHeader { base_offset: id, producer_id: id, ..Default::default() };
            checker.produced(&header, &mut Noted::default());
        }
        assert!((MAX_PRODUCERS / 2..=MAX_PRODUCERS / 2 + 1).contains(&checker.producers.len()));
        assert!(checker.producers.contains_key(&(MAX_PRODUCERS as i64)));
    }
}
