//! Flags of `pointsman bench`.

use super::profiles::Profile;
use super::prompt::Shape;
use super::workload::{Arrivals, Pace, RequestMode, ResponseMode, Workload};
use clap::{Args, Subcommand};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What a picker costs.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// Which part of the harness.
    #[command(subcommand)]
    pub part: Part,
}

/// The parts of the harness.
#[derive(Clone, Debug, Subcommand)]
pub enum Part {
    /// Drive a picker that runs already, as Envoy does, and measure it
    Load(Box<LoadArgs>),
    /// The floor: an ext_proc server that does nothing but the protocol
    Echo(EchoArgs),
    /// Engines to be scraped: a real vLLM page on many ports, and the endpoints file for a picker to find them
    Engines(EnginesArgs),
    /// Everything for one profile: starts engines, floor and picker, each on its core, and prints a table
    Run(Box<RunArgs>),
}

/// Flags of `pointsman bench engines`.
#[derive(Clone, Debug, Args)]
pub struct EnginesArgs {
    /// How many engines.
    #[arg(long, default_value_t = 100)]
    pub count: usize,
    /// The file to write for `pointsman epp --endpoints-file`.
    #[arg(long)]
    pub endpoints_file: PathBuf,
    /// Port where `GET /count` tells how often the engines were scraped; 0 takes a free one and prints it.
    #[arg(long, default_value_t = 0)]
    pub control_port: u16,
}

/// Flags of `pointsman bench run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The profile.
    #[arg(value_enum)]
    pub profile: Profile,
    /// Only rows whose name contains one of these.
    #[arg(long)]
    pub row: Vec<String>,
    /// A picker that runs already, in place of one that is started.
    #[arg(long)]
    pub target: Option<SocketAddr>,
    /// Process id of the picker at --target, for its CPU time and memory.
    #[arg(long, requires = "target")]
    pub pid: Option<u32>,
    /// Another build of pointsman to measure.
    #[arg(long, conflicts_with = "target")]
    pub picker: Option<PathBuf>,
    /// The Envoy program of the profile `proxy`; `make bench-profiles` installs one.
    #[arg(long, env = "POINTSMAN_ENVOY", default_value = "envoy")]
    pub envoy: PathBuf,
    /// Without TLS.
    #[arg(long)]
    pub plaintext: bool,
    /// Core for picker and floor.
    #[arg(long, default_value = "0")]
    pub picker_core: Option<usize>,
    /// Core for generator and engines.
    #[arg(long, default_value = "1")]
    pub core: Option<usize>,
    /// No process keeps to a core: for tests; figures mean little.
    #[arg(long)]
    pub anywhere: bool,
    /// Endpoints, in place of each row's own number.
    #[arg(long)]
    pub engines: Option<usize>,
    /// Sessions, in place of each row's own number, in rows that have any.
    #[arg(long)]
    pub sessions: Option<usize>,
    /// Runs of each row; the medians are told.
    #[arg(long, default_value_t = 1)]
    pub runs: usize,
    /// Time that counts, in place of each row's own.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub window: Option<Duration>,
    /// Time before it that does not count, in place of each row's own.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub warm_up: Option<Duration>,
    /// Write everything to this file, too.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Draw the curves of rows that differ in one number (profile `growth`) as SVG files in this folder.
    #[arg(long)]
    pub svg: Option<PathBuf>,
}

impl RunArgs {
    /// Core for picker and floor.
    pub fn picker_core(&self) -> Option<usize> {
        self.picker_core.filter(|_| !self.anywhere)
    }

    /// Core for generator and engines.
    pub fn own_core(&self) -> Option<usize> {
        self.core.filter(|_| !self.anywhere)
    }

    /// `workload` with what the flags say in its place.
    pub fn overridden(&self, workload: &Workload) -> Workload {
        let workload = workload.clone();
        Workload {
            sessions: self.sessions.filter(|_| workload.sessions > 0).unwrap_or(workload.sessions),
            window: self.window.unwrap_or(workload.window),
            warm_up: self.warm_up.unwrap_or(workload.warm_up),
            ..workload
        }
    }
}

/// Flags of `pointsman bench echo`.
#[derive(Clone, Debug, Args)]
pub struct EchoArgs {
    /// Where to listen.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub listen_address: IpAddr,
    /// Port; 0 takes a free one and prints it.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Without TLS.
    #[arg(long)]
    pub plaintext: bool,
}

/// Flags of `pointsman bench load`.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Address of the picker's ext_proc port.
    #[arg(long, default_value = "127.0.0.1:9002")]
    pub target: SocketAddr,
    /// Without TLS. With TLS any certificate is accepted.
    #[arg(long)]
    pub plaintext: bool,
    /// Process id of the picker, for its CPU time and memory.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Core that the generator keeps to. Give the picker another one.
    #[arg(long)]
    pub core: Option<usize>,
    /// Core for the echo server; by default the picker's, where --pid tells which that is.
    #[arg(long)]
    pub echo_core: Option<usize>,
    /// No floor: without it nothing tells whether the generator was the slower one, and no rate is told.
    #[arg(long)]
    pub no_floor: bool,
    /// Runs; the medians are told.
    #[arg(long, default_value_t = 1)]
    pub runs: usize,
    /// Write everything to this file, too.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// What is asked.
    #[command(flatten)]
    pub workload: WorkloadArgs,
}

/// Flags that describe a workload.
#[derive(Clone, Debug, Args)]
pub struct WorkloadArgs {
    /// How request bodies are sent.
    #[arg(long, value_enum, default_value_t = RequestMode::FullDuplex)]
    pub request: RequestMode,
    /// How response bodies are sent. --chunks asks for full-duplex.
    #[arg(long, value_enum, default_value_t = ResponseMode::None)]
    pub response: ResponseMode,
    /// Response chunks of each request.
    #[arg(long, default_value_t = 0)]
    pub chunks: usize,
    /// Bytes of each chunk.
    #[arg(long, default_value_t = 250)]
    pub chunk_bytes: usize,
    /// Bytes of a whole request body.
    #[arg(long, default_value_t = 1024)]
    pub prompt_bytes: usize,
    /// Share of it that begins other requests' bodies, too; the rest is its own.
    #[arg(long, default_value_t = 0.5)]
    pub shared: f64,
    /// How many different beginnings there are.
    #[arg(long, default_value_t = 64)]
    pub groups: usize,
    /// Sessions that take turns; 0 asks every prompt once.
    #[arg(long, default_value_t = 0)]
    pub sessions: usize,
    /// Turns of each session.
    #[arg(long, default_value_t = 4)]
    pub turns: usize,
    /// Bytes that each turn adds to the body.
    #[arg(long, default_value_t = 512)]
    pub turn_bytes: usize,
    /// Request bodies are cut into pieces of so many bytes.
    #[arg(long, default_value_t = 32 * 1024)]
    pub piece_bytes: usize,
    /// Endpoints of the subset hint, separated by commas; without any there is no hint.
    #[arg(long, value_delimiter = ',')]
    pub subset: Vec<String>,
    /// HTTP/2 connections.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Requests under way at once (closed loop).
    #[arg(long, default_value_t = 64)]
    pub concurrency: usize,
    /// Requests a second, whether or not earlier ones are answered (open loop); latency counts from when each was due.
    #[arg(long, conflicts_with = "concurrency")]
    pub rate: Option<f64>,
    /// How the requests of --rate are spread over time.
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub arrivals: Arrivals,
    /// With --rate: more than so many at once are not begun but counted as errors.
    #[arg(long, default_value_t = 4096)]
    pub in_flight: usize,
    /// Response chunks a second over --streams streams that stay open; asks no further requests.
    #[arg(long, conflicts_with_all = ["rate", "concurrency"])]
    pub chunk_rate: Option<f64>,
    /// Chunks of --chunk-rate that are due within such a time of each other are sent together.
    #[arg(long, default_value = "1ms", value_parser = humantime::parse_duration)]
    pub tick: Duration,
    /// Streams of --chunk-rate.
    #[arg(long, default_value_t = 100)]
    pub streams: usize,
    /// Time before the window that does not count.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub warm_up: Duration,
    /// Time that counts.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub window: Duration,
    /// Seed of prompts and arrivals.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl WorkloadArgs {
    /// The workload that the flags describe.
    pub fn workload(&self) -> Workload {
        let pace = match (self.chunk_rate, self.rate) {
            (Some(per_second), _) => {
                Pace::Chunks { streams: self.streams.max(1), per_second, tick: self.tick }
            }
            (None, Some(per_second)) => {
                Pace::Rate { per_second, arrivals: self.arrivals, in_flight: self.in_flight.max(1) }
            }
            (None, None) => Pace::Concurrency(self.concurrency.max(1)),
        };
        let chunked = self.chunks > 0 || self.chunk_rate.is_some();
        let turn_bytes = if self.sessions == 0 { 0 } else { self.turn_bytes };
        Workload {
            name: format!("{} B", self.prompt_bytes),
            about: format!(
                "{:.0} % of each body shared within one of {} groups",
                100.0 * self.shared.clamp(0.0, 1.0),
                self.groups
            ),
            request: self.request,
            response: if chunked { ResponseMode::FullDuplex } else { self.response },
            chunks: self.chunks,
            chunk_bytes: self.chunk_bytes,
            prompts: Shape {
                bytes: self.prompt_bytes,
                shared: self.shared.clamp(0.0, 1.0),
                groups: self.groups,
                turn_bytes,
            },
            sessions: self.sessions,
            turns: if self.sessions == 0 { 1 } else { self.turns.max(1) },
            piece_bytes: self.piece_bytes,
            subset: self.subset.clone(),
            connections: self.connections,
            pace,
            warm_up: self.warm_up,
            window: self.window,
            seed: self.seed,
        }
    }
}
