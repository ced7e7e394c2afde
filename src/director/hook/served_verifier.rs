//! `destination-endpoint-served-verifier`: tells the client which endpoint served it, in the response header
//! `x-conformance-test-served-endpoint`. For conformance tests.
//!
//! The value is the `ip:port` that the proxy reports as served; without a report the one that was picked. It has no
//! parameters and ignores any.
//!
//! ```yaml
//! - type: destination-endpoint-served-verifier
//! ```

use crate::plugin::{
    BuildContext, BuildError, HeaderEdits, PluginType, ResponseHook, ResponseView, Roles, Stability,
};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "destination-endpoint-served-verifier", stability: Stability::Beta, build };

const HEADER: &str = "x-conformance-test-served-endpoint";

struct ServedVerifier;

fn build(_: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    Ok(Roles { response: Some(Arc::new(ServedVerifier)), ..Roles::default() })
}

impl ResponseHook for ServedVerifier {
    fn on_headers(&self, response: &ResponseView<'_>, edits: &mut HeaderEdits) {
        edits.set(HEADER, response.served.destination.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::producer::testing::{Fixture, request};
    use crate::request::{Headers, Prompt};
    use serde_json::json;

    #[test]
    fn the_response_names_the_endpoint_that_served() {
        let fixture = Fixture::new();
        let pool = fixture.resize(2);
        let response = ResponseView {
            request: &request("m", Prompt::None),
            served: &pool.endpoints[1],
            targets: &[],
            status: Some(200),
            headers: &Headers::default(),
        };
        let mut edits = HeaderEdits::default();
        let roles = fixture.build(&TYPE, json!({"any": 1})).unwrap();
        roles.response.unwrap().on_headers(&response, &mut edits);
        assert_eq!(edits.set, [(HEADER.into(), "10.0.0.1:8001".into())]);
    }
}
