//! C8: records that were read and are lost are reported, with the first offset that differs.

use std::time::Duration;

use kwal_batching::reader::{OutOfRange, RecordStream, follow, replay};
use kwal_client::{
    Acks, Client, OffsetAt, PartitionClient, Position,
    error::{Error, ErrorKind},
};
use kwal_protocol::api::{ApiKey, Versions};
use kwal_testkit::EmbeddedCluster;
use tokio::time::{sleep, timeout};

use crate::support::{append, builder, records_of};

/// Three brokers, with Fetch up to a version.
fn cluster(fetch: i16) -> EmbeddedCluster {
    let cluster = EmbeddedCluster::builder().seed(5).brokers(3).topic("wal", 1);
    cluster.cap(ApiKey::FETCH, Versions::new(0, fetch)).start_in_memory().unwrap()
}

async fn open(cluster: &EmbeddedCluster) -> (Client, PartitionClient) {
    let client = builder(cluster).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    (client, partition)
}

/// Lets all followers but one fall behind. Returns those.
fn leave_behind(cluster: &EmbeddedCluster) -> i32 {
    let leader = cluster.leader("wal", 0).unwrap();
    let follower = *cluster.in_sync("wal", 0).unwrap().iter().find(|id| Some(**id) != leader).unwrap();
    cluster.set_lag("wal", 0, follower, Duration::MAX).unwrap();
    cluster.shrink_isr("wal", 0, follower).unwrap();
    follower
}

/// Moves the leader between the replicas in sync: a new epoch.
fn next_epoch(cluster: &EmbeddedCluster) {
    let leader = cluster.leader("wal", 0).unwrap();
    let to = *cluster.in_sync("wal", 0).unwrap().iter().find(|id| Some(**id) != leader).unwrap();
    cluster.move_leader("wal", 0, to).unwrap();
}

async fn settle() {
    sleep(Duration::from_millis(10)).await;
}

async fn read(stream: &mut RecordStream) -> Vec<i64> {
    let mut offsets = Vec::new();
    while !stream.caught_up() {
        offsets.extend(records_of(&stream.next_batch().await.unwrap()));
    }
    offsets
}

#[track_caller]
fn truncated(error: &Error) -> (Position, i64) {
    let ErrorKind::LogTruncated { position, diverged_at, .. } = *error.kind() else { panic!("{error:?}") };
    (position, diverged_at)
}

#[tokio::test(start_paused = true)]
async fn a_stream_reports_the_first_offset_that_was_lost_over_several_epochs() {
    for fetch in [11, 16] {
        for appended_after in [0, 20] {
            let cluster = cluster(fetch);
            let (_client, partition) = open(&cluster).await;
            append(&partition, 0..2).await;
            append(&partition, 2..4).await;
            settle().await;
            let behind = leave_behind(&cluster);
            // Of the lost records, the last ones are of other epochs than the first ones.
            append(&partition, 4..6).await;
            next_epoch(&cluster);
            append(&partition, 6..9).await;
            next_epoch(&cluster);
            append(&partition, 9..10).await;
            // A bare offset: from the first batch on it is verified.
            let mut stream = follow(&partition, 0).out_of_range(OutOfRange::FromStart).await.unwrap();
            assert_eq!(read(&mut stream).await, (0..10).collect::<Vec<_>>());
            let mut late = follow(&partition, stream.position()).await.unwrap();
            let last = cluster.leader_epoch("wal", 0).unwrap();
            assert_eq!(stream.position().leader_epoch, Some(last));

            cluster.elect_unclean("wal", 0, behind).unwrap();
            if appended_after > 0 {
                append(&open(&cluster).await.1, 4..4 + appended_after).await;
            }
            for _ in 0..2 {
                let error = stream.next_batch().await.unwrap_err();
                assert_eq!(truncated(&error), (stream.position(), 4), "Fetch {fetch}, {appended_after} more");
            }
            assert_eq!((stream.position().offset, stream.summary().offsets.clone()), (10, 0..10));
            // One that has read nothing itself knows one epoch: what differs is not after it.
            let error = late.next_batch().await.unwrap_err();
            let (position, diverged_at) = truncated(&error);
            assert_eq!(position, late.position());
            assert!((4..10).contains(&diverged_at), "{diverged_at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_position_that_was_kept_is_verified_even_if_nothing_is_left_to_read() {
    let cluster = cluster(16);
    let (_client, partition) = open(&cluster).await;
    append(&partition, 0..4).await;
    settle().await;
    let behind = leave_behind(&cluster);
    append(&partition, 4..6).await;
    let mut stream = follow(&partition, 0).await.unwrap();
    read(&mut stream).await;
    let kept = stream.position();
    drop(stream);
    cluster.elect_unclean("wal", 0, behind).unwrap();
    // The new log ends at the position, before it or after it.
    for end in [4, 6, 8] {
        let appended = cluster.end_offset("wal", 0).unwrap();
        if appended < end {
            append(&open(&cluster).await.1, appended..end).await;
        }
        let mut replay = replay(&partition, kept).await.unwrap();
        for _ in 0..2 {
            let error = replay.next_batch().await.unwrap_err();
            assert_eq!(truncated(&error), (kept, 4), "{end}");
        }
        assert_eq!(replay.summary().records, 0);
    }
    // A bare offset reads what is there now.
    let mut bare = replay(&partition, 4).await.unwrap();
    let mut offsets = Vec::new();
    while let Some(batch) = bare.next_batch().await.unwrap() {
        offsets.extend(batch.offsets());
    }
    assert_eq!(offsets, [4, 5, 6, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_replay_whose_end_was_lost_fails() {
    for read_all in [false, true] {
        let cluster = cluster(16);
        let (_client, partition) = open(&cluster).await;
        append(&partition, 0..4).await;
        settle().await;
        let behind = leave_behind(&cluster);
        append(&partition, 4..6).await;
        append(&partition, 6..8).await;
        let mut replay = replay(&partition, 0).max_bytes(if read_all { 1 << 20 } else { 1 }).await.unwrap();
        assert_eq!(replay.progress().end, 8);
        assert_eq!(records_of(&replay.next_batch().await.unwrap().unwrap()), [0, 1, 2, 3]);
        cluster.elect_unclean("wal", 0, behind).unwrap();
        // What was fetched before that is handed over, whatever became of it.
        let error = loop {
            match timeout(Duration::from_secs(60), replay.next_batch()).await.unwrap() {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        match (read_all, error) {
            (true, error) => assert!(error.is_none(), "{error:?}"),
            (false, error) => assert_eq!(truncated(&error.unwrap()).1, 4),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_at_the_place_where_its_end_was_lost_fails() {
    let cluster = cluster(16);
    let (_client, partition) = open(&cluster).await;
    append(&partition, 0..4).await;
    settle().await;
    let mut stream = follow(&partition, 0).await.unwrap();
    read(&mut stream).await;
    let behind = leave_behind(&cluster);
    append(&partition, 4..8).await;
    // Nothing that was read before it is lost, so that the position itself says nothing.
    let mut replay = replay(&partition, stream.position()).await.unwrap();
    assert_eq!(replay.progress().end, 8);
    cluster.elect_unclean("wal", 0, behind).unwrap();
    for _ in 0..2 {
        let error = timeout(Duration::from_secs(60), replay.next_batch()).await.unwrap().unwrap_err();
        assert_eq!(truncated(&error), (stream.position(), 4));
    }
    // For a stream that is no loss.
    append(&open(&cluster).await.1, 4..5).await;
    let mut stream = follow(&partition, stream.position()).await.unwrap();
    assert_eq!(records_of(&stream.next_batch().await.unwrap()), [4]);
    let error = reader_with_lost_end(&partition).await;
    assert!(matches!(error.kind(), ErrorKind::BeyondEnd { offset: 8, end: 5, .. }), "{error:?}");
}

/// Opens a replay to an offset that was lost.
async fn reader_with_lost_end(partition: &PartitionClient) -> Error {
    replay(partition, OffsetAt::Earliest).end(8).await.unwrap_err()
}

/// The new leader has more of an old epoch than the reader has seen of it: its own epochs say that the log
/// differs later than it does.
#[tokio::test(start_paused = true)]
async fn a_stream_knows_better_than_the_leader_where_an_epoch_began() {
    let cluster = cluster(16);
    let (client, partition) = open(&cluster).await;
    append(&partition, 0..4).await;
    settle().await;
    // A leader dies with records that nobody else has.
    let former = cluster.leader("wal", 0).unwrap().unwrap();
    let others: Vec<_> = cluster.brokers().into_iter().filter(|id| *id != former).collect();
    for other in &others {
        cluster.set_lag("wal", 0, *other, Duration::from_secs(20)).unwrap();
    }
    let careless = client.partition_client("wal", 0).idempotent(false).acks(Acks::Leader).await.unwrap();
    append(&careless, 4..7).await;
    cluster.kill(former).unwrap();
    sleep(Duration::from_secs(15)).await;
    for other in &others {
        cluster.set_lag("wal", 0, *other, Duration::ZERO).unwrap();
    }
    let (_client, partition) = open(&cluster).await;
    append(&partition, 4..9).await;
    let mut stream = follow(&partition, 0).await.unwrap();
    assert_eq!(read(&mut stream).await, (0..9).collect::<Vec<_>>());
    assert_eq!(stream.position().leader_epoch, Some(cluster.leader_epoch("wal", 0).unwrap()));
    // It comes back, alone.
    for other in others {
        cluster.kill(other).unwrap();
    }
    cluster.restart(former).unwrap();
    cluster.elect_unclean("wal", 0, former).unwrap();
    assert_eq!(cluster.end_offset("wal", 0).unwrap(), 7);

    let error = stream.next_batch().await.unwrap_err();
    assert_eq!(truncated(&error), (stream.position(), 4));
    let kept = follow(&partition, stream.position()).await.unwrap().next_batch().await.unwrap_err();
    assert_eq!(truncated(&kept), (stream.position(), 7), "a position alone does not know it");
}
