//! The picker, put together and run: flags and configuration → live plugins → bound listeners → tasks → drain.

use super::aside::Aside;
use super::assemble::{Assembled, Inputs, assemble, registry};
use super::cluster;
use super::state::PickerState;
use crate::admin::{AdminServer, DebugAccess, HealthServer, Pages};
use crate::clock::Clock;
use crate::config::flags::FlagNotice;
use crate::config::{self, EppOptions, Loaded};
use crate::datalayer::{self, DataLayer, SourceBinding};
use crate::director::{Director, Options, Services};
use crate::discovery::Discovery;
use crate::endpoint::health::HealthTracker;
use crate::ext_proc::budget::Budget;
use crate::ext_proc::server::{self, Drained, Http2, Routes};
use crate::ext_proc::tls::{Tls, TlsOptions};
use crate::ext_proc::{self, ExtProc, Meters};
use crate::plugin::StateStore;
use crate::pool::{self, PoolReader, PoolWriter};
use crate::readiness::Readiness;
use crate::shutdown::{EarlyEnd, Stage, Tasks};
use crate::telemetry::traces::{self, Tracing};
use crate::telemetry::{MetricsHandle, RequestMetrics, pool_gauges, recorder};
use anyhow::Context as _;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// How long the tasks behind the listeners may take to stop once the streams are drained.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often a certificate directory is looked at.
const CERTIFICATE_PERIOD: Duration = Duration::from_secs(5);

/// The picker, listening. [`App::run`] serves until told to stop.
pub struct App {
    options: EppOptions,
    tasks: Tasks,
    early: mpsc::Receiver<EarlyEnd>,
    readiness: Readiness,
    tracing: Tracing,
    admin: AdminServer,
    grpc_address: std::net::SocketAddr,
    health_address: std::net::SocketAddr,
}

/// What the parts of a picker share.
struct Parts {
    metrics: MetricsHandle,
    clock: Clock,
    pool: PoolReader,
    health: Arc<HealthTracker>,
    director: Arc<Director>,
    budget: Arc<Budget>,
    requests: RequestMetrics,
    data: DataLayer,
}

impl App {
    /// Builds everything and opens every listener. Whatever is wrong is an error that names the flag or the place.
    pub async fn build(mut options: EppOptions, notices: &[FlagNotice]) -> anyhow::Result<Self> {
        options.listen.address = Some(options.listen.address.unwrap_or_else(every_address));
        notices.iter().for_each(|notice| tracing::warn!("{}", notice.0));
        let metrics = recorder::install(options.legacy_metrics).context("metrics")?;
        let tracing = start_tracing(&options)?;
        let clock = Clock::system();
        let state = StateStore::default();
        let assembled = read_configuration(&options, &state, &clock)?;
        let (tasks, early) = Tasks::new();
        let readiness = Readiness::new();

        let (mut writer, reader) = pool::channel();
        let gate = readiness.gate("pool");
        let cluster::Cluster { mut discovery, candidate, reviewer } =
            cluster::discovery(&options, &assembled.data, &assembled.parsers, &readiness).await?;
        discovery.load_once(&mut writer).await?;
        if let Some(candidate) = candidate {
            // With the edge, so that the lease is free as soon as a drain begins.
            tasks.spawn(Stage::Edge, "leader election", move |stop| candidate.run(stop));
        }
        gate.set(cluster::known(&reader));
        let of_gate = reader.clone();
        tasks.spawn(Stage::Support, "pool gate", move |stop| cluster::keep_gate(gate, of_gate, stop));

        let parts = Parts::new(&options, assembled, metrics, clock, reader, tracing.clone())?;
        let grpc = bind(options.listen.socket(options.listen.grpc_port), "ext_proc", "--grpc-port").await?;
        let health =
            bind(options.listen.socket(options.listen.health_port), "health", "--grpc-health-port").await?;
        let (grpc_address, health_address) = (grpc.local_addr()?, health.local_addr()?);
        let status = parts.data.status();
        let page =
            PickerState::new(&parts.director, &readiness, &parts.budget, &parts.clock, status, &parts.health);
        let pages = Pages {
            metrics: parts.metrics.clone(),
            readiness: readiness.clone(),
            state: Arc::new(page.with_metrics(parts.requests.clone(), options.prefix_index_bytes)),
        };
        let access = DebugAccess::new(options.listen.admin.address, options.listen.admin.token_file.clone())?;
        let protection = cluster::protection(&options.listen.metrics, reviewer, &tasks)?;
        let metrics_socket = options.listen.socket(options.listen.metrics_port);
        let admin = AdminServer::protected(metrics_socket, &access, pages, protection)?;

        spawn_support(&tasks, &options, parts.gauges(), discovery, writer, parts.data)
            .context("the data layer's thread")?;
        let edge = Edge { budget: parts.budget, clock: parts.clock };
        edge.spawn(&tasks, &options, parts.director, &readiness, grpc)?;
        let health_server = HealthServer::new(readiness.clone());
        tasks.spawn(Stage::Last, "health", move |stop| async move {
            if let Err(error) = health_server.serve(health, stop.cancelled_owned()).await {
                tracing::error!(%error, "the health port stopped");
            }
        });
        Ok(Self { options, tasks, early, readiness, tracing, admin, grpc_address, health_address })
    }

    /// Serves until `stop` completes, then drains. An error when a part of the picker died by itself.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        tracing::info!(
            ext_proc = %self.grpc_address,
            health = %self.health_address,
            metrics = %self.admin.metrics_address,
            debug = %self.admin.debug_address,
            pool = %self.options.pool_name,
            "listening"
        );
        let died = tokio::select! {
            () = stop => None,
            Some(end) = self.early.recv() => Some(end),
        };
        self.readiness.drain();
        tracing::info!(drain_timeout_s = self.options.drain_timeout.as_secs(), "draining");
        let left = self.tasks.stop(self.options.drain_timeout + STOP_WITHIN).await;
        self.tracing.shutdown(Duration::from_secs(2)).await;
        for task in &left.aborted {
            tracing::warn!(%task, "did not stop in time");
        }
        match died {
            None => {
                tracing::info!("stopped");
                Ok(())
            }
            Some(EarlyEnd { task, panicked }) => {
                let how = if panicked { "panicked" } else { "ended" };
                anyhow::bail!("task `{task}` {how} by itself; the picker cannot go on without it")
            }
        }
    }
}

fn start_tracing(options: &EppOptions) -> anyhow::Result<Tracing> {
    let Some(to) = &options.tracing else { return Ok(Tracing::off()) };
    let settings = traces::Options {
        endpoint: to.endpoint.clone(),
        ratio: to.ratio,
        service_name: to.service_name.clone(),
        resource: to.resource.clone(),
    };
    Ok(traces::init(&settings)?)
}

/// Reads the configuration and builds its plan; warnings go to the log.
fn read_configuration(options: &EppOptions, state: &StateStore, clock: &Clock) -> anyhow::Result<Assembled> {
    let loaded = Loaded::read(&options.config)?;
    let registry = registry()?;
    let inputs = Inputs {
        registry: &registry,
        state,
        clock,
        prefix_index_bytes: options.prefix_index_bytes,
        allow_experimental: options.allow_experimental_plugins,
        endpoints_file: options.endpoints_file.clone(),
        generation: 1,
    };
    let assembled = assemble(&loaded, &inputs)?;
    for notice in &assembled.notices {
        tracing::warn!(configuration = %loaded.origin, "{notice}");
    }
    tracing::info!(configuration = %loaded.origin, digest = %assembled.plan.digest, "configuration read");
    Ok(assembled)
}

/// Every address of the machine: both families through the IPv6 wildcard, IPv4 alone where IPv6 is switched off.
fn every_address() -> IpAddr {
    match std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_probe) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_no_ipv6) => Ipv4Addr::UNSPECIFIED.into(),
    }
}

async fn bind(address: std::net::SocketAddr, purpose: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound
        .with_context(|| format!("cannot listen on {address} for {purpose}; choose another port with {flag}"))
}

impl Parts {
    fn new(
        options: &EppOptions,
        assembled: Assembled,
        metrics: MetricsHandle,
        clock: Clock,
        pool: PoolReader,
        tracing: Tracing,
    ) -> anyhow::Result<Self> {
        let health = Arc::new(HealthTracker::new(clock.clone()));
        let requests = RequestMetrics::new(&metrics);
        let layer = datalayer::Options {
            period: options.poll_interval,
            staleness_threshold: options.staleness,
            back_off: options.poll_backoff,
            scalars: assembled.data.scalars.clone(),
            ..datalayer::Options::default()
        };
        let bindings: Vec<SourceBinding> = assembled
            .data
            .sources
            .iter()
            .map(|s| SourceBinding {
                name: s.name.clone(),
                source: s.source.clone(),
                extractors: s.extractors.clone(),
            })
            .collect();
        let data = DataLayer::new(pool.clone(), &bindings, layer, clock.clone(), Arc::clone(&health))?;
        let services =
            Services::new(pool.clone(), Arc::clone(&health), requests.clone(), clock.clone(), seed())
                .with_tracing(tracing);
        let settings = Options {
            trusted: options.trusted_headers,
            subset_filter: !options.disable_subset_filter,
            emit_scores: options.emit_endpoint_scores,
            unknown_model: options.unknown_model,
            poll_allowance: options.poll_interval * 3,
        };
        let director = Arc::new(Director::new(services, assembled.plan, settings));
        let budget = Budget::new(options.limits.max_buffered_bytes);
        Ok(Self { metrics, clock, pool, health, director, budget, requests, data })
    }

    fn gauges(&self) -> Gauges {
        Gauges { metrics: self.metrics.clone(), pool: self.pool.clone(), clock: self.clock.clone() }
    }
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

fn spawn_support(
    tasks: &Tasks,
    options: &EppOptions,
    gauges: Gauges,
    discovery: Discovery,
    writer: PoolWriter,
    data: DataLayer,
) -> std::io::Result<()> {
    tasks.spawn(Stage::Support, "discovery", move |stop| discovery.run(writer, stop));
    let aside = Aside::new("data")?;
    tasks.spawn(Stage::Support, "data layer", move |stop| aside.run(data.run(stop)));
    let period = options.pool_gauge_interval;
    tasks.spawn(Stage::Support, "pool gauges", move |stop| async move {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {
                    pool_gauges::publish(&gauges.metrics, &gauges.pool.load(), gauges.clock.now());
                }
            }
        }
    });
    Ok(())
}

/// What the ext_proc listener needs.
struct Edge {
    budget: Arc<Budget>,
    clock: Clock,
}

impl Edge {
    fn spawn(
        self,
        tasks: &Tasks,
        options: &EppOptions,
        director: Arc<Director>,
        readiness: &Readiness,
        listener: TcpListener,
    ) -> anyhow::Result<()> {
        let tls = tls(options)?;
        if let Some(tls) = tls.clone().filter(|_| reloads(options)) {
            tasks.spawn(Stage::Last, "certificate reload", move |stop| async move {
                stop.run_until_cancelled_owned(tls.reload_every(CERTIFICATE_PERIOD)).await;
            });
        }
        let limits = ext_proc::Limits {
            max_body_bytes: options.limits.max_body_bytes,
            body_idle: options.limits.body_idle_timeout.unwrap_or(Duration::MAX),
            over_budget: match options.limits.over_budget {
                config::OverBudget::Reject => ext_proc::OverBudget::Refuse,
                config::OverBudget::Headers => ext_proc::OverBudget::DecideOnHeaders,
            },
            response_bodies: match options.limits.response_bodies {
                config::ResponseBodies::Read => ext_proc::ResponseBodies::Read,
                config::ResponseBodies::Skip => ext_proc::ResponseBodies::Skip,
            },
        };
        let service = ExtProc::new(
            director,
            self.clock,
            limits,
            self.budget,
            Meters::new(true),
            options.limits.grpc_max_recv_bytes,
        );
        let routes = Routes::new(service).add_service(HealthServer::new(readiness.clone()));
        let http2 = Http2 {
            max_concurrent_streams: options.limits.max_concurrent_streams,
            stream_window: options.limits.stream_window,
            connection_window: options.limits.connection_window,
            pending_resets: options.limits.max_pending_resets,
            ..Http2::default()
        };
        let drain = options.drain_timeout;
        tasks.spawn(Stage::Edge, "ext_proc", move |stop| async move {
            match server::serve(listener, tls, routes, http2, stop.cancelled_owned(), drain).await {
                Ok(Drained::Whole) => {}
                Ok(Drained::CutOff) => {
                    tracing::warn!("the drain timeout cut off streams; raise --drain-timeout")
                }
                Err(error) => tracing::error!(%error, "the ext_proc port stopped"),
            }
        });
        Ok(())
    }
}

fn reloads(options: &EppOptions) -> bool {
    matches!(options.listen.tls, config::TlsOptions::Directory { reload: true, .. })
}

fn tls(options: &EppOptions) -> anyhow::Result<Option<Tls>> {
    let (directory, only_tls13) = match &options.listen.tls {
        config::TlsOptions::Off => return Ok(None),
        config::TlsOptions::SelfSigned { only_tls13 } => (None, *only_tls13),
        config::TlsOptions::Directory { path, only_tls13, .. } => (Some(path.clone()), *only_tls13),
    };
    let min_version = if only_tls13 { "VersionTLS13" } else { "" }.to_owned();
    Ok(Some(Tls::new(&TlsOptions { directory, min_version, cipher_suites: Vec::new() })?))
}
