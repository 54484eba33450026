//! The program, as a client in another process uses it.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{ApiVersionsRequest, MetadataRequest, MetadataTopic},
};
use kwal_testkit::Dialect;
use kwal_transport::{HostPort, Tcp};

use crate::client::{Client, Place, batch, outcome};

#[tokio::test]
async fn serves_other_processes() {
    let program = Program::start(&["--brokers", "3", "--topic", "wal:4", "--topic", "one"]);
    assert_eq!(program.bootstrap.len(), 3);
    let mut client = program.connect(1).await;
    let versions = client.call(&named(), 4).await;
    let produce = versions.api_keys.iter().find(|api| api.api_key == ApiKey::PRODUCE).unwrap();
    assert_eq!(produce.max_version, 13);

    let metadata = client.call(&MetadataRequest { topics: None, ..MetadataRequest::default() }, 13).await;
    let printed: Vec<_> =
        metadata.brokers.iter().map(|broker| format!("{}:{}", broker.host, broker.port)).collect();
    assert_eq!(printed, program.bootstrap);
    let topics: Vec<_> =
        metadata.topics.iter().map(|topic| (topic.name.as_deref(), topic.partitions.len())).collect();
    assert_eq!(topics, [(Some("one"), 1), (Some("wal"), 4)]);

    for partition in &metadata.topics[1].partitions {
        let place =
            Place { topic: "wal", id: metadata.topics[1].topic_id, partition: partition.partition_index };
        let mut leader = program.connect(partition.leader_id).await;
        let sent = batch(&["a", "b"]).to_bytes();
        assert_eq!(outcome(&leader.produce(&place, sent.clone()).await), Ok(0));
        let fetched = leader.fetch(&place, 0).await;
        // All but the leader epoch, which the broker sets and the checksum does not cover.
        assert_eq!(fetched.records.unwrap()[17..], sent[17..]);
        assert_eq!(fetched.high_watermark, 2);
    }
    assert!(program.end().is_empty());
}

#[tokio::test]
async fn behaves_as_the_given_release() {
    let program = Program::start(&["--dialect=2.8", "--auto-create"]);
    let mut client = program.connect(1).await;
    let versions = client.call(&named(), 3).await;
    let fetch = versions.api_keys.iter().find(|api| api.api_key == ApiKey::FETCH).unwrap();
    assert_eq!(Some(fetch.max_version), Dialect::kafka_2_8().versions(ApiKey::FETCH).map(|v| v.newest));

    let new = MetadataTopic { name: Some("new".to_owned()), ..MetadataTopic::default() };
    let request = MetadataRequest {
        topics: Some(vec![new]),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    client.call(&request, 9).await;
    let metadata = client.call(&request, 9).await;
    assert_eq!(metadata.topics[0].error_code, ErrorCode::NONE);
}

#[test]
fn listens_at_the_given_ports() {
    // A port that was free a moment ago may be taken by now.
    let try_one = |_| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let program = Program::start(&["--port", &port]);
        (program.bootstrap != [""]).then_some((program, port))
    };
    let (program, port) = (0..10).find_map(try_one).unwrap();
    assert_eq!(program.bootstrap, [format!("127.0.0.1:{port}")]);
    let (code, printed) = fails(&["--port", &port]);
    assert_eq!(code, 1);
    assert!(printed.starts_with(&format!("kwal-testkit: cannot listen at 127.0.0.1:{port}: ")), "{printed}");
    assert!(printed.ends_with("; use another --port, or omit it for free ports\n"), "{printed}");
}

#[test]
fn errors_are_reported_in_one_line() {
    for (arguments, code, message) in [
        (&["--brokers", "0"][..], 2, "--brokers \"0\" is not a number of brokers from 1 to 1000"),
        (&["--brokers"], 2, "missing argument for option '--brokers'"),
        (&["--port", "70000"], 2, "--port \"70000\" is not a port from 1 to 65535"),
        (&["--port", "65534", "--brokers", "3"], 2, "--port 65534 leaves no ports for 3 brokers"),
        (&["--topic", "wal:many"], 2, "--topic \"wal:many\" is not a name, or"),
        (&["--topic", "a/b"], 1, "topic \"a/b\" cannot be created"),
        (&["--topic", "wal:0"], 1, "topic \"wal\" cannot be created"),
        (&["--dialect", "1.0"], 2, "--dialect \"1.0\" is not 2.8, 3.9 or 4.3"),
        (&["--broker"], 2, "invalid option '--broker'"),
        (&["more"], 2, "unexpected argument \"more\""),
    ] {
        let (ended, printed) = fails(arguments);
        assert!(
            printed.starts_with(&format!("kwal-testkit: {message}")) && printed.lines().count() == 1,
            "{printed}"
        );
        assert_eq!(
            (ended, printed.ends_with("; --help lists the options\n")),
            (code, code == 2),
            "{printed}"
        );
    }
}

#[test]
fn help_lists_every_option() {
    let output = command(&["-h"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    for option in ["--brokers", "--port", "--topic", "--auto-create", "--dialect", "--until-eof", "--help"] {
        assert!(help.contains(option), "{option}: {help}");
    }
}

/// Runs until the value is dropped, or this process ends.
struct Program {
    process: Child,
    bootstrap: Vec<String>,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut process = command(arguments)
            .arg("--until-eof")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let bootstrap = line.trim_end().split(',').map(str::to_owned).collect();
        Self { process, bootstrap }
    }

    async fn connect(&self, broker: i32) -> Client {
        let address: HostPort = self.bootstrap[broker as usize - 1].parse().unwrap();
        Client::connect_by(&Tcp::default(), &address).await
    }

    /// Closes its input, which ends it; returns its output after the first line.
    fn end(mut self) -> String {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
        let mut printed = String::new();
        for mut stream in [
            Box::new(self.process.stdout.take().unwrap()) as Box<dyn std::io::Read>,
            Box::new(self.process.stderr.take().unwrap()),
        ] {
            stream.read_to_string(&mut printed).unwrap();
        }
        printed
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It has ended already after `end`.
        let _ = self.process.wait();
    }
}

/// Clients have to name themselves.
fn named() -> ApiVersionsRequest {
    ApiVersionsRequest { client_software_name: "test".to_owned(), client_software_version: "1".to_owned() }
}

/// Returns its exit code and its output.
fn fails(arguments: &[&str]) -> (i32, String) {
    let output = command(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kwal-testkit"));
    command.args(arguments);
    command
}
