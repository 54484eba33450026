//! What is in the log.

use std::error::Error;

use bytes::{BufMut, Bytes, BytesMut};
use kwal_protocol::{
    compression::{Compression, Compressor},
    record::{BatchBuilder, BatchHeader, Headers},
};

use super::{meter::sum, task::next};
use crate::values;

/// So many batches differ; the log repeats them.
const DIFFERENT: usize = 8;
const TIMESTAMP: i64 = 1_700_000_000_000;
/// The words that values are made of.
const WORD: usize = 16;
const DICTIONARY: usize = 512;

/// A log of batches of equal shape.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Content {
    /// Records per batch.
    pub records: usize,
    /// Bytes per value.
    pub size: usize,
    /// The codec of all batches.
    pub codec: Compression,
    /// The number of batches.
    pub batches: usize,
}

impl Content {
    /// Returns the number of records.
    pub const fn len(&self) -> u64 {
        (self.records * self.batches) as u64
    }

    /// Whether there are no records.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the arguments of a program that is about it.
    pub fn arguments(&self) -> [String; 4] {
        let Self { records, size, codec, batches } = self;
        [records.to_string(), size.to_string(), codec.to_string(), batches.to_string()]
    }

    /// Reads it from the arguments of a program.
    ///
    /// # Errors
    /// One is missing or malformed.
    pub fn from_arguments(arguments: &mut impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut number = || next(arguments);
        let (records, size) = (number()?, number()?);
        Ok(Self { records, size, codec: next(arguments)?, batches: next(arguments)? })
    }

    /// Returns the sum that all values have together.
    pub fn sum(&self) -> u64 {
        let sums: Vec<_> = (0..self.batches.min(DIFFERENT)).map(|batch| self.batch_sum(batch)).collect();
        (0..self.batches).map(|batch| sums[batch % DIFFERENT]).fold(0, u64::wrapping_add)
    }

    /// Returns the sum of the values of a batch.
    pub(super) fn batch_sum(&self, batch: usize) -> u64 {
        self.values(batch).iter().map(|value| sum(value)).fold(0, u64::wrapping_add)
    }

    /// Returns the values of a batch. A quarter of their words is random, and all others repeat.
    pub fn values(&self, batch: usize) -> Vec<Vec<u8>> {
        let dictionary = values(DICTIONARY, WORD, 1);
        let mut made = values(self.records, self.size, ((batch % DIFFERENT) as u64 + 1) << 32);
        for word in made.iter_mut().flat_map(|value| value.chunks_exact_mut(WORD)) {
            let random = usize::from(word[0]) | usize::from(word[1]) << 8;
            if random % 4 != 0 {
                word.copy_from_slice(&dictionary[random / 4 % DICTIONARY]);
            }
        }
        made
    }

    /// Returns the encoded batches that the log repeats, each at offset 0.
    ///
    /// # Errors
    /// The codec is not part of this build.
    pub(super) fn templates(&self) -> Result<Vec<Bytes>, Box<dyn Error>> {
        let mut compressor = Compressor::new();
        let batch = |batch| {
            let mut builder = BatchBuilder::new(self.codec);
            for value in self.values(batch) {
                builder.push(TIMESTAMP, None, Some(&value), &Headers::new());
            }
            Ok(builder.finish_with(&mut compressor)?.to_bytes())
        };
        (0..self.batches.min(DIFFERENT)).map(batch).collect()
    }

    /// Returns all batches, one after the other, and where each begins.
    ///
    /// # Errors
    /// As [`templates`](Self::templates).
    pub(super) fn log(&self) -> Result<(Bytes, Vec<usize>), Box<dyn Error>> {
        let templates = self.templates()?;
        let len = (0..self.batches).map(|batch| templates[batch % DIFFERENT].len()).sum();
        let (mut log, mut begins) = (BytesMut::with_capacity(len), Vec::new());
        for batch in 0..self.batches {
            let begin = log.len();
            begins.push(begin);
            log.put_slice(&templates[batch % DIFFERENT]);
            // Neither of them is part of the checksum.
            let base_offset = (batch * self.records) as i64;
            log[begin..begin + 8].copy_from_slice(&base_offset.to_be_bytes());
            log[begin + BatchHeader::LOG_OVERHEAD..begin + 16].copy_from_slice(&0_i32.to_be_bytes());
        }
        Ok((log.freeze(), begins))
    }
}
