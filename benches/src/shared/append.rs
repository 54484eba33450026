//! Appends of whole batches, in rounds.

use std::hint::black_box;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::{DIFFERENT, Failure, Measured, Meter, Task};

/// The bytes of the values of a round, and the least batches of one.
const ROUND: usize = 32 << 20;
const LEAST: usize = 8;
/// The size of what is allocated after the values.
const BEHIND: usize = 100_000;

/// A client that appends batches.
pub trait Appender {
    /// A batch of its own records, which an append takes.
    type Batch;

    /// Makes a batch of values. This is not measured.
    fn batch(&self, values: &[Vec<u8>]) -> Self::Batch;

    /// Appends all batches of a round and returns when they are acknowledged: the batch at `index` to the
    /// partition `index % partitions`, with as many in flight as the task says.
    fn round(
        &mut self,
        batches: Vec<Self::Batch>,
        meter: &mut Meter,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Appends the batches of a task, round by round, the first of which is not measured.
///
/// The values of each round are new memory, made before the clock runs; to release it is part of what is
/// measured, of all clients.
///
/// # Errors
/// The client's own.
pub async fn run<A: Appender<Batch: Send>>(task: &Task, mut appender: A) -> Result<Measured, Failure> {
    let templates: Vec<_> = (0..DIFFERENT.min(task.batches)).map(|batch| task.values(batch)).collect();
    let concurrent = task.partitions * task.window;
    let per_round =
        (ROUND / task.batch_bytes()).clamp(LEAST, 4_096).max(concurrent).next_multiple_of(task.partitions);
    let mut meter = Meter::new();
    let mut done = 0;
    while done < task.batches {
        let round = done..(done + per_round).min(task.batches);
        let is_warm_up = done == 0 && round.end < task.batches;
        done = round.end;
        let count = round.len() as u64;
        let batches = round.map(|batch| appender.batch(&templates[batch % DIFFERENT])).collect();
        // Behind the values, so that their memory does not go back to the system as it is released: whether
        // it does would depend on what else happens to be in use.
        let behind = vec![0_u8; BEHIND];
        if !is_warm_up {
            meter.resume()?;
        }
        appender.round(batches, &mut meter).await?;
        meter.batch(count * task.records as u64, count * task.batch_bytes() as u64, 0);
        meter.pause()?;
        drop(black_box(behind));
    }
    meter.finish()
}

/// Appends by one future per batch, with so many at the same time.
///
/// # Errors
/// That of an append.
pub async fn concurrently<B, F: Future<Output = Result<(), Failure>>>(
    batches: Vec<B>,
    concurrent: usize,
    meter: &mut Meter,
    append: impl Fn(usize, B) -> F,
) -> Result<(), Failure> {
    let append = |(index, batch)| {
        let append = append(index, batch);
        async move {
            let begin = Instant::now();
            append.await?;
            Ok::<_, Failure>(begin.elapsed())
        }
    };
    if concurrent == 1 {
        for batch in batches.into_iter().enumerate() {
            meter.append(append(batch).await?);
        }
        return Ok(());
    }
    let mut appends = stream::iter(batches.into_iter().enumerate().map(append)).buffer_unordered(concurrent);
    while let Some(took) = appends.try_next().await? {
        meter.append(took);
    }
    Ok(())
}
