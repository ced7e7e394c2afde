//! The demo's processes: engines, picker, proxies. All of them end with the demo.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// The proxy in front of the picker, as shipped.
const PICKER_PROXY: &str = include_str!("../../deploy/standalone/envoy-full-duplex.yaml");
/// The proxy that goes round the engines by itself.
const ROUND_ROBIN_PROXY: &str = include_str!("envoy-round-robin.yaml");

/// Ports of the demo, counted up from a base.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) base: u16,
    pub(super) engines: u16,
}

impl Ports {
    pub(super) fn requests(self) -> u16 {
        self.base
    }
    pub(super) fn round_robin(self) -> u16 {
        self.base + 1
    }
    pub(super) fn proxy_admin(self) -> u16 {
        self.base + 2
    }
    pub(super) fn round_robin_admin(self) -> u16 {
        self.base + 3
    }
    pub(super) fn ext_proc(self) -> u16 {
        self.base + 4
    }
    pub(super) fn health(self) -> u16 {
        self.base + 5
    }
    pub(super) fn metrics(self) -> u16 {
        self.base + 6
    }
    pub(super) fn engine(self, index: u16) -> u16 {
        self.base + 10 + index
    }
    fn all(self) -> impl Iterator<Item = u16> {
        (0..7).map(move |i| self.base + i).chain((0..self.engines).map(move |i| self.engine(i)))
    }
}

/// Why the demo cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A port is in use.
    #[error(
        "port {0} is taken: stop what listens there, or move the demo with --base-port (it uses {1} ports from there)"
    )]
    PortTaken(u16, u16),
    /// Envoy is missing.
    #[error("no Envoy at `{0}`: run `make demo`, which installs one, or name one with --envoy")]
    NoEnvoy(String),
    /// A process could not be started.
    #[error("cannot start {what}: {source}")]
    Start {
        /// Which.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// A process ended by itself.
    #[error("{what} ended by itself ({status}); its last words in {log}:\n{tail}")]
    Ended {
        /// Which.
        what: String,
        /// How.
        status: String,
        /// Its log.
        log: String,
        /// The end of it.
        tail: String,
    },
    /// A process did not get ready.
    #[error("{what} was not ready after {seconds} s; its log is {log}")]
    NotReady {
        /// Which.
        what: String,
        /// How long was waited.
        seconds: u64,
        /// Its log.
        log: String,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTP client failed.
    #[error("http client: {0}")]
    Http(#[from] reqwest::Error),
}

/// Running processes and the folder they log to.
pub(super) struct Stack {
    children: Vec<Process>,
    folder: PathBuf,
    pub(super) ports: Ports,
}

struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Stack {
    /// Checks ports and tools, so that what is wrong is said before anything starts.
    pub(super) fn prepare(folder: PathBuf, ports: Ports, envoy: &Path) -> Result<Self, StackError> {
        for port in ports.all() {
            TcpListener::bind(("127.0.0.1", port))
                .map_err(|_taken| StackError::PortTaken(port, 10 + ports.engines))?;
        }
        if !envoy.is_file() {
            return Err(StackError::NoEnvoy(envoy.display().to_string()));
        }
        std::fs::create_dir_all(&folder)
            .map_err(|source| StackError::File { path: folder.display().to_string(), source })?;
        Ok(Self { children: Vec::new(), folder, ports })
    }

    /// Starts a program with its output in a log of its own.
    pub(super) fn start(&mut self, name: &str, program: &Path, args: &[String]) -> Result<(), StackError> {
        let log = self.folder.join(format!("{name}.log"));
        let file = File::create(&log)
            .map_err(|source| StackError::File { path: log.display().to_string(), source })?;
        let failed = |source| StackError::Start { what: name.to_owned(), source };
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(failed)?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        self.children.push(Process { name: name.to_owned(), child, log });
        Ok(())
    }

    /// Writes a file into the demo's folder.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, StackError> {
        let path = self.folder.join(name);
        std::fs::write(&path, text)
            .map_err(|source| StackError::File { path: path.display().to_string(), source })?;
        Ok(path)
    }

    /// Waits until `url` answers with success, or says which process failed.
    pub(super) async fn ready(&mut self, name: &str, url: &str, limit: Duration) -> Result<(), StackError> {
        let client = reqwest::Client::new();
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let answer = client.get(url).timeout(Duration::from_secs(1)).send().await;
            if answer.is_ok_and(|a| a.status().is_success()) {
                return Ok(());
            }
            self.check()?;
            if tokio::time::Instant::now() > deadline {
                let log = self.folder.join(format!("{name}.log")).display().to_string();
                return Err(StackError::NotReady { what: name.to_owned(), seconds: limit.as_secs(), log });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Says whether a process ended by itself.
    pub(super) fn check(&mut self) -> Result<(), StackError> {
        for process in &mut self.children {
            if let Ok(Some(status)) = process.child.try_wait() {
                let text = std::fs::read_to_string(&process.log).unwrap_or_default();
                let skip = text.lines().count().saturating_sub(5);
                return Err(StackError::Ended {
                    what: process.name.clone(),
                    status: status.to_string(),
                    log: process.log.display().to_string(),
                    tail: text.lines().skip(skip).collect::<Vec<_>>().join("\n"),
                });
            }
        }
        Ok(())
    }

    /// Stops everything and waits for it.
    pub(super) async fn stop(mut self) {
        for process in &mut self.children {
            let _gone = process.child.kill().await;
        }
        let _kept = std::fs::remove_dir_all(&self.folder);
    }

    /// Configuration of the proxy in front of the picker.
    pub(super) fn picker_proxy(&self) -> String {
        let p = self.ports;
        [(8081, p.requests()), (19000, p.proxy_admin()), (9002, p.ext_proc())].iter().fold(
            PICKER_PROXY.replace("0.0.0.0", "127.0.0.1"),
            |text, (from, to)| {
                text.replace(&format!("port_value: {from} }}"), &format!("port_value: {to} }}"))
            },
        )
    }

    /// Configuration of the proxy that goes round.
    pub(super) fn round_robin_proxy(&self) -> String {
        let endpoints: String = (0..self.ports.engines)
            .map(|i| {
                let port = self.ports.engine(i);
                format!(
                    "              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}\n"
                )
            })
            .collect();
        ROUND_ROBIN_PROXY
            .replace("LISTEN_PORT", &self.ports.round_robin().to_string())
            .replace("ADMIN_PORT", &self.ports.round_robin_admin().to_string())
            .replace("ENDPOINTS\n", &endpoints)
    }
}
