//! The router was asked; the reply waits for what it says.

use super::super::headers::Facts;
use super::super::mode::{self, BodyMode};
use super::super::reply::{self, Side};
use super::aside::Aside;
use super::held::Held;
use super::open::Open;
use super::{Core, OutOfOrder, Phase, Step, Turn};
use crate::director::{RouteError, RoutedRequest, Router};
use crate::proto::ext_proc::{Event, HttpBody, Reply};
use crate::request::Body;
use bytes::Bytes;
use std::ops::Range;

/// What becomes of the rest of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestSide {
    /// Its pieces are sent back to the proxy.
    Echoed,
    /// Its pieces are answered with nothing to change.
    Observed,
    /// Nothing follows.
    Ended,
}

impl RequestSide {
    /// How a body passes that needs no reading.
    pub(super) fn passing(mode: BodyMode) -> Self {
        if mode == BodyMode::FullDuplex { Self::Echoed } else { Self::Observed }
    }
}

/// Which reply tells the pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The one to the request's headers.
    Headers,
    /// The one to the only body message.
    Body,
    /// The one to the trailers of a request without a body.
    Trailers,
}

/// A request that the router thinks about.
#[derive(Debug)]
pub(super) struct Routing {
    facts: Facts,
    answer: Answer,
    held: Held,
    side: RequestSide,
    pub(super) may_rewrite: bool,
    pub(super) cut: bool,
    /// The body's last piece is held.
    ended_by_body: bool,
    /// Trailers came and wait for their reply.
    trailers: bool,
    /// Observed pieces that wait for their replies.
    owed: usize,
}

impl Routing {
    pub(super) fn new(facts: Facts, answer: Answer, held: Held, side: RequestSide) -> Self {
        Self {
            facts,
            answer,
            held,
            side,
            may_rewrite: false,
            cut: false,
            ended_by_body: false,
            trailers: false,
            owed: 0,
        }
    }

    pub(super) fn end_with(&mut self, body: bool, trailers: bool) {
        self.ended_by_body = body;
        self.trailers = trailers;
    }

    pub(super) fn on_event<D: Router>(
        mut self: Box<Self>,
        core: &mut Core<D>,
        event: Event,
    ) -> Turn<D::Route> {
        const PHASE: &str = "after the request had ended";
        match event {
            Event::RequestBody(body) => {
                if self.side == RequestSide::Ended && !body.body.is_empty() {
                    return Err(OutOfOrder::new(&Event::RequestBody(body), PHASE));
                }
                if self.held.len() + body.body.len() > core.limits.max_body_bytes {
                    let error = RouteError::BodyTooLarge { limit: core.limits.max_body_bytes };
                    return core.refuse(&self.facts.control, self.facts.grpc, &error);
                }
                self.on_more_body(core.modes.request, body);
            }
            Event::RequestTrailers(_) if self.side != RequestSide::Ended => {
                self.side = RequestSide::Ended;
                self.trailers = true;
            }
            // The proxy answers the client by itself, a timeout for instance.
            Event::ResponseHeaders(_) => return Aside::instead_of_the_engine().on_event(core, event),
            Event::RequestTrailers(_) => return Err(OutOfOrder::new(&event, PHASE)),
            other => return Err(OutOfOrder::new(&other, "before the decision")),
        }
        Ok((Phase::Routing(self), Step::Wait))
    }

    fn on_more_body(&mut self, mode: BodyMode, message: HttpBody) {
        let ends = message.end_of_stream || message.end_of_stream_without_message;
        match self.side {
            RequestSide::Echoed => {
                self.held.permit.take_over(message.body.len());
                self.held.push(message.body);
                self.ended_by_body |= ends;
            }
            RequestSide::Observed => self.owed += 1,
            // The end came twice.
            RequestSide::Ended => self.owed += usize::from(mode != BodyMode::FullDuplex),
        }
        if ends {
            self.side = RequestSide::Ended;
        }
    }

    pub(super) fn on_decision<D: Router>(
        self,
        core: &mut Core<D>,
        decision: Result<D::Route, RouteError>,
    ) -> Turn<D::Route> {
        let route = match decision {
            Ok(route) => route,
            // The router has counted its own refusal.
            Err(error) => return core.answer(self.facts.grpc, &error),
        };
        let Self { facts, answer, held, side, may_rewrite, cut, ended_by_body, trailers, owed } = self;
        let rewrite = if may_rewrite { route.model_rewrite() } else { None };
        let (body, permit) = held.into_parts();
        let length = new_length(&body, rewrite.as_ref(), cut, &facts);
        core.meters.control_headers_removed(facts.control.iter().count());
        let mut pick = reply::pick(&route, &facts, length);
        match answer {
            Answer::Headers => {
                if facts.tunnel && core.modes.request != BodyMode::FullDuplex {
                    pick.mode_override = Some(mode::tunnel_override());
                }
                core.out.push(pick);
                let body = match rewrite {
                    Some((span, text)) => body.splice(span, text),
                    None => body,
                };
                if core.modes.request == BodyMode::FullDuplex {
                    core.out.request_body(body, permit, ended_by_body);
                }
            }
            Answer::Body => {
                let replacement = rewrite.map(|(span, text)| join(&body.splice(span, text)));
                core.out.push(reply::onto_body(pick, replacement));
            }
            Answer::Trailers => {
                pick.response = Some(Reply::RequestTrailers(Default::default()));
                core.out.push(pick);
            }
        }
        (0..owed).for_each(|_| core.out.push(reply::body(Side::Request, None)));
        if trailers && answer != Answer::Trailers {
            core.out.push(reply::trailers(Side::Request));
        }
        Ok((Phase::Open(Box::new(Open::new(route, side, facts.grpc, facts.tunnel))), Step::Wait))
    }

    pub(super) fn is_grpc(&self) -> bool {
        self.facts.grpc
    }
}

/// The body's length after the rewrite, where it is another one and can be known.
fn new_length(body: &Body, rewrite: Option<&(Range<usize>, Bytes)>, cut: bool, facts: &Facts) -> Option<u64> {
    let (span, text) = rewrite?;
    let taken = span.end.min(body.len()).saturating_sub(span.start);
    if taken == text.len() {
        return None;
    }
    let before = if cut { facts.content_length? } else { body.len() as u64 };
    (before + text.len() as u64).checked_sub(taken as u64)
}

fn join(body: &Body) -> Bytes {
    match body.chunks() {
        [one] => one.clone(),
        many => many.concat().into(),
    }
}
