//! Hooks that look at responses and choose nothing.

mod attribute_reporter;
mod served_verifier;
mod usage_expression;

use crate::plugin::PluginType;

/// The hooks of this release.
pub const TABLE: &[PluginType] = &[attribute_reporter::TYPE, served_verifier::TYPE];
