//! A wire that can be cut: a TCP proxy between a client and a server of this machine.

use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the wire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It carries.
    Carry,
    /// Connections are closed at once.
    Refuse,
    /// Connections are taken and nothing ever comes.
    Swallow,
}

/// The wire; it ends with the handle.
pub struct Wire {
    pub port: u16,
    mode: Arc<watch::Sender<Mode>>,
    _task: JoinSet<()>,
}

impl Wire {
    /// A wire to a port of this machine.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(watch::channel(Mode::Carry).0);
        let (shared, mut task) = (Arc::clone(&mode), JoinSet::new());
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(carry(stream, server, shared.subscribe()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, mode, _task: task }
    }

    /// Changes what the wire does, for connections that are open as well: refusing closes them, swallowing leaves them
    /// open without a word, carrying again closes those that were swallowed.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Closes what is open and goes on carrying.
    pub fn cut(&self) {
        self.set(Mode::Refuse);
        self.set(Mode::Carry);
    }
}

async fn carry(mut client: TcpStream, port: u16, mut mode: watch::Receiver<Mode>) {
    let now = *mode.borrow_and_update();
    match now {
        Mode::Refuse => return,
        Mode::Swallow => {
            mode.changed().await.ok();
            return;
        }
        Mode::Carry => {}
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
        _ = mode.changed() => {}
    }
    // The server's half is closed with the other one only when the wire carries or refuses again.
    while *mode.borrow_and_update() == Mode::Swallow {
        if mode.changed().await.is_err() {
            return;
        }
    }
}
