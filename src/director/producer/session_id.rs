//! `session-id-producer`: which session a request belongs to, from a header or a cookie.
//!
//! The session affinity plugins read it with `sources: [{attribute: SessionID, producer: …}]`. Spaces around the value do
//! not count, and an empty one is none. Only a hash of the value is kept.
//!
//! ```yaml
//! - type: session-id-producer
//!   parameters:
//!     headerName: x-conversation         # or cookieName: llm-d-session
//! ```

use crate::plugin::{
    BuildContext, BuildError, DataProducer, PluginType, ProduceError, Roles, SessionKey, Stability,
};
use crate::pool::{AttributeId, Candidates};
use crate::request::{Headers, InferenceRequest};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: SessionKey::PRODUCER, stability: Stability::Beta, build };

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    header_name: String,
    cookie_name: String,
}

/// Where the value of a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The header of this name, in lower case.
    Header(String),
    /// The cookie of this name.
    Cookie(String),
}

struct SessionId {
    origin: Origin,
    key: AttributeId<SessionKey>,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let (header, cookie) = (written.header_name.trim().to_ascii_lowercase(), written.cookie_name);
    let origin = match (header.is_empty(), cookie.trim()) {
        (false, "") => Origin::Header(header),
        (true, cookie) if !cookie.is_empty() => Origin::Cookie(cookie.to_owned()),
        _ => {
            let name = ctx.name;
            let told = format!(
                "requires exactly one of headerName or cookieName: declare '{name}' with one of them"
            );
            return Err(BuildError::Parameters(told));
        }
    };
    let producer = SessionId { origin, key: ctx.produces(SessionKey::KIND) };
    Ok(Roles { producer: Some(Arc::new(producer)), ..Roles::default() })
}

impl Origin {
    /// The value, without the spaces around it; `None` when there is none.
    pub fn read<'a>(&self, headers: &'a Headers) -> Option<&'a str> {
        match self {
            Self::Header(name) => headers.first_of(&[name]),
            Self::Cookie(name) => {
                let cookies = headers.iter().filter(|(header, _)| *header == "cookie");
                let texts = cookies.filter_map(|(_, value)| std::str::from_utf8(value).ok());
                let mut pairs =
                    texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.split_once('='));
                let found = pairs.find(|(key, _)| key.trim() == name);
                found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
            }
        }
    }
}

impl DataProducer for SessionId {
    fn produce(&self, request: &InferenceRequest, candidates: &mut Candidates) -> Result<(), ProduceError> {
        if let Some(value) = self.origin.read(&request.headers) {
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
    use serde_json::{Value, json};

    fn found(parameters: Value, header: &str, value: &str) -> Option<SessionKey> {
        let fixture = Fixture::new();
        let producer = fixture.build(&TYPE, parameters).unwrap().producer.unwrap();
        let mut request = request("m", Prompt::None);
        request.headers.push(header, Bytes::copy_from_slice(value.as_bytes()));
        let mut candidates = fixture.candidates(1);
        producer.produce(&request, &mut candidates).unwrap();
        let id = fixture.attribute(SessionKey::KIND, SessionKey::PRODUCER);
        candidates.attributes.get(id).copied()
    }

    #[test]
    fn sessions_of_the_catalogue() {
        let header = || json!({"headerName": " X-Session "});
        let cookie = || json!({"cookieName": "llm-d-session"});
        let (abc, abc123) = (Some(SessionKey::of("abc")), Some(SessionKey::of("abc123")));
        let cases = [
            (header(), "x-session", " abc ", abc),
            (header(), "x-session", "  ", None),
            (header(), "x-other", "abc", None),
            (cookie(), "cookie", "csrf=x; llm-d-session=abc123", abc123),
            (cookie(), "cookie", "no-equals; llm-d-session=abc", abc),
            (cookie(), "cookie", "llm-d-session=", None),
            (cookie(), "cookie", "my-llm-d-session=abc", None),
        ];
        for (parameters, name, value, wanted) in cases {
            assert_eq!(found(parameters.clone(), name, value), wanted, "{parameters} {value}");
        }
    }

    #[test]
    fn exactly_one_origin_is_needed() {
        let fixture = Fixture::new();
        for parameters in [json!({}), json!({"headerName": "a", "cookieName": "b"})] {
            let error = fixture.build(&TYPE, parameters).err().unwrap().to_string();
            assert!(error.contains("requires exactly one of headerName or cookieName"), "{error}");
        }
    }
}
