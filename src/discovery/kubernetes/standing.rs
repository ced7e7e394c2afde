//! How the watches stand: said once when that changes, and shown as metrics.

use super::kind::{Home, Kind};
use crate::telemetry::names;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What was tried, as Roles name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Asking which kinds a group has.
    Discover,
    /// A list.
    List,
    /// A watch.
    Watch,
}

impl Verb {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::List => "list",
            Self::Watch => "watch",
        }
    }
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its class, for metrics.
    pub class: Class,
    /// The details.
    pub message: String,
    /// What the server wants us to wait.
    pub wait: Option<Duration>,
}

/// Classes of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 403: a verb is missing in the Role.
    Forbidden,
    /// 401: who we are is not believed.
    Unauthorized,
    /// 404: the API does not serve the kind.
    NotFound,
    /// 410: what we knew is too old; everything is listed anew.
    Expired,
    /// 429: the server is busy.
    Throttled,
    /// The server cannot be reached, or broke off.
    Connection,
    /// Nothing came for too long.
    Timeout,
    /// An answer that is none of the API's.
    Garbled,
    /// Any other answer.
    Answer,
}

impl Class {
    fn label(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::Expired => "expired",
            Self::Throttled => "throttled",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Garbled => "garbled",
            Self::Answer => "answer",
        }
    }
}

impl Fault {
    /// Nothing came for `after`.
    pub fn timeout(after: Duration) -> Self {
        Self { class: Class::Timeout, message: format!("nothing came for {after:?}"), wait: None }
    }
}

impl From<kube::Error> for Fault {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from(*status),
            kube::Error::SerdeError(e) => Self {
                class: Class::Garbled,
                message: format!("the answer is no JSON of the API: {e}"),
                wait: None,
            },
            other => {
                // The outermost text often is "client error (Connect)" only; the cause is at the end of the chain.
                let mut message = other.to_string();
                let mut cause = std::error::Error::source(&other);
                while let Some(inner) = cause {
                    let text = inner.to_string();
                    if !message.contains(&text) {
                        message = format!("{message}: {text}");
                    }
                    cause = inner.source();
                }
                Self { class: Class::Connection, message, wait: None }
            }
        }
    }
}

impl From<kube::core::Status> for Fault {
    fn from(status: kube::core::Status) -> Self {
        let class = match status.code {
            401 => Class::Unauthorized,
            403 => Class::Forbidden,
            404 => Class::NotFound,
            410 => Class::Expired,
            429 => Class::Throttled,
            _ => Class::Answer,
        };
        let asked = status.details.map_or(0, |d| d.retry_after_seconds);
        let wait = match class {
            // A server that throttles without saying how long gets a second at least.
            Class::Throttled => Some(Duration::from_secs(u64::from(asked.max(1)))),
            _ => Some(Duration::from_secs(u64::from(asked))).filter(|d| !d.is_zero()),
        };
        Self { class, message: format!("{} ({})", status.message, status.code), wait }
    }
}

#[derive(Clone, Debug)]
struct Failing {
    since: Instant,
    verb: Verb,
    class: Class,
}

/// How each kind's watch stands. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<Mutex<BTreeMap<Kind, Option<Failing>>>>);

impl Standing {
    /// A list was asked for.
    pub fn listing(&self, kind: Kind) {
        metrics::counter!(names::KUBE_LISTS, "kind" => kind.plural()).increment(1);
    }

    /// A watch stands.
    pub fn watching(&self, kind: Kind, namespace: &str) {
        let former = self.0.lock().insert(kind, None);
        metrics::gauge!(names::KUBE_WATCH_STATE, "kind" => kind.plural()).set(1.0);
        match former {
            Some(Some(failing)) => {
                let after_s = failing.since.elapsed().as_secs();
                tracing::info!(%kind, namespace, after_s, "the Kubernetes API is watched again");
            }
            Some(None) => {}
            None => tracing::info!(%kind, namespace, "watching the Kubernetes API"),
        }
    }

    /// The kind is not watched on purpose: there is no pool, or the API does not serve it.
    pub fn idle(&self, kind: Kind) {
        self.0.lock().remove(&kind);
        metrics::gauge!(names::KUBE_WATCH_STATE, "kind" => kind.plural()).set(1.0);
    }

    /// Something failed. Said once for each verb and class until it works again.
    pub fn failed(&self, kind: Kind, home: Home, namespace: &str, verb: Verb, fault: &Fault) {
        let class = fault.class;
        metrics::counter!(
            names::KUBE_FAILURES,
            "kind" => kind.plural(), "verb" => verb.as_str(), "reason" => class.label()
        )
        .increment(1);
        if class == Class::Expired {
            // The usual end of a watch that was away for long: it is listed anew, nothing is wrong.
            tracing::info!(%kind, namespace, reason = fault.message, "what was known is too old: listing anew");
            return;
        }
        metrics::gauge!(names::KUBE_WATCH_STATE, "kind" => kind.plural()).set(0.0);
        let mut board = self.0.lock();
        let former = board.get(&kind).cloned().flatten();
        let known = former.as_ref().is_some_and(|f| f.verb == verb && f.class == class);
        let since = former.map_or_else(Instant::now, |f| f.since);
        board.insert(kind, Some(Failing { since, verb, class }));
        drop(board);
        if !known {
            say(kind, home, namespace, verb, fault);
        }
    }
}

fn say(kind: Kind, home: Home, namespace: &str, verb: Verb, fault: &Fault) {
    let (verb, group, error) = (verb.as_str(), home.api_group(), &fault.message);
    match fault.class {
        Class::Forbidden => tracing::error!(
            verb,
            resource = kind.plural(),
            group,
            namespace,
            error,
            "the Role lacks `{verb}` of `{}` (API group {group}) in namespace `{namespace}`: add it, as in \
             deploy/rbac/role.yaml; the last state is served on",
            kind.plural()
        ),
        Class::Unauthorized => tracing::error!(
            verb, %kind, namespace, error,
            "the Kubernetes API does not accept our credentials: check the service account's token; the last state is \
             served on"
        ),
        _ => tracing::warn!(
            verb, %kind, namespace, error,
            "the Kubernetes API cannot be followed: the last state is served on, and it is tried again"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, wait: u32) -> Fault {
        let details = kube::core::response::StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: wait,
        };
        kube::core::Status::failure("no", "Reason").with_code(code).with_details(details).into()
    }

    #[test]
    fn answers_have_classes_and_a_busy_server_is_given_time() {
        for (code, class) in [
            (401, Class::Unauthorized),
            (403, Class::Forbidden),
            (404, Class::NotFound),
            (410, Class::Expired),
            (429, Class::Throttled),
            (500, Class::Answer),
        ] {
            assert_eq!(status(code, 0).class, class);
        }
        assert_eq!(status(429, 0).wait, Some(Duration::from_secs(1)));
        assert_eq!(status(429, 7).wait, Some(Duration::from_secs(7)));
        assert_eq!(status(503, 5).wait, Some(Duration::from_secs(5)));
        assert_eq!(status(403, 0).wait, None);
    }
}
