//! Candidates and requests for the tests of this layer.

use crate::clock::{Clock, Moment};
use crate::endpoint::{
    CacheGeometry, Cost, EndpointKey, LoraState, Reading, Reservation, ReservationRole, Sample,
};
use crate::plugin::{
    AttributeTable, BuildContext, BuildError, Cycle, PluginType, ProfileRuns, Roles, Scorer, Scores,
    Shortlist, StateStore,
};
use crate::pool::{Candidates, Columns, EndpointSpec, PoolEvent, PoolIndex, PoolSnapshot, Position};
use crate::request::{Api, Headers, InferenceRequest, Parsed, Prompt};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// One endpoint of a test pool.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub labels: Vec<(&'static str, &'static str)>,
    pub reading: Reading,
    pub waiting: Option<u32>,
    pub running: Option<u32>,
    pub kv: Option<f64>,
    pub lora: Option<LoraState>,
    pub cache: Option<CacheGeometry>,
    pub in_flight: u32,
    pub tokens: u32,
    pub scalars: Vec<f64>,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            reading: Reading::Fresh,
            waiting: Some(0),
            running: Some(0),
            kv: Some(0.0),
            lora: None,
            cache: None,
            in_flight: 0,
            tokens: 0,
            scalars: Vec::new(),
        }
    }
}

/// A pool of these rows, called `pod-000`, `pod-001`, … in namespace `default`, and the moment to freeze it at.
pub(crate) fn snapshot(rows: &[Row]) -> (Arc<PoolSnapshot>, Moment) {
    let mut index = PoolIndex::default();
    let specs = rows.iter().enumerate().map(|(i, row)| EndpointSpec {
        key: EndpointKey { namespace: "default".into(), name: format!("pod-{i:03}").into(), rank: 0 },
        address: format!("10.0.{}.{}:8000", i / 200, i % 200 + 1).parse().unwrap(),
        metrics_address: None,
        labels: row.labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        process_mark: None,
    });
    index.apply(PoolEvent::Endpoints(specs.collect()));
    let snapshot = Arc::new(index.snapshot());
    let now = Clock::manual().now().plus(Duration::from_secs(100));
    for (row, endpoint) in rows.iter().zip(&snapshot.endpoints) {
        let at = match row.reading {
            Reading::Never => continue,
            Reading::Fresh => now,
            Reading::Stale => Clock::manual().now(),
        };
        endpoint.live.publish(Sample {
            at,
            waiting: row.waiting,
            running: row.running,
            kv_usage: row.kv,
            cache: row.cache,
            lora: row.lora.clone().map(Arc::new),
            scalars: row.scalars.clone().into(),
        });
    }
    (snapshot, now)
}

/// The rows frozen, with all columns and their in-flight load.
pub(crate) fn freeze(rows: &[Row]) -> Candidates {
    let (snapshot, now) = snapshot(rows);
    let mut held = Vec::new();
    for (row, endpoint) in rows.iter().zip(&snapshot.endpoints) {
        for i in 0..row.in_flight {
            let tokens = if i == 0 { row.tokens } else { 0 };
            let cost = Cost { until_first_byte: 0, until_end: tokens };
            held.push(Reservation::new(Arc::clone(endpoint), ReservationRole::Decode, cost));
        }
    }
    let all = 0..u32::try_from(rows.len()).unwrap();
    Candidates::freeze(snapshot, all, Columns { lora: true, scalars: true, cache: true }, now)
}

/// A request for `model` with this prompt.
pub(crate) fn request(model: &str, prompt: Prompt) -> InferenceRequest {
    let mut parsed = Parsed::opaque(Api::Completions);
    parsed.prompt = prompt;
    InferenceRequest {
        id: "r".into(),
        received: Moment::from_nanos(1),
        headers: Headers::default(),
        parsed,
        target_model: model.into(),
        priority: 0,
        fairness_id: "default-flow".into(),
        body_bytes: 0,
        wishes: Default::default(),
    }
}

/// A request with one header.
pub(crate) fn request_with(header: &str, value: &str) -> InferenceRequest {
    let mut request = request("m", Prompt::None);
    request.headers.push(header, Bytes::copy_from_slice(value.as_bytes()));
    request
}

/// The plugin of `row` built from `parameters` under its type's name.
pub(crate) fn build(row: &PluginType, parameters: serde_json::Value) -> Result<Roles, BuildError> {
    build_in(row, parameters, &StateStore::default(), &Clock::manual(), &mut AttributeTable::default())
}

/// The same with state, clock and attributes of the caller.
pub(crate) fn build_in(
    row: &PluginType,
    parameters: serde_json::Value,
    state: &StateStore,
    clock: &Clock,
    table: &mut AttributeTable,
) -> Result<Roles, BuildError> {
    (row.build)(&mut BuildContext {
        name: &row.name.into(),
        parameters: &parameters,
        state,
        clock,
        prefix_index_bytes: 1 << 20,
        table,
    })
}

/// What the scorer of `row` says of `candidates`.
pub(crate) fn scores(
    row: &PluginType,
    parameters: serde_json::Value,
    request: &InferenceRequest,
    candidates: &Candidates,
) -> Vec<f64> {
    score_with(&*build(row, parameters).unwrap().scorer.unwrap(), request, candidates)
}

/// What a scorer says of `candidates`.
pub(crate) fn score_with(
    scorer: &dyn Scorer,
    request: &InferenceRequest,
    candidates: &Candidates,
) -> Vec<f64> {
    let shortlist = Shortlist::all(candidates);
    let mut out = vec![0.0; shortlist.len()];
    let done = ProfileRuns::default();
    let cycle = Cycle { request, candidates, profile: "default", done: &done, shadow: false };
    scorer.score(&cycle, &shortlist, &mut Scores::over(&mut out));
    out
}

/// The positions that the filter of `row` keeps.
pub(crate) fn kept(
    row: &PluginType,
    parameters: serde_json::Value,
    request: &InferenceRequest,
    candidates: &Candidates,
) -> Vec<u32> {
    let filter = build(row, parameters).unwrap().filter.unwrap();
    let mut shortlist = Shortlist::all(candidates);
    let done = ProfileRuns::default();
    let cycle = Cycle { request, candidates, profile: "default", done: &done, shadow: false };
    filter.filter(&cycle, &mut shortlist);
    shortlist.positions().iter().map(|Position(p)| *p).collect()
}

/// Asserts that two lists of scores agree to twelve digits.
#[track_caller]
pub(crate) fn assert_scores(got: &[f64], wanted: &[f64]) {
    let close = got.len() == wanted.len() && got.iter().zip(wanted).all(|(g, w)| (g - w).abs() < 1e-12);
    assert!(close, "got {got:?}, wanted {wanted:?}");
}
