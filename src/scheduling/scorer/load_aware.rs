//! `load-aware-scorer`: endpoints without a queue share the best score, a queue lowers it.
//!
//! `0.5 * (1 - min(waiting, threshold) / threshold)`, so 0.5 without a queue; unknown and stale endpoints by the common
//! rule.
//!
//! ```yaml
//! - type: load-aware-scorer
//!   parameters: {threshold: 128}   # 0 or less means 128
//! ```

use super::known::score_fresh;
use crate::plugin::{
    BuildContext, BuildError, Cycle, PluginType, Roles, Scorer, Scores, Shortlist, Stability,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "load-aware-scorer", stability: Stability::Beta, build };

const DEFAULT_THRESHOLD: u32 = 128;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    threshold: i64,
}

struct LoadAwareScorer {
    threshold: u32,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let threshold = match ctx.settings::<Parameters>()?.threshold {
        ..=0 => DEFAULT_THRESHOLD,
        positive => u32::try_from(positive).unwrap_or(u32::MAX),
    };
    ctx.in_force("threshold", threshold);
    Ok(Roles { scorer: Some(Arc::new(LoadAwareScorer { threshold })), ..Roles::default() })
}

impl Scorer for LoadAwareScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        let threshold = f64::from(self.threshold);
        let formula = |waiting: u32| 0.5 * (1.0 - f64::from(waiting.min(self.threshold)) / threshold);
        score_fresh(shortlist, scores, |p| cycle.candidates.fresh_waiting(p), formula);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Reading;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, assert_scores, build, freeze, request, scores};
    use serde_json::json;

    #[test]
    fn queues_of_the_catalogue_and_an_unknown_one() {
        let mut rows: Vec<_> = [2, 0, 15].map(|q| Row { waiting: Some(q), ..Row::default() }).into();
        let score =
            |parameters, rows: &[Row]| scores(&TYPE, parameters, &request("m", Prompt::None), &freeze(rows));
        assert_scores(&score(json!({"threshold": 10}), &rows), &[0.4, 0.5, 0.0]);
        let half = [Row { waiting: Some(64), ..Row::default() }];
        assert_scores(&score(json!({"threshold": -1}), &half), &[0.25]);
        rows.push(Row { reading: Reading::Never, ..Row::default() });
        assert_scores(&score(json!({"threshold": 10}), &rows)[3..], &[0.15]);
        assert!(build(&TYPE, json!({"treshold": 10})).is_err());
    }
}
