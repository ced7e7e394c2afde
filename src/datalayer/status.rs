//! What the data layer knows about its own work, for debug pages and log lines.

use super::incarnation::ProcessWatch;
use crate::clock::Moment;
use crate::endpoint::health::HealthTracker;
use crate::endpoint::{Endpoint, Reading};
use crate::telemetry::names;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// Failures in a row after which an outage is said: one lost scrape of twenty a second is none.
const FAILURES_TO_SAY: u32 = 2;

/// State of one endpoint's pollers. It outlives a poller that is restarted because labels changed.
#[derive(Debug)]
pub(super) struct EndpointState {
    pub endpoint: Arc<Endpoint>,
    pub engine: Arc<str>,
    pub process: Arc<Mutex<ProcessWatch>>,
    /// Told when another process was seen, so that slow sources look again at once.
    pub restarted: Notify,
    pub sources: Vec<SourceState>,
}

/// State of one source of one endpoint.
#[derive(Debug)]
pub(super) struct SourceState {
    pub name: Arc<str>,
    pub source_type: &'static str,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    last_ok: Option<Moment>,
    last_error: Option<(Moment, String)>,
    consecutive_failures: u32,
    ok: u64,
    failed: u64,
}

impl SourceState {
    pub fn new(name: Arc<str>, source_type: &'static str) -> Self {
        Self { name, source_type, counts: Mutex::default() }
    }

    /// A page was fetched and read.
    pub fn succeeded(&self, endpoint: &Endpoint, at: Moment) {
        let mut counts = self.counts.lock();
        counts.last_ok = Some(at);
        counts.ok += 1;
        let failures = std::mem::take(&mut counts.consecutive_failures);
        drop(counts);
        if failures >= FAILURES_TO_SAY {
            self.show(endpoint, false);
            let (key, source) = (&endpoint.key, &self.name);
            tracing::info!(%key, %source, failures, "endpoint's page is read again");
        }
    }

    /// A page was not fetched or not understood. Said once per outage, not per scrape.
    pub fn failed(&self, endpoint: &Endpoint, at: Moment, error: String) {
        metrics::counter!(names::POLL_ERRORS, "source_type" => self.source_type).increment(1);
        let mut counts = self.counts.lock();
        counts.failed += 1;
        counts.consecutive_failures = counts.consecutive_failures.saturating_add(1);
        let say = counts.consecutive_failures == FAILURES_TO_SAY;
        if say {
            self.show(endpoint, true);
            let (key, source) = (&endpoint.key, &self.name);
            tracing::warn!(
                %key, %source, address = %endpoint.metrics_address, error,
                "endpoint's page cannot be read: its last numbers are used until they are stale, requests still go there"
            );
        }
        counts.last_error = Some((at, error));
    }

    fn show(&self, endpoint: &Endpoint, failing: bool) {
        let value = if failing { 1.0 } else { 0.0 };
        let endpoint = endpoint.key.to_string();
        metrics::gauge!(names::SCRAPE_FAILING, "source_type" => self.source_type, "endpoint" => endpoint)
            .set(value);
    }

    /// The endpoint is gone: an outage of its page is no news any more.
    pub fn forget(&self, endpoint: &Endpoint) {
        if self.counts.lock().consecutive_failures >= FAILURES_TO_SAY {
            self.show(endpoint, false);
        }
    }

    fn status(&self, now: Moment) -> SourceStatus {
        let counts = self.counts.lock();
        let age = |at: Moment| millis(now, at);
        SourceStatus {
            name: self.name.to_string(),
            source_type: self.source_type,
            last_ok_age_ms: counts.last_ok.map(age),
            last_error: counts.last_error.as_ref().map(|(_, text)| text.clone()),
            last_error_age_ms: counts.last_error.as_ref().map(|(at, _)| age(*at)),
            consecutive_failures: counts.consecutive_failures,
            ok: counts.ok,
            failed: counts.failed,
        }
    }
}

fn millis(now: Moment, at: Moment) -> u64 {
    u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)
}

/// What is known of one source of an endpoint.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct SourceStatus {
    /// Name of the source's instance.
    pub name: String,
    /// Its type.
    pub source_type: &'static str,
    /// Milliseconds since a page was read.
    pub last_ok_age_ms: Option<u64>,
    /// The last failure.
    pub last_error: Option<String>,
    /// Milliseconds since then.
    pub last_error_age_ms: Option<u64>,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// Pages read.
    pub ok: u64,
    /// Pages not read.
    pub failed: u64,
}

/// Why and for how long an endpoint is suspect.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct SuspicionStatus {
    /// The cause.
    pub reason: &'static str,
    /// Milliseconds since it became suspect.
    pub for_ms: u64,
    /// Whether probes wait for its port to answer again.
    pub awaits_scrape: bool,
}

/// What is known of one endpoint.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct EndpointStatus {
    /// Its identity.
    pub endpoint: String,
    /// Where requests go.
    pub address: String,
    /// Where its pages are.
    pub metrics_address: String,
    /// The engine whose metrics are looked for.
    pub engine: String,
    /// Grows with every process seen there.
    pub incarnation: u32,
    /// How far its numbers can be trusted: `fresh`, `stale` or `never`.
    pub reading: &'static str,
    /// Milliseconds since its numbers were read.
    pub age_ms: Option<u64>,
    /// What passive health holds against it.
    pub suspect: Option<SuspicionStatus>,
    /// Its sources.
    pub sources: Vec<SourceStatus>,
}

/// A handle to what the data layer knows about its work. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct DataStatus {
    states: Arc<Mutex<BTreeMap<u32, Arc<EndpointState>>>>,
}

impl DataStatus {
    pub(super) fn insert(&self, state: Arc<EndpointState>) {
        self.states.lock().insert(state.endpoint.slot.0, state);
    }
    pub(super) fn remove(&self, slot: u32) -> Option<Arc<EndpointState>> {
        self.states.lock().remove(&slot)
    }

    /// All endpoints that are polled, in order of their slots.
    pub fn snapshot(&self, now: Moment, health: &HealthTracker) -> Vec<EndpointStatus> {
        let states: Vec<_> = self.states.lock().values().cloned().collect();
        states.iter().map(|state| describe(state, now, health)).collect()
    }
}

fn describe(state: &EndpointState, now: Moment, health: &HealthTracker) -> EndpointStatus {
    let endpoint = &state.endpoint;
    let at = endpoint.live.with_sample(|s| s.map(|s| s.at));
    EndpointStatus {
        endpoint: endpoint.key.to_string(),
        address: endpoint.address.to_string(),
        metrics_address: endpoint.metrics_address.to_string(),
        engine: state.engine.to_string(),
        incarnation: endpoint.live.incarnation().0,
        reading: match endpoint.live.reading(at, now) {
            Reading::Fresh => "fresh",
            Reading::Stale => "stale",
            Reading::Never => "never",
        },
        age_ms: at.map(|at| millis(now, at)),
        suspect: health.suspicion(endpoint).map(|s| SuspicionStatus {
            reason: s.cause.label(),
            for_ms: millis(now, s.since),
            awaits_scrape: s.awaits_scrape,
        }),
        sources: state.sources.iter().map(|s| s.status(now)).collect(),
    }
}
