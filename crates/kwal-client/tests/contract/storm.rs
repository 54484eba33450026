//! All at once, by seed: whatever happens, the log is what the appends were told.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use kwal_client::{
    Deadlines, Limits, Produced,
    error::{Error, Outcome},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::{task::JoinHandle, time::sleep};

use crate::support::{HOUR, builder, deadlines, log, polled, record};

const SEEDS: u64 = 150;
const STEPS: usize = 60;

#[tokio::test(start_paused = true)]
async fn the_log_is_what_the_appends_were_told() {
    let mut met = BTreeMap::new();
    for seed in 0..SEEDS {
        for (what, count) in storm(seed).await {
            *met.entry(what).or_insert(0) += count;
        }
    }
    // It would prove little if it were always fine weather, or always foul.
    for what in ["ok", "ok after more than one attempt", "not appended", "unknown", "given up"] {
        assert!(met.get(what).is_some_and(|count| *count > SEEDS as usize / 2), "{what}: {met:?}");
    }
}

/// An append, its number its value.
enum Append {
    UnderWay(JoinHandle<Result<Produced, Error>>),
    GivenUp,
}

async fn storm(seed: u64) -> BTreeMap<&'static str, usize> {
    let mut rng = Rng::with_seed(seed);
    let broker = EmbeddedCluster::builder().seed(seed).topic("wal", 1).start_in_memory().unwrap();
    let seconds = Duration::from_secs;
    let short = Deadlines { operation: seconds(6), request: seconds(2), connect: seconds(1), ..deadlines() };
    let limits = Limits { appends: 8 << 10, ..Limits::default() };
    let client = builder(&broker).seed(seed).deadlines(short).limits(limits).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let mut appends = Vec::new();
    for _ in 0..STEPS {
        match rng.u8(..20) {
            0..10 => {
                let value = appends.len().to_string();
                let mut append = Box::pin({
                    let partition = partition.clone();
                    async move { partition.produce(record(value)).await }
                });
                // From here on it has its turn, whoever polls it next.
                appends.push(match polled(&mut append, 1).await {
                    Some(done) => Append::UnderWay(tokio::spawn(async { done })),
                    None if rng.u8(..8) == 0 => Append::GivenUp,
                    None => Append::UnderWay(tokio::spawn(append)),
                });
            }
            10..15 => {
                let api = if rng.u8(..8) == 0 { ApiKey::METADATA } else { ApiKey::PRODUCE };
                broker.on(api, fault(&mut rng));
            }
            15 => broker.disconnect_all(),
            16 if rng.bool() => {
                broker.stop(1).unwrap();
                sleep(Duration::from_millis(rng.u64(..8_000))).await;
                broker.restart(1).unwrap();
            }
            _ => sleep(Duration::from_millis(rng.u64(..1_500))).await,
        }
    }
    if rng.bool() {
        broker.clear_faults();
    }
    let mut told = BTreeMap::new();
    let mut results = Vec::new();
    for append in appends {
        results.push(match append {
            Append::UnderWay(task) => Some(task.await.unwrap()),
            Append::GivenUp => None,
        });
    }
    // What was late arrives now at the latest.
    broker.clear_faults();
    sleep(2 * HOUR).await;
    let last = partition.produce(record(results.len().to_string())).await.unwrap();
    results.push(Some(Ok(last)));

    let log: Vec<usize> = log(&broker).iter().map(|value| value.parse().unwrap()).collect();
    assert!(log.is_sorted_by(|a, b| a < b), "seed {seed}: out of order, or twice: {log:?}");
    for (number, result) in results.iter().enumerate() {
        let at = log.binary_search(&number).ok();
        let what = match result {
            Some(Ok(produced)) => {
                assert_eq!(at, Some(produced.base_offset as usize), "seed {seed}: append {number}");
                if produced.attempts > 1 { "ok after more than one attempt" } else { "ok" }
            }
            Some(Err(error)) => {
                let lost = matches!(error, Error::Fenced { .. } | Error::Lost { .. } | Error::Closed { .. });
                assert!(!lost, "seed {seed}: append {number}: {error:?}");
                match error.outcome() {
                    Outcome::NotAppended => {
                        assert_eq!(at, None, "seed {seed}: append {number} is there: {error:?}");
                        "not appended"
                    }
                    Outcome::Unknown => "unknown",
                }
            }
            None => "given up",
        };
        *told.entry(what).or_insert(0) += 1;
    }
    told
}

fn fault(rng: &mut Rng) -> Fault {
    let some = |rng: &mut Rng| Duration::from_millis(rng.u64(..4_000));
    let codes = [
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::REQUEST_TIMED_OUT,
        ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode::UNKNOWN_SERVER_ERROR,
        ErrorCode::KAFKA_STORAGE_ERROR,
    ];
    let refusals =
        [ErrorCode::NOT_ENOUGH_REPLICAS, ErrorCode::INVALID_RECORD, ErrorCode::LEADER_NOT_AVAILABLE];
    match rng.u8(..12) {
        0 => Fault::Drop,
        1 => Fault::LoseReply,
        2 => Fault::DelayRequest(some(rng)),
        3 => Fault::DelayRequest(HOUR),
        4 => Fault::DelayReply(some(rng)),
        5 => Fault::DelayReply(HOUR),
        6 => Fault::Throttle(some(rng)),
        7 => Fault::WrongCorrelationId,
        8 => Fault::BlackHole,
        9 => Fault::Error(refusals[rng.usize(..refusals.len())]),
        10 => Fault::Error(codes[rng.usize(..codes.len())]),
        _ => Fault::ErrorAfter(codes[rng.usize(..codes.len())]),
    }
}
