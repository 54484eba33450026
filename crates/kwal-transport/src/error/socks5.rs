use std::{fmt, io};

use super::TransportError;

/// Why a SOCKS5 proxy (RFC 1928) did not connect to a broker. It holds no secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Socks5Error {
    /// The user or the password is empty or too long (RFC 1929).
    #[error("the {field} for the proxy is {len} bytes long, it has to be from 1 to 255")]
    InvalidLogin {
        /// "user" or "password".
        field: &'static str,
        /// Its length.
        len: usize,
    },
    /// The name of the broker's host is too long for the protocol.
    #[error("the host name is {len} bytes long, a SOCKS5 proxy takes 255 at most")]
    HostTooLong {
        /// Its length.
        len: usize,
    },
    /// There is no connection to the proxy.
    #[error("the proxy cannot be reached")]
    Proxy {
        /// Why not.
        source: Box<TransportError>,
    },
    /// What answered is no SOCKS5 proxy.
    #[error("what answers there is not a SOCKS5 proxy{}: is it the right port?", OtherVersion(*.version))]
    NotSocks5 {
        /// The first byte of its answer, where a proxy has its version, 5.
        version: u8,
    },
    /// The proxy demands a login, and there is none.
    #[error("the proxy demands a login, and none was given")]
    LoginRequired,
    /// The proxy wants another kind of authentication than none or user and password.
    #[error("the proxy takes neither clients without authentication nor user and password")]
    NoCommonMethod,
    /// The proxy chose a kind of authentication that was not offered.
    #[error("the proxy chose authentication method {method}, which was not offered")]
    UnknownMethod {
        /// Its number (RFC 1928, section 3).
        method: u8,
    },
    /// The proxy does not know the user, or the password is another.
    #[error("the proxy refuses the login: are user and password right?")]
    LoginRefused,
    /// The proxy did not connect to the broker.
    #[error("the proxy answers: {reply}")]
    Refused {
        /// Its answer.
        reply: Socks5Reply,
    },
    /// The proxy closed the connection before it was done.
    #[error("the proxy closed the connection {stage}")]
    Closed {
        /// Where it stood.
        stage: &'static str,
    },
    /// The connection to the proxy broke.
    #[error("the connection to the proxy broke {stage}")]
    Io {
        /// Where it stood.
        stage: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The answer of the proxy is not what the protocol says.
    #[error("the proxy's answer {stage} is malformed")]
    Malformed {
        /// Where it stood.
        stage: &'static str,
    },
}

impl Socks5Error {
    /// True for what only another login, another proxy or a change of its rules can mend.
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

/// What a proxy answers to the request to connect (RFC 1928, section 6): a code, shown in words.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Socks5Reply(pub u8);

impl Socks5Reply {
    /// Something, without saying what; some proxies answer so if they cannot resolve the host.
    pub const GENERAL_FAILURE: Self = Self(1);
    /// The rules of the proxy do not allow it.
    pub const NOT_ALLOWED: Self = Self(2);
    /// The proxy has no way to the network.
    pub const NETWORK_UNREACHABLE: Self = Self(3);
    /// The proxy cannot reach, or not resolve, the host.
    pub const HOST_UNREACHABLE: Self = Self(4);
    /// Nothing listens at the broker's port.
    pub const CONNECTION_REFUSED: Self = Self(5);
    /// The packets' time to live ended; some proxies answer so if the broker does not answer in time.
    pub const TTL_EXPIRED: Self = Self(6);
    /// The proxy does not connect.
    pub const COMMAND_NOT_SUPPORTED: Self = Self(7);
    /// The proxy does not do names, or IPv6.
    pub const ADDRESS_TYPE_NOT_SUPPORTED: Self = Self(8);
}

impl fmt::Display for Socks5Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::GENERAL_FAILURE => "general failure; it may be unable to resolve or reach the broker",
            Self::NOT_ALLOWED => "its rules do not allow to connect to the broker",
            Self::NETWORK_UNREACHABLE => "the broker's network is unreachable",
            Self::HOST_UNREACHABLE => "the broker's host is unreachable, or its name unknown",
            Self::CONNECTION_REFUSED => "the broker's host refused the connection",
            Self::TTL_EXPIRED => "the broker did not answer (time to live expired)",
            Self::COMMAND_NOT_SUPPORTED => "it does not support to connect",
            Self::ADDRESS_TYPE_NOT_SUPPORTED => "it does not support this kind of address",
            Self(code) => return write!(f, "code {code}, which has no meaning"),
        })
    }
}

struct OtherVersion(u8);

impl fmt::Display for OtherVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 | 4 => " (it may be one for SOCKS4)",
            b'H' => " (it speaks HTTP)",
            0x15 | 0x16 => " (it speaks TLS)",
            version => return write!(f, " (its answer begins with {version}, not with 5)"),
        })
    }
}
