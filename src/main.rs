//! The `pointsman` binary: reads the command line, starts the runtime, stops on SIGTERM or SIGINT.

mod cli;

use cli::{Command, Invocation};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Invocation::Run(command) => match execute(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("pointsman: {error:#}");
                ExitCode::FAILURE
            }
        },
        Invocation::Say { text, to_stdout, code } => {
            if to_stdout {
                print!("{text}");
            } else {
                eprint!("{text}");
            }
            ExitCode::from(code)
        }
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Epp { .. } => anyhow::bail!("`epp` cannot be started yet in this build"),
        Command::Sim(args) => simulate(*args),
    }
}

/// Runs the simulator until SIGTERM or SIGINT; what it says goes to standard error.
fn simulate(args: pointsman::sim::SimArgs) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        Ok(pointsman::sim::run(args, shutdown).await?)
    })
}
