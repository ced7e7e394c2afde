//! Dashboards, rules and autoscalers: each of their queries is asked of a real Prometheus that scrapes a picker under load,
//! and has to bring data. What brings none in a sound installation is listed here with the reason.

use crate::needs_envoy;
use crate::support::prometheus::{self, Prometheus};
use crate::support::stack::{MODEL, Plan, Stack};
use crate::support::{await_within, envoy, shared, source_root};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Queries that bring nothing here, by a piece of their text, and why.
const EXPECTED_EMPTY: [(&str, &str); 5] = [
    ("absent(llm_d_epp_info)", "there is a picker"),
    ("pointsman_blind_requests_total", "every request's body is seen in full duplex"),
    ("pointsman_endpoint_suspicions_over_cap_total", "less than half of the engines fail"),
    ("pointsman_label_values_folded_total", "there are not a thousand models"),
    ("pointsman_kube_", "the engines are in a file; kube_manifests_run asks these"),
];

fn read(path: &str) -> String {
    let path = source_root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where each query is from, and the query as it is asked here.
pub fn queries() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for name in ["pointsman-pool", "pointsman-picker"] {
        let board: Value =
            serde_json::from_str(&read(&format!("deploy/monitoring/dashboards/{name}.json"))).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let what = format!("{name}, {}, {}", panel["title"], target["refId"]);
                let query = target["expr"].as_str().unwrap();
                let query = query.replace("$__rate_interval", "10s").replace("$namespace", ".*");
                let query = query.replace("$job", ".*").replace("$pool", ".*");
                assert!(!query.contains('$'), "{what}: an unknown variable in {query}");
                all.insert(what, query);
            }
        }
    }
    for rule in rules("recording").into_iter().chain(rules("alerts")) {
        let expression = rule["expr"].as_str().unwrap();
        if let Some(name) = rule["record"].as_str() {
            all.insert(format!("recorded {name}"), name.to_owned());
        } else {
            // An alert is silent in a sound installation; what it compares must be there.
            all.insert(format!("alert {}", rule["alert"]), compared(expression).to_owned());
        }
    }
    let keda: Value = serde_saphyr::from_str(&read("deploy/autoscaling/keda.yaml")).unwrap();
    for trigger in keda["spec"]["triggers"].as_array().unwrap() {
        let query = trigger["metadata"]["query"].as_str().unwrap().replace("name=\"engines\"", "name=\"it\"");
        all.insert(format!("KEDA {}", trigger["name"]), query);
    }
    all
}

fn rules(name: &str) -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&read(&format!("deploy/monitoring/{name}.rules.yaml"))).unwrap();
    file["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

/// An expression without the comparison at its end.
fn compared(expression: &str) -> &str {
    let at = [" > ", " < ", " == "].iter().filter_map(|sign| expression.rfind(sign)).max();
    at.map_or(expression, |at| &expression[..at])
}

fn expected_empty(query: &str) -> Option<&'static str> {
    EXPECTED_EMPTY.iter().find(|(piece, _)| query.contains(piece)).map(|(_, reason)| *reason)
}

/// Requests of every sort until `stop`: streamed and whole, broken ones, with a control header of a client.
async fn load(client: crate::support::client::Client, stop: Arc<AtomicBool>) {
    let mut turn = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let prompt = format!("Session {}: {}", turn % 7, "the same words again and again. ".repeat(40));
        let body = json!({
            "model": MODEL,
            "stream": turn.is_multiple_of(2),
            "stream_options": if turn.is_multiple_of(2) { json!({"include_usage": true}) } else { Value::Null },
            "max_tokens": 12,
            "messages": [{"role": "user", "content": prompt}],
        });
        let request = client
            .request("POST", "/v1/chat/completions")
            .header("content-type", "application/json")
            .header("x-llm-d-inference-fairness-id", "somebody");
        // Cut in the middle, every tenth is refused.
        let mut body = body.to_string();
        body.truncate(if turn.is_multiple_of(10) { body.len() / 2 } else { body.len() });
        let body = crate::support::client::full(body);
        client.send(request.body(body).unwrap()).await.ok();
    }
}

/// One engine dies under load and comes back.
async fn trouble(stack: &mut Stack, prometheus: &Prometheus) {
    stack.engines[0].process.kill();
    await_within(Duration::from_secs(60), "the dead engine is suspect and its page unread", || async {
        let suspect = prometheus.query("max(pointsman_endpoint_suspect) == 1").await.unwrap();
        let failing = prometheus.query("max(pointsman_scrape_failing) == 1").await.unwrap();
        !suspect.is_empty() && !failing.is_empty()
    })
    .await;
    stack.engines[0].restart();
    await_within(Duration::from_secs(60), "the new process is noticed", || async {
        !prometheus.query("sum(pointsman_endpoint_restarts_total) > 0").await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monitoring_queries_bring_data_from_a_real_prometheus() {
    let test = "monitoring_queries_bring_data_from_a_real_prometheus";
    needs_envoy!(test);
    if prometheus::skipped(test) {
        return;
    }
    let _guard = shared().await;
    let plan = Plan::new("full-duplex", &envoy::newest()).engines(3).decode_step("1ms");
    let mut stack = plan.start().await;
    let mut prometheus = Prometheus::start(stack.picker.metrics_port, stack.folder.path());
    prometheus.await_ready().await;
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..4).map(|_| tokio::spawn(load(stack.client.clone(), Arc::clone(&stop)))).collect();
    trouble(&mut stack, &prometheus).await;

    let mut missing = queries();
    let total = missing.len();
    let start = std::time::Instant::now();
    while !missing.is_empty() && start.elapsed() < Duration::from_secs(60) {
        for (what, query) in missing.clone() {
            let found =
                prometheus.query(&query).await.unwrap_or_else(|said| panic!("{what}: {query}: {said}"));
            if !found.is_empty() {
                assert_eq!(
                    expected_empty(&query),
                    None,
                    "{what} brings data although it should not: {query}"
                );
                missing.remove(&what);
            }
        }
        missing.retain(|_, query| expected_empty(query).is_none());
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.unwrap();
    }
    let list: Vec<String> = missing.iter().map(|(what, query)| format!("{what}: {query}")).collect();
    assert!(list.is_empty(), "{} of {total} queries bring nothing:\n{}", list.len(), list.join("\n"));
    for rule in prometheus.rules().await {
        assert_eq!(rule["health"], "ok", "{}: {}", rule["name"], rule["lastError"]);
    }
    for rule in rules("alerts") {
        let query = rule["expr"].as_str().unwrap();
        prometheus.query(query).await.unwrap_or_else(|said| panic!("{}: {said}", rule["alert"]));
    }
    eprintln!("{total} queries asked of Prometheus");
}

#[test]
fn monitoring_rules_pass_promtool_and_every_alert_fires() {
    if prometheus::skipped("monitoring_rules_pass_promtool_and_every_alert_fires") {
        return;
    }
    let promtool = prometheus::program("promtool");
    let folder = source_root().join("deploy/monitoring");
    let check = Command::new(&promtool)
        .args(["check", "rules", "recording.rules.yaml", "alerts.rules.yaml"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let file = source_root().join("tests/monitoring/alerts.test.yaml");
    let test = Command::new(&promtool).args(["test", "rules"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&[test.stdout, test.stderr].concat()).into_owned();
    assert!(test.status.success(), "{said}");
    let (tests, docs) = (std::fs::read_to_string(&file).unwrap(), read("docs/kubernetes.md"));
    for rule in rules("alerts") {
        let name = rule["alert"].as_str().unwrap();
        assert!(docs.contains(name), "docs/kubernetes.md does not say what to do about {name}");
        assert!(tests.contains(&format!("alertname: {name}\n")), "no case in {} for {name}", file.display());
        assert!(
            rule["annotations"]["summary"].is_string() && rule["labels"]["severity"].is_string(),
            "{name}"
        );
    }
}
