//! What changed between two configurations, in lines that a person reads.

use super::node;
use serde_json::{Map, Value};

/// Most lines of one diff; the rest is counted.
const MOST_LINES: usize = 50;
/// Longest value that is written out, in characters.
const MOST_CHARACTERS: usize = 80;

/// The differences between two documents, one line each: `path: old -> new`, `+ path: new`, `- path: old`. Items of lists
/// are told apart by their name (`name`, `pluginRef` or `type`), so that a plugin that moves is no change of its
/// neighbours. Documents that are no YAML or JSON have no differences to speak of.
pub fn diff(old: &str, new: &str) -> Vec<String> {
    let (Ok(old), Ok(new)) = (node::read(old), node::read(new)) else { return Vec::new() };
    let mut lines = Vec::new();
    compare("", &old.to_json(), &new.to_json(), &mut lines);
    if lines.len() > MOST_LINES {
        let more = lines.len() - MOST_LINES;
        lines.truncate(MOST_LINES);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn compare(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(old), Value::Object(new)) => maps(path, old, new, lines),
        (Value::Array(old), Value::Array(new)) => match (named(old), named(new)) {
            (Some(before), Some(after)) => {
                let order = |list: &Map<String, Value>| list.keys().cloned().collect::<Vec<_>>();
                let (was, is) = (order(&before), order(&after));
                maps_in_brackets(path, &before, &after, lines);
                let moved = |a: &[String], b: &[String]| {
                    a.iter().filter(|k| b.contains(k)).cloned().collect::<Vec<_>>()
                };
                if moved(&was, &is) != moved(&is, &was) {
                    lines.push(format!("{path}: order {} -> {}", was.join(", "), is.join(", ")));
                }
            }
            _ => lines.push(changed(path, &Value::from(old.clone()), &Value::from(new.clone()))),
        },
        (old, new) => lines.push(changed(path, old, new)),
    }
}

fn changed(path: &str, old: &Value, new: &Value) -> String {
    format!("{path}: {} -> {}", short(old), short(new))
}

fn maps(path: &str, old: &Map<String, Value>, new: &Map<String, Value>, lines: &mut Vec<String>) {
    each(old, new, lines, |key| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") });
}

fn maps_in_brackets(path: &str, old: &Map<String, Value>, new: &Map<String, Value>, lines: &mut Vec<String>) {
    each(old, new, lines, |key| format!("{path}[{key}]"));
}

fn each(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    lines: &mut Vec<String>,
    path: impl Fn(&str) -> String,
) {
    for (key, before) in old {
        match new.get(key) {
            Some(after) => compare(&path(key), before, after, lines),
            None => lines.push(format!("- {}: {}", path(key), short(before))),
        }
    }
    for (key, after) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        lines.push(format!("+ {}: {}", path(key), short(after)));
    }
}

/// The items by name, when each is a map with a name of its own.
fn named(items: &[Value]) -> Option<Map<String, Value>> {
    let mut by_name = Map::new();
    for item in items {
        let name =
            ["name", "pluginRef", "type", "metricsSpec"].into_iter().find_map(|key| item.get(key)?.as_str());
        if by_name.insert(name?.to_owned(), item.clone()).is_some() {
            return None;
        }
    }
    Some(by_name)
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= MOST_CHARACTERS {
        return text;
    }
    text.chars().take(MOST_CHARACTERS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "
plugins:
- type: queue-scorer
- {type: prefix-cache-scorer, name: prefix, parameters: {matchLengthWeight: 0}}
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: prefix, weight: 3}
";

    #[test]
    fn a_change_is_named_by_its_path() {
        let new =
            OLD.replace("weight: 3", "weight: 4").replace("matchLengthWeight: 0", "matchLengthWeight: 0.5");
        assert_eq!(
            diff(OLD, &new),
            [
                "plugins[prefix].parameters.matchLengthWeight: 0 -> 0.5",
                "schedulingProfiles[default].plugins[prefix].weight: 3 -> 4",
            ]
        );
        assert_eq!(diff(OLD, &format!("# a comment\n{OLD}")), Vec::<String>::new());
    }

    #[test]
    fn a_profile_that_is_only_watched_now_is_a_change_of_its_own() {
        let new = OLD.replace("- name: default", "- name: default\n  shadow: true");
        assert_eq!(diff(OLD, &new), ["+ schedulingProfiles[default].shadow: true"]);
    }

    #[test]
    fn what_came_what_went_and_what_moved() {
        let new = OLD.replace("- type: queue-scorer\n", "- type: load-aware-scorer\n");
        assert_eq!(
            diff(OLD, &new),
            [
                r#"- plugins[queue-scorer]: {"type":"queue-scorer"}"#,
                r#"+ plugins[load-aware-scorer]: {"type":"load-aware-scorer"}"#,
            ]
        );
        let moved = diff("a: [{name: p}, {name: q}]", "a: [{name: q}, {name: p}]");
        assert_eq!(moved, ["a: order p, q -> q, p"]);
        assert_eq!(diff("a: [1, 2]", "a: [1, 3]"), ["a: [1,2] -> [1,3]"]);
    }

    #[test]
    fn a_diff_is_bounded() {
        let list = |n: usize| (0..60).map(|i| format!("k{i}: {}\n", i * n)).collect::<String>();
        let lines = diff(&list(1), &list(2));
        assert_eq!((lines.len(), lines.last().map(String::as_str)), (51, Some("and 9 more")));
        assert!(diff("a: b", &format!("a: {}", "x".repeat(500))).iter().all(|l| l.chars().count() < 120));
        assert!(diff("a: [", "a: b").is_empty());
    }
}
