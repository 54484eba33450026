//! `inspect`, `holder` and `verify`.

use kwal::{
    Client, Record,
    record::{BatchBuilder, Compression, EncodedBatch, HeaderView},
};
use kwal_testkit::EmbeddedCluster;
use serde_json::{Value, json};

use crate::support::{Ended, Scratch, World, end, fields, kwal};

/// A batch of records with these values, at a time.
fn batch(values: &[&str], time: i64) -> EncodedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(time, None, Some(value.as_bytes()), std::iter::empty::<HeaderView<'_>>());
    }
    builder.finish().unwrap()
}

/// Where the barrier of the eventful log is.
const BARRIER: i64 = 8;

/// A log with a barrier, an entry in fragments, two writers, transactions and holes of compaction.
fn eventful() -> World {
    let world = World::start(EmbeddedCluster::builder().topic("wal", 1));
    let cluster = &world.cluster;
    let (committed, open) = ((cluster.new_producer_id(), 0), (cluster.new_producer_id(), 0));
    let end = world.runtime.block_on(async {
        let client = Client::connect(cluster.bootstrap()).await.unwrap();
        let other = client.partition_client("wal", 0).await.unwrap();
        other.produce([Record::new("a", "0"), Record::new("b", "1"), Record::new("c", "2")]).await.unwrap();
        let end = cluster.end_offset("wal", 0).unwrap();
        cluster.append_in_transaction("wal", 0, committed, 0, &batch(&["t"], 1_000)).unwrap();
        cluster.end_transaction("wal", 0, committed, false).unwrap();
        cluster.append_in_transaction("wal", 0, committed, 1, &batch(&["u", "v"], 2_000)).unwrap();
        cluster.append_in_transaction("wal", 0, open, 0, &batch(&["w"], 3_000)).unwrap();
        let holder = client.partition_client("wal", 0).exclusive("writer-1").await.unwrap();
        assert_eq!(holder.holder().unwrap().barrier, BARRIER);
        let writer = kwal::entry::Writer::new(holder.clone()).fragment_bytes(1_024);
        writer.append(Record::new("entry", "x".repeat(1_800))).await.unwrap();
        holder.produce([Record::new("d", "4")]).await.unwrap();
        end
    });
    // What it ends began before the barrier.
    cluster.end_transaction("wal", 0, committed, true).unwrap();
    cluster.compact("wal", 0, |record| record.offset != 1 && record.offset != end).unwrap();
    world
}

/// What an inspection says of the batches.
fn batches(ended: &Ended) -> Vec<Value> {
    ended.objects().into_iter().filter(|object| object["type"] == "batch").collect()
}

#[test]
fn an_eventful_log_without_a_fault() {
    let world = eventful();
    let ended = world.run("inspect wal --json");
    assert_eq!(ended.code, 0, "{ended:?}");
    let all = batches(&ended);
    let first = &all[0];
    assert_eq!(
        fields(first),
        [
            "base_offset",
            "base_sequence",
            "bytes",
            "codec",
            "control",
            "count",
            "crc",
            "doubts",
            "holes_within",
            "last_offset",
            "last_sequence",
            "leader_epoch",
            "magic",
            "max_timestamp",
            "producer_epoch",
            "producer_id",
            "timestamp_type",
            "transactional",
            "type",
        ]
    );
    assert_eq!(
        (&first["count"], &first["last_offset"], &first["holes_within"]),
        (&json!(2), &json!(2), &json!(1))
    );
    let barrier = all.iter().find(|batch| batch["base_offset"] == BARRIER).unwrap();
    let (id, epoch) = (&barrier["producer_id"], &barrier["producer_epoch"]);
    assert_eq!(barrier["barrier"], json!({"name": "writer-1", "producer_id": id, "epoch": epoch}));
    let fragments: Vec<_> = all.iter().filter(|batch| batch.get("fragments").is_some()).collect();
    assert!(!fragments.is_empty());
    let count: u64 = fragments.iter().map(|batch| batch["fragments"]["count"].as_u64().unwrap()).sum();
    assert!(count >= 2, "{fragments:?}");
    let markers: Vec<_> = all.iter().filter_map(|batch| batch["marker"].as_str()).collect();
    assert_eq!(markers, ["abort", "commit"]);
    let emptied: Vec<_> = all.iter().filter(|batch| batch["count"] == 0).collect();
    assert_eq!(emptied.len(), 1, "compaction emptied the first transaction");
    let open = world.cluster.open_transactions("wal", 0).unwrap()[0];
    let summary = ended.objects().pop().unwrap();
    assert_eq!(summary["open_transactions"], json!([{"producer_id": open.0, "first_offset": open.1}]));
    assert_eq!((&summary["type"], &summary["torn_bytes"]), (&json!("summary"), &json!(0)));

    let table = world.ok("inspect wal --until 3");
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    let id = world.cluster.log("wal", 0).unwrap()[0].producer_id().unwrap();
    assert_eq!((&row[..3], row[5]), (&["0", "2", "2"][..], format!("{id}/0/0-2").as_str()), "{table}");

    let table = world.run(&format!("inspect wal --from {BARRIER} --until {}", BARRIER + 1));
    assert_eq!(table.code, 0);
    assert!(table.text().lines().nth(1).unwrap().ends_with("barrier of writer-1"), "{}", table.text());
    assert_eq!(table.text().lines().count(), 2, "{}", table.text());
    assert!(world.ok("inspect wal").contains("1 offset without a record"));
    assert!(world.ok("inspect wal").lines().any(|line| line.ends_with("ABORT")));
}

#[test]
fn whole_batches_that_are_gone_are_holes() {
    let world = eventful();
    let everything_but_markers = |header: &kwal::record::BatchHeader| header.count == 0;
    world.cluster.compact_batches("wal", 0, |_| true, everything_but_markers).unwrap();
    let hole = world.cluster.log("wal", 0).unwrap();
    let hole = hole.windows(2).find(|pair| pair[0].next_offset() != pair[1].base_offset()).unwrap();
    let (start, end) = (hole[0].next_offset(), hole[1].base_offset());
    let ended = world.run("inspect wal --json");
    assert_eq!(ended.code, 0, "{ended:?}");
    let after = batches(&ended).into_iter().find(|batch| batch.get("hole_before").is_some()).unwrap();
    assert_eq!((&after["hole_before"], &after["base_offset"]), (&json!([start, end]), &json!(end)));
    let text = world.ok("inspect wal");
    assert!(text.lines().any(|line| line.ends_with(&format!("hole: offsets {start}"))), "{text}");
}

/// A log on which a producer misses a sequence number, repeats one and goes back in time.
fn doubtful() -> World {
    let world = World::wal();
    let append = |values: &[&str], time, sequence| {
        let bytes = batch(values, time).stamp(77, 0, sequence).at(0, 5).to_bytes();
        world.cluster.append_raw("wal", 0, bytes).unwrap();
    };
    append(&["a", "b"], 9_000, 0);
    append(&["c"], 9_000, 4);
    append(&["d"], 8_000, 4);
    append(&["e"], 8_000, 5);
    world
}

#[test]
fn doubtful_places_are_marked() {
    let world = doubtful();
    let ended = world.run("inspect wal --json");
    assert_eq!(ended.code, 1);
    let doubts: Vec<_> = batches(&ended).iter().map(|batch| batch["doubts"].clone()).collect();
    let doubt = |kind: &str, text: &str| json!({"kind": kind, "text": text});
    let expected = [
        json!([]),
        json!([doubt("sequence-gap", "sequence gap: 2 would be next")]),
        json!([
            doubt("time-back", "time goes back from 1970-01-01T00:00:09Z"),
            doubt("duplicate-sequence", "duplicate sequence: 5 would be next"),
        ]),
        json!([]),
    ];
    assert_eq!(doubts, expected);
    assert_eq!(ended.objects().pop().unwrap()["doubtful"], 2);
    let table = world.run("inspect wal");
    assert_eq!(table.code, 1);
    assert!(table.text().contains("! sequence gap: 2 would be next"), "{}", table.text());
    assert!(table.stderr.ends_with("; 2 doubtful places\n"), "{}", table.stderr);

    let verified = world.run("verify wal --json");
    assert_eq!(verified.code, 1);
    let objects = verified.objects();
    let finding = |offset: i64, kind: &str, text: &str| json!({"type": "finding", "partition": 0, "offset": offset, "kind": kind, "text": text});
    assert_eq!(
        objects[..2],
        [
            finding(2, "sequence-gap", "sequence gap: 2 would be next"),
            finding(3, "duplicate-sequence", "duplicate sequence: 5 would be next"),
        ]
    );
    assert_eq!((&objects[2]["findings"], &objects[2]["records"]), (&json!(2), &json!(5)));
}

#[test]
fn a_whole_topic_is_verified() {
    let world = World::start(EmbeddedCluster::builder().topic("wal", 2));
    world.ok_with("append wal -p 1", b"a\nb\n");
    let ended = world.run("verify wal --json");
    assert_eq!(ended.code, 0, "{ended:?}");
    let mut objects = ended.objects();
    let second = objects.pop().unwrap();
    assert_eq!(
        fields(&second),
        [
            "batches",
            "bytes",
            "end",
            "findings",
            "holes",
            "log_start",
            "open_transactions",
            "partition",
            "records",
            "seconds",
            "type",
        ]
    );
    assert_eq!((&second["partition"], &second["end"], &second["records"]), (&json!(1), &json!(2), &json!(2)));
    assert_eq!(objects.len(), 1);
    let table = world.ok("verify wal -p 1");
    assert!(table.lines().nth(1).unwrap().starts_with("        1     0    2        1        2"), "{table}");
}

/// A batch of a producer at an offset; `None` has no producer id.
fn append_raw(world: &World, producer: Option<(i64, i16)>) {
    let (id, epoch) = producer.unwrap_or((-1, -1));
    let sequence = if producer.is_some() { 0 } else { -1 };
    let bytes = batch(&["x"], 9_000).stamp(id, epoch, sequence).at(0, 0).to_bytes();
    world.cluster.append_raw("wal", 0, bytes).unwrap();
}

#[test]
fn who_else_appends_after_a_barrier_is_doubtful() {
    let world = World::wal();
    world.ok_with("append wal", b"earlier\n");
    let earlier = world.cluster.log("wal", 0).unwrap()[0].producer_id().unwrap();
    let handle = json!({
        "topic": "wal", "partition": 0, "producer_id": earlier, "epoch": 0, "sequence": 0, "record_count": 1,
    });
    let take_over = |name: &str| {
        world.runtime.block_on(async {
            let client = Client::connect(world.cluster.bootstrap()).await.unwrap();
            let wal = client.partition_client("wal", 0).exclusive(name).await.unwrap();
            wal.produce([Record::new("of", "the holder")]).await.unwrap();
        });
    };
    take_over("writer-1"); // at 1 and 2
    let settled = world.run_with("resolve - --yes", handle.to_string().as_bytes());
    assert_eq!(settled.code, 0, "{settled:?}");
    // Nothing is doubtful about the fence.
    assert_eq!(world.run("holder wal").code, 0);
    assert_eq!(world.run("verify wal").code, 0);
    let fence = batches(&world.run("inspect wal --from 3 --json")).remove(0);
    assert_eq!((&fence["resolve_fence"], &fence["producer_epoch"]), (&json!(true), &json!(32_767)));
    let row = world.ok("inspect wal --from 3");
    assert!(row.lines().nth(1).unwrap().ends_with("Z  fence"), "{row}");

    append_raw(&world, Some((1_000_000, 0)));
    append_raw(&world, None);
    let held = world.run("holder wal --json");
    assert_eq!(held.code, 1, "{held:?}");
    assert_eq!(held.stderr, "kwal: warning: 2 batches after the barrier are not of writer-1\n");
    assert_eq!(held.objects()[0]["batches_after"], 1);
    take_over("writer-2"); // at 6 and 7
    assert_eq!(world.run("holder wal").code, 0);

    let verified = world.run("verify wal --json");
    assert_eq!(verified.code, 1);
    let mut objects = verified.objects();
    assert_eq!(objects.pop().unwrap()["findings"], 2);
    let finding = |offset: i64| {
        json!({
            "type": "finding", "partition": 0, "offset": offset, "kind": "not-of-holder",
            "text": "not of the holder writer-1, whose barrier is at 1",
        })
    };
    assert_eq!(objects, [finding(4), finding(5)]);
    let inspected = world.run("inspect wal");
    assert_eq!(inspected.code, 1);
    let marked = inspected.text().matches("! not of the holder writer-1, whose barrier is at 1\n").count();
    assert_eq!(marked, 2, "{}", inspected.text());
    assert!(inspected.stderr.ends_with("; 2 doubtful places\n"), "{}", inspected.stderr);
}

#[test]
fn without_a_barrier_the_last_batch_shows_who_writes() {
    let world = World::wal();
    let empty = json!({"topic": "wal", "partition": 0, "name": null, "log_start": 0, "last_batch": null});
    assert_eq!(world.run("holder wal --json").objects(), [empty]);
    let id = world.runtime.block_on(async {
        let client = Client::connect(world.cluster.bootstrap()).await.unwrap();
        let holder = client.partition_client("wal", 0).exclusive("writer-1").await.unwrap();
        holder.produce(vec![Record::new("key", "value"); 3]).await.unwrap();
        holder.holder().unwrap().producer_id
    });
    // As the recipes do: up to one record before the snapshot.
    world.ok("trim wal --before 3 --yes");
    let left = world.run("holder wal");
    assert_eq!((left.code, left.text().as_str()), (1, ""));
    assert_eq!(
        left.stderr,
        format!(
            "kwal: no barrier is left on wal/0: its log begins at 3, after the last barrier if there was one; the last \
             batch with a producer id, at 3, is of producer {id} at epoch 0\n"
        )
    );
    let last = json!({"producer_id": id, "epoch": 0, "offset": 3});
    let none = json!({"topic": "wal", "partition": 0, "name": null, "log_start": 3, "last_batch": last});
    for arguments in ["holder wal --json", "holder wal --all --json"] {
        let ended = world.run(arguments);
        assert_eq!((ended.code, ended.objects()), (1, vec![none.clone()]), "{arguments}");
    }
}

#[test]
fn the_holder_is_the_last_barrier() {
    let world = World::wal();
    let none = world.run("holder wal");
    assert_eq!((none.code, none.text().as_str()), (1, ""));
    assert!(none.stderr.starts_with("kwal: no exclusive writer has taken over wal/0"), "{}", none.stderr);
    world.runtime.block_on(async {
        let client = Client::connect(world.cluster.bootstrap()).await.unwrap();
        let open = || client.partition_client("wal", 0);
        open().exclusive("writer-1").await.unwrap().produce([Record::new("a", "1")]).await.unwrap();
        // More than what is searched at first.
        for _ in 0..3 {
            open().await.unwrap().produce(vec![Record::new("b", "2"); 700]).await.unwrap();
        }
        let holder = open().exclusive("writer-1").await.unwrap();
        holder.produce([Record::new("c", "3")]).await.unwrap();
        open().await.unwrap().produce(vec![Record::new("d", "4"); 2_000]).await.unwrap();
    });
    let found = world.run("holder wal --json");
    assert_eq!(found.code, 1, "{found:?}");
    assert_eq!(found.stderr, "kwal: warning: 1 batch after the barrier is not of writer-1\n");
    let holder = found.objects().remove(0);
    assert_eq!(
        fields(&holder),
        [
            "batches_after",
            "epoch",
            "last_epoch",
            "name",
            "offset",
            "others_after",
            "partition",
            "producer_id",
            "timestamp",
            "topic",
        ]
    );
    assert_eq!(
        (&holder["name"], &holder["offset"], &holder["epoch"]),
        (&json!("writer-1"), &json!(2_102), &json!(1))
    );
    assert_eq!((&holder["batches_after"], &holder["others_after"]), (&json!(1), &json!(1)));
    let all = world.run("holder wal --all --json").objects();
    let offsets: Vec<_> = all.iter().map(|held| held["offset"].clone()).collect();
    assert_eq!(offsets, [json!(0), json!(2_102)]);
    assert!(world.run("holder wal").text().lines().nth(1).unwrap().starts_with("writer-1"));
}

/// The log of a partition as a segment file.
fn segment(world: &World) -> Vec<u8> {
    world.cluster.log("wal", 0).unwrap().iter().flat_map(|batch| batch.bytes().to_vec()).collect()
}

fn inspect(file: &Scratch, more: &str) -> Ended {
    let mut command = kwal("inspect --file");
    command.arg(&file.0).args(more.split_whitespace());
    end(command, b"")
}

#[test]
fn a_segment_file_is_as_the_log() {
    let world = eventful();
    let file = Scratch::new("whole.log", &segment(&world));
    let from_file = inspect(&file, "--json");
    assert_eq!(from_file.code, 0, "{from_file:?}");
    let mut position = 0;
    let mut of_file = batches(&from_file);
    for batch in &mut of_file {
        let at = batch.as_object_mut().unwrap().remove("position").unwrap();
        assert_eq!(at, position);
        position += batch["bytes"].as_u64().unwrap();
    }
    assert_eq!(of_file, batches(&world.run("inspect wal --json")));
}

#[test]
fn a_damaged_segment_file_is_read_as_far_as_it_can_be() {
    let world = World::wal();
    for line in ["one\n", "two\n", "three\n", "four\n"] {
        world.ok_with("append wal", line.as_bytes());
    }
    let mut bytes = segment(&world);
    let log = world.cluster.log("wal", 0).unwrap();
    let sizes: Vec<_> = log.iter().map(|batch| batch.size_in_bytes()).collect();
    bytes[sizes[0] + sizes[1] - 2] ^= 1; // in the second one
    let torn = bytes.len() - 5;
    let file = Scratch::new("torn.log", &bytes[..torn]);
    let ended = inspect(&file, "--json");
    assert_eq!(ended.code, 1);
    let objects = ended.objects();
    let kinds: Vec<_> = objects.iter().map(|object| object["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["batch", "unreadable", "batch", "torn", "summary"]);
    assert_eq!((&objects[1]["base_offset"], &objects[1]["position"]), (&json!(1), &json!(sizes[0])));
    let text = objects[1]["doubts"][0]["text"].as_str().unwrap();
    assert!(text.contains("checksum"), "{text}");
    assert_eq!(objects[2]["doubts"], json!([]));
    let at: usize = sizes[..3].iter().sum();
    assert_eq!(objects[3], json!({"type": "torn", "position": at, "bytes": sizes[3] - 5}));
    let text = inspect(&file, "").text();
    assert!(
        text.lines().last().unwrap().ends_with(&format!("torn: {} bytes are no whole batch", sizes[3] - 5)),
        "{text}"
    );

    // Zeros are what brokers preallocate, and a length beyond reason ends it.
    for (tail, kinds) in [
        (vec![0; 4096], &["batch", "torn", "summary"][..]),
        ([&[0; 8][..], &[0x7f; 60]].concat(), &["batch", "unreadable", "summary"]),
        (b"garbage".to_vec(), &["batch", "torn", "summary"]),
    ] {
        let file = Scratch::new("tail.log", &[&bytes[..sizes[0]], &tail].concat());
        let objects = inspect(&file, "--json").objects();
        let found: Vec<_> = objects.iter().map(|object| object["type"].as_str().unwrap()).collect();
        assert_eq!(found, kinds);
    }
}

#[test]
fn no_file_makes_it_panic() {
    let world = eventful();
    let bytes = segment(&world);
    let mut state = 1_u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize
    };
    for round in 0..20 {
        let mut damaged = bytes.clone();
        for _ in 0..=round {
            let at = random() % damaged.len();
            damaged[at] = random() as u8;
        }
        let file = Scratch::new("random.log", &damaged);
        let ended = inspect(&file, "--json");
        assert!(matches!(ended.code, 0 | 1), "round {round}: {ended:?}");
        assert_eq!(ended.objects().pop().unwrap()["type"], "summary");
    }
}
