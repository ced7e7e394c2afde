//! `label-selector-filter`: keeps the endpoints whose labels match a Kubernetes label selector.
//!
//! All conditions must hold; an empty selector keeps everything.
//!
//! ```yaml
//! - type: label-selector-filter
//!   parameters:
//!     matchLabels: {app: nginx}
//!     matchExpressions:
//!     - {key: tier, operator: In, values: [frontend, backend]}   # In, NotIn, Exists, DoesNotExist
//! ```

use crate::endpoint::Labels;
use crate::plugin::{BuildContext, BuildError, Cycle, Filter, PluginType, Roles, Shortlist, Stability};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "label-selector-filter", stability: Stability::Beta, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    #[serde(default)]
    match_expressions: Vec<Expression>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let selector: Selector = ctx.settings()?;
    for expression in &selector.match_expressions {
        let takes_values = matches!(expression.operator, Operator::In | Operator::NotIn);
        if takes_values == expression.values.is_empty() {
            let wants = if takes_values { "at least one of" } else { "no" };
            return Err(BuildError::Parameters(format!(
                "matchExpressions: operator {:?} on key `{}` takes {wants} `values`",
                expression.operator, expression.key
            )));
        }
    }
    Ok(Roles { filter: Some(Arc::new(selector)), ..Roles::default() })
}

impl Selector {
    fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(k, v)| labels.get(k) == Some(v.as_str()))
            && self.match_expressions.iter().all(|e| e.matches(labels.get(&e.key)))
    }
}

impl Expression {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = value.is_some_and(|v| self.values.iter().any(|w| w == v));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl Filter for Selector {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        shortlist.retain(|p| self.matches(&cycle.candidates.endpoint(p).labels));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{keeps, label_pool};
    use super::*;
    use crate::scheduling::testing::build as build_plugin;
    use serde_json::json;

    #[test]
    fn selectors_of_the_catalogue() {
        let expression = |e: serde_json::Value| json!({"matchExpressions": [e]});
        let cases = [
            (json!({"matchLabels": {"app": "nginx"}}), vec!["nginx-1", "nginx-2"]),
            (json!({"matchLabels": {"app": "nginx", "version": "v1.0"}}), vec!["nginx-1"]),
            (
                expression(json!({"key": "tier", "operator": "In", "values": ["frontend", "backend"]})),
                vec!["nginx-1", "nginx-2", "redis-1", "web-1"],
            ),
            (
                expression(json!({"key": "tier", "operator": "NotIn", "values": ["system"]})),
                vec!["nginx-1", "nginx-2", "redis-1", "web-1"],
            ),
            (expression(json!({"key": "deprecated", "operator": "Exists"})), vec!["redis-1"]),
            (
                expression(json!({"key": "deprecated", "operator": "DoesNotExist"})),
                vec!["nginx-1", "nginx-2", "coredns-1", "web-1"],
            ),
            (
                json!({
                    "matchLabels": {"tier": "frontend"},
                    "matchExpressions": [{"key": "environment", "operator": "Exists"}]
                }),
                vec!["web-1"],
            ),
            (json!({}), vec!["nginx-1", "nginx-2", "coredns-1", "redis-1", "web-1"]),
            (json!({"matchLabels": {"app": "nonexistent"}}), vec![]),
        ];
        for (parameters, wanted) in cases {
            assert_eq!(keeps(&TYPE, parameters.clone(), &label_pool()[..5]), wanted, "{parameters}");
        }
        assert!(keeps(&TYPE, json!({"matchLabels": {"app": "test"}}), &[("bare", vec![])]).is_empty());
    }

    #[test]
    fn selectors_that_are_refused() {
        let refused = [
            json!({"matchExpressions": [{"key": "a", "operator": "InvalidOperator"}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
            json!({"matchLabel": {}}),
            json!("text"),
        ];
        for parameters in refused {
            assert!(build_plugin(&TYPE, parameters.clone()).is_err(), "{parameters}");
        }
    }
}
