//! What the proxy's metadata says: which endpoints are allowed, and which one served.

use crate::director::SubsetHint;
use crate::plugin::ReportedAttribute;
use crate::proto::metadata::{Kind, Metadata, Struct};
use crate::request::names;
use bytes::Bytes;
use std::sync::Arc;

/// Field of the destination's namespace that holds the scores.
const SCORES: &str = "x-gateway-destination-endpoint-scores";

/// The subset hint of one message; `None` when the message holds none.
///
/// Read are a text, a list of texts, and lists in lists; each text may hold several entries behind commas. Anything
/// else allows nothing: a hint that cannot be understood must not open the whole pool.
pub fn subset(metadata: &Metadata) -> Option<SubsetHint> {
    let fields = metadata.namespace(names::SUBSET_NAMESPACE)?;
    if !fields.contains(names::SUBSET) {
        return None;
    }
    let mut texts = Vec::new();
    if let Some(kind) = fields.get(names::SUBSET) {
        collect(kind, &mut texts);
    }
    Some(SubsetHint::from_texts(texts))
}

fn collect<'a>(kind: &'a Kind, texts: &mut Vec<&'a str>) {
    match kind {
        Kind::Text(text) => texts.extend(std::str::from_utf8(text)),
        Kind::List(list) => {
            list.values.iter().filter_map(|v| v.kind.as_ref()).for_each(|k| collect(k, texts))
        }
        Kind::Null(_) | Kind::Number(_) | Kind::Bool(_) | Kind::Struct(_) => {}
    }
}

/// The endpoint that served, as the proxy reports it with the response headers.
pub fn served(metadata: &Metadata) -> Option<&str> {
    match metadata.namespace(names::LB_NAMESPACE)?.get(names::SERVED)? {
        Kind::Text(text) => std::str::from_utf8(text).ok().map(str::trim).filter(|t| !t.is_empty()),
        _ => None,
    }
}

/// The metadata that goes with a pick: the destination, equal to the header, and the scores when they are shown.
pub fn destination(destination: &Bytes, scores: Option<&[(Arc<str>, f64)]>) -> Struct {
    let mut fields = Struct::default();
    fields.push(names::DESTINATION, Kind::Text(destination.clone()));
    if let Some(scores) = scores {
        let mut rated = Struct::default();
        for (endpoint, score) in scores {
            rated.push(Bytes::copy_from_slice(endpoint.as_bytes()), Kind::Number(*score));
        }
        fields.push(SCORES, Kind::Struct(rated));
    }
    let mut metadata = Struct::default();
    metadata.push(names::LB_NAMESPACE, Kind::Struct(fields));
    metadata
}

/// The metadata that goes with the end of a response; `None` when nothing is reported.
pub fn reported(attributes: &[ReportedAttribute]) -> Option<Struct> {
    let mut metadata = Struct::default();
    for (i, first) in attributes.iter().enumerate() {
        if attributes[..i].iter().any(|a| a.namespace == first.namespace) {
            continue;
        }
        let mut fields = Struct::default();
        for attribute in attributes[i..].iter().filter(|a| a.namespace == first.namespace) {
            let name = Bytes::copy_from_slice(attribute.name.as_bytes());
            fields.push(name, Kind::Number(attribute.value));
        }
        metadata.push(Bytes::copy_from_slice(first.namespace.as_bytes()), Kind::Struct(fields));
    }
    (!attributes.is_empty()).then_some(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::SubsetEntry;
    use crate::proto::metadata::{List, Namespace, Value};

    fn text(text: &'static str) -> Kind {
        Kind::Text(Bytes::from_static(text.as_bytes()))
    }

    fn list(items: Vec<Kind>) -> Kind {
        Kind::List(List { values: items.into_iter().map(|k| Value { kind: Some(k) }).collect() })
    }

    fn hint(kind: Option<Kind>) -> Metadata {
        let mut fields = Struct::default();
        fields.push(names::SUBSET, Kind::Null(0));
        fields.fields[0].value = kind.map(|kind| Value { kind: Some(kind) });
        one(names::SUBSET_NAMESPACE, fields)
    }

    fn one(namespace: &'static str, fields: Struct) -> Metadata {
        let key = Bytes::from_static(namespace.as_bytes());
        Metadata { filter_metadata: vec![Namespace { key, value: Some(fields) }] }
    }

    #[test]
    fn every_shape_of_a_hint_is_read() {
        let wanted = |texts: &[&str]| {
            Some(SubsetHint::Only(texts.iter().map(|t| SubsetEntry::parse(t).unwrap()).collect()))
        };
        assert_eq!(subset(&hint(Some(text("10.0.0.1:80")))), wanted(&["10.0.0.1:80"]));
        assert_eq!(subset(&hint(Some(text("10.0.0.1, fd00::1")))), wanted(&["10.0.0.1", "fd00::1"]));
        let nested =
            list(vec![text("[fd00::1]:8000"), list(vec![text("10.0.0.1,10.0.0.2:1"), Kind::Bool(true)])]);
        assert_eq!(subset(&hint(Some(nested))), wanted(&["[fd00::1]:8000", "10.0.0.1", "10.0.0.2:1"]));
    }

    #[test]
    fn a_hint_that_cannot_be_read_allows_nothing_and_no_hint_allows_all() {
        let nothing = Some(SubsetHint::Only(Vec::new()));
        for kind in
            [Kind::Null(0), Kind::Number(1.0), Kind::Struct(Struct::default()), list(vec![]), text("")]
        {
            assert_eq!(subset(&hint(Some(kind))), nothing);
        }
        assert_eq!(subset(&hint(Some(Kind::Text(Bytes::from_static(b"\xff"))))), nothing);
        assert_eq!(subset(&hint(None)), nothing);
        assert_eq!(subset(&one(names::SUBSET_NAMESPACE, Struct::default())), None);
        assert_eq!(subset(&Metadata::default()), None);
    }

    #[test]
    fn the_served_endpoint_is_read_back() {
        let mut fields = Struct::default();
        fields.push(names::SERVED, text(" 10.0.0.1:80 "));
        assert_eq!(served(&one(names::LB_NAMESPACE, fields.clone())), Some("10.0.0.1:80"));
        fields.push(names::SERVED, Kind::Bool(true));
        assert_eq!(served(&one(names::LB_NAMESPACE, fields)), None);
    }

    #[test]
    fn scores_stand_beside_the_destination() {
        let scores = [(Arc::from("10.0.0.1:80"), 0.5)];
        let metadata = destination(&Bytes::from_static(b"10.0.0.1:80"), Some(&scores));
        let Some(Kind::Struct(lb)) = metadata.get(names::LB_NAMESPACE) else { panic!() };
        assert_eq!(lb.get(names::DESTINATION), Some(&text("10.0.0.1:80")));
        let Some(Kind::Struct(rated)) = lb.get(SCORES) else { panic!() };
        assert_eq!(rated.get("10.0.0.1:80"), Some(&Kind::Number(0.5)));
    }
}
