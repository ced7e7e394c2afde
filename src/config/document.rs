//! The EndpointPickerConfig as it is written: today's schema, strictly, with older spellings of a field moved to their
//! present place.

use super::error::{Findings, Place};
use super::node::{self, Fields, Node};
use super::suggest::hint;
use super::units;
use serde_json::Value;

const API_VERSION: &str = "llm-d.ai/v1alpha1";
const OLD_API_VERSION: &str = "inference.networking.x-k8s.io/v1alpha1";
const KIND: &str = "EndpointPickerConfig";

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
}

/// Decodes a document, telling everything that is wrong with it. `None` when it cannot be read at all.
pub fn decode(text: &str, findings: &mut Findings) -> Option<Document> {
    let root = match node::read(text) {
        Ok(root) => root,
        Err(problem) => {
            findings.problems.push(problem);
            return None;
        }
    };
    root.check_duplicates("", findings);
    let mut fields = Fields::of(&root, "", findings);
    header(&mut fields, root.place);
    let mut document = Document {
        gates: gates(&mut fields),
        plugins: plugins(&mut fields),
        profiles: profiles(&mut fields),
        data_layer: data_layer(&mut fields),
        flow_control: FlowControl::default(),
        parsers: parsers(&mut fields),
    };
    document.flow_control = flow_control(&mut fields, document.gates.flow_control);
    deprecated(&mut fields, &mut document);
    fields.finish();
    Some(document)
}

fn header(fields: &mut Fields<'_, '_>, top: Place) {
    let place = fields.get("apiVersion").map_or(top, |n| n.place);
    match fields.text("apiVersion").as_deref() {
        Some(API_VERSION) => {}
        Some(OLD_API_VERSION) => fields.findings.notice(
            Some(place),
            "apiVersion",
            format!("DEPRECATION: `{OLD_API_VERSION}` is the older name; write `{API_VERSION}`"),
        ),
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
    fields.finish();
    ProfileSpec { place: Some(item.place), path, name, plugins }
}

/// The `pluginRef` of a map; `label` names the map in the complaint that it is missing.
fn reference(fields: &mut Fields<'_, '_>, owner: &Node, label: &str) -> Option<Reference> {
    let node = fields.get("pluginRef");
    let name = fields.text("pluginRef");
    let path = fields.path_of("pluginRef");
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

fn flow_control(fields: &mut Fields<'_, '_>, gate: bool) -> FlowControl {
    let Some(section) = fields.get("flowControl") else {
        if gate {
            let place = fields.get("featureGates").map(|n| n.place);
            fields.findings.notice(place, "featureGates", QUEUES_LATER);
        }
        return FlowControl::default();
    };
    let mut flow = Fields::of(section, "flowControl", fields.findings);
    let before = flow.findings.problems.len();
    let saturation_detector = reference_field(&mut flow, "saturationDetector");
    let mut more = false;
    more |= limit(&mut flow, "maxBytes", "global MaxBytes");
    more |= limit(&mut flow, "maxRequests", "global MaxRequests");
    more |= flow.parsed("defaultRequestTTL", units::duration).is_some();
    more |= flow.parsed("noEndpointRequestTTL", units::duration).is_some();
    more |= flow.text("usageLimitPolicyPluginRef").is_some();
    more |= flow.boolean("enableEviction").is_some();
    for (name, label) in [
        ("defaultPriorityBand", "default priority band"),
        ("defaultNegativePriorityBand", "default negative priority band"),
    ] {
        if let Some(node) = flow.get(name) {
            more = true;
            band(node, &flow.path_of(name), label, flow.findings);
        }
    }
    let mut levels = Vec::new();
    for (path, item) in flow.list("priorityBands") {
        more = true;
        let level = band(item, &path, "priority band", flow.findings).unwrap_or(0);
        if levels.contains(&level) {
            flow.findings.problem(Some(item.place), path, format!("duplicate priority level {level}"));
        }
        levels.push(level);
    }
    flow.finish();
    if fields.findings.problems.len() == before && (more || gate) {
        fields.findings.notice(Some(section.place), "flowControl", QUEUES_LATER);
    }
    FlowControl { saturation_detector }
}

const QUEUES_LATER: &str = "requests are not queued in this release, so the bands, limits and TTLs of flow control \
    have no effect; saturationDetector has: it decides when sheddable requests are refused";

fn band(node: &Node, path: &str, label: &str, findings: &mut Findings) -> Option<i64> {
    let mut fields = Fields::of(node, path, findings);
    let priority = fields.integer("priority");
    let label = priority.map_or_else(|| label.to_owned(), |p| format!("{label} {p}"));
    limit(&mut fields, "maxBytes", &format!("{label} MaxBytes"));
    limit(&mut fields, "maxRequests", &format!("{label} MaxRequests"));
    fields.text("fairnessPolicyRef");
    fields.text("orderingPolicyRef");
    fields.finish();
    priority
}

fn limit(fields: &mut Fields<'_, '_>, name: &'static str, label: &str) -> bool {
    let read = |text: &str| match units::quantity(text)? {
        ..0 => Err(format!("{label} must be non-negative")),
        some => Ok(some),
    };
    fields.parsed(name, read).is_some()
}

/// Fields at the top that have another place today.
fn deprecated(fields: &mut Fields<'_, '_>, document: &mut Document) {
    for (name, place) in
        [("saturationDetector", "flowControl.saturationDetector"), ("parser", "requestHandler.parsers")]
    {
        let Some(found) = reference_field(fields, name) else { continue };
        let told = format!("DEPRECATION: the field is read as `{place}`; write it there");
        fields.findings.notice(found.place, name, told);
        if name == "parser" {
            if document.parsers.is_empty() {
                document.parsers.push(found);
            }
        } else if document.flow_control.saturation_detector.is_none() {
            document.flow_control.saturation_detector = Some(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

    fn read(body: &str) -> (Option<Document>, Vec<String>, Vec<String>) {
        read_whole(&format!("{HEAD}{body}"))
    }
    fn read_whole(text: &str) -> (Option<Document>, Vec<String>, Vec<String>) {
        let mut findings = Findings::default();
        let document = decode(text, &mut findings);
        let told = |list: Vec<super::super::Problem>| list.iter().map(ToString::to_string).collect();
        (document, told(findings.problems), told(findings.notices))
    }

    #[test]
    fn the_whole_schema_is_read() {
        let (document, problems, notices) = read(
            "featureGates: [flowControl=false, 'haPopulateNonLeaderDatastore= FALSE']
plugins:
- type: queue-scorer
- name: src
  type: metrics-data-source
  parameters: {scheme: https}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
    weight: 2.5
dataLayer:
  injectDefaults: false
  sources:
  - pluginRef: src
    extractors: [{pluginRef: core}]
  discovery: {pluginRef: file}
flowControl:
  maxBytes: 10Gi
  maxRequests: 1000
  defaultRequestTTL: 1m
  priorityBands: [{priority: 100, maxBytes: '50', fairnessPolicyRef: f, orderingPolicyRef: o}]
  defaultPriorityBand: {maxRequests: 1k}
  saturationDetector: {pluginRef: sat}
  enableEviction: false
requestHandler:
  parsers: [{pluginRef: openai-parser}]
",
        );
        assert_eq!(problems, [] as [&str; 0]);
        let document = document.unwrap();
        assert!(!document.gates.ha_populate_non_leader_datastore);
        assert_eq!(document.plugins[0].name, "queue-scorer");
        assert_eq!(document.plugins[1].parameters, serde_json::json!({"scheme": "https"}));
        assert_eq!(document.profiles[0].plugins[0].1, Some(2.5));
        assert_eq!(document.data_layer.sources[0].1[0].name, "core");
        assert_eq!(document.data_layer.discovery.unwrap().name, "file");
        assert_eq!(document.flow_control.saturation_detector.unwrap().name, "sat");
        assert_eq!(document.parsers[0].path, "requestHandler.parsers[0].pluginRef");
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].contains("flowControl: requests are not queued"));
    }

    #[test]
    fn the_older_spellings_are_moved_and_told() {
        let (document, problems, notices) = read_whole(
            "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n\
             parser: {pluginRef: openai-parser}\nsaturationDetector:\n  pluginRef: sat\n",
        );
        assert_eq!(problems, [] as [&str; 0]);
        let document = document.unwrap();
        assert_eq!(document.parsers[0].name, "openai-parser");
        assert_eq!(document.flow_control.saturation_detector.unwrap().name, "sat");
        assert_eq!(notices.len(), 3, "{notices:?}");
        assert!(notices[0].starts_with("line 1, column 13: apiVersion: DEPRECATION"), "{notices:?}");
        // What is written in the present place wins.
        let (document, ..) = read("requestHandler: {parsers: [{pluginRef: a}]}\nparser: {pluginRef: b}\n");
        assert_eq!(document.unwrap().parsers.iter().map(|p| &*p.name).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn every_mistake_has_its_line_and_its_fix() {
        for (body, told) in [
            (
                "featureGates: [flowControll]",
                "line 3, column 16: featureGates[0]: feature gate 'flowControll' is unknown or unregistered; did you mean `flowControl`?",
            ),
            (
                "featureGates: [flowControl=qwerty]",
                "qwerty is not a valid value for the feature gate flowControl",
            ),
            ("featureGates: [dataLayer]", "feature gate 'dataLayer' is unknown or unregistered"),
            ("plugins:\n- parameters: {a: 1}", "line 4, column 3: plugins[0]: plugin '' is missing a type"),
            ("plugins:\n- testing 1 2 3", "line 4, column 3: plugins[0]: must be a map, not text"),
            (
                "plugins:\n- type: a\n  parameters: 5",
                "line 5, column 15: plugins[0].parameters: must be a map, not a number",
            ),
            ("schedulingProfiles:\n- plugins: []", "schedulingProfiles[0] is missing a name"),
            (
                "schedulingProfiles:\n- name: d\n  plugins:\n  - weight: 10",
                "schedulingProfiles[d].plugins[0] is missing a 'pluginRef'",
            ),
            (
                "schedulingProfiles:\n- name: d\n  plugins:\n  - pluginRef: a\n    weight: heavy",
                "must be a number, not text",
            ),
            (
                "dataLayer: {sources: [{pluginRef: s, extractors: [x]}]}",
                "dataLayer.sources[0].extractors[0]: must be a map, not text",
            ),
            (
                "flowControl: {saturationDetector: {}}",
                "flowControl.saturationDetector is missing a 'pluginRef'",
            ),
            ("flowControl: {maxBytes: -1}", "global MaxBytes must be non-negative"),
            ("flowControl: {defaultRequestTTL: -1s}", "is negative"),
            ("flowControl: {priorityBands: [{priority: 1}, {priority: 1}]}", "duplicate priority level 1"),
            (
                "flowControl: {priorityBands: [{priority: 7, maxRequests: -2}]}",
                "priority band 7 MaxRequests must be non-negative",
            ),
            ("metadata: {name: x}", "line 3, column 1: metadata: unknown field"),
            ("schedulingProfile: []", "unknown field; did you mean `schedulingProfiles`?"),
            (
                "plugins: []\nplugins: []",
                "line 4, column 1: plugins: duplicate key `plugins`, first on line 3",
            ),
        ] {
            let (_, problems, _) = read(body);
            assert!(problems.iter().any(|p| p.contains(told)), "{body}\nwanted: {told}\ngot: {problems:#?}");
        }
        let (document, problems, _) = read_whole("[1, 2");
        assert!(
            document.is_none() && problems[0].contains("failed to decode configuration JSON/YAML"),
            "{problems:?}"
        );
        let (_, problems, _) = read_whole("apiVersion: v1\nkind: ConfigMap\n");
        assert_eq!(problems.len(), 2, "{problems:?}");
        let (_, problems, _) = read_whole("plugins: []\n");
        assert!(
            problems.iter().all(|p| p.contains("is missing; write")) && problems.len() == 2,
            "{problems:?}"
        );
    }

    #[test]
    fn all_mistakes_are_told_together() {
        let (_, problems, _) = read(
            "featureGates: [nope]\nplugins:\n- {}\n- {type: a, parms: 1}\nschedulingProfiles:\n- {}\nextra: 1\n\
             flowControl: {maxBytes: x, maxBites: 1}\n",
        );
        assert_eq!(problems.len(), 7, "{problems:#?}");
    }

    #[test]
    fn the_gate_alone_earns_the_word_and_the_detector_alone_does_not() {
        let notices = read("featureGates: [flowControl]").2;
        assert!(
            notices.len() == 1 && notices[0].starts_with("line 3, column 15: featureGates: "),
            "{notices:?}"
        );
        assert_eq!(read("flowControl: {saturationDetector: {pluginRef: a}}").2, [] as [&str; 0]);
        assert_eq!(read("featureGates: [flowControl=false]").2, [] as [&str; 0]);
    }
}
