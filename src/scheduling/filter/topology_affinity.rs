//! `topology-affinity-filter`: keeps the endpoints that stand near the one that another profile chose for this request.
//!
//! Two endpoints are as near as the tightest of host, rack, zone and region that both have and that is the same. Kept is
//! what is at `minAffinity` or nearer. When there is no such other endpoint, when nobody knows where it stands, or when
//! nobody is near enough, all are kept. The labels are those of `topology-extractor`, which is added when it is not
//! declared.
//!
//! ```yaml
//! - type: topology-affinity-filter
//!   parameters:
//!     minAffinity: host                  # host, rack, zone or region
//!     topologyProducerName: topology-extractor
//! ```

use crate::plugin::{BuildContext, BuildError, Cycle, Filter, PluginType, Roles, Shortlist, Stability};
use crate::scheduling::topology::{Level, Topology};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "topology-affinity-filter", stability: Stability::Alpha, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    #[serde(default = "tightest")]
    min_affinity: Level,
    #[serde(default)]
    topology_producer_name: String,
}

fn tightest() -> Level {
    Level::Host
}

struct TopologyFilter {
    topology: Topology,
    least: Level,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let topology = Topology::build(ctx, &written.topology_producer_name);
    let filter = TopologyFilter { topology, least: written.min_affinity };
    Ok(Roles { filter: Some(Arc::new(filter)), ..Roles::default() })
}

impl Filter for TopologyFilter {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        let Some(peer) = self.topology.peer(cycle) else { return };
        let near = |p| peer.level(cycle, p).is_some_and(|level| level >= self.least);
        if shortlist.positions().iter().any(|p| near(*p)) {
            shortlist.retain(near);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::{Row, build};
    use crate::scheduling::topology::tests::{at, beside, pool};
    use serde_json::{Value, json};

    fn keeps(parameters: Value, rows: &[Row], peer: Option<u32>) -> Vec<u32> {
        beside(&TYPE, parameters, rows, peer, |roles, cycle, candidates| {
            let mut shortlist = Shortlist::all(candidates);
            roles.filter.as_ref().unwrap().filter(cycle, &mut shortlist);
            shortlist.positions().iter().map(|p| p.0).collect()
        })
    }

    #[test]
    fn places_of_the_catalogue() {
        let level = |name: &str| json!({"minAffinity": name});
        let mut rows = pool();
        rows.push(Row::default());
        assert_eq!(keeps(json!({}), &rows, Some(0)), [0]);
        assert_eq!(keeps(level("rack"), &rows, Some(0)), [0, 1]);
        assert_eq!(keeps(level("zone"), &rows, Some(0)), [0, 1, 2]);
        assert_eq!(keeps(level("region"), &rows, Some(0)), [0, 1, 2, 3]);
        assert_eq!(keeps(level("region"), &rows, None), [0, 1, 2, 3, 4, 5], "no peer");
        assert_eq!(keeps(level("region"), &rows, Some(5)), [0, 1, 2, 3, 4, 5], "a peer without a place");
    }

    #[test]
    fn nobody_near_keeps_all() {
        let rows = [at(["", "r1", "", ""]), at(["h2", "r2", "", ""])];
        assert_eq!(keeps(json!({}), &rows, Some(0)), [0, 1]);
    }

    #[test]
    fn an_unknown_level_is_refused() {
        assert!(build(&TYPE, json!({"minAffinity": "floor"})).is_err());
        assert!(build(&TYPE, json!({"minAffinities": "host"})).is_err());
    }
}
