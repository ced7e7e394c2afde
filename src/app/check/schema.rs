//! The JSON Schema of the configuration, for editors: the document's fields, and each plugin's parameters as its type
//! takes them.

use crate::app::assemble::registry;
use crate::config::document_schema;
use crate::plugin::{Described, KNOWN, Shape};
use serde_json::{Map, Value, json};

/// The schema, as text with a line end.
pub fn schema() -> anyhow::Result<String> {
    let registry = registry()?;
    let mut names: Vec<&str> = registry.names().chain(KNOWN.iter().map(|row| row.name)).collect();
    names.sort_unstable();
    names.dedup();
    let parameters = names.iter().filter_map(|name| {
        let described = registry.described(name)?;
        Some(json!({
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
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
    // Whole lists of defaults stand in the documentation.
    let long = |d: &Value| d.as_array().is_some_and(|items| !items.is_empty());
    let plain = !matches!(shape, Shape::Fields(_));
    if let Some(default) = default.filter(|d| plain && !d.is_null() && !long(d)) {
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
        let scorer = registry.described("prefix-cache-scorer").unwrap();
        let told = parameters(&scorer);
        assert_eq!(
            told["properties"]["matchLengthScaleTokens"],
            json!({"type": "number", "default": 8192.0})
        );
        assert_eq!(told["additionalProperties"], json!(false));
        assert_eq!(registry.described("queue-scorer"), None, "it takes none");
    }
}
