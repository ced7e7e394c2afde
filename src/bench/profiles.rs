//! The rows of each profile.

use super::curves::Growing;
use super::prompt::Shape;
use super::workload::{Arrivals, Pace, RequestMode, ResponseMode, Workload};
use std::borrow::Cow;
use std::time::Duration;

/// What `pointsman bench run` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// 1 KB prompts, without response bodies and with 100 response chunks
    Small,
    /// Prompts of 400 KB, of 220 KB at several concurrencies, and of 4 MB at 10 a second; 100 endpoints
    Large,
    /// 100,000 response chunks a second over 10, 100 and 1,000 streams
    Chunks,
    /// No requests: 100 endpoints at 50 ms, 1,000 at 1 s
    Idle,
    /// 5,000 sessions of 4 turns, 64 under way, with session affinity
    Sessions,
    /// Decisions at 500 requests a second, open loop
    Latency,
    /// Through a real Envoy: what the hop adds, against the same Envoy without a picker
    Proxy,
    /// Endpoints, prompt sizes, cached blocks
    Growth,
}

/// Prefix cache and load scorers, as recommended.
const RECOMMENDED: &str = include_str!("../../config/recommended.yaml");
/// The same with sessions kept where they were.
const SESSIONS: &str = include_str!("sessions.yaml");
/// Prefix cache and load with room for as many blocks as the row has, and no more: `CAPACITY` on each endpoint.
const ROOMY: &str = include_str!("roomy.yaml");

const FULL_DUPLEX: &str = include_str!("../../deploy/standalone/envoy-full-duplex.yaml");
const NO_RESPONSE_BODY: &str = include_str!("../../deploy/standalone/envoy-no-response-body.yaml");

/// A row and the picker that it wants.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What is asked.
    pub workload: Workload,
    /// Endpoints of the picker.
    pub engines: usize,
    /// Its configuration.
    pub config: Cow<'static, str>,
    /// Further flags of it.
    pub flags: Vec<String>,
    /// Blocks that its prefix index is filled with before.
    pub blocks: u64,
    /// The configuration of an Envoy between generator and picker.
    pub proxy: Option<&'static str>,
    /// Time between two scrapes of an engine, of which 95 % must come.
    pub scrapes_due_every: Option<Duration>,
    /// The curve that the row lies on, and where.
    pub curve: Option<(Growing, f64)>,
}

impl Spec {
    fn new(name: &str, about: &str, engines: usize, workload: Workload) -> Self {
        let about = format!("{about}; {engines} endpoints");
        Self {
            workload: Workload { name: name.to_owned(), about, ..workload },
            engines,
            config: RECOMMENDED.into(),
            flags: Vec::new(),
            blocks: 0,
            proxy: None,
            scrapes_due_every: None,
            curve: None,
        }
    }

    fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    fn on_curve(mut self, growing: Growing, value: f64) -> Self {
        self.curve = Some((growing, value));
        self
    }
}

const UNIQUE_HALF: &str = "half of each prompt is shared within one of 64 groups, the other half its own";

fn prompts(bytes: usize) -> Workload {
    let prompts = Shape { bytes, shared: 0.5, groups: 64, turn_bytes: 0 };
    // Short, because every row is run several times, and the median is told.
    let (warm_up, window) = (Duration::from_secs(1), Duration::from_secs(3));
    Workload { prompts, warm_up, window, ..Workload::default() }
}

fn at_once(concurrency: usize, workload: Workload) -> Workload {
    Workload { pace: Pace::Concurrency(concurrency), ..workload }
}

fn at_rate(per_second: f64, workload: Workload) -> Workload {
    let pace = Pace::Rate { per_second, arrivals: Arrivals::Poisson, in_flight: 4096 };
    Workload { pace, ..workload }
}

impl Profile {
    /// Its rows.
    pub fn rows(self) -> Vec<Spec> {
        match self {
            Self::Small => small(),
            Self::Large => large(),
            Self::Chunks => chunks(),
            Self::Idle => idle(),
            Self::Sessions => sessions(),
            Self::Latency => latency(),
            Self::Proxy => proxy(),
            Self::Growth => growth(),
        }
    }
}

fn small() -> Vec<Spec> {
    let with_chunks = Workload { response: ResponseMode::FullDuplex, chunks: 100, ..prompts(1024) };
    vec![
        Spec::new("1 KB", UNIQUE_HALF, 10, prompts(1024)),
        Spec::new("1 KB, 100 chunks", UNIQUE_HALF, 10, with_chunks),
    ]
}

fn large() -> Vec<Spec> {
    let mut rows = vec![Spec::new("400 KB", UNIQUE_HALF, 100, at_once(16, prompts(400_000)))];
    for concurrency in [20, 60, 150, 200] {
        let name = format!("220 KB, {concurrency} at once");
        rows.push(Spec::new(&name, UNIQUE_HALF, 100, at_once(concurrency, prompts(220_000))));
    }
    let about = "open loop; half of each prompt is shared within one of 8 groups, the other half its own";
    let mut huge = at_rate(10.0, prompts(4 << 20));
    huge.prompts.groups = 8;
    let paced = Workload { window: Duration::from_secs(6), ..huge.clone() };
    rows.push(Spec::new("4 MB at 10/s", about, 100, paced));
    let about = "closed loop; half of each prompt is shared within one of 8 groups, the other half its own";
    rows.push(Spec::new("4 MB", about, 100, at_once(8, huge)));
    rows
}

fn chunks() -> Vec<Spec> {
    let row = |streams: usize, micros: u64| {
        let pace = Pace::Chunks { streams, per_second: 100_000.0, tick: Duration::from_micros(micros) };
        let workload = Workload { pace, response: ResponseMode::FullDuplex, ..prompts(1024) };
        let about = format!(
            "250-byte chunks, one stream after the other; those due within {micros} µs are sent together"
        );
        Spec::new(&format!("100k chunks/s, {streams} streams, {micros} µs"), &about, 10, workload)
    };
    [1_000, 50].iter().flat_map(|micros| [10, 100, 1_000].map(|streams| row(streams, *micros))).collect()
}

fn idle() -> Vec<Spec> {
    let quiet = |seconds: u64| Workload {
        pace: Pace::Idle,
        warm_up: Duration::from_secs(2),
        window: Duration::from_secs(seconds),
        ..Workload::default()
    };
    let about = "no requests, pages that never change, back-off off: every scrape is due";
    let mut rows = vec![
        Spec::new("100 at 50 ms", about, 100, quiet(5)).flag("refresh-metrics-interval", "50ms"),
        Spec::new("1,000 at 1 s", about, 1_000, quiet(5)).flag("refresh-metrics-interval", "1s"),
    ];
    for row in &mut rows {
        row.flags.push("--refresh-backoff=false".to_owned());
    }
    rows[0].scrapes_due_every = Some(Duration::from_millis(50));
    rows[1].scrapes_due_every = Some(Duration::from_secs(1));
    let about = "no requests, pages that never change, every flag at its default";
    rows.push(Spec::new("100 as shipped", about, 100, quiet(5)));
    rows.push(Spec::new("1,000 as shipped", about, 1_000, quiet(5)));
    rows
}

fn sessions() -> Vec<Spec> {
    let mut workload = prompts(4096);
    workload.prompts.turn_bytes = 1024;
    let workload = Workload { sessions: 5_000, turns: 4, ..workload };
    let about = "4 KB and 1 KB more each turn, each turn begins with the one before it, half of the first shared \
                 within one of 64 groups";
    let row = Spec::new("5,000 sessions", about, 100, workload);
    vec![Spec { config: SESSIONS.into(), ..row }]
}

fn latency() -> Vec<Spec> {
    let row = |rate: f64| {
        let workload = Workload { window: Duration::from_secs(10), ..at_rate(rate, prompts(1024)) };
        let about = format!("open loop, counted from when each was due; {UNIQUE_HALF}");
        Spec::new(&format!("1 KB at {rate}/s"), &about, 100, workload)
    };
    vec![row(500.0), row(5_000.0)]
}

fn proxy() -> Vec<Spec> {
    let row = |name: &str, bytes: usize, rate: f64, configuration: &'static str| {
        let workload = Workload {
            request: RequestMode::Http,
            window: Duration::from_secs(6),
            ..at_rate(rate, prompts(bytes))
        };
        let about = "open loop through Envoy, until the headers of the engine's answer; the floor is Envoy without \
                     ext_proc; Envoy, generator and engines share a core";
        Spec { proxy: Some(configuration), ..Spec::new(name, about, 10, workload) }
    };
    vec![
        row("1 KB at 500/s", 1024, 500.0, FULL_DUPLEX),
        row("1 KB at 500/s, no response bodies", 1024, 500.0, NO_RESPONSE_BODY),
        row("220 KB at 100/s", 220_000, 100.0, FULL_DUPLEX),
    ]
}

fn growth() -> Vec<Spec> {
    let mut rows = Vec::new();
    for engines in [10, 100, 1_000] {
        let row = Spec::new(&format!("{engines} endpoints"), UNIQUE_HALF, engines, prompts(1024));
        // The same scrapes a second for any number of engines up to 100, so that the difference is the decision's.
        rows.push(row.flag("refresh-metrics-interval", "1s").on_curve(Growing::Endpoints, engines as f64));
    }
    for kib in [1, 4, 16, 64] {
        let workload = at_once(if kib > 16 { 32 } else { 64 }, prompts(kib * 1024));
        let row = Spec::new(&format!("{kib} KB prompts"), UNIQUE_HALF, 100, workload);
        rows.push(row.flag("refresh-metrics-interval", "1s").on_curve(Growing::PromptKib, kib as f64));
    }
    for (label, blocks) in
        [("1k", 1_000), ("10k", 10_000), ("100k", 100_000), ("1M", 1_000_000), ("10M", 10_000_000)]
    {
        let row = Spec::new(&format!("{label} blocks"), UNIQUE_HALF, 100, prompts(4096));
        let row = row.flag("refresh-metrics-interval", "1s").flag("prefix-index-bytes", "2GiB");
        let config = ROOMY.replace("CAPACITY", &(blocks / 100).to_string()).into();
        rows.push(Spec { blocks, config, ..row.on_curve(Growing::Blocks, blocks as f64) });
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;
    use std::collections::BTreeSet;

    #[test]
    fn every_profile_has_rows_with_names_of_their_own_and_a_description() {
        for profile in Profile::value_variants() {
            let rows = profile.rows();
            let names: BTreeSet<_> = rows.iter().map(|row| row.workload.name.clone()).collect();
            assert!(!rows.is_empty() && names.len() == rows.len(), "{profile:?}: {names:?}");
            assert!(rows.iter().all(|row| row.workload.about.contains("endpoints")), "{profile:?}");
        }
    }
}
