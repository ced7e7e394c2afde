//! One row: the floor, the picker, and what may be said of both.

use super::BenchError;
use super::account::Account;
use super::args::LoadArgs;
use super::children::{Folder, Process};
use super::connection::Target;
use super::load;
use super::prompt::Prompts;
use super::report::{self, Row};
use super::stats::Measured;
use super::workload::{Pace, Workload};
use std::path::Path;

/// Measures the floor of `workload`: an echo server of its own, on `core`.
///
/// # Errors
/// When the server cannot be started or reached.
pub async fn floor(
    workload: &Workload,
    prompts: &Prompts,
    tls: bool,
    core: Option<usize>,
    folder: &Path,
) -> Result<Measured, BenchError> {
    let mut args = vec!["bench".to_owned(), "echo".to_owned()];
    if !tls {
        args.push("--plaintext".to_owned());
    }
    let me = std::env::current_exe().map_err(super::failed("the echo server"))?;
    let mut echo = Process::start("echo", &me, &args, core, folder)?;
    let address = echo.listens().await?;
    let account = Account::of(echo.id());
    load::run(workload, prompts.clone(), Target { address, tls }, Some(&account)).await
}

/// Measures a row: the floor unless it makes no sense, and `runs` times the picker.
///
/// # Errors
/// When floor or picker cannot be measured at all.
pub async fn row(
    workload: &Workload,
    target: Target,
    account: Option<&Account>,
    runs: usize,
    floor_on: Option<(Option<usize>, &Path)>,
) -> Result<Row, BenchError> {
    let prompts = Prompts::new(workload.prompts, workload.turns, workload.seed);
    let floor = match floor_on {
        Some((core, folder)) if workload.pace != Pace::Idle => {
            Some(floor(workload, &prompts, target.tls, core, folder).await?)
        }
        _ => None,
    };
    let mut measured = Vec::with_capacity(runs);
    for run in 0..runs.max(1) {
        // Other prompts in each run: the first one filled the picker's index.
        let seed = workload.seed + 1 + run as u64;
        let workload = Workload { seed, ..workload.clone() };
        let prompts = Prompts::new(workload.prompts, workload.turns, seed);
        measured.push(load::run(&workload, prompts, target, account).await?);
    }
    Ok(Row::new(workload, floor, &measured))
}

/// `pointsman bench load`.
///
/// # Errors
/// When nothing can be measured, or the row is refused.
pub async fn load(args: &LoadArgs) -> Result<(), BenchError> {
    let workload = args.workload.workload();
    let target = Target { address: args.target, tls: !args.plaintext };
    let account = args.pid.map(Account::of);
    let theirs = account.as_ref().and_then(|a| a.cores().ok()).filter(|cores| cores.len() == 1);
    let core = args.echo_core.or_else(|| theirs.and_then(|cores| cores.first().copied()));
    let folder = Folder::new();
    let floor_on = (!args.no_floor).then(|| (core, folder.path()));
    let row = row(&workload, target, account.as_ref(), args.runs, floor_on).await?;
    report::tell(&[row], args.json.as_deref())
}
