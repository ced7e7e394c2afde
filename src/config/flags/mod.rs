//! The command line and the environment of `pointsman epp`.

mod decision_log;
mod help;
mod lex;
mod pools;
mod read;
mod table;

pub use help::help;

use super::options::EppOptions;

/// Something about the flags that is accepted but deserves one line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagNotice(pub String);

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum FlagOutcome {
    /// To run with these options; the notices belong into the log once there is one.
    Run(Box<EppOptions>, Vec<FlagNotice>),
    /// To show the help.
    Help,
    /// To show the version.
    Version,
}

/// Everything that is wrong with a command line; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|p| format!("\n  {p}")).collect::<String>().trim_start_matches("\n  "))]
pub struct FlagErrors(pub Vec<String>);

/// Reads flags (without the program's name) and variables. Reports every problem at once.
pub fn parse(args: &[String], env: &dyn Fn(&str) -> Option<String>) -> Result<FlagOutcome, FlagErrors> {
    let words = lex::lex(args);
    if words.help {
        return Ok(FlagOutcome::Help);
    }
    if words.version {
        return Ok(FlagOutcome::Version);
    }
    let mut reader = read::Reader::new(words);
    let options = reader.options(env);
    let (problems, notices) = reader.finish();
    if problems.is_empty() {
        Ok(FlagOutcome::Run(Box::new(options), notices.into_iter().map(FlagNotice).collect()))
    } else {
        Err(FlagErrors(problems))
    }
}

#[cfg(test)]
mod tests;
