//! The exchange with a proxy under any order of messages, decisions, evictions and deadlines.

mod router;

use super::pieces::choice;
use bytes::Bytes;
use pointsman::clock::Moment;
use pointsman::ext_proc::budget::Budget;
use pointsman::ext_proc::exchange::{Exchange, Step};
use pointsman::ext_proc::{Limits, MAX_PIECE, Meters, OverBudget, ResponseBodies};
use pointsman::proto::ext_proc::*;
use pointsman::proto::metadata::Metadata;
use pointsman::request::ModelRestorer;
use prost::Message;
use router::{INCOMING, Scripted, TARGET};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Messages of one stream; further ones are not looked at.
const MAX_MOVES: usize = 64;
const PATHS: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/generate",
    "/nobody/reads/this",
    "/vllm.grpc.engine.VllmEngine/Generate",
    "/v1/messages/count_tokens",
    "/v1/responses",
];

/// Bytes of one direction: what came, and what was sent on in pieces of our own.
#[derive(Default)]
struct Side {
    came: Vec<u8>,
    /// Where an end was told; more may come all the same, and is then no part of what stands before.
    ends: Vec<usize>,
    sent: Vec<u8>,
    ended: bool,
}

impl Side {
    fn came(&mut self, body: &HttpBody) {
        self.came.extend_from_slice(&body.body);
        if body.end_of_stream || body.end_of_stream_without_message {
            self.ends.push(self.came.len());
        }
    }
    /// What came, cut where an end was told.
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ends = self.ends.iter().copied().chain([self.came.len()]);
        starts.zip(ends).map(|(start, end)| &self.came[start..end])
    }
    fn sent(&mut self, reply: &BodyResponse) {
        let mutation = reply.response.as_ref().and_then(|c| c.body_mutation.as_ref()?.mutation.as_ref());
        if let Some(Mutation::Streamed(piece)) = mutation {
            assert!(!self.ended, "a piece after the last one");
            assert!(piece.body.len() <= MAX_PIECE);
            self.sent.extend_from_slice(&piece.body);
            self.ended = piece.end_of_stream;
        }
    }
}

struct Driver {
    router: Arc<Scripted>,
    budget: Arc<Budget>,
    exchange: Exchange<Scripted>,
    now: Moment,
    slow: bool,
    waiting: Option<Box<pointsman::director::Envelope>>,
    ended: bool,
    request: Side,
    response: Side,
    answered: bool,
}

impl Driver {
    fn send(&mut self, message: ProcessingRequest) {
        match &message.request {
            Some(Event::RequestBody(body)) => self.request.came(body),
            Some(Event::ResponseBody(body)) => self.response.came(body),
            Some(Event::ResponseTrailers(_)) => self.response.ends.push(self.response.came.len()),
            _ => {}
        }
        let step = self.exchange.on_message(message, self.now);
        self.follow(step);
    }

    fn decide(&mut self) {
        if let Some(envelope) = self.waiting.take() {
            let step = self.exchange.on_routed(self.router.decide(*envelope));
            self.follow(step);
        }
    }

    fn follow(&mut self, step: Step) {
        match step {
            Step::Wait => {}
            Step::End(_) => self.ended = true,
            Step::Route(envelope) => {
                assert!(self.waiting.replace(envelope).is_none(), "asked twice");
                if !self.slow {
                    self.decide();
                }
            }
        }
        while let Some(reply) = self.exchange.pull() {
            assert!(!self.answered, "a reply after the answer to the client");
            match reply.response.as_ref().expect("a reply says something") {
                Reply::RequestBody(body) => self.request.sent(body),
                Reply::ResponseBody(body) => self.response.sent(body),
                Reply::Immediate(_) => self.answered = true,
                _ => {}
            }
            assert!(!reply.encode_to_vec().is_empty());
        }
        assert!(self.exchange.is_drained());
    }

    /// What went out is what came in, the model's name aside.
    fn check_bytes(&self) {
        let rewritten = self.router.rewrite().map(|(span, text)| splice(&self.request.came, span, &text));
        let as_it_came = self.request.came.starts_with(&self.request.sent);
        assert!(as_it_came || rewritten.is_some_and(|body| body.starts_with(&self.request.sent)));
        let as_it_came = self.response.came.starts_with(&self.response.sent);
        let whole = restored(&self.response.came);
        let parts: Vec<Vec<u8>> = self.response.parts().map(restored).collect();
        let as_restored = [whole, parts.concat()].iter().any(|body| body.starts_with(&self.response.sent));
        assert!(as_it_came || (self.router.restores && as_restored));
    }
}

/// A body with the model's name put back.
fn restored(body: &[u8]) -> Vec<u8> {
    ModelRestorer::new(TARGET, INCOMING).push(Bytes::copy_from_slice(body), true).concat()
}

fn splice(body: &[u8], span: Range<usize>, text: &[u8]) -> Vec<u8> {
    [&body[..span.start], text, &body[span.end..]].concat()
}

/// Takes what a number of bytes says, as far as there are so many.
fn take<'d>(data: &mut &'d [u8], len: usize) -> &'d [u8] {
    let (head, rest) = data.split_at(len.min(data.len()));
    *data = rest;
    head
}

fn byte(data: &mut &[u8]) -> u8 {
    let (byte, rest) = choice(data);
    *data = rest;
    byte
}

fn header(name: &[u8], value: &[u8]) -> HeaderValue {
    let copy = Bytes::copy_from_slice;
    HeaderValue { key: copy(name), value: Bytes::new(), raw_value: copy(value) }
}

/// Headers: a path, an odd one, and what flags say.
fn headers(flags: u8, odd: &[u8]) -> HttpHeaders {
    let path = PATHS[usize::from(flags >> 2 & 7)];
    let mut headers = vec![header(b":method", b"POST"), header(b":path", path.as_bytes())];
    headers.push(header(b":status", b"200"));
    let middle = odd.iter().position(|b| *b == b':').unwrap_or(0);
    headers.push(header(&odd[..middle], odd.get(middle + 1..).unwrap_or_default()));
    if flags & 0x40 != 0 {
        headers.push(header(b"content-type", b"text/event-stream"));
    }
    if flags & 0x80 != 0 {
        headers.push(header(b"upgrade", b"websocket"));
    }
    let end_of_stream = flags & 1 != 0;
    HttpHeaders { headers: (flags & 2 == 0).then_some(HeaderMap { headers }), end_of_stream }
}

fn body(flags: u8, bytes: &[u8]) -> HttpBody {
    let end_of_stream_without_message = flags & 0x80 != 0;
    let bytes = if end_of_stream_without_message { &[] } else { bytes };
    HttpBody {
        body: Bytes::copy_from_slice(bytes),
        end_of_stream: flags & 1 != 0,
        end_of_stream_without_message,
    }
}

fn event(kind: u8, data: &mut &[u8]) -> Event {
    let flags = byte(data);
    if matches!(kind, 2 | 5) {
        let trailers = HttpTrailers {};
        return if kind == 2 { Event::RequestTrailers(trailers) } else { Event::ResponseTrailers(trailers) };
    }
    let len = usize::from(byte(data));
    let bytes = take(data, len);
    match kind {
        0 => Event::RequestHeaders(headers(flags, bytes)),
        1 => Event::RequestBody(body(flags, bytes)),
        3 => Event::ResponseHeaders(headers(flags, bytes)),
        _ => Event::ResponseBody(body(flags, bytes)),
    }
}

fn driver(data: &mut &[u8]) -> (Driver, ProtocolConfiguration) {
    let (flags, modes, space) = (byte(data), byte(data), byte(data));
    let limits = Limits {
        max_body_bytes: usize::from(byte(data)) * 8,
        body_idle: Duration::from_secs(1),
        over_budget: if flags & 1 != 0 { OverBudget::DecideOnHeaders } else { OverBudget::Refuse },
        response_bodies: if flags & 2 != 0 { ResponseBodies::Skip } else { ResponseBodies::Read },
    };
    let router = Arc::new(Scripted::new(flags & 4 != 0, flags & 8 != 0, flags & 16 != 0));
    let budget = Budget::new(usize::from(space) * 8);
    let meters = Arc::new(Meters::new(false));
    let exchange = Exchange::new(Arc::clone(&router), limits, Arc::clone(&budget), meters);
    let now = Moment::from_nanos(1_000_000_000);
    let modes = ProtocolConfiguration {
        request_body_mode: i32::from(modes & 7),
        response_body_mode: i32::from(modes >> 3 & 7),
    };
    let driver = Driver {
        router,
        budget,
        exchange,
        now,
        slow: flags & 32 != 0,
        waiting: None,
        ended: false,
        request: Side::default(),
        response: Side::default(),
        answered: false,
    };
    (driver, modes)
}

fn step(driver: &mut Driver, modes: &mut Option<ProtocolConfiguration>, data: &mut &[u8]) {
    match byte(data) % 16 {
        kind @ 0..=5 => {
            let request = Some(event(kind, data));
            driver.send(ProcessingRequest { protocol_config: modes.take(), request, ..Default::default() });
        }
        6 | 7 => driver.decide(),
        8 => {
            let step = driver.exchange.on_evicted(Some("flow control"));
            driver.follow(step);
        }
        9 => {
            driver.now = driver.now.plus(Duration::from_secs(2));
            let step = driver.exchange.on_deadline(driver.now);
            driver.follow(step);
        }
        10 => {
            let step = driver.exchange.on_oversized();
            driver.follow(step);
        }
        11 => {
            // Metadata as it comes from the wire, with an event.
            let len = usize::from(byte(data));
            let metadata_context = Metadata::decode(take(data, len)).ok();
            let request = Some(event(byte(data) % 6, data));
            driver.send(ProcessingRequest {
                metadata_context,
                protocol_config: modes.take(),
                request,
                ..Default::default()
            });
        }
        _ => {
            // A whole message as it comes from the wire.
            let len = usize::from(byte(data));
            if let Ok(message) = ProcessingRequest::decode(take(data, len)) {
                driver.send(message);
            }
        }
    }
}

/// The first bytes choose limits, body modes and what the router says; the rest is moves.
pub fn check(mut data: &[u8]) {
    let data = &mut data;
    let (mut driver, modes) = driver(data);
    let mut modes = Some(modes);
    for _ in 0..MAX_MOVES {
        if driver.ended || data.is_empty() {
            break;
        }
        step(&mut driver, &mut modes, data);
    }
    driver.exchange.on_closed();
    driver.decide();
    assert!(driver.exchange.is_drained() && !driver.exchange.awaits_decision());
    driver.check_bytes();
    let Driver { router, budget, exchange, .. } = driver;
    drop(exchange);
    assert_eq!(budget.used(), 0, "bytes stay counted");
    router.check_endings();
}
