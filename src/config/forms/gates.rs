//! Feature gates that are gone: what they switched is always on, or has no switch any more.

use super::tell;
use crate::config::error::Findings;
use crate::config::node::Node;

/// Gates that a release knew and today's does not, with what became of them.
const GONE: &[(&str, &str)] = &[
    ("dataLayer", "the data layer is always on"),
    ("prepareDataPlugins", "producers of data always run before scheduling"),
    (
        "enableLegacyMetrics",
        "the data layer is always on, and `--legacy-metrics` writes the older metric names",
    ),
];

pub(super) fn modernize(root: &mut Node, findings: &mut Findings) {
    let Some(gates) = root.field_mut("featureGates").and_then(Node::items_mut) else { return };
    let mut index = 0;
    gates.retain(|gate| {
        let path = format!("featureGates[{index}]");
        index += 1;
        let name = gate.text().map(|text| text.split_once('=').map_or(text, |(name, _)| name).trim());
        let Some((name, why)) = GONE.iter().find(|(gone, _)| Some(*gone) == name) else { return true };
        tell(findings, gate.place, path, format!("the gate `{name}` is gone; take it out: {why}"));
        false
    });
}
