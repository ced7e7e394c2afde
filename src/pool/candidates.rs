//! Endpoints frozen for one request, so that every plugin sees the same numbers.

use super::{Attributes, PoolSnapshot};
use crate::clock::Moment;
use crate::endpoint::{CacheGeometry, Endpoint, LoraState, Occupant, Reading, ScalarId};
use crate::reuse::{Reusable, Reused, Shelf};
use std::sync::Arc;
use std::thread::LocalKey;

/// Index of a candidate in [`Candidates`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u32);

impl Position {
    /// As an index of a column.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which optional columns a plan reads; the others are not copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Adapter state.
    pub lora: bool,
    /// Configured metrics.
    pub scalars: bool,
    /// KV cache sizes.
    pub cache: bool,
}

impl Columns {
    /// Both sets together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            lora: self.lora || other.lora,
            scalars: self.scalars || other.scalars,
            cache: self.cache || other.cache,
        }
    }
}

/// Endpoints and their numbers at one moment, as columns aligned by [`Position`].
///
/// A number that is unknown or stale is not zero: [`Candidates::reading`] says how far a row can be trusted, and the
/// value columns hold the last known value (0 only together with [`Reading::Never`]).
///
/// The columns are [`Reused`]: freezing a pool that did not grow allocates nothing.
#[derive(Debug)]
pub struct Candidates {
    snapshot: Arc<PoolSnapshot>,
    now: Moment,
    columns: Reused<Frozen>,
    /// What data producers wrote.
    pub attributes: Reused<Attributes>,
}

/// The columns themselves.
#[derive(Clone, Debug, Default)]
struct Frozen {
    rows: Vec<u32>,
    occupants: Vec<Occupant>,
    readings: Vec<Reading>,
    ages: Vec<f32>,
    waiting: Vec<Option<u32>>,
    running: Vec<Option<u32>>,
    kv_usage: Vec<Option<f64>>,
    in_flight_requests: Vec<u32>,
    in_flight_tokens: Vec<u64>,
    cache: Vec<Option<CacheGeometry>>,
    lora: Vec<Option<Arc<LoraState>>>,
    scalars: Vec<Option<Arc<[f64]>>>,
}

impl Reusable for Frozen {
    fn shelf() -> &'static LocalKey<Shelf<Self>> {
        thread_local! {
            static SHELF: Shelf<Frozen> = const { Shelf::new() };
        }
        &SHELF
    }
    fn empty(&mut self) {
        self.rows.clear();
        self.occupants.clear();
        self.readings.clear();
        self.ages.clear();
        self.waiting.clear();
        self.running.clear();
        self.kv_usage.clear();
        self.in_flight_requests.clear();
        self.in_flight_tokens.clear();
        self.cache.clear();
        self.lora.clear();
        self.scalars.clear();
    }
    fn room(&self) -> usize {
        self.rows.capacity()
    }
}

impl Frozen {
    fn reserve(&mut self, n: usize, columns: Columns) {
        self.rows.reserve(n);
        self.occupants.reserve(n);
        self.readings.reserve(n);
        self.ages.reserve(n);
        self.waiting.reserve(n);
        self.running.reserve(n);
        self.kv_usage.reserve(n);
        self.in_flight_requests.reserve(n);
        self.in_flight_tokens.reserve(n);
        self.cache.reserve(if columns.cache { n } else { 0 });
        self.lora.reserve(if columns.lora { n } else { 0 });
        self.scalars.reserve(if columns.scalars { n } else { 0 });
    }

    fn push(&mut self, endpoint: &Endpoint, columns: Columns, now: Moment) {
        let live = &endpoint.live;
        self.occupants.push(endpoint.occupant());
        let load = live.load();
        self.in_flight_requests.push(load.requests);
        self.in_flight_tokens.push(load.tokens);
        live.with_sample(|sample| {
            let at = sample.map(|s| s.at);
            self.readings.push(live.reading(at, now));
            self.ages.push(at.map_or(f32::INFINITY, |at| now.since(at).as_secs_f32()));
            self.waiting.push(sample.and_then(|s| s.waiting));
            self.running.push(sample.and_then(|s| s.running));
            self.kv_usage.push(sample.and_then(|s| s.kv_usage));
            if columns.cache {
                self.cache.push(sample.and_then(|s| s.cache));
            }
            if columns.lora {
                self.lora.push(sample.and_then(|s| s.lora.clone()));
            }
            if columns.scalars {
                self.scalars.push(sample.map(|s| Arc::clone(&s.scalars)));
            }
        });
    }
}

impl Candidates {
    /// Freezes the endpoints of `snapshot` at the indices `rows`.
    pub fn freeze(
        snapshot: Arc<PoolSnapshot>,
        rows: impl IntoIterator<Item = u32>,
        columns: Columns,
        now: Moment,
    ) -> Self {
        let mut frozen = Reused::<Frozen>::take();
        let rows = rows.into_iter();
        frozen.reserve(rows.size_hint().0.min(snapshot.endpoints.len()), columns);
        for row in rows {
            let Some(endpoint) = snapshot.endpoints.get(row as usize) else { continue };
            frozen.rows.push(row);
            frozen.push(endpoint, columns, now);
        }
        Self { snapshot, now, columns: frozen, attributes: Reused::take() }
    }

    /// The same endpoints and numbers again, for further attributes: what nobody writes here is read from `beneath`.
    pub fn over(beneath: Arc<dyn AsRef<Self> + Send + Sync>) -> Self {
        let Self { snapshot, now, columns, .. } = (*beneath).as_ref();
        let (snapshot, now, columns) = (Arc::clone(snapshot), *now, columns.clone());
        let mut attributes = Reused::<Attributes>::take();
        attributes.lay_over(beneath);
        Self { snapshot, now, columns, attributes }
    }

    /// How many candidates there are.
    pub fn len(&self) -> usize {
        self.columns.rows.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.columns.rows.is_empty()
    }
    /// All positions in order.
    pub fn positions(&self) -> impl Iterator<Item = Position> + use<> {
        (0..u32::try_from(self.columns.rows.len()).unwrap_or(u32::MAX)).map(Position)
    }
    /// When the numbers were read.
    pub fn now(&self) -> Moment {
        self.now
    }
    /// The snapshot that the endpoints come from.
    pub fn snapshot(&self) -> &Arc<PoolSnapshot> {
        &self.snapshot
    }
    /// The endpoint at `p`.
    ///
    /// # Panics
    /// Like every accessor here, when `p` is not a position of these candidates.
    pub fn endpoint(&self, p: Position) -> &Arc<Endpoint> {
        &self.snapshot.endpoints[self.columns.rows[p.index()] as usize]
    }
    /// The processes that the numbers belong to, aligned with the positions.
    pub fn occupants(&self) -> &[Occupant] {
        &self.columns.occupants
    }
    /// The process that the numbers at `p` belong to.
    pub fn occupant(&self, p: Position) -> Occupant {
        self.columns.occupants[p.index()]
    }
    /// How far the engine's own numbers at `p` can be trusted.
    pub fn reading(&self, p: Position) -> Reading {
        self.columns.readings[p.index()]
    }
    /// Age of the sample in seconds, infinite when there is none.
    pub fn age_seconds(&self, p: Position) -> f32 {
        self.columns.ages[p.index()]
    }
    /// Requests waiting in the engine when it was last heard of, 0 when it never said.
    pub fn waiting(&self, p: Position) -> u32 {
        self.columns.waiting[p.index()].unwrap_or(0)
    }
    /// Requests running in the engine when it was last heard of, 0 when it never said.
    pub fn running(&self, p: Position) -> u32 {
        self.columns.running[p.index()].unwrap_or(0)
    }
    /// Share of the KV cache in use, 0 to 1, when it was last heard of, 0 when it never said.
    pub fn kv_usage(&self, p: Position) -> f64 {
        self.columns.kv_usage[p.index()].unwrap_or(0.0)
    }
    /// Requests waiting, only from a fresh sample that says so.
    pub fn fresh_waiting(&self, p: Position) -> Option<u32> {
        self.columns.waiting[p.index()].filter(|_| self.is_fresh(p))
    }
    /// Requests running, only from a fresh sample that says so.
    pub fn fresh_running(&self, p: Position) -> Option<u32> {
        self.columns.running[p.index()].filter(|_| self.is_fresh(p))
    }
    /// Share of the KV cache in use, only from a fresh sample that says so.
    pub fn fresh_kv_usage(&self, p: Position) -> Option<f64> {
        self.columns.kv_usage[p.index()].filter(|_| self.is_fresh(p))
    }
    fn is_fresh(&self, p: Position) -> bool {
        self.columns.readings[p.index()] == Reading::Fresh
    }
    /// Requests that this process has in flight there.
    pub fn in_flight_requests(&self, p: Position) -> u32 {
        self.columns.in_flight_requests[p.index()]
    }
    /// Estimated tokens that this process has in flight there.
    pub fn in_flight_tokens(&self, p: Position) -> u64 {
        self.columns.in_flight_tokens[p.index()]
    }
    /// Size of the KV cache; `None` also when the plan does not read the column.
    pub fn cache(&self, p: Position) -> Option<CacheGeometry> {
        self.columns.cache.get(p.index()).copied().flatten()
    }
    /// Adapters; `None` also when the plan does not read the column.
    pub fn lora(&self, p: Position) -> Option<&LoraState> {
        self.columns.lora.get(p.index())?.as_deref()
    }
    /// A configured metric; `None` when the page had none or the plan does not read the column.
    pub fn scalar(&self, p: Position, id: ScalarId) -> Option<f64> {
        self.columns.scalars.get(p.index())?.as_ref()?.get(usize::from(id.0)).copied().filter(|v| !v.is_nan())
    }
}
