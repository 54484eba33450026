//! SASL exchanges, bytes in and bytes out.
//!
//! A [`Mechanism`] is one exchange: made anew for each connection and each time it authenticates again. What it needs from
//! outside, a token or a password that changes, is fetched before.
//!
//! ```
//! use kwal_protocol::sasl::{Mechanism, Plain, Step};
//!
//! let mut plain = Plain::new("alice", "secret")?;
//! assert_eq!(plain.name(), "PLAIN");
//! assert_eq!(plain.respond(None)?, Step::Send("\0alice\0secret".into()));
//! assert_eq!(plain.respond(Some(b""))?, Step::Done);
//! # Ok::<(), kwal_protocol::sasl::SaslError>(())
//! ```

mod plain;

use std::fmt;

use bytes::Bytes;

pub use plain::Plain;

/// One SASL exchange. `Debug` must not tell secrets.
pub trait Mechanism: fmt::Debug + Send {
    /// The name under which brokers know it, as `PLAIN` or `SCRAM-SHA-256`.
    fn name(&self) -> &str;

    /// The next step: the first one without a challenge, each further one with what the broker sent.
    ///
    /// # Errors
    /// What the broker sent is not what the mechanism demands. The exchange is over then.
    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Step, SaslError>;
}

/// What to do next in an exchange.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Send this, and go on with what the broker answers.
    Send(Bytes),
    /// Nothing: the exchange is complete.
    Done,
}

/// Why an exchange cannot go on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SaslError {
    /// What was given to authenticate with cannot be used.
    #[error("{0}")]
    Credentials(&'static str),
    /// The broker sent something that the mechanism has no place for.
    #[error("the broker's message is not what {mechanism} demands: {what}")]
    Challenge {
        /// The mechanism.
        mechanism: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
}
