//! The configurations in `config/` that one would start from: the built program runs each as it is shipped, behind an
//! Envoy, and decides as its comment says.

use crate::needs_envoy;
use crate::support::client::{self, Answer, Client};
use crate::support::stack::{MODEL, Plan, Stack};
use crate::support::{self, envoy};
use serde_json::{Value, json};

/// Two engines behind a picker that runs `config/NAME.yaml` and tells its decisions in headers.
fn plan(name: &str) -> Plan {
    let flags = ["--allow-experimental-plugins", "--decision-headers"];
    Plan::new("full-duplex", &envoy::newest()).shipped_configuration(name).picker(&flags)
}

async fn send(client: &Client, headers: &[(&str, &str)], body: Value) -> Answer {
    let mut request = client.request("POST", "/v1/completions").header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.send(request.body(client::full(body.to_string())).unwrap()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer
}

fn body(model: &str, prompt: &str) -> Value {
    json!({"model": model, "prompt": prompt, "max_tokens": 1})
}

/// The endpoint that was chosen for a prompt.
async fn chosen(stack: &Stack, headers: &[(&str, &str)], body: Value) -> String {
    send(&stack.client, headers, body).await.header("x-selected-pod").to_owned()
}

/// A request that runs until it is dropped.
struct Held(tokio::task::JoinHandle<()>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn hold(stack: &Stack, model: &str) -> Held {
    let client = stack.client.clone();
    let long = json!({"model": model, "prompt": "go on", "max_tokens": 100_000, "ignore_eos": true});
    Held(tokio::spawn(async move { drop(send(&client, &[], long).await) }))
}

/// Waits until `has` holds for one of the picker's endpoints, and names it.
async fn endpoint_that(stack: &Stack, what: &str, has: impl Fn(&Value) -> bool) -> String {
    let named = std::sync::Mutex::new(String::new());
    support::await_that(what, || async {
        let state = stack.picker.state().await;
        let endpoints = state["pool"]["endpoints"].as_array().unwrap();
        let found = endpoints.iter().find(|endpoint| has(endpoint));
        let Some(found) = found else { return false };
        found["key"].as_str().unwrap().clone_into(&mut named.lock().unwrap());
        true
    })
    .await;
    named.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recommended_follows_the_prefix_cache() {
    needs_envoy!("examples::recommended_follows_the_prefix_cache");
    let _machine = support::shared().await;
    let stack = plan("recommended").start().await;
    let prompt = "which way to the station, and which way back? ".repeat(60);
    let first = send(&stack.client, &[], body(MODEL, &prompt)).await;
    assert_eq!(first.header("x-cache-hit"), "false");
    for _ in 0..6 {
        let again = send(&stack.client, &[], body(MODEL, &prompt)).await;
        assert_eq!(again.header("x-cache-hit"), "true");
        assert_eq!(again.header("x-selected-pod"), first.header("x-selected-pod"));
    }
    stack.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn least_loaded_goes_where_nothing_runs() {
    needs_envoy!("examples::least_loaded_goes_where_nothing_runs");
    let _machine = support::shared().await;
    let stack = plan("least-loaded").decode_step("50ms").start().await;
    stack.await_idle().await;
    let _held = hold(&stack, MODEL);
    let busy = endpoint_that(&stack, "a request is in flight", |e| e["in_flight_requests"] == 1).await;
    for _ in 0..6 {
        assert_ne!(chosen(&stack, &[], body(MODEL, "which way?")).await, busy);
        let idle = |e: &Value| e["key"] != busy.as_str() && e["in_flight_requests"] == 0;
        endpoint_that(&stack, "the other endpoint is idle again", idle).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_stay_where_they_are() {
    needs_envoy!("examples::sessions_stay_where_they_are");
    let _machine = support::shared().await;
    let stack = plan("sessions").start().await;
    for session in ["one", "two", "three"] {
        let named = [("x-session-id", session)];
        let first = chosen(&stack, &named, body(MODEL, "which way?")).await;
        for turn in 0..6 {
            let prompt = format!("question {turn}: which way?");
            assert_eq!(chosen(&stack, &named, body(MODEL, &prompt)).await, first, "{session}");
        }
    }
    stack.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lora_goes_where_the_adapter_is_loaded() {
    needs_envoy!("examples::lora_goes_where_the_adapter_is_loaded");
    let _machine = support::shared().await;
    let engines = ["--lora-modules=adapter=/adapters/adapter", "--max-loras=2"];
    let stack = plan("lora").engine(&engines).decode_step("50ms").start().await;
    let _held = hold(&stack, "adapter");
    let runs = |e: &Value| e["sample"]["running"] == 1;
    let loaded = endpoint_that(&stack, "the engine says that the adapter runs", runs).await;
    for turn in 0..6 {
        let prompt = format!("{turn}: which way?");
        assert_eq!(chosen(&stack, &[], body("adapter", &prompt)).await, loaded);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_context_has_endpoints_of_its_own() {
    needs_envoy!("examples::long_context_has_endpoints_of_its_own");
    let _machine = support::shared().await;
    let label = |range: &str| format!("llm-d.ai/context-length-range: {range}");
    let stack = plan("long-context").labels(&[&label("0-8192"), &label("8193-131072")]).start().await;
    let long = "which way to the station, and which way back? ".repeat(1000);
    for _ in 0..3 {
        assert_eq!(chosen(&stack, &[], body(MODEL, "which way?")).await, "default/engine-0");
        assert_eq!(chosen(&stack, &[], body(MODEL, &long)).await, "default/engine-1");
    }
    stack.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_keeps_tiers_apart() {
    needs_envoy!("examples::a_policy_keeps_tiers_apart");
    let _machine = support::shared().await;
    let stack = plan("policy").labels(&["tier: silver", "tier: gold"]).start().await;
    for _ in 0..3 {
        for (tier, endpoint) in [("silver", "default/engine-0"), ("gold", "default/engine-1")] {
            assert_eq!(chosen(&stack, &[("x-tier", tier)], body(MODEL, "which way?")).await, endpoint);
        }
    }
    chosen(&stack, &[("x-tier", "bronze")], body(MODEL, "none of this tier, so any")).await;
    stack.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_tells_what_prefix_caches_would_be_worth() {
    needs_envoy!("examples::a_shadow_tells_what_prefix_caches_would_be_worth");
    let _machine = support::shared().await;
    let stack = plan("shadow").start().await;
    let prompt = "which way to the station, and which way back? ".repeat(60);
    for _ in 0..8 {
        send(&stack.client, &[], body(MODEL, &prompt)).await;
    }
    let family = "pointsman_shadow_decisions_total";
    support::await_that("the shadow has looked at each decision", || async {
        let page = stack.picker.metrics().await;
        page.sum(family, &[("profile", "cached")]) == page.sum("llm_d_epp_scheduler_attempts_total", &[])
    })
    .await;
    let page = stack.picker.metrics().await;
    assert_eq!(page.sum(family, &[("outcome", "none")]), 0.0);
    let cached = |pick| page.sum("pointsman_shadow_cached_tokens_total", &[("pick", pick)]);
    assert!(cached("shadow") >= cached("real") && cached("shadow") > 0.0, "{}", page.text());
    stack.assert_clean().await;
}

/// Whoever adds a configuration to start from lists it on the page beside it, and here.
#[test]
fn every_configuration_to_start_from_is_run_here() {
    let folder = support::source_root().join("config");
    let page = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let here = include_str!("examples.rs");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(page.contains(&format!("({name}.yaml)")), "config/README.md does not list {name}.yaml");
        // What runs without a configuration is run by most other tests.
        assert!(name == "default" || here.contains(&format!("plan(\"{name}\")")), "{name}.yaml is not run");
    }
}
