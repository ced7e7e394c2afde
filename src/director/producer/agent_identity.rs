//! `agent-identity`: which agent's session a request belongs to, from the headers that coding agents send.
//!
//! The first that is not empty of: the additional headers in their order, `x-claude-code-session-id`,
//! `x-session-affinity`, `session-id`, `session_id`. It is the request's fairness id where the fairness header is absent
//! (or not trusted), and a session for the session affinity plugins, with
//! `sources: [{attribute: agent-identity, producer: agent-identity}]`.
//!
//! ```yaml
//! - type: agent-identity
//!   parameters: {additionalSessionHeaders: [x-my-agent]}
//! ```

use crate::plugin::{
    BuildContext, BuildError, DataProducer, FairnessSource, PluginType, ProduceError, Roles, SessionKey,
    Stability,
};
use crate::pool::{AttributeId, Candidates};
use crate::request::{Headers, InferenceRequest};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: SessionKey::AGENT, stability: Stability::Alpha, build };

/// Headers of agents, the most telling first.
const KNOWN: [&str; 4] = ["x-claude-code-session-id", "x-session-affinity", "session-id", "session_id"];

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    additional_session_headers: Vec<String>,
}

struct AgentIdentity {
    additional: Vec<String>,
    key: AttributeId<SessionKey>,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let names = written.additional_session_headers.iter().map(|name| name.trim().to_ascii_lowercase());
    let plugin =
        Arc::new(AgentIdentity { additional: names.collect(), key: ctx.produces(SessionKey::AGENT) });
    Ok(Roles {
        producer: Some(Arc::clone(&plugin) as Arc<dyn DataProducer>),
        fairness: Some(plugin),
        ..Roles::default()
    })
}

impl FairnessSource for AgentIdentity {
    fn fairness_id<'a>(&self, headers: &'a Headers) -> Option<&'a str> {
        let additional = self.additional.iter().find_map(|name| headers.first_of(&[name]));
        additional.or_else(|| headers.first_of(&KNOWN))
    }
}

impl DataProducer for AgentIdentity {
    fn produce(&self, request: &InferenceRequest, candidates: &mut Candidates) -> Result<(), ProduceError> {
        if let Some(value) = self.fairness_id(&request.headers) {
            candidates.attributes.set(self.key, SessionKey::of(value));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, request};
    use super::*;
    use crate::request::Prompt;
    use bytes::Bytes;
    use serde_json::json;

    #[test]
    fn agents_of_the_catalogue() {
        let roles = Fixture::new().build(&TYPE, json!({"additionalSessionHeaders": ["X-Mine"]})).unwrap();
        let fairness = roles.fairness.unwrap();
        let mut headers = Headers::default();
        assert_eq!(fairness.fairness_id(&headers), None);
        for name in ["session_id", "session-id", "x-session-affinity", "x-claude-code-session-id", "x-mine"] {
            headers.push(name, Bytes::from(format!(" of {name} ")));
            assert_eq!(fairness.fairness_id(&headers), Some(format!("of {name}").as_str()));
        }
    }

    #[test]
    fn it_is_an_attribute_and_leaves_the_fairness_id_of_the_request_alone() {
        let fixture = Fixture::new();
        let producer = fixture.build(&TYPE, json!({})).unwrap().producer.unwrap();
        let mut request = request("m", Prompt::None);
        request.headers.push("session-id", Bytes::from_static(b"s"));
        let mut candidates = fixture.candidates(1);
        producer.produce(&request, &mut candidates).unwrap();
        let id = fixture.attribute(SessionKey::AGENT, SessionKey::AGENT);
        assert_eq!(candidates.attributes.get(id), Some(&SessionKey::of("s")));
        assert_eq!(&*request.fairness_id, "default-flow");
    }
}
