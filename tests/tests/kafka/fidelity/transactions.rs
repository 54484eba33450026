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
