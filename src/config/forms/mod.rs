//! Older forms of the document, rewritten into today's before it is decoded.
//!
//! Every form that a release of the reference accepted is taken, and the shape of the early design documents too. Each
//! older spelling earns one notice that prints the form to write today. The step is pure: a tree becomes a tree, places
//! stay, and what came from an older spelling is marked ([`Node::older`]). What is wrong stays as it is, for the
//! decoder to tell.

mod design;
mod design_names;
mod disagg;
mod gates;
mod parameters;
mod prefix;
mod sections;
mod trees;
mod types;

#[cfg(test)]
mod tests;

use super::error::{Findings, Place};
use super::node::{Data, Node, join};

/// Rewrites `root` into today's form.
pub fn modernize(root: &mut Node, findings: &mut Findings) {
    if !root.is_map() {
        return;
    }
    design::modernize(root, findings);
    sections::modernize(root, findings);
    gates::modernize(root, findings);
    trees::modernize(root, findings);
    plugins(root, findings);
}

/// Begins every notice of this step.
const OLDER: &str = "DEPRECATION: ";

/// Tells an older spelling.
fn tell(findings: &mut Findings, place: Place, path: impl Into<String>, message: impl AsRef<str>) {
    findings.notice(Some(place), path, format!("{OLDER}{}", message.as_ref()));
}

/// The list of plugins while it is rewritten, one entry after the other.
struct Edit<'a> {
    findings: &'a mut Findings,
    /// Path of the entry at hand.
    path: String,
    /// All instances with their types, as they were written or added.
    declared: Vec<(String, String)>,
    /// Whether the older handler of prefill and decode stays, because it also chooses among data parallel ranks.
    ranks: bool,
    /// What the list becomes.
    out: Vec<Node>,
    /// References to change.
    renamed: Vec<(String, String)>,
    /// Extractors to change, which stand in the data layer.
    extractors: Vec<(String, String)>,
    /// Instances whose references go.
    dropped: Vec<String>,
}

impl Edit<'_> {
    /// Tells an older spelling at `place`, at `field` of the entry at hand.
    fn tell(&mut self, place: Place, field: &str, message: impl AsRef<str>) {
        tell(self.findings, place, join(&self.path, field), message);
    }
    /// Adds an instance before the one at hand.
    fn add(&mut self, plugin: Node) {
        self.declared.push(declared(&plugin));
        self.out.push(plugin);
    }
    fn knows(&self, name: &str) -> bool {
        self.declared.iter().any(|(n, _)| n == name)
    }
    /// The first instance of a type.
    fn of_type(&self, plugin_type: &str) -> Option<String> {
        self.declared.iter().find(|(_, t)| t == plugin_type).map(|(name, _)| name.clone())
    }
    /// `wanted`, or a name like it that no instance has.
    fn free_name(&self, wanted: &str) -> String {
        let more = (2..).map(|n| format!("{wanted}-{n}"));
        let mut names = std::iter::once(wanted.to_owned()).chain(more);
        names.find(|name| !self.knows(name)).unwrap_or_default()
    }
}

/// The name of an instance: that of its type when none is written.
fn name_of(plugin: &Node) -> &str {
    plugin.text_of("name").filter(|n| !n.is_empty()).or_else(|| plugin.text_of("type")).unwrap_or_default()
}

/// Name and type of an instance.
fn declared(plugin: &Node) -> (String, String) {
    (name_of(plugin).to_owned(), plugin.text_of("type").unwrap_or_default().to_owned())
}

/// A plugin's entry; its name is written where it is not that of the type.
fn instance(place: Place, name: &str, plugin_type: &str, parameters: Node) -> Node {
    let mut plugin = Node::map(place, []);
    if name != plugin_type {
        plugin.put("name", Node::scalar(place, name));
    }
    plugin.put("type", Node::scalar(place, plugin_type));
    if !matches!(&parameters.data, Data::Map(entries) if entries.is_empty()) {
        plugin.put("parameters", parameters);
    }
    plugin
}

fn plugins(root: &mut Node, findings: &mut Findings) {
    let Some(list) = root.field_mut("plugins").and_then(Node::items_mut) else { return };
    let written = std::mem::take(list);
    let mut edit = Edit {
        findings,
        path: String::new(),
        declared: written.iter().map(declared).collect(),
        ranks: written.iter().any(disagg::chooses_ranks),
        out: Vec::with_capacity(written.len()),
        renamed: Vec::new(),
        extractors: Vec::new(),
        dropped: Vec::new(),
    };
    for (i, mut plugin) in written.into_iter().enumerate() {
        edit.path = format!("plugins[{i}]");
        let kept = types::rename(&mut plugin, &mut edit) && one(&mut plugin, &mut edit);
        if kept {
            edit.out.push(plugin);
        } else {
            edit.dropped.push(name_of(&plugin).to_owned());
        }
    }
    let Edit { out, renamed, extractors, dropped, .. } = edit;
    *list = out;
    for (old, new) in &renamed {
        rename_references(root, old, new);
    }
    if let Some(layer) = root.field_mut("dataLayer") {
        extractors.iter().for_each(|(old, new)| rename_references(layer, old, new));
    }
    drop_references(root, &dropped);
}

/// Rewrites the parameters of one plugin; false when the plugin goes.
fn one(plugin: &mut Node, edit: &mut Edit<'_>) -> bool {
    match plugin.text_of("type") {
        Some("prefix-cache-scorer") => prefix::scorer(plugin, edit),
        Some("precise-prefix-cache-scorer") => prefix::precise_scorer(plugin, edit),
        Some("pd-profile-handler") => disagg::pd_handler(plugin, edit),
        Some("disagg-profile-handler") => disagg::handler(plugin, edit),
        Some("disagg-headers-handler") => return disagg::headers(plugin, edit),
        _ => parameters::modernize(plugin, edit),
    }
    true
}

/// Whether the value under `key` may name a plugin instance.
fn refers(key: &str) -> bool {
    key.ends_with("Ref") || key.ends_with("PluginName") || key.ends_with("ProducerName") || key == "producer"
}

fn rename_references(node: &mut Node, old: &str, new: &str) {
    match &mut node.data {
        Data::Scalar(_) => {}
        Data::List(items) => items.iter_mut().for_each(|item| rename_references(item, old, new)),
        Data::Map(entries) => {
            for (key, value) in entries {
                if refers(&key.name) && value.text() == Some(old) {
                    *value = Node::scalar(value.place, new);
                } else {
                    rename_references(value, old, new);
                }
            }
        }
    }
}

/// Takes the references to `names` out of the profiles.
fn drop_references(root: &mut Node, names: &[String]) {
    let profiles = root.field_mut("schedulingProfiles").and_then(Node::items_mut);
    for profile in profiles.into_iter().flatten() {
        if let Some(plugins) = profile.field_mut("plugins").and_then(Node::items_mut) {
            plugins.retain(|p| p.text_of("pluginRef").is_none_or(|name| !names.iter().any(|n| n == name)));
        }
    }
}
