//! Produce: appends record batches to partitions.
//!
//! From version 3 on, each partition takes exactly one batch, of magic 2. Zstandard requires version 7.

use crate::{
    error_code::ErrorCode,
    macros::message,
    wire::{Spliced, Uuid, Version},
};

message! {
    /// Appends one record batch to each partition (`ProduceRequest.json`).
    pub struct ProduceRequest {
        /// The transactional id; null for a producer without transactions.
        3+ transactional_id: Option<String> [nullable 3+] = None,
        /// The replicas that must have the batch: −1 all in sync, 1 the leader, 0 for no response.
        0+ acks: i16,
        /// How long the broker waits for the replicas, in milliseconds.
        0+ timeout_ms: i32,
        /// The batches by topic.
        0+ topic_data: Vec<ProduceTopic>,
    }

    /// The batches of one topic.
    pub struct ProduceTopic {
        /// The name of the topic.
        0-12 name: String [ignorable],
        /// The id of the topic (KIP-516).
        13+ topic_id: Uuid [ignorable],
        /// The batches by partition.
        0+ partition_data: Vec<ProducePartition>,
    }

    /// The batch of one partition.
    pub struct ProducePartition {
        /// The partition.
        0+ index: i32,
        /// The record batch.
        0+ records: Option<Spliced> [nullable 0+] = None,
    }

    /// The results (`ProduceResponse.json`). With acks = 0 there is no response.
    pub struct ProduceResponse {
        /// The results by topic.
        0+ responses: Vec<ProduceTopicResponse>,
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        1+ throttle_time_ms: i32 [ignorable],
        /// The addresses of the leaders named above (KIP-951).
        10+ node_endpoints: Vec<ProduceNodeEndpoint> [tag 0],
    }

    /// The results of one topic.
    pub struct ProduceTopicResponse {
        /// The name of the topic.
        0-12 name: String [ignorable],
        /// The id of the topic (KIP-516).
        13+ topic_id: Uuid [ignorable],
        /// The results by partition.
        0+ partition_responses: Vec<ProducePartitionResponse>,
    }

    /// The result of one partition.
    pub struct ProducePartitionResponse {
        /// The partition.
        0+ index: i32,
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The offset of the first record of the batch.
        0+ base_offset: i64,
        /// The log append time of the records, in milliseconds since the epoch.
        ///
        /// −1 if the topic keeps the producer's.
        2+ log_append_time_ms: i64 [ignorable] = -1,
        /// The log start offset; −1 if unknown.
        5+ log_start_offset: i64 [ignorable] = -1,
        /// The records that caused the batch to be rejected (KIP-467).
        8+ record_errors: Vec<RecordError> [ignorable],
        /// The error message of the broker.
        8+ error_message: Option<String> [nullable 8+, ignorable] = None,
        /// The current leader, if it is another broker (KIP-951).
        10+ current_leader: ProduceLeader [tag 0],
    }

    /// A record that caused its batch to be rejected (KIP-467).
    pub struct RecordError {
        /// The index of the record in the batch.
        8+ batch_index: i32,
        /// The broker's error message for the record.
        8+ batch_index_error_message: Option<String> [nullable 8+] = None,
    }

    /// The current leader of a partition (KIP-951).
    pub struct ProduceLeader {
        /// The leader; −1 if the partition has no leader, or it is unknown.
        10+ leader_id: i32 = -1,
        /// The leader epoch; −1 if unknown.
        10+ leader_epoch: i32 = -1,
    }

    /// The address of a broker named as leader (KIP-951).
    pub struct ProduceNodeEndpoint {
        /// The id of the broker.
        10+ node_id: i32,
        /// The host name.
        10+ host: String,
        /// The port.
        10+ port: i32,
        /// The rack; null if it is not set.
        10+ rack: Option<String> [nullable 10+] = None,
    }
}

/// What a response says that is about one batch, which was appended, and that says nothing else: there is no
/// error, no message, no throttle time.
///
/// [`RawResponse::appended`](crate::connection::RawResponse::appended) reads it without allocation. Any other
/// response is decoded as [`ProduceResponse`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended<'a> {
    /// The name of the topic; empty from version 13 on.
    pub name: &'a str,
    /// The id of the topic (KIP-516); zero before version 13.
    pub topic_id: Uuid,
    /// The partition.
    pub index: i32,
    /// The offset of the first record of the batch.
    pub base_offset: i64,
    /// The log append time of the records, in milliseconds since the epoch; −1 if there is none.
    pub log_append_time_ms: i64,
    /// The log start offset; −1 if unknown.
    pub log_start_offset: i64,
}

impl<'a> Appended<'a> {
    /// Reads a frame without its length: the header, which has a correlation id, and the body.
    pub(crate) fn read(frame: &'a [u8], Version { number, flexible }: Version) -> Option<Self> {
        let mut rest = Rest { bytes: frame.get(4..)?, flexible };
        rest.no_tags()?;
        rest.count(1)?;
        let (mut name, mut topic_id) = ("", Uuid::ZERO);
        if number >= 13 {
            topic_id = Uuid(rest.array()?);
        } else {
            let len = match flexible {
                // Longer names have a length of two bytes.
                true => match rest.array()? {
                    [len @ 1..0x80] => len - 1,
                    _ => return None,
                }
                .into(),
                false => u16::from_be_bytes(rest.array()?).into(),
            };
            name = std::str::from_utf8(rest.slice(len)?).ok()?;
        }
        rest.count(1)?;
        let index = i32::from_be_bytes(rest.array()?);
        rest.skip(ErrorCode::NONE.0.to_be_bytes())?;
        let base_offset = i64::from_be_bytes(rest.array()?);
        let mut since = |first| if number >= first { rest.array().map(i64::from_be_bytes) } else { Some(-1) };
        let (log_append_time_ms, log_start_offset) = (since(2)?, since(5)?);
        if number >= 8 {
            // Records that were rejected, and a message.
            rest.count(0)?;
            if flexible { rest.skip([0])? } else { rest.skip((-1i16).to_be_bytes())? }
        }
        // Of partition and topic.
        rest.no_tags()?;
        rest.no_tags()?;
        if number >= 1 {
            // The throttle time.
            rest.skip([0; 4])?;
        }
        rest.no_tags()?;
        let appended = Self { name, topic_id, index, base_offset, log_append_time_ms, log_start_offset };
        rest.bytes.is_empty().then_some(appended)
    }
}

/// What is left of a frame.
struct Rest<'a> {
    bytes: &'a [u8],
    flexible: bool,
}

impl<'a> Rest<'a> {
    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*array)
    }

    #[inline]
    fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(slice)
    }

    /// Skips bytes that have to be these.
    #[inline]
    fn skip<const N: usize>(&mut self, expected: [u8; N]) -> Option<()> {
        (self.array()? == expected).then_some(())
    }

    /// Skips the number of elements of an array, which has to be this one, in its shortest form.
    #[inline]
    fn count(&mut self, count: u8) -> Option<()> {
        if self.flexible { self.skip([count + 1]) } else { self.skip(i32::from(count).to_be_bytes()) }
    }

    /// Skips the number of tagged fields, which has to be zero.
    #[inline]
    fn no_tags(&mut self) -> Option<()> {
        if self.flexible { self.skip([0]) } else { Some(()) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};

    use super::*;
    use crate::{
        api::{Body, decode_response_header, encode_response},
        wire::Wire,
    };

    fn plain(name: &str) -> ProduceResponse {
        let partition = ProducePartitionResponse {
            index: 3,
            base_offset: 0x0102_0304_0506,
            log_append_time_ms: 1_700_000_000_000,
            log_start_offset: 7,
            ..Default::default()
        };
        let topic = ProduceTopicResponse {
            name: name.to_owned(),
            topic_id: Uuid([5; 16]),
            partition_responses: vec![partition],
        };
        ProduceResponse { responses: vec![topic], ..Default::default() }
    }

    fn frame(response: &ProduceResponse, number: i16) -> Bytes {
        let mut frame = encode_response(response, number, 0x0809_0a0b).unwrap();
        frame.advance(4);
        frame.copy_to_bytes(frame.remaining())
    }

    /// What the response says, if that is nothing but where its batch was appended.
    fn decoded(frame: &Bytes, version: Version) -> Option<ProduceResponse> {
        let (_, mut reader) = decode_response_header::<ProduceResponse>(frame, version).ok()?;
        let response = ProduceResponse::read(&mut reader, version).ok()?;
        reader.finish().ok()?;
        Some(response)
    }

    fn response(appended: Appended<'_>) -> ProduceResponse {
        let Appended { name, topic_id, index, base_offset, log_append_time_ms, log_start_offset } = appended;
        let partition = ProducePartitionResponse {
            index,
            base_offset,
            log_append_time_ms,
            log_start_offset,
            ..Default::default()
        };
        let topic =
            ProduceTopicResponse { name: name.to_owned(), topic_id, partition_responses: vec![partition] };
        ProduceResponse { responses: vec![topic], ..Default::default() }
    }

    fn versions() -> impl Iterator<Item = Version> {
        let known = ProduceResponse::VERSIONS;
        (known.oldest..=known.newest).map(|number| ProduceResponse::version(number).unwrap())
    }

    #[test]
    fn an_appended_batch_is_read_in_every_version() {
        for version in versions() {
            for name in ["", "wal", "a topic with a long name, and an umlaut: ä"] {
                let frame = frame(&plain(name), version.number);
                let appended = Appended::read(&frame, version).expect("nothing else is in it");
                assert_eq!(Some(response(appended)), decoded(&frame, version), "{version:?}");
            }
        }
    }

    #[test]
    fn whatever_else_a_response_says_is_left_to_its_decoder() {
        type Change = fn(&mut ProduceResponse);
        let changes: [(i16, Change); 10] = [
            (0, |response| response.responses.clear()),
            (0, |response| response.responses.push(ProduceTopicResponse::default())),
            (0, |response| response.responses[0].partition_responses.clear()),
            (0, |response| response.responses[0].partition_responses.push(Default::default())),
            (0, |response| partition(response).error_code = ErrorCode::NOT_LEADER_OR_FOLLOWER),
            (1, |response| response.throttle_time_ms = 1),
            (8, |response| partition(response).record_errors.push(Default::default())),
            (8, |response| partition(response).error_message = Some(String::new())),
            (10, |response| partition(response).current_leader.leader_id = 1),
            (10, |response| response.node_endpoints.push(Default::default())),
        ];
        for version in versions() {
            for (since, change) in changes {
                let mut response = plain("wal");
                change(&mut response);
                if version.number >= since {
                    assert_eq!(Appended::read(&frame(&response, version.number), version), None);
                }
            }
        }
    }

    fn partition(response: &mut ProduceResponse) -> &mut ProducePartitionResponse {
        &mut response.responses[0].partition_responses[0]
    }

    #[test]
    fn no_other_bytes_are_taken_for_an_appended_batch() {
        for version in versions() {
            let valid = frame(&plain("wal"), version.number);
            let check = |bytes: Vec<u8>| {
                let frame = Bytes::from(bytes);
                if let Some(appended) = Appended::read(&frame, version) {
                    assert_eq!(Some(response(appended)), decoded(&frame, version), "{version:?} {frame:?}");
                }
            };
            for at in 0..valid.len() {
                check(valid[..at].to_vec());
                for byte in [0, 1, 2, 3, 0x7f, 0x80, 0xff] {
                    let mut changed = valid.to_vec();
                    changed[at] = byte;
                    check(changed.clone());
                    changed.insert(at, byte);
                    check(changed);
                }
            }
            check([&valid[..], &[0]].concat());
        }
    }
}
