//! `session-affinity-filter`: keeps the endpoint that the request's session is bound to, if it is there, else all.
//!
//! ```yaml
//! - type: session-affinity-filter
//!   parameters:
//!     strategy: encoded_endpoint_header            # or session_id
//!     encodedEndpointHeaderConfig: {header: x-session-token}
//!     sessionIdConfig:
//!       sources: [{header: x-session-id}]          # the first that is not empty counts
//!       evictionTtlSeconds: 300
//!     profileName: ""                              # bind to this profile's first target instead of the primary one's
//! ```

use crate::plugin::{BuildContext, BuildError, Cycle, Filter, PluginType, Roles, Shortlist, Stability};
use crate::scheduling::session::Affinity;
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "session-affinity-filter", stability: Stability::Alpha, build };

struct SessionFilter(Arc<Affinity>);

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let affinity = Affinity::build(ctx)?;
    Ok(Roles { filter: Some(Arc::new(SessionFilter(Arc::clone(&affinity)))), ..affinity.roles() })
}

impl Filter for SessionFilter {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        if let Some(index) = self.0.pinned(cycle, shortlist) {
            let pinned = shortlist.positions()[index];
            shortlist.retain(|p| p == pinned);
        }
    }
}
