//! What `/debug/state` says: numbers and names of the configuration, never anything that a client sent.

use crate::clock::Moment;
use crate::director::decisions::{Explanation, Summary};
use crate::endpoint::{Endpoint, Reading, Sample};
use crate::pool::PoolSnapshot;
use crate::readiness::Readiness;
use crate::telemetry::{MetricsHandle, names};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Where the debug page gets its content from.
pub trait StateSource: Send + Sync + 'static {
    /// The state at this moment. Called on the admin thread; must not wait for a request.
    fn state(&self) -> State;
    /// The configurations by pool; one without a name where there is one pool.
    fn configurations(&self) -> BTreeMap<String, ConfigState> {
        BTreeMap::new()
    }
    /// The newest decisions first, at most `most`: of one pool, or of all.
    fn decisions(&self, _pool: Option<&str>, _most: usize) -> DecisionList {
        DecisionList::default()
    }
    /// The newest decision on the request `id`, where it is still kept.
    fn explain(&self, _id: &str) -> Option<Explanation> {
        None
    }
}

/// The configuration in force, as `/debug/config` shows it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConfigState {
    /// Counts the configurations of this process, from 1.
    pub generation: u64,
    /// Where it was read from.
    pub origin: String,
    /// XXH64 of its text: tells whether two replicas run the same one.
    pub digest: String,
    /// How long it has been in force.
    pub age_ms: u64,
    /// What became of the last change of the file.
    pub last_attempt: Option<Attempt>,
    /// Its text.
    pub text: String,
}

/// A changed file that was looked at.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Attempt {
    /// How long ago.
    pub age_ms: u64,
    /// `taken` or `refused`.
    pub outcome: &'static str,
    /// What was wrong with it.
    pub problems: Vec<String>,
    /// What changed.
    pub changes: Vec<String>,
}

/// What `/debug/decisions` says.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DecisionList {
    /// Decisions since the start, kept or not.
    pub made: u64,
    /// The newest first.
    pub decisions: Vec<Listed>,
}

/// A decision in the list.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// The pool, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The decision in short.
    #[serde(flatten)]
    pub summary: Summary,
}

/// The picker at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct State {
    /// Version of the build.
    pub version: &'static str,
    /// Time since the start.
    pub uptime_seconds: u64,
    /// Whether requests should be sent here.
    pub ready: bool,
    /// Readiness gates that are closed.
    pub waiting_for: Vec<String>,
    /// Whether the picker was told to stop.
    pub draining: bool,
    /// The pool, where there is one: its fields stand beside those of the process.
    #[serde(flatten)]
    pub only: Option<PoolPart>,
    /// The pools by name, where there are several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pools: BTreeMap<String, OnePool>,
    /// What else there is to say, by name.
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}

impl State {
    /// Version and readiness filled in, all else empty.
    pub fn of_process(readiness: &Readiness) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            ready: readiness.is_ready(),
            waiting_for: readiness.waiting_for().iter().map(ToString::to_string).collect(),
            draining: readiness.is_draining(),
            ..Self::default()
        }
    }
}

/// What belongs to one pool.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PoolPart {
    /// Number of the configuration in use.
    pub config_generation: u64,
    /// Open ext_proc streams.
    pub streams_open: u64,
    /// Bytes of request bodies in memory.
    pub buffered_bytes: u64,
    /// Cap on them.
    pub buffered_bytes_limit: u64,
    /// The prefix index.
    pub prefix_index: PrefixIndexState,
    /// The pool.
    pub pool: PoolState,
    /// What the data layer says of its sources.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub data_layer: Value,
}

/// One of several pools.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OnePool {
    /// Whether requests for it should be sent here.
    pub ready: bool,
    /// Its readiness gates that are closed.
    pub waiting_for: Vec<String>,
    /// What belongs to it.
    #[serde(flatten)]
    pub part: PoolPart,
}

impl OnePool {
    /// A pool with its own readiness.
    pub fn new(readiness: &Readiness, part: PoolPart) -> Self {
        let waiting_for = readiness.waiting_for().iter().map(ToString::to_string).collect();
        Self { ready: readiness.is_ready(), waiting_for, part }
    }
}

/// Size of the prefix index of a pool.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PrefixIndexState {
    /// Entries.
    pub entries: u64,
    /// Memory.
    pub bytes: u64,
    /// Cap on it.
    pub bytes_limit: u64,
}

impl PrefixIndexState {
    /// As the index itself reports it in `metrics`.
    pub fn of(metrics: &MetricsHandle, bytes_limit: u64) -> Self {
        let value = |name| metrics.value(name).unwrap_or(0.0).max(0.0) as u64;
        Self { entries: value(names::PREFIX_ENTRIES), bytes: value(names::PREFIX_BYTES), bytes_limit }
    }
}

/// A pool at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PoolState {
    /// Its name, once discovery knows it.
    pub name: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Number of the snapshot.
    pub generation: u64,
    /// Whether discovery has delivered a complete list.
    pub synced: bool,
    /// Endpoints held back by passive health.
    pub suspects: usize,
    /// The endpoints.
    pub endpoints: Vec<EndpointState>,
}

/// An endpoint at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointState {
    /// Namespace, name and rank.
    pub key: String,
    /// Where it takes requests.
    pub address: String,
    /// Where its metrics are.
    pub metrics_address: String,
    /// What it does for a request.
    pub role: String,
    /// The engine behind it, when a label says so.
    pub engine: Option<String>,
    /// Its place in the pool.
    pub slot: u32,
    /// Which process is there.
    pub incarnation: u32,
    /// `fresh`, `stale` or `never`.
    pub reading: &'static str,
    /// What was last read.
    pub sample: Option<SampleState>,
    /// Requests in flight from this process.
    pub in_flight_requests: u32,
    /// Their estimated tokens.
    pub in_flight_tokens: u64,
    /// Whether passive health holds it back.
    pub suspect: bool,
    /// Why.
    pub suspect_reason: Option<String>,
    /// Models that it lists; `null` when nobody asked or it did not answer.
    pub models: Option<Vec<String>>,
}

/// A reading of an engine's metrics. A number that it did not give is `null`.
#[derive(Clone, Debug, Serialize)]
pub struct SampleState {
    /// Its age.
    pub age_ms: u64,
    /// Waiting requests.
    pub waiting: Option<u32>,
    /// Running requests.
    pub running: Option<u32>,
    /// Share of KV cache in use.
    pub kv_usage: Option<f64>,
    /// Tokens in a block.
    pub block_tokens: Option<u32>,
    /// Blocks in the cache.
    pub blocks: Option<u32>,
    /// Adapters that requests run with.
    pub lora_active: Vec<String>,
    /// Adapters that requests wait for.
    pub lora_waiting: Vec<String>,
}

impl PoolState {
    /// The pool at `now`; `reason` says why an endpoint is suspect.
    pub fn new(snapshot: &PoolSnapshot, now: Moment, reason: impl Fn(&Endpoint) -> Option<String>) -> Self {
        let endpoint = |e: &std::sync::Arc<Endpoint>| EndpointState::new(e, now, reason(e));
        let endpoints: Vec<_> = snapshot.endpoints.iter().map(endpoint).collect();
        Self {
            name: snapshot.spec.as_ref().map(|s| s.name.to_string()),
            namespace: snapshot.spec.as_ref().map(|s| s.namespace.to_string()),
            generation: snapshot.generation,
            synced: snapshot.synced,
            suspects: endpoints.iter().filter(|e| e.suspect).count(),
            endpoints,
        }
    }
}

impl EndpointState {
    fn new(endpoint: &Endpoint, now: Moment, reason: Option<String>) -> Self {
        let live = &endpoint.live;
        let sample = live.sample();
        let load = live.load();
        let suspect = live.is_suspect();
        Self {
            key: endpoint.key.to_string(),
            address: endpoint.destination.to_string(),
            metrics_address: endpoint.metrics_address.to_string(),
            role: format!("{:?}", endpoint.role).to_lowercase(),
            engine: endpoint.engine.as_deref().map(str::to_owned),
            slot: endpoint.slot.0,
            incarnation: live.incarnation().0,
            reading: match live.reading(sample.as_deref().map(|s| s.at), now) {
                Reading::Fresh => "fresh",
                Reading::Stale => "stale",
                Reading::Never => "never",
            },
            sample: sample.as_deref().map(|s| SampleState::new(s, now)),
            in_flight_requests: load.requests,
            in_flight_tokens: load.tokens,
            suspect,
            suspect_reason: reason.filter(|_| suspect),
            models: live.models().map(|models| models.iter().map(ToString::to_string).collect()),
        }
    }
}

impl SampleState {
    fn new(sample: &Sample, now: Moment) -> Self {
        let texts = |list: &[std::sync::Arc<str>]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        Self {
            age_ms: u64::try_from(now.since(sample.at).as_millis()).unwrap_or(u64::MAX),
            waiting: sample.waiting,
            running: sample.running,
            kv_usage: sample.kv_usage,
            block_tokens: sample.cache.map(|c| c.block_tokens),
            blocks: sample.cache.map(|c| c.blocks),
            lora_active: sample.lora.as_deref().map(|l| texts(&l.active)).unwrap_or_default(),
            lora_waiting: sample.lora.as_deref().map(|l| texts(&l.waiting)).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::endpoint::{EndpointKey, Labels};
    use crate::pool::{EndpointSpec, PoolEvent, PoolIndex, PoolSpec};
    use std::time::Duration;

    #[test]
    fn the_size_of_the_index_is_what_it_reports() {
        let metrics = MetricsHandle::detached(false);
        metrics.gauge(names::PREFIX_BYTES, &[]).set(2048.0);
        let state = PrefixIndexState::of(&metrics, 4096);
        assert_eq!((state.entries, state.bytes, state.bytes_limit), (0, 2048, 4096));
    }

    #[test]
    fn an_endpoint_shows_its_numbers_with_their_age() {
        let mut index = PoolIndex::default();
        index.apply(PoolEvent::Pool(Some(PoolSpec { name: "p".into(), namespace: "default".into() })));
        let spec = |name: &str, address: &str| EndpointSpec {
            key: EndpointKey { namespace: "default".into(), name: name.into(), rank: 0 },
            address: address.parse().unwrap(),
            metrics_address: None,
            labels: Labels::default(),
            process_mark: None,
        };
        index.apply(PoolEvent::Endpoints(vec![spec("a", "[fd00::1]:8000"), spec("b", "10.0.0.2:8000")]));
        let pool = index.snapshot();
        let clock = Clock::manual();
        let live = &pool.endpoints[0].live;
        live.publish(Sample { waiting: Some(3), kv_usage: Some(0.5), ..Sample::empty(clock.now()) });
        live.set_suspect(true);
        live.publish_models(vec!["m".into()]);
        clock.advance(Duration::from_millis(120));
        let state = PoolState::new(&pool, clock.now(), |_| Some("refused".to_owned()));
        let json = serde_json::to_value(&state).unwrap();
        let (first, second) = (&json["endpoints"][0], &json["endpoints"][1]);
        assert_eq!(json["suspects"], 1);
        assert_eq!((&first["key"], &first["address"]), (&"default/a".into(), &"[fd00::1]:8000".into()));
        assert_eq!((&first["reading"], &first["sample"]["age_ms"]), (&"fresh".into(), &120.into()));
        assert_eq!((&first["sample"]["waiting"], &first["sample"]["running"]), (&3.into(), &Value::Null));
        assert_eq!((&first["suspect_reason"], &first["models"][0]), (&"refused".into(), &"m".into()));
        assert_eq!((&second["reading"], &second["sample"]), (&"never".into(), &Value::Null));
        assert_eq!((&second["suspect_reason"], &second["models"]), (&Value::Null, &Value::Null));
    }
}
