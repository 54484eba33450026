use std::{borrow::Cow, fmt};

use bytes::Bytes;

use crate::text::Printable;

/// One SASL exchange. `Debug` must not contain secrets.
pub trait Mechanism: fmt::Debug + Send {
    /// The name of the mechanism, such as `PLAIN` or `SCRAM-SHA-256`.
    fn name(&self) -> &str;

    /// Returns the next step, first without a challenge and then for each message of the broker.
    ///
    /// It must not block: computations that take long belong into [`compute`](Self::compute).
    ///
    /// # Errors
    /// The message of the broker is invalid. The exchange has failed then.
    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Step, SaslError>;

    /// Runs the computation requested by [`Step::Compute`] and returns the next step.
    ///
    /// It may take a second, so it is called where nothing else waits.
    ///
    /// # Errors
    /// As [`respond`](Self::respond). Mechanisms that never return [`Step::Compute`] need not implement it.
    fn compute(&mut self) -> Result<Step, SaslError> {
        Err(SaslError::Challenge {
            mechanism: self.name().to_owned().into(),
            what: "there is nothing to compute".into(),
        })
    }
}

/// The next step of an exchange.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Send this message, and continue with the response of the broker.
    Send(Bytes),
    /// Call [`Mechanism::compute`] on a thread that may block for a second, and continue with its result.
    Compute,
    /// The exchange is complete.
    Done,
}

/// The reason why an exchange failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SaslError {
    /// The credentials cannot be used.
    #[error("{0}")]
    Credentials(&'static str),
    /// The message of the broker is invalid for the mechanism.
    #[error("the broker's {mechanism} message is not valid: {}", Printable(.what))]
    Challenge {
        /// The mechanism.
        mechanism: Cow<'static, str>,
        /// The fault.
        what: Cow<'static, str>,
    },
    /// The broker rejected the exchange with a message of the mechanism.
    #[error("the broker rejected the exchange: {}", Printable(.words))]
    Refused {
        /// The error message of the broker.
        words: String,
    },
    /// The broker does not know the password, so it may be an impostor.
    #[error("the broker could not prove that it knows the password: it may be an impostor")]
    NotTheBroker,
}

/// Escapes a user name for GS2 and SCRAM (RFC 5802, section 5.1).
pub(super) fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}
