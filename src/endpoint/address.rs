//! Host and port of an endpoint.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// A host: an IP address or a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A literal address.
    Ip(IpAddr),
    /// A DNS name, lower-cased.
    Name(Arc<str>),
}

/// A host with a port. Displays as `host:port`, IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

/// Why a text is no address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidAddress {
    /// Neither an IP address nor a DNS name.
    #[error("`{0}` is neither an IP address nor a DNS name")]
    Host(String),
    /// The port is missing or not in 1..=65535.
    #[error("`{0}` has no port in 1..65535; write host:port, IPv6 as [address]:port")]
    Port(String),
}

impl FromStr for Host {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Some(inner) = bare {
            return Ipv6Addr::from_str(inner)
                .map(|ip| Self::Ip(IpAddr::V6(ip)))
                .map_err(|_e| InvalidAddress::Host(text.to_owned()));
        }
        if let Ok(ip) = IpAddr::from_str(text) {
            return Ok(Self::Ip(ip));
        }
        let label_ok = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let name = text.strip_suffix('.').unwrap_or(text);
        // A name made of digits and dots is a mistyped IPv4 address, not a name.
        let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if name.is_empty() || name.len() > 253 || numeric || !name.split('.').all(label_ok) {
            return Err(InvalidAddress::Host(text.to_owned()));
        }
        Ok(Self::Name(name.to_ascii_lowercase().into()))
    }
}

impl FromStr for HostPort {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let missing = || InvalidAddress::Port(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(missing)?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(missing());
        }
        let port = port.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(missing)?;
        Ok(Self { host: host.parse()?, port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_address_is_read_and_written() {
        for (text, shown) in [
            ("10.0.0.1:8000", "10.0.0.1:8000"),
            ("[fd00::1]:8000", "[fd00::1]:8000"),
            ("engine-0.pool.svc:80", "engine-0.pool.svc:80"),
            ("Engine.Local.:80", "engine.local:80"),
        ] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "10.0.0.1",
            "10.0.0.1:0",
            "10.0.0.1:70000",
            "fd00::1:8000",
            "10.0.0.300:1",
            "a b:1",
            ":1",
            "-a:1",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text} was taken");
        }
    }
}
