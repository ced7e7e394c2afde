//! The page for people: the pool live in a browser. The page is compiled in and asks `/debug/live` once a second while
//! somebody looks at it.

use super::Pages;
use super::state::{DecisionList, EndpointState, Listed, OnePool, PoolPart, State};
use crate::telemetry::{MetricsHandle, names};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Decisions that the page lists.
const LISTED: usize = 20;
/// Decisions over which hit rates are taken, where so many are kept.
const RECENT: usize = 256;
/// Longest name of a model on the page, in characters: clients choose it.
const MODEL_CHARS: usize = 80;
/// Longest request id that is listed whole, in characters: clients choose it as well.
const ID_CHARS: usize = 512;

const STYLE: &str = include_str!("page/live.css");
const SCRIPT: &str = include_str!("page/live.js");

/// The page as it is sent.
pub(super) static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("page/live.html").replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT)
});

/// What the page may do: its own style and script, requests to this port, nothing else.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        source(STYLE),
        source(SCRIPT)
    )
});

/// A text as a policy allows it: by its SHA-256, which the TLS library has for its own use.
fn source(text: &str) -> String {
    TLS13_AES_128_GCM_SHA256.tls13().map_or_else(
        || "'unsafe-inline'".to_owned(),
        |suite| {
            let hash = suite.common.hash_provider.hash(text.as_bytes());
            format!("'sha256-{}'", BASE64_STANDARD.encode(hash.as_ref()))
        },
    )
}

/// What `/debug/live` says: with `?pool=NAME` counts, decisions and endpoints of that pool only.
#[derive(Debug, Serialize)]
pub(super) struct Live {
    /// The pool that was asked for, where it is one of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    version: &'static str,
    uptime_seconds: u64,
    ready: bool,
    waiting_for: Vec<String>,
    draining: bool,
    /// Picks since the start.
    picks: u64,
    /// Refusals since the start by code.
    refusals: BTreeMap<String, u64>,
    recent: Recent,
    /// What stands in each endpoint's row, in order.
    columns: [&'static str; 10],
    pools: Vec<LivePool>,
    decisions: Vec<Listed>,
}

/// A pool as the page shows it.
#[derive(Debug, Serialize)]
struct LivePool {
    name: Option<String>,
    ready: bool,
    waiting_for: Vec<String>,
    config_generation: u64,
    streams_open: u64,
    prefix_index_bytes: u64,
    suspects: usize,
    /// Its endpoints, whether they are listed or not.
    size: usize,
    /// `None` where another pool was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoints: Option<Vec<Row>>,
}

const COLUMNS: [&str; 10] = [
    "name",
    "role",
    "waiting",
    "running",
    "kv_usage",
    "in_flight_requests",
    "in_flight_tokens",
    "age_ms",
    "reading",
    "suspect",
];

/// An endpoint in the order of [`COLUMNS`]: an array, since names of fields would be most of the answer. The last one is
/// why it is suspect, `null` where it is not.
#[derive(Debug, Serialize)]
struct Row(
    String,
    String,
    Option<u32>,
    Option<u32>,
    Option<f64>,
    u32,
    u64,
    Option<u64>,
    &'static str,
    Option<String>,
);

impl Row {
    fn of(endpoint: EndpointState) -> Self {
        let sample = endpoint.sample.as_ref();
        Self(
            endpoint.key,
            endpoint.role,
            sample.and_then(|s| s.waiting),
            sample.and_then(|s| s.running),
            sample.and_then(|s| s.kv_usage).map(|share| (share * 1e3).round() / 1e3),
            endpoint.in_flight_requests,
            endpoint.in_flight_tokens,
            sample.map(|s| s.age_ms),
            endpoint.reading,
            endpoint.suspect.then(|| endpoint.suspect_reason.unwrap_or_default()),
        )
    }
}

/// Prefix hits of the kept decisions.
#[derive(Debug, Default, Serialize)]
struct Recent {
    decisions: usize,
    /// Tokens that the chosen endpoints were believed to hold, of those of the prompts.
    predicted: Hits,
    /// Tokens that the engines found, of those of the prompts of which they said it.
    reported: Hits,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Hits {
    cached_tokens: u64,
    of_tokens: u64,
}

impl Hits {
    fn add(&mut self, cached: Option<u64>, prompt: u32) {
        if let Some(cached) = cached {
            // The prompt's tokens are an estimate; an engine may have found more.
            self.cached_tokens += cached.min(u64::from(prompt));
            self.of_tokens += u64::from(prompt);
        }
    }
}

impl Recent {
    fn of(list: &DecisionList) -> Self {
        let mut recent = Self { decisions: list.decisions.len(), ..Self::default() };
        for Listed { summary, .. } in &list.decisions {
            recent.predicted.add(summary.predicted_cached_tokens, summary.prompt_tokens);
            recent.reported.add(summary.reported_cached_tokens.map(u64::from), summary.prompt_tokens);
        }
        recent
    }
}

impl LivePool {
    fn only(ready: bool, waiting_for: Vec<String>, part: PoolPart) -> Self {
        Self::of(part.pool.name.clone(), ready, waiting_for, part, true)
    }

    fn one_of_several(name: String, asked: Option<&str>, pool: OnePool) -> Self {
        let listed = asked.is_none_or(|asked| asked == name);
        Self::of(Some(name), pool.ready, pool.waiting_for, pool.part, listed)
    }

    fn of(name: Option<String>, ready: bool, waiting_for: Vec<String>, part: PoolPart, listed: bool) -> Self {
        Self {
            name,
            ready,
            waiting_for,
            config_generation: part.config_generation,
            streams_open: part.streams_open,
            prefix_index_bytes: part.prefix_index.bytes,
            suspects: part.pool.suspects,
            size: part.pool.endpoints.len(),
            endpoints: listed.then(|| part.pool.endpoints.into_iter().map(Row::of).collect()),
        }
    }
}

/// At most `most` characters of `text`; `…` stands for the rest.
fn shortened(text: &mut String, most: usize) {
    if let Some((at, _)) = text.char_indices().nth(most) {
        text.truncate(at);
        text.push('…');
    }
}

/// What was counted in `pool`, or in all of them, since the start: picks, and refusals by code.
fn counted(metrics: &MetricsHandle, pool: Option<&str>) -> (u64, BTreeMap<String, u64>) {
    let label = pool.map(|pool| format!("{}=\"{pool}\"", names::POOL_LABEL));
    let of_pool = |labels: &str| label.as_ref().is_none_or(|label| labels.contains(label.as_str()));
    let picks = metrics.counted(names::SCHEDULER_ATTEMPTS);
    let picks = picks.iter().filter(|(labels, _)| labels.contains(r#"status="success""#) && of_pool(labels));
    let mut refusals = BTreeMap::new();
    for (labels, n) in metrics.counted(names::REFUSALS).iter().filter(|(labels, _)| of_pool(labels)) {
        let code = labels.split_once(r#"code=""#).and_then(|(_, rest)| rest.split('"').next());
        *refusals.entry(code.unwrap_or_default().to_owned()).or_default() += n;
    }
    (picks.map(|(_, n)| n).sum(), refusals)
}

impl Live {
    /// The picker at this moment; a `pool` that is not one of several is as none.
    pub(super) fn of(pages: &Pages, pool: Option<&str>) -> Self {
        let state = pages.state.state();
        let pool = pool.filter(|pool| state.pools.contains_key(*pool));
        Self::new(state, pool, pages.state.decisions(pool, RECENT), &pages.metrics)
    }

    fn new(state: State, pool: Option<&str>, mut list: DecisionList, metrics: &MetricsHandle) -> Self {
        let recent = Recent::of(&list);
        list.decisions.truncate(LISTED);
        for Listed { summary, .. } in &mut list.decisions {
            shortened(&mut summary.target_model, MODEL_CHARS);
            shortened(&mut summary.request_id, ID_CHARS);
        }
        let (picks, refusals) = counted(metrics, pool);
        let only = state.only.map(|part| LivePool::only(state.ready, state.waiting_for.clone(), part));
        let several = state.pools.into_iter().map(|(name, part)| LivePool::one_of_several(name, pool, part));
        Self {
            pool: pool.map(str::to_owned),
            version: state.version,
            uptime_seconds: state.uptime_seconds,
            ready: state.ready,
            waiting_for: state.waiting_for,
            draining: state.draining,
            picks,
            refusals,
            recent,
            columns: COLUMNS,
            pools: only.into_iter().chain(several).collect(),
            decisions: list.decisions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::state::{PoolState, SampleState};
    use crate::director::decisions::Summary;
    use crate::readiness::Readiness;

    /// The largest answer to one request.
    const MOST_BYTES: usize = 200_000;

    fn summary(i: u32) -> Summary {
        Summary {
            request_id: format!("{i:0>36}"),
            age_ms: 123_456,
            target_model: "m".repeat(4000),
            prompt_tokens: 1000,
            took_us: 1234,
            chosen: Some(format!("{}/{}", "n".repeat(63), "e".repeat(253))),
            refused: None,
            status: Some(200),
            predicted_cached_tokens: Some(512),
            reported_cached_tokens: i.is_multiple_of(2).then_some(2000),
        }
    }

    fn endpoint(i: usize) -> EndpointState {
        let sample = SampleState {
            age_ms: 123_456,
            waiting: Some(1234),
            running: Some(4321),
            kv_usage: Some(1.0 / 3.0),
            block_tokens: Some(16),
            blocks: Some(1 << 20),
            lora_active: vec!["an-adapter".to_owned(); 20],
            lora_waiting: vec![],
        };
        EndpointState {
            key: format!("{}/{}-{i:03}", "n".repeat(63), "e".repeat(180)),
            address: "10.0.0.1:8000".to_owned(),
            metrics_address: "10.0.0.1:8000".to_owned(),
            role: "prefill-decode".to_owned(),
            engine: None,
            slot: 0,
            incarnation: 0,
            reading: "fresh",
            sample: Some(sample),
            in_flight_requests: 1234,
            in_flight_tokens: 123_456_789,
            suspect: i.is_multiple_of(2),
            suspect_reason: Some("scrapes_timed_out".to_owned()),
            models: Some(vec!["a-model".to_owned(); 20]),
        }
    }

    fn state(endpoints: usize) -> State {
        let pool = PoolState { endpoints: (0..endpoints).map(endpoint).collect(), ..PoolState::default() };
        State { only: Some(PoolPart { pool, ..PoolPart::default() }), ..State::of_process(&Readiness::new()) }
    }

    #[test]
    fn five_hundred_endpoints_with_long_names_fit_in_one_small_answer() {
        let decisions = (0..300).map(|i| Listed { pool: None, summary: summary(i) }).collect();
        let list = DecisionList { made: 300, decisions };
        let live = Live::new(state(500), None, list, &MetricsHandle::detached(false));
        let json = serde_json::to_string(&live).unwrap();
        println!("{} bytes at 500 endpoints", json.len());
        assert!(json.len() <= MOST_BYTES, "{} bytes", json.len());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let rows = json["pools"][0]["endpoints"].as_array().unwrap();
        assert_eq!((rows.len(), json["decisions"].as_array().unwrap().len()), (500, LISTED));
        assert!(rows.iter().all(|row| row.as_array().unwrap().len() == COLUMNS.len()));
        assert_eq!(
            (&rows[1][4], &rows[1][9], &rows[2][9]),
            (&0.333.into(), &serde_json::Value::Null, &"scrapes_timed_out".into())
        );
    }

    #[test]
    fn hit_rates_are_over_the_decisions_that_know_them() {
        let decisions = (0..2).map(|i| Listed { pool: None, summary: summary(i) }).collect();
        let recent = Recent::of(&DecisionList { made: 2, decisions });
        assert_eq!(recent.predicted, Hits { cached_tokens: 1024, of_tokens: 2000 });
        assert_eq!(recent.reported, Hits { cached_tokens: 1000, of_tokens: 1000 });
    }

    #[test]
    fn picks_and_refusals_are_those_of_all_pools() {
        let metrics = MetricsHandle::detached(false);
        for pool in ["a", "b"] {
            let metrics = metrics.of_pool(pool);
            metrics.counter(names::REFUSALS, &[("code", "Overload")]).increment(2);
            for status in ["success", "failure"] {
                metrics.counter(names::SCHEDULER_ATTEMPTS, &[("status", status)]).increment(3);
            }
        }
        let live = Live::new(state(1), None, DecisionList::default(), &metrics);
        assert_eq!((live.picks, &live.refusals), (6, &BTreeMap::from([("Overload".to_owned(), 4)])));
    }

    #[test]
    fn one_of_several_pools_is_shown_alone_with_the_others_in_short() {
        let metrics = MetricsHandle::detached(false);
        let mut pools = State::of_process(&Readiness::new());
        for (pool, endpoints) in [("a", 2), ("a,b", 3)] {
            let attempts = metrics.of_pool(pool).counter(names::SCHEDULER_ATTEMPTS, &[("status", "success")]);
            attempts.increment(endpoints as u64);
            let pool_state =
                PoolState { endpoints: (0..endpoints).map(endpoint).collect(), ..PoolState::default() };
            let part = PoolPart { pool: pool_state, ..PoolPart::default() };
            pools.pools.insert(pool.to_owned(), OnePool { part, ..OnePool::default() });
        }
        let live = Live::new(pools, Some("a"), DecisionList::default(), &metrics);
        let rows: Vec<_> = live.pools.iter().map(|p| (p.size, p.endpoints.as_ref().map(Vec::len))).collect();
        assert_eq!((live.picks, rows), (2, vec![(2, Some(2)), (3, None)]));
    }

    #[test]
    fn the_page_holds_nothing_of_others_and_writes_only_text() {
        assert!(PAGE.contains(STYLE) && PAGE.contains(SCRIPT));
        for word in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "http://", "https://", "eval("]
        {
            assert!(!PAGE.contains(word), "{word}");
        }
        assert!(POLICY.starts_with("default-src 'none'; style-src 'sha256-"), "{}", *POLICY);
        assert!(POLICY.contains("script-src 'sha256-") && !POLICY.contains("unsafe"), "{}", *POLICY);
    }

    #[test]
    fn names_that_clients_choose_are_cut() {
        let mut text = "ä".repeat(81);
        shortened(&mut text, 80);
        assert_eq!((text.chars().count(), text.ends_with('…')), (81, true));
    }
}
