//! Who may read the debug pages.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where the debug pages are served and for whom. The metrics page is for everybody on its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DebugAccess {
    /// On the metrics port, for callers on this machine only.
    Local,
    /// On a listener of their own, on a loopback address, for callers on this machine only.
    LocalListener(SocketAddr),
    /// On a listener of their own, for those who bring the token that stands in the file. The file is read for each
    /// request, so that a new token counts at once.
    Token(SocketAddr, PathBuf),
}

/// The pages cannot be guarded as asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AccessError {
    /// Open to other machines without a token.
    #[error(
        "--admin-address {0} can be reached from other machines: add --admin-token-file, or use 127.0.0.1"
    )]
    Open(SocketAddr),
    /// There is no token in the file.
    #[error("--admin-token-file {0}: {1}; the file must hold the token on one line")]
    Token(PathBuf, String),
}

impl DebugAccess {
    /// From the two flags. A token that cannot be read is refused here and not at the first request.
    pub fn new(address: Option<SocketAddr>, token_file: Option<PathBuf>) -> Result<Self, AccessError> {
        match (address, token_file) {
            (None, _) => Ok(Self::Local),
            (Some(address), Some(file)) => match read_token(&file) {
                Ok(_token) => Ok(Self::Token(address, file)),
                Err(cause) => Err(AccessError::Token(file, cause)),
            },
            (Some(address), None) if address.ip().is_loopback() => Ok(Self::LocalListener(address)),
            (Some(address), None) => Err(AccessError::Open(address)),
        }
    }

    /// Address of the listener that the debug pages have to themselves.
    pub fn listener(&self) -> Option<SocketAddr> {
        match self {
            Self::Local => None,
            Self::LocalListener(address) | Self::Token(address, _) => Some(*address),
        }
    }
}

/// What a listener asks of callers of the debug pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// They must be on this machine.
    Local,
    /// They must bring the token.
    Token(PathBuf),
    /// The pages are not here.
    Elsewhere(SocketAddr),
}

/// What is known of a caller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    pub(super) peer: IpAddr,
    pub(super) host: Option<&'a str>,
    pub(super) authorization: Option<&'a [u8]>,
}

/// Why a caller may not read the debug pages.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// Not from another machine.
    NotLocal,
    /// The token is missing or wrong.
    NoToken,
    /// The token that they should bring cannot be read.
    TokenUnreadable,
    /// They are served elsewhere.
    Elsewhere(SocketAddr),
}

impl Guard {
    pub(super) fn admit(&self, caller: Caller<'_>) -> Result<(), Denied> {
        match self {
            Self::Elsewhere(address) => Err(Denied::Elsewhere(*address)),
            Self::Local if is_local(caller) => Ok(()),
            Self::Local => Err(Denied::NotLocal),
            Self::Token(file) => {
                let token = read_token(file).map_err(|_cause| Denied::TokenUnreadable)?;
                let brought = caller.authorization.and_then(bearer).ok_or(Denied::NoToken)?;
                if same(brought, token.as_bytes()) { Ok(()) } else { Err(Denied::NoToken) }
            }
        }
    }
}

/// The peer is this machine and the page was asked for under a name of it: a web page that has its own name resolve to
/// 127.0.0.1 does not get through.
fn is_local(caller: Caller<'_>) -> bool {
    caller.peer.to_canonical().is_loopback() && caller.host.is_none_or(is_local_name)
}

fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The token of an `Authorization` header.
pub(super) fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn read_token(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err("there is no token in it".to_owned());
    }
    Ok(token.to_owned())
}

/// Compares in a time that depends on the length only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0_u8, |seen, (x, y)| std::hint::black_box(seen | (x ^ y))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller<'a>(peer: &str, host: Option<&'a str>, authorization: Option<&'a str>) -> Caller<'a> {
        Caller { peer: peer.parse().unwrap(), host, authorization: authorization.map(str::as_bytes) }
    }

    #[test]
    fn local_pages_are_for_this_machine_under_its_own_name() {
        for (peer, host, admitted) in [
            ("127.0.0.1", Some("localhost:9090"), true),
            ("127.0.0.1", Some("127.0.0.1:9090"), true),
            ("::1", Some("[::1]:9090"), true),
            ("::ffff:127.0.0.1", Some("LOCALHOST"), true),
            ("127.0.0.1", None, true),
            ("10.0.0.7", Some("localhost:9090"), false),
            ("::ffff:10.0.0.7", Some("localhost"), false),
            ("127.0.0.1", Some("evil.example:9090"), false),
            ("127.0.0.1", Some("10.0.0.7:9090"), false),
        ] {
            // A token changes nothing here.
            let result = Guard::Local.admit(caller(peer, host, Some("Bearer t")));
            assert_eq!(result.is_ok(), admitted, "{peer} {host:?}");
        }
    }

    #[test]
    fn a_token_must_be_the_one_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let guard = Guard::Token(file.clone());
        for (authorization, expected) in [
            (Some("Bearer s3cret"), Ok(())),
            (Some("bearer s3cret"), Ok(())),
            (Some("Bearer s3cre"), Err(Denied::NoToken)),
            (Some("Bearer S3cret"), Err(Denied::NoToken)),
            (Some("Bearer"), Err(Denied::NoToken)),
            (Some("Basic s3cret"), Err(Denied::NoToken)),
            (None, Err(Denied::NoToken)),
        ] {
            for peer in ["10.0.0.7", "127.0.0.1"] {
                assert_eq!(guard.admit(caller(peer, None, authorization)), expected, "{authorization:?}");
            }
        }
        std::fs::write(&file, "other").unwrap();
        assert_eq!(guard.admit(caller("10.0.0.7", None, Some("Bearer other"))), Ok(()));
        std::fs::write(&file, "").unwrap();
        assert_eq!(guard.admit(caller("10.0.0.7", None, Some("Bearer "))), Err(Denied::TokenUnreadable));
    }

    #[test]
    fn the_flags_must_not_open_the_pages_by_mistake() {
        let local: SocketAddr = "127.0.0.1:9091".parse().unwrap();
        let open: SocketAddr = "0.0.0.0:9091".parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        assert_eq!(DebugAccess::new(None, None), Ok(DebugAccess::Local));
        assert_eq!(DebugAccess::new(Some(local), None), Ok(DebugAccess::LocalListener(local)));
        assert_eq!(DebugAccess::new(Some(open), None), Err(AccessError::Open(open)));
        assert!(matches!(DebugAccess::new(Some(open), Some(file.clone())), Err(AccessError::Token(..))));
        std::fs::write(&file, "t").unwrap();
        assert_eq!(DebugAccess::new(Some(open), Some(file.clone())), Ok(DebugAccess::Token(open, file)));
    }
}
