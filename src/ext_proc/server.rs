//! Binds services to the picker's port: TLS or plaintext, HTTP/2 limits, draining.

use super::tls::Tls;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
pub use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

/// Handshakes that run at once; further connections wait in the listener's backlog.
const HANDSHAKES: usize = 256;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are read from a connection at once below TLS, which by itself asks for 4 KiB at a time.
const TLS_READ_BYTES: usize = 64 * 1024;
/// Pause after the listener failed, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Limits of the HTTP/2 connections.
#[derive(Clone, Copy, Debug)]
pub struct Http2 {
    /// Streams that one connection may have open at once: one is one request, and a proxy sends all of its requests
    /// over few connections.
    pub max_concurrent_streams: u32,
    /// Bytes that one stream may send before it is read.
    pub stream_window: u32,
    /// The same for a connection as a whole. Far above the stream's, so that hundreds of uploads at once leave room for the
    /// others; what a connection may keep in memory beside the counted bodies is at most this.
    pub connection_window: u32,
    /// Streams that were reset before they were accepted, and may wait. A proxy resets a stream for each client that
    /// goes away; h2's own limit of 20 would take the connection from all the others.
    pub pending_resets: usize,
    /// Pings on a quiet connection.
    pub keepalive: Duration,
    /// How long the answer to a ping may take.
    pub keepalive_timeout: Duration,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 65_536,
            stream_window: 256 * 1024,
            connection_window: 64 * 1024 * 1024,
            pending_resets: 65_536,
            keepalive: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

/// How serving ends.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How long everything is still taken, new connections and streams as well: proxies send requests here until their
    /// next health check says that a drain began. Never more than half of `within`, and over as soon as no proxy is
    /// connected.
    pub notice: Duration,
    /// How long all of it may take.
    pub within: Duration,
}

impl Drain {
    /// Above what the shipped Envoy configurations take to notice, which is 4 s.
    pub const NOTICE: Duration = Duration::from_secs(5);

    /// With the usual notice.
    pub fn within(within: Duration) -> Self {
        Self { notice: Self::NOTICE, within }
    }
}

/// How often it is looked whether a proxy is still connected.
const NOTICE_LOOK: Duration = Duration::from_millis(50);

/// Whether all streams ended in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// They did.
    Whole,
    /// The drain timeout cut some off.
    CutOff,
}

/// Serves `routes` on `listener` until `shutdown` is done, goes on for the notice, then stops accepting and lets open streams
/// finish within the rest of the time.
///
/// # Errors
/// When the HTTP/2 server fails as a whole, which a single connection cannot cause.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    routes: Routes,
    http2: Http2,
    shutdown: impl Future<Output = ()>,
    drain: Drain,
) -> io::Result<Drained> {
    let (connections, incoming) = mpsc::channel(HANDSHAKES);
    let acceptor = tls.map(|tls| TlsAcceptor::from(tls.config()));
    let open = Open::default();
    let accepting =
        AbortOnDropHandle::new(tokio::spawn(accept(listener, acceptor, connections, open.clone())));
    let draining = Notify::new();
    let signal = async {
        shutdown.await;
        draining.notify_one();
        open.none_within(drain.notice.min(drain.within / 2)).await;
        accepting.abort();
    };
    let serving = Server::builder()
        .max_concurrent_streams(http2.max_concurrent_streams)
        .initial_stream_window_size(http2.stream_window)
        .initial_connection_window_size(http2.connection_window)
        .http2_adaptive_window(Some(false))
        .http2_max_pending_accept_reset_streams(Some(http2.pending_resets))
        .http2_max_local_error_reset_streams(None)
        .http2_keepalive_interval(Some(http2.keepalive))
        .http2_keepalive_timeout(Some(http2.keepalive_timeout))
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), signal);
    let cut_off = async {
        draining.notified().await;
        tokio::time::sleep(drain.within).await;
    };
    tokio::select! {
        served = serving => served.map(|()| Drained::Whole).map_err(io::Error::other),
        () = cut_off => Ok(Drained::CutOff),
    }
}

/// Counts the connections that hold a clone.
#[derive(Clone, Debug, Default)]
struct Open(Arc<()>);

impl Open {
    /// Returns when there is no connection, at the latest after `patience`.
    async fn none_within(&self, patience: Duration) {
        let none = async {
            // This one, and that of the task that accepts.
            while Arc::strong_count(&self.0) > 2 {
                tokio::time::sleep(NOTICE_LOOK).await;
            }
        };
        let _either_way = tokio::time::timeout(patience, none).await;
    }
}

/// Accepts connections and hands them on once they are ready to speak HTTP/2.
async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    connections: mpsc::Sender<Result<Io, io::Error>>,
    open: Open,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(problem) => {
                tracing::warn!(%problem, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(problem) = stream.set_nodelay(true) {
            tracing::debug!(%problem, %peer, "TCP_NODELAY was not set");
        }
        let (connections, acceptor, open) = (connections.clone(), acceptor.clone(), open.clone());
        tokio::spawn(async move {
            let ready = match acceptor {
                None => Some(Io::Plain { stream, _open: open }),
                Some(acceptor) => {
                    handshake(&acceptor, stream, peer).await.map(|stream| Io::Tls { stream, _open: open })
                }
            };
            drop(permit);
            if let Some(io) = ready {
                // The server is gone when nobody takes it; so is the connection then.
                let _gone = connections.send(Ok(io)).await;
            }
        });
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<Box<TlsStream<BufReader<TcpStream>>>> {
    let stream = BufReader::with_capacity(TLS_READ_BYTES, stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(problem)) => {
            tracing::debug!(%problem, %peer, "TLS handshake failed; a proxy without TLS needs --secure-serving=false");
            None
        }
        Err(_elapsed) => {
            tracing::debug!(%peer, "TLS handshake took too long");
            None
        }
    }
}

/// One connection.
#[derive(Debug)]
enum Io {
    Plain { stream: TcpStream, _open: Open },
    Tls { stream: Box<TlsStream<BufReader<TcpStream>>>, _open: Open },
}

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { stream, .. } => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls { stream, .. } => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { stream, .. } => Pin::new(stream).poll_flush(cx),
            Self::Tls { stream, .. } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { stream, .. } => Pin::new(stream).poll_shutdown(cx),
            Self::Tls { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain { stream, .. } => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls { stream, .. } => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain { stream, .. } => stream.is_write_vectored(),
            Self::Tls { stream, .. } => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
