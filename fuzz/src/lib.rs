//! The bodies of the fuzz targets, over the public API of kwal-protocol.

mod connection;
mod sasl;

use bytes::Bytes;
use kwal_protocol::{
    api::{ApiKey, decode_request_header},
    compression::Compression,
    error::{DecodeError, DecodeErrorKind},
    messages::{AnyRequest, AnyResponse},
    record::Batches,
};

pub use connection::{Op, connection_ops};
pub use sasl::sasl_exchange;

/// The maximum size of a decompressed batch.
const LIMIT: usize = 1 << 20;

/// Any API, version and direction: a decoded message can be encoded, and decodes to the same.
///
/// The first byte chooses direction (0 request, 1 response, else a whole request frame), the next two API and
/// version.
pub fn protocol_reader(data: &[u8]) {
    let [direction, api, version, body @ ..] = data else { return };
    let body = Bytes::copy_from_slice(body);
    let key = ApiKey::ALL[usize::from(*api) % ApiKey::ALL.len()];
    let version = i16::from(*version);
    match direction {
        0 => {
            let Some(Ok(request)) = AnyRequest::decode(key, version, &body) else { return };
            let written = request.encode(version).expect("what was read can be written");
            let Some(again) = again(AnyRequest::decode(key, version, &written)) else { return };
            assert_eq!(again, request);
        }
        1 => {
            let Some(Ok(response)) = AnyResponse::decode(key, version, &body) else { return };
            let written = response.encode(version).expect("what was read can be written");
            let Some(again) = again(AnyResponse::decode(key, version, &written)) else { return };
            assert_eq!(again, response);
        }
        _ => {
            let Ok((header, reader)) = decode_request_header(&body) else { return };
            let at = reader.position();
            let body = body.slice(at..);
            let _ = AnyRequest::decode(header.request_api_key, header.request_api_version, &body);
        }
    }
}

/// Returns a message that was encoded by this crate.
///
/// `None` if it takes more memory than its bytes account for.
fn again<T>(decoded: Option<Result<T, DecodeError>>) -> Option<T> {
    match decoded.expect("known") {
        Ok(message) => Some(message),
        Err(DecodeError { kind: DecodeErrorKind::TooMuchMemory(_), .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The content of a `records` field: borrowed records equal the owned ones.
///
/// The output is bounded by the input.
///
/// An even first byte corrects the checksums of magic 2; otherwise almost no input would pass them.
pub fn record_batch_reader(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let mut data = data.to_vec();
    if first % 2 == 0 {
        mend_checksums(&mut data);
    }
    let bytes = Bytes::from(data);
    let mut batches = Batches::new(bytes.clone());
    let mut end = 0;
    for batch in &mut batches {
        let Ok(batch) = batch else { break };
        assert_eq!(batch.position(), end);
        end += batch.size_in_bytes();
        let Ok(records) = batch.records(LIMIT) else { continue };
        let borrowed: Vec<_> =
            records.iter().map(|record| record.map(|record| record.to_detached())).collect();
        let owned: Vec<_> = records.into_iter().collect();
        assert_eq!(borrowed, owned);
    }
    assert!(end <= bytes.len());
}

/// No input of a codec causes a panic or exceeds the limit; the output can be compressed again.
pub fn decompress(codec: Compression, data: &[u8]) {
    let Ok(out) = codec.decompress(data, LIMIT) else { return };
    assert!(out.len() <= LIMIT);
    if codec.is_built_in() {
        let packed = codec.compress(&out).expect("built in");
        assert_eq!(codec.decompress(&packed, LIMIT).expect("packed here"), out);
    }
}

/// A message of arbitrary fields: everything that a version can carry is decoded again.
pub fn round_trip(message: &AnyMessage, version: i16) {
    match message {
        AnyMessage::Request(request) => {
            let Ok(written) = request.encode(version) else { return };
            let Some(read) = again(AnyRequest::decode(request.key(), version, &written)) else { return };
            assert_eq!(read.to_json(version), request.to_json(version));
            assert_eq!(read.encode(version).as_ref(), Ok(&written));
        }
        AnyMessage::Response(response) => {
            let Ok(written) = response.encode(version) else { return };
            let Some(read) = again(AnyResponse::decode(response.key(), version, &written)) else { return };
            assert_eq!(read.to_json(version), response.to_json(version));
            assert_eq!(read.encode(version).as_ref(), Ok(&written));
        }
    }
}

/// A request or a response.
#[derive(Debug, arbitrary::Arbitrary)]
pub enum AnyMessage {
    Request(AnyRequest),
    Response(AnyResponse),
}

/// Writes the correct checksum into everything that looks like a batch of magic 2.
fn mend_checksums(data: &mut [u8]) {
    let mut at = 0;
    while let Some(batch) = data.get_mut(at..).filter(|batch| batch.len() >= 61) {
        let length = i32::from_be_bytes([batch[8], batch[9], batch[10], batch[11]]);
        let Some(size) = usize::try_from(length).ok().map(|length| length + 12) else { return };
        if batch[16] == 2 && (61..=batch.len()).contains(&size) {
            let crc = crc32c::crc32c(&batch[21..size]);
            batch[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        at += size;
    }
}
