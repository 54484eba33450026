//! The leader epochs of what was read: where each began.

use std::collections::VecDeque;

/// The first offset of each leader epoch that was read, the newest ones of them.
///
/// A position alone says of which epoch the record before it is, and not where that epoch began. If a new
/// leader does not know the epoch, only its first offset says what was lost.
#[derive(Debug, Default)]
pub(crate) struct Epochs(VecDeque<Epoch>);

#[derive(Clone, Copy, Debug)]
struct Epoch {
    epoch: i32,
    /// The first offset that is known to be of it, or of a later one.
    first: i64,
}

/// How many are kept.
const MAX: usize = 1_000;

impl Epochs {
    /// Begins with what a position says: the record before it is of an epoch.
    pub(crate) fn before(offset: i64, epoch: Option<i32>) -> Self {
        let mut epochs = Self::default();
        if let (Some(epoch), 1..) = (epoch, offset) {
            epochs.read(offset - 1, epoch);
        }
        epochs
    }

    /// Notes that a batch of an epoch was read.
    pub(crate) fn read(&mut self, first: i64, epoch: i32) {
        // Epochs of a log only rise.
        if self.0.back().is_some_and(|last| last.epoch >= epoch) {
            return;
        }
        if self.0.len() == MAX {
            // What is forgotten counts as the epoch after it, so that the first offset stays a bound.
            self.0.pop_front();
        }
        self.0.push_back(Epoch { epoch, first });
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the largest epoch below that of a leader that was read, if that of the leader was not: the
    /// logs parted before it, so that the leader has to be asked about the earlier one (KIP-320).
    pub(crate) fn below(&self, epoch: i32) -> Option<i32> {
        let read = self.0.iter().rfind(|read| read.epoch <= epoch)?;
        (read.epoch < epoch).then_some(read.epoch)
    }

    /// Returns the first offset at which the log of a leader differs from what was read, given the largest
    /// epoch of the leader that is not above the last one read, and where it ends there. `None` if nothing
    /// that was read is known to differ.
    pub(crate) fn diverged_at(&self, leader: Option<(i32, i64)>) -> Option<i64> {
        let (epoch, end) = leader.unzip();
        let lost = self.0.iter().find(|read| epoch.is_none_or(|epoch| read.epoch > epoch));
        // The records of that epoch end at the leader, or where the reader found a later one.
        let lost = lost.map(|read| read.first);
        end.into_iter().chain(lost).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_of_unknown_epochs_is_lost_from_its_first_offset_on() {
        let mut epochs = Epochs::before(5, Some(2));
        for (first, epoch) in [(5, 2), (7, 4), (9, 4), (12, 7)] {
            epochs.read(first, epoch);
        }
        for (leader, diverged_at) in [
            // The leader has a part of the last epoch.
            (Some((7, 13)), Some(13)),
            // It has epoch 4 or something in between, to its end, longer, or a part of it.
            (Some((4, 12)), Some(12)),
            (Some((5, 20)), Some(12)),
            (Some((4, 8)), Some(8)),
            // It has epoch 2, and others in the place of 4.
            (Some((3, 10)), Some(7)),
            (Some((2, 6)), Some(6)),
            // Nothing of what is known, or nothing at all.
            (Some((1, 30)), Some(4)),
            (Some((1, 3)), Some(3)),
            (None, Some(4)),
        ] {
            assert_eq!(epochs.diverged_at(leader), diverged_at, "{leader:?}");
        }
    }

    #[test]
    fn a_leader_with_an_epoch_that_was_not_read_is_asked_about_the_one_before() {
        let mut epochs = Epochs::default();
        for (first, epoch) in [(0, 0), (3, 1), (7, 3)] {
            epochs.read(first, epoch);
        }
        // Of 0 to 3, its log has 0, up to 5, and 2.
        assert_eq!(epochs.below(2), Some(1));
        assert_eq!((epochs.below(0), epochs.diverged_at(Some((0, 5)))), (None, Some(3)));
        assert_eq!([-1, 1, 3, 4].map(|epoch| epochs.below(epoch)), [None, None, None, Some(3)]);
    }

    #[test]
    fn nothing_is_known_of_a_bare_offset_and_of_the_start_of_the_log() {
        for epochs in [Epochs::before(5, None), Epochs::before(0, Some(3)), Epochs::before(-1, Some(3))] {
            assert_eq!(epochs.diverged_at(None), None);
            assert_eq!(epochs.diverged_at(Some((3, 4))), Some(4));
        }
        let mut epochs = Epochs::before(i64::MAX, Some(i32::MAX));
        assert_eq!(epochs.diverged_at(None), Some(i64::MAX - 1));
        epochs.clear();
        assert_eq!(epochs.diverged_at(None), None);
    }

    #[test]
    fn the_newest_epochs_are_kept() {
        let mut epochs = Epochs::default();
        for epoch in 0..2 * MAX as i32 {
            epochs.read(10 * i64::from(epoch), epoch);
        }
        assert_eq!(epochs.0.len(), MAX);
        assert_eq!(epochs.diverged_at(Some((1500, 15_010))), Some(15_010));
        assert_eq!(epochs.diverged_at(Some((1500, 99_999))), Some(15_010));
        // Where a forgotten one ended at the leader, or the first that is known.
        assert_eq!(epochs.diverged_at(Some((500, 5_007))), Some(5_007));
        assert_eq!(epochs.diverged_at(Some((500, 99_999))), Some(10_000));
    }
}
