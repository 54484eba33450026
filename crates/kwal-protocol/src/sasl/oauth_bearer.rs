//! OAUTHBEARER (RFC 7628): a token of an authorization server (KIP-255), with extensions (KIP-342).
//!
//! A broker that rejects the token sends a JSON message. After an empty reply of the client it ends the
//! exchange with an error, which in Kafka repeats the JSON.

use std::fmt;

use bytes::Bytes;

use super::mechanism::{Mechanism, SaslError, Step, escape};

/// The mechanism OAUTHBEARER. The token is sent in clear text, so use it only over an encrypted connection.
///
/// ```
/// use kwal_protocol::sasl::{Mechanism, OAuthBearer, Step};
///
/// let mut bearer = OAuthBearer::new("eyJhbGciOiJub25lIn0.e30.")?.extension("logicalCluster", "lkc-1")?;
/// let message = "n,,\x01auth=Bearer eyJhbGciOiJub25lIn0.e30.\x01logicalCluster=lkc-1\x01\x01";
/// assert_eq!(bearer.respond(None)?, Step::Send(message.into()));
/// assert_eq!(bearer.respond(Some(b""))?, Step::Done);
/// # Ok::<(), kwal_protocol::sasl::SaslError>(())
/// ```
#[derive(Clone)]
pub struct OAuthBearer {
    token: String,
    authorize_as: String,
    extensions: Vec<(String, String)>,
    phase: Phase,
}

#[derive(Clone)]
enum Phase {
    Start,
    /// The token has been sent.
    Sent,
    /// The broker has rejected it with this message.
    Refused(String),
    Over,
}

impl OAuthBearer {
    /// Authenticates with a token.
    ///
    /// # Errors
    /// [`SaslError::Credentials`] if it is empty, or contains characters that RFC 6750 does not allow.
    pub fn new(token: impl Into<String>) -> Result<Self, SaslError> {
        let token = token.into();
        let body = token.trim_end_matches('=');
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        match body.is_empty() || !body.bytes().all(legal) {
            true => Err(SaslError::Credentials(
                "the token is empty or has characters other than letters, digits and \"-._~+/\", with \"=\" at its end",
            )),
            false => {
                Ok(Self { token, authorize_as: String::new(), extensions: Vec::new(), phase: Phase::Start })
            }
        }
    }

    /// Requests to act as another user (`authzid`).
    ///
    /// Kafka only accepts the principal of the token, which is the default.
    ///
    /// # Errors
    /// [`SaslError::Credentials`] if the name is empty or contains a NUL.
    pub fn authorize_as(mut self, name: &str) -> Result<Self, SaslError> {
        if name.is_empty() || name.contains('\0') {
            return Err(SaslError::Credentials("the name to act as is empty or contains a NUL"));
        }
        self.authorize_as = escape(name);
        Ok(self)
    }

    /// Adds an extension (KIP-342), replacing one of the same name.
    ///
    /// # Errors
    /// [`SaslError::Credentials`] if the name contains other characters than letters or is `auth`, or if the
    /// value is empty or contains other characters than printable ASCII, space, tab and line ends (RFC 7628,
    /// section 3.1).
    pub fn extension(mut self, name: &str, value: &str) -> Result<Self, SaslError> {
        let legal = |byte: u8| byte.is_ascii_graphic() || b" \t\r\n".contains(&byte);
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(SaslError::Credentials("the name of an extension must consist of letters"));
        }
        if name.eq_ignore_ascii_case("auth") {
            return Err(SaslError::Credentials("the name auth is reserved and cannot be an extension"));
        }
        if value.is_empty() || !value.bytes().all(legal) {
            return Err(SaslError::Credentials("the value of an extension is empty or not printable"));
        }
        self.extensions.retain(|(other, _)| other != name);
        self.extensions.push((name.to_owned(), value.to_owned()));
        Ok(self)
    }

    fn message(&self) -> Bytes {
        let mut message = match self.authorize_as.as_str() {
            "" => "n,,".to_owned(),
            name => format!("n,a={name},"),
        };
        message.push_str("\x01auth=Bearer ");
        message.push_str(&self.token);
        for (name, value) in &self.extensions {
            message.extend(["\x01", name, "=", value]);
        }
        message.push_str("\x01\x01");
        message.into()
    }
}

impl Mechanism for OAuthBearer {
    fn name(&self) -> &str {
        "OAUTHBEARER"
    }

    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Step, SaslError> {
        match (std::mem::replace(&mut self.phase, Phase::Over), challenge) {
            (Phase::Start, None) => {
                self.phase = Phase::Sent;
                Ok(Step::Send(self.message()))
            }
            (Phase::Sent, Some(b"")) => Ok(Step::Done),
            (Phase::Sent, Some(refusal)) => {
                let words = String::from_utf8_lossy(&refusal[..refusal.len().min(MAX_WORDS)]).into_owned();
                self.phase = Phase::Refused(words);
                Ok(Step::Send(Bytes::from_static(b"\x01")))
            }
            // The broker should have ended the exchange with an error.
            (Phase::Refused(words), Some(_)) => Err(SaslError::Refused { words }),
            _ => {
                let what = "it is not expected at this point".into();
                Err(SaslError::Challenge { mechanism: "OAUTHBEARER".into(), what })
            }
        }
    }
}

impl fmt::Debug for OAuthBearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthBearer").finish_non_exhaustive()
    }
}

/// The length limit of the broker's error message.
const MAX_WORDS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_validated_and_stay_secret() {
        for token in ["", "=", "a b", "a\x01b", "a=b", "ä", "a,b"] {
            assert!(matches!(OAuthBearer::new(token), Err(SaslError::Credentials(_))), "{token:?}");
        }
        let bearer = OAuthBearer::new("aZ09-._~+/==").unwrap();
        for (name, value) in [
            ("", "x"),
            ("a1", "x"),
            ("a=b", "x"),
            ("auth", "x"),
            ("AUTH", "x"),
            ("a", ""),
            ("a", "\x01"),
            ("a", "ä"),
        ] {
            let error = bearer.clone().extension(name, value).unwrap_err();
            assert!(matches!(error, SaslError::Credentials(_)), "{name:?} {value:?}");
        }
        bearer.clone().authorize_as("").unwrap_err();
        bearer.clone().authorize_as("a\0").unwrap_err();
        let bearer = bearer.extension("secret", "wonderland").unwrap();
        assert_eq!(format!("{bearer:?}"), "OAuthBearer { .. }");
    }

    #[test]
    fn the_message_as_kafka_reads_it() {
        let mut bearer = OAuthBearer::new("abc").unwrap().authorize_as("a=b,c").unwrap();
        bearer = bearer.extension("traceId", "old").unwrap().extension("x", "1 2\t").unwrap();
        bearer = bearer.extension("traceId", "123").unwrap();
        let message = "n,a=a=3Db=2Cc,\x01auth=Bearer abc\x01x=1 2\t\x01traceId=123\x01\x01";
        assert_eq!(bearer.respond(None), Ok(Step::Send(message.into())));
    }

    #[test]
    fn a_rejection_is_acknowledged_and_then_reported() {
        let mut bearer = OAuthBearer::new("abc").unwrap();
        bearer.respond(None).unwrap();
        let words = "{\"status\":\"invalid_token\"}";
        assert_eq!(bearer.respond(Some(words.as_bytes())), Ok(Step::Send("\x01".into())));
        assert_eq!(bearer.respond(Some(b"")), Err(SaslError::Refused { words: words.to_owned() }));
        assert!(bearer.respond(Some(b"")).is_err());
        assert!(
            OAuthBearer::new("abc").unwrap().respond(Some(b"")).is_err(),
            "it is for the client to begin"
        );
    }
}
