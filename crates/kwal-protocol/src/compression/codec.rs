use std::{borrow::Cow, fmt, ops::RangeInclusive, str::FromStr};

/// The compression of a batch: bits 0 to 2 of its attributes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Compression {
    /// Not compressed.
    #[default]
    None,
    /// Gzip. Requires the feature `compression-gzip`.
    Gzip,
    /// Snappy, in the stream format of the Java library. Requires the feature `compression-snappy`.
    Snappy,
    /// LZ4 frames of 64 KiB blocks. Requires the feature `compression-lz4`.
    Lz4,
    /// Zstandard (KIP-110).
    ///
    /// Requires the feature `compression-zstd`, or `decompression-zstd` for reading only.
    ///
    /// Brokers accept it in Produce requests from version 7 on.
    Zstd,
}

impl Compression {
    /// All codecs of Kafka, in the order of their ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Returns the codec with this id, if it exists.
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

    /// Returns the id of the codec in a batch.
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

    /// Returns the name in Kafka's configuration.
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
            Self::Gzip => cfg!(feature = "compression-gzip"),
            Self::Snappy => cfg!(feature = "compression-snappy"),
            Self::Lz4 => cfg!(feature = "compression-lz4"),
            Self::Zstd => cfg!(feature = "compression-zstd"),
        }
    }

    /// Whether this build can decompress it.
    pub const fn can_decompress(self) -> bool {
        match self {
            Self::Zstd => cfg!(any(feature = "compression-zstd", feature = "decompression-zstd")),
            _ => self.is_built_in(),
        }
    }

    /// Returns the valid levels, from the fastest to the smallest output; `None` if the codec has no levels.
    ///
    /// They are those of Kafka's `compression.gzip.level` and `compression.zstd.level` (KIP-390).
    pub const fn levels(self) -> Option<RangeInclusive<i32>> {
        match self {
            Self::Gzip => Some(1..=9),
            Self::Zstd => Some(-131_072..=22),
            Self::None | Self::Snappy | Self::Lz4 => None,
        }
    }

    /// Returns the default level, which is Kafka's: 6 for gzip, 3 for zstd.
    ///
    /// `None` if the codec has no levels.
    pub const fn default_level(self) -> Option<i32> {
        match self {
            Self::Gzip => Some(6),
            Self::Zstd => Some(3),
            Self::None | Self::Snappy | Self::Lz4 => None,
        }
    }

    /// Checks that the codec has this level.
    ///
    /// # Errors
    /// [`CompressionError::Level`].
    pub fn check_level(self, level: Option<i32>) -> Result<(), CompressionError> {
        let fits = |level| self.levels().is_some_and(|levels| levels.contains(&level));
        match level {
            Some(level) if !fits(level) => Err(CompressionError::Level { codec: self, level }),
            _ => Ok(()),
        }
    }

    pub(super) const fn too_large(self, limit: usize) -> CompressionError {
        CompressionError::TooLarge { codec: self, limit }
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

/// A name that is not a codec's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown codec {0:?}: expected none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompression(String);

/// The reason why compression or decompression failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// The batch names a codec that Kafka does not have.
    #[error("unknown codec id {0}")]
    UnknownCodec(u8),
    /// The codec is not part of this build.
    #[error("{codec} is not built in: enable the cargo feature `compression-{codec}`")]
    NotBuiltIn {
        /// The codec.
        codec: Compression,
    },
    /// The codec does not have this level.
    #[error("{codec} has no level {level}{}", Levels(*.codec))]
    Level {
        /// The codec.
        codec: Compression,
        /// The requested level.
        level: i32,
    },
    /// Decompression was stopped at the limit.
    #[error("the {codec} data is larger than the limit of {limit} bytes when decompressed")]
    TooLarge {
        /// The codec.
        codec: Compression,
        /// The limit in bytes.
        limit: usize,
    },
    /// The data is not valid for the codec.
    #[error("the {codec} data is corrupt: {reason}")]
    Corrupt {
        /// The codec.
        codec: Compression,
        /// The fault.
        reason: Cow<'static, str>,
    },
}

/// `: its levels are <first> to <last>`, or `: it has no levels`.
struct Levels(Compression);

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.levels() {
            Some(levels) => write!(f, ": its levels are {} to {}", levels.start(), levels.end()),
            None => f.write_str(": it has no levels"),
        }
    }
}
