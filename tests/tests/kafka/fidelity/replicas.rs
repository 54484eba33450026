//! Followers, elections, and brokers that fall silent, end and come back.
//!
//! The records are of now: these brokers look often for producers to forget, and go by the times of their records.

use std::collections::BTreeSet;
use std::time::Duration;

use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    ApiVersionsRequest, CreatableTopic, CreateTopicsRequest, FetchRequest, MetadataRequest, MetadataTopic,
    ProduceRequest,
};
use tokio::time::Instant;

use super::log::{EARLIEST, FETCH, LATEST, LIST_OFFSETS, Log, PRODUCE, batch_of};
use super::tell;
use super::world::{World, topic_metadata, until};

/// A follower, and a broker without a replica. From Produce 10 and Fetch 16 on the answer names the leader (KIP-951); from
/// Fetch 11 on a follower answers consumers (KIP-392).
pub(super) async fn requests_to_brokers_that_do_not_lead(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("elsewhere", &[2, 3], &[]).await;
    world.saw(format!("the leader: {}", log.append(batch(1)).await));
    log.link = world.link_to(3).await;
    // A follower hears of the high watermark with its next fetch.
    until("the follower has it", async || {
        (log.fetch_answer(0, 1 << 20).await.high_watermark == 1).then_some(())
    })
    .await;
    for (who, node) in [("a follower", 3), ("another", 1)] {
        log.link = world.link_to(node).await;
        for version in [9, 10, 11] {
            let request = log.produce(batch(1).to_bytes(), -1);
            let answer = log.link.call(&request, version).await;
            let endpoints: Vec<String> = answer
                .node_endpoints
                .iter()
                .map(|endpoint| format!("{} at {}:{}", endpoint.node_id, endpoint.host, endpoint.port))
                .collect();
            let told = tell::produced(&answer.responses[0].partition_responses[0]);
            world.saw(format!("Produce {version} to {who}: {told}; endpoints [{}]", endpoints.join(", ")));
        }
        for version in [4, 10, 11, 12, 15, 16, 17] {
            let request = log.fetch_request(0, 1 << 20);
            let answer = log.link.call(&request, version).await;
            let endpoints: Vec<String> = answer
                .node_endpoints
                .iter()
                .map(|endpoint| format!("{} at {}:{}", endpoint.node_id, endpoint.host, endpoint.port))
                .collect();
            let told = tell::fetched(&answer.responses[0].partitions[0]);
            world.saw(format!("Fetch {version} to {who}: {told}; endpoints [{}]", endpoints.join(", ")));
        }
        world.saw(format!("ListOffsets to {who}: {}", log.offset(LATEST, now).await));
        world.saw(format!("OffsetForLeaderEpoch to {who}: {}", log.epoch_end(0, -1).await));
        world.saw(format!("DeleteRecords to {who}: {}", log.delete_records(1).await));
        world.saw(format!("DescribeProducers to {who}: {}", log.producers().await));
        log.link.send(&log.produce(batch(1).to_bytes(), 0), PRODUCE).await;
        let answer = log.link.ask(&ApiVersionsRequest::default(), 0).await;
        world.saw(format!("acks = 0 to {who}: {}", if answer.is_some() { "goes on" } else { "hangs up" }));
    }
}

/// What a producer and a reader of before meet at the new leader, and at the old one.
pub(super) async fn a_leader_that_moves(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("moved", &[2, 3], &[]).await;
    let id = log.producer_id().await;
    for sequence in 0..2 {
        world.saw(format!("{sequence} at 2: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    world.elect(&mut log, 3).await;
    until("the high watermark is known", async || {
        (log.fetch_answer(0, 1).await.high_watermark == 2).then_some(())
    })
    .await;
    let found = topic_metadata(&mut log.link, &log.topic).await;
    world.saw(format!(
        "3 leads: leader {}, epoch {}",
        found.partitions[0].leader_id, found.partitions[0].leader_epoch
    ));
    world.saw(format!("1 again at 3: {}", log.append(batch(1).stamp(id, 0, 1)).await));
    world.saw(format!("2 at 3: {}", log.append(batch(1).stamp(id, 0, 2)).await));
    world.saw(format!("from 0: {}", log.fetch(0).await));
    for (epoch, current) in [(0, 1), (1, 1), (0, 0), (2, 1), (0, 2)] {
        world
            .saw(format!("end of epoch {epoch}, current {current}: {}", log.epoch_end(epoch, current).await));
    }
    for (current, last, offset) in
        [(0, -1, 2), (1, -1, 2), (2, -1, 2), (1, 0, 2), (1, 0, 3), (1, 1, 3), (1, 1, 2)]
    {
        let mut request = log.fetch_request(offset, 1 << 20);
        request.topics[0].partitions[0].current_leader_epoch = current;
        request.topics[0].partitions[0].last_fetched_epoch = last;
        let answer = log.link.call(&request, FETCH).await;
        world.saw(format!(
            "current epoch {current}, last fetched {last}, from {offset}: {}",
            tell::fetched(&answer.responses[0].partitions[0])
        ));
    }
    for (what, at) in [("earliest", EARLIEST), ("latest", LATEST), ("by time", now)] {
        world.saw(format!("{what}: {}", log.offset(at, now).await));
    }
    log.link = world.link_to(2).await;
    until("2 knows", async || {
        let answer = log.link.call(&log.fetch_request(0, 1), 10).await;
        (answer.responses[0].partitions[0].error_code == ErrorCode::NOT_LEADER_OR_FOLLOWER).then_some(())
    })
    .await;
    world.saw(format!("an append at 2: {}", log.append(batch(1).stamp(id, 0, 3)).await));
    let mut request = log.fetch_request(0, 1 << 20);
    request.topics[0].topic_id = log.id;
    let answer = log.link.call(&FetchRequest { rack_id: String::new(), ..request }, 10).await;
    world.saw(format!("Fetch 10 at 2: {}", tell::fetched(&answer.responses[0].partitions[0])));
}

/// A log is whole, and the epoch that its reader knows of ends before what it has read.
pub(super) async fn an_epoch_that_rose_unseen(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("unseen", &[2, 3], &[]).await;
    log.append(batch(1)).await;
    world.elect(&mut log, 3).await;
    world.elect(&mut log, 2).await;
    world.saw(format!("the second: {}", log.append(batch(1)).await));
    for epoch in 0..4 {
        world.saw(format!("end of epoch {epoch}: {}", log.epoch_end(epoch, -1).await));
    }
    world.saw(format!("from 0: {}", log.fetch(0).await));
}

/// The leader has appended and waits: nobody knows what becomes of it. When the follower is given up, there are too few in sync.
pub(super) async fn a_follower_that_falls_silent(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let (mut log, id) = loop {
        let mark = world.mark();
        let (log, id) = silent(world, now).await;
        if is_in_sync(world, &log, &[2, 3]).await {
            break (log, id);
        }
        // It was given up too soon.
        world.resume(3).await;
        world.forget_since(mark);
    };
    // The controller gives the follower up meanwhile, and the request waits on: what too few have is not committed (KIP-966).
    let late = ProduceRequest { timeout_ms: 7_000, ..log.produce(batch(1).stamp(id, 0, 3).to_bytes(), -1) };
    world.saw(format!("3, with 7 s: {}", log.produce_by(&late, PRODUCE).await));
    world.wait_until_in_sync(&log, &[2]).await;
    world.saw(format!("4, too few in sync: {}", log.append(batch(1).stamp(id, 0, 4)).await));
    world.saw(format!("3 again: {}", log.append(batch(1).stamp(id, 0, 3)).await));
    let one = batch(1).stamp(id, 0, 4).to_bytes();
    world.saw(format!("4, with acks = 1: {}", log.append_bytes(one, 1).await));
    world.saw(format!("latest: {}", log.offset(LATEST, now).await));
    let found = topic_metadata(&mut log.link, &log.topic).await;
    world.saw(format!("looked up: {}", tell::topic(&found)));
    world.resume(3).await;
    world.wait_until_in_sync(&log, &[2, 3]).await;
    until("the high watermark has caught up", async || (log.end().await == 5).then_some(())).await;
    world.saw(format!("4 again, all in sync: {}", log.append(batch(1).stamp(id, 0, 4)).await));
    world.saw(format!("5: {}", log.append(batch(1).stamp(id, 0, 5)).await));
    world.saw(format!("from 0: {}", log.fetch(0).await));
    let found = topic_metadata(&mut log.link, &log.topic).await;
    world.saw(format!("looked up: {}", tell::topic(&found)));
}

/// Up to the moment when the follower is given up.
async fn silent(world: &mut World, now: i64) -> (Log, i64) {
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("silent", &[2, 3], &[("min.insync.replicas", "2")]).await;
    let id = log.producer_id().await;
    world.saw(format!("0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.pause(3).await;
    let soon = |log: &Log, sequence| ProduceRequest {
        timeout_ms: 300,
        ..log.produce(batch(1).stamp(id, 0, sequence).to_bytes(), -1)
    };
    let request = soon(&log, 1);
    world.saw(format!("1, with 300 ms: {}", log.produce_by(&request, PRODUCE).await));
    world.saw(format!("1 again: {}", log.produce_by(&request, PRODUCE).await));
    let one = batch(1).stamp(id, 0, 2).to_bytes();
    world.saw(format!("2, with acks = 1: {}", log.append_bytes(one, 1).await));
    world.saw(format!("latest: {}", log.offset(LATEST, now).await));
    world.saw(format!("from 0: {}", log.fetch(0).await));
    world.saw(format!("from 1: {}", log.fetch(1).await));
    world.saw(format!("from 3: {}", log.fetch(3).await));
    world.saw(format!("from 4: {}", log.fetch(4).await));
    (log, id)
}

/// As broker 1 says.
async fn is_in_sync(world: &World, log: &Log, nodes: &[i32]) -> bool {
    let mut link = world.link().await;
    let mut isr = topic_metadata(&mut link, &log.topic).await.partitions[0].isr_nodes.clone();
    isr.sort_unstable();
    isr == nodes
}

/// While an append waits for a follower, so does all that follows on its connection; on another one, nothing does.
pub(super) async fn a_connection_that_waits_for_replicas(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("waiting", &[2, 3], &[]).await;
    let other = world.log_on("not-waiting", &[2], &[]).await;
    world.saw(format!("by both: {}", log.append(batch(1)).await));
    world.pause(3).await;
    let wait = Duration::from_millis(1_000);
    let request = ProduceRequest { timeout_ms: 1_000, ..log.produce(batch(1).to_bytes(), -1) };
    let started = Instant::now();
    log.link.send(&request, PRODUCE).await;
    log.link.send(&other.produce(batch(1).to_bytes(), -1), PRODUCE).await;
    let mut aside = world.link_to(2).await;
    let answer = aside.call(&other.produce(batch(1).to_bytes(), -1), PRODUCE).await;
    let beside = tell::produced(&answer.responses[0].partition_responses[0]);
    let beside_in_time = started.elapsed() < wait;
    for what in ["the one that waits", "behind it"] {
        let answer = log.link.answer::<ProduceRequest>(PRODUCE).await.unwrap();
        let told = tell::produced(&answer.responses[0].partition_responses[0]);
        let waited = if started.elapsed() >= wait { "after a second" } else { "at once" };
        world.saw(format!("{what}: {waited}, {told}"));
    }
    world.saw(format!(
        "on another connection: {}, {beside}",
        if beside_in_time { "at once" } else { "after a second" }
    ));
    let mut request = log.delete_records_request(1);
    request.timeout_ms = 300;
    let answer = log.link.call(&request, 2).await;
    let partition = &answer.topics[0].partitions[0];
    world.saw(format!(
        "records deleted, with 300 ms: {}, low watermark {}",
        tell::code(partition.error_code),
        partition.low_watermark
    ));
    world.resume(3).await;
    until("the follower is back", async || (log.end().await == 2).then_some(())).await;
    world.saw(format!("records deleted: {}", log.delete_records(2).await));
}

/// A new leader does not know yet how much is committed: a fetch ends too early, and ListOffsets is withheld (KIP-207).
pub(super) async fn the_end_of_the_log_after_an_election(world: &mut World) {
    let now = world.now_ms();
    let mut log = loop {
        let mark = world.mark();
        let log = elected(world, now).await;
        if is_in_sync(world, &log, &[1, 2, 3]).await {
            break log;
        }
        // A follower was given up too soon.
        world.resume(3).await;
        world.forget_since(mark);
    };
    world.resume(3).await;
    until("the end is known", async || {
        (log.offset_answer(LATEST, LIST_OFFSETS).await.offset == 3).then_some(())
    })
    .await;
    world.saw(format!("then, latest: {}", log.offset(LATEST, now).await));
}

/// While a follower that is still in sync has not got all.
async fn elected(world: &mut World, now: i64) -> Log {
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("end", &[2, 1, 3], &[("min.insync.replicas", "1")]).await;
    world.saw(format!("0: {}", log.append(batch(1)).await));
    until("all know that it is committed", async || {
        for node in [1, 3] {
            let mut follower = world.link_to(node).await;
            let answer = follower.call(&log.fetch_request(0, 1), FETCH).await;
            if answer.responses[0].partitions[0].high_watermark != 1 {
                return None;
            }
        }
        Some(())
    })
    .await;
    world.pause(3).await;
    world.saw(format!("1, with acks = 1: {}", log.append_bytes(batch(1).to_bytes(), 1).await));
    world.wait_until_copied(&log, 1, 2 * batch(1).size_in_bytes()).await;
    world.elect(&mut log, 1).await;
    for version in [3, 4, 5, LIST_OFFSETS] {
        for (what, at) in [("latest", LATEST), ("earliest", EARLIEST), ("by a time to come", now + 1)] {
            let answer = log.offset_answer(at, version).await;
            world.saw(format!("ListOffsets {version}, {what}: {}", tell::offset(&answer, now)));
        }
    }
    world.saw(format!("from 0: {}", log.fetch(0).await));
    world.saw(format!("from 2: {}", log.fetch(2).await));
    world.saw(format!("from 3: {}", log.fetch(3).await));
    let request = ProduceRequest { timeout_ms: 200, ..log.produce(batch(1).to_bytes(), -1) };
    world.saw(format!("2: {}", log.produce_by(&request, PRODUCE).await));
    log
}

/// A replica that has not got all becomes leader: acknowledged records are lost, and their offsets used again.
pub(super) async fn an_unclean_election(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("unclean", &[2, 3], &[("min.insync.replicas", "1")]).await;
    let id = log.producer_id().await;
    for sequence in 0..2 {
        world.saw(format!("{sequence}, by both: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    world.pause(3).await;
    world.wait_until_in_sync(&log, &[2]).await;
    for sequence in 2..5 {
        world.saw(format!("{sequence}, by 2 alone: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    world.pause(2).await;
    world.resume(3).await;
    world.wait_until_told(&log, 1, -1).await;
    world.wait_until_told(&log, 3, -1).await;
    log.link = world.link_to(3).await;
    let found = topic_metadata(&mut log.link, &log.topic).await;
    world.saw(format!("2 is silent: {}", tell::topic(&found)));
    let told = log.append(batch(1).stamp(id, 0, 5)).await;
    // Who leads it may not have heard yet.
    world.saw(format!("5, to 3: {}", told.split(',').next().unwrap()));
    world.elect_uncleanly(&mut log, 3).await;
    let found = topic_metadata(&mut log.link, &log.topic).await;
    world.saw(format!("3 leads: {}", tell::topic(&found)));
    world.saw(format!("latest: {}", log.offset(LATEST, now).await));
    let epoch = found.partitions[0].leader_epoch;
    for before in 0..epoch {
        world.saw(format!("end of epoch {before}: {}", log.epoch_end(before, -1).await));
    }
    for (current, last, offset) in
        [(-1, -1, 5), (-1, -1, 4), (-1, 0, 5), (epoch, 0, 5), (epoch, 0, 2), (0, 0, 5)]
    {
        let mut request = log.fetch_request(offset, 1 << 20);
        request.topics[0].partitions[0].current_leader_epoch = current;
        request.topics[0].partitions[0].last_fetched_epoch = last;
        let answer = log.link.call(&request, FETCH).await;
        world.saw(format!(
            "current epoch {current}, last fetched {last}, from {offset}: {}",
            tell::fetched(&answer.responses[0].partitions[0])
        ));
    }
    world.saw(format!("known: {}", log.producers().await));
    for sequence in [5, 4, 3, 1] {
        world.saw(format!("{sequence}: {}", log.append(batch(1).stamp(id, 0, sequence)).await));
    }
    world.saw(format!("2, lost before: {}", log.append(batch(2).stamp(id, 0, 2)).await));
    world.saw(format!("by somebody else: {}", log.append(batch(3)).await));
    let mut request = log.fetch_request(5, 1 << 20);
    request.topics[0].partitions[0].last_fetched_epoch = 0;
    let answer = log.link.call(&request, FETCH).await;
    world.saw(format!("last fetched 0, from 5: {}", tell::fetched(&answer.responses[0].partitions[0])));
    world.resume(2).await;
    world.wait_until_in_sync(&log, &[3, 2]).await;
    world.elect(&mut log, 2).await;
    until("its end is known", async || (log.end().await == 7).then_some(())).await;
    world.saw(format!("2 leads again, from 0: {}", log.fetch(0).await));
    for epoch in 0..epoch + 2 {
        world.saw(format!("end of epoch {epoch}: {}", log.epoch_end(epoch, -1).await));
    }
}

/// The controller gives it up after a while. What it alone has is nowhere meanwhile; what others have too, they lead. Its log
/// and what it knows of producers are there when it is back, fences too.
pub(super) async fn brokers_killed_and_restarted(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut alone = world.log_on("alone", &[3], &[]).await;
    let mut both = world.log_on("both", &[3, 2], &[("min.insync.replicas", "1")]).await;
    let id = alone.producer_id().await;
    for log in [&mut alone, &mut both] {
        for (who, epoch, sequence) in [("A", 0, 0), ("B", 1, 0)] {
            let told = log.append(batch(1).stamp(id, epoch, sequence)).await;
            world.saw(format!("{}: {who} {sequence}: {told}", log.topic));
        }
    }
    world.kill(3).await;
    let found = alone.link.ask(&ApiVersionsRequest::default(), 0).await;
    world.saw(format!("its connections: {}", if found.is_some() { "answer" } else { "are closed" }));
    world.wait_until_told(&alone, 1, -1).await;
    world.wait_until_told(&both, 1, 2).await;
    let mut link = world.link().await;
    for log in [&alone, &both] {
        let found = topic_metadata(&mut link, &log.topic).await;
        world.saw(format!("killed: {}", tell::topic(&found)));
    }
    world.saw(format!("brokers told: {}", link.brokers().await));
    alone.link = world.link().await;
    world.saw(format!("an append to another broker: {}", alone.append(batch(1)).await));
    world.wait_for_leader(&mut both, 2).await;
    world.saw(format!("at 2, A 1: {}", both.append(batch(1).stamp(id, 0, 1)).await));
    world.saw(format!("at 2, B 0 again: {}", both.append(batch(1).stamp(id, 1, 0)).await));
    world.saw(format!("at 2, B 1: {}", both.append(batch(1).stamp(id, 1, 1)).await));
    world.start(3).await;
    world.wait_for_leader(&mut alone, 3).await;
    world.wait_until_in_sync(&both, &[2, 3]).await;
    for log in [&mut alone, &mut both] {
        let found = topic_metadata(&mut log.link, &log.topic).await;
        world.saw(format!("restarted: {}", tell::topic(&found)));
    }
    for (who, epoch, sequence) in [("A", 0, 1), ("A", 0, 0), ("B", 1, 0), ("B", 1, 1)] {
        let told = alone.append(batch(1).stamp(id, epoch, sequence)).await;
        world.saw(format!("restarted, {who} {sequence}: {told}"));
    }
    world.saw(format!("from 0: {}", alone.fetch(0).await));
    world.saw(format!("end of epoch 0: {}", alone.epoch_end(0, -1).await));
}

/// It gives its partitions away first, at once.
pub(super) async fn a_broker_that_shuts_down(world: &mut World) {
    let now = world.now_ms();
    let batch = |count| batch_of(count, now);
    let mut log = world.log_on("given", &[3, 2], &[("min.insync.replicas", "1")]).await;
    let id = log.producer_id().await;
    world.saw(format!("0: {}", log.append(batch(1).stamp(id, 0, 0)).await));
    world.stop(3).await;
    world.wait_for_leader(&mut log, 2).await;
    let found = topic_metadata(&mut log.link, &log.topic).await;
    world.saw(format!("shut down: {}", tell::topic(&found)));
    world.saw(format!("1: {}", log.append(batch(1).stamp(id, 0, 1)).await));
    world.start(3).await;
    world.wait_until_in_sync(&log, &[2, 3]).await;
    let found = topic_metadata(&mut log.link, &log.topic).await;
    world.saw(format!("back: {}", tell::topic(&found)));
    world.saw(format!("from 0: {}", log.fetch(0).await));
}

/// Any broker takes a topic and passes it on to the controller.
pub(super) async fn topics_of_three_brokers(world: &mut World) {
    for (what, node, partitions, factor) in [
        ("four replicas", 3, 1, 4),
        ("three replicas", 2, 2, 3),
        ("the broker's numbers", 3, -1, -1),
        ("two", 1, 4, 2),
    ] {
        let mut link = world.link_to(node).await;
        let name = world.name(&what.replace([' ', '\''], "-"));
        let topic = CreatableTopic {
            name: name.clone(),
            num_partitions: partitions,
            replication_factor: factor,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let answer = link.call(&request, 7).await;
        world.saw(format!("{what}, of broker {node}: {}", tell::created(&answer.topics[0])));
        if answer.topics[0].error_code == ErrorCode::NONE {
            world.wait_for_topic(&name).await;
            let found = topic_metadata(&mut link, &name).await;
            let leaders: BTreeSet<i32> = found.partitions.iter().map(|each| each.leader_id).collect();
            let preferred = found.partitions.iter().all(|each| each.replica_nodes[0] == each.leader_id);
            let replicas: BTreeSet<usize> =
                found.partitions.iter().map(|each| each.replica_nodes.len()).collect();
            let different = found.partitions.iter().all(|each| {
                each.replica_nodes.iter().collect::<BTreeSet<_>>().len() == each.replica_nodes.len()
            });
            world.saw(format!(
                "  {} partitions, led by {} brokers, the first of the replicas leads: {preferred}, \
                 {replicas:?} replicas on different brokers: {different}",
                found.partitions.len(),
                leaders.len(),
            ));
        }
    }
    let mut link = world.link_to(3).await;
    let name = world.name("uneven");
    let uneven = world.creatable(&name, &[&[1, 2], &[3]], &[]);
    let request = CreateTopicsRequest { topics: vec![uneven], ..CreateTopicsRequest::default() };
    let answer = link.call(&request, 7).await;
    world.saw(format!("uneven: {}", tell::created(&answer.topics[0])));
    let request = MetadataRequest { topics: Some(Vec::<MetadataTopic>::new()), ..MetadataRequest::default() };
    let mut brokers = link.call(&request, 12).await.brokers;
    brokers.sort_by_key(|broker| broker.node_id);
    let told: Vec<String> = brokers
        .iter()
        .map(|broker| format!("{} at {}:{}", broker.node_id, broker.host, broker.port))
        .collect();
    world.saw(format!("brokers: {}", told.join(", ")));
}
