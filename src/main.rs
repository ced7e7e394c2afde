//! The `pointsman` binary: reads the command line, starts the runtime, stops on SIGTERM or SIGINT.

mod cli;

use cli::Invocation;
use std::future::Future;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let result = match cli::parse(std::env::args_os()) {
        Invocation::Epp(options, notices) => {
            notices.iter().for_each(|notice| eprintln!("pointsman: {}", notice.0));
            Err(anyhow::anyhow!(
                "the picker of pool {} cannot be started yet in this build",
                options.pool_name
            ))
        }
        Invocation::Sim(args) => simulate(*args),
        Invocation::Say { text, to_stdout, code } => {
            if to_stdout {
                print!("{text}");
            } else {
                eprint!("{text}");
            }
            return ExitCode::from(code);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pointsman: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A future that ends when the process is told to stop. To be called inside the runtime.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Runs the simulator; what it says goes to standard error.
fn simulate(args: pointsman::sim::SimArgs) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { Ok(pointsman::sim::run(args, stop_signal()?).await?) })
}
