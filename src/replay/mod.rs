//! `pointsman replay`: what a configuration would have made of recorded traffic.
//!
//! A trace runs through the very same director and scheduler as in production, over simulated engines ([`crate::sim::engine`])
//! on a virtual clock: an hour takes seconds, and the same trace, configuration and seed give the same answer. What a plugin
//! holds back is held on that clock, and the time counts as the client's. Each
//! configuration starts from empty caches. What is compared is the engines' own hit rate, the time to the first token,
//! the spread of load and who was refused.
//!
//! Not modelled: the network, Envoy, prefill and decode on different engines (the primary profile's endpoint serves the
//! whole request), adapters, failures.

mod args;
mod drawing;
mod report;
mod trace;
mod world;

#[cfg(test)]
mod tests;

pub use args::ReplayArgs;
pub use report::{Outcome, Report};
pub use trace::{TraceError, Traced, read, read_lines};
pub use world::{Settings, replay};

use crate::config::{ConfigErrors, ConfigSource, Loaded};
use crate::plot::PlotError;
use crate::plugin::BuildError;
use std::path::PathBuf;

/// Why a replay gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The trace cannot be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The plugin tables are not what they should be.
    #[error(transparent)]
    Plugins(#[from] BuildError),
    /// The outcome cannot be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// A result could not be written.
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}

/// Replays what the flags say and returns the table; files that were asked for are written.
///
/// # Errors
/// When the trace or a configuration cannot be used, or a file cannot be written.
pub fn run(args: &ReplayArgs) -> Result<String, ReplayError> {
    let mut trace = read(&args.trace, args.limit)?;
    trace::begin_at_once(&mut trace);
    let settings = args.settings();
    let mut outcomes = Vec::with_capacity(args.config.len().max(1));
    for source in sources(&args.config) {
        let loaded = Loaded::read(&source)?;
        outcomes.push(replay(&loaded, &trace, &settings)?);
    }
    let report = Report::new(&trace, &settings, outcomes);
    if let Some(path) = &args.json {
        write(path, &report.json())?;
    }
    if let Some(path) = &args.svg {
        write(path, &report.svg()?)?;
    }
    Ok(report.table())
}

fn sources(configs: &[PathBuf]) -> Vec<ConfigSource> {
    if configs.is_empty() {
        return vec![ConfigSource::BuiltIn];
    }
    configs.iter().cloned().map(ConfigSource::File).collect()
}

fn write(path: &std::path::Path, text: &str) -> Result<(), ReplayError> {
    std::fs::write(path, text).map_err(|cause| ReplayError::Write { path: path.to_owned(), cause })
}
