//! The filters of the first release, and the trees that they made: scorers today.
//!
//! A tree kept, one filter after the other, the endpoints that a filter liked best. Scorers say the same by weight: the
//! filters of the tree in the order in which they are met, each worth half as much as the one before. What is left is
//! not drawn at random then but chosen by score.

use super::{drop_references, instance, name_of, rename_references, tell};
use crate::config::error::{Findings, Place};
use crate::config::node::Node;

/// Filters that are scorers today.
const SCORERS: &[(&str, &str)] = &[
    ("least-kv-cache-filter", "kv-cache-utilization-scorer"),
    ("least-queue-filter", "queue-scorer"),
    ("lora-affinity-filter", "lora-affinity-scorer"),
];
const LOW_QUEUE: &str = "low-queue-filter";
const TREE: &str = "decision-tree-filter";
const LOW_QUEUE_DEFAULT: i64 = 128;

pub(super) fn modernize(root: &mut Node, findings: &mut Findings) {
    let Some(plugins) = root.field("plugins").map(|p| p.items().to_vec()) else { return };
    let is_old =
        |p: &Node| p.text_of("type").is_some_and(|t| t == LOW_QUEUE || t == TREE || scorer_of(t).is_some());
    if !plugins.iter().any(is_old) {
        return;
    }
    let mut out = Vec::with_capacity(plugins.len());
    let mut trees = Vec::new();
    let (mut renamed, mut filters) = (Vec::new(), Vec::new());
    for (i, plugin) in plugins.into_iter().enumerate() {
        let (place, path) = (plugin.place, format!("plugins[{i}].type"));
        let name = name_of(&plugin).to_owned();
        match plugin.text_of("type") {
            Some(LOW_QUEUE) => {
                let modern = low_queue(&plugin);
                tell(
                    findings,
                    place,
                    path,
                    format!("`{LOW_QUEUE}` is the older filter; write `{}`", modern.flow()),
                );
                filters.push(name.clone());
                renamed.push((name, name_of(&modern).to_owned()));
                out.push(modern);
            }
            Some(TREE) => trees.push((name, leaves(plugin.field("parameters")), place, path)),
            Some(old) => match scorer_of(old) {
                Some(scorer) => {
                    tell(findings, place, path, format!("`{old}` is a scorer today; write `type: {scorer}`"));
                    let modern = instance(
                        place,
                        if name == old { scorer } else { &name },
                        scorer,
                        Node::map(place, []),
                    );
                    renamed.push((name, name_of(&modern).to_owned()));
                    out.push(modern);
                }
                None => out.push(plugin),
            },
            None => out.push(plugin),
        }
    }
    let place = root.place;
    if let Some(list) = root.list("plugins", place) {
        *list = out;
    }
    for (tree, leaves, place, path) in &trees {
        expand(root, tree, leaves, &filters, *place);
        let told = format!("a tree of filters is a list of scorers today, by weight: {}", leaves.join(", "));
        tell(findings, *place, path.clone(), told);
    }
    for (old, new) in &renamed {
        rename_references(root, old, new);
    }
    drop_references(root, &trees.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>());
    if !trees.is_empty() {
        pickers(root, findings);
    }
}

fn scorer_of(plugin_type: &str) -> Option<&'static str> {
    SCORERS.iter().find(|(old, _)| *old == plugin_type).map(|(_, new)| *new)
}

/// Keeps endpoints with few waiting requests, and all when there is none.
fn low_queue(plugin: &Node) -> Node {
    let place = plugin.place;
    let threshold = plugin.field("parameters").and_then(|p| p.field("threshold")).cloned();
    let most = threshold.unwrap_or_else(|| Node::scalar(place, LOW_QUEUE_DEFAULT));
    let condition = Node::map(place, [("metric", Node::scalar(place, "waiting-queue")), ("maxValue", most)]);
    let conditions = Node::older(place, crate::config::node::Data::List(vec![condition]));
    let parameters =
        Node::map(place, [("conditions", conditions), ("fallbackOnEmpty", Node::scalar(place, true))]);
    let name = name_of(plugin);
    instance(
        place,
        if name == LOW_QUEUE { "utilization-filter" } else { name },
        "utilization-filter",
        parameters,
    )
}

/// The instances that a tree names, in the order in which they are met, the way of success first.
fn leaves(tree: Option<&Node>) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<&Node> = tree.into_iter().collect();
    while let Some(node) = open.pop() {
        if let Some(name) = node.text_of("pluginRef") {
            if !found.iter().any(|f| f == name) {
                found.push(name.to_owned());
            }
            continue;
        }
        let below = ["nextOnFailure", "nextOnSuccessOrFailure", "nextOnSuccess", "current", "decisionTree"];
        open.extend(below.iter().filter_map(|name| node.field(name)));
    }
    found
}

/// Puts the leaves where a profile names the tree.
fn expand(root: &mut Node, tree: &str, leaves: &[String], filters: &[String], place: Place) {
    for profile in root.field_mut("schedulingProfiles").and_then(Node::items_mut).into_iter().flatten() {
        let Some(plugins) = profile.field_mut("plugins").and_then(Node::items_mut) else { continue };
        let Some(at) = plugins.iter().position(|p| p.text_of("pluginRef") == Some(tree)) else { continue };
        let place = plugins.get(at).map_or(place, |p| p.place);
        let entries = leaves.iter().enumerate().map(|(i, leaf)| {
            let weight = 1_i64 << (leaves.len() - 1 - i).min(30);
            let mut entry = Node::map(place, [("pluginRef", Node::scalar(place, leaf.clone()))]);
            if !filters.contains(leaf) {
                entry.put("weight", Node::scalar(place, weight));
            }
            entry
        });
        plugins.splice(at..=at, entries);
    }
}

/// What chose at random among the endpoints that a tree left chooses by score.
fn pickers(root: &mut Node, findings: &mut Findings) {
    for (i, plugin) in root.field_mut("plugins").and_then(Node::items_mut).into_iter().flatten().enumerate() {
        if plugin.text_of("type") == Some("random-picker") {
            let (place, name) = (plugin.place, name_of(plugin).to_owned());
            plugin.put("type", Node::scalar(place, "max-score-picker"));
            plugin.put("name", Node::scalar(place, name));
            let told =
                "what a tree of filters left was drawn at random; scorers want `type: max-score-picker`";
            tell(findings, place, format!("plugins[{i}].type"), told);
        }
    }
}
