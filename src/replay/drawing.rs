//! What a replay came to, drawn: a colour for each configuration.

use super::report::{Outcome, Quantiles};
use crate::plot::{Axis, Bars, Curves, Panel, Scale, Sheet};
use std::collections::BTreeSet;

/// Most points of one curve.
const POINTS: usize = 200;
/// Shortest time that has a place on the axis, in seconds.
const SHORTEST: f64 = 0.001;

/// The sheet of these outcomes below a line that says of what they are.
pub(super) fn sheet(head: &str, outcomes: &[Outcome]) -> Sheet {
    let mut panels = vec![
        Panel::Bars(Bars {
            title: "Time to the first token, s".to_owned(),
            groups: vec![
                group("p50", outcomes, |o| Quantiles::of(&o.ttft_seconds).p50),
                group("p90", outcomes, |o| Quantiles::of(&o.ttft_seconds).p90),
                group("p99", outcomes, |o| Quantiles::of(&o.ttft_seconds).p99),
            ],
            number: |v| if v < 10.0 { format!("{v:.2}") } else { format!("{v:.1}") },
        }),
        Panel::Bars(Bars {
            title: "Prompt tokens found in a cache, %".to_owned(),
            groups: vec![group("hit rate", outcomes, |o| 100.0 * o.hit_rate())],
            number: |v| format!("{v:.1} %"),
        }),
        Panel::Bars(Bars {
            title: "Load of the busiest engine / mean".to_owned(),
            groups: vec![
                group("requests", outcomes, Outcome::request_spread),
                group("tokens computed", outcomes, Outcome::work_spread),
            ],
            number: |v| format!("{v:.2}"),
        }),
    ];
    if outcomes.iter().any(|o| !o.ttft_seconds.is_empty()) {
        let curves = Curves {
            title: "Answered within".to_owned(),
            x: Axis::new("time to the first token, s", Scale::Logarithmic),
            y: Axis::new("requests, %", Scale::Linear),
            series: outcomes.iter().map(|o| distribution(&o.ttft_seconds)).collect(),
        };
        panels.insert(1, Panel::Curves(curves));
    }
    Sheet { title: head.to_owned(), names: names(outcomes), panels }
}

fn group(name: &str, outcomes: &[Outcome], value: impl Fn(&Outcome) -> f64) -> (String, Vec<f64>) {
    (name.to_owned(), outcomes.iter().map(value).collect())
}

/// The files' names, whole paths where two are called alike, and what they refused.
fn names(outcomes: &[Outcome]) -> Vec<String> {
    let last = |o: &Outcome| o.configuration.rsplit('/').next().unwrap_or_default().to_owned();
    let distinct = outcomes.iter().map(last).collect::<BTreeSet<_>>().len() == outcomes.len();
    let name = |o: &Outcome| {
        let name = if distinct { last(o) } else { o.configuration.clone() };
        match o.rejects() {
            0 => name,
            refused => format!("{name} ({refused} of {} refused)", o.requests),
        }
    };
    outcomes.iter().map(name).collect()
}

/// How many percent are answered within which time.
fn distribution(sorted: &[f64]) -> Vec<(f64, f64)> {
    let steps = POINTS.min(sorted.len().saturating_sub(1));
    let at = |step: usize| {
        let index = (step * sorted.len().saturating_sub(1)).checked_div(steps).unwrap_or(0);
        let time = sorted.get(index)?;
        Some((time.max(SHORTEST), 100.0 * (index + 1) as f64 / sorted.len() as f64))
    };
    (0..=steps).map_while(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::testing::elements;

    fn outcome(configuration: &str, times: &[f64], refused: u64) -> Outcome {
        Outcome {
            configuration: configuration.to_owned(),
            requests: times.len() as u64 + refused,
            prompt_tokens: 1000,
            cached_tokens: 375,
            ttft_seconds: times.to_vec(),
            refused_by_engines: refused,
            ..Outcome::default()
        }
    }

    #[test]
    fn the_drawing_carries_the_figures_of_the_table() {
        let times: Vec<f64> = (1..=200).map(|i| f64::from(i) / 100.0).collect();
        let outcomes = [outcome("a/today.yaml", &times, 0), outcome("b/tomorrow.yaml", &times[..100], 3)];
        let svg = sheet("300 requests & more", &outcomes).svg().unwrap();
        let elements = elements(&svg);
        let said = |wanted: &str| elements.iter().any(|(name, all)| name == "text" && all.contains(wanted));
        for wanted in [
            "300 requests &amp; more",
            "today.yaml",
            "tomorrow.yaml (3 of 103 refused)",
            "p50",
            "p90",
            "p99",
            "1.00",
            "1.80",
            "1.98",
            "0.50",
            "0.90",
            "0.99",
            "37.5 %",
            "hit rate",
            "tokens computed",
            "Answered within",
        ] {
            assert!(said(wanted), "{wanted}");
        }
        assert!(!said("a/today.yaml"));
        let lines = |colour: &str| {
            elements.iter().filter(|(name, all)| name == "polyline" && all.contains(colour)).count()
        };
        assert_eq!((lines("#0072B2"), lines("#D55E00")), (1, 1));
    }

    #[test]
    fn files_of_one_name_are_told_apart_and_an_empty_outcome_is_drawn() {
        let outcomes = [outcome("a/x.yaml", &[], 2), outcome("b/x.yaml", &[0.0, 0.5], 0)];
        assert_eq!(names(&outcomes), ["a/x.yaml (2 of 2 refused)", "b/x.yaml"]);
        assert_eq!(distribution(&[]), []);
        assert_eq!(distribution(&[0.0, 0.5]), [(SHORTEST, 50.0), (0.5, 100.0)]);
        assert!(sheet("h", &outcomes).svg().is_ok());
        assert_eq!(sheet("h", &outcomes[..1]).panels.len(), 3);
        assert!(sheet("h", &outcomes[..1]).svg().is_ok());
    }
}
