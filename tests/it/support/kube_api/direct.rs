//! The fake API without sockets, so that a test may stop the clock: time goes on only when nothing is left to do, and
//! minutes of silence take milliseconds.

use super::http;
use super::{Rule, State};
use crate::support::wire::Mode;
use ::http::{Request, Response};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use kube::Client;
use parking_lot::Mutex;
use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

type Body = UnsyncBoxBody<Bytes, Error>;

/// A request that a picker sent, whether it arrived or not.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    pub path: String,
    pub watch: bool,
}

/// The fake API with a wire that can be cut. Bookmarks come each minute, as from a real server.
#[derive(Clone)]
pub struct Direct {
    pub state: Arc<State>,
    mode: Arc<watch::Sender<Mode>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    token: String,
}

impl Direct {
    /// A server without objects, for a picker with these rights.
    pub fn new(token: &str, rules: &[Rule]) -> Self {
        let state = State::new();
        *state.bookmarks.lock() = Duration::from_secs(60);
        state.roles.lock().insert(token.to_owned(), rules.to_vec());
        let mode = Arc::new(watch::channel(Mode::Carry).0);
        Self { state: Arc::new(state), mode, asked: Arc::default(), token: token.to_owned() }
    }

    /// A client as the picker has it.
    pub fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    /// Changes what the wire does. What was swallowed stays silent for ever, as after the loss of a node between.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    async fn answer(self, mut request: Request<kube::client::Body>) -> Result<Response<Body>, Error> {
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let asked = Asked { at: Instant::now(), path: request.uri().path().to_owned(), watch };
        self.asked.lock().push(asked);
        let mode = self.mode.subscribe();
        let now = *self.mode.borrow();
        match now {
            Mode::Carry => {}
            Mode::Refuse => return Err(Error::new(ErrorKind::ConnectionRefused, "refused on purpose")),
            Mode::Swallow => std::future::pending().await,
        }
        let bearer = format!("Bearer {}", self.token).parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        let answer = http::answer(&self.state, request).await;
        Ok(answer.map(|body| wired(body, mode)))
    }
}

/// The body as it comes over the wire.
fn wired(body: http::Body, mode: watch::Receiver<Mode>) -> Body {
    let frames = futures::stream::unfold(Some((body, mode)), |open| async move {
        let (mut body, mut mode) = open?;
        let swallowed = async {
            mode.wait_for(|mode| *mode != Mode::Carry).await.is_ok_and(|mode| *mode == Mode::Swallow)
        };
        tokio::select! {
            biased;
            // Never completes while the wire carries: the sender lives as long as the server.
            swallowed = swallowed => {
                if swallowed {
                    std::future::pending::<()>().await;
                }
                Some((Err(Error::new(ErrorKind::ConnectionReset, "cut on purpose")), None))
            }
            frame = body.frame() => {
                let frame: Frame<Bytes> = frame?.unwrap_or_else(|never| match never {});
                Some((Ok(frame), Some((body, mode))))
            }
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

impl tonic::codegen::Service<Request<kube::client::Body>> for Direct {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}
