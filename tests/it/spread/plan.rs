//! A configuration file as scheduler, producers and hooks.

use pointsman::clock::Clock;
use pointsman::plugin::{
    AttributeTable, BuildContext, CostModel, DataProducer, PreRequest, Registry, Roles, StateStore,
    WeightedScorer,
};
use pointsman::scheduling::{Profile, Scheduler};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Who chooses.
pub enum Policy {
    /// One after another.
    RoundRobin,
    /// A configuration: its name and its text.
    Configured(String, String),
}

impl Policy {
    pub fn configured(name: &str, file: &Path) -> Self {
        Self::Configured(name.to_owned(), std::fs::read_to_string(file).unwrap())
    }
    pub fn name(&self) -> &str {
        match self {
            Self::RoundRobin => "round robin",
            Self::Configured(name, _) => name,
        }
    }
}

/// What a request meets.
pub struct Plan {
    pub scheduler: Scheduler,
    pub producers: Vec<Arc<dyn DataProducer>>,
    pub pre_request: Vec<Arc<dyn PreRequest>>,
    pub cost: Arc<dyn CostModel>,
}

const PRODUCERS: [&str; 2] = ["approx-prefix-cache-producer", "inflight-load-producer"];

/// Reads the plugins and the one profile of a configuration. Types of other layers (data sources) are passed over; the
/// two producers that scorers may read exist always.
pub fn plan(text: &str, state: &StateStore, clock: &Clock) -> Plan {
    let document: Value = serde_saphyr::from_str(text).unwrap();
    let mut tables = pointsman::scheduling::tables().to_vec();
    tables.extend(pointsman::director::tables());
    let registry = Registry::from_tables(&tables).unwrap();
    let mut table = AttributeTable::default();
    let mut make = |name: &str, kind: &str, parameters: &Value| -> Option<Roles> {
        let row = registry.get(kind)?;
        let mut context = BuildContext {
            name: &name.into(),
            parameters,
            state,
            clock,
            prefix_index_bytes: 256 << 20,
            table: &mut table,
        };
        Some((row.build)(&mut context).unwrap())
    };
    let plugins = document["plugins"].as_array().unwrap();
    let text_of = |v: &Value, key: &str| v[key].as_str().map(str::to_owned);
    let (mut built, mut producers, mut pre_request, mut cost) =
        (BTreeMap::new(), Vec::new(), Vec::new(), None);
    let defaults = ["single-profile-handler", "max-score-picker"].map(|t| serde_json::json!({"type": t}));
    let implied = PRODUCERS.map(|t| serde_json::json!({"type": t}));
    let missing = implied.iter().filter(|i| plugins.iter().all(|p| p["type"] != i["type"]));
    for plugin in missing.chain(plugins).chain(&defaults) {
        let kind = text_of(plugin, "type").unwrap();
        let name = text_of(plugin, "name").unwrap_or_else(|| kind.clone());
        let Some(roles) = make(&name, &kind, &plugin["parameters"]) else { continue };
        producers.extend(roles.producer.clone());
        pre_request.extend(roles.pre_request.clone());
        cost = roles.cost.clone().or(cost);
        built.insert(name, roles);
    }
    let profile = profile(&document["schedulingProfiles"][0], &built);
    let handler = built["single-profile-handler"].profile_handler.clone().unwrap();
    Plan {
        scheduler: Scheduler::new(vec![profile], handler).unwrap(),
        producers,
        pre_request,
        cost: cost.unwrap(),
    }
}

fn profile(written: &Value, built: &BTreeMap<String, Roles>) -> Profile {
    let mut scorers = Vec::new();
    for entry in written["plugins"].as_array().unwrap() {
        let name = entry["pluginRef"].as_str().unwrap();
        if let Some(scorer) = built[name].scorer.clone() {
            let weight = entry["weight"].as_f64().unwrap_or(1.0);
            scorers.push(WeightedScorer { name: name.into(), plugin_type: "scorer", weight, scorer });
        }
    }
    let picker = built["max-score-picker"].picker.clone().unwrap();
    Profile { name: "default".into(), filters: Vec::new(), scorers, picker }
}
