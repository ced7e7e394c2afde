//! Makes the messages to the proxy.

use super::headers::{Changes, Facts};
use super::metadata;
use crate::director::RoutedRequest;
use crate::plugin::HeaderEdits;
use crate::proto::ext_proc::{
    BodyMutation, BodyResponse, CommonResponse, HeadersResponse, Mutation, ProcessingResponse, Reply,
    StreamedBodyResponse, TrailersResponse,
};
use crate::request::names;
use bytes::Bytes;

/// Most bytes of a body in one message: some data planes cap a streamed piece at 64 KiB.
pub const MAX_PIECE: usize = 62_000;

/// The direction of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Towards the engine.
    Request,
    /// Towards the client.
    Response,
}

fn plain(reply: Reply) -> ProcessingResponse {
    ProcessingResponse { dynamic_metadata: None, mode_override: None, response: Some(reply) }
}

/// A reply to headers.
pub fn headers(side: Side, common: Option<CommonResponse>) -> ProcessingResponse {
    let response = HeadersResponse { response: common };
    plain(match side {
        Side::Request => Reply::RequestHeaders(response),
        Side::Response => Reply::ResponseHeaders(response),
    })
}

/// A reply to a piece of a body.
pub fn body(side: Side, common: Option<CommonResponse>) -> ProcessingResponse {
    let response = BodyResponse { response: common };
    plain(match side {
        Side::Request => Reply::RequestBody(response),
        Side::Response => Reply::ResponseBody(response),
    })
}

/// A reply to trailers.
pub fn trailers(side: Side) -> ProcessingResponse {
    plain(match side {
        Side::Request => Reply::RequestTrailers(TrailersResponse {}),
        Side::Response => Reply::ResponseTrailers(TrailersResponse {}),
    })
}

/// The next piece of a body in full-duplex mode.
pub fn piece(side: Side, bytes: Bytes, end_of_stream: bool) -> ProcessingResponse {
    let streamed = Mutation::Streamed(StreamedBodyResponse { body: bytes, end_of_stream });
    body(side, Some(with_body(streamed)))
}

/// A reply that puts `bytes` in the place of what the message held.
pub fn replaced(side: Side, bytes: Bytes) -> ProcessingResponse {
    let mutation = if bytes.is_empty() { Mutation::Clear(true) } else { Mutation::Body(bytes) };
    body(side, Some(with_body(mutation)))
}

fn with_body(mutation: Mutation) -> CommonResponse {
    CommonResponse {
        body_mutation: Some(BodyMutation { mutation: Some(mutation) }),
        ..CommonResponse::default()
    }
}

/// The reply that tells the pick: destination in header and metadata, what plugins want, the client's control headers
/// out, and the new length where the body's size changed.
pub fn pick<R: RoutedRequest>(route: &R, facts: &Facts, new_length: Option<u64>) -> ProcessingResponse {
    let destination = Bytes::copy_from_slice(route.destination().as_bytes());
    let mut changes = Changes::default();
    changes.set(names::DESTINATION, destination.clone());
    if let Some(length) = new_length {
        changes.set("content-length", length.to_string());
    }
    if let Some(id) = route.request_id_to_set() {
        changes.set(names::REQUEST_ID, id.to_owned());
    }
    edits(&mut changes, route.edits());
    for (name, _) in facts.control.iter() {
        changes.remove(name.to_owned());
    }
    if let Some(name) = &facts.taken_out {
        changes.remove(name.clone());
    }
    let common = CommonResponse {
        header_mutation: changes.into_message(),
        clear_route_cache: true,
        ..CommonResponse::default()
    };
    ProcessingResponse {
        dynamic_metadata: Some(metadata::destination(&destination, route.scores())),
        mode_override: None,
        response: Some(Reply::RequestHeaders(HeadersResponse { response: Some(common) })),
    }
}

/// Turns the reply of [`pick`] into one to the only body message, for the modes that hold headers until the body came.
/// The header changes steer there just as well.
pub fn onto_body(pick: ProcessingResponse, replacement: Option<Bytes>) -> ProcessingResponse {
    let ProcessingResponse { dynamic_metadata, mode_override, response } = pick;
    let mut common = match response {
        Some(Reply::RequestHeaders(headers)) => headers.response.unwrap_or_default(),
        _ => CommonResponse::default(),
    };
    common.body_mutation = replacement.map(|b| BodyMutation { mutation: Some(Mutation::Body(b)) });
    let response = Some(Reply::RequestBody(BodyResponse { response: Some(common) }));
    ProcessingResponse { dynamic_metadata, mode_override, response }
}

/// The header changes that plugins ask for.
pub fn edits(changes: &mut Changes, edits: &HeaderEdits) {
    for (name, value) in &edits.set {
        changes.set(name.as_bytes().to_vec(), value.clone());
    }
    for name in &edits.remove {
        changes.remove(name.as_bytes().to_vec());
    }
}
