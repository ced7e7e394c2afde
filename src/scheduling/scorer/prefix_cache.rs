//! `prefix-cache-scorer`: the more of the prompt an endpoint holds in its prefix cache, the better.
//!
//! `ratio = matched / total` blocks; with `matchLengthWeight` w also how long the match is by itself,
//! `length = min(1, matched * block tokens / matchLengthScaleTokens)²`: `w * length + (1 - w) * ratio`. An endpoint of
//! which nothing is known gets 0.
//!
//! ```yaml
//! - type: prefix-cache-scorer
//!   parameters:
//!     prefixMatchInfoProducerName: approx-prefix-cache-producer
//!     matchLengthWeight: 0
//!     matchLengthScaleTokens: 8192
//! ```

use crate::plugin::{
    BuildContext, BuildError, Cycle, PluginType, PrefixMatches, Roles, Score, Scorer, Scores, Shortlist,
    Stability,
};
use crate::pool::AttributeId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "prefix-cache-scorer", stability: Stability::Beta, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    prefix_match_info_producer_name: String,
    match_length_weight: f64,
    match_length_scale_tokens: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            prefix_match_info_producer_name: String::new(),
            match_length_weight: 0.0,
            match_length_scale_tokens: 8192.0,
        }
    }
}

struct PrefixCacheScorer {
    matches: AttributeId<PrefixMatches>,
    weight: f64,
    scale: f64,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let (weight, scale) = (written.match_length_weight, written.match_length_scale_tokens);
    if !(0.0..=1.0).contains(&weight) {
        return Err(BuildError::Parameters(format!("`matchLengthWeight` must be from 0 to 1, not {weight}")));
    }
    if weight > 0.0 && !(scale.is_finite() && scale > 0.0) {
        return Err(BuildError::Parameters(
            "`matchLengthScaleTokens` must be greater than 0 when `matchLengthWeight` is".to_owned(),
        ));
    }
    let producer = &written.prefix_match_info_producer_name;
    let producer = ctx.producer("prefixMatchInfoProducerName", producer, PrefixMatches::PRODUCER);
    let matches = ctx.consumes(PrefixMatches::KIND, Some(producer), PrefixMatches::PRODUCER);
    Ok(Roles { scorer: Some(Arc::new(PrefixCacheScorer { matches, weight, scale })), ..Roles::default() })
}

impl Scorer for PrefixCacheScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        let Some(matches) = cycle.candidates.attributes.get(self.matches) else { return };
        if matches.total_blocks == 0 {
            return;
        }
        for (i, p) in shortlist.positions().iter().enumerate() {
            let tokens = f64::from(matches.matched(*p)) * f64::from(matches.block_tokens);
            let length = if self.weight > 0.0 { (tokens / self.scale).min(1.0).powi(2) } else { 0.0 };
            scores.set(i, Score::new(self.weight * length + (1.0 - self.weight) * matches.ratio(*p)));
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

    fn score(parameters: serde_json::Value, matched: &[u32], total_blocks: u32) -> Vec<f64> {
        let mut table = AttributeTable::default();
        let roles =
            build_in(&TYPE, parameters, &StateStore::default(), &Clock::manual(), &mut table).unwrap();
        let mut candidates = freeze(&vec![Row::default(); matched.len()]);
        let matches = PrefixMatches {
            total_blocks,
            block_tokens: 1,
            matched_blocks: matched.to_vec(),
            chains: Default::default(),
        };
        candidates.attributes.set(AttributeId::new(0), matches);
        score_with(&*roles.scorer.unwrap(), &request("m", Prompt::None), &candidates)
    }

    #[test]
    fn matches_of_the_catalogue() {
        assert_scores(&score(json!({}), &[5, 2, 0], 10), &[0.5, 0.2, 0.0]);
        let half = json!({"matchLengthWeight": 0.5, "matchLengthScaleTokens": 100});
        assert_scores(&score(half.clone(), &[5], 10), &[0.25125]);
        assert_scores(&score(half, &[50], 100), &[0.375]);
        assert_scores(&score(json!({}), &[0, 0], 0), &[0.0, 0.0]);
    }

    #[test]
    fn parameters_that_are_refused() {
        for parameters in [
            json!({"matchLengthWeight": -0.1}),
            json!({"matchLengthWeight": 1.1}),
            json!({"matchLengthWeight": 0.5, "matchLengthScaleTokens": 0}),
            json!({"hashBlockSize": 64}),
        ] {
            assert!(build(&TYPE, parameters.clone()).is_err(), "{parameters}");
        }
        assert!(build(&TYPE, json!({"matchLengthWeight": 0.5})).is_ok());
    }
}
