//! The command line of kwal, for people who operate a write-ahead log in Kafka.
//!
//! To add a command: a file in `commands/` with its arguments and a `run`, and its arm in `cli.rs` and in
//! `commands/mod.rs`.
//!
//! | module | contents |
//! | --- | --- |
//! | `cli` | the command line as a whole, and the exit codes as its help shows them |
//! | `commands` | the commands, each with its arguments |
//! | `connect` | connecting to brokers: options, environment, properties files |
//! | `log` | a log batch by batch, from a broker or a segment file, and what is doubtful about it |
//! | `output` | tables, JSON, texts of bytes and times, progress |
//! | `exit`, `interrupt` | how the program ends |

mod cli;
mod commands;
mod connect;
mod exit;
mod interrupt;
mod log;
mod output;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;

use self::{
    cli::Cli,
    exit::{Exit, Failure},
    interrupt::Interrupt,
};

fn main() -> ExitCode {
    let ended = match Cli::try_parse() {
        Ok(cli) => execute(cli),
        Err(error) => cli::refuse(&error),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if let Some(line) = failure.line() {
                // If stderr is closed, the exit code still reports the failure.
                let _ = writeln!(io::stderr(), "kwal: {line}");
            }
            failure.exit().into()
        }
    }
}

fn execute(cli: Cli) -> Result<Exit, Failure> {
    // One thread more than this one, so that connections are served while a pipe is full.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::local("the runtime cannot be started", &error))?;
    let ended = runtime.block_on(async {
        let interrupt = Interrupt::listen()?;
        commands::run(cli, interrupt).await
    });
    // A name that is being resolved does not hold up the end.
    runtime.shutdown_background();
    ended
}
