//! From what the proxy showed to a request with an identity: id, target model, priority, fairness.

use super::{BodyView, Envelope, Options, RouteError};
use crate::clock::Moment;
use crate::plugin::FairnessSource;
use crate::pool::{PoolSnapshot, RewriteRule};
use crate::request::{
    Api, CachePolicy, InferenceRequest, Parsed, TrustedHeaders, Wishes, names, read_priority, read_timeout,
};
use std::sync::Arc;

/// Fairness id of requests that name none.
pub const DEFAULT_FAIRNESS_ID: &str = "default-flow";
/// Longest request id, model name or fairness id taken from a client; longer ones are cut at a character border.
const MAX_IDENTITY_BYTES: usize = 512;

/// A plugin that says whose share of the pool a request uses.
type FairnessPlugin = (Arc<str>, Arc<dyn FairnessSource>);

/// A request with its identity.
#[derive(Debug)]
pub(super) struct Identified {
    pub(super) request: InferenceRequest,
    /// The rule that chose the target model.
    pub(super) rewritten_by: Option<Arc<str>>,
    /// Whether the id was made here, so that it must be sent on.
    pub(super) id_is_new: bool,
}

/// Whether the body of this API names the model in JSON, so that it can be rewritten there.
fn model_in_json(api: Api) -> bool {
    matches!(
        api,
        Api::ChatCompletions
            | Api::Completions
            | Api::Embeddings
            | Api::Responses
            | Api::Conversations
            | Api::Images
            | Api::Messages
            | Api::VllmGenerate
    )
}

pub(super) fn identify(
    envelope: Envelope,
    pool: &PoolSnapshot,
    fairness: &[FairnessPlugin],
    options: &Options,
    rng: &mut fastrand::Rng,
) -> Result<Identified, RouteError> {
    let (trusted, told) = (options.trusted, options.decision_headers);
    let Envelope { received, mut headers, body, body_bytes, .. } = envelope;
    trusted.strip(&mut headers);
    let (parsed, must_name_model) = match body {
        BodyView::Absent | BodyView::Hidden => (Parsed::opaque(Api::Opaque), false),
        BodyView::Whole(parsed) => {
            let named = model_in_json(parsed.api);
            (parsed, named)
        }
        BodyView::Cut(parsed) => (parsed, false),
    };
    let (target_model, rewritten_by) = target_model(&parsed, &headers, pool, rng);
    if must_name_model && target_model.is_empty() {
        return Err(RouteError::NoModel);
    }
    let (id, id_is_new) = match headers.first_of(&[names::REQUEST_ID]) {
        Some(id) => (Arc::from(bounded(id)), false),
        None => (Arc::from(new_id(rng)), true),
    };
    let priority = priority(&parsed, &headers, pool, trusted);
    let wishes = wishes(&headers, received, told);
    let from_plugins = || fairness.iter().find_map(|(_, source)| source.fairness_id(&headers));
    let named = headers.first_of(&names::FAIRNESS).or_else(from_plugins);
    let fairness_id = Arc::from(named.map_or(DEFAULT_FAIRNESS_ID, bounded));
    let request = InferenceRequest {
        id,
        received,
        headers,
        parsed,
        target_model,
        priority,
        fairness_id,
        body_bytes,
        wishes,
    };
    Ok(Identified { request, rewritten_by, id_is_new })
}

/// What the request asks of the picker; `told` when every answer is to tell the decision.
fn wishes(headers: &crate::request::Headers, received: Moment, told: bool) -> Wishes {
    let one = |name| headers.first_of(&[name]);
    let told = told || one(names::DECISION_HEADERS).is_some_and(|v| v.eq_ignore_ascii_case("true"));
    Wishes {
        cache: one(names::CACHE_POLICY).map(CachePolicy::read).unwrap_or_default(),
        deadline: one(names::REQUEST_TIMEOUT).and_then(read_timeout).map(|timeout| received.plus(timeout)),
        ticket: None,
        stages: told.then(Arc::default),
    }
}

/// The priority that a trusted header states, else that of the objective that the request names, else what the operator gave to the model it asks for.
fn priority(
    parsed: &Parsed,
    headers: &crate::request::Headers,
    pool: &PoolSnapshot,
    trusted: TrustedHeaders,
) -> i32 {
    // What is not trusted was taken out before.
    if let Some(stated) = headers.first_of(&[names::PRIORITY]).and_then(read_priority) {
        return stated;
    }
    let named = headers.first_of(&names::OBJECTIVE).and_then(|name| pool.objectives.get(name)).copied();
    let of_model = parsed.model.as_ref().and_then(|model| pool.model_priorities.get(model)).copied();
    let usual = of_model.unwrap_or(0);
    // A client may ask for less than it has, for more only when its headers are trusted.
    named.map_or(usual, |p| if trusted.objective { p } else { p.min(usual) })
}

/// The model to ask the engine for: a rule for the incoming name, else the (trusted) rewrite header, else the incoming
/// name itself. APIs whose body cannot be rewritten keep the incoming name.
fn target_model(
    parsed: &Parsed,
    headers: &crate::request::Headers,
    pool: &PoolSnapshot,
    rng: &mut fastrand::Rng,
) -> (Arc<str>, Option<Arc<str>>) {
    let incoming = parsed.model.clone().unwrap_or_else(|| Arc::from(""));
    if !model_in_json(parsed.api) {
        return (incoming, None);
    }
    if let Some(rule) = rule_for(&pool.rewrites, &incoming) {
        let target = weighted(&rule.targets, rng).unwrap_or_else(|| Arc::from(""));
        return (target, Some(Arc::clone(&rule.object)));
    }
    let from_header = headers.first_of(&names::MODEL_REWRITE).map(|m| Arc::from(bounded(m)));
    (from_header.unwrap_or(incoming), None)
}

/// An exact rule beats a generic one; within a kind the first in order of precedence wins.
fn rule_for<'a>(rules: &'a [RewriteRule], model: &str) -> Option<&'a RewriteRule> {
    let exact = rules.iter().find(|r| r.models.iter().any(|m| **m == *model));
    exact.or_else(|| rules.iter().find(|r| r.models.is_empty()))
}

/// One target by its weight. Without any weight all are alike; with some, those without are never chosen.
fn weighted(targets: &[(Arc<str>, Option<u32>)], rng: &mut fastrand::Rng) -> Option<Arc<str>> {
    let sum: u64 = targets.iter().filter_map(|(_, w)| *w).map(u64::from).sum();
    if sum == 0 {
        return (!targets.is_empty()).then(|| Arc::clone(&targets[rng.usize(..targets.len())].0));
    }
    let mut left = rng.u64(..sum);
    for (name, weight) in targets {
        let weight = u64::from(weight.unwrap_or(0));
        if left < weight {
            return Some(Arc::clone(name));
        }
        left -= weight;
    }
    None
}

fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_IDENTITY_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A random UUID of version 4.
fn new_id(rng: &mut fastrand::Rng) -> String {
    uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::{SubsetHint, UnknownModel};
    use crate::request::Headers;
    use bytes::Bytes;

    fn chat(model: Option<&str>) -> Parsed {
        Parsed { model: model.map(Arc::from), ..Parsed::opaque(Api::ChatCompletions) }
    }

    fn envelope(body: BodyView, headers: &[(&str, &str)]) -> Envelope {
        let mut all = Headers::default();
        for (name, value) in headers {
            all.push(name, Bytes::copy_from_slice(value.as_bytes()));
        }
        Envelope {
            received: Moment::from_nanos(1),
            headers: all,
            subset: SubsetHint::Absent,
            body,
            body_bytes: 10,
        }
    }

    fn options(trusted: TrustedHeaders) -> Options {
        Options {
            trusted,
            subset_filter: true,
            emit_scores: false,
            decision_headers: false,
            unknown_model: UnknownModel::Pass,
            poll_allowance: std::time::Duration::ZERO,
        }
    }

    fn run(
        envelope: Envelope,
        pool: &PoolSnapshot,
        trusted: TrustedHeaders,
    ) -> Result<Identified, RouteError> {
        identify(envelope, pool, &[], &options(trusted), &mut fastrand::Rng::with_seed(1))
    }

    fn pool() -> PoolSnapshot {
        let rule = |object: &str, models: &[&str], target: &str| RewriteRule {
            object: object.into(),
            models: models.iter().map(|m| Arc::from(*m)).collect(),
            targets: vec![(target.into(), None)],
        };
        PoolSnapshot {
            objectives: [(Arc::from("high"), 10), (Arc::from("batch"), -5)].into_iter().collect(),
            rewrites: vec![rule("any", &[], "fallback"), rule("exact", &["a"], "b")],
            ..PoolSnapshot::unknown()
        }
    }

    #[test]
    fn an_untrusted_objective_lowers_priority_and_never_raises_it() {
        let none = TrustedHeaders::default();
        let priority = |name, trusted| {
            let e = envelope(BodyView::Absent, &[(names::OBJECTIVE[1], name)]);
            run(e, &pool(), trusted).unwrap().request.priority
        };
        assert_eq!(priority("high", none), 0);
        assert_eq!(priority("batch", none), -5);
        assert_eq!(priority("high", TrustedHeaders::ALL), 10);
        assert_eq!(priority("unknown", TrustedHeaders::ALL), 0);
    }

    #[test]
    fn a_stated_priority_counts_only_when_it_is_trusted() {
        let priority = |value, trusted| {
            let e = envelope(BodyView::Absent, &[(names::PRIORITY, value), (names::OBJECTIVE[0], "batch")]);
            run(e, &pool(), trusted).unwrap().request.priority
        };
        assert_eq!(priority("high", TrustedHeaders::default()), -5);
        assert_eq!(
            ["high", "low", "7", "what"].map(|v| priority(v, TrustedHeaders::ALL)),
            [100, -100, 7, -5]
        );
    }

    #[test]
    fn wishes_are_read_from_anybody_and_the_decision_is_told_to_the_trusted() {
        let headers = [
            (names::CACHE_POLICY, "ignore"),
            (names::REQUEST_TIMEOUT, "2s"),
            (names::DECISION_HEADERS, "true"),
        ];
        let wishes =
            |trusted| run(envelope(BodyView::Absent, &headers), &pool(), trusted).unwrap().request.wishes;
        let (stranger, trusted) = (wishes(TrustedHeaders::default()), wishes(TrustedHeaders::ALL));
        assert_eq!(stranger.cache, CachePolicy::Ignore);
        assert_eq!(stranger.deadline, Some(Moment::from_nanos(2_000_000_001)));
        assert!(stranger.stages.is_none() && trusted.stages.is_some());
    }

    #[test]
    fn a_model_has_a_priority_of_its_own_that_an_objective_replaces() {
        let pool = PoolSnapshot {
            model_priorities: [(Arc::from("m"), 7), (Arc::from("cheap"), -10)].into_iter().collect(),
            objectives: [(Arc::from("batch"), -5), (Arc::from("high"), 10)].into_iter().collect(),
            ..PoolSnapshot::unknown()
        };
        let priority = |model, headers: &[(&str, &str)]| {
            let e = envelope(BodyView::Whole(chat(Some(model))), headers);
            run(e, &pool, TrustedHeaders::default()).unwrap().request.priority
        };
        assert_eq!(priority("m", &[]), 7);
        assert_eq!(priority("other", &[]), 0);
        assert_eq!(priority("m", &[(names::OBJECTIVE[0], "batch")]), -5);
        assert_eq!(priority("m", &[(names::OBJECTIVE[0], "unknown")]), 7);
        assert_eq!(
            priority("cheap", &[(names::OBJECTIVE[0], "high")]),
            -10,
            "an untrusted header buys nothing"
        );
    }

    #[test]
    fn rules_beat_headers_and_exact_rules_beat_generic_ones() {
        let done =
            run(envelope(BodyView::Whole(chat(Some("a"))), &[]), &pool(), TrustedHeaders::ALL).unwrap();
        assert_eq!((&*done.request.target_model, done.rewritten_by.as_deref()), ("b", Some("exact")));
        let done = run(envelope(BodyView::Whole(chat(None)), &[]), &pool(), TrustedHeaders::ALL).unwrap();
        assert_eq!(&*done.request.target_model, "fallback");
    }

    #[test]
    fn the_rewrite_header_counts_only_when_it_is_trusted() {
        let target = |trusted| {
            let e = envelope(BodyView::Whole(chat(Some("m"))), &[(names::MODEL_REWRITE[0], "other")]);
            run(e, &PoolSnapshot::unknown(), trusted).unwrap().request.target_model
        };
        assert_eq!(&*target(TrustedHeaders::default()), "m");
        assert_eq!(&*target(TrustedHeaders::ALL), "other");
    }

    #[test]
    fn a_whole_body_without_model_is_refused_and_a_cut_one_is_not() {
        let unknown = PoolSnapshot::unknown();
        let whole = run(envelope(BodyView::Whole(chat(None)), &[]), &unknown, TrustedHeaders::default());
        assert!(matches!(whole, Err(RouteError::NoModel)));
        let cut = run(envelope(BodyView::Cut(chat(None)), &[]), &unknown, TrustedHeaders::default()).unwrap();
        assert_eq!(&*cut.request.target_model, "");
    }

    #[test]
    fn a_request_without_id_gets_one() {
        let unknown = PoolSnapshot::unknown();
        let given = envelope(BodyView::Absent, &[(names::REQUEST_ID, "r-1")]);
        let given = run(given, &unknown, TrustedHeaders::default()).unwrap();
        assert_eq!((&*given.request.id, given.id_is_new), ("r-1", false));
        let made = run(envelope(BodyView::Absent, &[]), &unknown, TrustedHeaders::default()).unwrap();
        assert!(made.id_is_new && made.request.id.len() == 36);
    }

    #[test]
    fn a_plugin_names_the_fairness_id_where_no_header_does() {
        struct FromSession;
        impl FairnessSource for FromSession {
            fn fairness_id<'a>(&self, headers: &'a Headers) -> Option<&'a str> {
                headers.first_of(&["session-id"])
            }
        }
        let plugins: [FairnessPlugin; 1] = [("agent".into(), Arc::new(FromSession))];
        let id = |headers: &[(&str, &str)], trusted| {
            let e = envelope(BodyView::Absent, headers);
            let mut rng = fastrand::Rng::with_seed(1);
            let done = identify(e, &PoolSnapshot::unknown(), &plugins, &options(trusted), &mut rng).unwrap();
            done.request.fairness_id.to_string()
        };
        let both = [("session-id", "s"), (names::FAIRNESS[0], "tenant")];
        assert_eq!(id(&[], TrustedHeaders::ALL), DEFAULT_FAIRNESS_ID);
        assert_eq!(id(&both[..1], TrustedHeaders::default()), "s");
        assert_eq!(id(&both, TrustedHeaders::ALL), "tenant");
        assert_eq!(id(&both, TrustedHeaders::default()), "s", "an untrusted header does not count");
    }

    #[test]
    fn weights_decide_the_split() {
        let targets = vec![(Arc::from("a"), Some(3)), (Arc::from("b"), Some(1)), (Arc::from("c"), None)];
        let mut rng = fastrand::Rng::with_seed(7);
        let drawn: Vec<_> = (0..4000).filter_map(|_| weighted(&targets, &mut rng)).collect();
        let share = |name: &str| drawn.iter().filter(|d| &***d == name).count();
        assert!((2800..3200).contains(&share("a")), "{}", share("a"));
        assert_eq!(share("c"), 0);
        assert!(weighted(&[], &mut rng).is_none());
    }
}
