//! Filters: which endpoints may serve a request at all.

mod by_label;
mod decode;
mod encode;
mod label_selector;
mod prefill;
mod session_affinity;
#[cfg(test)]
mod testing;

use crate::plugin::PluginType;

/// The filters of this release.
pub(super) const TABLE: &[PluginType] = &[
    by_label::TYPE,
    decode::TYPE,
    encode::TYPE,
    label_selector::TYPE,
    label_selector::OLDER,
    prefill::TYPE,
    session_affinity::TYPE,
];
