//! Scorers: how good each endpoint is for a request, from 0 to 1.

mod active_request;
mod cel;
mod context_length_aware;
mod endpoint_attribute;
mod header_label_affinity;
mod known;
mod kv_cache_utilization;
mod load_aware;
mod lora_affinity;
mod mm_embeddings_cache;
mod no_hit_lru;
mod prefix_cache;
mod queue;
mod running_requests;
mod session_affinity;
mod token_load;
mod topology_affinity;

use crate::plugin::PluginType;

/// The scorers of this release.
pub(super) const TABLE: &[PluginType] = &[
    active_request::TYPE,
    context_length_aware::TYPE,
    endpoint_attribute::TYPE,
    header_label_affinity::TYPE,
    cel::TYPE,
    kv_cache_utilization::TYPE,
    load_aware::TYPE,
    lora_affinity::TYPE,
    mm_embeddings_cache::TYPE,
    no_hit_lru::TYPE,
    prefix_cache::TYPE,
    queue::TYPE,
    running_requests::TYPE,
    session_affinity::TYPE,
    token_load::TYPE,
    topology_affinity::TYPE,
];
