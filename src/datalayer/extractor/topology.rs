//! `topology-extractor`: which labels of an endpoint say where it stands.
//!
//! The topology plugins read these labels themselves; this one only names them. It acts as soon as it is declared, and
//! may be bound to any data source. A label that an endpoint lacks is a place that is not known; the host is then the
//! pod's `spec.hostname` where it has one.
//!
//! ```yaml
//! - type: topology-extractor
//!   parameters:
//!     hostname: kubernetes.io/hostname
//!     rack: topology.kubernetes.io/rack
//!     zone: topology.kubernetes.io/zone
//!     region: topology.kubernetes.io/region
//! ```

use crate::plugin::{
    BuildContext, BuildError, DataProducer, ExtractorSpec, PluginType, ProduceError, Roles, Stability,
    TopologyLabels,
};
use crate::pool::{AttributeId, Candidates};
use crate::request::InferenceRequest;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Parameters {
    hostname: String,
    rack: String,
    zone: String,
    region: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            hostname: "kubernetes.io/hostname".to_owned(),
            rack: "topology.kubernetes.io/rack".to_owned(),
            zone: "topology.kubernetes.io/zone".to_owned(),
            region: "topology.kubernetes.io/region".to_owned(),
        }
    }
}

struct Topology {
    labels: Arc<TopologyLabels>,
    id: AttributeId<Arc<TopologyLabels>>,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let labels = Arc::new(TopologyLabels {
        region: written.region,
        zone: written.zone,
        rack: written.rack,
        host: written.hostname,
    });
    let id = ctx.produces(TopologyLabels::KIND);
    Ok(Roles {
        extractor: Some(ExtractorSpec::Pageless),
        producer: Some(Arc::new(Topology { labels, id })),
        ..Roles::default()
    })
}

impl DataProducer for Topology {
    fn produce(&self, _: &InferenceRequest, candidates: &mut Candidates) -> Result<(), ProduceError> {
        candidates.attributes.set(self.id, Arc::clone(&self.labels));
        Ok(())
    }
}

/// The plugin types of this file.
pub const TABLE: &[PluginType] =
    &[PluginType { name: TopologyLabels::PRODUCER, stability: Stability::Alpha, build }];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::plugin::{AttributeTable, StateStore};
    use serde_json::json;

    #[test]
    fn labels_have_usual_names_and_unknown_parameters_are_refused() {
        let build_with = |parameters: serde_json::Value| {
            build(&mut BuildContext {
                name: &TopologyLabels::PRODUCER.into(),
                parameters: &parameters,
                state: &StateStore::default(),
                clock: &Clock::manual(),
                prefix_index_bytes: 0,
                table: &mut AttributeTable::default(),
            })
        };
        let roles = build_with(json!({"rack": "my/rack"})).unwrap();
        assert_eq!(roles.extractor, Some(ExtractorSpec::Pageless));
        assert!(roles.producer.is_some());
        assert!(build_with(json!({"host": "x"})).is_err());
    }
}
