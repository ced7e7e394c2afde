//! `session-affinity-scorer`: 1 for the endpoint that the request's session is bound to, 0 for the others.
//!
//! Parameters as of `session-affinity-filter`.
//!
//! ```yaml
//! - type: session-affinity-scorer
//! ```

use crate::plugin::{
    BuildContext, BuildError, Cycle, PluginType, Roles, Score, Scorer, Scores, Shortlist, Stability,
};
use crate::scheduling::session::Affinity;
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "session-affinity-scorer", stability: Stability::Alpha, build };

struct SessionScorer(Arc<Affinity>);

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let affinity = Affinity::build(ctx)?;
    Ok(Roles { scorer: Some(Arc::new(SessionScorer(Arc::clone(&affinity)))), ..affinity.roles() })
}

impl Scorer for SessionScorer {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        if let Some(index) = self.0.pinned(cycle, shortlist) {
            scores.set(index, Score::ONE);
        }
    }
}
