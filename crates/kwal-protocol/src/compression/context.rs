//! Memory of the codecs, kept between batches.

use std::{fmt, mem};

use bytes::{Bytes, BytesMut};

use super::{
    codec::{Compression, CompressionError},
    output::Output,
};
use crate::buffers::Buffers;

/// Compresses batches one after the other, reusing memory.
///
/// The state of the codecs (some hundred kilobytes for gzip, more for the high levels of zstd) is allocated
/// on first use and kept. So is the output buffer, up to 4 MiB.
///
/// ```
/// use kwal_protocol::compression::{Compression, Compressor, Decompressor};
///
/// let codec = Compression::ALL.into_iter().filter(|codec| codec.is_built_in()).next_back().unwrap();
/// let mut compressor = Compressor::new();
/// let mut decompressor = Decompressor::new();
/// for text in ["hello", "kafka"] {
///     let squeezed = compressor.compress(codec, None, text.as_bytes())?;
///     assert_eq!(decompressor.decompress(codec, &squeezed, 1 << 20)?, text);
/// }
/// # Ok::<(), kwal_protocol::compression::CompressionError>(())
/// ```
#[derive(Default)]
pub struct Compressor {
    /// As long as the longest possible output so far; the content is meaningless.
    out: Vec<u8>,
    /// The buffer in which a batch was encoded before compression; empty.
    records: Vec<u8>,
    /// Where the buffers of batches come from, and go to.
    buffers: Option<Buffers>,
    codecs: Encoders,
}

#[derive(Default)]
struct Encoders {
    #[cfg(feature = "compression-gzip")]
    gzip: Option<super::gzip::Encoder>,
    #[cfg(feature = "compression-snappy")]
    snappy: Option<Box<snap::raw::Encoder>>,
    #[cfg(feature = "compression-lz4")]
    lz4: super::lz4::Encoder,
    #[cfg(feature = "compression-zstd")]
    zstd: Option<super::zstd::Encoder>,
}

impl Compressor {
    /// Creates a compressor without memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a compressor that takes the buffers of batches from a pool, and gives them back to it.
    pub fn with_buffers(buffers: Buffers) -> Self {
        Self { buffers: Some(buffers), ..Self::default() }
    }

    /// Compresses `input` in the framing of Kafka's own producer.
    ///
    /// `level` is one of the [levels](Compression::levels) of the codec; `None` is its default.
    ///
    /// # Errors
    /// [`CompressionError::NotBuiltIn`], [`CompressionError::Level`].
    pub fn compress(
        &mut self,
        codec: Compression,
        level: Option<i32>,
        input: &[u8],
    ) -> Result<Bytes, CompressionError> {
        codec.check_level(level)?;
        let len = self.codecs.run(codec, level, input, &mut self.out)?;
        let output = &self.out[..len];
        let compressed = match &self.buffers {
            Some(buffers) => buffers.copy(output),
            None => Bytes::copy_from_slice(output),
        };
        if self.out.capacity() > KEEP {
            self.out = Vec::new();
        }
        Ok(compressed)
    }

    /// Returns an empty buffer for so many bytes of records.
    pub(crate) fn take_records(&mut self, compression: Compression, bytes: usize) -> Vec<u8> {
        if let Some(buffers) = self.buffers.as_ref().filter(|_| bytes >= Buffers::SMALLEST) {
            return buffers.lend(bytes);
        }
        let mut records = match compression {
            // The buffer becomes the batch, so it would not be returned.
            Compression::None => Vec::new(),
            _ => mem::take(&mut self.records),
        };
        records.reserve(bytes);
        records
    }

    /// Keeps a buffer for the next use.
    pub(crate) fn keep_records(&mut self, mut records: Vec<u8>) {
        match &self.buffers {
            Some(buffers) if records.capacity() >= Buffers::SMALLEST => buffers.give_back(records),
            _ if records.capacity() <= KEEP => {
                records.clear();
                self.records = records;
            }
            _ => {}
        }
    }

    /// Makes records the body of a batch.
    pub(crate) fn share_records(&self, records: Vec<u8>) -> Bytes {
        match &self.buffers {
            Some(buffers) => buffers.share(records),
            None => Bytes::from(records),
        }
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Encoders {
    /// Returns the length of the output, which is at the front of `out`.
    #[allow(clippy::needless_pass_by_ref_mut, unused_variables, reason = "a codec uses what it needs")]
    fn run(
        &mut self,
        codec: Compression,
        level: Option<i32>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, CompressionError> {
        match codec {
            Compression::None => {
                out.clear();
                out.extend_from_slice(input);
                Ok(input.len())
            }
            #[cfg(feature = "compression-gzip")]
            Compression::Gzip => {
                let level = level.unwrap_or(super::gzip::DEFAULT_LEVEL);
                let encoder = match &mut self.gzip {
                    Some(encoder) if encoder.level() == level => encoder,
                    other => other.insert(super::gzip::Encoder::new(level)),
                };
                encoder.compress(input, out)
            }
            #[cfg(feature = "compression-snappy")]
            Compression::Snappy => {
                let encoder = self.snappy.get_or_insert_with(|| Box::new(snap::raw::Encoder::new()));
                super::snappy::compress(encoder, input, out)
            }
            #[cfg(feature = "compression-lz4")]
            Compression::Lz4 => self.lz4.compress(input, out),
            #[cfg(feature = "compression-zstd")]
            Compression::Zstd => {
                let level = level.unwrap_or(super::zstd::DEFAULT_LEVEL);
                self.zstd.get_or_insert_with(super::zstd::Encoder::new).compress(level, input, out)
            }
            #[allow(unreachable_patterns, reason = "with all features it is")]
            _ => Err(CompressionError::NotBuiltIn { codec }),
        }
    }
}

/// Decompresses batches one after the other, reusing memory.
///
/// The state of the codecs is allocated on first use and kept. The output buffer, up to 4 MiB, is reused if
/// nothing of the previous batch is held any longer; otherwise a new one is allocated.
#[derive(Default)]
pub struct Decompressor {
    /// The whole buffer of the last output.
    last: Bytes,
    codecs: Decoders,
}

#[derive(Default)]
struct Decoders {
    #[cfg(feature = "compression-gzip")]
    gzip: Option<super::gzip::Decoder>,
    #[cfg(any(feature = "compression-zstd", feature = "decompression-zstd"))]
    zstd: Option<super::zstd::Decoder>,
}

impl Decompressor {
    /// Creates a decompressor without memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decompresses all of `input` into one buffer; the result must not exceed `limit` bytes.
    ///
    /// Memory grows with the output, and not by a length that `input` claims: at first 64 KiB, or 16 bytes
    /// for each input byte, then twice the output so far, and never more than `limit` in all.
    ///
    /// # Errors
    /// [`CompressionError::TooLarge`] as soon as the output exceeds `limit`, [`CompressionError::Corrupt`],
    /// [`CompressionError::NotBuiltIn`].
    pub fn decompress(
        &mut self,
        codec: Compression,
        input: &[u8],
        limit: usize,
    ) -> Result<Bytes, CompressionError> {
        self.run(codec, input, limit, |codecs, out| codecs.run(codec, input, out))
    }

    /// The same for the value of a message of magic 0.
    ///
    /// Its LZ4 frames have a wrong header checksum (KIP-57).
    pub(crate) fn decompress_magic_0(
        &mut self,
        codec: Compression,
        input: &[u8],
        limit: usize,
    ) -> Result<Bytes, CompressionError> {
        #[cfg(feature = "compression-lz4")]
        if codec == Compression::Lz4 {
            use super::lz4::{Checksums, decompress};
            return self.run(codec, input, limit, |_, out| decompress(input, Checksums::WrongInHeader, out));
        }
        self.decompress(codec, input, limit)
    }

    fn run(
        &mut self,
        codec: Compression,
        input: &[u8],
        limit: usize,
        mut run: impl FnMut(&mut Decoders, &mut Output) -> Result<(), CompressionError>,
    ) -> Result<Bytes, CompressionError> {
        if codec == Compression::None {
            let fits = input.len() <= limit;
            return if fits { Ok(Bytes::copy_from_slice(input)) } else { Err(codec.too_large(limit)) };
        }
        let buffer = mem::take(&mut self.last).try_into_mut().unwrap_or_else(|_held| BytesMut::new());
        let mut out = Output::new(codec, buffer, limit);
        loop {
            match run(&mut self.codecs, &mut out) {
                Ok(()) if out.is_oversized() => {}
                Ok(()) => break,
                Err(_) if out.begin_again() => {}
                Err(error) => return Err(error),
            }
        }
        let (bytes, all) = out.finish();
        if all.len() <= KEEP {
            self.last = all;
        }
        Ok(bytes)
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

impl Decoders {
    #[allow(clippy::needless_pass_by_ref_mut, unused_variables, reason = "a codec uses what it needs")]
    fn run(&mut self, codec: Compression, input: &[u8], out: &mut Output) -> Result<(), CompressionError> {
        match codec {
            #[cfg(feature = "compression-gzip")]
            Compression::Gzip => {
                self.gzip.get_or_insert_with(super::gzip::Decoder::new).decompress(input, out)
            }
            #[cfg(feature = "compression-snappy")]
            Compression::Snappy => super::snappy::decompress(input, out),
            #[cfg(feature = "compression-lz4")]
            Compression::Lz4 => super::lz4::decompress(input, super::lz4::Checksums::Right, out),
            #[cfg(any(feature = "compression-zstd", feature = "decompression-zstd"))]
            Compression::Zstd => {
                let decoder = self.zstd.get_or_insert_with(super::zstd::Decoder::new);
                super::zstd::decompress(decoder, input, out)
            }
            _ => Err(CompressionError::NotBuiltIn { codec }),
        }
    }
}

impl Compression {
    /// Compresses `input` once, in the framing of Kafka's own producer and at the default level.
    ///
    /// See [`Compressor::compress`].
    ///
    /// # Errors
    /// [`CompressionError::NotBuiltIn`].
    pub fn compress(self, input: &[u8]) -> Result<Bytes, CompressionError> {
        Compressor::new().compress(self, None, input)
    }

    /// Decompresses all of `input` once; the result must not exceed `limit` bytes.
    ///
    /// See [`Decompressor::decompress`].
    ///
    /// # Errors
    /// [`CompressionError::TooLarge`] as soon as the output exceeds `limit`, [`CompressionError::Corrupt`],
    /// [`CompressionError::NotBuiltIn`].
    pub fn decompress(self, input: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
        Decompressor::new().decompress(self, input, limit)
    }
}

/// The largest buffer that is kept.
const KEEP: usize = 4 << 20;
