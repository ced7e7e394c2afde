//! `pointsman sim`: an engine that clients and pickers take for vLLM, without a GPU.
//!
//! `engine` is the model of one engine: pure, driven by events, with the clock handed in. `driver` runs it in real time,
//! `http` puts the OpenAI API, `/metrics` and faults on demand before it. [`Server`] is the same for use within a process.

mod config;
mod driver;
pub mod engine;
mod faults;
mod flags;
mod http;
mod metrics;
mod text;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

pub use config::{LoraModule, Mode, SimConfig};
pub use faults::{FailureType, Faults, MetricsFault};
pub use flags::{Millis, SimArgs};
pub use http::Server;
pub use metrics::{FakeLora, FakeMetrics};

/// Why a simulator does not run.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The port is taken, or the address is not this machine's.
    #[error("cannot listen on {address}: {cause}; free the port or choose another with --port or --host")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why. Not a `source`: the message says it already.
        cause: std::io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(std::io::Error),
    /// A flag's value has no meaning.
    #[error("{flag}: {reason}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The file of `--config` cannot be used.
    #[error("--config {}: {reason}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Runs the simulator that the flags describe until `shutdown` is done: one server for each rank.
///
/// # Errors
/// When the flags have no meaning together or an address is taken; nothing runs then.
pub async fn run(args: SimArgs, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), SimError> {
    let ignored = args.without_effect();
    if !ignored.is_empty() {
        tracing::warn!(flags = ignored.join(" "), "flags without effect in a simulator");
    }
    let mut servers = Vec::new();
    for config in args.with_file()?.configs()? {
        let names = config.names().join(", ");
        let server = Server::bind(config).await?;
        tracing::info!(address = %server.local_addr(), models = names, "serving");
        servers.push(server);
    }
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    for server in servers {
        tasks.spawn(server.run(stop.clone().cancelled_owned()));
    }
    shutdown.await;
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        if let Ok(result) = ended {
            result?;
        }
    }
    Ok(())
}
