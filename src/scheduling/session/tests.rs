use super::*;
use crate::plugin::{
    AttributeTable, Decision, PluginType, ProfileRun, ProfileRuns, Registry, SchedulingOutcome, StateStore,
    Targets,
};
use crate::request::{Headers, Prompt};
use crate::reuse::Reused;
use crate::scheduling::tables;
use crate::scheduling::testing::{Row, build, build_in, freeze, kept, request, request_with, scores};
use serde_json::{Value, json};

fn row(name: &str) -> PluginType {
    *Registry::from_tables(&tables()).unwrap().get(name).unwrap()
}

fn filter() -> PluginType {
    row("session-affinity-filter")
}

fn pods(n: usize) -> Candidates {
    freeze(&vec![Row::default(); n])
}

#[test]
fn tokens_of_the_catalogue() {
    let token = BASE64.encode("default/pod-001");
    let cases = [
        (json!({}), "x-session-token", token.as_str(), vec![1]),
        (json!({}), "x-other", &token, vec![0, 1]),
        (json!({}), "x-session-token", "%%%", vec![0, 1]),
        (json!({}), "x-session-token", "ZGVmYXVsdC9wb2QtMDA5", vec![0, 1]),
        (json!({"encodedEndpointHeaderConfig": {"header": " X-Mine "}}), "x-mine", &token, vec![1]),
        (json!({"encodedEndpointHeaderConfig": {"header": "x-mine"}}), "x-session-token", &token, vec![0, 1]),
    ];
    for (parameters, header, value, wanted) in cases {
        assert_eq!(
            kept(&filter(), parameters, &request_with(header, value), &pods(2)),
            wanted,
            "{header} {value}"
        );
    }
    let scored = scores(
        &row("session-affinity-scorer"),
        json!({}),
        &request_with("x-session-token", &token),
        &pods(3),
    );
    assert_eq!(scored, [0.0, 1.0, 0.0]);
}

#[test]
fn identities_with_ranks_and_similar_names_are_told_apart() {
    let key = |name: &str, rank| EndpointKey { namespace: "ns".into(), name: name.into(), rank };
    for key in [key("a", 0), key("a", 3), key("a-rank-3", 0)] {
        assert!(names_endpoint(&key.to_string(), &key));
    }
    assert!(!names_endpoint("ns/a", &key("a", 1)));
    assert!(!names_endpoint("ns/ab", &key("a", 0)));
    assert!(!names_endpoint("/a", &key("a", 0)));
}

#[test]
fn the_response_carries_the_endpoint_that_served() {
    let candidates = pods(2);
    let request = request("m", Prompt::None);
    let targets = [(Arc::from("prefill"), Arc::clone(candidates.endpoint(Position(1))))];
    let response = ResponseView {
        request: &request,
        served: candidates.endpoint(Position(0)),
        targets: &targets,
        status: Some(200),
        headers: &Headers::default(),
    };
    let set = |parameters: Value| {
        let mut edits = HeaderEdits::default();
        build(&filter(), parameters).unwrap().response.unwrap().on_headers(&response, &mut edits);
        edits.set.first().map(|(name, value)| (name.to_string(), BASE64.decode(value).unwrap()))
    };
    let token = |pod: &str| Some(("x-session-token".to_owned(), format!("default/{pod}").into_bytes()));
    assert_eq!(set(json!({})), token("pod-000"));
    assert_eq!(set(json!({"profileName": "prefill"})), token("pod-001"));
    assert_eq!(set(json!({"profileName": "encode"})), None);
}

/// A request of session `s1` sent to `chosen` out of `shortlist`.
fn send(roles: &Roles, candidates: &Candidates, shortlist: &[u32], chosen: u32) {
    let request = request_with("x-session-id", "s1");
    let mut decision = Reused::<Decision>::default();
    decision.shortlist.reset(candidates);
    decision.shortlist.retain(|p| shortlist.contains(&p.0));
    let targets = Targets::one(Position(chosen));
    let mut runs = ProfileRuns::default();
    runs.push("default".into(), Some(ProfileRun { targets: targets.clone(), decision }));
    let outcome = SchedulingOutcome { primary_profile: "default".into(), primary: targets, runs };
    let departure = Departure { request: &request, candidates, outcome: &outcome };
    roles.pre_request.as_ref().unwrap().before_send(&departure, &mut HeaderEdits::default());
}

#[test]
fn session_ids_are_bound_where_they_went_first() {
    let (state, clock) = (StateStore::default(), Clock::manual());
    let parameters = json!({"strategy": "session_id", "sessionIdConfig": {"evictionTtlSeconds": 60}});
    let roles = build_in(&filter(), parameters, &state, &clock, &mut AttributeTable::default()).unwrap();
    let candidates = pods(2);
    let kept = |header: &str| {
        let request = request_with(header, "s1");
        let mut shortlist = Shortlist::all(&candidates);
        let done = ProfileRuns::default();
        let cycle = crate::plugin::Cycle {
            request: &request,
            candidates: &candidates,
            profile: "default",
            done: &done,
            shadow: false,
        };
        roles.filter.as_ref().unwrap().filter(&cycle, &mut shortlist);
        shortlist.positions().iter().map(|p| p.0).collect::<Vec<_>>()
    };
    assert_eq!(kept("x-session-id"), [0, 1]);
    send(&roles, &candidates, &[0, 1], 1);
    assert_eq!(kept("x-session-id"), [1]);
    assert_eq!(kept("x-other"), [0, 1]);
    send(&roles, &candidates, &[0, 1], 0);
    assert_eq!(kept("x-session-id"), [1], "the bound endpoint could have served");
    send(&roles, &candidates, &[0], 0);
    assert_eq!(kept("x-session-id"), [0], "the bound endpoint was not there");
    clock.advance(Duration::from_secs(120));
    assert_eq!(kept("x-session-id"), [0, 1]);
}

#[test]
fn parameters_that_are_refused() {
    let session = |config: Value| json!({"strategy": "session_id", "sessionIdConfig": config});
    let refused = [
        json!({"strategy": "bogus"}),
        session(json!({"sources": [{"header": "a", "attribute": "b"}]})),
        session(json!({"sources": [{}]})),
        session(json!({"sources": [{"attribute": "Cookie"}]})),
        session(json!({"evictionTtlSeconds": -1})),
        session(json!({"evictionSweepSeconds": -1})),
        json!({"headerNames": "x"}),
    ];
    for parameters in refused {
        assert!(build(&filter(), parameters.clone()).is_err(), "{parameters}");
    }
    assert!(build(&filter(), session(json!({"evictionTtlSeconds": 0, "sources": []}))).is_ok());
}

#[test]
fn a_producer_may_tell_the_session() {
    let (state, clock, mut table) = (StateStore::default(), Clock::manual(), AttributeTable::default());
    let sources = json!([{"header": "x-none"}, {"attribute": "SessionID", "producer": "by-cookie"}]);
    let parameters = json!({"strategy": "session_id", "sessionIdConfig": {"sources": sources}});
    let roles = build_in(&row("session-affinity-scorer"), parameters, &state, &clock, &mut table).unwrap();
    assert_eq!((table.needs[0].kind, &*table.needs[0].producer), ("SessionID", "by-cookie"));
    let mut candidates = pods(3);
    candidates.attributes.set(crate::pool::AttributeId::new(0), SessionKey::of("s1"));
    let score = || {
        crate::scheduling::testing::score_with(
            &**roles.scorer.as_ref().unwrap(),
            &request("m", Prompt::None),
            &candidates,
        )
    };
    assert_eq!(score(), [0.0; 3]);
    send(&roles, &candidates, &[0, 1, 2], 2);
    assert_eq!(score(), [0.0, 0.0, 1.0]);
}
