//! One caller at a time: what the batch producer adds to an append.

use std::time::Duration;

use kwal::producer::BatchProducer;
use tokio::time::Instant;

use super::{
    closed_loop::{Caller, Failure},
    ours::{self, Batched, Direct},
    task::Task,
};
use crate::median;

/// Appends of one turn, after one that is not measured.
const PER_TURN: usize = 20;
/// Pairs of turns that are not measured.
const WARM_UP: usize = 5;

/// Median latencies of a pair of turns: of the partition client, and of a batch producer over it.
pub type Turn = [Duration; 2];

/// Lets a partition client and a batch producer take turns in appending, one record at a time.
///
/// # Errors
/// The client's own.
pub async fn one_caller(task: Task, turns: usize) -> Result<Vec<Turn>, Failure> {
    let value = vec![b'v'; task.size];
    // Over one connection: where the sink's thread of it runs is the same for both.
    let partition = ours::partition(&task).await?;
    let mut direct = Direct::new(&partition, [0; 8]);
    let mut batched = Batched::new(&BatchProducer::new(partition), [0; 8]);
    let mut measured = Vec::new();
    for turn in 0..WARM_UP + turns {
        // Neither of them always follows the other.
        let pair = if turn % 2 == 0 {
            let direct = latency(&mut direct, &value).await?;
            [direct, latency(&mut batched, &value).await?]
        } else {
            let batched = latency(&mut batched, &value).await?;
            [latency(&mut direct, &value).await?, batched]
        };
        if turn >= WARM_UP {
            measured.push(pair);
        }
    }
    Ok(measured)
}

async fn latency(caller: &mut impl Caller, value: &[u8]) -> Result<Duration, Failure> {
    caller.append(value).await?;
    let mut latencies = Vec::new();
    for _ in 0..PER_TURN {
        let begin = Instant::now();
        caller.append(value).await?;
        latencies.push(begin.elapsed());
    }
    Ok(median(latencies))
}
