//! HTTP/2 connections to a picker, as a proxy opens them: few, long-lived, with wide windows.

use super::BenchError;
use super::coalesce::{Coalescing, buffered};
use super::outgoing::Outgoing;
use crate::datalayer::source::client_config;
use crate::plugin::HttpSource;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes that a picker may send on one stream before they are read.
const STREAM_WINDOW: u32 = 16 * 1024 * 1024;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024 * 1024;

/// Where the picker is and how to speak to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    /// With TLS; any certificate is accepted, as shipped Envoy configurations do.
    pub tls: bool,
}

/// A connection that requests can be sent on.
pub type Connection = SendRequest<Outgoing>;

/// Opens `count` connections.
///
/// # Errors
/// When the picker does not accept one, or speaks TLS where plaintext is expected or the other way round.
pub async fn open(target: Target, count: usize) -> Result<Vec<Connection>, BenchError> {
    let connector = if target.tls { Some(TlsConnector::from(Arc::new(tls()?))) } else { None };
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count.max(1) {
        let failed = |problem: String| BenchError::Connect { address: target.address, problem };
        let stream = TcpStream::connect(target.address).await.map_err(|e| failed(e.to_string()))?;
        stream.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
        let connection = match &connector {
            None => handshake(Coalescing::new(buffered(stream))).await,
            Some(connector) => {
                let name = ServerName::from(target.address.ip());
                let stream = connector.connect(name, buffered(stream)).await.map_err(|e| {
                    failed(format!("TLS handshake: {e}; a picker without TLS needs --plaintext"))
                })?;
                handshake(Coalescing::new(stream)).await
            }
        };
        connections.push(connection.map_err(|e| failed(e.to_string()))?);
    }
    Ok(connections)
}

fn tls() -> Result<ClientConfig, BenchError> {
    let source = HttpSource {
        https: true,
        path: "/".into(),
        port: None,
        insecure_skip_verify: true,
        ca_cert_path: None,
        client_cert: None,
        interval: None,
    };
    let config = client_config(&source).map_err(|e| BenchError::Tls(e.to_string()))?;
    let config = config.ok_or_else(|| BenchError::Tls("no configuration".to_owned()))?;
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Connection, hyper::Error> {
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(stream))
        .await?;
    // Its end is seen by the requests on it.
    tokio::spawn(connection);
    Ok(sender)
}
