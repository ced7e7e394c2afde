//! `pointsman bench`: what a picker costs, measured from outside.
//!
//! A generator drives any ext_proc picker as Envoy does and reads its CPU time and memory from the kernel. Beside each row
//! stands the floor: the same workload against `bench echo`, a server that does nothing but the protocol. A rate that the
//! generator could not have exceeded is not told as the picker's.

mod account;
mod args;
mod children;
mod chunks;
mod coalesce;
mod connection;
mod curves;
mod echo;
mod engines;
mod exchange;
mod histogram;
mod load;
mod measure;
mod outgoing;
mod pacer;
mod profiles;
mod prompt;
mod proxy;
mod report;
mod run;
mod sessions;
mod stats;
mod wire;
mod workload;

pub use args::BenchArgs;

use args::Part;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a measurement cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The picker cannot be reached.
    #[error("cannot connect to {address}: {problem}")]
    Connect {
        /// Where it should be.
        address: SocketAddr,
        /// What is wrong.
        problem: String,
    },
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(String),
    /// A port is taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A server of the harness failed.
    #[error("{what} failed: {source}")]
    Serve {
        /// Which.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel's account of a process cannot be read.
    #[error("cannot read /proc of the picker (is --pid right, and does it run on this machine?): {0}")]
    Account(std::io::Error),
    /// A process cannot be kept on a core.
    #[error(
        "this machine may have fewer cores, or this process may not use them: cannot keep to core {core}: {source}"
    )]
    Core {
        /// Which.
        core: usize,
        /// Why.
        source: std::io::Error,
    },
    /// A process could not be started or asked.
    #[error("cannot start {what}: {source}")]
    Start {
        /// Which.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// A process was not ready in time, or ended.
    #[error("{what} {problem}; its log is {log}, which ends with:\n{tail}")]
    NotReady {
        /// Which.
        what: String,
        /// What happened.
        problem: String,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The command line asks for what does not go together.
    #[error("{0}")]
    Usage(String),
    /// The measurement was made, and some of it must not be believed.
    #[error("{0}")]
    Refused(String),
}

/// Runs a part of the harness until it is done or told to stop.
///
/// # Errors
/// When it cannot be run, and when rows of a finished measurement are refused.
pub fn run(args: BenchArgs) -> Result<(), BenchError> {
    match args.part {
        Part::Load(args) => {
            if let Some(core) = args.core {
                children::keep_to(core)?;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(failed("the runtime"))?.block_on(measure::load(&args))
        }
        Part::Run(args) => {
            run::prepare(&args)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(failed("the runtime"))?.block_on(run::run(&args))
        }
        Part::Engines(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(failed("the runtime"))?.block_on(async {
                let stop = stop_signal().map_err(failed("the signal handler"))?;
                run::engines(args.count, &args.endpoints_file, args.control_port, stop).await
            })
        }
        Part::Echo(args) => {
            // The runtime of the picker, so that both have the same threads on the same cores.
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.map_err(failed("the runtime"))?.block_on(async {
                let stop = stop_signal().map_err(failed("the signal handler"))?;
                let listener = echo::listen(SocketAddr::new(args.listen_address, args.port)).await?;
                let address = listener.local_addr().map_err(failed("echo"))?;
                say_ready(address);
                echo::run(listener, !args.plaintext, stop).await
            })
        }
    }
}

fn failed(what: &str) -> impl FnOnce(std::io::Error) -> BenchError {
    let what = what.to_owned();
    move |source| BenchError::Start { what, source }
}

/// The line that whoever started this process waits for.
#[expect(clippy::print_stdout, reason = "read by the process that waits for this one, and by people")]
fn say_ready(address: impl std::fmt::Display) {
    println!("{}{address}", children::READY);
}

/// Ends when the process is told to stop.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
