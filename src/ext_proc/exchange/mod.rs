//! One exchange with the proxy: one HTTP request from its headers to the end of its response, as a state machine
//! without IO.
//!
//! What goes in: messages, the decision, an eviction, the end of the stream, a deadline. What comes out: replies to
//! pull, and what to do next. Time is an argument. How a request ended follows from the phase that the exchange was in
//! and never from a gRPC status, because proxies end good exchanges with error codes too.
//!
//! ```text
//! Start ──> Receiving ──> Routing ──> Open ──> Finished
//!   │           │            │
//!   └───────────┴────────────┴──────> Aside: a response that no decision belongs to
//! ```

mod aside;
mod held;
mod open;
mod outbox;
mod receiving;
mod routing;

use super::budget::{Budget, Permit};
use super::headers;
use super::metadata;
use super::meters::Meters;
use super::mode::Modes;
use super::reject;
use crate::clock::Moment;
use crate::director::{Envelope, RouteError, Router, SubsetHint};
use crate::proto::ext_proc::{Event, ProcessingRequest, ProcessingResponse};
use crate::request::Headers;
use aside::Aside;
use bytes::Bytes;
use open::{Finished, Open};
use outbox::Outbox;
use receiving::Receiving;
use routing::Routing;
use std::sync::Arc;
use std::time::Duration;

/// What happens to a request body that does not fit into the process's budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverBudget {
    /// The request is refused.
    #[default]
    Refuse,
    /// The decision is made from the headers; the body passes through.
    DecideOnHeaders,
}

/// What is wanted of response bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseBodies {
    /// They are read as the proxy sends them.
    #[default]
    Read,
    /// Nobody wants to know what stands in them: the proxy is asked not to send them, and what comes is not read. Only a
    /// body in which a model's name must be put back is.
    Skip,
}

/// Limits of one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of one request body.
    pub max_body_bytes: usize,
    /// How long a request body may stay open without a byte coming.
    pub body_idle: Duration,
    /// What happens when the process's budget is full.
    pub over_budget: OverBudget,
    /// What is wanted of response bodies.
    pub response_bodies: ResponseBodies,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 * 1024 * 1024,
            body_idle: Duration::from_secs(60),
            over_budget: OverBudget::Refuse,
            response_bodies: ResponseBodies::Read,
        }
    }
}

/// A message that must not come in the phase that the exchange is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} came {phase}: check the processing mode of the proxy's ext_proc filter")]
pub struct OutOfOrder {
    event: &'static str,
    phase: &'static str,
}

impl OutOfOrder {
    fn new(event: &Event, phase: &'static str) -> Self {
        Self { event: event_name(event), phase }
    }
}

fn event_name(event: &Event) -> &'static str {
    match event {
        Event::RequestHeaders(_) => "request_headers",
        Event::RequestBody(_) => "request_body",
        Event::RequestTrailers(_) => "request_trailers",
        Event::ResponseHeaders(_) => "response_headers",
        Event::ResponseBody(_) => "response_body",
        Event::ResponseTrailers(_) => "response_trailers",
    }
}

/// What to do next. Replies that wait are pulled first, whatever it is.
#[derive(Debug)]
pub enum Step {
    /// Wait for the next message or the deadline.
    Wait,
    /// Ask the router, and tell the exchange what it says.
    Route(Box<Envelope>),
    /// The stream is over.
    End(Result<(), OutOfOrder>),
}

/// What every phase works with.
#[derive(Debug)]
struct Core<D> {
    router: Arc<D>,
    limits: Limits,
    budget: Arc<Budget>,
    meters: Arc<Meters>,
    modes: Modes,
    subset: SubsetHint,
    /// A header that must not reach the engine.
    taken_out: Option<Bytes>,
    out: Outbox,
}

/// The phases. Each holds what is known in it and nothing else.
#[derive(Debug)]
enum Phase<R> {
    Start,
    Receiving(Box<Receiving>),
    Routing(Box<Routing>),
    Open(Box<Open<R>>),
    Finished(Finished),
    Aside(Aside),
    Ended,
}

type Turn<R> = Result<(Phase<R>, Step), OutOfOrder>;

/// One exchange.
#[derive(Debug)]
pub struct Exchange<D: Router> {
    core: Core<D>,
    phase: Phase<D::Route>,
    started: bool,
}

impl<D: Router> Exchange<D> {
    /// A new exchange; nothing has come yet.
    pub fn new(router: Arc<D>, limits: Limits, budget: Arc<Budget>, meters: Arc<Meters>) -> Self {
        let out = Outbox::new(Permit::new(Arc::clone(&budget)));
        let (modes, subset, taken_out) = (Modes::default(), SubsetHint::Absent, None);
        let core = Core { router, limits, budget, meters, modes, subset, taken_out, out };
        Self { core, phase: Phase::Start, started: false }
    }

    /// Keeps a header from the engine that was taken out of the first message. To be called before that message comes.
    pub fn take_out(&mut self, header: Option<Bytes>) {
        self.core.taken_out = header;
    }

    /// A message came.
    pub fn on_message(&mut self, message: ProcessingRequest, now: Moment) -> Step {
        let ProcessingRequest { metadata_context, protocol_config, request, .. } = message;
        if !std::mem::replace(&mut self.started, true) {
            self.core.modes = protocol_config.map(Modes::from).unwrap_or_default();
        }
        if let Some(hint) = metadata_context.as_ref().and_then(metadata::subset) {
            self.core.subset = hint;
        }
        // Messages of newer proxies may carry nothing that is known here.
        let Some(event) = request else { return Step::Wait };
        let served = metadata_context.as_ref().and_then(metadata::served);
        let core = &mut self.core;
        let turn = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Start => start(core, event, now),
            Phase::Receiving(phase) => phase.on_event(core, event, now),
            Phase::Routing(phase) => phase.on_event(core, event),
            Phase::Open(phase) => phase.on_event(core, event, served),
            Phase::Finished(phase) => phase.on_event(core, event),
            Phase::Aside(phase) => phase.on_event(core, event),
            Phase::Ended => Ok((Phase::Ended, Step::End(Ok(())))),
        };
        self.take_turn(turn)
    }

    /// The router has decided.
    pub fn on_routed(&mut self, decision: Result<D::Route, RouteError>) -> Step {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Routing(phase) => {
                let turn = phase.on_decision(&mut self.core, decision);
                self.take_turn(turn)
            }
            // The request was given up in the meantime; a route ends as disconnected when it is dropped.
            other => {
                self.phase = other;
                Step::Wait
            }
        }
    }

    /// The request is taken back to make room for another. Without effect once the response has ended.
    pub fn on_evicted(&mut self, reason: Option<&'static str>) -> Step {
        let grpc = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Receiving(phase) => phase.is_grpc(),
            Phase::Routing(phase) => phase.is_grpc(),
            Phase::Open(phase) => phase.evict(),
            other => {
                self.phase = other;
                return Step::Wait;
            }
        };
        self.core.out.clear();
        self.core.out.push(reject::evicted(reason, grpc));
        Step::End(Ok(()))
    }

    /// The proxy closed the stream, or it broke.
    pub fn on_closed(&mut self) {
        self.core.out.clear();
        if let Phase::Open(phase) = std::mem::replace(&mut self.phase, Phase::Ended) {
            phase.close();
        }
    }

    /// Time has passed: tells whether the deadline is over.
    pub fn on_deadline(&mut self, now: Moment) -> Step {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Step::Wait;
        }
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Receiving(phase) => {
                let turn = phase.on_idle(&mut self.core);
                self.take_turn(turn)
            }
            other => {
                self.phase = other;
                Step::Wait
            }
        }
    }

    /// A message came that is larger than the server takes. Where a body is being collected the client learns it;
    /// anywhere else the stream is of no more use.
    pub fn on_oversized(&mut self) -> Step {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Receiving(phase) => {
                let turn = phase.on_oversized(&mut self.core);
                self.take_turn(turn)
            }
            other => {
                self.phase = other;
                self.on_closed();
                Step::End(Ok(()))
            }
        }
    }

    /// When [`Exchange::on_deadline`] is to be called next.
    pub fn deadline(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Receiving(phase) => Some(phase.deadline(self.core.limits.body_idle)),
            _ => None,
        }
    }

    /// Whether a decision is awaited. Once it is not, the router need not be asked any longer.
    pub fn awaits_decision(&self) -> bool {
        matches!(self.phase, Phase::Routing(_))
    }

    /// The next reply, in order.
    pub fn pull(&mut self) -> Option<ProcessingResponse> {
        let reply = self.core.out.pop();
        if let (None, Phase::Open(open)) = (&reply, &mut self.phase) {
            open.replied();
        }
        reply
    }

    /// Whether no reply waits.
    pub fn is_drained(&self) -> bool {
        self.core.out.is_empty()
    }

    /// The body modes of the stream.
    pub fn modes(&self) -> Modes {
        self.core.modes
    }

    fn take_turn(&mut self, turn: Turn<D::Route>) -> Step {
        match turn {
            Ok((phase, step)) => {
                self.phase = phase;
                step
            }
            Err(problem) => {
                self.phase = Phase::Ended;
                self.core.out.clear();
                Step::End(Err(problem))
            }
        }
    }
}

/// The first message.
fn start<D: Router>(core: &mut Core<D>, event: Event, now: Moment) -> Turn<D::Route> {
    match event {
        Event::RequestHeaders(message) => {
            let ends = message.end_of_stream;
            receiving::begin(core, headers::read(message.headers), ends, now)
        }
        Event::RequestBody(_) | Event::RequestTrailers(_) => {
            Err(OutOfOrder::new(&event, "before the request's headers"))
        }
        response => Aside::unasked().on_event(core, response),
    }
}

impl<D: Router> Core<D> {
    /// Refuses a request that the router was not asked about.
    fn refuse(&mut self, headers: &Headers, grpc: bool, error: &RouteError) -> Turn<D::Route> {
        self.router.refused(headers, error);
        self.answer(grpc, error)
    }

    /// Answers the client in place of an engine.
    fn answer(&mut self, grpc: bool, error: &RouteError) -> Turn<D::Route> {
        let status = reject::http_status(error.class());
        match status {
            429 => tracing::debug!(status, code = error.code(), reason = %error, "request refused"),
            500 => tracing::error!(status, code = error.code(), reason = %error, "request refused"),
            _ => tracing::info!(status, code = error.code(), reason = %error, "request refused"),
        }
        self.out.clear();
        self.out.push(reject::refusal(error, grpc));
        Ok((Phase::Ended, Step::End(Ok(()))))
    }

    fn permit(&self) -> Permit {
        Permit::new(Arc::clone(&self.budget))
    }
}

#[cfg(test)]
mod tests;
