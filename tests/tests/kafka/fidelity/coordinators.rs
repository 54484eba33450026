//! Transactional ids: the coordinator stores a producer id and epoch for each.

use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{FindCoordinatorRequest, InitProducerIdRequest, InitProducerIdResponse};

use super::describe;
use super::log::batch;
use super::world::{World, until};
use crate::raw::Broker;

pub(super) async fn coordinators_found(world: &mut World) {
    let mut connection = world.connect().await;
    let (one, two) = (world.name("one"), world.name("two"));
    coordinator(&mut connection, &one).await;
    for (what, key_type, keys) in [
        ("of a transactional id", TRANSACTION, vec![one.clone()]),
        ("of two", TRANSACTION, vec![one.clone(), two]),
        ("of an empty one", TRANSACTION, vec![String::new()]),
        ("of nothing", TRANSACTION, vec![]),
        ("of an unknown kind", 9, vec![one.clone()]),
    ] {
        let request =
            FindCoordinatorRequest { key_type, coordinator_keys: keys, ..FindCoordinatorRequest::default() };
        let Some(response) = connection.try_call(&request, 4).await else {
            world.record(format!("{what}: hangs up"));
            connection = world.connect().await;
            continue;
        };
        let text: Vec<String> = response
            .coordinators
            .iter()
            .map(|found| {
                let rejection = describe::rejection(found.error_code, found.error_message.as_deref());
                format!(
                    "{:?}: {rejection}, broker {} at {}:{}",
                    found.key, found.node_id, found.host, found.port
                )
            })
            .collect();
        world.record(format!("{what}: [{}]", text.join("; ")));
    }
    let request =
        FindCoordinatorRequest { key: one, key_type: TRANSACTION, ..FindCoordinatorRequest::default() };
    let response = connection.call(&request, 2).await;
    let rejection = describe::rejection(response.error_code, response.error_message.as_deref());
    world.record(format!("by FindCoordinator 2: {rejection}, broker {}", response.node_id));
}

/// Every call returns the same id with the next epoch. With an id and epoch in the request, only for the
/// current holder.
pub(super) async fn names_and_epochs(world: &mut World) {
    let mut connection = world.connect().await;
    let name = world.name("name");
    let first = init(&mut connection, &name, -1, -1, 4).await;
    world.record(format!("first: {}", describe::producer_id(&first)));
    let id = first.producer_id;
    for (what, producer_id, producer_epoch, version) in [
        ("again", -1, -1, 4),
        ("renewed by its holder", id, 1, 4),
        ("the same renewal again", id, 1, 4),
        ("renewed, of the epoch before", id, 0, 4),
        ("the same by version 3", id, 0, 3),
        ("renewed by its holder, by version 3", id, 2, 3),
        ("of an epoch to come", id, 9, 4),
        ("with another id", id + 100_000, 3, 4),
        ("its id without an epoch", id, -1, 4),
        ("again, by version 1", -1, -1, 1),
        ("the holder of before", id, 3, 4),
        ("the holder", id, 4, 4),
    ] {
        let response = init(&mut connection, &name, producer_id, producer_epoch, version).await;
        world.record(format!("{what}: {}", describe::producer_id(&response)));
    }
    let other = world.name("other-name");
    let response = init(&mut connection, &other, id, 4, 4).await;
    world.record(format!("a new name with the id of another: {}", describe::producer_id(&response)));
    let response = init(&mut connection, &other, -1, -1, 4).await;
    world.record(format!("the other name: {}", describe::producer_id(&response)));
}

pub(super) async fn times_of_transactions(world: &mut World) {
    let mut connection = world.connect().await;
    let name = world.name("timed");
    coordinator(&mut connection, &name).await;
    for time in [0, -1, i32::MAX, 900_001, 900_000, 1] {
        let request = InitProducerIdRequest {
            transactional_id: Some(name.clone()),
            transaction_timeout_ms: time,
            ..InitProducerIdRequest::default()
        };
        let response = until("the coordinator is ready", async || {
            let response = connection.call(&request, 4).await;
            (!is_transient(response.error_code)).then_some(response)
        })
        .await;
        world.record(format!("{time} ms: {}", describe::producer_id(&response)));
    }
}

/// A holds a transactional id and appends without transactions, until B has initialized the same one and
/// appended.
pub(super) async fn a_fence_by_name(world: &mut World) {
    let mut log = world.log("named", &[]).await;
    let name = world.name("name");
    let a = init(&mut log.connection, &name, -1, -1, 4).await;
    world.record(format!("A: {}", describe::producer_id(&a)));
    let a = (a.producer_id, a.producer_epoch);
    for sequence in 0..2 {
        world.record(format!("A {sequence}: {}", log.append(batch(1).stamp(a.0, a.1, sequence)).await));
    }
    let b = init(&mut log.connection, &name, -1, -1, 4).await;
    world.record(format!("B: {}", describe::producer_id(&b)));
    let b = (b.producer_id, b.producer_epoch);
    world.record(format!("A 2: {}", log.append(batch(1).stamp(a.0, a.1, 2)).await));
    let renewed = init(&mut log.connection, &name, a.0, a.1, 4).await;
    world.record(format!("A renews: {}", describe::producer_id(&renewed)));
    world.record(format!("B 0: {}", log.append(batch(1).stamp(b.0, b.1, 0)).await));
    world.record(format!("A 3: {}", log.append(batch(1).stamp(a.0, a.1, 3)).await));
    world.record(format!("A 2 again: {}", log.append(batch(1).stamp(a.0, a.1, 2)).await));
    let renewed = init(&mut log.connection, &name, b.0, b.1, 4).await;
    world.record(format!("B renews: {}", describe::producer_id(&renewed)));
    world.record(format!("B 1 of its old epoch: {}", log.append(batch(1).stamp(b.0, b.1, 1)).await));
    world.record(format!("B 0 of its new epoch: {}", log.append(batch(1).stamp(b.0, b.1 + 1, 0)).await));
    world.record(log.fetch(0).await);
}

/// A holder raises the epoch without the coordinator, which then returns the same epoch to another holder.
/// The batches of that one are treated as duplicates and are not appended.
pub(super) async fn an_epoch_raised_past_the_coordinator(world: &mut World) {
    let mut log = world.log("raised", &[]).await;
    let name = world.name("name");
    let a = init(&mut log.connection, &name, -1, -1, 4).await;
    let id = a.producer_id;
    world.record(format!("A: {}", describe::producer_id(&a)));
    world.record(format!("A 0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.record(format!("A 0 of epoch 1, taken by itself: {}", log.append(batch(1).stamp(id, 1, 0)).await));
    let b = init(&mut log.connection, &name, -1, -1, 4).await;
    world.record(format!("B: {}", describe::producer_id(&b)));
    world.record(format!("B 0: {}", log.append(batch(1).stamp(id, b.producer_epoch, 0)).await));
    world.record(format!("end {}", log.end().await));
}

/// Renewals whose response was lost, and those of holders that are not the last one any more.
pub(super) async fn renewals(world: &mut World) {
    let mut connection = world.connect().await;
    let name = world.name("renewed");
    let a = init(&mut connection, &name, -1, -1, 4).await;
    world.record(format!("A: {}", describe::producer_id(&a)));
    let id = a.producer_id;
    for (what, epoch, version) in [
        ("A renews", 0, 4),
        ("A again, the response was lost", 0, 4),
        ("A again, by version 3", 0, 3),
        ("A renews", 1, 4),
        ("A with an epoch of long ago", 0, 4),
        ("B", -1, 4),
        ("A renews", 2, 4),
        ("A renews, by version 3", 2, 3),
        ("A with the epoch before", 1, 4),
        ("B renews", 3, 4),
        ("C", -1, 4),
        ("B again, the response was lost", 3, 4),
        ("B with the epoch of that response", 4, 4),
        ("C renews, by version 3", 5, 3),
        ("D", -1, 4),
        ("D again, the response was lost", -1, 4),
        ("D with the epoch of the lost response", 7, 4),
        ("D renews", 8, 4),
    ] {
        let held = if epoch == -1 { -1 } else { id };
        let response = init(&mut connection, &name, held, epoch, version).await;
        world.record(format!("{what}: {}", describe::producer_id(&response)));
    }
}

/// The last epoch but one is the last one that the coordinator returns; then the id changes. The old id is
/// not fenced.
pub(super) async fn epochs_used_up(world: &mut World) {
    let mut log = world.log("used-up", &[]).await;
    let (renewed, taken) = (world.name("renewed"), world.name("taken"));
    for (name, renews) in [(&renewed, true), (&taken, false)] {
        let first = init(&mut log.connection, name, -1, -1, 4).await;
        world.record(format!("first: {}", describe::producer_id(&first)));
        let mut held = (first.producer_id, LAST_EPOCH - 2);
        world.raise_epoch(name, first.producer_id, held.1).await;
        for _ in 0..4 {
            let (id, epoch) = if renews { held } else { (-1, -1) };
            let next = init(&mut log.connection, name, id, epoch, 4).await;
            world.record(format!("next: {}", describe::producer_id(&next)));
            held = (next.producer_id, next.producer_epoch);
        }
        for epoch in [LAST_EPOCH, LAST_EPOCH - 1] {
            let lost = init(&mut log.connection, name, first.producer_id, epoch, 4).await;
            world.record(format!("with epoch {epoch} of the first id: {}", describe::producer_id(&lost)));
        }
        for (id, epoch) in [(first.producer_id, LAST_EPOCH), held, (first.producer_id, LAST_EPOCH)] {
            let text = log.append(batch(1).stamp(id, epoch, 0)).await;
            world.record(format!("<id {id}>/{epoch}: {text}"));
        }
    }
    // The response with the new id was lost.
    let lost = world.name("lost");
    let first = init(&mut log.connection, &lost, -1, -1, 4).await;
    let id = first.producer_id;
    world.raise_epoch(&lost, id, LAST_EPOCH).await;
    for (what, id, epoch, version) in [
        ("renewed", id, LAST_EPOCH, 4),
        ("again, the response was lost", id, LAST_EPOCH, 4),
        ("once more", id, LAST_EPOCH, 4),
        ("once more, by version 3", id, LAST_EPOCH, 3),
        ("with the epoch before", id, LAST_EPOCH - 1, 4),
        ("somebody else", -1, -1, 4),
        ("the first again", id, LAST_EPOCH, 4),
    ] {
        let response = init(&mut log.connection, &lost, id, epoch, version).await;
        world.record(format!("{what}: {}", describe::producer_id(&response)));
    }
}

/// Sends InitProducerId with a transactional id when the coordinator is available.
pub(crate) async fn init(
    connection: &mut Broker,
    name: &str,
    producer_id: i64,
    producer_epoch: i16,
    version: i16,
) -> InitProducerIdResponse {
    coordinator(connection, name).await;
    let request = InitProducerIdRequest {
        transactional_id: Some(name.to_owned()),
        transaction_timeout_ms: 60_000,
        producer_id,
        producer_epoch,
        ..InitProducerIdRequest::default()
    };
    until("the coordinator is ready", async || {
        let response = connection.call(&request, version).await;
        (!is_transient(response.error_code)).then_some(response)
    })
    .await
}

/// Waits until there is a coordinator and returns its broker id.
pub(crate) async fn coordinator(connection: &mut Broker, name: &str) -> i32 {
    let request = FindCoordinatorRequest {
        key_type: TRANSACTION,
        coordinator_keys: vec![name.to_owned()],
        ..FindCoordinatorRequest::default()
    };
    until("there is a coordinator", async || {
        let found = connection.call(&request, 4).await.coordinators.remove(0);
        (found.error_code == ErrorCode::NONE).then_some(found.node_id)
    })
    .await
}

/// Returns whether a code means that the coordinator is not ready yet.
pub(super) fn is_transient(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
            | ErrorCode::COORDINATOR_NOT_AVAILABLE
            | ErrorCode::NOT_COORDINATOR
            | ErrorCode::CONCURRENT_TRANSACTIONS
    )
}

/// The last epoch that the coordinator returns.
const LAST_EPOCH: i16 = i16::MAX - 1;
pub(super) const TRANSACTION: i8 = 1;
