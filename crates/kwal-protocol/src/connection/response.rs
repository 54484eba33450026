use bytes::Bytes;

use super::request::CorrelationId;
use crate::{
    api::{ApiKey, Request, decode_response_header},
    error::{DecodeError, DecodeErrorKind},
    messages::Appended,
    wire::{Version, Wire},
};

/// The bytes of a response, with the API and version needed to decode them.
#[derive(Clone, Debug)]
pub struct RawResponse {
    pub(super) frame: Bytes,
    pub(super) id: CorrelationId,
    pub(super) key: ApiKey,
    pub(super) version: Version,
}

impl RawResponse {
    /// The correlation id, which is that of the request.
    pub fn correlation_id(&self) -> CorrelationId {
        self.id
    }

    /// The API of the request.
    pub fn key(&self) -> ApiKey {
        self.key
    }

    /// The version of the request, which is also that of the response.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The frame without its length: header and body.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Decodes the response. Its byte fields (records above all) are slices of the frame.
    ///
    /// # Errors
    /// [`DecodeError`] at the offending byte of the [`frame`](Self::frame), also if bytes are left over;
    /// [`DecodeErrorKind::OtherApi`] if the request was not an `R`.
    pub fn decode<R: Request>(&self) -> Result<R::Response, DecodeError> {
        if R::KEY != self.key {
            return Err(DecodeErrorKind::OtherApi { expected: R::KEY.0, is: self.key.0 }.at(0));
        }
        let (_, mut reader) = decode_response_header::<R::Response>(&self.frame, self.version)?;
        let response = R::Response::read(&mut reader, self.version)?;
        reader.finish()?;
        Ok(response)
    }

    /// Returns what a response to Produce says about its only batch, if that was appended and there is
    /// nothing else to say, as usual. It allocates nothing.
    pub fn appended(&self) -> Option<Appended<'_>> {
        match self.key {
            ApiKey::PRODUCE => Appended::read(&self.frame, self.version),
            _ => None,
        }
    }
}
