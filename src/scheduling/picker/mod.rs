//! Pickers: which of the rated endpoints a request goes to.

mod common;
mod max_score;
mod random;
mod weighted_random;

use crate::plugin::PluginType;

/// The pickers of this release.
pub(super) const TABLE: &[PluginType] = &[max_score::TYPE, random::TYPE, weighted_random::TYPE];
