//! One pool: its configuration, endpoints, plan, memory, data and numbers, apart from those of any other.

use super::aside::Aside;
use super::assemble::{Assembled, DataPlan};
use super::cluster::{self, Cluster};
use super::reload::{ConfigStatus, Ingredients, Parts, Reloader};
use super::state::PoolPage;
use crate::clock::Clock;
use crate::config::{ConfigSource, EppOptions, Loaded, PoolOptions};
use crate::datalayer::{self, DataLayer};
use crate::director::{DecisionLog, Decisions, Director, Options, Services, Shadows};
use crate::discovery::Discovery;
use crate::endpoint::health::HealthTracker;
use crate::ext_proc::budget::Budget;
use crate::ext_proc::pools::Named;
use crate::ext_proc::{Lane, Meters};
use crate::plugin::{Registry, StateStore};
use crate::pool::{self, PoolReader, PoolWriter};
use crate::readiness::{Gate, Readiness};
use crate::shutdown::{Stage, Tasks};
use crate::telemetry::traces::Tracing;
use crate::telemetry::{MetricsHandle, RequestMetrics, Scope, pool_gauges};
use anyhow::Context as _;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What every pool is built with.
pub(super) struct Common<'a> {
    pub(super) options: &'a EppOptions,
    pub(super) registry: &'a Arc<Registry>,
    pub(super) clock: &'a Clock,
    /// Those of the process.
    pub(super) metrics: &'a MetricsHandle,
    pub(super) tracing: &'a Tracing,
    /// That of the process.
    pub(super) readiness: &'a Readiness,
    /// That of the process.
    pub(super) decision_log: Option<&'a DecisionLog>,
}

impl Common<'_> {
    /// Whether there is another pool.
    fn several(&self) -> bool {
        self.options.pools.len() > 1
    }

    /// Where the decisions of `pool` are written.
    fn decision_log_of(&self, pool: &PoolOptions) -> Option<DecisionLog> {
        self.decision_log.map(|log| if self.several() { log.of_pool(&pool.label) } else { log.clone() })
    }

    /// An error that says whose it is, where that is a question.
    fn named<T>(&self, pool: &PoolOptions, result: anyhow::Result<T>) -> anyhow::Result<T> {
        if self.several() { result.with_context(|| format!("pool {}", pool.label)) } else { result }
    }
}

/// A pool whose configuration was read.
pub(super) struct Draft {
    options: PoolOptions,
    metrics: MetricsHandle,
    scope: Scope,
    ingredients: Ingredients,
    loaded: Loaded,
    assembled: Assembled,
}

impl Draft {
    /// Reads the configuration and builds its plan; warnings go to the log.
    pub(super) fn read(common: &Common<'_>, options: &PoolOptions) -> anyhow::Result<Self> {
        let (metrics, scope) = if common.several() {
            let view = common.metrics.of_pool(&options.label);
            (view.clone(), Scope::of(view))
        } else {
            (common.metrics.clone(), Scope::default())
        };
        // In the scope, because plugins keep handles of what they count.
        let ingredients = Ingredients {
            registry: Arc::clone(common.registry),
            state: StateStore::default(),
            clock: common.clock.clone(),
            options: options.clone(),
            allow_experimental: common.options.allow_experimental_plugins,
        };
        let read = scope.run(|| read_configuration(&ingredients));
        let (loaded, assembled) = common.named(options, read)?;
        Ok(Self { options: options.clone(), metrics, scope, ingredients, loaded, assembled })
    }

    /// Whether its endpoints come from a cluster.
    pub(super) fn needs_cluster(&self) -> bool {
        self.assembled.data.discovery.is_none() && self.options.cluster.is_some()
    }

    /// Builds the pool, its endpoints still unknown.
    pub(super) fn build(self, common: &Common<'_>, cluster: &Cluster) -> anyhow::Result<Pool> {
        let options = self.options.clone();
        let scope = self.scope.clone();
        common.named(&options, scope.run(|| Pool::new(self, common, cluster)))
    }
}

/// A pool that can run.
pub(super) struct Pool {
    options: PoolOptions,
    metrics: MetricsHandle,
    scope: Scope,
    clock: Clock,
    readiness: Readiness,
    /// Open while the pool is known.
    known: Gate,
    reader: PoolReader,
    writer: PoolWriter,
    discovery: Discovery,
    health: Arc<HealthTracker>,
    director: Arc<Director>,
    budget: Arc<Budget>,
    requests: RequestMetrics,
    data: DataLayer,
    config: Arc<ConfigStatus>,
    ingredients: Ingredients,
    plan: DataPlan,
}

impl Pool {
    fn new(draft: Draft, common: &Common<'_>, cluster: &Cluster) -> anyhow::Result<Self> {
        let Draft { options, metrics, scope, ingredients, loaded, assembled } = draft;
        let clock = common.clock.clone();
        let (writer, reader) = pool::channel();
        let readiness = if common.several() { Readiness::new() } else { common.readiness.clone() };
        let known = readiness.gate("pool");
        let discovery = cluster.discovery(&options, &assembled.data, &assembled.parsers, &readiness)?;
        let health = Arc::new(HealthTracker::new(clock.clone()));
        let requests = RequestMetrics::new(&metrics);
        let layer = datalayer::Options {
            period: common.options.poll_interval,
            staleness_threshold: common.options.staleness,
            back_off: common.options.poll_backoff,
            scalars: assembled.data.scalars.clone(),
            ..datalayer::Options::default()
        };
        let sources = &assembled.data.sources;
        let data = DataLayer::new(reader.clone(), sources, layer, clock.clone(), Arc::clone(&health))?;
        let services =
            Services::new(reader.clone(), Arc::clone(&health), requests.clone(), clock.clone(), seed())
                .with_tracing(common.tracing.clone())
                .with_decisions(Decisions::new(common.options.decisions, clock.clone()))
                .with_log(common.decision_log_of(&options));
        let settings = Options {
            trusted: common.options.trusted_headers,
            subset_filter: !common.options.disable_subset_filter,
            emit_scores: common.options.emit_endpoint_scores,
            decision_headers: common.options.decision_headers,
            unknown_model: common.options.unknown_model,
            poll_allowance: common.options.poll_interval * 3,
        };
        let director = Arc::new(Director::new(services, assembled.plan, settings));
        let budget = Budget::new(options.max_buffered_bytes);
        let config = Arc::new(ConfigStatus::new(loaded, clock.clone()));
        Ok(Self {
            options,
            metrics,
            scope,
            clock,
            readiness,
            known,
            reader,
            writer,
            discovery,
            health,
            director,
            budget,
            requests,
            data,
            config,
            ingredients,
            plan: assembled.data,
        })
    }

    /// What it is called among several.
    pub(super) fn label(&self) -> &Arc<str> {
        &self.options.label
    }

    /// Whether requests for it should be sent here.
    pub(super) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Delivers the first list of endpoints where that is at hand.
    pub(super) async fn load(&mut self) -> anyhow::Result<()> {
        let loaded = self.scope.clone().around(self.discovery.load_once(&mut self.writer)).await;
        self.known.set(cluster::known(&self.reader));
        Ok(loaded?)
    }

    /// What the debug page says of it.
    pub(super) fn page(&self) -> PoolPage {
        PoolPage {
            director: Arc::clone(&self.director),
            config: Arc::clone(&self.config),
            readiness: self.readiness.clone(),
            budget: Arc::clone(&self.budget),
            clock: self.clock.clone(),
            data: self.data.status(),
            health: Arc::clone(&self.health),
            requests: self.requests.clone(),
            prefix_index_limit: self.options.prefix_index_bytes,
        }
    }

    /// What serves its requests, with every name that they may use for it.
    pub(super) fn lane(&self) -> Named<Director> {
        let lane = Lane {
            router: Arc::clone(&self.director),
            budget: Arc::clone(&self.budget),
            meters: Arc::new(self.scope.run(|| Meters::new(true))),
            scope: self.scope.clone(),
        };
        let full = format!("{}/{}", self.options.namespace, self.options.name);
        Named { names: vec![Arc::clone(&self.options.label), full.into()], lane }
    }

    /// Starts what keeps it up to date.
    pub(super) fn spawn(self, tasks: &Tasks, options: &EppOptions) -> std::io::Result<()> {
        let task = |what: &str| match options.pools.len() {
            1 => what.to_owned(),
            _ => format!("{what} of pool {}", self.options.label),
        };
        let (gate, reader) = (self.known, self.reader.clone());
        tasks.spawn(Stage::Support, task("pool gate"), move |stop| cluster::keep_gate(gate, reader, stop));
        let (discovery, writer, scope) = (self.discovery, self.writer, self.scope.clone());
        tasks.spawn(Stage::Support, task("discovery"), move |stop| scope.around(discovery.run(writer, stop)));
        let (shadows, scope) = (Arc::clone(&self.director.services().shadows), self.scope.clone());
        tasks.spawn(Stage::Support, task("shadow profiles"), move |stop| watch(shadows, scope, stop));
        if let (ConfigSource::File(path), true) = (self.options.config, options.config_reload) {
            let parts = Parts {
                ingredients: self.ingredients,
                director: self.director,
                rebind: self.data.rebind(),
                data: self.plan,
                scope: self.scope.clone(),
                status: self.config,
            };
            let reloader = Reloader::new(path, parts);
            tasks.spawn(Stage::Support, task("configuration"), move |stop| reloader.run(stop));
        }
        let (aside, data, scope) = (Aside::new("data")?, self.data, self.scope);
        tasks.spawn(Stage::Support, task("data layer"), move |stop| aside.run(scope.around(data.run(stop))));
        let gauges = Gauges { metrics: self.metrics, pool: self.reader, clock: self.clock };
        let period = options.pool_gauge_interval;
        tasks.spawn(Stage::Support, task("pool gauges"), move |stop| gauges.publish_each(period, stop));
        Ok(())
    }
}

/// Runs shadow profiles on a thread of their own, once there is the first one.
async fn watch(shadows: Arc<Shadows>, scope: Scope, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = shadows.wanted() => {}
    }
    match Aside::new("shadow") {
        Ok(aside) => aside.run(scope.around(async move { shadows.run(stop).await })).await,
        Err(error) => {
            tracing::error!(%error, "no thread for shadow profiles: what they would do is not counted");
            stop.cancelled().await;
        }
    }
}

fn read_configuration(ingredients: &Ingredients) -> anyhow::Result<(Loaded, Assembled)> {
    let loaded = Loaded::read(&ingredients.options.config)?;
    let assembled = ingredients.assemble(&loaded, 1, &[])?;
    for notice in &assembled.notices {
        tracing::warn!(configuration = %loaded.origin, "{notice}");
    }
    tracing::info!(configuration = %loaded.origin, digest = %assembled.plan.digest, "configuration read");
    Ok((loaded, assembled))
}

/// A seed that differs from process to process.
fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one("picks")
}

/// What the pool's own gauges are computed from.
struct Gauges {
    metrics: MetricsHandle,
    pool: PoolReader,
    clock: Clock,
}

impl Gauges {
    async fn publish_each(self, period: std::time::Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => pool_gauges::publish(&self.metrics, &self.pool.load(), self.clock.now()),
            }
        }
    }
}
