//! `mm-embeddings-cache-scorer`: the more of a request's pictures, sounds and films an endpoint has encoded before, the
//! better.
//!
//! `matched / total` items; 0 for all when the request has none.
//!
//! ```yaml
//! - type: mm-embeddings-cache-scorer
//!   parameters: {producerName: mm-embeddings-cache-producer}
//! ```

use crate::plugin::{
    BuildContext, BuildError, Cycle, EncoderMatches, PluginType, Roles, Score, Scorer, Scores, Shortlist,
    Stability,
};
use crate::pool::AttributeId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "mm-embeddings-cache-scorer", stability: Stability::Beta, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    producer_name: String,
}

struct MmScorer(AttributeId<EncoderMatches>);

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let producer = ctx.producer("producerName", &written.producer_name, EncoderMatches::PRODUCER);
    let id = ctx.consumes(EncoderMatches::KIND, Some(producer), EncoderMatches::PRODUCER);
    Ok(Roles { scorer: Some(Arc::new(MmScorer(id))), ..Roles::default() })
}

impl Scorer for MmScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        let Some(found) = cycle.candidates.attributes.get(self.0).filter(|m| m.total > 0) else { return };
        for (i, p) in shortlist.positions().iter().enumerate() {
            let matched = found.matched.get(p.index()).copied().unwrap_or(0);
            scores.set(i, Score::new(f64::from(matched) / f64::from(found.total)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::plugin::{AttributeTable, StateStore};
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, assert_scores, build_in, freeze, request, score_with};
    use serde_json::json;

    #[test]
    fn matches_of_the_catalogue() {
        let mut table = AttributeTable::default();
        let roles = build_in(&TYPE, json!({}), &StateStore::default(), &Clock::manual(), &mut table).unwrap();
        let scorer = roles.scorer.unwrap();
        let mut candidates = freeze(&vec![Row::default(); 3]);
        let score = |candidates: &_| score_with(&*scorer, &request("m", Prompt::None), candidates);
        assert_scores(&score(&candidates), &[0.0; 3]);
        let found = EncoderMatches { total: 100, matched: vec![80, 20, 0] };
        candidates.attributes.set(AttributeId::new(0), found);
        assert_scores(&score(&candidates), &[0.8, 0.2, 0.0]);
    }
}
