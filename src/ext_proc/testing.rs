//! A router by script, messages as a proxy sends them, and a driver without IO.

use super::budget::Budget;
use super::exchange::{Exchange, Limits, OutOfOrder, Step};
use super::meters::Meters;
use crate::clock::Moment;
use crate::director::{BodyView, Envelope, RouteError, RoutedRequest, Router, SubsetHint};
use crate::plugin::{HeaderEdits, ReportedAttribute};
use crate::proto::ext_proc::*;
use crate::proto::metadata::Metadata;
use crate::request::{Api, Ending, Headers, Intake, ParseError, ParserSet, Usage};
use bytes::Bytes;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;

pub(crate) const DESTINATION: &str = "10.0.0.1:8000";

/// What a fake saw.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) routed: usize,
    pub(crate) refused: Vec<String>,
    pub(crate) endings: Vec<Ending>,
    pub(crate) usage: Usage,
    pub(crate) served: Vec<Option<String>>,
    pub(crate) status: Option<u16>,
    pub(crate) response_bytes: usize,
    pub(crate) unseen: bool,
    pub(crate) bodies: Vec<(&'static str, usize)>,
    pub(crate) subsets: Vec<SubsetHint>,
}

/// What every request is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// Report a number when the response ends.
    pub(crate) reports: bool,
    pub(crate) rewrite: Option<(Range<usize>, Bytes)>,
    pub(crate) restore: Option<(String, String)>,
    pub(crate) edits: HeaderEdits,
    pub(crate) response_edits: HeaderEdits,
    pub(crate) id: Option<String>,
    pub(crate) scores: Option<Vec<(Arc<str>, f64)>>,
    pub(crate) refuse: bool,
    /// Take any body without reading it.
    pub(crate) opaque: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) script: Script,
    pub(crate) log: Arc<Mutex<Log>>,
}

impl Fake {
    pub(crate) fn new(script: Script) -> Arc<Self> {
        Arc::new(Self { script, log: Arc::default() })
    }

    pub(crate) fn decide(&self, envelope: Envelope) -> Result<FakeRoute, RouteError> {
        let mut log = self.log.lock();
        log.routed += 1;
        log.subsets.push(envelope.subset);
        let (view, api) = match &envelope.body {
            BodyView::Absent => ("absent", Api::Opaque),
            BodyView::Hidden => ("hidden", Api::Opaque),
            BodyView::Whole(parsed) => ("whole", parsed.api),
            BodyView::Cut(parsed) => ("cut", parsed.api),
        };
        log.bodies.push((view, envelope.body_bytes));
        if self.script.refuse {
            return Err(RouteError::NoEndpoints { pool: "p".to_owned() });
        }
        Ok(FakeRoute { script: self.script.clone(), log: Arc::clone(&self.log), api, ended: false })
    }
}

impl Router for Fake {
    type Route = FakeRoute;

    fn open(&self, headers: &Headers) -> Result<Intake, ParseError> {
        if headers.get(":path") == Some("/nobody") {
            return Err(ParseError::NoParser { path: "/nobody".to_owned() });
        }
        let set = if self.script.opaque {
            ParserSet::new(&[crate::request::ParserKind::Passthrough])
        } else {
            ParserSet::default()
        };
        set.open(headers)
    }

    async fn route(&self, envelope: Envelope) -> Result<FakeRoute, RouteError> {
        self.decide(envelope)
    }

    fn refused(&self, _headers: &Headers, error: &RouteError) {
        self.log.lock().refused.push(error.code().to_owned());
    }
}

#[derive(Debug)]
pub(crate) struct FakeRoute {
    script: Script,
    log: Arc<Mutex<Log>>,
    api: Api,
    ended: bool,
}

impl RoutedRequest for FakeRoute {
    fn destination(&self) -> &str {
        DESTINATION
    }
    fn edits(&self) -> &HeaderEdits {
        &self.script.edits
    }
    fn model_rewrite(&self) -> Option<(Range<usize>, Bytes)> {
        self.script.rewrite.clone()
    }
    fn request_id_to_set(&self) -> Option<&str> {
        self.script.id.as_deref()
    }
    fn api(&self) -> Api {
        self.api
    }
    fn streaming(&self) -> bool {
        false
    }
    fn scores(&self) -> Option<&[(Arc<str>, f64)]> {
        self.script.scores.as_deref()
    }
    fn on_response_headers(
        &mut self,
        status: Option<u16>,
        served: Option<&str>,
        _headers: &Headers,
    ) -> HeaderEdits {
        let mut log = self.log.lock();
        log.status = status;
        log.served.push(served.map(str::to_owned));
        self.script.response_edits.clone()
    }
    fn on_response_unseen(&mut self) {
        self.log.lock().unseen = true;
    }
    fn on_response_chunk(&mut self, bytes: usize, _usage: Usage) {
        self.log.lock().response_bytes += bytes;
    }
    fn attributes(&self, _usage: Usage) -> Vec<ReportedAttribute> {
        let attribute = ReportedAttribute { namespace: "n".into(), name: "a".into(), value: 15.0 };
        self.script.reports.then_some(attribute).into_iter().collect()
    }
    fn restore_model(&self) -> Option<(&str, &str)> {
        self.script.restore.as_ref().map(|(target, incoming)| (target.as_str(), incoming.as_str()))
    }
    fn finish(mut self, usage: Usage, ending: Ending) {
        self.ended = true;
        let mut log = self.log.lock();
        log.usage = usage;
        log.endings.push(ending);
    }
}

impl Drop for FakeRoute {
    fn drop(&mut self) {
        if !self.ended {
            self.log.lock().endings.push(Ending::Disconnected);
        }
    }
}

/// One exchange with a fake router, driven by hand.
pub(crate) struct Driver {
    pub(crate) fake: Arc<Fake>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) exchange: Exchange<Fake>,
    pub(crate) now: Moment,
    pub(crate) out: Vec<ProcessingResponse>,
    pub(crate) end: Option<Result<(), OutOfOrder>>,
    /// Keep envelopes back until [`Driver::decide`].
    pub(crate) slow: bool,
    waiting: Option<Box<Envelope>>,
}

impl Driver {
    pub(crate) fn new(script: Script) -> Self {
        Self::with(script, Limits::default(), 1 << 30)
    }

    pub(crate) fn with(script: Script, limits: Limits, budget: usize) -> Self {
        let (fake, budget) = (Fake::new(script), Budget::new(budget));
        let meters = Arc::new(Meters::new(false));
        let exchange = Exchange::new(Arc::clone(&fake), limits, Arc::clone(&budget), meters);
        let now = Moment::from_nanos(1_000_000_000);
        Self { fake, budget, exchange, now, out: Vec::new(), end: None, slow: false, waiting: None }
    }

    /// Sends one message and pulls what comes back.
    pub(crate) fn send(&mut self, message: ProcessingRequest) -> &mut Self {
        assert!(self.end.is_none(), "a message after the end of the stream");
        let step = self.exchange.on_message(message, self.now);
        self.follow(step);
        self
    }

    pub(crate) fn decide(&mut self) -> &mut Self {
        if let Some(envelope) = self.waiting.take() {
            let step = self.exchange.on_routed(self.fake.decide(*envelope));
            self.follow(step);
        }
        self
    }

    pub(crate) fn follow(&mut self, step: Step) {
        match step {
            Step::Wait => {}
            Step::End(end) => self.end = Some(end),
            Step::Route(envelope) => {
                self.waiting = Some(envelope);
                if !self.slow {
                    self.decide();
                }
            }
        }
        while let Some(reply) = self.exchange.pull() {
            self.out.push(reply);
        }
    }

    pub(crate) fn close(&mut self) -> &mut Self {
        self.exchange.on_closed();
        self
    }

    /// What was pulled since the last call.
    pub(crate) fn take(&mut self) -> Vec<ProcessingResponse> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn endings(&self) -> Vec<Ending> {
        self.fake.log.lock().endings.clone()
    }
}

pub(crate) fn message(event: Event) -> ProcessingRequest {
    ProcessingRequest { request: Some(event), ..ProcessingRequest::default() }
}

pub(crate) fn header_list(pairs: &[(&str, &str)]) -> Option<HeaderMap> {
    let headers = pairs.iter().map(|(name, value)| HeaderValue {
        key: Bytes::copy_from_slice(name.as_bytes()),
        value: Bytes::new(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
    });
    Some(HeaderMap { headers: headers.collect() })
}

pub(crate) fn request_headers(pairs: &[(&str, &str)], end_of_stream: bool) -> ProcessingRequest {
    message(Event::RequestHeaders(HttpHeaders { headers: header_list(pairs), end_of_stream }))
}

pub(crate) fn response_headers(pairs: &[(&str, &str)], end_of_stream: bool) -> ProcessingRequest {
    message(Event::ResponseHeaders(HttpHeaders { headers: header_list(pairs), end_of_stream }))
}

fn body(bytes: &[u8], end_of_stream: bool) -> HttpBody {
    HttpBody { body: Bytes::copy_from_slice(bytes), end_of_stream, end_of_stream_without_message: false }
}

pub(crate) fn request_body(bytes: impl AsRef<[u8]>, end_of_stream: bool) -> ProcessingRequest {
    message(Event::RequestBody(body(bytes.as_ref(), end_of_stream)))
}

pub(crate) fn response_body(bytes: impl AsRef<[u8]>, end_of_stream: bool) -> ProcessingRequest {
    message(Event::ResponseBody(body(bytes.as_ref(), end_of_stream)))
}

pub(crate) fn request_trailers() -> ProcessingRequest {
    message(Event::RequestTrailers(HttpTrailers {}))
}

pub(crate) fn response_trailers() -> ProcessingRequest {
    message(Event::ResponseTrailers(HttpTrailers {}))
}

pub(crate) fn with_modes(
    mut message: ProcessingRequest,
    request: BodySendMode,
    response: BodySendMode,
) -> ProcessingRequest {
    message.protocol_config = Some(ProtocolConfiguration {
        request_body_mode: request.into(),
        response_body_mode: response.into(),
    });
    message
}

pub(crate) fn with_metadata(mut message: ProcessingRequest, metadata: Metadata) -> ProcessingRequest {
    message.metadata_context = Some(metadata);
    message
}

/// A reply as a few words and its streamed or replaced bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) what: &'static str,
    pub(crate) bytes: Option<Bytes>,
    pub(crate) end_of_stream: bool,
}

pub(crate) fn seen(replies: &[ProcessingResponse]) -> Vec<Seen> {
    replies.iter().map(see).collect()
}

fn see(reply: &ProcessingResponse) -> Seen {
    let plain = |what| Seen { what, bytes: None, end_of_stream: false };
    let piece = |what, body: &BodyResponse| {
        let mutation = body.response.as_ref().and_then(|c| c.body_mutation.as_ref()?.mutation.clone());
        match mutation {
            Some(Mutation::Streamed(s)) => Seen { what, bytes: Some(s.body), end_of_stream: s.end_of_stream },
            Some(Mutation::Body(bytes)) => Seen { what, bytes: Some(bytes), end_of_stream: false },
            Some(Mutation::Clear(_)) => Seen { what, bytes: Some(Bytes::new()), end_of_stream: false },
            None => plain(what),
        }
    };
    match reply.response.as_ref().unwrap() {
        Reply::RequestHeaders(_) => plain("request_headers"),
        Reply::ResponseHeaders(_) => plain("response_headers"),
        Reply::RequestBody(body) => piece("request_body", body),
        Reply::ResponseBody(body) => piece("response_body", body),
        Reply::RequestTrailers(_) => plain("request_trailers"),
        Reply::ResponseTrailers(_) => plain("response_trailers"),
        Reply::Immediate(_) => plain("immediate"),
    }
}

/// The kinds of replies, in order.
pub(crate) fn kinds(replies: &[ProcessingResponse]) -> Vec<&'static str> {
    seen(replies).into_iter().map(|s| s.what).collect()
}

/// The header changes of a reply.
pub(crate) fn mutation(reply: &ProcessingResponse) -> HeaderMutation {
    let common = match reply.response.as_ref().unwrap() {
        Reply::RequestHeaders(h) | Reply::ResponseHeaders(h) => h.response.clone(),
        Reply::RequestBody(b) | Reply::ResponseBody(b) => b.response.clone(),
        Reply::Immediate(i) => return i.headers.clone().unwrap_or_default(),
        _ => None,
    };
    common.and_then(|c| c.header_mutation).unwrap_or_default()
}

/// The value that a reply sets a header to.
pub(crate) fn set_header(reply: &ProcessingResponse, name: &str) -> Option<String> {
    let mutation = mutation(reply);
    let found = mutation.set_headers.into_iter().filter_map(|h| h.header).find(|h| h.key == name.as_bytes());
    found.map(|h| String::from_utf8(h.raw_value.to_vec()).unwrap())
}

pub(crate) fn immediate(replies: &[ProcessingResponse]) -> ImmediateResponse {
    match replies.last().and_then(|r| r.response.clone()) {
        Some(Reply::Immediate(immediate)) => immediate,
        other => panic!("no immediate response but {other:?}"),
    }
}

pub(crate) fn status_of(replies: &[ProcessingResponse]) -> i32 {
    immediate(replies).status.unwrap().code
}
