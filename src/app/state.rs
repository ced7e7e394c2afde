//! What `/debug/state` shows, gathered from the parts.

use super::reload::ConfigStatus;
use crate::admin::state::{
    ConfigState, DecisionList, Listed, OnePool, PoolPart, PoolState, PrefixIndexState,
};
use crate::admin::{State, StateSource};
use crate::clock::{Clock, Moment};
use crate::datalayer::DataStatus;
use crate::director::Director;
use crate::director::decisions::{Decisions, Explanation};
use crate::endpoint::Endpoint;
use crate::endpoint::health::HealthTracker;
use crate::ext_proc::budget::Budget;
use crate::readiness::Readiness;
use crate::telemetry::RequestMetrics;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Handles of the parts of a pool whose state is shown.
pub(super) struct PoolPage {
    pub(super) director: Arc<Director>,
    pub(super) config: Arc<ConfigStatus>,
    pub(super) readiness: Readiness,
    pub(super) budget: Arc<Budget>,
    pub(super) clock: Clock,
    pub(super) data: DataStatus,
    pub(super) health: Arc<HealthTracker>,
    pub(super) requests: RequestMetrics,
    pub(super) prefix_index_limit: usize,
}

/// The pools by what they are called, and the process that serves them.
pub(super) struct PickerState {
    started: Moment,
    readiness: Readiness,
    clock: Clock,
    pools: Vec<(String, PoolPage)>,
}

impl PickerState {
    pub(super) fn new(readiness: &Readiness, clock: &Clock, pools: Vec<(String, PoolPage)>) -> Self {
        Self { started: clock.now(), readiness: readiness.clone(), clock: clock.clone(), pools }
    }
}

impl PoolPage {
    fn suspicion(&self, endpoint: &Endpoint) -> Option<String> {
        self.health.suspicion(endpoint).map(|s| s.cause.label().to_owned())
    }

    fn decisions(&self) -> Option<&Decisions> {
        self.director.services().decisions.as_deref()
    }

    fn part(&self) -> PoolPart {
        let now = self.clock.now();
        let snapshot = self.director.services().pool.load();
        PoolPart {
            config_generation: self.director.plan().generation,
            streams_open: self.requests.open_streams(),
            buffered_bytes: self.budget.used() as u64,
            buffered_bytes_limit: self.budget.limit() as u64,
            prefix_index: PrefixIndexState::of(self.requests.handle(), self.prefix_index_limit as u64),
            pool: PoolState::new(&snapshot, now, |endpoint| self.suspicion(endpoint)),
            data_layer: serde_json::to_value(self.data.snapshot(now, &self.health)).unwrap_or_default(),
        }
    }
}

impl StateSource for PickerState {
    fn state(&self) -> State {
        let uptime_seconds = self.clock.now().since(self.started).as_secs();
        let state = State { uptime_seconds, ..State::of_process(&self.readiness) };
        match &self.pools[..] {
            [(_, only)] => State { only: Some(only.part()), ..state },
            several => {
                let one = |(label, page): &(String, PoolPage)| {
                    (label.clone(), OnePool::new(&page.readiness, page.part()))
                };
                State { pools: several.iter().map(one).collect(), ..state }
            }
        }
    }

    fn configurations(&self) -> BTreeMap<String, ConfigState> {
        self.pools.iter().map(|(label, page)| (label.clone(), page.config.state())).collect()
    }

    fn decisions(&self, pool: Option<&str>, most: usize) -> DecisionList {
        let mut list = DecisionList::default();
        let several = self.pools.len() > 1;
        for (label, page) in self.pools.iter().filter(|(label, _)| pool.is_none_or(|pool| pool == label)) {
            let Some(decisions) = page.decisions() else { continue };
            list.made += decisions.made();
            let listed = |summary| Listed { pool: several.then(|| label.clone()), summary };
            list.decisions.extend(decisions.newest(most).into_iter().map(listed));
        }
        list.decisions.sort_by_key(|listed| listed.summary.age_ms);
        list.decisions.truncate(most);
        list
    }

    fn explain(&self, id: &str) -> Option<Explanation> {
        let found = self.pools.iter().filter_map(|(_, page)| page.decisions()?.explain(id));
        found.min_by_key(|explanation| explanation.summary.age_ms)
    }
}
