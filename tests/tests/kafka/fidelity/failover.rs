//! The log of transactional ids, and coordinators that move, are killed, or lack replicas.

use kwal_protocol::messages::{
    FindCoordinatorRequest, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest,
};
use tokio::time::{Duration, sleep};

use super::actions::TRANSACTION_STATE;
use super::coordinators::{TRANSACTION, coordinator, init, is_transient};
use super::describe;
use super::log::{batch, batch_of, producer_id};
use super::world::{World, create, metadata, topic_metadata, until};
use crate::raw::Broker;

/// The first request for a coordinator creates the topic of the coordinators, to which clients cannot append.
pub(super) async fn a_coordinator_that_is_created(world: &mut World) {
    let mut connection = world.connect().await;
    let name = world.name("name");
    let found = topic_metadata(&mut connection, TRANSACTION_STATE).await;
    world.record(format!("before: {}", describe::topic(&found)));
    let at = [find(&mut connection, &name, 4).await, find(&mut connection, &name, 2).await];
    world.record(format!("first: {}", at[0]));
    let node = coordinator(&mut connection, &name).await;
    let a = init(&mut world.connect_to(node).await, &name, -1, -1, 4).await;
    world.record(format!("A: {}", describe::producer_id(&a)));
    for other in (1..=3).filter(|other| *other != node) {
        let response = init_once(&mut world.connect_to(other).await, &name, (-1, -1)).await;
        world.record(format!("at another broker: {}", describe::producer_id(&response)));
    }
    world.wait_for_topic(TRANSACTION_STATE).await;
    let found = topic_metadata(&mut connection, TRANSACTION_STATE).await;
    world.record(format!(
        "{}, internal: {}, {} partition, {} replicas",
        describe::code(found.error_code),
        found.is_internal,
        found.partitions.len(),
        found.partitions[0].replica_nodes.len(),
    ));
    let listed =
        connection.call(&MetadataRequest { topics: None, ..MetadataRequest::default() }, 12).await.topics;
    let listed: Vec<_> = listed.into_iter().filter(|topic| topic.is_internal).collect();
    let names: Vec<_> = listed.iter().filter_map(|topic| topic.name.as_deref()).collect();
    world.record(format!("internal topics: {names:?}"));
    let mut log = world.transaction_log().await;
    world.wait_for_leader(&mut log, node).await;
    let text = log.append(batch(1)).await;
    world.record(format!("an append: {text}"));
    let text = log.delete_records(-1).await;
    world.record(format!("records deleted: {text}"));
    let topic = world.creatable(TRANSACTION_STATE, &[&[1]], &[]);
    let code = create(&mut connection, topic).await;
    world.record(format!("created again: {}", describe::code(code)));
}

/// Another replica of the log becomes the coordinator and goes on with the same ids and epochs, also of
/// responses that were lost.
pub(super) async fn a_coordinator_that_moves(world: &mut World) {
    let mut connection = world.connect().await;
    let name = world.name("name");
    coordinator(&mut connection, &name).await;
    let log = world.transaction_log().await;
    // In this order, the replicas are 2, 1, 3.
    for node in [3, 1, 2] {
        world.move_coordinator(&name, node).await;
    }
    world.record(format!("found: {}", find_until(&mut connection, &name, 2).await));
    let mut at_2 = world.connect_to(2).await;
    let a = init(&mut at_2, &name, -1, -1, 4).await;
    world.record(format!("A: {}", describe::producer_id(&a)));
    let id = a.producer_id;
    let renewed = init(&mut at_2, &name, id, 0, 4).await;
    world.record(format!("A renews: {}", describe::producer_id(&renewed)));

    world.kill(2).await;
    world.record(format!("killed: {}", find(&mut connection, &name, 4).await));
    let response = init_once(&mut connection, &name, (id, 0)).await;
    world.record(format!("at another broker: {}", describe::producer_id(&response)));
    world.record(format!("found: {}", find_until(&mut connection, &name, 1).await));
    let renewed = init_until(&mut connection, &name, (id, 0)).await;
    world.record(format!("A again, the response was lost: {}", describe::producer_id(&renewed)));
    let renewed = init_until(&mut connection, &name, (id, 1)).await;
    world.record(format!("A renews: {}", describe::producer_id(&renewed)));
    let b = init_until(&mut connection, &name, (-1, -1)).await;
    world.record(format!("B: {}", describe::producer_id(&b)));
    let renewed = init_until(&mut connection, &name, (id, 2)).await;
    world.record(format!("A renews: {}", describe::producer_id(&renewed)));

    world.start(2).await;
    world.wait_until_in_sync(&log, &[1, 2, 3]).await;
    world.move_coordinator(&name, 2).await;
    world.record(format!("moved: {}", find_until(&mut connection, &name, 2).await));
    let renewed = init_until(&mut world.connect_to(2).await, &name, (id, 3)).await;
    world.record(format!("B renews: {}", describe::producer_id(&renewed)));
    let response = init_once(&mut connection, &name, (id, 4)).await;
    world.record(format!("at the coordinator before: {}", describe::producer_id(&response)));

    world.stop(2).await;
    world.record(format!("shut down: {}", find_until(&mut connection, &name, 1).await));
    let renewed = init_until(&mut connection, &name, (id, 4)).await;
    world.record(format!("B renews: {}", describe::producer_id(&renewed)));
    world.start(2).await;
    world.wait_until_in_sync(&log, &[1, 2, 3]).await;
    let response = init_once(&mut world.connect_to(2).await, &name, (id, 5)).await;
    world.record(format!("at the coordinator before: {}", describe::producer_id(&response)));
    let renewed = init_until(&mut connection, &name, (id, 5)).await;
    world.record(format!("B renews: {}", describe::producer_id(&renewed)));
}

/// With too few replicas in sync, the coordinator is found and does nothing.
pub(super) async fn a_coordinator_without_replicas(world: &mut World) {
    let mut connection = world.connect().await;
    let name = world.name("name");
    coordinator(&mut connection, &name).await;
    let log = world.transaction_log().await;
    world.move_coordinator(&name, 1).await;
    let a = init_until(&mut connection, &name, (-1, -1)).await;
    world.record(format!("A: {}", describe::producer_id(&a)));
    for node in [2, 3] {
        world.kill(node).await;
    }
    world.wait_until_in_sync(&log, &[1]).await;
    world.record(format!("found: {}", find_until(&mut connection, &name, 1).await));
    for held in [(a.producer_id, 0), (-1, -1), (a.producer_id, 9)] {
        let response = init_once(&mut connection, &name, held).await;
        world.record(format!("with epoch {}: {}", held.1, describe::producer_id(&response)));
    }
    let id = producer_id(&mut connection).await;
    world.record(format!("without a name: OK, <id {id}>"));
    for node in [2, 3] {
        world.start(node).await;
    }
    world.wait_until_in_sync(&log, &[1, 2, 3]).await;
    let renewed = init_until(&mut connection, &name, (a.producer_id, 0)).await;
    world.record(format!("A renews: {}", describe::producer_id(&renewed)));
    let b = init_until(&mut connection, &name, (-1, -1)).await;
    world.record(format!("B: {}", describe::producer_id(&b)));
}

/// A broker that stops and starts forgets the producers of a log without records: the fences are gone. One
/// record is enough to keep them.
pub(super) async fn a_fence_after_deletion_and_restart(world: &mut World) {
    let mut logs = Vec::new();
    for (what, before) in [("all deleted", -1), ("all but the last", 4)] {
        let settings = [("min.insync.replicas", "1")];
        let mut log = world.log_on(&what.replace(' ', "-"), &[3], &settings).await;
        let (id, fenced) = (log.producer_id().await, log.producer_id().await);
        let now = world.now_ms();
        for (who, id, epoch, sequence) in [
            ("A", id, 0, 0),
            ("C", fenced, 0, 0),
            ("the fence of C", fenced, i16::MAX, 0),
            ("B", id, 1, 0),
            ("B", id, 1, 1),
        ] {
            let text = log.append(batch_of(1, now).stamp(id, epoch, sequence)).await;
            world.record(format!("{what}, {who} {sequence}: {text}"));
        }
        world.record(format!("{what}: {}", log.delete_records(before).await));
        logs.push((what, log, id, fenced));
    }
    world.stop(3).await;
    world.start(3).await;
    for (what, log, id, fenced) in &mut logs {
        world.wait_for_leader(log, 3).await;
        let mut producers = log.active_producers().await;
        producers.active_producers.sort_by_key(|producer| producer.producer_id);
        world.record(format!("{what}, known: {}", describe::active_producers(&producers)));
        let now = world.now_ms();
        for (who, id, epoch, sequence) in [
            ("A", *id, 0, 1),
            ("C", *fenced, 0, 1),
            ("the fence of C again", *fenced, i16::MAX, 0),
            ("C", *fenced, 0, 2),
            ("B again", *id, 1, 1),
            ("B", *id, 1, 2),
            ("A", *id, 0, 2),
        ] {
            let text = log.append(batch_of(1, now).stamp(id, epoch, sequence)).await;
            world.record(format!("{what}, restarted, {who} {sequence}: {text}"));
        }
    }
}

/// A replica that stops and starts with a log without records has forgotten its producers also as the leader.
pub(super) async fn a_fence_after_deletion_at_another_leader(world: &mut World) {
    let mut log = world.log_on("moved", &[3, 2], &[("min.insync.replicas", "1")]).await;
    let id = log.producer_id().await;
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    for (who, epoch) in [("A", 0), ("B", 1)] {
        world.record(format!("{who} 0: {}", log.append(batch(1).stamp(id, epoch, 0)).await));
    }
    world.record(format!("all deleted: {}", log.delete_records(-1).await));
    world.elect(&mut log, 2).await;
    world.record(format!("at 2, A 1: {}", log.append(batch(1).stamp(id, 0, 1)).await));
    world.stop(3).await;
    world.start(3).await;
    world.wait_until_in_sync(&log, &[2, 3]).await;
    world.elect(&mut log, 3).await;
    world.record(format!("at 3 after a restart, A 1: {}", log.append(batch(1).stamp(id, 0, 1)).await));
}

/// There is never a coordinator, and the topic does not exist. Producers without a name are not affected.
pub(super) async fn a_transaction_log_that_cannot_be_created(world: &mut World) {
    let mut connection = world.connect().await;
    let name = world.name("name");
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..20 {
        for version in [4, 2] {
            let found = format!("FindCoordinator {version}: {}", find(&mut connection, &name, version).await);
            if !seen.contains(&found) {
                seen.push(found);
            }
        }
        sleep(Duration::from_millis(250)).await;
    }
    seen.iter().for_each(|found| world.record(found));
    let response = init_once(&mut connection, &name, (-1, -1)).await;
    world.record(format!("InitProducerId: {}", describe::producer_id(&response)));
    for make in [false, true, false] {
        let found = metadata(&mut connection, TRANSACTION_STATE, make).await.topics.remove(0);
        world.record(format!("Metadata that creates topics, {make}: {}", describe::topic(&found)));
    }
    let listed =
        connection.call(&MetadataRequest { topics: None, ..MetadataRequest::default() }, 12).await.topics;
    world.record(format!("topics: {}", listed.len()));
    let id = producer_id(&mut connection).await;
    world.record(format!("without a name: OK, <id {id}>"));
}

/// Sends FindCoordinator once.
async fn find(connection: &mut Broker, name: &str, version: i16) -> String {
    let (code, message, node) = match version {
        4 => {
            let coordinator_keys = vec![name.to_owned()];
            let request =
                FindCoordinatorRequest { key_type: TRANSACTION, coordinator_keys, ..Default::default() };
            let found = connection.call(&request, version).await.coordinators.remove(0);
            (found.error_code, found.error_message, found.node_id)
        }
        _ => {
            let request = FindCoordinatorRequest {
                key_type: TRANSACTION,
                key: name.to_owned(),
                ..FindCoordinatorRequest::default()
            };
            let found = connection.call(&request, version).await;
            (found.error_code, found.error_message, found.node_id)
        }
    };
    format!("{}, broker {node}", describe::rejection(code, message.as_deref()))
}

/// Waits until a broker is found.
async fn find_until(connection: &mut Broker, name: &str, node: i32) -> String {
    until("the broker is found", async || {
        let found = find(connection, name, 4).await;
        found.ends_with(&format!("broker {node}")).then_some(found)
    })
    .await
}

/// Sends InitProducerId until the coordinator is ready.
async fn init_until(connection: &mut Broker, name: &str, held: (i64, i16)) -> InitProducerIdResponse {
    until("the coordinator is ready", async || {
        let response = init_once(connection, name, held).await;
        (!is_transient(response.error_code)).then_some(response)
    })
    .await
}

/// Sends InitProducerId once.
async fn init_once(connection: &mut Broker, name: &str, (id, epoch): (i64, i16)) -> InitProducerIdResponse {
    let request = InitProducerIdRequest {
        transactional_id: Some(name.to_owned()),
        transaction_timeout_ms: 60_000,
        producer_id: id,
        producer_epoch: epoch,
        ..InitProducerIdRequest::default()
    };
    connection.call(&request, 4).await
}
