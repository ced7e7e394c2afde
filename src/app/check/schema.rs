//! The JSON Schema of the configuration, for editors: the document's fields, and each plugin's parameters as its type
//! takes them.

use crate::app::assemble::registry;
use crate::clock::Clock;
use crate::config::document_schema;
use crate::plugin::{AttributeTable, BuildContext, Described, KNOWN, PluginType, Shape, StateStore};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The schema, as text with a line end.
pub fn schema() -> anyhow::Result<String> {
    let registry = registry()?;
    let mut names: Vec<&str> = registry.names().chain(KNOWN.iter().map(|row| row.name)).collect();
    names.sort_unstable();
    names.dedup();
    let rows = registry.names().filter_map(|name| registry.get(name));
    let parameters = rows.filter_map(|row| {
        let described = described(row)?;
        Some(json!({
            "if": {"properties": {"type": {"const": row.name}}, "required": ["type"]},
            "then": {"properties": {"parameters": parameters(&described)}},
        }))
    });
    let plugin = json!({
        "type": "object",
        "properties": {
            "type": {"enum": names, "description": "The plugin type."},
            "name": {"type": "string", "description": "The name that references use; the type when it is left out."},
            "parameters": {"type": "object"},
        },
        "required": ["type"],
        "additionalProperties": false,
        "allOf": parameters.collect::<Vec<Value>>(),
    });
    let mut text = serde_json::to_string_pretty(&document_schema(&plugin))?;
    text.push('\n');
    Ok(text)
}

/// What the type takes as parameters; `None` where it takes none or does not tell.
fn described(row: &PluginType) -> Option<Described> {
    let mut table = AttributeTable::default();
    table.describing = true;
    let name: Arc<str> = row.name.into();
    // The plugin is not built: the first thing that it does is to ask for its parameters, and that ends it.
    let _asked = (row.build)(&mut BuildContext {
        name: &name,
        parameters: &Value::Null,
        state: &StateStore::default(),
        clock: &Clock::system(),
        prefix_index_bytes: 0,
        table: &mut table,
    });
    table.described
}

fn parameters(described: &Described) -> Value {
    let mut schema = of(&described.shape, described.defaults.as_ref());
    if !described.required.is_empty() {
        schema["required"] = json!(described.required);
    }
    schema
}

fn of(shape: &Shape, default: Option<&Value>) -> Value {
    let mut schema = match shape {
        Shape::Any => json!({}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Whole => json!({"type": "integer"}),
        Shape::Number => json!({"type": "number"}),
        Shape::Text => json!({"type": "string"}),
        Shape::Choice(words) => json!({"enum": words}),
        Shape::List(item) => json!({"type": "array", "items": of(item, None)}),
        Shape::Map(value) => json!({"type": "object", "additionalProperties": of(value, None)}),
        Shape::Fields(fields) => {
            let fields = fields
                .iter()
                .map(|(name, shape)| ((*name).to_owned(), of(shape, default.and_then(|d| d.get(*name)))));
            json!({
                "type": "object",
                "properties": fields.collect::<Map<String, Value>>(),
                "additionalProperties": false,
            })
        }
    };
    let plain = !matches!(shape, Shape::Fields(_));
    if let Some(default) = default.filter(|d| plain && !d.is_null()) {
        schema["default"] = default.clone();
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schema_is_current() {
        let committed = include_str!("../../../config/schema.json");
        assert_eq!(committed, schema().unwrap(), "run: pointsman check --schema > config/schema.json");
    }

    #[test]
    fn plugins_tell_their_parameters() {
        let registry = registry().unwrap();
        let scorer = described(registry.get("prefix-cache-scorer").unwrap()).unwrap();
        let told = parameters(&scorer);
        assert_eq!(
            told["properties"]["matchLengthScaleTokens"],
            json!({"type": "number", "default": 8192.0})
        );
        assert_eq!(told["additionalProperties"], json!(false));
        assert_eq!(described(registry.get("queue-scorer").unwrap()), None, "it takes none");
    }
}
