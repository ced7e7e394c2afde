//! The picker as a process against the fake API: readiness, rights, failures of the API, and what is said of them.

use crate::support::cluster::{self, Cluster, NAMESPACE};
use crate::support::kube_api::{Place, Rule};
use crate::support::kube_picker::KubePicker;
use crate::support::objects::{self, POOL};
use crate::support::wire::Mode;
use crate::support::{await_that, shared};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_picker_is_ready_while_its_pool_is_there() {
    let _machine = shared().await;
    let cluster = Cluster::fake().await;
    let mut picker = KubePicker::start(&cluster, "picker", &[]);
    picker.await_log("it listens", |line| line.contains("\"listening\"")).await;
    assert!(!picker.is_ready().await, "there is no pool yet");
    let pool = objects::pool("llm", &[8000]);
    // Before the pool, so that the first list of pods has it: a pool without pods makes ready as well.
    cluster.create(&objects::pod("a", "llm", "127.0.0.1")).await;
    cluster.create(&pool).await;
    picker.await_ready().await;
    assert_eq!(picker.endpoints().await, ["127.0.0.1:8000"]);
    assert_eq!(picker.metrics().await.sum("pointsman_kube_watch_state", &[("kind", "pods")]), 1.0);
    cluster.delete(&pool).await;
    await_that("it is not ready without a pool", || async { !picker.is_ready().await }).await;
    assert!(picker.endpoints().await.is_empty());
    cluster.create(&pool).await;
    picker.await_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_without_a_pool_are_called_like_the_deployment() {
    let _machine = shared().await;
    let cluster = Cluster::fake().await;
    cluster.create(&objects::pod("a", "llm", "127.0.0.1")).await;
    let flags = ["--endpoint-selector=app in (llm, other)", "--endpoint-target-ports=8000,8001"];
    let mut picker = KubePicker::with(&cluster, "picker", &flags, &[("POD_NAME", "my-epp-5d8f7c-x2x9q")]);
    picker.await_ready().await;
    assert_eq!(picker.endpoints().await, ["127.0.0.1:8000", "127.0.0.1:8001"]);
    assert_eq!(picker.state().await["pool"]["name"], "my-epp");
    assert_eq!(cluster.fake_api().count("list", "inferencepools"), 0);
}

/// Every (group, resource, verb) of the shipped Role that a picker without leader election needs.
fn needed() -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for rule in cluster::shipped_rules() {
        for group in &rule.groups {
            for resource in rule.resources.iter().filter(|r| *r != "leases") {
                all.extend(rule.verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone())));
            }
        }
    }
    all
}

fn without(gone: &(String, String, String)) -> Vec<Rule> {
    let rest = needed().into_iter().filter(|rule| rule != gone);
    rest.map(|(group, resource, verb)| Rule {
        groups: vec![group],
        resources: vec![resource],
        verbs: vec![verb],
    })
    .collect()
}

/// A cluster that serves policies in one group only, and the flags to use it.
async fn cluster_of(old: bool) -> (Cluster, Vec<&'static str>) {
    let cluster = Cluster::fake().await;
    let flags = if old {
        cluster.fake_api().state.served.lock().remove("llm-d.ai/v1alpha2");
        cluster.create(&objects::old_pool("llm", 8000)).await;
        vec!["--pool-group=inference.networking.x-k8s.io"]
    } else {
        cluster.create(&objects::pool("llm", &[8000])).await;
        Vec::new()
    };
    (cluster, flags)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_shipped_role_nothing_is_refused() {
    let _machine = shared().await;
    for old in [false, true] {
        let (cluster, flags) = cluster_of(old).await;
        let mut picker = KubePicker::start(&cluster, "picker", &flags);
        picker.await_ready().await;
        await_that("every kind is watched", || async {
            let page = picker.metrics().await;
            let state = page.by("pointsman_kube_watch_state", "kind");
            state.len() == 5 && state.values().all(|v| *v == 1.0)
        })
        .await;
        assert!(!picker.metrics().await.has("pointsman_kube_failures_total"), "{}", picker.process.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_verb_of_the_role_is_needed_and_named_when_it_is_missing() {
    let _machine = shared().await;
    let mut tried = 0;
    for gone in needed() {
        let (group, resource, verb) = &gone;
        let old = group == "inference.networking.x-k8s.io" && resource != "inferencemodels";
        let (cluster, flags) = cluster_of(old).await;
        cluster.set_rules(&without(&gone)).await;
        let mut picker = KubePicker::start(&cluster, "picker", &flags);
        let words = format!("the Role lacks `{verb}` of `{resource}`");
        picker
            .await_log(&format!("a line that names {verb} of {resource}"), |line| {
                line.contains(&words) && (group.is_empty() || line.contains(group.as_str()))
            })
            .await;
        if !matches!(resource.as_str(), "pods" | "inferencepools") {
            picker.await_ready().await;
        }
        tried += 1;
    }
    assert_eq!(tried, 16, "verbs of the Role");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_goes_away_is_said_once_and_counted() {
    let _machine = shared().await;
    let cluster = Cluster::fake().await;
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::pod("a", "llm", "127.0.0.1")).await;
    let mut picker = KubePicker::start(&cluster, "picker", &[]);
    picker.await_ready().await;
    cluster.wire.set(Mode::Refuse);
    await_that("the metric tells", || async {
        picker.metrics().await.sum("pointsman_kube_watch_state", &[("kind", "pods")]) == 0.0
    })
    .await;
    await_that("it is tried again", || async {
        picker.metrics().await.sum("pointsman_kube_failures_total", &[("kind", "pods")]) >= 3.0
    })
    .await;
    assert!(picker.is_ready().await, "the last state is served on");
    assert_eq!(picker.endpoints().await, ["127.0.0.1:8000"]);
    cluster.create(&objects::pod("b", "llm", "127.0.0.2")).await;
    cluster.wire.set(Mode::Carry);
    await_that("the other pod is there", || async { picker.endpoints().await.len() == 2 }).await;
    let log = picker.process.log();
    let of_pods = |text: &str| log.lines().filter(|l| l.contains(text) && l.contains("\"pods\"")).count();
    assert_eq!(of_pods("cannot be followed"), 1, "{log}");
    assert_eq!(of_pods("watched again"), 1, "{log}");
    assert_eq!(cluster.fake_api().count("list", "pods"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_throttles_or_breaks_is_not_asked_in_a_tight_loop() {
    let _machine = shared().await;
    let cluster = Cluster::fake().await;
    cluster.create(&objects::pool("llm", &[8000])).await;
    {
        let mut faults = cluster.fake_api().state.faults.lock();
        (faults.throttle, faults.retry_after) = (1_000_000, 2);
    }
    let mut picker = KubePicker::start(&cluster, "picker", &[]);
    let throttled = || {
        let counts = cluster.fake_api().state.counts.lock();
        counts.iter().filter(|((verb, _), _)| verb == "throttled").map(|(_, n)| *n).sum::<u64>()
    };
    await_that("it asks", || async { throttled() >= 1 }).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Four kinds, each asked at once and then every two seconds or less often.
    assert!(throttled() <= 4 * 3, "{} requests in three seconds", throttled());
    cluster.fake_api().state.faults.lock().throttle = 0;
    picker.await_ready().await;

    // A server on which every list and watch fails.
    cluster.fake_api().state.faults.lock().status = Some(500);
    cluster.wire.cut();
    let asked = || cluster.fake_api().count("list", "pods") + cluster.fake_api().count("watch", "pods");
    let before = asked();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let in_four_seconds = asked() - before;
    assert!((2..=6).contains(&in_four_seconds), "{in_four_seconds} requests in four seconds");
    println!(
        "kube: {} requests in 3 s of throttling, {in_four_seconds} for pods in 4 s of failures",
        throttled()
    );
    cluster.fake_api().state.faults.lock().status = None;
    cluster.create(&objects::pod("late", "llm", "127.0.0.1")).await;
    await_that("it recovers alone", || async { picker.endpoints().await.len() == 1 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_refused_by_status_is_listed_anew() {
    let _machine = shared().await;
    let cluster = Cluster::fake().await;
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::pod("a", "llm", "127.0.0.1")).await;
    let mut picker = KubePicker::start(&cluster, "picker", &[]);
    picker.await_ready().await;
    cluster.fake_api().state.faults.lock().gone_by_status = true;
    cluster.wire.set(Mode::Refuse);
    cluster.create(&objects::pod("b", "llm", "127.0.0.2")).await;
    cluster.fake_api().expire();
    cluster.wire.set(Mode::Carry);
    await_that("the other pod is there", || async { picker.endpoints().await.len() == 2 }).await;
    assert_eq!(cluster.fake_api().count("list", "pods"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_object_is_skipped_and_said() {
    let _machine = shared().await;
    let cluster = Cluster::fake().await;
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::pod("good", "llm", "127.0.0.1")).await;
    let place = |home: &str, plural: &str| Place {
        home: home.to_owned(),
        namespace: NAMESPACE.to_owned(),
        plural: plural.to_owned(),
    };
    let api = cluster.fake_api();
    api.put_raw(&place("v1", "pods"), objects::pod("bad", "llm", "nowhere"));
    let broken = json!({"metadata": {"name": "odd", "labels": {"app": "llm"}}, "status": {"conditions": 5}});
    api.put_raw(&place("v1", "pods"), broken);
    let mut objective = objects::objective("llm-d.ai", "wrong", 1, None, POOL);
    objective["spec"]["priority"] = json!("high");
    api.put_raw(&place("llm-d.ai/v1alpha2", "inferenceobjectives"), objective);
    let mut picker = KubePicker::start(&cluster, "picker", &[]);
    picker.await_ready().await;
    assert_eq!(picker.endpoints().await, ["127.0.0.1:8000"]);
    for name in ["bad", "odd", "wrong"] {
        let quoted = format!("\"{name}\"");
        picker
            .await_log(name, |line| line.contains("malformed object skipped") && line.contains(&quoted))
            .await;
    }
    await_that("they are counted", || async {
        let page = picker.metrics().await;
        page.sum("pointsman_kube_malformed_objects", &[("kind", "pods")]) == 2.0
            && page.sum("pointsman_kube_malformed_objects", &[("kind", "inferenceobjectives")]) == 1.0
    })
    .await;
    // A pool that becomes malformed keeps what it said before.
    let mut pool = objects::pool("llm", &[8000]);
    pool["spec"]["targetPorts"] = json!("all of them");
    api.put_raw(&place("inference.networking.k8s.io/v1", "inferencepools"), pool);
    picker
        .await_log("the pool", |line| line.contains("malformed object skipped") && line.contains(POOL))
        .await;
    assert!(picker.is_ready().await);
    api.put_raw(&place("v1", "pods"), objects::pod("bad", "llm", "127.0.0.2"));
    await_that("a corrected pod serves", || async { picker.endpoints().await.len() == 2 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_several_pages_is_one_publication() {
    let _machine = shared().await;
    let cluster = Cluster::fake().await;
    cluster.create(&objects::pool("llm", &[8000])).await;
    let place = Place { home: "v1".to_owned(), namespace: NAMESPACE.to_owned(), plural: "pods".to_owned() };
    for i in 0..1201 {
        let ip = format!("127.1.{}.{}", i / 250, i % 250 + 1);
        cluster.fake_api().put_raw(&place, objects::pod(&format!("p-{i:04}"), "llm", &ip));
    }
    let watched = crate::kube_cases::Watched::start(&cluster).await;
    watched.until("all of them", |pool| pool.endpoints.len() == 1201).await;
    assert_eq!(watched.pool.load().generation, 1);
    assert_eq!(cluster.fake_api().count("list", "pods"), 3, "three pages");
    watched.end().await;
}

/// Two replicas with leader election, the first of which leads.
pub async fn replicas(cluster: &Cluster, more: &[&str]) -> [KubePicker; 2] {
    let pool = format!("--pool-name={POOL}");
    let mut flags = vec![pool.as_str(), "--ha-enable-leader-election"];
    flags.extend(more);
    let mut first = KubePicker::with(cluster, "first", &flags, &[("POD_NAME", "first")]);
    first.await_ready().await;
    let second = KubePicker::with(cluster, "second", &flags, &[("POD_NAME", "second")]);
    await_that("the second one listens", || async {
        crate::support::client::get(second.metrics_port, "/readyz").await.is_ok()
    })
    .await;
    [first, second]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_stops_before_another_one_begins() {
    let _machine = shared().await;
    let cluster = Cluster::fake().await;
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::pod("a", "llm", "127.0.0.1")).await;
    let pool = format!("--pool-name={POOL}");
    let flags = [pool.as_str(), "--ha-enable-leader-election"];
    let mut first = KubePicker::with(&cluster, "first", &flags, &[("POD_NAME", "first")]);
    first.await_ready().await;
    // The second one has a wire of its own.
    let other = crate::support::wire::Wire::to(cluster.fake_api().port).await;
    let path = cluster.folder().join("kubeconfig-second");
    let text = cluster::kubeconfig(&format!("http://127.0.0.1:{}", other.port), None, cluster::PICKER);
    std::fs::write(&path, text).unwrap();
    let mut second =
        KubePicker::with_kubeconfig(&cluster, "second", &flags, &[("POD_NAME", "second")], &path);
    second.await_log("it listens", |line| line.contains("\"listening\"")).await;
    cluster.wire.set(Mode::Swallow);
    let cut = std::time::Instant::now();
    await_that("the first one leads no more", || async {
        assert!(!(first.is_ready().await && second.is_ready().await), "two leaders");
        !first.is_ready().await
    })
    .await;
    let stood = cut.elapsed();
    await_that("the second one leads", || async { second.is_ready().await }).await;
    println!(
        "kube: cut off, the leader stood down after {stood:?}, the other one led after {:?}",
        cut.elapsed()
    );
    assert!(stood < Duration::from_secs(11), "{stood:?}");
    assert_eq!(first.endpoints().await.len(), 1, "requests that still come are served");
    cluster.wire.set(Mode::Carry);
    first.await_log("it says so", |line| line.contains("leads no more")).await;
    assert!(second.is_ready().await && !first.is_ready().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_know_nothing_where_the_gate_says_so() {
    let _machine = shared().await;
    let cluster = Cluster::fake().await;
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::pod("a", "llm", "127.0.0.1")).await;
    let config = "--config-text={apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig, featureGates: \
                  [haPopulateNonLeaderDatastore=false], plugins: [{type: queue-scorer}]}";
    let [first, second] = replicas(&cluster, &[config]).await;
    assert_eq!(first.endpoints().await.len(), 1);
    await_that("the follower waits", || async {
        second.process.log().contains("endpoints come from Kubernetes")
    })
    .await;
    assert!(second.endpoints().await.is_empty());
    first.process.signal("TERM");
    await_that("the follower leads and knows", || async {
        second.is_ready().await && second.endpoints().await.len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_without_leases_is_said() {
    let _machine = shared().await;
    let cluster = Cluster::fake().await;
    cluster.create(&objects::pool("llm", &[8000])).await;
    for verb in ["get", "create", "update"] {
        let mut rules = cluster::shipped_rules();
        for rule in rules.iter_mut().filter(|rule| rule.resources == ["leases"]) {
            rule.verbs.retain(|v| v != verb);
        }
        cluster.set_rules(&rules).await;
        let flags = [format!("--pool-name={POOL}"), "--ha-enable-leader-election".to_owned()];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut picker = KubePicker::with(&cluster, verb, &flags, &[]);
        let word = format!("cannot {verb} resource");
        picker
            .await_log(verb, |line| line.contains("lacks a verb of `leases`") && line.contains(&word))
            .await;
        // Without update it may create the Lease and leads until that has to be renewed.
        assert!(verb == "update" || !picker.is_ready().await, "{verb}");
    }
}
