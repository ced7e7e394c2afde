//! The picker, put together and run: flags and configuration → live plugins → bound listeners → tasks → drain.

use super::assemble::registry;
use super::cluster::{self, Cluster};
use super::decision_log::Writer;
use super::pool::{Common, Draft, Pool};
use super::state::PickerState;
use super::{edge, several};
use crate::admin::{AdminServer, DebugAccess, HealthServer, Pages, Reviewer};
use crate::clock::Clock;
use crate::config::EppOptions;
use crate::config::flags::FlagNotice;
use crate::readiness::Readiness;
use crate::shutdown::{EarlyEnd, Stage, Tasks};
use crate::telemetry::recorder::{self, Scale};
use crate::telemetry::traces::{self, Tracing};
use anyhow::Context as _;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// How long the tasks behind the listeners may take to stop once the streams are drained.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// The picker, listening. [`App::run`] serves until told to stop.
pub struct App {
    options: EppOptions,
    tasks: Tasks,
    early: mpsc::Receiver<EarlyEnd>,
    readiness: Readiness,
    tracing: Tracing,
    decision_log: Option<Writer>,
    admin: AdminServer,
    grpc_address: std::net::SocketAddr,
    health_address: std::net::SocketAddr,
}

impl App {
    /// Builds everything and opens every listener. Whatever is wrong is an error that names the flag or the place.
    pub async fn build(mut options: EppOptions, notices: &[FlagNotice]) -> anyhow::Result<Self> {
        options.listen.address = Some(options.listen.address.unwrap_or_else(every_address));
        notices.iter().for_each(|notice| tracing::warn!("{}", notice.0));
        let scale = if options.pools.len() > 1 { Scale::SeveralPools } else { Scale::OnePool };
        let metrics = recorder::install(options.legacy_metrics, scale).context("metrics")?;
        let (tracing, clock, readiness) = (start_tracing(&options)?, Clock::system(), Readiness::new());
        let (tasks, early) = Tasks::new();
        let decision_log = options.decision_log.as_ref().map(|to| Writer::start(to, &clock)).transpose()?;
        let common = Common {
            options: &options,
            registry: &Arc::new(registry()?),
            clock: &clock,
            metrics: &metrics,
            tracing: &tracing,
            readiness: &readiness,
            decision_log: decision_log.as_ref().map(Writer::log),
        };
        let (pools, reviewer) = build_pools(&common, &tasks).await?;
        let health_server = HealthServer::of_pools(readiness.clone(), &own_readiness(&pools));

        let grpc = bind(options.listen.socket(options.listen.grpc_port), "ext_proc", "--grpc-port").await?;
        let health =
            bind(options.listen.socket(options.listen.health_port), "health", "--grpc-health-port").await?;
        let (grpc_address, health_address) = (grpc.local_addr()?, health.local_addr()?);
        let each = pools.iter().map(|pool| (pool.label().to_string(), pool.page())).collect();
        let state = Arc::new(PickerState::new(&readiness, &clock, each));
        let pages = Pages { metrics: metrics.clone(), readiness: readiness.clone(), state };
        let access = DebugAccess::new(options.listen.admin.address, options.listen.admin.token_file.clone())?;
        let protection = cluster::protection(&options.listen.metrics, reviewer, &tasks)?;
        let metrics_socket = options.listen.socket(options.listen.metrics_port);
        let admin = AdminServer::protected(metrics_socket, &access, pages, protection)?;

        let lanes = edge::lanes(&pools, &options, &metrics)?;
        for pool in pools {
            pool.spawn(&tasks, &options).context("the data layer's thread")?;
        }
        edge::spawn(&tasks, &options, lanes, clock, health_server.clone(), grpc)?;
        if let Some(writer) = &decision_log {
            writer.follow_signals(&tasks)?;
        }
        tasks.spawn(Stage::Last, "health", move |stop| async move {
            if let Err(error) = health_server.serve(health, stop.cancelled_owned()).await {
                tracing::error!(%error, "the health port stopped");
            }
        });
        Ok(Self {
            options,
            tasks,
            early,
            readiness,
            tracing,
            decision_log,
            admin,
            grpc_address,
            health_address,
        })
    }

    /// Serves until `stop` completes, then drains. An error when a part of the picker died by itself.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        tracing::info!(
            ext_proc = %self.grpc_address,
            health = %self.health_address,
            metrics = %self.admin.metrics_address,
            debug = %self.admin.debug_address,
            pool = %labels(&self.options),
            "listening"
        );
        let died = tokio::select! {
            () = stop => None,
            Some(end) = self.early.recv() => Some(end),
        };
        self.readiness.drain();
        tracing::info!(drain_timeout_s = self.options.drain_timeout.as_secs(), "draining");
        let left = self.tasks.stop(self.options.drain_timeout + STOP_WITHIN).await;
        if let Some(writer) = self.decision_log.take() {
            writer.close().await;
        }
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

/// What the pools are called.
fn labels(options: &EppOptions) -> String {
    options.pools.iter().map(|pool| &*pool.label).collect::<Vec<_>>().join(", ")
}

/// The pools, and who reviews callers of the metrics port. A configuration that is wrong ends the start; endpoints that
/// cannot be had end it only when no pool has any.
async fn build_pools(
    common: &Common<'_>,
    tasks: &Tasks,
) -> anyhow::Result<(Vec<Pool>, Option<Arc<dyn Reviewer>>)> {
    let read = |pool| Draft::read(common, pool);
    let drafts = common.options.pools.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    let needed = drafts.iter().any(Draft::needs_cluster);
    let mut cluster = Cluster::connect(common.options, needed, common.readiness).await?;
    let build = |draft: Draft| draft.build(common, &cluster);
    let mut pools = drafts.into_iter().map(build).collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(candidate) = cluster.candidate.take() {
        // With the edge, so that the lease is free as soon as a drain begins.
        tasks.spawn(Stage::Edge, "leader election", move |stop| candidate.run(stop));
    }
    let mut failed = Vec::new();
    for pool in &mut pools {
        if let Err(error) = pool.load().await {
            failed.push((Arc::clone(pool.label()), error));
        }
    }
    if failed.len() == pools.len()
        && let Some((_, error)) = failed.pop()
    {
        return Err(error);
    }
    for (pool, error) in failed {
        tracing::error!(%pool, error = format!("{error:#}"), "the pool has no endpoints; the other pools are served");
    }
    if pools.len() > 1 {
        let gate = common.readiness.gate("pools");
        let each = own_readiness(&pools).into_iter().map(|(_, readiness)| readiness).collect();
        tasks.spawn(Stage::Support, "pools gate", move |stop| several::keep_gate(gate, each, stop));
    }
    Ok((pools, cluster.reviewer))
}

/// Each pool's readiness, where that is not the process's.
fn own_readiness(pools: &[Pool]) -> Vec<(String, Readiness)> {
    match pools {
        [_] => Vec::new(),
        several => several.iter().map(|pool| (pool.label().to_string(), pool.readiness().clone())).collect(),
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
