//! Hooks that look at responses and choose nothing.

mod served_verifier;

use crate::plugin::PluginType;

/// The hooks of this release.
pub const TABLE: &[PluginType] = &[served_verifier::TYPE];
