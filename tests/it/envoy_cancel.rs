//! Clients that go away by the thousand: each is a reset of a stream on the one connection that carries everybody's
//! requests between Envoy and picker, and that connection has to live on.

use crate::needs_envoy;
use crate::support::client::{self, Client};
use crate::support::stack::{self, Plan, Stack};
use crate::support::{self, envoy};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::json;
use std::time::{Duration, Instant};

const COUNT: u64 = 10_000;
/// Out of how many some leave while the picker stands still: all but those that would wait for an answer.
const PAUSED: u64 = 6_000;
/// Where a client leaves.
const PLACES: u64 = 3;

fn chat(number: u64) -> Bytes {
    let value = json!({
        "model": stack::MODEL,
        "messages": [{"role": "user", "content": format!("question {}", number % 100)}],
        "max_tokens": 1_000,
        "ignore_eos": true,
        "stream": true,
    });
    value.to_string().into()
}

/// Opens a request and drops it: with half of the body sent, after the whole of it, or in the midst of the answer.
async fn leave(client: &Client, number: u64) {
    let request = client.request("POST", "/v1/chat/completions").header("content-type", "application/json");
    let (mut writer, upload) = client::by_hand();
    let exchange = tokio::spawn({
        let (client, request) = (client.clone(), request.body(upload).unwrap());
        async move { client.open(request).await }
    });
    let whole = chat(number);
    match number % PLACES {
        0 => {
            writer.send(Ok(Frame::data(whole.slice(..40)))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(number % 7)).await;
        }
        1 => {
            writer.send(Ok(Frame::data(whole))).await.unwrap();
            drop(writer);
            tokio::time::sleep(Duration::from_millis(number % 5)).await;
        }
        _ => {
            writer.send(Ok(Frame::data(whole))).await.unwrap();
            drop(writer);
            let mut answer = exchange.await.unwrap().unwrap();
            assert_eq!(answer.status(), 200, "request {number}");
            answer.frame().await.expect("an event").expect("an event");
            return;
        }
    }
    exchange.abort();
}

/// Connections from Envoy to the picker: opened, closed, and told to go (GOAWAY) so far.
async fn connections(stack: &Stack) -> [u64; 3] {
    let envoy = &stack.envoy;
    [
        envoy.stat("cluster.picker.upstream_cx_total").await,
        envoy.stat("cluster.picker.upstream_cx_destroy").await,
        envoy.stat("cluster.picker.upstream_cx_close_notify").await,
    ]
}

/// Answers go on far longer than their clients stay.
async fn slow_answers() -> Stack {
    let plan = Plan::new("full-duplex", &envoy::newest()).decode_step("50ms");
    plan.engine(&["--max-num-seqs=4096"]).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cancelled_requests_leave_the_connection_alive() {
    needs_envoy!("envoy_cancel::ten_thousand_cancelled_requests_leave_the_connection_alive");
    let _machine = support::alone().await;
    let stack = slow_answers().await;
    let client = &stack.client;
    let before = connections(&stack).await;
    let start = Instant::now();
    futures::stream::iter(0..COUNT).for_each_concurrent(64, |number| leave(client, number)).await;
    let took = start.elapsed();
    stack.await_idle().await;
    let page = stack.picker.metrics().await;
    let endings = page.by("pointsman_requests_ended_total", "ending");
    println!("{COUNT} requests left by their clients within {took:.1?}: {endings:?}; connections {before:?}");
    assert_eq!(page.sum("llm_d_epp_request_running", &[]), 0.0, "nothing runs any more");
    let left = endings.get("disconnected").copied().unwrap_or(0.0);
    assert!(left >= (COUNT / PLACES) as f64, "those that left in the answer are known as such: {endings:?}");
    let answer = stack.client.get("/echo").await.unwrap();
    assert_eq!(answer.status, 200, "a good request is served");
    assert_eq!(
        connections(&stack).await,
        before,
        "over the same connection to the picker: opened, closed, told to go"
    );
    assert_eq!(stack.picker.error_lines(), Vec::<String>::new());
}

/// What waits in Envoy while the picker stands still is no reason to close the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_while_the_picker_pauses_leave_the_connection_alive() {
    needs_envoy!("envoy_cancel::clients_that_leave_while_the_picker_pauses_leave_the_connection_alive");
    let _machine = support::alone().await;
    let mut stack = slow_answers().await;
    let client = stack.client.clone();
    let before = connections(&stack).await;
    stack.picker.process.freeze().await;
    // Enough to fill what the kernel keeps for a connection, so that the rest waits in Envoy.
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..160 {
        let body = client::full(vec![b'7'; 512 << 10]);
        let request = client.request("POST", "/echo").body(body).unwrap();
        let client = client.clone();
        uploads.spawn(async move { client.send(request).await });
    }
    let arrived =
        || async { stack.envoy.stat("cluster.picker.upstream_cx_tx_bytes_buffered").await > 8 << 20 };
    support::await_that("the uploads wait in Envoy", arrived).await;
    let leaving = (0..PAUSED).filter(|number| number % PLACES != 2);
    let left = leaving.clone().count();
    futures::stream::iter(leaving).for_each_concurrent(64, |number| leave(&client, number)).await;
    stack.picker.process.signal("CONT");
    let uploads = uploads.join_all().await;
    let whole =
        uploads.iter().filter(|answer| answer.as_ref().is_ok_and(|answer| answer.status == 200)).count();
    println!("{whole} of {} uploads outlast {left} clients that leave", uploads.len());
    assert_eq!(whole, uploads.len(), "{uploads:?}");
    stack.await_idle().await;
    stack.await_serving().await;
    assert_eq!(connections(&stack).await, before, "the same connection: opened, closed, told to go");
}
