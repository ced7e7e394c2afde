//! A pool, a scheduler of four scorers and a request.

use pointsman::clock::{Clock, Moment};
use pointsman::endpoint::{EndpointKey, Labels, Sample};
use pointsman::plugin::{
    AttributeTable, BuildContext, PrefixMatches, Registry, Roles, StateStore, WeightedScorer,
};
use pointsman::pool::{AttributeId, Candidates, Columns, EndpointSpec, PoolEvent, PoolIndex, PoolSnapshot};
use pointsman::request::{Api, Headers, InferenceRequest, Parsed};
use pointsman::scheduling::{Profile, Scheduler};
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

/// One profile of four scorers and the max-score picker.
pub fn scheduler() -> Scheduler {
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

/// `n` endpoints as discovery tells them.
pub fn specs(n: u32) -> Vec<EndpointSpec> {
    let spec = |i| EndpointSpec {
        key: EndpointKey { namespace: "default".into(), name: format!("pod-{i:04}").into(), rank: 0 },
        address: format!("10.0.{}.{}:8000", i / 250, i % 250 + 1).parse().unwrap(),
        metrics_address: None,
        labels: Labels::default(),
        process_mark: None,
    };
    (0..n).map(spec).collect()
}

/// `n` endpoints with samples of all kinds.
pub fn pool(n: u32, now: Moment) -> Arc<PoolSnapshot> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut index = PoolIndex::default();
    index.apply(PoolEvent::Endpoints(specs(n)));
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

/// A request without anything of its own.
pub fn request(now: Moment) -> InferenceRequest {
    InferenceRequest {
        id: "r".into(),
        received: now,
        headers: Headers::default(),
        parsed: Parsed::opaque(Api::ChatCompletions),
        target_model: "model".into(),
        priority: 0,
        fairness_id: "default-flow".into(),
        body_bytes: 0,
        wishes: Default::default(),
    }
}

/// The endpoints as the request sees them, each with a prefix match.
pub fn freeze(pool: &Arc<PoolSnapshot>, now: Moment) -> Candidates {
    let rows = 0..u32::try_from(pool.endpoints.len()).unwrap();
    let mut candidates = Candidates::freeze(Arc::clone(pool), rows, Columns::default(), now);
    let id = AttributeId::<PrefixMatches>::new(0);
    let mut matches = candidates.attributes.spare(id);
    (matches.total_blocks, matches.block_tokens) = (160, 64);
    matches.matched_blocks.clear();
    matches.matched_blocks.extend(candidates.positions().map(|p| p.0 % 100));
    candidates.attributes.set(id, matches);
    candidates
}
