use super::*;
use crate::discovery::kubernetes::kind::POOL_GROUP;
use crate::discovery::kubernetes::selector::Selector;
use crate::pool::{PoolIndex, PoolSnapshot};
use proptest::prelude::*;

fn identity() -> Identity {
    Identity { spec: PoolSpec { name: "p".into(), namespace: "ns".into() }, group: POOL_GROUP.into() }
}

fn pool(app: &str, ports: &[u16]) -> PoolFacts {
    let target = Target { selector: Selector::parse(&format!("app={app}")).unwrap(), ports: ports.to_vec() };
    PoolFacts { target: Some(target), app_protocol: "http".into() }
}

fn pod(app: &str, ip: u8, ready: bool) -> PodFacts {
    let labels: BTreeMap<String, String> = [("app".to_owned(), app.to_owned())].into();
    PodFacts {
        shared_labels: labels.clone().into_iter().collect(),
        labels,
        ip: Some([10, 0, 0, ip].into()),
        ready,
        active_ports: None,
        process: "u/0".into(),
    }
}

fn seen<F>(name: &str, facts: F) -> Seen<F> {
    Seen { name: name.into(), version: "1".to_owned(), facts: Ok(facts) }
}

fn pool_ref(group: Option<&str>) -> PoolRef {
    PoolRef { name: "p".to_owned(), group: group.map(str::to_owned) }
}

/// Everything but pool and pods is known to be empty.
fn reducer() -> Reducer {
    let mut reducer = Reducer::of_pool(identity());
    for input in [
        Input::Objectives(Change::Listed(Vec::new())),
        Input::Rewrites(Change::Listed(Vec::new())),
        Input::Models(Change::Unavailable),
    ] {
        assert!(reducer.apply(input).is_empty());
    }
    reducer
}

fn known(pool_facts: PoolFacts, pods: Vec<Seen<PodFacts>>) -> (Reducer, PoolIndex) {
    let (mut reducer, mut index) = (reducer(), PoolIndex::default());
    assert!(reducer.apply(Input::Pool(Change::Listed(vec![seen("p", pool_facts)]))).is_empty());
    for event in reducer.apply(Input::Pods(Change::Listed(pods))) {
        index.apply(event);
    }
    (reducer, index)
}

fn fold(reducer: &mut Reducer, index: &mut PoolIndex, input: Input) -> usize {
    let events = reducer.apply(input);
    let count = events.len();
    for event in events {
        index.apply(event);
    }
    count
}

fn view(snapshot: &PoolSnapshot) -> Vec<String> {
    snapshot.endpoints.iter().map(|e| format!("{} {}", e.key, e.destination)).collect()
}

#[test]
fn nothing_is_said_until_all_is_known_and_then_all_at_once() {
    let mut reducer = Reducer::of_pool(identity());
    assert!(reducer.apply(Input::Pods(Change::Listed(Vec::new()))).is_empty());
    assert!(reducer.apply(Input::Pool(Change::Listed(vec![seen("p", pool("a", &[1]))]))).is_empty());
    assert!(reducer.apply(Input::Objectives(Change::Unavailable)).is_empty());
    assert!(reducer.apply(Input::Rewrites(Change::Listed(Vec::new()))).is_empty());
    let all = reducer.apply(Input::Models(Change::Listed(Vec::new())));
    assert_eq!(all.len(), 5, "{all:?}");
    assert_eq!(all[0], PoolEvent::Pool(Some(identity().spec)));
}

#[test]
fn an_unavailable_pool_list_does_not_make_a_pool() {
    let mut reducer = reducer();
    reducer.apply(Input::Pool(Change::Unavailable));
    reducer.apply(Input::Pods(Change::Listed(Vec::new())));
    assert!(reducer.target().is_none() && !reducer.said);
}

#[test]
fn a_list_is_one_event_and_a_pod_is_its_own() {
    let (mut reducer, mut index) = known(pool("a", &[1, 2]), vec![seen("x", pod("a", 1, true))]);
    assert_eq!(view(&index.snapshot()), ["ns/x 10.0.0.1:1", "ns/x-rank-1 10.0.0.1:2"]);
    let list = vec![seen("x", pod("a", 1, true)), seen("y", pod("a", 2, true))];
    assert_eq!(fold(&mut reducer, &mut index, Input::Pods(Change::Listed(list))), 1);
    let gone = Input::Pods(Change::Applied(seen("y", pod("a", 2, false))));
    assert_eq!(fold(&mut reducer, &mut index, gone), 2, "one removal for each rank");
    assert_eq!(fold(&mut reducer, &mut index, Input::Pods(Change::Deleted("y".into()))), 0);
    assert_eq!(index.snapshot().endpoints.len(), 2);
}

#[test]
fn a_malformed_object_keeps_what_it_was_and_is_said_once() {
    let (mut reducer, mut index) = known(pool("a", &[1]), vec![seen("x", pod("a", 1, true))]);
    let broken =
        || Seen { name: "x".into(), version: "2".to_owned(), facts: Err::<PodFacts, _>("odd".to_owned()) };
    fold(&mut reducer, &mut index, Input::Pods(Change::Applied(broken())));
    fold(&mut reducer, &mut index, Input::Pods(Change::Listed(vec![broken()])));
    assert_eq!(view(&index.snapshot()), ["ns/x 10.0.0.1:1"]);
    let remark =
        |fault: Option<&str>| Remark { kind: Kind::Pod, name: "x".into(), fault: fault.map(str::to_owned) };
    assert_eq!(reducer.remarks(), [remark(Some("odd"))]);
    assert_eq!(reducer.malformed(Kind::Pod), 1);
    fold(&mut reducer, &mut index, Input::Pods(Change::Applied(seen("x", pod("a", 2, true)))));
    assert_eq!(reducer.remarks(), [remark(None)]);
    assert_eq!(
        (reducer.malformed(Kind::Pod), view(&index.snapshot())),
        (0, vec!["ns/x 10.0.0.2:1".to_owned()])
    );
    fold(&mut reducer, &mut index, Input::Pods(Change::Applied(broken())));
    fold(&mut reducer, &mut index, Input::Pods(Change::Deleted("x".into())));
    assert_eq!((reducer.malformed(Kind::Pod), index.snapshot().endpoints.len()), (0, 0));
}

#[test]
fn a_pool_that_returns_waits_for_its_pods_and_has_its_policies() {
    let (mut reducer, mut index) = known(pool("a", &[1]), vec![seen("x", pod("a", 1, true))]);
    let objective = ObjectiveFacts { pool_ref: pool_ref(None), priority: 5 };
    fold(&mut reducer, &mut index, Input::Objectives(Change::Applied(seen("o", objective))));
    let deleting = PoolFacts { target: None, ..pool("a", &[1]) };
    fold(&mut reducer, &mut index, Input::Pool(Change::Applied(seen("p", deleting))));
    let gone = index.snapshot();
    assert!(gone.spec.is_none() && gone.endpoints.is_empty() && gone.objectives.is_empty());
    fold(&mut reducer, &mut index, Input::Pool(Change::Deleted("p".into())));
    assert_eq!(fold(&mut reducer, &mut index, Input::Pool(Change::Applied(seen("p", pool("a", &[1]))))), 0);
    fold(&mut reducer, &mut index, Input::Pods(Change::Listed(vec![seen("z", pod("a", 3, true))])));
    let back = index.snapshot();
    assert_eq!((view(&back), back.objectives.get("o")), (vec!["ns/z 10.0.0.3:1".to_owned()], Some(&5)));
}

#[test]
fn another_selector_drops_at_once_who_no_longer_matches() {
    let (mut reducer, mut index) =
        known(pool("a", &[1]), vec![seen("x", pod("a", 1, true)), seen("y", pod("b", 2, true))]);
    assert_eq!(view(&index.snapshot()), ["ns/x 10.0.0.1:1"]);
    fold(&mut reducer, &mut index, Input::Pool(Change::Applied(seen("p", pool("b", &[1])))));
    assert_eq!(view(&index.snapshot()), ["ns/y 10.0.0.2:1"]);
    let same = Input::Pool(Change::Applied(seen("p", pool("b", &[1]))));
    assert_eq!(fold(&mut reducer, &mut index, same), 0, "an unchanged pool says nothing");
}

#[test]
fn only_policies_of_this_pool_count() {
    let (mut reducer, mut index) = known(pool("a", &[1]), Vec::new());
    let objective = |group: Option<&str>, name: &str| ObjectiveFacts {
        pool_ref: PoolRef { name: name.to_owned(), group: group.map(str::to_owned) },
        priority: 1,
    };
    let list = vec![
        seen("ours", objective(None, "p")),
        seen("named", objective(Some(POOL_GROUP), "p")),
        seen("older", objective(Some(OLD_GROUP), "p")),
        seen("other", objective(None, "q")),
    ];
    fold(&mut reducer, &mut index, Input::Objectives(Change::Listed(list)));
    let names: Vec<_> = index.snapshot().objectives.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["named", "ours"]);
}

#[test]
fn rules_stand_by_age_and_models_come_last() {
    let (mut reducer, mut index) = known(pool("a", &[1]), Vec::new());
    let rewrite = |created: &str| RewriteFacts {
        pool_ref: pool_ref(None),
        created: created.to_owned(),
        rules: vec![super::super::facts::Rule { models: vec![], targets: vec![] }],
    };
    let list =
        vec![seen("a", rewrite("2026-02")), seen("c", rewrite("2026-01")), seen("b", rewrite("2026-01"))];
    fold(&mut reducer, &mut index, Input::Rewrites(Change::Listed(list)));
    let model = |created: &str, priority: i32| ModelFacts {
        pool_ref: pool_ref(Some(OLD_GROUP)),
        created: created.to_owned(),
        model: "m".into(),
        priority,
        targets: vec![("t".into(), None)],
    };
    let models = vec![seen("young", model("2026-02", 10)), seen("old", model("2026-01", -10))];
    fold(&mut reducer, &mut index, Input::Models(Change::Listed(models)));
    let snapshot = index.snapshot();
    let order: Vec<_> = snapshot.rewrites.iter().map(|r| r.object.to_string()).collect();
    assert_eq!(order, ["b", "c", "a", "old", "young"]);
    assert_eq!(snapshot.model_priorities.get("m"), Some(&-10), "the older of two counts");
}

#[test]
fn pods_by_a_selector_need_no_pool() {
    let target = Target { selector: Selector::parse("app in (a,b)").unwrap(), ports: vec![7] };
    let (mut reducer, mut index) = (Reducer::of_selector(identity(), target), PoolIndex::default());
    fold(&mut reducer, &mut index, Input::Pods(Change::Listed(vec![seen("x", pod("b", 1, true))])));
    assert_eq!(view(&index.snapshot()), ["ns/x 10.0.0.1:7"]);
}

#[derive(Clone, Debug)]
enum Step {
    Pod(u8, bool, bool),
    Gone(u8),
    Relist,
    Selector(bool),
    Ports(u8),
    PoolGone,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..6, any::<bool>(), any::<bool>()).prop_map(|(n, app, ready)| Step::Pod(n, app, ready)),
        2 => (0u8..6).prop_map(Step::Gone),
        1 => Just(Step::Relist),
        1 => any::<bool>().prop_map(Step::Selector),
        1 => (1u8..4).prop_map(Step::Ports),
        1 => Just(Step::PoolGone),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// Whatever happened before, what is in force is what one list of everything says; and without a pool, nothing.
    #[test]
    fn any_history_ends_where_one_list_begins(steps in steps()) {
        let app = |a: bool| if a { "a" } else { "b" };
        let (mut reducer, mut index) = known(pool("a", &[1]), Vec::new());
        let (mut pods, mut selector, mut ports, mut there) = (BTreeMap::new(), true, vec![1], true);
        let listed = |pods: &BTreeMap<u8, PodFacts>| {
            Input::Pods(Change::Listed(pods.iter().map(|(n, p)| seen(&format!("pod-{n}"), p.clone())).collect()))
        };
        for step in steps {
            match step {
                Step::Pod(n, a, ready) => {
                    let facts = pod(app(a), n, ready);
                    pods.insert(n, facts.clone());
                    fold(&mut reducer, &mut index, Input::Pods(Change::Applied(seen(&format!("pod-{n}"), facts))));
                }
                Step::Gone(n) => {
                    pods.remove(&n);
                    fold(&mut reducer, &mut index, Input::Pods(Change::Deleted(format!("pod-{n}").into())));
                }
                Step::Relist => {
                    fold(&mut reducer, &mut index, listed(&pods));
                }
                Step::Selector(a) => {
                    (selector, there) = (a, true);
                    fold(&mut reducer, &mut index, Input::Pool(Change::Applied(seen("p", pool(app(a), &ports)))));
                    fold(&mut reducer, &mut index, listed(&pods));
                }
                Step::Ports(n) => {
                    (ports, there) = ((1..=u16::from(n)).collect(), true);
                    fold(&mut reducer, &mut index, Input::Pool(Change::Applied(seen("p", pool(app(selector), &ports)))));
                    fold(&mut reducer, &mut index, listed(&pods));
                }
                Step::PoolGone => {
                    there = false;
                    fold(&mut reducer, &mut index, Input::Pool(Change::Deleted("p".into())));
                    // The watch of pods ends with the pool.
                    prop_assert!(index.snapshot().endpoints.is_empty());
                }
            }
        }
        let now = index.snapshot();
        prop_assert_eq!(now.spec.is_some(), there);
        if there {
            let list = pods.iter().map(|(n, p)| seen(&format!("pod-{n}"), p.clone())).collect();
            let (_, mut fresh) = known(pool(app(selector), &ports), list);
            prop_assert_eq!(view(&now), view(&fresh.snapshot()));
        } else {
            prop_assert!(now.endpoints.is_empty());
        }
    }
}
