//! The programs that a benchmark runs: other clients, the sink, brokers, and one process per run.

use std::{
    env,
    io::{BufRead, BufReader, Lines, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use crate::shared::{Failure, Measured, Task, Work};

/// Returns the program of the other clients: the one that `PEERS` names, or a new one if `PEERS` is set to
/// something else, or none.
///
/// # Errors
/// It cannot be built.
pub fn peers(scratch: &Path) -> Result<Option<PathBuf>, Failure> {
    let Some(named) = env::var_os("PEERS") else { return Ok(None) };
    if Path::new(&named).is_file() {
        return Ok(Some(named.into()));
    }
    let target = scratch.join("../peers");
    let status = cargo()
        .args(["build", "--release", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !status.success() {
        return Err("the other clients cannot be built".into());
    }
    Ok(Some(target.join("release/kwal-bench-peers")))
}

fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    // Build scripts would run again because of what cargo says of this package.
    for (name, _) in env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG") || name.starts_with("CARGO_MANIFEST"))
        {
            command.env_remove(name);
        }
    }
    command
}

/// Carries out a task by a program, and returns what it cost; of what only prepares others, nothing.
///
/// # Errors
/// It fails, and prints why.
pub fn run(program: &Path, task: &Task) -> Result<Measured, Failure> {
    let output = Command::new(program).args(task.arguments()).output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{} {}: {error}", program.display(), task.arguments().join(" ")).into());
    }
    match task.work {
        Work::Fill | Work::Delete => Ok(Measured::default()),
        _ => String::from_utf8(output.stdout)?.parse(),
    }
}

/// A process that runs until its standard input ends.
#[derive(Debug)]
struct Held {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Held {
    fn start(command: &mut Command) -> Result<Self, Failure> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take();
        let output = process.stdout.take().ok_or("a process without output")?;
        Ok(Self { process, input, output: BufReader::new(output).lines() })
    }

    fn line(&mut self) -> Result<String, Failure> {
        Ok(self.output.next().ok_or("a process ended early")??)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.input.take();
        let _ = self.process.wait();
    }
}

/// The process that answers from memory.
#[derive(Debug)]
pub struct Sink {
    held: Held,
    /// `host:port`.
    pub address: String,
}

impl Sink {
    /// Starts the program `client-sink`, whose log is that of the task, with so much of delay.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(program: &str, task: &Task, delay: Duration) -> Result<Self, Failure> {
        let task = Task { delay_us: u64::try_from(delay.as_micros())?, ..task.clone() };
        let mut held = Held::start(Command::new(program).args(task.arguments()))?;
        let port: u16 = held.line()?.parse()?;
        Ok(Self { held, address: format!("127.0.0.1:{port}") })
    }

    /// Returns the number of records that were appended since the last call, and the sum of their values.
    ///
    /// # Errors
    /// The sink has ended.
    pub fn appended(&mut self) -> Result<(u64, u64), Failure> {
        self.held.input.as_mut().ok_or("the sink has no input")?.write_all(b"\n")?;
        let line = self.held.line()?;
        let (records, sum) = line.split_once(' ').ok_or("the sink prints two numbers")?;
        Ok((records.parse()?, sum.parse()?))
    }
}

/// Brokers that were started for a benchmark.
#[derive(Debug)]
pub struct Brokers {
    _held: Held,
    /// `host:port` of each.
    pub bootstrap: Vec<String>,
}

impl Brokers {
    /// Starts so many nodes of Apache Kafka.
    ///
    /// # Errors
    /// They do not start.
    pub fn start(nodes: &str) -> Result<Self, Failure> {
        let mut held = Held::start(
            cargo()
                .args(["run", "--quiet", "--manifest-path"])
                .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/Cargo.toml"))
                .args(["--example", "kafka", "--", "4.3.1", nodes]),
        )?;
        let line = held.line()?;
        let named = line.strip_prefix("KAFKA_CONNECT=").ok_or("the brokers have no addresses")?;
        let bootstrap = named.split(',').map(str::to_owned).collect();
        Ok(Self { _held: held, bootstrap })
    }
}
