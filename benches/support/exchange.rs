//! Messages of one exchange, and what drives them through the state machine.

use bytes::Bytes;
use pointsman::clock::Moment;
use pointsman::director::{Envelope, RouteError, RoutedRequest, Router};
use pointsman::ext_proc::budget::Budget;
use pointsman::ext_proc::exchange::{Exchange, Step};
use pointsman::ext_proc::{Limits, Meters};
use pointsman::plugin::HeaderEdits;
use pointsman::proto::ext_proc::{Event, HeaderMap, HeaderValue, HttpBody, HttpHeaders, ProcessingRequest};
use pointsman::request::{Api, Ending, Headers, Intake, ParseError, ParserSet, Usage};
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

/// What a proxy sends at once.
const CHUNK: usize = 64 * 1024;

/// A router that reads bodies and always picks the same endpoint.
pub struct Here(pub ParserSet);

/// What it answers.
pub struct Routed(HeaderEdits);

impl Router for Here {
    type Route = Routed;
    fn open(&self, headers: &Headers) -> Result<Intake, ParseError> {
        self.0.open(headers)
    }
    async fn route(&self, _envelope: Envelope) -> Result<Routed, RouteError> {
        Ok(Routed(HeaderEdits::default()))
    }
    fn refused(&self, _headers: &Headers, _error: &RouteError) {}
}

impl RoutedRequest for Routed {
    fn destination(&self) -> &str {
        "10.0.0.1:8000"
    }
    fn edits(&self) -> &HeaderEdits {
        &self.0
    }
    fn model_rewrite(&self) -> Option<(Range<usize>, Bytes)> {
        None
    }
    fn request_id_to_set(&self) -> Option<&str> {
        None
    }
    fn api(&self) -> Api {
        Api::ChatCompletions
    }
    fn streaming(&self) -> bool {
        false
    }
    fn scores(&self) -> Option<&[(Arc<str>, f64)]> {
        None
    }
    fn on_response_headers(&mut self, _: Option<u16>, _: Option<&str>, _: &Headers) -> HeaderEdits {
        HeaderEdits::default()
    }
    fn on_response_chunk(&mut self, _: usize, _: Usage) {}
    fn restore_model(&self) -> Option<(&str, &str)> {
        None
    }
    fn finish(self, _: Usage, _: Ending) {}
}

fn message(event: Event) -> ProcessingRequest {
    ProcessingRequest { request: Some(event), ..ProcessingRequest::default() }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HttpHeaders {
    let one = |(name, value): &(&'static str, &'static str)| HeaderValue {
        key: Bytes::from_static(name.as_bytes()),
        value: Bytes::new(),
        raw_value: Bytes::from_static(value.as_bytes()),
    };
    HttpHeaders {
        headers: Some(HeaderMap { headers: pairs.iter().map(one).collect() }),
        end_of_stream: false,
    }
}

/// All messages of one exchange: a prompt of `bytes`, and a response of `events` pieces, one event each.
pub fn messages(bytes: usize, events: usize) -> Vec<ProcessingRequest> {
    let text = "The picker keeps the number of waiting requests low. ".repeat(bytes / 53 + 1);
    let body = format!(
        r#"{{"model":"m","stream":true,"messages":[{{"role":"user","content":"{}"}}]}}"#,
        &text[..bytes]
    );
    let request = [
        (":method", "POST"),
        (":path", "/v1/chat/completions"),
        (":authority", "inference.example"),
        ("content-type", "application/json"),
        ("user-agent", "bench"),
        ("accept", "*/*"),
        ("authorization", "Bearer 0123456789"),
        ("x-request-id", "8f1a1f2e-0000-4000-8000-000000000000"),
    ];
    let body = Bytes::from(body);
    let piece =
        |body: Bytes, end_of_stream| HttpBody { body, end_of_stream, end_of_stream_without_message: false };
    let mut out = vec![message(Event::RequestHeaders(headers(&request)))];
    let chunks = (0..body.len()).step_by(CHUNK).map(|at| body.slice(at..(at + CHUNK).min(body.len())));
    out.extend(chunks.map(|chunk| message(Event::RequestBody(piece(chunk, false)))));
    out.push(message(Event::RequestBody(piece(Bytes::new(), true))));
    let response = [(":status", "200"), ("content-type", "text/event-stream")];
    out.push(message(Event::ResponseHeaders(headers(&response))));
    let event = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n");
    out.extend((0..events).map(|_| message(Event::ResponseBody(piece(event.clone(), false)))));
    out.push(message(Event::ResponseBody(piece(Bytes::new(), true))));
    out
}

/// The whole exchange, its replies pulled as they come.
pub fn run(router: &Arc<Here>, budget: &Arc<Budget>, meters: &Arc<Meters>, messages: Vec<ProcessingRequest>) {
    let now = Moment::from_nanos(1);
    let mut exchange =
        Exchange::new(Arc::clone(router), Limits::default(), Arc::clone(budget), Arc::clone(meters));
    for message in messages {
        if let Step::Route(envelope) = exchange.on_message(message, now) {
            black_box(envelope.body_bytes);
            exchange.on_routed(Ok(Routed(HeaderEdits::default())));
        }
        while let Some(reply) = exchange.pull() {
            black_box(reply);
        }
    }
}
