//! Which endpoints a request may go to.

use super::{RouteError, SubsetHint};
use crate::clock::Moment;
use crate::endpoint::Endpoint;
use crate::endpoint::health::HealthTracker;
use crate::pool::PoolSnapshot;
use crate::reuse::Reused;
use std::sync::Arc;

/// Sets of rows that a request may go to, at least one and none empty: each later one is for when the filters of the
/// configuration leave nothing of the one before.
pub(super) struct Sets {
    /// The trusted ones, then the suspect ones.
    rows: Reused<Rows>,
    trusted: usize,
    probe: Option<u32>,
    last: Option<Set>,
}

/// Rows of the pool.
#[derive(Default)]
struct Rows(Vec<u32>);

crate::reusable_list!(Rows, 0);

/// The sets that there can be, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Set {
    /// One suspect endpoint that is due for a probe.
    Probe,
    /// All that are not suspect.
    Trusted,
    /// All.
    Everyone,
}

impl Sets {
    /// The set after the last one.
    pub(super) fn next(&mut self) -> Option<Set> {
        let is_there = |set: &Set| match set {
            Set::Probe => self.probe.is_some(),
            Set::Trusted => self.trusted > 0,
            Set::Everyone => self.trusted < self.rows.0.len(),
        };
        let mut later =
            [Set::Probe, Set::Trusted, Set::Everyone].into_iter().filter(|set| Some(*set) > self.last);
        let next = later.find(is_there);
        self.last = next.or(self.last);
        next
    }

    /// The rows of a set.
    pub(super) fn rows(&self, set: Set) -> &[u32] {
        match set {
            Set::Probe => self.probe.as_slice(),
            Set::Trusted => &self.rows.0[..self.trusted],
            Set::Everyone => &self.rows.0,
        }
    }
}

/// The rows of `pool` that the request may go to.
///
/// Suspect endpoints are held back while a trusted one is left. One that is due for a probe takes this request alone.
pub(super) fn gather(
    pool: &PoolSnapshot,
    subset: &SubsetHint,
    health: &HealthTracker,
    now: Moment,
) -> Result<Sets, RouteError> {
    if pool.endpoints.is_empty() {
        let name = pool.spec.as_ref().map_or_else(|| "unknown".to_owned(), |s| s.name.to_string());
        return Err(RouteError::NoEndpoints { pool: name });
    }
    let mut rows = Reused::<Rows>::take();
    rows.0.reserve(pool.endpoints.len());
    let mut suspects = Vec::new();
    for (row, endpoint) in (0_u32..).zip(&pool.endpoints) {
        if !subset.allows(endpoint) {
            continue;
        }
        if endpoint.live.is_suspect() { suspects.push(row) } else { rows.0.push(row) }
    }
    if rows.0.is_empty() && suspects.is_empty() {
        return Err(RouteError::SubsetEmpty { endpoints: pool.endpoints.len() });
    }
    let probe = suspects.iter().copied().find(|row| health.take_probe(&pool.endpoints[*row as usize], now));
    let trusted = rows.0.len();
    rows.0.extend(suspects);
    Ok(Sets { rows, trusted, probe, last: None })
}

/// Whether it is known that no endpoint among `rows` serves `model`: every one has listed its models, none has it.
pub(super) fn nobody_serves(pool: &PoolSnapshot, rows: &[u32], model: &str) -> bool {
    let lacks = |endpoint: &Arc<Endpoint>| {
        endpoint.live.models().is_some_and(|models| models.iter().all(|m| **m != *model))
    };
    !model.is_empty() && rows.iter().all(|row| pool.endpoints.get(*row as usize).is_some_and(lacks))
}
