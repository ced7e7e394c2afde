//! What Envoy answers when the picker is down, frozen or killed at work: exactly the table in `docs/envoy.md`.
//!
//! `POINTSMAN_BLESS=1` writes what was seen into that page instead of comparing.

use crate::needs_envoy;
use crate::support::client::{self, Body, Broken};
use crate::support::decoy::Decoy;
use crate::support::stack::{self, Plan, Stack};
use crate::support::{self, envoy};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const VARIANTS: [&str; 7] =
    ["full-duplex", "no-response-body", "buffered", "buffered-partial", "streamed", "none", "override-host"];

/// What can befall the picker, and the request that meets it.
const CASES: [&str; 6] = [
    "down, POST",
    "down, GET",
    "frozen, POST",
    "frozen, GET",
    "killed in the request body",
    "killed in the answer",
];

/// The stacks that run at once: they wait much more than they work.
const STACKS_AT_ONCE: usize = 7;

const BEGIN: &str = "<!-- failures: begin -->\n";
const END: &str = "<!-- failures: end -->";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_envoy_answers_without_a_picker_is_the_documented_table() {
    needs_envoy!("envoy_failures::what_envoy_answers_without_a_picker_is_the_documented_table");
    let _machine = support::shared().await;
    let mut runs = Vec::new();
    for version in envoy::versions() {
        for variant in VARIANTS {
            runs.extend([false, true].map(|allow| (version.clone(), variant, allow)));
        }
    }
    let seen: Seen = futures::stream::iter(runs)
        .map(|(version, variant, allow)| async move {
            let answers = answers_of(&version, variant, allow).await;
            let cells =
                answers.into_iter().enumerate().map(|(case, answer)| ((case, variant, allow), answer));
            (version, cells.collect::<Vec<_>>())
        })
        .buffer_unordered(STACKS_AT_ONCE)
        .fold(Seen::new(), |mut all, (version, answers)| async move {
            for (key, answer) in answers {
                all.entry(key).or_default().insert(version.clone(), answer);
            }
            all
        })
        .await;
    compare_with_page(&render(&seen));
}

/// Answers by Envoy version, for each case, configuration and failure mode.
type Seen = BTreeMap<(usize, &'static str, bool), BTreeMap<String, String>>;

/// One answer when all versions agree, else each with its version.
fn cell(answers: &BTreeMap<String, String>) -> String {
    let mut distinct: Vec<&String> = answers.values().collect();
    distinct.dedup();
    match distinct[..] {
        [one] => one.clone(),
        _ => {
            let each: Vec<String> =
                answers.iter().map(|(version, answer)| format!("{answer} ({version})")).collect();
            each.join(", ")
        }
    }
}

fn render(seen: &Seen) -> String {
    let mut table = "| the picker is | `failure_mode_allow` |".to_owned();
    table += &VARIANTS.iter().map(|variant| format!(" {variant} |")).collect::<String>();
    table += "\n|---|---|";
    table += &"---|".repeat(VARIANTS.len());
    for (case, name) in CASES.iter().enumerate() {
        for allow in [false, true] {
            table += &format!("\n| {name} | {allow} |");
            for variant in VARIANTS {
                table += &format!(" {} |", cell(&seen[&(case, variant, allow)]));
            }
        }
    }
    table + "\n"
}

fn compare_with_page(table: &str) {
    let path = support::source_root().join("docs/envoy.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("docs/envoy.md marks where the table begins");
    let (documented, after) = rest.split_once(END).expect("docs/envoy.md marks where the table ends");
    if std::env::var_os("POINTSMAN_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(table, documented, "docs/envoy.md (left: seen, right: documented)\n{table}");
    }
}

/// The answers of one installation, in the order of [`CASES`]. Every request carries forged control headers that name a
/// server of the test; none may ever reach it.
async fn answers_of(version: &str, variant: &str, allow: bool) -> Vec<String> {
    let decoy = Decoy::start().await;
    let mut stack = Plan::new(variant, version)
        .failure_mode_allow(allow)
        // The shipped limit is above any queue; here nothing queues and the test must not take so long.
        .edit("message_timeout: 1000s", "message_timeout: 2s")
        .edit(
            "connection_keepalive: { interval: 10s, timeout: 10s }",
            "connection_keepalive: { interval: 2s, timeout: 2s }",
        )
        .edit("- timeout: 2s\n          interval: 2s", "- timeout: 0.5s\n          interval: 0.5s")
        .decode_step("20ms")
        .start()
        .await;
    let mut answers = Vec::new();
    for post in [true, false] {
        stack.picker.process.kill();
        let at_once = outcome(send(&stack, post, &decoy).await);
        stack.envoy.await_picker_health(false).await;
        let later = outcome(send(&stack, post, &decoy).await);
        answers.push(either(at_once, later));
        restart(&mut stack).await;
    }
    for post in [true, false] {
        stack.picker.process.freeze().await;
        let at_once = outcome(send(&stack, post, &decoy).await);
        stack.envoy.await_picker_health(false).await;
        let later = outcome(send(&stack, post, &decoy).await);
        answers.push(either(at_once, later));
        stack.picker.process.signal("CONT");
        stack.envoy.await_picker_health(true).await;
        stack.await_serving().await;
    }
    answers.push(killed_in_request_body(&mut stack, &decoy).await);
    restart(&mut stack).await;
    answers.push(killed_in_answer(&mut stack, &decoy).await);
    assert_eq!(decoy.connections(), 0, "a forged destination was reached: {variant}, {version}, {allow}");
    answers
}

async fn restart(stack: &mut Stack) {
    stack.picker.process.kill();
    stack.envoy.await_picker_health(false).await;
    stack.picker.restart();
    stack.envoy.await_picker_health(true).await;
    stack.await_serving().await;
}

/// The answer before and after Envoy's health check has noticed.
fn either(at_once: String, later: String) -> String {
    if at_once == later { at_once } else { format!("{at_once}, then {later}") }
}

fn outcome(answer: Result<client::Answer, Broken>) -> String {
    match answer {
        Ok(answer) => answer.status.to_string(),
        Err(Broken { status: Some(status), .. }) => format!("{status} cut"),
        Err(Broken { status: None, .. }) => "reset".to_owned(),
    }
}

fn forged(request: http::request::Builder, decoy: &Decoy) -> http::request::Builder {
    let address = decoy.address();
    request
        .header("x-gateway-destination-endpoint", &address)
        .header("x-gateway-destination-endpoint-subset", &address)
        .header("x-gateway-destination-endpoint-served", &address)
        .header("x-prefiller-host-port", &address)
        .header("x-data-parallel-host-port", &address)
}

async fn send(stack: &Stack, post: bool, decoy: &Decoy) -> Result<client::Answer, Broken> {
    let (method, body) = if post { ("POST", client::full(chat(3))) } else { ("GET", client::empty()) };
    let request = forged(stack.client.request(method, "/echo"), decoy).body(body).unwrap();
    stack.client.send_within(Duration::from_secs(40), request).await
}

fn chat(max_tokens: u32) -> Bytes {
    let value = serde_json::json!({
        "model": stack::MODEL,
        "messages": [{"role": "user", "content": "Which way?"}],
        "max_tokens": max_tokens,
        "min_tokens": max_tokens,
        "ignore_eos": true,
        "stream": true,
    });
    value.to_string().into()
}

fn streaming(stack: &Stack, decoy: &Decoy, body: Body) -> Request<Body> {
    let request =
        stack.client.request("POST", "/v1/chat/completions").header("content-type", "application/json");
    forged(request, decoy).body(body).unwrap()
}

async fn killed_in_request_body(stack: &mut Stack, decoy: &Decoy) -> String {
    let (mut writer, body) = client::by_hand();
    let request = streaming(stack, decoy, body);
    let client = stack.client.clone();
    let answer = tokio::spawn(async move { client.send_within(Duration::from_secs(40), request).await });
    let (first, second) = {
        let whole = chat(3);
        let (a, b) = (whole.slice(..40), whole.slice(40..));
        (a, b)
    };
    writer.send(Ok(Frame::data(first))).await.unwrap();
    tokio::time::sleep(stack::MOMENT).await;
    stack.picker.process.kill();
    tokio::time::sleep(stack::MOMENT).await;
    writer.send(Ok(Frame::data(second))).await.ok();
    drop(writer);
    outcome(answer.await.unwrap())
}

async fn killed_in_answer(stack: &mut Stack, decoy: &Decoy) -> String {
    let request = streaming(stack, decoy, client::full(chat(100)));
    let mut response = stack.client.open(request).await.unwrap();
    let first = response.frame().await.expect("an event").expect("an event");
    stack.picker.process.kill();
    let mut text = first.into_data().unwrap().to_vec();
    let rest = tokio::time::timeout(Duration::from_secs(40), client::read(response)).await.expect("an end");
    match rest {
        Ok(answer) => {
            text.extend_from_slice(&answer.body);
            let whole = text.ends_with(b"data: [DONE]\n\n");
            format!("{} {}", answer.status, if whole { "whole" } else { "ended early" })
        }
        broken => outcome(broken),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_picker_costs_no_more_than_the_pings_and_new_requests_nothing() {
    needs_envoy!("envoy_failures::a_frozen_picker_costs_no_more_than_the_pings_and_new_requests_nothing");
    let _machine = support::shared().await;
    let mut stack = Plan::new("full-duplex", &envoy::newest()).start().await;
    stack.picker.process.freeze().await;
    let frozen = Instant::now();
    let waiting = stack.client.post("/echo", chat(3));
    let later = async {
        stack.envoy.await_picker_health(false).await;
        let noticed = frozen.elapsed();
        let sent = Instant::now();
        let answer = stack.client.post("/echo", chat(3)).await.unwrap();
        (noticed, sent.elapsed(), answer.status)
    };
    let (first, (noticed, took, status)) = tokio::join!(waiting, later);
    let ended = frozen.elapsed();
    println!("frozen picker: noticed after {noticed:?}, the waiting request ended after {ended:?}");
    assert!(noticed < Duration::from_secs(10), "noticed after {noticed:?}");
    assert!(took < Duration::from_secs(1), "a new request was answered after {took:?}");
    assert_eq!(status, 500);
    assert!(ended < Duration::from_secs(30), "the waiting request ended after {ended:?}");
    assert_eq!(first.unwrap().status, 500);
    stack.picker.process.signal("CONT");
    stack.envoy.await_picker_health(true).await;
    stack.await_serving().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_listening_to_the_first_good_request() {
    needs_envoy!("envoy_failures::from_listening_to_the_first_good_request");
    let _machine = support::shared().await;
    let mut stack = Plan::new("full-duplex", &envoy::newest()).start().await;
    stack.picker.process.kill();
    stack.envoy.await_picker_health(false).await;
    stack.picker.restart();
    let port = stack.picker.grpc_port;
    support::await_that("the picker listens", || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
    let listening = Instant::now();
    stack.await_serving().await;
    let took = listening.elapsed();
    println!("from listening to the first good request: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_destination_never_arrives_with_the_picker_up() {
    needs_envoy!("envoy_failures::a_forged_destination_never_arrives_with_the_picker_up");
    let _machine = support::shared().await;
    for variant in VARIANTS {
        let decoy = Decoy::start().await;
        let stack = Plan::new(variant, &envoy::newest()).start().await;
        for post in [true, false] {
            let answer = send(&stack, post, &decoy).await.unwrap();
            assert_eq!(answer.status, 200, "{variant}");
            let received = answer.received("x-gateway-destination-endpoint");
            assert_eq!(received, [answer.header("x-inference-pod")], "{variant}");
            let everything = answer.json()["headers"].to_string();
            assert!(!everything.contains(&decoy.address()), "{variant}: {everything}");
        }
        assert_eq!(decoy.connections(), 0, "{variant}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picker_that_drains_gets_no_new_requests_and_finishes_the_old_ones() {
    needs_envoy!("envoy_failures::a_picker_that_drains_gets_no_new_requests_and_finishes_the_old_ones");
    let _machine = support::shared().await;
    let decoy = Decoy::start().await;
    let mut stack = Plan::new("full-duplex", &envoy::newest()).decode_step("40ms").start().await;
    let mut response = stack.client.open(streaming(&stack, &decoy, client::full(chat(200)))).await.unwrap();
    response.frame().await.expect("an event").expect("an event");
    stack.picker.process.signal("TERM");
    stack.envoy.await_picker_health(false).await;
    assert_eq!(outcome(send(&stack, true, &decoy).await), "500", "no picker is left for new requests");
    let whole = client::read(response).await.unwrap();
    assert!(whole.body.ends_with(b"data: [DONE]\n\n"), "the old request ends well");
    support::await_that("the picker ends by itself", || {
        let running = stack.picker.process.is_running();
        async move { !running }
    })
    .await;
    assert_eq!(stack.picker.error_lines(), Vec::<String>::new());
}
