//! The `pointsman` binary: reads the command line, starts the runtime, stops on SIGTERM or SIGINT.

mod cli;

use cli::Invocation;
use pointsman::app::App;
use pointsman::config::flags::FlagNotice;
use pointsman::config::{EppOptions, LogLevel};
use pointsman::telemetry::logs;
use std::future::Future;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let result = match cli::parse(std::env::args_os()) {
        Invocation::Epp(options, notices) => pick(*options, &notices),
        Invocation::Check(args) => match pointsman::app::check::run(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Invocation::Sim(args) => simulate(*args),
        Invocation::Demo(args) => demonstrate(*args),
        Invocation::Bench(args) => measure(*args),
        Invocation::Replay(args) => replay(&args),
        Invocation::Explain(args) => explain(args),
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
            eprintln!("pointsman: {}", told_once(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes; a cause that the text before it already tells is not said again.
fn told_once(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        told if told.contains(&cause) => told.to_owned(),
        told => format!("{told}: {cause}"),
    })
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

/// Runs the picker until it is told to stop.
fn pick(options: EppOptions, notices: &[FlagNotice]) -> anyhow::Result<()> {
    let _log = logs::init(level(options.log_level))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        App::build(options, notices).await?.run(stop).await
    })
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Runs the demo until it is done or interrupted.
fn demonstrate(args: pointsman::demo::DemoArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { Ok(pointsman::demo::run(args, stop_signal()?).await?) })
}

/// Measures a picker, or is a part of such a measurement. The command builds its own runtimes, each shaped like what it
/// stands for.
fn measure(args: pointsman::bench::BenchArgs) -> anyhow::Result<()> {
    Ok(pointsman::bench::run(args)?)
}

/// Replays a trace and prints the table.
fn replay(args: &pointsman::replay::ReplayArgs) -> anyhow::Result<()> {
    print!("{}", pointsman::replay::run(args)?);
    Ok(())
}

/// Asks a running picker and prints what it says.
fn explain(args: pointsman::explain::ExplainArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    print!("{}", runtime.block_on(pointsman::explain::run(args))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::told_once;
    use anyhow::{Context, anyhow};

    #[test]
    fn each_cause_is_said_once() {
        let repeated = Err::<(), _>(anyhow!("no such file")).context("endpoints file a.yaml: no such file");
        assert_eq!(
            repeated.map_err(|e| told_once(&e)),
            Err("endpoints file a.yaml: no such file".to_owned())
        );
        let told = Err::<(), _>(anyhow!("refused")).context("cannot start");
        assert_eq!(told.map_err(|e| told_once(&e)), Err("cannot start: refused".to_owned()));
    }
}
