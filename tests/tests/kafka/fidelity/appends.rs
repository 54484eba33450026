//! Batches that brokers accept and reject.

use bytes::{Bytes, BytesMut};
use kwal_protocol::messages::{ProducePartition, ProduceRequest, ProduceTopic};
use kwal_protocol::record::{BatchBuilder, BatchHeader, Batches, Compression, EncodedBatch, RawBatch};
use kwal_protocol::wire::{Spliced, Uuid};

use super::coordinators::init;
use super::describe;
use super::log::{Log, NO_HEADERS, PRODUCE, TIME, batch, batch_at};
use super::world::World;

pub(super) async fn batches_that_are_refused(world: &mut World) {
    let mut log = world.log("refused", &[("max.message.bytes", "1000")]).await;
    let good = batch(1).to_bytes();
    let changed = |at: usize, to: u8| {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[at] = to;
        bytes.freeze()
    };
    let mut damaged = BytesMut::from(&good[..]);
    *damaged.last_mut().unwrap() ^= 1;
    let mut large = BatchBuilder::new(Compression::None);
    large.push(TIME, None, Some(&[0; 1_000]), NO_HEADERS);
    let large = large.finish().unwrap().to_bytes();
    let control = with(batch(3), |raw| raw.header.attributes |= BatchHeader::CONTROL);
    let base = batch(2).at(1_000, 77).to_bytes();
    let unknown_codec = with(batch(3), |raw| raw.header.attributes |= 6);
    for (what, bytes) in [
        ("damaged", damaged.freeze()),
        ("too large", large.clone()),
        ("two at once", [&good[..], &good[..]].concat().into()),
        ("one and a torn one", [&good[..], &good[..30]].concat().into()),
        ("a torn one", good.slice(..good.len() - 1)),
        ("nothing", Bytes::new()),
        ("a control batch", control),
        ("a base offset of 1000", base),
        ("an unknown codec", unknown_codec),
        ("magic 0", changed(16, 0)),
        ("magic 1", changed(16, 1)),
        ("magic 3", changed(16, 3)),
        ("a length of -1", [&good[..8], &[0xff; 4], &good[12..]].concat().into()),
        ("too large and torn", large.slice(..500)),
    ] {
        world.record(format!("{what}: {}", log.append_bytes(bytes, -1).await));
    }
    world.record(format!("end {}", log.end().await));
    world.record(format!("a good one: {}", log.append_bytes(good, -1).await));
}

pub(super) async fn batches_of_odd_counts(world: &mut World) {
    let mut log = world.log("counted", &[]).await;
    let id = log.producer_id().await;
    let count = |raw: &mut RawBatch, last| raw.header.last_offset_delta = last;
    let holes = with(batch(3), |raw| {
        raw.records[1].offset_delta = 5;
        raw.header.last_offset_delta = 5;
    });
    for (what, bytes) in [
        ("a hole", holes),
        ("more offsets than records", with(batch(3), |raw| count(raw, 7))),
        ("fewer offsets than records", with(batch(3), |raw| count(raw, 0))),
        ("no records", with(batch(3), |raw| raw.records.clear())),
        (
            "no records and no offsets",
            with(batch(3), |raw| {
                raw.records.clear();
                count(raw, -1);
            }),
        ),
        ("an id without a sequence", batch(1).stamp(id, 0, -1).to_bytes()),
        ("an id without an epoch", batch(1).stamp(id, -1, 0).to_bytes()),
        ("a sequence without an id", batch(1).stamp(-1, -1, 0).to_bytes()),
        ("a wrong newest time", with(batch(3), |raw| raw.header.max_timestamp = 5)),
    ] {
        world.record(format!("{what}: {}", log.append_bytes(bytes, -1).await));
    }
    world.record(log.fetch(0).await);
    let back = with(batch(3), |raw| raw.records.reverse());
    let text = log.append_bytes(back, -1).await;
    world.record(format!("offsets that go back: {text}"));
}

pub(super) async fn acks(world: &mut World) {
    let mut log = world.log("acks", &[]).await;
    for acks in [1, -1, 2, -2, i16::MAX] {
        world.record(format!("acks = {acks}: {}", log.append_bytes(batch(1).to_bytes(), acks).await));
    }
    world.record(format!("end {}", log.end().await));
}

/// The same batch is appended again. The leader sets offsets and leader epoch.
pub(super) async fn batches_without_a_producer(world: &mut World) {
    let mut log = world.log("plain", &[]).await;
    for _ in 0..3 {
        world.record(format!("the same: {}", log.append(batch(1)).await));
    }
    world.record(format!("of leader epoch 77: {}", log.append(batch(2).at(0, 77)).await));
    world.record(log.fetch(0).await);
}

pub(super) async fn log_append_time(world: &mut World) {
    let mut log = world.log("stamped", &[("message.timestamp.type", "LogAppendTime")]).await;
    let id = log.producer_id().await;
    let before = world.now_ms();
    let request = log.produce(batch(2).stamp(id, 0, 0).to_bytes(), -1);
    let mut stamps = Vec::new();
    for what in ["two", "again"] {
        let response = log.connection.call(&request, PRODUCE).await;
        let partition = &response.responses[0].partition_responses[0];
        stamps.push(partition.log_append_time_ms);
        world.record(format!("{what}: {}", describe::produced(partition)));
    }
    let fetched = log.fetch_response(0, 1 << 20).await;
    world.record(describe::fetched(&fetched));
    let batch = Batches::new(fetched.records.unwrap()).next().unwrap().unwrap();
    let header = batch.header();
    world.record(format!(
        "the stamp is of now: {}; newest time of the batch: {}; its base: {}; the stamp of a duplicate: {}",
        (before..before + 60_000).contains(&stamps[0]),
        if header.max_timestamp == stamps[0] { "the stamp" } else { "another" },
        if header.base_timestamp == TIME { "the producer's" } else { "another" },
        if stamps[1] == stamps[0] { "the same" } else { "another" },
    ));
    let records = batch.records(1 << 20).unwrap();
    let stamped = records.iter().all(|record| record.unwrap().timestamp_ms == stamps[0]);
    world.record(format!("the records have the stamp: {stamped}"));
}

/// Kafka 4 rejects timestamps more than an hour ahead by default.
pub(super) async fn times_far_from_now(world: &mut World) {
    const HOUR: i64 = 3_600_000;
    let mut log = world.log("times", &[]).await;
    let now = world.now_ms();
    for (what, time) in [
        ("now", now),
        ("half an hour ahead", now + HOUR / 2),
        ("two hours ahead", now + 2 * HOUR),
        ("a year ago", now - 365 * 24 * HOUR),
        ("0", 0),
        ("no time", -1),
    ] {
        world.record(format!("{what}: {}", log.append(batch_at(&[time])).await));
    }
    let before_all_time = with(batch_at(&[0]), |raw| {
        raw.header.base_timestamp = -2;
        raw.header.max_timestamp = -2;
    });
    world.record(format!("before all time: {}", log.append_bytes(before_all_time, -1).await));
    world.record(format!("the second of three: {}", log.append(batch_at(&[now, now + 2 * HOUR, now])).await));
}

pub(super) async fn times_that_a_topic_does_not_take(world: &mut World) {
    let limits = [("message.timestamp.before.max.ms", "60000"), ("message.timestamp.after.max.ms", "60000")];
    let mut log = world.log("limited", &limits).await;
    let now = world.now_ms();
    for (what, times) in [
        ("now", vec![now]),
        ("two minutes ago", vec![now - 120_000]),
        ("in two minutes", vec![now + 120_000]),
        ("one good, two bad", vec![now, now - 120_000, now + 120_000]),
        ("no time", vec![-1]),
    ] {
        world.record(format!("{what}: {}", log.append(batch_at(&times)).await));
    }
    let id = log.producer_id().await;
    world.record(format!("a refused 0: {}", log.append(batch_at(&[now - 120_000]).stamp(id, 0, 0)).await));
    world.record(format!("then a good 0: {}", log.append(batch_at(&[now]).stamp(id, 0, 0)).await));
    let stamped = [&limits[..], &[("message.timestamp.type", "LogAppendTime")]].concat();
    let mut stamped = world.log("limited-and-stamped", &stamped).await;
    world.record(format!("two minutes ago, stamped: {}", stamped.append(batch_at(&[now - 120_000])).await));
}

pub(super) async fn records_of_a_compacted_topic(world: &mut World) {
    let mut log = world.log("compacted", &[("cleanup.policy", "compact")]).await;
    world.record(format!("with keys: {}", log.append(batch(3)).await));
    world.record(format!("without: {}", log.append(batch_at(&[TIME])).await));
    let mut some = BatchBuilder::new(Compression::Gzip);
    for key in [Some(&b"k"[..]), None, Some(b""), None] {
        some.push(TIME, key, Some(b"v"), NO_HEADERS);
    }
    world.record(format!("the second and fourth without: {}", log.append(some.finish().unwrap()).await));
    let mut tombstone = BatchBuilder::new(Compression::None);
    tombstone.push(TIME, Some(b"k"), None, NO_HEADERS);
    world.record(format!("without a value: {}", log.append(tombstone.finish().unwrap()).await));
    world.record(format!("end {}", log.end().await));
}

pub(super) async fn codecs(world: &mut World) {
    let mut log = world.log("codecs", &[]).await;
    for codec in Compression::ALL {
        world.record(format!("{}: {}", codec.name(), log.append(compressed(codec)).await));
    }
    world.record(log.fetch(0).await);
    // The body is not compressed with the codec in the header.
    let good = compressed(Compression::Gzip).to_bytes();
    let mut header = *Batches::new(good.clone()).next().unwrap().unwrap().header();
    header.attributes = Compression::Lz4 as i16;
    let bad = sealed(header, &good[BatchHeader::LEN..]);
    world.record(format!("gzip that says lz4: {}", log.append_bytes(bad, -1).await));
    world.record(format!("end {}", log.end().await));
}

/// The topic's codec applies, whatever the producer uses.
pub(super) async fn a_topic_with_a_codec_of_its_own(world: &mut World) {
    for codec in ["gzip", "uncompressed", "producer"] {
        let mut log = world.log(&format!("in-{codec}"), &[("compression.type", codec)]).await;
        for sent in [Compression::None, Compression::Snappy] {
            let text = log.append(compressed(sent)).await;
            world.record(format!("{} to a topic of {codec}: {text}", sent.name()));
        }
        world.record(log.fetch(0).await);
    }
}

/// KIP-110: Produce before version 7 does not accept it; Fetch before version 10 does not return it.
pub(super) async fn zstd_of_old_versions(world: &mut World) {
    let mut log = world.log("zstd", &[]).await;
    let request = log.produce(compressed(Compression::Zstd).to_bytes(), -1);
    for version in [3, 6, 7] {
        world.record(format!("Produce {version}: {}", log.produce_by(&request, version).await));
    }
    let fetch = log.fetch_request(0, 1 << 20);
    for version in [9, 10] {
        let response = log.connection.call(&fetch, version).await;
        world.record(format!("Fetch {version}: {}", describe::fetched(&response.responses[0].partitions[0])));
    }
    let mut own = world.log("of-zstd", &[("compression.type", "zstd")]).await;
    world.record(format!("to a topic of zstd: {}", own.append(batch(1)).await));
    let fetch = own.fetch_request(0, 1 << 20);
    for version in [9, 10] {
        let response = own.connection.call(&fetch, version).await;
        world.record(format!("Fetch {version}: {}", describe::fetched(&response.responses[0].partitions[0])));
    }
}

pub(super) async fn transactional_batches_outside_of_a_transaction(world: &mut World) {
    let mut log = world.log("outside", &[]).await;
    let id = log.producer_id().await;
    let marked = batch(1).stamp(id, 0, 0).with_transactional(true).to_bytes();
    world.record(format!("without a transactional id: {}", log.append_bytes(marked, -1).await));
    let name = world.name("outside-name");
    let named = init(&mut log.connection, &name, -1, -1, 4).await.producer_id;
    let marked = batch(1).stamp(named, 0, 0).with_transactional(true).to_bytes();
    for (what, records) in [("with one", marked), ("with one and a plain batch", batch(1).to_bytes())] {
        let request = ProduceRequest { transactional_id: Some(name.clone()), ..log.produce(records, -1) };
        world.record(format!("{what}: {}", log.produce_by(&request, PRODUCE).await));
    }
    world.record(format!("end {}", log.end().await));
}

/// A rejection concerns only its partition.
pub(super) async fn several_partitions_in_a_request(world: &mut World) {
    let one = world.log("first", &[]).await;
    let two = world.log("second", &[("max.message.bytes", "100")]).await;
    let mut connection = world.connect().await;
    let partition = |index, batch: EncodedBatch| ProducePartition {
        index,
        records: Some(Spliced::from(batch.to_bytes())),
    };
    let topic = |log: &Log, partition_data| ProduceTopic {
        name: log.topic.clone(),
        topic_id: Uuid::ZERO,
        partition_data,
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![
            topic(&one, vec![partition(0, batch(1)), partition(3, batch(1))]),
            topic(&two, vec![partition(0, batch(9))]),
        ],
        ..ProduceRequest::default()
    };
    let response = connection.call(&request, PRODUCE).await;
    for topic in [&one, &two] {
        let answers = response.responses.iter().filter(|response| response.name == topic.topic);
        let mut partitions: Vec<_> = answers.flat_map(|topic| &topic.partition_responses).collect();
        partitions.sort_by_key(|partition| partition.index);
        for partition in partitions {
            world.record(format!("{}-{}: {}", topic.topic, partition.index, describe::produced(partition)));
        }
    }
}

pub(super) async fn appends_to_what_is_not_there(world: &mut World) {
    let mut log = world.log("there", &[]).await;
    for partition in [1, -1, i32::MAX] {
        log.partition = partition;
        world.record(format!("partition {partition}: {}", log.append(batch(1)).await));
    }
    log.partition = 0;
    for what in ["nobody-made", "a b", ""] {
        log.topic = if what == "nobody-made" { world.name(what) } else { what.to_owned() };
        world.record(format!("topic {what:?}: {}", log.append(batch(1)).await));
    }
}

/// Since version 13.
pub(super) async fn appends_by_topic_id(world: &mut World) {
    let mut log = world.log("by-id", &[]).await;
    if log.connection.versions_of::<ProduceRequest>().newest < 13 {
        world.record("not spoken");
        return;
    }
    let request = log.produce(batch(1).to_bytes(), -1);
    world.record(format!("its id: {}", log.produce_by(&request, 13).await));
    for (what, id) in [("another id", Uuid([7; 16])), ("no id", Uuid::ZERO)] {
        let mut request = request.clone();
        request.topic_data[0].topic_id = id;
        world.record(format!("{what}: {}", log.produce_by(&request, 13).await));
    }
    log.partition = 1;
    let request = log.produce(batch(1).to_bytes(), -1);
    world.record(format!("a partition that is not there: {}", log.produce_by(&request, 13).await));
}

/// Returns a batch with a change.
fn with(batch: EncodedBatch, change: impl FnOnce(&mut RawBatch)) -> Bytes {
    let good = Batches::new(batch.to_bytes()).next().unwrap().unwrap();
    let mut raw = RawBatch::from_batch(&good, 0).unwrap();
    change(&mut raw);
    match raw.encode() {
        Ok(bytes) => bytes,
        // The encoder rejects the change: keep the body and change the header.
        Err(_) => sealed(raw.header, &good.bytes()[BatchHeader::LEN..]),
    }
}

/// Encodes a header with the length and checksum of the body, and the body.
fn sealed(header: BatchHeader, body: &[u8]) -> Bytes {
    let batch_length = i32::try_from(BatchHeader::LEN - BatchHeader::LOG_OVERHEAD + body.len()).unwrap();
    let header = BatchHeader { batch_length, ..header }.to_bytes();
    let mut bytes = [&header[..], body].concat();
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn compressed(codec: Compression) -> EncodedBatch {
    let mut batch = BatchBuilder::new(codec);
    for key in 0..3_u8 {
        batch.push(TIME, Some(&[key]), Some(&[b'v'; 100]), NO_HEADERS);
    }
    batch.finish().unwrap()
}
