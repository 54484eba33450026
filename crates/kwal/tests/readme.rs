//! README is checked: its first program is an example that runs, and its other snippets are doc tests.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::{
    env::{consts::EXE_SUFFIX, current_exe},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kwal_testkit::EmbeddedCluster;

const README: &str = include_str!("../README.md");

#[test]
fn the_quick_start_is_the_example() {
    let (_, example) = include_str!("../examples/quickstart.rs").split_once("\n\n").unwrap();
    assert!(
        README.contains(&format!("```rust,no_run\n{example}```\n")),
        "README quotes examples/quickstart.rs"
    );
}

#[test]
fn the_long_form_is_the_doc_test() {
    let (_, rest) = README.split_once("```rust,ignore\n").unwrap();
    let (snippet, _) = rest.split_once("```\n").unwrap();
    // The doc test starts its broker at another port, since a developer may have one at 9092.
    let snippet = &snippet.replace("localhost:9092", "localhost:9093");
    let docs: Vec<_> = include_str!("../src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let docs = docs.join("\n");
    assert!(docs.contains(snippet), "the crate's documentation has the snippet:\n{snippet}");
}

/// A snippet of README, to be run.
mod many_writers {
    include!("readme/many_writers.rs");

    pub(crate) async fn run(wal: PartitionClient) -> Result<Vec<(u32, Option<i64>)>, Error> {
        serve(wal).await
    }
}

#[tokio::test]
async fn the_many_small_writers_get_an_offset_each() {
    let snippet = include_str!("readme/many_writers.rs");
    assert!(README.contains(&format!("```rust,no_run\n{snippet}```\n")), "README quotes {snippet}");
    let cluster = EmbeddedCluster::builder().topic("wal", 1).start().await.unwrap();
    let client = kwal::Client::connect(cluster.bootstrap()).await.unwrap();
    let appended = many_writers::run(client.partition_client("wal", 0).await.unwrap()).await.unwrap();
    assert_eq!(appended.len(), 1_000);
    let records = cluster.records("wal", 0).unwrap();
    assert_eq!(records.len(), 1_000);
    for (task, offset) in appended {
        let record = &records[usize::try_from(offset.unwrap()).unwrap()];
        assert_eq!(record.value.as_deref(), Some(task.to_string().as_bytes()));
    }
    assert!(cluster.log("wal", 0).unwrap().len() < 500);
}

/// Twice in a row, because the topic exists the second time.
#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_runs_again_and_again() {
    let cluster = EmbeddedCluster::builder().start().await.unwrap();
    let program = example("quickstart");
    for appended in ["appended at offsets 0..2", "appended at offsets 2..4"] {
        let (program, brokers) = (program.clone(), cluster.bootstrap().join(","));
        let run = move || Command::new(program).env("KAFKA_CONNECT", brokers).output().unwrap();
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let first_and_last = r#"0: Some(b"account") Some(b"+100")"#;
        assert!(printed.starts_with(appended) && printed.contains(first_and_last), "{printed}");
    }
}

/// On a broker of its own, and on those that the environment names, one and three.
#[tokio::test(flavor = "multi_thread")]
async fn many_writers_share_batches() {
    for brokers in [0, 1, 3] {
        let (cluster, printed) = run("many_writers", brokers).await;
        let (_, batches) = printed.split_once("1000 changes are on the log, in ").unwrap();
        let batches = batches.split(' ').next().unwrap().parse::<u32>().unwrap();
        assert!((4..500).contains(&batches), "{printed}");
        let last = "the log has every change of 50 accounts, each in order\n";
        assert!(printed.ends_with(last), "{printed}");
        assert!(cluster.topics().iter().all(|topic| !topic.starts_with("many-writers")));
    }
}

/// On a broker of its own, and on those that the environment names, one and three.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_a_primary_that_is_stopped() {
    for brokers in [0, 1, 3] {
        let (cluster, printed) = run("failover", brokers).await;
        // In this order.
        let mut rest = printed.as_str();
        for line in [
            "primary: holds the log, epoch 0, barrier at offset 0\n",
            "primary: 100 entries are acknowledged\n",
            "standby: holds the log, epoch 1, barrier at offset 101\n",
            "standby: has replayed 100 entries up to the barrier\n",
            "standby: its first append is at offset 102, ",
            "primary: goes on with its append\n",
            ": fenced: the log of ",
            "primary: steps down\n",
            "the log has what was acknowledged, 102 entries, and nothing that came too late\n",
        ] {
            (_, rest) = rest.split_once(line).unwrap_or_else(|| panic!("{line:?} is missing: {printed}"));
        }
        assert!(cluster.topics().iter().all(|topic| !topic.starts_with("failover")));
    }
}

/// On a broker of its own, and on those that the environment names, one and three.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_one_thing_each_run() {
    for (name, last) in [
        ("wal_of_a_kv_store", "without the snapshot: "),
        ("follow", "stopped: offsets 2 to 4: 2 records, "),
        ("large_entries", "read 3 entries, and the last one again from a checkpoint"),
        #[cfg(feature = "compression-lz4")]
        ("mirror", "2 batches are on the mirror, byte for byte"),
    ] {
        for brokers in [0, 1, 3] {
            let (cluster, printed) = run(name, brokers).await;
            assert!(printed.lines().last().is_some_and(|line| line.starts_with(last)), "{printed}");
            let prefix = name.replace('_', "-");
            assert!(cluster.topics().iter().all(|topic| !topic.starts_with(&prefix)));
        }
    }
}

/// Its brokers are in its own process.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_tests_runs_in_virtual_time() {
    let (_, printed) = run("embed_in_your_tests", 0).await;
    let [killed, none] = printed.lines().collect::<Vec<_>>()[..] else { panic!("{printed}") };
    assert!(
        killed.starts_with("the leader was killed: the order took ") && killed.ends_with("s of virtual time")
    );
    // Not later than the deadline of two minutes, and earlier if no attempt could begin before it.
    assert!(none.starts_with("all brokers were killed: that was said after 1"), "{printed}");
}

#[cfg(feature = "tls-ring")]
#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_tls_and_sasl_runs() {
    let (_, printed) = run("tls_sasl", 0).await;
    assert!(printed.starts_with("appended and read as alice\n"), "{printed}");
}

#[test]
fn every_example_has_a_row_with_its_command() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut rows = 0;
    for package in ["kwal", "kwal-protocol"] {
        for entry in fs::read_dir(crates.join(package).join("examples")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let name = path.file_stem().unwrap().to_str().unwrap();
            let row = README.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            let command = format!("-p {package} --example {name}");
            let has_command = row.is_some_and(|row| row.contains("| `cargo run ") && row.contains(&command));
            assert!(has_command, "README has no row for the example {name} with its command");
            rows += 1;
        }
    }
    assert!(rows > 10, "{rows}");
}

/// Runs an example on so many brokers, or on a broker of its own. Returns what it printed.
async fn run(name: &str, brokers: i32) -> (EmbeddedCluster, String) {
    let cluster = EmbeddedCluster::builder().brokers(brokers.max(1)).start().await.unwrap();
    let mut program = Command::new(example(name));
    match brokers {
        0 => program.env_remove("KAFKA_CONNECT"),
        _ => program.env("KAFKA_CONNECT", cluster.bootstrap().join(",")),
    };
    let output = tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    (cluster, printed)
}

/// target/debug/deps/readme-… → target/debug/examples/…
fn example(name: &str) -> PathBuf {
    let mut program = current_exe().unwrap();
    program.pop();
    program.set_file_name("examples");
    program.push(format!("{name}{EXE_SUFFIX}"));
    program
}
