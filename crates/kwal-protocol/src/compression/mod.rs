//! The codecs of record batches.
//!
//! A codec is a file beside this one with `compress` and `decompress`, an arm in the two matches here, and a cargo feature.
//! Everything is always named, so that a batch in a codec that is not built in is told apart from a broken one.

use std::{borrow::Cow, fmt, str::FromStr};

#[cfg(feature = "compression-lz4")]
mod lz4;

/// How the records of a batch are compressed: bits 0 to 2 of its attributes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// Gzip.
    Gzip,
    /// Snappy, in the stream format of the Java library.
    Snappy,
    /// LZ4 frames of 64 KiB blocks. Needs the feature `compression-lz4`.
    Lz4,
    /// Zstandard (KIP-110). Brokers take it in Produce requests from version 7 on.
    Zstd,
}

impl Compression {
    /// Every codec that Kafka knows, in the order of their ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this number, `None` if there is none.
    #[inline]
    pub const fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    /// The number that stands for it in a batch.
    #[inline]
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Its name in Kafka's configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Whether this build can compress and decompress it.
    pub const fn is_built_in(self) -> bool {
        match self {
            Self::None => true,
            Self::Lz4 => cfg!(feature = "compression-lz4"),
            Self::Gzip | Self::Snappy | Self::Zstd => false,
        }
    }

    /// Compresses `input` as Kafka's own producer frames it.
    ///
    /// # Errors
    /// [`CompressionError::NotBuiltIn`].
    pub fn compress(self, input: &[u8]) -> Result<Vec<u8>, CompressionError> {
        match self {
            Self::None => Ok(input.to_vec()),
            #[cfg(feature = "compression-lz4")]
            Self::Lz4 => lz4::compress(input),
            _ => Err(CompressionError::NotBuiltIn { codec: self }),
        }
    }

    /// Decompresses all of `input`, whose result must not be larger than `limit` bytes.
    ///
    /// Memory is taken as output appears, never because a length inside of `input` asks for it.
    ///
    /// # Errors
    /// [`CompressionError::TooLarge`] as soon as the output passes `limit`, [`CompressionError::Corrupt`],
    /// [`CompressionError::NotBuiltIn`].
    pub fn decompress(self, input: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
        match self {
            Self::None if input.len() > limit => Err(CompressionError::TooLarge { codec: self, limit }),
            Self::None => Ok(input.to_vec()),
            #[cfg(feature = "compression-lz4")]
            Self::Lz4 => lz4::decompress(input, limit),
            _ => Err(CompressionError::NotBuiltIn { codec: self }),
        }
    }
}

impl Compression {
    /// The same for messages of magic 0, whose LZ4 frames have a header with a wrong checksum.
    pub(crate) fn decompress_magic_0(self, input: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
        match self {
            #[cfg(feature = "compression-lz4")]
            Self::Lz4 => lz4::decompress_unchecked_header(input, limit),
            _ => self.decompress(input, limit),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|codec| codec.name() == name);
        found.ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// A name that no codec has.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no codec is called {0:?}: there are none, gzip, snappy, lz4 and zstd")]
pub struct UnknownCompression(String);

/// Why something was not compressed or decompressed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// The batch names a codec that Kafka does not have.
    #[error("there is no codec with the id {0}")]
    UnknownCodec(u8),
    /// Built without this codec.
    #[error("{codec} is not built in: {}", remedy(*.codec))]
    NotBuiltIn {
        /// Which one.
        codec: Compression,
    },
    /// Decompressing was given up at the limit.
    #[error("the {codec} data is larger than the limit of {limit} bytes when decompressed")]
    TooLarge {
        /// What it is compressed with.
        codec: Compression,
        /// The most bytes that were wanted.
        limit: usize,
    },
    /// Not what the codec writes.
    #[error("the {codec} data is corrupt: {reason}")]
    Corrupt {
        /// What it claims to be compressed with.
        codec: Compression,
        /// What is wrong with it.
        reason: Cow<'static, str>,
    },
}

/// What to do about a codec that is not built in.
fn remedy(codec: Compression) -> &'static str {
    match codec {
        Compression::Lz4 => "enable the cargo feature `compression-lz4`",
        // Each becomes a feature with its codec.
        _ => "no cargo feature of this version brings it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_lead_back() {
        for codec in Compression::ALL {
            assert_eq!(Compression::from_id(codec.id()), Some(codec));
            assert_eq!(codec.name().parse(), Ok(codec));
            assert_eq!(codec.to_string(), codec.name());
        }
        assert_eq!(Compression::from_id(5), None);
        assert_eq!(
            "LZ4".parse::<Compression>().unwrap_err().to_string(),
            "no codec is called \"LZ4\": there are none, gzip, snappy, lz4 and zstd"
        );
    }

    #[test]
    fn what_is_not_built_in_says_what_to_do() {
        for codec in Compression::ALL.into_iter().filter(|codec| !codec.is_built_in()) {
            let error = CompressionError::NotBuiltIn { codec };
            assert_eq!(codec.compress(b"x"), Err(error.clone()));
            assert_eq!(codec.decompress(b"x", 1), Err(error.clone()));
            let text = error.to_string();
            let feature = text.contains(&format!("enable the cargo feature `compression-{codec}`"));
            assert_eq!(feature, codec == Compression::Lz4, "{text}");
            assert!(feature || text.ends_with("no cargo feature of this version brings it"), "{text}");
        }
    }

    #[test]
    fn limits_hold() {
        for codec in Compression::ALL.into_iter().filter(|codec| codec.is_built_in()) {
            let input = vec![7; 200_000];
            let squeezed = codec.compress(&input).unwrap();
            assert_eq!(codec.decompress(&squeezed, input.len()).unwrap(), input);
            let limit = input.len() - 1;
            assert_eq!(codec.decompress(&squeezed, limit), Err(CompressionError::TooLarge { codec, limit }));
        }
    }
}
