//! The program `examples/wal.rs` against real brokers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use kwal_tests::kafka::{Kafka, Version};

kwal_tests::suite! {
    shared: [a_million_small_records, ten_thousand_large_records, many_writers, no_such_broker],
    own: [],
}

async fn a_million_small_records(kafka: &'static Kafka) {
    for compression in compressions(kafka, ["none", "lz4"]) {
        main_job(kafka, 1_000_000, 100, compression, &[]).await;
    }
}

async fn ten_thousand_large_records(kafka: &'static Kafka) {
    for compression in compressions(kafka, ["lz4", "none"]) {
        main_job(kafka, 10_000, 100_000, compression, &[]).await;
    }
}

/// Tasks that append one record at a time.
async fn many_writers(kafka: &'static Kafka) {
    for compression in compressions(kafka, ["none", "lz4"]) {
        let said = main_job(kafka, 200_000, 100, compression, &["--writers", "1000"]).await;
        assert!(said.contains("(200,000 appends of one record by 1,000 writers)"), "{said}");
    }
}

/// Returns the compressions to run: one for each Kafka version, so that both are covered; with `KWAL_LONG=1`
/// or `KAFKA_CONNECT`, both.
fn compressions(kafka: &Kafka, [older, newer]: [&'static str; 2]) -> Vec<&'static str> {
    match kafka.version() {
        Some(Version::V3_9_2) if !kwal_tests::long() => vec![older],
        Some(Version::V4_3_1) if !kwal_tests::long() => vec![newer],
        _ => vec![older, newer],
    }
}

/// Appends, replays and verifies; then checks the end of each partition with Kafka's tool. Returns what the
/// program printed.
async fn main_job(
    kafka: &'static Kafka,
    records: u32,
    size: u32,
    compression: &str,
    more: &[&str],
) -> String {
    const PARTITIONS: u32 = 4;
    let topic = kafka.topic_name("main-job");
    let arguments = [
        ("--records", records.to_string()),
        ("--size", size.to_string()),
        ("--partitions", PARTITIONS.to_string()),
        ("--compression", compression.to_owned()),
        ("--topic", topic.clone()),
    ];
    let mut wal = Command::new(program());
    wal.args(arguments.iter().flat_map(|(flag, value)| [*flag, value])).args(more).arg("--keep");
    wal.env("KAFKA_CONNECT", kafka.bootstrap().join(","));
    let output = tokio::task::spawn_blocking(move || wal.output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));

    let acknowledged = acknowledged(&said, &topic);
    assert_eq!(acknowledged.len(), PARTITIONS as usize, "{said}");
    assert_eq!(acknowledged.iter().sum::<i64>(), i64::from(records));
    assert_eq!(kafka.end_offsets(&topic).await, acknowledged);
    // Frees a gigabyte.
    kafka.java().delete_topic(&topic).await;
    said
}

async fn no_such_broker(_: &'static Kafka) {
    let output = Command::new(program()).env("KAFKA_CONNECT", "127.0.0.1:1").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("127.0.0.1:1"), "{said}");
}

/// Parses the end offset of each partition from the program's output.
pub(crate) fn acknowledged(said: &str, topic: &str) -> Vec<i64> {
    let of = |line: &str| line.strip_prefix(topic)?.strip_prefix(':')?.split_once(':')?.1.parse().ok();
    said.lines().filter_map(of).collect()
}

/// Builds the program as README does, and returns its path.
fn program() -> &'static Path {
    static BUILT: LazyLock<HashMap<String, PathBuf>> =
        LazyLock::new(|| build(&["--release", "-p", "kwal", "--example", "wal"]));
    &BUILT["wal"]
}

/// Returns the path of an example, or of the program `kwal` of kwal-cli, with all features, as
/// `cargo test --workspace --all-features` builds them.
pub(crate) fn program_with_all_features(name: &str) -> &'static Path {
    // With the examples, cargo unifies features as it does for tests.
    static BUILT: LazyLock<HashMap<String, PathBuf>> =
        LazyLock::new(|| build(&["--workspace", "--all-features", "--examples", "--bin", "kwal"]));
    &BUILT[name]
}

/// Builds programs and returns their paths by name.
fn build(options: &[&str]) -> HashMap<String, PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--message-format", "json"]).args(options);
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    let built = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, PathBuf::from(message["executable"].as_str()?)))
    });
    built.collect()
}
