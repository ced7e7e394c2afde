//! Prefill and decode on engines of their own: two older handlers are one today, and its parameters are nested.

use super::{Edit, instance, name_of};
use crate::config::error::Place;
use crate::config::node::Node;
use serde_json::json;

const HANDLER: &str = "disagg-profile-handler";
const PD_HANDLER: &str = "pd-profile-handler";
const BY_PREFIX: &str = "prefix-based-pd-decider";
const ALWAYS: &str = "always-disagg-pd-decider";
const CHARACTERS_PER_TOKEN: i64 = 4;

/// `pd-profile-handler`: today `disagg-profile-handler`, except where it also chose among data parallel ranks, which
/// that one does not. Its threshold in characters is a decider of its own, in tokens.
pub(super) fn pd_handler(plugin: &mut Node, edit: &mut Edit<'_>) {
    let place = plugin.place;
    let mut written = plugin.take("parameters").unwrap_or_else(|| Node::map(place, []));
    if !written.is_map() {
        plugin.put("parameters", written);
        return;
    }
    let decider = decider(&mut written, edit, place);
    for gone in ["hashBlockSize", "prefixPluginName", "prefixPluginType", "threshold"] {
        written.take(gone);
    }
    let ranks = has_port(&written);
    if ranks {
        written.put("deciderPluginName", Node::scalar(place, decider));
        plugin.put("parameters", written);
        let told =
            format!("`{PD_HANDLER}` is the older handler, kept for `primaryPort`; `{}`", plugin.flow());
        edit.tell(place, "type", told);
        return;
    }
    written.take("primaryPort");
    let mut parameters = Node::map(place, []);
    nest(&mut written, &mut parameters);
    if let Some(deciders) = parameters.section("deciders", place) {
        deciders.put("prefill", Node::scalar(place, decider));
    }
    let name = name_of(plugin).to_owned();
    plugin.put("type", Node::scalar(place, HANDLER));
    if name != PD_HANDLER {
        plugin.put("name", Node::scalar(place, name));
    }
    plugin.put("parameters", parameters);
    edit.tell(place, "type", format!("`{PD_HANDLER}` is the older handler; write `{}`", plugin.flow()));
}

/// Whether a plugin is the older handler with a port of data parallel ranks.
pub(super) fn chooses_ranks(plugin: &Node) -> bool {
    plugin.text_of("type") == Some(PD_HANDLER) && plugin.field("parameters").is_some_and(has_port)
}

fn has_port(parameters: &Node) -> bool {
    parameters.field("primaryPort").and_then(Node::whole).is_some_and(|port| port != 0)
}

/// The decider that the handler means: a named one, or one made of its threshold.
fn decider(written: &mut Node, edit: &mut Edit<'_>, place: Place) -> String {
    let threshold = written.field("threshold").and_then(Node::whole);
    if let Some(named) = written.take("deciderPluginName").and_then(|n| n.text().map(str::to_owned)) {
        return named;
    }
    if threshold.is_none()
        && let Some(found) = edit.of_type(BY_PREFIX)
    {
        return found;
    }
    // In the release whose default it was, a threshold of 0 meant prefill apart for every request.
    let (plugin_type, parameters) = match threshold.filter(|t| *t > 0) {
        Some(characters) => {
            let tokens = characters.saturating_add(CHARACTERS_PER_TOKEN - 1) / CHARACTERS_PER_TOKEN;
            (BY_PREFIX, Node::map(place, [("nonCachedTokens", Node::scalar(place, tokens))]))
        }
        None => (ALWAYS, Node::map(place, [])),
    };
    let name = edit.free_name(plugin_type);
    let plugin = instance(place, &name, plugin_type, parameters);
    let told = match threshold {
        Some(characters) => {
            format!("the threshold of {characters} characters is a decider; `{}`", plugin.flow())
        }
        None => format!("who decides is a plugin; `{}`", plugin.flow()),
    };
    edit.tell(place, "parameters", told);
    edit.add(plugin);
    name
}

/// `disagg-profile-handler` with the flat parameters that it had first.
pub(super) fn handler(plugin: &mut Node, edit: &mut Edit<'_>) {
    let Some(written) = plugin.field_mut("parameters").filter(|p| p.is_map()) else { return };
    let place = written.place;
    let mut parameters = written.clone();
    let mut rest = parameters.clone();
    if !nest(&mut rest, &mut parameters) {
        return;
    }
    *written = parameters;
    let told = format!("names of profiles and deciders are nested; write `parameters: {}`", written.flow());
    edit.tell(place, "parameters", told);
}

/// Moves the flat names of `from` into their groups in `to`; true when there was one.
fn nest(from: &mut Node, to: &mut Node) -> bool {
    let mut moved = false;
    for (flat, group, name) in [
        ("decodeProfile", "profiles", "decode"),
        ("prefillProfile", "profiles", "prefill"),
        ("encodeProfile", "profiles", "encode"),
        ("deciderPluginName", "deciders", "prefill"),
        ("prefillDeciderPluginName", "deciders", "prefill"),
        ("encodeDeciderPluginName", "deciders", "encode"),
    ] {
        let Some(node) = from.take(flat) else { continue };
        to.take(flat);
        moved = true;
        if let Some(group) = to.section(group, node.place) {
            group.put(name, node);
        }
    }
    moved
}

/// `disagg-headers-handler`: the profile handler writes the headers itself today. False when the plugin goes.
pub(super) fn headers(plugin: &mut Node, edit: &mut Edit<'_>) -> bool {
    let handled = edit.of_type(HANDLER).or_else(|| edit.of_type(PD_HANDLER));
    if handled.is_none() || edit.ranks {
        return true;
    }
    let place = plugin.place;
    if plugin.field("parameters").is_some_and(|p| p.to_json() != json!({})) {
        edit.tell(place, "parameters", "names of profiles belong to the profile handler today");
    }
    edit.tell(place, "", format!("`{HANDLER}` writes the headers itself; take this plugin out"));
    false
}
