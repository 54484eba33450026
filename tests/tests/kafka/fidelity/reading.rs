//! Fetches, offsets and leader epochs.

use std::time::Duration;

use kwal_protocol::messages::{FetchRequest, FetchTopic, ListOffsetsPartition, ListOffsetsRequest};
use kwal_protocol::record::{BatchBuilder, Compression};
use kwal_protocol::wire::Uuid;
use tokio::time::Instant;

use super::describe;
use super::log::{EARLIEST, FETCH, LATEST, Log, MAX_TIMESTAMP, NO_HEADERS, PRODUCE, TIME, batch, batch_at};
use super::world::World;

/// A fetch may begin within a batch. The response contains the first batch regardless of the limit, and then
/// what fits.
pub(super) async fn fetches(world: &mut World) {
    let mut log = world.log("fetched", &[]).await;
    for _ in 0..3 {
        log.append(batch(5)).await;
    }
    let size = i32::try_from(batch(5).size_in_bytes()).unwrap();
    for offset in [0, 7, 14, 15, 16, 1_000, -1, i64::MAX] {
        world.record(format!("from {offset}: {}", log.fetch(offset).await));
    }
    for (what, limit) in [
        ("0", 0),
        ("1", 1),
        ("a batch", size),
        ("a batch and a byte", size + 1),
        ("a batch and a header", size + 61),
        ("two batches", 2 * size),
        ("-1", -1),
    ] {
        world.record(format!("{what} bytes from 5: {}", log.fetch_up_to(5, limit).await));
    }
}

/// `max_bytes` limits all partitions together, and `partition_max_bytes` each of them.
pub(super) async fn limits_of_a_whole_request(world: &mut World) {
    let mut logs = Vec::new();
    for name in ["one", "two", "three"] {
        let mut log = world.log(name, &[]).await;
        if name != "one" {
            log.append(batch(5)).await;
        }
        logs.push(log);
    }
    let size = i32::try_from(batch(5).size_in_bytes()).unwrap();
    let topics: Vec<FetchTopic> =
        logs.iter().flat_map(|log: &Log| log.fetch_request(0, 1 << 20).topics).collect();
    let mut connection = world.connect().await;
    for (what, max_bytes) in [("0", 0), ("a batch", size), ("a batch and 10", size + 10), ("two", 2 * size)] {
        let request = FetchRequest { max_bytes, topics: topics.clone(), ..FetchRequest::default() };
        let response = connection.call(&request, FETCH).await;
        world.record(format!("{what} bytes: {}", describe::code(response.error_code)));
        for topic in &response.responses {
            world.record(format!("  {}: {}", topic.topic, describe::fetched(&topic.partitions[0])));
        }
    }
}

pub(super) async fn a_long_poll(world: &mut World) {
    let mut log = world.log("polled", &[]).await;
    log.append(batch(1)).await;
    for (what, offset, min_bytes, max_wait_ms) in [
        ("nothing there", 1, 1, 400),
        ("nothing wanted", 1, 0, 30_000),
        ("enough there", 0, 1, 30_000),
        ("out of range", 5, 1, 30_000),
        ("not enough", 0, 100_000, 400),
    ] {
        let started = Instant::now();
        let request = FetchRequest { max_wait_ms, min_bytes, ..log.fetch_request(offset, 1 << 20) };
        let response = log.connection.call(&request, FETCH).await;
        let waited =
            if started.elapsed() >= Duration::from_millis(395) { "after its time" } else { "at once" };
        world
            .record(format!("{what}: {waited}, {}", describe::fetched(&response.responses[0].partitions[0])));
    }
}

/// Appends end the wait when there are enough bytes.
pub(super) async fn a_long_poll_that_ends_early(world: &mut World) {
    let mut log = world.log("woken", &[]).await;
    let mut writer = world.connect().await;
    let min_bytes = i32::try_from(batch(1).size_in_bytes() * 2).unwrap();
    let waiting = FetchRequest { max_wait_ms: 30_000, min_bytes, ..log.fetch_request(0, 1 << 20) };
    let append = log.produce(batch(1).to_bytes(), -1);
    let started = Instant::now();
    let (response, ()) = tokio::join!(log.connection.call(&waiting, FETCH), async {
        writer.call(&append, PRODUCE).await;
        writer.call(&append, PRODUCE).await;
    });
    let waited = if started.elapsed() < Duration::from_secs(20) { "early" } else { "after its time" };
    world.record(format!("{waited}, {}", describe::fetched(&response.responses[0].partitions[0])));
}

/// By timestamp: the first record that is not older.
pub(super) async fn offsets(world: &mut World) {
    let mut log = world.log("offsets", &[]).await;
    let ends = [("earliest", EARLIEST), ("latest", LATEST), ("newest", MAX_TIMESTAMP)];
    for (what, at) in ends {
        world.record(format!("{what} of an empty log: {}", log.offset(at, TIME).await));
    }
    world.record(format!("by time in an empty log: {}", log.offset(TIME, TIME).await));
    let mut times = BatchBuilder::new(Compression::Lz4);
    for ms in [10, 30, 20] {
        times.push(TIME + ms, None, Some(b"v"), NO_HEADERS);
    }
    log.append(times.finish().unwrap()).await;
    log.append(batch_at(&[TIME, TIME + 30])).await;
    for (what, at) in ends {
        world.record(format!("{what}: {}", log.offset(at, TIME).await));
    }
    for ms in [0, 10, 11, 20, 30, 31] {
        world.record(format!("{ms} ms: {}", log.offset(TIME + ms, TIME).await));
    }
    world.record(format!("the time 0: {}", log.offset(0, TIME).await));
    world.record(format!("records before 2 deleted: {}", log.delete_records(2).await));
    for (what, at) in ends {
        world.record(format!("{what}: {}", log.offset(at, TIME).await));
    }
    world.record(format!("10 ms: {}", log.offset(TIME + 10, TIME).await));
    world.record(format!("all records deleted: {}", log.delete_records(-1).await));
    for (what, at) in ends {
        world.record(format!("{what}: {}", log.offset(at, TIME).await));
    }
}

/// Special timestamps of later versions, and old versions.
pub(super) async fn offsets_of_old_and_odd_kinds(world: &mut World) {
    let mut log = world.log("odd-offsets", &[]).await;
    log.append(batch_at(&[TIME, TIME + 5])).await;
    log.append(batch_at(&[TIME + 3])).await;
    log.delete_records(1).await;
    for (version, timestamps) in [
        (1, &[-1, -2, -3, TIME][..]),
        (3, &[-1]),
        (4, &[-1, -2, TIME]),
        (6, &[-3]),
        (7, &[-3, -4, -7, i64::MIN]),
        (8, &[-4, -5]),
        (9, &[-5, -6]),
        (11, &[-1, -2, -3, -4, -5, -6, -7, TIME + 4]),
    ] {
        if log.connection.versions_of::<ListOffsetsRequest>().newest < version {
            world.record(format!("ListOffsets {version}: not spoken"));
            continue;
        }
        for timestamp in timestamps {
            let response = log.offset_response(*timestamp, version).await;
            let what = if *timestamp > 0 { format!("+{}", timestamp - TIME) } else { timestamp.to_string() };
            world.record(format!("ListOffsets {version} of {what}: {}", describe::offset(&response, TIME)));
        }
    }
    for partition in [1, -1] {
        log.partition = partition;
        world.record(format!("partition {partition}: {}", log.offset(LATEST, TIME).await));
    }
    log.partition = 0;
    let request = log.list_offsets(LATEST);
    let twice: Vec<ListOffsetsPartition> = [&request.topics[0].partitions[..]; 2].concat();
    let mut request = request;
    request.topics[0].partitions = twice;
    // Some versions return one offset and some two.
    let response = log.connection.call(&request, 7).await;
    world.record(format!("asked twice: {}", describe::offset(&response.topics[0].partitions[0], TIME)));
    log.topic = world.name("no-offsets");
    world.record(format!("of no topic: {}", log.offset(LATEST, TIME).await));
}

/// The first leader's epoch is 0.
pub(super) async fn leader_epochs_of_one_leader(world: &mut World) {
    let mut log = world.log("epoch-ends", &[]).await;
    world.record(format!("epoch 0 of an empty log: {}", log.epoch_end(0, -1).await));
    log.append(batch(3)).await;
    for (epoch, current) in [(0, -1), (0, 0), (0, 1), (1, -1), (1, 0), (-1, -1), (0, -2), (-5, 0)] {
        world.record(format!("epoch {epoch}, current {current}: {}", log.epoch_end(epoch, current).await));
    }
    log.partition = 1;
    world.record(format!("partition 1: {}", log.epoch_end(0, -1).await));
    log.partition = 0;
    log.topic = world.name("no-epochs");
    world.record(format!("of no topic: {}", log.epoch_end(0, -1).await));
}

/// KIP-320 and KIP-595: the request contains the epochs that the reader knows.
pub(super) async fn fetches_with_epochs(world: &mut World) {
    let mut log = world.log("known", &[]).await;
    log.append(batch(3)).await;
    for (current, last, offset) in [
        (-1, -1, 3),
        (0, 0, 3),
        (1, -1, 3),
        (-2, -1, 3),
        (0, 1, 3),
        (0, 0, 2),
        (0, 0, 5),
        (-1, 7, 3),
        (0, -2, 3),
    ] {
        let mut request = log.fetch_request(offset, 1 << 20);
        request.topics[0].partitions[0].current_leader_epoch = current;
        request.topics[0].partitions[0].last_fetched_epoch = last;
        let response = log.connection.call(&request, FETCH).await;
        world.record(format!(
            "current epoch {current}, last fetched {last}, from {offset}: {}",
            describe::fetched(&response.responses[0].partitions[0])
        ));
    }
    for current in [0, 1, -2] {
        let mut request = log.list_offsets(LATEST);
        request.topics[0].partitions[0].current_leader_epoch = current;
        let response = log.connection.call(&request, 7).await;
        world.record(format!(
            "latest, current epoch {current}: {}",
            describe::offset(&response.topics[0].partitions[0], TIME)
        ));
    }
}

pub(super) async fn fetches_of_what_is_not_there(world: &mut World) {
    let mut log = world.log("there", &[]).await;
    for partition in [1, -1] {
        log.partition = partition;
        world.record(format!("partition {partition}: {}", log.fetch(0).await));
    }
    log.partition = 0;
    for what in ["nobody-made", "a b"] {
        log.topic = if what == "nobody-made" { world.name(what) } else { what.to_owned() };
        world.record(format!("topic {what:?}: {}", log.fetch(0).await));
    }
}

/// Since version 13.
pub(super) async fn fetches_by_topic_id(world: &mut World) {
    let mut log = world.log("by-id", &[]).await;
    log.append(batch(1)).await;
    let request = log.fetch_request(0, 1 << 20);
    for version in [13, 17] {
        for (what, id) in [("its id", log.id), ("another id", Uuid([7; 16])), ("no id", Uuid::ZERO)] {
            let mut request = request.clone();
            request.topics[0].topic_id = id;
            let response = log.connection.call(&request, version).await;
            let text = match response.responses.first() {
                Some(topic) => describe::fetched(&topic.partitions[0]),
                None => "no topic".to_owned(),
            };
            world.record(format!(
                "Fetch {version} of {what}: {}, {text}",
                describe::code(response.error_code)
            ));
        }
    }
    log.partition = 1;
    let request = log.fetch_request(0, 1 << 20);
    let response = log.connection.call(&request, 13).await;
    world.record(format!(
        "a partition that is not there: {}",
        describe::fetched(&response.responses[0].partitions[0])
    ));
}

/// Only what concerns a client without sessions, since a broker may refuse to keep one.
pub(super) async fn fetch_sessions(world: &mut World) {
    let mut log = world.log("sessions", &[]).await;
    for (session_id, session_epoch) in [(0, -1), (77, -1), (77, 1), (77, 5)] {
        let request = FetchRequest { session_id, session_epoch, ..log.fetch_request(0, 1000) };
        let response = log.connection.call(&request, FETCH).await;
        world.record(format!(
            "session {session_id} epoch {session_epoch}: {}, session {}, {} topics",
            describe::code(response.error_code),
            response.session_id,
            response.responses.len()
        ));
    }
}

pub(super) async fn deleted_records(world: &mut World) {
    let mut log = world.log("deleted", &[]).await;
    for _ in 0..3 {
        log.append(batch(5)).await;
    }
    for before in [7, 3, 7, 15, 16, 99, -2, -1] {
        world.record(format!("before {before}: {}", log.delete_records(before).await));
        if before == 7 {
            for offset in [6, 7] {
                world.record(format!("from {offset}: {}", log.fetch(offset).await));
            }
        }
    }
    world.record(format!("an append: {}", log.append(batch(1)).await));
    world.record(format!("from 15: {}", log.fetch(15).await));
    for partition in [1, -1] {
        log.partition = partition;
        world.record(format!("partition {partition}: {}", log.delete_records(0).await));
    }
    log.partition = 0;
    log.topic = world.name("never-made");
    world.record(format!("of no topic: {}", log.delete_records(0).await));
    let mut compacted = world.log("kept", &[("cleanup.policy", "compact")]).await;
    compacted.append(batch(1)).await;
    world.record(format!("of a compacted topic: {}", compacted.delete_records(1).await));
}
