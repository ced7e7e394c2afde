//! An HTTP client that shows everything an answer has: status, headers, body, trailers, and how it broke off.

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::convert::Infallible;
use std::time::Duration;

/// A request body of any shape.
pub type Body = BoxBody<Bytes, Infallible>;

/// One answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// A header's value as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", String::from_utf8_lossy(&self.body)))
    }

    /// A header as the engine received it, from the answer of a path under `/echo`.
    pub fn received(&self, name: &str) -> Vec<String> {
        let echo = self.json();
        let headers = echo["headers"].as_array().expect("an echo answer").clone();
        let named = headers.iter().filter(|pair| pair[0].as_str() == Some(name));
        named.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
    }
}

/// Why no whole answer came: the status if one was seen, and what broke.
#[derive(Debug, Clone)]
pub struct Broken {
    pub status: Option<u16>,
    pub body: Bytes,
    pub cause: String,
}

/// A client of one port on this machine. HTTP/1.1 connections are kept and reused.
#[derive(Clone)]
pub struct Client {
    pub port: u16,
    pool: Pooled<HttpConnector, Body>,
}

impl Client {
    /// A client that speaks HTTP/1.1.
    pub fn new(port: u16) -> Self {
        Self { port, pool: Pooled::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build_http() }
    }

    /// A client that speaks HTTP/2 without TLS, on one connection.
    pub fn http2(port: u16) -> Self {
        let pool = Pooled::builder(TokioExecutor::new())
            .http2_only(true)
            .http2_initial_stream_window_size(1 << 20)
            .http2_initial_connection_window_size(16 << 20)
            .build_http();
        Self { port, pool }
    }

    /// A request to `path`, to be completed with headers and a body.
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://127.0.0.1:{}{path}", self.port))
    }

    /// Sends a request and returns when the headers of the answer are there.
    pub async fn open(&self, request: Request<Body>) -> Result<Response<Incoming>, Broken> {
        self.pool.request(request).await.map_err(|error| Broken {
            status: None,
            body: Bytes::new(),
            cause: format!("{error:?}"),
        })
    }

    /// Sends a request and reads the whole answer, within two minutes.
    pub async fn send(&self, request: Request<Body>) -> Result<Answer, Broken> {
        self.send_within(Duration::from_secs(120), request).await
    }

    /// Sends a request and reads the whole answer within `patience`.
    pub async fn send_within(&self, patience: Duration, request: Request<Body>) -> Result<Answer, Broken> {
        let exchange = async { read(self.open(request).await?).await };
        tokio::time::timeout(patience, exchange).await.unwrap_or_else(|_| {
            Err(Broken {
                status: None,
                body: Bytes::new(),
                cause: format!("no whole answer within {patience:?}"),
            })
        })
    }

    /// `POST` of a JSON body.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<Answer, Broken> {
        let request = self.request("POST", path).header("content-type", "application/json");
        self.send(request.body(full(body)).unwrap()).await
    }

    /// `GET` without a body.
    pub async fn get(&self, path: &str) -> Result<Answer, Broken> {
        self.send(self.request("GET", path).body(empty()).unwrap()).await
    }
}

/// One `GET` on a connection of its own.
pub async fn get(port: u16, path: &str) -> Result<Answer, Broken> {
    let client = Client::new(port);
    client.send_within(Duration::from_secs(10), client.request("GET", path).body(empty()).unwrap()).await
}

/// Reads an answer to its end.
pub async fn read(response: Response<Incoming>) -> Result<Answer, Broken> {
    let (parts, mut incoming) = response.into_parts();
    let (mut body, mut trailers) = (Vec::new(), None);
    while let Some(frame) = incoming.frame().await {
        match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
            Err(error) => {
                return Err(Broken {
                    status: Some(parts.status.as_u16()),
                    body: body.into(),
                    cause: format!("{error:?}"),
                });
            }
        }
    }
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.into(), trailers })
}

/// No body.
pub fn empty() -> Body {
    Empty::new().boxed()
}

/// A body in one piece, with its length known.
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

/// A body of pieces with a pause after each but the last, its length not announced.
pub fn pieces(pieces: Vec<Bytes>, pause: Duration) -> Body {
    let last = pieces.len().saturating_sub(1);
    let stream = futures::stream::iter(pieces.into_iter().enumerate()).then(move |(i, piece)| async move {
        if i > 0 && i <= last && !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Ok::<_, Infallible>(Frame::data(piece))
    });
    // A stream of `then` futures is not Sync, a body has to be: a channel between them is.
    let (sender, receiver) = futures::channel::mpsc::channel(1);
    tokio::spawn(stream.map(Ok).forward(sender));
    BodyExt::boxed(StreamBody::new(receiver))
}

/// A body that is written by hand through the returned sender and ends when that goes.
pub fn by_hand() -> (futures::channel::mpsc::Sender<Result<Frame<Bytes>, Infallible>>, Body) {
    let (sender, receiver) = futures::channel::mpsc::channel(1);
    (sender, BodyExt::boxed(StreamBody::new(receiver)))
}

/// A body with trailers after it.
pub fn with_trailers(body: impl Into<Bytes>, trailers: HeaderMap) -> Body {
    let frames = [Ok(Frame::data(body.into())), Ok(Frame::trailers(trailers))];
    BodyExt::boxed(StreamBody::new(futures::stream::iter(frames)))
}
