//! Changes to a document's tree, and how a part of it is written on one line.

use super::error::Place;
use super::node::{Data, Key, Node};
use serde_json::Value;
use std::fmt::Write as _;

impl Node {
    /// A value that stands for something written at `place` in an older form.
    pub fn older(place: Place, data: Data) -> Self {
        Self { place, data, older: true }
    }
    /// A text, number or boolean that stands for something older at `place`.
    pub fn scalar(place: Place, value: impl Into<Value>) -> Self {
        Self::older(place, Data::Scalar(value.into()))
    }
    /// A map that stands for something older at `place`.
    pub fn map<const N: usize>(place: Place, entries: [(&str, Self); N]) -> Self {
        let entries = entries.map(|(name, node)| (Key { place: node.place, name: name.to_owned() }, node));
        Self::older(place, Data::Map(entries.into()))
    }
    /// Whether it is a map.
    pub fn is_map(&self) -> bool {
        matches!(self.data, Data::Map(_))
    }
    /// The value of key `name`; nothing when this is no map.
    pub fn field(&self, name: &str) -> Option<&Self> {
        let Data::Map(entries) = &self.data else { return None };
        entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }
    /// The value of key `name`, to be changed.
    pub fn field_mut(&mut self, name: &str) -> Option<&mut Self> {
        let Data::Map(entries) = &mut self.data else { return None };
        entries.iter_mut().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }
    /// The text of this scalar.
    pub fn text(&self) -> Option<&str> {
        let Data::Scalar(value) = &self.data else { return None };
        value.as_str()
    }
    /// The text under key `name`.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.field(name)?.text()
    }
    /// The whole number of this scalar.
    pub fn whole(&self) -> Option<i64> {
        let Data::Scalar(value) = &self.data else { return None };
        value.as_i64()
    }
    /// The items of this list; none when it is no list.
    pub fn items(&self) -> &[Self] {
        if let Data::List(items) = &self.data { items } else { &[] }
    }
    /// The items of this list, to be changed.
    pub fn items_mut(&mut self) -> Option<&mut Vec<Self>> {
        if let Data::List(items) = &mut self.data { Some(items) } else { None }
    }
    /// Takes key `name` out of this map.
    pub fn take(&mut self, name: &str) -> Option<Self> {
        let Data::Map(entries) = &mut self.data else { return None };
        let at = entries.iter().position(|(key, _)| key.name == name)?;
        Some(entries.remove(at).1)
    }
    /// Puts `node` under key `name`, which counts as an older spelling.
    pub fn put(&mut self, name: &str, mut node: Self) {
        node.older = true;
        if let Some(found) = self.field_mut(name) {
            *found = node;
        } else if let Data::Map(entries) = &mut self.data {
            entries.push((Key { place: node.place, name: name.to_owned() }, node));
        }
    }
    /// Gives key `old` another name where it stands.
    pub fn rename_key(&mut self, old: &str, new: &str) {
        let Data::Map(entries) = &mut self.data else { return };
        if let Some((key, node)) = entries.iter_mut().find(|(key, _)| key.name == old) {
            new.clone_into(&mut key.name);
            node.older = true;
        }
    }
    /// The map under key `name`, made when it is not there. `None` when something else stands there.
    pub fn section(&mut self, name: &str, place: Place) -> Option<&mut Self> {
        if self.field(name).is_none_or(Self::is_null) {
            self.put(name, Self::map(place, []));
        }
        self.field_mut(name).filter(|node| node.is_map())
    }
    /// The list under key `name`, made when it is not there. `None` when something else stands there.
    pub fn list(&mut self, name: &str, place: Place) -> Option<&mut Vec<Self>> {
        if self.field(name).is_none_or(Self::is_null) {
            self.put(name, Self::older(place, Data::List(Vec::new())));
        }
        self.field_mut(name)?.items_mut()
    }
    /// This value on one line, as YAML.
    pub fn flow(&self) -> String {
        let mut text = String::new();
        self.write_flow(&mut text);
        text
    }

    fn write_flow(&self, text: &mut String) {
        match &self.data {
            Data::Scalar(value) => text.push_str(&plain_or_quoted(value)),
            Data::List(items) => {
                text.push('[');
                for (i, item) in items.iter().enumerate() {
                    text.push_str(if i == 0 { "" } else { ", " });
                    item.write_flow(text);
                }
                text.push(']');
            }
            Data::Map(entries) => {
                text.push('{');
                for (i, (key, value)) in entries.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    let _ = write!(text, "{comma}{}: ", key_text(&key.name));
                    value.write_flow(text);
                }
                text.push('}');
            }
        }
    }
}

/// A key as YAML writes it.
pub fn key_text(key: &str) -> String {
    plain_or_quoted(&Value::String(key.to_owned()))
}

/// A scalar as YAML writes it on one line: text without quotes where it cannot be taken for something else.
pub fn plain_or_quoted(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let first = text.chars().next();
    let starts_plain = first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == '/' || c == '.');
    let all_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./+=@".contains(c));
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n" | ".inf" | ".nan"
    );
    if starts_plain && all_plain && !word && text.parse::<f64>().is_err() {
        return text.clone();
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::node::read;
    use super::*;

    #[test]
    fn parts_are_taken_put_and_renamed() {
        let mut tree = read("a: 1\nb: {c: [x]}\nd: null\n").unwrap();
        let taken = tree.take("a").unwrap();
        tree.section("b", taken.place).unwrap().put("e", taken);
        tree.rename_key("b", "f");
        tree.list("d", Place { line: 3, column: 1 })
            .unwrap()
            .push(Node::scalar(Place { line: 3, column: 1 }, true));
        assert_eq!(tree.flow(), "{f: {c: [x], e: 1}, d: [true]}");
        assert!(tree.field("f").unwrap().older && !tree.field("f").unwrap().field("c").unwrap().older);
        assert_eq!(tree.text_of("f"), None);
        assert!(tree.list("f", Place { line: 1, column: 1 }).is_none(), "a map is no list");
    }

    #[test]
    fn text_is_quoted_where_it_could_be_something_else() {
        for (text, wanted) in [
            ("queue-scorer", "queue-scorer"),
            ("llm-d.ai/v1alpha1", "llm-d.ai/v1alpha1"),
            ("", "\"\""),
            ("true", "\"true\""),
            ("1e3", "\"1e3\""),
            ("50ms", "\"50ms\""),
            ("a: b", "\"a: b\""),
            ("- x", "\"- x\""),
            ("a\n\"b\"", r#""a\n\"b\"""#),
        ] {
            let written = plain_or_quoted(&Value::String(text.to_owned()));
            assert_eq!(written, wanted);
            assert_eq!(read(&format!("k: {written}")).unwrap().text_of("k"), Some(text));
        }
        assert_eq!(plain_or_quoted(&Value::from(2.5)), "2.5");
    }
}
