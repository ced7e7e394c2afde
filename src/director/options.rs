//! What the director is told, and what it works with.

use super::{DecisionLog, Decisions, Shadows};
use crate::clock::Clock;
use crate::endpoint::health::HealthTracker;
use crate::pool::PoolReader;
use crate::request::TrustedHeaders;
use crate::telemetry::RequestMetrics;
use crate::telemetry::traces::Tracing;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What happens to a request for a model that no endpoint lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownModel {
    /// It is passed on and counted: the engine answers.
    #[default]
    Pass,
    /// It is refused with 404.
    Reject,
}

/// What the director is told by flags.
#[derive(Clone, Debug)]
pub struct Options {
    /// Control headers whose value counts.
    pub trusted: TrustedHeaders,
    /// Whether subset hints count.
    pub subset_filter: bool,
    /// Whether weighted sums of all rated endpoints are handed to the proxy.
    pub emit_scores: bool,
    /// Whether every response tells the decision in headers.
    pub decision_headers: bool,
    /// What happens to requests for unknown models.
    pub unknown_model: UnknownModel,
    /// Three poll periods: numbers younger than this are as fresh as the poller makes them.
    pub poll_allowance: Duration,
}

/// What the director works with.
pub struct Services {
    /// The pool.
    pub pool: PoolReader,
    /// Which endpoints can be trusted.
    pub health: Arc<HealthTracker>,
    /// What is counted.
    pub requests: RequestMetrics,
    /// Where spans go.
    pub tracing: Tracing,
    /// Where decisions are kept for whoever asks why; `None` keeps none.
    pub decisions: Option<Arc<Decisions>>,
    /// Where decisions are written; `None` is nowhere.
    pub log: Option<DecisionLog>,
    /// Decisions that wait for shadow profiles.
    pub shadows: Arc<Shadows>,
    /// The time.
    pub clock: Clock,
    /// Seed of the next request's random numbers.
    seed: AtomicU64,
}

impl Services {
    /// Services whose random numbers follow from `seed`, without traces.
    pub fn new(
        pool: PoolReader,
        health: Arc<HealthTracker>,
        requests: RequestMetrics,
        clock: Clock,
        seed: u64,
    ) -> Self {
        Self {
            pool,
            health,
            requests,
            tracing: Tracing::off(),
            decisions: None,
            log: None,
            shadows: Arc::new(Shadows::new()),
            clock,
            seed: AtomicU64::new(seed),
        }
    }

    /// Sends spans out.
    #[must_use]
    pub fn with_tracing(mut self, tracing: Tracing) -> Self {
        self.tracing = tracing;
        self
    }

    /// Keeps decisions.
    #[must_use]
    pub fn with_decisions(mut self, decisions: Decisions) -> Self {
        self.decisions = decisions.is_on().then(|| Arc::new(decisions));
        self
    }

    /// Writes decisions to `log`.
    #[must_use]
    pub fn with_log(mut self, log: Option<DecisionLog>) -> Self {
        self.log = log;
        self
    }

    /// Random numbers of one request: the same seed and the same order of requests give the same picks.
    pub fn rng(&self) -> fastrand::Rng {
        // The odd constant spreads consecutive seeds over all bits (the golden ratio's fraction).
        fastrand::Rng::with_seed(self.seed.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed))
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("pool", &self.pool).finish_non_exhaustive()
    }
}
