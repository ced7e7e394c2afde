//! `endpoint-attribute-filter`: keeps the endpoints of which a configured metric lies on the wanted side of a value.
//!
//! `attribute` is the `attributeKey` of one of an engine's `customMetrics`. An endpoint without the metric, or whose
//! last sample is stale, is kept with `onMissing: Pass` and dropped with `Fail`. When nothing is left,
//! `fallbackOnEmpty: true` keeps all; else the request finds no endpoint.
//!
//! ```yaml
//! - type: endpoint-attribute-filter
//!   parameters:
//!     attribute: custom_queue_depth
//!     producer: core-metrics-extractor   # the extractor that reads it
//!     onMissing: Pass                    # or Fail
//!     fallbackOnEmpty: false
//!     algorithm:
//!       type: threshold
//!       threshold:
//!         operator: LessThan             # LessThanOrEqual, GreaterThan, GreaterThanOrEqual, Equal, NotEqual
//!         value: 10                      # in the metric's own unit
//! ```

use crate::endpoint::ScalarId;
use crate::plugin::{BuildContext, BuildError, Cycle, Filter, PluginType, Roles, Shortlist, Stability};
use crate::scheduling::metric;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "endpoint-attribute-filter", stability: Stability::Alpha, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    attribute: String,
    producer: Option<String>,
    #[serde(default)]
    on_missing: OnMissing,
    #[serde(default)]
    fallback_on_empty: bool,
    algorithm: Algorithm,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, PartialEq, Eq)]
enum OnMissing {
    #[default]
    Pass,
    Fail,
}

#[derive(Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Algorithm {
    Threshold { threshold: Threshold },
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Threshold {
    operator: Operator,
    value: f64,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
enum Operator {
    LessThan,
    LessThanOrEqual,
    GreaterThan,
    GreaterThanOrEqual,
    Equal,
    NotEqual,
}

impl Threshold {
    #[allow(clippy::float_cmp, reason = "the configuration asks for equality")]
    fn holds(self, value: f64) -> bool {
        match self.operator {
            Operator::LessThan => value < self.value,
            Operator::LessThanOrEqual => value <= self.value,
            Operator::GreaterThan => value > self.value,
            Operator::GreaterThanOrEqual => value >= self.value,
            Operator::Equal => value == self.value,
            Operator::NotEqual => value != self.value,
        }
    }
}

struct EndpointAttributeFilter {
    metric: ScalarId,
    threshold: Threshold,
    keep_unknown: bool,
    fallback: bool,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let metric = metric::resolve(ctx, "attribute", &written.attribute, written.producer.as_deref())?;
    let Algorithm::Threshold { threshold } = written.algorithm;
    let filter = EndpointAttributeFilter {
        metric,
        threshold,
        keep_unknown: written.on_missing == OnMissing::Pass,
        fallback: written.fallback_on_empty,
    };
    Ok(Roles { filter: Some(Arc::new(filter)), ..Roles::default() })
}

impl Filter for EndpointAttributeFilter {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        let keeps = |p| {
            let value = metric::fresh(cycle.candidates, p, self.metric);
            value.map_or(self.keep_unknown, |value| self.threshold.holds(value))
        };
        if self.fallback && !shortlist.positions().iter().any(|p| keeps(*p)) {
            return;
        }
        shortlist.retain(keeps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Reading;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, build, freeze, kept, request};
    use serde_json::{Value, json};

    fn written(operator: &str, more: &[(&str, Value)]) -> Value {
        let mut parameters = json!({
            "attribute": "depth",
            "algorithm": {"type": "threshold", "threshold": {"operator": operator, "value": 10}}
        });
        for (key, value) in more {
            parameters[*key] = value.clone();
        }
        parameters
    }

    fn keeps(parameters: Value, values: &[f64]) -> Vec<u32> {
        let rows: Vec<_> = values.iter().map(|v| Row { scalars: vec![*v], ..Row::default() }).collect();
        kept(&TYPE, parameters, &request("m", Prompt::None), &freeze(&rows))
    }

    #[test]
    fn thresholds_of_the_catalogue() {
        let none = f64::NAN;
        let fail = ("onMissing", json!("Fail"));
        let fallback = ("fallbackOnEmpty", json!(true));
        let cases = [
            (written("LessThan", &[]), vec![5.0, 10.0, 15.0], vec![0]),
            (written("LessThanOrEqual", &[]), vec![5.0, 10.0, 15.0], vec![0, 1]),
            (written("GreaterThan", &[]), vec![5.0, 10.0, 15.0], vec![2]),
            (written("GreaterThanOrEqual", &[]), vec![5.0, 10.0, 15.0], vec![1, 2]),
            (written("Equal", &[]), vec![5.0, 10.0], vec![1]),
            (written("NotEqual", &[]), vec![5.0, 10.0], vec![0]),
            (written("LessThan", &[]), vec![15.0, none], vec![1]),
            (written("LessThan", &[fail]), vec![5.0, none], vec![0]),
            (written("LessThan", &[]), vec![15.0, 20.0], vec![]),
            (written("LessThan", std::slice::from_ref(&fallback)), vec![15.0, 20.0], vec![0, 1]),
            (written("LessThan", &[fallback]), vec![5.0, 20.0], vec![0]),
        ];
        for (parameters, values, wanted) in cases {
            assert_eq!(keeps(parameters.clone(), &values), wanted, "{parameters} {values:?}");
        }
    }

    #[test]
    fn a_stale_value_counts_as_missing() {
        let rows = [Row { scalars: vec![5.0], reading: Reading::Stale, ..Row::default() }];
        let kept = |more| kept(&TYPE, written("LessThan", more), &request("m", Prompt::None), &freeze(&rows));
        assert_eq!(kept(&[]), [0]);
        assert!(kept(&[("onMissing", json!("Fail"))]).is_empty());
    }

    #[test]
    fn parameters_that_are_refused() {
        let refused = [
            (json!({"attribute": "a"}), "algorithm"),
            (written("LessThan", &[("attribute", json!(""))]), "must name a metric"),
            (written("Less", &[]), "unknown variant"),
            (written("LessThan", &[("onMissing", json!("Keep"))]), "unknown variant"),
            (written("LessThan", &[("algorithm", json!({"type": "range"}))]), "unknown variant"),
            (
                written("LessThan", &[("attribute", json!("GPUUtilization/dcgm-extractor"))]),
                "split it into attribute: \"GPUUtilization\" and producer: \"dcgm-extractor\"",
            ),
        ];
        for (parameters, told) in refused {
            let error = build(&TYPE, parameters).err().unwrap().to_string();
            assert!(error.contains(told), "{error}");
        }
        let agnostic = written("LessThan", &[("attribute", json!("a/b")), ("producer", json!(""))]);
        assert!(build(&TYPE, agnostic).is_ok());
    }
}
