//! Several InferencePools behind one picker, on the fake API and, where there is one, on a real server: one may be deleted,
//! or never come.

use crate::support::cluster::Cluster;
use crate::support::kube_picker::KubePicker;
use crate::support::objects::{self, POOL};
use crate::support::{await_that, shared};
use serde_json::{Value, json};

/// The second pool, of the pods `app: other`.
fn other_pool() -> Value {
    let mut pool = objects::pool("other", &[9000]);
    pool["metadata"]["name"] = json!("other");
    pool
}

async fn endpoints(picker: &KubePicker, pool: &str) -> Vec<String> {
    let state = picker.state().await;
    let list = state["pools"][pool]["pool"]["endpoints"].as_array().cloned().unwrap_or_default();
    list.iter().map(|e| e["address"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_one_pool_leaves_the_other_alone() {
    let _machine = shared().await;
    one_pool_is_deleted(&Cluster::fake().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_api_server_deleting_one_pool_leaves_the_other_alone() {
    let _machine = shared().await;
    let Some(cluster) = Cluster::real().await else { return };
    one_pool_is_deleted(&cluster).await;
}

async fn one_pool_is_deleted(cluster: &Cluster) {
    let other = other_pool();
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&other).await;
    cluster.create(&objects::pod("a", "llm", "127.0.0.1")).await;
    cluster.create(&objects::pod("b", "other", "127.0.0.2")).await;
    cluster.create(&objects::objective("llm-d.ai", "high", 7, None, "other")).await;
    let mut picker = KubePicker::start(cluster, "picker", &["--pool-name=other"]);
    picker.await_ready().await;
    assert_eq!(endpoints(&picker, POOL).await, ["127.0.0.1:8000"]);
    assert_eq!(endpoints(&picker, "other").await, ["127.0.0.2:9000"]);

    cluster.delete(&other).await;
    await_that("the other pool is empty", || async { endpoints(&picker, "other").await.is_empty() }).await;
    let state = picker.state().await;
    assert_eq!(
        (&state["pools"]["other"]["ready"], &state["pools"][POOL]["ready"]),
        (&false.into(), &true.into())
    );
    assert!(picker.is_ready().await, "the first pool is served on: {state:#}");
    cluster.create(&objects::pod("c", "llm", "127.0.0.3")).await;
    await_that("the first pool is followed", || async { endpoints(&picker, POOL).await.len() == 2 }).await;

    cluster.create(&other).await;
    await_that("the other is back", || async { endpoints(&picker, "other").await == ["127.0.0.2:9000"] })
        .await;
    let page = picker.metrics().await;
    for pool in [POOL, "other"] {
        let labels = [("kind", "pods"), ("inference_pool", pool)];
        assert_eq!(page.sum("pointsman_kube_watch_state", &labels), 1.0, "{pool}");
        assert!(page.sum("pointsman_kube_lists_total", &labels) >= 1.0, "{pool}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_never_comes_keeps_nobody_waiting_for_ever() {
    let _machine = shared().await;
    let cluster = Cluster::fake().await;
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::pod("a", "llm", "127.0.0.1")).await;
    cluster.create(&objects::pod("b", "picked", "127.0.0.2")).await;
    let flags = [
        "--pool-name=missing",
        "--pool-name=pods",
        "--endpoint-selector=pods=app=picked",
        "--endpoint-target-ports=pods=7000",
    ];
    let mut picker = KubePicker::start(&cluster, "picker", &flags);
    picker.await_ready().await;
    let state = picker.state().await;
    assert_eq!(state["pools"]["missing"]["waiting_for"], json!(["pool"]));
    assert_eq!(state["pools"]["pods"]["pool"]["name"], "pods");
    assert_eq!(endpoints(&picker, "pods").await, ["127.0.0.2:7000"]);
    assert_eq!(endpoints(&picker, POOL).await, ["127.0.0.1:8000"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_lease_is_for_all_pools() {
    let _machine = shared().await;
    let cluster = Cluster::fake().await;
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&other_pool()).await;
    cluster.create(&objects::pod("a", "llm", "127.0.0.1")).await;
    cluster.create(&objects::pod("b", "other", "127.0.0.2")).await;
    let flags = ["--pool-name=other", "--ha-enable-leader-election"];
    let environment = [("POD_NAME", "epp-0")];
    let all = [&["--pool-name=llm"], &flags[..]].concat();
    let mut leader = KubePicker::with(&cluster, "leader", &all, &environment);
    leader.await_ready().await;
    for (pool, address) in [(POOL, "127.0.0.1:8000"), ("other", "127.0.0.2:9000")] {
        await_that("the leader knows each pool", || async { endpoints(&leader, pool).await == [address] })
            .await;
    }
    let mut follower = KubePicker::with(&cluster, "follower", &all, &[("POD_NAME", "epp-1")]);
    follower.await_log("it listens", |line| line.contains("\"listening\"")).await;
    let page = leader.metrics().await;
    assert_eq!(page.text().lines().filter(|line| line.starts_with("pointsman_leader")).count(), 1);
    assert_eq!(page.sum("pointsman_leader", &[]), 1.0);
    assert!(!follower.is_ready().await, "one leads at a time");
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let leases = cluster.send("GET", path, None).await.unwrap();
    assert_eq!(leases["items"].as_array().unwrap().len(), 1, "{leases}");
    leader.process.signal("TERM");
    follower.await_ready().await;
    for pool in [POOL, "other"] {
        await_that("the next leader knows each", || async { endpoints(&follower, pool).await.len() == 1 })
            .await;
    }
}
