//! The whole path of a request over real plugins and a pool of three endpoints, with the time standing still.

use super::*;
use crate::clock::Clock;
use crate::endpoint::health::{HealthTracker, ScrapeFailure};
use crate::endpoint::{EndpointKey, LoadSnapshot, Sample};
use crate::plugin::{AttributeTable, BuildContext, Roles, StateStore, WeightedScorer};
use crate::pool::{self, EndpointSpec, PoolEvent, PoolSpec, PoolWriter};
use crate::request::parser::ParserSet;
use crate::request::{Api, Ending, Headers, Parsed, TrustedHeaders, Usage, names};
use crate::scheduling::{self, Profile, Scheduler};
use crate::telemetry::RequestMetrics;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

struct Bench {
    director: Director,
    writer: PoolWriter,
    clock: Clock,
}

fn options() -> Options {
    Options {
        trusted: TrustedHeaders::default(),
        subset_filter: true,
        emit_scores: false,
        decision_headers: false,
        unknown_model: UnknownModel::Pass,
        poll_allowance: Duration::from_millis(150),
    }
}

fn build(name: &str, parameters: serde_json::Value, state: &StateStore, clock: &Clock) -> Roles {
    let rows: Vec<_> = scheduling::tables().into_iter().chain(tables()).flatten().collect();
    let row = rows.into_iter().find(|row| row.name == name).unwrap();
    let mut table = AttributeTable::default();
    let instance = Arc::from(name);
    let mut context = BuildContext {
        name: &instance,
        parameters: &parameters,
        state,
        clock,
        prefix_index_bytes: 1 << 20,
        table: &mut table,
    };
    (row.build)(&mut context).unwrap()
}

/// A plan that keeps requests to endpoints labelled `app: a`, when `only_a`.
fn filtered(only_a: bool, state: &StateStore, clock: &Clock) -> Vec<Filtering> {
    let parameters = serde_json::json!({ "matchLabels": { "app": "a" } });
    let filter = build("label-selector-filter", parameters, state, clock).filter.unwrap();
    if only_a { vec![("only-a".into(), "label-selector-filter", filter)] } else { vec![] }
}

type Filtering = (Arc<str>, &'static str, Arc<dyn crate::plugin::Filter>);

fn plan(targets: usize, only_a: bool, state: &StateStore, clock: &Clock) -> Plan {
    let none = serde_json::Value::Null;
    let picker = build("max-score-picker", serde_json::json!({ "maxNumOfEndpoints": targets }), state, clock);
    let scorer = WeightedScorer {
        name: "active-request-scorer".into(),
        plugin_type: "active-request-scorer",
        weight: 1.0,
        scorer: build("active-request-scorer", none.clone(), state, clock).scorer.unwrap(),
    };
    let profile = Profile {
        name: "default".into(),
        filters: filtered(only_a, state, clock),
        scorers: vec![scorer],
        picker: picker.picker.unwrap(),
    };
    let handler = build("single-profile-handler", none.clone(), state, clock).profile_handler.unwrap();
    Plan {
        generation: 1,
        digest: "0".into(),
        scheduler: Scheduler::new(vec![profile], handler).unwrap(),
        shadow: None,
        cost: build("inflight-load-producer", none.clone(), state, clock).cost.unwrap(),
        producers: vec![],
        pre_request: vec![],
        response: vec![],
        admitters: vec![],
        fairness: vec![],
        holds: vec![],
        reporters: vec![],
        saturation: build("utilization-detector", none, state, clock).saturation.unwrap(),
        parsers: ParserSet::default(),
        prefix: None,
        columns: Default::default(),
        response_readers: Vec::new(),
    }
}

fn endpoint(name: &str, port: u16) -> EndpointSpec {
    EndpointSpec {
        key: EndpointKey { namespace: "default".into(), name: name.into(), rank: 0 },
        address: format!("10.0.0.1:{port}").parse().unwrap(),
        metrics_address: None,
        labels: [("app".to_owned(), name.to_owned())].into_iter().collect(),
        process_mark: None,
    }
}

fn bench_with(targets: usize, options: Options) -> Bench {
    bench_of(targets, false, options)
}

fn bench_of(targets: usize, only_a: bool, options: Options) -> Bench {
    let (clock, state) = (Clock::manual(), StateStore::default());
    let (mut writer, reader) = pool::channel();
    writer.apply([
        PoolEvent::Pool(Some(PoolSpec { name: "p".into(), namespace: "default".into() })),
        PoolEvent::Endpoints(vec![endpoint("a", 1), endpoint("b", 2), endpoint("c", 3)]),
        PoolEvent::Objectives([(Arc::from("batch"), -1)].into_iter().collect()),
    ]);
    let health = Arc::new(HealthTracker::new(clock.clone()));
    health.set_pool(&reader.load().endpoints);
    let services = Services::new(reader, health, RequestMetrics::unread(), clock.clone(), 1);
    let director = Director::new(services, plan(targets, only_a, &state, &clock), options);
    Bench { director, writer, clock }
}

mod shadow;

impl Bench {
    fn new() -> Self {
        bench_with(1, options())
    }
    fn loads(&self) -> Vec<LoadSnapshot> {
        self.director.services().pool.load().endpoints.iter().map(|e| e.live.load()).collect()
    }
    fn in_flight(&self) -> u32 {
        self.loads().iter().map(|l| l.requests).sum()
    }
    /// Services of another director over the same pool.
    fn services(&self) -> Services {
        let ours = self.director.services();
        Services::new(
            ours.pool.clone(),
            Arc::clone(&ours.health),
            RequestMetrics::unread(),
            self.clock.clone(),
            1,
        )
    }
    fn ask(&self, subset: SubsetHint) -> Result<Route, RouteError> {
        self.director.decide(envelope(subset, &[]))
    }
}

fn envelope(subset: SubsetHint, headers: &[(&str, &str)]) -> Envelope {
    let mut all = Headers::default();
    headers.iter().for_each(|(name, value)| all.push(name, Bytes::copy_from_slice(value.as_bytes())));
    let parsed = Parsed {
        model: Some("m\"x".into()),
        model_span: Some(9..14),
        ..Parsed::opaque(Api::ChatCompletions)
    };
    Envelope {
        received: crate::clock::Moment::from_nanos(1),
        headers: all,
        subset,
        body: BodyView::Whole(parsed),
        body_bytes: 100,
    }
}

#[test]
fn a_route_holds_its_place_until_it_ends() {
    let bench = Bench::new();
    let routes: Vec<_> = (0..3).map(|_| bench.ask(SubsetHint::Absent).unwrap()).collect();
    assert!(bench.loads().iter().all(|l| l.requests == 1), "the least busy is picked: {:?}", bench.loads());
    let mut routes = routes.into_iter();
    routes.next().unwrap().finish(Usage::default(), Ending::Natural);
    assert_eq!(bench.in_flight(), 2);
    drop(routes);
    assert_eq!(bench.loads(), vec![LoadSnapshot::default(); 3]);
}

#[test]
fn the_reservation_moves_to_the_endpoint_that_serves() {
    let bench = bench_with(2, options());
    let mut route = bench.ask(SubsetHint::Absent).unwrap();
    let (first, second) =
        route.destination().split_once(',').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(*route.serving().destination, *first);
    route.on_response_headers(Some(200), Some(&second), &Headers::default());
    assert_eq!(*route.serving().destination, *second);
    let pool = bench.director.services().pool.load();
    assert_eq!(pool.endpoint_at(&first).unwrap().live.load().requests, 0);
    assert_eq!(pool.endpoint_at(&second).unwrap().live.load().requests, 1);
    drop(route);
    assert_eq!(bench.in_flight(), 0);
}

#[test]
fn the_subset_hint_is_kept_and_fails_closed() {
    let bench = Bench::new();
    for _ in 0..8 {
        let route = bench.ask(SubsetHint::from_texts(["10.0.0.1:2"])).unwrap();
        assert_eq!(route.destination(), "10.0.0.1:2");
    }
    assert!(bench.ask(SubsetHint::from_texts(["10.0.0.1"])).is_ok(), "a bare address is every port of it");
    for nothing in [vec![], vec!["10.0.0.9:1"], vec!["garbage in"]] {
        let refused = bench.ask(SubsetHint::from_texts(nothing)).unwrap_err();
        assert!(matches!(refused, RouteError::SubsetEmpty { endpoints: 3 }), "{refused}");
    }
    let ignoring = bench_with(1, Options { subset_filter: false, ..options() });
    assert!(ignoring.ask(SubsetHint::Only(vec![])).is_ok());
}

#[test]
fn a_pool_without_endpoints_is_unavailable() {
    let mut bench = Bench::new();
    bench.writer.apply([PoolEvent::Endpoints(vec![])]);
    let refused = bench.ask(SubsetHint::Absent).unwrap_err();
    assert_eq!(
        (refused.class(), refused.dropped_reason()),
        (ErrorClass::Unavailable, Some("rejected-no-endpoints"))
    );
}

#[test]
fn a_suspect_is_picked_for_a_probe_and_when_nothing_else_is_left() {
    let bench = Bench::new();
    let pool = bench.director.services().pool.load();
    let health = &bench.director.services().health;
    for _ in 0..2 {
        health.scrape_failed(&pool.endpoints[0], ScrapeFailure::Refused { serving_port: true });
    }
    assert!(pool.endpoints[0].live.is_suspect());
    health.scrape_ok(&pool.endpoints[0]);
    bench.clock.advance(Duration::from_secs(2));
    let picked = |n: usize| (0..n).map(|_| bench.ask(SubsetHint::Absent).unwrap().destination().to_owned());
    let probes = picked(20).filter(|d| d == "10.0.0.1:1").count();
    assert_eq!(probes, 1, "one probe a second");
    let only = bench.ask(SubsetHint::from_texts(["10.0.0.1:1"])).unwrap();
    assert_eq!(only.destination(), "10.0.0.1:1");
}

#[test]
fn a_probe_falls_back_to_a_trusted_endpoint_where_fallbacks_are_wanted() {
    for (targets, addresses) in [(1, 1), (2, 2)] {
        let bench = bench_with(targets, options());
        let pool = bench.director.services().pool.load();
        let health = &bench.director.services().health;
        (0..2).for_each(|_| {
            health.scrape_failed(&pool.endpoints[0], ScrapeFailure::Refused { serving_port: true })
        });
        health.scrape_ok(&pool.endpoints[0]);
        bench.clock.advance(Duration::from_secs(2));
        let probe = bench.ask(SubsetHint::Absent).unwrap();
        let named: Vec<_> = probe.destination().split(',').collect();
        assert_eq!((named[0], named.len()), ("10.0.0.1:1", addresses));
        assert!(named[1..].iter().all(|other| *other != "10.0.0.1:1"));
    }
}

#[test]
fn a_suspect_serves_when_the_filters_leave_nobody_else() {
    let bench = bench_of(1, true, options());
    let pool = bench.director.services().pool.load();
    let health = &bench.director.services().health;
    (0..2).for_each(|_| {
        health.scrape_failed(&pool.endpoints[0], ScrapeFailure::Refused { serving_port: true })
    });
    assert!(pool.endpoints[0].live.is_suspect());
    for _ in 0..3 {
        assert_eq!(bench.ask(SubsetHint::Absent).unwrap().destination(), "10.0.0.1:1");
    }
    let refused = bench.ask(SubsetHint::from_texts(["10.0.0.1:2"])).unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Saturated, "{refused}");
}

#[test]
fn only_sheddable_requests_are_refused_by_a_full_pool() {
    let bench = Bench::new();
    let pool = bench.director.services().pool.load();
    for endpoint in &pool.endpoints {
        let full = Sample { waiting: Some(50), kv_usage: Some(1.0), ..Sample::empty(bench.clock.now()) };
        endpoint.live.publish(full);
    }
    let sheddable = envelope(SubsetHint::Absent, &[(names::OBJECTIVE[0], "batch")]);
    assert!(matches!(bench.director.decide(sheddable).unwrap_err(), RouteError::Shed));
    assert!(bench.ask(SubsetHint::Absent).is_ok());
}

#[test]
fn a_model_that_nobody_lists_is_passed_on_or_refused() {
    let strict = bench_with(1, Options { unknown_model: UnknownModel::Reject, ..options() });
    assert!(strict.ask(SubsetHint::Absent).is_ok(), "nobody has said what it serves");
    let pool = strict.director.services().pool.load();
    pool.endpoints.iter().for_each(|e| e.live.publish_models(vec!["other".into()]));
    let refused = strict.ask(SubsetHint::Absent).unwrap_err();
    assert_eq!(refused.class(), ErrorClass::NotFound);
    pool.endpoints[1].live.publish_models(vec!["m\"x".into()]);
    assert!(strict.ask(SubsetHint::Absent).is_ok());
}

#[test]
fn a_rewritten_model_replaces_its_token_and_is_restored_in_the_answer() {
    let bench = bench_with(1, Options { trusted: TrustedHeaders::ALL, ..options() });
    let route =
        bench.director.decide(envelope(SubsetHint::Absent, &[(names::MODEL_REWRITE[0], "a\"b")])).unwrap();
    assert_eq!(route.model_rewrite(), Some((9..14, Bytes::from_static(br#""a\"b""#))));
    assert_eq!(route.restore_model(), Some(("a\"b", "m\"x")));
    let same = bench.ask(SubsetHint::Absent).unwrap();
    assert_eq!((same.model_rewrite(), same.restore_model()), (None, None));
}

#[test]
fn ranks_behind_one_port_are_reached_at_that_port() {
    let bench = bench_with(2, options());
    let (state, clock) = (StateStore::default(), Clock::manual());
    let mut plan = plan(2, false, &state, &clock);
    let roles =
        build("data-parallel-profile-handler", serde_json::json!({"primaryPort": 9000}), &state, &clock);
    let picker = build("max-score-picker", serde_json::json!({"maxNumOfEndpoints": 2}), &state, &clock);
    let profile = Profile {
        name: "default".into(),
        filters: Vec::new(),
        scorers: Vec::new(),
        picker: picker.picker.unwrap(),
    };
    plan.scheduler = Scheduler::new(vec![profile], roles.profile_handler.unwrap()).unwrap();
    plan.pre_request = vec![("data-parallel-profile-handler".into(), roles.pre_request.unwrap())];
    bench.director.swap_plan(plan);
    let mut route = bench.ask(SubsetHint::Absent).unwrap();
    assert_eq!(route.destination(), "10.0.0.1:9000,10.0.0.1:9000");
    let rank = Arc::clone(route.serving());
    assert_eq!(
        route.edits().set[0],
        ("x-data-parallel-host-port".into(), rank.destination.to_string().into())
    );
    route.on_response_headers(Some(200), Some("10.0.0.1:9000"), &Headers::default());
    assert!(Arc::ptr_eq(route.serving(), &rank), "the report names the port, not another endpoint");
}

#[test]
fn a_decision_can_be_explained_afterwards() {
    use super::decisions::{Decisions, Keep};
    let mut bench = bench_of(1, true, options());
    let (state, clock) = (StateStore::default(), bench.clock.clone());
    let pool = bench.director.services().pool.clone();
    let health = Arc::clone(&bench.director.services().health);
    let keep = Keep { decisions: 8, bytes: 1 << 20 };
    let services = Services::new(pool, health, RequestMetrics::unread(), clock.clone(), 1)
        .with_decisions(Decisions::new(keep, clock.clone()));
    bench.director = Director::new(services, plan(1, true, &state, &clock), options());
    let mut route =
        bench.director.decide(envelope(SubsetHint::Absent, &[(names::REQUEST_ID, "r-1")])).unwrap();
    route.on_response_headers(Some(200), None, &Headers::default());
    clock.advance(Duration::from_millis(5));
    route.on_response_chunk(3, Usage::default());
    route.finish(Usage { cached: Some(64), ..Usage::default() }, Ending::Natural);

    let decisions = bench.director.services().decisions.clone().unwrap();
    let shown = decisions.explain("r-1").unwrap();
    assert_eq!(shown.summary.chosen.as_deref(), Some("default/a"));
    assert_eq!((shown.summary.status, shown.summary.reported_cached_tokens), (Some(200), Some(64)));
    assert_eq!(shown.after.ending.as_deref(), Some("natural"));
    assert_eq!(
        shown.candidates.iter().map(|c| &*c.endpoint).collect::<Vec<_>>(),
        ["default/a", "default/b", "default/c"]
    );
    let profile = &shown.profiles[0];
    assert_eq!(
        (&*profile.cuts[0].filter, &profile.cuts[0].removed[..]),
        ("only-a", &["default/b".to_owned(), "default/c".to_owned()][..])
    );
    assert_eq!((&*profile.scorers[0].scorer, profile.scorers[0].weight), ("active-request-scorer", 1.0));
    assert_eq!(
        (&*profile.ratings[0].endpoint, profile.ratings[0].total),
        ("default/a", profile.ratings[0].scores[0])
    );

    let refused = bench
        .director
        .decide(envelope(SubsetHint::from_texts(["10.0.0.1:2"]), &[(names::REQUEST_ID, "r-2")]));
    assert!(refused.is_err());
    let shown = decisions.explain("r-2").unwrap();
    assert!(shown.refusal.unwrap().contains("only-a"), "the filter that left nobody is named");
    assert_eq!(decisions.made(), 2);
}

#[test]
fn a_request_whose_time_is_over_is_refused() {
    let bench = Bench::new();
    let ask =
        |timeout| bench.director.decide(envelope(SubsetHint::Absent, &[(names::REQUEST_TIMEOUT, timeout)]));
    assert!(ask("1h").is_ok());
    bench.clock.advance(Duration::from_secs(10));
    let refused = ask("2s").unwrap_err();
    assert_eq!(
        (refused.code(), refused.dropped_reason()),
        ("ResourceExhausted", Some("rejected-ttl-expired"))
    );
    assert_eq!(bench.in_flight(), 0);
}

#[test]
fn a_response_tells_the_decision_where_it_is_asked_for() {
    let told = |headers: &[(&str, &str)], options| {
        let bench = bench_with(1, options);
        let mut route = bench.director.decide(envelope(SubsetHint::Absent, headers)).unwrap();
        let edits = route.on_response_headers(Some(200), None, &Headers::default());
        edits.set.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    let asked = [(names::DECISION_HEADERS, "true"), (names::REQUEST_ID, "r-1")];
    let all = [
        names::REQUEST_ID,
        names::SELECTED_POD,
        names::SCHEDULING_TIME_MS,
        names::FILTER_TIME_MS,
        names::SCORER_TIME_MS,
    ];
    assert_eq!(told(&asked, Options { trusted: TrustedHeaders::ALL, ..options() }), all);
    assert_eq!(told(&[], Options { decision_headers: true, ..options() }), all);
    assert!(told(&asked, options()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_held_is_decided_when_its_window_closes_or_its_time_is_over() {
    let bench = Bench::new();
    let (state, clock) = (StateStore::default(), Clock::manual());
    let mut plan = plan(1, false, &state, &clock);
    let roles = build("burst-prefix-cache-producer", serde_json::Value::Null, &state, &clock);
    plan.holds = vec![("burst".into(), roles.hold.unwrap())];
    plan.producers = vec![("burst".into(), roles.producer.unwrap())];
    bench.director.swap_plan(plan);
    let ask = |headers: &[(&str, &str)]| {
        let mut envelope = envelope(SubsetHint::Absent, headers);
        if let BodyView::Whole(parsed) = &mut envelope.body {
            parsed.prompt = crate::request::Prompt::Tokens(vec![vec![1; 64]]);
        }
        bench.director.route(envelope)
    };
    let began = tokio::time::Instant::now();
    assert!(ask(&[]).await.is_ok());
    assert_eq!(began.elapsed(), Duration::from_millis(100));
    let began = tokio::time::Instant::now();
    drop(ask(&[(names::REQUEST_TIMEOUT, "20ms")]).await);
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}

#[test]
fn a_decision_is_logged_when_its_request_has_ended_and_a_refusal_at_once() {
    use super::decision_log::{DecisionLog, LogItem, LogKey, LogSettings, Origin, SessionPlace};
    let mut bench = bench_of(2, false, options());
    let (state, clock) = (StateStore::default(), bench.clock.clone());
    let sessions = SessionPlace::read("x-session-id").into_iter().collect();
    let settings = LogSettings { key: LogKey::random(), sample: 1.0, sessions, queue: 8 };
    let origin = Origin { at: clock.now(), unix: Duration::ZERO };
    let (log, items, writing) = DecisionLog::channel(settings, clock.clone(), origin);
    let (pool, health) =
        (bench.director.services().pool.clone(), Arc::clone(&bench.director.services().health));
    let services =
        Services::new(pool, health, RequestMetrics::unread(), clock.clone(), 1).with_log(Some(log));
    bench.director = Director::new(services, plan(2, false, &state, &clock), options());
    let line = || {
        let LogItem::Entry(entry) = items.try_recv().ok()? else { return None };
        let mut out = Vec::new();
        writing.write(&entry, &mut out);
        serde_json::from_slice::<serde_json::Value>(&out).ok()
    };

    let mut route = bench
        .director
        .decide(envelope(SubsetHint::Absent, &[("x-session-id", "s"), (names::REQUEST_ID, "r")]))
        .unwrap();
    let fallback = route.destination().split(',').nth(1).unwrap().to_owned();
    route.on_response_headers(Some(200), Some(&fallback), &Headers::default());
    clock.advance(Duration::from_millis(5));
    route.on_response_chunk(3, Usage::default());
    assert!(line().is_none(), "it is under way");
    let usage = Usage { completion: Some(9), cached: Some(64), prompt: Some(70), total: None };
    route.finish(usage, Ending::Natural);
    let told = line().unwrap();
    assert_eq!(told["endpoints"].as_array().unwrap().len(), 2);
    assert_eq!(told["served"], told["endpoints"][1], "the fallback served");
    assert_eq!(
        (&told["request_id"], &told["outcome"], &told["status"]),
        (&"r".into(), &"natural".into(), &200.into())
    );
    assert_eq!((&told["output_tokens"], &told["reported_cached_tokens"]), (&9.into(), &64.into()));
    assert!(told["ttft_ms"].is_number() && told["ttft_ms"] == told["duration_ms"], "{told}");

    drop(bench.ask(SubsetHint::Absent));
    assert_eq!(line().unwrap()["outcome"], "disconnected");
    assert!(bench.ask(SubsetHint::from_texts(["10.9.9.9:1"])).is_err());
    let told = line().unwrap();
    assert_eq!((&told["outcome"], &told["session"]), (&"refused".into(), &serde_json::Value::Null));
    assert!(told["refused"].is_string() && told["endpoints"].as_array().unwrap().is_empty(), "{told}");
    assert!(line().is_none());
}
