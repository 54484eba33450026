//! The errors of readers that are built on fetches, and judge more than one of them; and their reports.

use kwal_protocol::api::ApiKey;

use super::PartitionClient;
use crate::{
    error::{Error, ErrorKind},
    position::Position,
};

impl PartitionClient {
    /// Returns the error of a read whose input is not valid.
    #[doc(hidden)]
    pub fn invalid_read(&self, reason: String) -> Error {
        self.partition.call(ApiKey::FETCH).invalid_input(reason)
    }

    /// Returns the error of a reader that found where the log differs from what it has read.
    #[doc(hidden)]
    pub fn log_truncated(&self, position: Position, diverged_at: i64) -> Error {
        self.partition.call(ApiKey::FETCH).error(ErrorKind::LogTruncated { position, diverged_at })
    }

    /// Returns the error of a reader that was given an offset beyond the end of the log.
    #[doc(hidden)]
    pub fn beyond_end(&self, offset: i64, end: i64) -> Error {
        self.partition.call(ApiKey::FETCH).error(ErrorKind::BeyondEnd { offset, end })
    }

    /// Reports that a reader stops at a batch that cannot be read.
    #[doc(hidden)]
    pub fn reader_stops(&self, error: &Error) {
        self.partition.cluster.troubles.unreadable(self.partition.call(ApiKey::FETCH), error);
    }

    /// Reports that a reader leaves out a batch that cannot be read.
    #[doc(hidden)]
    pub fn reader_skips(&self, error: &Error) {
        self.partition.cluster.troubles.skipped(self.partition.call(ApiKey::FETCH), error);
    }
}
