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
        }
    }

    pub(super) fn with_streams(mut self, requests: RequestMetrics) -> Self {
        self.requests = Some(requests);
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
            prefix_index: PrefixIndexState::default(),
            pool: PoolState::new(&snapshot, now, |endpoint| self.suspicion(endpoint)),
            data_layer: data,
            ..State::of_process(&self.readiness)
        }
    }
}
