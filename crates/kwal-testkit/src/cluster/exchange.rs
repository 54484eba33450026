//! The way of a request to its answer: read, met by a fault, carried out, answered at once or looked at again.

use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kwal_protocol::{
    api::{ApiKey, Body, Request, decode_request_header, encode_response},
    error_code::ErrorCode,
    messages::{
        ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest,
        DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeProducersRequest,
        FetchRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
        ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    },
};

use super::{
    Cluster, Limited, Now,
    about::{About, says},
    answer::{Answer, CloseReason, Manner, Throttled, Waiting},
    delete_records::Deleting,
    later,
    node::Connected,
    produce::Appended,
};
use crate::{
    fault::{Coming, Fault},
    journal::What,
};

/// A request on its way to its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    pub(super) from: Connected,
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    /// Of its body, in bytes.
    pub(super) size: usize,
    /// Its client's id, if quotas care.
    pub(super) client: Option<ClientId>,
    pub(super) fault: Fault,
}

/// A request that is to be answered, and what becomes of a client whose connection ends before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) node: i32,
    pub(super) api: ApiKey,
    /// Something was appended.
    pub(super) appended: bool,
    /// If the connection ends, it is not because the client had enough of it.
    pub(super) faulty: bool,
}

/// A client's id, by its place in [`Cluster::clients`].
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientId(pub(super) usize);

/// What is left to be done for a request that waits.
#[derive(Debug)]
pub(super) enum Work {
    /// Everything: its body has not been looked at.
    Arrived(Bytes),
    Fetch(FetchRequest),
    Produce(Appended),
    Delete(Deleting),
}

/// An API as the cluster answers it.
pub(super) trait Serve: Request<Response: Throttled> {
    /// The answer that says `code` wherever it can.
    fn refuse(&self, cluster: &Cluster, code: ErrorCode) -> Self::Response;

    /// Carries the request out.
    fn serve(self, cluster: &mut Cluster, arrival: &Arrival) -> Served<Self::Response>;
}

/// What came of a request.
pub(super) enum Served<Response> {
    Reply(Response),
    /// No answer was wanted.
    Silent {
        failed: bool,
    },
    Close(CloseReason),
    Wait {
        until: Instant,
        work: Work,
    },
}

/// When and how a request came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) now: Now,
    pub(super) exchange: Exchange,
    /// It has waited already, and until then it may.
    pub(super) until: Option<Instant>,
}

impl Cluster {
    /// Takes a request frame, without its length, that has arrived at a broker.
    ///
    /// It should be the only owner of the frame: what is appended is then not copied.
    pub(crate) fn handle(&mut self, from: Connected, now: Now, frame: Bytes) -> Answer {
        self.advance(now);
        let answer = self.take_request(from, now, frame);
        self.tell_end(from, &answer);
        answer
    }

    fn take_request(&mut self, from: Connected, now: Now, frame: Bytes) -> Answer {
        if !self.nodes.get(&from.node).is_some_and(|node| node.has(from)) {
            return Answer::Close(CloseReason::Ended);
        }
        let (header, body) = match decode_request_header(&frame) {
            Ok((header, reader)) => (header, frame.slice(reader.position()..)),
            Err(error) => return Answer::Close(CloseReason::Header(error)),
        };
        drop(frame);
        let (api, version) = (header.request_api_key, header.request_api_version);
        self.count(from, api);
        let client = self.quotas.any().then(|| self.client(header.client_id.unwrap_or_default()));
        let (correlation_id, size) = (header.correlation_id, body.len());
        let mut exchange = Exchange { from, api, version, correlation_id, size, client, fault: Fault::Pass };
        if !self.settings.dialect.answers(api, version) {
            return match api {
                ApiKey::API_VERSIONS => {
                    let (version, response) = self.unknown_api_versions();
                    exchange.version = version;
                    self.reply::<ApiVersionsRequest>(exchange, response, Duration::ZERO)
                }
                _ => Answer::Close(CloseReason::Unsupported { api, version }),
            };
        }
        exchange.fault = self.meet(from, (api, version, correlation_id), &body);
        match exchange.fault {
            Fault::Drop => Answer::Close(CloseReason::Fault(exchange.fault)),
            Fault::BlackHole => Answer::Ignore,
            Fault::DelayRequest(delay) => Answer::Wait(Waiting {
                until: later(now, delay),
                heeds_changes: false,
                exchange,
                work: Work::Arrived(body),
            }),
            _ => self.dispatch(now, exchange, body),
        }
    }

    /// Looks again at a request that waited.
    pub(crate) fn resume(&mut self, now: Now, waiting: Waiting) -> Answer {
        self.advance(now);
        let from = waiting.exchange.from;
        let answer = match self.is_open(from) {
            true => self.look_again(now, waiting),
            false => Answer::Close(CloseReason::Ended),
        };
        self.tell_end(from, &answer);
        answer
    }

    fn look_again(&mut self, now: Now, waiting: Waiting) -> Answer {
        match waiting.work {
            Work::Arrived(body) => self.dispatch(now, waiting.exchange, body),
            Work::Fetch(request) => {
                let arrival = Arrival { now, exchange: waiting.exchange, until: Some(waiting.until) };
                self.serve(arrival, request)
            }
            Work::Produce(appended) => {
                let (exchange, until) = (waiting.exchange, waiting.until);
                let served = self.acknowledge(appended, until);
                self.answer::<ProduceRequest>(exchange, served, None)
            }
            Work::Delete(deleting) => {
                let (exchange, until) = (waiting.exchange, waiting.until);
                let served = self.deleted_everywhere(deleting, until);
                self.answer::<DeleteRecordsRequest>(exchange, served, None)
            }
        }
    }

    /// The pause that an answer costs its client.
    fn pause_after<B: Body>(&mut self, exchange: Exchange, response: &B) -> Duration {
        match exchange.api {
            ApiKey::PRODUCE => self.pause_for(Limited::Produce, exchange, exchange.size),
            ApiKey::FETCH if exchange.client.is_some() => {
                let encoded = encode_response(response, exchange.version, exchange.correlation_id);
                let size = encoded.map_or(0, |frame| frame.remaining());
                self.pause_for(Limited::Fetch, exchange, size)
            }
            _ => Duration::ZERO,
        }
    }

    fn pause_for(&mut self, what: Limited, exchange: Exchange, bytes: usize) -> Duration {
        let client = exchange.client.and_then(|ClientId(at)| self.clients.get(at));
        let Some(client) = client else { return Duration::ZERO };
        self.quotas.count(what, exchange.from.node, client, bytes, self.now.unix_ms)
    }

    fn dispatch(&mut self, now: Now, mut exchange: Exchange, body: Bytes) -> Answer {
        if !self.controls(exchange.from.node) && is_for_controller(exchange.api) {
            exchange.fault = Fault::Error(ErrorCode::NOT_CONTROLLER);
        }
        let arrival = Arrival { now, exchange, until: None };
        match exchange.api {
            ApiKey::PRODUCE => self.read::<ProduceRequest>(arrival, body),
            ApiKey::FETCH => self.read::<FetchRequest>(arrival, body),
            ApiKey::LIST_OFFSETS => self.read::<ListOffsetsRequest>(arrival, body),
            ApiKey::METADATA => self.read::<MetadataRequest>(arrival, body),
            ApiKey::API_VERSIONS => self.read::<ApiVersionsRequest>(arrival, body),
            ApiKey::CREATE_TOPICS => self.read::<CreateTopicsRequest>(arrival, body),
            ApiKey::DELETE_TOPICS => self.read::<DeleteTopicsRequest>(arrival, body),
            ApiKey::INIT_PRODUCER_ID => self.read::<InitProducerIdRequest>(arrival, body),
            ApiKey::CREATE_PARTITIONS => self.read::<CreatePartitionsRequest>(arrival, body),
            ApiKey::DESCRIBE_CONFIGS => self.read::<DescribeConfigsRequest>(arrival, body),
            ApiKey::INCREMENTAL_ALTER_CONFIGS => self.read::<IncrementalAlterConfigsRequest>(arrival, body),
            ApiKey::DELETE_RECORDS => self.read::<DeleteRecordsRequest>(arrival, body),
            ApiKey::DESCRIBE_CLUSTER => self.read::<DescribeClusterRequest>(arrival, body),
            ApiKey::DESCRIBE_PRODUCERS => self.read::<DescribeProducersRequest>(arrival, body),
            ApiKey::FIND_COORDINATOR => self.read::<FindCoordinatorRequest>(arrival, body),
            ApiKey::OFFSET_FOR_LEADER_EPOCH => self.read::<OffsetForLeaderEpochRequest>(arrival, body),
            api => Answer::Close(CloseReason::Unsupported { api, version: exchange.version }),
        }
    }

    fn read<R: Serve>(&mut self, arrival: Arrival, body: Bytes) -> Answer {
        let Exchange { api, version: number, .. } = arrival.exchange;
        let Ok(version) = R::version(number) else {
            return Answer::Close(CloseReason::Unsupported { api, version: number });
        };
        match R::decode(&body, version) {
            Ok(request) => {
                drop(body);
                self.serve(arrival, request)
            }
            Err(error) => Answer::Close(CloseReason::Body { api, version: number, error }),
        }
    }

    fn serve<R: Serve>(&mut self, arrival: Arrival, request: R) -> Answer {
        let exchange = arrival.exchange;
        if let Fault::Error(code) = exchange.fault {
            return match request.expects_reply() {
                true => {
                    let refused = request.refuse(self, code);
                    self.reply::<R>(exchange, refused, Duration::ZERO)
                }
                false => Answer::Close(CloseReason::AcksZero),
            };
        }
        let instead = match exchange.fault {
            Fault::ErrorAfter(code) => Some(request.refuse(self, code)),
            _ => None,
        };
        let served = request.serve(self, &arrival);
        self.answer::<R>(exchange, served, instead)
    }

    /// Answers, and tells of it.
    fn reply<R: Serve>(&mut self, exchange: Exchange, response: R::Response, pause: Duration) -> Answer {
        let Exchange { from, api, correlation_id, fault, .. } = exchange;
        if self.journal.is_kept() {
            let (connection, broker) = (from.number, from.node);
            let says = says(&response);
            self.tell(What::Answer { connection, broker, api, correlation_id, says });
        }
        self.deliver(from, fault, exchange.reply::<R>(response, pause))
    }

    /// What a fault makes of an answer.
    pub(crate) fn deliver(&mut self, from: Connected, fault: Fault, mut answer: Answer) -> Answer {
        if matches!(fault, Fault::Garbage | Fault::WrongCorrelationId | Fault::ErrorAfter(_)) {
            // What is answered is not what has happened.
            self.count_hit(from.number);
        }
        let Answer::Reply { frame, delay, manner, .. } = &mut answer else { return answer };
        match fault {
            Fault::LoseReply => return Answer::Close(CloseReason::Fault(fault)),
            Fault::DelayReply(pause) => *delay = pause,
            Fault::CutReply(bytes) => *manner = Manner::Cut(bytes),
            Fault::Trickle { bytes, pause } => *manner = Manner::Trickle { bytes: bytes.max(1), pause },
            Fault::Garbage => {
                let mut bytes = BytesMut::new();
                bytes.put(frame);
                self.random.fill(bytes.get_mut(BEHIND_CORRELATION_ID..).unwrap_or_default());
                *manner = Manner::Garbage(bytes.freeze());
            }
            _ => {}
        }
        answer
    }

    /// What a request that has arrived meets; it is told of.
    pub(crate) fn meet(
        &mut self,
        from: Connected,
        (api, version, correlation_id): (ApiKey, i16, i32),
        body: &Bytes,
    ) -> Fault {
        let mut about = About::default();
        if self.journal.is_kept() || self.faults.minds_partitions(api) {
            about = self.about(api, version, body);
        }
        let coming = Coming { api: Some(api), broker: from.node, partitions: &about.partitions };
        let fault = self.faults.take(coming, &mut self.random);
        let faulty = fault != Fault::Pass;
        let pending = Pending { node: from.node, api, appended: false, faulty };
        self.pending.insert(from.number, pending);
        if self.journal.is_kept() {
            let (connection, broker, asks) = (from.number, from.node, about.asks);
            self.tell(What::Request { connection, broker, api, version, correlation_id, fault, asks });
        }
        fault
    }

    fn answer<R: Serve>(
        &mut self,
        exchange: Exchange,
        served: Served<R::Response>,
        instead: Option<R::Response>,
    ) -> Answer {
        match served {
            Served::Reply(response) => {
                let pause = self.pause_after(exchange, &response);
                let response = match pause.is_zero() || exchange.api != ApiKey::FETCH {
                    true => instead.unwrap_or(response),
                    false => R::Response::default(),
                };
                self.reply::<R>(exchange, response, pause)
            }
            Served::Silent { failed } => {
                let pause = self.pause_for(Limited::Produce, exchange, exchange.size);
                exchange.no_reply(failed || instead.is_some(), pause)
            }
            Served::Close(reason) => Answer::Close(reason),
            Served::Wait { until, work } => {
                Answer::Wait(Waiting { until, heeds_changes: true, exchange, work })
            }
        }
    }
}

impl Exchange {
    /// Answers; a `pause` for a quota follows the answer.
    fn reply<R: Serve>(self, mut response: R::Response, pause: Duration) -> Answer {
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
            Ok(frame) => Answer::Reply { frame, delay: Duration::ZERO, manner: Manner::Whole, mute },
            Err(error) => Answer::Close(CloseReason::Response { api: self.api, error }),
        }
    }

    fn no_reply(self, failed: bool, pause: Duration) -> Answer {
        match self.fault {
            Fault::LoseReply => Answer::Close(CloseReason::Fault(self.fault)),
            _ if failed => Answer::Close(CloseReason::AcksZero),
            Fault::Throttle(mute) => Answer::Nothing { mute: mute.max(pause) },
            _ => Answer::Nothing { mute: pause },
        }
    }
}

/// What only the controller does, where brokers do not pass it on.
fn is_for_controller(api: ApiKey) -> bool {
    matches!(api, ApiKey::CREATE_TOPICS | ApiKey::DELETE_TOPICS | ApiKey::CREATE_PARTITIONS)
}

/// Where in an answer anything may be that is not its length or its correlation id.
const BEHIND_CORRELATION_ID: usize = 8;

#[cfg(test)]
mod tests {
    use kwal_protocol::{
        api::encode_request,
        messages::{CreatableTopic, ProducePartition, ProduceTopic},
        record::{BatchBuilder, Compression, Headers},
    };
    use kwal_transport::HostPort;

    use super::*;
    use crate::cluster::Settings;

    #[test]
    fn what_is_appended_stays_where_it_was_received() {
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
        assert!(matches!(cluster.handle(from, now, frame), Answer::Reply { .. }));
        let stored = cluster.partition("wal", 0).unwrap().authority().unwrap().log.batches().next().unwrap();
        assert!(received.contains(&stored.as_ptr()), "copied");
    }
}
