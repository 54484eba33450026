//! Expiration of producer ids and transactional ids.

use super::coordinators::{coordinator, init};
use super::describe;
use super::log::{batch, batch_of};
use super::world::{World, until};

/// After `producer.id.expiration.ms` without an append, any sequence is accepted, and no epoch is fenced.
pub(super) async fn producers_that_expire(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("forgotten", &[]).await;
    let id = log.producer_id().await;
    world.record(format!("A 0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.record(format!("B 0: {}", log.append(batch(1).stamp(id, 1, 0)).await));
    world.record(format!("A 1: {}", log.append(batch(1).stamp(id, 0, 1)).await));
    world.expire_producers(&mut log).await;
    world.record(format!("known: {}", log.producers().await));
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    world.record(format!("A 1: {}", log.append(batch(1).stamp(id, 0, 1)).await));
    world.record(format!("A 0 again: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.record(format!("B 1: {}", log.append(batch(1).stamp(id, 1, 1)).await));
    world.record(format!("B 0: {}", log.append(batch(1).stamp(id, 1, 0)).await));
    world.record(log.fetch(0).await);
}

/// Producer ids expire by the timestamps of their records: with old ones, at the next periodic check, every
/// ten minutes by default. A batch that is retried afterwards is duplicated.
pub(super) async fn producers_of_old_records(world: &mut World) {
    let mut log = world.log("old", &[]).await;
    let mut stamped = world.log("stamped", &[("message.timestamp.type", "LogAppendTime")]).await;
    let id = log.producer_id().await;
    world.record(format!("0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.record(format!("0, stamped by the broker: {}", stamped.append(batch(1).stamp(id, 0, 0)).await));
    world.run_producer_expiration(&mut log).await;
    world.record(format!("known: {}", log.producers().await));
    world.record(format!("known, stamped: {}", stamped.producers().await));
    world.record(format!("0 again: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.record(format!("0 again, stamped: {}", stamped.append(batch(1).stamp(id, 0, 0)).await));
    world.record(log.fetch(0).await);
}

/// A transactional id expires `transactional.id.expiration.ms` after its last initialization; appends do not
/// count. The next producer gets another producer id, which does not fence the previous one.
pub(super) async fn names_that_expire(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("nameless", &[]).await;
    let name = world.name("name");
    let node = coordinator(&mut log.connection, &name).await;
    let mut connection = world.connect_to(node).await;
    let a = init(&mut connection, &name, -1, -1, 4).await;
    world.record(format!("A: {}", describe::producer_id(&a)));
    let (id, epoch) = (a.producer_id, a.producer_epoch);
    world.record(format!("A 0: {}", log.append(batch(1).stamp(id, epoch, 0)).await));
    let mut sequence = 1;
    let b = until("the transactional id has expired", async || {
        world.expire_transactional_ids().await;
        let text = log.append(batch(1).stamp(id, epoch, sequence)).await;
        assert!(text.starts_with("OK"), "{text}");
        sequence += 1;
        let b = init(&mut connection, &name, -1, -1, 4).await;
        (b.producer_id != id).then_some(b)
    })
    .await;
    world.record(format!("B, after A's appends: {}", describe::producer_id(&b)));
    let (id_of_b, epoch_of_b) = (b.producer_id, b.producer_epoch);
    let text = log.append(batch(1).stamp(id_of_b, epoch_of_b, 0)).await;
    world.record(format!("B 0: {}", text.split_once(',').unwrap().0));
    let text = log.append(batch(1).stamp(id, epoch, sequence)).await;
    world.record(format!("A's next: {}", text.split_once(',').unwrap().0));
    let renewed = init(&mut connection, &name, id, epoch, 4).await;
    world.record(format!("A renews: {}", describe::producer_id(&renewed)));
    let renewed = init(&mut connection, &name, id_of_b, epoch_of_b, 4).await;
    world.record(format!("B renews: {}", describe::producer_id(&renewed)));
    world.expire_transactional_ids().await;
    let renewed = until("the transactional id has expired", async || {
        let renewed = init(&mut connection, &name, id_of_b, epoch_of_b + 1, 4).await;
        match renewed.error_code.is_error() || renewed.producer_id != id_of_b {
            true => Some(renewed),
            false => {
                world.expire_transactional_ids().await;
                None
            }
        }
    })
    .await;
    world.record(format!("B renews after the name is forgotten: {}", describe::producer_id(&renewed)));
}
