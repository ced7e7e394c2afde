//! Headers by which a request speaks to the picker itself: heard, told in the answer, and never seen by an engine. The
//! built program behind an Envoy.

use crate::needs_envoy;
use crate::support::client::{self, Answer};
use crate::support::stack::{MODEL, Plan, Stack};
use crate::support::{self, envoy};

const PRIVATE: [&str; 5] =
    ["x-priority", "x-model-override", "x-cache-policy", "x-request-timeout", "x-decision-headers"];
const TOLD: [&str; 7] = [
    "x-selected-pod",
    "x-cache-hit",
    "x-cache-prefix-length",
    "x-scheduling-time-ms",
    "x-filter-time-ms",
    "x-scorer-time-ms",
    "x-request-id",
];

async fn ask(stack: &Stack, path: &str, headers: &[(&str, &str)]) -> Answer {
    let prompt = "which way to the station, and which way back? ".repeat(60);
    let body = serde_json::json!({"model": MODEL, "prompt": prompt, "max_tokens": 1}).to_string();
    let mut request = stack.client.request("POST", path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    stack.client.send(request.body(client::full(body)).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_request_is_heard_and_told_of_its_decision() {
    needs_envoy!("wishes::a_trusted_request_is_heard_and_told_of_its_decision");
    let _machine = support::shared().await;
    let trust = "--trusted-request-headers=priority,model-rewrite,decision-headers";
    let stack = Plan::new("full-duplex", &envoy::newest()).picker(&[trust]).start().await;
    let all = [
        ("x-priority", "low"),
        ("x-model-override", "another"),
        ("x-cache-policy", "prefer-hit"),
        ("x-request-timeout", "30s"),
        ("x-decision-headers", "true"),
    ];
    let first = ask(&stack, "/echo/v1/completions", &all).await;
    assert_eq!(first.status, 200, "{:?}", first.body);
    for header in PRIVATE {
        assert!(first.received(header).is_empty(), "{header} reached the engine");
    }
    let body: serde_json::Value = serde_json::from_str(first.json()["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["model"], "another");
    for header in TOLD {
        assert!(!first.header(header).is_empty(), "{header} is missing: {:?}", first.headers);
    }
    assert_eq!((first.header("x-cache-hit"), first.header("x-cache-prefix-length")), ("false", "0"));
    assert!(first.header("x-scheduling-time-ms").parse::<f64>().unwrap() >= 0.0);
    let page = stack.picker.metrics().await;
    let asked = [("priority", "-100"), ("target_model_name", "another")];
    assert!(page.sum("llm_d_epp_request_total", &asked) >= 1.0, "{}", page.text());

    let again = ask(&stack, "/echo/v1/completions", &all).await;
    assert_eq!(again.header("x-selected-pod"), first.header("x-selected-pod"), "the hit is preferred");
    assert_eq!(again.header("x-cache-hit"), "true");
    assert!(again.header("x-cache-prefix-length").parse::<u64>().unwrap() >= 64);

    let late = ask(&stack, "/v1/completions", &[("x-request-timeout", "0.000001")]).await;
    assert_eq!(late.status, 429);
    assert_eq!(late.header("x-llm-d-request-dropped-reason"), "rejected-ttl-expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_told_only_what_a_flag_tells_everybody() {
    needs_envoy!("wishes::a_stranger_is_told_only_what_a_flag_tells_everybody");
    let _machine = support::shared().await;
    let stack = Plan::new("buffered", &envoy::newest()).start().await;
    let wishes = [("x-priority", "high"), ("x-model-override", "another"), ("x-decision-headers", "true")];
    let answer = ask(&stack, "/v1/completions", &wishes).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    assert_eq!(answer.json()["model"], MODEL);
    assert!(TOLD[..6].iter().all(|header| answer.header(header).is_empty()), "{:?}", answer.headers);
    let page = stack.picker.metrics().await;
    assert!(page.sum("llm_d_epp_request_total", &[("priority", "100")]).abs() < f64::EPSILON);
    drop(stack);
    let stack = Plan::new("buffered", &envoy::newest()).picker(&["--decision-headers"]).start().await;
    let answer = ask(&stack, "/v1/completions", &[]).await;
    assert!(TOLD.iter().all(|header| !answer.header(header).is_empty()), "{:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_come_from_the_endpoints_file_and_a_cost_goes_into_the_proxys_metadata() {
    needs_envoy!("wishes::policies_come_from_the_endpoints_file_and_a_cost_goes_into_the_proxys_metadata");
    let _machine = support::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let access_log = format!(
        "stream_idle_timeout: 3600s\n                access_log:\n                  - name: envoy.access_loggers.file\n                    typed_config:\n                      \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog\n                      path: {}\n                      log_format: {{ text_format_source: {{ inline_string: \"cost %DYNAMIC_METADATA(envoy.lb:x-cost)%\\n\" }} }}",
        log.display()
    );
    let plan = Plan::new("full-duplex", &envoy::newest()).edit("stream_idle_timeout: 3600s", &access_log);
    let mut stack = plan.start().await;
    let configuration = stack.folder.path().join("picker.yaml");
    let written = std::fs::read_to_string(&configuration).unwrap();
    let reporter = "plugins:\n  - type: request-attribute-reporter\n    parameters:\n      attributes:\n      - {key: {name: x-cost}, expression: \"1000 + usage.completion_tokens\"}\n";
    std::fs::write(&configuration, written.replacen("plugins:\n", reporter, 1)).unwrap();
    let file = stack.picker.endpoints_file();
    let endpoints = std::fs::read_to_string(&file).unwrap();
    let policies = format!(
        "objectives:\n- {{name: batch, priority: -7}}\nmodelRewrites:\n- {{name: all, models: [public], targets: [{{modelRewrite: {MODEL}}}]}}\n"
    );
    std::fs::write(&file, endpoints + &policies).unwrap();
    stack.picker.restart();

    let body = serde_json::json!({"model": "public", "prompt": "which way?", "max_tokens": 1}).to_string();
    let ask = || async {
        let request =
            stack.client.request("POST", "/v1/completions").header("content-type", "application/json");
        let request = request.header("x-llm-d-inference-objective", "batch");
        stack.client.send(request.body(client::full(body.clone())).unwrap()).await
    };
    support::await_that("the picker is back", || async {
        ask().await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    let answer = ask().await.unwrap();
    assert_eq!(answer.json()["model"], "public", "the client sees the name that it asked for");
    let asked = [("priority", "-7"), ("target_model_name", MODEL), ("model_name", "public")];
    assert!(stack.picker.metrics().await.sum("llm_d_epp_request_total", &asked) >= 1.0);
    // Envoy writes its log every ten seconds.
    support::await_that("the cost stands in the access log", || async {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("cost 1001"))
    })
    .await;
}
