//! Pipes, narrow terminals, the help, and the benchmark's plot.

use std::fs;

use kwal_testkit::EmbeddedCluster;

use crate::support::{Scratch, World, end, fields, kwal};

#[test]
fn a_pipe_that_is_closed_ends_it_quietly() {
    let world = World::wal();
    let lines: String = (0..50_000).map(|i| format!("a line of some length, number {i}\n")).collect();
    world.ok_with("append wal", lines.as_bytes());
    for arguments in ["read wal", "read wal --json", "follow wal --from earliest"] {
        let mut reading = world.spawn(arguments);
        reading.line();
        reading.close_stdout();
        let ended = reading.end();
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{arguments}");
    }
}

#[test]
fn tables_fit_into_the_terminal() {
    let world = World::start(EmbeddedCluster::builder().brokers(3).topic("wal", 1));
    world.ok_with("append wal", b"x\n");
    for (arguments, width) in
        [("audit wal", 40), ("topics describe wal", 44), ("inspect wal", 90), ("audit wal", 80)]
    {
        let mut command = world.kwal(arguments);
        command.env("COLUMNS", width.to_string());
        let text = end(command, b"").text();
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width, "{arguments}: {widest} columns\n{text}");
        let in_a_pipe = world.run(arguments).text();
        assert!(in_a_pipe.lines().count() <= text.lines().count(), "{arguments}");
    }
}

#[test]
fn a_terminal_may_be_of_any_width() {
    let world = World::wal();
    for width in [0, 1, u16::MAX - 1, u16::MAX] {
        let mut command = world.kwal("topics list");
        command.env("COLUMNS", width.to_string());
        let ended = end(command, b"");
        assert!(ended.code == 0 && ended.text().starts_with("TOPIC "), "{width}: {ended:?}");
    }
}

#[test]
fn every_command_teaches() {
    let help = end(kwal("--help"), b"");
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    for text in ["Exit codes:\n  0    success\n", "Examples:\n", "Ctrl-C", "/guide/troubleshooting/"] {
        assert!(help.text().contains(text), "{text}: {}", help.text());
    }
    let commands = [
        "topics list",
        "topics create",
        "topics ensure",
        "topics describe",
        "topics delete",
        "audit",
        "append",
        "read",
        "follow",
        "offsets",
        "trim",
        "inspect",
        "holder",
        "verify",
        "bench",
        "completions",
    ];
    for command in commands {
        let help = end(kwal(&format!("{command} --help")), b"");
        assert_eq!(help.code, 0);
        assert!(help.text().contains("\nExamples:\n"), "{command}: {}", help.text());
        let short = end(kwal(&format!("{command} -h")), b"").text();
        assert!(short.len() < help.text().len(), "{command}");
        let name = command.split(' ').next().unwrap();
        assert!(
            help.text().contains(&format!("kwal {name} ")) || help.text().contains(" kwal "),
            "{command}"
        );
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = end(kwal(&format!("completions {shell}")), b"");
        assert!(script.code == 0 && script.text().contains("follow"), "{shell}");
    }
    assert!(end(kwal("--version"), b"").text().starts_with("kwal "));
}

#[test]
fn a_benchmark_measures_draws_and_cleans_up() {
    let world = World::start(EmbeddedCluster::builder());
    let plot = Scratch::new("bench.svg", b"");
    let mut command = world.kwal("bench --seconds 1 --json --svg");
    command.arg(&plot.0);
    let ended = end(command, b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    let report = ended.objects().remove(0);
    assert_eq!(
        fields(&report),
        ["append", "batch_bytes", "compression", "in_flight", "read", "record_size", "topic"]
    );
    let (append, read) = (&report["append"], &report["read"]);
    assert_eq!(
        fields(append),
        [
            "bytes",
            "bytes_per_second",
            "errors",
            "latency_ms",
            "records",
            "records_per_second",
            "samples",
            "seconds",
        ]
    );
    assert!(append["records"].as_u64().unwrap() > 0);
    assert_eq!((&append["records"], &append["bytes"]), (&read["records"], &read["bytes"]));
    assert!(append["latency_ms"]["p99"].as_f64().unwrap() >= append["latency_ms"]["p50"].as_f64().unwrap());
    let svg = fs::read_to_string(&plot.0).unwrap();
    assert!(
        svg.starts_with("<svg") && svg.contains("Latency of appends") && svg.contains("<polyline"),
        "{svg}"
    );
    assert!(world.cluster.topics().is_empty(), "its topic is deleted");
}
