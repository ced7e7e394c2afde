//! The EndpointPickerConfig as it is written: today's schema, strictly, with older spellings of a field moved to their
//! present place.

mod flow;

use super::error::{Findings, Place};
use super::forms;
use super::node::{self, Fields, Node};
use super::suggest::hint;
use super::units;
use crate::plugin::Part;
use serde_json::Value;

/// The API version of today's form.
pub const API_VERSION: &str = "llm-d.ai/v1alpha1";
/// The kind of the document.
pub const KIND: &str = "EndpointPickerConfig";

/// A document, decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// `featureGates`.
    pub gates: FeatureGates,
    /// `plugins`, in order.
    pub plugins: Vec<PluginSpec>,
    /// `schedulingProfiles`, in order.
    pub profiles: Vec<ProfileSpec>,
    /// `dataLayer`.
    pub data_layer: DataLayer,
    /// `flowControl`.
    pub flow_control: FlowControl,
    /// `requestHandler.parsers`, in order.
    pub parsers: Vec<Reference>,
}

/// Feature gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureGates {
    /// `flowControl`
    pub flow_control: bool,
    /// `haPopulateNonLeaderDatastore`
    pub ha_populate_non_leader_datastore: bool,
}

impl Default for FeatureGates {
    fn default() -> Self {
        Self { flow_control: false, ha_populate_non_leader_datastore: true }
    }
}

/// One entry of `plugins`.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginSpec {
    /// Where it stands; `None` for a plugin that was added as a default.
    pub place: Option<Place>,
    /// Its path, e.g. `plugins[2]`.
    pub path: String,
    /// Instance name.
    pub name: String,
    /// Plugin type.
    pub plugin_type: String,
    /// Parameters, `Null` when there are none.
    pub parameters: Value,
    /// Parameters with their places.
    pub parameters_node: Option<Node>,
}

impl PluginSpec {
    /// An instance that nobody wrote, named like its type.
    pub fn default_of(plugin_type: &str) -> Self {
        Self {
            place: None,
            path: String::new(),
            name: plugin_type.to_owned(),
            plugin_type: plugin_type.to_owned(),
            parameters: Value::Null,
            parameters_node: None,
        }
    }
}

/// A `pluginRef`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Where it stands; `None` for one that was added as a default.
    pub place: Option<Place>,
    /// Its path, e.g. `dataLayer.sources[0].pluginRef`.
    pub path: String,
    /// Name of the instance.
    pub name: String,
}

impl Reference {
    /// A reference that nobody wrote.
    pub fn default_to(name: &str) -> Self {
        Self { place: None, path: String::new(), name: name.to_owned() }
    }
}

/// One entry of `schedulingProfiles`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileSpec {
    /// Where it stands.
    pub place: Option<Place>,
    /// Its path.
    pub path: String,
    /// Its name.
    pub name: String,
    /// Whether it is only watched: it picks nothing, and where it would have picked otherwise is counted.
    pub shadow: bool,
    /// Its plugins with their weights, in order.
    pub plugins: Vec<(Reference, Option<f64>)>,
}

/// `dataLayer`.
#[derive(Clone, Debug, PartialEq)]
pub struct DataLayer {
    /// Whether the metrics source is added when it is not listed.
    pub inject_defaults: bool,
    /// Sources with their extractors.
    pub sources: Vec<(Reference, Vec<Reference>)>,
    /// Endpoint discovery.
    pub discovery: Option<Reference>,
}

impl Default for DataLayer {
    fn default() -> Self {
        Self { inject_defaults: true, sources: Vec::new(), discovery: None }
    }
}

/// `flowControl`, as far as this release uses it; the rest is checked for its shape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowControl {
    /// Saturation detector.
    pub saturation_detector: Option<Reference>,
    /// Policies that it names, each with what it must be; none where the feature gate is off.
    pub policies: Vec<(Reference, Part)>,
}

/// Decodes a document, telling everything that is wrong with it. `None` when it cannot be read at all.
pub fn decode(text: &str, findings: &mut Findings) -> Option<Document> {
    let mut root = match node::read(text) {
        Ok(root) => root,
        Err(problem) => {
            findings.problems.push(problem);
            return None;
        }
    };
    root.check_duplicates("", findings);
    forms::modernize(&mut root, findings);
    Some(decode_modern(&root, findings))
}

/// The document's tree in today's form. `None` when it cannot be read at all.
pub fn modernized(text: &str, findings: &mut Findings) -> Option<Node> {
    let mut root = node::read(text).ok()?;
    forms::modernize(&mut root, findings);
    Some(root)
}

/// Decodes a document that is in today's form.
fn decode_modern(root: &Node, findings: &mut Findings) -> Document {
    let mut fields = Fields::of(root, "", findings);
    header(&mut fields, root.place);
    let mut document = Document {
        gates: gates(&mut fields),
        plugins: plugins(&mut fields),
        profiles: profiles(&mut fields),
        data_layer: data_layer(&mut fields),
        flow_control: FlowControl::default(),
        parsers: parsers(&mut fields),
    };
    document.flow_control = flow::flow_control(&mut fields, document.gates.flow_control);
    fields.finish();
    document
}

fn header(fields: &mut Fields<'_, '_>, top: Place) {
    let place = fields.get("apiVersion").map_or(top, |n| n.place);
    match fields.text("apiVersion").as_deref() {
        Some(API_VERSION) => {}
        Some(other) => {
            let told = format!("`{other}` is not known; write `{API_VERSION}`");
            fields.findings.problem(Some(place), "apiVersion", told);
        }
        None if fields.get("apiVersion").is_some() => {}
        None => {
            fields.findings.problem(Some(top), "apiVersion", format!("is missing; write `{API_VERSION}`"))
        }
    }
    let place = fields.get("kind").map_or(top, |n| n.place);
    match fields.text("kind").as_deref() {
        Some(KIND) => {}
        Some(other) => {
            fields.findings.problem(Some(place), "kind", format!("`{other}` is not known; write `{KIND}`"));
        }
        None if fields.get("kind").is_some() => {}
        None => fields.findings.problem(Some(top), "kind", format!("is missing; write `{KIND}`")),
    }
}

fn gates(fields: &mut Fields<'_, '_>) -> FeatureGates {
    let mut gates = FeatureGates::default();
    for (path, item) in fields.list("featureGates") {
        let json = item.to_json();
        let Some(text) = json.as_str() else {
            fields.findings.problem(Some(item.place), path, format!("must be text, not {}", item.kind()));
            continue;
        };
        let (name, value) = text.split_once('=').map_or((text, "true"), |(name, value)| (name, value));
        let gate = match name.trim() {
            "flowControl" => &mut gates.flow_control,
            "haPopulateNonLeaderDatastore" => &mut gates.ha_populate_non_leader_datastore,
            other => {
                let near = hint(other, ["flowControl", "haPopulateNonLeaderDatastore"]);
                let told = format!("feature gate '{other}' is unknown or unregistered{near}");
                fields.findings.problem(Some(item.place), path, told);
                continue;
            }
        };
        match units::boolean(&value.trim().to_ascii_lowercase()) {
            Some(value) => *gate = value,
            None => {
                let told =
                    format!("{value} is not a valid value for the feature gate {name}; use true or false");
                fields.findings.problem(Some(item.place), path, told);
            }
        }
    }
    gates
}

fn plugins(fields: &mut Fields<'_, '_>) -> Vec<PluginSpec> {
    let items = fields.list("plugins");
    items.into_iter().filter_map(|(path, item)| plugin(item, path, fields.findings)).collect()
}

fn plugin(item: &Node, path: String, findings: &mut Findings) -> Option<PluginSpec> {
    let mut fields = Fields::of(item, &path, findings);
    let plugin_type = fields.text("type").filter(|t| !t.is_empty());
    let name = fields.text("name").filter(|n| !n.is_empty());
    let parameters_node = fields.get("parameters").cloned();
    fields.finish();
    if let Some(odd) = parameters_node.as_ref().filter(|n| !matches!(n.data, node::Data::Map(_))) {
        let told = format!("must be a map, not {}", odd.kind());
        findings.problem(Some(odd.place), format!("{path}.parameters"), told);
    }
    let Some(plugin_type) = plugin_type else {
        if matches!(item.data, node::Data::Map(_)) {
            let named = name.unwrap_or_default();
            findings.problem(
                Some(item.place),
                path,
                format!("plugin '{named}' is missing a type; add `type: …`"),
            );
        }
        return None;
    };
    Some(PluginSpec {
        place: Some(item.place),
        path,
        name: name.unwrap_or_else(|| plugin_type.clone()),
        plugin_type,
        parameters: parameters_node.as_ref().map_or(Value::Null, Node::to_json),
        parameters_node,
    })
}

fn profiles(fields: &mut Fields<'_, '_>) -> Vec<ProfileSpec> {
    let items = fields.list("schedulingProfiles");
    items.into_iter().map(|(path, item)| profile(item, path, fields.findings)).collect()
}

fn profile(item: &Node, path: String, findings: &mut Findings) -> ProfileSpec {
    let mut fields = Fields::of(item, &path, findings);
    let name = fields.text("name").unwrap_or_default();
    if name.is_empty() {
        fields.findings.problem(Some(item.place), path.clone(), format!("{path} is missing a name"));
    }
    let label = if name.is_empty() { path.clone() } else { format!("schedulingProfiles[{name}]") };
    let mut plugins = Vec::new();
    for (i, (path, entry)) in fields.list("plugins").into_iter().enumerate() {
        let mut entry_fields = Fields::of(entry, &path, fields.findings);
        let weight = entry_fields.number("weight");
        let reference = reference(&mut entry_fields, entry, &format!("{label}.plugins[{i}]"));
        entry_fields.finish();
        plugins.extend(reference.map(|r| (r, weight)));
    }
    let shadow = fields.boolean("shadow").unwrap_or(false);
    fields.finish();
    ProfileSpec { place: Some(item.place), path, name, shadow, plugins }
}

/// The `pluginRef` of a map; `label` names the map in the complaint that it is missing.
fn reference(fields: &mut Fields<'_, '_>, owner: &Node, label: &str) -> Option<Reference> {
    let node = fields.get("pluginRef");
    let name = fields.text("pluginRef");
    let path = fields.path_of("pluginRef");
    if !owner.is_map() {
        // What stands there has been told.
        return None;
    }
    if node.is_none() || name.as_deref() == Some("") {
        fields.findings.problem(Some(owner.place), path, format!("{label} is missing a 'pluginRef'"));
        return None;
    }
    Some(Reference { place: node.map(|n| n.place), path, name: name? })
}

/// A map of which only the `pluginRef` counts.
fn reference_field(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<Reference> {
    let node = fields.get(name)?;
    let path = fields.path_of(name);
    let mut inner = Fields::of(node, &path, fields.findings);
    let found = reference(&mut inner, node, &path);
    inner.finish();
    found
}

fn references(fields: &mut Fields<'_, '_>, name: &'static str) -> Vec<Reference> {
    let mut found = Vec::new();
    for (path, item) in fields.list(name) {
        let mut inner = Fields::of(item, &path, fields.findings);
        found.extend(reference(&mut inner, item, &path));
        inner.finish();
    }
    found
}

fn data_layer(fields: &mut Fields<'_, '_>) -> DataLayer {
    let Some(section) = fields.get("dataLayer") else { return DataLayer::default() };
    let mut layer = Fields::of(section, "dataLayer", fields.findings);
    let inject_defaults = layer.boolean("injectDefaults").unwrap_or(true);
    let mut sources = Vec::new();
    for (path, item) in layer.list("sources") {
        let mut source = Fields::of(item, &path, layer.findings);
        let found = reference(&mut source, item, &path);
        let extractors = references(&mut source, "extractors");
        source.finish();
        sources.extend(found.map(|r| (r, extractors)));
    }
    let discovery = reference_field(&mut layer, "discovery");
    let peers = reference_field(&mut layer, "peerDiscovery");
    let syncer = layer.text("crossReplicaSyncerPluginRef");
    let interval = layer.parsed("crossReplicaSyncInterval", units::duration);
    if peers.is_some() || syncer.is_some() || interval.is_some() {
        layer.findings.notice(
            Some(section.place),
            "dataLayer",
            "peerDiscovery and crossReplicaSync… have no effect: replicas do not share state in this release",
        );
    }
    layer.finish();
    DataLayer { inject_defaults, sources, discovery }
}

fn parsers(fields: &mut Fields<'_, '_>) -> Vec<Reference> {
    let Some(section) = fields.get("requestHandler") else { return Vec::new() };
    let mut handler = Fields::of(section, "requestHandler", fields.findings);
    let found = references(&mut handler, "parsers");
    handler.finish();
    found
}

#[cfg(test)]
mod tests;
