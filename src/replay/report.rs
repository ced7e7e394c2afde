//! What a replay came to, as a table and as JSON.

use super::drawing;
use super::trace::Traced;
use super::world::Settings;
use crate::plot::PlotError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// What one engine got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EngineShare {
    /// Requests that it answered.
    pub requests: u64,
    /// Prompt tokens that it had to compute.
    pub computed_tokens: u64,
}

/// What one configuration made of the trace.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Its file.
    pub configuration: String,
    /// Requests that arrived.
    pub requests: u64,
    /// Prompt tokens of the requests that were answered.
    pub prompt_tokens: u64,
    /// Of these found in an engine's cache.
    pub cached_tokens: u64,
    /// Times a request had to give its blocks back.
    pub preemptions: u64,
    /// Seconds to the first token, in order.
    pub ttft_seconds: Vec<f64>,
    /// Seconds to the last token, in order.
    pub e2e_seconds: Vec<f64>,
    /// By engine.
    pub engines: Vec<EngineShare>,
    /// Requests that the picker refused, by the code of the error.
    pub refused: BTreeMap<String, u64>,
    /// Requests that an engine refused: too long, or its queue full.
    pub refused_by_engines: u64,
    /// Real time of all decisions together.
    pub decision_time: Duration,
    /// Real time of the replay.
    pub took: Duration,
}

impl Outcome {
    /// Share of the prompt tokens that was found in a cache.
    pub fn hit_rate(&self) -> f64 {
        ratio(self.cached_tokens, self.prompt_tokens)
    }
    /// The busiest engine's requests against the mean.
    pub fn request_spread(&self) -> f64 {
        spread(self.engines.iter().map(|e| e.requests))
    }
    /// The busiest engine's computed prompt tokens against the mean.
    pub fn work_spread(&self) -> f64 {
        spread(self.engines.iter().map(|e| e.computed_tokens))
    }
    /// Requests that were refused, by whomever.
    pub fn rejects(&self) -> u64 {
        self.refused.values().sum::<u64>() + self.refused_by_engines
    }

    fn figures(&self) -> Figures<'_> {
        Figures {
            configuration: &self.configuration,
            requests: self.requests,
            answered: self.ttft_seconds.len(),
            hit_rate: self.hit_rate(),
            ttft_seconds: Quantiles::of(&self.ttft_seconds),
            e2e_seconds: Quantiles::of(&self.e2e_seconds),
            request_spread: self.request_spread(),
            work_spread: self.work_spread(),
            preemptions: self.preemptions,
            refused: &self.refused,
            refused_by_engines: self.refused_by_engines,
            engines: &self.engines,
            real_seconds: self.took.as_secs_f64(),
            real_seconds_of_decisions: self.decision_time.as_secs_f64(),
        }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn spread(shares: impl ExactSizeIterator<Item = u64> + Clone) -> f64 {
    let (count, sum) = (shares.len() as f64, shares.clone().sum::<u64>() as f64);
    let most = shares.max().unwrap_or(0) as f64;
    if sum == 0.0 { 0.0 } else { most * count / sum }
}

/// Quantiles of a sorted list, nearest rank; 0 for an empty one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
}

impl Quantiles {
    pub(super) fn of(sorted: &[f64]) -> Self {
        let at = |q: usize| {
            let rank = (sorted.len() * q).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or(0.0)
        };
        Self { p50: at(50), p90: at(90), p99: at(99) }
    }
}

#[derive(Serialize)]
struct Figures<'a> {
    configuration: &'a str,
    requests: u64,
    answered: usize,
    hit_rate: f64,
    ttft_seconds: Quantiles,
    e2e_seconds: Quantiles,
    request_spread: f64,
    work_spread: f64,
    preemptions: u64,
    refused: &'a BTreeMap<String, u64>,
    refused_by_engines: u64,
    engines: &'a [EngineShare],
    real_seconds: f64,
    real_seconds_of_decisions: f64,
}

/// Everything that was replayed.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was replayed on what.
    subject: String,
    /// The same, and how long it took.
    head: String,
    outcomes: Vec<Outcome>,
}

type Row = (&'static str, fn(&Outcome) -> String);

const ROWS: &[Row] = &[
    ("requests", |o| o.requests.to_string()),
    ("hit rate", |o| format!("{:.1} %", 100.0 * o.hit_rate())),
    ("TTFT p50", |o| seconds(Quantiles::of(&o.ttft_seconds).p50)),
    ("TTFT p90", |o| seconds(Quantiles::of(&o.ttft_seconds).p90)),
    ("TTFT p99", |o| seconds(Quantiles::of(&o.ttft_seconds).p99)),
    ("whole answer p50", |o| seconds(Quantiles::of(&o.e2e_seconds).p50)),
    ("whole answer p99", |o| seconds(Quantiles::of(&o.e2e_seconds).p99)),
    ("requests, busiest engine / mean", |o| format!("{:.2}", o.request_spread())),
    ("tokens computed, busiest / mean", |o| format!("{:.2}", o.work_spread())),
    ("preemptions", |o| o.preemptions.to_string()),
    ("refused by the picker", |o| o.refused.values().sum::<u64>().to_string()),
    ("refused by engines", |o| o.refused_by_engines.to_string()),
    ("one decision, mean", |o| {
        let each = o.decision_time.as_secs_f64() / (o.requests.max(1) as f64);
        format!("{:.1} us", each * 1e6)
    }),
];

fn seconds(value: f64) -> String {
    if value < 1.0 { format!("{:.0} ms", value * 1e3) } else { format!("{value:.2} s") }
}

impl Report {
    /// A report on `outcomes` of the same trace.
    pub fn new(trace: &[Traced], settings: &Settings, outcomes: Vec<Outcome>) -> Self {
        let span = trace.last().map_or(0.0, |t| t.at.as_secs_f64()) / settings.speed;
        let tokens = u64::from(settings.engine.num_blocks) * u64::from(settings.engine.block_size);
        let real: f64 = outcomes.iter().map(|o| o.took.as_secs_f64()).sum();
        let subject = format!(
            "{} requests over {span:.0} s on {} simulated engines of {tokens} KV tokens",
            trace.len(),
            settings.engines,
        );
        Self { head: format!("{subject}, replayed in {real:.1} s"), subject, outcomes }
    }

    /// One column a configuration.
    pub fn table(&self) -> String {
        let mut columns =
            vec![std::iter::once(String::new()).chain(ROWS.iter().map(|r| r.0.to_owned())).collect()];
        for outcome in &self.outcomes {
            let name = outcome.configuration.rsplit('/').next().unwrap_or_default().to_owned();
            let cells = ROWS.iter().map(|(_, cell)| cell(outcome));
            columns.push(std::iter::once(name).chain(cells).collect::<Vec<_>>());
        }
        let widths: Vec<_> =
            columns.iter().map(|c| c.iter().map(|s| s.chars().count()).max().unwrap_or(0)).collect();
        let mut text = format!("{}\n\n", self.head);
        for row in 0..=ROWS.len() {
            let cells = columns.iter().zip(&widths).enumerate().map(|(i, (column, width))| {
                let cell = column.get(row).map_or("", String::as_str);
                if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for outcome in &self.outcomes {
            for (code, count) in &outcome.refused {
                let _ = writeln!(text, "{}: refused with {code}: {count}", outcome.configuration);
            }
        }
        text
    }

    /// The figures as one drawing, an SVG document.
    ///
    /// # Errors
    /// When there is no outcome, or the drawing fails.
    pub fn svg(&self) -> Result<String, PlotError> {
        drawing::sheet(&self.subject, &self.outcomes).svg()
    }

    /// Every figure, as JSON.
    pub fn json(&self) -> String {
        let figures: Vec<_> = self.outcomes.iter().map(Outcome::figures).collect();
        serde_json::to_string_pretty(&figures).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_by_nearest_rank() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(Quantiles::of(&sorted), Quantiles { p50: 100.0, p90: 180.0, p99: 198.0 });
        assert_eq!(Quantiles::of(&[7.0]), Quantiles { p50: 7.0, p90: 7.0, p99: 7.0 });
        assert_eq!(Quantiles::of(&[]).p99, 0.0);
    }

    #[test]
    fn spread_is_the_busiest_against_the_mean() {
        assert_eq!(spread([4, 2, 0].into_iter()), 2.0);
        assert_eq!(spread([0, 0].into_iter()), 0.0);
    }
}
