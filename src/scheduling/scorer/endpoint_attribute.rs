//! `endpoint-attribute-scorer`: by where a configured metric lies in a range.
//!
//! `attributeKey` is that of one of an engine's `customMetrics`. With `linear_higher_is_better` the score is
//! `(x - min) / (max - min)`, with `linear_lower_is_better` one less that; `x` outside the range counts as its nearer
//! end. The range is fixed, or spans the values of the rated endpoints (the default; all equal gives 1). An endpoint
//! without the metric, or whose last sample is stale, gets 0 and does not count for the range.
//!
//! ```yaml
//! - type: endpoint-attribute-scorer
//!   parameters:
//!     attributeKey: custom_queue_depth
//!     producer: core-metrics-extractor   # the extractor that reads it
//!     algorithm:
//!       type: linear_lower_is_better     # or linear_higher_is_better
//!       normalization:
//!         fixedRange: {min: 0, max: 100} # or adaptiveRange: {}; in the metric's own unit
//! ```

use crate::endpoint::ScalarId;
use crate::plugin::{
    BuildContext, BuildError, Cycle, PluginType, Roles, Score, Scorer, Scores, Shortlist, Stability,
};
use crate::scheduling::metric;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "endpoint-attribute-scorer", stability: Stability::Alpha, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    attribute_key: String,
    producer: Option<String>,
    algorithm: Algorithm,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Algorithm {
    #[serde(rename = "type")]
    better: Better,
    #[serde(default)]
    normalization: Normalization,
}

#[derive(Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
enum Better {
    #[serde(rename = "linear_lower_is_better")]
    Lower,
    #[serde(rename = "linear_higher_is_better")]
    Higher,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Normalization {
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed_range: Option<Range>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adaptive_range: Option<Adaptive>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Adaptive {}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Range {
    min: f64,
    max: f64,
}

struct EndpointAttributeScorer {
    metric: ScalarId,
    better: Better,
    fixed: Option<Range>,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let Algorithm { better, normalization } = written.algorithm;
    if normalization.fixed_range.is_some() && normalization.adaptive_range.is_some() {
        return Err(BuildError::Parameters(
            "`normalization`: at most one normalization strategy may be given".to_owned(),
        ));
    }
    let fixed = normalization.fixed_range;
    if fixed.is_some_and(|r| r.min.is_nan() || r.max.is_nan() || r.min >= r.max) {
        return Err(BuildError::Parameters("`fixedRange`: min < max must hold".to_owned()));
    }
    let metric = metric::resolve(ctx, "attributeKey", &written.attribute_key, written.producer.as_deref())?;
    if fixed.is_none() {
        ctx.in_force("algorithm.normalization.adaptiveRange", serde_json::json!({}));
    }
    let scorer = EndpointAttributeScorer { metric, better, fixed };
    Ok(Roles { scorer: Some(Arc::new(scorer)), ..Roles::default() })
}

impl Range {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let start = Self { min: f64::INFINITY, max: f64::NEG_INFINITY };
        values.fold(start, |r, v| Self { min: r.min.min(v), max: r.max.max(v) })
    }

    fn score(self, better: Better, value: f64) -> f64 {
        if self.min >= self.max {
            return 1.0;
        }
        let higher = (value.clamp(self.min, self.max) - self.min) / (self.max - self.min);
        if better == Better::Higher { higher } else { 1.0 - higher }
    }
}

impl Scorer for EndpointAttributeScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        let value = |p| metric::fresh(cycle.candidates, p, self.metric);
        let range =
            self.fixed.unwrap_or_else(|| Range::of(shortlist.positions().iter().filter_map(|p| value(*p))));
        for (i, p) in shortlist.positions().iter().enumerate() {
            let score = value(*p).map_or(0.0, |value| range.score(self.better, value));
            scores.set(i, Score::new(score));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Reading;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, assert_scores, build, freeze, request, scores};
    use serde_json::{Value, json};

    const NONE: f64 = f64::NAN;

    fn written(kind: &str, normalization: Value) -> Value {
        json!({"attributeKey": "m", "algorithm": {"type": kind, "normalization": normalization}})
    }

    fn score(parameters: Value, values: &[f64]) -> Vec<f64> {
        let rows: Vec<_> = values.iter().map(|v| Row { scalars: vec![*v], ..Row::default() }).collect();
        scores(&TYPE, parameters, &request("m", Prompt::None), &freeze(&rows))
    }

    #[test]
    fn ranges_of_the_catalogue() {
        let lower = || written("linear_lower_is_better", json!({}));
        let fixed = || written("linear_lower_is_better", json!({"fixedRange": {"min": 0, "max": 10}}));
        let cases = [
            (lower(), vec![10.0, 5.0, 0.0], vec![0.0, 0.5, 1.0]),
            (written("linear_higher_is_better", json!({})), vec![10.0, 5.0, 0.0], vec![1.0, 0.5, 0.0]),
            (lower(), vec![7.0, 7.0], vec![1.0, 1.0]),
            (lower(), vec![10.0, NONE, 0.0], vec![0.0, 0.0, 1.0]),
            (lower(), vec![NONE, NONE], vec![0.0, 0.0]),
            (fixed(), vec![10.0, 5.0, 0.0], vec![0.0, 0.5, 1.0]),
            (fixed(), vec![7.0, 7.0], vec![0.3, 0.3]),
            (fixed(), vec![15.0, -5.0], vec![0.0, 1.0]),
        ];
        for (parameters, values, wanted) in cases {
            assert_scores(&score(parameters, &values), &wanted);
        }
    }

    #[test]
    fn a_stale_value_counts_as_missing() {
        let row = |value, reading| Row { scalars: vec![value], reading, ..Row::default() };
        let rows = [row(0.0, Reading::Stale), row(5.0, Reading::Fresh), row(9.0, Reading::Fresh)];
        let parameters = written("linear_lower_is_better", json!({"adaptiveRange": {}}));
        assert_scores(
            &scores(&TYPE, parameters, &request("m", Prompt::None), &freeze(&rows)),
            &[0.0, 1.0, 0.0],
        );
    }

    #[test]
    fn parameters_that_are_refused() {
        let lower = "linear_lower_is_better";
        let key = |key: &str| json!({"attributeKey": key, "algorithm": {"type": lower}});
        let both = json!({"fixedRange": {"min": 0, "max": 1}, "adaptiveRange": {}});
        let refused = [
            (key(""), "must name a metric"),
            (json!({"attributeKey": "m"}), "algorithm"),
            (json!({"attributeKey": "m", "algorithm": {}}), "type"),
            (written("cubic", json!({})), "unknown variant"),
            (written(lower, both), "at most one normalization strategy"),
            (written(lower, json!({"fixedRange": {"min": 1, "max": 1}})), "min < max"),
            (key("GPUUtilization/dcgm-extractor"), "split it into"),
        ];
        for (parameters, told) in refused {
            let error = build(&TYPE, parameters).err().unwrap().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
