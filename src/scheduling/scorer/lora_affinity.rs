//! `lora-affinity-scorer`: endpoints that have the request's adapter loaded are better, then those with a free place.
//!
//! 1 when the target model is an active adapter; else 0.8 when fewer adapters are active or waited for than fit; else
//! 0.6 when the adapter is waited for already; else 0. An endpoint whose adapters are unknown gets 0. It has no
//! parameters and ignores any.
//!
//! ```yaml
//! - type: lora-affinity-scorer
//! ```

use crate::endpoint::LoraState;
use crate::plugin::{
    BuildContext, BuildError, Cycle, PluginType, Roles, Score, Scorer, Scores, Shortlist, Stability,
};
use crate::pool::Columns;
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "lora-affinity-scorer", stability: Stability::Beta, build };

struct LoraScorer;

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    ctx.reads(Columns { lora: true, ..Columns::default() });
    Ok(Roles { scorer: Some(Arc::new(LoraScorer)), ..Roles::default() })
}

fn affinity(state: &LoraState, model: &str) -> f64 {
    let lists = |adapters: &[Arc<str>]| adapters.iter().any(|a| **a == *model);
    if lists(&state.active) {
        1.0
    } else if state.active.len() + state.waiting.len() < state.max_active as usize {
        0.8
    } else if lists(&state.waiting) {
        0.6
    } else {
        0.0
    }
}

impl Scorer for LoraScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        for (i, p) in shortlist.positions().iter().enumerate() {
            let state = cycle.candidates.lora(*p);
            scores.set(i, Score::new(state.map_or(0.0, |s| affinity(s, &cycle.request.target_model))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, assert_scores, freeze, request, scores};
    use serde_json::json;

    fn row(max_active: u32, active: &[&str], waiting: &[&str]) -> Row {
        let list = |names: &[&str]| names.iter().map(|n| Arc::from(*n)).collect();
        Row {
            lora: Some(LoraState { max_active, active: list(active), waiting: list(waiting) }),
            ..Row::default()
        }
    }

    #[test]
    fn adapters_of_the_catalogue() {
        let rows = [
            row(2, &["wanted", "a"], &[]),
            row(1, &["a"], &["wanted"]),
            row(2, &["a"], &[]),
            row(2, &["a", "b"], &[]),
            row(0, &[], &[]),
            Row::default(),
        ];
        let got = scores(&TYPE, json!({}), &request("wanted", Prompt::None), &freeze(&rows));
        assert_scores(&got, &[1.0, 0.6, 0.8, 0.0, 0.0, 0.0]);
    }
}
