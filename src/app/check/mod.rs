//! `pointsman check`: what is wrong with a configuration, what has no effect, what it comes to, and whether running
//! engines fit it.

mod against;
mod effective;
mod engine;
mod schema;

pub use schema::schema;

use super::assemble::{Examined, Inputs, examine, registry};
use crate::clock::Clock;
use crate::config::flags::{self, FlagOutcome};
use crate::config::{ConfigSource, EppOptions, Findings, Loaded, Place, Problem, modernized, write};
use crate::plugin::StateStore;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check a configuration: everything that is wrong at once, what has no effect, and what it comes to
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The configuration; `-` reads standard input. Without one, what the picker's flags name
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write the file in today's form to standard output
    #[arg(long)]
    modernize: bool,
    /// Ask the engine at this URL and name what does not match; may stand several times
    #[arg(long, value_name = "URL")]
    against: Vec<String>,
    /// Print the JSON Schema of the configuration
    #[arg(long)]
    schema: bool,
    /// Load Alpha plugins without a warning, as the picker's flag does
    #[arg(long)]
    allow_experimental_plugins: bool,
    /// The picker's file of endpoints
    #[arg(long, value_name = "FILE")]
    endpoints_file: Option<PathBuf>,
    /// Flags of the picker that matter here, after `--`, e.g. `-- --endpoint-target-ports=8000`
    #[arg(last = true, value_name = "PICKER FLAGS")]
    picker: Vec<String>,
}

/// What is said on both outputs, and how it ended.
#[derive(Debug, Default)]
struct Said {
    out: String,
    err: String,
    wrong: bool,
}

/// Runs the command. Fails with 1 when something is wrong or does not match, with 2 when the command line is.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    if args.schema {
        print!("{}", schema()?);
        return Ok(ExitCode::SUCCESS);
    }
    let options = match options(args) {
        Ok(options) => options,
        Err(text) => {
            eprint!("{text}");
            return Ok(ExitCode::from(2));
        }
    };
    let mut said = Said::default();
    let mut sources: Vec<&ConfigSource> = Vec::new();
    for pool in &options.pools {
        if sources.contains(&&pool.config) {
            continue;
        }
        sources.push(&pool.config);
        one(args, &options, &pool.config, pool.endpoints_file.clone(), &mut said)?;
    }
    eprint!("{}", said.err);
    print!("{}", said.out);
    Ok(if said.wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The picker's options, with the file that is checked.
fn options(args: &CheckArgs) -> Result<EppOptions, String> {
    let mut words = args.picker.clone();
    match &args.file {
        Some(file) if file.as_os_str() == "-" => {
            let text =
                std::io::read_to_string(std::io::stdin()).map_err(|e| format!("standard input: {e}\n"))?;
            words.push(format!("--config-text={text}"));
        }
        Some(file) => words.push(format!("--config-file={}", file.display())),
        None => {}
    }
    if let Some(file) = &args.endpoints_file {
        words.push(format!("--endpoints-file={}", file.display()));
    }
    if args.allow_experimental_plugins {
        words.push("--allow-experimental-plugins".to_owned());
    }
    // Where the picker runs, its pod has a name; here any will do.
    let pod = |name: &str| (name == "POD_NAME").then(|| "check-0-0".to_owned());
    match flags::parse(&words, &|name| std::env::var(name).ok().or_else(|| pod(name))) {
        Ok(FlagOutcome::Run(options, _)) => Ok(*options),
        Ok(FlagOutcome::Help | FlagOutcome::Version) => Err(flags::help()),
        Err(errors) => Err(format!("pointsman check: {errors}\n")),
    }
}

fn one(
    args: &CheckArgs,
    options: &EppOptions,
    source: &ConfigSource,
    endpoints_file: Option<PathBuf>,
    said: &mut Said,
) -> anyhow::Result<()> {
    let stdin = args.file.as_ref().is_some_and(|file| file.as_os_str() == "-");
    let loaded = match Loaded::read(source) {
        Ok(loaded) if stdin => Loaded { origin: "<stdin>".to_owned(), ..loaded },
        Ok(loaded) => loaded,
        Err(errors) => {
            said.wrong = true;
            tell(said, &errors.origin, "error", &errors.problems);
            return Ok(());
        }
    };
    let by_flag = endpoints_file.is_some();
    let registry = registry()?;
    let (state, clock) = (StateStore::default(), Clock::system());
    let inputs = Inputs {
        registry: &registry,
        state: &state,
        clock: &clock,
        prefix_index_bytes: 1 << 20,
        allow_experimental: options.allow_experimental_plugins,
        endpoints_file,
        generation: 1,
        scalars: &[],
    };
    let Examined { result, notices, outline } = examine(&loaded, &inputs);
    tell(said, &loaded.origin, "warning", &notices);
    let assembled = match result {
        Ok(assembled) => Some(assembled),
        Err(errors) => {
            said.wrong = true;
            tell(said, &loaded.origin, "error", &errors.problems);
            None
        }
    };
    let problems = if assembled.is_some() { "no problem" } else { "refused" };
    let _ = writeln!(said.err, "{}: {problems}, {}", loaded.origin, count(notices.len(), "warning"));
    let Some(root) = modernized(&loaded.text, &mut Findings::default()) else { return Ok(()) };
    if args.modernize {
        let written = write(&root, &loaded.text);
        said.err.push_str(&comments_told(&loaded.origin, written.kept, &written.lost));
        said.out.push_str(&written.text);
        return Ok(());
    }
    if let Some(assembled) = &assembled {
        if args.against.is_empty() {
            said.out.push_str(&effective::text(root, &outline, by_flag));
        } else {
            against::ask(&args.against, assembled, &outline, &options.pools, &mut said.out, &mut said.wrong)?;
        }
    }
    Ok(())
}

/// What became of a document's comments.
fn comments_told(origin: &str, kept: usize, lost: &[u64]) -> String {
    let all = kept + lost.len();
    if lost.is_empty() {
        return format!("{origin}: {} kept\n", count(all, "comment"));
    }
    let lines: Vec<String> = lost.iter().map(u64::to_string).collect();
    format!(
        "{origin}: {kept} of {} kept; lost with what they stood beside: line {}\n",
        count(all, "comment"),
        lines.join(", ")
    )
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// One line for each problem, as compilers write them, in order of the document.
fn tell(said: &mut Said, origin: &str, kind: &str, problems: &[Problem]) {
    let mut sorted: Vec<&Problem> = problems.iter().collect();
    sorted.sort_by_key(|p| p.place.unwrap_or(Place { line: u64::MAX, column: 0 }));
    for problem in sorted {
        let place = problem.place.map_or_else(String::new, |p| format!(":{}:{}", p.line, p.column));
        let path = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
        let _ = writeln!(said.err, "{origin}{place}: {kind}: {path}{}", problem.message);
    }
}
