//! The configuration in force, with every default, and where each value came from.

use crate::app::assemble::Outline;
use crate::config::{Data, Key, Line, Node, Place, lines};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Place of what nobody wrote.
const DEFAULT: Place = Place { line: 0, column: 0 };
/// Place of what a flag said.
const FLAG: Place = Place { line: 0, column: 1 };
/// Column in which origins stand, where the text is shorter.
const COLUMN: usize = 64;

/// The document `root`, with what `outline` says was filled in, as YAML with a comment of origin behind each line.
pub fn text(mut root: Node, outline: &Outline, endpoints_by_flag: bool) -> String {
    gates(&mut root);
    plugins(&mut root, outline);
    profiles(&mut root, outline);
    data_layer(&mut root, outline, endpoints_by_flag);
    rest(&mut root, outline);
    let mut text = String::new();
    for line in lines(&root) {
        let origin = origin(&line);
        let _ = writeln!(text, "{:<COLUMN$} # {origin}", line.text);
    }
    text
}

fn origin(line: &Line) -> String {
    match (line.place, line.older) {
        (DEFAULT, _) => "default".to_owned(),
        (FLAG, _) => "--endpoints-file".to_owned(),
        (Place { line, .. }, true) => format!("line {line}, older spelling"),
        (Place { line, .. }, false) => format!("line {line}"),
    }
}

/// A value that nobody wrote.
fn from(value: &Value, place: Place) -> Node {
    let data = match value {
        Value::Array(items) => Data::List(items.iter().map(|v| from(v, place)).collect()),
        Value::Object(entries) => {
            Data::Map(entries.iter().map(|(k, v)| (Key { place, name: k.clone() }, from(v, place))).collect())
        }
        scalar => Data::Scalar(scalar.clone()),
    };
    Node { place, data, older: false }
}

/// Adds a key that nobody wrote.
fn add(node: &mut Node, name: &str, value: &Value) {
    if let Some(found) = node.field_mut(name) {
        if found.is_null() && !value.is_null() {
            *found = from(value, DEFAULT);
        }
        return;
    }
    if let Data::Map(entries) = &mut node.data {
        entries.push((Key { place: DEFAULT, name: name.to_owned() }, from(value, DEFAULT)));
    }
}

/// Fills in what is missing in `written`.
fn fill(written: &mut Node, settings: &Value) {
    if let (true, Value::Object(entries)) = (written.is_map(), settings) {
        for (name, value) in entries {
            add(written, name, value);
            if let Some(found) = written.field_mut(name) {
                fill(found, value);
            }
        }
    } else if let (Some(items), Value::Array(values)) = (written.items_mut(), settings)
        && items.len() <= values.len()
    {
        // What was added stands behind what is written.
        let added = &values[items.len()..];
        items.iter_mut().zip(values).for_each(|(item, value)| fill(item, value));
        items.extend(added.iter().map(|value| from(value, DEFAULT)));
    }
}

fn section<'a>(root: &'a mut Node, name: &str, empty: &Value) -> Option<&'a mut Node> {
    add(root, name, empty);
    root.field_mut(name)
}

fn gates(root: &mut Node) {
    let Some(gates) = section(root, "featureGates", &json!([])).and_then(Node::items_mut) else { return };
    for (name, value) in [("flowControl", false), ("haPopulateNonLeaderDatastore", true)] {
        if !gates.iter().any(|g| g.text().is_some_and(|t| t.split('=').next().unwrap_or(t).trim() == name)) {
            gates.push(from(&json!(format!("{name}={value}")), DEFAULT));
        }
    }
}

fn plugins(root: &mut Node, outline: &Outline) {
    let Some(list) = section(root, "plugins", &json!([])).and_then(Node::items_mut) else { return };
    for plugin in list.iter_mut() {
        let plugin_type = plugin.text_of("type").unwrap_or_default().to_owned();
        add(plugin, "name", &json!(plugin_type));
        let name = plugin.text_of("name").unwrap_or_default();
        let settings = outline.instances.iter().find(|i| i.name == name).and_then(|i| i.settings.clone());
        let Some(settings) = settings.filter(|s| s.as_object().is_some_and(|o| !o.is_empty())) else {
            continue;
        };
        if let Some(parameters) = section(plugin, "parameters", &json!({})) {
            fill(parameters, &settings);
        }
    }
    // What is added for shadow profiles alone is not what it would be if it were written.
    for added in outline.instances.iter().filter(|i| !i.written && !i.aside) {
        let mut plugin = json!({"type": added.plugin_type, "name": added.name});
        if let Some(settings) =
            added.settings.as_ref().filter(|s| s.as_object().is_some_and(|o| !o.is_empty()))
        {
            plugin["parameters"] = settings.clone();
        }
        list.push(from(&plugin, DEFAULT));
    }
}

fn profiles(root: &mut Node, outline: &Outline) {
    let Some(list) = section(root, "schedulingProfiles", &json!([])).and_then(Node::items_mut) else {
        return;
    };
    for profile in &outline.profiles {
        if !list.iter().any(|p| p.text_of("name") == Some(&profile.name)) {
            let plugins = profile.plugins.iter().map(|(name, _)| json!({"pluginRef": name}));
            let plugins: Vec<Value> = plugins.collect();
            list.push(from(&json!({"name": profile.name, "plugins": plugins}), DEFAULT));
        }
        let Some(written) = list.iter_mut().find(|p| p.text_of("name") == Some(&profile.name)) else {
            continue;
        };
        add(written, "shadow", &json!(profile.shadow));
        if let Some(plugins) = section(written, "plugins", &json!([])).and_then(Node::items_mut) {
            complete(plugins, profile);
        }
    }
}

fn complete(plugins: &mut Vec<Node>, profile: &crate::app::assemble::ProfileOutline) {
    for plugin in plugins.iter_mut() {
        let name = plugin.text_of("pluginRef").unwrap_or_default();
        let weight = profile.plugins.iter().find(|(n, _)| n == name).and_then(|(_, weight)| *weight);
        if let Some(weight) = weight {
            add(plugin, "weight", &json!(weight));
        }
    }
    if let Some(picker) = &profile.picker {
        plugins.push(from(&json!({"pluginRef": picker}), DEFAULT));
    }
}

fn data_layer(root: &mut Node, outline: &Outline, endpoints_by_flag: bool) {
    let Some(layer) = section(root, "dataLayer", &json!({})) else { return };
    add(layer, "injectDefaults", &json!(true));
    if let Some(sources) = section(layer, "sources", &json!([])).and_then(Node::items_mut) {
        for (source, extractors) in &outline.sources {
            if !sources.iter().any(|s| s.text_of("pluginRef") == Some(source)) {
                let extractors: Vec<Value> = extractors.iter().map(|e| json!({"pluginRef": e})).collect();
                sources.push(from(&json!({"pluginRef": source, "extractors": extractors}), DEFAULT));
            }
        }
    }
    if endpoints_by_flag
        && layer.field("discovery").is_none()
        && let Data::Map(entries) = &mut layer.data
    {
        let discovery = from(&json!({"pluginRef": "file-discovery"}), FLAG);
        entries.push((Key { place: FLAG, name: "discovery".to_owned() }, discovery));
    }
}

fn rest(root: &mut Node, outline: &Outline) {
    if let Some(handler) = section(root, "requestHandler", &json!({})) {
        let parsers: Vec<Value> = outline.parsers.iter().map(|name| json!({"pluginRef": name})).collect();
        add(handler, "parsers", &json!(parsers));
    }
    if let Some(flow) = section(root, "flowControl", &json!({})) {
        add(flow, "saturationDetector", &json!({"pluginRef": outline.saturation}));
    }
}
