//! What a client says in confidence stands nowhere afterwards: not in logs, traces, metrics, debug pages or the decision log.

use crate::needs_envoy;
use crate::support::{self, client, envoy, stack::Plan};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// An empty HTTP/2 SETTINGS frame: enough for an exporter to believe in a collector.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Takes whatever is sent and keeps the bytes. The exporter neither encrypts nor compresses, so text shows as text.
async fn collector() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&kept);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let sink = Arc::clone(&sink);
            tokio::spawn(async move {
                socket.write_all(&SETTINGS).await.ok();
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(n @ 1..) = socket.read(&mut buffer).await {
                    sink.lock().unwrap().extend_from_slice(&buffer[..n]);
                }
            });
        }
    });
    (port, kept)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_said_in_confidence_is_kept() {
    needs_envoy!("secrets::nothing_said_in_confidence_is_kept");
    let _machine = support::shared().await;
    let (port, traced) = collector().await;
    let folder = tempfile::tempdir().unwrap();
    let decision_log = folder.path().join("decisions.jsonl");
    let endpoint = format!("http://127.0.0.1:{port}");
    let stack = Plan::new("full-duplex", &envoy::newest())
        .picker(&["--v=5", &format!("--decision-log={}", decision_log.display())])
        .picker_environment(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_TRACES_SAMPLER", "always_on"),
        ])
        .start()
        .await;

    let secrets = ["prompt-7f3a", "bearer-91bc", "cookie-55de", "salt-c0ff", "session-a11e", "key-beef"];
    let body = format!(
        r#"{{"model":"test-model","max_tokens":3,"cache_salt":"{}","messages":[{{"role":"user","content":"{}"}}]}}"#,
        secrets[3], secrets[0]
    );
    for path in ["/v1/chat/completions", "/v1/completions", "/echo/500"] {
        let request = stack
            .client
            .request("POST", path)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", secrets[1]))
            .header("cookie", format!("id={}", secrets[2]))
            .header("x-session-token", secrets[4])
            .header("x-session-id", secrets[4])
            .header("x-api-key", secrets[5])
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .body(client::full(body.clone()))
            .unwrap();
        stack.client.send(request).await.unwrap();
    }
    // A refusal must not quote what it refuses either.
    let broken = format!(r#"{{"model":"test-model","messages":"{}""#, secrets[0]);
    let refused = stack.client.post("/v1/chat/completions", broken).await.unwrap();
    assert_eq!(refused.status, 400);

    let spans = Arc::clone(&traced);
    support::await_that("spans reach the collector", move || {
        let spans = Arc::clone(&spans);
        async move { contains(&spans.lock().unwrap(), b"gateway.request") }
    })
    .await;
    let state = stack.picker.state().await.to_string();
    let list = client::get(stack.picker.metrics_port, "/debug/decisions").await.unwrap().json();
    let last = list["decisions"][0]["request_id"].as_str().unwrap();
    let decision =
        client::get(stack.picker.metrics_port, &format!("/debug/decisions/{last}")).await.unwrap().json();
    let decisions = format!("{list}{decision}");
    let metrics = stack.picker.metrics().await.text().to_owned();
    let log = stack.picker.process.log();
    let logged = || std::fs::read_to_string(&decision_log).unwrap_or_default();
    support::await_that("decisions are logged", || async { logged().contains("\"session\":\"") }).await;
    let logged = logged();
    assert!(log.lines().count() > 10 && metrics.len() > 1000 && state.len() > 100, "something was looked at");
    let spans = traced.lock().unwrap();
    for secret in secrets {
        for (place, text) in [("the log", log.as_bytes()), ("/metrics", metrics.as_bytes())] {
            assert!(!contains(text, secret.as_bytes()), "{secret} stands in {place}");
        }
        assert!(!state.contains(secret), "{secret} stands in /debug/state");
        assert!(!decisions.contains(secret), "{secret} stands in /debug/decisions");
        assert!(!logged.contains(secret), "{secret} stands in the decision log");
        assert!(!contains(&spans, secret.as_bytes()), "{secret} stands in a trace");
        assert!(!contains(&refused.body, secret.as_bytes()), "{secret} stands in a refusal");
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
