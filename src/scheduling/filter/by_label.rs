//! `by-label`: keeps the endpoints whose label has one of the listed values. Deprecated: use `label-selector-filter`.
//!
//! ```yaml
//! - type: by-label
//!   parameters: {label: tier, validValues: [frontend], allowsNoLabel: false}
//! ```

use crate::plugin::{BuildContext, BuildError, Cycle, Filter, PluginType, Roles, Shortlist, Stability};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "by-label", stability: Stability::Deprecated("label-selector-filter"), build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ByLabel {
    #[serde(default)]
    label: String,
    #[serde(default)]
    valid_values: Vec<String>,
    #[serde(default)]
    allows_no_label: bool,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let filter: ByLabel = ctx.settings()?;
    if filter.label.is_empty() {
        return Err(BuildError::Parameters("`label` must name a label".to_owned()));
    }
    if filter.valid_values.is_empty() && !filter.allows_no_label {
        return Err(BuildError::Parameters(
            "`validValues` must not be empty unless `allowsNoLabel` is true".to_owned(),
        ));
    }
    Ok(Roles { filter: Some(Arc::new(filter)), ..Roles::default() })
}

impl Filter for ByLabel {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        shortlist.retain(|p| match cycle.candidates.endpoint(p).labels.get(&self.label) {
            Some(value) => self.valid_values.iter().any(|v| v == value),
            None => self.allows_no_label,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{keeps, label_pool};
    use super::*;
    use crate::scheduling::testing::build as build_plugin;
    use serde_json::json;

    #[test]
    fn labels_of_the_catalogue() {
        let cases = [
            (json!({"label": "app", "validValues": ["nginx"]}), vec!["nginx-1", "nginx-2"]),
            (json!({"label": "version", "validValues": ["v1.0"]}), vec!["nginx-1"]),
            (json!({"label": "tier", "allowsNoLabel": true}), vec!["no-tier-pod"]),
            (
                json!({"label": "tier", "validValues": ["frontend", "backend", "system"]}),
                vec!["nginx-1", "nginx-2", "coredns-1", "redis-1", "web-1"],
            ),
        ];
        for (parameters, wanted) in cases {
            assert_eq!(keeps(&TYPE, parameters.clone(), &label_pool()), wanted, "{parameters}");
        }
    }

    #[test]
    fn parameters_that_are_refused() {
        let refused = [
            json!({"label": "", "validValues": ["a"]}),
            json!({"validValues": ["a"]}),
            json!({"label": "a", "validValues": []}),
            json!({"label": "a", "validValues": "b"}),
            json!({"label": "a", "allowsNoLabel": "yes"}),
            json!({"label": "a", "validValues": ["b"], "other": 1}),
        ];
        for parameters in refused {
            assert!(build_plugin(&TYPE, parameters.clone()).is_err(), "{parameters}");
        }
    }
}
