//! The live page in a real browser: what a person sees at one endpoint and at 500, and of one decision.
//!
//! `POINTSMAN_PICTURES` names a folder in which pictures of the page are left to be looked at.

use crate::support::chromium::{self, DESK, Look, PHONE};
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::stack::{self, Plan};
use crate::support::{await_that, client, envoy, program, shared};
use crate::{needs_chromium, needs_envoy};
use std::path::Path;
use std::process::Command;

/// A picker on `endpoints` engines that do not exist.
async fn picker(endpoints: u16, folder: &Path) -> (Process, u16) {
    let list = folder.join("endpoints.yaml");
    // Nothing listens on the lowest ports of a test machine, and root's are refused at once anyway.
    let engines: Vec<_> = (0..endpoints).map(|i| (format!("engine-{i}"), 1 + i)).collect();
    stack::write_endpoints(&list, &engines);
    let metrics_port = free_port();
    let mut command = Command::new(program());
    command.arg("epp").arg(format!("--endpoints-file={}", list.display()));
    command.arg(format!("--grpc-port={}", free_port()));
    command.arg(format!("--grpc-health-port={}", free_port()));
    command.arg(format!("--metrics-port={metrics_port}"));
    let mut process = Process::start("picker", command, folder);
    await_that("the picker has its endpoints", || {
        process.assert_alive();
        async move { client::get(metrics_port, "/readyz").await.is_ok_and(|answer| answer.status == 200) }
    })
    .await;
    (process, metrics_port)
}

/// Leaves a picture where somebody asked for pictures.
async fn picture(url: &str, look: Look, name: &str) {
    if let Some(folder) = std::env::var_os("POINTSMAN_PICTURES") {
        chromium::picture(url, look, &Path::new(&folder).join(format!("{name}.png"))).await;
    }
}

fn rows(document: &str) -> usize {
    document.matches(r#"<th scope="row" title="default/engine-"#).count()
}

async fn shows_every_endpoint(endpoints: u16) {
    let _machine = shared().await;
    let folder = tempfile::Builder::new().prefix("pointsman-page-").tempdir().unwrap();
    let (_process, port) = picker(endpoints, folder.path()).await;
    let answer = client::get(port, "/debug/live").await.unwrap();
    println!("/debug/live: {} bytes at {endpoints} endpoints", answer.body.len());
    assert!(answer.body.len() <= 200_000, "{}", answer.body.len());
    let url = format!("http://localhost:{port}/");
    for (look, name) in [(DESK, "desk"), (PHONE, "phone")] {
        let document = chromium::document(&url, look).await;
        assert_eq!(rows(&document), usize::from(endpoints), "{document}");
        assert!(document.contains(">ready</p>"), "the state of the picker: {document}");
        assert!(document.contains("<dt>Picks a second</dt><dd>0.0</dd>"), "asked more than once: {document}");
        picture(&url, look, &format!("{endpoints}-{name}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_endpoint_is_shown() {
    needs_chromium!("live_page::one_endpoint_is_shown");
    shows_every_endpoint(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_endpoints_are_shown() {
    needs_chromium!("live_page::five_hundred_endpoints_are_shown");
    shows_every_endpoint(500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_opens_into_its_explanation() {
    needs_chromium!("live_page::a_decision_opens_into_its_explanation");
    needs_envoy!("live_page::a_decision_opens_into_its_explanation");
    let _machine = shared().await;
    let stack = Plan::new("full-duplex", &envoy::newest()).start().await;
    let body = r#"{"model":"test-model","max_tokens":3,"messages":[{"role":"user","content":"planted"}]}"#;
    let path = "/v1/chat/completions";
    assert_eq!(stack.client.post(path, body).await.unwrap().status, 200);
    assert_eq!(stack.client.post(path, "{").await.unwrap().status, 400);
    // Whatever an engine says of such a model.
    let hostile = body.replace("test-model", "<img src=x onerror=document.title=1>");
    stack.client.post(path, hostile).await.unwrap();
    stack.await_idle().await;

    let port = stack.picker.metrics_port;
    let list = client::get(port, "/debug/decisions?limit=5").await.unwrap().json();
    let routed = |d: &&serde_json::Value| d["chosen"].is_string() && d["status"] == 200;
    let decision = list["decisions"].as_array().unwrap().iter().find(routed).expect("a routed decision");
    let (id, chosen) = (decision["request_id"].as_str().unwrap(), decision["chosen"].as_str().unwrap());
    let escaped: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let url = format!("http://localhost:{port}/debug#decision={escaped}");
    let document = chromium::document(&url, DESK).await;
    let (_, opened) = document.split_once("<dialog").unwrap();
    assert!(opened.contains(&format!("Chosen: {chosen}")), "{opened}");
    assert!(opened.contains(&format!(r#"<tr class="chosen"><th scope="row">★ {chosen}</th>"#)), "{opened}");
    assert!(opened.contains("Answered 200, ended natural"), "{opened}");
    assert!(
        document.contains("Refusals by cause:") && !document.contains("Refusals by cause: none"),
        "{document}"
    );
    assert!(document.contains("&lt;img src=x"), "the model is listed as text: {document}");
    assert!(!document.contains("<img") && document.contains("<title>Pointsman</title>"), "{document}");
    assert!(!document.contains("planted"));
    picture(&url, DESK, "decision-desk").await;
    picture(&url, PHONE, "decision-phone").await;
}
