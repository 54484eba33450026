//! A cluster, and the program that is run on it.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use kwal_testkit::{EmbeddedCluster, EmbeddedClusterBuilder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Runtime;

/// A cluster on loopback, and the runtime that it runs on.
pub(crate) struct World {
    pub(crate) cluster: EmbeddedCluster,
    pub(crate) runtime: Runtime,
    pub(crate) brokers: String,
}

impl World {
    pub(crate) fn start(builder: EmbeddedClusterBuilder) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let cluster = runtime.block_on(builder.start()).unwrap();
        let brokers = cluster.bootstrap().join(",");
        Self { cluster, runtime, brokers }
    }

    /// One broker with the topic `wal` of one partition.
    pub(crate) fn wal() -> Self {
        Self::start(EmbeddedCluster::builder().topic("wal", 1))
    }

    /// The program with arguments between spaces.
    pub(crate) fn kwal(&self, arguments: &str) -> Command {
        let mut command = kwal(arguments);
        command.env("KAFKA_CONNECT", &self.brokers);
        command
    }

    pub(crate) fn run(&self, arguments: &str) -> Ended {
        self.run_with(arguments, b"")
    }

    pub(crate) fn run_with(&self, arguments: &str, input: &[u8]) -> Ended {
        end(self.kwal(arguments), input)
    }

    /// Runs what is expected to succeed; its output.
    pub(crate) fn ok(&self, arguments: &str) -> String {
        self.ok_with(arguments, b"")
    }

    pub(crate) fn ok_with(&self, arguments: &str, input: &[u8]) -> String {
        let ended = self.run_with(arguments, input);
        assert_eq!(ended.code, 0, "{arguments}: {ended:?}");
        ended.text()
    }

    /// Waits until something is so.
    pub(crate) fn wait_for(&self, is_so: impl Fn(&EmbeddedCluster) -> bool) {
        while !is_so(&self.cluster) {
            thread::yield_now();
        }
    }

    pub(crate) fn spawn(&self, arguments: &str) -> Running {
        let mut command = self.kwal(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().map(BufReader::new),
            stderr: BufReader::new(child.stderr.take().unwrap()),
            child,
        }
    }
}

/// The program, with nothing of this environment.
pub(crate) fn kwal(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kwal"));
    command.env_clear().args(arguments.split_whitespace());
    command
}

/// Runs a command to its end.
pub(crate) fn end(mut command: Command, input: &[u8]) -> Ended {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // One that ends early does not read all of it.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Ended { code: output.status.code().unwrap(), stdout: output.stdout, stderr }
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// The objects that it printed, one a line.
    pub(crate) fn objects(&self) -> Vec<Value> {
        objects(&self.text())
    }
}

pub(crate) fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// The names of the fields of an object, sorted.
pub(crate) fn fields(object: &Value) -> Vec<&str> {
    let mut fields: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    fields
}

/// A program that runs.
pub(crate) struct Running {
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: BufReader<ChildStderr>,
    child: Child,
}

impl Running {
    pub(crate) fn write(&mut self, input: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(input).unwrap();
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next line on its standard error.
    pub(crate) fn error_line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Closes its output, as `head` does.
    pub(crate) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Ends its input and waits for its end.
    pub(crate) fn end_of_input(mut self) -> Ended {
        self.stdin = None;
        self.end()
    }

    /// Waits for its end. The input stays open until then.
    pub(crate) fn end(mut self) -> Ended {
        let code = self.child.wait().unwrap().code().unwrap();
        let (mut stdout, mut stderr) = (Vec::new(), String::new());
        if let Some(mut output) = self.stdout {
            output.read_to_end(&mut stdout).unwrap();
        }
        self.stderr.read_to_string(&mut stderr).unwrap();
        Ended { code, stdout, stderr }
    }
}

/// A file that is removed at the end of a test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str, content: &[u8]) -> Self {
        let path = env::temp_dir().join(format!("kwal-cli-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = fs::remove_file(&self.0);
    }
}
