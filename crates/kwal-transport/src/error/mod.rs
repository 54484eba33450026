//! Why there is no stream.

mod socks5;
mod tls;

use std::{error, fmt, io, net::SocketAddr};

pub use socks5::{Socks5Error, Socks5Reply};
pub use tls::{Alert, TlsError};

use crate::{HostPort, InvalidAddress};

/// Why a stream could not be opened.
///
/// Each variant tells this level; what lies beneath is its `source()`. The one exception is
/// [`Connect`](Self::Connect): a name can have several addresses and fail differently at each, so the reasons stand in
/// its text and in `attempts`, and it has no `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The address is none.
    #[error("invalid broker address")]
    InvalidAddress(#[from] InvalidAddress),

    /// The name could not be resolved.
    #[error("cannot resolve the host name {host:?}: check its spelling and the name service")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },

    /// The name exists and has no address.
    #[error("the host name {host:?} has no address")]
    NoAddress {
        /// The name.
        host: String,
    },

    /// No address of the host could be connected to.
    #[error("cannot connect to {to}: {}", Attempts(to, .attempts))]
    Connect {
        /// Host and port asked for.
        to: HostPort,
        /// Every address tried, in this order, each with its reason.
        attempts: Vec<Attempt>,
    },

    /// Nothing listens at this address of an in-memory network.
    #[error("cannot connect to {to}: nothing listens there in memory")]
    Refused {
        /// Host and port asked for.
        to: HostPort,
    },

    /// Something listens already at this address of an in-memory network.
    #[error("cannot listen at {at}: the address is in use")]
    InUse {
        /// Host and port asked for.
        at: HostPort,
    },

    /// Every port of the host is in use on an in-memory network.
    #[error("cannot listen at {host:?}: all its ports are in use")]
    NoFreePort {
        /// The host asked for.
        host: String,
    },

    /// There is no TLS with the peer. Streams carry this too, inside of the [`io::Error`] of a read or a write: with
    /// TLS 1.3 a peer refuses a client's certificate when the handshake is over for the client.
    #[error("TLS with {to} failed")]
    Tls {
        /// Host and port asked for.
        to: HostPort,
        /// Why.
        source: TlsError,
    },

    /// The SOCKS5 proxy did not connect.
    #[error("cannot connect to {to} through the SOCKS5 proxy {proxy}")]
    Socks5 {
        /// Host and port asked for.
        to: HostPort,
        /// Host and port of the proxy.
        proxy: HostPort,
        /// Why.
        source: Socks5Error,
    },

    /// A [`Connect`](crate::Connect) from outside this crate failed.
    #[error("cannot connect to {to}")]
    Other {
        /// Host and port asked for.
        to: HostPort,
        /// What it said.
        source: Box<dyn error::Error + Send + Sync>,
    },
}

impl TransportError {
    /// The failure of a [`Connect`](crate::Connect) that this enum has no variant for.
    pub fn other(to: HostPort, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        Self::Other { to, source: source.into() }
    }

    /// True if the same again would fail the same: certificates, a TLS configuration, a proxy's login or rules have to
    /// be changed first, here or there.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Tls { source, .. } => source.is_permanent(),
            Self::Socks5 { source, .. } => source.is_permanent(),
            _ => false,
        }
    }

    /// The failure that an error of a [`Stream`](crate::Stream) carries, if it does: see [`Tls`](Self::Tls).
    pub fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// True if the host is there and said at each of its addresses that nothing listens at the port.
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

/// One address that was tried in vain.
#[derive(Debug)]
pub struct Attempt {
    /// The address.
    pub address: SocketAddr,
    /// Why it did not work; [`io::ErrorKind::TimedOut`] also where
    /// [`Tcp::address_timeout`](crate::Tcp::address_timeout) gave it up.
    pub error: io::Error,
}

struct Attempts<'a>(&'a HostPort, &'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [Attempt { address, error }] = self.1
            && address.to_string() == self.0.to_string()
        {
            // It was told already.
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
    fn an_address_is_not_told_twice() {
        let address: SocketAddr = "[::1]:9092".parse().unwrap();
        let attempts = vec![Attempt { address, error: io::ErrorKind::ConnectionRefused.into() }];
        let error = TransportError::Connect { to: HostPort::from(address), attempts };
        assert_eq!(error.to_string(), "cannot connect to [::1]:9092: connection refused");
    }

    #[test]
    fn display_tells_this_level_and_source_the_rest() {
        let error = TransportError::other(HostPort::new("kafka", 9092), "the tunnel is shut");
        assert_eq!(error.to_string(), "cannot connect to kafka:9092");
        assert_eq!(error.source().unwrap().to_string(), "the tunnel is shut");

        let error = TransportError::from("kafka".parse::<HostPort>().unwrap_err());
        assert_eq!(error.to_string(), "invalid broker address");
        assert!(error.source().unwrap().to_string().starts_with("\"kafka\" has no port"));
    }
}
