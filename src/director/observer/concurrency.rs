//! `concurrency-detector`: how full the pool is, by the requests and tokens that this process has in flight.
//!
//! With `requests` or `tokens` the saturation is what is in flight over the capacity of all endpoints together; with
//! `hybrid` the mean over the endpoints of the larger of both shares. A pool without endpoints is full. These counts are
//! exact at once and need no metrics; what other replicas have in flight they do not know.
//!
//! As a filter it keeps endpoints below their capacity times `1 + headroom`, which may leave none.
//!
//! ```yaml
//! - type: concurrency-detector
//!   parameters:
//!     concurrencyMode: requests          # requests, tokens or hybrid
//!     maxConcurrency: 100                # requests of one endpoint
//!     maxTokenConcurrency: 1000000       # tokens of one endpoint
//!     headroom: 0
//!     inFlightLoadProducerName: inflight-load-producer   # accepted, without effect
//! ```

use crate::plugin::{
    AdmissionView, BuildContext, BuildError, Cycle, Filter, PluginType, Roles, SaturationDetector, Shortlist,
    Stability, TokenCosts, Verdict,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "concurrency-detector", stability: Stability::Beta, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    max_concurrency: i64,
    headroom: f64,
    concurrency_mode: Mode,
    max_token_concurrency: i64,
    in_flight_load_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            max_concurrency: 100,
            headroom: 0.0,
            concurrency_mode: Mode::Requests,
            max_token_concurrency: 1_000_000,
            in_flight_load_producer_name: String::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Requests,
    Tokens,
    Hybrid,
}

struct ConcurrencyDetector {
    mode: Mode,
    requests: f64,
    tokens: f64,
    headroom: f64,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    ctx.producer("inFlightLoadProducerName", &written.in_flight_load_producer_name, TokenCosts::PRODUCER);
    let positive = |field: &str, value: i64| match u32::try_from(value) {
        Ok(value) if value > 0 => Ok(f64::from(value)),
        _ => Err(BuildError::Parameters(format!("`{field}` must be greater than 0, and below 2^32"))),
    };
    if !(written.headroom.is_finite() && written.headroom >= 0.0) {
        return Err(BuildError::Parameters("`headroom` must be 0 or more".to_owned()));
    }
    if written.headroom > 1.0 {
        tracing::warn!(plugin = %ctx.name, "a headroom of {} more than doubles the capacity", written.headroom);
    }
    let detector = Arc::new(ConcurrencyDetector {
        mode: written.concurrency_mode,
        requests: positive("maxConcurrency", written.max_concurrency)?,
        tokens: positive("maxTokenConcurrency", written.max_token_concurrency)?,
        headroom: written.headroom,
    });
    if written.concurrency_mode != Mode::Requests {
        ctx.reads_responses(
            "counts the tokens of a prompt until its answer ends, not only until the first byte",
        );
    }
    Ok(Roles {
        saturation: Some(Arc::clone(&detector) as Arc<dyn SaturationDetector>),
        filter: Some(detector),
        ..Roles::default()
    })
}

impl ConcurrencyDetector {
    /// The share of one endpoint's capacity that is in use.
    fn load(&self, requests: u32, tokens: u64) -> f64 {
        let by_requests = f64::from(requests) / self.requests;
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53 tokens")]
        let by_tokens = tokens as f64 / self.tokens;
        match self.mode {
            Mode::Requests => by_requests,
            Mode::Tokens => by_tokens,
            Mode::Hybrid => by_requests.max(by_tokens),
        }
    }
}

impl SaturationDetector for ConcurrencyDetector {
    /// All endpoints have the same capacity, so the sum over the capacity of all is the mean of the shares.
    fn saturation(&self, view: &AdmissionView<'_>) -> Verdict {
        let endpoints = &view.pool.endpoints;
        let loads = endpoints.iter().map(|e| e.live.load());
        let sum: f64 = loads.map(|load| self.load(load.requests, load.tokens)).sum();
        #[allow(clippy::cast_precision_loss, reason = "a number of endpoints")]
        let saturation = if endpoints.is_empty() { 1.0 } else { sum / endpoints.len() as f64 };
        Verdict { saturation, stale_endpoints: 0 }
    }
}

impl Filter for ConcurrencyDetector {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        let all = cycle.candidates;
        let load = |p| self.load(all.in_flight_requests(p), all.in_flight_tokens(p));
        shortlist.retain(|p| load(p) < 1.0 + self.headroom);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::producer::testing::{Fixture, request};
    use crate::endpoint::{Cost, Reservation, ReservationRole};
    use crate::plugin::ProfileRuns;
    use crate::request::Prompt;
    use serde_json::{Value, json};
    use std::time::Duration;

    /// The saturation of a pool, and what the filter keeps of it, with these requests and tokens in flight.
    fn look(parameters: Value, pods: &[(u32, u32)]) -> (f64, Vec<u32>) {
        let fixture = Fixture::new();
        let roles = fixture.build(&TYPE, parameters).unwrap();
        let pool = fixture.resize(u16::try_from(pods.len()).unwrap());
        let mut held = Vec::new();
        for ((requests, tokens), endpoint) in pods.iter().zip(&pool.endpoints) {
            for i in 0..*requests {
                let until_end = if i == 0 { *tokens } else { 0 };
                let cost = Cost { until_first_byte: 0, until_end };
                held.push(Reservation::new(Arc::clone(endpoint), ReservationRole::Decode, cost));
            }
        }
        let now = fixture.clock.now();
        let view = AdmissionView { pool: &pool, now, poll_allowance: Duration::ZERO };
        let saturation = roles.saturation.unwrap().saturation(&view).saturation;
        let (candidates, done) = (fixture.freeze(Arc::clone(&pool)), ProfileRuns::default());
        let request = request("m", Prompt::None);
        let cycle = Cycle {
            request: &request,
            candidates: &candidates,
            profile: "default",
            done: &done,
            shadow: false,
        };
        let mut shortlist = Shortlist::all(&candidates);
        roles.filter.unwrap().filter(&cycle, &mut shortlist);
        (saturation, shortlist.positions().iter().map(|p| p.0).collect())
    }

    #[test]
    fn saturations_of_the_catalogue() {
        let requests = || json!({"maxConcurrency": 10});
        let tokens = || json!({"concurrencyMode": "tokens", "maxTokenConcurrency": 100});
        let hybrid =
            || json!({"concurrencyMode": "hybrid", "maxConcurrency": 10, "maxTokenConcurrency": 100});
        let cases = [
            (requests(), vec![], 1.0),
            (requests(), vec![(0, 0)], 0.0),
            (requests(), vec![(5, 0)], 0.5),
            (requests(), vec![(10, 0)], 1.0),
            (requests(), vec![(10, 0), (0, 0)], 0.5),
            (requests(), vec![(15, 0), (5, 0)], 1.0),
            (requests(), vec![(15, 0), (15, 0)], 1.5),
            (tokens(), vec![(1, 3)], 0.03),
            (tokens(), vec![(1, 50)], 0.5),
            (tokens(), vec![(1, 100)], 1.0),
            (tokens(), vec![(1, 50), (0, 0)], 0.25),
            (hybrid(), vec![(2, 80)], 0.8),
            (hybrid(), vec![(9, 10)], 0.9),
            (hybrid(), vec![(10, 5)], 1.0),
            (hybrid(), vec![(10, 0), (1, 100)], 1.0),
            (hybrid(), vec![(10, 0), (0, 0)], 0.5),
        ];
        for (parameters, pods, wanted) in cases {
            let got = look(parameters.clone(), &pods).0;
            assert!((got - wanted).abs() < 1e-9, "{parameters} {pods:?}: {got}");
        }
    }

    #[test]
    fn the_filter_of_the_catalogue() {
        let requests = json!({"maxConcurrency": 50, "headroom": 0.2});
        assert_eq!(look(requests.clone(), &[(59, 0), (60, 0)]).1, [0]);
        assert!(look(requests, &[(60, 0)]).1.is_empty());
        let tokens = json!({"concurrencyMode": "tokens", "maxTokenConcurrency": 100, "headroom": 0.2});
        assert_eq!(look(tokens, &[(1, 110), (1, 120)]).1, [0]);
    }

    #[test]
    fn parameters_that_are_refused() {
        let fixture = Fixture::new();
        for parameters in [
            json!({"maxConcurrency": 0}),
            json!({"maxTokenConcurrency": 0}),
            json!({"headroom": -0.5}),
            json!({"concurrencyMode": "magic"}),
        ] {
            assert!(fixture.build(&TYPE, parameters.clone()).is_err(), "{parameters}");
        }
        assert!(fixture.build(&TYPE, json!({"headroom": 2})).is_ok());
    }
}
