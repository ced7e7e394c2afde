//! `prefix-cache-affinity-filter`: keeps the endpoints that hold most of the prompt in their prefix cache, unless they
//! are so loaded that the first token would come much sooner elsewhere.
//!
//! Endpoints whose matched share of the prompt's blocks reaches `affinityThreshold` are *sticky*; without any, all are
//! kept. With `explorationProbability` all are kept at random, so that others warm up too. When `maxTTFTPenaltyMs` is
//! over 0 and the best sticky endpoint's first token is expected more than that later than the best other one's, all
//! are kept; otherwise only the sticky ones. The expected time is `tokens in flight / peakPrefillThroughput`, with the
//! tokens as this process counts them.
//!
//! Predicted times (`ttftSource: latencyPredictor`) are not part of this release: that value is accepted with a
//! warning, and without predictions stickiness is never broken. The random number follows from the request's id, so
//! that a replay decides alike.
//!
//! ```yaml
//! - type: prefix-cache-affinity-filter
//!   parameters:
//!     affinityThreshold: 0.8             # share of blocks, at most 1; 0 or less keeps all
//!     explorationProbability: 0          # 0 to 1
//!     maxTTFTPenaltyMs: 18000            # milliseconds; 0 never breaks stickiness
//!     ttftSource: prefillThroughput      # or latencyPredictor
//!     peakPrefillThroughput: 15928       # tokens per second of one endpoint
//!     prefixMatchInfoProducerName: approx-prefix-cache-producer
//!     inFlightLoadProducerName: inflight-load-producer
//!     latencyPredictionInfoProducerName: ""   # accepted, without effect in this release
//! ```

use crate::plugin::{
    BuildContext, BuildError, Cycle, Filter, PluginType, PrefixMatches, Roles, Shortlist, Stability,
    TokenCosts,
};
use crate::pool::{AttributeId, Position};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use xxhash_rust::xxh64::xxh64;

pub(super) const TYPE: PluginType =
    PluginType { name: "prefix-cache-affinity-filter", stability: Stability::Beta, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    affinity_threshold: f64,
    exploration_probability: f64,
    #[serde(rename = "maxTTFTPenaltyMs")]
    max_ttft_penalty_ms: f64,
    ttft_source: TtftSource,
    peak_prefill_throughput: f64,
    prefix_match_info_producer_name: String,
    #[serde(rename = "inFlightLoadProducerName")]
    load_producer: String,
    #[serde(rename = "latencyPredictionInfoProducerName")]
    _latency_producer: String,
}

#[derive(Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum TtftSource {
    PrefillThroughput,
    LatencyPredictor,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            affinity_threshold: 0.8,
            exploration_probability: 0.0,
            max_ttft_penalty_ms: 18_000.0,
            ttft_source: TtftSource::PrefillThroughput,
            peak_prefill_throughput: 15_928.0,
            prefix_match_info_producer_name: String::new(),
            load_producer: String::new(),
            _latency_producer: String::new(),
        }
    }
}

struct PrefixCacheAffinityFilter {
    matches: AttributeId<PrefixMatches>,
    threshold: f64,
    exploration: f64,
    /// Most tokens in flight that the best sticky endpoint may have above the best other one.
    most_tokens_ahead: Option<f64>,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let most_tokens_ahead = written.check()?;
    if written.ttft_source == TtftSource::LatencyPredictor && written.max_ttft_penalty_ms > 0.0 {
        ctx.notice(
            "ttftSource latencyPredictor: this release predicts no latencies, so maxTTFTPenaltyMs has no effect",
        );
    }
    let producer = &written.prefix_match_info_producer_name;
    let producer = ctx.producer("prefixMatchInfoProducerName", producer, PrefixMatches::PRODUCER);
    ctx.producer("inFlightLoadProducerName", &written.load_producer, TokenCosts::PRODUCER);
    let filter = PrefixCacheAffinityFilter {
        matches: ctx.consumes(PrefixMatches::KIND, Some(producer), PrefixMatches::PRODUCER),
        threshold: written.affinity_threshold,
        exploration: written.exploration_probability,
        most_tokens_ahead,
    };
    Ok(Roles { filter: Some(Arc::new(filter)), ..Roles::default() })
}

impl Parameters {
    /// Checks the parameters; gives the penalty in tokens when there is one.
    fn check(&self) -> Result<Option<f64>, BuildError> {
        let refuse = |told: &str| Err(BuildError::Parameters(told.to_owned()));
        let (penalty, throughput) = (self.max_ttft_penalty_ms, self.peak_prefill_throughput);
        if self.affinity_threshold.is_nan() || self.affinity_threshold > 1.0 {
            return refuse("`affinityThreshold` must be at most 1");
        }
        if !(0.0..=1.0).contains(&self.exploration_probability) {
            return refuse("`explorationProbability` must be from 0 to 1");
        }
        if !(throughput.is_finite() && throughput >= 0.0) {
            return refuse("`peakPrefillThroughput` must be 0 or more");
        }
        if !(penalty.is_finite() && penalty >= 0.0) {
            return refuse("`maxTTFTPenaltyMs` must be 0 or more");
        }
        if penalty == 0.0 || self.ttft_source == TtftSource::LatencyPredictor {
            return Ok(None);
        }
        if throughput == 0.0 {
            return refuse("`peakPrefillThroughput` must be greater than 0 when `maxTTFTPenaltyMs` is");
        }
        Ok(Some(penalty / 1000.0 * throughput))
    }
}

impl PrefixCacheAffinityFilter {
    fn explores(&self, request_id: &str) -> bool {
        if self.exploration <= 0.0 {
            return false;
        }
        // 53 bits: every value is exact in an f64.
        #[allow(clippy::cast_precision_loss, reason = "53 bits")]
        let drawn = (xxh64(request_id.as_bytes(), 0x70_72_65_66) >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < self.exploration
    }

    /// Whether the sticky endpoints are too busy to insist on them.
    fn too_busy(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, sticky: impl Fn(Position) -> bool) -> bool {
        let Some(most) = self.most_tokens_ahead else { return false };
        let least = |wanted: bool| {
            let those = shortlist.positions().iter().filter(|p| sticky(**p) == wanted);
            those.map(|p| cycle.candidates.in_flight_tokens(*p)).min()
        };
        let (Some(sticky), Some(other)) = (least(true), least(false)) else { return false };
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53 tokens")]
        let ahead = sticky as f64 - other as f64;
        ahead > most
    }
}

impl Filter for PrefixCacheAffinityFilter {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        let Some(matches) = cycle.candidates.attributes.get(self.matches) else { return };
        if shortlist.len() <= 1 || self.threshold <= 0.0 || self.explores(&cycle.request.id) {
            return;
        }
        let sticky = |p| matches.ratio(p) >= self.threshold;
        if !shortlist.positions().iter().any(|p| sticky(*p)) || self.too_busy(cycle, shortlist, sticky) {
            return;
        }
        shortlist.retain(sticky);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::plugin::{AttributeTable, ProfileRuns, StateStore};
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, build, build_in, freeze, request};
    use serde_json::{Value, json};

    /// Endpoints with their matched blocks of 100 and their tokens in flight.
    fn keeps(parameters: Value, pods: &[(u32, u32)]) -> Vec<u32> {
        let mut table = AttributeTable::default();
        let roles =
            build_in(&TYPE, parameters, &StateStore::default(), &Clock::manual(), &mut table).unwrap();
        let rows: Vec<_> =
            pods.iter().map(|(_, tokens)| Row { in_flight: 1, tokens: *tokens, ..Row::default() }).collect();
        let mut candidates = freeze(&rows);
        let matches = PrefixMatches {
            total_blocks: 100,
            block_tokens: 1,
            matched_blocks: pods.iter().map(|(matched, _)| *matched).collect(),
            chains: Default::default(),
        };
        candidates.attributes.set(AttributeId::new(0), matches);
        let (request, done) = (request("m", Prompt::None), ProfileRuns::default());
        let cycle = Cycle {
            request: &request,
            candidates: &candidates,
            profile: "default",
            done: &done,
            shadow: false,
        };
        let mut shortlist = Shortlist::all(&candidates);
        roles.filter.unwrap().filter(&cycle, &mut shortlist);
        shortlist.positions().iter().map(|p| p.0).collect()
    }

    #[test]
    fn matches_of_the_catalogue() {
        let gate = |penalty| json!({"peakPrefillThroughput": 1000, "maxTTFTPenaltyMs": penalty});
        let cases = [
            (json!({}), vec![(10, 0), (20, 0), (50, 0)], vec![0, 1, 2]),
            (json!({}), vec![(90, 100), (85, 120), (10, 50)], vec![0, 1]),
            (json!({"ttftSource": "latencyPredictor"}), vec![(90, 0), (85, 0), (10, 0)], vec![0, 1]),
            (gate(100), vec![(90, 500), (10, 50)], vec![0, 1]),
            (gate(1000), vec![(90, 500), (10, 50)], vec![0]),
            (gate(0), vec![(90, 500), (10, 50)], vec![0]),
            (json!({"affinityThreshold": 0}), vec![(90, 0), (10, 0)], vec![0, 1]),
            (json!({"affinityThreshold": -1}), vec![(90, 0), (10, 0)], vec![0, 1]),
            (json!({"explorationProbability": 1}), vec![(90, 0), (10, 0)], vec![0, 1]),
            (json!({}), vec![(10, 0)], vec![0]),
        ];
        for (parameters, pods, wanted) in cases {
            assert_eq!(keeps(parameters.clone(), &pods), wanted, "{parameters} {pods:?}");
        }
    }

    #[test]
    fn it_explores_as_often_as_it_is_told() {
        let filter = PrefixCacheAffinityFilter {
            matches: AttributeId::new(0),
            threshold: 0.8,
            exploration: 0.2,
            most_tokens_ahead: None,
        };
        let explored = (0..10_000).filter(|i| filter.explores(&format!("request-{i}"))).count();
        assert!((1800..2200).contains(&explored), "{explored}");
    }

    #[test]
    fn parameters_of_the_catalogue() {
        let refused = [
            json!({"affinityThreshold": 1.5}),
            json!({"explorationProbability": -0.1}),
            json!({"peakPrefillThroughput": -1}),
            json!({"peakPrefillThroughput": 0}),
            json!({"ttftSource": "bogus"}),
            json!({"ttftSource": ""}),
            json!({"threshold": 1}),
        ];
        for parameters in refused {
            assert!(build(&TYPE, parameters.clone()).is_err(), "{parameters}");
        }
        for parameters in [
            json!({"peakPrefillThroughput": 0, "maxTTFTPenaltyMs": 0}),
            json!({"peakPrefillThroughput": 0, "ttftSource": "latencyPredictor"}),
        ] {
            assert!(build(&TYPE, parameters.clone()).is_ok(), "{parameters}");
        }
    }
}
