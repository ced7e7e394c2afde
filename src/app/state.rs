//! What `/debug/state` shows, gathered from the parts.

use crate::admin::state::{PoolState, PrefixIndexState};
use crate::admin::{State, StateSource};
use crate::clock::{Clock, Moment};
use crate::datalayer::DataStatus;
use crate::director::Director;
use crate::endpoint::Endpoint;
use crate::endpoint::health::HealthTracker;
use crate::ext_proc::budget::Budget;
use crate::readiness::Readiness;
use crate::telemetry::RequestMetrics;
use std::sync::Arc;

/// Handles of the parts whose state is shown.
pub(super) struct PickerState {
    started: Moment,
    director: Arc<Director>,
    readiness: Readiness,
    budget: Arc<Budget>,
    clock: Clock,
    data: DataStatus,
    health: Arc<HealthTracker>,
    requests: Option<RequestMetrics>,
    prefix_index_limit: usize,
}

impl PickerState {
    pub(super) fn new(
        director: &Arc<Director>,
        readiness: &Readiness,
        budget: &Arc<Budget>,
        clock: &Clock,
        data: DataStatus,
        health: &Arc<HealthTracker>,
    ) -> Self {
        Self {
            started: clock.now(),
            director: Arc::clone(director),
            readiness: readiness.clone(),
            budget: Arc::clone(budget),
            clock: clock.clone(),
            data,
            health: Arc::clone(health),
            requests: None,
            prefix_index_limit: 0,
        }
    }

    /// Adds what is read from the metrics: open streams and the size of the prefix index.
    pub(super) fn with_metrics(mut self, requests: RequestMetrics, prefix_index_limit: usize) -> Self {
        self.requests = Some(requests);
        self.prefix_index_limit = prefix_index_limit;
        self
    }

    fn suspicion(&self, endpoint: &Endpoint) -> Option<String> {
        self.health.suspicion(endpoint).map(|s| s.cause.label().to_owned())
    }
}

impl StateSource for PickerState {
    fn state(&self) -> State {
        let now = self.clock.now();
        let snapshot = self.director.services().pool.load();
        let data = serde_json::to_value(self.data.snapshot(now, &self.health)).unwrap_or_default();
        State {
            uptime_seconds: now.since(self.started).as_secs(),
            config_generation: self.director.plan().generation,
            streams_open: self.requests.as_ref().map_or(0, RequestMetrics::open_streams),
            buffered_bytes: self.budget.used() as u64,
            buffered_bytes_limit: self.budget.limit() as u64,
            prefix_index: self.requests.as_ref().map_or_else(PrefixIndexState::default, |requests| {
                PrefixIndexState::of(requests.handle(), self.prefix_index_limit as u64)
            }),
            pool: PoolState::new(&snapshot, now, |endpoint| self.suspicion(endpoint)),
            data_layer: data,
            ..State::of_process(&self.readiness)
        }
    }
}
