//! Profile handlers: which profiles run for a request, and whose result counts.

mod data_parallel;
mod header;
mod single;

use crate::plugin::PluginType;

/// The profile handlers of this release.
pub(super) const TABLE: &[PluginType] = &[data_parallel::TYPE, header::TYPE, single::TYPE];
