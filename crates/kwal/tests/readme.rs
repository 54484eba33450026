//! README is checked: its first program is an example that runs, and its other snippets are doc tests.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::{
    env::{consts::EXE_SUFFIX, current_exe},
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

/// Twice in a row, because the topic exists the second time.
#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_runs_again_and_again() {
    let cluster = EmbeddedCluster::builder().start().await.unwrap();
    let mut program = current_exe().unwrap();
    // target/debug/deps/readme-… → target/debug/examples/quickstart
    program.pop();
    program.set_file_name("examples");
    program.push(format!("quickstart{EXE_SUFFIX}"));
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
