//! C7 and C9: one fetch ahead, sent before the last one is decoded, and never used after an error.

use std::time::Duration;

use kwal_batching::reader::{follow, replay};
use kwal_client::{Client, Limits, OffsetAt, PartitionClient};
use kwal_protocol::api::ApiKey;
use kwal_testkit::{EmbeddedCluster, Fault, wire::Wire};
use tokio::time::{sleep, timeout};

use crate::support::{Fetches, append, broker, builder, open_over, records_of, settle, timed};

/// Opens a log of six batches of two records.
async fn six(broker: &EmbeddedCluster, wire: &Wire) -> (Client, PartitionClient) {
    let (client, partition) = open_over(broker, wire).await;
    for offset in 0..6 {
        append(&partition, 2 * offset..2 * offset + 2).await;
    }
    (client, partition)
}

#[tokio::test(start_paused = true)]
async fn the_next_fetch_is_on_its_way_before_a_batch_is_handed_over() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = six(&broker, &wire).await;
    let fetches = Fetches::record(&wire);
    let mut replay = replay(&partition, 0).max_bytes(1).await.unwrap();
    assert_eq!(fetches.offsets(), [0; 0], "opening fetches nothing");
    for batch in 0..6 {
        let found = replay.next_batch().await.unwrap().unwrap();
        assert_eq!(found.offsets(), 2 * batch..2 * batch + 2);
        // Even if the caller decodes it without letting any other task run.
        let sent: Vec<_> = (0..=batch + 1).map(|batch| 2 * batch).filter(|offset| *offset < 12).collect();
        assert_eq!(fetches.offsets(), sent, "one ahead, and none at the end");
    }
    assert!(replay.next_batch().await.unwrap().is_none());
    assert_eq!(fetches.offsets(), [0, 2, 4, 6, 8, 10]);
    // All but the first are verified.
    assert!(fetches.all()[1..].iter().all(|(_, epoch)| *epoch == 0), "{fetches:?}");

    // Nothing that is ahead is fetched twice when the replay is followed before its end.
    let replay = reader_after_one(&partition).await;
    settle().await;
    let sent = fetches.offsets().len();
    let mut stream = replay.follow();
    assert_eq!(records_of(&stream.next_batch().await.unwrap()), [2, 3]);
    settle().await;
    assert_eq!(fetches.offsets()[sent..], [4]);
}

async fn reader_after_one(partition: &PartitionClient) -> kwal_batching::reader::Replay {
    let mut replay = replay(partition, 0).end(11).max_bytes(1).await.unwrap();
    replay.next_batch().await.unwrap();
    replay
}

#[tokio::test(start_paused = true)]
async fn latency_overlaps_with_what_the_caller_does() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = six(&broker, &wire).await;
    let round_trip = Duration::from_secs(1);
    broker.on_all(ApiKey::FETCH, Fault::DelayReply(round_trip));
    let (count, took) = timed(async {
        let mut replay = replay(&partition, 0).max_bytes(1).await.unwrap();
        let mut count = 0;
        while replay.next_batch().await.unwrap().is_some() {
            count += 1;
            sleep(round_trip).await;
        }
        count
    })
    .await;
    assert_eq!((count, took), (6, 7 * round_trip), "not 12");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_fetched_ahead_of_an_empty_fetch() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = open_over(&broker, &wire).await;
    let fetches = Fetches::record(&wire);
    let mut stream = follow(&partition, OffsetAt::Latest).max_wait(Duration::from_secs(1)).await.unwrap();
    assert!(timeout(Duration::from_millis(9_500), stream.next_batch()).await.is_err());
    assert_eq!(fetches.offsets(), [0; 10]);
}

#[tokio::test(start_paused = true)]
async fn what_is_ahead_costs_no_more_than_its_memory_when_it_is_dropped() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = six(&broker, &wire).await;
    for _ in 0..100 {
        let mut stream = follow(&partition, 0).max_bytes(1).await.unwrap();
        assert_eq!(records_of(&stream.next_batch().await.unwrap()), [0, 1]);
    }
    let other = builder(&broker).build().await.unwrap().partition_client("wal", 0).await.unwrap();
    append(&other, 12..13).await;
    let (batch, took) = timed(async {
        let mut stream = follow(&partition, 12).await.unwrap();
        stream.next_batch().await.unwrap()
    })
    .await;
    assert_eq!((records_of(&batch), took), (vec![12], Duration::ZERO));
}

/// Readers that are not polled hold what was fetched ahead for them. That never keeps others from reading.
#[tokio::test(start_paused = true)]
async fn without_memory_nothing_is_fetched_ahead_and_reading_goes_on() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = six(&broker, &wire).await;
    for (memory, connections) in [(1, 1), (1, 16), (4 << 20, 1), (4 << 20, 16)] {
        let limits = Limits::default().memory(memory).max_connections_per_broker(connections);
        let client = builder(&broker).limits(limits).build().await.unwrap();
        let scarce = client.partition_client("wal", 0).await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..40 {
            let mut stream = follow(&scarce, 0).max_bytes(1 << 20).await.unwrap();
            assert_eq!(records_of(&stream.next_batch().await.unwrap()), [0, 1], "{memory}");
            streams.push(stream);
        }
        // All are at the end of what they fetched. Only some have a fetch ahead, which waits for more.
        settle().await;
        for stream in &mut streams {
            for batch in 1..6 {
                assert_eq!(stream.next_batch().await.unwrap().offsets(), 2 * batch..2 * batch + 2);
            }
            assert!(stream.caught_up());
        }
        // A reader that is polled gets what is new, whatever the others hold.
        let end = broker.end_offset("wal", 0).unwrap();
        append(&partition, end..end + 1).await;
        let deadline = Duration::from_secs(5);
        for stream in &mut streams {
            let batch = timeout(deadline, stream.next_batch()).await.unwrap().unwrap();
            assert_eq!(records_of(&batch).last(), Some(&end));
        }
        drop(streams);
        broker.compact("wal", 0, |record| record.offset < 12).unwrap();
    }
}
