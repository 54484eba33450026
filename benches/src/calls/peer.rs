//! A broker inside a stream: it answers in the task that writes, so that no other task takes part.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};
use kwal::transport::{BoxFuture, Connect, HostPort, Stream, TransportError};
use kwal_protocol::{
    api::{ApiKey, Body, decode_request_header, encode_response},
    error_code::ErrorCode,
    messages::{
        ApiVersion, ApiVersionsResponse, FetchPartitionResponse, FetchResponse, FetchTopicResponse,
        InitProducerIdResponse, ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
        MetadataBroker, MetadataPartition, MetadataResponse, MetadataTopicResponse, ProducePartitionResponse,
        ProduceResponse, ProduceTopicResponse,
    },
    wire::Uuid,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::TOPIC;

/// The newest version of each API that the peer has: those of Kafka 4.3.
const APIS: [(ApiKey, i16); 6] = [
    (ApiKey::API_VERSIONS, 4),
    (ApiKey::METADATA, 13),
    (ApiKey::INIT_PRODUCER_ID, 5),
    (ApiKey::PRODUCE, 13),
    (ApiKey::FETCH, 18),
    (ApiKey::LIST_OFFSETS, 11),
];
const TOPIC_ID: Uuid = Uuid([7; 16]);
/// API, version and correlation id: all that is read of an append or a fetch.
const HEAD: usize = 8;
/// Where the correlation id is in a response frame.
const CORRELATION_ID: usize = 4;
/// The offsets of an append, whose records are not counted: as many as any has.
const MOST_RECORDS: i64 = 10_000;
/// Where the log ends.
const END: i64 = i64::MAX / 2;
/// Marks the place of the base offset in the response that all others are made of.
const ANY_OFFSET: i64 = 0x0123_4567_89ab_cdef;

/// Connects to a broker with one topic of one partition, which keeps nothing: a fetch gets the next batch.
#[derive(Clone, Debug)]
pub struct Peer {
    batch: Bytes,
}

impl Peer {
    /// The address for the client's bootstrap.
    pub const ADDRESS: &str = "peer:9092";

    /// Every fetch gets this batch, at offsets that go on.
    pub const fn new(batch: Bytes) -> Self {
        Self { batch }
    }

    /// Opens a stream to it.
    pub fn stream(&self) -> Stream {
        Stream::new(Wire { batch: self.batch.clone(), ..Wire::default() }, Self::ADDRESS)
    }
}

impl Connect for Peer {
    fn connect<'a>(&'a self, _: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async { Ok(self.stream()) })
    }
}

/// The client's end of a connection, with the broker in it.
#[derive(Debug, Default)]
struct Wire {
    /// The request that is arriving: its length, and as much of it as is needed.
    arriving: Vec<u8>,
    /// How many more bytes of a request are skipped.
    skip: usize,
    next_offset: i64,
    /// The response to an append, and where its base offset is.
    appended: Option<(Vec<u8>, usize)>,
    /// The same of a fetch.
    fetched: Option<(Vec<u8>, usize)>,
    batch: Bytes,
    /// What is left to be read.
    outgoing: Vec<u8>,
    taken: usize,
    reader: Option<Waker>,
}

/// Not counted by the benchmark `client_counts`.
#[inline(never)]
fn accept(wire: &mut Wire, pieces: &[IoSlice<'_>]) -> usize {
    for piece in pieces {
        wire.take(piece);
    }
    pieces.iter().map(|piece| piece.len()).sum()
}

/// Not counted by the benchmark `client_counts`.
#[inline(never)]
fn hand_over(wire: &mut Wire, buf: &mut ReadBuf<'_>) {
    let left = &wire.outgoing[wire.taken..];
    let len = left.len().min(buf.remaining());
    buf.put_slice(&left[..len]);
    wire.taken += len;
    if wire.taken == wire.outgoing.len() {
        wire.outgoing.clear();
        wire.taken = 0;
    }
}

impl Wire {
    fn take(&mut self, mut piece: &[u8]) {
        loop {
            let skipped = self.skip.min(piece.len());
            self.skip -= skipped;
            piece.advance(skipped);
            let needed = self.needed();
            if self.arriving.len() == needed {
                self.answer();
                continue;
            }
            if piece.is_empty() {
                return;
            }
            let taken = (needed - self.arriving.len()).min(piece.len());
            self.arriving.extend_from_slice(&piece[..taken]);
            piece.advance(taken);
        }
    }

    /// How many bytes have to be there before anything is done with them.
    fn needed(&self) -> usize {
        match (self.arriving.first_chunk(), self.arriving.get(4..)) {
            (Some(len), Some(&[high, low, ..])) => match ApiKey(i16::from_be_bytes([high, low])) {
                ApiKey::PRODUCE | ApiKey::FETCH => 4 + HEAD,
                _ => 4 + u32::from_be_bytes(*len) as usize,
            },
            _ => 4 + 2,
        }
    }

    fn answer(&mut self) {
        let bytes = |at: usize| std::array::from_fn(|index| self.arriving[at + index]);
        let len = u32::from_be_bytes(bytes(0)) as usize;
        let key = ApiKey(i16::from_be_bytes([self.arriving[4], self.arriving[5]]));
        if !matches!(key, ApiKey::PRODUCE | ApiKey::FETCH) {
            let frame = Bytes::copy_from_slice(&self.arriving[4..]);
            self.arriving.clear();
            return self.handshake(&frame);
        }
        let version = i16::from_be_bytes([self.arriving[6], self.arriving[7]]);
        let id: [u8; 4] = bytes(8);
        self.arriving.clear();
        self.skip = len - HEAD;
        let Self { appended: to_append, fetched: to_fetch, batch, .. } = self;
        let ((response, at), offsets) = match key {
            ApiKey::FETCH => (to_fetch.get_or_insert_with(|| fetched(version, batch)), offsets(batch)),
            _ => (to_append.get_or_insert_with(|| appended(version)), MOST_RECORDS),
        };
        response[CORRELATION_ID..CORRELATION_ID + 4].copy_from_slice(&id);
        response[*at..*at + 8].copy_from_slice(&self.next_offset.to_be_bytes());
        self.next_offset += offsets;
        self.outgoing.extend_from_slice(response);
    }

    fn handshake(&mut self, frame: &Bytes) {
        let (header, _) = decode_request_header(frame).expect("a request has a header");
        let version = header.request_api_version;
        let response = match header.request_api_key {
            ApiKey::API_VERSIONS => {
                let api_keys = APIS.map(|(api_key, max_version)| {
                    let min_version = match api_key {
                        ApiKey::PRODUCE => 3,
                        ApiKey::FETCH => 4,
                        ApiKey::LIST_OFFSETS => 1,
                        _ => 0,
                    };
                    ApiVersion { api_key, min_version, max_version }
                });
                encoded(&ApiVersionsResponse { api_keys: api_keys.into(), ..Default::default() }, version)
            }
            ApiKey::METADATA => encoded(&metadata(), version),
            ApiKey::INIT_PRODUCER_ID => {
                encoded(&InitProducerIdResponse { producer_id: 17, ..Default::default() }, version)
            }
            ApiKey::LIST_OFFSETS => encoded(&end(), version),
            key => panic!("the peer does not know {key:?}"),
        };
        let start = self.outgoing.len() + CORRELATION_ID;
        self.outgoing.extend_from_slice(&response);
        self.outgoing[start..start + 4].copy_from_slice(&header.correlation_id.to_be_bytes());
    }
}

fn metadata() -> MetadataResponse {
    let partition = MetadataPartition {
        leader_id: 1,
        leader_epoch: 0,
        replica_nodes: vec![1],
        isr_nodes: vec![1],
        ..Default::default()
    };
    let topic = MetadataTopicResponse {
        name: Some(TOPIC.to_owned()),
        topic_id: TOPIC_ID,
        partitions: vec![partition],
        ..Default::default()
    };
    let broker = MetadataBroker { node_id: 1, host: "peer".to_owned(), port: 9092, rack: None };
    MetadataResponse { brokers: vec![broker], controller_id: 1, topics: vec![topic], ..Default::default() }
}

/// A log that does not end.
fn end() -> ListOffsetsResponse {
    let partition = ListOffsetsPartitionResponse { offset: END, ..Default::default() };
    let topic = ListOffsetsTopicResponse { name: TOPIC.to_owned(), partitions: vec![partition] };
    ListOffsetsResponse { topics: vec![topic], ..Default::default() }
}

/// Returns the response to an append, and where its base offset is.
fn appended(version: i16) -> (Vec<u8>, usize) {
    let partition = ProducePartitionResponse {
        error_code: ErrorCode::NONE,
        base_offset: ANY_OFFSET,
        log_start_offset: 0,
        ..Default::default()
    };
    let topic = ProduceTopicResponse {
        name: TOPIC.to_owned(),
        topic_id: TOPIC_ID,
        partition_responses: vec![partition],
    };
    let response = encoded(&ProduceResponse { responses: vec![topic], ..Default::default() }, version);
    let at = response.windows(8).position(|bytes| bytes == ANY_OFFSET.to_be_bytes());
    (response, at.expect("a response has an offset"))
}

/// Returns the response to a fetch, and where its batch is.
pub(super) fn fetched(version: i16, batch: &Bytes) -> (Vec<u8>, usize) {
    let mut batch = BytesMut::from(&batch[..]);
    if let Some(base_offset) = batch.first_chunk_mut() {
        *base_offset = ANY_OFFSET.to_be_bytes();
    }
    let partition = FetchPartitionResponse {
        high_watermark: END,
        last_stable_offset: END,
        log_start_offset: 0,
        preferred_read_replica: -1,
        records: Some(batch.freeze()),
        ..Default::default()
    };
    let topic =
        FetchTopicResponse { topic: TOPIC.to_owned(), topic_id: TOPIC_ID, partitions: vec![partition] };
    let response = encoded(&FetchResponse { responses: vec![topic], ..Default::default() }, version);
    let at = response.windows(8).position(|bytes| bytes == ANY_OFFSET.to_be_bytes());
    (response, at.unwrap_or_default())
}

/// The number of offsets that a batch covers.
fn offsets(batch: &Bytes) -> i64 {
    batch
        .get(23..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |delta| i64::from(i32::from_be_bytes(*delta)) + 1)
}

fn encoded<B: Body>(response: &B, version: i16) -> Vec<u8> {
    let mut frame = encode_response(response, version, 0).expect("the peer's responses can be encoded");
    frame.copy_to_bytes(frame.remaining()).into()
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.outgoing.is_empty() {
            match &mut self.reader {
                Some(reader) => reader.clone_from(cx.waker()),
                reader => *reader = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        hand_over(&mut self, buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = accept(&mut self, bufs);
        // As a socket does when it has something to be read.
        if let (false, Some(reader)) = (self.outgoing.is_empty(), &self.reader) {
            reader.wake_by_ref();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
