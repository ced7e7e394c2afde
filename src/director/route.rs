//! A request that was routed: where it goes, what is changed on the way, and what happens until it has ended.

use super::answers::Answers;
use super::decision_log::{Entry, Fate, Pending};
use super::decisions::{After, Recorded};
use super::shadow::Work;
use super::{Plan, RoutedRequest, Services};
use crate::clock::Moment;
use crate::endpoint::{Endpoint, HostPort, Reservation};
use crate::plugin::{HeaderEdits, ReportedAttribute, ResponseView};
use crate::request::{Api, Ending, Headers, InferenceRequest, Usage};
use crate::telemetry::traces::RequestSpan;
use crate::telemetry::{Finished, RequestSeries, RunningGuard};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// First target of each profile that chose.
pub(super) type ProfileTargets = Vec<(Arc<str>, Arc<Endpoint>)>;

/// Ordered primary targets, named secondary ones, header changes, and every reservation of the request.
///
/// Dropping a route that was not finished ends the request as disconnected; nothing it holds can leak.
#[derive(Debug)]
pub struct Route {
    pub(super) services: Arc<Services>,
    pub(super) plan: Arc<Plan>,
    pub(super) request: Arc<InferenceRequest>,
    pub(super) destination: Arc<str>,
    /// Port of the destination in place of the endpoints' own ones.
    pub(super) port: Option<u16>,
    pub(super) primary: Arc<Endpoint>,
    pub(super) fallbacks: Vec<Arc<Endpoint>>,
    /// The primary profile's included.
    pub(super) targets: ProfileTargets,
    pub(super) edits: HeaderEdits,
    pub(super) id_is_new: bool,
    pub(super) scores: Option<Vec<(Arc<str>, f64)>>,
    /// What the response tells of the decision.
    pub(super) answers: Option<Answers>,
    /// The primary one first; empty once the request has ended.
    pub(super) reservations: Vec<Reservation>,
    pub(super) series: Arc<RequestSeries>,
    /// The decision, where it is kept.
    pub(super) record: Option<Arc<Recorded>>,
    /// What is logged when it ends.
    pub(super) pending: Option<Box<Pending>>,
    /// What shadow profiles are to look at once the reply is out.
    pub(super) shadow: Option<Work>,
    /// Ends with the route.
    pub(super) span: RequestSpan,
    pub(super) running: Option<RunningGuard>,
    pub(super) response: Response,
}

/// What is known of the response so far.
#[derive(Debug, Default)]
pub(super) struct Response {
    status: Option<u16>,
    headers: Headers,
    event_stream: bool,
    bytes: usize,
    /// There is a body, and it is not shown.
    unseen: bool,
    first_byte: Option<Moment>,
    last_chunk: Option<Moment>,
    ended: bool,
}

impl Route {
    /// The request.
    pub fn request(&self) -> &InferenceRequest {
        &self.request
    }

    /// The endpoint that is believed to serve the request.
    pub fn serving(&self) -> &Arc<Endpoint> {
        self.reservations.first().map_or(&self.primary, Reservation::endpoint)
    }

    /// Whether requests for `endpoint` are sent to `destination`.
    fn is_at(&self, endpoint: &Endpoint, destination: &str) -> bool {
        match self.port {
            None => *endpoint.destination == *destination,
            Some(port) => destination.parse() == Ok(HostPort { host: endpoint.address.host.clone(), port }),
        }
    }

    /// The proxy says which endpoint really serves: the reservation moves there, and the targets before it have failed.
    fn serve(&mut self, destination: &str) {
        if self.is_at(&self.primary, destination) {
            return;
        }
        let fallback = self.fallbacks.iter().find(|e| self.is_at(e, destination)).cloned();
        let served = fallback.or_else(|| self.services.pool.peek().endpoint_at(destination).cloned());
        let Some(served) = served else {
            tracing::warn!(destination, planned = %self.primary.destination, "the proxy reports a served endpoint that is not in the pool");
            return;
        };
        tracing::info!(planned = %self.primary.destination, served = destination, "served by a fallback endpoint");
        self.services.health.request_failed(&self.primary);
        if let Some(record) = &self.record {
            record.happened(|after| after.served = Some(served.key.clone()));
        }
        if let Some(primary) = self.reservations.first_mut() {
            primary.move_to(served);
        }
    }

    fn view<'a>(&'a self, served: &'a Arc<Endpoint>) -> ResponseView<'a> {
        ResponseView {
            request: &self.request,
            served,
            targets: &self.targets,
            status: self.response.status,
            headers: &self.response.headers,
        }
    }

    fn log(&self, pending: Pending, after: After) {
        let Pending { log, kept, took, predicted } = pending;
        let endpoints = std::iter::once(&self.primary).chain(&self.fallbacks).cloned().collect();
        let fate = Fate::Routed { endpoints, predicted };
        log.push(Entry::new(Arc::clone(&self.request), kept, (self.plan.generation, took), fate, after));
    }

    fn end(&mut self, usage: Usage, ending: Ending) {
        if std::mem::replace(&mut self.response.ended, true) {
            return;
        }
        self.on_replied();
        let served = Arc::clone(self.serving());
        for (_, hook) in &self.plan.response {
            hook.on_end(&self.view(&served), usage, ending);
        }
        let duration = self.services.clock.now().since(self.request.received);
        let ttft = self.response.first_byte.map(|at| at.since(self.request.received));
        if let Some(record) = &self.record {
            record.happened(|after| {
                (after.first_byte, after.duration) = (ttft, Some(duration));
                (after.usage, after.ending) = (usage, Some(ending));
            });
        }
        if let Some(pending) = self.pending.take() {
            let moved = served.slot != self.primary.slot;
            let after = After {
                served: moved.then(|| served.key.clone()),
                status: self.response.status,
                first_byte: ttft,
                duration: Some(duration),
                usage,
                ending: Some(ending),
                ..After::default()
            };
            self.log(*pending, after);
        }
        self.series.finished(&Finished {
            duration,
            ttft,
            streaming: self.streaming(),
            usage,
            response_bytes: (!self.response.unseen).then_some(self.response.bytes),
            ending,
        });
        self.reservations.clear();
        self.running = None;
    }
}

impl RoutedRequest for Route {
    fn destination(&self) -> &str {
        &self.destination
    }

    fn edits(&self) -> &HeaderEdits {
        &self.edits
    }

    /// Replaces the model's token where the body has one; where it has none the span is empty and stands right after
    /// the opening brace.
    fn model_rewrite(&self) -> Option<(Range<usize>, Bytes)> {
        let span = self.request.parsed.model_span.clone()?;
        let target = &self.request.target_model;
        if target.is_empty() || self.request.model() == &**target {
            return None;
        }
        let token = serde_json::Value::from(&**target).to_string();
        let text = if span.is_empty() { format!("\"model\":{token},") } else { token };
        Some((span, Bytes::from(text)))
    }

    fn request_id_to_set(&self) -> Option<&str> {
        self.id_is_new.then_some(&*self.request.id)
    }

    fn api(&self) -> Api {
        self.request.parsed.api
    }

    fn streaming(&self) -> bool {
        self.request.parsed.stream || self.response.event_stream
    }

    fn scores(&self) -> Option<&[(Arc<str>, f64)]> {
        self.scores.as_deref()
    }

    fn on_replied(&mut self) {
        if let Some(work) = self.shadow.take() {
            self.services.shadows.push(work);
        }
    }

    fn on_response_headers(
        &mut self,
        status: Option<u16>,
        served: Option<&str>,
        headers: &Headers,
    ) -> HeaderEdits {
        if let Some(served) = served {
            self.serve(served);
        }
        let serving = Arc::clone(self.serving());
        match status {
            Some(500..) => self.services.health.request_failed(&serving),
            _ => self.services.health.request_ok(&serving),
        }
        if status.is_some_and(|s| s >= 400) {
            self.series.failed("ModelServerError");
            self.span.failed("ModelServerError");
        }
        self.response.status = status;
        if let Some(record) = &self.record {
            record.happened(|after| after.status = status);
        }
        self.response.event_stream =
            headers.get("content-type").is_some_and(|t| t.to_ascii_lowercase().contains("text/event-stream"));
        self.response.headers = headers.clone();
        let mut edits = HeaderEdits::default();
        for (_, hook) in &self.plan.response {
            hook.on_headers(&self.view(&serving), &mut edits);
        }
        if let Some(answers) = &self.answers {
            answers.write(&self.request.id, &mut edits);
        }
        edits
    }

    fn on_response_unseen(&mut self) {
        self.response.unseen = true;
    }

    fn on_response_chunk(&mut self, bytes: usize, _usage: Usage) {
        self.response.unseen = false;
        if bytes == 0 {
            return;
        }
        let now = self.services.clock.now();
        self.response.bytes += bytes;
        if self.response.first_byte.is_none() {
            self.response.first_byte = Some(now);
            self.series.first_byte(now.since(self.request.received), self.streaming());
            self.reservations.iter_mut().for_each(Reservation::first_byte);
        } else if let (true, Some(last)) = (self.streaming(), self.response.last_chunk) {
            self.series.inter_token(now.since(last));
        }
        self.response.last_chunk = Some(now);
    }

    fn attributes(&self, usage: Usage) -> Vec<ReportedAttribute> {
        self.plan.reporters.iter().filter_map(|(_, reporter)| reporter.report(&usage)).collect()
    }

    fn restore_model(&self) -> Option<(&str, &str)> {
        let (incoming, target) = (self.request.model(), &*self.request.target_model);
        (!incoming.is_empty() && !target.is_empty() && incoming != target).then_some((target, incoming))
    }

    fn finish(mut self, usage: Usage, ending: Ending) {
        self.end(usage, ending);
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.end(Usage::default(), Ending::Disconnected);
    }
}
