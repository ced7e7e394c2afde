//! Who may read the pages of the metrics port when others than this machine are to be told apart: a bearer token that
//! somebody reviews, or a client certificate.

use futures::future::BoxFuture;
use rustls::ServerConfig;
use std::fmt;
use std::sync::Arc;

/// What a review came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The holder of the token may read the page.
    Allowed,
    /// Nobody knows the token.
    Unknown,
    /// Its holder may not.
    Forbidden,
    /// It could not be reviewed; the reason is for the log, not for the caller.
    Unavailable(String),
}

/// Reviews tokens. It never logs them.
pub trait Reviewer: Send + Sync {
    /// Whether the holder of `token` may `GET` the page `path`.
    fn review(&self, token: String, path: String) -> BoxFuture<'_, Verdict>;
}

/// What the metrics port asks of its callers. By default nothing.
#[derive(Clone, Default)]
pub struct Protection {
    /// Reviews bearer tokens.
    pub reviewer: Option<Arc<dyn Reviewer>>,
    /// TLS of the port.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether a client certificate, which the TLS configuration verifies, admits as well.
    pub certificates: bool,
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protection")
            .field("reviewer", &self.reviewer.is_some())
            .field("tls", &self.tls.is_some())
            .field("certificates", &self.certificates)
            .finish()
    }
}

/// Why a caller is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A token is missing, or nobody knows it.
    Token,
    /// A client certificate is missing.
    Certificate,
    /// The caller is known and may not.
    Forbidden,
    /// The token could not be reviewed.
    Unavailable,
}

impl Protection {
    /// Whether everybody is admitted.
    pub(super) fn is_open(&self) -> bool {
        self.reviewer.is_none() && !self.certificates
    }

    /// Admits a caller to a page: by its certificate, else by its token.
    pub(super) async fn admit(
        &self,
        certified: bool,
        token: Option<&[u8]>,
        path: &str,
    ) -> Result<(), Refusal> {
        if self.is_open() || (certified && self.certificates) {
            return Ok(());
        }
        let Some(reviewer) = &self.reviewer else { return Err(Refusal::Certificate) };
        let token = token.and_then(|token| std::str::from_utf8(token).ok()).filter(|token| !token.is_empty());
        let Some(token) = token else { return Err(Refusal::Token) };
        match reviewer.review(token.to_owned(), path.to_owned()).await {
            Verdict::Allowed => Ok(()),
            Verdict::Unknown => Err(Refusal::Token),
            Verdict::Forbidden => Err(Refusal::Forbidden),
            Verdict::Unavailable(reason) => {
                tracing::warn!(path, reason, "a caller of the metrics port could not be reviewed");
                Err(Refusal::Unavailable)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Reviewer for Fixed {
        fn review(&self, token: String, path: String) -> BoxFuture<'_, Verdict> {
            Box::pin(async move {
                match (token.as_str(), path.as_str()) {
                    ("good", "/metrics") => Verdict::Allowed,
                    ("good", _) => Verdict::Forbidden,
                    ("late", _) => Verdict::Unavailable("away".to_owned()),
                    _ => Verdict::Unknown,
                }
            })
        }
    }

    #[tokio::test]
    async fn a_certificate_or_a_token_admits() {
        let tokens = Protection { reviewer: Some(Arc::new(Fixed)), ..Protection::default() };
        let certificates = Protection { certificates: true, ..Protection::default() };
        let both = Protection { certificates: true, ..tokens.clone() };
        for (who, certified, token, path, expected) in [
            (&Protection::default(), false, None, "/metrics", Ok(())),
            (&tokens, false, Some("good"), "/metrics", Ok(())),
            (&tokens, false, Some("good"), "/debug/state", Err(Refusal::Forbidden)),
            (&tokens, false, Some("bad"), "/metrics", Err(Refusal::Token)),
            (&tokens, false, Some(""), "/metrics", Err(Refusal::Token)),
            (&tokens, false, None, "/metrics", Err(Refusal::Token)),
            (&tokens, true, None, "/metrics", Err(Refusal::Token)),
            (&tokens, false, Some("late"), "/metrics", Err(Refusal::Unavailable)),
            (&certificates, true, None, "/metrics", Ok(())),
            (&certificates, false, Some("good"), "/metrics", Err(Refusal::Certificate)),
            (&both, true, None, "/metrics", Ok(())),
            (&both, false, Some("good"), "/metrics", Ok(())),
            (&both, false, None, "/metrics", Err(Refusal::Token)),
        ] {
            let found = who.admit(certified, token.map(str::as_bytes), path).await;
            assert_eq!(found, expected, "{certified} {token:?} {path}");
        }
    }
}
