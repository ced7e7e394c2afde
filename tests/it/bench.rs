//! `pointsman bench` against the real picker: every request answered, everything counted. Times are not asserted.

use super::support::{await_that, process::Process, program, shared};
use crate::needs_envoy;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// The JSON of one short `bench run` of the rows called `rows` of `profile`.
fn run(profile: &str, rows: &[&str], extra: &[&str]) -> (Vec<Value>, Output) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("rows.json");
    let mut command = Command::new(program());
    command.args(["bench", "run", profile, "--warm-up", "200ms", "--window", "1s", "--json"]).arg(&json);
    // Tests run beside each other: no process keeps to a core.
    command.args(["--anywhere"]).args(extra);
    rows.iter().for_each(|row| {
        command.args(["--row", row]);
    });
    let output = command.output().unwrap();
    let text = std::fs::read(&json).unwrap_or_else(|_| panic!("{}", said(&output)));
    let json: Value = serde_json::from_slice(&text).unwrap();
    (json["rows"].as_array().unwrap().clone(), output)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn assert_sound(row: &Value, output: &Output) {
    for side in ["picker", "floor"] {
        let figures = &row[side];
        assert_eq!(figures["errors"], serde_json::json!({}), "{side}: {}", said(output));
        assert!(figures["latency_us"]["values"].as_u64().unwrap() > 0, "{side}: {row:#}");
        assert!(figures["cores"].as_f64().unwrap() > 0.0, "{side}: {row:#}");
        assert!(figures["resident_bytes"].as_u64().unwrap() > 1_000_000, "{side}: {row:#}");
    }
}

#[tokio::test]
async fn prompts_with_and_without_response_chunks_are_all_answered() {
    let _shared = shared().await;
    let (rows, output) = run("small", &[], &[]);
    assert_eq!(rows.len(), 2);
    rows.iter().for_each(|row| assert_sound(row, &output));
    // A rate may be refused on a busy machine, but then it says so.
    assert_eq!(output.status.success(), !said(&output).contains("generator-bound"), "{}", said(&output));
}

#[tokio::test]
async fn sessions_stay_where_they_were() {
    let _shared = shared().await;
    let (rows, output) = run("sessions", &[], &["--sessions", "100"]);
    rows.iter().for_each(|row| assert_sound(row, &output));
    assert_eq!(rows[0]["picker"]["stayed"], 1.0, "{}", said(&output));
}

#[tokio::test]
async fn an_idle_picker_scrapes_what_is_due() {
    let _shared = shared().await;
    let (rows, output) = run("idle", &["1,000 as shipped"], &["--engines", "20"]);
    let notes = rows[0]["notes"].to_string();
    assert!(notes.contains("scrapes/s") && !notes.contains("\"0 scrapes"), "{notes} {}", said(&output));
}

/// The address in the line that a server of the harness prints when it listens.
async fn listening(process: &Process) -> String {
    let address = || process.log().lines().find_map(|l| l.strip_prefix("listening on ").map(str::to_owned));
    await_that("the server listens", || async { address().is_some() }).await;
    address().unwrap()
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("bench").args(arguments);
    command
}

fn load(folder: &Path, target: &str, arguments: &[&str]) -> (Value, Output) {
    let json = folder.join("load.json");
    let mut command =
        bench(&["load", "--no-floor", "--warm-up", "100ms", "--window", "400ms", "--target", target]);
    let output = command.args(arguments).arg("--json").arg(&json).output().unwrap();
    let text = std::fs::read(&json).unwrap_or_else(|_| panic!("{}", said(&output)));
    (serde_json::from_slice::<Value>(&text).unwrap()["rows"][0].clone(), output)
}

#[tokio::test]
async fn every_mode_and_pace_goes_through_without_an_error() {
    let _shared = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let echo = Process::start("echo", bench(&["echo"]), folder.path());
    let target = listening(&echo).await;
    for arguments in [
        &["--request", "buffered"][..],
        &["--request", "headers-only", "--subset", "10.0.0.1:8000,10.0.0.2"],
        &["--prompt-bytes", "300000", "--piece-bytes", "10000", "--concurrency", "4"],
        &["--rate", "200", "--arrivals", "fixed", "--connections", "3"],
        &["--chunk-rate", "2000", "--streams", "7"],
        &["--chunks", "20", "--concurrency", "2"],
        &["--sessions", "5", "--concurrency", "4"],
    ] {
        let (row, output) = load(folder.path(), &target, arguments);
        assert_eq!(row["picker"]["errors"], serde_json::json!({}), "{arguments:?}: {}", said(&output));
        assert!(row["picker"]["latency_us"]["values"].as_u64().unwrap() > 0, "{arguments:?}: {row:#}");
        // Nothing was measured to judge the generator by.
        assert!(row["picker"]["requests_per_s"].is_null(), "{arguments:?}: {row:#}");
    }
}

#[tokio::test]
async fn what_does_not_answer_is_an_error_and_never_a_figure() {
    let _shared = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let echo = Process::start("echo", bench(&["echo"]), folder.path());
    let target = listening(&echo).await;
    let (row, _output) = load(folder.path(), &target, &["--plaintext", "--concurrency", "2"]);
    assert_eq!(row["picker"]["latency_us"]["values"], 0);
    assert_ne!(row["picker"]["errors"], serde_json::json!({}));
    drop(echo);
    let output = bench(&["load", "--no-floor", "--target", &target]).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("cannot connect"), "{}", said(&output));
}

#[tokio::test]
async fn what_could_not_be_begun_counts_as_an_error() {
    let _shared = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let echo = Process::start("echo", bench(&["echo"]), folder.path());
    let target = listening(&echo).await;
    let (row, output) =
        load(folder.path(), &target, &["--rate", "20000", "--in-flight", "1", "--arrivals", "fixed"]);
    assert!(row["picker"]["errors"].to_string().contains("not begun: 1 under way"), "{}", said(&output));
}

#[tokio::test]
async fn the_hop_of_a_real_envoy_is_measured() {
    needs_envoy!("the_hop_of_a_real_envoy_is_measured");
    let _shared = shared().await;
    let envoy = super::support::envoy::install(&super::support::envoy::newest());
    let (rows, output) = run("proxy", &["no response bodies"], &["--envoy", envoy.to_str().unwrap()]);
    for side in ["picker", "floor"] {
        assert_eq!(rows[0][side]["errors"], serde_json::json!({}), "{side}: {}", said(&output));
        assert!(rows[0][side]["latency_us"]["values"].as_u64().unwrap() > 100, "{side}: {}", said(&output));
    }
    assert!(rows[0]["notes"].to_string().contains("the hop adds p50"), "{}", said(&output));
}
