//! A log of encoded batches.

use bytes::{BufMut, Bytes, BytesMut};
use kwal_protocol::{
    compression::{Compression, Compressor},
    record::{BatchBuilder, BatchHeader, Headers},
};

use crate::shared::{DIFFERENT, Failure, Task};

const TIMESTAMP: i64 = 1_700_000_000_000;

/// Returns the encoded batches that a log repeats, each at offset 0.
///
/// # Errors
/// The codec is unknown or not part of this build.
pub(crate) fn templates(task: &Task, codec: Compression) -> Result<Vec<Bytes>, Failure> {
    let mut compressor = Compressor::new();
    let batch = |batch| {
        let mut builder = BatchBuilder::new(codec);
        for value in task.values(batch) {
            builder.push(TIMESTAMP, None, Some(&value), &Headers::new());
        }
        Ok(builder.finish_with(&mut compressor)?.to_bytes())
    };
    (0..task.batches.min(DIFFERENT)).map(batch).collect()
}

/// Returns all batches, one after the other, and where each begins.
///
/// # Errors
/// As [`templates`].
pub(crate) fn log(task: &Task) -> Result<(Bytes, Vec<usize>), Failure> {
    let templates = templates(task, task.codec.parse()?)?;
    let len = (0..task.batches).map(|batch| templates[batch % DIFFERENT].len()).sum();
    let (mut log, mut begins) = (BytesMut::with_capacity(len), Vec::new());
    for batch in 0..task.batches {
        let begin = log.len();
        begins.push(begin);
        log.put_slice(&templates[batch % DIFFERENT]);
        // Neither of them is part of the checksum.
        let base_offset = (batch * task.records) as i64;
        log[begin..begin + 8].copy_from_slice(&base_offset.to_be_bytes());
        log[begin + BatchHeader::LOG_OVERHEAD..begin + 16].copy_from_slice(&0_i32.to_be_bytes());
    }
    Ok((log.freeze(), begins))
}
