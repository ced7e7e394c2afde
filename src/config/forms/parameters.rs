//! Parameters of one plugin that go by another name, or stand elsewhere, today.

use super::{Edit, prefix};
use crate::config::node::Node;

/// Parameters that were renamed where they stand: type, older name, today's.
const RENAMED: &[(&str, &str, &str)] = &[
    ("approx-prefix-cache-producer", "blockSize", "blockSizeTokens"),
    ("mm-embeddings-cache-producer", "cacheSizeInMB", "cacheSizeInMBPerServer"),
    ("predicted-latency-producer", "predictInPrepareData", "predictInProduce"),
];

/// Parameters that a release knew and that mean nothing any more.
const GONE: &[(&str, &str, &str)] = &[
    ("active-request-scorer", "requestTimeout", "requests are counted until they end"),
    ("no-hit-lru-scorer", "prefixPluginType", "write `prefixMatchInfoProducerName`"),
    ("no-hit-lru-scorer", "prefixPluginName", "write `prefixMatchInfoProducerName`"),
    ("latency-scorer", "headroomTTFTWeight", "write `ttftWeight`"),
    ("latency-scorer", "headroomTPOTWeight", "write `tpotWeight`"),
    ("latency-scorer", "negHeadroomTTFTWeight", "`ttftWeight` counts for deficits too"),
    ("latency-scorer", "negHeadroomTPOTWeight", "`tpotWeight` counts for deficits too"),
    ("latency-scorer", "epsilonExploreNeg", "it is slo-headroom-tier-filter's"),
    (
        "latency-scorer",
        "epsilonExploreSticky",
        "it is prefix-cache-affinity-filter's `explorationProbability`",
    ),
    ("latency-scorer", "affinityGateTau", "it is prefix-cache-affinity-filter's `affinityThreshold`"),
    ("latency-scorer", "affinityGateTauGlobal", "it is prefix-cache-affinity-filter's `affinityThreshold`"),
    ("latency-scorer", "affinityMaxTTFTPenaltyMs", "it is prefix-cache-affinity-filter's `maxTTFTPenaltyMs`"),
    ("latency-scorer", "selectionMode", "the picker chooses"),
    ("latency-scorer", "maxSampledTokens", "predictions are predicted-latency-producer's"),
    ("latency-scorer", "samplingMean", "predictions are predicted-latency-producer's"),
    ("latency-scorer", "sloBufferFactor", "it is predicted-latency-producer's"),
    ("latency-scorer", "contextTTL", "it is predicted-latency-producer's"),
    ("latency-scorer", "streamingMode", "it is predicted-latency-producer's"),
    ("latency-scorer", "endpointRoleLabel", "it is predicted-latency-producer's"),
    ("program-aware-fairness", "lasDecayFactor", "write `lasHalfLifeSeconds`"),
];

pub(super) fn modernize(plugin: &mut Node, edit: &mut Edit<'_>) {
    let Some(plugin_type) = plugin.text_of("type").map(str::to_owned) else { return };
    if plugin_type == "by-label" {
        by_label(plugin, edit);
        return;
    }
    let Some(parameters) = plugin.field_mut("parameters").filter(|p| p.is_map()) else { return };
    for (_, old, new) in RENAMED.iter().filter(|(t, ..)| *t == plugin_type) {
        let Some(node) = parameters.take(old) else { continue };
        let told = format!("`{old}` is the older name; write `{new}: {}`", node.flow());
        edit.tell(node.place, &format!("parameters.{old}"), told);
        if parameters.field(new).is_none() {
            parameters.put(new, node);
        }
    }
    for (_, old, why) in GONE.iter().filter(|(t, ..)| *t == plugin_type) {
        let Some(node) = parameters.take(old) else { continue };
        edit.tell(
            node.place,
            &format!("parameters.{old}"),
            format!("has no effect any more: {why}; take it out"),
        );
    }
    match plugin_type.as_str() {
        "precise-prefix-cache-producer" => precise(parameters, edit),
        "session-affinity-filter" | "session-affinity-scorer" | "multicluster-session-affinity-filter" => {
            session_header(parameters, edit);
        }
        "endpoint-attribute-filter" => attribute(parameters, "attribute", edit),
        "endpoint-attribute-scorer" => attribute(parameters, "attributeKey", edit),
        "token-producer" => tokenizer(parameters, edit),
        _ => {}
    }
}

fn precise(parameters: &mut Node, edit: &mut Edit<'_>) {
    let place = parameters.place;
    if prefix::settle(parameters) {
        let told = format!("parameters of the index moved; write `parameters: {}`", parameters.flow());
        edit.tell(place, "parameters", told);
    }
}

/// `headerName` stood by itself in one release.
fn session_header(parameters: &mut Node, edit: &mut Edit<'_>) {
    let Some(header) = parameters.take("headerName") else { return };
    let place = header.place;
    if let Some(config) = parameters.section("encodedEndpointHeaderConfig", place)
        && config.field("header").is_none()
    {
        config.put("header", header);
    }
    let told = format!("the header's name moved; write `parameters: {}`", parameters.flow());
    edit.tell(place, "parameters.headerName", told);
}

/// Attribute and producer were one text, `attribute/producer`.
fn attribute(parameters: &mut Node, field: &str, edit: &mut Edit<'_>) {
    if parameters.field("producer").is_some() {
        return;
    }
    let Some(written) = parameters.field(field) else { return };
    let place = written.place;
    let Some((name, producer)) = written.text().and_then(|t| t.split_once('/')) else { return };
    let (name, producer) = (Node::scalar(place, name), Node::scalar(place, producer));
    let told = format!(
        "attribute and producer are two; write `{field}: {}, producer: {}`",
        name.flow(),
        producer.flow()
    );
    parameters.put(field, name);
    parameters.put("producer", producer);
    edit.tell(place, &format!("parameters.{field}"), told);
}

/// `vllm.http` became `vllm.url`.
fn tokenizer(parameters: &mut Node, edit: &mut Edit<'_>) {
    let Some(vllm) = parameters.field_mut("vllm").filter(|v| v.is_map()) else { return };
    let Some(url) = vllm.take("http") else { return };
    let told = format!("`http` is the older name; write `url: {}`", url.flow());
    edit.tell(url.place, "parameters.vllm.http", told);
    if vllm.field("url").is_none() {
        vllm.put("url", url);
    }
}

/// `by-label` is a label selector today, except where endpoints of certain values *and* those without the label are
/// kept: a selector cannot say that.
fn by_label(plugin: &mut Node, edit: &mut Edit<'_>) {
    let place = plugin.place;
    let Some(parameters) = plugin.field("parameters") else { return };
    let unlabelled =
        parameters.field("allowsNoLabel").is_some_and(|n| n.to_json() == serde_json::json!(true));
    let Some(label) = parameters.field("label").filter(|l| l.text().is_some_and(|t| !t.is_empty())) else {
        return;
    };
    let values = parameters.field("validValues").filter(|v| !v.items().is_empty());
    let expression = match (values, unlabelled) {
        (Some(values), false) => Node::map(
            place,
            [("key", label.clone()), ("operator", Node::scalar(place, "In")), ("values", values.clone())],
        ),
        (None, true) => {
            Node::map(place, [("key", label.clone()), ("operator", Node::scalar(place, "DoesNotExist"))])
        }
        _ => return,
    };
    let list = Node::older(place, crate::config::node::Data::List(vec![expression]));
    let name = super::name_of(plugin).to_owned();
    plugin.put("name", Node::scalar(place, name));
    plugin.put("type", Node::scalar(place, "label-selector-filter"));
    plugin.put("parameters", Node::map(place, [("matchExpressions", list)]));
    edit.tell(place, "type", format!("`by-label` is the older filter; write `{}`", plugin.flow()));
}
