//! The request's headers came; its body is on its way.

use super::super::headers::Facts;
use super::super::mode::BodyMode;
use super::super::reply::{self, Side};
use super::aside::Aside;
use super::held::Held;
use super::routing::{Answer, RequestSide, Routing};
use super::{Core, OutOfOrder, OverBudget, Phase, Step, Turn};
use crate::clock::Moment;
use crate::director::{BodyView, Envelope, RouteError, Router};
use crate::proto::ext_proc::{Event, HttpBody};
use crate::request::{Headers, Intake};
use bytes::Bytes;
use std::time::Duration;

/// A body that is read while it comes.
#[derive(Debug)]
pub(super) struct Receiving {
    progress: Moment,
    intake: Intake,
    request: Gathered,
}

/// What there is of the request so far.
#[derive(Debug)]
struct Gathered {
    received: Moment,
    headers: Headers,
    facts: Facts,
    held: Held,
    mode: BodyMode,
}

/// How a body came to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// With its last message.
    Body,
    /// With trailers.
    Trailers,
    /// The proxy shows no more of it.
    Cut,
    /// All of it is here, and trailers or another last message may follow.
    Shown,
}

/// The request's headers came.
pub(super) fn begin<D: Router>(
    core: &mut Core<D>,
    headers: Headers,
    ends: bool,
    now: Moment,
) -> Turn<D::Route> {
    let mut facts = Facts::of(&headers);
    facts.taken_out = core.taken_out.take();
    let mode = core.modes.request;
    if ends || facts.tunnel {
        let side = if ends { RequestSide::Ended } else { RequestSide::passing(mode) };
        return decide_on_headers(core, headers, facts, side, BodyView::Absent, now);
    }
    let announced = facts.content_length.unwrap_or(0);
    if usize::try_from(announced).unwrap_or(usize::MAX) > core.limits.max_body_bytes {
        let error = RouteError::BodyTooLarge { limit: core.limits.max_body_bytes };
        return core.refuse(&headers, facts.grpc, &error);
    }
    if mode.is_blind() {
        core.meters.blind(mode.as_str());
        return decide_on_headers(core, headers, facts, RequestSide::Observed, BodyView::Hidden, now);
    }
    let intake = match core.router.open(&headers) {
        Ok(intake) => intake,
        Err(problem) => return core.refuse(&headers, facts.grpc, &RouteError::Body(problem)),
    };
    if mode != BodyMode::FullDuplex {
        // The proxy sends the body only after this, and holds the headers until the body's reply.
        core.out.push(reply::headers(Side::Request, None));
    }
    let held = Held::new(core.permit());
    let request = Gathered { received: now, headers, facts, held, mode };
    let receiving = Receiving { progress: now, intake, request };
    Ok((Phase::Receiving(Box::new(receiving)), Step::Wait))
}

fn decide_on_headers<D: Router>(
    core: &Core<D>,
    headers: Headers,
    facts: Facts,
    side: RequestSide,
    body: BodyView,
    received: Moment,
) -> Turn<D::Route> {
    let routing = Routing::new(facts, Answer::Headers, Held::new(core.permit()), side);
    let envelope = Envelope { received, headers, subset: core.subset.clone(), body, body_bytes: 0 };
    Ok((Phase::Routing(Box::new(routing)), Step::Route(Box::new(envelope))))
}

impl Receiving {
    pub(super) fn on_event<D: Router>(
        self: Box<Self>,
        core: &mut Core<D>,
        event: Event,
        now: Moment,
    ) -> Turn<D::Route> {
        match event {
            Event::RequestBody(body) => self.on_body(core, body, now),
            Event::RequestTrailers(_) => self.decide(core, End::Trailers),
            // The proxy answers the client by itself, a timeout for instance.
            Event::ResponseHeaders(_) => Aside::instead_of_the_engine().on_event(core, event),
            other => Err(OutOfOrder::new(&other, "before the request's body had ended")),
        }
    }

    fn on_body<D: Router>(
        mut self: Box<Self>,
        core: &mut Core<D>,
        message: HttpBody,
        now: Moment,
    ) -> Turn<D::Route> {
        let ends = message.end_of_stream || message.end_of_stream_without_message;
        let chunk = message.body;
        if !chunk.is_empty() {
            self.progress = now;
        }
        if self.request.held.len() + chunk.len() > core.limits.max_body_bytes {
            return self
                .request
                .refuse(core, &RouteError::BodyTooLarge { limit: core.limits.max_body_bytes });
        }
        let end = match (self.request.mode, ends) {
            (_, true) => Some(End::Body),
            (BodyMode::Buffered, false) => Some(End::Shown),
            (BodyMode::BufferedPartial, false) => Some(End::Cut),
            (BodyMode::None | BodyMode::Streamed | BodyMode::FullDuplex, false) => None,
        };
        if !self.request.held.permit.take(chunk.len()) {
            return self.request.over_budget(core, chunk, end);
        }
        if let Err(problem) = self.intake.push(&chunk) {
            return self.request.refuse(core, &RouteError::Body(problem));
        }
        self.request.held.push(chunk);
        match end {
            Some(end) => self.decide(core, end),
            None => Ok((Phase::Receiving(self), Step::Wait)),
        }
    }

    /// All that will be shown of the body is here.
    fn decide<D: Router>(self, core: &mut Core<D>, end: End) -> Turn<D::Route> {
        let Self { intake, request, .. } = self;
        if end == End::Cut {
            return request.hand_over(core, Some(end), BodyView::Cut(intake.finish_cut()));
        }
        match intake.finish() {
            Ok(parsed) => request.hand_over(core, Some(end), BodyView::Whole(parsed)),
            Err(problem) => request.refuse(core, &RouteError::Body(problem)),
        }
    }

    pub(super) fn on_idle<D: Router>(&self, core: &mut Core<D>) -> Turn<D::Route> {
        self.request.refuse(core, &RouteError::BodyIdle { seconds: core.limits.body_idle.as_secs() })
    }

    /// A message came that is larger than the server takes.
    pub(super) fn on_oversized<D: Router>(&self, core: &mut Core<D>) -> Turn<D::Route> {
        self.request.refuse(core, &RouteError::BodyTooLarge { limit: core.limits.max_body_bytes })
    }

    pub(super) fn deadline(&self, idle: Duration) -> Moment {
        self.progress.plus(idle)
    }

    pub(super) fn is_grpc(&self) -> bool {
        self.request.facts.grpc
    }
}

impl Gathered {
    fn refuse<D: Router>(&self, core: &mut Core<D>, error: &RouteError) -> Turn<D::Route> {
        core.refuse(&self.headers, self.facts.grpc, error)
    }

    fn over_budget<D: Router>(
        mut self,
        core: &mut Core<D>,
        chunk: Bytes,
        end: Option<End>,
    ) -> Turn<D::Route> {
        match core.limits.over_budget {
            OverBudget::Refuse => {
                let error = RouteError::BufferFull { limit: core.budget.limit() };
                self.refuse(core, &error)
            }
            OverBudget::DecideOnHeaders => {
                core.meters.blind("OVER_BUDGET");
                self.held.permit.take_over(chunk.len());
                self.held.push(chunk);
                self.hand_over(core, end, BodyView::Hidden)
            }
        }
    }

    /// Asks the router. Without `end` more of the body follows and passes through.
    fn hand_over<D: Router>(self, core: &Core<D>, end: Option<End>, body: BodyView) -> Turn<D::Route> {
        let Self { received, headers, facts, held, mode } = self;
        let body_bytes = held.len();
        let full_duplex = mode == BodyMode::FullDuplex;
        let side = match end {
            Some(End::Body | End::Trailers) => RequestSide::Ended,
            Some(End::Cut | End::Shown) | None => RequestSide::passing(mode),
        };
        let answer = match end {
            _ if full_duplex => Answer::Headers,
            Some(End::Trailers) => Answer::Trailers,
            _ => Answer::Body,
        };
        // What cannot be changed any more need not be kept: the proxy has its own copy.
        let hidden = matches!(body, BodyView::Hidden);
        let held = if hidden && !full_duplex { Held::new(core.permit()) } else { held };
        let mut routing = Routing::new(facts, answer, held, side);
        routing.may_rewrite = !hidden;
        routing.cut = end == Some(End::Cut);
        routing.end_with(end == Some(End::Body), end == Some(End::Trailers));
        let envelope = Envelope { received, headers, subset: core.subset.clone(), body, body_bytes };
        Ok((Phase::Routing(Box::new(routing)), Step::Route(Box::new(envelope))))
    }
}
