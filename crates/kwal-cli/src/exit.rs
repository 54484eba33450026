//! How the program ends: exit codes, and failures in one line.

use std::{error::Error, fmt::Write as _, io, process::ExitCode};

use kwal::{ErrorKind, Outcome};

use crate::output::escaped;

/// The exit codes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// All went well.
    Success = 0,
    /// There are findings, or the answer is no.
    Negative = 1,
    /// The command line or a config file is wrong.
    Usage = 2,
    /// The cluster cannot be reached, rejected the request or did not answer in time.
    Cluster = 3,
    /// It is unknown whether a change took effect.
    Unknown = 4,
    /// A file, standard input or standard output: it cannot be used, or its content is wrong.
    Local = 5,
    /// Ended by Ctrl-C or SIGTERM; a change that was under way may have taken effect.
    Interrupted = 130,
}

impl Exit {
    /// What the help says.
    pub(crate) const HELP: &str = "\
Exit codes:
  0    success
  1    findings, or a negative answer
  2    the command line or the config file is wrong
  3    the cluster cannot be reached, rejected the request, or did not answer in time
  4    unknown outcome: a change may have taken effect, or may still
  5    a file, standard input or standard output cannot be used, or its content is wrong
  130  interrupted; a change that was under way may have taken effect";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What ends the program early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, or a config file.
    Usage(String),
    /// Whatever the client reports.
    Client(kwal::Error),
    /// A file or the standard input.
    Local(String),
    /// The standard output.
    Output(io::Error),
    /// Ctrl-C or SIGTERM; the text says what became of the work, if that is not obvious.
    Interrupted(String),
    /// Something that left a change in doubt.
    InDoubt(Box<Self>),
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// A failure of this machine: what, and why.
    pub(crate) fn local(what: impl AsRef<str>, why: &(dyn Error + 'static)) -> Self {
        Self::Local(format!("{}: {}", what.as_ref(), chain(why)))
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Client(error) => of_client(error),
            Self::Local(_) => Exit::Local,
            // Whoever reads the output has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Output(_) => Exit::Local,
            Self::Interrupted(_) => Exit::Interrupted,
            Self::InDoubt(_) => Exit::Unknown,
        }
    }

    /// What is printed: one line, or nothing.
    pub(crate) fn line(&self) -> Option<String> {
        let text = match self {
            Self::Usage(text) | Self::Local(text) => text.clone(),
            Self::Client(error) => {
                let mut text = error.to_string();
                if let Some(hint) = hint(error) {
                    let _ = write!(text, "; {hint}");
                }
                text
            }
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return None,
            Self::Output(error) => format!("nothing can be printed: {error}"),
            Self::Interrupted(text) if text.is_empty() => "interrupted".to_owned(),
            Self::Interrupted(text) => format!("interrupted; {text}"),
            Self::InDoubt(cause) => return cause.line(),
        };
        Some(one_line(&text))
    }
}

impl From<kwal::Error> for Failure {
    fn from(error: kwal::Error) -> Self {
        Self::Client(error)
    }
}

fn of_client(error: &kwal::Error) -> Exit {
    match error.kind() {
        _ if error.outcome() == Outcome::Unknown => Exit::Unknown,
        ErrorKind::InvalidInput { .. } => Exit::Usage,
        ErrorKind::OffsetNotFound { .. } => Exit::Negative,
        _ => Exit::Cluster,
    }
}

/// What to do about an error, in terms of this program.
fn hint(error: &kwal::Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::EncryptionRequired { .. } => Some("here, --sasl-in-clear allows it"),
        ErrorKind::NoBroker { .. } | ErrorKind::Connect => Some("--brokers names the brokers"),
        _ => None,
    }
}

/// Everything between white space, on one line, and escaped: names of files may be anything.
fn one_line(text: &str) -> String {
    escaped(text.split_whitespace().collect::<Vec<_>>().join(" ").as_bytes())
}

/// An error and all that it comes from.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let pipe = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((pipe.exit(), pipe.line()), (Exit::Success, None));
        let full = Failure::Output(io::ErrorKind::StorageFull.into());
        assert_eq!(full.exit(), Exit::Local);
        assert!(full.line().is_some_and(|line| line.starts_with("nothing can be printed: ")));
    }

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::usage("a\n  b\tc\u{1b}[2J");
        assert_eq!(failure.line().as_deref(), Some("a b c\\u{1b}[2J"));
    }

    #[test]
    fn the_help_has_every_exit_code() {
        let all = [
            Exit::Success,
            Exit::Negative,
            Exit::Usage,
            Exit::Cluster,
            Exit::Unknown,
            Exit::Local,
            Exit::Interrupted,
        ];
        let codes: Vec<_> =
            Exit::HELP.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(codes, all.map(|exit| (exit as u8).to_string()));
    }
}
