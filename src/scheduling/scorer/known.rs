//! The one rule for numbers of an engine that are unknown or stale.
//!
//! An endpoint whose number is doubtful (never scraped, stale, or not on the engine's page) must not look idle, and must
//! not be dropped either, or an outage of metrics would become an outage of serving. Its score is **half of the smaller
//! of mean and median of the scores that rest on fresh numbers**: worse than the typical endpoint whatever the others
//! say, yet above a fresh endpoint that is known to be full. When no endpoint has a fresh number, all get one half and
//! the choice falls to the other scorers and to chance.

use crate::plugin::{Score, Scores, Shortlist};
use crate::pool::Position;
use crate::reuse::Reused;

/// Score of everybody when nothing is known.
const UNKNOWN: f64 = 0.5;

/// Scores each position by `formula` of its `fresh` number, and the doubtful ones by the rule of this module.
pub(super) fn score_fresh<T>(
    shortlist: &Shortlist,
    scores: &mut Scores<'_>,
    fresh: impl Fn(Position) -> Option<T>,
    formula: impl Fn(T) -> f64,
) {
    let score = |p: &Position| fresh(*p).map(|number| Score::new(formula(number)));
    let mut known = 0;
    for (i, p) in shortlist.positions().iter().enumerate() {
        if let Some(score) = score(p) {
            scores.set(i, score);
            known += 1;
        }
    }
    if known == shortlist.len() {
        return;
    }
    let mut numbers = Reused::<Numbers>::take();
    numbers.0.extend(shortlist.positions().iter().filter_map(score).map(Score::get));
    let doubtful = doubtful_score(&mut numbers.0);
    for (i, p) in shortlist.positions().iter().enumerate() {
        if fresh(*p).is_none() {
            scores.set(i, doubtful);
        }
    }
}

/// Scores by where a fresh count lies between the smallest and the largest fresh one: 1 for the smallest, 0 for the
/// largest, 1 for all when they are equal.
pub(super) fn score_fewer(
    shortlist: &Shortlist,
    scores: &mut Scores<'_>,
    fresh: impl Fn(Position) -> Option<u32>,
) {
    let (mut min, mut max) = (u32::MAX, 0);
    for count in shortlist.positions().iter().filter_map(|p| fresh(*p)) {
        (min, max) = (min.min(count), max.max(count));
    }
    let range = f64::from(max.saturating_sub(min));
    score_fresh(
        shortlist,
        scores,
        fresh,
        |count| {
            if range == 0.0 { 1.0 } else { f64::from(max - count) / range }
        },
    );
}

/// The scores that rest on fresh numbers.
#[derive(Default)]
struct Numbers(Vec<f64>);

crate::reusable_list!(Numbers, 0);

fn doubtful_score(known: &mut [f64]) -> Score {
    if known.is_empty() {
        return Score::new(UNKNOWN);
    }
    known.sort_unstable_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss, reason = "a number of endpoints")]
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    let half = known.len() / 2;
    let median = if known.len() % 2 == 1 { known[half] } else { f64::midpoint(known[half - 1], known[half]) };
    Score::new(mean.min(median) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::{Row, assert_scores, freeze};
    use proptest::prelude::*;

    fn fewer(counts: &[Option<u32>]) -> Vec<f64> {
        let candidates = freeze(&vec![Row::default(); counts.len()]);
        let shortlist = Shortlist::all(&candidates);
        let mut out = vec![0.0; counts.len()];
        score_fewer(&shortlist, &mut Scores::over(&mut out), |p| counts[p.index()]);
        out
    }

    #[test]
    fn doubtful_rows_are_half_as_good_as_the_worse_of_mean_and_median() {
        assert_scores(&fewer(&[Some(10), Some(0), None]), &[0.0, 1.0, 0.25]);
        assert_scores(&fewer(&[Some(0), Some(0), None, Some(10)]), &[1.0, 1.0, 1.0 / 3.0, 0.0]);
        assert_scores(&fewer(&[Some(7), None]), &[1.0, 0.5]);
        assert_scores(&fewer(&[None, None, None]), &[0.5, 0.5, 0.5]);
    }

    proptest! {
        #[test]
        fn a_doubtful_row_never_looks_idle(counts in prop::collection::vec(prop::option::of(0_u32..50), 1..20)) {
            let scores = fewer(&counts);
            let known: Vec<f64> = scores.iter().zip(&counts).filter(|(_, c)| c.is_some()).map(|(s, _)| *s).collect();
            let best = known.iter().copied().fold(0.0, f64::max);
            for (score, _) in scores.iter().zip(&counts).filter(|(_, c)| c.is_none()) {
                prop_assert!(known.is_empty() || *score < best);
                prop_assert!(*score < 1.0);
            }
        }
    }
}
