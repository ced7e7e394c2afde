//! "Why this pod?" asked of a running picker, with the shipped program.

use crate::needs_envoy;
use crate::support::{self, client, envoy, stack::Plan};
use std::process::Command;

fn explain(id: &str, port: u16, more: &[&str]) -> (bool, String) {
    let mut command = Command::new(support::program());
    command.args(["explain", id, "--admin", &format!("localhost:{port}")]).args(more);
    let output = command.output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_explained_after_it_was_served() {
    needs_envoy!("explain::a_request_is_explained_after_it_was_served");
    let _machine = support::shared().await;
    let stack = Plan::new("full-duplex", &envoy::newest()).start().await;
    let body = r#"{"model":"test-model","max_tokens":3,"messages":[{"role":"user","content":"planted"}]}"#;
    let request = stack.client.request("POST", "/v1/chat/completions");
    let request = request.body(client::full(body.to_owned())).unwrap();
    assert_eq!(stack.client.send(request).await.unwrap().status, 200);
    stack.await_idle().await;

    let port = stack.picker.metrics_port;
    let list = client::get(port, "/debug/decisions?limit=1").await.unwrap().json();
    let id = list["decisions"][0]["request_id"].as_str().unwrap();
    let (found, text) = explain(id, port, &[]);
    assert!(found && text.starts_with(&format!("{id} -> default/engine-")), "{text}");
    assert!(text.contains("answered 200, ended natural"), "{text}");
    let rated = text.lines().filter(|line| line.contains("default/engine-") && line.contains(" tok")).count();
    assert_eq!(rated, stack.addresses().len(), "each engine has a row: {text}");
    let (_, json) = explain(id, port, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let ratings = json["profiles"][0]["ratings"].as_array().unwrap();
    let chosen = ratings.iter().find(|rating| rating["endpoint"] == json["chosen"]).unwrap();
    assert_eq!(chosen["total"], ratings[0]["total"], "the best one was chosen, or one as good: {json}");
    assert!(!json.to_string().contains("planted"));

    assert_eq!(list["decisions"].as_array().map(Vec::len), Some(1));
    let (found, text) = explain("nobody", port, &[]);
    assert!(!found && text.contains("404") && text.contains("--decision-records"), "{text}");
}
