//! Data producers: what is worked out about each candidate before scheduling.

mod agent_identity;
mod approx_prefix_cache;
mod burst_prefix_cache;
mod inflight_load;
mod mm_embeddings_cache;
mod session_id;
mod token;

pub use approx_prefix_cache::index as prefix_index;
pub use session_id::Origin as SessionOrigin;

use crate::plugin::PluginType;

/// The producers of this release.
pub const TABLE: &[PluginType] = &[
    agent_identity::TYPE,
    approx_prefix_cache::TYPE,
    burst_prefix_cache::TYPE,
    inflight_load::TYPE,
    mm_embeddings_cache::TYPE,
    session_id::TYPE,
    token::TYPE,
];

#[cfg(test)]
pub(super) mod testing;
