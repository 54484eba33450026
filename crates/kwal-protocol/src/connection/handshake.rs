use bytes::Bytes;

use super::{
    error::{ConnectionError, Misbehaviour, OtherProtocol},
    request::{CallError, EncodedRequest},
};
use crate::{
    api::{ApiKey, Body, Versions},
    error::DecodeError,
    error_code::ErrorCode,
    messages::{ApiVersionsRequest, ApiVersionsResponse},
    reader::Reader,
    wire::{Version, Wire},
};

/// The result of an ApiVersions request.
pub(super) enum ApiVersionsResult {
    /// The broker's versions.
    Versions(ApiVersionsResponse),
    /// The version is too new for the broker; repeat the request in this one.
    Repeat(i16),
}

/// Checks that brokers accept the text as a software name or version (KIP-511).
pub(super) fn check_software(field: &'static str, value: &str) -> Result<(), ConnectionError> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    let bytes = value.as_bytes();
    let valid = bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|byte| plain(byte) || matches!(byte, b'-' | b'.'));
    match valid {
        true => Ok(()),
        false => Err(ConnectionError::InvalidSoftware { field, value: value.to_owned() }),
    }
}

pub(super) fn encode_api_versions(
    request: &ApiVersionsRequest,
    version: i16,
    client_id: Option<&str>,
) -> Result<EncodedRequest, ConnectionError> {
    let api = ApiKey::API_VERSIONS;
    EncodedRequest::new(request, version, client_id).map_err(|fault| match fault {
        CallError::Encode { source, .. } => ConnectionError::Encode { api, source },
        CallError::Unsupported { ours, .. } => ConnectionError::NoCommonVersion { ours, theirs: ours },
    })
}

/// Decodes the response to ApiVersions, a frame without its length.
///
/// A broker that does not support the requested version answers `UNSUPPORTED_VERSION` in version 0, header
/// and body. Since Kafka 2.4 that response lists the supported versions of ApiVersions (KIP-511). Older
/// brokers list nothing, and support version 0 at least.
pub(super) fn read_versions(requested: i16, frame: &Bytes) -> Result<ApiVersionsResult, ConnectionError> {
    let api = ApiKey::API_VERSIONS;
    // In every version the error code comes first, after a header of version 0.
    let unsupported = frame.get(4..6) == Some(&ErrorCode::UNSUPPORTED_VERSION.0.to_be_bytes()[..]);
    let version = if unsupported { 0 } else { requested };
    let response =
        read_body(version, frame).map_err(|source| ConnectionError::Malformed { api, version, source })?;
    match response.error_code {
        ErrorCode::NONE => Ok(ApiVersionsResult::Versions(response)),
        ErrorCode::UNSUPPORTED_VERSION => {
            let named = response.api_keys.iter().find(|range| range.api_key == api);
            older_version(requested, named.map(|range| Versions::new(range.min_version, range.max_version)))
        }
        code => Err(ConnectionError::Refused { api, version: requested, code }),
    }
}

fn read_body(number: i16, frame: &Bytes) -> Result<ApiVersionsResponse, DecodeError> {
    // The number is always one that this crate has requested.
    let version = ApiVersionsResponse::version(number).unwrap_or(V0);
    let mut reader = Reader::new(frame);
    reader.array::<4>()?;
    let body = ApiVersionsResponse::read(&mut reader, version)?;
    reader.finish()?;
    Ok(body)
}

const V0: Version = Version { number: 0, flexible: false };

/// Picks the version in which to repeat the request.
fn older_version(requested: i16, named: Option<Versions>) -> Result<ApiVersionsResult, ConnectionError> {
    let ours = ApiVersionsRequest::VERSIONS;
    let version = match named {
        Some(theirs) => {
            theirs.newest_common(ours).ok_or(ConnectionError::NoCommonVersion { ours, theirs })?
        }
        None => 0,
    };
    match version < requested {
        true => Ok(ApiVersionsResult::Repeat(version)),
        false if requested == 0 => Err(ConnectionError::Refused {
            api: ApiKey::API_VERSIONS,
            version: requested,
            code: ErrorCode::UNSUPPORTED_VERSION,
        }),
        false => {
            Err(ConnectionError::PeerMisbehaved(Misbehaviour::Versions { asked: requested, named: version }))
        }
    }
}

/// Recognizes another protocol by the first bytes of the peer, at least four.
///
/// In Kafka's protocol they are the length of the response to ApiVersions. Four characters would be 150 MB.
pub(super) fn other_protocol(first: &[u8]) -> Option<OtherProtocol> {
    match first {
        // An alert or a handshake record of any version of TLS.
        [0x15 | 0x16, 0x03, 0..=4, ..] => Some(OtherProtocol::Tls),
        [b'H', b'T', b'T', b'P', ..] => Some(OtherProtocol::Http),
        [a, b, c, d, ..] if [a, b, c, d].iter().all(|byte| is_text(byte)) => {
            let text = first.iter().take_while(|byte| is_text(byte)).take(40);
            Some(OtherProtocol::Text(text.map(|byte| *byte as char).collect()))
        }
        _ => None,
    }
}

fn is_text(byte: &u8) -> bool {
    byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
