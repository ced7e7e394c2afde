//! Keeps what is known of endpoints fresh: one poller per endpoint, started and stopped as the pool changes.
//!
//! Sources fetch pages, extractors read them, and the result is one immutable [`crate::endpoint::Sample`] per scrape.
//! A page that cannot be read never takes an endpoint out of service by itself: its last numbers stay until they are
//! stale, which scheduling sees. Refused and timed-out scrapes are told to passive health.

pub mod engines;
pub mod extractor;
mod incarnation;
mod job;
mod metric_spec;
mod pace;
mod patience;
mod poller;
mod rebind;
pub mod scan;
pub mod source;
mod status;

pub use job::DataLayerError;
pub use metric_spec::{InvalidSpec, MetricSpec};
pub use rebind::Rebind;
pub use status::{DataStatus, EndpointStatus, SourceStatus, SuspicionStatus};

use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::endpoint::health::HealthTracker;
use crate::plugin::{ExtractorSpec, PluginType, SourceSpec};
use crate::pool::{PoolReader, PoolSnapshot};
use crate::telemetry::scope::inherited;
use job::Job;
use pace::Pace;
use parking_lot::Mutex;
use poller::Shared;
use status::{EndpointState, SourceState};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often the files of certificates are looked at.
const CERTIFICATE_PERIOD: Duration = Duration::from_secs(5);
/// Shortest time between two scrapes of one page.
pub const MIN_PERIOD: Duration = Duration::from_millis(50);

/// Tables of the plugin types that belong to the data layer.
pub const TABLES: &[&[PluginType]] = &[
    source::metrics::TABLE,
    source::models::TABLE,
    extractor::core_metrics::TABLE,
    extractor::models::TABLE,
    extractor::topology::TABLE,
];

/// A source and what reads its pages.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceBinding {
    /// Name of the source's instance.
    pub name: Arc<str>,
    /// The source.
    pub source: SourceSpec,
    /// The extractors bound to it.
    pub extractors: Vec<ExtractorSpec>,
}

/// How pages are fetched.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time between two scrapes of a metrics page; at least [`MIN_PERIOD`].
    pub period: Duration,
    /// Numbers older than this are stale, unless three periods are longer.
    pub staleness_threshold: Duration,
    /// Most time for one fetch, connecting included. A metrics page that comes quickly is given up sooner, twice in a
    /// row, so that a hang is noticed within a second.
    pub fetch_timeout: Duration,
    /// Whether idle and slow pages are fetched less often than each period.
    pub back_off: bool,
    /// Most bytes of one page.
    pub max_page_bytes: usize,
    /// Names of configured metrics in order of their places in a sample, as the plan's attribute table has them.
    pub scalars: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            period: MIN_PERIOD,
            staleness_threshold: Duration::from_secs(2),
            fetch_timeout: Duration::from_secs(1),
            back_off: true,
            max_page_bytes: 8 * 1024 * 1024,
            scalars: Vec::new(),
        }
    }
}

impl Options {
    /// Age from which numbers that are fetched each `period` are stale.
    fn stale_after(&self, period: Duration) -> Duration {
        self.staleness_threshold.max(period * 3)
    }

    fn pace(&self, period: Duration) -> Pace {
        if self.back_off { Pace::backing_off(period, self.stale_after(period)) } else { Pace::steady(period) }
    }
}

/// Pollers of all endpoints of a pool.
pub struct DataLayer {
    pool: PoolReader,
    shared: Arc<Shared>,
    next: watch::Receiver<Arc<Shared>>,
    rebind: Rebind,
    status: DataStatus,
}

struct Running {
    endpoint: Arc<Endpoint>,
    task: AbortHandle,
}

impl DataLayer {
    /// A data layer for `pool`. Reads certificate files, so call it before serving.
    pub fn new(
        pool: PoolReader,
        bindings: &[SourceBinding],
        options: Options,
        clock: Clock,
        health: Arc<HealthTracker>,
    ) -> Result<Self, DataLayerError> {
        let (rebind, next) = Rebind::new(bindings, options, clock, health)?;
        let shared = Arc::clone(&next.borrow());
        Ok(Self { pool, shared, next, rebind, status: DataStatus::default() })
    }

    /// What the data layer knows about its work.
    pub fn status(&self) -> DataStatus {
        self.status.clone()
    }

    /// What binds other sources later.
    pub fn rebind(&self) -> Rebind {
        self.rebind.clone()
    }

    /// Follows the pool until told to stop.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut running = HashMap::new();
        let mut certificates = tokio::time::interval(CERTIFICATE_PERIOD);
        certificates.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let snapshot = self.pool.load();
            self.shared.health.set_pool(&snapshot.endpoints);
            self.follow(&snapshot, &mut running, &mut tasks);
            let changed = tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.pool.changed() => changed,
                _ = certificates.tick() => {
                    // A changed binding comes back through `next`.
                    self.rebind.renew();
                    continue;
                }
                Ok(()) = self.next.changed() => {
                    self.shared = Arc::clone(&self.next.borrow_and_update());
                    // Every poller starts anew with the bindings as they are now.
                    running.drain().for_each(|(_, r): (u32, Running)| r.task.abort());
                    true
                }
                Some(ended) = tasks.join_next_with_id() => {
                    reap(ended, &mut running);
                    true
                }
            };
            if !changed {
                // Nobody will change the pool any more; what is there is still polled.
                shutdown.cancelled().await;
                return;
            }
        }
    }

    /// Starts pollers of new endpoints, restarts those whose endpoint changed, stops those of endpoints that left.
    fn follow(&self, snapshot: &PoolSnapshot, running: &mut HashMap<u32, Running>, tasks: &mut JoinSet<()>) {
        let wanted: HashMap<u32, &Arc<Endpoint>> = snapshot.endpoints.iter().map(|e| (e.slot.0, e)).collect();
        running.retain(|slot, r| {
            let stays = wanted.get(slot).is_some_and(|e| Arc::ptr_eq(e, &r.endpoint));
            if !stays {
                r.task.abort();
            }
            if !wanted.contains_key(slot) {
                self.forget(*slot);
            }
            stays
        });
        for (slot, endpoint) in wanted {
            running.entry(slot).or_insert_with(|| {
                let task =
                    tasks.spawn(inherited(poller::run(Arc::clone(&self.shared), self.state_of(endpoint))));
                Running { endpoint: Arc::clone(endpoint), task }
            });
        }
    }

    fn state_of(&self, endpoint: &Arc<Endpoint>) -> Arc<EndpointState> {
        let former = self.forget(endpoint.slot.0);
        let same_process = |f: &Arc<EndpointState>| {
            Arc::ptr_eq(&f.endpoint.live, &endpoint.live)
                && f.endpoint.metrics_address == endpoint.metrics_address
        };
        let process = former
            .filter(same_process)
            .map_or_else(|| Arc::new(Mutex::default()), |f| Arc::clone(&f.process));
        let source = |job: &Job| SourceState::new(Arc::clone(&job.name), job.source_type);
        let state = Arc::new(EndpointState {
            endpoint: Arc::clone(endpoint),
            engine: self.engine_of(endpoint),
            process,
            restarted: tokio::sync::Notify::new(),
            sources: self.shared.jobs.iter().map(source).collect(),
        });
        self.status.insert(Arc::clone(&state));
        state
    }

    fn engine_of(&self, endpoint: &Endpoint) -> Arc<str> {
        let plan = self.shared.jobs.iter().find_map(|job| match &job.work {
            job::Work::Metrics(plan) => Some(plan),
            job::Work::Models => None,
        });
        let Some((plan, unknown)) = plan.map(|plan| plan.choose(endpoint)) else { return "".into() };
        if let Some(unknown) = unknown {
            let (key, engine) = (&endpoint.key, &plan.name);
            tracing::warn!(%key, label = %unknown, %engine, "endpoint's engine label names no known engine: the default is used");
        }
        Arc::clone(&plan.name)
    }

    fn forget(&self, slot: u32) -> Option<Arc<EndpointState>> {
        let former = self.status.remove(slot)?;
        for source in &former.sources {
            source.forget(&former.endpoint);
        }
        Some(former)
    }
}

/// A poller only ends by itself when it panicked: it is started again with the next look at the pool.
fn reap(ended: Result<(Id, ()), tokio::task::JoinError>, running: &mut HashMap<u32, Running>) {
    let (id, panicked) = match ended {
        Ok((id, ())) => (id, false),
        Err(error) => (error.id(), error.is_panic()),
    };
    let slot = running.iter().find(|(_, r)| r.task.id() == id).map(|(slot, _)| *slot);
    if panicked && let Some(gone) = slot.and_then(|slot| running.remove(&slot)) {
        let key = &gone.endpoint.key;
        tracing::error!(%key, "the endpoint's poller panicked and is started again");
    }
}

#[cfg(test)]
mod tests;
