//! Everything that is wrong with the parameters of one plugin, where its own reader stops at the first.

use crate::config::{Misfit, PluginSpec, hint, misfits};
use crate::plugin::{Described, Shape};
use serde_json::{Map, Value};

/// Most faults that are told of one plugin.
const MAX_FAULTS: usize = 32;

/// Why a plugin with these parameters cannot be built; `None` when it can.
type Build<'a> = &'a dyn Fn(&Value) -> Option<String>;

/// Why the plugin of `spec` could not be built: what does not fit its type's parameters, and then, without that, what
/// the plugin itself refuses, one parameter after the other. `error` is what it refused first; the last resort.
pub fn faults(
    spec: &PluginSpec,
    described: Option<&Described>,
    error: &str,
    build: Build<'_>,
) -> Vec<Misfit> {
    let (mut found, mut kept) = match (&spec.parameters_node, described) {
        (Some(node), Some(described)) => misfits(node, &described.shape),
        _ => (Vec::new(), spec.parameters.clone()),
    };
    let mut missing: Vec<String> = found.iter().map(|fault| fault.path.clone()).collect();
    while found.len() < MAX_FAULTS {
        let Some(told) = build(&kept) else { break };
        if words(&told).any(|word| missing.iter().any(|path| speaks_of(path, word))) {
            // It misses what was taken out here.
            break;
        }
        let culprit = culprit(&kept, &told, described, build);
        found.push(fault(spec, culprit.as_deref(), told));
        let (Some(culprit), Value::Object(entries)) = (culprit, &mut kept) else { break };
        entries.remove(&culprit);
        missing.push(culprit);
    }
    if found.is_empty() {
        found.push(fault(spec, None, error.to_owned()));
    }
    found
}

/// What a type that is known by name does not take, and what it needs and has not.
pub fn unknown(spec: &PluginSpec, described: Option<&Described>) -> Vec<Misfit> {
    let Some(described) = described else { return Vec::new() };
    let (mut found, _) = match &spec.parameters_node {
        Some(node) => misfits(node, &described.shape),
        None => (Vec::new(), Value::Null),
    };
    for field in described.required.iter().filter(|field| spec.parameters.get(field.as_str()).is_none()) {
        found.push(fault(spec, None, format!("missing field `{field}`")));
    }
    found
}

/// Whether `word` is the path of a parameter, or one of the fields on it.
fn speaks_of(path: &str, word: &str) -> bool {
    path == word || path.split(['.', '[']).any(|field| field == word)
}

/// The words in backticks.
fn words(told: &str) -> impl Iterator<Item = &str> + Clone {
    told.split('`').skip(1).step_by(2)
}

/// The parameter that `told` is about: the one that it names, else, where it names none, the one without which the plugin
/// says something else.
fn culprit(
    parameters: &Value,
    told: &str,
    described: Option<&Described>,
    build: Build<'_>,
) -> Option<String> {
    let entries = parameters.as_object()?;
    if let Some(named) = words(told).find(|word| entries.contains_key(*word)) {
        return Some(named.to_owned());
    }
    let fields =
        described.and_then(|d| if let Shape::Fields(fields) = &d.shape { Some(fields) } else { None });
    let is_field = |word: &str| fields.is_some_and(|f| f.iter().any(|(name, _)| *name == word));
    if told.starts_with("missing field") || words(told).any(is_field) {
        return None;
    }
    let without = |name: &String| -> Map<String, Value> {
        entries.iter().filter(|(key, _)| *key != name).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let mut told_otherwise =
        entries.keys().filter(|name| build(&Value::Object(without(name))).as_deref() != Some(told));
    told_otherwise.next().filter(|_| told_otherwise.next().is_none()).cloned()
}

/// `told` at the parameter `name`, or at the deepest key that it names, or at the plugin; with the nearest spelling
/// where a plugin that does not tell its parameters calls a field unknown.
fn fault(spec: &PluginSpec, name: Option<&str>, mut told: String) -> Misfit {
    let node = spec.parameters_node.as_ref();
    let named = words(&told).find_map(|word| node?.find_key(word));
    let place = named.or_else(|| node?.find_key(name?)).or(spec.place);
    if told.starts_with("unknown field") {
        let mut words = words(&told);
        let near = words.next().map(|word| hint(word, words)).unwrap_or_default();
        told.push_str(&near);
    }
    Misfit { place, path: name.unwrap_or_default().to_owned(), told }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(parameters: Value) -> PluginSpec {
        PluginSpec { parameters, ..PluginSpec::default_of("x") }
    }

    /// A plugin that refuses one thing after the other.
    fn picky(parameters: &Value) -> Option<String> {
        let number = |name: &str| parameters.get(name).and_then(Value::as_i64);
        match (number("low"), number("high"), number("size")) {
            (_, _, Some(0)) => Some("a size of nothing".to_owned()),
            (Some(low), ..) if low < 0 => Some("`low` must be positive".to_owned()),
            (Some(low), Some(high), _) if low > high => Some("the range is empty".to_owned()),
            (_, None, _) => Some("missing field `high`".to_owned()),
            _ => None,
        }
    }

    fn told(parameters: Value) -> Vec<(String, String)> {
        let first = picky(&parameters).unwrap();
        let found = faults(&spec(parameters), None, &first, &picky);
        found.into_iter().map(|fault| (fault.path, fault.told)).collect()
    }

    #[test]
    fn what_a_plugin_refuses_is_told_one_after_the_other() {
        let pair = |path: &str, told: &str| (path.to_owned(), told.to_owned());
        let wanted = [pair("size", "a size of nothing"), pair("low", "`low` must be positive")];
        assert_eq!(told(serde_json::json!({"low": -1, "high": 2, "size": 0})), wanted);
        let both = told(serde_json::json!({"low": 5, "high": 2}));
        assert_eq!(both, [pair("", "the range is empty")], "two could be at fault");
        assert_eq!(told(serde_json::json!({"low": 5})), [pair("", "missing field `high`")]);
    }

    #[test]
    fn a_field_that_was_taken_out_is_not_missing() {
        let alone = |parameters: &Value| match parameters.get("size") {
            Some(Value::Number(_)) => Some("`size` must be positive".to_owned()),
            _ => Some("missing field `size`".to_owned()),
        };
        let found = faults(&spec(serde_json::json!({"size": -1})), None, "first", &alone);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].told, "`size` must be positive");
    }
}
