//! Transactional ids: names that the coordinator keeps an id and an epoch for.

use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{FindCoordinatorRequest, InitProducerIdRequest, InitProducerIdResponse};

use super::log::batch;
use super::tell;
use super::world::{World, until};
use crate::raw::Broker;

pub(super) async fn coordinators_found(world: &mut World) {
    let mut link = world.link().await;
    let (one, two) = (world.name("one"), world.name("two"));
    coordinator(&mut link, &one).await;
    for (what, key_type, keys) in [
        ("of a transactional id", TRANSACTION, vec![one.clone()]),
        ("of two", TRANSACTION, vec![one.clone(), two]),
        ("of an empty one", TRANSACTION, vec![String::new()]),
        ("of nothing", TRANSACTION, vec![]),
        ("of an unknown kind", 9, vec![one.clone()]),
    ] {
        let request =
            FindCoordinatorRequest { key_type, coordinator_keys: keys, ..FindCoordinatorRequest::default() };
        let Some(answer) = link.ask(&request, 4).await else {
            world.saw(format!("{what}: hangs up"));
            link = world.link().await;
            continue;
        };
        let told: Vec<String> = answer
            .coordinators
            .iter()
            .map(|found| {
                let refusal = tell::refusal(found.error_code, found.error_message.as_deref());
                format!(
                    "{:?}: {refusal}, broker {} at {}:{}",
                    found.key, found.node_id, found.host, found.port
                )
            })
            .collect();
        world.saw(format!("{what}: [{}]", told.join("; ")));
    }
    let request =
        FindCoordinatorRequest { key: one, key_type: TRANSACTION, ..FindCoordinatorRequest::default() };
    let answer = link.call(&request, 2).await;
    let refusal = tell::refusal(answer.error_code, answer.error_message.as_deref());
    world.saw(format!("by FindCoordinator 2: {refusal}, broker {}", answer.node_id));
}

/// The same id, and an epoch more at every call; with the own id and epoch only for who holds it.
pub(super) async fn names_and_epochs(world: &mut World) {
    let mut link = world.link().await;
    let name = world.name("name");
    let first = init(&mut link, &name, -1, -1, 4).await;
    world.saw(format!("first: {}", tell::producer_id(&first)));
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
        let answer = init(&mut link, &name, producer_id, producer_epoch, version).await;
        world.saw(format!("{what}: {}", tell::producer_id(&answer)));
    }
    let other = world.name("other-name");
    let answer = init(&mut link, &other, id, 4, 4).await;
    world.saw(format!("a new name with the id of another: {}", tell::producer_id(&answer)));
    let answer = init(&mut link, &other, -1, -1, 4).await;
    world.saw(format!("the other name: {}", tell::producer_id(&answer)));
}

pub(super) async fn times_of_transactions(world: &mut World) {
    let mut link = world.link().await;
    let name = world.name("timed");
    coordinator(&mut link, &name).await;
    for time in [0, -1, i32::MAX, 900_001, 900_000, 1] {
        let request = InitProducerIdRequest {
            transactional_id: Some(name.clone()),
            transaction_timeout_ms: time,
            ..InitProducerIdRequest::default()
        };
        let answer = until("the coordinator is ready", async || {
            let answer = link.call(&request, 4).await;
            (!is_passing(answer.error_code)).then_some(answer)
        })
        .await;
        world.saw(format!("{time} ms: {}", tell::producer_id(&answer)));
    }
}

/// A holds a name and appends without transactions, until B has taken the name and appended.
pub(super) async fn a_fence_by_name(world: &mut World) {
    let mut log = world.log("named", &[]).await;
    let name = world.name("name");
    let a = init(&mut log.link, &name, -1, -1, 4).await;
    world.saw(format!("A: {}", tell::producer_id(&a)));
    let a = (a.producer_id, a.producer_epoch);
    for sequence in 0..2 {
        world.saw(format!("A {sequence}: {}", log.append(batch(1).stamp(a.0, a.1, sequence)).await));
    }
    let b = init(&mut log.link, &name, -1, -1, 4).await;
    world.saw(format!("B: {}", tell::producer_id(&b)));
    let b = (b.producer_id, b.producer_epoch);
    world.saw(format!("A 2: {}", log.append(batch(1).stamp(a.0, a.1, 2)).await));
    let renewed = init(&mut log.link, &name, a.0, a.1, 4).await;
    world.saw(format!("A renews: {}", tell::producer_id(&renewed)));
    world.saw(format!("B 0: {}", log.append(batch(1).stamp(b.0, b.1, 0)).await));
    world.saw(format!("A 3: {}", log.append(batch(1).stamp(a.0, a.1, 3)).await));
    world.saw(format!("A 2 again: {}", log.append(batch(1).stamp(a.0, a.1, 2)).await));
    let renewed = init(&mut log.link, &name, b.0, b.1, 4).await;
    world.saw(format!("B renews: {}", tell::producer_id(&renewed)));
    world.saw(format!("B 1 of its old epoch: {}", log.append(batch(1).stamp(b.0, b.1, 1)).await));
    world.saw(format!("B 0 of its new epoch: {}", log.append(batch(1).stamp(b.0, b.1 + 1, 0)).await));
    world.saw(log.fetch(0).await);
}

/// One holder raises the epoch itself, past the coordinator, which then hands the same epoch to another holder: whose batches
/// are taken for duplicates and never come onto the log.
pub(super) async fn an_epoch_raised_past_the_coordinator(world: &mut World) {
    let mut log = world.log("raised", &[]).await;
    let name = world.name("name");
    let a = init(&mut log.link, &name, -1, -1, 4).await;
    let id = a.producer_id;
    world.saw(format!("A: {}", tell::producer_id(&a)));
    world.saw(format!("A 0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.saw(format!("A 0 of epoch 1, taken by itself: {}", log.append(batch(1).stamp(id, 1, 0)).await));
    let b = init(&mut log.link, &name, -1, -1, 4).await;
    world.saw(format!("B: {}", tell::producer_id(&b)));
    world.saw(format!("B 0: {}", log.append(batch(1).stamp(id, b.producer_epoch, 0)).await));
    world.saw(format!("end {}", log.end().await));
}

/// InitProducerId with a name, once the coordinator is there.
pub(super) async fn init(
    link: &mut Broker,
    name: &str,
    producer_id: i64,
    producer_epoch: i16,
    version: i16,
) -> InitProducerIdResponse {
    coordinator(link, name).await;
    let request = InitProducerIdRequest {
        transactional_id: Some(name.to_owned()),
        transaction_timeout_ms: 60_000,
        producer_id,
        producer_epoch,
        ..InitProducerIdRequest::default()
    };
    until("the coordinator answers", async || {
        let answer = link.call(&request, version).await;
        (!is_passing(answer.error_code)).then_some(answer)
    })
    .await
}

/// Waits until there is a coordinator; its id.
pub(super) async fn coordinator(link: &mut Broker, name: &str) -> i32 {
    let request = FindCoordinatorRequest {
        key_type: TRANSACTION,
        coordinator_keys: vec![name.to_owned()],
        ..FindCoordinatorRequest::default()
    };
    until("there is a coordinator", async || {
        let found = link.call(&request, 4).await.coordinators.remove(0);
        (found.error_code == ErrorCode::NONE).then_some(found.node_id)
    })
    .await
}

/// What a coordinator says until it is ready, or is ready again.
pub(super) fn is_passing(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
            | ErrorCode::COORDINATOR_NOT_AVAILABLE
            | ErrorCode::NOT_COORDINATOR
            | ErrorCode::CONCURRENT_TRANSACTIONS
    )
}

const TRANSACTION: i8 = 1;
