//! Every documented parameter of every plugin type is shown with what it is when nobody writes it.

use super::*;
use serde_json::{Value, json};

/// The least that a type needs to be built, where it needs something.
fn least(plugin_type: &str) -> Value {
    match plugin_type {
        "by-label" => json!({"label": "tier", "allowsNoLabel": true}),
        "cel-filter" => json!({"expression": "true"}),
        "cel-scorer" => json!({"expression": "0.5"}),
        "endpoint-attribute-filter" => {
            json!({"attribute": "a", "algorithm": {"type": "threshold", "threshold": {"operator": "Equal", "value": 1}}})
        }
        "endpoint-attribute-scorer" => {
            json!({"attributeKey": "a", "algorithm": {"type": "linear_lower_is_better"}})
        }
        "file-discovery" => json!({"path": "endpoints.yaml"}),
        "header-label-affinity-scorer" => json!({"headerName": "x-tier", "labelKey": "tier"}),
        "request-attribute-reporter" => {
            json!({"attributes": [{"key": {"name": "cost"}, "expression": "usage.total_tokens"}]})
        }
        "session-id-producer" => json!({"headerName": "x-session-id"}),
        "utilization-filter" => json!({"conditions": [{"metric": "waiting-queue", "maxValue": 1}]}),
        _ => Value::Null,
    }
}

/// Types that take no parameters: any block is accepted and ignored.
const IGNORING: [&str; 17] = [
    "anthropic-parser",
    "decode-filter",
    "destination-endpoint-served-verifier",
    "encode-filter",
    "header-based-testing-filter",
    "kv-cache-utilization-scorer",
    "lora-affinity-scorer",
    "models-data-extractor",
    "openai-parser",
    "passthrough-parser",
    "prefill-filter",
    "queue-scorer",
    "running-requests-size-scorer",
    "sglanghttp-parser",
    "single-profile-handler",
    "vllmgrpc-parser",
    "vllmhttp-parser",
];

const DEFAULTS: &str = include_str!("../../../tests/fixtures/plugin-defaults.tsv");

/// What is in force of the documented parameters: type, pointer into its parameters, value.
fn documented() -> Vec<(&'static str, &'static str, Value)> {
    let rows = DEFAULTS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    rows.map(|row| {
        let columns: Vec<&str> = row.split('\t').collect();
        let [plugin_type, pointer, value] = columns[..] else { panic!("not three columns: {row}") };
        (plugin_type, pointer, serde_json::from_str(value).unwrap())
    })
    .collect()
}

/// What is in force of an instance of the type with the least parameters.
fn in_force(registry: &Registry, plugin_type: &str) -> Option<Value> {
    let mut table = crate::plugin::AttributeTable::default();
    let built = (registry.get(plugin_type)?.build)(&mut crate::plugin::BuildContext {
        name: &plugin_type.into(),
        parameters: &least(plugin_type),
        state: &StateStore::default(),
        clock: &Clock::manual(),
        prefix_index_bytes: 1 << 20,
        table: &mut table,
    });
    assert!(built.is_ok(), "{plugin_type}: {:?}", built.err());
    table.settings.into_iter().map(|(_, settings)| settings).next()
}

#[test]
fn every_documented_parameter_is_shown_with_its_default() {
    let (registry, documented) = (registry().unwrap(), documented());
    for plugin_type in registry.names() {
        let mut rows = documented.iter().filter(|(name, ..)| *name == plugin_type).peekable();
        if rows.peek().is_none() {
            assert!(IGNORING.contains(&plugin_type), "{plugin_type} stands in neither table");
            assert_eq!(registry.described(plugin_type), None, "{plugin_type} takes parameters");
            continue;
        }
        let shown = in_force(&registry, plugin_type).unwrap_or_else(|| panic!("{plugin_type} shows nothing"));
        for (_, pointer, value) in rows {
            assert_eq!(shown.pointer(pointer), Some(value), "{plugin_type}{pointer} in {shown}");
        }
    }
    let unknown: Vec<_> = documented.iter().filter(|(name, ..)| registry.get(name).is_none()).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn what_is_shown_of_a_plugin_is_taken_by_it_and_comes_to_the_same() {
    let registry = registry().unwrap();
    for plugin_type in registry.names() {
        let Some(shown) = in_force(&registry, plugin_type) else { continue };
        let mut table = crate::plugin::AttributeTable::default();
        let built = (registry.get(plugin_type).unwrap().build)(&mut crate::plugin::BuildContext {
            name: &plugin_type.into(),
            parameters: &shown,
            state: &StateStore::default(),
            clock: &Clock::manual(),
            prefix_index_bytes: 1 << 20,
            table: &mut table,
        });
        assert!(built.is_ok(), "{plugin_type}: {:?} of {shown}", built.err());
        assert_eq!(table.settings[0].1, shown, "{plugin_type}");
    }
}
