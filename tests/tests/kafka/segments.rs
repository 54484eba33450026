//! Segment files of brokers, read by the example `segment` of kwal-protocol. Its output must be that of
//! DumpLogSegments.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::Duration;

use kwal_protocol::record::Compression;
use kwal_tests::kafka::{ClusterConfig, Kafka, Version};
use kwal_tests::message::{Message, pseudo_random};

#[path = "../../../crates/kwal-protocol/examples/segment.rs"]
#[allow(dead_code, reason = "the example has a main")]
mod segment;

kwal_tests::suite! {
    shared: [],
    own: [codecs_and_transactions, compacted],
}

const NOW: i64 = 1_750_000_000_000;

/// Returns messages that fit in a line, since DumpLogSegments does not escape.
fn messages() -> Vec<Message> {
    let long: String = pseudo_random(20_000, 3).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    vec![
        Message::new(NOW, None, Some(b"value")),
        Message::new(NOW + 1, Some(b"key"), None),
        Message::new(NOW - 5, Some(b""), Some(b"")),
        Message::new(NOW + 2, None, None),
        Message::new(NOW + 3, Some("cl\u{e9}".as_bytes()), Some(long.as_bytes())),
        Message::new(NOW + 4, Some(b"k"), Some(b"v"))
            .header("twice", Some(b"1"))
            .header("other", None)
            .header("twice", Some(b"2")),
    ]
}

async fn codecs_and_transactions(version: Version) {
    let kafka = Kafka::shared(version);
    let topic = kafka.topic("dumped", 1, &[]).await;
    let java = kafka.java();
    let mut records = 0;
    for codec in Compression::ALL {
        java.produce(&topic, 0, codec.name(), &messages()).await;
        records += messages().len();
    }
    for commit in [true, false, true] {
        java.produce_in_transaction(&topic, 0, &messages(), commit).await;
        records += messages().len() + 1;
    }
    let lines = same_as_kafka(kafka, &kafka.segments(1, &topic, 0)).await;
    assert_eq!(lines.iter().filter(|line| line.starts_with("| ")).count(), records);
    let codecs = Compression::ALL.map(|codec| format!("compresscodec: {codec} "));
    let codecs = codecs.iter().map(String::as_str);
    for expected in codecs.chain(["isTransactional: true", "endTxnMarker: ABORT", "endTxnMarker: COMMIT"]) {
        assert!(lines.iter().any(|line| line.contains(expected)), "{expected}");
    }
}

/// The cleaner keeps the last record of each key, and later removes tombstones and transaction markers. Of
/// the last batch of a producer, it keeps the header.
async fn compacted(version: Version) {
    let (kafka, topic) = compacting(version).await;
    let is_clean = |lines: &[String]| {
        let has = |pattern: &str| lines.iter().any(|line| line.contains(pattern));
        has(" count: 0 ") && !has("payload: 0") && !has("payload: 1 ")
    };
    loop {
        let lines = same_as_kafka(&kafka, &kafka.segments(1, &topic, 0)).await;
        if is_clean(&lines) {
            assert!(lines.iter().any(|line| line.contains("payload: 5")));
            return;
        }
        // The time limit of the test ends the loop.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Starts a broker with a topic that is soon compacted, with transactions, and returns both.
pub(crate) async fn compacting(version: Version) -> (Kafka, String) {
    let properties = [("log.cleaner.backoff.ms", "100")];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let kafka = Kafka::start(version, &ClusterConfig { properties, ..ClusterConfig::default() });
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "1000"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("min.compaction.lag.ms", "0"),
        ("delete.retention.ms", "0"),
    ];
    let topic = kafka.topic("compacted", 1, &configs).await;
    let java = kafka.java();
    let keyed = |round: i64, key: &str| {
        Message::new(NOW + round * 10_000, Some(key.as_bytes()), Some(format!("{round}").as_bytes()))
    };
    // The timestamps of each round are far enough from those of the last for a new segment.
    for round in 0..6 {
        let messages = ["a", "b", "c", "d"].map(|key| keyed(round, key));
        let kept = keyed(round, &format!("only in {round}"));
        match round {
            0 => drop(java.produce(&topic, 0, "none", &messages).await),
            3 => java.produce_in_transaction(&topic, 0, &messages, false).await,
            4 => java.produce_in_transaction(&topic, 0, &[&messages[..2], &[kept]].concat(), true).await,
            _ => drop(java.produce(&topic, 0, "lz4", &[&messages[..], &[kept]].concat()).await),
        }
    }
    (kafka, topic)
}

/// Dumps copies of the segments, since a cleaner may be running, and returns the output of both.
pub(crate) async fn same_as_kafka(kafka: &Kafka, segments: &[PathBuf]) -> Vec<String> {
    let copies = copied(segments);
    let printed = kafka.dump_records(&copies).await;
    let theirs: Vec<_> = printed.lines().filter_map(normalized).collect();
    let ours = dumped(&copies);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len(), "{printed}");
    ours
}

/// Copies segments to a directory of their own; without those that a cleaner has just removed.
///
/// It is beside the data of the broker, which would not start with a directory there that it does not know.
pub(crate) fn copied(segments: &[PathBuf]) -> Vec<PathBuf> {
    let log = segments[0].parent().unwrap();
    let node = log.ancestors().nth(2).unwrap();
    let dir = node.join("copies").join(log.file_name().unwrap());
    // There are none the first time.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let copies = segments.iter().filter_map(|segment| {
        let copy = dir.join(segment.file_name().unwrap());
        std::fs::copy(segment, &copy).is_ok().then_some(copy)
    });
    copies.collect()
}

/// Returns a line for each batch and each record.
pub(crate) fn dumped(segments: &[PathBuf]) -> Vec<String> {
    let mut lines = Vec::new();
    for segment in segments {
        segment::dump(BufReader::new(File::open(segment).unwrap()), &mut lines, true).unwrap();
    }
    String::from_utf8(lines).unwrap().lines().map(str::to_owned).collect()
}

/// Returns a line about a batch or a record in the notation of the example; `None` for other lines.
fn normalized(line: &str) -> Option<String> {
    if !line.starts_with("baseOffset: ") && !line.starts_with("| offset: ") {
        return None;
    }
    let line = line.replace("OptionalLong.empty", "none");
    Some(match line.split_once("OptionalLong[") {
        Some((before, after)) => format!("{before}{}", after.replacen(']', "", 1)),
        None => line,
    })
}
