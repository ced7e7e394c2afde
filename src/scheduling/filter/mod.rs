//! Filters: which endpoints may serve a request at all.

mod by_label;
mod cel;
mod decode;
mod encode;
mod endpoint_attribute;
mod header_based_testing;
mod label_selector;
mod prefill;
mod prefix_cache_affinity;
mod session_affinity;
#[cfg(test)]
mod testing;
mod topology_affinity;
mod utilization;

use crate::plugin::PluginType;

/// The filters of this release.
pub(super) const TABLE: &[PluginType] = &[
    by_label::TYPE,
    cel::TYPE,
    decode::TYPE,
    encode::TYPE,
    endpoint_attribute::TYPE,
    header_based_testing::TYPE,
    label_selector::TYPE,
    prefill::TYPE,
    prefix_cache_affinity::TYPE,
    session_affinity::TYPE,
    topology_affinity::TYPE,
    utilization::TYPE,
];
