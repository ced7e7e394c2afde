//! How near two endpoints stand: what the topology plugins share.
//!
//! The *peer* is the endpoint that another profile has chosen for this request before: the first target of the first
//! profile that ran and chose. So a prefill endpoint is looked for near the decode endpoint, or the other way round.

use crate::endpoint::{Labels, POD_HOSTNAME};
use crate::plugin::{BuildContext, Cycle, TopologyLabels};
use crate::pool::{AttributeId, Position};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The tightest place that two endpoints share.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// The same region.
    Region,
    /// The same zone.
    Zone,
    /// The same rack.
    Rack,
    /// The same host.
    Host,
}

/// Where the labels of the configured extractor are found.
#[derive(Clone, Copy)]
pub(super) struct Topology(AttributeId<Arc<TopologyLabels>>);

impl Topology {
    /// From the parameter `topologyProducerName`; the usual extractor when it is left out.
    pub(super) fn build(ctx: &mut BuildContext<'_>, producer: &str) -> Self {
        let producer = ctx.producer("topologyProducerName", producer, TopologyLabels::PRODUCER);
        Self(ctx.consumes(TopologyLabels::KIND, Some(producer), TopologyLabels::PRODUCER))
    }

    /// The peer of this run with the labels that count; `None` when no profile chose before or nothing is known of
    /// where the peer stands.
    pub(super) fn peer<'a>(self, cycle: &Cycle<'a>) -> Option<Peer<'a>> {
        let names: &TopologyLabels = cycle.candidates.attributes.get(self.0)?;
        let (_, run) = cycle.done.iter().find(|(_, run)| run.is_some())?;
        let labels = &cycle.candidates.endpoint(run?.targets.first()).labels;
        places(names)
            .iter()
            .any(|(level, label)| place(labels, *level, label).is_some())
            .then_some(Peer { names, labels })
    }
}

/// The endpoint to stand near to.
pub(super) struct Peer<'a> {
    names: &'a TopologyLabels,
    labels: &'a Labels,
}

impl Peer<'_> {
    /// The tightest place that the endpoint at `p` shares with the peer.
    pub(super) fn level(&self, cycle: &Cycle<'_>, p: Position) -> Option<Level> {
        let other = &cycle.candidates.endpoint(p).labels;
        let shared = |(level, label): &(Level, &str)| {
            place(self.labels, *level, label).is_some_and(|v| place(other, *level, label) == Some(v))
        };
        places(self.names).into_iter().find(shared).map(|(level, _)| level)
    }
}

/// The labels, the tightest place first.
fn places(names: &TopologyLabels) -> [(Level, &str); 4] {
    [
        (Level::Host, &names.host),
        (Level::Rack, &names.rack),
        (Level::Zone, &names.zone),
        (Level::Region, &names.region),
    ]
}

/// The value of a label unless it is empty; of the host what the pod's `spec.hostname` says where the label does not.
fn place<'a>(labels: &'a Labels, level: Level, label: &str) -> Option<&'a str> {
    let said = labels.get(label).filter(|v| !v.is_empty());
    said.or_else(|| labels.get(POD_HOSTNAME).filter(|_| level == Level::Host))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::plugin::{AttributeTable, PluginType, ProfileRun, ProfileRuns, Roles, StateStore, Targets};
    use crate::pool::Candidates;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, build_in, freeze, request};

    /// Labels of an endpoint at host, rack, zone and region; an empty word is no label.
    pub(crate) fn at(places: [&'static str; 4]) -> Row {
        let names = [
            "kubernetes.io/hostname",
            "topology.kubernetes.io/rack",
            "topology.kubernetes.io/zone",
            "topology.kubernetes.io/region",
        ];
        let labels = names.into_iter().zip(places).filter(|(_, place)| !place.is_empty());
        Row { labels: labels.collect(), ..Row::default() }
    }

    /// Five endpoints near and far of `h1 r1 z1 g1`, the first of which is that place itself.
    pub(crate) fn pool() -> Vec<Row> {
        vec![
            at(["h1", "r1", "z1", "g1"]),
            at(["h2", "r1", "z1", "g1"]),
            at(["h3", "r2", "z1", "g1"]),
            at(["h4", "r3", "z2", "g1"]),
            at(["h5", "r4", "z3", "g2"]),
        ]
    }

    /// Runs `look` with the plugin of `row` over `rows`, the one at `peer` chosen before.
    pub(crate) fn beside<R>(
        row: &PluginType,
        parameters: serde_json::Value,
        rows: &[Row],
        peer: Option<u32>,
        look: impl FnOnce(&Roles, &Cycle<'_>, &Candidates) -> R,
    ) -> R {
        let mut table = AttributeTable::default();
        let roles = build_in(row, parameters, &StateStore::default(), &Clock::manual(), &mut table).unwrap();
        let mut candidates = freeze(rows);
        let names = TopologyLabels {
            region: "topology.kubernetes.io/region".into(),
            zone: "topology.kubernetes.io/zone".into(),
            rack: "topology.kubernetes.io/rack".into(),
            host: "kubernetes.io/hostname".into(),
        };
        candidates.attributes.set(AttributeId::new(0), Arc::new(names));
        let mut done = ProfileRuns::default();
        done.push("encode".into(), None);
        if let Some(peer) = peer {
            let targets = Targets::one(Position(peer));
            done.push("decode".into(), Some(ProfileRun { targets, decision: Default::default() }));
        }
        let request = request("m", Prompt::None);
        let cycle = Cycle {
            request: &request,
            candidates: &candidates,
            profile: "prefill",
            done: &done,
            shadow: false,
        };
        look(&roles, &cycle, &candidates)
    }

    #[test]
    fn a_pod_without_the_label_of_its_host_stands_where_its_specification_says() {
        let with = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let (label, rack) = ("kubernetes.io/hostname", "topology.kubernetes.io/rack");
        let named = with(&[(POD_HOSTNAME, "h1")]);
        assert_eq!(place(&named, Level::Host, label), Some("h1"));
        assert_eq!(place(&named, Level::Rack, rack), None, "only the host");
        let both = with(&[(POD_HOSTNAME, "h1"), (label, "h2")]);
        assert_eq!(place(&both, Level::Host, label), Some("h2"), "the label counts");
        assert_eq!(place(&with(&[(POD_HOSTNAME, "h1"), (label, "")]), Level::Host, label), Some("h1"));
    }

    #[test]
    fn levels_are_ordered_from_wide_to_tight() {
        assert!(Level::Region < Level::Zone && Level::Zone < Level::Rack && Level::Rack < Level::Host);
    }
}
