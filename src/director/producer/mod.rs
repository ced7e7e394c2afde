//! Data producers: what is worked out about each candidate before scheduling.

mod approx_prefix_cache;
mod inflight_load;
mod token;

pub use approx_prefix_cache::index as prefix_index;

use crate::plugin::PluginType;

/// The producers of this release.
pub const TABLE: &[PluginType] = &[approx_prefix_cache::TYPE, inflight_load::TYPE, token::TYPE, token::OLDER];

#[cfg(test)]
mod testing;
