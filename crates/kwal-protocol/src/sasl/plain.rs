//! PLAIN (RFC 4616): user name and password in clear text.

use std::fmt;

use bytes::Bytes;

use super::mechanism::{Mechanism, SaslError, Step};

/// The mechanism PLAIN. The password is sent in clear text, so use it only over an encrypted connection.
#[derive(Clone)]
pub struct Plain {
    message: Bytes,
    sent: bool,
}

impl Plain {
    /// Authenticates as `user`.
    ///
    /// # Errors
    /// [`SaslError::Credentials`] if one of the two is empty or contains a NUL (RFC 4616, section 2).
    pub fn new(user: &str, password: &str) -> Result<Self, SaslError> {
        for (text, empty, nul) in [
            (user, "the user name is empty", "the user name contains a NUL"),
            (password, "the password is empty", "the password contains a NUL"),
        ] {
            if text.is_empty() {
                return Err(SaslError::Credentials(empty));
            }
            if text.contains('\0') {
                return Err(SaslError::Credentials(nul));
            }
        }
        Ok(Self { message: format!("\0{user}\0{password}").into(), sent: false })
    }
}

impl Mechanism for Plain {
    fn name(&self) -> &str {
        "PLAIN"
    }

    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Step, SaslError> {
        match (self.sent, challenge) {
            (false, None) => {
                self.sent = true;
                Ok(Step::Send(self.message.clone()))
            }
            (true, Some(b"")) => Ok(Step::Done),
            _ => Err(SaslError::Challenge {
                mechanism: "PLAIN".into(),
                what: "the mechanism has no challenges".into(),
            }),
        }
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_validated_and_stay_secret() {
        for (user, password) in [("", "x"), ("x", ""), ("a\0b", "x"), ("x", "a\0b")] {
            assert!(matches!(Plain::new(user, password), Err(SaslError::Credentials(_))));
        }
        let plain = Plain::new("alice", "wonderland").unwrap();
        assert!(!format!("{plain:?}").contains("wonderland"));
    }

    #[test]
    fn a_challenge_is_rejected() {
        let mut plain = Plain::new("alice", "secret").unwrap();
        plain.respond(None).unwrap();
        assert!(plain.respond(Some(b"why?")).is_err());
    }
}
