//! `kwal inspect --file` must agree with DumpLogSegments, batch for batch, in all that both print.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kwal_client::ClientBuilder;
use kwal_client::record::Record;
use kwal_protocol::record::Compression;
use kwal_tests::kafka::{Kafka, Version};
use kwal_tests::message::Message;
use serde_json::{Value, json};

use super::{Kwal, objects};
use crate::segments::{compacting, copied};

kwal_tests::suite! {
    own: [inspect_agrees_with_kafka],
}

/// A segment file.
#[derive(Debug, Default, PartialEq)]
struct Dump {
    /// Its batches, each with the fields that both tools print, by the names of `kwal inspect`.
    batches: Vec<Value>,
    /// How many bytes at its end are no batch.
    torn: u64,
}

async fn inspect_agrees_with_kafka(version: Version) {
    let (kafka, compacted) = compacting(version).await;
    let kwal = Kwal::on(&kafka);
    let eventful = eventful(&kafka).await;
    let whole = copied(&kafka.segments(1, &eventful, 0)).remove(0);
    let (ours, _) = kwal.inspect(&whole).await;
    let last = ours.batches.last().unwrap()["position"].as_u64().unwrap() as usize;
    let mut files = vec![whole.clone()];
    // As after a crash: the end of the last batch is missing, and then most of its header.
    let bytes = fs::read(&whole).unwrap();
    let torn = [bytes.len() - 1, last + 30, last + 3];
    files.extend(torn.map(|end| sibling(&whole, &format!("torn-{end}"), &bytes[..end])));
    let mut damaged = bytes.clone();
    damaged[last + VALUE] ^= 1;
    files.push(sibling(&whole, "damaged", &damaged));
    let copies = once_compacted(&kwal, &kafka, &compacted).await;
    files.extend_from_slice(&copies);

    let printed = kafka.dump_records(&files).await;
    let mut theirs = dumps(&printed);
    for file in &files {
        let (ours, code) = kwal.inspect(file).await;
        let theirs = theirs.remove(file).unwrap_or_else(|| panic!("{} in {printed}", file.display()));
        for (ours, theirs) in ours.batches.iter().zip(&theirs.batches) {
            assert_eq!(ours, theirs, "{}", file.display());
        }
        assert_eq!(ours, theirs, "{}", file.display());
        // Of all that brokers wrote, nothing is doubtful.
        let is_damaged = file.parent().unwrap().ends_with("damaged");
        assert_eq!(code, i32::from(is_damaged), "{}", file.display());
        let unreadable = ours.batches.iter().filter(|batch| batch.get("unreadable").is_some()).count();
        assert_eq!(unreadable, usize::from(is_damaged));
    }

    let count = |name: &str, value: &str| ours.batches.iter().filter(|batch| batch[name] == value).count();
    assert_eq!((count("marker", "commit"), count("marker", "abort")), (1, 2));
    for codec in Compression::ALL {
        assert!(count("codec", codec.name()) > 0, "{codec}");
    }
    let file = whole.display();
    let barriers = objects(&kwal.ok(&format!("inspect --json --file {file}")).await);
    let barriers = barriers.iter().filter_map(|batch| batch.get("barrier")?["name"].as_str());
    assert_eq!(barriers.collect::<Vec<_>>(), ["eventful"; 2]);
}

/// Where the value begins in a batch of one record with a key of three bytes and nothing long: after the
/// header of 61 bytes, five fields of one byte each, the key and its own length.
const VALUE: usize = 61 + 5 + 3 + 1;

/// Appends by writers of Java with each codec, by two writers of kwal in turn, in transactions that are
/// committed and aborted, and by an exclusive writer that takes over from itself. Returns the topic.
async fn eventful(kafka: &Kafka) -> String {
    // One segment, although some timestamps are of today and others are not.
    let topic = kafka.topic("eventful", 1, &[("segment.ms", "315360000000")]).await;
    let java = kafka.java();
    let messages = |count: i64| -> Vec<_> {
        let at = |i| Message::new(1_750_000_000_000 + i, Some(b"key"), Some(&[b'v'; 100]));
        (0..count).map(at).collect()
    };
    for codec in Compression::ALL {
        java.produce(&topic, 0, codec.name(), &messages(10)).await;
    }
    let client = ClientBuilder::new(kafka.bootstrap()).build().await.unwrap();
    let open = || client.partition_client(&topic, 0);
    let writers = [open().await.unwrap(), open().compression(Compression::Lz4).await.unwrap()];
    for count in 1..=3 {
        for writer in &writers {
            writer.produce(vec![Record::new("key", "value"); count]).await.unwrap();
        }
    }
    java.produce_in_transaction(&topic, 0, &messages(3), true).await;
    for _ in 0..2 {
        java.produce_in_transaction(&topic, 0, &messages(2), false).await;
    }
    // From the first barrier on, nobody else appends. Copies of the segment are cut off in the last batch,
    // and damaged.
    for value in ["of the holder", "the last value"] {
        let holder = open().exclusive("eventful").await.unwrap();
        holder.produce([Record::new("key", value)]).await.unwrap();
    }
    topic
}

/// Waits until the cleaner has emptied batches and taken records out of others; returns copies of the
/// segments.
async fn once_compacted(kwal: &Kwal, kafka: &Kafka, topic: &str) -> Vec<PathBuf> {
    // The time limit of the test ends the loop.
    loop {
        let segments = copied(&kafka.segments(1, topic, 0));
        let mut batches = Vec::new();
        for segment in &segments {
            batches.extend(kwal.inspect(segment).await.0.batches);
        }
        let covered = |batch: &Value| {
            let offset = |name: &str| batch[name].as_i64().unwrap_or_default();
            offset("last_offset") - offset("base_offset") + 1
        };
        let has_holes = |batch: &Value| batch["count"].as_i64().is_some_and(|count| count != covered(batch));
        let is_empty = |batch: &Value| batch["count"] == 0;
        if batches.iter().any(is_empty) && batches.iter().any(|batch| has_holes(batch) && !is_empty(batch)) {
            return segments;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Writes a file of the same name, which is that of the first offset, into a directory beside it.
fn sibling(file: &Path, dir: &str, bytes: &[u8]) -> PathBuf {
    let dir = file.parent().unwrap().join(dir);
    fs::create_dir(&dir).unwrap();
    let sibling = dir.join(file.file_name().unwrap());
    fs::write(&sibling, bytes).unwrap();
    sibling
}

impl Kwal {
    /// Inspects a file; returns its exit code as well.
    async fn inspect(&self, file: &Path) -> (Dump, i32) {
        let ended = self.run(&format!("inspect --json --file {}", file.display()), b"").await;
        assert!(matches!(ended.code, 0 | 1), "{ended:?}");
        let mut dump = Dump::default();
        for mut object in objects(&String::from_utf8(ended.stdout).unwrap()) {
            match object["type"].as_str().unwrap() {
                "batch" => {
                    let fields = object.as_object_mut().unwrap();
                    // What DumpLogSegments does not print.
                    for name in ["type", "barrier", "hole_before", "holes_within", "doubts"] {
                        fields.remove(name);
                    }
                    dump.batches.push(object);
                }
                "unreadable" => dump.batches.push(unreadable(&object["base_offset"], &object["position"])),
                "torn" => dump.torn = object["bytes"].as_u64().unwrap(),
                kind => assert_eq!(kind, "summary"),
            }
        }
        (dump, ended.code)
    }
}

fn unreadable(base_offset: &Value, position: &Value) -> Value {
    json!({"unreadable": true, "base_offset": base_offset, "position": position})
}

/// Takes apart what DumpLogSegments prints, by file.
fn dumps(printed: &str) -> HashMap<PathBuf, Dump> {
    let mut dumps = HashMap::new();
    let mut file = PathBuf::new();
    for line in printed.lines() {
        let dump: &mut Dump = dumps.entry(file.clone()).or_default();
        if let Some(name) = line.strip_prefix("Dumping ") {
            file = name.into();
        } else if line.starts_with("baseOffset: ") {
            dump.batches.push(batch(line));
        } else if let Some((_, marker)) = line.split_once(" endTxnMarker: ") {
            let (kind, _) = marker.split_once(' ').unwrap();
            dump.batches.last_mut().unwrap()["marker"] = kind.to_lowercase().into();
        } else if let Some(rest) = line.strip_prefix("Found ") {
            let (bytes, _) = rest.split_once(" invalid bytes at the end of ").unwrap();
            dump.torn = bytes.parse().unwrap();
        }
    }
    dumps
}

/// The line of a batch, as `NAME: VALUE NAME: VALUE …`.
fn batch(line: &str) -> Value {
    let words: Vec<_> = line.split(' ').collect();
    let fields: HashMap<_, _> =
        words.chunks(2).map(|pair| (pair[0].trim_end_matches(':'), pair[1])).collect();
    let number = |name: &str| Value::from(fields[name].parse::<i64>().unwrap());
    if fields["isvalid"] != "true" {
        return unreadable(&number("baseOffset"), &number("position"));
    }
    let (timestamp_type, max_timestamp) = match fields.contains_key("LogAppendTime") {
        true => ("log-append", number("LogAppendTime")),
        false => ("create", number("CreateTime")),
    };
    let mut batch = json!({
        "base_offset": number("baseOffset"), "last_offset": number("lastOffset"), "count": number("count"),
        "base_sequence": number("baseSequence"), "last_sequence": number("lastSequence"),
        "producer_id": number("producerId"), "producer_epoch": number("producerEpoch"),
        "leader_epoch": number("partitionLeaderEpoch"), "transactional": fields["isTransactional"] == "true",
        "control": fields["isControl"] == "true", "position": number("position"),
        "timestamp_type": timestamp_type, "max_timestamp": max_timestamp, "bytes": number("size"),
        "magic": number("magic"), "codec": fields["compresscodec"], "crc": number("crc"),
    });
    let horizon = fields["deleteHorizonMs"].trim_start_matches("OptionalLong[").trim_end_matches(']');
    if let Ok(horizon) = horizon.parse::<i64>() {
        batch["delete_horizon"] = horizon.into();
    }
    batch
}
