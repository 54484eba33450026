use std::fmt;

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Versions {
    /// The oldest.
    pub oldest: i16,
    /// The newest.
    pub newest: i16,
}

impl Versions {
    /// From `oldest` to `newest`.
    pub const fn new(oldest: i16, newest: i16) -> Self {
        Self { oldest, newest }
    }

    /// Whether the version is one of these.
    pub const fn contains(self, version: i16) -> bool {
        self.oldest <= version && version <= self.newest
    }

    /// The newest version in both, if there is one.
    pub fn newest_common(self, other: Self) -> Option<i16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest && newest >= other.oldest).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}
