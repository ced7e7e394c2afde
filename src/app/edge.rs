//! The ext_proc listener: limits, TLS, and the lanes of the pools behind it.

use super::pool::Pool;
use crate::admin::HealthServer;
use crate::clock::Clock;
use crate::config::{self, EppOptions};
use crate::director::Director;
use crate::ext_proc::pools::Signs;
use crate::ext_proc::server::{self, Drain, Drained, Http2, Routes};
use crate::ext_proc::tls::{Tls, TlsOptions};
use crate::ext_proc::{self, ExtProc, Pools};
use crate::shutdown::{Stage, Tasks};
use crate::telemetry::MetricsHandle;
use anyhow::Context as _;
use std::time::Duration;
use tokio::net::TcpListener;

/// How often a certificate directory is looked at.
const CERTIFICATE_PERIOD: Duration = Duration::from_secs(5);

/// The pools as requests see them. `metrics` are the process's.
pub(super) fn lanes(
    pools: &[Pool],
    options: &EppOptions,
    metrics: &MetricsHandle,
) -> anyhow::Result<Pools<Director>> {
    let mut named = pools.iter().map(Pool::lane);
    let first = named.next().context("no pool")?;
    let others: Vec<_> = named.collect();
    if others.is_empty() {
        return Ok(Pools::one(first.lane));
    }
    let signs = Signs {
        header: options.pool_header.clone().map(Into::into),
        attribute: options.pool_attribute.clone().into(),
    };
    Ok(Pools::several(first, others, signs, metrics))
}

/// Serves ext_proc on `listener`, and health beside it.
pub(super) fn spawn(
    tasks: &Tasks,
    options: &EppOptions,
    pools: Pools<Director>,
    clock: Clock,
    health: HealthServer,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let tls = tls(options)?;
    if let Some(tls) = tls.clone().filter(|_| reloads(options)) {
        tasks.spawn(Stage::Last, "certificate reload", move |stop| async move {
            stop.run_until_cancelled_owned(tls.reload_every(CERTIFICATE_PERIOD)).await;
        });
    }
    let service = ExtProc::new(pools, clock, limits(options), options.limits.grpc_max_recv_bytes);
    let routes = Routes::new(service).add_service(health);
    let http2 = Http2 {
        max_concurrent_streams: options.limits.max_concurrent_streams,
        stream_window: options.limits.stream_window,
        connection_window: options.limits.connection_window,
        pending_resets: options.limits.max_pending_resets,
        ..Http2::default()
    };
    let drain = Drain::within(options.drain_timeout);
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

fn limits(options: &EppOptions) -> ext_proc::Limits {
    ext_proc::Limits {
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
