//! `topology-affinity-scorer`: the nearer to the endpoint that another profile chose for this request, the better.
//!
//! 1 on the same host, 0.2 in the same rack, 0.05 in the same zone, 0.02 in the same region, else 0; 0 for all when no
//! other profile chose before. The labels are those of `topology-extractor`, which is added when it is not declared.
//!
//! ```yaml
//! - type: topology-affinity-scorer
//!   parameters: {topologyProducerName: topology-extractor}
//! ```

use crate::plugin::{
    BuildContext, BuildError, Cycle, PluginType, Roles, Score, Scorer, Scores, Shortlist, Stability,
};
use crate::scheduling::topology::{Level, Topology};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "topology-affinity-scorer", stability: Stability::Alpha, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    topology_producer_name: String,
}

struct TopologyScorer(Topology);

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let scorer = TopologyScorer(Topology::build(ctx, &written.topology_producer_name));
    Ok(Roles { scorer: Some(Arc::new(scorer)), ..Roles::default() })
}

fn worth(level: Level) -> f64 {
    match level {
        Level::Host => 1.0,
        Level::Rack => 0.2,
        Level::Zone => 0.05,
        Level::Region => 0.02,
    }
}

impl Scorer for TopologyScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        let Some(peer) = self.0.peer(cycle) else { return };
        for (i, p) in shortlist.positions().iter().enumerate() {
            scores.set(i, Score::new(peer.level(cycle, *p).map_or(0.0, worth)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::assert_scores;
    use crate::scheduling::topology::tests::{beside, pool};
    use serde_json::json;

    #[test]
    fn places_of_the_catalogue() {
        let score = |peer| {
            beside(&TYPE, json!({}), &pool(), peer, |roles, cycle, candidates| {
                let shortlist = Shortlist::all(candidates);
                let mut out = vec![0.0; shortlist.len()];
                roles.scorer.as_ref().unwrap().score(cycle, &shortlist, &mut Scores::over(&mut out));
                out
            })
        };
        assert_scores(&score(Some(0)), &[1.0, 0.2, 0.05, 0.02, 0.0]);
        assert_scores(&score(None), &[0.0; 5]);
    }
}
