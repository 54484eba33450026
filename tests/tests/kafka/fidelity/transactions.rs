//! What transactions leave in a log, and what readers with READ_COMMITTED see of it.
//!
//! The records are of now, as the markers are: what is far apart in time is in segments of its own, and not in one fetch.

use kwal_protocol::messages::IsolationLevel;

use super::log::{LATEST, LIST_OFFSETS, Log, TIME, batch_of};
use super::tell;
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
        let told = world.append_in(&mut transaction, &mut log, batch(2)).await;
        world.saw(format!("two records: {told}"));
    }
    world.saw(format!("known: {}", log.producers().await));
    saw(world, &mut log, "open", 0).await;
    world.end(&mut transaction, &mut log, commit).await;
    world.saw(format!("known: {}", log.producers().await));
    saw(world, &mut log, "ended", 0).await;
    saw(world, &mut log, "ended, from within", 3).await;
    // One more of the same producer.
    let told = world.append_in(&mut transaction, &mut log, batch(1)).await;
    world.saw(format!("one record of the next: {told}"));
    world.end(&mut transaction, &mut log, true).await;
    saw(world, &mut log, "the next is committed", 0).await;
    saw(world, &mut log, "from the end of the first on", 5).await;
}

/// Nothing of it is seen, whoever wrote it.
pub(super) async fn what_lies_behind_an_open_transaction(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("behind", &[]).await;
    world.saw(format!("before: {}", log.append(batch(1)).await));
    let name = world.name("name");
    let mut transaction = world.transaction(&mut log, &name).await;
    let told = world.append_in(&mut transaction, &mut log, batch(1)).await;
    world.saw(format!("in it: {told}"));
    world.saw(format!("behind: {}", log.append(batch(1)).await));
    saw(world, &mut log, "open", 0).await;
    world.saw(format!("from the last stable offset: {}", log.fetch_committed(1).await));
    world.saw(format!("from behind it: {}", log.fetch_committed(2).await));
    world.saw(format!("from the end: {}", log.fetch_committed(3).await));
    world.saw(format!("from past the end: {}", log.fetch_committed(4).await));
    world.end(&mut transaction, &mut log, false).await;
    saw(world, &mut log, "aborted", 0).await;
}

pub(super) async fn transactions_of_two_producers(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("two", &[]).await;
    let (one, other) = (world.name("one"), world.name("other"));
    let mut one = world.transaction(&mut log, &one).await;
    let mut other = world.transaction(&mut log, &other).await;
    for _ in 0..2 {
        world.append_in(&mut one, &mut log, batch(1)).await;
        world.append_in(&mut other, &mut log, batch(1)).await;
    }
    saw(world, &mut log, "both open", 0).await;
    world.end(&mut other, &mut log, false).await;
    saw(world, &mut log, "the second aborted", 0).await;
    world.end(&mut one, &mut log, true).await;
    for from in 0..7 {
        world.saw(format!("from {from}, both ended: {}", log.fetch_committed(from).await));
    }
}

/// Who takes the name aborts what its holder of before has begun.
pub(super) async fn a_transaction_of_a_fenced_producer(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("fenced", &[]).await;
    let name = world.name("name");
    let mut before = world.transaction(&mut log, &name).await;
    world.append_in(&mut before, &mut log, batch(1)).await;
    let next = world.take_over(&before, &mut log).await;
    world.saw(format!("the next holder: {next}"));
    saw(world, &mut log, "taken over", 0).await;
    let (id, epoch) = before.producer;
    let told = log.append(batch(1).stamp(id, epoch, 1)).await;
    world.saw(format!("the holder of before, outside of a transaction: {told}"));
}

async fn saw(world: &mut World, log: &mut Log, when: &str, from: i64) {
    let committed = log.fetch_committed(from).await;
    world.saw(format!("{when}, committed: {committed}"));
    let all = log.fetch(from).await;
    world.saw(format!("{when}, all: {all}"));
    for isolation_level in [IsolationLevel::READ_COMMITTED, IsolationLevel::READ_UNCOMMITTED] {
        let mut request = log.list_offsets(LATEST);
        request.isolation_level = isolation_level;
        let answer = log.link.call(&request, LIST_OFFSETS).await;
        let told = tell::offset(&answer.topics[0].partitions[0], TIME);
        world.saw(format!("{when}, latest of {isolation_level:?}: {told}"));
    }
}
