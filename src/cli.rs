//! Which subcommand runs: by word, or by the name that the binary was started under.

use clap::{Parser, Subcommand};
use pointsman::app::check::CheckArgs;
use pointsman::bench::BenchArgs;
use pointsman::config::EppOptions;
use pointsman::config::flags::{self, FlagNotice, FlagOutcome};
use pointsman::demo::DemoArgs;
use pointsman::explain::ExplainArgs;
use pointsman::replay::ReplayArgs;
use pointsman::sim::SimArgs;
use std::ffi::OsString;
use std::path::Path;

/// An endpoint picker for LLM inference behind Envoy, with the tools to try it without a GPU.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, propagate_version = false)]
#[command(after_help = "Started under the name `epp` the binary acts as `pointsman epp`.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
enum Command {
    /// The endpoint picker: ext_proc on port 9002, health on 9003, metrics and debug pages on 9090
    #[command(disable_help_flag = true)]
    Epp {
        /// Flags of the picker in Go's or GNU's spelling; `pointsman epp --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        args: Vec<String>,
    },
    Check(Box<CheckArgs>),
    /// An engine that clients and pickers take for vLLM, without a GPU
    Sim(Box<SimArgs>),
    /// Engines, picker and a real Envoy on this machine: round robin against Pointsman
    Demo(Box<DemoArgs>),
    /// What a picker costs: drives any ext_proc picker as Envoy does, beside the floor of a server that only echoes
    Bench(Box<BenchArgs>),
    /// What configurations would have made of recorded traffic, over simulated engines on a virtual clock
    Replay(Box<ReplayArgs>),
    /// Why a request went where it went, asked of a running picker
    Explain(ExplainArgs),
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// To run the picker; the notices belong into its log.
    Epp(Box<EppOptions>, Vec<FlagNotice>),
    /// To check a configuration.
    Check(Box<CheckArgs>),
    /// To run a simulated engine.
    Sim(Box<SimArgs>),
    /// To run the demo.
    Demo(Box<DemoArgs>),
    /// To measure a picker.
    Bench(Box<BenchArgs>),
    /// To replay a trace.
    Replay(Box<ReplayArgs>),
    /// To explain a decision.
    Explain(ExplainArgs),
    /// To say something and end: help, the version, or what is wrong with the command line.
    Say {
        /// The text, with its line ends.
        text: String,
        /// Whether it was asked for (standard output) or is a complaint (standard error).
        to_stdout: bool,
        /// Exit code.
        code: u8,
    },
}

const NO_SIDECAR: &str = "pd-sidecar: the P/D routing sidecar is not part of this release of Pointsman; \
    keep the sidecar image that you run today (it works beside this picker)\n";

/// Reads a command line, program name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Invocation {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let started_as = args.first().and_then(|name| Path::new(name).file_name()?.to_str().map(str::to_owned));
    match started_as.as_deref() {
        Some("pd-sidecar") => {
            return Invocation::Say { text: NO_SIDECAR.to_owned(), to_stdout: false, code: 2 };
        }
        Some("epp") => args.insert(1, OsString::from("epp")),
        _ => {}
    }
    match Cli::try_parse_from(args) {
        Ok(Cli { command: Command::Epp { args } }) => picker(&args),
        Ok(Cli { command: Command::Check(args) }) => Invocation::Check(args),
        Ok(Cli { command: Command::Sim(args) }) => Invocation::Sim(args),
        Ok(Cli { command: Command::Demo(args) }) => Invocation::Demo(args),
        Ok(Cli { command: Command::Bench(args) }) => Invocation::Bench(args),
        Ok(Cli { command: Command::Replay(args) }) => Invocation::Replay(args),
        Ok(Cli { command: Command::Explain(args) }) => Invocation::Explain(args),
        Err(error) => Invocation::Say {
            text: error.render().to_string(),
            to_stdout: !error.use_stderr(),
            code: u8::try_from(error.exit_code()).unwrap_or(2),
        },
    }
}

fn picker(args: &[String]) -> Invocation {
    match flags::parse(args, &|name| std::env::var(name).ok()) {
        Ok(FlagOutcome::Run(options, notices)) => Invocation::Epp(options, notices),
        Ok(FlagOutcome::Help) => Invocation::Say { text: flags::help(), to_stdout: true, code: 0 },
        Ok(FlagOutcome::Version) => {
            let text = concat!("pointsman ", env!("CARGO_PKG_VERSION"), "\n").to_owned();
            Invocation::Say { text, to_stdout: true, code: 0 }
        }
        Err(errors) => {
            let text = format!("pointsman epp: {errors}\n(`pointsman epp --help` lists the flags)\n");
            Invocation::Say { text, to_stdout: false, code: 2 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Invocation {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_name_of_the_binary_chooses_the_subcommand() {
        for line in ["/app/epp -grpc-port 7 --pool-name p", "pointsman epp -grpc-port 7 --pool-name p"] {
            let Invocation::Epp(options, _) = parse_words(line) else { panic!("{line}") };
            assert_eq!((options.listen.grpc_port, &*options.pools[0].name), (7, "p"), "{line}");
        }
        let Invocation::Say { text, to_stdout, code } = parse_words("/app/pd-sidecar --port 8000") else {
            panic!()
        };
        assert!(text.contains("not part of this release"));
        assert_eq!((to_stdout, code), (false, 2));
    }

    #[test]
    fn help_and_version_are_no_errors_and_an_unknown_word_is() {
        for (line, wanted) in [
            ("pointsman --version", 0),
            ("pointsman --help", 0),
            ("pointsman epq", 2),
            ("pointsman epp --help", 0),
            ("epp --version", 0),
            ("epp --pool-nam p", 2),
        ] {
            let Invocation::Say { to_stdout, code, text } = parse_words(line) else { panic!("{line}") };
            assert_eq!((to_stdout, code), (wanted == 0, wanted), "{line}: {text}");
        }
    }
}
