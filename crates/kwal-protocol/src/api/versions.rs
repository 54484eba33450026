use std::fmt;

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Versions {
    /// The oldest version.
    pub oldest: i16,
    /// The newest version.
    pub newest: i16,
}

impl Versions {
    /// Creates the range from `oldest` to `newest`.
    pub const fn new(oldest: i16, newest: i16) -> Self {
        Self { oldest, newest }
    }

    /// Whether the range contains the version.
    pub const fn contains(self, version: i16) -> bool {
        self.oldest <= version && version <= self.newest
    }

    /// Returns the newest version in both ranges, if they overlap.
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
