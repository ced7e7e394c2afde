//! A decision over a pool that does not change allocates nothing: freeze, producers, filters, scorers, picker and the
//! record that is left. A program of its own, because the counter takes the place of its allocator.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should stop")]

use allocation_counter::measure;
use pointsman::clock::{Clock, Moment};
use pointsman::endpoint::{EndpointKey, LoraState, Sample};
use pointsman::plugin::{
    AttributeTable, BuildContext, Departure, Filter, HeaderEdits, PluginType, Roles, StateStore,
    WeightedScorer,
};
use pointsman::pool::{Candidates, Columns, EndpointSpec, PoolEvent, PoolIndex, PoolSnapshot};
use pointsman::request::{Api, Headers, InferenceRequest, Parsed, Prompt};
use pointsman::scheduling::{Profile, Scheduler};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const ENDPOINTS: u32 = 100;

type Named<T> = Vec<(Arc<str>, &'static str, Arc<T>)>;

/// Builds plugins that share state and attributes, as those of one configuration do.
struct Workshop {
    clock: Clock,
    state: StateStore,
    table: AttributeTable,
}

impl Workshop {
    fn new() -> Self {
        Self { clock: Clock::manual(), state: StateStore::default(), table: AttributeTable::default() }
    }

    fn build(&mut self, row: &PluginType, parameters: &Value) -> Roles {
        let mut context = BuildContext {
            name: &row.name.into(),
            parameters,
            state: &self.state,
            clock: &self.clock,
            prefix_index_bytes: 16 << 20,
            table: &mut self.table,
        };
        (row.build)(&mut context).unwrap()
    }

    fn named(&mut self, name: &str, parameters: &Value) -> Roles {
        let tables: Vec<_> = pointsman::scheduling::tables().into_iter().flatten().collect();
        let producers: Vec<_> = pointsman::director::tables().into_iter().flatten().collect();
        let row = tables.into_iter().chain(producers).find(|row| row.name == name).unwrap();
        self.build(row, parameters)
    }

    fn producers(&mut self) -> [Roles; 2] {
        ["approx-prefix-cache-producer", "inflight-load-producer"].map(|name| self.named(name, &json!({})))
    }

    /// Every type of filter that leaves a part of this pool.
    fn filters(&mut self) -> Named<dyn Filter> {
        let [filters, ..] = pointsman::scheduling::tables();
        let empties = ["prefill-filter", "encode-filter", "header-based-testing-filter"];
        let make = |row: &PluginType| {
            let filter = self.build(row, &parameters(row.name)).filter.unwrap();
            (Arc::from(row.name), row.name, filter)
        };
        filters.iter().filter(|row| !empties.contains(&row.name)).map(make).collect()
    }

    /// Every type of scorer.
    fn scorers(&mut self) -> Vec<WeightedScorer> {
        let [_, scorers, ..] = pointsman::scheduling::tables();
        let make = |row: &PluginType| WeightedScorer {
            name: row.name.into(),
            plugin_type: row.name,
            weight: 1.5,
            scorer: self.build(row, &parameters(row.name)).scorer.unwrap(),
        };
        scorers.iter().map(make).collect()
    }

    fn scheduler(&mut self, picker: &str, targets: u32) -> Scheduler {
        let profile = Profile {
            name: "default".into(),
            filters: self.filters(),
            scorers: self.scorers(),
            picker: self.named(picker, &json!({"maxNumOfEndpoints": targets})).picker.unwrap(),
        };
        let handler = self.named("single-profile-handler", &json!({})).profile_handler.unwrap();
        Scheduler::new(vec![profile], handler).unwrap()
    }
}

/// What a type of filter or scorer must be told.
fn parameters(name: &str) -> Value {
    match name {
        "by-label" => json!({"label": "tier", "validValues": ["a", "b"]}),
        "label-selector-filter" => json!({"matchLabels": {"app": "x"}}),
        "utilization-filter" => json!({"conditions": [{"metric": "active-requests", "maxValue": 64}]}),
        "endpoint-attribute-filter" => json!({"attribute": "depth", "algorithm": {
            "type": "threshold", "threshold": {"operator": "LessThan", "value": 10}
        }}),
        "endpoint-attribute-scorer" => {
            json!({"attributeKey": "depth", "algorithm": {"type": "linear_lower_is_better"}})
        }
        // A threshold of 1 or more would leave the one endpoint that has the prompt.
        "prefix-cache-affinity-filter" => json!({"affinityThreshold": 0}),
        "cel-filter" => json!({"expression": "endpoint.labels[\"tier\"] != \"d\""}),
        "cel-scorer" => {
            json!({"expression": "1.0 - math.least(double(endpoint.waiting) / 16.0, 1.0)", "normalize": true})
        }
        "header-label-affinity-scorer" => json!({"headerName": "x-tier", "labelKey": "tier"}),
        _ => json!({}),
    }
}

/// Endpoints with fresh, stale and missing samples.
fn pool(now: Moment) -> Arc<PoolSnapshot> {
    let label = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let specs = (0..ENDPOINTS).map(|i| EndpointSpec {
        key: EndpointKey { namespace: "default".into(), name: format!("pod-{i}").into(), rank: 0 },
        address: format!("10.0.0.{}:8000", i + 1).parse().unwrap(),
        metrics_address: None,
        labels: [
            label("app", if i % 10 == 0 { "y" } else { "x" }),
            label("tier", ["a", "b", "c"][i as usize % 3]),
        ]
        .into_iter()
        .collect(),
        process_mark: None,
    });
    let mut index = PoolIndex::default();
    index.apply(PoolEvent::Endpoints(specs.collect()));
    let snapshot = index.snapshot();
    let lora = LoraState { max_active: 2, active: vec!["m".into()], waiting: Vec::new() };
    for (i, endpoint) in (0..).zip(&snapshot.endpoints) {
        let at = [now, Moment::from_nanos(1), now, now][i as usize % 4];
        if i % 7 > 0 {
            endpoint.live.publish(Sample {
                waiting: Some(i),
                running: Some(2 * i),
                kv_usage: Some(0.25),
                lora: Some(Arc::new(lora.clone())),
                ..Sample::empty(at)
            });
        }
    }
    Arc::new(snapshot)
}

fn request(now: Moment) -> InferenceRequest {
    let mut parsed = Parsed::opaque(Api::Completions);
    parsed.prompt = Prompt::Tokens(vec![(0..10_000).collect()]);
    InferenceRequest {
        id: "r".into(),
        received: now,
        headers: Headers::default(),
        parsed,
        target_model: "m".into(),
        priority: 0,
        fairness_id: "default-flow".into(),
        body_bytes: 0,
        wishes: Default::default(),
    }
}

/// Allocations of a decision after some that filled shelves and prefix index, with `kept` of the earlier decisions still held.
fn allocations(picker: &str, targets: u32, kept: usize) -> u64 {
    let mut workshop = Workshop::new();
    let now = workshop.clock.now().plus(Duration::from_secs(1_000));
    let (pool, request) = (pool(now), request(now));
    let (producers, scheduler) = (workshop.producers(), workshop.scheduler(picker, targets));
    let columns = Columns { lora: true, scalars: true, cache: true };
    let mut rng = fastrand::Rng::with_seed(3);
    let mut ring: Vec<_> = (0..=kept).map(|_| None).collect();
    let mut decide = |place: usize, records: bool| {
        let mut candidates = Candidates::freeze(Arc::clone(&pool), 0..ENDPOINTS, columns, now);
        for producer in producers.iter().flat_map(|roles| &roles.producer) {
            producer.produce(&request, &mut candidates).unwrap();
        }
        let outcome = scheduler.run(&request, &candidates, &mut rng).unwrap();
        assert_eq!(outcome.primary.iter().count(), targets as usize);
        if records {
            let departure = Departure { request: &request, candidates: &candidates, outcome: &outcome };
            let hooks = producers.iter().flat_map(|roles| &roles.pre_request);
            hooks.for_each(|hook| hook.before_send(&departure, &mut HeaderEdits::default()));
        }
        ring[place] = Some((candidates, outcome));
    };
    // Twice around: a decision is made while the one before it in its place still stands. What was recorded makes the
    // prefix index known to more endpoints, so the last round records nothing.
    (0..3 * (kept + 2)).for_each(|i| decide(i % (kept + 1), i < kept + 2));
    measure(|| decide(0, false)).count_total
}

#[test]
fn a_decision_over_a_steady_pool_allocates_nothing() {
    let pickers = ["max-score-picker", "random-picker", "weighted-random-picker"];
    for (picker, targets, kept) in pickers.into_iter().flat_map(|p| [(p, 1, 0), (p, 3, 0), (p, 3, 4)]) {
        assert_eq!(
            allocations(picker, targets, kept),
            0,
            "{picker} with {targets} targets, {kept} decisions kept"
        );
    }
}

#[test]
fn the_counter_counts() {
    assert!(measure(|| drop(std::hint::black_box(vec![1_u8; 10]))).count_total > 0);
}
