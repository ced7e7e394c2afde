//! `pointsman bench run`: every process of a profile's rows, started and measured in one command.

use super::BenchError;
use super::account::Account;
use super::args::RunArgs;
use super::children::{self, Folder, Process};
use super::connection::Target;
use super::curves;
use super::engines::Scrapes;
use super::load;
use super::measure;
use super::profiles::Spec;
use super::prompt::{Prompts, Shape};
use super::proxy;
use super::report::{self, Row};
use super::workload::{Pace, ResponseMode, Workload};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Share of the scrapes due that must come.
const SCRAPES: f64 = 0.95;
/// Prompts that fill the index are of this size.
const FILLER_BYTES: usize = 400_000;
/// Times as many blocks as the row wants are asked for: endpoints are not chosen evenly, and all shall be full.
const FILLED: f64 = 1.5;
/// Text of one block as the picker counts it: 64 tokens of 4 bytes.
const BLOCK_BYTES: u64 = 256;

/// Measures every row of the profile.
///
/// # Errors
/// When a process cannot be started, and when rows are refused or broken.
pub async fn run(args: &RunArgs) -> Result<(), BenchError> {
    let (mut rows, mut points) = (Vec::new(), Vec::new());
    for spec in args.profile.rows() {
        let named = |wanted: &String| spec.workload.name.contains(wanted.as_str());
        if !args.row.is_empty() && !args.row.iter().any(named) {
            continue;
        }
        let workload = args.overridden(&spec.workload);
        let engines = args.engines.unwrap_or(spec.engines);
        let spec = Spec { workload, engines, ..spec };
        eprintln!("{} …", spec.workload.name);
        let row = match spec.proxy {
            Some(configuration) => proxy::measured(args, &spec, configuration).await?,
            None => measured(args, &spec).await?,
        };
        points.extend(spec.curve.map(|(growing, value)| (growing, value, row.clone())));
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(BenchError::Usage("no row has a name like --row".to_owned()));
    }
    if let Some(folder) = &args.svg {
        curves::write(&points, folder)?;
    }
    report::tell(&rows, args.json.as_deref())
}

/// What runs for one row.
struct Stage {
    target: Target,
    account: Option<Account>,
    control: Option<SocketAddr>,
    /// The picker's own page.
    metrics: Option<SocketAddr>,
    /// Last, so that they end before the folder that they log to goes.
    _processes: Vec<Process>,
}

async fn measured(args: &RunArgs, spec: &Spec) -> Result<Row, BenchError> {
    let folder = Folder::new();
    let workload = &spec.workload;
    let prompts = Prompts::new(workload.prompts, workload.turns, workload.seed);
    // Before the picker starts, so that the floor has the core to itself.
    let floor = match workload.pace {
        Pace::Idle => None,
        _ => Some(
            measure::floor(workload, &prompts, !args.plaintext, args.picker_core(), folder.path()).await?,
        ),
    };
    let stage = stage(args, spec, &folder).await?;
    let mut runs = Vec::with_capacity(args.runs);
    let mut notes = fill(spec, stage.target).await?;
    let (before, since) = (scrapes(stage.control).await, Instant::now());
    for run in 0..args.runs.max(1) {
        let seed = workload.seed + 1 + run as u64;
        let workload = Workload { seed, ..workload.clone() };
        let prompts = Prompts::new(workload.prompts, workload.turns, seed);
        runs.push(load::run(&workload, prompts, stage.target, stage.account.as_ref()).await?);
    }
    let (after, elapsed) = (scrapes(stage.control).await, since.elapsed());
    let mut row = Row::new(workload, floor, &runs);
    if spec.blocks > 0 {
        notes.extend(cached_blocks(stage.metrics).await);
    }
    notes.drain(..).for_each(|note| row.note(note));
    if let Some((before, after)) = before.zip(after) {
        tell_scrapes(&mut row, spec, before, after, elapsed);
    }
    Ok(row)
}

fn tell_scrapes(row: &mut Row, spec: &Spec, before: Scrapes, after: Scrapes, elapsed: Duration) {
    let came = after.total - before.total;
    let rate = came as f64 / elapsed.as_secs_f64();
    let Some(period) = spec.scrapes_due_every else {
        return row.note(format!("{rate:.0} scrapes/s"));
    };
    let due = elapsed.as_secs_f64() / period.as_secs_f64();
    let share = came as f64 / (due * spec.engines as f64);
    let least = (after.least - before.least) as f64 / due;
    let text = format!(
        "{rate:.0} scrapes/s, {:.1} % of those due, {:.1} % at the engine with the fewest since its start",
        100.0 * share,
        100.0 * least
    );
    if share < SCRAPES { row.broke(text) } else { row.note(text) }
}

/// Starts engines and picker, or takes the picker that runs already.
async fn stage(args: &RunArgs, spec: &Spec, folder: &Folder) -> Result<Stage, BenchError> {
    let tls = !args.plaintext;
    if let Some(address) = args.target {
        let account = args.pid.map(Account::of);
        return Ok(Stage {
            target: Target { address, tls },
            account,
            control: None,
            metrics: None,
            _processes: Vec::new(),
        });
    }
    let engines = start_engines(args, spec, folder).await?;
    let Picker { process: picker, address, metrics } = start_picker(args, spec, &engines, folder).await?;
    let account = Some(Account::of(picker.id()));
    let (control, metrics) = (Some(engines.control), Some(metrics));
    let target = Target { address, tls };
    Ok(Stage { target, account, control, metrics, _processes: vec![picker, engines.process] })
}

/// Engines that run.
pub struct Engines {
    process: Process,
    control: SocketAddr,
    /// The file that names them.
    pub endpoints: PathBuf,
}

/// Starts the engines of a row.
///
/// # Errors
/// When they cannot be started.
pub async fn start_engines(args: &RunArgs, spec: &Spec, folder: &Folder) -> Result<Engines, BenchError> {
    let me = std::env::current_exe().map_err(super::failed("pointsman"))?;
    let endpoints = folder.path().join("endpoints.yaml");
    let mut flags = words(&format!("bench engines --count {}", spec.engines));
    flags.extend(["--endpoints-file".to_owned(), endpoints.display().to_string()]);
    let mut process = Process::start("engines", &me, &flags, args.own_core(), folder.path())?;
    let control = process.listens().await?;
    Ok(Engines { process, control, endpoints })
}

/// A picker that runs.
pub struct Picker {
    /// Ends with it.
    pub process: Process,
    /// Its ext_proc port.
    pub address: SocketAddr,
    metrics: SocketAddr,
}

/// Starts the picker of a row and waits until it is ready.
///
/// # Errors
/// When it cannot be started or does not get ready.
pub async fn start_picker(
    args: &RunArgs,
    spec: &Spec,
    engines: &Engines,
    folder: &Folder,
) -> Result<Picker, BenchError> {
    let me = std::env::current_exe().map_err(super::failed("pointsman"))?;
    let config = folder.write("config.yaml", &spec.config)?;
    let [grpc, health, metrics] = free_ports()?;
    let tls = !args.plaintext;
    let mut flags = words(&format!(
        "epp --listen-address 127.0.0.1 --grpc-port {grpc} --grpc-health-port {health} --metrics-port {metrics} \
         --secure-serving={tls} --allow-experimental-plugins --pool-name bench"
    ));
    for (flag, file) in [("--config-file", &config), ("--endpoints-file", &engines.endpoints)] {
        flags.extend([flag.to_owned(), file.display().to_string()]);
    }
    flags.extend(spec.flags.iter().cloned());
    let program = args.picker.as_deref().unwrap_or(&me);
    let mut process = Process::start("picker", program, &flags, args.picker_core(), folder.path())?;
    let ready = format!("http://127.0.0.1:{metrics}/readyz");
    process.until(|| async { get(&ready).await.map(|_text| ()) }).await?;
    let [address, metrics] = [grpc, metrics].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    Ok(Picker { process, address, metrics })
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Fills the picker's prefix index with as many blocks as the row wants.
async fn fill(spec: &Spec, target: Target) -> Result<Vec<String>, BenchError> {
    if spec.blocks == 0 {
        return Ok(Vec::new());
    }
    let on_one_endpoint = spec.blocks * BLOCK_BYTES / spec.engines.max(1) as u64;
    let bytes = FILLER_BYTES.min(on_one_endpoint as usize);
    let workload = Workload {
        prompts: Shape { bytes, shared: 0.0, groups: 0, turn_bytes: 0 },
        response: ResponseMode::None,
        ..Workload::default()
    };
    let count = (FILLED * (spec.blocks * BLOCK_BYTES) as f64 / bytes as f64).ceil() as u64;
    let failed = load::fill(&workload, Prompts::new(workload.prompts, 1, 9), target, count).await?;
    Ok(vec![format!("filled before with {count} prompts of {bytes} bytes, {failed} of which failed")])
}

/// What the picker says its index holds, over all endpoints.
async fn cached_blocks(metrics: Option<SocketAddr>) -> Option<String> {
    let page = get(&format!("http://{}/metrics", metrics?)).await?;
    let of_index = |line: &&str| line.starts_with(crate::telemetry::names::PREFIX_SIZE);
    let blocks: f64 =
        page.lines().filter(of_index).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    Some(format!("{blocks:.0} blocks cached at the end"))
}

async fn scrapes(control: Option<SocketAddr>) -> Option<Scrapes> {
    serde_json::from_str(&get(&format!("http://{}/count", control?)).await?).ok()
}

/// The page at `url`; none unless it answers with success within two seconds.
pub async fn get(url: &str) -> Option<String> {
    let answer = reqwest::Client::new().get(url).timeout(Duration::from_secs(2)).send().await.ok()?;
    if answer.status().is_success() { answer.text().await.ok() } else { None }
}

/// Three free ports.
///
/// # Errors
/// When there are none.
pub fn free_ports() -> Result<[u16; 3], BenchError> {
    let failed = || super::failed("the picker");
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed());
    // All are held before the first is let go, so they differ.
    let [a, b, c] = [bind(()), bind(()), bind(())];
    let (a, b, c) = (a?, b?, c?);
    let port = |l: &TcpListener| l.local_addr().map(|a| a.port()).map_err(failed());
    Ok([port(&a)?, port(&b)?, port(&c)?])
}

/// Says early when the machine cannot do it.
///
/// # Errors
/// When a core is missing.
pub fn prepare(args: &RunArgs) -> Result<(), BenchError> {
    if let Some(core) = args.picker_core() {
        children::check(core)?;
    }
    args.own_core().map_or(Ok(()), children::keep_to)
}

/// More than a thousand engines need more descriptors than many a shell allows.
pub fn more_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _kept = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// `pointsman bench engines`.
///
/// # Errors
/// When ports or descriptors run out.
pub async fn engines(
    count: usize,
    file: &Path,
    control: u16,
    stop: impl Future<Output = ()>,
) -> Result<(), BenchError> {
    more_files();
    let localhost = Ipv4Addr::LOCALHOST.into();
    let listeners = super::engines::listen(localhost, count).await?;
    let control = super::echo::listen(SocketAddr::new(localhost, control)).await?;
    super::engines::write_endpoints(&listeners, file)?;
    super::say_ready(control.local_addr().map_err(super::failed("the engines"))?);
    super::engines::run(listeners, control, stop).await;
    Ok(())
}
