//! A small Kubernetes API server: enough of lists, watches, discovery, RBAC and writes for a picker and its tests, with
//! faults on demand. It is no reference of how the API behaves; the list of cases runs against a real one as well.

mod direct;
mod http;
mod store;
mod watch;

pub use direct::{Asked, Direct};
pub use store::{Place, Store};

use ::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The token that may do everything.
pub const ADMIN: &str = "admin-token";

/// What a token may do: verb, API group, resource (`leases`, `pods/status`).
#[derive(Clone, Debug)]
pub struct Rule {
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub verbs: Vec<String>,
}

/// What goes wrong on purpose, for everybody but the administrator.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// So many requests are answered 429.
    pub throttle: u32,
    /// What these answers ask to wait, in seconds.
    pub retry_after: u32,
    /// A watch from a version that is too old is refused by status 410 rather than by an event.
    pub gone_by_status: bool,
    /// Every watch is refused as too old.
    pub always_gone: bool,
    /// Every list and watch is answered by this status.
    pub status: Option<u16>,
}

/// What is shared by all connections.
pub struct State {
    pub store: Mutex<Store>,
    pub changed: tokio::sync::watch::Sender<u64>,
    pub faults: Mutex<Faults>,
    /// Rules by token; a token that is not there is not known.
    pub roles: Mutex<BTreeMap<String, Vec<Rule>>>,
    /// User names by token, for reviews.
    pub users: Mutex<BTreeMap<String, String>>,
    /// Requests by (verb, resource), administrator's not counted.
    pub counts: Mutex<BTreeMap<(String, String), u64>>,
    /// Group versions that are served, with their resources.
    pub served: Mutex<BTreeMap<String, Vec<String>>>,
    /// Period of bookmarks.
    pub bookmarks: Mutex<Duration>,
}

/// A running API server. It ends with this handle.
pub struct FakeApi {
    pub state: Arc<State>,
    pub port: u16,
    _task: JoinSet<()>,
}

/// Every group version of these tests with its resources.
fn everything() -> BTreeMap<String, Vec<String>> {
    [
        ("v1", vec!["pods"]),
        ("inference.networking.k8s.io/v1", vec!["inferencepools"]),
        (
            "inference.networking.x-k8s.io/v1alpha2",
            vec!["inferencepools", "inferenceobjectives", "inferencemodelrewrites", "inferencemodels"],
        ),
        ("llm-d.ai/v1alpha2", vec!["inferenceobjectives", "inferencemodelrewrites"]),
        ("coordination.k8s.io/v1", vec!["leases"]),
        ("authentication.k8s.io/v1", vec!["tokenreviews"]),
        ("authorization.k8s.io/v1", vec!["subjectaccessreviews"]),
    ]
    .into_iter()
    .map(|(home, list)| (home.to_owned(), list.into_iter().map(str::to_owned).collect()))
    .collect()
}

impl FakeApi {
    /// A server without objects in which only the administrator may do anything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::new());
        let mut task = JoinSet::new();
        let shared = Arc::clone(&state);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request: Request<Incoming>| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, std::convert::Infallible>(http::answer(&state, request).await) }
                });
                connections.spawn(async move {
                    hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { state, port, _task: task }
    }

    /// How often `verb` was asked of `resource`.
    pub fn count(&self, verb: &str, resource: &str) -> u64 {
        self.state.counts.lock().get(&(verb.to_owned(), resource.to_owned())).copied().unwrap_or(0)
    }

    /// Forgets the history: a watch from any version so far is too old.
    pub fn expire(&self) {
        self.state.store.lock().compact();
    }

    /// Changes an object without any check, also into something malformed.
    pub fn put_raw(&self, place: &Place, object: Value) {
        self.state.store.lock().put(place, object);
        self.state.tell();
    }
}

impl State {
    /// Nothing is stored, every kind is served, and only the administrator may do anything.
    fn new() -> Self {
        Self {
            store: Mutex::new(Store::default()),
            changed: tokio::sync::watch::channel(0).0,
            faults: Mutex::default(),
            roles: Mutex::default(),
            users: Mutex::default(),
            counts: Mutex::default(),
            served: Mutex::new(everything()),
            bookmarks: Mutex::new(Duration::from_millis(500)),
        }
    }

    /// Wakes the watches.
    pub fn tell(&self) {
        let version = self.store.lock().version();
        self.changed.send_replace(version);
    }
}
