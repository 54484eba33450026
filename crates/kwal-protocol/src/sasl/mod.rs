//! SASL exchanges, without IO.
//!
//! A [`Mechanism`] is one exchange: create a new one for each connection and each reauthentication.
//! Credentials that change, such as a token or a rotated password, are fetched earlier. Randomness is an
//! argument.
//!
//! | mechanism | specification | credentials |
//! | --- | --- | --- |
//! | [`Plain`] | RFC 4616 | sends the password |
//! | [`Scram`] | RFC 5802, RFC 7677 | proves to each side that the other knows the password, without sending it |
//! | [`OAuthBearer`] | RFC 7628, KIP-255, KIP-342 | sends the token |
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

mod mechanism;
mod oauth_bearer;
mod plain;
mod scram;

pub use mechanism::{Mechanism, SaslError, Step};
pub use oauth_bearer::OAuthBearer;
pub use plain::Plain;
pub use scram::Scram;
