//! Reading request bodies, and telling what exactly was read.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;
use xxhash_rust::xxh64::Xxh64;

use super::reply::{ApiError, Dropped, Failure, json_response};

/// Bodies of `/echo` up to this size come back in the answer.
const ECHO_TEXT: usize = 64 << 10;

/// Length and xxh64 (seed 0) of a body.
#[derive(Clone, Copy)]
pub struct Digest {
    pub bytes: u64,
    pub xxh64: u64,
}

impl Digest {
    /// `x-sim-body-bytes` and `x-sim-body-xxh64` (16 hex digits).
    pub fn write(self, headers: &mut HeaderMap) {
        headers.insert("x-sim-body-bytes", HeaderValue::from(self.bytes));
        if let Ok(hex) = HeaderValue::try_from(format!("{:016x}", self.xxh64)) {
            headers.insert("x-sim-body-xxh64", hex);
        }
    }
}

/// Reads a whole body of at most `limit` bytes, with its digest when wanted.
pub async fn read(
    mut body: Incoming,
    limit: usize,
    digest: bool,
) -> Result<(Bytes, Option<Digest>), Failure> {
    use hyper::body::Body as _;
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if expected > limit {
        return Err(ApiError::too_large(limit).into());
    }
    let mut whole = BytesMut::with_capacity(expected);
    let mut hasher = digest.then(|| Xxh64::new(0));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Dropped)?.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(ApiError::too_large(limit).into());
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(&data);
        }
        whole.extend_from_slice(&data);
    }
    let digest = hasher.map(|h| Digest { bytes: whole.len() as u64, xxh64: h.digest() });
    Ok((whole.freeze(), digest))
}

/// Answers with what was received: method, path, query, headers in order, trailers, length and hash of the body, and the
/// body itself while it is small. Keeps no more than that of a body, however large. `/echo/<status>` answers with that
/// status; 204 and 304 have no body.
pub async fn echo(parts: &Parts, mut body: Incoming) -> Result<Response<Body>, Failure> {
    let mut hasher = Xxh64::new(0);
    let (mut bytes, mut frames, mut kept) = (0u64, 0u64, Vec::new());
    let mut trailers = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| Dropped)?.into_data() {
            Ok(data) => {
                hasher.update(&data);
                bytes += data.len() as u64;
                frames += 1;
                if kept.len() <= ECHO_TEXT {
                    kept.extend_from_slice(&data[..data.len().min(ECHO_TEXT + 1)]);
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().iter().flat_map(pairs)),
        }
    }
    let digest = Digest { bytes, xxh64: hasher.digest() };
    let text = (kept.len() <= ECHO_TEXT).then(|| String::from_utf8(kept).ok()).flatten();
    let status = parts.uri.path().strip_prefix("/echo/").and_then(|s| s.parse().ok());
    let status = status.filter(|s: &StatusCode| !s.is_informational()).unwrap_or(StatusCode::OK);
    let mut response = json_response(
        status,
        &json!({
            "method": parts.method.as_str(),
            "path": parts.uri.path(),
            "query": parts.uri.query(),
            "headers": pairs(&parts.headers),
            "trailers": trailers,
            "body_bytes": bytes,
            "body_frames": frames,
            "body_xxh64": format!("{:016x}", digest.xxh64),
            "body": text,
        }),
    );
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        *response.body_mut() = Body::empty();
    }
    digest.write(response.headers_mut());
    Ok(response)
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    headers.iter().map(|(k, v)| (k.as_str().to_owned(), text(v))).collect()
}
