//! `metrics-data-source`: an engine's Prometheus page.
//!
//! ```yaml
//! - type: metrics-data-source
//!   parameters:
//!     scheme: http                 # or https
//!     path: /metrics
//!     port: 9400                   # default: the endpoint's own; one port for every rank
//!     insecureSkipVerify: true     # take the engine's certificate as it is
//!     caCertPath: /certs/ca.crt    # verify with this; default: the system's
//!     clientCertPath: /certs/tls.crt
//!     clientKeyPath: /certs/tls.key
//!     interval: 50ms               # default: --refresh-metrics-interval; never below 50ms
//! ```

use super::parameters::Parameters;
use crate::plugin::{BuildContext, BuildError, PluginType, Roles, SourceSpec, Stability};

/// The type's name in configurations and in the label `source_type`.
pub const NAME: &str = "metrics-data-source";

fn build(context: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let source = context.settings::<Parameters>()?.into_source("/metrics")?;
    context.in_force("path", &*source.path);
    Ok(Roles { source: Some(SourceSpec::Metrics(source)), ..Roles::default() })
}

/// The plugin types of this file.
pub const TABLE: &[PluginType] = &[PluginType { name: NAME, stability: Stability::Beta, build }];
