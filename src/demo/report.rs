//! What a run measured, and the tables that are printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// What one request brought.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Which engine answered.
    pub(super) engine: String,
    /// Time to the first token, from when the request was due.
    pub(super) ttft: Duration,
    /// Prompt tokens, as the engine counted them.
    pub(super) prompt_tokens: u64,
    /// Of these, from its cache.
    pub(super) cached_tokens: u64,
}

/// One run.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// Good answers.
    pub(super) answers: Vec<Answer>,
    /// What went wrong, with how often.
    pub(super) errors: BTreeMap<String, usize>,
}

/// The figures of one run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) requests: usize,
    pub(super) errors: usize,
    pub(super) hit_rate: f64,
    pub(super) ttft_p50: Duration,
    pub(super) ttft_p90: Duration,
    pub(super) spread: f64,
    pub(super) picks: BTreeMap<String, usize>,
}

impl Run {
    /// Sums the run up over `engines` engines.
    pub(super) fn figures(&self, engines: usize) -> Figures {
        let mut ttfts: Vec<Duration> = self.answers.iter().map(|a| a.ttft).collect();
        ttfts.sort_unstable();
        let prompt: u64 = self.answers.iter().map(|a| a.prompt_tokens).sum();
        let cached: u64 = self.answers.iter().map(|a| a.cached_tokens).sum();
        let mut picks = BTreeMap::new();
        for answer in &self.answers {
            *picks.entry(answer.engine.clone()).or_insert(0_usize) += 1;
        }
        let most = picks.values().copied().max().unwrap_or(0);
        let mean = self.answers.len() as f64 / engines.max(1) as f64;
        Figures {
            requests: self.answers.len(),
            errors: self.errors.values().sum(),
            hit_rate: if prompt == 0 { 0.0 } else { cached as f64 / prompt as f64 },
            ttft_p50: percentile(&ttfts, 0.5),
            ttft_p90: percentile(&ttfts, 0.9),
            spread: if mean > 0.0 { most as f64 / mean } else { 0.0 },
            picks,
        }
    }
}

/// The value below which `share` of the sorted values lie (nearest rank).
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Both runs side by side.
pub(super) fn table(title: &str, baseline: &Figures, ours: &Figures) -> String {
    let ms = |d: Duration| format!("{:.0} ms", d.as_secs_f64() * 1e3);
    let picks = |f: &Figures| f.picks.values().map(ToString::to_string).collect::<Vec<_>>().join(" / ");
    let rows = [
        ("requests answered", baseline.requests.to_string(), ours.requests.to_string()),
        ("errors", baseline.errors.to_string(), ours.errors.to_string()),
        (
            "prompt tokens from cache",
            format!("{:.1} %", baseline.hit_rate * 100.0),
            format!("{:.1} %", ours.hit_rate * 100.0),
        ),
        ("time to first token p50", ms(baseline.ttft_p50), ms(ours.ttft_p50)),
        ("time to first token p90", ms(baseline.ttft_p90), ms(ours.ttft_p90)),
        ("busiest engine / mean", format!("{:.2}", baseline.spread), format!("{:.2}", ours.spread)),
        ("picks per engine", picks(baseline), picks(ours)),
    ];
    let mut out = format!("\n{title}\n");
    let _infallible = writeln!(out, "  {:<26} {:>20} {:>20}", "", "round robin", "Pointsman");
    for (name, left, right) in rows {
        let _infallible = writeln!(out, "  {name:<26} {left:>20} {right:>20}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(engine: &str, ms: u64, cached: u64) -> Answer {
        Answer {
            engine: engine.into(),
            ttft: Duration::from_millis(ms),
            prompt_tokens: 100,
            cached_tokens: cached,
        }
    }

    #[test]
    fn figures_are_what_was_measured() {
        let answers =
            vec![answer("a", 10, 0), answer("a", 20, 50), answer("b", 30, 100), answer("a", 40, 50)];
        let run = Run { answers, errors: [("503".to_owned(), 2)].into_iter().collect() };
        let figures = run.figures(2);
        assert_eq!((figures.requests, figures.errors), (4, 2));
        assert!((figures.hit_rate - 0.5).abs() < 1e-9);
        assert_eq!(
            (figures.ttft_p50, figures.ttft_p90),
            (Duration::from_millis(20), Duration::from_millis(40))
        );
        assert!((figures.spread - 1.5).abs() < 1e-9);
        let text = table("t", &figures, &figures);
        assert!(text.contains("50.0 %") && text.contains("3 / 1"), "{text}");
    }

    #[test]
    fn an_empty_run_has_figures_too() {
        assert_eq!(Run::default().figures(4).ttft_p90, Duration::ZERO);
    }
}
