//! Which endpoints a request may go to.

use super::{RouteError, SubsetHint};
use crate::clock::Moment;
use crate::endpoint::Endpoint;
use crate::endpoint::health::HealthTracker;
use crate::pool::PoolSnapshot;
use std::sync::Arc;

/// Sets of rows of `pool` that the request may go to, never empty: each later one is for when the filters of the
/// configuration leave nothing of the one before.
///
/// Suspect endpoints are held back while a trusted one is left. One that is due for a probe takes this request alone.
pub(super) fn gather(
    pool: &PoolSnapshot,
    subset: &SubsetHint,
    health: &HealthTracker,
    now: Moment,
) -> Result<Vec<Vec<u32>>, RouteError> {
    if pool.endpoints.is_empty() {
        let name = pool.spec.as_ref().map_or_else(|| "unknown".to_owned(), |s| s.name.to_string());
        return Err(RouteError::NoEndpoints { pool: name });
    }
    let mut trusted = Vec::with_capacity(pool.endpoints.len());
    let mut suspects = Vec::new();
    for (row, endpoint) in (0_u32..).zip(&pool.endpoints) {
        if !subset.allows(endpoint) {
            continue;
        }
        if endpoint.live.is_suspect() { suspects.push(row) } else { trusted.push(row) }
    }
    if trusted.is_empty() && suspects.is_empty() {
        return Err(RouteError::SubsetEmpty { endpoints: pool.endpoints.len() });
    }
    let mut sets = Vec::with_capacity(1);
    sets.extend(
        suspects.iter().find(|row| health.take_probe(&pool.endpoints[**row as usize], now)).map(|r| vec![*r]),
    );
    let everyone = if suspects.is_empty() { Vec::new() } else { [&*trusted, &*suspects].concat() };
    sets.extend([trusted, everyone].into_iter().filter(|rows| !rows.is_empty()));
    Ok(sets)
}

/// Whether it is known that no endpoint among `rows` serves `model`: every one has listed its models, none has it.
pub(super) fn nobody_serves(pool: &PoolSnapshot, rows: &[u32], model: &str) -> bool {
    let lacks = |endpoint: &Arc<Endpoint>| {
        endpoint.live.models().is_some_and(|models| models.iter().all(|m| **m != *model))
    };
    !model.is_empty() && rows.iter().all(|row| pool.endpoints.get(*row as usize).is_some_and(lacks))
}
