//! Who an endpoint is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Identity of an endpoint within its pool: namespace, name of the pod or file entry, and rank (index of the port).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// Namespace of the pod, `default` for file entries that name none.
    pub namespace: Arc<str>,
    /// Name of the pod or file entry.
    pub name: Arc<str>,
    /// Index of the port in the pool's target ports; 0 for file entries.
    pub rank: u16,
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        if self.rank > 0 { write!(f, "-rank-{}", self.rank) } else { Ok(()) }
    }
}

/// Dense place of an endpoint in its pool. Reused after the endpoint left, with a new [`Incarnation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Which process occupies a slot. Grows each time a new process is known to be there and never goes back, so whatever
/// was remembered of the former one is unreachable at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub u32);

/// A process in a slot: what cache indexes hold entries under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Occupant {
    /// The place.
    pub slot: Slot,
    /// The process.
    pub incarnation: Incarnation,
}

/// Key under which the labels of a pod hold its `spec.hostname`; no label can have it.
pub const POD_HOSTNAME: &str = "(spec.hostname)";

/// Labels of a pod or file entry, shared and sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Arc<BTreeMap<String, String>>);

impl Labels {
    /// Value of the label `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
    /// All labels in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(Arc::new(pairs.into_iter().collect()))
    }
}

/// What an endpoint does for a request, from the label [`super::ROLE_LABEL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// No label, or an empty one.
    Unlabelled,
    /// `decode`
    Decode,
    /// `prefill`
    Prefill,
    /// `prefill-decode`
    PrefillDecode,
    /// `both`: the older spelling of `prefill-decode`
    Both,
    /// `encode`
    Encode,
    /// `encode-prefill`
    EncodePrefill,
    /// `encode-prefill-decode`
    EncodePrefillDecode,
    /// A value this release does not know: fits no role filter.
    Unknown,
}

impl Role {
    /// Reads the label's value.
    pub fn from_label(value: Option<&str>) -> Self {
        match value {
            None | Some("") => Self::Unlabelled,
            Some("decode") => Self::Decode,
            Some("prefill") => Self::Prefill,
            Some("prefill-decode") => Self::PrefillDecode,
            Some("both") => Self::Both,
            Some("encode") => Self::Encode,
            Some("encode-prefill") => Self::EncodePrefill,
            Some("encode-prefill-decode") => Self::EncodePrefillDecode,
            Some(_) => Self::Unknown,
        }
    }
    /// Whether it decodes; an endpoint without a label does.
    pub fn decodes(self) -> bool {
        matches!(
            self,
            Self::Unlabelled | Self::Decode | Self::PrefillDecode | Self::Both | Self::EncodePrefillDecode
        )
    }
    /// Whether it is labelled to prefill.
    pub fn prefills(self) -> bool {
        matches!(
            self,
            Self::Prefill
                | Self::EncodePrefill
                | Self::PrefillDecode
                | Self::Both
                | Self::EncodePrefillDecode
        )
    }
    /// Whether it is labelled to encode.
    pub fn encodes(self) -> bool {
        matches!(self, Self::Encode | Self::EncodePrefill | Self::EncodePrefillDecode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_the_catalogue() {
        let roles = [
            "decode",
            "prefill",
            "prefill-decode",
            "both",
            "encode-prefill-decode",
            "encode",
            "encode-prefill",
            "",
        ];
        let fits = |test: fn(Role) -> bool| {
            roles.iter().filter(|r| test(Role::from_label(Some(r)))).copied().collect::<Vec<_>>()
        };
        assert_eq!(fits(Role::decodes), ["decode", "prefill-decode", "both", "encode-prefill-decode", ""]);
        assert_eq!(
            fits(Role::prefills),
            ["prefill", "prefill-decode", "both", "encode-prefill-decode", "encode-prefill"]
        );
        assert_eq!(fits(Role::encodes), ["encode-prefill-decode", "encode", "encode-prefill"]);
        assert!(Role::from_label(None).decodes());
        assert!(!Role::from_label(Some("router")).decodes());
    }
}
