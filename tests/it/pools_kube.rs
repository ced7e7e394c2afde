//! Two InferencePools behind one picker, on the fake API: one may be deleted, paused or never come.

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
    let cluster = Cluster::fake().await;
    let other = other_pool();
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&other).await;
    cluster.create(&objects::pod("a", "llm", "127.0.0.1")).await;
    cluster.create(&objects::pod("b", "other", "127.0.0.2")).await;
    cluster.create(&objects::objective("llm-d.ai", "high", 7, None, "other")).await;
    let mut picker = KubePicker::start(&cluster, "picker", &["--pool-name=other"]);
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
