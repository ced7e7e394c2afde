//! Drives one exchange: pulls messages in and replies out, without a task or a channel of its own. Where there are several
//! pools, the first message says which one's exchange it is.

use super::exchange::{Exchange, OutOfOrder, Step};
use super::pools::{Choice, Lane, Place, STREAM_METADATA};
use super::service::Shared;
use crate::director::{RouteError, Router};
use crate::proto::ext_proc::{Event, ProcessingRequest, ProcessingResponse, Reply};
use crate::telemetry::logs;
use bytes::Bytes;
use futures::Stream;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tonic::{Code, Request, Status, Streaming};

type Decision<R> = Pin<Box<dyn Future<Output = Result<R, RouteError>> + Send>>;

/// The answers on one stream.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is what nearly every stream is nearly all of the time"
)]
pub enum Answers<D: Router> {
    /// The pool is not known before the first message.
    Choosing(Choosing<D>),
    /// The pool's exchange runs.
    Chosen(Replies<D>),
    /// The request belongs to no pool: the refusal, until it is taken.
    Refused(Option<Box<ProcessingResponse>>),
}

/// A stream whose first message is waited for.
pub struct Choosing<D> {
    shared: Arc<Shared<D>>,
    /// The pool that the proxy names for the whole stream.
    called: Option<Bytes>,
    inbound: Option<Streaming<ProcessingRequest>>,
}

impl<D: Router> Answers<D> {
    pub(super) fn new(shared: Arc<Shared<D>>, request: Request<Streaming<ProcessingRequest>>) -> Self {
        if shared.pools.chooser().is_some() {
            let called = request.metadata().get(STREAM_METADATA);
            let called = called.map(|name| Bytes::copy_from_slice(name.as_bytes()));
            return Self::Choosing(Choosing { shared, called, inbound: Some(request.into_inner()) });
        }
        let inbound = request.into_inner();
        let place = Place::default();
        let exchange = shared.exchange(place);
        Self::Chosen(Replies::new(shared, place, exchange, inbound))
    }
}

impl<D: Router> Choosing<D> {
    /// Waits for a message that says something. `None` when the stream ended before.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Answers<D>, Status>>> {
        loop {
            let Some(inbound) = &mut self.inbound else { return Poll::Ready(None) };
            let mut message = match std::task::ready!(Pin::new(inbound).poll_next(cx)) {
                Some(Ok(message)) if message.request.is_none() => continue,
                Some(Ok(message)) => message,
                other => return Poll::Ready(other.and_then(Result::err).map(Err)),
            };
            let (Some(chooser), Some(inbound)) = (self.shared.pools.chooser(), self.inbound.take()) else {
                return Poll::Ready(None);
            };
            return Poll::Ready(Some(Ok(
                match chooser.choose(self.called.take(), &mut message, self.shared.clock.now()) {
                    Choice::Refused(refusal) => Answers::Refused(Some(refusal)),
                    Choice::Pool(place, header) => {
                        let mut exchange = self.shared.exchange(place);
                        exchange.take_out(header);
                        let mut replies = Replies::new(Arc::clone(&self.shared), place, exchange, inbound);
                        replies.in_scope(|replies| replies.accept(message));
                        Answers::Chosen(replies)
                    }
                },
            )));
        }
    }
}

impl<D: Router> Stream for Answers<D> {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Self::Choosing(choosing) = this {
            match std::task::ready!(choosing.poll(cx)) {
                None => return Poll::Ready(None),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                Some(Ok(chosen)) => *this = chosen,
            }
        }
        match this {
            Self::Chosen(replies) => replies.in_scope(|replies| replies.poll_reply(cx)),
            Self::Refused(refusal) => Poll::Ready(refusal.take().map(|refusal| Ok(*refusal))),
            Self::Choosing(_) => Poll::Ready(None),
        }
    }
}

impl<D: Router> std::fmt::Debug for Answers<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Choosing(_) => "Choosing",
            Self::Chosen(_) => "Chosen",
            Self::Refused(_) => "Refused",
        })
    }
}

/// The replies of one stream. Polling it reads what came, asks the router, and minds the deadline.
pub struct Replies<D: Router> {
    shared: Arc<Shared<D>>,
    place: Place,
    exchange: Exchange<D>,
    inbound: Streaming<ProcessingRequest>,
    decision: Option<Decision<D::Route>>,
    timer: Option<Pin<Box<Sleep>>>,
    /// How the stream ends once the replies that wait are out.
    over: Option<Result<(), Status>>,
    inbound_ended: bool,
    opened: std::time::Instant,
    code: Option<&'static str>,
    busy: Busy,
}

/// Time that the picker itself spent on a stream, waiting excluded.
#[derive(Default)]
struct Busy {
    request: Duration,
    response: Option<Duration>,
    /// Whether the reply to the request's body was spoken of.
    routed: bool,
}

impl Busy {
    fn on_message(&mut self, spent: Duration, of_response: bool) {
        if of_response {
            *self.response.get_or_insert_default() += spent;
        } else {
            self.request += spent;
        }
    }
}

impl<D: Router> std::fmt::Debug for Replies<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replies").field("over", &self.over).finish_non_exhaustive()
    }
}

impl<D: Router> Replies<D> {
    fn new(
        shared: Arc<Shared<D>>,
        place: Place,
        exchange: Exchange<D>,
        inbound: Streaming<ProcessingRequest>,
    ) -> Self {
        shared.pools.lane(place).meters.stream_opened();
        Self {
            shared,
            place,
            exchange,
            inbound,
            decision: None,
            timer: None,
            over: None,
            inbound_ended: false,
            opened: std::time::Instant::now(),
            code: None,
            busy: Busy::default(),
        }
    }

    fn lane(&self) -> &Lane<D> {
        self.shared.pools.lane(self.place)
    }

    /// Runs `work` so that whatever it counts is counted for its pool.
    fn in_scope<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> R {
        if self.lane().scope.is_process() {
            return work(self);
        }
        let scope = self.lane().scope.clone();
        scope.run(|| work(self))
    }

    /// The lines that tools look for at debug level.
    fn speak_of(&mut self, reply: &ProcessingResponse) {
        match &reply.response {
            Some(Reply::RequestBody(_)) if !std::mem::replace(&mut self.busy.routed, true) => {
                tracing::debug!("{}", logs::SENT_REQUEST_BODY);
            }
            Some(Reply::ResponseBody(_)) => tracing::debug!("{}", logs::SENT_RESPONSE_BODY),
            _ => {}
        }
    }

    fn follow(&mut self, step: Step) {
        match step {
            Step::Wait => {}
            Step::Route(envelope) => {
                let router = Arc::clone(&self.lane().router);
                self.decision = Some(Box::pin(async move { router.route(*envelope).await }));
            }
            Step::End(Ok(())) => self.over = Some(Ok(())),
            Step::End(Err(problem)) => self.over = Some(Err(out_of_order(problem))),
        }
    }

    /// Asks the router again; says whether it has decided.
    fn poll_decision(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.exchange.awaits_decision() {
            self.decision = None;
        }
        let Some(decision) = &mut self.decision else { return false };
        let began = self.shared.clock.now();
        let polled = decision.as_mut().poll(cx);
        self.busy.request += self.shared.clock.now().since(began);
        let Poll::Ready(decided) = polled else { return false };
        self.decision = None;
        let step = self.exchange.on_routed(decided);
        self.follow(step);
        true
    }

    /// Reads the next message; says whether anything happened.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> bool {
        if self.inbound_ended {
            // The proxy has said all it has to say; it still hears the decision.
            if self.decision.is_some() {
                return false;
            }
            self.exchange.on_closed();
            self.over = Some(Ok(()));
            return true;
        }
        match Pin::new(&mut self.inbound).poll_next(cx) {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(message))) => {
                self.accept(message);
                true
            }
            Poll::Ready(None) => {
                self.inbound_ended = true;
                true
            }
            Poll::Ready(Some(Err(status))) => {
                self.on_broken(status);
                true
            }
        }
    }

    /// A message came.
    fn accept(&mut self, message: ProcessingRequest) {
        let of_response = of_response(&message);
        let began = self.shared.clock.now();
        let step = self.exchange.on_message(message, began);
        self.busy.on_message(self.shared.clock.now().since(began), of_response);
        self.follow(step);
    }

    /// The stream broke. Proxies also break streams of requests that went well, so this says nothing about the request.
    fn on_broken(&mut self, status: Status) {
        if status.code() == Code::OutOfRange {
            tracing::warn!(problem = status.message(), "a message is over --grpc-max-recv-msg-size");
            let step = self.exchange.on_oversized();
            return self.follow(step);
        }
        tracing::debug!(code = ?status.code(), problem = status.message(), "the stream broke");
        self.exchange.on_closed();
        self.over = Some(Err(status));
    }

    /// Minds the deadline; says whether it is over.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.exchange.deadline() else {
            self.timer = None;
            return false;
        };
        loop {
            let now = self.shared.clock.now();
            let at = Instant::now() + deadline.since(now);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            if now >= deadline {
                let step = self.exchange.on_deadline(now);
                self.follow(step);
                return true;
            }
            // There was progress since the timer was set.
            timer.as_mut().reset(at);
        }
    }
}

impl<D: Router> Replies<D> {
    /// The next reply; `None` when the stream is over.
    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ProcessingResponse, Status>>> {
        loop {
            if let Some(reply) = self.exchange.pull() {
                self.speak_of(&reply);
                return Poll::Ready(Some(Ok(reply)));
            }
            match &mut self.over {
                Some(Ok(())) => return Poll::Ready(None),
                Some(end @ Err(_)) => {
                    let ended = std::mem::replace(end, Ok(()));
                    self.code = ended.as_ref().err().map(|status| code_name(status.code()));
                    return Poll::Ready(ended.err().map(Err));
                }
                None => {}
            }
            if !(self.poll_decision(cx) || self.poll_inbound(cx) || self.poll_deadline(cx)) {
                return Poll::Pending;
            }
        }
    }
}

impl<D: Router> Drop for Replies<D> {
    fn drop(&mut self) {
        self.in_scope(|this| {
            this.decision = None;
            this.exchange.on_closed();
            let meters = &this.lane().meters;
            meters.stream_ended(this.code, this.opened.elapsed());
            meters.busy(this.busy.request, this.busy.response);
        });
    }
}

/// Whether a message belongs to the response; the first one of a request is spoken of.
fn of_response(message: &ProcessingRequest) -> bool {
    if matches!(message.request, Some(Event::RequestHeaders(_))) {
        tracing::debug!("{}", logs::RECEIVED_REQUEST);
    }
    matches!(
        message.request,
        Some(Event::ResponseHeaders(_) | Event::ResponseBody(_) | Event::ResponseTrailers(_))
    )
}

fn out_of_order(problem: OutOfOrder) -> Status {
    tracing::warn!(%problem, "the proxy's messages are out of order; the stream is ended");
    Status::invalid_argument(problem.to_string())
}

/// gRPC's own name of a status code, as the reference labels it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::ResourceExhausted | Code::OutOfRange => "ResourceExhausted",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        _ => "Unknown",
    }
}
