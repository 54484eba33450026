//! Which records of transactions are read.

use kwal_protocol::messages::IsolationLevel;

/// Which records of transactions are read. Logs that nobody writes to with transactions are the same for
/// both.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Isolation {
    /// All records up to the high watermark, also those of transactions that are open or were aborted.
    #[default]
    ReadUncommitted,
    /// The records up to the last stable offset, before which no transaction is open, without those of
    /// aborted transactions (KIP-98).
    ReadCommitted,
}

impl Isolation {
    pub(crate) fn level(self) -> IsolationLevel {
        match self {
            Self::ReadUncommitted => IsolationLevel::READ_UNCOMMITTED,
            Self::ReadCommitted => IsolationLevel::READ_COMMITTED,
        }
    }
}
