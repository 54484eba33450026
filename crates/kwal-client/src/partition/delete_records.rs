//! DeleteRecords: cutting off the beginning of the log (KIP-107).

use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic},
};
use tracing::Span;

use super::PartitionClient;
use crate::{
    error::{Error, ErrorKind},
    log,
    request::{call_span, request},
    routing::{Operation, Rejection, Route, only_partition},
};

/// Up to where to delete records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeleteBefore {
    /// All records before this offset.
    Offset(i64),
    /// All records that every in-sync replica has. Afterwards the log is empty, except for appends in flight.
    HighWatermark,
}

impl From<i64> for DeleteBefore {
    fn from(offset: i64) -> Self {
        Self::Offset(offset)
    }
}

impl DeleteBefore {
    /// Returns the `Offset` of `DeleteRecordsRequest.json`.
    fn offset(self) -> i64 {
        match self {
            Self::Offset(offset) => offset,
            Self::HighWatermark => -1,
        }
    }
}

impl PartitionClient {
    /// Deletes the records before an offset, or all of them. Returns the new first offset of the log. An
    /// offset before the start of the log deletes nothing.
    ///
    /// When this is `Ok`, the records are gone for every reader. Their bytes are freed later, whole segments
    /// at a time.
    ///
    /// The leader answers when all in-sync replicas have done the same: up to half a second on an idle
    /// cluster (`replica.fetch.wait.max.ms`), and until the deadline if a replica hangs. Appends do not wait
    /// for it, unless your own code does: run it in a task of its own.
    ///
    /// ```no_run
    /// # use kwal_client::{PartitionClient, error::Error};
    /// # async fn prune(partition: PartitionClient, applied: i64) -> Result<(), Error> {
    /// let start = partition.delete_records(applied).await?;
    /// assert!(start >= applied);
    /// # Ok(())
    /// # }
    /// ```
    pub fn delete_records(&self, before: impl Into<DeleteBefore>) -> DeleteRecords<'_> {
        DeleteRecords { partition: self, before: before.into(), deadline: None }
    }
}

request! {
    /// A deletion of records. Nothing happens until it is awaited.
    ///
    /// # Errors
    /// [`ErrorKind::BeyondEnd`] for an offset beyond the high watermark; [`ErrorKind::NotDeletable`]
    /// if the topic is only compacted; [`ErrorKind::Broker`] for other rejections;
    /// [`ErrorKind::DeadlineExceeded`]. The [outcome](Error::outcome) is `Unknown` if the records may have
    /// been deleted. It can be called again without harm.
    ///
    /// # Cancellation safety
    /// If it is dropped, the records may be deleted or not.
    pub struct DeleteRecords<'a> -> Result<i64, Error> {
        partition: &'a PartitionClient,
        before: DeleteBefore,
    }
}

impl DeleteRecords<'_> {
    fn span(&self) -> Span {
        call_span!("delete_records", self.partition.topic(), self.partition.partition())
    }

    async fn run(self) -> Result<i64, Error> {
        if let DeleteBefore::Offset(offset @ ..0) = self.before {
            let call = self.partition.partition.call(ApiKey::DELETE_RECORDS);
            return Err(call.invalid_input(format!("offset {offset} is negative")));
        }
        let deadline = self.partition.deadline(self.deadline);
        let partition = &*self.partition.partition;
        let mut refused = 0;
        loop {
            let error = match self.partition.call(&Delete { before: self.before }, deadline).await {
                Ok(start) => return Ok(start),
                Err(error) => log::with_range(partition, error, deadline).await,
            };
            // A new leader may refuse an offset until it knows its high watermark, for which the lookup of
            // the range has waited (KIP-207).
            refused += 1;
            if !matches!(error.kind(), ErrorKind::OffsetOutOfRange { log: Some(_), .. })
                || refused == log::STUCK_ROUNDS
            {
                return Err(error);
            }
            log::pause(partition, deadline).await;
        }
    }
}

#[derive(Debug)]
struct Delete {
    before: DeleteBefore,
}

impl Operation for Delete {
    type Request = DeleteRecordsRequest;
    type Output = i64;

    fn request(&self, route: &Route<'_>) -> DeleteRecordsRequest {
        DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: route.topic.to_owned(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: route.partition,
                    offset: self.before.offset(),
                }],
            }],
            timeout_ms: route.timeout_ms(),
        }
    }

    fn response(&self, route: &Route<'_>, response: DeleteRecordsResponse) -> Result<i64, Rejection> {
        let found = only_partition(
            response.topics,
            |topic| topic.name == route.topic,
            |topic| topic.partitions,
            |found| found.partition_index == route.partition,
        )?;
        match found.error_code {
            ErrorCode::OFFSET_OUT_OF_RANGE => {
                let offset = self.before.offset();
                Err(Rejection::Kind(ErrorKind::OffsetOutOfRange { offset, log: None }))
            }
            ErrorCode::POLICY_VIOLATION => Err(Rejection::Kind(ErrorKind::NotDeletable)),
            // Brokers answer when no replica has a lower start.
            ErrorCode::NONE if found.low_watermark < self.before.offset().max(0) => Err(Rejection::Missing),
            code => Rejection::check(code).map(|()| found.low_watermark),
        }
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::messages::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};

    use super::*;
    use crate::routing::rejected_code;

    #[test]
    fn an_offset_or_the_high_watermark_is_requested() {
        for (before, offset) in [(DeleteBefore::from(17), 17), (DeleteBefore::HighWatermark, -1)] {
            let request = Delete { before }.request(&Route::of_partition("wal", 3));
            let partitions = vec![DeleteRecordsPartition { partition_index: 3, offset }];
            let topics = vec![DeleteRecordsTopic { name: "wal".to_owned(), partitions }];
            assert_eq!(request, DeleteRecordsRequest { topics, timeout_ms: 9000 });
        }
    }

    #[test]
    fn two_codes_have_kinds_of_their_own() {
        let respond = |partition_index, error_code| {
            let found = DeleteRecordsPartitionResult { partition_index, low_watermark: 20, error_code };
            let topic = DeleteRecordsTopicResult { name: "wal".to_owned(), partitions: vec![found] };
            let response = DeleteRecordsResponse { topics: vec![topic], ..Default::default() };
            Delete { before: DeleteBefore::Offset(20) }.response(&Route::of_partition("wal", 3), response)
        };
        assert_eq!(respond(3, ErrorCode::NONE).unwrap(), 20);
        assert!(matches!(respond(2, ErrorCode::NONE), Err(Rejection::Missing)));
        let beyond = respond(3, ErrorCode::OFFSET_OUT_OF_RANGE);
        let expected =
            |kind: &ErrorKind| matches!(kind, ErrorKind::OffsetOutOfRange { offset: 20, log: None });
        assert!(matches!(&beyond, Err(Rejection::Kind(kind)) if expected(kind)), "{beyond:?}");
        let compacted = respond(3, ErrorCode::POLICY_VIOLATION);
        assert!(matches!(compacted, Err(Rejection::Kind(ErrorKind::NotDeletable))), "{compacted:?}");
        let code = ErrorCode::REQUEST_TIMED_OUT;
        assert_eq!(rejected_code(respond(3, code)), (code, None));
    }

    #[test]
    fn a_start_below_the_requested_one_is_malformed() {
        let respond = |before, name: &str, low_watermark| {
            let found =
                DeleteRecordsPartitionResult { partition_index: 3, low_watermark, ..Default::default() };
            let topic = DeleteRecordsTopicResult { name: name.to_owned(), partitions: vec![found] };
            let response = DeleteRecordsResponse { topics: vec![topic], ..Default::default() };
            Delete { before }.response(&Route::of_partition("wal", 3), response)
        };
        let (offset, all) = (DeleteBefore::Offset(20), DeleteBefore::HighWatermark);
        for (before, low_watermark) in [(offset, 20), (offset, 30), (all, 0), (all, 30)] {
            assert_eq!(respond(before, "wal", low_watermark).unwrap(), low_watermark);
            assert!(matches!(respond(before, "other", low_watermark), Err(Rejection::Missing)));
        }
        for (before, low_watermark) in [(offset, 19), (offset, -1), (all, -1)] {
            assert!(matches!(respond(before, "wal", low_watermark), Err(Rejection::Missing)));
        }
    }
}
