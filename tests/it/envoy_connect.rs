//! Tunnels: `CONNECT` and, over HTTP/2, extended CONNECT. They have no end of body, so the picker decides on the headers,
//! and then bytes flow both ways through Envoy, picker and engine. Used for each body mode by `envoy_odd`.

use crate::support::client;
use crate::support::stack::{Plan, Stack};
use http::{Method, Request};
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// More than one window of a stream.
const LARGE: usize = 3 << 20;

/// Lets Envoy take tunnels, which a configuration for a public address does not.
pub fn with_tunnels(plan: Plan) -> Plan {
    let route = "                        - match: { prefix: \"/\" }\n";
    let connect = "                        - match: { connect_matcher: {} }
                          route: { cluster: engines, timeout: 0s, upgrade_configs: [{ upgrade_type: CONNECT }] }\n";
    plan.edit(route, &format!("{connect}{route}")).edit(
        "                http2_protocol_options:\n                  max_concurrent_streams",
        "                http2_protocol_options:\n                  allow_connect: true\n                  max_concurrent_streams",
    )
}

/// Both kinds of tunnel, one pick each.
pub async fn tunnels(stack: &Stack, engine: u16, what: &str) {
    let before = picks(stack).await;
    let stream = connect(stack, engine, what).await;
    passes(stream, &format!("{what}: CONNECT")).await;
    extended(stack, what).await;
    assert_eq!(picks(stack).await - before, 3.0, "{what}: two tunnels and a plain request, one pick each");
}

/// Without the changes of [`with_tunnels`] Envoy itself says no, at once. It has asked the picker by then, and ends that
/// exchange without a word about the answer.
pub async fn refused(stack: &Stack, what: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", stack.envoy.port)).await.unwrap();
    stream.write_all(b"CONNECT engine.test:443 HTTP/1.1\r\nhost: engine.test:443\r\n\r\n").await.unwrap();
    let head = head(&mut stream, what).await;
    assert!(head.starts_with("HTTP/1.1 404"), "{what}: {head}");
}

async fn picks(stack: &Stack) -> f64 {
    stack.picker.metrics().await.sum("llm_d_epp_scheduler_attempts_total", &[("status", "success")])
}

/// `CONNECT` of HTTP/1.1, as a client behind a proxy sends it.
async fn connect(stack: &Stack, engine: u16, what: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", stack.envoy.port)).await.unwrap();
    stream.write_all(b"CONNECT engine.test:443 HTTP/1.1\r\nhost: engine.test:443\r\n\r\n").await.unwrap();
    let head = head(&mut stream, what).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{what}: {head}");
    let mark = format!("x-inference-pod: 127.0.0.1:{engine}\r\n");
    assert!(head.contains(&mark), "{what}: the engine that was picked answers: {head}");
    stream
}

/// A WebSocket over HTTP/2: extended CONNECT (RFC 8441).
async fn extended(stack: &Stack, what: &str) {
    let stream = TcpStream::connect(("127.0.0.1", stack.envoy.port)).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let uri = |path: &str| format!("http://127.0.0.1:{}{path}", stack.envoy.port);
    // Envoy's settings, which allow what follows, come before its first answer.
    let plain = Request::builder().uri(uri("/no-content")).body(client::empty()).unwrap();
    assert_eq!(sender.send_request(plain).await.unwrap().status(), 204, "{what}");
    let tunnel = Request::builder()
        .method(Method::CONNECT)
        .uri(uri("/upgrade"))
        .extension(Protocol::from_static("websocket"))
        .body(client::empty())
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), sender.send_request(tunnel)).await;
    let answer = answer.unwrap_or_else(|_| panic!("{what}: no answer to extended CONNECT")).unwrap();
    assert_eq!(answer.status(), 200, "{what}");
    let upgraded = hyper::upgrade::on(answer).await.unwrap();
    passes(TokioIo::new(upgraded), &format!("{what}: extended CONNECT")).await;
    connection.abort();
}

async fn head(stream: &mut TcpStream, what: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !text.ends_with(b"\r\n\r\n") {
            text.push(stream.read_u8().await.unwrap());
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), reading).await.is_ok();
    let text = String::from_utf8_lossy(&text).to_lowercase().replace("http/", "HTTP/");
    assert!(in_time, "{what}: nothing more after {text:?}");
    text
}

/// Turn by turn, then a lot at once: the engine sends back what it gets.
async fn passes(stream: impl AsyncRead + AsyncWrite, what: &str) {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let exchange = async {
        for message in ["one way\n", "and another\n"] {
            writing.write_all(message.as_bytes()).await.unwrap();
            writing.flush().await.unwrap();
            let mut back = vec![0; message.len()];
            reading.read_exact(&mut back).await.unwrap();
            assert_eq!(back, message.as_bytes(), "{what}");
        }
        let sent: Vec<u8> = (0..LARGE).map(|i| (i % 251) as u8).collect();
        let mut back = vec![0; LARGE];
        let (written, read) = tokio::join!(
            async {
                writing.write_all(&sent).await?;
                writing.flush().await
            },
            reading.read_exact(&mut back)
        );
        written.unwrap();
        read.unwrap();
        assert!(back == sent, "{what}: {LARGE} bytes come back as they were");
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), exchange).await.is_ok();
    assert!(in_time, "{what}: the tunnel stands still");
}
