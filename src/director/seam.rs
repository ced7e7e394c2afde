//! What the edge needs of the director: the seam that lets each be tested without the other.

use super::{Envelope, RouteError};
use crate::plugin::{HeaderEdits, ReportedAttribute, ResponseReader};
use crate::request::parser::Intake;
use crate::request::{Api, Ending, Headers, ParseError, Usage};
use bytes::Bytes;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

/// Chooses where requests go.
pub trait Router: Send + Sync + 'static {
    /// A request on its way.
    type Route: RoutedRequest;

    /// A reader for the body of the request with these headers, by the parsers of the current plan.
    fn open(&self, headers: &Headers) -> Result<Intake, ParseError>;

    /// Chooses where the request goes. May wait for admission.
    fn route(&self, envelope: Envelope) -> impl Future<Output = Result<Self::Route, RouteError>> + Send;

    /// Counts a refusal that the edge made by itself; those of [`Router::route`] are counted there.
    fn refused(&self, headers: &Headers, error: &RouteError);

    /// Plugins that are worse off where the proxy does not show response bodies, and how: for the log.
    fn response_readers(&self) -> Vec<ResponseReader> {
        Vec::new()
    }
}

/// A request on its way. Dropping it unfinished ends it as [`Ending::Disconnected`].
pub trait RoutedRequest: Send + 'static {
    /// Value of the destination header: addresses in order of preference, separated by commas.
    fn destination(&self) -> &str;
    /// Header changes towards the engine.
    fn edits(&self) -> &HeaderEdits;
    /// What replaces which bytes of the body.
    fn model_rewrite(&self) -> Option<(Range<usize>, Bytes)>;
    /// The request id, when it was made here and must be sent on.
    fn request_id_to_set(&self) -> Option<&str>;
    /// The API that the request speaks.
    fn api(&self) -> Api;
    /// Whether the client asked for a stream, or the engine answers with one.
    fn streaming(&self) -> bool;
    /// Weighted sums of the rated endpoints, when they are to be emitted.
    fn scores(&self) -> Option<&[(Arc<str>, f64)]>;
    /// Every reply to the request has been handed to the proxy; called again is called in vain.
    fn on_replied(&mut self) {}
    /// The response headers came: its status, and the endpoint that serves as the proxy reports it. Returns header
    /// changes towards the client.
    fn on_response_headers(
        &mut self,
        status: Option<u16>,
        served: Option<&str>,
        headers: &Headers,
    ) -> HeaderEdits;
    /// The response has a body that the proxy will not show, so that nothing can be said of its size. A proxy that shows
    /// it after all is heard by [`RoutedRequest::on_response_chunk`].
    fn on_response_unseen(&mut self) {}
    /// A piece of the response body came. `usage` is what was reported up to now.
    fn on_response_chunk(&mut self, bytes: usize, usage: Usage);
    /// What the proxy is to learn of a response that ends with these counts.
    fn attributes(&self, _usage: Usage) -> Vec<ReportedAttribute> {
        Vec::new()
    }
    /// The target model in the answer and the name to restore, when they differ.
    fn restore_model(&self) -> Option<(&str, &str)>;
    /// The request ended.
    fn finish(self, usage: Usage, ending: Ending);
}
