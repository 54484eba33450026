use bytes::Bytes;

use super::{
    body::{Body, Request},
    header::{RequestHeader, ResponseHeader},
    key::ApiKey,
};
use crate::{
    error::{DecodeError, EncodeError},
    reader::Reader,
    wire::{Version, Wire},
    writer::{Frame, Writer},
};

/// Encodes a complete request frame: length, header, body.
///
/// ```
/// use bytes::Buf;
/// use kwal_protocol::{api::encode_request, messages::ApiVersionsRequest};
///
/// let mut frame = encode_request(&ApiVersionsRequest::default(), 0, 7, Some("me"))?;
/// let bytes = frame.copy_to_bytes(frame.remaining());
/// assert_eq!(&bytes[..], b"\0\0\0\x0c\0\x12\0\0\0\0\0\x07\0\x02me");
/// # Ok::<(), kwal_protocol::error::EncodeError>(())
/// ```
///
/// # Errors
/// As [`Body::encode`]; [`EncodeError::UnknownVersion`].
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<Frame, EncodeError> {
    let version = R::version(version)?;
    let mut writer = Writer::new();
    RequestHeader::write_with(R::KEY, version, correlation_id, client_id, &mut writer);
    request.write(&mut writer, version);
    writer.into_frame()
}

/// Encodes a complete response frame: length, header, body.
///
/// # Errors
/// As [`Body::encode`]; [`EncodeError::UnknownVersion`].
pub fn encode_response<B: Body>(
    response: &B,
    version: i16,
    correlation_id: i32,
) -> Result<Frame, EncodeError> {
    let version = B::version(version)?;
    let mut writer = Writer::new();
    ResponseHeader { correlation_id }.write(&mut writer, ResponseHeader::version_for::<B>(version));
    response.write(&mut writer, version);
    writer.into_frame()
}

/// Decodes the header of a request frame (without its length); returns it and a reader of the body.
///
/// # Errors
/// [`DecodeError`] if the header is incomplete. An unknown API or version is not an error here.
pub fn decode_request_header(frame: &Bytes) -> Result<(RequestHeader, Reader<'_>), DecodeError> {
    let mut peek = Reader::new(frame);
    let key = ApiKey(i16::from_be_bytes(peek.array()?));
    let number = i16::from_be_bytes(peek.array()?);
    let flexible = key.first_flexible().is_some_and(|first| number >= first);
    let mut reader = Reader::new(frame);
    let header = RequestHeader::read(&mut reader, RequestHeader::version_for(Version { number, flexible }))?;
    Ok((header, reader))
}

/// Decodes the header of a response frame (without its length).
///
/// Returns its correlation id and a reader of the body.
///
/// # Errors
/// [`DecodeError`] if the header is incomplete.
pub fn decode_response_header<B: Body>(
    frame: &Bytes,
    version: Version,
) -> Result<(i32, Reader<'_>), DecodeError> {
    let mut reader = Reader::new(frame);
    let header = ResponseHeader::read(&mut reader, ResponseHeader::version_for::<B>(version))?;
    Ok((header.correlation_id, reader))
}
