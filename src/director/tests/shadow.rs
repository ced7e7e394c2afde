//! Shadow profiles over the whole path of a request.

use super::*;
use crate::plugin::PrefixMatches;
use crate::request::{Prompt, Stage};
use crate::telemetry::{MetricsHandle, names as series};
use serde_json::{Value, json};

/// Builds plugins that share state and attributes, as those of one configuration do.
#[derive(Default)]
struct Workshop {
    state: StateStore,
    table: AttributeTable,
}

impl Workshop {
    fn build(&mut self, name: &str, parameters: Value) -> Roles {
        let rows: Vec<_> = scheduling::tables().into_iter().chain(tables()).flatten().collect();
        let row = rows.into_iter().find(|row| row.name == name).unwrap();
        let mut context = BuildContext {
            name: &Arc::from(name),
            parameters: &parameters,
            state: &self.state,
            clock: &Clock::manual(),
            prefix_index_bytes: 1 << 20,
            table: &mut self.table,
        };
        (row.build)(&mut context).unwrap()
    }

    /// A profile of one scorer; `app` is the only label that its filter leaves.
    fn profile(&mut self, name: &str, app: Option<&str>, scorer: &'static str, picker: &str) -> Profile {
        let mut selector =
            |app: &str| self.build("label-selector-filter", json!({"matchLabels": {"app": app}}));
        let filter = app.map(|app| ("by-app".into(), "label-selector-filter", selector(app).filter.unwrap()));
        let scorer = WeightedScorer {
            name: scorer.into(),
            plugin_type: scorer,
            weight: 1.0,
            scorer: self.build(scorer, json!({})).scorer.unwrap(),
        };
        let picker = self.build(picker, json!({})).picker.unwrap();
        Profile { name: name.into(), filters: filter.into_iter().collect(), scorers: vec![scorer], picker }
    }
}

/// A bench whose real profile picks at random.
fn watched(shadow: Option<Shadow>, mut workshop: Workshop) -> Bench {
    let bench = Bench::new();
    let real = workshop.profile("default", None, "active-request-scorer", "random-picker");
    let handler = workshop.build("single-profile-handler", json!({})).profile_handler.unwrap();
    let plan = Plan {
        scheduler: Scheduler::new(vec![real], handler).unwrap(),
        shadow,
        ..plan(1, false, &workshop.state, &bench.clock)
    };
    bench.director.swap_plan(plan);
    bench
}

fn shadows(profiles: Vec<Profile>) -> (Option<Shadow>, MetricsHandle) {
    let metrics = MetricsHandle::detached(false);
    let shadow = metrics::with_local_recorder(&metrics, || Shadow::new(profiles, vec![], vec![]));
    (shadow, metrics)
}

/// Decisions of a profile: same, different, none.
fn counted(metrics: &MetricsHandle, profile: &str) -> [u64; 3] {
    ["same", "different", "none"].map(|outcome| {
        sum(metrics, series::SHADOW_DECISIONS, &format!("profile=\"{profile}\",outcome=\"{outcome}\""))
    })
}

/// A counter; without labels where there are none.
fn sum(metrics: &MetricsHandle, family: &str, labels: &str) -> u64 {
    let line = if labels.is_empty() { format!("{family} ") } else { format!("{family}{{{labels}}} ") };
    metrics.render().lines().find_map(|l| l.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_profile_like_the_real_one_always_chooses_the_same() {
    let mut workshop = Workshop::default();
    let alike = workshop.profile("alike", None, "active-request-scorer", "random-picker");
    let (shadow, metrics) = shadows(vec![alike]);
    let bench = watched(shadow, workshop);
    let mut went = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let mut route = bench.ask(SubsetHint::Absent).unwrap();
        route.on_replied();
        went.insert(route.destination().to_owned());
    }
    assert_eq!(went.len(), 3, "the real profile picks at random");
    assert_eq!(bench.director.services().shadows.work_off(), 50);
    assert_eq!(counted(&metrics, "alike"), [50, 0, 0]);
}

#[test]
fn differences_are_those_worked_out_by_hand_and_nothing_real_changes() {
    let mut workshop = Workshop::default();
    let only_a = workshop.profile("only-a", Some("a"), "active-request-scorer", "max-score-picker");
    let nobody = workshop.profile("nobody", Some("z"), "active-request-scorer", "max-score-picker");
    let (shadow, metrics) = shadows(vec![only_a, nobody]);
    let [bench, without] = [watched(shadow, workshop), watched(None, Workshop::default())];
    let ask = |bench: &Bench| -> Vec<Route> {
        let asked = (0..40).map(|_| bench.ask(SubsetHint::Absent).unwrap());
        asked.collect()
    };
    let (mut routes, expected) = (ask(&bench), ask(&without));
    let destinations = |routes: &[Route]| {
        routes.iter().map(|r| (r.destination().to_owned(), r.edits().clone())).collect::<Vec<_>>()
    };
    assert_eq!(destinations(&routes), destinations(&expected), "shadows change no reply");
    let loads = bench.loads();
    routes.iter_mut().for_each(Route::on_replied);
    bench.director.services().shadows.work_off();
    assert_eq!(bench.loads(), loads, "nothing is reserved for a shadow");
    assert_eq!(loads, without.loads());
    let to_a = routes.iter().filter(|r| r.destination() == "10.0.0.1:1").count() as u64;
    assert!((1..40).contains(&to_a));
    assert_eq!(counted(&metrics, "only-a"), [to_a, 40 - to_a, 0]);
    assert_eq!(counted(&metrics, "nobody"), [0, 0, 40]);
    // Each request saw those before it in flight; a is where the shadow's choice is.
    let mut seen = [0_u64; 3];
    let mut wanted = [0_u64; 2];
    for route in &routes {
        let at = usize::from(route.destination().as_bytes()[9] - b'1');
        wanted[0] += seen[0];
        wanted[1] += seen[at];
        seen[at] += 1;
    }
    let in_flight =
        |pick: &str| sum(&metrics, series::SHADOW_IN_FLIGHT, &format!("profile=\"only-a\",pick=\"{pick}\""));
    assert_eq!([in_flight("shadow"), in_flight("real")], wanted);
    drop(routes);
    assert_eq!(bench.in_flight(), 0);
}

#[test]
fn nothing_is_run_before_the_reply_is_out_and_each_decision_once() {
    let mut workshop = Workshop::default();
    let other = workshop.profile("other", Some("b"), "active-request-scorer", "max-score-picker");
    let (shadow, metrics) = shadows(vec![other]);
    let bench = watched(shadow, workshop);
    let waiting = &bench.director.services().shadows;
    let mut route = bench.ask(SubsetHint::Absent).unwrap();
    assert_eq!(waiting.work_off(), 0);
    route.on_replied();
    route.on_replied();
    route.finish(Usage::default(), Ending::Natural);
    assert_eq!(waiting.work_off(), 1);
    drop(bench.ask(SubsetHint::Absent).unwrap());
    assert_eq!(waiting.work_off(), 1, "what ends without a reply is looked at as well");
    assert_eq!(counted(&metrics, "other").iter().sum::<u64>(), 2);
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut workshop = Workshop::default();
    let other = workshop.profile("other", None, "active-request-scorer", "max-score-picker");
    let (shadow, metrics) = shadows(vec![other]);
    let bench = watched(shadow, workshop);
    for _ in 0..1_100 {
        drop(bench.ask(SubsetHint::Absent).unwrap());
    }
    let looked = bench.director.services().shadows.work_off() as u64;
    let dropped = sum(&metrics, series::SHADOW_DROPPED, "");
    assert_eq!((looked, dropped), (1_024, 76));
    assert_eq!(counted(&metrics, "other").iter().sum::<u64>(), looked);
    // A few bodies of 40 MB are as good as a thousand small ones.
    for _ in 0..3 {
        let large = Envelope { body_bytes: 40 << 20, ..envelope(SubsetHint::Absent, &[]) };
        drop(bench.director.decide(large).unwrap());
    }
    assert_eq!(bench.director.services().shadows.work_off(), 1);
}

/// The prefix index belongs to the shadow alone: it is read and filled behind the reply, from where requests really go.
#[test]
fn what_only_a_shadow_reads_is_produced_behind_the_reply() {
    let mut workshop = Workshop::default();
    let roles = workshop.build(PrefixMatches::PRODUCER, json!({"autoTune": false, "blockSizeTokens": 64}));
    let prefix = workshop.profile("prefix", None, "prefix-cache-scorer", "max-score-picker");
    let matches = workshop.table.offered::<PrefixMatches>(PrefixMatches::KIND);
    let real = ["a", "b"].map(|app| workshop.profile(app, Some(app), "queue-scorer", "max-score-picker"));
    let handler = workshop.build("header-profile-handler", json!({})).profile_handler.unwrap();
    let name: Arc<str> = PrefixMatches::PRODUCER.into();
    let producers = vec![(Arc::clone(&name), roles.producer.unwrap())];
    let witnesses = vec![(name, roles.pre_request.unwrap())];
    let metrics = MetricsHandle::detached(false);
    let make = || Shadow::new(vec![prefix], producers, witnesses);
    let mut bench = Bench::new();
    let keep = decisions::Keep { decisions: 10, bytes: 1 << 20 };
    let services = bench.services().with_decisions(Decisions::new(keep, bench.clock.clone()));
    let plan = Plan {
        scheduler: Scheduler::new(real.into(), handler).unwrap(),
        prefix: matches,
        shadow: metrics::with_local_recorder(&metrics, make),
        ..plan(1, false, &workshop.state, &bench.clock)
    };
    bench.director = Director::new(services, plan, options());
    let ask = |profile: &str, blocks| {
        let mut envelope = envelope(SubsetHint::Absent, &[("epp-profile", profile), ("x-request-id", "r")]);
        if let BodyView::Whole(parsed) = &mut envelope.body {
            parsed.prompt = Prompt::Blocks { hashes: blocks, block_tokens: 64 };
        }
        let mut route = bench.director.decide(envelope).unwrap();
        route.on_replied();
        assert_eq!(bench.director.services().shadows.work_off(), 1);
        let why = bench.director.services().decisions.as_ref().unwrap().explain("r").unwrap();
        assert!(why.candidates.iter().all(|c| c.cached_tokens.is_none()), "the real choice knew nothing");
        let [shown] = &why.shadows[..] else { panic!("{:?}", why.shadows) };
        shown.clone()
    };
    let prompt: Vec<u64> = (0..10).collect();
    ask("a", prompt.clone());
    let first = counted(&metrics, "prefix");
    let second = ask("b", [prompt.clone(), vec![90, 91]].concat());
    assert_eq!((second.chosen.as_deref(), second.same), (Some("default/a"), false));
    assert_eq!((second.cached_tokens, second.real_cached_tokens), (Some(640), Some(0)));
    let third = ask("b", [prompt, vec![90, 91, 92]].concat());
    assert_eq!((third.chosen.as_deref(), third.same), (Some("default/b"), true));
    assert_eq!((third.cached_tokens, third.real_cached_tokens), (Some(768), Some(768)));
    assert_eq!(counted(&metrics, "prefix"), [first[0] + 1, first[1] + 1, 0]);
    let cached =
        |pick: &str| sum(&metrics, series::SHADOW_CACHED, &format!("profile=\"prefix\",pick=\"{pick}\""));
    assert_eq!([cached("shadow"), cached("real")], [640 + 768, 768]);
    assert_eq!(sum(&metrics, series::SHADOW_PROMPT, "profile=\"prefix\""), (10 + 12 + 13) * 64);
}

#[test]
fn no_time_of_a_shadow_is_told_in_the_answer() {
    let mut workshop = Workshop::default();
    let other = workshop.profile("other", Some("b"), "active-request-scorer", "max-score-picker");
    let (shadow, metrics) = shadows(vec![other]);
    let bench = bench_with(1, Options { decision_headers: true, ..options() });
    bench.director.swap_plan(Plan { shadow, ..plan(1, false, &workshop.state, &bench.clock) });
    let mut route = bench.ask(SubsetHint::Absent).unwrap();
    let times = Arc::clone(route.request().wishes.stages.as_ref().unwrap());
    let before = [Stage::Filter, Stage::Score].map(|stage| times.of(stage));
    route.on_replied();
    bench.director.services().shadows.work_off();
    assert_eq!([Stage::Filter, Stage::Score].map(|stage| times.of(stage)), before);
    assert_eq!(counted(&metrics, "other").iter().sum::<u64>(), 1);
}
