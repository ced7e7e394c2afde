//! What is counted for every request. Handles are resolved once per combination of labels and kept, so that a request
//! pays a look-up and a few atomic additions and allocates nothing.

use super::cardinality::{Budget, OTHER};
use super::series::{Endings, RequestLabels};
pub use super::series::{Finished, RequestSeries, RunningGuard};
use super::{MetricsHandle, names};
use crate::endpoint::EndpointKey;
use crate::request::Ending;
use dashmap::DashMap;
use metrics::{Counter, Gauge, Histogram};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Most distinct model names, asked for and target together.
pub const MAX_MODELS: usize = 1000;
/// Most distinct fairness ids.
pub const MAX_FAIRNESS_IDS: usize = 1000;
/// Most distinct priorities.
const MAX_PRIORITIES: usize = 64;
/// Most distinct combinations of request labels, and of labels of scheduling attempts.
const MAX_SERIES: usize = 10_000;
/// Most endpoints that have series of their own in the course of the process's life.
const MAX_ENDPOINTS: usize = 10_000;
/// Fairness id of requests that have none.
pub const DEFAULT_FAIRNESS: &str = "default-flow";

/// What became of one scheduling decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionResult {
    /// An endpoint was picked.
    Success,
    /// The pool, or what the subset hint leaves of it, is empty.
    NoPods,
    /// Filters took every candidate out.
    FilteredOut,
}

/// Metrics of requests; clones share them.
#[derive(Clone)]
pub struct RequestMetrics(Arc<Inner>);

struct Inner {
    metrics: MetricsHandle,
    models: Budget,
    fairness: Budget,
    priorities: Budget,
    endpoints: Budget,
    series: LabelCache<4, Arc<RequestSeries>>,
    attempts_by: LabelCache<5, Counter>,
    prefix_by: LabelCache<1, Arc<PrefixSeries>>,
    endings: Arc<Endings>,
    plain: Plain,
}

/// Handles without labels.
struct Plain {
    attempts: Counter,
    scheduler: Histogram,
    decisions: [Counter; 3],
    candidates: Counter,
    filtered: Counter,
    scored: Counter,
    unknown_model: Counter,
}

impl Plain {
    fn new(m: &MetricsHandle) -> Self {
        let decision = |result| m.counter(names::DECISIONS, &[("result", result)]);
        Self {
            attempts: m.counter(names::ATTEMPTS, &[]),
            scheduler: m.histogram(names::SCHEDULER_E2E, &[]),
            decisions: ["success", "no_pods", "filtered_out"].map(decision),
            candidates: m.counter(names::CANDIDATES, &[]),
            filtered: m.counter(names::FILTERED, &[]),
            scored: m.counter(names::SCORED, &[]),
            unknown_model: m.counter(names::UNKNOWN_MODEL, &[]),
        }
    }
}

struct PrefixSeries {
    matched: AtomicU64,
    total: AtomicU64,
    rate: Gauge,
    length: Histogram,
}

impl RequestMetrics {
    /// Request metrics on `metrics`.
    pub fn new(metrics: &MetricsHandle) -> Self {
        Self(Arc::new(Inner {
            models: Budget::new(MAX_MODELS),
            fairness: Budget::new(MAX_FAIRNESS_IDS),
            priorities: Budget::new(MAX_PRIORITIES),
            endpoints: Budget::new(MAX_ENDPOINTS),
            series: LabelCache::new(MAX_SERIES),
            attempts_by: LabelCache::new(MAX_SERIES),
            prefix_by: LabelCache::new(MAX_ENDPOINTS),
            endings: Arc::new(Endings::new(metrics)),
            plain: Plain::new(metrics),
            metrics: metrics.clone(),
        }))
    }

    /// Metrics that nobody reads: for tests of other parts.
    pub fn unread() -> Self {
        Self::new(&MetricsHandle::detached(false))
    }

    /// Models that the configuration names: they always keep their label and use up no budget.
    pub fn pin_models<'a>(&self, models: impl IntoIterator<Item = &'a str>) {
        models.into_iter().for_each(|model| self.0.models.pin(model));
    }

    /// The series of these labels: the model that was asked for, the one after rewrites (both empty when unknown), the
    /// fairness id and the priority.
    pub fn series(&self, model: &str, target: &str, fairness: &str, priority: i32) -> Arc<RequestSeries> {
        let mut buffer = [0; 12];
        let fairness = if fairness.is_empty() { DEFAULT_FAIRNESS } else { fairness };
        let wanted = [model, target, fairness, decimal(priority, &mut buffer)];
        // Only values within their caps are ever stored, so a hit needs no look at the budgets.
        if let Some(found) = self.0.series.get(&wanted) {
            return found;
        }
        let labels = self.within_caps(wanted);
        let make = |l: &[&str; 4]| {
            let [model, target, fairness, priority] = *l;
            let labels = RequestLabels { model, target, fairness, priority };
            Arc::new(RequestSeries::new(&self.0.metrics, labels, Arc::clone(&self.0.endings)))
        };
        let [_, _, _, priority] = labels;
        self.0
            .series
            .get_or_make(&labels, make)
            .unwrap_or_else(|| self.0.series.get_or_make_beyond(&[OTHER, OTHER, OTHER, priority], make))
    }

    fn within_caps<'a>(&self, [model, target, fairness, priority]: [&'a str; 4]) -> [&'a str; 4] {
        let capped = [
            ("model_name", model, self.0.models.label(model)),
            ("target_model_name", target, self.0.models.label(target)),
            ("fairness_id", fairness, self.0.fairness.label(fairness)),
            ("priority", priority, self.0.priorities.label(priority)),
        ];
        capped.map(|(name, asked, label)| {
            if asked != label {
                self.0.metrics.counter(names::LABELS_FOLDED, &[("label", name)]).increment(1);
            }
            label
        })
    }

    /// A request came in.
    pub fn attempt(&self) {
        self.0.plain.attempts.increment(1);
    }

    /// The picker answers the request itself with an error. Counts its ending too.
    pub fn refused(&self, model: &str, target: &str, fairness: &str, priority: i32, code: &'static str) {
        self.0.metrics.counter(names::REFUSALS, &[("code", code)]).increment(1);
        self.0.endings.count(Ending::Refused);
        self.series(model, target, fairness, priority).failed(code);
    }

    /// A request ended that has no series: header-only, or broken off before it was routed. Ends of routed requests
    /// are counted by [`RequestSeries::finished`], refusals by [`RequestMetrics::refused`].
    pub fn ended(&self, ending: Ending) {
        self.0.endings.count(ending);
    }

    /// A scheduling decision took `took` and chose the endpoint with its port, or none.
    pub fn scheduled(&self, took: Duration, outcome: Option<(&EndpointKey, u16)>, target_model: &str) {
        self.0.plain.scheduler.record(took.as_secs_f64());
        let model = self.0.models.label(target_model);
        let mut buffer = [0; 12];
        let labels = match outcome {
            None => ["failure", model, "", "", ""],
            Some((key, port)) => {
                let port = decimal(i32::from(port), &mut buffer);
                ["success", model, self.0.endpoints.label(&key.name), &*key.namespace, port]
            }
        };
        let make = |l: &[&str; 5]| {
            let names = ["status", "target_model_name", "endpoint_name", "namespace", "port"];
            let pairs: Vec<_> = names.into_iter().zip(l.iter().copied()).collect();
            self.0.metrics.counter(names::SCHEDULER_ATTEMPTS, &pairs)
        };
        let [status, ..] = labels;
        let counter = self.0.attempts_by.get_or_make(&labels, make).unwrap_or_else(|| {
            self.0.attempts_by.get_or_make_beyond(&[status, OTHER, OTHER, OTHER, OTHER], make)
        });
        counter.increment(1);
    }

    /// How many endpoints a decision began with, how many filters took out and how many were scored.
    pub fn considered(&self, candidates: usize, filtered: usize, scored: usize, result: DecisionResult) {
        let plain = &self.0.plain;
        plain.candidates.increment(candidates as u64);
        plain.filtered.increment(filtered as u64);
        plain.scored.increment(scored as u64);
        if let Some(counter) = plain.decisions.get(result as usize) {
            counter.increment(1);
        }
    }

    /// The model of a request was rewritten by the rule object `rewrite`.
    pub fn rewritten(&self, rewrite: &str, model: &str, target: &str) {
        let labels = [
            ("model_rewrite_name", rewrite),
            ("model_name", self.0.models.label(model)),
            ("target_model", self.0.models.label(target)),
        ];
        self.0.metrics.counter(names::MODEL_REWRITES, &labels).increment(1);
    }

    /// The endpoint picked is predicted to have `matched` of the prompt's `total` bytes cached.
    pub fn prefix_predicted(&self, endpoint: &EndpointKey, matched: u64, total: u64) {
        let label = self.0.endpoints.label(&endpoint.name);
        let make = |[pod]: &[&str; 1]| {
            Arc::new(PrefixSeries {
                matched: AtomicU64::new(0),
                total: AtomicU64::new(0),
                rate: self.0.metrics.gauge(names::CACHE_HIT_RATE, &[("pod", pod)]),
                length: self.0.metrics.histogram(names::CACHE_PREFIX_BYTES, &[("pod", pod)]),
            })
        };
        let series = self.0.prefix_by.get_or_make_beyond(&[label], make);
        let matched_sum = series.matched.fetch_add(matched, Relaxed) + matched;
        let total_sum = series.total.fetch_add(total, Relaxed) + total;
        series.length.record(matched as f64);
        if total_sum > 0 {
            series.rate.set(matched_sum as f64 / total_sum as f64);
        }
    }

    /// The metrics that these belong to.
    pub fn handle(&self) -> &MetricsHandle {
        &self.0.metrics
    }

    /// Streams that are open now, as the edge counts them.
    pub fn open_streams(&self) -> u64 {
        self.0.metrics.value(names::STREAMS_OPEN).unwrap_or(0.0).max(0.0) as u64
    }

    /// No endpoint lists the model of a request.
    pub fn unknown_model(&self) {
        self.0.plain.unknown_model.increment(1);
    }
}

impl std::fmt::Debug for RequestMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestMetrics({} series)", self.0.series.len.load(Relaxed))
    }
}

/// Writes a number into `buffer`; 12 bytes hold every `i32`.
fn decimal(number: i32, buffer: &mut [u8; 12]) -> &str {
    let mut rest = &mut buffer[..];
    // A full buffer would be an error, and no i32 fills it.
    let _ = write!(rest, "{number}");
    let left = rest.len();
    std::str::from_utf8(&buffer[..12 - left]).unwrap_or_default()
}

type Bucket<const N: usize, V> = Vec<([Box<str>; N], V)>;

/// Handles by their `N` label values; looked up without building a key.
struct LabelCache<const N: usize, V> {
    by_hash: DashMap<u64, Bucket<N, V>>,
    hasher: RandomState,
    len: AtomicUsize,
    cap: usize,
}

impl<const N: usize, V: Clone> LabelCache<N, V> {
    fn new(cap: usize) -> Self {
        Self { by_hash: DashMap::new(), hasher: RandomState::new(), len: AtomicUsize::new(0), cap }
    }

    fn get(&self, labels: &[&str; N]) -> Option<V> {
        let bucket = self.by_hash.get(&self.hasher.hash_one(labels))?;
        find(&bucket, labels).cloned()
    }

    /// What is stored under `labels`, or something new while the cap leaves room.
    fn get_or_make(&self, labels: &[&str; N], make: impl Fn(&[&str; N]) -> V) -> Option<V> {
        if let Some(found) = self.get(labels) {
            return Some(found);
        }
        (self.len.load(Relaxed) < self.cap).then(|| self.get_or_make_beyond(labels, make))
    }

    /// The same without the cap: for the few series that stand in for all that came too late.
    fn get_or_make_beyond(&self, labels: &[&str; N], make: impl Fn(&[&str; N]) -> V) -> V {
        if let Some(found) = self.get(labels) {
            return found;
        }
        let mut bucket = self.by_hash.entry(self.hasher.hash_one(labels)).or_default();
        if let Some(found) = find(&bucket, labels) {
            return found.clone();
        }
        self.len.fetch_add(1, Relaxed);
        let value = make(labels);
        bucket.push((labels.map(Into::into), value.clone()));
        value
    }
}

fn find<'a, const N: usize, V>(bucket: &'a Bucket<N, V>, labels: &[&str; N]) -> Option<&'a V> {
    bucket.iter().find(|(key, _)| key.iter().zip(labels).all(|(a, b)| **a == **b)).map(|(_, v)| v)
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
