//! Profile handlers: which profiles run for a request, and whose result counts.

mod single;

use crate::plugin::PluginType;

/// The profile handlers of this release.
pub(super) const TABLE: &[PluginType] = &[single::TYPE];
