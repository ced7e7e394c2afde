//! Observers of the pool as a whole: how full it is.

mod utilization;

use crate::plugin::PluginType;

/// The observers of this release.
pub const TABLE: &[PluginType] = &[utilization::TYPE];
