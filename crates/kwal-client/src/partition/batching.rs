//! What kwal-batching needs to make batches of its own.

use std::time::Duration;

use kwal_protocol::{
    api::ApiKey,
    record::{BatchBuilder, Compression, EncodedBatch},
};
use tokio::runtime::Handle;

use super::PartitionClient;
use crate::{
    error::{Error, ErrorKind, Outcome, Progress},
    producer::{Answer, OnFailure, Permit},
    record::Record,
};

impl PartitionClient {
    /// Returns a permit to append a batch of so many bytes, if nothing has to be waited for. See
    /// [`reserve`](Self::reserve).
    pub fn try_reserve(&self, bytes: usize) -> Option<Permit> {
        self.producer.try_permit(bytes, self.operation_deadline())
    }

    /// Returns an empty batch, with the compression of this partition client and room for so many bytes.
    #[doc(hidden)]
    pub fn batch_builder(&self, bytes: usize) -> BatchBuilder {
        self.producer.batch_builder(bytes)
    }

    /// Compresses a batch and computes its checksum. It may be larger than the limit on batches.
    #[doc(hidden)]
    pub fn finish(&self, builder: BatchBuilder) -> Result<EncodedBatch, Error> {
        self.producer.finish(builder)
    }

    /// Returns the runtime on which the tasks of the client run.
    #[doc(hidden)]
    pub fn runtime(&self) -> &Handle {
        &self.partition.cluster.runtime
    }

    /// Returns random bytes that identify a writer, from the source of the client.
    #[doc(hidden)]
    pub fn random_id(&self) -> [u8; 16] {
        self.partition.cluster.random.id()
    }

    /// Returns the default time limit of a call.
    #[doc(hidden)]
    pub fn operation_deadline(&self) -> Duration {
        self.partition.cluster.config.deadlines.operation
    }

    /// Returns the compression of batches.
    #[doc(hidden)]
    pub fn compression(&self) -> Compression {
        self.producer.settings().encoding.compression
    }

    /// Returns how many batches may be in flight.
    #[doc(hidden)]
    pub fn max_in_flight(&self) -> usize {
        self.producer.settings().max_in_flight
    }

    /// Returns the most bytes of a batch, before compression and after it.
    #[doc(hidden)]
    pub fn batch_limit(&self) -> usize {
        self.partition.cluster.config.limits.batch
    }

    /// Returns what becomes of the appends behind one that has failed.
    #[doc(hidden)]
    pub fn on_failure(&self) -> OnFailure {
        self.producer.settings().on_failure
    }

    /// Rejects a record that no broker takes, and one that exceeds the limit on batches by itself.
    #[doc(hidden)]
    pub fn check_record(&self, record: &Record) -> Result<(), Error> {
        self.producer.check(std::slice::from_ref(record)).map(drop)
    }

    /// Returns the error of a batch that exceeds the limit on batches.
    #[doc(hidden)]
    pub fn batch_too_large(&self, size: usize, records: usize) -> Error {
        self.producer.batch_too_large(size, records)
    }

    /// Returns the error of an input that would exceed a limit by itself.
    #[doc(hidden)]
    pub fn input_too_large(&self, size: usize, records: usize, limit: usize) -> Error {
        let kind = ErrorKind::BatchTooLarge { size, records, limit: Some(limit), is_input: true };
        self.partition.call(ApiKey::PRODUCE).error(kind)
    }

    /// Returns the error of an append whose input is not valid.
    #[doc(hidden)]
    pub fn invalid_append(&self, reason: String) -> Error {
        self.partition.call(ApiKey::PRODUCE).invalid_input(reason)
    }

    /// Returns the error of an append after the end.
    #[doc(hidden)]
    pub fn append_closed(&self, outcome: Outcome) -> Error {
        self.partition.call(ApiKey::PRODUCE).error(ErrorKind::Closed).with_outcome(outcome)
    }

    /// Returns the error of an append that was not done in time.
    #[doc(hidden)]
    pub fn append_late(&self, after: Duration, progress: Progress, outcome: Outcome) -> Error {
        let kind = ErrorKind::DeadlineExceeded { after, progress };
        self.partition.call(ApiKey::PRODUCE).error(kind).with_outcome(outcome)
    }

    /// Returns the result of an append that failed before it was submitted: as that of one that was.
    #[doc(hidden)]
    pub fn failed_append(&self, error: Error) -> Answer {
        self.producer.failed(error)
    }

    /// Ends the appends of a group: each with its outcome, and if it may be on the log, with its handle.
    #[doc(hidden)]
    pub fn end_appends(&self, group: usize, after: Duration) {
        self.producer.end_group(group, after);
    }

    /// Returns the error of an append that would leave a hole behind one that has failed.
    #[doc(hidden)]
    pub fn preceding_failed(&self) -> Error {
        self.producer.preceding_failed()
    }
}
