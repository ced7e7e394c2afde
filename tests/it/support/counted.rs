//! A server before another one that passes everything on, keeps what was asked for, and may change what is answered.

use super::client::{Broken, Client};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request, as it was when it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    pub path: String,
}

/// What is done to an answer that is JSON.
type Change = Box<dyn Fn(&mut Value) + Send + Sync>;

/// The server in between.
pub struct Counted {
    pub port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    server: Client,
    asked: Mutex<Vec<Asked>>,
    change: Mutex<Option<(&'static str, Change)>>,
}

impl Counted {
    /// Starts one on a free port before `server`, a port of this machine. It takes `GET` only.
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server: Client::new(server),
            asked: Mutex::default(),
            change: Mutex::default(),
        });
        let for_all = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&for_all);
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let shared = Arc::clone(&shared);
                    let path = request.uri().path_and_query().unwrap().to_string();
                    async move { Ok::<_, Infallible>(shared.passed_on(path).await) }
                });
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { port, shared, task }
    }

    /// From now on the JSON that is answered on `path` is changed on its way.
    pub fn change(&self, path: &'static str, change: impl Fn(&mut Value) + Send + Sync + 'static) {
        *self.shared.change.lock().unwrap() = Some((path, Box::new(change)));
    }

    /// The requests for `path` so far, in order.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// Every path that was asked for so far.
    pub fn paths(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().iter().map(|asked| asked.path.clone()).collect()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn passed_on(&self, path: String) -> Response<Full<Bytes>> {
        self.asked.lock().unwrap().push(Asked { at: Instant::now(), path: path.clone() });
        let answer = match self.server.get(&path).await {
            Ok(answer) => answer,
            Err(Broken { cause, .. }) => return Response::builder().status(502).body(cause.into()).unwrap(),
        };
        let mut response = Response::builder().status(answer.status);
        for (name, value) in answer.headers.iter().filter(|(name, _)| *name != CONTENT_LENGTH) {
            response = response.header(name, value);
        }
        let change = self.change.lock().unwrap();
        let body = match &*change {
            Some((changed, change)) if *changed == path => {
                let mut json = answer.json();
                change(&mut json);
                json.to_string().into()
            }
            _ => answer.body,
        };
        response.body(Full::new(body)).unwrap()
    }
}
