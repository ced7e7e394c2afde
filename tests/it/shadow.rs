//! Profiles that are only watched, in the built program behind an Envoy: what they count is what was worked out by hand,
//! and what clients and engines see is what they see without them.

use crate::needs_envoy;
use crate::support::client::{self, Answer};
use crate::support::metrics::Page;
use crate::support::stack::{MODEL, Plan, Stack};
use crate::support::{self, envoy};
use std::path::Path;

/// A header says which of two engines serves.
const STEERED: &str = "\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: header-profile-handler, parameters: {headerName: x-go, defaultProfile: first}}
- {type: label-selector-filter, name: is-first, parameters: {matchLabels: {app: first}}}
- {type: label-selector-filter, name: is-second, parameters: {matchLabels: {app: second}}}
- type: max-score-picker
";
const SHADOWS: &str = "\
- {type: label-selector-filter, name: is-nobody, parameters: {matchLabels: {app: nobody}}}
- {type: cel-scorer, name: second, parameters: {expression: 'endpoint.labels[\"app\"] == \"second\" ? 1.0 : 0.0'}}
- type: prefix-cache-scorer
- type: session-affinity-scorer
";
const PROFILES: &str = "\
schedulingProfiles:
- {name: first, plugins: [{pluginRef: is-first}]}
- {name: second, plugins: [{pluginRef: is-second}]}
";
const SHADOW_PROFILES: &str = "\
- name: cached
  shadow: true
  plugins: [{pluginRef: prefix-cache-scorer}, {pluginRef: second, weight: 0.1}, {pluginRef: session-affinity-scorer}]
- name: nowhere
  shadow: true
  plugins: [{pluginRef: is-nobody}]
";

/// Repeated to ten blocks of 256 bytes, which count as 640 tokens.
const PROMPT: &str = "which way to the station, and which way back?   ";
const PROMPT_BYTES: usize = 2560;
const CACHED: f64 = 640.0;

async fn stack(folder: &Path, configuration: &[&str]) -> Stack {
    let file = folder.join("picker.yaml");
    std::fs::write(&file, configuration.concat()).unwrap();
    let plan = Plan::new("full-duplex", &envoy::newest()).configuration(file);
    let flags = ["--allow-experimental-plugins", "--decision-headers"];
    plan.labels(&["app: first", "app: second"]).picker(&flags).start().await
}

async fn ask(stack: &Stack, engine: &str) -> Answer {
    let body =
        serde_json::json!({"model": MODEL, "prompt": &PROMPT.repeat(60)[..PROMPT_BYTES], "max_tokens": 1})
            .to_string();
    let request = stack.client.request("POST", "/echo/v1/completions");
    let request = request.header("content-type", "application/json").header("x-go", engine);
    let answer = stack.client.send(request.body(client::full(body)).unwrap()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer
}

/// Names of the headers that the client got and that the engine got, and where the request went.
fn seen(answer: &Answer) -> (Vec<String>, Vec<String>, String) {
    let mut got: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
    let echo = answer.json();
    let name = |pair: &serde_json::Value| pair[0].as_str().unwrap().to_owned();
    let mut sent: Vec<_> = echo["headers"].as_array().unwrap().iter().map(name).collect();
    got.sort();
    sent.sort();
    (got, sent, answer.header("x-selected-pod").to_owned())
}

/// The metrics once the shadow profile has looked at every decision.
async fn looked(stack: &Stack, profile: &str) -> Page {
    let all = |page: &Page| {
        page.sum("pointsman_shadow_decisions_total", &[("profile", profile)])
            == page.sum("llm_d_epp_scheduler_attempts_total", &[("status", "success")])
    };
    support::await_that("shadow profiles have looked", || async { all(&stack.picker.metrics().await) }).await;
    stack.picker.metrics().await
}

fn decisions(page: &Page, profile: &str) -> [f64; 3] {
    ["same", "different", "none"].map(|outcome| {
        page.sum("pointsman_shadow_decisions_total", &[("profile", profile), ("outcome", outcome)])
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_counts_where_it_differs_and_changes_nothing() {
    needs_envoy!("shadow::a_shadow_counts_where_it_differs_and_changes_nothing");
    let _machine = support::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let watched = stack(folder.path(), &[STEERED, SHADOWS, PROFILES, SHADOW_PROFILES]).await;
    let before = looked(&watched, "cached").await;
    let asked = ["first", "second", "first", "second"];
    let mut with = Vec::new();
    for engine in asked {
        with.push(seen(&ask(&watched, engine).await));
        // The next decision comes after the shadow's index has heard of this one.
        looked(&watched, "cached").await;
    }
    let after = looked(&watched, "nowhere").await;

    // 1: nobody has the prompt, and the second engine is preferred. 2: the first engine has it. 3 and 4: both have it.
    let grown = |profile| {
        let (was, is) = (decisions(&before, profile), decisions(&after, profile));
        [0, 1, 2].map(|i| is[i] - was[i])
    };
    assert_eq!(grown("cached"), [1.0, 3.0, 0.0], "{}", after.text());
    assert_eq!(grown("nowhere"), [0.0, 0.0, 4.0]);
    let tokens =
        |family: &str, labels: &[(&str, &str)]| after.sum(family, labels) - before.sum(family, labels);
    let cached =
        |pick| tokens("pointsman_shadow_cached_tokens_total", &[("profile", "cached"), ("pick", pick)]);
    assert_eq!([cached("shadow"), cached("real")], [3.0 * CACHED, 2.0 * CACHED]);
    assert_eq!(tokens("pointsman_shadow_prompt_tokens_total", &[("profile", "cached")]), 4.0 * CACHED);
    assert_eq!(after.sum("pointsman_shadow_dropped_total", &[]), 0.0);
    assert_eq!(after.sum("llmd_epp_session_affinity_misses_total", &[]), 0.0);

    let list = client::get(watched.picker.metrics_port, "/debug/decisions?limit=3").await.unwrap().json();
    let id = list["decisions"][2]["request_id"].as_str().unwrap();
    let path = format!("/debug/decisions/{id}");
    let why = client::get(watched.picker.metrics_port, &path).await.unwrap().json();
    let shown = serde_json::json!([
        {"profile": "cached", "chosen": "default/engine-0", "same": false, "cached_tokens": 640, "real_cached_tokens": 0},
        {"profile": "nowhere", "chosen": null, "same": false, "cached_tokens": null, "real_cached_tokens": null},
    ]);
    assert_eq!((&why["chosen"], &why["shadows"]), (&"default/engine-1".into(), &shown), "{why}");

    watched.await_idle().await;
    let state = watched.picker.state().await;
    for endpoint in state["pool"]["endpoints"].as_array().unwrap() {
        assert_eq!(endpoint["in_flight_requests"], 0, "{endpoint}");
    }
    watched.assert_clean().await;
    drop(watched);

    let plain = stack(folder.path(), &[STEERED, PROFILES]).await;
    let mut without = Vec::new();
    for engine in asked {
        without.push(seen(&ask(&plain, engine).await));
    }
    assert_eq!(with, without);
    assert!(!plain.picker.metrics().await.has("pointsman_shadow_decisions_total"));
}
