//! The HTTP side: a listener that can fall silent, die and come back, and the routes behind it.

mod app;
mod body;
mod complete;
mod info;
mod prepare;
mod reply;
mod shape;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::SimError;
use super::config::SimConfig;
use app::{App, Control};

/// Connections at once; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 20_000;

/// Time for the answer to `/admin/restart` to leave before everything is dropped.
const BEFORE_CONTROL: Duration = Duration::from_millis(20);

/// A bound, not yet serving simulator.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    control: mpsc::Receiver<Control>,
}

/// Why the listener stopped accepting.
enum Pause {
    Shutdown,
    Control(Control),
}

impl Server {
    /// Binds the address and starts the engine.
    ///
    /// # Errors
    /// When the address is taken or not ours, or the system gives no thread.
    pub async fn bind(config: SimConfig) -> Result<Self, SimError> {
        let asked = config.listen;
        let listener = listen(asked).map_err(|cause| SimError::Bind { address: asked, cause })?;
        let address = listener.local_addr().map_err(|cause| SimError::Bind { address: asked, cause })?;
        let (tell, control) = mpsc::channel(4);
        let app = App::new(config, tell).map_err(SimError::Thread)?;
        Ok(Self { listener, address, app: Arc::new(app), control })
    }

    /// Where it listens; the port is the real one also when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done, then lets requests under way end within the configured grace.
    ///
    /// # Errors
    /// None today; a listener that cannot be bound again after a pause is tried again.
    pub async fn run(mut self, shutdown: impl Future<Output = ()> + Send) -> Result<(), SimError> {
        let mut shutdown = pin!(shutdown);
        let mut listener = Some(self.listener);
        loop {
            let Some(open) = listener.take() else { break };
            let mut connections = Connections::new(self.app.clone());
            let pause = connections.accept_until(open, shutdown.as_mut(), &mut self.control).await;
            let time = match pause {
                Pause::Shutdown => {
                    connections.close(self.app.config.shutdown_grace).await;
                    break;
                }
                Pause::Control(Control::Restart(time)) => {
                    self.app.driver.restart();
                    time
                }
                Pause::Control(Control::Down(time)) => time,
            };
            connections.tasks.shutdown().await;
            tokio::select! {
                () = shutdown.as_mut() => break,
                again = listen_again(self.address, time) => listener = Some(again),
            }
        }
        self.app.driver.stop();
        Ok(())
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

async fn listen_again(address: SocketAddr, after: Duration) -> TcpListener {
    tokio::time::sleep(after).await;
    loop {
        match listen(address) {
            Ok(listener) => return listener,
            Err(error) => {
                tracing::warn!(%address, %error, "cannot listen again yet; trying once more in 100 ms");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Connections {
    app: Arc<App>,
    tasks: JoinSet<()>,
    closing: CancellationToken,
}

impl Connections {
    fn new(app: Arc<App>) -> Self {
        Self { app, tasks: JoinSet::new(), closing: CancellationToken::new() }
    }

    async fn accept_until(
        &mut self,
        listener: TcpListener,
        mut shutdown: impl Future<Output = ()> + Unpin,
        control: &mut mpsc::Receiver<Control>,
    ) -> Pause {
        loop {
            tokio::select! {
                () = &mut shutdown => return Pause::Shutdown,
                Some(control) = control.recv() => {
                    tokio::time::sleep(BEFORE_CONTROL).await;
                    return Pause::Control(control);
                }
                Some(_) = self.tasks.join_next() => {}
                accepted = listener.accept(), if self.tasks.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => self.spawn(stream),
                    // Out of descriptors, or a client that left at once: neither ends the server.
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                },
            }
        }
    }

    fn spawn(&mut self, stream: TcpStream) {
        let (app, closing) = (self.app.clone(), self.closing.clone());
        self.tasks.spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(reached) = stream.local_addr() else { return };
            let service = service_fn(move |request| app.clone().serve(request, reached));
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(None);
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                // How a connection ended is its client's business, or that of a fault.
                _ = connection.as_mut() => {}
                () = closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }

    async fn close(&mut self, grace: Duration) {
        self.closing.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}
