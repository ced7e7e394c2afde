//! `pointsman sim` as a program: its command line, its signals, its ports.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::client::{self, Client};
use crate::support::metrics::Page;
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::{await_that, program, shared};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["sim", "--host", "127.0.0.1"]).args(arguments);
    command
}

fn output(arguments: &[&str]) -> (Output, String) {
    let output = command(arguments).output().unwrap();
    let complaint = String::from_utf8(output.stderr.clone()).unwrap();
    (output, complaint)
}

async fn ready(port: u16) {
    await_that("the simulator answers", || async {
        client::get(port, "/health").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

async fn chat(port: u16, text: &str) -> Value {
    let body = json!({
        "messages": [{"role": "user", "content": text}], "max_tokens": 12, "ignore_eos": true,
    });
    Client::new(port).post("/v1/chat/completions", body.to_string()).await.unwrap().json()
}

#[tokio::test]
async fn a_taken_port_and_a_wrong_flag_are_said_in_one_line() {
    let _machine = shared().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (ended, complaint) = output(&["--port", &port]);
    assert!(!ended.status.success());
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert!(complaint.contains(&port) && complaint.contains("--port"), "{complaint}");

    let (ended, complaint) = output(&["--max-num-sequs", "3"]);
    assert!(!ended.status.success() && complaint.contains("--max-num-seqs"), "{complaint}");
    let (ended, complaint) = output(&["--config", "/nonexistent.yaml"]);
    assert!(!ended.status.success() && complaint.contains("/nonexistent.yaml"), "{complaint}");
}

#[tokio::test]
async fn a_signal_ends_it_and_flags_without_effect_are_one_warning() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let arguments = ["tiny", "--port", &port.to_string(), "--dtype", "auto", "--enforce-eager"];
    let mut sim = Process::start("sim", command(&arguments), folder.path());
    ready(port).await;
    assert_eq!(chat(port, "hello").await["model"], "tiny");
    let warnings: Vec<String> = sim.log().lines().filter(|l| l.contains("WARN")).map(str::to_owned).collect();
    assert!(
        matches!(&warnings[..], [one] if one.contains("--dtype") && one.contains("--enforce-eager")),
        "{warnings:?}"
    );
    sim.signal("TERM");
    let mut running = || std::future::ready(!sim.is_running());
    await_that("the simulator ends", &mut running).await;
}

#[tokio::test]
async fn every_rank_has_its_port_and_its_engine_label() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().unwrap();
    // Two neighbouring ports that are both free.
    let port = std::iter::repeat_with(free_port)
        .find(|p| std::net::TcpListener::bind(("127.0.0.1", p + 1)).is_ok())
        .unwrap();
    let arguments = ["--port", &port.to_string(), "--data-parallel-size", "2"];
    let _sim = Process::start("ranks", command(&arguments), folder.path());
    for rank in 0..2 {
        ready(port + rank).await;
        let page = client::get(port + rank, "/metrics").await.unwrap();
        let label = format!("vllm:num_requests_running{{engine=\"{rank}\"");
        assert!(String::from_utf8_lossy(&page.body).contains(&label), "{label}");
    }
}

#[tokio::test]
async fn the_same_seed_says_the_same_and_another_does_not() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let mut said = Vec::new();
    for (i, seed) in ["1", "1", "2"].iter().enumerate() {
        let port = free_port();
        let arguments = ["--port", &port.to_string(), "--seed", seed];
        let _sim = Process::start(&format!("seed-{i}"), command(&arguments), folder.path());
        ready(port).await;
        said.push(chat(port, "say something").await["choices"][0]["message"]["content"].clone());
    }
    assert_eq!(said[0], said[1]);
    assert_ne!(said[0], said[2]);
}

#[tokio::test]
async fn a_killed_engine_comes_back_as_another() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let start = |port: u16| Process::start("engine", command(&["--port", &port.to_string()]), folder.path());
    let mut starts = Vec::new();
    for _ in 0..2 {
        let mut sim = start(port);
        ready(port).await;
        starts.push(Page::read(port).await.sum("process_start_time_seconds", &[]));
        sim.kill();
    }
    assert!(starts[0] < starts[1], "{starts:?}");
}
