//! An engine of the test's own, in this process, for what a simulated vLLM does not do: upgrades, trailers, answers before
//! the request ended. It speaks HTTP/1.1 and, without TLS, HTTP/2.

use super::client::{Body, empty, full, pieces, with_trailers};
use super::mixed::split;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A page that reads as a vLLM without work.
const METRICS: &str = "# TYPE vllm:num_requests_running gauge\n\
    vllm:num_requests_running{engine=\"0\",model_name=\"test-model\"} 0\n\
    # TYPE vllm:num_requests_waiting gauge\n\
    vllm:num_requests_waiting{engine=\"0\",model_name=\"test-model\"} 0\n\
    # TYPE vllm:kv_cache_usage_perc gauge\n\
    vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"test-model\"} 0\n";

/// The running server; ends with the handle.
pub struct OddEngine {
    pub port: u16,
    /// Requests whose body is not read.
    pub unread: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl OddEngine {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let port = super::ports::free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let unread = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&unread);
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(port, Arc::clone(&count), request));
                    auto::Builder::new(TokioExecutor::new())
                        .serve_connection_with_upgrades(TokioIo::new(connection), service)
                        .await
                        .ok();
                });
            }
        });
        Self { port, unread, task }
    }
}

impl Drop for OddEngine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    port: u16,
    unread: Arc<AtomicUsize>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let mut response = match path.as_str() {
        _ if request.method() == Method::CONNECT => tunnel(request, StatusCode::OK),
        "/metrics" => Response::new(full(METRICS)),
        "/upgrade" => upgrade(request),
        "/unread" => {
            unread.fetch_add(1, Relaxed);
            let _held = request;
            std::future::pending().await
        }
        "/endless" => Response::new(endless()),
        // Answers without reading the body.
        "/early" => status(StatusCode::PAYMENT_REQUIRED, full("no credit")),
        "/reset-content" => status(StatusCode::RESET_CONTENT, empty()),
        "/not-modified" => status(StatusCode::NOT_MODIFIED, empty()),
        "/no-content" => status(StatusCode::NO_CONTENT, empty()),
        "/mirror" => mirror(request).await,
        "/trailers" => trailers(request).await,
        "/trailers-only" => Response::new(with_trailers(Bytes::new(), trailer("x-end", "1"))),
        _ => {
            request.into_body().collect().await.ok();
            Response::new(full("{}"))
        }
    };
    let name = HeaderValue::from_str(&format!("127.0.0.1:{port}")).unwrap();
    response.headers_mut().insert("x-inference-pod", name);
    Ok(response)
}

fn status(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn trailer(name: &'static str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
}

/// Sends the body back in pieces that are cut anywhere.
async fn mirror(request: Request<Incoming>) -> Response<Body> {
    let Ok(whole) = request.into_body().collect().await else {
        return status(StatusCode::BAD_REQUEST, empty());
    };
    let body = whole.to_bytes();
    let seed = body.len() as u64;
    Response::new(pieces(split(&body, seed), Duration::from_millis(5)))
}

/// Sends the body back, then trailers: how many bytes came and which trailer `x-checksum` the request had.
async fn trailers(request: Request<Incoming>) -> Response<Body> {
    let Ok(whole) = request.into_body().collect().await else {
        return status(StatusCode::BAD_REQUEST, empty());
    };
    let checksum = whole.trailers().and_then(|all| all.get("x-checksum")).cloned();
    let body = whole.to_bytes();
    let mut end = trailer("x-bytes", &body.len().to_string());
    if let Some(checksum) = checksum {
        end.insert("x-checksum-received", checksum);
    }
    Response::new(with_trailers(body, end))
}

/// As much as anybody takes.
fn endless() -> Body {
    let piece = Bytes::from_static(&[b'7'; 65_536]);
    let pieces = futures::stream::repeat_with(move || Ok(Frame::data(piece.clone())));
    BodyExt::boxed(StreamBody::new(pieces))
}

/// From here on no HTTP: sends back whatever comes.
fn tunnel(mut request: Request<Incoming>, answer: StatusCode) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut stream = TokioIo::new(upgraded);
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            if stream.write_all(&piece[..count]).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    });
    status(answer, empty())
}

/// Switches to another protocol.
fn upgrade(request: Request<Incoming>) -> Response<Body> {
    let mut response = tunnel(request, StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    response.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
    response
}
