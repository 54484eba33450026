//! Producer ids, epochs and sequences.

use kwal_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use kwal_protocol::record::{BatchBuilder, Compression};

use super::log::{NO_HEADERS, PRODUCE, TIME, batch};
use super::tell;
use super::world::{World, until};

/// The last five batches are remembered, with their offsets; what is older is taken for a gap.
pub(super) async fn sequences_of_a_known_producer(world: &mut World) {
    let mut log = world.log("sequences", &[]).await;
    let id = log.producer_id().await;
    for sequence in 0..7 {
        world.saw(format!("{sequence}: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    for sequence in [2, 3, 4, 5, 6, 0, 1, 8, 100] {
        world.saw(format!("then {sequence}: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    world.saw(format!("three from 7: {}", log.append(batch(3).stamp(id, 0, 7)).await));
    world.saw(format!("three from 7 again: {}", log.append(batch(3).stamp(id, 0, 7)).await));
    world.saw(format!("one of the three, 8: {}", log.append(batch(1).stamp(id, 0, 8)).await));
    world.saw(format!("10: {}", log.append(batch(1).stamp(id, 0, 10)).await));
    world.saw(format!("known: {}", log.producers().await));
    world.saw(format!("end {}", log.end().await));
}

/// And not by what is in it, so that two holders of one epoch cannot be told apart.
pub(super) async fn a_duplicate_is_known_by_its_numbers(world: &mut World) {
    let mut log = world.log("duplicates", &[]).await;
    let id = log.producer_id().await;
    world.saw(format!("0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    let mut other = BatchBuilder::new(Compression::Lz4);
    other.push(TIME, Some(b"quite"), Some(b"another"), [("a", "b")]);
    let other = other.finish().unwrap();
    world.saw(format!("0 with other records: {}", log.append(other.stamp(id, 0, 0)).await));
    world.saw(format!("two from 0: {}", log.append(batch(2).stamp(id, 0, 0)).await));
    world.saw(format!("end {}", log.end().await));
}

pub(super) async fn any_sequence_of_an_unknown_producer(world: &mut World) {
    let mut log = world.log("unknown", &[]).await;
    let id = log.producer_id().await;
    for sequence in [41, 42, 0] {
        world.saw(format!("{sequence}: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    // An id that no coordinator has given out is as good.
    world.saw(format!("id 2^40, epoch 7, 3: {}", log.append(batch(1).stamp(1 << 40, 7, 3)).await));
}

pub(super) async fn sequences_begin_again_after_the_last(world: &mut World) {
    let mut log = world.log("wrapped", &[]).await;
    let last = log.producer_id().await;
    let from = i32::MAX - 1;
    world.saw(format!("two up to the last: {}", log.append(batch(2).stamp(last, 0, from)).await));
    world.saw(format!("0: {}", log.append(batch(1).stamp(last, 0, 0)).await));
    let across = log.producer_id().await;
    world.saw(format!("three from the last: {}", log.append(batch(3).stamp(across, 0, i32::MAX)).await));
    world.saw(format!("again: {}", log.append(batch(3).stamp(across, 0, i32::MAX)).await));
    world.saw(format!("1: {}", log.append(batch(1).stamp(across, 0, 1)).await));
    world.saw(format!("2: {}", log.append(batch(1).stamp(across, 0, 2)).await));
}

/// A new epoch of a known id begins at 0.
pub(super) async fn epochs(world: &mut World) {
    let mut log = world.log("epochs", &[]).await;
    let id = log.producer_id().await;
    for (epoch, sequence) in [(0, 0), (1, 1), (1, 0), (0, 0), (0, 1), (1, 1), (5, 0), (4, 0), (5, 1)] {
        let told = log.append(batch(1).stamp(id, epoch, sequence)).await;
        world.saw(format!("epoch {epoch}, {sequence}: {told}"));
    }
    world.saw(format!("known: {}", log.producers().await));
    world.saw(log.fetch(0).await);
}

/// A holds epoch 0, B epoch 1 of the same id. Until B has appended, A is not fenced.
pub(super) async fn a_fence(world: &mut World) {
    let mut log = world.log("fence", &[]).await;
    let id = log.producer_id().await;
    for sequence in 0..3 {
        world.saw(format!("A {sequence}: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    world.saw(format!("B 0: {}", log.append(batch(1).stamp(id, 1, 0)).await));
    world.saw(format!("A 3: {}", log.append(batch(1).stamp(id, 0, 3)).await));
    world.saw(format!("A 2 again: {}", log.append(batch(1).stamp(id, 0, 2)).await));
    world.saw(format!("without an id: {}", log.append(batch(1)).await));
    let mut other = BatchBuilder::new(Compression::None);
    other.push(TIME, None, Some(b"of C"), NO_HEADERS);
    let other = other.finish().unwrap();
    world.saw(format!("C, with B's epoch, 0: {}", log.append(other.stamp(id, 1, 0)).await));
    world.saw(format!("B 2: {}", log.append(batch(1).stamp(id, 1, 2)).await));
    world.saw(format!("B 1: {}", log.append(batch(1).stamp(id, 1, 1)).await));
    world.saw(log.fetch(0).await);
}

pub(super) async fn a_fence_after_all_records_are_deleted(world: &mut World) {
    let mut log = world.log("emptied", &[]).await;
    let id = log.producer_id().await;
    world.saw(format!("A 0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.saw(format!("B 0: {}", log.append(batch(1).stamp(id, 1, 0)).await));
    world.saw(format!("all deleted: {}", log.delete_records(-1).await));
    world.saw(format!("A 1: {}", log.append(batch(1).stamp(id, 0, 1)).await));
    world.saw(format!("B 0 again: {}", log.append(batch(1).stamp(id, 1, 0)).await));
    world.saw(format!("B 1: {}", log.append(batch(1).stamp(id, 1, 1)).await));
    world.saw(log.fetch(2).await);
}

/// Without a transactional id every call gets a new one, whatever it brings.
pub(super) async fn producer_ids(world: &mut World) {
    let mut link = world.link().await;
    let plain = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    let first = until("there are ids", async || {
        let answer = link.call(&plain, 4).await;
        (!answer.error_code.is_error()).then_some(answer)
    })
    .await;
    world.saw(format!("nothing given: {}", tell::producer_id(&first)));
    let id = first.producer_id;
    for (what, producer_id, producer_epoch, transaction_timeout_ms) in [
        ("its id and epoch", id, 0, 60_000),
        ("its id and the next epoch", id, 1, 60_000),
        ("its id alone", id, -1, 60_000),
        ("an epoch alone", -1, 0, 60_000),
        ("no time for transactions", -1, -1, 0),
        ("endless time for transactions", -1, -1, i32::MAX),
    ] {
        let request =
            InitProducerIdRequest { producer_id, producer_epoch, transaction_timeout_ms, ..plain.clone() };
        let answer = link.call(&request, 4).await;
        world.saw(format!("{what}: {}", tell::producer_id(&answer)));
    }
    let named = InitProducerIdRequest { transactional_id: Some(String::new()), ..plain };
    let answer = link.call(&named, 4).await;
    world.saw(format!("an empty transactional id: {}", tell::producer_id(&answer)));
}

/// The first is refused, and the second takes the partition's word that any sequence is right: the first can never follow.
pub(super) async fn two_in_flight_of_a_fresh_producer(world: &mut World) {
    let mut log = world.log("two", &[("max.message.bytes", "200")]).await;
    let id = log.producer_id().await;
    let large = batch(100).stamp(id, 0, 0);
    log.link.send(&log.produce(large.to_bytes(), -1), PRODUCE).await;
    let next = log.produce(batch(1).stamp(id, 0, 100).to_bytes(), -1);
    log.link.send(&next, PRODUCE).await;
    for what in ["0 to 99", "100"] {
        let answer = log.link.answer::<ProduceRequest>(PRODUCE).await.unwrap();
        world.saw(format!("{what}: {}", tell::produced(&answer.responses[0].partition_responses[0])));
    }
    world.saw(format!("0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.saw(format!("end {}", log.end().await));
}
