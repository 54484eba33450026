//! C8: what was read before a position is verified when it is used.

use std::time::Duration;

use kwal_client::{
    Client, Isolation, OffsetAt, PartitionClient, Position,
    error::{Error, ErrorKind},
};
use kwal_protocol::{
    api::{ApiKey, Versions},
    messages::FetchRequest,
    record::{BatchBuilder, Compression, Headers},
};
use kwal_testkit::{EmbeddedCluster, Fault};

use crate::support::{Wire, builder, record, settle, timed};

/// Three brokers, with Fetch up to a version.
fn cluster(fetch: i16) -> EmbeddedCluster {
    let cluster = EmbeddedCluster::builder().seed(5).brokers(3).topic("wal", 1);
    cluster.cap(ApiKey::FETCH, Versions::new(0, fetch)).start_in_memory().unwrap()
}

async fn open(client: &Client) -> PartitionClient {
    client.partition_client("wal", 0).await.unwrap()
}

/// Lets a follower fall behind the others, which remain in sync. Returns it.
fn leave_behind(cluster: &EmbeddedCluster) -> i32 {
    let leader = cluster.leader("wal", 0).unwrap();
    let follower = *cluster.in_sync("wal", 0).unwrap().iter().find(|id| Some(**id) != leader).unwrap();
    cluster.set_lag("wal", 0, follower, Duration::MAX).unwrap();
    cluster.shrink_isr("wal", 0, follower).unwrap();
    follower
}

/// Appends values, each in a batch of its own.
async fn append(partition: &PartitionClient, values: &[&str]) {
    for value in values {
        partition.produce(record(*value)).await.unwrap();
    }
    settle().await;
}

/// Reads from a position up to the end of the log. Returns the values, and the position after them.
async fn read(partition: &PartitionClient, from: Position) -> Result<(Vec<String>, Position), Error> {
    let (mut values, mut position) = (Vec::new(), from);
    loop {
        let fetched = partition.fetch(position).max_wait(Duration::ZERO).await?;
        for found in fetched.records() {
            values.push(String::from_utf8_lossy(&found?.value.unwrap()).into_owned());
        }
        if fetched.next_offset == position.offset {
            return Ok((values, position));
        }
        position = fetched.position();
    }
}

/// The position and the first offset that differs of an error about a loss.
#[track_caller]
fn truncated(error: &Error) -> (Position, i64) {
    let ErrorKind::LogTruncated { position, diverged_at, .. } = error.kind() else { panic!("{error:?}") };
    assert!(!error.is_retriable(), "{error}");
    (*position, *diverged_at)
}

#[tokio::test(start_paused = true)]
async fn positions_are_those_of_batches_and_records() {
    let broker = crate::support::broker();
    let partition = open(&builder(&broker).build().await.unwrap()).await;
    let produced = partition.produce([record("a"), record("b")].concat()).await.unwrap();
    let topic_id = partition.topic_id();
    let at = |leader_epoch, offset| Position { topic_id, leader_epoch, offset };
    assert_eq!(produced.position(), Some(at(None, 2)), "an acknowledgement has no epoch");
    append(&partition, &["c"]).await;

    let fetched = partition.fetch(1).await.unwrap();
    assert_eq!(fetched.position(), at(Some(0), 3));
    let records: Vec<_> = fetched.records().collect::<Result<_, _>>().unwrap();
    let after: Vec<_> = records.iter().map(|record| partition.position_after(record)).collect();
    assert_eq!(after, [at(Some(0), 2), at(Some(0), 3)]);
    let batches: Vec<_> = fetched.into_batches().collect();
    let positions: Vec<_> = batches.iter().map(|batch| (batch.offsets(), batch.position())).collect();
    assert_eq!(positions, [(1..2, at(Some(0), 2)), (2..3, at(Some(0), 3))]);
    for batch in batches {
        let mut last = None;
        batch.for_each(|record| last = Some(batch.position_after(record.offset))).unwrap();
        assert_eq!(last, Some(batch.position()));
    }
    // Where nothing was read, the position stays as it was.
    for from in [Position::from(3), at(Some(0), 3), at(None, 3)] {
        let fetched = partition.fetch(from).max_wait(Duration::ZERO).await.unwrap();
        assert_eq!(fetched.position(), at(from.leader_epoch, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_reported_to_a_position_and_not_to_a_bare_offset() {
    for fetch in [17, 12, 11, 9] {
        let cluster = cluster(fetch);
        let client = builder(&cluster).build().await.unwrap();
        let partition = open(&client).await;
        append(&partition, &["a", "b"]).await;
        let (_, before) = read(&partition, Position::from(0)).await.unwrap();
        let behind = leave_behind(&cluster);
        append(&partition, &["c", "d"]).await;
        let (values, kept) = read(&partition, before).await.unwrap();
        assert_eq!((values, kept.offset, kept.leader_epoch), (vec!["c".into(), "d".into()], 4, Some(0)));

        cluster.elect_unclean("wal", 0, behind).unwrap();
        // In another process, days later: the position was kept as text.
        let kept: Position = kept.to_string().parse().unwrap();
        let reader = open(&builder(&cluster).build().await.unwrap()).await;
        for partition in [&partition, &reader] {
            let error = read(partition, kept).await.unwrap_err();
            assert_eq!(truncated(&error), (kept, 2), "Fetch {fetch}");
            // What was read before is still there.
            assert_eq!(read(partition, before).await.unwrap(), (vec![], before), "Fetch {fetch}");
        }
        // Others have the offsets now. The bare offset reads them.
        let writer = open(&builder(&cluster).build().await.unwrap()).await;
        append(&writer, &["x", "y", "z"]).await;
        let error = read(&reader, kept).await.unwrap_err();
        assert_eq!(truncated(&error), (kept, 2), "Fetch {fetch}");
        assert_eq!(read(&reader, Position::from(4)).await.unwrap().0, ["z"]);
        assert_eq!(read(&reader, before).await.unwrap().0, ["x", "y", "z"], "Fetch {fetch}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_in_a_later_epoch_is_known_at_the_last_record_at_least() {
    for fetch in [17, 11] {
        let cluster = cluster(fetch);
        let client = builder(&cluster).build().await.unwrap();
        let partition = open(&client).await;
        append(&partition, &["a", "b"]).await;
        let behind = leave_behind(&cluster);
        append(&partition, &["c"]).await;
        let (_, first) = read(&partition, Position::from(0)).await.unwrap();
        // A clean change of leader, and records of its epoch.
        let leader = cluster.leader("wal", 0).unwrap();
        let next = *cluster.in_sync("wal", 0).unwrap().iter().find(|id| Some(**id) != leader).unwrap();
        cluster.move_leader("wal", 0, next).unwrap();
        append(&partition, &["d", "e"]).await;
        let (values, second) = read(&partition, first).await.unwrap();
        assert_eq!((values, second.offset, second.leader_epoch), (vec!["d".into(), "e".into()], 5, Some(1)));

        cluster.elect_unclean("wal", 0, behind).unwrap();
        let error = read(&partition, first).await.unwrap_err();
        assert_eq!(truncated(&error), (first, 2), "Fetch {fetch}");
        let error = read(&partition, second).await.unwrap_err();
        assert_eq!(truncated(&error), (second, 2), "Fetch {fetch}");
    }
}

#[tokio::test(start_paused = true)]
async fn brokers_that_do_not_verify_are_asked_once_for_each_leader() {
    let cluster = cluster(11);
    let wire = Wire::to(&cluster);
    let partition = open(&wire.client().await).await;
    append(&partition, &["a"]).await;
    let mut position = Position::from(0);
    let mut count = 0;
    for round in 0..20 {
        append(&partition, &["b"]).await;
        position = read(&partition, position).await.unwrap().1;
        assert_eq!(position.offset, round + 2);
        if round == 10 {
            let leader = cluster.leader("wal", 0).unwrap();
            let next = *cluster.in_sync("wal", 0).unwrap().iter().find(|id| Some(**id) != leader).unwrap();
            cluster.move_leader("wal", 0, next).unwrap();
            count = wire.count(ApiKey::OFFSET_FOR_LEADER_EPOCH);
            assert_eq!(count, 1);
        }
    }
    assert_eq!(wire.count(ApiKey::OFFSET_FOR_LEADER_EPOCH), count + 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_changes_while_the_position_is_verified_is_asked_again() {
    let cluster = std::sync::Arc::new(cluster(11));
    let wire = Wire::to(&cluster);
    let partition = open(&wire.client().await).await;
    append(&partition, &["a", "b"]).await;
    let behind = leave_behind(&cluster);
    append(&partition, &["c"]).await;
    let (_, kept) = read(&partition, Position::from(0)).await.unwrap();
    let reader = open(&wire.client().await).await;
    // Between the fetch and the question for the epoch, records are lost.
    let mut unclean = Some(std::sync::Arc::clone(&cluster));
    wire.on_request(move |frame| {
        if frame.api == ApiKey::OFFSET_FOR_LEADER_EPOCH
            && let Some(cluster) = unclean.take()
        {
            cluster.elect_unclean("wal", 0, behind).unwrap();
        }
        kwal_testkit::wire::Decision::Pass
    });
    let error = read(&reader, kept).await.unwrap_err();
    assert_eq!(truncated(&error), (kept, 2));
}

#[tokio::test(start_paused = true)]
async fn a_position_of_the_former_topic_of_the_name_is_no_position_in_the_new_one() {
    let broker = crate::support::broker();
    let partition = open(&builder(&broker).build().await.unwrap()).await;
    append(&partition, &["a", "b", "c", "d", "e"]).await;
    let (_, kept) = read(&partition, Position::from(0)).await.unwrap();
    broker.recreate_topic("wal").unwrap();

    let wire = Wire::to(&broker);
    let partition = open(&wire.client().await).await;
    append(&partition, &["f", "g", "h"]).await;
    for _ in 0..2 {
        let requests = wire.all().len();
        let error = partition.fetch(kept).await.unwrap_err();
        let ErrorKind::TopicRecreated { was, is, .. } = error.kind() else { panic!("{error:?}") };
        assert_eq!((Some(*was), Some(*is)), (kept.topic_id, partition.topic_id()));
        assert_eq!((wire.all().len(), error.is_retriable()), (requests, false));
        append(&partition, &["i", "j"]).await;
    }
    assert_eq!(read(&partition, Position::from(5)).await.unwrap().0, ["i", "j"]);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_position_is_not_sent() {
    let broker = crate::support::broker();
    let wire = Wire::to(&broker);
    let partition = open(&wire.client().await).await;
    let requests = wire.all().len();
    for (leader_epoch, offset) in [(None, -1), (Some(-1), 5), (Some(i32::MIN), 0), (Some(0), i64::MIN)] {
        let error = partition.fetch(Position { topic_id: None, leader_epoch, offset }).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
    }
    assert_eq!(wire.all().len(), requests);
}

#[tokio::test(start_paused = true)]
async fn a_position_newer_than_the_leader_is_unknown_after_a_while() {
    for fetch in [17, 11] {
        let cluster = cluster(fetch);
        let partition = open(&builder(&cluster).build().await.unwrap()).await;
        append(&partition, &["a", "b"]).await;
        let position = Position { topic_id: None, leader_epoch: Some(7), offset: 2 };
        let (error, took) = timed(partition.fetch(position)).await;
        let error = error.unwrap_err();
        let ErrorKind::EpochUnknown { position: found, leader_epoch: 0, .. } = error.kind() else {
            panic!("{error:?}")
        };
        assert_eq!((*found, error.is_retriable()), (position, false));
        // And one long poll at the end of the log.
        let patience = crate::support::deadlines().unknown_topic + Duration::from_millis(500);
        assert!(took <= patience, "Fetch {fetch}: {took:?}");
        // It is known, and not verified any more, once its epoch is not given.
        let bare = Position { leader_epoch: None, ..position };
        assert_eq!(read(&partition, bare).await.unwrap(), (vec![], bare));
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_that_is_older_than_a_position_is_refreshed() {
    let cluster = cluster(17);
    let partition = open(&builder(&cluster).build().await.unwrap()).await;
    append(&partition, &["a"]).await;
    let late = open(&builder(&cluster).build().await.unwrap()).await;
    late.fetch(0).await.unwrap();
    // The leader is the same, and its epoch is not.
    let leader = cluster.leader("wal", 0).unwrap().unwrap();
    let other = *cluster.in_sync("wal", 0).unwrap().iter().find(|id| **id != leader).unwrap();
    cluster.move_leader("wal", 0, other).unwrap();
    cluster.move_leader("wal", 0, leader).unwrap();
    append(&partition, &["b"]).await;
    let (_, kept) = read(&partition, Position::from(0)).await.unwrap();
    assert_eq!((kept.leader_epoch, kept.offset), (Some(2), 2));
    let (found, took) = timed(read(&late, kept)).await;
    assert_eq!(found.unwrap().1, kept);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_diverging_epoch_that_cannot_be_is_malformed() {
    let broker = crate::support::broker();
    let wire = Wire::to(&broker);
    let partition = open(&wire.client().await).await;
    append(&partition, &["a", "b"]).await;
    let position = Position { topic_id: None, leader_epoch: Some(0), offset: 2 };
    for (epoch, end_offset) in [(0, 2), (0, i64::MAX), (1, 0), (0, -1), (0, i64::MIN), (i32::MAX, 1)] {
        wire.edit::<FetchRequest>(move |response| {
            let diverging = &mut response.responses[0].partitions[0].diverging_epoch;
            (diverging.epoch, diverging.end_offset) = (epoch, end_offset);
        });
        let error = partition.fetch(position).max_wait(Duration::ZERO).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::MalformedResponse), "{epoch}, {end_offset}: {error:?}");
        wire.clear_edits();
    }
    for (epoch, end_offset, diverged_at) in [(0, 1, 1), (0, 0, 0), (-1, 5, 1), (-1, 0, 0)] {
        wire.edit::<FetchRequest>(move |response| {
            let diverging = &mut response.responses[0].partitions[0].diverging_epoch;
            (diverging.epoch, diverging.end_offset) = (epoch, end_offset);
        });
        let error = partition.fetch(position).max_wait(Duration::ZERO).await.unwrap_err();
        assert_eq!(truncated(&error), (position, diverged_at));
        wire.clear_edits();
    }
}

#[tokio::test(start_paused = true)]
async fn brokers_without_leader_epochs_verify_nothing() {
    let broker = EmbeddedCluster::builder()
        .topic("wal", 1)
        .cap(ApiKey::FETCH, Versions::new(0, 11))
        .cap(ApiKey::OFFSET_FOR_LEADER_EPOCH, Versions::new(0, 1))
        .start_in_memory()
        .unwrap();
    let wire = Wire::to(&broker);
    let partition = open(&wire.client().await).await;
    append(&partition, &["a", "b"]).await;
    let (values, end) = read(&partition, Position::from(0)).await.unwrap();
    assert_eq!((values.len(), end.offset), (2, 2));
    assert_eq!(read(&partition, end).await.unwrap(), (vec![], end));
    assert_eq!(wire.count(ApiKey::OFFSET_FOR_LEADER_EPOCH), 0);
    // What the broker has and denies is an error.
    let broker = cluster(11);
    let wire = Wire::to(&broker);
    let partition = open(&wire.client().await).await;
    append(&partition, &["a", "b"]).await;
    let (_, end) = read(&partition, Position::from(0)).await.unwrap();
    let reader = open(&wire.client().await).await;
    broker.on_all(
        ApiKey::OFFSET_FOR_LEADER_EPOCH,
        Fault::Error(kwal_protocol::error_code::ErrorCode::TOPIC_AUTHORIZATION_FAILED),
    );
    let error = read(&reader, end).await.unwrap_err();
    assert_eq!(error.context().api, Some(ApiKey::OFFSET_FOR_LEADER_EPOCH), "{error:?}");
}

/// A batch of a transaction with a value for each record.
fn transactional(producer_id: i64, sequence: i32, values: &[&str]) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &Headers::new());
    }
    builder.finish().unwrap().with_transactional(true).stamp(producer_id, 0, sequence).to_bytes()
}

#[tokio::test(start_paused = true)]
async fn aborted_transactions_are_not_read_and_the_log_ends_at_the_last_stable_offset() {
    let broker = crate::support::broker();
    let wire = Wire::to(&broker);
    let partition = open(&wire.client().await).await;
    let append = |batch| broker.append_raw("wal", 0, batch).unwrap();
    append(transactional(70, 0, &["a0", "a1"]));
    append(transactional(80, 0, &["c2"]));
    append(transactional(70, 2, &["a3"]));
    broker.end_transaction("wal", 0, (70, 0), false).unwrap();
    append(transactional(70, 3, &["c5"]));
    broker.end_transaction("wal", 0, (80, 0), true).unwrap();
    broker.end_transaction("wal", 0, (70, 0), true).unwrap();
    partition.produce(record("p8")).await.unwrap();
    append(transactional(90, 0, &["h9"]));
    partition.produce(record("p10")).await.unwrap();

    let read = async |isolation, from: i64| {
        let fetched = partition.fetch(from).isolation(isolation).max_wait(Duration::ZERO).await.unwrap();
        let records: Vec<_> = fetched.records().collect::<Result<_, _>>().unwrap();
        let mut values = String::new();
        for record in &records {
            values += &format!("{} ", String::from_utf8_lossy(record.value.as_ref().unwrap()));
        }
        let gaps: Vec<_> =
            fetched.gaps().iter().map(|gap| format!("{:?} {:?}", gap.offsets, gap.reason)).collect();
        let mut visited = 0;
        fetched.for_each(|_| visited += 1).unwrap();
        assert_eq!(visited, records.len());
        let (next, epoch) = (fetched.next_offset, fetched.position().leader_epoch);
        let batches: usize =
            fetched.into_batches().map(|batch| batch.records().map(Result::unwrap).count()).sum();
        assert_eq!(batches, visited);
        (values, gaps.join(", "), next, epoch)
    };
    let (all, committed) = (Isolation::ReadUncommitted, Isolation::ReadCommitted);
    // The list of aborted transactions is in no certain order, and may begin before the offset.
    for reversed in [false, true] {
        wire.edit::<FetchRequest>(move |response| {
            let partition = &mut response.responses[0].partitions[0];
            if let Some(aborted) = partition.aborted_transactions.as_mut().filter(|_| reversed) {
                aborted.reverse();
            }
        });
        let markers = "4..5 Control, 6..8 Control";
        let expected = ("a0 a1 c2 a3 c5 p8 h9 p10 ".to_owned(), markers.to_owned(), 11, Some(0));
        assert_eq!(read(all, 0).await, expected);
        let gaps = "0..2 Aborted, 3..4 Aborted, 4..5 Control, 6..8 Control".to_owned();
        assert_eq!(read(committed, 0).await, ("c2 c5 p8 ".to_owned(), gaps, 9, Some(0)));
        let gaps = "1..2 Aborted, 3..4 Aborted, 4..5 Control, 6..8 Control".to_owned();
        assert_eq!(read(committed, 1).await, ("c2 c5 p8 ".to_owned(), gaps, 9, Some(0)));
        let gaps = "3..4 Aborted, 4..5 Control, 6..8 Control".to_owned();
        assert_eq!(read(committed, 3).await, ("c5 p8 ".to_owned(), gaps, 9, Some(0)));
        assert_eq!(read(committed, 8).await, ("p8 ".to_owned(), String::new(), 9, Some(0)));
        assert_eq!(read(committed, 9).await, (String::new(), String::new(), 9, None));
        wire.clear_edits();
    }
    let latest = async |isolation| partition.get_offset(OffsetAt::Latest).isolation(isolation).await.unwrap();
    assert_eq!((latest(all).await, latest(committed).await), (11, 9));
    broker.end_transaction("wal", 0, (90, 0), false).unwrap();
    assert_eq!((latest(all).await, latest(committed).await), (12, 12));
    let gaps = "9..10 Aborted, 11..12 Control".to_owned();
    assert_eq!(read(committed, 8).await, ("p8 p10 ".to_owned(), gaps, 12, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_control_batch_that_cannot_be_decoded_is_corrupt_only_where_it_decides() {
    use bytes::{BufMut, BytesMut};
    let broker = crate::support::broker();
    let partition = open(&builder(&broker).build().await.unwrap()).await;
    broker.append_raw("wal", 0, transactional(70, 0, &["a"])).unwrap();
    partition.produce(record("p")).await.unwrap();
    let marker = broker.end_transaction("wal", 0, (70, 0), false).unwrap();
    partition.produce(record("q")).await.unwrap();
    let wire = Wire::to(&broker);
    // The marker gets a key of another length.
    wire.edit::<FetchRequest>(move |response| {
        let records = &mut response.responses[0].partitions[0].records;
        let Some(bytes) = records.take() else { return };
        let mut edited = BytesMut::new();
        for batch in kwal_protocol::record::Batches::new(bytes) {
            let batch = batch.unwrap();
            let mut raw = kwal_protocol::record::RawBatch::from_batch(&batch, 1 << 20).unwrap();
            if batch.base_offset() == marker {
                raw.records[0].key = Some("x".into());
            }
            edited.put_slice(&raw.encode().unwrap());
        }
        *records = Some(edited.freeze());
    });
    let partition = open(&wire.client().await).await;
    let fetched = partition.fetch(0).await.unwrap();
    assert_eq!((fetched.records().count(), fetched.next_offset), (3, 4));
    // What comes before it is read first.
    let fetched = partition.fetch(0).isolation(Isolation::ReadCommitted).await.unwrap();
    assert_eq!((fetched.records().count(), fetched.next_offset), (1, marker));
    let error = partition.fetch(marker).isolation(Isolation::ReadCommitted).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_log_that_compaction_has_emptied_is_reached() {
    for (policy, is_reached) in [("compact", true), ("delete", false)] {
        let broker = EmbeddedCluster::builder()
            .topic_with("wal", 1, &[("cleanup.policy", policy)])
            .start_in_memory()
            .unwrap();
        let wire = Wire::to(&broker);
        let partition = open(&wire.client().await).await;
        let keyed = |key: &str| vec![kwal_client::record::Record::new(key.to_owned(), "v")];
        for key in ["a", "b", "c"] {
            partition.produce(keyed(key)).await.unwrap();
        }
        // As brokers do that remove the last batch of a cleaned segment as well.
        wire.edit::<FetchRequest>(|response| {
            let records = &mut response.responses[0].partitions[0].records;
            let first = kwal_protocol::record::Batches::new(records.take().unwrap_or_default()).next();
            let first = first.and_then(Result::ok).filter(|batch| batch.base_offset() == 0);
            *records = first.map(|batch| batch.bytes().clone());
        });
        let fetched = partition.fetch(0).await.unwrap();
        assert_eq!((fetched.next_offset, fetched.records().count()), (1, 1));
        let result = partition.fetch(fetched.position()).await;
        if !is_reached {
            let error = result.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::MalformedResponse), "{error:?}");
            continue;
        }
        let hole = result.unwrap();
        assert_eq!((hole.next_offset, hole.records().count(), hole.gaps().len()), (3, 0, 1));
        assert_eq!(
            (hole.gaps()[0].offsets.clone(), hole.gaps()[0].reason),
            (1..3, kwal_client::GapReason::Empty)
        );
        assert_eq!(hole.position().leader_epoch, None, "that of the last record is not known");
        wire.clear_edits();
        partition.produce(keyed("d")).await.unwrap();
        assert_eq!(partition.fetch(hole.position()).await.unwrap().records().count(), 1);
    }
}
