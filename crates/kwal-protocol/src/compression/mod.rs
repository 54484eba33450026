//! The codecs of record batches.
//!
//! | codec | feature | framing written | also read | levels |
//! | --- | --- | --- | --- | --- |
//! | gzip | `compression-gzip` | one member | several members, and any bytes after them | 1 to 9, default 6 |
//! | snappy | `compression-snappy` | xerial's stream, blocks of 64 KiB | a block without framing, several streams | none |
//! | lz4 | `compression-lz4` | one frame, independent blocks of 64 KiB | any frame, and any bytes after it | none |
//! | zstd | `compression-zstd` | one frame with its content size | any frames, several of them | −131072 to 22, default 3 |
//!
//! All but zstd are pure Rust and enabled by default. `compression-zstd` builds the C library. Without it,
//! `decompression-zstd` (enabled by default) decompresses zstd in pure Rust, several times slower and for
//! windows up to 8 MiB.
//!
//! All codecs have a variant in every build, so that a missing codec is distinguished from a corrupt batch.
//! For many batches, keep a [`Compressor`] or a [`Decompressor`].

// A codec is a file in this folder, an arm in the two matches of `context`, and a cargo feature.

mod codec;
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

pub use self::{
    codec::{Compression, CompressionError, UnknownCompression},
    context::{Compressor, Decompressor},
};

#[cfg(test)]
mod tests {
    use super::{samples::input, *};

    #[test]
    fn ids_and_names_round_trip() {
        for codec in Compression::ALL {
            assert_eq!(Compression::from_id(codec.id()), Some(codec));
            assert_eq!(codec.name().parse(), Ok(codec));
            assert_eq!(codec.to_string(), codec.name());
        }
        assert_eq!(Compression::from_id(5), None);
        assert_eq!(
            "LZ4".parse::<Compression>().unwrap_err().to_string(),
            "unknown codec \"LZ4\": expected none, gzip, snappy, lz4 or zstd"
        );
    }

    fn built_in() -> impl Iterator<Item = Compression> {
        Compression::ALL.into_iter().filter(|codec| codec.is_built_in())
    }

    #[test]
    fn a_missing_codec_names_its_feature() {
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
    fn round_trips_with_reused_memory() {
        let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
        for codec in built_in() {
            for len in [100_000, 0, 1, 300_000, 5_000_000, 12, 32_768, 65_537] {
                let input = input(len);
                let squeezed = compressor.compress(codec, None, &input).unwrap();
                assert_eq!(squeezed, codec.compress(&input).unwrap(), "{codec} {len}");
                assert_eq!(decompressor.decompress(codec, &squeezed, len).unwrap(), input, "{codec} {len}");
                assert_eq!(codec.decompress(&squeezed, len).unwrap(), input, "{codec} {len}");
                // An error leaves no state.
                let cut = &squeezed[..squeezed.len().min(squeezed.len() / 2 + 4)];
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
        for codec in built_in().filter(|codec| !matches!(codec, Compression::None | Compression::Lz4)) {
            let squeezed: Vec<_> = [1000, 70_000, 1].map(|len| codec.compress(&input(len)).unwrap()).concat();
            let expected = [input(1000), input(70_000), input(1)].concat();
            assert_eq!(codec.decompress(&squeezed, expected.len()).unwrap(), expected, "{codec}");
            let limit = expected.len() - 1;
            assert_eq!(codec.decompress(&squeezed, limit), Err(codec.too_large(limit)), "{codec}");
        }
    }

    #[test]
    fn truncated_data_is_rejected() {
        for codec in built_in().filter(|codec| *codec != Compression::None) {
            let squeezed = codec.compress(&input(5000)).unwrap();
            for len in 0..squeezed.len() {
                // A stream of blocks may end here as well, and up to three bytes later.
                let may_end = codec == Compression::Snappy && (16..20).contains(&len);
                let result = codec.decompress(&squeezed[..len], 1 << 20);
                assert_eq!(result.is_ok(), may_end, "{codec} {len}");
            }
        }
    }

    /// As each of Kafka's classes does: run with those of 3.9.2 and 4.3.1.
    #[test]
    fn trailing_data_is_rejected_where_kafka_rejects_it() {
        let zeros = [0; 100];
        for codec in built_in().filter(|codec| *codec != Compression::None) {
            let squeezed = codec.compress(&input(5000)).unwrap();
            let begun = &squeezed[..12];
            let rest = [&b"x"[..], b"the", b"more", &[0xff; 20], begun];
            for more in rest.into_iter().chain([1, 3, 4, 8, 18, 20, 30, 100].map(|len| &zeros[..len])) {
                let is_ignored = match codec {
                    Compression::Gzip | Compression::Lz4 => true,
                    // Too few bytes for the length of a block.
                    Compression::Snappy => more.len() < 4,
                    _ => false,
                };
                let result = codec.decompress(&[&squeezed, more].concat(), 5000);
                match is_ignored {
                    true => assert_eq!(result.unwrap(), input(5000), "{codec} {more:?}"),
                    false => {
                        assert!(matches!(result, Err(CompressionError::Corrupt { .. })), "{codec} {more:?}")
                    }
                }
            }
        }
    }

    /// As `java.util.zip.GZIPInputStream`: a member whose header is valid has to be complete.
    #[test]
    fn what_follows_a_gzip_member_is_another_one_or_ignored() {
        let codec = Compression::Gzip;
        if !codec.is_built_in() {
            return;
        }
        let member = codec.compress(&input(5000)).unwrap();
        let header = &member[..10];
        let mut wrong_sum = member.to_vec();
        wrong_sum[member.len() - 5] ^= 1;
        let result = |rest: &[u8]| codec.decompress(&[&member, rest].concat(), 1 << 20);
        for ignored in [header, &[header, &[0; 8]].concat(), &[&[0; 8], &member[..]].concat()] {
            assert_eq!(result(ignored).unwrap(), input(5000));
        }
        for broken in [&[header, &[0xff; 12]].concat(), &[header, &[0; 20]].concat(), &wrong_sum] {
            assert!(matches!(result(broken), Err(CompressionError::Corrupt { .. })), "{broken:?}");
        }
        // The reserved flags are ignored.
        let mut flags = member.to_vec();
        flags[3] = 0xe0;
        assert_eq!(codec.decompress(&flags, 5000).unwrap(), input(5000));
    }

    /// Any bytes give a result, never one larger than the limit.
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
