//! The command line as a whole.

use clap::{Parser, Subcommand, error::ErrorKind};

use crate::{
    commands::{
        append, audit, bench, completions, holder, inspect, offsets, read, resolve, topics, trim, verify,
    },
    connect::ConnectArgs,
    exit::{Exit, Failure},
    output::OutputArgs,
};

/// Operates write-ahead logs in Kafka: look at them, verify them, append, read, trim.
#[derive(Debug, Parser)]
#[command(
    name = "kwal",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = Exit::HELP,
    after_long_help = long_help()
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Topics(topics::Args),
    Audit(audit::Args),
    Append(append::Args),
    Read(read::ReadArgs),
    Follow(read::FollowArgs),
    Offsets(offsets::Args),
    Resolve(resolve::Args),
    Trim(trim::Args),
    Inspect(inspect::Args),
    Holder(holder::Args),
    Verify(verify::Args),
    Bench(bench::Args),
    Completions(completions::Args),
}

/// What `--help` ends with.
fn long_help() -> String {
    format!("{}\n\n{MORE}", Exit::HELP)
}

const MORE: &str = "\
Ctrl-C asks a command to stop. `append` and `bench` wait for what is in flight, and `append` says what
became of it; at a second Ctrl-C they do not wait. `topics` and `trim` never wait: a change that was under
way may have taken effect, or may still. A third Ctrl-C ends the program at once.

Examples:
  kwal topics list
  kwal offsets wal
  kwal audit wal
  kwal read wal -p 0 --from 1200 --count 10 --json
  kwal inspect wal -p 0 --from 1200
  kwal verify wal
  kwal --brokers kafka-1:9093 --config client.properties holder wal -p 0

What each error means, and what to do about it:
  https://docs.rs/kwal/latest/kwal/guide/troubleshooting/";

/// Prints what was asked for, as the help; anything else is a wrong command line.
pub(crate) fn refuse(error: &clap::Error) -> Result<Exit, Failure> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return error.print().map(|()| Exit::Success).map_err(Failure::Output);
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Err(Failure::usage("no command; see --help"));
    }
    Err(Failure::usage(condensed(&error.render().to_string())))
}

/// The lines of clap's text that say what is wrong, and how to get help.
fn condensed(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let wrong: Vec<_> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    format!("{}; see --help", wrong.join(" ").replace(" tip: ", "; "))
}
