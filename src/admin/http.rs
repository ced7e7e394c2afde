//! The HTTP pages: `/`, `/metrics`, `/healthz`, `/readyz`, `/debug/state`, `/debug/decisions`, `/debug/live`.
//!
//! They run on a thread with a runtime of its own, so that a page that takes long to make never delays a request.

use super::answer::{compact, json, look, page, read_only, text};
use super::auth::{Caller, DebugAccess, Denied, Guard, bearer};
use super::live::Live;
use super::review::{Protection, Refusal};
use super::state::{PoolPart, StateSource};
use crate::readiness::Readiness;
use crate::telemetry::{MetricsHandle, names};
use ::http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use ::http::{HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 64;
/// Longest wait for a request's headers, also between two requests of one connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest head of a request.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Life of a connection, so that one whose client never reads does not stay.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(600);
/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Decisions that `/debug/decisions` lists where `limit` says nothing.
const LISTED: usize = 50;
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// `/metrics`
    pub metrics: MetricsHandle,
    /// `/readyz`
    pub readiness: Readiness,
    /// `/debug/state` and `/debug/decisions`
    pub state: Arc<dyn StateSource>,
}

/// The pages cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A port is not to be had.
    #[error("cannot listen on {address} for {purpose}: {cause}; choose another with {flag}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// For what.
        purpose: &'static str,
        /// The flag that says where.
        flag: &'static str,
        /// Why not.
        cause: std::io::Error,
    },
    /// The system gives no thread or runtime.
    #[error("cannot start the admin thread: {0}")]
    Start(#[from] std::io::Error),
}

/// The running pages; dropped, they stop.
#[derive(Debug)]
pub struct AdminServer {
    /// Where `/metrics` is.
    pub metrics_address: SocketAddr,
    /// Where `/debug` is.
    pub debug_address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Opens the ports and serves, metrics for everybody. `metrics` is the address of the metrics port.
    pub fn start(metrics: SocketAddr, access: &DebugAccess, pages: Pages) -> Result<Self, AdminError> {
        Self::protected(metrics, access, pages, Protection::default())
    }

    /// Opens the ports and serves; `protection` says who may read the metrics port.
    pub fn protected(
        metrics: SocketAddr,
        access: &DebugAccess,
        pages: Pages,
        protection: Protection,
    ) -> Result<Self, AdminError> {
        let open = bind(metrics, "metrics", "--metrics-port")?;
        let metrics_address = open.local_addr()?;
        let own =
            access.listener().map(|address| bind(address, "debug pages", "--admin-address")).transpose()?;
        let debug_address = own.as_ref().map_or(Ok(metrics_address), TcpListener::local_addr)?;
        let guard = match access {
            DebugAccess::Local | DebugAccess::LocalListener(_) => Guard::Local,
            DebugAccess::Token(_, file) => Guard::Token(file.clone()),
        };
        let on_metrics = if own.is_some() { Guard::Elsewhere(debug_address) } else { guard.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let token = stop.clone();
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                let port = Port { guard: on_metrics, pages: pages.clone(), protection };
                let first = serve(open, port, token.clone());
                let second = async {
                    if let Some(own) = own {
                        let port = Port { guard, pages: pages.clone(), protection: Protection::default() };
                        serve(own, port, token.clone()).await;
                    }
                };
                tokio::join!(first, second);
            });
        })?;
        Ok(Self { metrics_address, debug_address, stop, thread: Some(thread) })
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic on that thread was printed when it happened; there is nothing left to end.
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr, purpose: &'static str, flag: &'static str) -> Result<TcpListener, AdminError> {
    let wrong = |cause| AdminError::Bind { address, purpose, flag, cause };
    let listener = TcpListener::bind(address).map_err(wrong)?;
    listener.set_nonblocking(true).map_err(wrong)?;
    Ok(listener)
}

/// What a port serves to whom.
struct Port {
    guard: Guard,
    pages: Pages,
    protection: Protection,
}

async fn serve(listener: TcpListener, port: Port, stop: CancellationToken) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin listener cannot be used"),
    };
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let shared = Arc::new(port);
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors, most likely: waiting is better than spinning.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            greet(stream, peer, shared).await;
            drop(permit);
        });
    }
}

/// Speaks TLS where it is asked for. Who breaks off the handshake is of no interest here.
async fn greet(stream: tokio::net::TcpStream, peer: SocketAddr, port: Arc<Port>) {
    let Some(config) = port.protection.tls.clone() else {
        return connection(stream, peer, false, port).await;
    };
    let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        let certified = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
        connection(stream, peer, certified, port).await;
    }
}

async fn connection<S>(stream: S, peer: SocketAddr, certified: bool, port: Arc<Port>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let port = Arc::clone(&port);
        async move { Ok::<_, Infallible>(respond(&request, peer, certified, &port).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // How a caller broke off is of no interest here.
    let over = tokio::time::timeout(MAX_CONNECTION_AGE, connection.as_mut()).await;
    if over.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(Duration::from_secs(30), connection).await;
    }
}

async fn respond<B>(
    request: &Request<B>,
    peer: SocketAddr,
    certified: bool,
    port: &Port,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return read_only();
    }
    let Port { guard, pages, protection } = port;
    let caller = caller(request, peer);
    match request.uri().path() {
        path @ "/metrics" => {
            if let Err(refusal) =
                protection.admit(certified, caller.authorization.and_then(bearer), path).await
            {
                return refuse(refusal);
            }
            gauges(pages);
            page(StatusCode::OK, METRICS_TYPE, pages.metrics.render())
        }
        "/healthz" | "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" if pages.readiness.is_ready() => text(StatusCode::OK, "ok\n"),
        "/readyz" if pages.readiness.is_draining() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/readyz" => {
            let closed = pages.readiness.waiting_for().join(", ");
            text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {closed}\n"))
        }
        path if matches!(path, "/" | "/debug") || path.starts_with("/debug/") => match guard.admit(caller) {
            Ok(()) => debug(path, request.uri().query(), pages),
            Err(Denied::NotLocal) if !protection.is_open() => {
                match protection.admit(certified, caller.authorization.and_then(bearer), path).await {
                    Ok(()) => debug(path, request.uri().query(), pages),
                    Err(refusal) => refuse(refusal),
                }
            }
            Err(denied) => deny(&denied),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "here are /, /metrics, /healthz, /readyz, /debug/state, /debug/config and /debug/decisions\n",
        ),
    }
}

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    match refusal {
        Refusal::Token => deny(&Denied::NoToken),
        Refusal::Certificate => text(StatusCode::UNAUTHORIZED, "show a client certificate\n"),
        Refusal::Forbidden => text(
            StatusCode::FORBIDDEN,
            "the holder of this token may not read this page: bind a ClusterRole with nonResourceURLs\n",
        ),
        Refusal::Unavailable => text(StatusCode::SERVICE_UNAVAILABLE, "the token cannot be reviewed now\n"),
    }
}

/// Brings the gauges up to date that are numbers of the state.
fn gauges(pages: &Pages) {
    let state = pages.state.state();
    pages.metrics.gauge(names::DRAINING, &[]).set(f64::from(u8::from(state.draining)));
    let of_pool = |metrics: &MetricsHandle, part: &PoolPart| {
        metrics.gauge(names::CONFIG_GENERATION, &[]).set(part.config_generation as f64);
        metrics.gauge(names::BUFFERED_BYTES, &[]).set(part.buffered_bytes as f64);
    };
    if let Some(only) = &state.only {
        of_pool(&pages.metrics, only);
    }
    for (label, pool) in &state.pools {
        of_pool(&pages.metrics.seen_by(label), &pool.part);
    }
}

fn caller<B>(request: &Request<B>, peer: SocketAddr) -> Caller<'_> {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    Caller {
        peer: peer.ip(),
        // A name that is not text is no name of this machine.
        host: header(HOST).map(|host| std::str::from_utf8(host).unwrap_or("?")),
        authorization: header(AUTHORIZATION),
    }
}

fn debug(path: &str, query: Option<&str>, pages: &Pages) -> Response<Full<Bytes>> {
    match path {
        "/" | "/debug" => look(),
        "/debug/live" => compact(&Live::of(pages, argument(query, "pool").as_deref())),
        "/debug/state" => json(&pages.state.state()),
        "/debug/config" => configuration(pages),
        "/debug/decisions" => json(&pages.state.decisions(argument(query, "pool").as_deref(), listed(query))),
        path => match path.strip_prefix("/debug/decisions/") {
            Some(id) => explain(&unescaped(id), pages),
            None => text(
                StatusCode::NOT_FOUND,
                "the debug pages are /debug/state, /debug/config and /debug/decisions\n",
            ),
        },
    }
}

fn explain(id: &str, pages: &Pages) -> Response<Full<Bytes>> {
    match pages.state.explain(id) {
        Some(explanation) => json(&explanation),
        None => text(
            StatusCode::NOT_FOUND,
            "no decision on this request is kept: it went to another replica, or --decision-records newer ones came since\n",
        ),
    }
}

/// The configuration; with several pools one for each.
fn configuration(pages: &Pages) -> Response<Full<Bytes>> {
    let mut all = pages.state.configurations();
    match all.len() {
        1 => json(&all.pop_first().map(|(_, only)| only)),
        _ => json(&all),
    }
}

/// What a query says of `name`.
fn argument(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| unescaped(value))
}

/// How many decisions `limit=` asks for.
fn listed(query: Option<&str>) -> usize {
    argument(query, "limit").and_then(|n| n.parse().ok()).unwrap_or(LISTED)
}

/// A path with its `%XX` undone. A request id may hold anything.
fn unescaped(path: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(path.len()), path.as_bytes());
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn deny(denied: &Denied) -> Response<Full<Bytes>> {
    match denied {
        Denied::NotLocal => text(
            StatusCode::FORBIDDEN,
            "debug pages are for this machine only: ask for http://localhost, or start with --admin-address and --admin-token-file\n",
        ),
        Denied::Elsewhere(address) => {
            text(StatusCode::NOT_FOUND, format!("debug pages are on port {}\n", address.port()))
        }
        Denied::TokenUnreadable => {
            text(StatusCode::SERVICE_UNAVAILABLE, "the file of --admin-token-file cannot be read\n")
        }
        Denied::NoToken => {
            let mut response = text(StatusCode::UNAUTHORIZED, "send `Authorization: Bearer <token>`\n");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::live;
    use crate::admin::state::State;
    use std::io::{Read, Write};

    struct Fixed(Readiness);

    impl StateSource for Fixed {
        fn state(&self) -> State {
            let only = PoolPart { config_generation: 7, ..PoolPart::default() };
            State { only: Some(only), ..State::of_process(&self.0) }
        }
    }

    fn pages() -> Pages {
        let readiness = Readiness::new();
        let state = Arc::new(Fixed(readiness.clone()));
        Pages { metrics: MetricsHandle::detached(true), readiness, state }
    }

    fn start(access: &DebugAccess, pages: Pages) -> AdminServer {
        AdminServer::start("127.0.0.1:0".parse().unwrap(), access, pages).unwrap()
    }

    /// Status and whole answer.
    fn get(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
        ask(address, "GET", path, headers)
    }

    fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    #[test]
    fn the_metrics_page_is_in_the_text_format() {
        let pages = pages();
        pages.metrics.counter(names::ATTEMPTS, &[]).increment(4);
        let admin = start(&DebugAccess::Local, pages);
        let (status, answer) = get(admin.metrics_address, "/metrics", "");
        assert_eq!(status, 200);
        assert!(answer.contains("text/plain; version=0.0.4"));
        assert!(answer.contains("\npointsman_attempts_total 4\n"));
        assert!(answer.contains("\npointsman_config_generation 7\n"));
    }

    #[test]
    fn health_pages_follow_the_gates_and_the_drain() {
        let pages = pages();
        let gate = pages.readiness.gate("pool");
        let readiness = pages.readiness.clone();
        let admin = start(&DebugAccess::Local, pages);
        let ask = |path| get(admin.metrics_address, path, "");
        assert_eq!(ask("/healthz").0, 200);
        let (status, answer) = ask("/readyz");
        assert!(status == 503 && answer.ends_with("waiting for pool\n"));
        gate.open();
        assert_eq!(ask("/readyz").0, 200);
        readiness.drain();
        assert!(ask("/readyz").1.ends_with("draining\n"));
        assert_eq!(ask("/healthz").0, 200);
        assert_eq!(ask("/nothing").0, 404);
    }

    #[test]
    fn the_state_is_json_for_this_machine() {
        let admin = start(&DebugAccess::Local, pages());
        let (status, answer) = get(admin.debug_address, "/debug/state", "");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((status, &json["config_generation"], &json["ready"]), (200, &7.into(), &true.into()));
        assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn a_request_id_may_hold_anything() {
        assert_eq!(unescaped("a%2Fb%20c%"), "a/b c%");
        assert_eq!(unescaped("%zz%41"), "%zzA");
        assert_eq!((listed(Some("a=1&limit=7")), listed(None), listed(Some("limit=x"))), (7, LISTED, LISTED));
        let admin = start(&DebugAccess::Local, pages());
        let (status, answer) = get(admin.debug_address, "/debug/decisions/nobody", "");
        assert!(status == 404 && answer.contains("--decision-records"));
    }

    #[test]
    fn a_token_guards_a_listener_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "planted-token").unwrap();
        let access = DebugAccess::new(Some("127.0.0.1:0".parse().unwrap()), Some(file)).unwrap();
        let admin = start(&access, pages());
        assert_ne!(admin.metrics_address, admin.debug_address);
        assert_eq!(
            get(admin.metrics_address, "/debug/state", "Authorization: Bearer planted-token\r\n").0,
            404
        );
        assert_eq!(get(admin.debug_address, "/debug/state", "").0, 401);
        assert_eq!(get(admin.debug_address, "/debug/state", "Authorization: Bearer wrong\r\n").0, 401);
        let (status, answer) = get(
            admin.debug_address,
            "/debug/state",
            "Authorization: Bearer planted-token\r\nCookie: planted\r\n",
        );
        assert_eq!(status, 200);
        assert!(!answer.contains("planted"));
    }

    #[test]
    fn the_page_is_for_this_machine_and_runs_its_own_script_only() {
        let admin = start(&DebugAccess::Local, pages());
        for path in ["/", "/debug"] {
            let (status, answer) = get(admin.debug_address, path, "");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!((status, body), (200, live::PAGE.as_str()));
            for header in [
                "default-src 'none'",
                "connect-src 'self'",
                "nosniff",
                "no-referrer",
                "no-store",
                "text/html",
            ] {
                assert!(head.contains(header), "{header}: {head}");
            }
        }
        let (status, answer) = get(admin.debug_address, "/debug/live", "");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (status, &json["pools"][0]["config_generation"], body.lines().count()),
            (200, &7.into(), 1)
        );
    }

    #[test]
    fn each_page_has_a_head_and_takes_no_other_method() {
        let admin = start(&DebugAccess::Local, pages());
        let headers = |answer: &str| {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let lines = head.lines().filter(|line| !line.starts_with("date:"));
            (lines.map(str::to_owned).collect::<Vec<_>>(), body.len())
        };
        for path in ["/", "/debug", "/debug/live", "/debug/state", "/debug/decisions", "/healthz", "/readyz"]
        {
            let ((whole, length), (head, none)) = (
                headers(&get(admin.debug_address, path, "").1),
                headers(&ask(admin.debug_address, "HEAD", path, "").1),
            );
            assert_eq!((&head, none), (&whole, 0), "{path}");
            assert!(head.contains(&format!("content-length: {length}")), "{path}: {head:?}");
            assert!(head.contains(&"cache-control: no-store".to_owned()), "{path}: {head:?}");
            for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
                let (status, answer) = ask(admin.debug_address, method, path, "");
                assert!(status == 405 && answer.contains("allow: GET, HEAD"), "{method} {path}: {answer}");
            }
        }
    }

    #[test]
    fn what_a_query_says_is_read() {
        assert_eq!(argument(Some("a=1&pool=b%2Fc&pool=d"), "pool").as_deref(), Some("b/c"));
        assert_eq!((argument(Some("pools=a&pool"), "pool"), argument(None, "pool")), (None, None));
    }

    #[tokio::test]
    async fn other_machines_and_other_methods_are_refused() {
        let port = Port { guard: Guard::Local, pages: pages(), protection: Protection::default() };
        let request =
            |method: Method, path: &str| Request::builder().method(method).uri(path).body(()).unwrap();
        let far: SocketAddr = "10.0.0.7:1".parse().unwrap();
        for (method, path, status) in [
            (Method::GET, "/debug/state", 403),
            (Method::GET, "/debug", 403),
            (Method::GET, "/", 403),
            (Method::HEAD, "/", 403),
            (Method::GET, "/debug/live", 403),
            (Method::GET, "/metrics", 200),
            (Method::HEAD, "/metrics", 200),
            (Method::POST, "/metrics", 405),
            (Method::GET, "/debugger", 404),
        ] {
            let response = respond(&request(method.clone(), path), far, false, &port).await;
            assert_eq!(response.status().as_u16(), status, "{method} {path}");
        }
    }

    #[test]
    fn an_overlong_head_is_refused_and_a_taken_port_is_said_with_its_flag() {
        let admin = start(&DebugAccess::Local, pages());
        let long = format!("X-Long: {}\r\n", "x".repeat(MAX_HEAD_BYTES));
        assert_eq!(get(admin.metrics_address, "/metrics", &long).0, 431);
        let error = AdminServer::start(admin.metrics_address, &DebugAccess::Local, pages()).unwrap_err();
        assert!(error.to_string().contains("--metrics-port"));
    }

    #[test]
    fn dropping_it_frees_the_port() {
        let admin = start(&DebugAccess::Local, pages());
        let address = admin.metrics_address;
        drop(admin);
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
