//! The records: what is in them can be told from where they came from.

use std::ops::Range;

use bytes::Bytes;
use kwal::record::{Headers, Record};
use time::OffsetDateTime;

/// What is in the values: source and number of the record, then bytes that depend on these and on the run.
/// The source is a partition, or a writer if there are several on a partition.
#[derive(Clone, Copy)]
pub(crate) struct Content {
    pub(crate) seed: u64,
    pub(crate) size: usize,
}

impl Content {
    /// The bytes of source and number.
    pub(crate) const IDENTITY: usize = 12;

    /// Writes the value of record `number` of `source`.
    pub(crate) fn fill(&self, source: i32, number: u64, value: &mut [u8]) {
        let (identity, rest) = value.split_at_mut(Self::IDENTITY);
        identity[..4].copy_from_slice(&source.to_be_bytes());
        identity[4..].copy_from_slice(&number.to_be_bytes());
        let mut state = mix(self.seed ^ mix(number ^ mix(source as u64)));
        // 32 bytes of noise, and the same again: half of it is there for a codec to find.
        for block in rest.chunks_mut(64) {
            let (noise, again) = block.split_at_mut(block.len().min(32));
            for word in noise.chunks_mut(8) {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                word.copy_from_slice(&mix(state).to_le_bytes()[..word.len()]);
            }
            again.copy_from_slice(&noise[..again.len()]);
        }
    }

    /// The source and number that a value begins with.
    pub(crate) fn identity(value: &[u8]) -> Option<(i32, u64)> {
        let (source, rest) = value.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        Some((i32::from_be_bytes(*source), u64::from_be_bytes(*number)))
    }

    /// The records of a source with these numbers, with values in one buffer, and the checksum up to the last
    /// of them.
    pub(crate) fn records(&self, source: i32, numbers: Range<u64>, mut checksum: u32) -> (Vec<Record>, u32) {
        let size = self.size;
        let mut values = vec![0; (numbers.end - numbers.start) as usize * size];
        for (value, number) in values.chunks_exact_mut(size).zip(numbers.clone()) {
            self.fill(source, number, value);
        }
        checksum = crc32c::crc32c_append(checksum, &values);
        let values = Bytes::from(values);
        let timestamp = OffsetDateTime::now_utc();
        let records = (0..values.len()).step_by(size).map(|at| Record {
            key: None,
            value: Some(values.slice(at..at + size)),
            headers: Headers::new(),
            timestamp,
        });
        (records.collect(), checksum)
    }
}

/// Spreads the bits of a number over all of the result, as the last step of SplitMix64 does.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number that no other run has.
pub(crate) fn unique() -> u64 {
    mix(OffsetDateTime::now_utc().unix_timestamp_nanos() as u64 ^ u64::from(std::process::id()) << 48)
}
