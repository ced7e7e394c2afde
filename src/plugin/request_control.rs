//! Plugins around scheduling: data producers, hooks before the request leaves and when the response comes, saturation.

use super::SchedulingOutcome;
use crate::clock::Moment;
use crate::endpoint::{Cost, Endpoint, ReservationRole};
use crate::pool::{Candidates, PoolSnapshot, Position};
use crate::request::{Ending, Headers, InferenceRequest, Ticket, Usage};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Header changes that a plugin wants on the way to the engine or to the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Headers to set, overwriting. Names lower case.
    pub set: Vec<(Box<str>, Bytes)>,
    /// Headers to take out.
    pub remove: Vec<Box<str>>,
}

impl HeaderEdits {
    /// Sets a header.
    pub fn set(&mut self, name: &str, value: impl Into<Bytes>) {
        self.set.push((name.into(), value.into()));
    }
    /// Takes a header out.
    pub fn remove(&mut self, name: &str) {
        self.remove.push(name.into());
    }
}

/// Why a producer gave nothing; the request goes on without its data.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ProduceError(pub String);

/// Writes attributes of the candidates before scheduling.
pub trait DataProducer: Send + Sync {
    /// Writes into `candidates.attributes`.
    fn produce(&self, request: &InferenceRequest, candidates: &mut Candidates) -> Result<(), ProduceError>;
}

/// Estimates what a request costs where it goes.
pub trait CostModel: Send + Sync {
    /// Tokens that the request adds at `position` in its `role` there.
    fn cost(
        &self,
        request: &InferenceRequest,
        candidates: &Candidates,
        position: Position,
        role: ReservationRole,
    ) -> Cost;
}

/// What a hook sees when a request is about to leave.
#[derive(Clone, Copy, Debug)]
pub struct Departure<'a> {
    /// The request.
    pub request: &'a InferenceRequest,
    /// The frozen endpoints, with the attributes that producers wrote.
    pub candidates: &'a Candidates,
    /// What was chosen.
    pub outcome: &'a SchedulingOutcome,
}

/// Looks at the outcome before the request leaves.
pub trait PreRequest: Send + Sync {
    /// Records what it needs; may ask for header changes on the request.
    fn before_send(&self, departure: &Departure<'_>, edits: &mut HeaderEdits);
}

/// What a hook sees of a response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseView<'a> {
    /// The request.
    pub request: &'a InferenceRequest,
    /// The endpoint that serves it.
    pub served: &'a Arc<Endpoint>,
    /// First target of each profile that ran.
    pub targets: &'a [(Arc<str>, Arc<Endpoint>)],
    /// HTTP status of the response, once its headers came.
    pub status: Option<u16>,
    /// Headers of the response.
    pub headers: &'a Headers,
}

/// Looks at the response. Each method does nothing unless the plugin overrides it.
pub trait ResponseHook: Send + Sync {
    /// The response headers came; may ask for header changes towards the client.
    fn on_headers(&self, _response: &ResponseView<'_>, _edits: &mut HeaderEdits) {}
    /// The request ended, for whatever reason, exactly once.
    fn on_end(&self, _response: &ResponseView<'_>, _usage: Usage, _ending: Ending) {}
}

/// Saturation with its parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// 0 is idle; from 1 on sheddable requests are refused.
    pub saturation: f64,
    /// Endpoints whose numbers were stale or missing and counted as full.
    pub stale_endpoints: u32,
}

/// What a saturation detector looks at.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionView<'a> {
    /// The pool.
    pub pool: &'a PoolSnapshot,
    /// Now.
    pub now: Moment,
    /// Three poll periods: numbers younger than this are as fresh as the poller makes them.
    pub poll_allowance: Duration,
}

/// Says how full the pool is.
pub trait SaturationDetector: Send + Sync {
    /// The saturation now.
    fn saturation(&self, view: &AdmissionView<'_>) -> Verdict;
}

/// Says which requests may go on to scheduling.
pub trait Admitter: Send + Sync {
    /// Whether `request` may go on. `draw` is a random number of this request, from 0 up to but not including 1.
    fn admits(&self, request: &InferenceRequest, view: &AdmissionView<'_>, draw: f64) -> bool;
}

/// Says whose share of the pool a request uses, where no trusted header does.
pub trait FairnessSource: Send + Sync {
    /// The fairness id.
    fn fairness_id<'a>(&self, headers: &'a Headers) -> Option<&'a str>;
}

/// A number for the proxy's dynamic metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedAttribute {
    /// Namespace of the metadata.
    pub namespace: Arc<str>,
    /// Its field.
    pub name: Arc<str>,
    /// The number, finite.
    pub value: f64,
}

/// Works out a number that the proxy learns when a response ends.
pub trait AttributeReporter: Send + Sync {
    /// The number for these counts, when there is one.
    fn report(&self, usage: &Usage) -> Option<ReportedAttribute>;
}

/// A request that is held back.
pub struct Held {
    /// For the plugin itself: its producer finds it in [`crate::request::Wishes::ticket`].
    pub ticket: Ticket,
    /// When it may go on at the latest.
    pub until: Moment,
    /// Cancelled when it may go on before that.
    pub early: CancellationToken,
}

/// Holds requests back for a short while, so that those that come together are decided together.
pub trait Hold: Send + Sync {
    /// Takes a request in; `None` when it need not wait. The wait is bounded by the plugin, and counted on the clock that
    /// it was built with, so that a simulation can pass it as fast as it likes.
    fn enter(&self, request: &InferenceRequest) -> Option<Held>;
}
