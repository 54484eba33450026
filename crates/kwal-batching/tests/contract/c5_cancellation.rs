//! C5: every future of a reader may be dropped at any await. Nothing is lost, nothing is repeated.

use std::time::Duration;

use futures::StreamExt;
use kwal_batching::reader::{OutOfRange, Unreadable, follow, replay};
use kwal_client::{Isolation, PartitionClient, error::Error};
use kwal_protocol::api::ApiKey;
use kwal_testkit::{EmbeddedCluster, FaultTarget};
use tokio::task::yield_now;

use crate::support::{
    FAULTS, append, broker, emptied, gaps, marker, open, polled, records_of, transactional,
};

/// A log with records, markers, aborted and emptied batches. Returns the offsets that are read committed.
async fn log(broker: &EmbeddedCluster) -> (PartitionClient, Vec<i64>) {
    let partition = open(broker).await;
    append(&partition, 0..3).await;
    transactional(broker, 40, 0, 3..5);
    marker(broker, 40, false);
    append(&partition, 6..8).await;
    broker.append_raw("wal", 0, emptied(2)).unwrap();
    transactional(broker, 40, 2, 10..12);
    marker(broker, 40, true);
    append(&partition, 13..17).await;
    broker.append_raw("wal", 0, emptied(1)).unwrap();
    (partition, vec![0, 1, 2, 6, 7, 10, 11, 13, 14, 15, 16])
}

/// Polls each future so many times, lets other tasks take so many turns, and drops it.
async fn turns(turns: usize) {
    for _ in 0..turns {
        yield_now().await;
    }
    // A request that was dropped ends at last.
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_whose_futures_are_dropped_reads_the_same() {
    for fault in FAULTS {
        for polls in 1..6 {
            for after in [0, 1, 3] {
                let broker = broker();
                let (partition, expected) = log(&broker).await;
                if let Some(fault) = fault {
                    broker.on_all(FaultTarget::api(ApiKey::FETCH).chance(0.5), fault);
                }
                let open = replay(&partition, 0).isolation(Isolation::ReadCommitted).max_bytes(1);
                let mut replay = open.out_of_range(OutOfRange::FromStart).await.unwrap();
                let mut offsets = Vec::new();
                let mut rounds = 0;
                loop {
                    rounds += 1;
                    let done = match rounds % 3 {
                        0 => polled(replay.next(), polls).await.map(|record| {
                            record.map(|record| offsets.push(record.unwrap().offset)).is_none()
                        }),
                        1 => polled(replay.next_batch(), polls).await.map(|batch| {
                            let batch = batch.unwrap();
                            offsets.extend(batch.iter().flat_map(records_of));
                            batch.is_none()
                        }),
                        _ => {
                            let each = replay.for_each_batch(|batch| {
                                offsets.extend(records_of(batch));
                                Ok::<_, Error>(())
                            });
                            polled(each, polls).await.map(|done| done.is_ok())
                        }
                    };
                    if done == Some(true) {
                        break;
                    }
                    assert!(rounds < 10_000, "{fault:?}: it does not get on with {polls} polls");
                    turns(after).await;
                }
                assert_eq!(offsets, expected, "{fault:?}, {polls} polls, {after} turns");
                assert_eq!(replay.summary().offsets, 0..18);
                gaps(replay.summary());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_futures_are_dropped_reads_the_same() {
    for polls in 1..6 {
        let broker = broker();
        let (partition, expected) = log(&broker).await;
        // It is moved by a policy, and skips what it cannot read, with futures that are dropped as well.
        broker.delete_records("wal", 0, 1).unwrap();
        let open = follow(&partition, 0).isolation(Isolation::ReadCommitted).max_bytes(1);
        let open = open.out_of_range(OutOfRange::FromStart).unreadable(Unreadable::Skip);
        let mut stream = open.await.unwrap();
        let mut offsets = Vec::new();
        for _ in 0..10_000 {
            if stream.position().offset == 18 {
                break;
            }
            if let Some(record) = polled(stream.next(), polls).await {
                offsets.push(record.unwrap().unwrap().offset);
            }
            turns(1).await;
        }
        assert_eq!(offsets, expected[1..], "{polls} polls");
        assert!(stream.caught_up());
        assert_eq!(
            (gaps(stream.summary())[0].0.clone(), stream.summary().without_records.trimmed),
            (0..1, 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn opening_can_be_dropped() {
    let broker = broker();
    let (partition, expected) = log(&broker).await;
    for polls in 1..20 {
        let open = replay(&partition, 0).isolation(Isolation::ReadCommitted);
        if let Some(opened) = polled(open, polls).await {
            let mut replay = opened.unwrap();
            assert_eq!(crate::support::drain(&mut replay).await, expected);
            return;
        }
        turns(1).await;
    }
    panic!("it is not opened");
}
