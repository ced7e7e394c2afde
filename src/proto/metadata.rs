//! `google.protobuf.Struct` and Envoy's `Metadata`, with maps as lists of entries (the same on the wire).

use bytes::Bytes;

/// `envoy.config.core.v3.Metadata`: what filters of the proxy know of a request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    /// One entry for each namespace.
    #[prost(message, repeated, tag = "1")]
    pub filter_metadata: Vec<Namespace>,
}

/// One namespace of [`Metadata`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Namespace {
    /// Its name.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its fields.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Struct>,
}

/// `google.protobuf.Struct`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// Its fields. A key that stands twice counts by its last entry.
    #[prost(message, repeated, tag = "1")]
    pub fields: Vec<Field>,
}

/// One field of a [`Struct`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Field {
    /// Its name.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Value>,
}

/// `google.protobuf.Value`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// What it is.
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Kind>,
}

/// The kinds of [`Value`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// Null; the number is always 0.
    #[prost(int32, tag = "1")]
    Null(i32),
    /// A number.
    #[prost(double, tag = "2")]
    Number(f64),
    /// A text.
    #[prost(bytes = "bytes", tag = "3")]
    Text(Bytes),
    /// A truth value.
    #[prost(bool, tag = "4")]
    Bool(bool),
    /// An object.
    #[prost(message, tag = "5")]
    Struct(Struct),
    /// A list.
    #[prost(message, tag = "6")]
    List(List),
}

/// `google.protobuf.ListValue`
#[derive(Clone, PartialEq, prost::Message)]
pub struct List {
    /// Its items.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

impl Metadata {
    /// The fields of the namespace `name`.
    pub fn namespace(&self, name: &str) -> Option<&Struct> {
        let entry = self.filter_metadata.iter().rev().find(|n| n.key == name.as_bytes());
        entry.and_then(|n| n.value.as_ref())
    }
}

impl Struct {
    /// The value of the field `name`.
    pub fn get(&self, name: &str) -> Option<&Kind> {
        self.fields.iter().rev().find(|f| f.key == name.as_bytes())?.value.as_ref()?.kind.as_ref()
    }
    /// Whether there is a field `name`, with or without a value.
    pub fn contains(&self, name: &str) -> bool {
        self.fields.iter().any(|f| f.key == name.as_bytes())
    }
    /// Adds a field.
    pub fn push(&mut self, key: impl Into<Bytes>, kind: Kind) {
        self.fields.push(Field { key: key.into(), value: Some(Value { kind: Some(kind) }) });
    }
}
