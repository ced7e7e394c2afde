//! Admitters: which requests may go on to scheduling at all.

mod probabilistic;

use crate::plugin::PluginType;

/// The admitters of this release.
pub const TABLE: &[PluginType] = &[probabilistic::TYPE];
