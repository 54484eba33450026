//! The codecs of record batches.
//!
//! | codec | feature | framing written | also read | levels |
//! | --- | --- | --- | --- | --- |
//! | gzip | `compression-gzip` | one member | several members | 1 to 9, default 6 |
//! | snappy | `compression-snappy` | xerial's stream, blocks of 64 KiB | a block without framing, several streams | none |
//! | lz4 | `compression-lz4` | one frame, independent blocks of 64 KiB | any frames, several of them | none |
//! | zstd | `compression-zstd` | one frame with its content size | any frames, several of them | −131072 to 22, default 3 |
//!
//! All but zstd are pure Rust and on by default. `compression-zstd` builds the C library. Without it zstd can be read all
//! the same: `decompression-zstd`, on by default, does so in pure Rust, a few times slower and for windows up to 8 MiB.
//!
//! Everything is always named, so that a batch in a codec that is not built in is told apart from a broken one. Whoever
//! has many batches keeps a [`Compressor`] or a [`Decompressor`].

// A codec is a file beside this one, an arm in the two matches of `context`, and a cargo feature.

use std::{borrow::Cow, fmt, ops::RangeInclusive, str::FromStr};

use bytes::Bytes;

mod context;
#[cfg(feature = "compression-gzip")]
mod gzip;
#[cfg(feature = "compression-lz4")]
mod lz4;
#[cfg_attr(
    not(all(feature = "compression-gzip", feature = "compression-lz4", feature = "compression-snappy")),
    allow(dead_code, reason = "a codec uses what it needs")
)]
mod output;
#[cfg(test)]
mod samples;
#[cfg(feature = "compression-snappy")]
mod snappy;
#[cfg(any(feature = "compression-zstd", feature = "decompression-zstd"))]
mod zstd;

pub use self::context::{Compressor, Decompressor};
use self::output::Output;

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

    /// Compresses `input` once, as Kafka's own producer frames it, at the codec's default level: see
    /// [`Compressor::compress`].
    ///
    /// # Errors
    /// [`CompressionError::NotBuiltIn`].
    pub fn compress(self, input: &[u8]) -> Result<Bytes, CompressionError> {
        Compressor::new().compress(self, None, input)
    }

    /// Decompresses all of `input` once, whose result must not be larger than `limit` bytes: see
    /// [`Decompressor::decompress`].
    ///
    /// # Errors
    /// [`CompressionError::TooLarge`] as soon as the output passes `limit`, [`CompressionError::Corrupt`],
    /// [`CompressionError::NotBuiltIn`].
    pub fn decompress(self, input: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
        Decompressor::new().decompress(self, input, limit)
    }

    const fn too_large(self, limit: usize) -> CompressionError {
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

#[cfg(test)]
mod tests {
    use super::{samples::input, *};

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

    fn built_in() -> impl Iterator<Item = Compression> {
        Compression::ALL.into_iter().filter(|codec| codec.is_built_in())
    }

    #[test]
    fn what_is_not_built_in_names_its_feature() {
        for codec in Compression::ALL.into_iter().filter(|codec| !codec.is_built_in()) {
            let error = CompressionError::NotBuiltIn { codec };
            assert_eq!(codec.compress(b"x"), Err(error.clone()));
            if !codec.can_decompress() {
                assert_eq!(codec.decompress(b"x", 1), Err(error.clone()));
            }
            assert!(error.to_string().contains(&format!("`compression-{codec}`")), "{error}");
        }
    }

    #[test]
    fn limits_hold() {
        for codec in built_in() {
            for input in [vec![7; 200_000], input(200_000)] {
                let squeezed = codec.compress(&input).unwrap();
                assert_eq!(codec.decompress(&squeezed, input.len()).unwrap(), input);
                for limit in [0, 1, 70_000, input.len() - 1] {
                    assert_eq!(codec.decompress(&squeezed, limit), Err(codec.too_large(limit)), "{codec}");
                }
            }
        }
    }

    #[test]
    fn levels_are_kafkas() {
        for codec in built_in().filter(|codec| *codec != Compression::None) {
            let (mut compressor, input) = (Compressor::new(), input(100_000));
            let Some(levels) = codec.levels() else {
                let error = compressor.compress(codec, Some(1), &input).unwrap_err();
                assert_eq!(error.to_string(), format!("{codec} has no level 1: it has no levels"));
                continue;
            };
            let mut at = |level| compressor.compress(codec, level, &input).unwrap();
            assert_eq!(at(None), at(codec.default_level()));
            assert!(at(Some(*levels.end())).len() < at(Some(*levels.start())).len(), "{codec}");
            let error = codec.check_level(Some(levels.end() + 1)).unwrap_err();
            assert!(error.to_string().ends_with(&format!("to {}", levels.end())), "{error}");
        }
    }

    #[test]
    fn what_is_compressed_comes_back_with_memory_of_before() {
        let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
        for codec in built_in() {
            for len in [100_000, 0, 1, 300_000, 5_000_000, 12, 32_768, 65_537] {
                let input = input(len);
                let squeezed = compressor.compress(codec, None, &input).unwrap();
                assert_eq!(squeezed, codec.compress(&input).unwrap(), "{codec} {len}");
                assert_eq!(decompressor.decompress(codec, &squeezed, len).unwrap(), input, "{codec} {len}");
                assert_eq!(codec.decompress(&squeezed, len).unwrap(), input, "{codec} {len}");
                // An error leaves nothing behind.
                let cut = &squeezed[..squeezed.len() / 2];
                assert!(
                    decompressor.decompress(codec, cut, len).is_err()
                        || codec == Compression::None
                        || len == 0
                );
                let held = decompressor.decompress(codec, &squeezed, len + 1).unwrap();
                assert_eq!(decompressor.decompress(codec, &squeezed, len).unwrap(), held, "{codec} {len}");
            }
        }
    }

    #[test]
    fn several_in_a_row_are_read() {
        for codec in built_in().filter(|codec| *codec != Compression::None) {
            let squeezed: Vec<_> = [1000, 70_000, 1].map(|len| codec.compress(&input(len)).unwrap()).concat();
            let expected = [input(1000), input(70_000), input(1)].concat();
            assert_eq!(codec.decompress(&squeezed, expected.len()).unwrap(), expected, "{codec}");
            let limit = expected.len() - 1;
            assert_eq!(codec.decompress(&squeezed, limit), Err(codec.too_large(limit)), "{codec}");
        }
    }

    #[test]
    fn every_truncation_and_what_follows_is_refused() {
        for codec in built_in().filter(|codec| *codec != Compression::None) {
            let squeezed = codec.compress(&input(5000)).unwrap();
            for len in 0..squeezed.len() {
                // Where a stream of blocks may end as well.
                let may_end = codec == Compression::Snappy && len == 16;
                let result = codec.decompress(&squeezed[..len], 1 << 20);
                assert_eq!(result.is_ok(), may_end, "{codec} {len}");
            }
            for more in [&b"x"[..], b"more", &[0; 20]] {
                assert!(codec.decompress(&[&squeezed, more].concat(), 1 << 20).is_err(), "{codec}");
            }
        }
    }

    /// Whatever the bytes say: an answer, and not a larger one than was asked for.
    #[test]
    fn no_flipped_bit_is_a_panic() {
        let mut decompressor = Decompressor::new();
        for codec in built_in() {
            for input in [input(300), vec![7; 3000]] {
                let squeezed = codec.compress(&input).unwrap();
                for bit in 0..squeezed.len() * 8 {
                    let mut flipped = squeezed.to_vec();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    if let Ok(output) = decompressor.decompress(codec, &flipped, 4000) {
                        assert!(output.len() <= 4000);
                    }
                }
            }
        }
    }
}
