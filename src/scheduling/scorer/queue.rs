//! `queue-scorer`: fewer requests waiting in the engine are better.
//!
//! `(max - waiting) / (max - min)` over the endpoints that are rated, 1 for all when they are equal; unknown and stale
//! ones by the common rule. It has no parameters and ignores any.
//!
//! ```yaml
//! - type: queue-scorer
//! ```

use super::known::score_fewer;
use crate::plugin::{
    BuildContext, BuildError, Cycle, PluginType, Roles, Scorer, Scores, Shortlist, Stability,
};
use std::sync::Arc;

pub(super) const TYPE: PluginType = PluginType { name: "queue-scorer", stability: Stability::Beta, build };

struct QueueScorer;

fn build(_: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    Ok(Roles { scorer: Some(Arc::new(QueueScorer)), ..Roles::default() })
}

impl Scorer for QueueScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        score_fewer(shortlist, scores, |p| cycle.candidates.fresh_waiting(p));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Reading;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, assert_scores, freeze, request, scores};
    use serde_json::json;

    fn score(rows: &[Row]) -> Vec<f64> {
        scores(&TYPE, json!({"ignored": 1}), &request("m", Prompt::None), &freeze(rows))
    }

    #[test]
    fn queues_of_the_catalogue() {
        for (queues, wanted) in [
            (vec![10, 5, 0], vec![0.0, 0.5, 1.0]),
            (vec![5, 5], vec![1.0, 1.0]),
            (vec![0, 0], vec![1.0, 1.0]),
        ] {
            let rows: Vec<_> = queues.iter().map(|q| Row { waiting: Some(*q), ..Row::default() }).collect();
            assert_scores(&score(&rows), &wanted);
        }
    }

    #[test]
    fn unknown_stale_and_silent_engines_do_not_look_idle() {
        let busy = Row { waiting: Some(10), ..Row::default() };
        let never = Row { reading: Reading::Never, ..Row::default() };
        let stale = Row { reading: Reading::Stale, ..Row::default() };
        let silent = Row { waiting: None, ..Row::default() };
        assert_scores(&score(&[busy, Row::default(), never, stale, silent]), &[0.0, 1.0, 0.25, 0.25, 0.25]);
    }
}
