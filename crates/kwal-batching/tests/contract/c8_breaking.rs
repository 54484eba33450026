//! C8: attempts to break what is promised of losses.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use kwal_batching::reader::follow;
use kwal_client::{Position, error::ErrorKind};
use kwal_protocol::{
    api::{ApiKey, Versions},
    record::Compression,
};
use kwal_testkit::EmbeddedCluster;
use tokio::time::{sleep, timeout};

use crate::support::{Rng, batch, open};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A stream over unclean elections: what it handed out is on the log, or it fails with the first offset that
/// is not. Returns how many losses were reported, and how many of them before the first one.
async fn unclean(seed: u64) -> (usize, usize) {
    let mut rng = Rng(seed);
    let fetch = [17, 12, 11, 9][rng.below(4) as usize];
    let cluster = EmbeddedCluster::builder().seed(seed).brokers(3).topic("wal", 1);
    let broker = cluster.cap(ApiKey::FETCH, Versions::new(0, fetch)).start_in_memory().unwrap();
    let partition = open(&broker).await;
    let what = format!("seed {seed}, Fetch {fetch}");
    let (mut appended, mut behind) = (0, None);
    let mut read: Vec<(i64, Vec<u8>)> = Vec::new();
    // Where reading went on after each record.
    let mut epochs = BTreeMap::new();
    let max_bytes = [1, 200, 1 << 20][rng.below(3) as usize];
    let mut stream = follow(&partition, 0).max_bytes(max_bytes).await.unwrap();
    let (mut losses, mut early) = (0, 0);
    for step in 0..250 {
        let is_last = step >= 200;
        match rng.below(14) {
            0..=4 => {
                let values: Vec<_> =
                    (0..1 + rng.below(3)).map(|index| format!("{}", appended + index)).collect();
                appended += values.len() as u64;
                let values: Vec<_> = values.iter().map(String::as_str).collect();
                broker.append_raw("wal", 0, batch(&values, Compression::None).freeze()).unwrap();
            }
            5 if !is_last => {
                let in_sync = broker.in_sync("wal", 0).unwrap();
                let to = in_sync[rng.below(in_sync.len() as u64) as usize];
                drop(broker.move_leader("wal", 0, to));
            }
            6 if !is_last && behind.is_none() => {
                let leader = broker.leader("wal", 0).unwrap();
                let in_sync = broker.in_sync("wal", 0).unwrap();
                if let Some(id) = in_sync.into_iter().find(|id| Some(*id) != leader) {
                    broker.set_lag("wal", 0, id, Duration::MAX).unwrap();
                    broker.shrink_isr("wal", 0, id).unwrap();
                    behind = Some(id);
                }
            }
            7 if !is_last => {
                if let Some(id) = behind.take() {
                    broker.elect_unclean("wal", 0, id).unwrap();
                    for id in broker.brokers() {
                        broker.set_lag("wal", 0, id, Duration::ZERO).unwrap();
                    }
                }
            }
            _ => {
                let limit = MS * (1 + rng.below(700)) as u32;
                let result = match rng.below(2) {
                    0 => timeout(limit, stream.next()).await.map(|record| {
                        record.unwrap().map(|record| {
                            epochs.insert(record.offset + 1, record.leader_epoch);
                            read.push((record.offset, record.value.unwrap().to_vec()));
                        })
                    }),
                    _ => timeout(limit, stream.next_batch()).await.map(|batch| {
                        batch.map(|batch| {
                            batch
                                .for_each(|record| {
                                    epochs.insert(record.offset + 1, record.leader_epoch);
                                    read.push((record.offset, record.value.unwrap().to_vec()));
                                })
                                .unwrap();
                        })
                    }),
                };
                let Ok(Err(error)) = result else { continue };
                if error.is_retriable() {
                    continue;
                }
                let ErrorKind::LogTruncated { diverged_at, .. } = *error.kind() else {
                    panic!("{what}, step {step}: {error}")
                };
                let log: BTreeMap<_, _> = (broker.records("wal", 0).unwrap().into_iter())
                    .map(|record| (record.offset, record.value.unwrap().to_vec()))
                    .collect();
                let lost = read.iter().find(|(offset, value)| log.get(offset) != Some(value));
                let lost = lost.map_or_else(|| stream.position().offset, |(offset, _)| *offset);
                assert!(diverged_at <= lost, "{what}, step {step}: {diverged_at}, and {lost} is lost");
                losses += 1;
                early += usize::from(diverged_at < lost);
                read.retain(|(offset, _)| *offset < diverged_at);
                // A bare offset would not verify what is before it.
                let leader_epoch = epochs.get(&diverged_at).copied();
                let kept = Position { topic_id: None, leader_epoch, offset: diverged_at };
                stream = follow(&partition, kept).max_bytes(max_bytes).await.unwrap();
            }
        }
        sleep(MS).await;
    }
    broker.append_raw("wal", 0, batch(&["last"], Compression::None).freeze()).unwrap();
    while read.last().is_none_or(|(_, value)| value != b"last") {
        match timeout(10 * SECOND, stream.next_batch()).await.expect(&what) {
            Ok(batch) => batch
                .for_each(|record| {
                    epochs.insert(record.offset + 1, record.leader_epoch);
                    read.push((record.offset, record.value.unwrap().to_vec()));
                })
                .unwrap(),
            Err(error) => {
                let ErrorKind::LogTruncated { diverged_at, .. } = *error.kind() else {
                    panic!("{what}: {error}")
                };
                read.retain(|(offset, _)| *offset < diverged_at);
                let leader_epoch = epochs.get(&diverged_at).copied();
                let kept = Position { topic_id: None, leader_epoch, offset: diverged_at };
                stream = follow(&partition, kept).max_bytes(max_bytes).await.unwrap();
            }
        }
    }
    let log: Vec<_> = (broker.records("wal", 0).unwrap().into_iter())
        .map(|record| (record.offset, record.value.unwrap().to_vec()))
        .collect();
    let differs = read.iter().zip(&log).find(|(read, log)| read != log);
    assert!(
        differs.is_none() && read.len() == log.len(),
        "{what}: {differs:?}, {} of {}",
        read.len(),
        log.len()
    );
    (losses, early)
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_handed_out_is_on_the_log_or_reported() {
    let seeds = std::env::var("BREAK_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    let (mut losses, mut early) = (0, 0);
    for seed in 0..seeds {
        let counts = unclean(seed).await;
        (losses, early) = (losses + counts.0, early + counts.1);
    }
    println!("{losses} losses, {early} of them reported before the first lost offset");
    assert!(losses > seeds as usize / 4);
}
