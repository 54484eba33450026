//! Takes requests: decodes them, applies faults, calls the handlers, and turns the results into [`Action`]s.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kwal_protocol::{
    api::{ApiKey, Body, decode_request_header, encode_response},
    error_code::ErrorCode,
    messages::{
        ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest,
        DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeProducersRequest,
        FetchRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
        ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    },
};

use super::{
    action::{Action, CloseReason, Continuation, ReplyMode, Waiting},
    handler::{Serve, Served, Throttled as _},
    node::Connected,
    quota::QuotaKind,
    request::{ClientId, Pending, RequestContext, decode},
    state::{Cluster, Now, later},
    summary::{Summary, summarize_response},
};
use crate::{
    fault::{Fault, Incoming},
    journal::JournalEvent,
};

impl Cluster {
    /// Takes a request frame, without its length, that has arrived at a broker.
    ///
    /// It should be the only owner of the frame: then appended batches are not copied.
    pub(crate) fn handle(&mut self, from: Connected, now: Now, frame: Bytes) -> Action {
        self.advance(now);
        let action = self.take_request(from, now, frame);
        self.record_close(from, &action);
        action
    }

    fn take_request(&mut self, from: Connected, now: Now, frame: Bytes) -> Action {
        if !self.nodes.get(&from.node).is_some_and(|node| node.has(from)) {
            return Action::Close(CloseReason::Ended);
        }
        let (header, body) = match decode_request_header(&frame) {
            Ok((header, reader)) => (header, frame.slice(reader.position()..)),
            Err(error) => return Action::Close(CloseReason::Header(error)),
        };
        drop(frame);
        let (api, version) = (header.request_api_key, header.request_api_version);
        self.count(from, api);
        let client = self.quotas.any().then(|| self.client(header.client_id.unwrap_or_default()));
        let (correlation_id, size) = (header.correlation_id, body.len());
        let mut context =
            RequestContext { from, api, version, correlation_id, size, client, fault: Fault::Pass };
        if !self.settings.dialect.answers(api, version) {
            return match api {
                ApiKey::API_VERSIONS => {
                    let (version, response) = self.unknown_api_versions();
                    context.version = version;
                    self.reply::<ApiVersionsRequest>(context, response, Duration::ZERO)
                }
                _ => Action::Close(CloseReason::Unsupported { api, version }),
            };
        }
        context.fault = self.meet(from, (api, version, correlation_id), &body);
        match context.fault {
            Fault::Drop => Action::Close(CloseReason::Fault(context.fault)),
            Fault::BlackHole => Action::Ignore,
            Fault::DelayRequest(delay) => Action::Wait(Waiting {
                until: later(now, delay),
                wakes_on_change: false,
                from,
                resume: Continuation::new(move |cluster| cluster.dispatch(context, body)),
            }),
            _ => self.dispatch(context, body),
        }
    }

    /// Continues with a request that waited.
    pub(crate) fn resume(&mut self, now: Now, waiting: Waiting) -> Action {
        self.advance(now);
        let from = waiting.from;
        let action = match self.is_open(from) {
            true => waiting.resume.run(self),
            false => Action::Close(CloseReason::Ended),
        };
        self.record_close(from, &action);
        action
    }

    /// Returns the throttle time of a response.
    fn pause_after<B: Body>(&mut self, context: RequestContext, response: &B) -> Duration {
        match context.api {
            ApiKey::PRODUCE => self.pause_for(QuotaKind::Produce, context, context.size),
            ApiKey::FETCH if context.client.is_some() => {
                let encoded = encode_response(response, context.version, context.correlation_id);
                let size = encoded.map_or(0, |frame| frame.remaining());
                self.pause_for(QuotaKind::Fetch, context, size)
            }
            _ => Duration::ZERO,
        }
    }

    fn pause_for(&mut self, what: QuotaKind, context: RequestContext, bytes: usize) -> Duration {
        let client = context.client.and_then(|ClientId(at)| self.clients.get(at));
        let Some(client) = client else { return Duration::ZERO };
        self.quotas.count(what, context.from.node, client, bytes, self.now.unix_ms)
    }

    fn dispatch(&mut self, mut context: RequestContext, body: Bytes) -> Action {
        if !self.controls(context.from.node) && is_for_controller(context.api) {
            context.fault = Fault::Error(ErrorCode::NOT_CONTROLLER);
        }
        match context.api {
            ApiKey::PRODUCE => self.read::<ProduceRequest>(context, body),
            ApiKey::FETCH => self.read::<FetchRequest>(context, body),
            ApiKey::LIST_OFFSETS => self.read::<ListOffsetsRequest>(context, body),
            ApiKey::METADATA => self.read::<MetadataRequest>(context, body),
            ApiKey::API_VERSIONS => self.read::<ApiVersionsRequest>(context, body),
            ApiKey::CREATE_TOPICS => self.read::<CreateTopicsRequest>(context, body),
            ApiKey::DELETE_TOPICS => self.read::<DeleteTopicsRequest>(context, body),
            ApiKey::INIT_PRODUCER_ID => self.read::<InitProducerIdRequest>(context, body),
            ApiKey::CREATE_PARTITIONS => self.read::<CreatePartitionsRequest>(context, body),
            ApiKey::DESCRIBE_CONFIGS => self.read::<DescribeConfigsRequest>(context, body),
            ApiKey::INCREMENTAL_ALTER_CONFIGS => self.read::<IncrementalAlterConfigsRequest>(context, body),
            ApiKey::DELETE_RECORDS => self.read::<DeleteRecordsRequest>(context, body),
            ApiKey::DESCRIBE_CLUSTER => self.read::<DescribeClusterRequest>(context, body),
            ApiKey::DESCRIBE_PRODUCERS => self.read::<DescribeProducersRequest>(context, body),
            ApiKey::FIND_COORDINATOR => self.read::<FindCoordinatorRequest>(context, body),
            ApiKey::OFFSET_FOR_LEADER_EPOCH => self.read::<OffsetForLeaderEpochRequest>(context, body),
            api => Action::Close(CloseReason::Unsupported { api, version: context.version }),
        }
    }

    fn read<R: Serve>(&mut self, context: RequestContext, body: Bytes) -> Action {
        let RequestContext { api, version: number, .. } = context;
        let Ok(version) = R::version(number) else {
            return Action::Close(CloseReason::Unsupported { api, version: number });
        };
        match decode::<R>(&body, version) {
            Ok(request) => {
                drop(body);
                self.serve(context, request)
            }
            Err(error) => Action::Close(CloseReason::Body { api, version: number, error }),
        }
    }

    fn serve<R: Serve>(&mut self, context: RequestContext, request: R) -> Action {
        if let Fault::Error(code) = context.fault {
            return match request.expects_reply() {
                true => {
                    let refused = request.error_response(self, code);
                    self.reply::<R>(context, refused, Duration::ZERO)
                }
                false => Action::Close(CloseReason::AcksZero),
            };
        }
        let instead = match context.fault {
            Fault::ErrorAfter(code) => Some(request.error_response(self, code)),
            _ => None,
        };
        let served = request.serve(self, &context);
        self.respond::<R>(context, served, instead)
    }

    /// Replies, and records it in the journal.
    fn reply<R: Serve>(&mut self, context: RequestContext, response: R::Response, pause: Duration) -> Action {
        let RequestContext { from, api, correlation_id, fault, .. } = context;
        if self.journal.is_kept() {
            let (connection, broker) = (from.number, from.node);
            let summary = summarize_response(&response);
            self.record(JournalEvent::Response { connection, broker, api, correlation_id, summary });
        }
        self.deliver(from, fault, context.reply::<R>(response, pause))
    }

    /// Applies a fault to a reply.
    pub(crate) fn deliver(&mut self, from: Connected, fault: Fault, mut action: Action) -> Action {
        if matches!(fault, Fault::Garbage | Fault::WrongCorrelationId | Fault::ErrorAfter(_)) {
            // The response does not tell what has happened.
            self.count_fault(from.number);
        }
        let Action::Reply { frame, delay, mode, .. } = &mut action else { return action };
        match fault {
            Fault::LoseReply => return Action::Close(CloseReason::Fault(fault)),
            Fault::DelayReply(pause) => *delay = pause,
            Fault::CutReply(bytes) => *mode = ReplyMode::Truncated(bytes),
            Fault::Trickle { bytes, pause } => *mode = ReplyMode::Trickle { bytes: bytes.max(1), pause },
            Fault::Garbage => {
                let mut bytes = BytesMut::new();
                bytes.put(frame);
                self.random.fill(bytes.get_mut(AFTER_CORRELATION_ID..).unwrap_or_default());
                *mode = ReplyMode::Garbage(bytes.freeze());
            }
            _ => {}
        }
        action
    }

    /// Returns the fault of a request that has arrived, and records the request.
    pub(crate) fn meet(
        &mut self,
        from: Connected,
        (api, version, correlation_id): (ApiKey, i16, i32),
        body: &Bytes,
    ) -> Fault {
        let mut summary = Summary::default();
        if self.journal.is_kept() || self.faults.needs_partitions(api) {
            summary = self.summary(api, version, body);
        }
        let incoming = Incoming { api: Some(api), broker: from.node, partitions: &summary.partitions };
        let fault = self.faults.next(incoming, &mut self.random);
        let faulty = fault != Fault::Pass;
        let pending = Pending { node: from.node, api, appended: false, faulty };
        self.pending.insert(from.number, pending);
        if self.journal.is_kept() {
            let (connection, broker, summary) = (from.number, from.node, summary.text);
            self.record(JournalEvent::Request {
                connection,
                broker,
                api,
                version,
                correlation_id,
                fault,
                summary,
            });
        }
        fault
    }

    fn respond<R: Serve>(
        &mut self,
        context: RequestContext,
        served: Served<R::Response>,
        instead: Option<R::Response>,
    ) -> Action {
        match served {
            Served::Reply(response) => {
                let pause = self.pause_after(context, &response);
                let response = match pause.is_zero() || context.api != ApiKey::FETCH {
                    true => instead.unwrap_or(response),
                    false => R::Response::default(),
                };
                self.reply::<R>(context, response, pause)
            }
            Served::Silent { failed } => {
                let pause = self.pause_for(QuotaKind::Produce, context, context.size);
                context.no_reply(failed || instead.is_some(), pause)
            }
            Served::Close(reason) => Action::Close(reason),
            Served::Wait { until, resume } => Action::Wait(Waiting {
                until,
                wakes_on_change: true,
                from: context.from,
                resume: Continuation::new(move |cluster| {
                    let served = resume.run(cluster);
                    cluster.respond::<R>(context, served, instead)
                }),
            }),
        }
    }
}

impl RequestContext {
    /// Encodes a reply. The broker then mutes the connection for `pause`.
    fn reply<R: Serve>(self, mut response: R::Response, pause: Duration) -> Action {
        let mut correlation_id = self.correlation_id;
        let mut mute = pause;
        match self.fault {
            Fault::WrongCorrelationId => correlation_id = correlation_id.wrapping_add(1),
            Fault::Throttle(pause) => mute = mute.max(pause),
            _ => {}
        }
        if !mute.is_zero() {
            *response.throttle_time_ms() = i32::try_from(mute.as_millis()).unwrap_or(i32::MAX);
        }
        match encode_response(&response, self.version, correlation_id) {
            Ok(frame) => Action::Reply { frame, delay: Duration::ZERO, mode: ReplyMode::Whole, mute },
            Err(error) => Action::Close(CloseReason::Response { api: self.api, error }),
        }
    }

    fn no_reply(self, failed: bool, pause: Duration) -> Action {
        match self.fault {
            Fault::LoseReply => Action::Close(CloseReason::Fault(self.fault)),
            _ if failed => Action::Close(CloseReason::AcksZero),
            Fault::Throttle(mute) => Action::Nothing { mute: mute.max(pause) },
            _ => Action::Nothing { mute: pause },
        }
    }
}

/// Returns whether only the controller handles an API, where brokers do not forward requests.
fn is_for_controller(api: ApiKey) -> bool {
    matches!(api, ApiKey::CREATE_TOPICS | ApiKey::DELETE_TOPICS | ApiKey::CREATE_PARTITIONS)
}

/// Where in a reply the bytes after length and correlation id begin.
const AFTER_CORRELATION_ID: usize = 8;

#[cfg(test)]
mod tests {
    use kwal_protocol::{
        api::encode_request,
        messages::{CreatableTopic, ProducePartition, ProduceTopic},
        record::{BatchBuilder, Compression, Headers},
    };
    use kwal_transport::HostPort;

    use super::*;
    use crate::cluster::state::Settings;

    #[test]
    fn appended_batches_are_not_copied() {
        let now = Now { monotonic: tokio::time::Instant::now().into_std(), unix_ms: 0 };
        let mut cluster = Cluster::new(Settings::default(), now);
        cluster.register(1, HostPort::new("broker", 9092));
        let (from, _) = cluster.open(1).unwrap();
        let topic = CreatableTopic { num_partitions: 1, replication_factor: 1, ..CreatableTopic::default() };
        cluster.create_simply(&CreatableTopic { name: "wal".to_owned(), ..topic }).unwrap();
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(1, None, Some(&[7; 10_000]), &Headers::new());
        let batch = builder.finish().unwrap().to_bytes();
        let data = ProducePartition { index: 0, records: Some(batch.into()) };
        let topic =
            ProduceTopic { name: "wal".to_owned(), partition_data: vec![data], ..ProduceTopic::default() };
        let request = ProduceRequest { acks: -1, topic_data: vec![topic], ..ProduceRequest::default() };
        let mut frame = encode_request(&request, 12, 1, None).unwrap();
        frame.advance(4);
        let frame = Bytes::from(frame.copy_to_bytes(frame.remaining()).to_vec());
        let received = frame.as_ptr_range();
        assert!(matches!(cluster.handle(from, now, frame), Action::Reply { .. }));
        let stored = cluster.partition("wal", 0).unwrap().effective().unwrap().log.batches().next().unwrap();
        assert!(received.contains(&stored.as_ptr()), "copied");
    }
}
