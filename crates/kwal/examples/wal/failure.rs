//! What ends the program early.

use std::{error::Error, fmt, io};

/// What ends the program early, in one line.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The command line.
    Usage(String),
    /// Anything after it.
    Run(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::Run(text)) = self;
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match self {
            Self::Usage(_) => write!(f, "{line}; --help lists the options"),
            Self::Run(_) => f.write_str(&line),
        }
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Run(text)
    }
}

macro_rules! failures {
    ($($error:ty),*) => { $(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Run(Chain(&error).to_string())
            }
        }
    )* };
}
failures!(
    kwal::client::error::Error,
    kwal_testkit::Error,
    tokio::task::JoinError,
    hdrhistogram::RecordError,
    io::Error
);

/// An error and all that it comes from.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
