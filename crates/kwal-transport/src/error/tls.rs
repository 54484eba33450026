use std::{error, fmt, io, time::SystemTime};

use time::OffsetDateTime;

use crate::address::Host;

/// The reason why TLS with a peer failed.
///
/// Its text contains a hint what to do about it. It contains no secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The host is not one that a certificate can be issued for.
    ///
    /// Names are checked as brokers advertise them, in ASCII.
    #[error("\"{}\" is neither an IP address nor a host name that a certificate can be issued for", Host(.host))]
    InvalidHost {
        /// The host.
        host: String,
    },
    /// The configuration for this connection is not available.
    #[error("the TLS configuration is not available")]
    Config {
        /// The error of its provider.
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// The certificate was issued by a CA that is not among the roots.
    #[error(
        "the certificate of the peer was issued by a CA that is not trusted: add the CA's certificate to the roots"
    )]
    UnknownIssuer,
    /// The signature does not match the root with the issuer's name, or the peer does not have the key, or
    /// the key is RSA with fewer than 2048 bits, which is not accepted.
    #[error(
        "the signature of the peer's certificate is wrong: is the CA among the roots an older one, or another one of the same name, or has an RSA key fewer than 2048 bits?"
    )]
    BadSignature,
    /// A certificate has expired.
    #[error("a certificate of the peer has expired{}: renew it, unless the local clock is wrong", Valid("it was valid until", .not_after, .now))]
    Expired {
        /// The end of its validity, if known.
        not_after: Option<SystemTime>,
        /// The current time, if known.
        now: Option<SystemTime>,
    },
    /// A certificate is not valid yet.
    #[error("a certificate of the peer is not valid yet{}: is the local clock correct?", Valid("it will be from", .not_before, .now))]
    NotYetValid {
        /// The start of its validity, if known.
        not_before: Option<SystemTime>,
        /// The current time, if known.
        now: Option<SystemTime>,
    },
    /// The certificate is for other hosts. The relevant name is the one that the broker advertises.
    #[error("the certificate of the peer is not for {} but for {}: is this the broker's advertised name?", Host(.host), Names(.names))]
    WrongHost {
        /// The expected host.
        host: String,
        /// The names in the certificate.
        names: Vec<String>,
    },
    /// The certificate is invalid for another reason.
    #[error("the certificate of the peer cannot be accepted")]
    Certificate {
        /// The reason, and what to do about it.
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// The peer does not speak TLS.
    #[error(
        "the peer does not speak TLS: is this a plain listener? Connect to it without TLS, or to another port"
    )]
    NotTls,
    /// The stream ended during the handshake.
    ///
    /// Plain listeners of Kafka do this, because they take the first bytes for a request of 369 MB.
    #[error("the peer closed the connection in the TLS handshake: does this listener use TLS?")]
    ClosedInHandshake,
    /// The stream ended after the handshake, before any data was received.
    ///
    /// With TLS 1.3 a peer that requires a client certificate, or another one, ends the stream here.
    #[error("the peer closed the connection right after the TLS handshake{}", ClosedHint(*.client_certificate))]
    ClosedAfterHandshake {
        /// Whether a client certificate was available.
        client_certificate: bool,
    },
    /// The stream ended without TLS's closing message, so data may be missing.
    #[error("the peer closed the connection without the closing message of TLS (close_notify)")]
    Truncated,
    /// The peer ended the connection with an alert.
    #[error("the peer ended TLS with the alert {alert}{}", AlertHint(*.alert, *.client_certificate))]
    Alert {
        /// The alert.
        alert: Alert,
        /// Whether a client certificate was available.
        client_certificate: bool,
    },
    /// The two sides have no TLS version, cipher suite, key exchange or signature scheme in common.
    #[error("the peer and this client have no TLS parameters in common")]
    Incompatible {
        /// The missing parameter.
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// The underlying stream failed.
    #[error("the connection was lost in the TLS handshake")]
    Io {
        /// The IO error.
        source: io::Error,
    },
    /// The peer violated TLS, or another error occurred.
    #[error("TLS failed")]
    Other {
        /// The error.
        source: Box<dyn error::Error + Send + Sync>,
    },
}

impl TlsError {
    /// Whether only a change of certificates or of the configuration, on either side, can help.
    ///
    /// It is false for [`Config`](Self::Config): the provider may succeed next time.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::InvalidHost { .. }
            | Self::UnknownIssuer
            | Self::BadSignature
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::WrongHost { .. }
            | Self::Certificate { .. }
            | Self::NotTls
            | Self::Incompatible { .. } => true,
            Self::Alert { alert, .. } => alert.is_permanent(),
            Self::Config { .. }
            | Self::ClosedInHandshake
            | Self::ClosedAfterHandshake { .. }
            | Self::Truncated
            | Self::Io { .. }
            | Self::Other { .. } => false,
        }
    }
}

/// An alert of TLS (RFC 8446, section 6): a code, displayed by its name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Alert(pub u8);

macro_rules! alerts {
    ($($code:literal $name:literal $permanent:literal)*) => {
        impl Alert {
            /// Returns the name, if the code is defined.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($name),)*
                    _ => None,
                }
            }

            /// Whether the alert is about certificates or the configuration of either side.
            fn is_permanent(self) -> bool {
                match self.0 {
                    $($code => $permanent,)*
                    _ => false,
                }
            }
        }
    };
}

alerts! {
    0 "close_notify" false
    10 "unexpected_message" false
    20 "bad_record_mac" false
    22 "record_overflow" false
    40 "handshake_failure" true
    41 "no_certificate" true
    42 "bad_certificate" true
    43 "unsupported_certificate" true
    44 "certificate_revoked" true
    45 "certificate_expired" true
    46 "certificate_unknown" true
    47 "illegal_parameter" false
    48 "unknown_ca" true
    49 "access_denied" true
    50 "decode_error" false
    51 "decrypt_error" false
    70 "protocol_version" true
    71 "insufficient_security" true
    80 "internal_error" false
    86 "inappropriate_fallback" true
    90 "user_canceled" false
    100 "no_renegotiation" false
    109 "missing_extension" true
    110 "unsupported_extension" true
    112 "unrecognized_name" true
    113 "bad_certificate_status_response" true
    115 "unknown_psk_identity" false
    116 "certificate_required" true
    120 "no_application_protocol" true
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "number {}", self.0),
        }
    }
}

struct AlertHint(Alert, bool);

impl fmt::Display for AlertHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.0.0, self.1) {
            (116, true) => ": it requires a client certificate of another type than the configured one",
            // These concern a certificate of this side, but none is configured.
            (41..=46 | 48 | 116, false) => ": it requires a client certificate, but none is configured",
            (41..=46 | 48 | 51, true) => ": it does not accept the client certificate",
            (49, _) => ": it denies access to this client",
            (40, false) => {
                ": the two have no cipher suite in common, or it requires a client certificate, but none is configured"
            }
            (40 | 71, _) => ": the two have no cipher suite in common, or it does not accept the client certificate",
            (70, _) => ": it supports neither TLS 1.2 nor TLS 1.3",
            (112, _) => ": it does not know the requested host name",
            (10 | 50, _) => ": does this listener use TLS?",
            _ => "",
        })
    }
}

struct ClosedHint(bool);

impl fmt::Display for ClosedHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            true => ": does it accept the client certificate?",
            false => ": does it require a client certificate? None is configured",
        })
    }
}

struct Valid<'a>(&'static str, &'a Option<SystemTime>, &'a Option<SystemTime>);

impl fmt::Display for Valid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(words, Some(limit), Some(now)) => {
                write!(f, " ({words} {}, and it is {} now)", Utc(*limit), Utc(*now))
            }
            Self(words, Some(limit), None) => write!(f, " ({words} {})", Utc(*limit)),
            Self(_, None, _) => Ok(()),
        }
    }
}

struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::from(self.0);
        let (hour, minute, second) = at.to_hms();
        write!(f, "{} {hour:02}:{minute:02}:{second:02} UTC", at.date())
    }
}

struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A certificate can have hundreds of names.
        const SHOWN: usize = 8;
        if self.0.is_empty() {
            return f.write_str("no host (its subject alternative names are empty)");
        }
        for (i, name) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, Host(name))?;
        }
        match self.0.len().checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn times_are_displayed_in_utc() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        let error = TlsError::Expired { not_after: at(1_000_000_000), now: at(1_700_000_000) };
        assert!(
            error.to_string().contains(
                "(it was valid until 2001-09-09 01:46:40 UTC, and it is 2023-11-14 22:13:20 UTC now)"
            )
        );
        let error = TlsError::Expired { not_after: None, now: None };
        assert!(error.to_string().starts_with("a certificate of the peer has expired: "));
    }

    #[test]
    fn many_names_are_truncated() {
        let names = (0..300).map(|i| format!("kafka-{i}")).collect();
        let text = TlsError::WrongHost { host: "broker".to_owned(), names }.to_string();
        assert!(text.contains("kafka-7 and 292 more: "), "{text}");
    }

    #[test]
    fn alerts_without_a_name_have_a_number() {
        assert_eq!(Alert(116).to_string(), "certificate_required");
        assert_eq!(Alert(200).to_string(), "number 200");
    }
}
