//! Errors of opening a stream.

mod socks5;
mod tls;

use std::{error, fmt, io, net::SocketAddr};

pub use socks5::{Socks5Error, Socks5Reply};
pub use tls::{Alert, TlsError};

use crate::{HostPort, InvalidAddress, address::Host};

/// The reason why a stream could not be opened.
///
/// The text of each variant describes this level; its `source()` describes the cause. The exception is
/// [`Connect`](Self::Connect): a name can have several addresses that fail differently, so the causes are in
/// its text and in `attempts`, and it has no `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The address is invalid.
    #[error("invalid broker address")]
    InvalidAddress(#[from] InvalidAddress),

    /// The name could not be resolved.
    #[error("cannot resolve the host name \"{}\": check its spelling and the name service", Host(.host))]
    Resolve {
        /// The name.
        host: String,
        /// The error of the resolver.
        source: io::Error,
    },

    /// The name exists but has no address.
    #[error("the host name \"{}\" has no address", Host(.host))]
    NoAddress {
        /// The name.
        host: String,
    },

    /// No address of the host could be connected to.
    #[error("cannot connect to {to}: {}", Attempts(to, .attempts))]
    Connect {
        /// The requested host and port.
        to: HostPort,
        /// Every address tried, in order, with its error.
        attempts: Vec<Attempt>,
    },

    /// Nothing listens at this address of an in-memory network.
    #[error("cannot connect to {to}: nothing listens there on the in-memory network")]
    Refused {
        /// The requested host and port.
        to: HostPort,
    },

    /// This address of an in-memory network is in use.
    #[error("cannot listen at {at}: the address is in use")]
    InUse {
        /// The requested host and port.
        at: HostPort,
    },

    /// Every port of the host is in use on an in-memory network.
    #[error("cannot listen at \"{}\": all its ports are in use", Host(.host))]
    NoFreePort {
        /// The requested host.
        host: String,
    },

    /// TLS with the peer failed.
    ///
    /// Streams also return this inside the [`io::Error`] of a read or a write: with TLS 1.3 a peer rejects a
    /// client certificate after the client's side of the handshake is complete.
    #[error("TLS with {to} failed")]
    Tls {
        /// The requested host and port.
        to: HostPort,
        /// The cause.
        source: TlsError,
    },

    /// The SOCKS5 proxy did not connect.
    #[error("cannot connect to {to} through the SOCKS5 proxy {proxy}")]
    Socks5 {
        /// The requested host and port.
        to: HostPort,
        /// Host and port of the proxy.
        proxy: HostPort,
        /// The cause.
        source: Socks5Error,
    },

    /// A [`Connect`](crate::Connect) from outside this crate failed.
    #[error("cannot connect to {to}")]
    Other {
        /// The requested host and port.
        to: HostPort,
        /// The error of that implementation.
        source: Box<dyn error::Error + Send + Sync>,
    },
}

impl TransportError {
    /// Creates an error of a [`Connect`](crate::Connect) from outside this crate.
    pub fn other(to: HostPort, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        Self::Other { to, source: source.into() }
    }

    /// Whether a repetition would fail the same way.
    ///
    /// It does if certificates, the TLS configuration, or the login or rules of a proxy have to be changed
    /// first.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Tls { source, .. } => source.is_permanent(),
            Self::Socks5 { source, .. } => source.is_permanent(),
            _ => false,
        }
    }

    /// Returns the transport error inside an error of a [`Stream`](crate::Stream): see [`Tls`](Self::Tls).
    pub fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether the host refused the connection at each of its addresses, because nothing listens at the port.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Connect { attempts, .. } => {
                !attempts.is_empty()
                    && attempts.iter().all(|attempt| attempt.error.kind() == io::ErrorKind::ConnectionRefused)
            }
            _ => false,
        }
    }
}

/// A failed attempt to connect to one address.
#[derive(Debug)]
pub struct Attempt {
    /// The address.
    pub address: SocketAddr,
    /// The error.
    ///
    /// [`io::ErrorKind::TimedOut`] also after [`Tcp::address_timeout`](crate::Tcp::address_timeout).
    pub error: io::Error,
}

struct Attempts<'a>(&'a HostPort, &'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [Attempt { address, error }] = self.1
            && address.to_string() == self.0.to_string()
        {
            // The text already names it.
            return write!(f, "{error}");
        }
        for (i, Attempt { address, error }) in self.1.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn connect_lists_every_address_and_its_reason() {
        let attempt = |address: &str, kind: io::ErrorKind| Attempt {
            address: address.parse().unwrap(),
            error: io::Error::new(kind, format!("{kind:?}")),
        };
        let mut error = TransportError::Connect {
            to: HostPort::new("kafka", 9092),
            attempts: vec![
                attempt("[::1]:9092", io::ErrorKind::ConnectionRefused),
                attempt("10.0.0.7:9092", io::ErrorKind::TimedOut),
            ],
        };
        assert_eq!(
            error.to_string(),
            "cannot connect to kafka:9092: [::1]:9092: ConnectionRefused; 10.0.0.7:9092: TimedOut"
        );
        assert!(!error.is_refused());
        if let TransportError::Connect { attempts, .. } = &mut error {
            attempts.pop();
        }
        assert!(error.is_refused());
    }

    #[test]
    fn an_address_is_not_named_twice() {
        let address: SocketAddr = "[::1]:9092".parse().unwrap();
        let attempts = vec![Attempt { address, error: io::ErrorKind::ConnectionRefused.into() }];
        let error = TransportError::Connect { to: HostPort::from(address), attempts };
        assert_eq!(error.to_string(), "cannot connect to [::1]:9092: connection refused");
    }

    #[test]
    fn display_describes_this_level_and_source_the_rest() {
        let error = TransportError::other(HostPort::new("kafka", 9092), "the tunnel is shut");
        assert_eq!(error.to_string(), "cannot connect to kafka:9092");
        assert_eq!(error.source().unwrap().to_string(), "the tunnel is shut");

        let error = TransportError::from("kafka".parse::<HostPort>().unwrap_err());
        assert_eq!(error.to_string(), "invalid broker address");
        assert!(error.source().unwrap().to_string().starts_with("\"kafka\" has no port"));
    }
}
