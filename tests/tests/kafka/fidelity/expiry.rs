//! What brokers forget in time.

use super::coordinators::{coordinator, init};
use super::log::{batch, batch_of};
use super::tell;
use super::world::{World, until};

/// `producer.id.expiration.ms` after its last append: any sequence is right again, and nobody is fenced.
pub(super) async fn producers_that_expire(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("forgotten", &[]).await;
    let id = log.producer_id().await;
    world.saw(format!("A 0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.saw(format!("B 0: {}", log.append(batch(1).stamp(id, 1, 0)).await));
    world.saw(format!("A 1: {}", log.append(batch(1).stamp(id, 0, 1)).await));
    world.expire_producers(&mut log).await;
    world.saw(format!("known: {}", log.producers().await));
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    world.saw(format!("A 1: {}", log.append(batch(1).stamp(id, 0, 1)).await));
    world.saw(format!("A 0 again: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.saw(format!("B 1: {}", log.append(batch(1).stamp(id, 1, 1)).await));
    world.saw(format!("B 0: {}", log.append(batch(1).stamp(id, 1, 0)).await));
    world.saw(log.fetch(0).await);
}

/// A partition goes by the times of a producer's records: if they are old, it forgets the producer at the next look, every ten
/// minutes by default. What is sent again then is there twice.
pub(super) async fn producers_of_old_records(world: &mut World) {
    let mut log = world.log("old", &[]).await;
    let mut stamped = world.log("stamped", &[("message.timestamp.type", "LogAppendTime")]).await;
    let id = log.producer_id().await;
    world.saw(format!("0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.saw(format!("0, stamped by the broker: {}", stamped.append(batch(1).stamp(id, 0, 0)).await));
    world.look_for_expired_producers(&mut log).await;
    world.saw(format!("known: {}", log.producers().await));
    world.saw(format!("known, stamped: {}", stamped.producers().await));
    world.saw(format!("0 again: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.saw(format!("0 again, stamped: {}", stamped.append(batch(1).stamp(id, 0, 0)).await));
    world.saw(log.fetch(0).await);
}

/// `transactional.id.expiration.ms` after its last holder took it or renewed it; appends do not count. The next holder gets
/// another id, which fences nobody.
pub(super) async fn names_that_expire(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log("nameless", &[]).await;
    let name = world.name("name");
    let node = coordinator(&mut log.link, &name).await;
    let mut link = world.link_to(node).await;
    let a = init(&mut link, &name, -1, -1, 4).await;
    world.saw(format!("A: {}", tell::producer_id(&a)));
    let (id, epoch) = (a.producer_id, a.producer_epoch);
    world.saw(format!("A 0: {}", log.append(batch(1).stamp(id, epoch, 0)).await));
    let mut sequence = 1;
    let b = until("the name is forgotten", async || {
        world.expire_names().await;
        let told = log.append(batch(1).stamp(id, epoch, sequence)).await;
        assert!(told.starts_with("OK"), "{told}");
        sequence += 1;
        let b = init(&mut link, &name, -1, -1, 4).await;
        (b.producer_id != id).then_some(b)
    })
    .await;
    world.saw(format!("B, after A's appends: {}", tell::producer_id(&b)));
    let (id_of_b, epoch_of_b) = (b.producer_id, b.producer_epoch);
    let told = log.append(batch(1).stamp(id_of_b, epoch_of_b, 0)).await;
    world.saw(format!("B 0: {}", told.split_once(',').unwrap().0));
    let told = log.append(batch(1).stamp(id, epoch, sequence)).await;
    world.saw(format!("A's next: {}", told.split_once(',').unwrap().0));
    let renewed = init(&mut link, &name, id, epoch, 4).await;
    world.saw(format!("A renews: {}", tell::producer_id(&renewed)));
    let renewed = init(&mut link, &name, id_of_b, epoch_of_b, 4).await;
    world.saw(format!("B renews: {}", tell::producer_id(&renewed)));
    world.expire_names().await;
    let renewed = until("the name is forgotten", async || {
        let renewed = init(&mut link, &name, id_of_b, epoch_of_b + 1, 4).await;
        match renewed.error_code.is_error() || renewed.producer_id != id_of_b {
            true => Some(renewed),
            false => {
                world.expire_names().await;
                None
            }
        }
    })
    .await;
    world.saw(format!("B renews after the name is forgotten: {}", tell::producer_id(&renewed)));
}
