//! `kv-cache-utilization-scorer`: less of the engine's KV cache in use is better.
//!
//! `1 - usage`; unknown and stale endpoints by the common rule. It has no parameters and ignores any.
//!
//! ```yaml
//! - type: kv-cache-utilization-scorer
//! ```

use super::known::score_fresh;
use crate::plugin::{
    BuildContext, BuildError, Cycle, PluginType, Roles, Scorer, Scores, Shortlist, Stability,
};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "kv-cache-utilization-scorer", stability: Stability::Beta, build };

struct KvCacheScorer;

fn build(_: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    Ok(Roles { scorer: Some(Arc::new(KvCacheScorer)), ..Roles::default() })
}

impl Scorer for KvCacheScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        score_fresh(shortlist, scores, |p| cycle.candidates.fresh_kv_usage(p), |usage| 1.0 - usage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Reading;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, assert_scores, freeze, request, scores};
    use serde_json::json;

    #[test]
    fn usages_of_the_catalogue_and_a_stale_one() {
        let mut rows: Vec<_> =
            [0.8, 0.5, 0.0, 0.6, 1.0].map(|kv| Row { kv: Some(kv), ..Row::default() }).into();
        let wanted = [0.2, 0.5, 1.0, 0.4, 0.0];
        let score =
            |rows: &[Row]| scores(&TYPE, json!({"any": 1}), &request("m", Prompt::None), &freeze(rows));
        assert_scores(&score(&rows), &wanted);
        rows.push(Row { reading: Reading::Stale, ..Row::default() });
        assert_scores(&score(&rows)[5..], &[0.2]);
    }
}
