//! Reads one page of one endpoint again and again over one kept connection.
//!
//! Every poller has a reader of its own, so a hanging engine holds up nobody else and there is no pool to tune. hyper's
//! connection is used directly: it says exactly how a fetch failed, which passive health needs to know.

use super::Page;
use crate::endpoint::{Host, HostPort};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// A connection reads so many bytes at a time at most, and keeps that much memory while it waits for its next fetch.
const READ_AT_ONCE: usize = 32 * 1024;

/// Why a page could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// Connecting, or the whole fetch, took too long.
    #[error("no complete answer in time")]
    TimedOut,
    /// Connecting failed in another way.
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    /// The TLS handshake failed.
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
    /// The connection broke before the page was complete.
    #[error("connection broke: {0}")]
    Broken(hyper::Error),
    /// The answer was not 200.
    #[error("answered {0} instead of 200")]
    Status(StatusCode),
    /// The page is larger than allowed.
    #[error("the page has more than {0} bytes")]
    TooLarge(usize),
}

impl FetchError {
    /// The value of the label `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable(_) => "unreachable",
            Self::Tls(_) => "tls",
            Self::Broken(_) => "broken",
            Self::Status(_) => "status",
            Self::TooLarge(_) => "too_large",
        }
    }
}

/// A reader of one page.
pub struct PageReader {
    target: HostPort,
    authority: HeaderValue,
    path: PathAndQuery,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    max_bytes: usize,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl PageReader {
    /// A reader of `path` at `target`, over TLS when `tls` is given. It connects when it is first used.
    pub fn new(
        target: HostPort,
        path: &str,
        tls: Option<Arc<rustls::ClientConfig>>,
        max_bytes: usize,
    ) -> Self {
        let name = match &target.host {
            Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
            // A host name that is no TLS name fails the handshake, which says so.
            Host::Name(name) => ServerName::try_from(name.to_string())
                .unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())),
        };
        Self {
            authority: HeaderValue::try_from(target.to_string())
                .unwrap_or(HeaderValue::from_static("localhost")),
            path: PathAndQuery::try_from(path).unwrap_or(PathAndQuery::from_static("/")),
            tls: tls.map(|config| (TlsConnector::from(config), name)),
            target,
            max_bytes,
            connection: None,
        }
    }

    /// Fetches the page. The caller limits the time; dropping the future closes the connection.
    pub async fn fetch(&mut self) -> Result<Page, FetchError> {
        if let Some(kept) = self.connection.take().filter(|c| c.sender.is_ready()) {
            match self.exchange(kept).await {
                // The engine closed the idle connection in the meantime; that is no failure of the engine.
                Err(FetchError::Broken(_)) => {}
                result => return result,
            }
        }
        let fresh = self.connect().await?;
        self.exchange(fresh).await
    }

    async fn connect(&self) -> Result<Connection, FetchError> {
        let port = self.target.port;
        let stream = match &self.target.host {
            Host::Ip(ip) => TcpStream::connect((*ip, port)).await,
            Host::Name(name) => TcpStream::connect((&**name, port)).await,
        };
        let stream = stream.map_err(|e| match e.kind() {
            io::ErrorKind::ConnectionRefused => FetchError::Refused,
            io::ErrorKind::TimedOut => FetchError::TimedOut,
            _ => FetchError::Unreachable(e),
        })?;
        // Without it a request could wait for an acknowledgement; where it is not supported nothing is lost.
        let _unsupported = stream.set_nodelay(true);
        match &self.tls {
            None => speak(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(FetchError::Tls)?;
                speak(stream).await
            }
        }
    }

    async fn exchange(&mut self, mut connection: Connection) -> Result<Page, FetchError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.path.clone().into();
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.authority.clone());
        headers.insert(header::USER_AGENT, HeaderValue::from_static("pointsman"));
        let response = connection.sender.send_request(request).await.map_err(FetchError::Broken)?;
        let status = response.status();
        let mut body = response.into_body();
        let mut page = Page::default();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(FetchError::Broken)?.into_data() {
                if page.len() + data.len() > self.max_bytes {
                    return Err(FetchError::TooLarge(self.max_bytes));
                }
                page.push(data);
            }
        }
        self.connection = Some(connection);
        if status == StatusCode::OK { Ok(page) } else { Err(FetchError::Status(status)) }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Connection, FetchError> {
    let (sender, driver) = Builder::new()
        .max_buf_size(READ_AT_ONCE)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(FetchError::Broken)?;
    let driver = tokio::spawn(async move {
        // Its errors reach the request that they concern.
        let _ended = driver.await;
    });
    Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver) })
}
