//! Endpoints from Kubernetes: an InferencePool and its pods, objectives and rewrites, or pods by a selector alone.
//!
//! | module | what it does |
//! |---|---|
//! | `kind` | which kinds, and where the API serves them |
//! | `facts` | what is read from one object |
//! | `follow`, `pace` | list and watch of one kind, and the pauses between tries |
//! | `policy` | kinds that a cluster may not have |
//! | `reducer` | objects in, [`PoolEvent`]s out: pure |
//! | `standing` | what is said and counted when the API fails |
//! | `review` | who may read the metrics |
//! | `election`, `lease` | who leads: the rules, pure, and a Lease by them |
//!
//! The API is needed to learn of changes, never to serve: whatever it does, the last state stays in force.

mod election;
mod facts;
mod follow;
mod kind;
mod lease;
mod pace;
mod policy;
mod reducer;
mod review;
mod selector;
mod standing;

pub use election::Terms;
pub use facts::{MAX_PORTS, Target, usable as usable_ports};
pub use kind::{OLD_GROUP, POOL_GROUP};
pub use lease::{Candidate, lease_name};
pub use review::{Access as Reviewed, Reviews};
pub use selector::{InvalidSelector, Selector};

use crate::pool::{PoolEvent, PoolSpec, PoolWriter};
use crate::readiness::Gate;
use crate::telemetry::names;
use crate::telemetry::scope::inherited;
use facts::PoolFacts;
use follow::{Ended, Follow};
use kind::{Home, Kind};
use kube::Client;
use policy::Shared;
use reducer::{Change, Identity, Input, Reducer, Remark};
use standing::Standing;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Changes that may wait to be folded in; a watch that is faster waits.
const WAITING_CHANGES: usize = 1024;
/// Changes that are folded into one publication at most.
const BATCH: usize = 4096;
/// Shortest time between two publications.
const PUBLISH_GAP: Duration = Duration::from_millis(5);
/// Until a pool whose kind is not served is looked for again.
const NOT_SERVED_PAUSE: Duration = Duration::from_secs(15);

/// Why the cluster's API cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account.
    #[error(
        "no access to Kubernetes: {0}; run in a pod with a service account, set KUBECONFIG, or use --endpoints-file"
    )]
    Config(#[from] kube::config::InferConfigError),
    /// The access that was found cannot be used.
    #[error("the access to Kubernetes that was found cannot be used: {0}")]
    Client(#[from] kube::Error),
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// An InferencePool of this group.
    Pool(&'static str),
    /// Pods, without an InferencePool.
    Pods(Target),
}

/// Opens a gate while the picker understands what the pool's endpoints speak.
#[derive(Debug)]
pub struct ProtocolGate {
    /// The protocols that every parser takes; `None` is any.
    pub spoken: Option<Vec<&'static str>>,
    /// The gate.
    pub gate: Gate,
}

impl ProtocolGate {
    fn judge(&self, protocol: &str) {
        let fits = protocol.is_empty() || self.spoken.as_ref().is_none_or(|all| all.contains(&protocol));
        self.gate.set(fits);
    }
}

/// Endpoints from Kubernetes.
pub struct KubernetesDiscovery {
    client: Client,
    pool: PoolSpec,
    want: Want,
    protocols: ProtocolGate,
    /// Tells whether this replica leads, where only a leader knows the pool.
    leads: Option<watch::Receiver<bool>>,
}

impl std::fmt::Debug for KubernetesDiscovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesDiscovery")
            .field("pool", &self.pool)
            .field("want", &self.want)
            .finish_non_exhaustive()
    }
}

/// Access to a cluster's API. Clones share connections.
pub type Access = Client;

/// Access to the cluster: KUBECONFIG or `~/.kube/config`, else the pod's service account. The API itself need not answer.
pub async fn connect() -> Result<Client, ConnectError> {
    let mut config = kube::Config::infer().await?;
    // There is one place that decides when something is tried again: `Pace`.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(10));
    Ok(Client::try_from(config)?)
}

impl KubernetesDiscovery {
    /// A discovery of `pool` through `client`.
    pub fn new(client: Client, pool: PoolSpec, want: Want, protocols: ProtocolGate) -> Self {
        Self { client, pool, want, protocols, leads: None }
    }

    /// Knows the pool only while `leads` says so.
    #[must_use]
    pub fn only_while(mut self, leads: watch::Receiver<bool>) -> Self {
        self.leads = Some(leads);
        self
    }

    /// Follows the cluster until told to stop.
    pub async fn run(self, mut writer: PoolWriter, shutdown: CancellationToken) {
        let Some(mut leads) = self.leads.clone() else {
            return self.follow(&mut writer, &shutdown).await;
        };
        loop {
            let lead = async { leads.wait_for(|leads| *leads).await.is_ok() };
            let elected = shutdown.run_until_cancelled(lead).await;
            if elected != Some(true) {
                // Told to stop, or nobody will ever say so.
                return shutdown.cancelled().await;
            }
            tokio::select! {
                () = self.follow(&mut writer, &shutdown) => return,
                _ = leads.wait_for(|leads| !*leads) => {
                    writer.apply(Reducer::nothing());
                }
            }
        }
    }

    async fn follow(&self, writer: &mut PoolWriter, shutdown: &CancellationToken) {
        let (sink, mut changes) = mpsc::channel(WAITING_CHANGES);
        let mut driver = Driver::new(self, sink);
        loop {
            let input = tokio::select! {
                () = shutdown.cancelled() => return,
                // The driver holds a sender, so this never ends.
                Some(input) = changes.recv() => input,
                Some(input) = driver.pods.next() => input,
            };
            let mut events = driver.step(&self.protocols, input);
            for _ in 0..BATCH {
                let Some(input) = changes.try_recv().ok().or_else(|| driver.pods.ready()) else { break };
                events.extend(driver.step(&self.protocols, input));
            }
            writer.apply(events);
            driver.report();
            sleep(PUBLISH_GAP).await;
        }
    }
}

/// The reducer with the watches that feed it.
struct Driver {
    reducer: Reducer,
    shared: Shared,
    pods: PodWatch,
    _tasks: JoinSet<()>,
}

impl Driver {
    fn new(discovery: &KubernetesDiscovery, sink: mpsc::Sender<Input>) -> Self {
        let (client, pool) = (discovery.client.clone(), discovery.pool.clone());
        let standing = Standing::default();
        let shared = Shared { client, namespace: Arc::clone(&pool.namespace), standing, sink };
        let mut tasks = JoinSet::new();
        let name = Arc::clone(&pool.name);
        let reducer = match &discovery.want {
            Want::Pods(target) => {
                let identity = Identity { spec: pool, group: POOL_GROUP.into() };
                Reducer::of_selector(identity, target.clone())
            }
            Want::Pool(group) => {
                let home = Kind::Pool.homes().iter().copied().find(|home| home.group == *group);
                let home = home.unwrap_or(Kind::Pool.homes()[0]);
                tasks.spawn(inherited(follow_pool(shared.clone(), home, name)));
                tasks.spawn(inherited(shared.clone().follow_policy(Input::Objectives)));
                tasks.spawn(inherited(shared.clone().follow_policy(Input::Rewrites)));
                tasks.spawn(inherited(shared.clone().follow_policy(Input::Models)));
                Reducer::of_pool(Identity { spec: pool, group: home.group.into() })
            }
        };
        let mut driver = Self { reducer, shared, pods: PodWatch::default(), _tasks: tasks };
        driver.align();
        discovery.protocols.judge(driver.reducer.app_protocol());
        driver
    }

    fn step(&mut self, protocols: &ProtocolGate, input: Input) -> Vec<PoolEvent> {
        let events = self.reducer.apply(input);
        protocols.judge(self.reducer.app_protocol());
        // At once, before anything more is read: what an ended watch still had to say is of another selector.
        self.align();
        events
    }

    /// Watches the pods that the pool selects now.
    fn align(&mut self) {
        let wanted = self.reducer.target().map(|target| target.selector.to_string());
        if wanted != self.pods.labels {
            self.pods = wanted.map_or_else(PodWatch::default, |labels| PodWatch::start(&self.shared, labels));
            if self.pods.labels.is_none() {
                self.shared.standing.idle(Kind::Pod);
            }
        }
    }

    /// Says what is malformed.
    fn report(&mut self) {
        let remarks = self.reducer.remarks();
        if remarks.is_empty() {
            return;
        }
        for Remark { kind, name, fault } in remarks {
            match fault {
                Some(reason) => tracing::warn!(
                    %kind, %name, reason,
                    "malformed object skipped: what was last known of it stays; correct it"
                ),
                None => tracing::info!(%kind, %name, "the object is well-formed again"),
            }
        }
        for kind in Kind::ALL {
            let count = self.reducer.malformed(kind) as f64;
            metrics::gauge!(names::KUBE_MALFORMED, "kind" => kind.plural()).set(count);
        }
    }
}

/// The watch of the pods, which ends with its selector.
#[derive(Default)]
struct PodWatch {
    labels: Option<String>,
    changes: Option<mpsc::Receiver<Input>>,
    _task: JoinSet<()>,
}

impl PodWatch {
    fn start(shared: &Shared, labels: String) -> Self {
        let (sink, changes) = mpsc::channel(WAITING_CHANGES);
        let shared = Shared { sink, ..shared.clone() };
        let follow = labels.clone();
        let mut task = JoinSet::new();
        task.spawn(inherited(async move {
            let home = Kind::Pod.homes()[0];
            loop {
                let pods = Follow { labels: follow.clone(), ..shared.follow(home, Input::Pods) };
                if pods.run().await == Ended::Unread {
                    return;
                }
                sleep(NOT_SERVED_PAUSE).await;
            }
        }));
        Self { labels: Some(labels), changes: Some(changes), _task: task }
    }

    async fn next(&mut self) -> Option<Input> {
        match &mut self.changes {
            Some(changes) => changes.recv().await,
            None => std::future::pending().await,
        }
    }

    fn ready(&mut self) -> Option<Input> {
        self.changes.as_mut()?.try_recv().ok()
    }
}

/// Follows the one pool. Its kind may be installed later.
async fn follow_pool(shared: Shared, home: Home, name: Arc<str>) {
    loop {
        let pool = Follow::<PoolFacts> { only: Some(Arc::clone(&name)), ..shared.follow(home, Input::Pool) };
        if pool.run().await == Ended::Unread {
            return;
        }
        // Whatever was known is gone with its kind.
        if shared.sink.send(Input::Pool(Change::Listed(Vec::new()))).await.is_err() {
            return;
        }
        sleep(NOT_SERVED_PAUSE).await;
    }
}
