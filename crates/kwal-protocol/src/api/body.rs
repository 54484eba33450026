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
    /// The API it belongs to.
    const KEY: ApiKey;
    /// The versions that the codec knows: all that Kafka 3.9 or 4.3 knows. What a client speaks is its own matter.
    const VERSIONS: Versions;
    /// The first flexible version (KIP-482); `i16::MAX` if there is none.
    const FLEXIBLE: i16;
    /// The API's response has a header of version 0 whatever its own version is. So it is for ApiVersions, whose answer is
    /// read before anything is known of the broker (KIP-511).
    const PLAIN_HEADER: bool = false;

    /// How a version is written.
    ///
    /// # Errors
    /// [`EncodeError::UnknownVersion`] if the codec does not know it.
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

    /// Reads a whole body.
    ///
    /// # Errors
    /// [`DecodeError`] at the faulty byte; bytes left over are an error too.
    fn decode(body: &Bytes, version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let value = Self::read(&mut reader, version)?;
        reader.finish()?;
        Ok(value)
    }

    /// Writes the body alone, in one piece.
    ///
    /// # Errors
    /// [`EncodeError`] if a field cannot be carried by this version, is null where it must not be, or is too long.
    fn encode(&self, version: Version) -> Result<Bytes, EncodeError> {
        let mut writer = Writer::new();
        self.write(&mut writer, version);
        writer.into_bytes()
    }
}

/// A request, and with it its response.
pub trait Request: Body {
    /// What answers it.
    type Response: Body;

    /// Whether a broker answers this request: it does not answer a Produce request with acks = 0.
    fn expects_reply(&self) -> bool {
        true
    }
}
