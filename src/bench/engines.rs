//! Engines as a picker sees them: a real `/metrics` page on many ports, served as statically as possible, and counted.

use super::BenchError;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::net::TcpListener;

/// A page that vLLM served, 55,763 bytes.
const PAGE: &str = include_str!("../../tests/fixtures/vllm/metrics.txt");
const MODELS: &str = r#"{"object":"list","data":[{"id":"bench","object":"model","owned_by":"vllm"}]}"#;
const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"So it is."},"finish_reason":"stop"}],"usage":{"prompt_tokens":256,"completion_tokens":4,"total_tokens":260}}"#;

/// How often each engine was scraped.
#[derive(Debug)]
struct Counts(Vec<AtomicU64>);

/// Scrapes of all engines together, and of the one that had the fewest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Scrapes {
    /// Of all engines.
    pub total: u64,
    /// Of the engine with the fewest.
    pub least: u64,
}

impl Counts {
    fn read(&self) -> Scrapes {
        let counts = || self.0.iter().map(|count| count.load(Relaxed));
        Scrapes { total: counts().sum(), least: counts().min().unwrap_or(0) }
    }
}

/// Listens for `count` engines on free ports of `address`.
///
/// # Errors
/// When a port cannot be had; a thousand engines need as many descriptors, and another thousand for connections.
pub async fn listen(address: IpAddr, count: usize) -> Result<Vec<TcpListener>, BenchError> {
    let mut listeners = Vec::with_capacity(count);
    let address = SocketAddr::new(address, 0);
    for _ in 0..count {
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.map_err(|source| BenchError::Listen { address, source })?);
    }
    Ok(listeners)
}

/// Writes the file of endpoints that a picker discovers the engines by.
///
/// # Errors
/// When that fails.
pub fn write_endpoints(listeners: &[TcpListener], path: &Path) -> Result<(), BenchError> {
    let mut text = String::from("endpoints:\n");
    for (i, listener) in listeners.iter().enumerate() {
        let address = listener.local_addr().map_err(super::failed("an engine"))?;
        let (ip, port) = (address.ip(), address.port());
        let _written = writeln!(text, "  - {{ name: engine-{i}, address: \"{ip}\", port: \"{port}\" }}");
    }
    // A reader sees the old file or the new one, never a part.
    let unfinished = path.with_extension("part");
    let written = std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, path));
    written.map_err(|source| BenchError::File { path: path.to_owned(), source })
}

/// Serves the engines and, on `control`, their counts, until `shutdown` completes.
pub async fn run(listeners: Vec<TcpListener>, control: TcpListener, shutdown: impl Future<Output = ()>) {
    let counts = Arc::new(Counts(listeners.iter().map(|_listener| AtomicU64::new(0)).collect()));
    for (index, listener) in listeners.into_iter().enumerate() {
        tokio::spawn(accept(listener, Some(index), Arc::clone(&counts)));
    }
    tokio::spawn(accept(control, None, counts));
    shutdown.await;
}

async fn accept(listener: TcpListener, engine: Option<usize>, counts: Arc<Counts>) {
    loop {
        let Ok((stream, _peer)) = listener.accept().await else {
            // Descriptors ran out; some come back.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let _slower_then = stream.set_nodelay(true);
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, engine, Arc::clone(&counts)));
            let _broken_off = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    engine: Option<usize>,
    counts: Arc<Counts>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, mut body) = request.into_parts();
    let (kind, text) = match (parts.method.as_str(), parts.uri.path(), engine) {
        ("GET", "/metrics", Some(index)) => {
            if let Some(count) = counts.0.get(index) {
                count.fetch_add(1, Relaxed);
            }
            ("text/plain; version=0.0.4; charset=utf-8", Bytes::from_static(PAGE.as_bytes()))
        }
        ("GET", "/count", None) => {
            ("application/json", serde_json::to_vec(&counts.read()).unwrap_or_default().into())
        }
        ("GET", "/v1/models", Some(_)) => ("application/json", Bytes::from_static(MODELS.as_bytes())),
        ("GET", "/health", Some(_)) => ("text/plain", Bytes::new()),
        ("POST", _, Some(_)) => {
            while let Some(Ok(_frame)) = body.frame().await {}
            ("application/json", Bytes::from_static(ANSWER.as_bytes()))
        }
        _ => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    let mut response = Response::new(Full::new(text));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn start(count: usize) -> (Vec<SocketAddr>, SocketAddr, tempfile::TempDir) {
        let localhost = IpAddr::from([127, 0, 0, 1]);
        let engines = listen(localhost, count).await.unwrap();
        let control = TcpListener::bind((localhost, 0)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        write_endpoints(&engines, &folder.path().join("endpoints.yaml")).unwrap();
        let addresses = engines.iter().map(|e| e.local_addr().unwrap()).collect();
        let address = control.local_addr().unwrap();
        tokio::spawn(run(engines, control, std::future::pending()));
        (addresses, address, folder)
    }

    async fn get(address: SocketAddr, path: &str) -> Bytes {
        reqwest::get(format!("http://{address}{path}")).await.unwrap().bytes().await.unwrap()
    }

    #[tokio::test]
    async fn scrapes_are_counted_and_nothing_else_is() {
        let (engines, control, _folder) = start(2).await;
        assert_eq!(get(engines[0], "/metrics").await.len(), 55_763);
        get(engines[0], "/metrics").await;
        get(engines[1], "/metrics").await;
        get(engines[1], "/v1/models").await;
        get(engines[1], "/nothing").await;
        let counts: Scrapes = serde_json::from_slice(&get(control, "/count").await).unwrap();
        assert_eq!(counts, Scrapes { total: 3, least: 1 });
    }

    #[tokio::test]
    async fn the_endpoints_file_is_what_file_discovery_reads() {
        let (engines, _control, folder) = start(3).await;
        let text = std::fs::read(folder.path().join("endpoints.yaml")).unwrap();
        let parsed = crate::discovery::file::parse(&text, &Default::default()).unwrap();
        assert_eq!((parsed.entries.len(), parsed.faults.len()), (engines.len(), 0));
    }
}
