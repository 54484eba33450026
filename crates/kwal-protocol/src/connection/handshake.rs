use bytes::Bytes;

use super::{
    error::{ConnectionError, Misbehaviour, OtherProtocol},
    session::{Call, CallError},
};
use crate::{
    api::{ApiKey, Body, Versions},
    error::DecodeError,
    error_code::ErrorCode,
    messages::{ApiVersionsRequest, ApiVersionsResponse},
    reader::Reader,
    wire::Wire,
};

/// What a reply to ApiVersions leads to.
pub(super) enum VersionsReply {
    /// The broker's versions.
    Told(ApiVersionsResponse),
    /// The version is too new for the broker; ask this one.
    AskAgain(i16),
}

/// Whether brokers accept the text as a software name or version (KIP-511).
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

pub(super) fn versions_call(
    request: &ApiVersionsRequest,
    version: i16,
    client_id: Option<&str>,
) -> Result<Call, ConnectionError> {
    let api = ApiKey::API_VERSIONS;
    Call::new(request, version, client_id).map_err(|fault| match fault {
        CallError::Encode { source, .. } => ConnectionError::Encode { api, source },
        CallError::Unsupported { ours, .. } => ConnectionError::NoCommonVersion { ours, theirs: ours },
    })
}

/// Reads the reply to ApiVersions, a frame without its length.
///
/// A broker that does not know the version asked answers `UNSUPPORTED_VERSION` in version 0, header and body. Since 2.4
/// it names its own versions of ApiVersions with it (KIP-511); those before name nothing, and know version 0 at least.
pub(super) fn read_versions(asked: i16, frame: &Bytes) -> Result<VersionsReply, ConnectionError> {
    let api = ApiKey::API_VERSIONS;
    // In every version the error code stands first, behind a header of version 0.
    let unsupported = frame.get(4..6) == Some(&ErrorCode::UNSUPPORTED_VERSION.0.to_be_bytes()[..]);
    let version = if unsupported { 0 } else { asked };
    let told =
        read_body(version, frame).map_err(|source| ConnectionError::Malformed { api, version, source })?;
    match told.error_code {
        ErrorCode::NONE => Ok(VersionsReply::Told(told)),
        ErrorCode::UNSUPPORTED_VERSION => {
            let named = told.api_keys.iter().find(|range| range.api_key == api);
            ask_again(asked, named.map(|range| Versions::new(range.min_version, range.max_version)))
        }
        code => Err(ConnectionError::Refused { api, version: asked, code }),
    }
}

fn read_body(number: i16, frame: &Bytes) -> Result<ApiVersionsResponse, DecodeError> {
    // Whatever number it is, it is one that this crate has asked.
    let version = ApiVersionsResponse::version(number).unwrap_or(V0);
    let mut reader = Reader::new(frame);
    reader.array::<4>()?;
    let body = ApiVersionsResponse::read(&mut reader, version)?;
    reader.finish()?;
    Ok(body)
}

const V0: crate::wire::Version = crate::wire::Version { number: 0, flexible: false };

fn ask_again(asked: i16, named: Option<Versions>) -> Result<VersionsReply, ConnectionError> {
    let ours = ApiVersionsRequest::VERSIONS;
    let version = match named {
        Some(theirs) => {
            theirs.newest_common(ours).ok_or(ConnectionError::NoCommonVersion { ours, theirs })?
        }
        None => 0,
    };
    match version < asked {
        true => Ok(VersionsReply::AskAgain(version)),
        false if asked == 0 => Err(ConnectionError::Refused {
            api: ApiKey::API_VERSIONS,
            version: asked,
            code: ErrorCode::UNSUPPORTED_VERSION,
        }),
        false => Err(ConnectionError::PeerMisbehaved(Misbehaviour::Versions { asked, named: version })),
    }
}

/// What the first bytes of the peer show, if they are not Kafka's: four of them at least.
///
/// They would be the length of the reply to ApiVersions, and that is never 200 MB long.
pub(super) fn other_protocol(first: &[u8], max_frame_len: usize) -> Option<OtherProtocol> {
    match first {
        // An alert or a handshake record of any version of TLS.
        [0x15 | 0x16, 0x03, 0..=4, ..] => Some(OtherProtocol::Tls),
        [b'H', b'T', b'T', b'P', ..] => Some(OtherProtocol::Http),
        [a, b, c, d, ..] if [a, b, c, d].iter().all(|byte| is_text(byte)) => {
            let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let text = first.iter().take_while(|byte| is_text(byte)).take(40);
            (len > max_frame_len).then(|| OtherProtocol::Text(text.map(|byte| *byte as char).collect()))
        }
        _ => None,
    }
}

fn is_text(byte: &u8) -> bool {
    byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
