//! Many requests, many streams at once: nothing fails, nothing stays behind.
//!
//! The `long_` tests are the full sizes and run by `make test-long`; the others are the same in small for `make test`.

use crate::needs_envoy;
use crate::support::client::{self, Client};
use crate::support::stack::{self, Plan, Stack};
use crate::support::{self, envoy};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::json;
use std::time::Instant;

const MIB: u64 = 1 << 20;

/// A chat request. Prompts come again after a thousand, so that what the picker remembers of them, which has a bound of
/// its own, is the same after the first requests as at the end.
fn chat(number: u64, max_tokens: u32) -> Bytes {
    let number = number % 1_000;
    let value = json!({
        "model": stack::MODEL,
        "messages": [{"role": "user", "content": format!("{number}: {}", "abcdefgh ".repeat(number as usize % 60))}],
        "max_tokens": max_tokens,
        "ignore_eos": true,
        "stream": true,
    });
    value.to_string().into()
}

async fn stream_through(client: &Client, number: u64) {
    let answer = client.post("/v1/chat/completions", chat(number, 3)).await;
    let answer = answer.unwrap_or_else(|broken| panic!("request {number}: {broken:?}"));
    assert_eq!(answer.status, 200, "request {number}: {}", String::from_utf8_lossy(&answer.body));
    assert!(answer.body.ends_with(b"data: [DONE]\n\n"), "request {number} ended early");
}

async fn requests(client: &Client, numbers: std::ops::Range<u64>, at_once: usize) {
    futures::stream::iter(numbers)
        .for_each_concurrent(at_once, |number| stream_through(client, number))
        .await;
}

/// Opens `count` streams, waits until the picker has them all, and lets them end.
async fn streams_at_once(stack: &Stack, count: usize) {
    let client = &stack.client;
    let open = |number: u64| async move {
        let request =
            client.request("POST", "/v1/chat/completions").header("content-type", "application/json");
        let request = request.body(client::full(chat(number, 2))).unwrap();
        let mut answer = client.open(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.frame().await.expect("an event").expect("an event");
        answer
    };
    let answers: Vec<_> =
        futures::stream::iter(0..count as u64).map(open).buffer_unordered(256).collect().await;
    let at_once = stack.picker.metrics().await.sum("pointsman_streams_open", &[]);
    assert!(at_once >= count as f64, "{at_once} streams of {count} at once");
    let reading = futures::stream::iter(answers).map(client::read).buffer_unordered(256);
    let whole = reading.filter(|answer| std::future::ready(answer.is_ok())).count().await;
    assert_eq!(whole, count, "every stream ends well");
    println!("{at_once} streams were open at once");
}

/// `first` requests set the level, `all` requests and `at_once` streams must not raise it by more than a tenth.
async fn load_leaves_nothing_behind(first: u64, all: u64, at_once: usize) {
    let quick = Plan::new("full-duplex", &envoy::newest()).engines(4).start().await;
    requests(&quick.client, 0..first, 64).await;
    quick.await_idle().await;
    let (memory, files) = (quick.picker.process.resident_bytes(), quick.picker.process.open_files());
    let start = Instant::now();
    requests(&quick.client, first..all, 64).await;
    let rate = (all - first) as f64 / start.elapsed().as_secs_f64();
    quick.await_idle().await;
    let (after, files_after) = (quick.picker.process.resident_bytes(), quick.picker.process.open_files());
    println!(
        "{all} requests through Envoy, {rate:.0}/s: memory {} MiB after {first}, {} MiB at the end; descriptors {files}, {files_after}",
        memory / MIB,
        after / MIB
    );
    quick.assert_clean().await;
    assert!(after as f64 <= memory as f64 * 1.1, "memory grew from {memory} to {after}");
    assert!(files_after <= files + 8, "descriptors grew from {files} to {files_after}");
    drop(quick);

    // A long pause after the first token, so that all streams are open before the first one ends.
    let pause = format!("--inter-token-latency={}s", 6 + at_once / 150);
    let slow = Plan::new("full-duplex", &envoy::newest())
        .engines(4)
        .engine(&["--max-num-seqs=4096", "--time-to-first-token=1ms", &pause])
        .start()
        .await;
    let files = slow.picker.process.open_files();
    streams_at_once(&slow, at_once).await;
    slow.await_idle().await;
    slow.assert_clean().await;
    assert!(slow.picker.process.open_files() <= files + 16, "descriptors are back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_requests_and_hundreds_of_streams_leave_nothing_behind() {
    needs_envoy!("envoy_scale::thousands_of_requests_and_hundreds_of_streams_leave_nothing_behind");
    let _machine = support::alone().await;
    load_leaves_nothing_behind(3_000, 9_000, 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-long"]
async fn long_hundred_thousand_requests_and_five_thousand_streams_leave_nothing_behind() {
    needs_envoy!(
        "envoy_scale::long_hundred_thousand_requests_and_five_thousand_streams_leave_nothing_behind"
    );
    let _machine = support::alone().await;
    load_leaves_nothing_behind(10_000, 100_000, 5_000).await;
}
