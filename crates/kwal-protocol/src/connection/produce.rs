use bytes::{Buf, Bytes};

use super::request::{CallError, EncodedRequest};
use crate::{
    api::Body,
    error::EncodeError,
    messages::ProduceRequest,
    record::EncodedBatch,
    wire::{Nullable, Spliced, Version},
    writer::Writer,
};

/// A Produce request that is encoded but for a batch, which differs from request to request.
///
/// [`NegotiatedVersions::produce_template`](super::NegotiatedVersions::produce_template) makes it.
#[derive(Clone, Debug)]
pub struct ProduceTemplate {
    /// Everything before the records.
    head: Bytes,
    version: Version,
    expects_reply: bool,
}

/// What follows the records in flexible versions: that partition, topic and request have no tagged fields.
const NO_TAGS: [u8; 3] = [0; 3];

impl ProduceTemplate {
    pub(super) fn new(
        mut request: ProduceRequest,
        number: i16,
        client_id: Option<&str>,
    ) -> Result<Self, CallError> {
        let last = request.topic_data.last_mut().and_then(|topic| topic.partition_data.last_mut());
        let Some(partition) = last else {
            return Err(encode(number)(EncodeError::Null { field: "records", version: number }));
        };
        partition.records = None;
        let EncodedRequest { mut frame, version, expects_reply, .. } =
            EncodedRequest::new(&request, number, client_id)?;
        let mut null = Writer::new();
        Spliced::write_null(&mut null, version);
        let tail = null.len() + tags(version).len();
        // Without its length.
        frame.advance(4);
        let head = frame.copy_to_bytes(frame.remaining().saturating_sub(tail));
        Ok(Self { head, version, expects_reply })
    }

    /// The version in which the request is encoded.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Completes the request with a batch, to which it gives producer id, epoch and the sequence number of
    /// its first record, as [`EncodedBatch::stamp`] does.
    ///
    /// # Errors
    /// [`CallError::Encode`] if the request is too long.
    pub fn encode(
        &self,
        batch: &EncodedBatch,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
    ) -> Result<EncodedRequest, CallError> {
        let Self { head, version, expects_reply } = self;
        let header = batch.stamped_header(producer_id, producer_epoch, base_sequence);
        let mut writer = batch.writer(head.len());
        writer.put_slice(head);
        batch.write_with(&header, &mut writer, *version);
        writer.put_slice(tags(*version));
        Ok(EncodedRequest {
            frame: writer.into_frame().map_err(encode(version.number))?,
            key: ProduceRequest::KEY,
            version: *version,
            expects_reply: *expects_reply,
            timeout: None,
        })
    }
}

fn tags(version: Version) -> &'static [u8] {
    if version.flexible { &NO_TAGS } else { &[] }
}

fn encode(version: i16) -> impl Fn(EncodeError) -> CallError {
    move |source| CallError::Encode { api: ProduceRequest::KEY, version, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{ApiKey, Versions},
        compression::Compression,
        connection::NegotiatedVersions,
        messages::{ApiVersion, ApiVersionsResponse, ProducePartition, ProduceTopic},
        record::{BatchBuilder, Headers},
        wire::Uuid,
    };

    /// Of one record, or of several large ones that the batch shares.
    fn batch(size: usize, count: usize) -> EncodedBatch {
        let mut builder = BatchBuilder::new(Compression::None);
        for number in 0..count {
            let value = Bytes::from(vec![number as u8; size]);
            builder.push_shared(1_700_000_000_000, Some(b"key"), Some(&value), &Headers::new());
        }
        builder.finish().unwrap()
    }

    fn request(named: bool, partitions: usize) -> ProduceRequest {
        let partition = |index: usize| ProducePartition {
            index: index as i32,
            records: Some(Bytes::from_static(b"of another").into()),
        };
        ProduceRequest {
            acks: -1,
            timeout_ms: 9_000,
            topic_data: vec![ProduceTopic {
                name: if named { "wal".to_owned() } else { String::new() },
                topic_id: Uuid([5; 16]),
                partition_data: (0..partitions).map(partition).collect(),
            }],
            ..ProduceRequest::default()
        }
    }

    fn versions(client_id: Option<&str>) -> NegotiatedVersions {
        let Versions { oldest, newest } = ProduceRequest::VERSIONS;
        let api = ApiVersion { api_key: ApiKey::PRODUCE, min_version: oldest, max_version: newest };
        let response = ApiVersionsResponse { api_keys: vec![api], ..Default::default() };
        NegotiatedVersions::new(client_id.map(Into::into), response)
    }

    fn bytes(request: EncodedRequest) -> Bytes {
        let mut frame = request.frame;
        frame.copy_to_bytes(frame.remaining())
    }

    #[test]
    fn a_template_makes_the_request_that_is_encoded_as_a_whole() {
        let batches = [batch(0, 1), batch(100, 1), batch(5_000, 1), batch(70, 500), batch(20_000, 3)];
        for number in ProduceRequest::VERSIONS.oldest..=ProduceRequest::VERSIONS.newest {
            let ours = Versions::new(number, number);
            for (client_id, partitions) in [(None, 1), (Some(""), 2), (Some("me"), 1)] {
                let versions = versions(client_id);
                let request = request(number < 13, partitions);
                let template = versions.produce_template(request.clone(), ours).unwrap();
                assert_eq!(template.version().number, number);
                for batch in &batches {
                    let mut whole = request.clone();
                    let records = batch.stamp(17, 2, 40).to_spliced();
                    whole.topic_data[0].partition_data[partitions - 1].records = Some(records);
                    let expected = versions.encode(&whole, ours).unwrap();
                    let found = template.encode(batch, 17, 2, 40).unwrap();
                    assert_eq!((found.key, found.version), (expected.key, expected.version));
                    assert!(found.expects_reply());
                    assert_eq!(bytes(found), bytes(expected), "version {number}");
                }
            }
        }
    }

    #[test]
    fn the_frame_of_a_small_batch_is_allocated_once() {
        let template = versions(Some("me")).produce_template(request(false, 1), ProduceRequest::VERSIONS);
        let template = template.unwrap();
        for size in [0, 100, 1_024, 3_900] {
            let batch = batch(size, 1);
            let room = batch.writer(template.head.len());
            let frame = template.encode(&batch, 17, 2, 40).unwrap().frame;
            assert!(room.capacity() >= frame.remaining(), "{size}");
        }
    }

    #[test]
    fn a_request_without_a_partition_has_no_place_for_a_batch() {
        let missing = |request: ProduceRequest| {
            let error = versions(None).produce_template(request, ProduceRequest::VERSIONS).unwrap_err();
            matches!(error, CallError::Encode { source: EncodeError::Null { field: "records", .. }, .. })
        };
        assert!(missing(request(false, 0)));
        assert!(missing(ProduceRequest::default()));
        let narrow = versions(None).produce_template(request(false, 1), Versions::new(90, 91));
        assert!(matches!(narrow, Err(CallError::Unsupported { .. })));
        let silent = ProduceRequest { acks: 0, ..request(false, 1) };
        let template = versions(None).produce_template(silent, ProduceRequest::VERSIONS).unwrap();
        assert!(!template.encode(&batch(1, 1), -1, -1, -1).unwrap().expects_reply());
    }
}
