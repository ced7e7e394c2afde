//! Objectives and model rewrites where no Kubernetes tells them: sections of the configuration or of the endpoints file.

use crate::plugin::Policies;
use crate::pool::{PoolEvent, RewriteRule};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The sections as they are written; one that is left out is not the same as an empty one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sections {
    /// `objectives`
    pub objectives: Option<Vec<Objective>>,
    /// `modelRewrites`
    pub model_rewrites: Option<Vec<Rewrite>>,
}

/// One objective.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    name: String,
    priority: i32,
}

/// One rewrite rule.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    name: String,
    #[serde(default)]
    models: Vec<Arc<str>>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Target {
    model_rewrite: Arc<str>,
    weight: Option<u32>,
}

impl Sections {
    /// The policies: each section that is written, the others of `usual`.
    pub fn over(self, usual: &Policies) -> Result<Policies, String> {
        let mut policies = usual.clone();
        if let Some(objectives) = self.objectives {
            policies.objectives.clear();
            for Objective { name, priority } in objectives {
                if name.is_empty() {
                    return Err("objectives: an objective without a name".to_owned());
                }
                let name: Arc<str> = name.into();
                if policies.objectives.insert(Arc::clone(&name), priority).is_some() {
                    return Err(format!("objectives: `{name}` stands twice"));
                }
            }
        }
        if let Some(rewrites) = self.model_rewrites {
            policies.rewrites = rewrites.into_iter().map(Rewrite::rule).collect::<Result<_, _>>()?;
        }
        Ok(policies)
    }
}

impl Rewrite {
    fn rule(self) -> Result<RewriteRule, String> {
        let Self { name, models, targets } = self;
        if name.is_empty() {
            return Err("modelRewrites: a rule without a name".to_owned());
        }
        if targets.is_empty() || targets.iter().any(|t| t.model_rewrite.is_empty()) {
            return Err(format!("modelRewrites: `{name}` needs `targets` with a `modelRewrite` each"));
        }
        let targets = targets.into_iter().map(|t| (t.model_rewrite, t.weight)).collect();
        Ok(RewriteRule { object: name.into(), models, targets })
    }
}

/// What the pool is told of `policies`.
pub fn events(policies: &Policies) -> [PoolEvent; 2] {
    [PoolEvent::Objectives(policies.objectives.clone()), PoolEvent::Rewrites(policies.rewrites.clone())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Policies, String> {
        let usual =
            Policies { objectives: [(Arc::from("usual"), 3)].into_iter().collect(), rewrites: vec![] };
        serde_saphyr::from_str::<Sections>(yaml).map_err(|e| e.to_string())?.over(&usual)
    }

    #[test]
    fn sections_replace_the_usual_ones_one_by_one() {
        let rules = "modelRewrites:\n- name: canary\n  models: [a, b]\n  targets:\n  - {modelRewrite: c, weight: 9}\n  - {modelRewrite: d}\n";
        let policies = read(rules).unwrap();
        assert_eq!(policies.objectives.len(), 1, "the usual objectives stay");
        assert_eq!(policies.rewrites[0].models, [Arc::from("a"), Arc::from("b")]);
        assert_eq!(policies.rewrites[0].targets, [(Arc::from("c"), Some(9)), (Arc::from("d"), None)]);
        let policies = read("objectives: [{name: batch, priority: -5}]").unwrap();
        assert_eq!(policies.objectives.into_iter().collect::<Vec<_>>(), [(Arc::from("batch"), -5)]);
        assert!(read("objectives: []").unwrap().objectives.is_empty());
    }

    #[test]
    fn sections_that_are_refused() {
        for yaml in [
            "objectives: [{name: a}]",
            "objectives: [{name: '', priority: 1}]",
            "objectives: [{name: a, priority: 1}, {name: a, priority: 2}]",
            "modelRewrites: [{name: a, targets: []}]",
            "modelRewrites: [{name: a, targets: [{modelRewrite: ''}]}]",
            "modelRewrites: [{targets: [{modelRewrite: b}]}]",
            "modelRewrites: [{name: a, model: b, targets: [{modelRewrite: b}]}]",
        ] {
            assert!(read(yaml).is_err(), "{yaml}");
        }
    }
}
