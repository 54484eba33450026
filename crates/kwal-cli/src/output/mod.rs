//! What the program prints: tables and lines for people, JSON for programs, progress on terminals.

mod progress;
mod table;
mod text;

use std::{
    fmt::Display,
    io::{self, BufWriter, IsTerminal as _, Stdout, Write as _},
};

use serde::Serialize;

pub(crate) use self::{
    progress::Progress,
    table::Table,
    text::{JsonBytes, escaped, human_bytes, optional, per_second, plural, range, time_text},
};
use crate::exit::Failure;

/// How to print.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Prints JSON: one object, or one a line; `kwal COMMAND --help` has its fields
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// No progress and no summary on standard error
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// The standard output.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    stdout: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(args: &OutputArgs) -> Self {
        Self { json: args.json, quiet: args.quiet, stdout: BufWriter::with_capacity(1 << 16, io::stdout()) }
    }

    /// Whether JSON is wanted.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints an object on a line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.stdout, value).map_err(|error| Failure::Output(error.into()))?;
        self.bytes(b"\n")
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        writeln!(self.stdout, "{line}").map_err(Failure::Output)
    }

    /// Prints a table; nothing, if it has no rows.
    pub(crate) fn table(&mut self, table: Table) -> Result<(), Failure> {
        match table.render() {
            Some(text) => self.line(text),
            None => Ok(()),
        }
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stdout.write_all(bytes).map_err(Failure::Output)
    }

    /// Makes what was printed visible.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(Failure::Output)
    }

    /// Tells a person something about the work: on standard error, unless it is to be quiet.
    pub(crate) fn tell(&self, text: impl Display) {
        if !self.quiet {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "kwal: {text}");
        }
    }

    /// A bar on a terminal, of so many units; elsewhere nothing.
    pub(crate) fn progress(&self, what: &str, len: u64, unit: &str) -> Progress {
        Progress::new(what, len, unit, self.quiet || !io::stderr().is_terminal())
    }

    /// A bar for a command that prints all the while: on a terminal that does not show what is printed.
    pub(crate) fn progress_beside(&self, what: &str, len: u64, unit: &str) -> Progress {
        let is_hidden = self.quiet || !io::stderr().is_terminal() || io::stdout().is_terminal();
        Progress::new(what, len, unit, is_hidden)
    }
}

/// Reports what is odd and no failure.
pub(crate) fn warn(text: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr(), "kwal: warning: {}", escaped(text.as_bytes()));
}
