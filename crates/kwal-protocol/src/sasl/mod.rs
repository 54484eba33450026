//! SASL exchanges, bytes in and bytes out.
//!
//! A [`Mechanism`] is one exchange: made anew for each connection and each time it authenticates again. What it needs from
//! outside, a token or a password that changes, is fetched before; randomness is an argument.
//!
//! | mechanism | | |
//! | --- | --- | --- |
//! | [`Plain`] | RFC 4616 | tells the password |
//! | [`Scram`] | RFC 5802, RFC 7677 | proves that both sides know the password, and tells it to nobody |
//! | [`OAuthBearer`] | RFC 7628, KIP-255, KIP-342 | tells the token |
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
