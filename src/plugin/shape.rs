//! What parameters may look like, read off the type that takes them.
//!
//! A type's own `Deserialize` says what it asks for: a struct names its fields, an enum its words, a number that it is
//! one. Each question is asked apart, because a reader stops at the first answer that it cannot use.

use serde::Serialize;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde_json::{Map, Value, json};
use std::cell::Cell;

/// Deepest nesting that is followed.
const MAX_DEPTH: usize = 8;

/// What a value may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Anything.
    Any,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Whole,
    /// A number.
    Number,
    /// Text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of such values.
    List(Box<Self>),
    /// A map with any keys and such values.
    Map(Box<Self>),
    /// A map with these keys only.
    Fields(Vec<(&'static str, Self)>),
}

/// The parameters of a plugin type.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// What they may look like.
    pub shape: Shape,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// What they are when nothing is written; `None` when something must be.
    pub defaults: Option<Value>,
}

/// Describes the parameters `T`.
pub fn describe<T: DeserializeOwned + Serialize>() -> Described {
    let shape = explore(
        &|path: &[usize], seen: &Cell<Option<Seen>>| drop(T::deserialize(Probe { path, seen })),
        &mut Vec::new(),
    );
    let mut written = Map::new();
    let mut required = Vec::new();
    let mut defaults = None;
    for _ in 0..MAX_DEPTH {
        match serde_json::from_value::<T>(Value::Object(written.clone())) {
            Ok(value) => {
                defaults = required.is_empty().then(|| serde_json::to_value(&value).ok()).flatten();
                break;
            }
            Err(error) => {
                let text = error.to_string();
                let Some(field) = text.strip_prefix("missing field `").and_then(|t| t.split('`').next())
                else {
                    break;
                };
                written.insert(field.to_owned(), example(&shape, field));
                required.push(field.to_owned());
            }
        }
    }
    Described { shape, required, defaults }
}

/// Some value of the shape of `field`.
fn example(shape: &Shape, field: &str) -> Value {
    let Shape::Fields(fields) = shape else { return Value::Null };
    match fields.iter().find(|(name, _)| *name == field).map(|(_, shape)| shape) {
        Some(Shape::Bool) => json!(false),
        Some(Shape::Whole | Shape::Number) => json!(1),
        Some(Shape::Text) => json!("x"),
        Some(Shape::Choice(words)) => json!(words.first()),
        Some(Shape::List(_)) => json!([]),
        Some(Shape::Map(_) | Shape::Fields(_)) => json!({}),
        Some(Shape::Any) | None => Value::Null,
    }
}

/// What was asked for at the end of a path.
#[derive(Clone, Copy)]
enum Seen {
    Plain(fn() -> Shape),
    Choice(&'static [&'static str]),
    List,
    Map,
    Fields(&'static [&'static str]),
}

/// Asks a type along a path and leaves what it asked for.
type Ask<'a> = &'a dyn Fn(&[usize], &Cell<Option<Seen>>);

fn explore(ask: Ask<'_>, path: &mut Vec<usize>) -> Shape {
    let seen = Cell::new(None);
    ask(path, &seen);
    let below = |path: &mut Vec<usize>, step: usize| {
        if path.len() >= MAX_DEPTH {
            return Shape::Any;
        }
        path.push(step);
        let shape = explore(ask, path);
        path.pop();
        shape
    };
    match seen.get() {
        None => Shape::Any,
        Some(Seen::Plain(shape)) => shape(),
        Some(Seen::Choice(words)) => Shape::Choice(words),
        Some(Seen::List) => Shape::List(Box::new(below(path, 0))),
        Some(Seen::Map) => Shape::Map(Box::new(below(path, 0))),
        Some(Seen::Fields(names)) => {
            Shape::Fields(names.iter().enumerate().map(|(i, name)| (*name, below(path, i))).collect())
        }
    }
}

type Fault = serde::de::value::Error;

/// Answers along a path and notes what is asked for at its end.
#[derive(Clone, Copy)]
struct Probe<'a> {
    path: &'a [usize],
    seen: &'a Cell<Option<Seen>>,
}

impl Probe<'_> {
    fn end<T>(self, seen: Seen) -> Result<T, Fault> {
        if self.path.is_empty() {
            self.seen.set(Some(seen));
        }
        Err(Fault::custom("asked"))
    }
    /// The step to take and the probe behind it.
    fn step(self) -> Option<(usize, Self)> {
        let (first, rest) = self.path.split_first()?;
        Some((*first, Self { path: rest, ..self }))
    }
}

macro_rules! ends {
    ($($method:ident => $shape:expr,)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
            self.end(Seen::Plain(|| $shape))
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Fault;

    ends! {
        deserialize_any => Shape::Any,
        deserialize_bool => Shape::Bool,
        deserialize_i8 => Shape::Whole,
        deserialize_i16 => Shape::Whole,
        deserialize_i32 => Shape::Whole,
        deserialize_i64 => Shape::Whole,
        deserialize_u8 => Shape::Whole,
        deserialize_u16 => Shape::Whole,
        deserialize_u32 => Shape::Whole,
        deserialize_u64 => Shape::Whole,
        deserialize_f32 => Shape::Number,
        deserialize_f64 => Shape::Number,
        deserialize_char => Shape::Text,
        deserialize_str => Shape::Text,
        deserialize_string => Shape::Text,
        deserialize_bytes => Shape::Any,
        deserialize_byte_buf => Shape::Any,
        deserialize_unit => Shape::Any,
        deserialize_identifier => Shape::Any,
        deserialize_ignored_any => Shape::Any,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, _: V) -> Result<V::Value, Fault> {
        self.end(Seen::Plain(|| Shape::Any))
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.step() {
            Some((_, rest)) => visitor.visit_seq(One { key: "", probe: Some(rest) }),
            None => self.end(Seen::List),
        }
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.step() {
            Some((_, rest)) => visitor.visit_map(One { key: "key", probe: Some(rest) }),
            None => self.end(Seen::Map),
        }
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.step() {
            Some((i, rest)) => visitor.visit_map(One { key: fields[i], probe: Some(rest) }),
            None => self.end(Seen::Fields(fields)),
        }
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fault> {
        self.end(Seen::Choice(variants))
    }
}

/// A list or map of one entry.
struct One<'a> {
    key: &'static str,
    probe: Option<Probe<'a>>,
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Fault;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        self.probe.take().map(|probe| seed.deserialize(probe)).transpose()
    }
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Fault;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        if self.probe.is_none() {
            return Ok(None);
        }
        let key: StrDeserializer<'_, Fault> = self.key.into_deserializer();
        seed.deserialize(key).map(Some)
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        self.probe.take().map_or_else(|| Err(Fault::custom("no value")), |probe| seed.deserialize(probe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Everything {
        name_of_it: String,
        #[serde(default)]
        sizes: Vec<u32>,
        #[serde(default)]
        weight: Option<f64>,
        #[serde(default = "yes")]
        on: bool,
        #[serde(default)]
        mode: Mode,
        #[serde(default)]
        labels: BTreeMap<String, String>,
        #[serde(default)]
        inner: Vec<Inner>,
        #[serde(default)]
        raw: Value,
    }

    #[derive(Default, Deserialize, Serialize)]
    #[serde(default)]
    struct Inner {
        key: String,
        #[serde(deserialize_with = "odd")]
        odd: Option<u16>,
    }

    #[derive(Default, Deserialize, Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        #[default]
        FirstOne,
        Second,
    }

    fn yes() -> bool {
        true
    }
    fn odd<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
        let number = Option::<i64>::deserialize(deserializer)?;
        Ok(number.and_then(|n| u16::try_from(n).ok()))
    }

    #[test]
    fn a_type_tells_its_shape() {
        let described = describe::<Everything>();
        let inner = Shape::Fields(vec![("key", Shape::Text), ("odd", Shape::Whole)]);
        let wanted = Shape::Fields(vec![
            ("nameOfIt", Shape::Text),
            ("sizes", Shape::List(Box::new(Shape::Whole))),
            ("weight", Shape::Number),
            ("on", Shape::Bool),
            ("mode", Shape::Choice(&["first_one", "second"])),
            ("labels", Shape::Map(Box::new(Shape::Text))),
            ("inner", Shape::List(Box::new(inner))),
            ("raw", Shape::Any),
        ]);
        assert_eq!(described.shape, wanted);
        assert_eq!(described.required, ["nameOfIt"]);
        assert_eq!(described.defaults, None);
        assert_eq!(describe::<Inner>().defaults, Some(json!({"key": "", "odd": null})));
    }
}
