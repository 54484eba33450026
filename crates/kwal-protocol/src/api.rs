//! What an API is: a key, versions, a request and its response.

use std::fmt;

use bytes::Bytes;

use crate::{
    error::{DecodeError, EncodeError},
    header::{RequestHeader, ResponseHeader},
    messages,
    reader::Reader,
    wire::{Version, Wire},
    writer::{Frame, Writer},
};

/// The number of an API (`apiKey` in the schemas). Those that kwal speaks have a name; any other is just a number.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ApiKey(pub i16);

impl ApiKey {
    /// Whether a request of this API changes anything in the cluster that outlives its connection.
    pub const fn changes_something(self) -> bool {
        matches!(
            self,
            Self::PRODUCE
                | Self::CREATE_TOPICS
                | Self::DELETE_TOPICS
                | Self::DELETE_RECORDS
                | Self::CREATE_PARTITIONS
                | Self::INCREMENTAL_ALTER_CONFIGS
        )
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "ApiKey({})", self.0),
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Wire for ApiKey {
    fn write(&self, writer: &mut Writer, version: Version) {
        self.0.write(writer, version);
    }

    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        i16::read(reader, version).map(Self)
    }
}

#[cfg(feature = "arbitrary")]
impl crate::arbitrary::Arbitrate for ApiKey {
    fn arbitrate(bytes: &mut ::arbitrary::Unstructured<'_>) -> ::arbitrary::Result<Self> {
        ::arbitrary::Arbitrary::arbitrary(bytes).map(Self)
    }
}

#[cfg(feature = "serde")]
impl crate::json::Json for ApiKey {
    fn write_json<S: serde::Serializer>(&self, serializer: S, _: Version) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&self.0, serializer)
    }

    fn read_json<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::Deserialize::deserialize(deserializer).map(Self)
    }
}

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Versions {
    /// The oldest.
    pub oldest: i16,
    /// The newest.
    pub newest: i16,
}

impl Versions {
    /// From `oldest` to `newest`.
    pub const fn new(oldest: i16, newest: i16) -> Self {
        Self { oldest, newest }
    }

    /// Whether the version is one of these.
    pub const fn contains(self, version: i16) -> bool {
        self.oldest <= version && version <= self.newest
    }

    /// The newest version in both, if there is one.
    pub fn newest_common(self, other: Self) -> Option<i16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest && newest >= other.oldest).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

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

/// A whole request frame: length, header, body.
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
    let header = RequestHeader {
        request_api_key: R::KEY,
        request_api_version: version.number,
        correlation_id,
        client_id: client_id.map(str::to_owned),
    };
    let mut writer = Writer::new();
    header.write(&mut writer, RequestHeader::version_for(version));
    request.write(&mut writer, version);
    writer.into_frame()
}

/// A whole response frame: length, header, body.
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

/// The header of a request frame (without its length), and a reader that stands at the body.
///
/// # Errors
/// [`DecodeError`] if the header is not whole. An API or a version that is not known is no error here.
pub fn decode_request_header(frame: &Bytes) -> Result<(RequestHeader, Reader<'_>), DecodeError> {
    let mut peek = Reader::new(frame);
    let key = ApiKey(i16::from_be_bytes(peek.array()?));
    let number = i16::from_be_bytes(peek.array()?);
    let flexible = messages::first_flexible(key).is_some_and(|first| number >= first);
    let mut reader = Reader::new(frame);
    let header = RequestHeader::read(&mut reader, RequestHeader::version_for(Version { number, flexible }))?;
    Ok((header, reader))
}

/// The correlation id of a response frame (without its length), and a reader that stands at the body.
///
/// # Errors
/// [`DecodeError`] if the header is not whole.
pub fn decode_response_header<B: Body>(
    frame: &Bytes,
    version: Version,
) -> Result<(i32, Reader<'_>), DecodeError> {
    let mut reader = Reader::new(frame);
    let header = ResponseHeader::read(&mut reader, ResponseHeader::version_for::<B>(version))?;
    Ok((header.correlation_id, reader))
}
