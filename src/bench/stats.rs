//! What one run measured.

use super::account::{self, Account, CpuTimes, Memory};
use super::histogram::Histogram;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

/// Counts while a run is under way. Only what falls into the window counts.
#[derive(Debug)]
pub struct Stats {
    start: Instant,
    end: Instant,
    requests: u64,
    chunks: u64,
    stayed: u64,
    moved: u64,
    latency: Histogram,
    errors: BTreeMap<String, u64>,
}

impl Stats {
    /// Of a window.
    pub fn new(start: Instant, end: Instant) -> Self {
        Self {
            start,
            end,
            requests: 0,
            chunks: 0,
            stayed: 0,
            moved: 0,
            latency: Histogram::default(),
            errors: BTreeMap::new(),
        }
    }

    /// Whether `at` lies in the window.
    pub fn counts(&self, at: Instant) -> bool {
        (self.start..self.end).contains(&at)
    }

    /// A request with so many chunks that counts at `at`.
    pub fn request(&mut self, at: Instant, latency: Duration, chunks: u64) {
        if self.counts(at) {
            self.requests += 1;
            self.chunks += chunks;
            self.latency.record(latency);
        }
    }

    /// A response chunk of a paced stream that counts at `at`.
    pub fn chunk(&mut self, at: Instant, latency: Duration) {
        if self.counts(at) {
            self.chunks += 1;
            self.latency.record(latency);
        }
    }

    /// `count` things that went wrong. Before and after the window, too: a run with errors is no good run.
    pub fn error(&mut self, kind: String, count: u64) {
        *self.errors.entry(kind).or_insert(0) += count;
    }

    /// How many things went wrong so far.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// A later turn of a session, which went where the one before it went or not.
    pub fn turn(&mut self, at: Instant, stayed: bool) {
        if self.counts(at) {
            *(if stayed { &mut self.stayed } else { &mut self.moved }) += 1;
        }
    }
}

/// What the window began and ended with.
#[derive(Clone, Debug)]
pub struct Reading {
    at: Instant,
    own: CpuTimes,
    picker: Option<(CpuTimes, Memory)>,
    machine: Duration,
}

impl Reading {
    /// Reads the accounts of the picker, if it is on this machine, and of the generator itself.
    pub fn take(picker: Option<&Account>) -> io::Result<Self> {
        let picker = picker.map(|p| Ok::<_, io::Error>((p.cpu()?, p.memory()?))).transpose()?;
        Ok(Self { at: Instant::now(), own: Account::own().cpu()?, picker, machine: account::machine()? })
    }
}

/// Times that a share of the requests did not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Half of them.
    pub p50: Duration,
    /// Nine of ten.
    pub p90: Duration,
    /// 99 of 100.
    pub p99: Duration,
    /// 999 of 1,000.
    pub p999: Duration,
}

/// What a run measured, or the medians of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Length of the window.
    pub seconds: f64,
    /// Requests a second.
    pub requests_per_second: f64,
    /// Response chunks a second.
    pub chunks_per_second: f64,
    /// Closed loop: from the last byte of the request to the decision. Open loop: from when it was due. Paced chunks: from
    /// when one was due to the reply.
    pub latency: Percentiles,
    /// How many values are behind the percentiles.
    pub values: u64,
    /// What went wrong.
    pub errors: BTreeMap<String, u64>,
    /// Share of one core that the picker used.
    pub cores: Option<f64>,
    /// Resident memory of the picker at the end of the window and at its highest.
    pub memory: Option<Memory>,
    /// Share of one core that the generator used.
    pub generator_cores: f64,
    /// Cores that everything else on this machine used; with a picker on another machine or unknown, that one's, too.
    pub other_cores: f64,
    /// Share of later turns that went where the session was before.
    pub stayed: Option<f64>,
}

impl Measured {
    /// From counts and the readings at both ends of the window.
    pub fn new(stats: Stats, before: &Reading, after: &Reading) -> Self {
        let seconds = after.at.duration_since(before.at).as_secs_f64().max(1e-9);
        let share = |used: Duration| used.as_secs_f64() / seconds;
        let latency = |share| stats.latency.percentile(share);
        let picker = before.picker.as_ref().zip(after.picker.as_ref());
        let turns = stats.stayed + stats.moved;
        let cores = picker.map(|(before, after)| share(after.0.since(&before.0)));
        let generator_cores = share(after.own.since(&before.own));
        let all = share(after.machine.saturating_sub(before.machine));
        Self {
            seconds,
            requests_per_second: stats.requests as f64 / seconds,
            chunks_per_second: stats.chunks as f64 / seconds,
            latency: Percentiles {
                p50: latency(0.5),
                p90: latency(0.9),
                p99: latency(0.99),
                p999: latency(0.999),
            },
            values: stats.latency.total(),
            errors: stats.errors,
            cores,
            memory: picker.map(|(_, after)| after.1),
            generator_cores,
            other_cores: (all - generator_cores - cores.unwrap_or(0.0)).max(0.0),
            stayed: (turns > 0).then(|| stats.stayed as f64 / turns as f64),
        }
    }

    /// How many things went wrong.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// CPU time of the picker for each request.
    pub fn cpu_per_request(&self) -> Option<Duration> {
        self.cores.and_then(|cores| per(cores, self.requests_per_second))
    }

    /// CPU time of the picker for each response chunk, everything else that it does included.
    pub fn cpu_per_chunk(&self) -> Option<Duration> {
        self.cores.and_then(|cores| per(cores, self.chunks_per_second))
    }

    /// The median of each figure by itself. Errors are those of all runs together, memory is the largest.
    pub fn median(runs: &[Self]) -> Self {
        let mid = |of: &dyn Fn(&Self) -> f64| middle(runs.iter().map(of).collect());
        let time = |of: &dyn Fn(&Percentiles) -> Duration| {
            Duration::from_secs_f64(middle(runs.iter().map(|r| of(&r.latency).as_secs_f64()).collect()))
        };
        let mut errors = BTreeMap::new();
        for (kind, count) in runs.iter().flat_map(|run| &run.errors) {
            *errors.entry(kind.clone()).or_insert(0) += count;
        }
        let optional = |of: &dyn Fn(&Self) -> Option<f64>| {
            let values: Vec<f64> = runs.iter().filter_map(of).collect();
            (!values.is_empty()).then(|| middle(values))
        };
        let most = |of: &dyn Fn(&Memory) -> u64| {
            runs.iter().filter_map(|r| r.memory.as_ref()).map(of).max().unwrap_or(0)
        };
        let memory = Memory { resident: most(&|m| m.resident), peak: most(&|m| m.peak) };
        Self {
            seconds: mid(&|r| r.seconds),
            requests_per_second: mid(&|r| r.requests_per_second),
            chunks_per_second: mid(&|r| r.chunks_per_second),
            latency: Percentiles {
                p50: time(&|p| p.p50),
                p90: time(&|p| p.p90),
                p99: time(&|p| p.p99),
                p999: time(&|p| p.p999),
            },
            values: runs.iter().map(|r| r.values).sum(),
            errors,
            cores: optional(&|r| r.cores),
            memory: runs.iter().any(|r| r.memory.is_some()).then_some(memory),
            generator_cores: mid(&|r| r.generator_cores),
            other_cores: mid(&|r| r.other_cores),
            stayed: optional(&|r| r.stayed),
        }
    }
}

fn per(cores: f64, rate: f64) -> Option<Duration> {
    (rate > 0.0).then(|| Duration::from_secs_f64(cores / rate))
}

/// The middle one of the values, or the mean of the two in the middle.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.get(half), values.len() % 2) {
        (None, _) => 0.0,
        (Some(upper), 1) => *upper,
        (Some(upper), _) => (values[half - 1] + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_falls_into_the_window_counts_but_every_error_does() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut stats = Stats::new(at(10), at(20));
        for ms in [9, 10, 19, 20] {
            stats.request(at(ms), Duration::from_micros(ms), 3);
            stats.turn(at(ms), ms == 10);
        }
        stats.chunk(at(25), Duration::ZERO);
        stats.error("gone".to_owned(), 2);
        assert_eq!((stats.requests, stats.chunks, stats.stayed, stats.moved), (2, 6, 1, 1));
        assert_eq!((stats.latency.total(), stats.errors["gone"]), (2, 2));
    }

    #[test]
    fn rates_and_shares_are_of_the_window() {
        let start = Instant::now();
        let reading =
            |at: Instant| Reading { at, own: CpuTimes::default(), picker: None, machine: at - start };
        let mut stats = Stats::new(start, start + Duration::from_secs(2));
        for i in 0..1_000 {
            stats.request(start, Duration::from_micros(i + 1), 10);
        }
        let mut measured = Measured::new(stats, &reading(start), &reading(start + Duration::from_secs(2)));
        assert_eq!((measured.requests_per_second, measured.chunks_per_second), (500.0, 5_000.0));
        assert_eq!((measured.cpu_per_request(), measured.stayed), (None, None));
        assert_eq!(measured.other_cores, 1.0);
        measured.cores = Some(0.5);
        assert_eq!(measured.cpu_per_request(), Some(Duration::from_millis(1)));
        assert_eq!(measured.cpu_per_chunk(), Some(Duration::from_micros(100)));
    }

    #[test]
    fn medians_are_taken_figure_by_figure_and_errors_add_up() {
        let run = |rate: f64, cores: f64| Measured {
            requests_per_second: rate,
            cores: Some(cores),
            errors: [("e".to_owned(), 1)].into(),
            ..Default::default()
        };
        let median = Measured::median(&[run(3.0, 0.1), run(1.0, 0.3), run(2.0, 0.2)]);
        assert_eq!((median.requests_per_second, median.cores, median.error_count()), (2.0, Some(0.2), 3));
        assert_eq!(middle(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(middle(Vec::new()), 0.0);
    }
}
