//! Parameters of a plugin held against what its type takes: every misfit at once, each with its place.

use super::error::Place;
use super::node::{Data, Node, join};
use super::suggest::nearest;
use crate::plugin::Shape;
use serde_json::{Map, Value};

/// Something in the parameters that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Where it stands; `None` when it stands nowhere.
    pub place: Option<Place>,
    /// Its path below the parameters, e.g. `indexerConfig.size`.
    pub path: String,
    /// What is wrong with it.
    pub told: String,
}

/// What does not fit, and the parameters without it. A value that is left empty always fits.
pub fn misfits(parameters: &Node, shape: &Shape) -> (Vec<Misfit>, Value) {
    let mut found = Vec::new();
    let kept = fitting(parameters, shape, "", &mut found);
    (found, kept.unwrap_or(Value::Null))
}

/// The value without what does not fit; `None` when nothing of it does.
fn fitting(node: &Node, shape: &Shape, path: &str, found: &mut Vec<Misfit>) -> Option<Value> {
    let mut misfit = |told: String| {
        found.push(Misfit { place: Some(node.place), path: path.to_owned(), told });
        None
    };
    match (&node.data, shape) {
        (Data::Scalar(Value::Null), _)
        | (Data::Scalar(Value::Bool(_)), Shape::Bool)
        | (Data::Scalar(Value::Number(_)), Shape::Number)
        | (Data::Scalar(Value::String(_)), Shape::Text)
        | (_, Shape::Any)
        | (Data::Map(_), Shape::Choice(_)) => Some(node.to_json()),
        (Data::Scalar(Value::Number(number)), Shape::Whole) if !number.is_f64() => Some(node.to_json()),
        (Data::Scalar(Value::String(word)), Shape::Choice(words)) => {
            if words.contains(&word.as_str()) {
                return Some(node.to_json());
            }
            misfit(format!("must be {}, not `{word}`", any_of(words)) + &near(word, words))
        }
        (Data::List(items), Shape::List(of)) => {
            let item = |(i, item)| fitting(item, of, &format!("{path}[{i}]"), found);
            Some(items.iter().enumerate().filter_map(item).collect())
        }
        (Data::Map(entries), Shape::Map(of)) => {
            let fits = entries.iter().filter_map(|(key, value)| {
                Some((key.name.clone(), fitting(value, of, &join(path, &key.name), found)?))
            });
            Some(Value::Object(fits.collect()))
        }
        (Data::Map(_), Shape::Fields(fields)) => Some(known_only(node, fields, path, found)),
        (Data::Scalar(Value::Number(number)), Shape::Text) => {
            misfit(format!("must be text, not a number; write it in quotes: \"{number}\""))
        }
        (Data::Scalar(Value::Bool(_)), Shape::Text) => {
            misfit("must be text, and reads as true or false here; write it in quotes".to_owned())
        }
        (Data::Scalar(Value::Number(number)), _) => {
            misfit(format!("must be {}, not {number}", wanted(shape)))
        }
        _ => misfit(format!("must be {}, not {}", wanted(shape), node.kind())),
    }
}

fn known_only(node: &Node, fields: &[(&'static str, Shape)], path: &str, found: &mut Vec<Misfit>) -> Value {
    let Data::Map(entries) = &node.data else { return Value::Null };
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let mut kept = Map::new();
    for (key, value) in entries {
        let path = join(path, &key.name);
        let Some((_, shape)) = fields.iter().find(|(name, _)| *name == key.name) else {
            let told = format!("unknown field `{}`", key.name) + &instead(&key.name, &names);
            found.push(Misfit { place: Some(key.place), path, told });
            continue;
        };
        if let Some(fits) = fitting(value, shape, &path, found) {
            kept.insert(key.name.clone(), fits);
        }
    }
    Value::Object(kept)
}

fn near(word: &str, known: &[&str]) -> String {
    nearest(word, known.iter().copied()).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default()
}

/// The nearest of the known names, or all of them.
fn instead(word: &str, known: &[&str]) -> String {
    match (nearest(word, known.iter().copied()), known) {
        (Some(near), _) => format!("; did you mean `{near}`?"),
        (None, []) => "; it takes none".to_owned(),
        (None, _) => format!("; it takes {}", quoted(known, "and")),
    }
}

fn any_of(words: &[&str]) -> String {
    quoted(words, "or")
}

fn quoted(words: &[&str], last: &str) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

fn wanted(shape: &Shape) -> String {
    match shape {
        Shape::Any => "any value".to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::Whole => "a whole number".to_owned(),
        Shape::Number => "a number".to_owned(),
        Shape::Text => "text".to_owned(),
        Shape::Choice(words) => any_of(words),
        Shape::List(_) => "a list".to_owned(),
        Shape::Map(_) | Shape::Fields(_) => "a map".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::read;
    use super::*;
    use serde_json::json;

    fn shape() -> Shape {
        Shape::Fields(vec![
            ("weight", Shape::Number),
            ("size", Shape::Whole),
            ("name", Shape::Text),
            ("on", Shape::Bool),
            ("mode", Shape::Choice(&["strict", "prefer"])),
            ("names", Shape::List(Box::new(Shape::Text))),
            ("labels", Shape::Map(Box::new(Shape::Text))),
            ("inner", Shape::Fields(vec![("key", Shape::Whole)])),
            ("raw", Shape::Any),
        ])
    }

    fn told(text: &str) -> (Vec<String>, Value) {
        let (found, kept) = misfits(&read(text).unwrap(), &shape());
        let line = |m: &Misfit| {
            format!("{}:{} {}: {}", m.place.unwrap().line, m.place.unwrap().column, m.path, m.told)
        };
        (found.iter().map(line).collect(), kept)
    }

    #[test]
    fn what_fits_is_kept_as_it_is() {
        let text = "weight: 1\nsize: 3\nname: x\non: true\nmode: strict\nnames: [a]\nlabels: {a: b}\n\
            inner: {key: 1}\nraw: [1, x]\n";
        assert_eq!(told(text), (vec![], read(text).unwrap().to_json()));
        assert_eq!(told("weight:\nnames: \n").0, Vec::<String>::new(), "nothing written is no misfit");
    }

    #[test]
    fn every_misfit_is_told_at_its_place() {
        let text = "wieght: 1\nsize: 3.5\nname: 7\non: \"yes\"\nmode: stict\nnames: [a, 2]\nlabels: {b: yes}\n\
            inner: {kee: 1, key: x}\nunheard-of: 2\n";
        let (found, kept) = told(text);
        let wanted = [
            "1:1 wieght: unknown field `wieght`; did you mean `weight`?",
            "2:7 size: must be a whole number, not 3.5",
            "3:7 name: must be text, not a number; write it in quotes: \"7\"",
            "4:5 on: must be true or false, not text",
            "5:7 mode: must be `strict` or `prefer`, not `stict`; did you mean `strict`?",
            "6:12 names[1]: must be text, not a number; write it in quotes: \"2\"",
            "7:13 labels.b: must be text, and reads as true or false here; write it in quotes",
            "8:9 inner.kee: unknown field `kee`; did you mean `key`?",
            "8:22 inner.key: must be a whole number, not text",
            "9:1 unheard-of: unknown field `unheard-of`; it takes `weight`, `size`, `name`, `on`, `mode`, `names`, \
             `labels`, `inner` and `raw`",
        ];
        assert_eq!(found, wanted);
        assert_eq!(kept, json!({"names": ["a"], "labels": {}, "inner": {}}));
        assert_eq!(misfits(&read("[1]").unwrap(), &shape()).0[0].told, "must be a map, not a list");
    }
}
