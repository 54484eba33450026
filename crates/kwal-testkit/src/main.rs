//! The embedded cluster as a program, for clients in any language and for experiments by hand.
//!
//! ```sh
//! cargo run -p kwal-testkit -- --brokers 3 --topic wal:4
//! ```

use std::{
    future,
    io::{self, Write as _},
    process::ExitCode,
};

use kwal_testkit::{Dialect, EmbeddedCluster, EmbeddedClusterBuilder};
use lexopt::{Arg, ValueExt};

const HELP: &str = "\
A Kafka cluster in one process. Its logs are in memory and are lost when it ends.

Usage: kwal-testkit [options]

  --brokers N        number of brokers (1)
  --port FIRST       port of the first broker; the others follow it (free ports)
  --topic NAME[:N]   creates a topic of N partitions (1); may be repeated
  --auto-create      creates topics that metadata requests name
  --dialect VERSION  Kafka release to behave as: 2.8, 3.9 or 4.3 (4.3)
  --until-eof        ends when its standard input ends
  -h, --help         prints this text

It listens on 127.0.0.1 only, without encryption or authentication. As soon as clients can
connect, it prints one line for bootstrap.servers: the addresses of all brokers, separated
by commas. It runs until it is stopped, by Ctrl-C or any signal.
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => run(options).await,
        Ok(None) => print(HELP),
        Err(usage) => Err(usage.into()),
    };
    let Err(failure) = result else { return ExitCode::SUCCESS };
    // If stderr is closed, the exit code still reports the failure.
    let _ = writeln!(io::stderr(), "kwal-testkit: {failure}");
    ExitCode::from(match failure {
        Failure::Usage(_) => 2,
        Failure::Start(_) | Failure::Listen { .. } | Failure::Print(_) => 1,
    })
}

async fn run(options: Options) -> Result<(), Failure> {
    // Lives until the program ends. Nothing is persisted, so there is nothing to shut down.
    let cluster = options.cluster.start().await?;
    print(&format!("{}\n", cluster.bootstrap().join(",")))?;
    if options.until_eof {
        // An input that cannot be read has ended.
        let _ = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await;
        return Ok(());
    }
    future::pending().await
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Print)
}

struct Options {
    cluster: EmbeddedClusterBuilder,
    until_eof: bool,
}

impl Options {
    /// Returns `None` if the help text is requested.
    fn parse(mut arguments: lexopt::Parser) -> Result<Option<Self>, lexopt::Error> {
        let mut cluster = EmbeddedCluster::builder();
        let (mut brokers, mut port, mut until_eof) = (1, 0, false);
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Long("brokers") => {
                    let expected = "a number of brokers from 1 to 1000";
                    brokers = value(&mut arguments, "--brokers", expected, |text| {
                        text.parse().ok().filter(|brokers| (1..=1000).contains(brokers))
                    })?;
                }
                Arg::Long("port") => {
                    port = value(&mut arguments, "--port", "a port from 1 to 65535", |text| {
                        text.parse::<u16>().ok().filter(|port| *port > 0)
                    })?;
                }
                Arg::Long("topic") => {
                    let (name, partitions) = value(
                        &mut arguments,
                        "--topic",
                        "a name, or a name and a number of partitions as in wal:4",
                        topic,
                    )?;
                    cluster = cluster.topic(&name, partitions);
                }
                Arg::Long("dialect") => {
                    let dialect = value(&mut arguments, "--dialect", "2.8, 3.9 or 4.3", dialect)?;
                    cluster = cluster.dialect(dialect);
                }
                Arg::Long("auto-create") => cluster = cluster.auto_create_topics(true),
                Arg::Long("until-eof") => until_eof = true,
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        if i32::from(port) + brokers - 1 > i32::from(u16::MAX) {
            return Err(format!("--port {port} leaves no ports for {brokers} brokers").into());
        }
        Ok(Some(Self { cluster: cluster.brokers(brokers).port(port), until_eof }))
    }
}

fn value<T>(
    arguments: &mut lexopt::Parser,
    option: &str,
    expected: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, lexopt::Error> {
    let text = arguments.value()?.string()?;
    parse(&text).ok_or_else(|| format!("{option} {text:?} is not {expected}").into())
}

/// The cluster validates the name.
fn topic(text: &str) -> Option<(String, i32)> {
    match text.rsplit_once(':') {
        Some((name, partitions)) => Some((name.to_owned(), partitions.parse().ok()?)),
        None => Some((text.to_owned(), 1)),
    }
}

fn dialect(text: &str) -> Option<Dialect> {
    match text {
        "2.8" => Some(Dialect::kafka_2_8()),
        "3.9" => Some(Dialect::kafka_3_9()),
        "4.3" => Some(Dialect::kafka_4_3()),
        _ => None,
    }
}

/// Why the program ends.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}; --help lists the options")]
    Usage(#[from] lexopt::Error),
    #[error("{what}: {source}; use another --port, or omit it for free ports")]
    Listen { what: String, source: io::Error },
    #[error("{0}")]
    Start(kwal_testkit::Error),
    #[error("cannot print: {0}")]
    Print(io::Error),
}

impl From<kwal_testkit::Error> for Failure {
    fn from(error: kwal_testkit::Error) -> Self {
        let what = error.to_string();
        match error {
            kwal_testkit::Error::Listen { source, .. } => Self::Listen { what, source },
            other => Self::Start(other),
        }
    }
}
