//! The fields of the document as JSON Schema. The list is checked against what the decoder takes.

use super::document::{API_VERSION, KIND};
use serde_json::{Value, json};

/// The schema of the document; `plugin` is that of one entry of `plugins`.
pub fn document_schema(plugin: &Value) -> Value {
    let text = || json!({"type": "string"});
    let whole = || json!({"type": "integer"});
    let reference = || closed(&json!({"pluginRef": text()}), &["pluginRef"]);
    let quantity = || json!({"type": ["string", "integer"], "description": "A quantity, e.g. 1k or 10Gi."});
    let duration = || json!({"type": "string", "description": "A duration, e.g. 500ms or 1m30s."});
    let band = || {
        closed(
            &json!({
                "priority": whole(),
                "maxBytes": quantity(),
                "maxRequests": quantity(),
                "fairnessPolicyRef": text(),
                "orderingPolicyRef": text(),
            }),
            &[],
        )
    };
    let source = closed(
        &json!({"pluginRef": text(), "extractors": {"type": "array", "items": reference()}}),
        &["pluginRef"],
    );
    let profile_plugin =
        closed(&json!({"pluginRef": text(), "weight": {"type": "number", "default": 1.0}}), &["pluginRef"]);
    let shadow = json!({"type": "boolean", "default": false, "description": "Only watched: picks nothing."});
    let plugins = json!({"type": "array", "items": profile_plugin});
    let profile = closed(&json!({"name": text(), "shadow": shadow, "plugins": plugins}), &["name"]);
    let gate = "^(flowControl|haPopulateNonLeaderDatastore)( *= *([tT]rue|[fF]alse|TRUE|FALSE|[tTfF01]) *)?$";
    let mut root = closed(
        &json!({
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": KIND},
            "featureGates": {"type": "array", "items": {"type": "string", "pattern": gate}},
            "plugins": {"type": "array", "items": plugin},
            "schedulingProfiles": {"type": "array", "items": profile},
            "dataLayer": closed(&json!({
                "injectDefaults": {"type": "boolean", "default": true},
                "sources": {"type": "array", "items": source},
                "discovery": reference(),
                "peerDiscovery": reference(),
                "crossReplicaSyncerPluginRef": text(),
                "crossReplicaSyncInterval": duration(),
            }), &[]),
            "flowControl": closed(&json!({
                "maxBytes": quantity(),
                "maxRequests": quantity(),
                "defaultRequestTTL": duration(),
                "noEndpointRequestTTL": duration(),
                "priorityBands": {"type": "array", "items": band()},
                "defaultPriorityBand": band(),
                "defaultNegativePriorityBand": band(),
                "usageLimitPolicyPluginRef": text(),
                "saturationDetector": reference(),
                "enableEviction": {"type": "boolean", "default": false},
            }), &[]),
            "requestHandler": closed(&json!({"parsers": {"type": "array", "items": reference()}}), &[]),
        }),
        &["apiVersion", "kind"],
    );
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("EndpointPickerConfig");
    root
}

/// A map with these keys only.
fn closed(properties: &Value, required: &[&str]) -> Value {
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Findings, decode};

    /// A value of the schema with every key in it.
    fn whole(schema: &Value) -> Value {
        if let Some(fixed) = schema.get("const") {
            return fixed.clone();
        }
        let one = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
        match one {
            Some("object") => {
                let properties = schema["properties"].as_object().into_iter().flatten();
                properties.map(|(name, schema)| (name.clone(), whole(schema))).collect()
            }
            Some("array") => json!([whole(&schema["items"])]),
            Some("boolean") => json!(true),
            Some("number" | "integer") => json!(1),
            _ if schema.get("pattern").is_some() => json!("flowControl"),
            _ => json!("1s"),
        }
    }

    #[test]
    fn the_decoder_takes_every_key_of_the_schema_and_no_other() {
        let plugin = closed(&json!({"type": {"type": "string"}, "name": {"type": "string"}}), &[]);
        let document = whole(&document_schema(&plugin));
        let told = |document: &Value| {
            let mut findings = Findings::default();
            decode(&document.to_string(), &mut findings);
            findings.problems.into_iter().map(|p| p.message).filter(|m| m.contains("unknown field")).count()
        };
        assert_eq!(told(&document), 0, "{document}");
        // A key more in any map is one that the decoder does not know.
        let mut more = document;
        let mut maps = 0;
        add_everywhere(&mut more, &mut maps);
        assert_eq!(told(&more), maps, "{more}");
    }

    fn add_everywhere(value: &mut Value, maps: &mut usize) {
        match value {
            Value::Object(entries) => {
                entries.values_mut().for_each(|v| add_everywhere(v, maps));
                entries.insert("zzz".to_owned(), json!(1));
                *maps += 1;
            }
            Value::Array(items) => items.iter_mut().for_each(|v| add_everywhere(v, maps)),
            _ => {}
        }
    }
}
