//! A mixed load, the same for the same seed: chats of many sizes, plain and streamed, header-only requests, trailers, odd
//! methods and statuses, uploads in slow pieces.

use super::client::{self, Answer, Body, Broken, Client};
use super::stack::MODEL;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use std::time::Duration;
use xxhash_rust::xxh64::xxh64;

/// One kind of request of the mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Echo,
    EchoPieces,
    EchoTrailers,
    Get,
    Head,
    Chat,
    ChatStream,
    Completion,
    NoContent,
}

const KINDS: [Kind; 9] = [
    Kind::Echo,
    Kind::EchoPieces,
    Kind::EchoTrailers,
    Kind::Get,
    Kind::Head,
    Kind::Chat,
    Kind::ChatStream,
    Kind::Completion,
    Kind::NoContent,
];

/// A request to send and what its answer has to show.
pub struct Mixed {
    pub kind: Kind,
    body: Bytes,
    seed: u64,
}

impl Mixed {
    /// The request number `index` of a mix.
    pub fn new(index: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let kind = KINDS[(index % KINDS.len() as u64) as usize];
        let prompt = match random.u8(..) {
            0..=150 => random.usize(1..2_000),
            151..=240 => random.usize(2_000..60_000),
            _ => random.usize(60_000..400_000),
        };
        let stream = kind == Kind::ChatStream;
        let text = multi_byte_text(prompt, index);
        let value = match kind {
            Kind::Completion => {
                serde_json::json!({"model": MODEL, "prompt": text, "max_tokens": 3})
            }
            _ => serde_json::json!({
                "model": MODEL,
                "messages": [{"role": "user", "content": text}],
                "max_tokens": 3,
                "stream": stream,
            }),
        };
        Self { kind, body: value.to_string().into(), seed: index }
    }

    fn request(&self, client: &Client) -> Request<Body> {
        let json = |method: &str, path: &str| {
            client
                .request(method, path)
                .header("content-type", "application/json")
                .header("x-sim-echo-body-hash", "1")
                .header("x-request-id", format!("mixed-{}", self.seed))
        };
        let body = self.body.clone();
        match self.kind {
            Kind::Echo => json("POST", "/echo").body(client::full(body)),
            Kind::EchoPieces => {
                let pieces = split(&body, self.seed);
                json("POST", "/echo").body(client::pieces(pieces, Duration::from_millis(2)))
            }
            Kind::EchoTrailers => {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-checksum", HeaderValue::from_static("abc"));
                json("POST", "/echo").body(client::with_trailers(body, trailers))
            }
            Kind::Get => json("GET", "/echo").body(client::empty()),
            Kind::Head => json("HEAD", "/echo").body(client::empty()),
            Kind::Chat | Kind::ChatStream => json("POST", "/v1/chat/completions").body(client::full(body)),
            Kind::Completion => json("POST", "/v1/completions").body(client::full(body)),
            Kind::NoContent => json("DELETE", "/echo/204").body(client::empty()),
        }
        .unwrap()
    }

    /// Sends the request and checks everything that its kind allows: status, the engine's own name, the destination that
    /// the engine received, the body byte for byte. Returns the address of the engine that answered.
    pub async fn run(&self, client: &Client) -> Result<String, String> {
        let answer =
            client.send(self.request(client)).await.map_err(|broken: Broken| format!("{broken:?}"))?;
        self.check(&answer).map_err(|wrong| format!("{:?} of {} bytes: {wrong}", self.kind, self.body.len()))
    }

    fn check(&self, answer: &Answer) -> Result<String, String> {
        let expected = if self.kind == Kind::NoContent { 204 } else { 200 };
        same("status", &answer.status, &expected).map_err(|wrong| {
            format!("{wrong}: {}", String::from_utf8_lossy(&answer.body[..answer.body.len().min(400)]))
        })?;
        let engine = answer.header("x-inference-pod").to_owned();
        if engine.is_empty() {
            return Err("no x-inference-pod in the answer".to_owned());
        }
        let sends_body = !matches!(self.kind, Kind::Get | Kind::Head | Kind::NoContent);
        if sends_body {
            let hash = format!("{:016x}", xxh64(&self.body, 0));
            same("body bytes", &answer.header("x-sim-body-bytes"), &self.body.len().to_string().as_str())?;
            same("body hash", &answer.header("x-sim-body-xxh64"), &hash.as_str())?;
        }
        if matches!(self.kind, Kind::Echo | Kind::EchoPieces | Kind::EchoTrailers | Kind::Get) {
            let destination = answer.received("x-gateway-destination-endpoint");
            same("number of destination headers", &destination.len(), &1)?;
            same("destination", &first(&destination[0]), &engine.as_str())?;
        }
        if self.kind == Kind::ChatStream && !answer.body.ends_with(b"data: [DONE]\n\n") {
            return Err("the event stream has no end".to_owned());
        }
        Ok(engine)
    }
}

/// The first address of a list of targets.
fn first(list: &str) -> &str {
    list.split(',').next().unwrap_or_default()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, expected: &T) -> Result<(), String> {
    if seen == expected { Ok(()) } else { Err(format!("{what} is {seen:?}, expected {expected:?}")) }
}

/// Text of about `bytes` bytes in which most characters have two to four bytes.
pub fn multi_byte_text(bytes: usize, seed: u64) -> String {
    const PARTS: [&str; 8] = ["Weiche ", "дорога ", "線路 ", "🚂", "a", "\"quoted\" ", "é", "\u{1F9ED}\n"];
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        text.push_str(PARTS[random.usize(..PARTS.len())]);
    }
    text
}

/// Cuts a body into two to seven pieces at any byte, also within a character.
pub fn split(body: &Bytes, seed: u64) -> Vec<Bytes> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5bd1);
    let mut cuts: Vec<usize> = (0..random.usize(1..7)).map(|_| random.usize(0..=body.len())).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|pair| body.slice(pair[0]..pair[1])).collect()
}

/// Runs `count` mixed requests with `at_once` in flight. Returns how many each engine answered; fails with the first ten
/// wrong ones.
pub async fn run(client: &Client, count: u64, at_once: usize) -> std::collections::BTreeMap<String, u64> {
    use futures::StreamExt;
    let outcomes: Vec<Result<String, String>> = futures::stream::iter(0..count)
        .map(|index| async move {
            Mixed::new(index).run(client).await.map_err(|wrong| format!("request {index}: {wrong}"))
        })
        .buffer_unordered(at_once)
        .collect()
        .await;
    let wrong: Vec<&String> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    let shown: Vec<&&String> = wrong.iter().take(10).collect();
    assert!(wrong.is_empty(), "{} of {count} requests went wrong, the first: {shown:#?}", wrong.len());
    let mut engines = std::collections::BTreeMap::new();
    for engine in outcomes.into_iter().flatten() {
        *engines.entry(engine).or_insert(0) += 1;
    }
    engines
}
