//! A document as a tree of values with their places, so that everything wrong with it can be told at once.

use super::error::{Findings, Place, Problem};
use super::suggest::hint;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};
use std::fmt;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub data: Data,
    /// Whether it stands for something that is written in an older form.
    pub older: bool,
}

/// What a value is. Keys of maps keep their places.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// A scalar, `null` included.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A map in order of the document; keys may stand twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Where it stands.
    pub place: Place,
    /// The key.
    pub name: String,
}

/// Reads YAML or JSON. The error is the first mistake of syntax; keys that stand twice are left for the reader to find.
pub fn read(text: &str) -> Result<Node, Problem> {
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Spanned<Data>>(text, options).map(node).map_err(|error| Problem {
        place: error.location().map(place),
        path: String::new(),
        message: format!("failed to decode configuration JSON/YAML: {}", plain(&error)),
    })
}

/// The message of `error` without the place, which the problem tells itself.
fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.render();
    let message = text.lines().next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    if message.contains("budget breached") {
        return "it is larger than any configuration needs to be".to_owned();
    }
    match message.split_once(": ") {
        Some((at, rest)) if at.starts_with("line ") => rest.to_owned(),
        _ => message.to_owned(),
    }
}

fn place(location: Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

fn node(spanned: Spanned<Data>) -> Node {
    Node { place: place(spanned.referenced), data: spanned.value, older: false }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Scalar(value.into()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Scalar(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
        Ok(Data::Scalar(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Data, E> {
        Ok(Data::Scalar(value.into()))
    }
    fn visit_str<E>(self, value: &str) -> Result<Data, E> {
        Ok(Data::Scalar(value.into()))
    }
    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Scalar(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Data, E> {
        Ok(Data::Scalar(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        Data::deserialize(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Data, A::Error> {
        let mut nodes = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Data>>()? {
            nodes.push(node(item));
        }
        Ok(Data::List(nodes))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let key = Key { place: place(key.referenced), name: key.value };
            entries.push((key, node(map.next_value::<Spanned<Data>>()?)));
        }
        Ok(Data::Map(entries))
    }
}

impl Node {
    /// The value as JSON, places dropped; of keys that stand twice the last counts.
    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(items) => items.iter().map(Self::to_json).collect(),
            Data::Map(entries) => {
                entries.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect()
            }
        }
    }
    /// Whether nothing is written here.
    pub fn is_null(&self) -> bool {
        self.data == Data::Scalar(Value::Null)
    }
    /// Word for the kind of value, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.data {
            Data::Scalar(Value::Null) => "nothing",
            Data::Scalar(Value::Bool(_)) => "true or false",
            Data::Scalar(Value::Number(_)) => "a number",
            Data::Scalar(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }
    /// Tells keys that stand twice, here and below.
    pub fn check_duplicates(&self, path: &str, findings: &mut Findings) {
        match &self.data {
            Data::Scalar(_) => {}
            Data::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    item.check_duplicates(&format!("{path}[{i}]"), findings);
                }
            }
            Data::Map(entries) => {
                for (i, (key, value)) in entries.iter().enumerate() {
                    let path = join(path, &key.name);
                    if let Some((first, _)) = entries[..i].iter().find(|(k, _)| k.name == key.name) {
                        let told =
                            format!("duplicate key `{}`, first on line {}", key.name, first.place.line);
                        findings.problem(Some(key.place), path.clone(), told);
                    }
                    value.check_duplicates(&path, findings);
                }
            }
        }
    }
    /// Where the key `name` stands, here or anywhere below.
    pub fn find_key(&self, name: &str) -> Option<Place> {
        match &self.data {
            Data::Scalar(_) => None,
            Data::List(items) => items.iter().find_map(|item| item.find_key(name)),
            Data::Map(entries) => entries
                .iter()
                .find(|(key, _)| key.name == name)
                .map(|(key, _)| key.place)
                .or_else(|| entries.iter().find_map(|(_, value)| value.find_key(name))),
        }
    }
}

/// `path.name`, or `name` alone at the top.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Reads the fields of one map, each by name, telling those that are of the wrong type or unknown.
pub struct Fields<'a, 'f> {
    entries: &'a [(Key, Node)],
    path: String,
    known: Vec<&'static str>,
    /// Where problems go.
    pub findings: &'f mut Findings,
}

impl<'a, 'f> Fields<'a, 'f> {
    /// The map `node`; anything else is a problem and reads as an empty map.
    pub fn of(node: &'a Node, path: &str, findings: &'f mut Findings) -> Self {
        let entries: &[_] = match &node.data {
            Data::Map(entries) => entries,
            Data::Scalar(Value::Null) => &[],
            _ => {
                findings.problem(Some(node.place), path, format!("must be a map, not {}", node.kind()));
                &[]
            }
        };
        Self { entries, path: path.to_owned(), known: Vec::new(), findings }
    }
    /// The path of field `name`.
    pub fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }
    /// The value of field `name`; `None` when it is absent or nothing is written there.
    pub fn get(&mut self, name: &'static str) -> Option<&'a Node> {
        self.known.push(name);
        let entries = self.entries;
        entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node).filter(|node| !node.is_null())
    }
    fn typed<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let node = self.get(name)?;
        let value = match &node.data {
            Data::Scalar(value) => read(value),
            _ => None,
        };
        if value.is_none() {
            let told = format!("must be {wanted}, not {}", node.kind());
            self.findings.problem(Some(node.place), self.path_of(name), told);
        }
        value
    }
    /// A text.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.typed(name, "text", |value| value.as_str().map(str::to_owned))
    }
    /// A boolean.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.typed(name, "true or false", Value::as_bool)
    }
    /// A number.
    pub fn number(&mut self, name: &'static str) -> Option<f64> {
        self.typed(name, "a number", Value::as_f64)
    }
    /// A whole number.
    pub fn integer(&mut self, name: &'static str) -> Option<i64> {
        self.typed(name, "a whole number", Value::as_i64)
    }
    /// A text or number, read by `parse`, whose complaint is told.
    pub fn parsed<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.typed(name, "text or a number", |value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(told) => {
                let place = self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node.place);
                self.findings.problem(place, self.path_of(name), told);
                None
            }
        }
    }
    /// The items of a list with their paths; anything else is a problem and reads as an empty list.
    pub fn list(&mut self, name: &'static str) -> Vec<(String, &'a Node)> {
        let Some(node) = self.get(name) else { return Vec::new() };
        let path = self.path_of(name);
        let Data::List(items) = &node.data else {
            self.findings.problem(Some(node.place), path, format!("must be a list, not {}", node.kind()));
            return Vec::new();
        };
        items.iter().enumerate().map(|(i, item)| (format!("{path}[{i}]"), item)).collect()
    }
    /// Tells the fields that nobody asked for.
    pub fn finish(self) {
        for (key, _) in self.entries.iter().filter(|(key, _)| !self.known.contains(&key.name.as_str())) {
            let told = format!("unknown field{}", hint(&key.name, self.known.iter().copied()));
            self.findings.problem(Some(key.place), join(&self.path, &key.name), told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_become_values_with_places() {
        let yaml = "a: 1\nb:\n- x\n- y: [true, 2.5, null]\n  z: \"7\"\n";
        let tree = read(yaml).unwrap();
        let wanted = serde_json::json!({"a": 1, "b": ["x", {"y": [true, 2.5, null], "z": "7"}]});
        assert_eq!(tree.to_json(), wanted);
        assert_eq!(read(&wanted.to_string()).unwrap().to_json(), wanted);
        assert_eq!(tree.find_key("z"), Some(Place { line: 5, column: 3 }));
    }

    #[test]
    fn mistakes_of_syntax_have_a_place() {
        let problem = read("a: 1\nb: [1,\nc: }\n").unwrap_err();
        assert!(problem.place.is_some_and(|p| p.line >= 2), "{problem}");
        assert!(problem.message.starts_with("failed to decode configuration JSON/YAML: "), "{problem}");
        let endless = read(&"- 1\n".repeat(260_000)).unwrap_err().to_string();
        assert!(endless.contains("larger than any configuration"), "{endless}");
    }

    #[test]
    fn keys_that_stand_twice_are_told() {
        let mut findings = Findings::default();
        read("a: 1\nb:\n- c: 1\n  c: 2\na: 2\n").unwrap().check_duplicates("", &mut findings);
        let told: Vec<_> = findings.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "line 4, column 3: b[0].c: duplicate key `c`, first on line 3",
                "line 5, column 1: a: duplicate key `a`, first on line 1"
            ]
        );
    }

    #[test]
    fn fields_tell_what_is_wrong_and_what_is_unknown() {
        let tree = read("name: 5\nwieght: 1\nlist: x\nsize: 3Qi\n").unwrap();
        let mut findings = Findings::default();
        let mut fields = Fields::of(&tree, "top", &mut findings);
        assert_eq!(fields.text("name"), None);
        assert_eq!(fields.number("weight"), None);
        assert!(fields.list("list").is_empty());
        assert_eq!(fields.parsed("size", crate::config::units::bytes), None);
        fields.finish();
        let told: Vec<_> = findings.problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 4, "{told:?}");
        assert_eq!(told[0], "line 1, column 7: top.name: must be text, not a number");
        assert_eq!(told[3], "line 2, column 1: top.wieght: unknown field; did you mean `weight`?");
    }
}
