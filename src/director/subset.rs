//! Which endpoints the proxy allows for a request.

use crate::endpoint::{Endpoint, Host, HostPort};

/// One allowed place: a host with any port, or one exact port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsetEntry {
    host: Host,
    port: Option<u16>,
}

impl SubsetEntry {
    /// Reads `ip`, `ip:port`, `[ip]` or `[ip]:port`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(HostPort { host, port }) = text.parse::<HostPort>() {
            return Some(Self { host, port: Some(port) });
        }
        text.parse::<Host>().ok().map(|host| Self { host, port: None })
    }
    /// Whether `endpoint` is meant.
    pub fn matches(&self, endpoint: &Endpoint) -> bool {
        self.host == endpoint.address.host && self.port.is_none_or(|p| p == endpoint.address.port)
    }
}

/// The proxy's subset hint. Fails closed: what cannot be read allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SubsetHint {
    /// No hint: the whole pool.
    #[default]
    Absent,
    /// Only these; an empty list allows nothing.
    Only(Vec<SubsetEntry>),
}

impl SubsetHint {
    /// A hint from texts, each one entry or several separated by commas. Entries that cannot be read are left out, so
    /// a hint of nothing but garbage allows nothing.
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let entries = texts.into_iter().flat_map(|t| t.split(',')).filter_map(SubsetEntry::parse);
        Self::Only(entries.collect())
    }
    /// Whether `endpoint` may be picked.
    pub fn allows(&self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Absent => true,
            Self::Only(entries) => entries.iter().any(|e| e.matches(endpoint)),
        }
    }
}
