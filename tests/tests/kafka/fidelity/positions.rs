//! Fetches from positions: an offset and the leader epoch of the record before it (KIP-320, KIP-595).

use std::time::Duration;

use kwal_protocol::record::{BatchBuilder, Compression, EncodedBatch};
use tokio::time::Instant;

use super::describe;
use super::log::{EARLIEST, FETCH, LATEST, LIST_OFFSETS, Log, NO_HEADERS, batch, batch_of};
use super::world::{World, until};

/// The order of the checks: the current epoch, then divergence, then the range of offsets.
pub(super) async fn the_order_of_checks(world: &mut World) {
    let mut log = world.log("checked", &[]).await;
    for _ in 0..3 {
        log.append(batch(5)).await;
    }
    log.delete_records(7).await;
    for (current, last, offset) in [
        (1, 7, 99),
        (1, -1, 99),
        (-1, 7, 99),
        (0, 7, 7),
        (0, 0, 99),
        (0, 0, 16),
        (0, 0, 15),
        (0, 0, 8),
        (0, 0, 7),
        (0, 0, 6),
        (0, 0, 0),
        (0, -1, 6),
        (0, -1, 16),
    ] {
        let text = log.fetch_from((current, last, offset)).await;
        world.record(format!("current epoch {current}, last fetched {last}, from {offset}: {text}"));
    }
    world.record(format!("epoch 0: {}", log.epoch_end(0, 0).await));
    log.delete_records(-1).await;
    for (last, offset) in [(0, 14), (0, 15), (0, 16), (1, 15)] {
        let text = log.fetch_from((0, last, offset)).await;
        world.record(format!("all deleted, last fetched {last}, from {offset}: {text}"));
    }
    world.record(format!("all deleted, epoch 0: {}", log.epoch_end(0, 0).await));
}

/// Epochs that the log has, has no longer, and has not yet.
pub(super) async fn positions_after_clean_elections(world: &mut World) {
    let now = world.now_ms();
    let mut log = world.log_on("epochs", &[2, 3], &[]).await;
    log.append(batch_of(3, now)).await;
    world.elect(&mut log, 3).await;
    log.append(batch_of(3, now)).await;
    // Nothing is appended in epoch 2.
    world.elect(&mut log, 2).await;
    world.elect(&mut log, 3).await;
    log.append(batch_of(3, now)).await;
    matrix(world, &mut log, "all", &[0, 3, 4, 6, 7, 9, 10]).await;
    world.record(format!("records before 4 deleted: {}", log.delete_records(4).await));
    matrix(world, &mut log, "from 4 on", &[3, 4, 5, 6, 9]).await;
    world.record(format!("records before 7 deleted: {}", log.delete_records(7).await));
    matrix(world, &mut log, "from 7 on", &[6, 7, 8, 9]).await;
    world.record(format!("all records deleted: {}", log.delete_records(-1).await));
    matrix(world, &mut log, "empty", &[8, 9, 10]).await;
    world.elect(&mut log, 2).await;
    matrix(world, &mut log, "empty, at the other replica", &[8, 9, 10]).await;
    world.record(format!("an append: {}", log.append(batch_of(1, now)).await));
    matrix(world, &mut log, "with one record", &[9, 10]).await;
}

async fn matrix(world: &mut World, log: &mut Log, what: &str, offsets: &[i64]) {
    for epoch in 0..6 {
        world.record(format!("{what}, end of epoch {epoch}: {}", log.epoch_end(epoch, -1).await));
        for offset in offsets {
            let text = log.fetch_from((-1, epoch, *offset)).await;
            world.record(format!("{what}, last fetched {epoch}, from {offset}: {text}"));
        }
    }
}

/// An unclean election loses the records of an epoch that the new leader never knew.
pub(super) async fn an_epoch_that_is_lost(world: &mut World) {
    let now = world.now_ms();
    let mut log = world.log_on("epoch-lost", &[2, 3], &[("min.insync.replicas", "1")]).await;
    world.record(format!("by both: {}", log.append(batch_of(2, now)).await));
    world.pause_follower(&log, 2, 3).await;
    world.record(format!("by 2 alone: {}", log.append(batch_of(2, now)).await));
    world.kill(2).await;
    world.wait_for_listed_leader(&log, 1, -1).await;
    world.start(2).await;
    world.wait_for_leader(&mut log, 2).await;
    world.record(format!("by 2 in its next epoch: {}", log.append(batch_of(2, now)).await));
    world.record(format!("from 0: {}", log.fetch(0).await));
    world.pause(2).await;
    world.resume(3).await;
    world.wait_for_listed_leader(&log, 1, -1).await;
    world.wait_for_listed_leader(&log, 3, -1).await;
    world.elect_uncleanly(&mut log, 3).await;
    for when in ["nothing", "three records"] {
        for (last, offset) in [(0, 1), (0, 2), (0, 4), (1, 4), (2, 5), (2, 6), (3, 6), (4, 2), (4, 5), (9, 6)]
        {
            let text = log.fetch_from((-1, last, offset)).await;
            world.record(format!("3 has appended {when}, last fetched {last}, from {offset}: {text}"));
        }
        for epoch in 0..6 {
            let text = log.epoch_end(epoch, -1).await;
            world.record(format!("3 has appended {when}, end of epoch {epoch}: {text}"));
        }
        if when == "nothing" {
            world.record(format!("by 3 alone: {}", log.append(batch_of(3, now)).await));
        }
    }
    world.resume(2).await;
    world.wait_until_in_sync(&log, &[3, 2]).await;
    world.elect(&mut log, 2).await;
    until("the high watermark is known", async || (log.end().await == 5).then_some(())).await;
    for (last, offset) in [(0, 2), (0, 4), (2, 6), (4, 5), (5, 5)] {
        let text = log.fetch_from((-1, last, offset)).await;
        world.record(format!("2 leads again, last fetched {last}, from {offset}: {text}"));
    }
}

/// The cleaner removes records of a compacted topic in whole batches, and within them.
pub(super) async fn a_log_that_is_compacted(world: &mut World) {
    let mut log = world.log("cleaned", COMPACTED).await;
    let id = log.producer_id().await;
    let now = world.now_ms();
    log.append(keyed(now, &["a", "b", "c"])).await;
    log.append(keyed(now, &["a", "b"])).await;
    log.append(keyed(now, &["b", "d", "a"]).stamp(id, 0, 0)).await;
    log.append(keyed(now, &["b", "a"]).stamp(id, 0, 3)).await;
    log.append(keyed(now, &["b", "a"])).await;
    log.append(keyed(now, &["x", "-x"])).await;
    record_all(world, &mut log, "before").await;
    world.clean(&mut log, now, 1).await;
    record_all(world, &mut log, "cleaned").await;
    world.expire_producers(&mut log).await;
    world.clean(&mut log, now, 4).await;
    record_all(world, &mut log, "cleaned again, without producers and tombstones").await;
    for (what, at) in [("earliest", EARLIEST), ("latest", LATEST)] {
        let response = log.offset_response(at, LIST_OFFSETS).await;
        world.record(format!("{what}: {}", describe::offset(&response, now)));
    }
    for offset in [0, 1, 3, 4, 9] {
        let kept = log.kept(offset).await;
        let first = kept.first().map_or("nothing", |(_, _, text)| text);
        world.record(format!("the first batch from {offset}: {first}"));
    }
    world.record(format!("end of epoch 0: {}", log.epoch_end(0, 0).await));
}

/// Aborted records and markers are removed, too.
pub(super) async fn transactions_that_are_compacted(world: &mut World) {
    let mut log = world.log("cleaned", COMPACTED).await;
    let (one, other) = (world.name("one"), world.name("other"));
    let now = world.now_ms();
    let mut one = world.transaction(&mut log, &one).await;
    let mut other = world.transaction(&mut log, &other).await;
    world.append_in_transaction(&mut one, &mut log, keyed(now, &["a", "b"])).await;
    world.append_in_transaction(&mut other, &mut log, keyed(now, &["a", "c"])).await;
    world.append_in_transaction(&mut one, &mut log, keyed(now, &["d"])).await;
    world.end(&mut one, &mut log, false).await;
    world.end(&mut other, &mut log, true).await;
    record_all(world, &mut log, "before").await;
    world.record(format!("before, committed: {}", log.fetch_committed(0).await));
    world.clean(&mut log, now, 1).await;
    record_all(world, &mut log, "cleaned").await;
    world.record(format!("cleaned, the first batch, committed: {}", log.fetch_committed_up_to(0, 1).await));
    world.expire_producers(&mut log).await;
    world.clean(&mut log, now, 4).await;
    record_all(world, &mut log, "cleaned again, without producers").await;
    world.record(format!("cleaned again, the first batch: {}", log.fetch_committed_up_to(0, 1).await));
}

/// The log of a replica that was compacted and then truncated at the beginning of its last segment ends after
/// its last batch.
pub(super) async fn a_log_that_ends_with_a_hole(world: &mut World) {
    let settings = &[COMPACTED, &[("min.insync.replicas", "1")]].concat();
    let mut log = world.log_on("hollow", &[2, 3], settings).await;
    let now = world.now_ms();
    log.append(keyed(now, &["a", "b"])).await;
    log.append(keyed(now, &["a", "-b", "-a"])).await;
    world.record(format!("by both: {}", log.fetch(0).await));
    world.pause_follower(&log, 2, 3).await;
    world.clean(&mut log, now, 5).await;
    let ends: Vec<_> = log.kept(0).await;
    assert!(ends.iter().all(|(offset, ..)| *offset >= 5), "{ends:?}");
    world.pause(2).await;
    world.resume(3).await;
    world.wait_for_listed_leader(&log, 1, -1).await;
    world.wait_for_listed_leader(&log, 3, -1).await;
    world.elect_uncleanly(&mut log, 3).await;
    world.record(format!("3 leads, latest: {}", log.offset(LATEST, now).await));
    world.resume(2).await;
    world.wait_until_in_sync(&log, &[3, 2]).await;
    world.elect(&mut log, 2).await;
    until("the high watermark is known", async || (log.end().await == 5).then_some(())).await;
    for (what, at) in [("earliest", EARLIEST), ("latest", LATEST), ("by time", now)] {
        world.record(format!("2 leads, {what}: {}", log.offset(at, now).await));
    }
    world.record(format!("end of epoch 0: {}", log.epoch_end(0, -1).await));
    for offset in [0, 2, 4, 5, 6] {
        world.record(format!("from {offset}: {}", log.fetch(offset).await));
        world.record(format!("from {offset}, committed: {}", log.fetch_committed(offset).await));
        let text = log.fetch_from((-1, 0, offset)).await;
        world.record(format!("from {offset}, last fetched 0: {text}"));
    }
    let mut request = log.fetch_request(2, 1 << 20);
    (request.min_bytes, request.max_wait_ms) = (1, 1_000);
    let started = Instant::now();
    let response = log.connection.call(&request, FETCH).await;
    let waited = if started.elapsed() < Duration::from_millis(900) { "at once" } else { "after its time" };
    let text = describe::fetched(&response.responses[0].partitions[0]);
    world.record(format!("a long poll from 2: {waited}, {text}"));
    world.record(format!("an append: {}", log.append(keyed(now, &["z"])).await));
    world.record(format!("from 2: {}", log.fetch(2).await));
}

/// Settings under which the cleaner runs soon, and removes tombstones at once.
const COMPACTED: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("segment.ms", "1000"),
    ("min.cleanable.dirty.ratio", "0.001"),
    ("min.compaction.lag.ms", "0"),
    ("delete.retention.ms", "0"),
];

/// Returns a batch of records with these keys; a key after `-` is that of a tombstone.
pub(super) fn keyed(time: i64, keys: &[&str]) -> EncodedBatch {
    let mut batch = BatchBuilder::new(Compression::None);
    for key in keys {
        let (key, value) = match key.strip_prefix('-') {
            Some(key) => (key, None),
            None => (*key, Some(&b"value"[..])),
        };
        batch.push(time, Some(key.as_bytes()), value, NO_HEADERS);
    }
    batch.finish().unwrap()
}

/// Records the batches and the keys that are left, without those by which segments were rolled.
async fn record_all(world: &mut World, log: &mut Log, when: &str) {
    let kept = log.kept(0).await;
    let shown = kept.iter().filter(|(_, keys, _)| !keys.iter().any(|key| key.ends_with(FILLER)));
    let text: Vec<_> = shown.map(|(_, _, text)| text.as_str()).collect();
    world.record(format!("{when}: {}", text.join("; ")));
}

/// The key of records that are appended to begin a new segment.
pub(super) const FILLER: &str = "filler";
