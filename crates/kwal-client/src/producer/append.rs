//! Produce: one batch, and where it was appended.

use std::collections::BTreeMap;

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        Appended, ProduceLeader, ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse,
        ProduceTopic, RecordError as ProduceRecordError,
    },
    record::EncodedBatch,
    wire::Spliced,
};

use super::{Produced, settings::Acks};
use crate::{
    error::{ErrorKind, InvalidField, RecordError},
    routing::{Operation, Rejection, Route, only_partition},
};

/// Appends a batch, which has its producer id and sequence number already.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) batch: EncodedBatch,
    /// Whether an earlier attempt may have appended it.
    pub(super) in_doubt: bool,
    pub(super) acks: Acks,
}

/// One attempt to append a batch: what is needed to interpret its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    record_count: usize,
    wire_bytes: usize,
    /// Counts from 1.
    number: u32,
    /// Whether an earlier attempt may have appended the batch.
    in_doubt: bool,
}

/// Builds a request to append records to a partition, or one that is given its records later.
pub(super) fn request(route: &Route<'_>, acks: Acks, records: Option<Spliced>) -> ProduceRequest {
    let is_named = route.names_topic::<ProduceRequest>();
    ProduceRequest {
        acks: acks.on_the_wire(),
        timeout_ms: route.timeout_ms(),
        topic_data: vec![ProduceTopic {
            name: if is_named { route.topic.to_owned() } else { String::new() },
            topic_id: route.topic_id,
            partition_data: vec![ProducePartition { index: route.partition, records }],
        }],
        ..ProduceRequest::default()
    }
}

impl Attempt {
    pub(super) fn of(batch: &EncodedBatch, number: u32, in_doubt: bool) -> Self {
        let (record_count, wire_bytes) = (batch.record_count(), batch.size_in_bytes());
        Self { record_count, wire_bytes, number, in_doubt }
    }

    /// Interprets a response that says nothing but that a batch was appended.
    pub(super) fn appended(&self, route: &Route<'_>, appended: &Appended<'_>) -> Result<Produced, Rejection> {
        let Appended { name, topic_id, index, base_offset, log_append_time_ms, log_start_offset } = *appended;
        match route.is_topic(name, topic_id) && index == route.partition {
            true => self.produced(route, base_offset, log_append_time_ms, log_start_offset),
            false => Err(Rejection::Missing),
        }
    }

    /// Interprets a success.
    fn produced(
        &self,
        route: &Route<'_>,
        base_offset: i64,
        log_append_time_ms: i64,
        log_start_offset: i64,
    ) -> Result<Produced, Rejection> {
        // Some services do not report offsets.
        let base_offset = InvalidField::known("base_offset", base_offset)?;
        if let Some(base_offset) = base_offset
            && base_offset.checked_add(self.record_count as i64).is_none()
        {
            return Err(InvalidField { field: "base_offset", value: base_offset }.into());
        }
        Ok(Produced {
            topic_id: (!route.topic_id.is_zero()).then_some(route.topic_id),
            base_offset,
            record_count: self.record_count,
            log_append_time_ms: InvalidField::known("log_append_time_ms", log_append_time_ms)?,
            log_start_offset: InvalidField::known("log_start_offset", log_start_offset)?,
            wire_bytes: self.wire_bytes,
            attempts: self.number,
        })
    }

    /// Interprets any response.
    pub(super) fn response(
        &self,
        route: &Route<'_>,
        response: ProduceResponse,
    ) -> Result<Produced, Rejection> {
        let ProduceResponse { responses, node_endpoints, .. } = response;
        let partition = only_partition(
            responses,
            |topic| route.is_topic(&topic.name, topic.topic_id),
            |topic| topic.partition_responses,
            |partition| partition.index == route.partition,
        )?;
        let ProducePartitionResponse { base_offset, log_append_time_ms, log_start_offset, .. } = partition;
        match partition.error_code {
            ErrorCode::NONE => self.produced(route, base_offset, log_append_time_ms, log_start_offset),
            // The earlier attempt appended it, at an offset that this broker no longer knows.
            ErrorCode::DUPLICATE_SEQUENCE_NUMBER if self.in_doubt => {
                self.produced(route, -1, log_append_time_ms, log_start_offset)
            }
            ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => {
                Err(Rejection::Kind(ErrorKind::BatchTooLarge {
                    size: self.wire_bytes,
                    records: self.record_count,
                    limit: None,
                    is_input: false,
                }))
            }
            code => {
                let ProduceLeader { leader_id, leader_epoch } = partition.current_leader;
                let endpoints = node_endpoints.iter().map(|found| (found.node_id, &*found.host, found.port));
                let leader = route.leader_update(code, (leader_id, leader_epoch), endpoints);
                let message = partition.error_message.filter(|message| !message.is_empty());
                let records = self.rejected(partition.record_errors);
                match (leader, records.is_empty()) {
                    (None, false) => Err(Rejection::Records { code, message, records }),
                    (leader, _) => Err(Rejection::Code { code, message, leader }),
                }
            }
        }
    }

    /// Returns the records that a rejection is about.
    fn rejected(&self, reported: Vec<ProduceRecordError>) -> Vec<RecordError> {
        let count = self.record_count;
        let known = reported.into_iter().filter_map(|error| {
            let index = usize::try_from(error.batch_index).ok().filter(|index| *index < count)?;
            let message = error.batch_index_error_message.filter(|message| !message.is_empty());
            Some((index, message))
        });
        // Each of them once.
        let by_index: BTreeMap<_, _> = known.take(RecordError::MAX).collect();
        by_index
            .into_iter()
            .map(|(index, message)| RecordError { index, message: message.map(cut) })
            .collect()
    }
}

/// Cuts off a message of a broker.
fn cut(mut message: String) -> String {
    if message.len() > RecordError::MAX_MESSAGE {
        let end = (0..=RecordError::MAX_MESSAGE).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or_default());
        message.shrink_to_fit();
    }
    message
}

impl Operation for Append {
    type Request = ProduceRequest;
    type Output = Produced;

    fn request(&self, route: &Route<'_>) -> ProduceRequest {
        request(route, self.acks, Some(self.batch.to_spliced()))
    }

    fn response(&self, route: &Route<'_>, response: ProduceResponse) -> Result<Produced, Rejection> {
        Attempt::of(&self.batch, 1, self.in_doubt).response(route, response)
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::{
        messages::{ProduceNodeEndpoint, ProducePartitionResponse, ProduceTopicResponse},
        record::{BatchBuilder, Compression, Headers},
        wire::Uuid,
    };
    use kwal_transport::HostPort;

    use super::*;
    use crate::{metadata::LeaderUpdate, routing::rejected_code};

    const ID: Uuid = Uuid([5; 16]);

    fn append() -> Append {
        let mut builder = BatchBuilder::new(Compression::None);
        for value in [&b"one"[..], b"two"] {
            builder.push(1_700_000_000_000, None, Some(value), &Headers::new());
        }
        let batch = builder.finish().unwrap().stamp(17, 2, 40);
        Append { batch, in_doubt: false, acks: Acks::All }
    }

    fn route() -> Route<'static> {
        Route { topic_id: ID, ..Route::of_partition("wal", 3) }
    }

    fn respond(partition: ProducePartitionResponse) -> Result<Produced, Rejection> {
        append().response(&route(), answer(partition))
    }

    fn answer(partition: ProducePartitionResponse) -> ProduceResponse {
        let endpoint = |node_id, host: &str| ProduceNodeEndpoint {
            node_id,
            host: host.to_owned(),
            port: 9092,
            ..Default::default()
        };
        let topic =
            ProduceTopicResponse { topic_id: ID, partition_responses: vec![partition], ..Default::default() };
        ProduceResponse {
            responses: vec![topic],
            node_endpoints: vec![endpoint(4, "four"), endpoint(5, "five")],
            ..Default::default()
        }
    }

    fn partition(error_code: ErrorCode) -> ProducePartitionResponse {
        ProducePartitionResponse { index: 3, error_code, ..Default::default() }
    }

    #[test]
    fn all_replicas_acknowledge_the_stamped_batch() {
        let append = append();
        let batch = append.batch.to_bytes();
        let mut request = append.request(&route());
        let records = request.topic_data[0].partition_data[0].records.take().unwrap();
        assert_eq!(records.into_bytes(), batch);
        let partition_data = vec![ProducePartition { index: 3, records: None }];
        let expected = ProduceRequest {
            transactional_id: None,
            acks: -1,
            timeout_ms: 9000,
            topic_data: vec![ProduceTopic { name: "wal".to_owned(), topic_id: ID, partition_data }],
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn a_success_reports_where_the_batch_is_and_what_the_broker_knows() {
        for (log_append_time_ms, log_start_offset, time, start) in
            [(-1, -1, None, None), (0, 0, Some(0), Some(0)), (1234, 20, Some(1234), Some(20))]
        {
            let found = ProducePartitionResponse {
                base_offset: 100,
                log_append_time_ms,
                log_start_offset,
                ..partition(ErrorCode::NONE)
            };
            let expected = Produced {
                topic_id: Some(ID),
                base_offset: Some(100),
                record_count: 2,
                log_append_time_ms: time,
                log_start_offset: start,
                wire_bytes: append().batch.to_bytes().len(),
                attempts: 1,
            };
            assert_eq!(respond(found).unwrap(), expected);
        }
    }

    #[test]
    fn a_success_without_an_offset_is_one_at_an_unknown_offset() {
        let found = ProducePartitionResponse { base_offset: -1, ..partition(ErrorCode::NONE) };
        let produced = respond(found).unwrap();
        assert_eq!((produced.base_offset, produced.offsets(), produced.record_count), (None, None, 2));
    }

    #[test]
    fn a_duplicate_is_a_success_only_after_an_attempt_in_doubt() {
        let respond = |in_doubt, base_offset| {
            let found =
                ProducePartitionResponse { base_offset, ..partition(ErrorCode::DUPLICATE_SEQUENCE_NUMBER) };
            Append { in_doubt, ..append() }.response(&route(), answer(found))
        };
        // The offset in an error response does not count.
        for base_offset in [-1, 0, 5, 100, i64::MIN] {
            assert_eq!(respond(true, base_offset).unwrap().offsets(), None);
            let (code, _) = rejected_code(respond(false, base_offset));
            assert_eq!(code, ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
        }
    }

    #[test]
    fn numbers_that_cannot_be_true_are_malformed() {
        let valid = || ProducePartitionResponse { base_offset: 100, ..partition(ErrorCode::NONE) };
        let field = |found| match respond(found) {
            Err(Rejection::Field(InvalidField { field, value })) => Some((field, value)),
            _ => None,
        };
        // Two records: the offset after them has to exist.
        for base_offset in [-2, i64::MIN, i64::MAX, i64::MAX - 1] {
            let found = ProducePartitionResponse { base_offset, ..valid() };
            assert_eq!(field(found), Some(("base_offset", base_offset)));
        }
        let last = ProducePartitionResponse { base_offset: i64::MAX - 2, ..valid() };
        assert_eq!(respond(last).unwrap().offsets(), Some(i64::MAX - 2..i64::MAX));
        for value in [-2, i64::MIN] {
            let found = ProducePartitionResponse { log_append_time_ms: value, ..valid() };
            assert_eq!(field(found), Some(("log_append_time_ms", value)));
            let found = ProducePartitionResponse { log_start_offset: value, ..valid() };
            assert_eq!(field(found), Some(("log_start_offset", value)));
        }
    }

    #[test]
    fn a_response_that_says_nothing_else_is_interpreted_like_any_other() {
        let (route, batch) = (route(), append().batch);
        let attempt = Attempt::of(&batch, 1, false);
        for (name, topic_id) in [("wal", Uuid::ZERO), ("", ID), ("other", ID), ("", Uuid([6; 16]))] {
            for index in [2, 3] {
                for (base_offset, time, start) in
                    [(100, -1, -1), (-1, 5, 7), (-2, -1, -1), (i64::MAX, -1, -1), (1, -2, -1), (1, 0, -2)]
                {
                    let found = ProducePartitionResponse {
                        index,
                        base_offset,
                        log_append_time_ms: time,
                        log_start_offset: start,
                        ..Default::default()
                    };
                    let topic = ProduceTopicResponse {
                        name: name.to_owned(),
                        topic_id,
                        partition_responses: vec![found],
                    };
                    let any = ProduceResponse { responses: vec![topic], ..Default::default() };
                    let (log_append_time_ms, log_start_offset) = (time, start);
                    let appended =
                        Appended { name, topic_id, index, base_offset, log_append_time_ms, log_start_offset };
                    let found = format!("{:?}", attempt.appended(&route, &appended));
                    assert_eq!(found, format!("{:?}", attempt.response(&route, any)));
                }
            }
        }
    }

    #[test]
    fn a_batch_that_is_too_large_has_a_kind_of_its_own() {
        for code in [ErrorCode::MESSAGE_TOO_LARGE, ErrorCode::RECORD_LIST_TOO_LARGE] {
            let Err(Rejection::Kind(kind)) = respond(partition(code)) else { panic!("{code}") };
            let ErrorKind::BatchTooLarge { size, records, limit, is_input: false } = kind else {
                panic!("{kind:?}")
            };
            assert_eq!((size, records, limit), (append().batch.to_bytes().len(), 2, None));
        }
    }

    #[test]
    fn only_some_codes_report_a_new_leader() {
        for (code, is_reported) in [
            (ErrorCode::NOT_LEADER_OR_FOLLOWER, true),
            (ErrorCode::FENCED_LEADER_EPOCH, true),
            (ErrorCode::NOT_ENOUGH_REPLICAS, false),
            (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, false),
            (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, false),
        ] {
            let current_leader = ProduceLeader { leader_id: 5, leader_epoch: 8 };
            let found = ProducePartitionResponse { current_leader, ..partition(code) };
            let Err(Rejection::Code { code: found, leader, .. }) = respond(found) else { panic!("{code}") };
            let update = LeaderUpdate {
                topic_id: ID,
                leader: 5,
                leader_epoch: 8,
                address: Some(HostPort::new("five", 9092)),
            };
            assert_eq!((found, leader), (code, is_reported.then_some(update)));
        }
        // An address that is not reported may be known already.
        for leader_id in [-1, 6] {
            let current_leader = ProduceLeader { leader_id, leader_epoch: 8 };
            let code = ErrorCode::NOT_LEADER_OR_FOLLOWER;
            let found = ProducePartitionResponse { current_leader, ..partition(code) };
            let Err(Rejection::Code { leader, .. }) = respond(found) else { panic!("{code}") };
            let update = LeaderUpdate { topic_id: ID, leader: leader_id, leader_epoch: 8, address: None };
            assert_eq!(leader, Some(update));
        }
    }

    #[test]
    fn a_message_is_kept_unless_it_is_empty() {
        for (error_message, expected) in [(None, None), (Some(""), None), (Some("no"), Some("no"))] {
            let error_message = error_message.map(str::to_owned);
            let found = ProducePartitionResponse { error_message, ..partition(ErrorCode::INVALID_RECORD) };
            let Err(Rejection::Code { message, .. }) = respond(found) else { panic!("not rejected") };
            assert_eq!(message.as_deref(), expected);
        }
    }

    #[test]
    fn a_rejection_names_the_records_that_it_is_about() {
        let error = |batch_index, message: &str| ProduceRecordError {
            batch_index,
            batch_index_error_message: Some(message.to_owned()),
        };
        let long = "ä".repeat(RecordError::MAX_MESSAGE);
        let found = ProducePartitionResponse {
            error_message: Some("no".to_owned()),
            // The batch has two records. Others are not in it.
            record_errors: [
                (1, long.as_str()),
                (0, ""),
                (2, "beyond"),
                (-1, "before"),
                (i32::MAX, "far"),
                (0, ""),
            ]
            .map(|(index, message)| error(index, message))
            .to_vec(),
            ..partition(ErrorCode::INVALID_RECORD)
        };
        let Err(Rejection::Records { code, message, records }) = respond(found) else {
            panic!("not rejected")
        };
        assert_eq!((code, message.as_deref()), (ErrorCode::INVALID_RECORD, Some("no")));
        let indices: Vec<_> = records.iter().map(|record| record.index).collect();
        assert_eq!((indices, records[0].message.as_deref()), (vec![0, 1], None));
        assert_eq!(records[1].message.as_deref(), Some(&long[..RecordError::MAX_MESSAGE]));
        // A leader that has moved is more important, and no single record makes a batch too large.
        for code in [ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::MESSAGE_TOO_LARGE] {
            let found = ProducePartitionResponse { record_errors: vec![error(0, "")], ..partition(code) };
            let rejection = respond(found).unwrap_err();
            assert!(matches!(rejection, Rejection::Code { .. } | Rejection::Kind(_)), "{rejection:?}");
        }
    }

    #[test]
    fn the_number_of_rejected_records_is_bounded() {
        let mut builder = BatchBuilder::new(Compression::None);
        for _ in 0..5_000 {
            builder.push(1_700_000_000_000, None, None, &Headers::new());
        }
        let append = Append { batch: builder.finish().unwrap(), ..append() };
        let error = |batch_index| ProduceRecordError { batch_index, batch_index_error_message: None };
        let found = ProducePartitionResponse {
            record_errors: (0..5_000).map(error).collect(),
            ..partition(ErrorCode::INVALID_TIMESTAMP)
        };
        let rejection = append.response(&route(), answer(found)).unwrap_err();
        let Rejection::Records { records, .. } = rejection else { panic!("{rejection:?}") };
        assert_eq!((records.len(), records.last().unwrap().index), (RecordError::MAX, RecordError::MAX - 1));
    }

    #[test]
    fn a_response_about_another_partition_is_malformed() {
        let other = ProducePartitionResponse { index: 2, ..partition(ErrorCode::NONE) };
        assert!(matches!(respond(other), Err(Rejection::Missing)));
        // Of two answers, none counts.
        for index in [2, 3] {
            let mut double = answer(partition(ErrorCode::NONE));
            let second = ProducePartitionResponse { index, ..partition(ErrorCode::NONE) };
            double.responses[0].partition_responses.insert(0, second);
            assert!(matches!(append().response(&route(), double), Err(Rejection::Missing)));
        }
        let topics: [fn(&mut ProduceTopicResponse); 2] =
            [|topic| topic.topic_id = Uuid([6; 16]), |topic| topic.name = "other".to_owned()];
        for change in topics {
            let mut other = answer(partition(ErrorCode::NONE));
            change(&mut other.responses[0]);
            assert!(matches!(append().response(&route(), other), Err(Rejection::Missing)));
        }
        let empty = append().response(&route(), ProduceResponse::default());
        assert!(matches!(empty, Err(Rejection::Missing)));
    }
}
