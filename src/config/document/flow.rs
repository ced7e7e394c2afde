//! `flowControl`: decoded and checked for its shape.

use super::{FlowControl, Reference, reference_field};
use crate::config::error::Findings;
use crate::config::node::{Fields, Node};
use crate::config::units;
use crate::plugin::Part;

/// Reads the section; `gate` is whether its feature gate is on.
pub(super) fn flow_control(fields: &mut Fields<'_, '_>, gate: bool) -> FlowControl {
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
    let mut policies = Vec::new();
    policy(&mut flow, "usageLimitPolicyPluginRef", Part::UsageLimit, &mut policies);
    more |= flow.boolean("enableEviction").is_some();
    for (name, label) in [
        ("defaultPriorityBand", "default priority band"),
        ("defaultNegativePriorityBand", "default negative priority band"),
    ] {
        if let Some(node) = flow.get(name) {
            more = true;
            band(node, &flow.path_of(name), label, flow.findings, &mut policies);
        }
    }
    let mut levels = Vec::new();
    for (path, item) in flow.list("priorityBands") {
        more = true;
        let level = band(item, &path, "priority band", flow.findings, &mut policies).unwrap_or(0);
        if levels.contains(&level) {
            flow.findings.problem(Some(item.place), path, format!("duplicate priority level {level}"));
        }
        levels.push(level);
    }
    flow.finish();
    more |= !policies.is_empty();
    if fields.findings.problems.len() == before && (more || gate) {
        fields.findings.notice(Some(section.place), "flowControl", QUEUES_LATER);
    }
    // Without the gate the section is not used, and neither are the policies that it names.
    policies.retain(|_| gate);
    FlowControl { saturation_detector, policies }
}

fn policy(fields: &mut Fields<'_, '_>, name: &'static str, part: Part, found: &mut Vec<(Reference, Part)>) {
    let place = fields.get(name).map(|node| node.place);
    let path = fields.path_of(name);
    found.extend(
        fields.text(name).filter(|n| !n.is_empty()).map(|name| (Reference { place, path, name }, part)),
    );
}

const QUEUES_LATER: &str = "requests are not queued in this release, so the bands, limits and TTLs of flow control \
    have no effect; saturationDetector has: it decides when sheddable requests are refused";

fn band(
    node: &Node,
    path: &str,
    label: &str,
    findings: &mut Findings,
    policies: &mut Vec<(Reference, Part)>,
) -> Option<i64> {
    let mut fields = Fields::of(node, path, findings);
    let priority = fields.integer("priority");
    let label = priority.map_or_else(|| label.to_owned(), |p| format!("{label} {p}"));
    limit(&mut fields, "maxBytes", &format!("{label} MaxBytes"));
    limit(&mut fields, "maxRequests", &format!("{label} MaxRequests"));
    policy(&mut fields, "fairnessPolicyRef", Part::Fairness, policies);
    policy(&mut fields, "orderingPolicyRef", Part::Ordering, policies);
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
