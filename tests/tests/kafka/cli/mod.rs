//! The program `kwal` of kwal-cli against real brokers.

mod commands;
mod inspect;

use std::io::Write as _;
use std::process::{Command, Stdio};

use kwal_tests::kafka::Kafka;
use serde_json::Value;

use crate::program::program_with_all_features;

/// The program on a cluster.
struct Kwal {
    brokers: String,
}

/// A program that has ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Kwal {
    fn on(kafka: &Kafka) -> Self {
        Self { brokers: kafka.bootstrap().join(",") }
    }

    /// Runs it with arguments between spaces.
    async fn run(&self, arguments: &str, input: &[u8]) -> Ended {
        let arguments: Vec<_> = arguments.split_whitespace().map(str::to_owned).collect();
        let (brokers, input) = (self.brokers.clone(), input.to_vec());
        let run = move || {
            let mut command = Command::new(program_with_all_features("kwal"));
            command.env_clear().env("KAFKA_CONNECT", brokers).args(arguments);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            // One that does not read its input may have ended.
            let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
            let output = child.wait_with_output().unwrap();
            writer.join().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            Ended { code: output.status.code().unwrap(), stdout: output.stdout, stderr }
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// Runs what must end with an exit code, and returns what it printed.
    async fn ends(&self, code: i32, arguments: &str, input: &[u8]) -> String {
        let ended = self.run(arguments, input).await;
        assert_eq!(ended.code, code, "{arguments}: {ended:?}");
        String::from_utf8(ended.stdout).unwrap()
    }

    async fn ok(&self, arguments: &str) -> String {
        self.ends(0, arguments, b"").await
    }

    async fn objects(&self, code: i32, arguments: &str) -> Vec<Value> {
        objects(&self.ends(code, &format!("{arguments} --json"), b"").await)
    }
}

/// Parses JSON, an object a line.
fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
