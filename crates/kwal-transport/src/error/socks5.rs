use std::{fmt, io};

use super::TransportError;

/// The reason why a SOCKS5 proxy (RFC 1928) did not connect to a broker. It contains no secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Socks5Error {
    /// The user or the password is empty or too long (RFC 1929).
    #[error("the {field} for the proxy is {len} bytes long, it must have 1 to 255")]
    InvalidLogin {
        /// "user" or "password".
        field: &'static str,
        /// The length.
        len: usize,
    },
    /// The host name of the broker is too long for the protocol.
    #[error("the host name is {len} bytes long, a SOCKS5 proxy accepts at most 255")]
    HostTooLong {
        /// The length.
        len: usize,
    },
    /// The connection to the proxy failed.
    #[error("the proxy cannot be reached")]
    Proxy {
        /// The cause.
        source: Box<TransportError>,
    },
    /// The peer is not a SOCKS5 proxy.
    #[error("the peer is not a SOCKS5 proxy{}: is this the right port?", OtherVersion(*.version))]
    NotSocks5 {
        /// The first byte of its response; a SOCKS5 proxy sends its version, 5.
        version: u8,
    },
    /// The proxy requires a login, but none is configured.
    #[error("the proxy requires a login, but none is configured")]
    LoginRequired,
    /// The proxy requires a method of authentication other than none or user and password.
    #[error("the proxy accepts neither clients without authentication nor user and password")]
    NoCommonMethod,
    /// The proxy chose a method of authentication that was not offered.
    #[error("the proxy chose authentication method {method}, which was not offered")]
    UnknownMethod {
        /// The number of the method (RFC 1928, section 3).
        method: u8,
    },
    /// The proxy rejected user or password.
    #[error("the proxy rejected the login: are user and password correct?")]
    LoginRefused,
    /// The proxy did not connect to the broker.
    #[error("the proxy did not connect: {reply}")]
    Refused {
        /// The reply code.
        reply: Socks5Reply,
    },
    /// The proxy closed the connection during the exchange.
    #[error("the proxy closed the connection {stage}")]
    Closed {
        /// The stage of the exchange.
        stage: &'static str,
    },
    /// The connection to the proxy was lost.
    #[error("the connection to the proxy was lost {stage}")]
    Io {
        /// The stage of the exchange.
        stage: &'static str,
        /// The IO error.
        source: io::Error,
    },
    /// The response of the proxy violates the protocol.
    #[error("the proxy's response {stage} is malformed")]
    Malformed {
        /// The stage of the exchange.
        stage: &'static str,
    },
}

impl Socks5Error {
    /// Whether only another login, another proxy or a change of its rules can help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::InvalidLogin { .. }
            | Self::HostTooLong { .. }
            | Self::NotSocks5 { .. }
            | Self::LoginRequired
            | Self::NoCommonMethod
            | Self::UnknownMethod { .. }
            | Self::LoginRefused => true,
            Self::Proxy { source } => source.is_permanent(),
            Self::Refused { reply } => matches!(
                *reply,
                Socks5Reply::NOT_ALLOWED
                    | Socks5Reply::COMMAND_NOT_SUPPORTED
                    | Socks5Reply::ADDRESS_TYPE_NOT_SUPPORTED
            ),
            Self::Closed { .. } | Self::Io { .. } | Self::Malformed { .. } => false,
        }
    }
}

/// The reply code of a proxy to the connect request (RFC 1928, section 6), displayed in words.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Socks5Reply(pub u8);

impl Socks5Reply {
    /// An unspecified error; some proxies also send it if they cannot resolve the host.
    pub const GENERAL_FAILURE: Self = Self(1);
    /// The rules of the proxy do not allow it.
    pub const NOT_ALLOWED: Self = Self(2);
    /// The network is unreachable for the proxy.
    pub const NETWORK_UNREACHABLE: Self = Self(3);
    /// The host is unreachable for the proxy, or its name cannot be resolved.
    pub const HOST_UNREACHABLE: Self = Self(4);
    /// Nothing listens at the broker's port.
    pub const CONNECTION_REFUSED: Self = Self(5);
    /// The time to live expired; some proxies also send it if the broker does not answer in time.
    pub const TTL_EXPIRED: Self = Self(6);
    /// The proxy does not support the connect command.
    pub const COMMAND_NOT_SUPPORTED: Self = Self(7);
    /// The proxy does not support names, or IPv6.
    pub const ADDRESS_TYPE_NOT_SUPPORTED: Self = Self(8);
}

impl fmt::Display for Socks5Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::GENERAL_FAILURE => "general failure; it may be unable to resolve or reach the broker",
            Self::NOT_ALLOWED => "its rules do not allow the connection",
            Self::NETWORK_UNREACHABLE => "the broker's network is unreachable",
            Self::HOST_UNREACHABLE => "the broker's host is unreachable, or its name unknown",
            Self::CONNECTION_REFUSED => "the broker's host refused the connection",
            Self::TTL_EXPIRED => "the broker did not answer (time to live expired)",
            Self::COMMAND_NOT_SUPPORTED => "it does not support the connect command",
            Self::ADDRESS_TYPE_NOT_SUPPORTED => "it does not support this type of address",
            Self(code) => return write!(f, "unknown code {code}"),
        })
    }
}

struct OtherVersion(u8);

impl fmt::Display for OtherVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 | 4 => " (it may speak SOCKS4)",
            b'H' => " (it speaks HTTP)",
            0x15 | 0x16 => " (it speaks TLS)",
            version => return write!(f, " (its response starts with {version} instead of 5)"),
        })
    }
}
