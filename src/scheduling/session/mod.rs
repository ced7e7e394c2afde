//! Session affinity: which endpoint a request's session is bound to. The filter and the scorer share it.
//!
//! With `encoded_endpoint_header` the response tells the client a token, the base64 of the endpoint's identity, and the
//! client sends it back. With `session_id` the client names its session and the binding is remembered here, in a
//! [`store::Sessions`] that outlives the plan.

mod store;

use crate::clock::Clock;
use crate::endpoint::EndpointKey;
use crate::plugin::{
    BuildContext, BuildError, Cycle, Departure, HeaderEdits, PreRequest, ResponseHook, ResponseView, Roles,
    SessionKey, Shortlist,
};
use crate::pool::{AttributeId, Candidates, Position};
use crate::request::{InferenceRequest, names};
use crate::telemetry::names as series;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use metrics::Counter;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::Sessions;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    strategy: Strategy,
    encoded_endpoint_header_config: EncodedHeader,
    session_id_config: SessionId,
    profile_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            strategy: Strategy::EncodedEndpointHeader,
            encoded_endpoint_header_config: EncodedHeader::default(),
            session_id_config: SessionId::default(),
            profile_name: String::new(),
        }
    }
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Strategy {
    EncodedEndpointHeader,
    SessionId,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct EncodedHeader {
    header: String,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct SessionId {
    sources: Vec<Source>,
    eviction_ttl_seconds: i64,
    eviction_sweep_seconds: i64,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Source {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attribute: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<String>,
}

enum Binding {
    /// Name of the header that carries the endpoint.
    Token { header: String },
    /// What may tell the session, and what is bound.
    Id { origins: Vec<Origin>, sessions: Arc<Sessions> },
}

/// What tells a request's session.
enum Origin {
    /// A header.
    Header(String),
    /// What a producer says.
    Attribute(AttributeId<SessionKey>),
}

/// Which endpoint a request's session is bound to.
pub(super) struct Affinity {
    binding: Binding,
    profile: Option<String>,
    clock: Clock,
    hits: Counter,
    misses: Counter,
}

const DEFAULT_TTL: Duration = Duration::from_secs(300);
const DEFAULT_SWEEP_SECONDS: u32 = 10;
const DEFAULT_SOURCE: &str = "x-session-id";

impl Affinity {
    /// From the parameters of a filter or scorer.
    pub(super) fn build(ctx: &mut BuildContext<'_>) -> Result<Arc<Self>, BuildError> {
        let written: Parameters = ctx.settings()?;
        let header = lower(&written.encoded_endpoint_header_config.header);
        let header = if header.is_empty() { names::SESSION_TOKEN.to_owned() } else { header };
        let ttl = ttl(&written.session_id_config)?;
        written.session_id_config.tell(ctx, ttl);
        ctx.in_force("encodedEndpointHeaderConfig.header", header.as_str());
        let binding = match written.strategy {
            Strategy::EncodedEndpointHeader => Binding::Token { header },
            Strategy::SessionId => {
                let sessions = ctx.state.get_or_insert(ctx.name, ttl.as_secs(), || Sessions::new(ttl));
                Binding::Id { origins: origins(ctx, &written.session_id_config.sources)?, sessions }
            }
        };
        let profile = Some(written.profile_name).filter(|name| !name.is_empty());
        let (hits, misses) =
            (metrics::counter!(series::SESSION_HITS), metrics::counter!(series::SESSION_MISSES));
        Ok(Arc::new(Self { binding, profile, clock: ctx.clock.clone(), hits, misses }))
    }

    /// The hooks that keep the binding.
    pub(super) fn roles(self: &Arc<Self>) -> Roles {
        match self.binding {
            Binding::Token { .. } => {
                Roles { response: Some(Arc::clone(self) as Arc<dyn ResponseHook>), ..Roles::default() }
            }
            Binding::Id { .. } => {
                Roles { pre_request: Some(Arc::clone(self) as Arc<dyn PreRequest>), ..Roles::default() }
            }
        }
    }

    /// Where in `shortlist` the endpoint stands that the request's session is bound to. Counts a hit or a miss, unless the
    /// profile is only watched.
    pub(super) fn pinned(&self, cycle: &Cycle<'_>, shortlist: &Shortlist) -> Option<usize> {
        let found = self.find(cycle.request, cycle.candidates, shortlist);
        if !cycle.shadow {
            if found.is_some() { &self.hits } else { &self.misses }.increment(1);
        }
        found
    }

    fn find(
        &self,
        request: &InferenceRequest,
        candidates: &Candidates,
        shortlist: &Shortlist,
    ) -> Option<usize> {
        let at = |is: &dyn Fn(&EndpointKey) -> bool| {
            shortlist.positions().iter().position(|p| is(&candidates.endpoint(*p).key))
        };
        match &self.binding {
            Binding::Token { header } => {
                let decoded = BASE64.decode(request.headers.first_of(&[header])?).ok()?;
                let token = std::str::from_utf8(&decoded).ok()?;
                at(&|key| names_endpoint(token, key))
            }
            Binding::Id { origins, sessions } => {
                let session = session(request, candidates, origins)?;
                let bound = sessions.get(session, self.clock.now())?;
                at(&|key| *key == bound)
            }
        }
    }
}

impl SessionId {
    /// Says what was not written.
    fn tell(&self, ctx: &mut BuildContext<'_>, ttl: Duration) {
        ctx.in_force("sessionIdConfig.evictionTtlSeconds", ttl.as_secs());
        if self.eviction_sweep_seconds == 0 {
            ctx.in_force("sessionIdConfig.evictionSweepSeconds", DEFAULT_SWEEP_SECONDS);
        }
        if self.sources.is_empty() {
            ctx.in_force("sessionIdConfig.sources", serde_json::json!([{"header": DEFAULT_SOURCE}]));
        }
    }
}

fn lower(name: &str) -> String {
    name.trim().to_ascii_lowercase()
}

fn ttl(written: &SessionId) -> Result<Duration, BuildError> {
    let seconds = |name: &str, value: i64| {
        u64::try_from(value)
            .map_err(|_| BuildError::Parameters(format!("`{name}` must be 0 or more, not {value}")))
    };
    // Expired bindings are found on use and when room is needed, so the period of sweeps has no effect.
    seconds("evictionSweepSeconds", written.eviction_sweep_seconds)?;
    let ttl = seconds("evictionTtlSeconds", written.eviction_ttl_seconds)?;
    Ok(if ttl == 0 { DEFAULT_TTL } else { Duration::from_secs(ttl) })
}

fn origins(ctx: &mut BuildContext<'_>, sources: &[Source]) -> Result<Vec<Origin>, BuildError> {
    let origin = |source: &Source| match (&source.header, &source.attribute) {
        (Some(header), None) if !header.trim().is_empty() => Ok(Origin::Header(lower(header))),
        (None, Some(attribute)) => {
            let (kind, usual) = match attribute.as_str() {
                SessionKey::KIND => (SessionKey::KIND, SessionKey::PRODUCER),
                SessionKey::AGENT => (SessionKey::AGENT, SessionKey::AGENT),
                other => {
                    return Err(BuildError::Parameters(format!(
                        "sessionIdConfig.sources: no producer writes `{other}`; use `{}` or `{}`",
                        SessionKey::KIND,
                        SessionKey::AGENT
                    )));
                }
            };
            Ok(Origin::Attribute(ctx.consumes(kind, source.producer.as_deref(), usual)))
        }
        _ => Err(BuildError::Parameters(
            "sessionIdConfig.sources: each source takes exactly one of `header` and `attribute`".to_owned(),
        )),
    };
    if sources.is_empty() {
        return Ok(vec![Origin::Header(DEFAULT_SOURCE.to_owned())]);
    }
    sources.iter().map(origin).collect()
}

/// Hash of the request's session: the value itself may be a secret and is not kept.
fn session(request: &InferenceRequest, candidates: &Candidates, origins: &[Origin]) -> Option<u128> {
    let key = origins.iter().find_map(|origin| match origin {
        Origin::Header(name) => request.headers.first_of(&[name]).map(SessionKey::of),
        Origin::Attribute(id) => candidates.attributes.get(*id).copied(),
    });
    key.map(|SessionKey(hash)| hash)
}

/// Whether `token`, `namespace/name` and perhaps `-rank-N`, is the identity `key`.
fn names_endpoint(token: &str, key: &EndpointKey) -> bool {
    let Some(rank) = token
        .strip_prefix(&*key.namespace)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.strip_prefix(&*key.name))
    else {
        return false;
    };
    match key.rank {
        0 => rank.is_empty(),
        wanted => rank.strip_prefix("-rank-").and_then(|r| r.parse().ok()) == Some(wanted),
    }
}

impl PreRequest for Affinity {
    fn before_send(&self, departure: &Departure<'_>, _: &mut HeaderEdits) {
        let Binding::Id { origins, sessions } = &self.binding else { return };
        let Some(session) = session(departure.request, departure.candidates, origins) else { return };
        let profile = self.profile.as_deref().unwrap_or(&departure.outcome.primary_profile);
        let Some(run) = departure.outcome.runs.get(profile) else { return };
        let key = |p: Position| &departure.candidates.endpoint(p).key;
        let could_serve =
            |bound: &EndpointKey| run.decision.shortlist.positions().iter().any(|p| key(*p) == bound);
        sessions.bind(session, key(run.targets.first()), could_serve, self.clock.now());
    }
}

impl ResponseHook for Affinity {
    fn on_headers(&self, response: &ResponseView<'_>, edits: &mut HeaderEdits) {
        let Binding::Token { header } = &self.binding else { return };
        let endpoint = match &self.profile {
            None => Some(response.served),
            Some(wanted) => response.targets.iter().find(|(name, _)| **name == **wanted).map(|(_, e)| e),
        };
        if let Some(endpoint) = endpoint {
            edits.set(header, BASE64.encode(endpoint.key.to_string()));
        }
    }
}

#[cfg(test)]
mod tests;
