//! `cel-filter`: keeps the endpoints for which an expression holds.
//!
//! The expression is CEL and gives a `bool`. An endpoint for which it has no answer (a label that is missing, a number
//! that its engine never told) stays in and is counted in `pointsman_expression_faults_total`. When it holds for none,
//! none is left, unless `keepAllIfNoneMatch` is set.
//!
//! ```yaml
//! - type: cel-filter
//!   parameters:
//!     expression: '!("x-tier" in request.headers) || endpoint.labels["tier"] == request.headers["x-tier"]'
//!     keepAllIfNoneMatch: false
//!     prefixMatchInfoProducerName: approx-prefix-cache-producer   # read only for names under `prefix`
//! ```

use crate::plugin::{
    BuildContext, BuildError, Cycle, Filter, PluginType, PrefixMatches, Roles, Shortlist, Stability,
};
use crate::pool::AttributeId;
use crate::scheduling::cel::{Faults, Scope, Truth, Typed, compile};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType = PluginType { name: "cel-filter", stability: Stability::Alpha, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    expression: String,
    #[serde(default)]
    keep_all_if_none_match: bool,
    #[serde(default)]
    prefix_match_info_producer_name: String,
}

struct CelFilter {
    holds: Truth,
    prefix: Option<AttributeId<PrefixMatches>>,
    keep_all_if_none_match: bool,
    faults: Faults,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let compiled = compile(&written.expression, &written.prefix_match_info_producer_name, ctx)?;
    let Typed::Truth(holds) = compiled.expression else {
        return Err(BuildError::Parameters(format!(
            "`expression` of a filter must be a bool, not {}",
            compiled.expression.type_name()
        )));
    };
    let filter = CelFilter {
        holds,
        prefix: compiled.prefix,
        keep_all_if_none_match: written.keep_all_if_none_match,
        faults: Faults::new(ctx.name),
    };
    Ok(Roles { filter: Some(Arc::new(filter)), ..Roles::default() })
}

impl CelFilter {
    fn keeps(&self, scope: Scope<'_>) -> bool {
        self.holds.answer(scope).unwrap_or_else(|fault| {
            self.faults.count(fault);
            true
        })
    }
}

impl Filter for CelFilter {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        let prefix = self.prefix.and_then(|id| cycle.candidates.attributes.get(id));
        let keeps = |at| self.keeps(Scope { cycle, prefix, at });
        if self.keep_all_if_none_match && !shortlist.positions().iter().any(|p| keeps(*p)) {
            return;
        }
        shortlist.retain(keeps);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{keeps, label_pool};
    use super::*;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, build, freeze, kept, request, request_with};
    use serde_json::json;

    #[test]
    fn labels_by_expression() {
        for (expression, wanted) in [
            (r#"endpoint.labels["tier"] == "backend""#, vec!["redis-1", "no-tier-pod"]),
            (r#"has(endpoint.labels.tier) && endpoint.labels.tier == "backend""#, vec!["redis-1"]),
            (r#"!("tier" in endpoint.labels)"#, vec!["no-tier-pod"]),
            (
                r#"["v1.0", "v1.1"].exists(v, has(endpoint.labels.version) && endpoint.labels.version == v)"#,
                vec!["nginx-1", "nginx-2"],
            ),
        ] {
            assert_eq!(
                keeps(&TYPE, json!({"expression": expression}), &label_pool()),
                wanted,
                "{expression}"
            );
        }
    }

    #[test]
    fn a_header_chooses_the_tier() {
        let rows: Vec<_> =
            ["a", "b"].map(|tier| Row { labels: vec![("tier", tier)], ..Row::default() }).into();
        let expression =
            r#"!("X-Tier" in request.headers) || endpoint.labels["tier"] == request.headers["X-Tier"]"#;
        let keep = |request: &_| kept(&TYPE, json!({"expression": expression}), request, &freeze(&rows));
        assert_eq!(keep(&request_with("x-tier", "b")), [1]);
        assert_eq!(keep(&request("m", Prompt::None)), [0, 1]);
        assert!(keep(&request_with("x-tier", "c")).is_empty());
        let lenient = json!({"expression": expression, "keepAllIfNoneMatch": true});
        assert_eq!(kept(&TYPE, lenient, &request_with("x-tier", "c"), &freeze(&rows)), [0, 1]);
    }

    #[test]
    fn a_number_is_no_condition() {
        let error = build(&TYPE, json!({"expression": "endpoint.waiting"})).err().unwrap();
        assert!(error.to_string().contains("must be a bool, not int"), "{error}");
        assert!(build(&TYPE, json!({})).is_err());
    }
}
