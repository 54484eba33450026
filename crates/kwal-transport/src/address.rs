//! The address of a broker: host and port.

use std::{
    fmt::{self, Write},
    net::{Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// A host, by name or IP address, and a port.
///
/// ```
/// use kwal_transport::HostPort;
///
/// let address: HostPort = "[::1]:9092".parse()?;
/// assert_eq!((address.host.as_str(), address.port), ("::1", 9092));
/// assert_eq!(address.to_string(), "[::1]:9092");
///
/// let error = "localhost".parse::<HostPort>().unwrap_err();
/// let text = "\"localhost\" has no port (write it as host:port, for example localhost:9092)";
/// assert_eq!(error.to_string(), text);
/// # Ok::<(), kwal_transport::InvalidAddress>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A name or an IP address; an IPv6 address has no brackets here.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Creates an address from host and port as they are, for example from a broker's metadata.
    ///
    /// Brackets around an IPv6 address are removed. Nothing else is checked: connecting does that.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => Self { host: inner.to_owned(), port },
            None => Self { host, port },
        }
    }
}

/// Writes `host:port`, and `[address]:port` for IPv6, which is what [`FromStr`] parses. A host that a broker
/// advertises may be anything: characters that are not printable are escaped, and a long one is cut.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = Host(&self.host);
        if self.host.contains(':') {
            write!(f, "[{host}]:{}", self.port)
        } else {
            write!(f, "{host}:{}", self.port)
        }
    }
}

/// Displays a host or another name that a peer chose: escaped, and cut at the greatest length of a name.
#[derive(Debug)]
pub(crate) struct Host<'a>(pub(crate) &'a str);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX: usize = 255;
        for (i, c) in self.0.chars().flat_map(char::escape_debug).enumerate() {
            if i == MAX {
                return write!(f, "… ({} bytes)", self.0.len());
            }
            f.write_char(c)?;
        }
        Ok(())
    }
}

/// Parses `host:port` or `[IPv6 address]:port`; surrounding white space is ignored.
///
/// The port has no default, and 0 is invalid. Of the host, only characters are rejected that indicate a URL,
/// a list or a bare IPv6 address: whether a name exists is decided by the resolver.
impl FromStr for HostPort {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let text = text.trim();
        let invalid = |problem| InvalidAddress { text: text.to_owned(), problem };
        let (host, port) = split(text).map_err(invalid)?;
        if host.is_empty() {
            return Err(invalid(AddressProblem::NoHost));
        }
        if port.is_empty() {
            return Err(invalid(AddressProblem::NoPort));
        }
        // `parse` alone would also take "+9092".
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits && port != 0 => Ok(Self { host: host.to_owned(), port }),
            _ => Err(invalid(AddressProblem::BadPort)),
        }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

/// A text that is not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" {problem}", Host(.text))]
pub struct InvalidAddress {
    text: String,
    problem: AddressProblem,
}

impl InvalidAddress {
    /// The text, without surrounding white space.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The problem.
    pub fn problem(&self) -> AddressProblem {
        self.problem
    }

    pub(crate) fn no_host(address: &HostPort) -> Self {
        Self { text: address.to_string(), problem: AddressProblem::NoHost }
    }
}

/// The problem with an invalid address; its `Display` describes the correct form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressProblem {
    /// The host is missing.
    NoHost,
    /// The port is missing.
    NoPort,
    /// The port is not a number from 1 to 65535.
    BadPort,
    /// The text is a URL, or starts with the name of a listener.
    Scheme,
    /// The text contains several addresses.
    List,
    /// An IPv6 address has no brackets.
    Ipv6WithoutBrackets,
    /// The text in brackets is not an IPv6 address, or the brackets do not match.
    BadIpv6,
    /// The host contains an invalid character.
    BadHost,
}

impl fmt::Display for AddressProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHost => "has no host (write it as host:port, for example localhost:9092)",
            Self::NoPort => "has no port (write it as host:port, for example localhost:9092)",
            Self::BadPort => {
                "has no valid port: it must be a number from 1 to 65535, for example localhost:9092"
            }
            Self::Scheme => {
                "starts with a scheme (leave it out and write host:port, for example localhost:9092)"
            }
            Self::List => "is a list (give each broker a separate address, for example localhost:9092)",
            Self::Ipv6WithoutBrackets => {
                "is an IPv6 address without brackets (write it as [address]:port, for example [::1]:9092)"
            }
            Self::BadIpv6 => "has no valid IPv6 address in brackets (an example of one is [::1]:9092)",
            Self::BadHost => {
                "has a character that is not valid in a host (write it as host:port, for example localhost:9092)"
            }
        })
    }
}

/// Splits into host, without brackets, and port, which may be empty.
fn split(text: &str) -> Result<(&str, &str), AddressProblem> {
    if text.contains("://") {
        return Err(AddressProblem::Scheme);
    }
    if text.contains([',', ';']) {
        return Err(AddressProblem::List);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(AddressProblem::BadIpv6)?;
        // A link-local address may name its interface: fe80::1%eth0.
        let (address, zone) = host.split_once('%').unwrap_or((host, "0"));
        if address.parse::<Ipv6Addr>().is_err() || zone.is_empty() || !is_host(zone) {
            return Err(AddressProblem::BadIpv6);
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if rest.is_empty() => Ok((host, "")),
            None => Err(AddressProblem::BadIpv6),
        };
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => return Err(AddressProblem::Ipv6WithoutBrackets),
        Some(parts) => parts,
        None => (text, ""),
    };
    if !is_host(host) {
        return Err(AddressProblem::BadHost);
    }
    Ok((host, port))
}

/// Whether a character is valid in a host: letters of any script, but no separators of URLs or text.
fn is_host(host: &str) -> bool {
    !host.chars().any(|c| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '/' | '\\' | '@' | '[' | ']' | '%' | '?' | '#' | '"' | '\'')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_both_kinds_of_ip_address() {
        for (text, host, port) in [
            ("localhost:9092", "localhost", 9092),
            ("kafka_1.example.org.:1", "kafka_1.example.org.", 1),
            ("  127.0.0.1:65535\n", "127.0.0.1", 65535),
            ("[::1]:9092", "::1", 9092),
            ("[fe80::1%eth0]:9092", "fe80::1%eth0", 9092),
            ("müller.example:9092", "müller.example", 9092),
        ] {
            let address: HostPort = text.parse().unwrap();
            assert_eq!(address, HostPort { host: host.to_owned(), port }, "{text}");
            assert_eq!(address.to_string(), text.trim());
        }
    }

    #[test]
    fn a_host_that_a_broker_advertises_is_escaped_and_cut() {
        for (host, shown) in [
            ("kafka\r\nERROR".to_owned(), "kafka\\r\\nERROR:9092".to_owned()),
            ("\u{1b}[31m\u{202e}:".to_owned(), "[\\u{1b}[31m\\u{202e}:]:9092".to_owned()),
            ("x".repeat(255), format!("{}:9092", "x".repeat(255))),
            ("x".repeat(30_000), format!("{}… (30000 bytes):9092", "x".repeat(255))),
        ] {
            assert_eq!(HostPort::new(host, 9092).to_string(), shown);
        }
    }

    #[test]
    fn errors_describe_the_problem() {
        use AddressProblem::*;
        for (text, problem) in [
            ("", NoHost),
            (":9092", NoHost),
            ("localhost", NoPort),
            ("localhost:", NoPort),
            ("[::1]", NoPort),
            ("[::1]:", NoPort),
            ("localhost:0", BadPort),
            ("localhost:65536", BadPort),
            ("localhost:+9092", BadPort),
            ("localhost:-1", BadPort),
            ("localhost:kafka", BadPort),
            ("localhost:9092/", BadPort),
            ("[::1]:x", BadPort),
            ("kafka://localhost:9092", Scheme),
            ("PLAINTEXT://localhost:9092", Scheme),
            ("a:9092,b:9092", List),
            ("::1", Ipv6WithoutBrackets),
            ("::1:9092", Ipv6WithoutBrackets),
            ("[::1", BadIpv6),
            ("[::g]:9092", BadIpv6),
            ("[localhost]:9092", BadIpv6),
            ("[]:9092", BadIpv6),
            ("[::1]9092", BadIpv6),
            ("[fe80::1%]:9092", BadIpv6),
            ("my host:9092", BadHost),
            ("user@host:9092", BadHost),
            ("host]:9092", BadHost),
        ] {
            let error = text.parse::<HostPort>().unwrap_err();
            assert_eq!(error.problem(), problem, "{text}");
            assert!(error.to_string().starts_with(&format!("{text:?} ")), "{error}");
            assert!(error.to_string().contains(":9092"), "{error}");
        }
    }

    #[test]
    fn removes_the_brackets_of_metadata() {
        assert_eq!(HostPort::new("[::1]", 9092), HostPort::new("::1", 9092));
        assert_eq!(HostPort::new("[::1]", 9092).to_string(), "[::1]:9092");
        assert_eq!(HostPort::from(SocketAddr::from(([127, 0, 0, 1], 80))).to_string(), "127.0.0.1:80");
    }
}
