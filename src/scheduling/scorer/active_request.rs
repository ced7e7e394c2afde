//! `active-request-scorer`: fewer requests in flight, as this process counts them, are better.
//!
//! 1 for an endpoint with at most `idleThreshold` requests, else `(max - count) / max * maxBusyScore` with the largest
//! count among the rated endpoints. The counts are exact at once, where scraped numbers lag by a poll period.
//!
//! ```yaml
//! - type: active-request-scorer
//!   parameters:
//!     idleThreshold: 0       # negative means 0
//!     maxBusyScore: 1.0      # outside 0 to 1 means 1
//!     inFlightLoadProducerName: inflight-load-producer
//!     requestTimeout: 2m     # accepted from older configurations, without effect
//! ```

use crate::plugin::{
    BuildContext, BuildError, Cycle, PluginType, Roles, Score, Scorer, Scores, Shortlist, Stability,
    TokenCosts,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "active-request-scorer", stability: Stability::Beta, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    idle_threshold: i64,
    max_busy_score: Option<f64>,
    #[serde(default)]
    in_flight_load_producer_name: String,
    #[serde(rename = "requestTimeout", skip_serializing)]
    _timeout: Option<String>,
}

struct ActiveRequestScorer {
    idle: u32,
    busy: f64,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let parameters: Parameters = ctx.settings()?;
    let scorer = ActiveRequestScorer {
        idle: u32::try_from(parameters.idle_threshold.max(0)).unwrap_or(u32::MAX),
        busy: parameters.max_busy_score.filter(|s| (0.0..=1.0).contains(s)).unwrap_or(1.0),
    };
    ctx.in_force("idleThreshold", scorer.idle);
    ctx.in_force("maxBusyScore", scorer.busy);
    ctx.producer("inFlightLoadProducerName", &parameters.in_flight_load_producer_name, TokenCosts::PRODUCER);
    Ok(Roles { scorer: Some(Arc::new(scorer)), ..Roles::default() })
}

impl Scorer for ActiveRequestScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        let count = |p| cycle.candidates.in_flight_requests(p);
        let max = shortlist.positions().iter().map(|p| count(*p)).max().unwrap_or(0);
        for (i, p) in shortlist.positions().iter().enumerate() {
            let count = count(*p);
            let score =
                if count <= self.idle { 1.0 } else { f64::from(max - count) / f64::from(max) * self.busy };
            scores.set(i, Score::new(score));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, assert_scores, build, freeze, request, scores};
    use serde_json::json;

    #[test]
    fn counts_of_the_catalogue() {
        let cases = [
            (json!({}), vec![0, 0, 0], vec![1.0, 1.0, 1.0]),
            (json!({"requestTimeout": "bad"}), vec![3, 0, 6], vec![0.5, 1.0, 0.0]),
            (json!({"idleThreshold": -5}), vec![4, 0, 1], vec![0.0, 1.0, 0.75]),
            (json!({"idleThreshold": 0, "maxBusyScore": 0}), vec![1, 0], vec![0.0, 1.0]),
            (json!({"idleThreshold": 1, "maxBusyScore": 0.5}), vec![1, 2, 0], vec![1.0, 0.0, 1.0]),
            (json!({"maxBusyScore": 7}), vec![3, 11], vec![8.0 / 11.0, 0.0]),
        ];
        for (parameters, counts, wanted) in cases {
            let rows: Vec<_> = counts.iter().map(|c| Row { in_flight: *c, ..Row::default() }).collect();
            assert_scores(&scores(&TYPE, parameters, &request("m", Prompt::None), &freeze(&rows)), &wanted);
        }
        assert!(build(&TYPE, json!({"idle": 1})).is_err());
    }
}
