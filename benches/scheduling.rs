//! What a decision costs: the freeze of the endpoints, four scorers with the max-score picker after it, and both.
//! Aim for the decision after the freeze: 3 µs at 100 endpoints, 40 µs at 1,000.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot be set up should stop")]

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman::clock::{Clock, Moment};
use pointsman::endpoint::{EndpointKey, Labels, Sample};
use pointsman::plugin::{
    AttributeTable, BuildContext, PrefixMatches, Registry, Roles, StateStore, WeightedScorer,
};
use pointsman::pool::{AttributeId, Candidates, Columns, EndpointSpec, PoolEvent, PoolIndex, PoolSnapshot};
use pointsman::request::{Api, Headers, InferenceRequest, Parsed};
use pointsman::scheduling::{Profile, Scheduler};
use std::hint::black_box;
use std::sync::Arc;

const SCORERS: [(&str, f64); 4] = [
    ("prefix-cache-scorer", 3.0),
    ("queue-scorer", 2.0),
    ("kv-cache-utilization-scorer", 2.0),
    ("active-request-scorer", 2.0),
];

fn build(name: &str, table: &mut AttributeTable) -> Roles {
    let registry = Registry::from_tables(&pointsman::scheduling::tables()).unwrap();
    let mut context = BuildContext {
        name: &name.into(),
        parameters: &serde_json::Value::Null,
        state: &StateStore::default(),
        clock: &Clock::system(),
        prefix_index_bytes: 0,
        table,
    };
    (registry.get(name).unwrap().build)(&mut context).unwrap()
}

fn scheduler() -> Scheduler {
    let mut table = AttributeTable::default();
    let scorers = SCORERS.map(|(name, weight)| WeightedScorer {
        name: name.into(),
        plugin_type: name,
        weight,
        scorer: build(name, &mut table).scorer.unwrap(),
    });
    let picker = build("max-score-picker", &mut table).picker.unwrap();
    let profile = Profile { name: "default".into(), filters: Vec::new(), scorers: scorers.into(), picker };
    let handler = build("single-profile-handler", &mut table).profile_handler.unwrap();
    Scheduler::new(vec![profile], handler).unwrap()
}

fn pool(n: u32, now: Moment) -> Arc<PoolSnapshot> {
    let mut rng = fastrand::Rng::with_seed(1);
    let specs = (0..n).map(|i| EndpointSpec {
        key: EndpointKey { namespace: "default".into(), name: format!("pod-{i:04}").into(), rank: 0 },
        address: format!("10.0.{}.{}:8000", i / 250, i % 250 + 1).parse().unwrap(),
        metrics_address: None,
        labels: Labels::default(),
        process_mark: None,
    });
    let mut index = PoolIndex::default();
    index.apply(PoolEvent::Endpoints(specs.collect()));
    let snapshot = index.snapshot();
    for endpoint in &snapshot.endpoints {
        endpoint.live.publish(Sample {
            waiting: Some(rng.u32(0..20)),
            running: Some(rng.u32(0..200)),
            kv_usage: Some(rng.f64()),
            ..Sample::empty(now)
        });
    }
    Arc::new(snapshot)
}

fn request(now: Moment) -> InferenceRequest {
    InferenceRequest {
        id: "r".into(),
        received: now,
        headers: Headers::default(),
        parsed: Parsed::opaque(Api::ChatCompletions),
        target_model: "model".into(),
        priority: 0,
        fairness_id: "default-flow".into(),
        body_bytes: 0,
    }
}

fn freeze(pool: &Arc<PoolSnapshot>, now: Moment) -> Candidates {
    let rows = (0..u32::try_from(pool.endpoints.len()).unwrap()).collect();
    let mut candidates = Candidates::freeze(Arc::clone(pool), rows, Columns::default(), now);
    let matched_blocks = (0..u32::try_from(candidates.len()).unwrap()).map(|i| i % 100).collect();
    let matches =
        PrefixMatches { total_blocks: 160, block_tokens: 64, matched_blocks, chains: Arc::default() };
    candidates.attributes.set(AttributeId::new(0), matches);
    candidates
}

fn benches(c: &mut Criterion) {
    let now = Clock::system().now();
    let (scheduler, request) = (scheduler(), request(now));
    let mut group = c.benchmark_group("schedule with 4 scorers");
    for n in [10, 100, 1000] {
        let pool = pool(n, now);
        let candidates = freeze(&pool, now);
        let mut rng = fastrand::Rng::with_seed(2);
        group.bench_with_input(BenchmarkId::new("after the freeze", n), &n, |b, _| {
            b.iter(|| black_box(scheduler.run(&request, &candidates, &mut rng)).is_ok());
        });
        group.bench_with_input(BenchmarkId::new("freeze", n), &n, |b, _| {
            b.iter_batched(|| (), |()| freeze(&pool, now), BatchSize::SmallInput);
        });
        group.bench_with_input(BenchmarkId::new("freeze and schedule", n), &n, |b, _| {
            b.iter(|| black_box(scheduler.run(&request, &freeze(&pool, now), &mut rng)).is_ok());
        });
    }
    group.finish();
}

criterion_group!(scheduling, benches);
criterion_main!(scheduling);
