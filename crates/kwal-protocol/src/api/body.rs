use std::fmt;

use bytes::Bytes;

use super::{key::ApiKey, versions::Versions};
use crate::{
    error::{DecodeError, EncodeError},
    reader::Reader,
    wire::{Version, Wire},
    writer::Writer,
};

/// The body of a request or of a response.
pub trait Body: Wire + Default + fmt::Debug {
    /// The API of the message.
    const KEY: ApiKey;
    /// The versions that the codec supports: all versions of Kafka 3.9 and 4.3. Clients may support fewer.
    const VERSIONS: Versions;
    /// The first flexible version (KIP-482); `i16::MAX` if no version is flexible.
    const FLEXIBLE: i16;
    /// Whether the response has a header of version 0 in every version of the API.
    ///
    /// This is the case for ApiVersions, whose response is read before anything is known about the broker
    /// (KIP-511).
    const PLAIN_HEADER: bool = false;

    /// Returns the encoding of a version.
    ///
    /// # Errors
    /// [`EncodeError::UnknownVersion`] if the codec does not support it.
    fn version(number: i16) -> Result<Version, EncodeError> {
        match Self::VERSIONS.contains(number) {
            true => Ok(Version { number, flexible: number >= Self::FLEXIBLE }),
            false => Err(EncodeError::UnknownVersion {
                version: number,
                oldest: Self::VERSIONS.oldest,
                newest: Self::VERSIONS.newest,
            }),
        }
    }

    /// Decodes a complete body.
    ///
    /// # Errors
    /// [`DecodeError`] at the offending byte; leftover bytes are an error too.
    fn decode(body: &Bytes, version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let value = Self::read(&mut reader, version)?;
        reader.finish()?;
        Ok(value)
    }

    /// Encodes the body alone, in one piece.
    ///
    /// # Errors
    /// [`EncodeError`] if the version cannot carry a field, or a field is null where it must not be, or is
    /// too long.
    fn encode(&self, version: Version) -> Result<Bytes, EncodeError> {
        let mut writer = Writer::new();
        self.write(&mut writer, version);
        writer.into_bytes()
    }
}

/// A request, with the type of its response.
pub trait Request: Body {
    /// The response.
    type Response: Body;

    /// Whether the broker sends a response. It sends none to a Produce request with acks = 0.
    fn expects_reply(&self) -> bool {
        true
    }
}
