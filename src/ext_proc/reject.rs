//! From a refusal to the answer that the client sees. The only place that knows HTTP and gRPC status codes.

use super::headers::Changes;
use crate::director::{ErrorClass, RouteError};
use crate::proto::ext_proc::{GrpcStatus, HttpStatus, ImmediateResponse, ProcessingResponse, Reply};
use crate::request::names;
use bytes::Bytes;

/// Seconds after which a refused client may try again: queues of engines move within a second.
const RETRY_AFTER_SECONDS: &str = "1";

/// What one class of refusals looks like from outside.
struct Face {
    http: i32,
    grpc: u32,
    /// OpenAI's `error.type`.
    kind: &'static str,
    retry: bool,
}

fn face(class: ErrorClass) -> Face {
    let (http, grpc, kind, retry) = match class {
        ErrorClass::BadRequest => (400, 3, "invalid_request_error", false),
        ErrorClass::NotFound => (404, 5, "not_found_error", false),
        ErrorClass::Timeout => (408, 4, "timeout_error", false),
        ErrorClass::PreconditionFailed => (412, 9, "precondition_failed_error", false),
        ErrorClass::TooLarge => (413, 8, "request_too_large_error", false),
        ErrorClass::Saturated => (429, 8, "rate_limit_error", true),
        ErrorClass::Internal => (500, 13, "server_error", false),
        ErrorClass::Unavailable => (503, 14, "service_unavailable_error", true),
    };
    Face { http, grpc, kind, retry }
}

/// The HTTP status of a class, for tables and logs.
pub fn http_status(class: ErrorClass) -> u16 {
    u16::try_from(face(class).http).unwrap_or(500)
}

/// The answer to a refused request. A gRPC request is answered with a gRPC status and plain text.
pub fn refusal(error: &RouteError, grpc: bool) -> ProcessingResponse {
    let message = format!("inference error: {} - {error}", error.code());
    answer(&face(error.class()), error.code(), &message, error.dropped_reason(), grpc)
}

/// The answer to a request that was taken back to make room for another.
pub fn evicted(reason: Option<&'static str>, grpc: bool) -> ProcessingResponse {
    let message = "request evicted by flow control: retry later, or with a higher priority";
    let reason = reason.unwrap_or("evicted");
    answer(&face(ErrorClass::Saturated), "Evicted", message, Some(reason), grpc)
}

fn answer(
    face: &Face,
    code: &'static str,
    message: &str,
    reason: Option<&'static str>,
    grpc: bool,
) -> ProcessingResponse {
    let mut changes = Changes::default();
    if !grpc {
        changes.set("content-type", "application/json");
    }
    if let Some(reason) = reason {
        changes.set(names::DROPPED_REASON, reason);
    }
    if face.retry {
        changes.set("retry-after", RETRY_AFTER_SECONDS);
    }
    let body = if grpc { Bytes::from(message.to_owned()) } else { json(face.kind, code, message) };
    let immediate = ImmediateResponse {
        status: Some(HttpStatus { code: face.http }),
        headers: changes.into_message(),
        body,
        grpc_status: grpc.then_some(GrpcStatus { status: face.grpc }),
        details: format!("pointsman_{code}"),
    };
    ProcessingResponse {
        dynamic_metadata: None,
        mode_override: None,
        response: Some(Reply::Immediate(immediate)),
    }
}

/// The error body in OpenAI's shape.
fn json(kind: &str, code: &str, message: &str) -> Bytes {
    let body = serde_json::json!({
        "error": { "message": message, "type": kind, "code": code, "param": null }
    });
    Bytes::from(body.to_string())
}

#[cfg(test)]
#[path = "reject_tests.rs"]
mod tests;
