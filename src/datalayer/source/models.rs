//! `models-data-source`: the list of models that an engine serves.
//!
//! ```yaml
//! - type: models-data-source
//!   parameters:
//!     path: /v1/models
//!     interval: 10s                # default 10s; an engine that restarted is asked again at once
//! ```
//!
//! The other parameters are those of `metrics-data-source`.

use super::parameters::Parameters;
use crate::plugin::{BuildContext, BuildError, PluginType, Roles, SourceSpec, Stability};

/// The type's name in configurations and in the label `source_type`.
pub const NAME: &str = "models-data-source";

fn build(context: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let source = context.settings::<Parameters>()?.into_source("/v1/models")?;
    context.in_force("path", &*source.path);
    Ok(Roles { source: Some(SourceSpec::Models(source)), ..Roles::default() })
}

/// The plugin types of this file.
pub const TABLE: &[PluginType] = &[PluginType { name: NAME, stability: Stability::Beta, build }];
