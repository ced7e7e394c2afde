//! `token-load-scorer`: fewer tokens in flight, this request's own uncached ones included, are better.
//!
//! `1 - min(t, threshold) / threshold` with `t` = tokens in flight as this process counts them + tokens of this prompt
//! that the endpoint would have to compute.
//!
//! ```yaml
//! - type: token-load-scorer
//!   parameters:
//!     queueThresholdTokens: 4194304   # 0 or less means the default
//!     inFlightLoadProducerName: inflight-load-producer
//! ```

use crate::plugin::{
    BuildContext, BuildError, Cycle, PluginType, Roles, Score, Scorer, Scores, Shortlist, Stability,
    TokenCosts,
};
use crate::pool::AttributeId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "token-load-scorer", stability: Stability::Beta, build };

const DEFAULT_THRESHOLD: u32 = 4_194_304;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    queue_threshold_tokens: i64,
    #[serde(default)]
    in_flight_load_producer_name: String,
}

struct TokenLoadScorer {
    threshold: f64,
    costs: AttributeId<TokenCosts>,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let threshold = match written.queue_threshold_tokens {
        ..=0 => DEFAULT_THRESHOLD,
        positive => u32::try_from(positive).unwrap_or(u32::MAX),
    };
    ctx.in_force("queueThresholdTokens", threshold);
    let producer = &written.in_flight_load_producer_name;
    let producer = ctx.producer("inFlightLoadProducerName", producer, TokenCosts::PRODUCER);
    let costs = ctx.consumes(TokenCosts::KIND, Some(producer), TokenCosts::PRODUCER);
    ctx.reads_responses("counts the tokens of a prompt until its answer ends, not only until the first byte");
    Ok(Roles {
        scorer: Some(Arc::new(TokenLoadScorer { threshold: f64::from(threshold), costs })),
        ..Roles::default()
    })
}

impl Scorer for TokenLoadScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        let costs = cycle.candidates.attributes.get(self.costs);
        for (i, p) in shortlist.positions().iter().enumerate() {
            let own = costs.and_then(|c| c.uncached(*p)).unwrap_or(0);
            #[allow(clippy::cast_precision_loss, reason = "far below 2^53 tokens")]
            let tokens = cycle.candidates.in_flight_tokens(*p) as f64 + f64::from(own);
            scores.set(i, Score::new(1.0 - tokens.min(self.threshold) / self.threshold));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::plugin::{AttributeTable, StateStore};
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, assert_scores, build, build_in, freeze, request, score_with};
    use serde_json::json;

    fn score(in_flight: &[u32], uncached: Option<Vec<u32>>) -> Vec<f64> {
        let mut table = AttributeTable::default();
        let parameters = json!({"queueThresholdTokens": 1000});
        let roles =
            build_in(&TYPE, parameters, &StateStore::default(), &Clock::manual(), &mut table).unwrap();
        let rows: Vec<_> =
            in_flight.iter().map(|t| Row { in_flight: 1, tokens: *t, ..Row::default() }).collect();
        let mut candidates = freeze(&rows);
        if let Some(uncached) = uncached {
            candidates.attributes.set(AttributeId::new(0), TokenCosts { uncached, output: None });
        }
        score_with(&*roles.scorer.unwrap(), &request("m", Prompt::None), &candidates)
    }

    #[test]
    fn loads_of_the_catalogue() {
        assert_scores(&score(&[0, 500, 1000, 2000], None), &[1.0, 0.5, 0.0, 0.0]);
        assert_scores(&score(&[0, 250, 750, 0], Some(vec![250, 250, 250])), &[0.75, 0.5, 0.0, 1.0]);
    }

    #[test]
    fn a_threshold_of_nothing_is_the_default_and_others_are_refused() {
        assert!(build(&TYPE, json!({"queueThresholdTokens": -1})).is_ok());
        assert!(build(&TYPE, json!({"queueThresholdTokens": "many"})).is_err());
        assert!(build(&TYPE, json!({"threshold": 1})).is_err());
    }
}
