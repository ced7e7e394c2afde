//! An engine that restarts holds nothing: no hit is predicted on what it held before.

use crate::needs_envoy;
use crate::support::{self, client, envoy, stack::Plan};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_between_two_polls_leaves_no_predicted_hit() {
    needs_envoy!("incarnation::a_restart_between_two_polls_leaves_no_predicted_hit");
    let _machine = support::shared().await;
    let stack = Plan::new("full-duplex", &envoy::newest()).engines(1).start().await;
    let prompt = "the quick brown fox jumps over the lazy dog ".repeat(100);
    let body = format!(
        r#"{{"model":"test-model","max_tokens":2,"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
    );
    let ask = || async {
        let answer = stack.client.post("/v1/chat/completions", body.clone()).await.unwrap();
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    };
    let predicted =
        || async { stack.picker.metrics().await.sum("llm_d_epp_prefix_indexer_hit_bytes_sum", &[]) };
    ask().await;
    let cold = predicted().await;
    ask().await;
    let warm = predicted().await;
    assert!(warm > cold, "the second ask is predicted to hit: {cold} then {warm}");

    let before = incarnation(&stack.picker.state().await);
    let port = stack.engines[0].port;
    let faults = client::Client::new(port);
    let answer = faults.post("/admin/restart", "").await.unwrap();
    assert!(answer.status < 300, "{}", answer.status);
    support::await_that("the picker sees another process", || async {
        incarnation(&stack.picker.state().await) > before
    })
    .await;
    ask().await;
    let after = predicted().await;
    assert!((after - warm).abs() < f64::EPSILON, "no hit is predicted after a restart: {warm} then {after}");
}

/// Incarnation of the only endpoint in `/debug/state`.
fn incarnation(state: &serde_json::Value) -> u64 {
    find(state, "incarnation")
        .and_then(serde_json::Value::as_u64)
        .unwrap_or_else(|| panic!("no incarnation in {state}"))
}

fn find<'a>(value: &'a serde_json::Value, key: &str) -> Option<&'a serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|v| find(v, key))),
        serde_json::Value::Array(list) => list.iter().find_map(|v| find(v, key)),
        _ => None,
    }
}
