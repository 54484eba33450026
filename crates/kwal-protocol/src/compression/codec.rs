use std::{borrow::Cow, fmt, ops::RangeInclusive, str::FromStr};

/// How the records of a batch are compressed: bits 0 to 2 of its attributes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// Gzip. Needs the feature `compression-gzip`.
    Gzip,
    /// Snappy, in the stream format of the Java library. Needs the feature `compression-snappy`.
    Snappy,
    /// LZ4 frames of 64 KiB blocks. Needs the feature `compression-lz4`.
    Lz4,
    /// Zstandard (KIP-110). Brokers take it in Produce requests from version 7 on. Needs the feature `compression-zstd`,
    /// for reading only also `decompression-zstd`.
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

    /// The levels that it can be asked for, from the fastest to the smallest output; `None` if there is no choice.
    ///
    /// They are those of Kafka's `compression.gzip.level` and `compression.zstd.level` (KIP-390).
    pub const fn levels(self) -> Option<RangeInclusive<i32>> {
        match self {
            Self::Gzip => Some(1..=9),
            Self::Zstd => Some(-131_072..=22),
            Self::None | Self::Snappy | Self::Lz4 => None,
        }
    }

    /// The level that it compresses at if none is asked for: 6 for gzip, 3 for zstd, as Kafka; `None` if there is no choice.
    pub const fn default_level(self) -> Option<i32> {
        match self {
            Self::Gzip => Some(6),
            Self::Zstd => Some(3),
            Self::None | Self::Snappy | Self::Lz4 => None,
        }
    }

    /// Whether this level can be asked for.
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
    #[error("{codec} is not built in: enable the cargo feature `compression-{codec}`")]
    NotBuiltIn {
        /// Which one.
        codec: Compression,
    },
    /// No level of this codec.
    #[error("{codec} has no level {level}{}", Levels(*.codec))]
    Level {
        /// Which one.
        codec: Compression,
        /// What was asked for.
        level: i32,
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

/// `: its levels are <first> to <last>`, or that there are none.
struct Levels(Compression);

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.levels() {
            Some(levels) => write!(f, ": its levels are {} to {}", levels.start(), levels.end()),
            None => f.write_str(": it has no levels"),
        }
    }
}
