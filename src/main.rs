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
    }
}
