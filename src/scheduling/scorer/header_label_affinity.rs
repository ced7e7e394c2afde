//! `header-label-affinity-scorer`: 1 for the endpoints whose label has the value of a request header, 0 for the others.
//!
//! Without the header, or with an empty one, all get 0.
//!
//! ```yaml
//! - type: header-label-affinity-scorer
//!   parameters:
//!     headerName: x-tenant               # required
//!     labelKey: example.com/tenant       # required
//! ```

use crate::plugin::{
    BuildContext, BuildError, Cycle, PluginType, Roles, Score, Scorer, Scores, Shortlist, Stability,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "header-label-affinity-scorer", stability: Stability::Alpha, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HeaderLabelScorer {
    #[serde(default)]
    header_name: String,
    #[serde(default)]
    label_key: String,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let mut scorer: HeaderLabelScorer = ctx.settings()?;
    scorer.header_name = scorer.header_name.trim().to_ascii_lowercase();
    for (field, value) in [("headerName", &scorer.header_name), ("labelKey", &scorer.label_key)] {
        if value.is_empty() {
            return Err(BuildError::Parameters(format!("`{field}` must not be empty")));
        }
    }
    Ok(Roles { scorer: Some(Arc::new(scorer)), ..Roles::default() })
}

impl Scorer for HeaderLabelScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        let Some(wanted) = cycle.request.headers.first_of(&[&self.header_name]) else { return };
        for (i, p) in shortlist.positions().iter().enumerate() {
            if cycle.candidates.endpoint(*p).labels.get(&self.label_key) == Some(wanted) {
                scores.set(i, Score::ONE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Prompt;
    use crate::scheduling::testing::{
        Row, assert_scores, build, freeze, request, request_with, scores as score_all,
    };
    use serde_json::json;

    #[test]
    fn values_of_the_catalogue() {
        let pods = [vec![("tenant", "a")], vec![("tenant", "b")], vec![("other", "a")], vec![]];
        let rows = pods.map(|labels| Row { labels, ..Row::default() });
        let parameters = || json!({"headerName": " X-Tenant ", "labelKey": "tenant"});
        let score = |request| score_all(&TYPE, parameters(), &request, &freeze(&rows));
        assert_scores(&score(request_with("x-tenant", "a")), &[1.0, 0.0, 0.0, 0.0]);
        assert_scores(&score(request_with("x-tenant", "zzz")), &[0.0; 4]);
        assert_scores(&score(request_with("x-tenant", "")), &[0.0; 4]);
        assert_scores(&score(request("m", Prompt::None)), &[0.0; 4]);
    }

    #[test]
    fn both_names_are_required() {
        for parameters in [json!({}), json!({"headerName": "a"}), json!({"headerName": " ", "labelKey": "b"})]
        {
            assert!(build(&TYPE, parameters.clone()).is_err(), "{parameters}");
        }
    }
}
