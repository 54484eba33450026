//! Transactions in a log, and what readers with READ_COMMITTED see of them.
//!
//! The records have current timestamps like the markers: batches with distant timestamps would be in
//! different segments, and so in different fetches.

use kwal_protocol::messages::IsolationLevel;

use super::describe;
use super::log::{LATEST, LIST_OFFSETS, Log, TIME, batch_of};
use super::world::World;

pub(super) async fn a_transaction_that_is_committed(world: &mut World) {
    ended(world, true).await;
}

pub(super) async fn a_transaction_that_is_aborted(world: &mut World) {
    ended(world, false).await;
}

async fn ended(world: &mut World, commit: bool) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("ended", &[]).await;
    let name = world.name("name");
    let mut transaction = world.transaction(&mut log, &name).await;
    for _ in 0..2 {
        let text = world.append_in_transaction(&mut transaction, &mut log, batch(2)).await;
        world.record(format!("two records: {text}"));
    }
    world.record(format!("known: {}", log.producers().await));
    record(world, &mut log, "open", 0).await;
    world.end(&mut transaction, &mut log, commit).await;
    world.record(format!("known: {}", log.producers().await));
    record(world, &mut log, "ended", 0).await;
    record(world, &mut log, "ended, from within", 3).await;
    // The next transaction of the same producer.
    let text = world.append_in_transaction(&mut transaction, &mut log, batch(1)).await;
    world.record(format!("one record of the next: {text}"));
    world.end(&mut transaction, &mut log, true).await;
    record(world, &mut log, "the next is committed", 0).await;
    record(world, &mut log, "from the end of the first on", 5).await;
}

/// Readers do not see records after it, whoever wrote them.
pub(super) async fn what_lies_behind_an_open_transaction(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("behind", &[]).await;
    world.record(format!("before: {}", log.append(batch(1)).await));
    let name = world.name("name");
    let mut transaction = world.transaction(&mut log, &name).await;
    let text = world.append_in_transaction(&mut transaction, &mut log, batch(1)).await;
    world.record(format!("in it: {text}"));
    world.record(format!("behind: {}", log.append(batch(1)).await));
    record(world, &mut log, "open", 0).await;
    world.record(format!("from the last stable offset: {}", log.fetch_committed(1).await));
    world.record(format!("from behind it: {}", log.fetch_committed(2).await));
    world.record(format!("from the end: {}", log.fetch_committed(3).await));
    world.record(format!("from past the end: {}", log.fetch_committed(4).await));
    world.end(&mut transaction, &mut log, false).await;
    record(world, &mut log, "aborted", 0).await;
}

pub(super) async fn transactions_of_two_producers(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("two", &[]).await;
    let (one, other) = (world.name("one"), world.name("other"));
    let mut one = world.transaction(&mut log, &one).await;
    let mut other = world.transaction(&mut log, &other).await;
    for _ in 0..2 {
        world.append_in_transaction(&mut one, &mut log, batch(1)).await;
        world.append_in_transaction(&mut other, &mut log, batch(1)).await;
    }
    record(world, &mut log, "both open", 0).await;
    world.end(&mut other, &mut log, false).await;
    record(world, &mut log, "the second aborted", 0).await;
    world.end(&mut one, &mut log, true).await;
    for from in 0..7 {
        world.record(format!("from {from}, both ended: {}", log.fetch_committed(from).await));
    }
}

/// The next producer of the transactional id aborts the open transaction.
pub(super) async fn a_transaction_of_a_fenced_producer(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("fenced", &[]).await;
    let name = world.name("name");
    let mut before = world.transaction(&mut log, &name).await;
    world.append_in_transaction(&mut before, &mut log, batch(1)).await;
    let next = world.take_over(&before, &mut log).await;
    world.record(format!("the next holder: {next}"));
    record(world, &mut log, "taken over", 0).await;
    let (id, epoch) = before.producer;
    let text = log.append(batch(1).stamp(id, epoch, 1)).await;
    world.record(format!("the holder of before, outside of a transaction: {text}"));
}

/// Transactions that begin and end in different orders. The list of aborted ones is in the order of their
/// ends, and also contains those after the records that fit.
pub(super) async fn transactions_of_three_producers(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("three", &[]).await;
    let mut producers = Vec::new();
    for what in ["one", "two", "three"] {
        let name = world.name(what);
        producers.push(world.transaction(&mut log, &name).await);
    }
    // Each appends twice, and in between another one does: 0 1 2 0 1 2.
    for _ in 0..2 {
        for producer in &mut producers {
            world.append_in_transaction(producer, &mut log, batch(1)).await;
        }
    }
    world.record(format!("without a transaction: {}", log.append(batch(1)).await));
    // The last to begin ends first.
    world.end(&mut producers[2], &mut log, false).await;
    record(world, &mut log, "the third aborted", 0).await;
    world.end(&mut producers[1], &mut log, true).await;
    record(world, &mut log, "the second committed", 0).await;
    world.append_in_transaction(&mut producers[1], &mut log, batch(2)).await;
    world.end(&mut producers[0], &mut log, false).await;
    record(world, &mut log, "the first aborted, the second in its next one", 0).await;
    for from in 0..log.end().await {
        world.record(format!("from {from}: {}", log.fetch_committed(from).await));
    }
    let size = i32::try_from(batch(1).size_in_bytes()).unwrap();
    for (from, limit) in [(0, 1), (0, size + 1), (0, 3 * size), (3, 1), (6, 1)] {
        let text = log.fetch_committed_up_to(from, limit).await;
        let what = if limit == 1 { "one batch".to_owned() } else { format!("{limit} bytes") };
        world.record(format!("{what} from {from}: {text}"));
    }
    world.end(&mut producers[1], &mut log, false).await;
    record(world, &mut log, "all ended", 0).await;
}

/// A transaction that hangs holds the last stable offset, but not below the log start.
pub(super) async fn a_transaction_whose_beginning_is_deleted(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("begun", &[]).await;
    let name = world.name("name");
    let mut transaction = world.transaction(&mut log, &name).await;
    log.append(batch(1)).await;
    world.append_in_transaction(&mut transaction, &mut log, batch(2)).await;
    log.append(batch(1)).await;
    world.append_in_transaction(&mut transaction, &mut log, batch(2)).await;
    log.append(batch(1)).await;
    record(world, &mut log, "open", 0).await;
    world.record(format!("records before 2 deleted: {}", log.delete_records(2).await));
    record(world, &mut log, "from within its first batch", 2).await;
    world.record(format!("records before 4 deleted: {}", log.delete_records(4).await));
    record(world, &mut log, "from its second batch", 4).await;
    world.record(format!("records before 6 deleted: {}", log.delete_records(6).await));
    record(world, &mut log, "after its records", 6).await;
    world.end(&mut transaction, &mut log, false).await;
    record(world, &mut log, "aborted", 6).await;
    world.record(format!("all records deleted: {}", log.delete_records(-1).await));
    record(world, &mut log, "all deleted", 8).await;
}

/// Markers have offsets, and a log may end with many of them.
pub(super) async fn a_log_that_ends_with_markers(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("marked", &[]).await;
    let mut producers = Vec::new();
    for what in ["one", "two", "three"] {
        let name = world.name(what);
        let mut producer = world.transaction(&mut log, &name).await;
        world.append_in_transaction(&mut producer, &mut log, batch(1)).await;
        producers.push(producer);
    }
    for (index, producer) in producers.iter_mut().enumerate() {
        world.end(producer, &mut log, index != 1).await;
    }
    for from in 2..=7 {
        record(world, &mut log, &format!("from {from}"), from).await;
    }
    world.record(format!("records before 5 deleted: {}", log.delete_records(5).await));
    record(world, &mut log, "markers alone", 5).await;
}

async fn record(world: &mut World, log: &mut Log, when: &str, from: i64) {
    let committed = log.fetch_committed(from).await;
    world.record(format!("{when}, committed: {committed}"));
    let all = log.fetch(from).await;
    world.record(format!("{when}, all: {all}"));
    for isolation_level in [IsolationLevel::READ_COMMITTED, IsolationLevel::READ_UNCOMMITTED] {
        let mut request = log.list_offsets(LATEST);
        request.isolation_level = isolation_level;
        let response = log.connection.call(&request, LIST_OFFSETS).await;
        let text = describe::offset(&response.topics[0].partitions[0], TIME);
        world.record(format!("{when}, latest of {isolation_level:?}: {text}"));
    }
}
