//! A codec alone: the same compressor, at the same level, over the same bytes, and nothing else.

use std::hint;

use kwal_protocol::{
    compression::{Compression, Compressor, Decompressor},
    record::BatchHeader,
};

use crate::{
    content,
    shared::{DIFFERENT, Failure, Measured, Task},
    walk::LIMIT,
};

/// Compresses the records of batches again and again.
///
/// # Errors
/// The codec is not part of this build.
pub(super) fn compress(task: &Task) -> Result<Measured, Failure> {
    let codec: Compression = task.codec.parse()?;
    let mut compressor = Compressor::new();
    each_batch(task, Compression::None, |body| {
        hint::black_box(compressor.compress(codec, None, body)?);
        Ok(())
    })
}

/// Decompresses the records of batches again and again, into one buffer.
///
/// # Errors
/// The codec is not part of this build.
pub(super) fn decompress(task: &Task) -> Result<Measured, Failure> {
    let codec: Compression = task.codec.parse()?;
    let mut decompressor = Decompressor::new();
    each_batch(task, codec, |body| {
        hint::black_box(decompressor.decompress(codec, body, LIMIT)?);
        Ok(())
    })
}

fn each_batch(
    task: &Task,
    codec: Compression,
    mut run: impl FnMut(&bytes::Bytes) -> Result<(), Failure>,
) -> Result<Measured, Failure> {
    let templates = content::templates(task, codec)?;
    let sums = task.batch_sums();
    let mut meter = task.reading();
    for batch in 0..task.batches {
        run(&templates[batch % DIFFERENT].slice(BatchHeader::LEN..))?;
        meter.batch(task.records as u64, task.batch_bytes() as u64, sums[batch % DIFFERENT]);
        meter.step()?;
    }
    meter.finish()
}
