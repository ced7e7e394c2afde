//! Observers of the pool as a whole: how full it is.

mod concurrency;
mod utilization;

use crate::plugin::PluginType;

/// The observers of this release.
pub const TABLE: &[PluginType] = &[concurrency::TYPE, utilization::TYPE];
