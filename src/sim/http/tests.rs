use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::sim::engine::{EngineConfig, Latency, StepCost};
use crate::sim::{Faults, LoraModule, MetricsFault, Mode, Server, SimConfig};

/// A server that stops with the test.
struct Sim {
    url: String,
    client: reqwest::Client,
    _stop: oneshot::Sender<()>,
}

/// So fast that tests do not wait for it.
fn quick() -> SimConfig {
    SimConfig {
        model: "tiny".into(),
        engine: EngineConfig {
            latency: Latency::Step(StepCost {
                base: Duration::from_micros(200),
                prefill_tokens_per_second: 1e7,
                per_decode_seq: Duration::ZERO,
                per_kilotoken_context: Duration::ZERO,
            }),
            ..EngineConfig::default()
        },
        ..SimConfig::default()
    }
}

async fn start(config: SimConfig) -> Sim {
    let server = Server::bind(config).await.unwrap();
    let url = format!("http://{}", server.local_addr());
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.run(async move { drop(stopped.await) }));
    Sim { url, client: reqwest::Client::new(), _stop: stop }
}

impl Sim {
    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).body(body.to_string())
    }

    async fn json(&self, path: &str, body: &Value) -> Value {
        let response = self.post(path, body).send().await.unwrap();
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics").await.1;
        let line = page.lines().find(|l| l.split(['{', ' ']).next() == Some(series)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Polls until the series has the value.
    async fn until(&self, series: &str, value: f64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.metric(series).await != value {
            assert!(Instant::now() < deadline, "{series} never became {value}");
            tokio::task::yield_now().await;
        }
    }
}

impl Sim {
    /// Polls until connections are refused, then until they are not.
    async fn await_return(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.client.get(format!("{}/health", self.url)).send().await.is_ok() {
            assert!(Instant::now() < deadline, "never went away");
            tokio::task::yield_now().await;
        }
        self.until_there().await;
    }

    async fn until_there(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.client.get(format!("{}/health", self.url)).send().await.is_err() {
            assert!(Instant::now() < deadline, "never came back");
            tokio::task::yield_now().await;
        }
    }
}

fn chat(text: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 8, "ignore_eos": true})
}

/// The keys of an object, in order, and of the objects within.
fn keys(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(k, v)| {
                std::iter::once(k.clone()).chain(keys(v).into_iter().map(move |inner| format!("{k}.{inner}")))
            })
            .collect(),
        Value::Array(list) => list.first().map(keys).unwrap_or_default(),
        _ => vec![],
    }
}

fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|l| l.strip_prefix("data: ")).filter(|d| *d != "[DONE]");
    data.map(|d| serde_json::from_str(d).unwrap()).collect()
}

#[tokio::test]
async fn a_chat_is_answered_and_its_next_turn_is_cached() {
    let sim = start(quick()).await;
    let question = "a question of some length, so that it fills a block or two ".repeat(4);
    let first = sim.json("/v1/chat/completions", &json!({
        "model": "tiny", "messages": [{"role": "user", "content": question}], "max_tokens": 40, "ignore_eos": true,
    })).await;
    assert_eq!(first["usage"]["completion_tokens"], 40);
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(first["choices"][0]["finish_reason"], "length");
    let said = first["choices"][0]["message"]["content"].as_str().unwrap();
    let second = sim.json("/v1/chat/completions", &json!({"model": "tiny", "max_tokens": 1, "messages": [
        {"role": "user", "content": question}, {"role": "assistant", "content": said}, {"role": "user", "content": "go on"},
    ]})).await;
    let known = first["usage"]["total_tokens"].as_u64().unwrap() - 1;
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap(), known / 16 * 16);
    sim.until("vllm:prefix_cache_hits_total", (known / 16 * 16) as f64).await;
}

#[tokio::test]
async fn answers_have_the_recorded_shapes() {
    let sim = start(quick()).await;
    let recorded = |text: &str| keys(&serde_json::from_str(text).unwrap());
    let models: Value = serde_json::from_str(&sim.get("/v1/models").await.1).unwrap();
    assert_eq!(keys(&models), recorded(include_str!("../../../tests/fixtures/vllm/models.json")));
    let response =
        sim.json("/v1/responses", &json!({"input": "hi", "max_output_tokens": 5, "ignore_eos": true})).await;
    assert_eq!(keys(&response), recorded(include_str!("../../../tests/fixtures/vllm/responses.json")));
    let missing =
        sim.post("/v1/chat/completions", &json!({"model": "nope", "messages": []})).send().await.unwrap();
    assert_eq!(missing.status(), 404);
    let missing: Value = serde_json::from_str(&missing.text().await.unwrap()).unwrap();
    let error: Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/vllm/error-404.json")).unwrap();
    assert_eq!(missing, error);
}

#[tokio::test]
async fn a_stream_has_the_recorded_events() {
    let sim = start(quick()).await;
    let mut body = chat("hello");
    body["max_tokens"] = 5.into();
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let response = sim.post("/v1/chat/completions", &body).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = response.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"));
    let mut ours = events(&text);
    let cached = ours.last_mut().unwrap()["usage"].as_object_mut().unwrap().remove("prompt_tokens_details");
    assert_eq!(cached, Some(json!({"cached_tokens": 0})));
    let recorded = events(include_str!("../../../tests/fixtures/vllm/chat-stream.sse"));
    assert_eq!(ours.iter().map(keys).collect::<Vec<_>>(), recorded.iter().map(keys).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_says_what_a_plain_answer_says() {
    let sim = start(quick()).await;
    let plain = sim.json("/v1/chat/completions", &chat("the same")).await;
    let mut body = chat("the same");
    body["stream"] = true.into();
    let text = sim.post("/v1/chat/completions", &body).send().await.unwrap().text().await.unwrap();
    let said: String =
        events(&text).iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, plain["choices"][0]["message"]["content"]);
}

#[tokio::test]
async fn a_stream_can_come_in_larger_pieces() {
    let sim = start(SimConfig { stream_interval: 4, ..quick() }).await;
    let mut body = chat("in pieces");
    body["max_tokens"] = 10.into();
    let plain = sim.json("/v1/chat/completions", &body).await;
    body["stream"] = true.into();
    let text = sim.post("/v1/chat/completions", &body).send().await.unwrap().text().await.unwrap();
    let said: Vec<String> = events(&text)
        .iter()
        .filter_map(|e| e["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .filter(|s| !s.is_empty())
        .collect();
    assert_eq!(said.concat(), plain["choices"][0]["message"]["content"]);
    assert!(said.len() <= 4 && said.iter().all(|s| s.len() <= 16), "{said:?}");
}

#[tokio::test]
async fn completions_take_texts_lists_and_tokens() {
    let sim = start(quick()).await;
    for (prompt, tokens, choices) in [
        (json!("abcdefgh"), 2, 1),
        (json!(["abcd", "efghi"]), 3, 2),
        (json!([1, 2, 3]), 3, 1),
        (json!([[1, 2], [3]]), 3, 2),
    ] {
        let answer = sim
            .json("/v1/completions", &json!({"prompt": prompt, "max_tokens": 2, "ignore_eos": true}))
            .await;
        assert_eq!(answer["usage"]["prompt_tokens"], tokens, "{prompt}");
        assert_eq!(answer["usage"]["completion_tokens"], 2 * choices, "{prompt}");
        assert_eq!(answer["choices"].as_array().unwrap().len() as u64, choices as u64);
    }
    let body = json!({"prompt": ["abcd", "efgh"], "max_tokens": 3, "ignore_eos": true, "stream": true});
    let text = sim.post("/v1/completions", &body).send().await.unwrap().text().await.unwrap();
    for index in [0, 1] {
        assert_eq!(events(&text).iter().filter(|e| e["choices"][0]["index"] == index).count(), 3);
    }
}

#[tokio::test]
async fn tokenize_agrees_with_usage() {
    let sim = start(quick()).await;
    let answer = sim.json("/v1/chat/completions", &chat("how many tokens is this?")).await;
    let tokens = sim.json("/tokenize", &chat("how many tokens is this?")).await;
    assert_eq!(tokens["count"], answer["usage"]["prompt_tokens"]);
    assert_eq!(tokens["tokens"].as_array().unwrap().len() as u64, tokens["count"].as_u64().unwrap());
}

#[tokio::test]
async fn echo_mode_says_what_it_was_told() {
    let sim = start(SimConfig { mode: Mode::Echo, ..quick() }).await;
    let mut body = chat("für wahr: ok");
    let answer = sim.json("/v1/chat/completions", &body).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "für wahr: ok");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    body["max_tokens"] = 1.into();
    let answer = sim.json("/v1/chat/completions", &body).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn bad_requests_are_told_so() {
    let sim = start(SimConfig { max_body_bytes: 2000, api_keys: vec!["k".into()], ..quick() }).await;
    let ask = |path: &'static str, body: String| {
        sim.client.post(format!("{}{path}", sim.url)).bearer_auth("k").body(body).send()
    };
    for (path, body, status) in [
        ("/v1/chat/completions", "not json".to_owned(), 400),
        ("/v1/chat/completions", "null".into(), 400),
        ("/v1/chat/completions", "[".repeat(1000), 400),
        ("/v1/chat/completions", json!({"messages": []}).to_string(), 400),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "x"}], "n": 2}).to_string(),
            400,
        ),
        ("/v1/completions", json!({"prompt": "x", "max_tokens": 0}).to_string(), 400),
        ("/v1/completions", json!({"prompt": "x", "max_tokens": 900_000}).to_string(), 400),
        ("/v1/completions", json!({"prompt": []}).to_string(), 400),
        ("/v1/completions", json!({"prompt": "x".repeat(2000)}).to_string(), 413),
        ("/v1/models", "{}".into(), 405),
        ("/v1/nothing", "{}".into(), 404),
    ] {
        let response = ask(path, body.clone()).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path} {body}");
    }
    assert_eq!(sim.get("/v1/models").await.0, 401);
    assert_eq!(sim.get("/health").await.0, 200);
}

#[tokio::test]
async fn an_adapter_is_a_model_of_its_own() {
    let lora = LoraModule { name: "sql".into(), path: "/loras/sql".into() };
    let sim = start(SimConfig { loras: vec![lora], ..quick() }).await;
    let models: Value = serde_json::from_str(&sim.get("/v1/models").await.1).unwrap();
    assert_eq!((&models["data"][1]["id"], &models["data"][1]["parent"]), (&json!("sql"), &json!("tiny")));
    let mut body = chat(&"a shared question ".repeat(20));
    for (model, cached) in [("tiny", 0), ("sql", 0), ("sql", 80)] {
        body["model"] = model.into();
        let answer = sim.json("/v1/chat/completions", &body).await;
        assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], cached, "{model}");
    }
    assert!(sim.get("/metrics").await.1.contains("vllm:lora_requests_info{max_lora=\"1\""));
}

#[tokio::test]
async fn received_bytes_and_headers_can_be_checked() {
    let sim = start(SimConfig { pod_name: Some("pod-7".into()), request_id_headers: true, ..quick() }).await;
    let body = chat("bytes").to_string();
    let hash = format!("{:016x}", xxhash_rust::xxh64::xxh64(body.as_bytes(), 0));
    let request = sim.client.post(format!("{}/v1/chat/completions", sim.url));
    let headers = [("x-sim-echo-body-hash", "1"), ("x-request-id", "r-1")];
    let request = headers.into_iter().fold(request, |r, (k, v)| r.header(k, v));
    let response = request.body(body.clone()).send().await.unwrap();
    for (name, value) in [
        ("x-sim-body-xxh64", hash.as_str()),
        ("x-sim-body-bytes", &body.len().to_string()),
        ("x-inference-pod", "pod-7"),
        ("x-inference-port", sim.url.rsplit(':').next().unwrap()),
        ("x-request-id", "r-1"),
    ] {
        assert_eq!(response.headers()[name], value, "{name}");
    }
    let echoed = sim.client.put(format!("{}/echo/any?q=1", sim.url)).header("x-a", "b").body(body.clone());
    let echoed: Value = serde_json::from_str(&echoed.send().await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(
        (&echoed["method"], &echoed["path"], &echoed["query"]),
        (&json!("PUT"), &json!("/echo/any"), &json!("q=1"))
    );
    assert_eq!((&echoed["body"], &echoed["body_xxh64"]), (&json!(body), &json!(hash)));
    assert!(echoed["headers"].as_array().unwrap().contains(&json!(["x-a", "b"])));
    let sunk =
        sim.client.post(format!("{}/v1/chat/completions", sim.url)).header("x-sim-sink", "1").body(body);
    assert_eq!(sunk.send().await.unwrap().headers()["x-sim-body-xxh64"], hash.as_str());
    for status in [204, 418, 503] {
        let answer = sim.client.delete(format!("{}/echo/{status}", sim.url)).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.text().await.unwrap().is_empty(), status == 204);
    }
}

#[tokio::test]
async fn without_a_pod_name_the_address_says_who_answered() {
    let sim = start(quick()).await;
    let answer = sim.client.get(format!("{}/health", sim.url)).send().await.unwrap();
    assert_eq!(format!("http://{}", answer.headers()["x-inference-pod"].to_str().unwrap()), sim.url);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_64_mib_is_taken() {
    let engine = EngineConfig { max_model_len: 20_000_000, num_blocks: 1_250_000, ..quick().engine };
    let sim = start(SimConfig { engine, ..quick() }).await;
    let body = chat(&"x".repeat(64 << 20)).to_string();
    let request =
        sim.client.post(format!("{}/v1/chat/completions", sim.url)).header("x-sim-echo-body-hash", "1");
    let hash = format!("{:016x}", xxhash_rust::xxh64::xxh64(body.as_bytes(), 0));
    let response = request.body(body).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["x-sim-body-xxh64"].to_str().unwrap()),
        (200, &*hash)
    );
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(answer["usage"]["prompt_tokens"], (64 << 20) / 4 + 4);
}

/// Steps so long that nothing ends by itself within a test.
fn slow() -> SimConfig {
    let latency = Latency::Step(StepCost { base: Duration::from_millis(40), ..StepCost::default() });
    SimConfig { engine: EngineConfig { latency, ..EngineConfig::default() }, ..quick() }
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_engine() {
    for stream in [true, false] {
        let sim = start(slow()).await;
        let mut body = chat("leaving");
        body["stream"] = stream.into();
        body["max_tokens"] = 100_000.into();
        let request = sim.post("/v1/chat/completions", &body).send();
        if stream {
            let mut bytes = request.await.unwrap().bytes_stream();
            assert!(bytes.next().await.is_some());
        } else {
            let task = tokio::spawn(request);
            sim.until("vllm:num_requests_running", 1.0).await;
            task.abort();
        }
        sim.until("vllm:num_requests_running", 0.0).await;
        assert_eq!(sim.metric("vllm:kv_cache_usage_perc").await, 0.0);
        let page = sim.get("/metrics").await.1;
        assert!(page.contains(
            "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\",model_name=\"tiny\"} 1.0"
        ));
    }
}

#[tokio::test]
async fn a_full_queue_is_429() {
    let engine = EngineConfig { max_num_seqs: 1, max_waiting: 1, ..slow().engine };
    let sim = start(SimConfig { engine, ..slow() }).await;
    let mut body = chat("waiting");
    body["max_tokens"] = 100_000.into();
    let mut held = Vec::new();
    for series in ["vllm:num_requests_running", "vllm:num_requests_waiting"] {
        held.push(tokio::spawn(sim.post("/v1/chat/completions", &body).send()));
        sim.until(series, 1.0).await;
    }
    let refused = sim.post("/v1/chat/completions", &body).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(sim.metric("vllm:admission_rejections_total").await, 1.0);
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn faults_come_and_go() {
    let sim = start(quick()).await;
    let set = |faults: Value| sim.post("/admin/faults", &faults).send();
    set(json!({"error_rate": 1.0})).await.unwrap();
    assert_eq!(sim.post("/v1/chat/completions", &chat("x")).send().await.unwrap().status(), 500);
    set(json!({"error_types": ["rate_limit"]})).await.unwrap();
    assert_eq!(sim.post("/v1/chat/completions", &chat("x")).send().await.unwrap().status(), 429);
    assert_eq!(set(json!({"nonsense": 1})).await.unwrap().status(), 400);
    set(json!({"error_rate": 0, "metrics": "missing"})).await.unwrap();
    assert_eq!(sim.get("/metrics").await.0, 404);
    set(json!({"metrics": "garbage"})).await.unwrap();
    assert!(!sim.get("/metrics").await.1.contains("vllm:"));
    set(json!({"metrics": "ok", "refuse": true})).await.unwrap();
    assert!(sim.client.get(format!("{}/metrics", sim.url)).send().await.is_err());
    let shown: Value = serde_json::from_str(&sim.get("/admin/faults").await.1).unwrap();
    assert_eq!(shown["refuse"], true);
    sim.client.delete(format!("{}/admin/faults", sim.url)).send().await.unwrap();
    assert_eq!(sim.post("/v1/chat/completions", &chat("x")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_hang_holds_requests_until_it_is_lifted() {
    let sim = start(SimConfig { faults: Faults { hang: true, ..Faults::default() }, ..quick() }).await;
    let mut waiting = Box::pin(sim.post("/v1/chat/completions", &chat("x")).send());
    // The answer to the admin request comes; that to the other, sent before it, does not.
    assert!(futures::poll!(&mut waiting).is_pending());
    assert_eq!(sim.get("/admin/faults").await.0, 200);
    assert!(futures::poll!(&mut waiting).is_pending());
    sim.post("/admin/faults", &json!({"hang": false})).send().await.unwrap();
    assert_eq!(waiting.await.unwrap().status(), 200);
}

#[tokio::test]
async fn slow_and_hanging_metrics_cost_nothing_else() {
    for fault in [MetricsFault::Slow, MetricsFault::Hang] {
        let faults = Faults { metrics: fault, metrics_delay_ms: 600_000, ..Faults::default() };
        let sim = start(SimConfig { faults, ..quick() }).await;
        let mut scrape = Box::pin(sim.client.get(format!("{}/metrics", sim.url)).send());
        assert!(futures::poll!(&mut scrape).is_pending());
        assert_eq!(sim.post("/v1/chat/completions", &chat("x")).send().await.unwrap().status(), 200);
        assert!(futures::poll!(&mut scrape).is_pending());
    }
}

#[tokio::test]
async fn it_can_die_in_the_middle_of_an_answer() {
    let faults = Faults { die_after_tokens: Some(3), ..Faults::default() };
    let sim = start(SimConfig { faults, ..quick() }).await;
    let mut body = chat("dying");
    let response = sim.post("/v1/chat/completions", &body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
    body["stream"] = true.into();
    let mut stream = sim.post("/v1/chat/completions", &body).send().await.unwrap().bytes_stream();
    let (mut text, mut died) = (String::new(), false);
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => text.push_str(std::str::from_utf8(&piece).unwrap()),
            Err(_) => died = true,
        }
    }
    assert!(died);
    assert_eq!(events(&text).len(), 4);
}

#[tokio::test]
async fn a_restart_is_a_new_incarnation() {
    let sim = start(quick()).await;
    let body = chat(&"remember this ".repeat(30));
    sim.json("/v1/chat/completions", &body).await;
    assert!(
        sim.json("/v1/chat/completions", &body).await["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            > Some(0)
    );
    let before = sim.metric("process_start_time_seconds").await;
    let answer = sim.client.post(format!("{}/admin/restart?down_ms=700", sim.url)).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    sim.await_return().await;
    assert!(sim.metric("process_start_time_seconds").await > before);
    assert_eq!(sim.metric("vllm:prompt_tokens_total").await, 0.0);
    assert_eq!(
        sim.json("/v1/chat/completions", &body).await["usage"]["prompt_tokens_details"]["cached_tokens"],
        0
    );
}

#[tokio::test]
async fn being_down_keeps_what_the_engine_knows() {
    let sim = start(quick()).await;
    sim.json("/v1/chat/completions", &chat("kept")).await;
    let before = sim.metric("process_start_time_seconds").await;
    sim.json("/admin/faults", &json!({"down_ms": 700})).await;
    sim.await_return().await;
    assert_eq!(sim.metric("process_start_time_seconds").await, before);
    sim.json("/admin/faults", &json!({"restart": 700})).await;
    sim.await_return().await;
    assert!(sim.metric("process_start_time_seconds").await > before);
}

#[tokio::test]
async fn a_restart_cuts_answers_off() {
    let sim = start(slow()).await;
    let mut body = chat("cut");
    body["max_tokens"] = 100_000.into();
    let cut = tokio::spawn(sim.post("/v1/chat/completions", &body).send());
    sim.until("vllm:num_requests_running", 1.0).await;
    sim.json("/admin/faults", &json!({"restart": true})).await;
    assert!(cut.await.unwrap().is_err());
    sim.until_there().await;
    sim.until("vllm:num_requests_running", 0.0).await;
}

#[tokio::test]
async fn resetting_the_prefix_cache_forgets_prompts() {
    let sim = start(quick()).await;
    let body = chat(&"remember this ".repeat(30));
    for path in ["/reset_prefix_cache", "/admin/reset_prefix_cache"] {
        sim.json("/v1/chat/completions", &body).await;
        sim.json(path, &json!({})).await;
        assert_eq!(
            sim.json("/v1/chat/completions", &body).await["usage"]["prompt_tokens_details"]["cached_tokens"],
            0
        );
    }
}

#[tokio::test]
async fn a_taken_port_is_one_line() {
    let first = Server::bind(quick()).await.unwrap();
    let Err(error) = Server::bind(SimConfig { listen: first.local_addr(), ..quick() }).await else {
        panic!("bound twice")
    };
    let line = error.to_string();
    assert!(
        line.contains(&first.local_addr().to_string()) && line.contains("--port") && !line.contains('\n')
    );
}

#[tokio::test]
async fn it_stops_and_lets_answers_end() {
    let server = Server::bind(quick()).await.unwrap();
    let url = format!("http://{}", server.local_addr());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async move { drop(stopped.await) }));
    let mut body = chat("last words");
    body["stream"] = true.into();
    body["max_tokens"] = 200.into();
    let client = reqwest::Client::new();
    let response =
        client.post(format!("{url}/v1/chat/completions")).body(body.to_string()).send().await.unwrap();
    stop.send(()).unwrap();
    let text = response.text().await.unwrap();
    assert_eq!(events(&text).len(), 201);
    running.await.unwrap().unwrap();
    assert!(client.get(format!("{url}/health")).send().await.is_err());
}
