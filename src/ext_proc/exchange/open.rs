//! The request was routed: the rest of it passes, and its response comes.

use super::super::headers::{self, Changes};
use super::super::metadata;
use super::super::meters::Unseen;
use super::super::mode::{self, BodyMode};
use super::super::reply::{self, Side};
use super::outbox::Outbox;
use super::routing::RequestSide;
use super::{Core, OutOfOrder, Phase, ResponseBodies, Step, Turn};
use crate::director::{RoutedRequest, Router};
use crate::proto::ext_proc::{BodySendMode, CommonResponse, Event, HttpBody, HttpHeaders};
use crate::request::{Ending, Headers, ModelRestorer, Usage, UsageReader};
use bytes::Bytes;

/// A routed request.
#[derive(Debug)]
pub(super) struct Open<R> {
    route: R,
    request: RequestSide,
    response: Option<Answering>,
    grpc: bool,
    tunnel: bool,
}

/// A response whose headers came.
#[derive(Debug)]
struct Answering {
    /// Absent where the body cannot be read: encoded.
    usage: Option<UsageReader>,
    restorer: Option<ModelRestorer>,
    /// No message will tell the end, so that the end of the stream is the end of the response.
    closes_naturally: bool,
    /// The proxy was asked not to show the body.
    skipped: bool,
}

impl Answering {
    fn usage(&self) -> Usage {
        self.usage.as_ref().map(UsageReader::usage).unwrap_or_default()
    }
}

/// The response has ended; the stream is open until the proxy closes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished {
    request: RequestSide,
}

impl<R: RoutedRequest> Open<R> {
    pub(super) fn new(route: R, request: RequestSide, grpc: bool, tunnel: bool) -> Self {
        Self { route, request, response: None, grpc, tunnel }
    }

    pub(super) fn on_event<D: Router<Route = R>>(
        mut self: Box<Self>,
        core: &mut Core<D>,
        event: Event,
        served: Option<&str>,
    ) -> Turn<R> {
        match event {
            Event::RequestBody(_) | Event::RequestTrailers(_) => {
                match pass_request(&mut self.request, core.modes.request, &mut core.out, event) {
                    Ok(()) => Ok((Phase::Open(self), Step::Wait)),
                    Err(problem) => self.break_off(problem),
                }
            }
            Event::ResponseHeaders(message) if self.response.is_none() => {
                self.on_headers(core, message, served)
            }
            Event::ResponseBody(body) => self.on_body(core, body),
            Event::ResponseTrailers(_) => self.on_trailers(core),
            other => self.break_off(OutOfOrder::new(&other, "after the request was routed")),
        }
    }

    fn on_headers<D: Router<Route = R>>(
        mut self: Box<Self>,
        core: &mut Core<D>,
        message: HttpHeaders,
        served: Option<&str>,
    ) -> Turn<R> {
        let headers = headers::read(message.headers);
        let edits = self.route.on_response_headers(headers::status(&headers), served, &headers);
        let mut changes = Changes::default();
        reply::edits(&mut changes, &edits);
        if message.end_of_stream {
            core.out.push(headers_reply(changes));
            return Ok(self.finish(Usage::default()));
        }
        let mut answering = self.answering(core, &headers);
        self.tell_unseen(core, &mut answering);
        if answering.restorer.is_some() {
            // The names may differ in length, and the header leaves before the body is known.
            changes.remove("content-length");
        }
        let mut reply = headers_reply(changes);
        if answering.skipped {
            reply.mode_override = Some(mode::hiding_override(core.modes));
        } else if self.tunnel && !matches!(core.modes.response, BodyMode::FullDuplex | BodyMode::None) {
            // An override sets both directions anew, so this one must not bring the request's bodies back.
            reply.mode_override = Some(match core.modes.request {
                BodyMode::FullDuplex => mode::response_override(core.modes, BodySendMode::None),
                _ => mode::tunnel_override(),
            });
        } else if is_event_stream(&headers)
            && matches!(core.modes.response, BodyMode::Buffered | BodyMode::BufferedPartial)
        {
            // Buffering would keep every token from the client until the last one came.
            reply.mode_override = Some(mode::response_override(core.modes, BodySendMode::Streamed));
        }
        core.out.push(reply);
        self.response = Some(answering);
        Ok((Phase::Open(self), Step::Wait))
    }

    /// Asks for no body where nobody wants it, and says what is lost where none is read.
    fn tell_unseen<D: Router<Route = R>>(&mut self, core: &Core<D>, answering: &mut Answering) {
        let unwanted = core.limits.response_bodies == ResponseBodies::Skip && answering.restorer.is_none();
        let why = match core.modes.response {
            _ if self.tunnel => return,
            BodyMode::None => Unseen::Hidden,
            _ if !unwanted => return,
            _ if core.modes.can_hide_responses() => Unseen::Skipped,
            _ => Unseen::Unavoidable,
        };
        if why != Unseen::Unavoidable {
            self.route.on_response_unseen();
        }
        answering.skipped = why == Unseen::Skipped;
        answering.closes_naturally |= answering.skipped;
        core.meters.unseen(why, || core.router.response_readers());
    }

    fn answering<D: Router<Route = R>>(&self, core: &Core<D>, headers: &Headers) -> Answering {
        let mode = core.modes.response;
        let plain = headers.get("content-encoding").is_none_or(|e| e.trim().eq_ignore_ascii_case("identity"));
        let readable = plain && mode != BodyMode::None && !self.tunnel;
        let wanted = core.limits.response_bodies == ResponseBodies::Read;
        let reader = || UsageReader::new(self.route.api(), is_event_stream(headers));
        let restorer =
            || self.route.restore_model().map(|(target, incoming)| ModelRestorer::new(target, incoming));
        Answering {
            usage: (readable && wanted).then(reader),
            restorer: if readable { restorer() } else { None },
            closes_naturally: mode == BodyMode::None || self.tunnel,
            skipped: false,
        }
    }

    fn on_body<D: Router<Route = R>>(mut self: Box<Self>, core: &mut Core<D>, message: HttpBody) -> Turn<R> {
        let mode = core.modes.response;
        core.meters.response_piece();
        let mut answering = match self.response.take() {
            Some(answering) => answering,
            // The proxy is configured not to show response headers.
            None => self.answering(core, &Headers::default()),
        };
        if std::mem::take(&mut answering.skipped) {
            // The proxy does not allow overrides, so it tells the end as ever.
            answering.closes_naturally = false;
            core.meters.unseen(Unseen::Insisted, || core.router.response_readers());
        }
        let ends = message.end_of_stream || message.end_of_stream_without_message;
        let mut usage = Usage::default();
        if let Some(reader) = &mut answering.usage {
            reader.push(&message.body);
            usage = if ends { reader.finish() } else { reader.usage() };
        }
        self.route.on_response_chunk(message.body.len(), usage);
        if mode == BodyMode::FullDuplex {
            send_on(&mut core.out, &mut answering.restorer, message.body, ends);
        } else {
            core.out.push(self.answer_piece(&answering, message.body));
        }
        if ends {
            core.out.end_with(metadata::reported(&self.route.attributes(usage)));
            return Ok(self.finish(usage));
        }
        answering.closes_naturally |= mode == BodyMode::BufferedPartial;
        self.response = Some(answering);
        Ok((Phase::Open(self), Step::Wait))
    }

    /// The reply to a piece in the modes that want one for each. Nothing can be held back there, because trailers may
    /// end the body without another chance to send it; so a name that two pieces share stays as it is.
    fn answer_piece(
        &self,
        answering: &Answering,
        chunk: Bytes,
    ) -> crate::proto::ext_proc::ProcessingResponse {
        let names = self.route.restore_model().filter(|_| answering.restorer.is_some() && !chunk.is_empty());
        match names {
            None => reply::body(Side::Response, None),
            Some((target, incoming)) => {
                let parts = ModelRestorer::new(target, incoming).push(chunk, true);
                reply::replaced(Side::Response, parts.concat().into())
            }
        }
    }

    fn on_trailers<D: Router<Route = R>>(mut self, core: &mut Core<D>) -> Turn<R> {
        let mut usage = Usage::default();
        if let Some(mut answering) = self.response.take() {
            usage = answering.usage.as_mut().map(UsageReader::finish).unwrap_or_default();
            if let (BodyMode::FullDuplex, Some(restorer)) = (core.modes.response, &mut answering.restorer) {
                let rest = restorer.push(Bytes::new(), true);
                rest.into_iter().for_each(|chunk| core.out.chunk(Side::Response, chunk, false));
            }
        }
        core.out.push(reply::trailers(Side::Response));
        core.out.end_with(metadata::reported(&self.route.attributes(usage)));
        Ok(self.finish(usage))
    }

    fn finish(self, usage: Usage) -> (Phase<R>, Step) {
        let Self { route, request, .. } = self;
        route.finish(usage, Ending::Natural);
        (Phase::Finished(Finished { request }), Step::Wait)
    }

    fn break_off(self, problem: OutOfOrder) -> Turn<R> {
        self.end(Ending::Protocol);
        Err(problem)
    }

    fn end(self, ending: Ending) {
        let usage = self.response.as_ref().map(Answering::usage).unwrap_or_default();
        self.route.finish(usage, ending);
    }

    /// All replies to the request are out.
    pub(super) fn replied(&mut self) {
        self.route.on_replied();
    }

    /// The request is taken back; says whether it is a gRPC one.
    pub(super) fn evict(self) -> bool {
        let grpc = self.grpc;
        self.end(Ending::Evicted);
        grpc
    }

    /// The stream was closed.
    pub(super) fn close(self) {
        let natural = self.response.as_ref().is_some_and(|answering| answering.closes_naturally);
        self.end(if natural { Ending::Natural } else { Ending::Disconnected });
    }
}

impl Finished {
    pub(super) fn on_event<D: Router>(mut self, core: &mut Core<D>, event: Event) -> Turn<D::Route> {
        match event {
            Event::RequestBody(_) | Event::RequestTrailers(_) => {
                pass_request(&mut self.request, core.modes.request, &mut core.out, event)?;
            }
            // The end came twice.
            Event::ResponseBody(body) if body.body.is_empty() => {
                if core.modes.response != BodyMode::FullDuplex {
                    core.out.push(reply::body(Side::Response, None));
                }
            }
            other => return Err(OutOfOrder::new(&other, "after the response had ended")),
        }
        Ok((Phase::Finished(self), Step::Wait))
    }
}

/// Lets the rest of a request pass whose decision was made.
fn pass_request(
    side: &mut RequestSide,
    mode: BodyMode,
    out: &mut Outbox,
    event: Event,
) -> Result<(), OutOfOrder> {
    match (event, *side) {
        (Event::RequestBody(body), RequestSide::Ended) if body.body.is_empty() => {
            if mode != BodyMode::FullDuplex {
                out.push(reply::body(Side::Request, None));
            }
        }
        (Event::RequestBody(body), RequestSide::Echoed | RequestSide::Observed) => {
            let ends = body.end_of_stream || body.end_of_stream_without_message;
            if *side == RequestSide::Echoed {
                out.chunk(Side::Request, body.body, ends);
            } else {
                out.push(reply::body(Side::Request, None));
            }
            if ends {
                *side = RequestSide::Ended;
            }
        }
        (Event::RequestTrailers(_), RequestSide::Echoed | RequestSide::Observed) => {
            out.push(reply::trailers(Side::Request));
            *side = RequestSide::Ended;
        }
        (other, _) => return Err(OutOfOrder::new(&other, "after the request had ended")),
    }
    Ok(())
}

/// Sends a piece of a full-duplex response on.
fn send_on(out: &mut Outbox, restorer: &mut Option<ModelRestorer>, chunk: Bytes, ends: bool) {
    let Some(restorer) = restorer else {
        return out.chunk(Side::Response, chunk, ends);
    };
    let mut parts = restorer.push(chunk, ends);
    parts.retain(|part| !part.is_empty());
    let last = if ends { Some(parts.pop().unwrap_or_default()) } else { None };
    parts.into_iter().for_each(|part| out.chunk(Side::Response, part, false));
    if let Some(last) = last {
        out.chunk(Side::Response, last, true);
    }
}

fn is_event_stream(headers: &Headers) -> bool {
    let kind = headers.get_bytes("content-type");
    kind.is_some_and(|k| k.to_ascii_lowercase().windows(17).any(|w| w == b"text/event-stream"))
}

fn headers_reply(changes: Changes) -> crate::proto::ext_proc::ProcessingResponse {
    let common = changes
        .into_message()
        .map(|mutation| CommonResponse { header_mutation: Some(mutation), ..CommonResponse::default() });
    reply::headers(Side::Response, common)
}
