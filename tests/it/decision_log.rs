//! The decision log of the shipped program: what happened stands in it, can be replayed, tells no secret, and stops nobody.

use crate::needs_envoy;
use crate::support::client::{self, Client};
use crate::support::process::Process;
use crate::support::stack::{MODEL, Plan, Stack};
use crate::support::{self, envoy};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

const METRIC: &str = "pointsman_decision_log_lines_total";

fn plan(log: &Path, more: &[&str]) -> Plan {
    let to = format!("--decision-log={}", log.display());
    Plan::new("full-duplex", &envoy::newest()).picker(&[&to]).picker(more)
}

/// One turn of a conversation: `text` is all that was said.
async fn turn(client: &Client, session: &str, text: &str) {
    let body = json!({"model": MODEL, "prompt": text, "max_tokens": 3, "ignore_eos": true});
    let request = client.request("POST", "/v1/completions").header("content-type", "application/json");
    let request = request.header("x-session-id", session).header("authorization", "Bearer bearer-91bc");
    let answer = client.send(request.body(client::full(body.to_string())).unwrap()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
}

/// Words that no other text has.
fn words(seed: &str, count: usize) -> String {
    (0..count).map(|i| format!("{seed}-{i} ")).collect()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last one may be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of completions, once there are `count`.
async fn completions(path: &Path, count: usize) -> Vec<Value> {
    let of = |path: &Path| -> Vec<Value> {
        lines(path).into_iter().filter(|line| line["model"] == MODEL).collect()
    };
    support::await_that("the lines are written", || async { of(path).len() >= count }).await;
    of(path)
}

/// The line with its arrival so many minutes after 1970: each turn came when the one before had ended, and does so in a
/// replay whose engines are slower.
fn spread(line: &Value, minute: u32) -> String {
    let mut line = line.clone();
    line["at_ms"] = json!(minute * 60_000);
    format!("{line}\n")
}

fn sum(lines: &[Value], field: &str) -> u64 {
    lines.iter().map(|line| line[field].as_u64().unwrap_or_else(|| panic!("{field} of {line}"))).sum()
}

fn replayed(trace: &Path, folder: &Path) -> Value {
    let out = folder.join("replayed.json");
    let mut command = Command::new(support::program());
    command.arg("replay").arg(trace).args(["--engines", "2", "--json"]).arg(&out);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice::<Value>(&std::fs::read(out).unwrap()).unwrap()[0].clone()
}

/// Tells the picker to end, and waits until it has.
async fn await_end(picker: &mut Process) {
    picker.signal("TERM");
    support::await_that("the picker ends", || std::future::ready(!picker.is_running())).await;
}

/// All turns of each session, one session after the other: the answer of a cache does not depend on who is quicker. No two
/// sessions begin alike, or it would depend on whose engine a new one happens to be sent to.
async fn converse(stack: &Stack, sessions: &[&str], turns: usize) {
    for session in sessions {
        let mut said = words(&format!("system-{session}"), 60);
        for turn_number in 0..turns {
            said += &words(&format!("{session}-{turn_number}"), 160);
            turn(&stack.client, session, &said).await;
            stack.await_idle().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_is_logged_and_can_be_replayed() {
    needs_envoy!("decision_log::what_happened_is_logged_and_can_be_replayed");
    let _machine = support::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("decisions.jsonl");
    let mut stack = plan(&log, &[]).start().await;
    let sessions = ["session-a11e", "session-b22f", "session-c330", "session-d441"];
    converse(&stack, &sessions, 5).await;
    let lines = completions(&log, 20).await;
    assert_eq!(lines.len(), 20);

    let mut turns: BTreeMap<&str, usize> = BTreeMap::new();
    let picked: BTreeSet<String> = (0..2).map(|i| format!("default/engine-{i}")).collect();
    for line in &lines {
        *turns.entry(line["session"].as_str().unwrap()).or_default() += 1;
        assert_eq!(
            (&line["outcome"], &line["status"], &line["output_tokens"]),
            (&json!("natural"), &json!(200), &json!(3))
        );
        assert!(picked.contains(line["endpoints"][0].as_str().unwrap()), "{line}");
        let blocks = line["blocks"].as_array().unwrap().len() as u64;
        assert_eq!(blocks, line["prompt_tokens"].as_u64().unwrap().div_ceil(64), "{line}");
    }
    assert_eq!(turns.values().collect::<Vec<_>>(), [&5; 4], "four sessions of five turns");
    let arrivals: Vec<f64> = lines.iter().map(|line| line["at_ms"].as_f64().unwrap()).collect();
    assert!(arrivals.windows(2).all(|pair| pair[0] < pair[1]), "one after the other: {arrivals:?}");

    // The engines' own count of what they found in their caches against that of the replay.
    let happened =
        sum(&lines, "reported_cached_tokens") as f64 / sum(&lines, "reported_prompt_tokens") as f64;
    let told: String = (0..).zip(&lines).map(|(minute, line)| spread(line, minute)).collect();
    let trace = folder.path().join("trace.jsonl");
    std::fs::write(&trace, told).unwrap();
    let outcome = replayed(&trace, folder.path());
    assert_eq!((&outcome["requests"], &outcome["answered"]), (&json!(20), &json!(20)), "{outcome}");
    let hit_rate = outcome["hit_rate"].as_f64().unwrap();
    assert!(happened > 0.5 && (hit_rate - happened).abs() < 0.05, "{hit_rate} of {happened}");
    let estimated = sum(&lines, "prompt_tokens") as f64 / sum(&lines, "reported_prompt_tokens") as f64;
    assert!((estimated - 1.0).abs() < 0.05, "{estimated} of the tokens that the engines counted");
    // The whole file, with the requests of the start in it, can be replayed as well.
    assert!(replayed(&log, folder.path())["requests"].as_u64().unwrap() >= 20);

    let text = std::fs::read_to_string(&log).unwrap();
    for secret in ["system-", "-0-0 ", "bearer-91bc", "session-a11e", "authorization"] {
        assert!(!text.contains(secret), "{secret} stands in the log");
    }
    stack.assert_clean().await;

    // What waits is written before the process ends.
    turn(&stack.client, "session-a11e", "the last words").await;
    await_end(&mut stack.picker.process).await;
    let all = self::lines(&log);
    assert_eq!(all.iter().filter(|line| line["model"] == MODEL).count(), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_sessions_are_sampled_and_the_file_may_be_moved() {
    needs_envoy!("decision_log::whole_sessions_are_sampled_and_the_file_may_be_moved");
    let _machine = support::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let (log, key) = (folder.path().join("decisions.jsonl"), folder.path().join("key"));
    std::fs::write(&key, "of thirty-two letters, or nearly").unwrap();
    let key = format!("--decision-log-key-file={}", key.display());
    let mut stack = plan(&log, &["--decision-log-sample=0.5", &key]).start().await;
    let names: Vec<String> = (0..24).map(|i| format!("s{i}")).collect();
    for round in 0..3 {
        for name in &names {
            turn(&stack.client, name, &words(&format!("{name} {round}"), 5)).await;
        }
    }
    stack.await_idle().await;
    let of = |lines: &[Value]| {
        let mut turns: BTreeMap<String, usize> = BTreeMap::new();
        for line in lines.iter().filter(|line| line["model"] == MODEL) {
            *turns.entry(line["session"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        turns
    };
    support::await_that("what was sampled is written", || async {
        let turns = of(&lines(&log));
        turns.len() >= 4 && turns.values().all(|n| *n == 3)
    })
    .await;

    // Moved away: after SIGHUP what is new stands in a new file. A restart keeps the key, so the same sessions.
    let moved = folder.path().join("decisions.1");
    std::fs::rename(&log, &moved).unwrap();
    stack.picker.process.signal("HUP");
    support::await_that("a new file is written", || async {
        for name in &names {
            turn(&stack.client, name, "again").await;
        }
        log.exists()
    })
    .await;
    stack.picker.restart();
    stack.await_serving().await;
    for name in &names {
        turn(&stack.client, name, "after a restart").await;
    }
    let sessions = |path: &Path| of(&lines(path)).into_keys().collect::<BTreeSet<_>>();
    support::await_that("the same sessions are written", || async { sessions(&log) == sessions(&moved) })
        .await;
    let turns = of(&lines(&moved));
    assert!(
        turns.len() <= 20 && turns.values().all(|n| *n >= 3),
        "about half of 24 sessions, whole ones: {turns:?}"
    );
    let page = stack.picker.metrics().await;
    assert!(
        page.sum(METRIC, &[("outcome", "written")]) > 0.0
            && page.sum(METRIC, &[("outcome", "dropped")]) < 0.5
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_stops_nobody() {
    needs_envoy!("decision_log::a_log_that_nobody_reads_stops_nobody");
    let _machine = support::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut stack = plan(&pipe, &["--decision-log-queue=8"]).start().await;
    let dropped = |page: &support::metrics::Page| page.sum(METRIC, &[("outcome", "dropped")]);
    for i in 0..60 {
        turn(&stack.client, &format!("s{i}"), "nobody reads this").await;
    }
    stack.await_idle().await;
    let page = stack.picker.metrics().await;
    let lost = dropped(&page);
    // The thread holds what it took before it began to wait, the queue eight more.
    assert!(lost >= 40.0, "{lost} were dropped");
    assert!(page.sum(METRIC, &[("outcome", "written")]) < 0.5, "nothing was written");
    stack.assert_clean().await;
    assert!(stack.picker.process.log().contains("not written fast enough"));
    // Nor does it stop the end of the process.
    await_end(&mut stack.picker.process).await;
}

#[tokio::test]
async fn a_place_that_cannot_be_written_to_ends_the_start() {
    let _machine = support::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short");
    std::fs::write(&short, "tooshort").unwrap();
    let nowhere = "--decision-log=/nonexistent/d.jsonl";
    let to = format!("--decision-log={}", folder.path().join("d.jsonl").display());
    let short = format!("--decision-log-key-file={}", short.display());
    for (flags, wanted) in [
        (vec![nowhere], "--decision-log: cannot write to /nonexistent/d.jsonl"),
        (vec![&*to, &*short], "has 8 bytes and needs at least 16 random ones"),
    ] {
        let endpoints = folder.path().join("endpoints.yaml");
        support::stack::write_endpoints(&endpoints, &[]);
        let mut command = Command::new(support::program());
        command.args(["epp", "--pool-name=it", "--endpoints-file"]).arg(&endpoints).args(&flags);
        command.args(["--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0"]);
        let ended = command.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && said.contains(wanted), "{flags:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_counted_and_told_and_requests_go_on() {
    needs_envoy!("decision_log::a_full_disk_is_counted_and_told_and_requests_go_on");
    let _machine = support::shared().await;
    let stack = plan(Path::new("/dev/full"), &[]).start().await;
    for i in 0..5 {
        turn(&stack.client, &format!("s{i}"), "no room for this").await;
    }
    support::await_that("what was not written is counted", || async {
        stack.picker.metrics().await.sum(METRIC, &[("outcome", "failed")]) >= 5.0
    })
    .await;
    let told = stack.picker.error_lines();
    assert!(told.len() == 1 && told[0].contains("No space left on device"), "{told:?}");
}
