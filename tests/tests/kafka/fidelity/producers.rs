//! Producer ids, epochs and sequences.

use kwal_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use kwal_protocol::record::{BatchBuilder, Compression};

use super::describe;
use super::log::{NO_HEADERS, PRODUCE, TIME, batch};
use super::world::{World, until};

/// Brokers remember the last five batches with their offsets. Older ones are treated as a gap.
pub(super) async fn sequences_of_a_known_producer(world: &mut World) {
    let mut log = world.log("sequences", &[]).await;
    let id = log.producer_id().await;
    for sequence in 0..7 {
        world.record(format!("{sequence}: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    for sequence in [2, 3, 4, 5, 6, 0, 1, 8, 100] {
        world.record(format!("then {sequence}: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    world.record(format!("three from 7: {}", log.append(batch(3).stamp(id, 0, 7)).await));
    world.record(format!("three from 7 again: {}", log.append(batch(3).stamp(id, 0, 7)).await));
    world.record(format!("one of the three, 8: {}", log.append(batch(1).stamp(id, 0, 8)).await));
    world.record(format!("10: {}", log.append(batch(1).stamp(id, 0, 10)).await));
    world.record(format!("known: {}", log.producers().await));
    world.record(format!("end {}", log.end().await));
}

/// Not by its content, so that two holders of one epoch cannot be distinguished.
pub(super) async fn a_duplicate_is_known_by_its_numbers(world: &mut World) {
    let mut log = world.log("duplicates", &[]).await;
    let id = log.producer_id().await;
    world.record(format!("0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    let mut other = BatchBuilder::new(Compression::Lz4);
    other.push(TIME, Some(b"quite"), Some(b"another"), [("a", "b")]);
    let other = other.finish().unwrap();
    world.record(format!("0 with other records: {}", log.append(other.stamp(id, 0, 0)).await));
    world.record(format!("two from 0: {}", log.append(batch(2).stamp(id, 0, 0)).await));
    world.record(format!("end {}", log.end().await));
}

pub(super) async fn any_sequence_of_an_unknown_producer(world: &mut World) {
    let mut log = world.log("unknown", &[]).await;
    let id = log.producer_id().await;
    for sequence in [41, 42, 0] {
        world.record(format!("{sequence}: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    // An id that was never assigned is also accepted.
    world.record(format!("id 2^40, epoch 7, 3: {}", log.append(batch(1).stamp(1 << 40, 7, 3)).await));
}

pub(super) async fn sequences_begin_again_after_the_last(world: &mut World) {
    let mut log = world.log("wrapped", &[]).await;
    let last = log.producer_id().await;
    let from = i32::MAX - 1;
    world.record(format!("two up to the last: {}", log.append(batch(2).stamp(last, 0, from)).await));
    world.record(format!("0: {}", log.append(batch(1).stamp(last, 0, 0)).await));
    let across = log.producer_id().await;
    world.record(format!("three from the last: {}", log.append(batch(3).stamp(across, 0, i32::MAX)).await));
    world.record(format!("again: {}", log.append(batch(3).stamp(across, 0, i32::MAX)).await));
    world.record(format!("1: {}", log.append(batch(1).stamp(across, 0, 1)).await));
    world.record(format!("2: {}", log.append(batch(1).stamp(across, 0, 2)).await));
}

/// A new epoch of a known id begins at 0.
pub(super) async fn epochs(world: &mut World) {
    let mut log = world.log("epochs", &[]).await;
    let id = log.producer_id().await;
    for (epoch, sequence) in [(0, 0), (1, 1), (1, 0), (0, 0), (0, 1), (1, 1), (5, 0), (4, 0), (5, 1)] {
        let text = log.append(batch(1).stamp(id, epoch, sequence)).await;
        world.record(format!("epoch {epoch}, {sequence}: {text}"));
    }
    world.record(format!("known: {}", log.producers().await));
    world.record(log.fetch(0).await);
}

/// A holds epoch 0, B epoch 1 of the same id. Until B has appended, A is not fenced.
pub(super) async fn a_fence(world: &mut World) {
    let mut log = world.log("fence", &[]).await;
    let id = log.producer_id().await;
    for sequence in 0..3 {
        world.record(format!("A {sequence}: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    world.record(format!("B 0: {}", log.append(batch(1).stamp(id, 1, 0)).await));
    world.record(format!("A 3: {}", log.append(batch(1).stamp(id, 0, 3)).await));
    world.record(format!("A 2 again: {}", log.append(batch(1).stamp(id, 0, 2)).await));
    world.record(format!("without an id: {}", log.append(batch(1)).await));
    let mut other = BatchBuilder::new(Compression::None);
    other.push(TIME, None, Some(b"of C"), NO_HEADERS);
    let other = other.finish().unwrap();
    world.record(format!("C, with B's epoch, 0: {}", log.append(other.stamp(id, 1, 0)).await));
    world.record(format!("B 2: {}", log.append(batch(1).stamp(id, 1, 2)).await));
    world.record(format!("B 1: {}", log.append(batch(1).stamp(id, 1, 1)).await));
    world.record(log.fetch(0).await);
}

pub(super) async fn a_fence_after_all_records_are_deleted(world: &mut World) {
    let mut log = world.log("emptied", &[]).await;
    let id = log.producer_id().await;
    world.record(format!("A 0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.record(format!("B 0: {}", log.append(batch(1).stamp(id, 1, 0)).await));
    world.record(format!("all deleted: {}", log.delete_records(-1).await));
    world.record(format!("A 1: {}", log.append(batch(1).stamp(id, 0, 1)).await));
    world.record(format!("B 0 again: {}", log.append(batch(1).stamp(id, 1, 0)).await));
    world.record(format!("B 1: {}", log.append(batch(1).stamp(id, 1, 1)).await));
    world.record(log.fetch(2).await);
}

/// The last epoch of an id refuses all others, of an id that the partition knows and of one that it does not
/// know. No epoch follows it.
pub(super) async fn a_fence_on_the_last_epoch(world: &mut World) {
    let mut log = world.log("last-epoch", &[]).await;
    let known = log.producer_id().await;
    let unknown = log.producer_id().await;
    for sequence in 0..2 {
        world.record(format!("known {sequence}: {}", log.append(batch(1).stamp(known, 3, sequence)).await));
    }
    for (who, id) in [("unknown", unknown), ("known", known)] {
        world.record(format!("{who}, fence: {}", log.append(batch(1).stamp(id, i16::MAX, 0)).await));
        for (epoch, sequence) in [(3, 2), (3, 1), (4, 0), (i16::MAX - 1, 0)] {
            let text = log.append(batch(1).stamp(id, epoch, sequence)).await;
            world.record(format!("{who}, epoch {epoch}, {sequence}: {text}"));
        }
        world.record(format!("{who}, fence again: {}", log.append(batch(1).stamp(id, i16::MAX, 0)).await));
        let mut other = BatchBuilder::new(Compression::None);
        other.push(TIME, None, Some(b"of another"), NO_HEADERS);
        let other = other.finish().unwrap();
        world.record(format!("{who}, another fence: {}", log.append(other.stamp(id, i16::MAX, 0)).await));
        world.record(format!("{who}, after it: {}", log.append(batch(1).stamp(id, i16::MAX, 1)).await));
    }
    let mut producers = log.active_producers().await;
    producers.active_producers.sort_by_key(|producer| producer.producer_id);
    world.record(format!("known: {}", describe::active_producers(&producers)));
    world.record(log.fetch(0).await);
    world.record(format!("all deleted: {}", log.delete_records(-1).await));
    world.record(format!("epoch 4: {}", log.append(batch(1).stamp(known, 4, 0)).await));
    world.record(format!("fence again: {}", log.append(batch(1).stamp(known, i16::MAX, 0)).await));
}

/// Without a transactional id, every call returns a new id, whatever the request contains.
pub(super) async fn producer_ids(world: &mut World) {
    let mut connection = world.connect().await;
    let plain = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    let first = until("there are ids", async || {
        let response = connection.call(&plain, 4).await;
        (!response.error_code.is_error()).then_some(response)
    })
    .await;
    world.record(format!("nothing given: {}", describe::producer_id(&first)));
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
        let response = connection.call(&request, 4).await;
        world.record(format!("{what}: {}", describe::producer_id(&response)));
    }
    let named = InitProducerIdRequest { transactional_id: Some(String::new()), ..plain };
    let response = connection.call(&named, 4).await;
    world.record(format!("an empty transactional id: {}", describe::producer_id(&response)));
}

/// The first is rejected, and the second accepted, since the producer is unknown and any sequence is valid:
/// the first can never follow.
pub(super) async fn two_in_flight_of_a_fresh_producer(world: &mut World) {
    let mut log = world.log("two", &[("max.message.bytes", "200")]).await;
    let id = log.producer_id().await;
    let large = batch(100).stamp(id, 0, 0);
    log.connection.send(&log.produce(large.to_bytes(), -1), PRODUCE).await;
    let next = log.produce(batch(1).stamp(id, 0, 100).to_bytes(), -1);
    log.connection.send(&next, PRODUCE).await;
    for what in ["0 to 99", "100"] {
        let response = log.connection.read_response::<ProduceRequest>(PRODUCE).await.unwrap();
        world
            .record(format!("{what}: {}", describe::produced(&response.responses[0].partition_responses[0])));
    }
    world.record(format!("0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.record(format!("end {}", log.end().await));
}
