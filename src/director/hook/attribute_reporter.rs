//! `request-attribute-reporter`: a number worked out from the token counts of a response goes into the proxy's dynamic
//! metadata when the response ends, where rate limits and logs can use it.
//!
//! `expression` and `condition` are CEL over `usage` (`usage.prompt_tokens`, `usage.completion_tokens`,
//! `usage.total_tokens`, `usage.prompt_tokens_details.cached_tokens`). The number is reported under `namespace` and `name`
//! unless it is 0, a count is missing, or the condition is not true. The proxy must show response bodies, and accept the
//! namespace in its `metadata_options`.
//!
//! ```yaml
//! - type: request-attribute-reporter
//!   parameters:
//!     attributes:                        # exactly one
//!     - key: {namespace: envoy.lb, name: x-cost}      # the namespace is the default
//!       expression: usage.prompt_tokens + 3 * usage.completion_tokens
//!       condition: usage.completion_tokens > 0        # true when it is left out
//! ```

use super::usage_expression::{Expression, Value};
use crate::plugin::{
    AttributeReporter, BuildContext, BuildError, PluginType, ReportedAttribute, Roles, Stability,
};
use crate::request::Usage;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "request-attribute-reporter", stability: Stability::Beta, build };

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    attributes: Vec<Attribute>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Attribute {
    key: Key,
    #[serde(default)]
    expression: String,
    condition: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Key {
    #[serde(default = "usual_namespace")]
    namespace: String,
    #[serde(default)]
    name: String,
}

const USUAL_NAMESPACE: &str = "envoy.lb";

fn usual_namespace() -> String {
    USUAL_NAMESPACE.to_owned()
}

struct Reporter {
    namespace: Arc<str>,
    name: Arc<str>,
    expression: Expression,
    condition: Option<Expression>,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let wrong = |told: String| BuildError::Parameters(told);
    let [attribute] = &written.attributes[..] else {
        let found = written.attributes.len();
        return Err(wrong(format!("`attributes` must hold exactly one attribute, not {found}")));
    };
    if attribute.key.name.is_empty() {
        return Err(wrong("`key`: `name` is required".to_owned()));
    }
    let parse =
        |field: &str, text: &str| Expression::parse(text).map_err(|told| wrong(format!("`{field}`: {told}")));
    let namespace =
        Some(attribute.key.namespace.as_str()).filter(|n| !n.is_empty()).unwrap_or(USUAL_NAMESPACE);
    let condition = attribute.condition.as_deref().filter(|text| !text.trim().is_empty());
    let reporter = Reporter {
        namespace: namespace.into(),
        name: attribute.key.name.as_str().into(),
        expression: parse("expression", &attribute.expression)?,
        condition: condition.map(|text| parse("condition", text)).transpose()?,
    };
    ctx.reads_responses("reports nothing");
    Ok(Roles { reporter: Some(Arc::new(reporter)), ..Roles::default() })
}

impl AttributeReporter for Reporter {
    fn report(&self, usage: &Usage) -> Option<ReportedAttribute> {
        let holds = self.condition.as_ref().is_none_or(|c| c.value(usage) == Some(Value::Truth(true)));
        let Some(Value::Number(value)) = self.expression.value(usage).filter(|_| holds) else { return None };
        (value != 0.0 && value.is_finite()).then(|| ReportedAttribute {
            namespace: Arc::clone(&self.namespace),
            name: Arc::clone(&self.name),
            value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::producer::testing::Fixture;
    use serde_json::{Value as Json, json};

    fn one(attribute: Json) -> Json {
        json!({"attributes": [attribute]})
    }

    fn reported(
        expression: &str,
        condition: Option<&str>,
        prompt: Option<u32>,
    ) -> Option<(String, String, f64)> {
        let mut attribute = json!({"key": {"name": "prompt_tokens"}, "expression": expression});
        if let Some(condition) = condition {
            attribute["condition"] = condition.into();
        }
        let reporter = Fixture::new().build(&TYPE, one(attribute)).unwrap().reporter.unwrap();
        let found = reporter.report(&Usage { prompt, ..Usage::default() })?;
        Some((found.namespace.to_string(), found.name.to_string(), found.value))
    }

    #[test]
    fn reports_of_the_catalogue() {
        let tokens = "usage.prompt_tokens";
        let fifteen = Some(("envoy.lb".to_owned(), "prompt_tokens".to_owned(), 15.0));
        assert_eq!(reported(tokens, None, Some(15)), fifteen);
        assert_eq!(reported(tokens, Some("usage.prompt_tokens > 10"), Some(15)), fifteen);
        assert_eq!(reported(tokens, None, Some(0)), None);
        assert_eq!(reported("usage.prompt_tokens > 1", None, Some(15)), None, "not a number");
        assert_eq!(reported(tokens, None, None), None, "missing");
        assert_eq!(reported(tokens, Some("usage.prompt_tokens"), Some(15)), None, "no truth");
        assert_eq!(reported(tokens, Some("usage.prompt_tokens > 99"), Some(15)), None);
        assert_eq!(reported("1 / 0", None, Some(15)), None, "no finite number");
    }

    #[test]
    fn parameters_of_the_catalogue() {
        let good = || json!({"key": {"namespace": "n", "name": "a"}, "expression": "usage.prompt_tokens"});
        let refused = [
            json!({}),
            json!({"attributes": [good(), good()]}),
            one(json!({"key": {}, "expression": "1"})),
            one(json!({"key": {"name": "a"}})),
            one(json!({"key": {"name": "a"}, "expression": "usage..x"})),
            one(json!({"key": {"name": "a"}, "expression": "1", "condition": "nonsense("})),
        ];
        let fixture = Fixture::new();
        for parameters in refused {
            assert!(fixture.build(&TYPE, parameters.clone()).is_err(), "{parameters}");
        }
        assert!(fixture.build(&TYPE, one(good())).is_ok());
    }
}
