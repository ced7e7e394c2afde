//! Exchanges out of the ordinary, in each body mode: upgrades, trailers both ways, answers without a body, answers before
//! the request ended, clients that go away.

use crate::envoy_connect;
use crate::needs_envoy;
use crate::support::client::{self, Answer, Client};
use crate::support::odd::OddEngine;
use crate::support::stack::{self, Plan, Stack};
use crate::support::{self, envoy};
use bytes::Bytes;
use futures::SinkExt;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Makes Envoy speak HTTP/2 to the engines, which it needs to pass trailers on.
const TO_ENGINES: &str = "      connect_timeout: 2s\n      per_connection_buffer_limit_bytes:";
const HTTP2_TO_ENGINES: &str = "      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: {} }
      connect_timeout: 2s
      per_connection_buffer_limit_bytes:";

fn body() -> Bytes {
    let chat =
        serde_json::json!({"model": stack::MODEL, "messages": [{"role": "user", "content": "weiter 🚂"}]});
    chat.to_string().into()
}

async fn odd_exchanges(variant: &str) {
    let _machine = support::shared().await;
    for version in envoy::versions() {
        let engine = OddEngine::start().await;
        let plan = Plan::new(variant, &version).own_engines(&[engine.port]);
        let stack = envoy_connect::with_tunnels(plan).start().await;
        let what = format!("{variant}, Envoy {version}");
        answers_without_a_body(&stack, &what).await;
        an_early_answer(&stack, &what).await;
        an_upgrade(&stack, &what).await;
        envoy_connect::tunnels(&stack, engine.port, &what).await;
        stack.await_idle().await;
        stack.assert_clean().await;
        drop(stack);
        let plan =
            Plan::new(variant, &version).own_engines(&[engine.port]).edit(TO_ENGINES, HTTP2_TO_ENGINES);
        let stack = plan.start().await;
        trailers_both_ways(&stack, &what, variant).await;
        stack.await_idle().await;
        stack.assert_clean().await;
        envoy_connect::refused(&stack, &what).await;
        stack.await_idle().await;
    }
}

async fn answers_without_a_body(stack: &Stack, what: &str) {
    for (path, status) in [("/no-content", 204), ("/reset-content", 205), ("/not-modified", 304)] {
        let answer = stack.client.post(path, body()).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{what}: POST {path}");
        let answer = stack.client.get(path).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{what}: GET {path}");
    }
    let head = stack.client.request("HEAD", "/echo").body(client::empty()).unwrap();
    assert_eq!(stack.client.send(head).await.unwrap().status, 200, "{what}: HEAD");
}

/// The engine answers while the request's body is still on its way.
async fn an_early_answer(stack: &Stack, what: &str) {
    let answer = stack.client.post("/early", body()).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (402, &b"no credit"[..]), "{what}");
}

async fn an_upgrade(stack: &Stack, what: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", stack.envoy.port)).await.unwrap();
    let request = "GET /upgrade HTTP/1.1\r\nhost: it\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, b"\r\n\r\n", what).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{what}: {head}");
    for message in ["one way\n", "and another\n"] {
        stream.write_all(message.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut stream, b"\n", what).await, message, "{what}");
    }
}

async fn read_until(stream: &mut TcpStream, end: &[u8], what: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !text.ends_with(end) {
            text.push(stream.read_u8().await.unwrap());
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), reading).await.is_ok();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(in_time, "{what}: nothing more after {text:?}");
    text
}

async fn trailers_both_ways(stack: &Stack, what: &str, variant: &str) {
    let client = Client::http2(stack.envoy.port);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("abc"));
    let with = client.request("POST", "/trailers").body(client::with_trailers(body(), trailers)).unwrap();
    let answer = client.send(with).await.unwrap();
    assert_trailers(&answer, Some("abc"), &format!("{what}: with request trailers"));
    let without = client.request("POST", "/trailers").body(client::full(body())).unwrap();
    assert_trailers(&client.send(without).await.unwrap(), None, &format!("{what}: without"));
    let only = client.request("GET", "/trailers-only").body(client::empty()).unwrap();
    let answer = client.send(only).await.unwrap();
    assert_eq!(answer.trailers.expect("trailers")["x-end"], "1", "{what}, {variant}: trailers after no body");
}

fn assert_trailers(answer: &Answer, checksum: Option<&str>, what: &str) {
    assert_eq!(answer.status, 200, "{what}");
    assert_eq!(answer.body, body(), "{what}");
    let trailers = answer.trailers.as_ref().unwrap_or_else(|| panic!("{what}: no trailers"));
    assert_eq!(trailers["x-bytes"], body().len().to_string(), "{what}");
    assert_eq!(trailers.get("x-checksum-received").map(|v| v.to_str().unwrap()), checksum, "{what}");
}

macro_rules! odd {
    ($name:ident, $variant:literal) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            needs_envoy!(concat!("envoy_odd::", stringify!($name)));
            odd_exchanges($variant).await;
        }
    };
}

odd!(odd_full_duplex, "full-duplex");
odd!(odd_no_response_body, "no-response-body");
odd!(odd_buffered, "buffered");
odd!(odd_buffered_partial, "buffered-partial");
odd!(odd_streamed, "streamed");
odd!(odd_none, "none");
odd!(odd_override_host, "override-host");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_at_any_point_leave_nothing_behind() {
    needs_envoy!("envoy_odd::clients_that_leave_at_any_point_leave_nothing_behind");
    let _machine = support::shared().await;
    let stack = Plan::new("full-duplex", &envoy::newest()).decode_step("20ms").start().await;
    for round in 0..60 {
        let client = Client::new(stack.envoy.port);
        let (mut writer, upload) = client::by_hand();
        let request =
            client.request("POST", "/v1/chat/completions").header("content-type", "application/json");
        let request = request.body(upload).unwrap();
        let exchange = tokio::spawn(async move { client.send(request).await });
        let whole = body();
        let part = if round % 2 == 0 { whole.slice(..20) } else { whole };
        writer.send(Ok(Frame::data(part))).await.unwrap();
        if round % 2 == 1 {
            drop(writer);
        }
        tokio::time::sleep(Duration::from_millis(round % 5 * 10)).await;
        exchange.abort();
    }
    stack.await_idle().await;
    assert_eq!(stack.picker.error_lines(), Vec::<String>::new());
    let answer = stack.client.post("/echo", body()).await.unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stands_still_is_408() {
    needs_envoy!("envoy_odd::a_body_that_stands_still_is_408");
    let _machine = support::shared().await;
    let plan = Plan::new("full-duplex", &envoy::newest()).picker(&["--request-body-idle-timeout=1s"]);
    let stack = plan.start().await;
    let (mut writer, upload) = client::by_hand();
    let request = stack.client.request("POST", "/v1/chat/completions").body(upload).unwrap();
    let client = stack.client.clone();
    let exchange = tokio::spawn(async move { client.send_within(Duration::from_secs(30), request).await });
    writer.send(Ok(Frame::data(body().slice(..20)))).await.unwrap();
    let answer = exchange.await.unwrap().unwrap();
    assert_eq!(answer.status, 408, "{}", String::from_utf8_lossy(&answer.body));
    assert!(answer.json()["error"]["message"].is_string());
    stack.await_idle().await;
}
