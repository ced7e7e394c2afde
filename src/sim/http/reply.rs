//! Answers: JSON, errors in vLLM's shape, and the two ways not to answer.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::sim::driver::DriveError;
use crate::sim::engine::Refusal;
use crate::sim::faults::FailureType;

/// The connection is to be closed instead of (further) answered.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
pub struct Dropped;

/// An error as vLLM words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub kind: &'static str,
    pub param: Option<&'static str>,
    pub message: String,
}

impl ApiError {
    pub fn bad_request(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: "BadRequestError", param, message: message.into() }
    }

    pub fn unknown_model(name: &str, aliases: &[String]) -> Self {
        let message = format!("The model `{name}` does not exist. Valid aliases: {}.", aliases.join(", "));
        Self { status: StatusCode::NOT_FOUND, kind: "NotFoundError", param: Some("model"), message }
    }

    pub fn too_large(limit: usize) -> Self {
        let message = format!("The request body is larger than {limit} bytes (--max-request-body-size-mb).");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, kind: "RequestEntityTooLarge", param: None, message }
    }

    pub fn injected(failure: FailureType) -> Self {
        let (status, kind, message) = match failure {
            FailureType::RateLimit => (429, "RateLimitError", "Rate limit reached (injected)."),
            FailureType::InvalidApiKey => {
                (401, "AuthenticationError", "Incorrect API key provided (injected).")
            }
            FailureType::ContextLength => {
                (400, "BadRequestError", "The context length is exceeded (injected).")
            }
            FailureType::ServerError => (500, "InternalServerError", "The engine failed (injected)."),
            FailureType::InvalidRequest => (400, "BadRequestError", "The request is invalid (injected)."),
            FailureType::ModelNotFound => (404, "NotFoundError", "The model does not exist (injected)."),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, kind, param: None, message: message.into() }
    }

    pub fn response(&self) -> Response<Body> {
        let body = json!({"error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.status.as_u16(),
        }});
        let mut response = json_response(self.status, &body);
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// How a request fails.
#[derive(Clone, Debug)]
pub enum Failure {
    /// With an answer.
    Api(ApiError),
    /// Without.
    Dropped,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<Dropped> for Failure {
    fn from(_: Dropped) -> Self {
        Self::Dropped
    }
}

impl From<DriveError> for Failure {
    fn from(error: DriveError) -> Self {
        let (status, kind) = match error {
            DriveError::Stopped => return Self::Dropped,
            DriveError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableError"),
            DriveError::Refused(Refusal::QueueFull { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, "RateLimitError")
            }
            DriveError::Refused(Refusal::Length { .. }) => (StatusCode::BAD_REQUEST, "BadRequestError"),
            DriveError::Refused(Refusal::DuplicateId) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError")
            }
        };
        Self::Api(ApiError { status, kind, param: None, message: error.to_string() })
    }
}

pub fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    typed(status, "application/json", body.to_string())
}

pub fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
