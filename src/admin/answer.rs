//! The kinds of answers that the pages give.

use super::live;
use ::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use ::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;

/// The page for people.
pub(super) fn look() -> Response<Full<Bytes>> {
    let mut response =
        page(StatusCode::OK, "text/html; charset=utf-8", Bytes::from_static(live::PAGE.as_bytes()));
    let headers = response.headers_mut();
    // Neither without its policy nor with a policy that is no header: then nothing runs.
    let policy = HeaderValue::from_str(&live::POLICY);
    let policy = policy.unwrap_or(HeaderValue::from_static("default-src 'none'"));
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// No other method does anything here.
pub(super) fn read_only() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// For people who ask by hand.
pub(super) fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    written(serde_json::to_string_pretty(value))
}

/// The same without blanks, for a program that asks often.
pub(super) fn compact(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    written(serde_json::to_string(value))
}

fn written(json: serde_json::Result<String>) -> Response<Full<Bytes>> {
    match json {
        Ok(json) => page(StatusCode::OK, "application/json", json + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("this cannot be written: {error}\n")),
    }
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=utf-8", body)
}

/// Never kept by anybody: numbers are of the moment, and a page of one version must not ask a picker of another.
pub(super) fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
