//! Followers, elections, and brokers that are suspended, stopped and restarted.
//!
//! The records have current timestamps: these brokers often expire producers, by the timestamps of their
//! records.

use std::collections::BTreeSet;
use std::time::Duration;

use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    ApiVersionsRequest, CreatableTopic, CreateTopicsRequest, FetchRequest, IsolationLevel, MetadataRequest,
    MetadataTopic, ProduceRequest,
};
use tokio::time::Instant;

use super::describe;
use super::log::{EARLIEST, FETCH, LATEST, LIST_OFFSETS, Log, PRODUCE, batch_of};
use super::world::{World, topic_metadata, until};

/// A follower and a broker without a replica. Since Produce 10 and Fetch 16, the response contains the leader
/// (KIP-951); since Fetch 11, followers serve consumers (KIP-392).
pub(super) async fn requests_to_brokers_that_do_not_lead(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("elsewhere", &[2, 3], &[]).await;
    world.record(format!("the leader: {}", log.append(batch(1)).await));
    log.connection = world.connect_to(3).await;
    // A follower learns the high watermark with its next fetch.
    until("the follower has it", async || {
        (log.fetch_response(0, 1 << 20).await.high_watermark == 1).then_some(())
    })
    .await;
    for (who, node) in [("a follower", 3), ("another", 1)] {
        log.connection = world.connect_to(node).await;
        for version in [9, 10, 11] {
            let request = log.produce(batch(1).to_bytes(), -1);
            let response = log.connection.call(&request, version).await;
            let endpoints: Vec<String> = response
                .node_endpoints
                .iter()
                .map(|endpoint| format!("{} at {}:{}", endpoint.node_id, endpoint.host, endpoint.port))
                .collect();
            let text = describe::produced(&response.responses[0].partition_responses[0]);
            world.record(format!("Produce {version} to {who}: {text}; endpoints [{}]", endpoints.join(", ")));
        }
        for version in [4, 10, 11, 12, 15, 16, 17] {
            let request = log.fetch_request(0, 1 << 20);
            let response = log.connection.call(&request, version).await;
            let endpoints: Vec<String> = response
                .node_endpoints
                .iter()
                .map(|endpoint| format!("{} at {}:{}", endpoint.node_id, endpoint.host, endpoint.port))
                .collect();
            let text = describe::fetched(&response.responses[0].partitions[0]);
            world.record(format!("Fetch {version} to {who}: {text}; endpoints [{}]", endpoints.join(", ")));
        }
        world.record(format!("ListOffsets to {who}: {}", log.offset(LATEST, now).await));
        world.record(format!("OffsetForLeaderEpoch to {who}: {}", log.epoch_end(0, -1).await));
        world.record(format!("DeleteRecords to {who}: {}", log.delete_records(1).await));
        world.record(format!("DescribeProducers to {who}: {}", log.producers().await));
        log.connection.send(&log.produce(batch(1).to_bytes(), 0), PRODUCE).await;
        let response = log.connection.try_call(&ApiVersionsRequest::default(), 0).await;
        world.record(format!(
            "acks = 0 to {who}: {}",
            if response.is_some() { "goes on" } else { "hangs up" }
        ));
    }
}

/// Producer and reader at the new leader and at the old one.
pub(super) async fn a_leader_that_moves(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("moved", &[2, 3], &[]).await;
    let id = log.producer_id().await;
    for sequence in 0..2 {
        world.record(format!("{sequence} at 2: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    world.elect(&mut log, 3).await;
    until("the high watermark is known", async || {
        (log.fetch_response(0, 1).await.high_watermark == 2).then_some(())
    })
    .await;
    let found = topic_metadata(&mut log.connection, &log.topic).await;
    world.record(format!(
        "3 leads: leader {}, epoch {}",
        found.partitions[0].leader_id, found.partitions[0].leader_epoch
    ));
    world.record(format!("1 again at 3: {}", log.append(batch(1).stamp(id, 0, 1)).await));
    world.record(format!("2 at 3: {}", log.append(batch(1).stamp(id, 0, 2)).await));
    world.record(format!("from 0: {}", log.fetch(0).await));
    for (epoch, current) in [(0, 1), (1, 1), (0, 0), (2, 1), (0, 2)] {
        world.record(format!(
            "end of epoch {epoch}, current {current}: {}",
            log.epoch_end(epoch, current).await
        ));
    }
    for (current, last, offset) in
        [(0, -1, 2), (1, -1, 2), (2, -1, 2), (1, 0, 2), (1, 0, 3), (1, 1, 3), (1, 1, 2)]
    {
        let mut request = log.fetch_request(offset, 1 << 20);
        request.topics[0].partitions[0].current_leader_epoch = current;
        request.topics[0].partitions[0].last_fetched_epoch = last;
        let response = log.connection.call(&request, FETCH).await;
        world.record(format!(
            "current epoch {current}, last fetched {last}, from {offset}: {}",
            describe::fetched(&response.responses[0].partitions[0])
        ));
    }
    for (what, at) in [("earliest", EARLIEST), ("latest", LATEST), ("by time", now)] {
        world.record(format!("{what}: {}", log.offset(at, now).await));
    }
    log.connection = world.connect_to(2).await;
    until("2 knows", async || {
        let response = log.connection.call(&log.fetch_request(0, 1), 10).await;
        (response.responses[0].partitions[0].error_code == ErrorCode::NOT_LEADER_OR_FOLLOWER).then_some(())
    })
    .await;
    world.record(format!("an append at 2: {}", log.append(batch(1).stamp(id, 0, 3)).await));
    let mut request = log.fetch_request(0, 1 << 20);
    request.topics[0].topic_id = log.id;
    let response = log.connection.call(&FetchRequest { rack_id: String::new(), ..request }, 10).await;
    world.record(format!("Fetch 10 at 2: {}", describe::fetched(&response.responses[0].partitions[0])));
}

/// The log is complete, but the epoch that the reader knows ends before its position.
pub(super) async fn an_epoch_that_rose_unseen(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("unseen", &[2, 3], &[]).await;
    log.append(batch(1)).await;
    world.elect(&mut log, 3).await;
    world.elect(&mut log, 2).await;
    world.record(format!("the second: {}", log.append(batch(1)).await));
    for epoch in 0..4 {
        world.record(format!("end of epoch {epoch}: {}", log.epoch_end(epoch, -1).await));
    }
    world.record(format!("from 0: {}", log.fetch(0).await));
}

/// The leader has appended and waits for the follower. When the follower is removed from the ISR, too few are
/// in sync.
pub(super) async fn a_follower_that_falls_silent(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let (mut log, id) = loop {
        let mark = world.mark();
        let (log, id) = silent(world, now).await;
        if is_in_sync(world, &log, &[2, 3]).await {
            break (log, id);
        }
        // The follower was removed too early.
        world.resume(3).await;
        world.discard_since(mark);
    };
    // The follower is removed during this request, which keeps waiting: records on too few replicas are not
    // committed (KIP-966).
    let late = ProduceRequest { timeout_ms: 7_000, ..log.produce(batch(1).stamp(id, 0, 3).to_bytes(), -1) };
    world.record(format!("3, with 7 s: {}", log.produce_by(&late, PRODUCE).await));
    world.wait_until_in_sync(&log, &[2]).await;
    world.record(format!("4, too few in sync: {}", log.append(batch(1).stamp(id, 0, 4)).await));
    world.record(format!("3 again: {}", log.append(batch(1).stamp(id, 0, 3)).await));
    let one = batch(1).stamp(id, 0, 4).to_bytes();
    world.record(format!("4, with acks = 1: {}", log.append_bytes(one, 1).await));
    world.record(format!("latest: {}", log.offset(LATEST, now).await));
    let found = topic_metadata(&mut log.connection, &log.topic).await;
    world.record(format!("looked up: {}", describe::topic(&found)));
    world.resume(3).await;
    world.wait_until_in_sync(&log, &[2, 3]).await;
    until("the high watermark has caught up", async || (log.end().await == 5).then_some(())).await;
    world.record(format!("4 again, all in sync: {}", log.append(batch(1).stamp(id, 0, 4)).await));
    world.record(format!("5: {}", log.append(batch(1).stamp(id, 0, 5)).await));
    world.record(format!("from 0: {}", log.fetch(0).await));
    let found = topic_metadata(&mut log.connection, &log.topic).await;
    world.record(format!("looked up: {}", describe::topic(&found)));
}

/// The part until the follower is removed from the ISR.
async fn silent(world: &mut World, now: i64) -> (Log, i64) {
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("silent", &[2, 3], &[("min.insync.replicas", "2")]).await;
    let id = log.producer_id().await;
    world.record(format!("0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.pause(3).await;
    let soon = |log: &Log, sequence| ProduceRequest {
        timeout_ms: 300,
        ..log.produce(batch(1).stamp(id, 0, sequence).to_bytes(), -1)
    };
    let request = soon(&log, 1);
    world.record(format!("1, with 300 ms: {}", log.produce_by(&request, PRODUCE).await));
    world.record(format!("1 again: {}", log.produce_by(&request, PRODUCE).await));
    let one = batch(1).stamp(id, 0, 2).to_bytes();
    world.record(format!("2, with acks = 1: {}", log.append_bytes(one, 1).await));
    world.record(format!("latest: {}", log.offset(LATEST, now).await));
    world.record(format!("from 0: {}", log.fetch(0).await));
    world.record(format!("from 1: {}", log.fetch(1).await));
    world.record(format!("from 3: {}", log.fetch(3).await));
    world.record(format!("from 4: {}", log.fetch(4).await));
    (log, id)
}

/// Returns whether exactly these replicas are in sync according to broker 1.
async fn is_in_sync(world: &World, log: &Log, nodes: &[i32]) -> bool {
    let mut connection = world.connect().await;
    let mut isr = topic_metadata(&mut connection, &log.topic).await.partitions[0].isr_nodes.clone();
    isr.sort_unstable();
    isr == nodes
}

/// An append that waits for a follower delays all later requests of its connection, but not those of another
/// one.
pub(super) async fn a_connection_that_waits_for_replicas(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("waiting", &[2, 3], &[]).await;
    let other = world.log_on("not-waiting", &[2], &[]).await;
    world.record(format!("by both: {}", log.append(batch(1)).await));
    world.pause(3).await;
    let wait = Duration::from_millis(1_000);
    let request = ProduceRequest { timeout_ms: 1_000, ..log.produce(batch(1).to_bytes(), -1) };
    let started = Instant::now();
    log.connection.send(&request, PRODUCE).await;
    log.connection.send(&other.produce(batch(1).to_bytes(), -1), PRODUCE).await;
    let mut other_connection = world.connect_to(2).await;
    let response = other_connection.call(&other.produce(batch(1).to_bytes(), -1), PRODUCE).await;
    let other_text = describe::produced(&response.responses[0].partition_responses[0]);
    let other_was_immediate = started.elapsed() < wait;
    for what in ["the one that waits", "behind it"] {
        let response = log.connection.read_response::<ProduceRequest>(PRODUCE).await.unwrap();
        let text = describe::produced(&response.responses[0].partition_responses[0]);
        let waited = if started.elapsed() >= wait { "after a second" } else { "at once" };
        world.record(format!("{what}: {waited}, {text}"));
    }
    world.record(format!(
        "on another connection: {}, {other_text}",
        if other_was_immediate { "at once" } else { "after a second" }
    ));
    let mut request = log.delete_records_request(1);
    request.timeout_ms = 300;
    let response = log.connection.call(&request, 2).await;
    let partition = &response.topics[0].partitions[0];
    world.record(format!(
        "records deleted, with 300 ms: {}, low watermark {}",
        describe::code(partition.error_code),
        partition.low_watermark
    ));
    world.resume(3).await;
    until("the follower is back", async || (log.end().await == 2).then_some(())).await;
    world.record(format!("records deleted: {}", log.delete_records(2).await));
}

/// A new leader does not know the high watermark yet: a fetch ends too early, and ListOffsets is rejected
/// (KIP-207).
pub(super) async fn the_end_of_the_log_after_an_election(world: &mut World) {
    let now = world.now_ms();
    let mut log = loop {
        let mark = world.mark();
        let log = elected(world, now).await;
        if is_in_sync(world, &log, &[1, 2, 3]).await {
            break log;
        }
        // A follower was removed too early.
        world.resume(3).await;
        world.discard_since(mark);
    };
    world.resume(3).await;
    until("the end is known", async || {
        (log.offset_response(LATEST, LIST_OFFSETS).await.offset == 3).then_some(())
    })
    .await;
    world.record(format!("then, latest: {}", log.offset(LATEST, now).await));
}

/// The part while a follower is in sync and lacks records.
async fn elected(world: &mut World, now: i64) -> Log {
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("end", &[2, 1, 3], &[("min.insync.replicas", "1")]).await;
    world.record(format!("0: {}", log.append(batch(1)).await));
    until("all brokers know the high watermark", async || {
        for node in [1, 3] {
            let mut follower = world.connect_to(node).await;
            let response = follower.call(&log.fetch_request(0, 1), FETCH).await;
            if response.responses[0].partitions[0].high_watermark != 1 {
                return None;
            }
        }
        Some(())
    })
    .await;
    world.pause(3).await;
    world.record(format!("1, with acks = 1: {}", log.append_bytes(batch(1).to_bytes(), 1).await));
    world.wait_until_replicated(&log, 1, 2 * batch(1).size_in_bytes()).await;
    world.elect(&mut log, 1).await;
    for version in [3, 4, 5, LIST_OFFSETS] {
        for (what, at) in [("latest", LATEST), ("earliest", EARLIEST), ("by a time to come", now + 1)] {
            let response = log.offset_response(at, version).await;
            world.record(format!("ListOffsets {version}, {what}: {}", describe::offset(&response, now)));
        }
    }
    let mut request = log.list_offsets(LATEST);
    request.isolation_level = IsolationLevel::READ_COMMITTED;
    let response = log.connection.call(&request, LIST_OFFSETS).await;
    let text = describe::offset(&response.topics[0].partitions[0], now);
    world.record(format!("ListOffsets {LIST_OFFSETS}, latest, committed: {text}"));
    for epoch in 0..3 {
        world.record(format!("end of epoch {epoch}: {}", log.epoch_end(epoch, -1).await));
    }
    world.record(format!("from 0: {}", log.fetch(0).await));
    world.record(format!("from 2: {}", log.fetch(2).await));
    world.record(format!("from 3: {}", log.fetch(3).await));
    for (last, offset) in [(0, 1), (0, 2), (0, 3), (1, 2)] {
        let text = log.fetch_from((-1, last, offset)).await;
        world.record(format!("last fetched {last}, from {offset}: {text}"));
    }
    let request = ProduceRequest { timeout_ms: 200, ..log.produce(batch(1).to_bytes(), -1) };
    world.record(format!("2: {}", log.produce_by(&request, PRODUCE).await));
    log
}

/// An out-of-sync replica becomes leader: acknowledged records are lost, and their offsets are used again.
pub(super) async fn an_unclean_election(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("unclean", &[2, 3], &[("min.insync.replicas", "1")]).await;
    let id = log.producer_id().await;
    for sequence in 0..2 {
        world.record(format!("{sequence}, by both: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    world.pause_follower(&log, 2, 3).await;
    for sequence in 2..5 {
        world
            .record(format!("{sequence}, by 2 alone: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    world.pause(2).await;
    world.resume(3).await;
    world.wait_for_listed_leader(&log, 1, -1).await;
    world.wait_for_listed_leader(&log, 3, -1).await;
    log.connection = world.connect_to(3).await;
    let found = topic_metadata(&mut log.connection, &log.topic).await;
    world.record(format!("2 is silent: {}", describe::topic(&found)));
    let text = log.append(batch(1).stamp(id, 0, 5)).await;
    // The broker may not know the leader yet.
    world.record(format!("5, to 3: {}", text.split(',').next().unwrap()));
    world.elect_uncleanly(&mut log, 3).await;
    let found = topic_metadata(&mut log.connection, &log.topic).await;
    world.record(format!("3 leads: {}", describe::topic(&found)));
    world.record(format!("latest: {}", log.offset(LATEST, now).await));
    let epoch = found.partitions[0].leader_epoch;
    for before in 0..epoch {
        world.record(format!("end of epoch {before}: {}", log.epoch_end(before, -1).await));
    }
    for (current, last, offset) in
        [(-1, -1, 5), (-1, -1, 4), (-1, 0, 5), (epoch, 0, 5), (epoch, 0, 2), (0, 0, 5)]
    {
        let mut request = log.fetch_request(offset, 1 << 20);
        request.topics[0].partitions[0].current_leader_epoch = current;
        request.topics[0].partitions[0].last_fetched_epoch = last;
        let response = log.connection.call(&request, FETCH).await;
        world.record(format!(
            "current epoch {current}, last fetched {last}, from {offset}: {}",
            describe::fetched(&response.responses[0].partitions[0])
        ));
    }
    world.record(format!("known: {}", log.producers().await));
    for sequence in [5, 4, 3, 1] {
        world.record(format!("{sequence}: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    world.record(format!("2, lost before: {}", log.append(batch(2).stamp(id, 0, 2)).await));
    world.record(format!("by somebody else: {}", log.append(batch(3)).await));
    let mut request = log.fetch_request(5, 1 << 20);
    request.topics[0].partitions[0].last_fetched_epoch = 0;
    let response = log.connection.call(&request, FETCH).await;
    world.record(format!(
        "last fetched 0, from 5: {}",
        describe::fetched(&response.responses[0].partitions[0])
    ));
    world.resume(2).await;
    world.wait_until_in_sync(&log, &[3, 2]).await;
    world.elect(&mut log, 2).await;
    until("the high watermark is known", async || (log.end().await == 7).then_some(())).await;
    world.record(format!("2 leads again, from 0: {}", log.fetch(0).await));
    for epoch in 0..epoch + 2 {
        world.record(format!("end of epoch {epoch}: {}", log.epoch_end(epoch, -1).await));
    }
}

/// The controller fences it after a while. Partitions without other replicas have no leader meanwhile. After
/// the restart, its log and its producer states are there, including fences.
pub(super) async fn brokers_killed_and_restarted(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut alone = world.log_on("alone", &[3], &[]).await;
    let mut both = world.log_on("both", &[3, 2], &[("min.insync.replicas", "1")]).await;
    let id = alone.producer_id().await;
    for log in [&mut alone, &mut both] {
        for (who, epoch, sequence) in [("A", 0, 0), ("B", 1, 0)] {
            let text = log.append(batch(1).stamp(id, epoch, sequence)).await;
            world.record(format!("{}: {who} {sequence}: {text}", log.topic));
        }
    }
    world.kill(3).await;
    let found = alone.connection.try_call(&ApiVersionsRequest::default(), 0).await;
    world.record(format!("its connections: {}", if found.is_some() { "answer" } else { "are closed" }));
    world.wait_for_listed_leader(&alone, 1, -1).await;
    world.wait_for_listed_leader(&both, 1, 2).await;
    let mut connection = world.connect().await;
    for log in [&alone, &both] {
        let found = topic_metadata(&mut connection, &log.topic).await;
        world.record(format!("killed: {}", describe::topic(&found)));
    }
    world.record(format!("brokers told: {}", connection.brokers().await));
    alone.connection = world.connect().await;
    world.record(format!("an append to another broker: {}", alone.append(batch(1)).await));
    world.wait_for_leader(&mut both, 2).await;
    world.record(format!("at 2, A 1: {}", both.append(batch(1).stamp(id, 0, 1)).await));
    world.record(format!("at 2, B 0 again: {}", both.append(batch(1).stamp(id, 1, 0)).await));
    world.record(format!("at 2, B 1: {}", both.append(batch(1).stamp(id, 1, 1)).await));
    world.start(3).await;
    world.wait_for_leader(&mut alone, 3).await;
    world.wait_until_in_sync(&both, &[2, 3]).await;
    for log in [&mut alone, &mut both] {
        let found = topic_metadata(&mut log.connection, &log.topic).await;
        world.record(format!("restarted: {}", describe::topic(&found)));
    }
    for (who, epoch, sequence) in [("A", 0, 1), ("A", 0, 0), ("B", 1, 0), ("B", 1, 1)] {
        let text = alone.append(batch(1).stamp(id, epoch, sequence)).await;
        world.record(format!("restarted, {who} {sequence}: {text}"));
    }
    world.record(format!("from 0: {}", alone.fetch(0).await));
    world.record(format!("end of epoch 0: {}", alone.epoch_end(0, -1).await));
}

/// Its leaderships move before it stops.
pub(super) async fn a_broker_that_shuts_down(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("given", &[3, 2], &[("min.insync.replicas", "1")]).await;
    let id = log.producer_id().await;
    world.record(format!("0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.stop(3).await;
    world.wait_for_leader(&mut log, 2).await;
    let found = topic_metadata(&mut log.connection, &log.topic).await;
    world.record(format!("shut down: {}", describe::topic(&found)));
    world.record(format!("1: {}", log.append(batch(1).stamp(id, 0, 1)).await));
    world.start(3).await;
    world.wait_until_in_sync(&log, &[2, 3]).await;
    let found = topic_metadata(&mut log.connection, &log.topic).await;
    world.record(format!("back: {}", describe::topic(&found)));
    world.record(format!("from 0: {}", log.fetch(0).await));
}

/// Any broker accepts a topic and forwards the request to the controller.
pub(super) async fn topics_of_three_brokers(world: &mut World) {
    for (what, node, partitions, factor) in [
        ("four replicas", 3, 1, 4),
        ("three replicas", 2, 2, 3),
        ("the broker's numbers", 3, -1, -1),
        ("two", 1, 4, 2),
    ] {
        let mut connection = world.connect_to(node).await;
        let name = world.name(&what.replace([' ', '\''], "-"));
        let topic = CreatableTopic {
            name: name.clone(),
            num_partitions: partitions,
            replication_factor: factor,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let response = connection.call(&request, 7).await;
        world.record(format!("{what}, of broker {node}: {}", describe::created(&response.topics[0])));
        if response.topics[0].error_code == ErrorCode::NONE {
            world.wait_for_topic(&name).await;
            let found = topic_metadata(&mut connection, &name).await;
            let leaders: BTreeSet<i32> = found.partitions.iter().map(|each| each.leader_id).collect();
            let preferred = found.partitions.iter().all(|each| each.replica_nodes[0] == each.leader_id);
            let replicas: BTreeSet<usize> =
                found.partitions.iter().map(|each| each.replica_nodes.len()).collect();
            let different = found.partitions.iter().all(|each| {
                each.replica_nodes.iter().collect::<BTreeSet<_>>().len() == each.replica_nodes.len()
            });
            world.record(format!(
                "  {} partitions, led by {} brokers, the first of the replicas leads: {preferred}, \
                 {replicas:?} replicas on different brokers: {different}",
                found.partitions.len(),
                leaders.len(),
            ));
        }
    }
    let mut connection = world.connect_to(3).await;
    let name = world.name("uneven");
    let uneven = world.creatable(&name, &[&[1, 2], &[3]], &[]);
    let request = CreateTopicsRequest { topics: vec![uneven], ..CreateTopicsRequest::default() };
    let response = connection.call(&request, 7).await;
    world.record(format!("uneven: {}", describe::created(&response.topics[0])));
    let request = MetadataRequest { topics: Some(Vec::<MetadataTopic>::new()), ..MetadataRequest::default() };
    let mut brokers = connection.call(&request, 12).await.brokers;
    brokers.sort_by_key(|broker| broker.node_id);
    let text: Vec<String> = brokers
        .iter()
        .map(|broker| format!("{} at {}:{}", broker.node_id, broker.host, broker.port))
        .collect();
    world.record(format!("brokers: {}", text.join(", ")));
}
