//! The top of the document: group, sections that moved, sections that were renamed.

use super::{instance, tell};
use crate::config::document::API_VERSION;
use crate::config::error::Findings;
use crate::config::node::{Data, Node};

const OLD_API_VERSION: &str = "inference.networking.x-k8s.io/v1alpha1";
const DETECTOR: &str = "utilization-detector";

pub(super) fn modernize(root: &mut Node, findings: &mut Findings) {
    api_version(root, findings);
    data(root, findings);
    parser(root, findings);
    detector(root, findings);
}

fn api_version(root: &mut Node, findings: &mut Findings) {
    let Some(version) = root.field("apiVersion").filter(|v| v.text() == Some(OLD_API_VERSION)) else {
        return;
    };
    let place = version.place;
    let told = format!("`{OLD_API_VERSION}` is the older name; write `apiVersion: {API_VERSION}`");
    tell(findings, place, "apiVersion", told);
    root.put("apiVersion", Node::scalar(place, API_VERSION));
}

/// `data` became `dataLayer`.
fn data(root: &mut Node, findings: &mut Findings) {
    let Some(place) = root.field("data").map(|d| d.place) else { return };
    if root.field("dataLayer").is_some() {
        tell(findings, place, "data", "the older name of `dataLayer`, which stands here too and counts");
        root.take("data");
        return;
    }
    tell(findings, place, "data", "the older name; write `dataLayer: …`");
    root.rename_key("data", "dataLayer");
}

/// `parser` became the list `requestHandler.parsers`.
fn parser(root: &mut Node, findings: &mut Findings) {
    let Some(parser) = root.field("parser").filter(|p| p.is_map()).cloned() else { return };
    let place = parser.place;
    let modern = format!("`requestHandler: {{parsers: [{}]}}`", parser.flow());
    let Some(parsers) = root.section("requestHandler", place).and_then(|h| h.list("parsers", place)) else {
        return;
    };
    if parsers.is_empty() {
        tell(findings, place, "parser", format!("the field moved; write {modern}"));
        parsers.push(parser);
    } else {
        let told = "the older place of `requestHandler.parsers`, which stand here too and count; take it out";
        tell(findings, place, "parser", told);
    }
    root.take("parser");
}

/// The saturation detector stood at the top, and once had its thresholds there instead of naming a plugin.
fn detector(root: &mut Node, findings: &mut Findings) {
    if let Some(old) = root.field("saturationDetector").filter(|d| d.is_map()).cloned() {
        let place = old.place;
        let Some(flow) = root.section("flowControl", place) else { return };
        if flow.field("saturationDetector").is_none_or(Node::is_null) {
            if old.field("pluginRef").is_some() || has_no_entry(&old) {
                let modern = format!("`flowControl: {{saturationDetector: {}}}`", old.flow());
                tell(findings, place, "saturationDetector", format!("the field moved; write {modern}"));
            }
            flow.put("saturationDetector", old);
        } else {
            let told = "the older place of `flowControl.saturationDetector`, which stands here too and counts; \
                take it out";
            tell(findings, place, "saturationDetector", told);
        }
        root.take("saturationDetector");
    }
    thresholds(root, findings);
}

fn has_no_entry(node: &Node) -> bool {
    matches!(&node.data, Data::Map(entries) if entries.is_empty())
}

/// Thresholds in place of a reference: they are parameters of the detector today.
fn thresholds(root: &mut Node, findings: &mut Findings) {
    let found = root.field_mut("flowControl").and_then(|flow| flow.field_mut("saturationDetector"));
    let Some(found) = found.filter(|d| d.is_map() && d.field("pluginRef").is_none() && !has_no_entry(d))
    else {
        return;
    };
    let place = found.place;
    let parameters = Node { older: true, ..found.clone() };
    let known = ["queueDepthThreshold", "kvCacheUtilThreshold", "metricsStalenessThreshold"];
    if let Data::Map(entries) = &parameters.data
        && entries.iter().any(|(key, _)| !known.contains(&key.name.as_str()))
    {
        return;
    }
    let taken = |name: &str, root: &Node| {
        root.field("plugins").map(Node::items).unwrap_or_default().iter().any(|p| super::name_of(p) == name)
    };
    let name = if taken(DETECTOR, root) { "saturation-detector" } else { DETECTOR };
    let plugin = instance(place, name, DETECTOR, parameters);
    let told = format!(
        "thresholds stand with the plugin; write `plugins: [{}]` and \
         `flowControl: {{saturationDetector: {{pluginRef: {name}}}}}`",
        plugin.flow()
    );
    tell(findings, place, "saturationDetector", told);
    if let Some(plugins) = root.list("plugins", place) {
        plugins.push(plugin);
    }
    if let Some(flow) = root.section("flowControl", place) {
        flow.put("saturationDetector", Node::map(place, [("pluginRef", Node::scalar(place, name))]));
    }
}
