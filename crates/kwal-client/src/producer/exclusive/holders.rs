//! Who may still append to a log that is searched backward.

use std::collections::BTreeSet;

/// The producer ids of a name, as far as the log was searched from its end backward.
///
/// A barrier alone does not prove that its holder had the log: that of another one may lie before it,
/// unnoticed when it was appended. An append proves it, because it follows a barrier that was read back.
/// Every other id with a barrier before that one is fenced.
#[derive(Debug)]
pub(super) struct Holders {
    /// The id of the takeover.
    own: i64,
    /// The ids that have barriers in what was searched before, and none before a certain one.
    later: Vec<i64>,
    /// The same for the part that is searched.
    part: Vec<i64>,
    /// Ids that have appended, and are not known to be of the name.
    writers: BTreeSet<i64>,
    is_certain: bool,
}

impl Holders {
    /// How many writers are remembered. Without the others, more of the log is searched.
    const MOST_WRITERS: usize = 10_000;

    pub(super) fn new(own: i64) -> Self {
        Self { own, later: Vec::new(), part: Vec::new(), writers: BTreeSet::new(), is_certain: false }
    }

    /// Notes a barrier of an id, or a fence that was appended under it.
    pub(super) fn note_barrier(&mut self, id: i64) {
        if self.writers.contains(&id) {
            self.note_holder();
        }
        if id != self.own && !self.part.contains(&id) {
            self.part.push(id);
        }
    }

    /// Notes another batch of an id.
    pub(super) fn note_append(&mut self, id: i64) {
        if id == self.own {
            self.note_holder();
        } else if let Some(barrier) = self.part.iter().position(|other| *other == id) {
            self.is_certain = true;
            self.part.drain(..barrier);
        } else if self.later.contains(&id) {
            self.note_holder();
            self.part.push(id);
        } else if id >= 0 && self.writers.len() < Self::MOST_WRITERS {
            self.writers.insert(id);
        }
    }

    /// What lies before is fenced.
    fn note_holder(&mut self) {
        self.is_certain = true;
        self.part.clear();
    }

    /// Goes on with the part of the log before.
    pub(super) fn end_part(&mut self) {
        for id in std::mem::take(&mut self.part) {
            if !self.later.contains(&id) {
                self.later.push(id);
            }
        }
    }

    /// Whether what was not searched is fenced.
    pub(super) fn are_certain(&self) -> bool {
        self.is_certain
    }

    /// Returns the other ids of the name.
    pub(super) fn previous(self) -> Vec<i64> {
        self.later
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a log in parts of `part` batches. Positive numbers are appends of an id, negative ones its
    /// barriers. Returns the other ids, and how many batches were searched.
    fn search(own: i64, log: &[i64], part: usize) -> (Vec<i64>, usize) {
        let (mut holders, mut searched) = (Holders::new(own), 0);
        for batches in log.rchunks(part) {
            for batch in batches {
                match batch {
                    ..0 => holders.note_barrier(-batch),
                    _ => holders.note_append(*batch),
                }
            }
            holders.end_part();
            searched += batches.len();
            if holders.are_certain() {
                break;
            }
        }
        let mut previous = holders.previous();
        previous.sort_unstable();
        (previous, searched)
    }

    #[test]
    fn an_append_of_a_holder_ends_the_search() {
        for part in [1, 2, 3, 10] {
            // Of the own id, or another one.
            assert_eq!(search(1, &[-3, 9, -1, 1, 1], part), (vec![], part.min(5)));
            assert_eq!(search(2, &[9, 9, 9, 9, 9, 9, 9, 9, -1, 1], part).0, [1]);
            assert_eq!(search(1, &[9, 9, 9], part), (vec![], 3));
            // A barrier of the own id that came too late hides nobody.
            assert_eq!(search(2, &[-1, -2], part), (vec![1], 2));
            assert_eq!(search(2, &[-1, 1, -2, 1], part).0, [1]);
            assert_eq!(search(2, &[-1, -2, 1, 9, 9], part).0, [1]);
            // Nor does one of a third id.
            assert_eq!(search(3, &[-1, -2, 1, 9, 9], part).0, [1, 2]);
            assert_eq!(search(3, &[-1, -2], part).0, [1, 2]);
            // What was before it is fenced.
            assert_eq!(search(3, &[-1, 1, -1, -2, 2, 2, 9], part).0, [2]);
        }
    }
}
