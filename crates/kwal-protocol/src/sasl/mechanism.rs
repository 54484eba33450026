use std::{borrow::Cow, fmt};

use bytes::Bytes;

/// One SASL exchange. `Debug` must not tell secrets.
pub trait Mechanism: fmt::Debug + Send {
    /// The name under which brokers know it, as `PLAIN` or `SCRAM-SHA-256`.
    fn name(&self) -> &str;

    /// The next step: the first one without a challenge, each further one with what the broker sent. It must not take long:
    /// what does is left to [`compute`](Self::compute).
    ///
    /// # Errors
    /// What the broker sent is not what the mechanism demands. The exchange is over then.
    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Step, SaslError>;

    /// Does what [`Step::Compute`] asked for, and answers the step to go on with. It may take a second, so it is called where
    /// nothing else waits.
    ///
    /// # Errors
    /// As of [`respond`](Self::respond). A mechanism that never asks for it need not have it.
    fn compute(&mut self) -> Result<Step, SaslError> {
        Err(SaslError::Challenge {
            mechanism: self.name().to_owned().into(),
            what: "there is nothing to compute".into(),
        })
    }
}

/// What to do next in an exchange.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Send this, and go on with what the broker answers.
    Send(Bytes),
    /// Call [`Mechanism::compute`] on a thread that may be busy for a second, and go on with what it answers.
    Compute,
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
        mechanism: Cow<'static, str>,
        /// What is wrong with it.
        what: Cow<'static, str>,
    },
    /// The broker refused, within the exchange.
    #[error("the broker says: {words}")]
    Refused {
        /// Its words.
        words: String,
    },
    /// The broker does not know the password: it may be somebody else, who wants to be taken for it.
    #[error("the broker could not prove that it knows the password: is it the one that it pretends to be?")]
    NotTheBroker,
}

/// A user name as GS2 and SCRAM write it (RFC 5802, section 5.1).
pub(super) fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}
