//! `inflight-load-producer`: what a request costs on each candidate, in tokens.
//!
//! The counting itself is a [`crate::endpoint::Reservation`], which the director makes for each target with the
//! cost of this model. The prompt's cost is what the candidate does not hold in its cache already:
//! `(total - matched) * block + max(0, input - total * block)`, never more than the prompt; without prefix data the
//! whole prompt. It is given back at the first byte of the answer. With `addEstimatedOutputTokens` the answer counts
//! too, `min(round(input * outputRatio), maxEstimatedOutputTokens, the client's cap)`, and everything is given back at the end.
//!
//! ```yaml
//! - type: inflight-load-producer
//!   parameters:
//!     addEstimatedOutputTokens: false
//!     outputRatio: 1.5
//!     maxEstimatedOutputTokens: 1000             # no operator's cap when left out
//!     prefixMatchInfoProducerName: approx-prefix-cache-producer
//!     syncCrossReplicaState: true                # accepted, without effect in this release
//! ```

use crate::endpoint::{Cost, ReservationRole};
use crate::plugin::{
    BuildContext, BuildError, CostModel, DataProducer, PluginType, PrefixMatches, ProduceError, Roles,
    Stability, TokenCosts,
};
use crate::pool::{AttributeId, Candidates, Position};
use crate::request::InferenceRequest;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: TokenCosts::PRODUCER, stability: Stability::Beta, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    add_estimated_output_tokens: bool,
    #[serde(default = "default_ratio")]
    output_ratio: f64,
    max_estimated_output_tokens: Option<i64>,
    #[serde(default)]
    prefix_match_info_producer_name: String,
    sync_cross_replica_state: Option<bool>,
}

fn default_ratio() -> f64 {
    1.5
}

struct InflightLoad {
    output: Option<OutputEstimate>,
    prefix: AttributeId<PrefixMatches>,
    costs: AttributeId<TokenCosts>,
}

/// How long answers are taken to be.
#[derive(Clone, Copy, Debug)]
struct OutputEstimate {
    ratio: f64,
    most: Option<u32>,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let parameters: Parameters = ctx.settings()?;
    let ratio = parameters.output_ratio;
    if !(ratio.is_finite() && ratio >= 0.0) {
        return Err(BuildError::Parameters(format!("`outputRatio` must be 0 or more, not {ratio}")));
    }
    let most = parameters.max_estimated_output_tokens.map(u32::try_from).transpose().map_err(|_| {
        BuildError::Parameters("`maxEstimatedOutputTokens` must be from 0 to 4294967295".to_owned())
    })?;
    let named = &parameters.prefix_match_info_producer_name;
    let producer = ctx.producer("prefixMatchInfoProducerName", named, PrefixMatches::PRODUCER);
    ctx.in_force("syncCrossReplicaState", parameters.sync_cross_replica_state.unwrap_or(true));
    let producer = InflightLoad {
        output: parameters.add_estimated_output_tokens.then_some(OutputEstimate { ratio, most }),
        prefix: ctx.consumes_if_there(PrefixMatches::KIND, producer),
        costs: ctx.produces(TokenCosts::KIND),
    };
    let producer = Arc::new(producer);
    Ok(Roles {
        producer: Some(Arc::clone(&producer) as Arc<dyn DataProducer>),
        cost: Some(producer),
        ..Roles::default()
    })
}

impl OutputEstimate {
    fn tokens(self, input: u32, clients_cap: Option<u32>) -> u32 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates")]
        let by_ratio = (f64::from(input) * self.ratio).round() as u32;
        by_ratio.min(self.most.unwrap_or(u32::MAX)).min(clients_cap.unwrap_or(u32::MAX))
    }
}

/// Tokens of a prompt of `input` tokens that must be computed at `p`.
fn uncached(input: u32, matches: &PrefixMatches, p: Position) -> u32 {
    let block = u64::from(matches.block_tokens);
    let missing = u64::from(matches.total_blocks.saturating_sub(matches.matched(p))) * block;
    let beyond = u64::from(input).saturating_sub(u64::from(matches.total_blocks) * block);
    u32::try_from(missing + beyond).unwrap_or(u32::MAX).min(input)
}

impl DataProducer for InflightLoad {
    fn produce(&self, request: &InferenceRequest, candidates: &mut Candidates) -> Result<(), ProduceError> {
        let input = request.prompt_tokens();
        let mut costs = candidates.attributes.spare(self.costs);
        let matches = candidates.attributes.get(self.prefix);
        costs.uncached.clear();
        costs
            .uncached
            .extend(candidates.positions().map(|p| matches.map_or(input, |m| uncached(input, m, p))));
        costs.output = self.output.map(|o| o.tokens(input, request.parsed.max_output_tokens));
        candidates.attributes.set(self.costs, costs);
        Ok(())
    }
}

impl CostModel for InflightLoad {
    fn cost(
        &self,
        request: &InferenceRequest,
        candidates: &Candidates,
        p: Position,
        role: ReservationRole,
    ) -> Cost {
        cost(request, candidates.attributes.get(self.costs), p, role)
    }
}

/// What `request` costs at `p`; without [`TokenCosts`] its whole prompt. A prefill or encode endpoint is done, and all
/// of its cost given back, when the first byte of the answer comes.
fn cost(request: &InferenceRequest, costs: Option<&TokenCosts>, p: Position, role: ReservationRole) -> Cost {
    let prompt = costs.and_then(|c| c.uncached(p)).unwrap_or_else(|| request.prompt_tokens());
    let Some(output) = costs.and_then(|c| c.output) else {
        return Cost { until_first_byte: prompt, until_end: 0 };
    };
    let all = prompt.saturating_add(output);
    match role {
        ReservationRole::Decode => Cost { until_first_byte: 0, until_end: all },
        ReservationRole::Prefill | ReservationRole::Encode => Cost { until_first_byte: all, until_end: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, request};
    use super::*;
    use crate::request::Prompt;
    use serde_json::json;

    const HERE: Position = Position(0);

    fn tokens(n: usize) -> InferenceRequest {
        request("m", Prompt::Tokens(vec![vec![7; n]]))
    }

    fn matches(matched: u32, total_blocks: u32, block_tokens: u32) -> PrefixMatches {
        PrefixMatches {
            total_blocks,
            block_tokens,
            matched_blocks: vec![matched],
            chains: Default::default(),
        }
    }

    #[test]
    fn prompt_costs_of_the_catalogue() {
        let table =
            [(8, (1, 2, 4), 4), (8, (2, 2, 4), 0), (8, (0, 2, 4), 8), (5, (1, 2, 4), 4), (9, (0, 0, 64), 9)];
        for (input, (matched, total, block), wanted) in table {
            assert_eq!(uncached(input, &matches(matched, total, block), HERE), wanted);
        }
    }

    #[test]
    fn answers_of_the_catalogue() {
        let estimate = |most| OutputEstimate { ratio: 1.5, most };
        for (input, wanted) in [(0, 0), (1, 3), (10, 25)] {
            assert_eq!(input + estimate(None).tokens(input, None), wanted);
        }
        assert_eq!(10 + estimate(None).tokens(10, Some(3)), 13);
        let caps = [
            (None, Some(50), 50),
            (None, Some(500), 150),
            (None, Some(0), 0),
            (None, None, 150),
            (Some(40), None, 40),
            (Some(80), Some(30), 30),
            (Some(500), Some(500), 150),
        ];
        for (operator, client, wanted) in caps {
            assert_eq!(estimate(operator).tokens(100, client), wanted, "{operator:?} {client:?}");
        }
    }

    #[test]
    fn costs_and_when_they_are_given_back() {
        let request = tokens(4);
        let with = |output| TokenCosts { uncached: vec![4], output };
        let of = |costs: Option<&TokenCosts>, role| {
            let cost = cost(&request, costs, HERE, role);
            (cost.until_first_byte, cost.until_end)
        };
        assert_eq!(of(None, ReservationRole::Decode), (4, 0));
        assert_eq!(of(Some(&with(None)), ReservationRole::Decode), (4, 0));
        assert_eq!(of(Some(&with(Some(6))), ReservationRole::Decode), (0, 10));
        assert_eq!(of(Some(&with(Some(6))), ReservationRole::Prefill), (10, 0));
    }

    #[test]
    fn the_producer_reads_matches_and_writes_costs() {
        let fixture = Fixture::new();
        let mut candidates = fixture.candidates(2);
        let roles = fixture
            .build(&TYPE, json!({"addEstimatedOutputTokens": true, "prefixMatchInfoProducerName": "p"}))
            .unwrap();
        let (prefix, costs) =
            (fixture.attribute(PrefixMatches::KIND, "p"), fixture.attribute(TokenCosts::KIND, TYPE.name));
        let mut found = matches(2, 2, 4);
        found.matched_blocks.push(1);
        candidates.attributes.set(prefix, found);
        roles.producer.unwrap().produce(&tokens(8), &mut candidates).unwrap();
        let wanted = TokenCosts { uncached: vec![0, 4], output: Some(12) };
        assert_eq!(candidates.attributes.get(costs), Some(&wanted));
    }

    #[test]
    fn parameters_that_are_refused() {
        let fixture = Fixture::new();
        for parameters in
            [json!({"outputRatio": -1}), json!({"maxEstimatedOutputTokens": -1}), json!({"ratio": 1})]
        {
            assert!(fixture.build(&TYPE, parameters.clone()).is_err(), "{parameters}");
        }
        assert!(fixture.build(&TYPE, json!({"outputRatio": 0})).is_ok());
    }
}
