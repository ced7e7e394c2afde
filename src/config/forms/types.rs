//! Plugin types that go by another name today.

use super::{Edit, name_of};
use crate::config::node::Node;

/// Older names with today's.
const RENAMED: &[(&str, &str)] = &[
    ("active-request-filter", "utilization-filter"),
    ("by-label-selector", "label-selector-filter"),
    ("eviction-priority-then-time-ordering", "priority-then-time-eviction-order-policy"),
    ("eviction-sheddable-filter", "sheddable-eviction-filter"),
    ("kv-cache-scorer", "kv-cache-utilization-scorer"),
    ("model-server-protocol-metrics", "core-metrics-extractor"),
    ("model-server-protocol-models", "models-data-extractor"),
    ("predicted-latency-scorer", "latency-scorer"),
    ("prefill-header-handler", "disagg-headers-handler"),
    ("slo-aware-profile-handler", "single-profile-handler"),
    ("slo-aware-routing", "latency-scorer"),
    ("tokenizer", "token-producer"),
];

/// Gives a plugin the present name of its type. An instance without a name of its own goes by the new one too, and so
/// do the references to it. Always true: the plugin stays.
pub(super) fn rename(plugin: &mut Node, edit: &mut Edit<'_>) -> bool {
    let Some(written) = plugin.field("type") else { return true };
    let place = written.place;
    let Some((old, new)) = RENAMED.iter().find(|(old, _)| written.text() == Some(*old)) else { return true };
    edit.tell(place, "type", format!("`{old}` is the older name; write `type: {new}`"));
    let unnamed = name_of(plugin) == *old;
    plugin.put("type", Node::scalar(place, *new));
    if unnamed && edit.knows(new) {
        plugin.put("name", Node::scalar(place, *old));
    } else if unnamed {
        plugin.take("name");
        edit.declared.push(((*new).to_owned(), (*new).to_owned()));
        edit.renamed.push(((*old).to_owned(), (*new).to_owned()));
    }
    true
}
