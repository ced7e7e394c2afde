//! `weighted-random-picker`: at random with probability proportional to the total.
//!
//! Weighted sampling without replacement (Efraimidis and Spirakis, A-Res): the largest `U^(1/total)` with U uniform in
//! (0, 1) wins. Totals of 0 or less come after all positive ones, in an order of chance.
//!
//! ```yaml
//! - type: weighted-random-picker
//!   parameters: {maxNumOfEndpoints: 1}
//! ```

use super::common;
use crate::plugin::{BuildContext, BuildError, Picker, PluginType, Ranked, Roles, Stability, Targets};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "weighted-random-picker", stability: Stability::Beta, build };

struct WeightedRandomPicker {
    most: usize,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let most = common::most(ctx)?;
    Ok(Roles { picker: Some(Arc::new(WeightedRandomPicker { most })), ..Roles::default() })
}

/// Logarithm of the key, which orders alike and does not underflow for small totals.
fn key(total: f64, rng: &mut fastrand::Rng) -> f64 {
    if total > 0.0 { (1.0 - rng.f64()).ln() / total } else { f64::NEG_INFINITY }
}

impl Picker for WeightedRandomPicker {
    fn pick(&self, ranked: &Ranked<'_>, rng: &mut fastrand::Rng) -> Targets {
        common::best(ranked, self.most, rng, key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::tests::{assert_shares, pick, shares};
    use super::*;

    #[test]
    fn chances_follow_the_totals() {
        assert_shares(&shares(&TYPE, 1, &[10.0, 90.0]), &[0.1, 0.9]);
        assert_shares(&shares(&TYPE, 1, &[100.0; 3]), &[0.333; 3]);
        let got = shares(&TYPE, 1, &[100.0, 90.0, 50.0, 30.0, 20.0]);
        assert_shares(&got, &[100.0, 90.0, 50.0, 30.0, 20.0].map(|t| t / 290.0));
    }

    #[test]
    fn nothing_is_never_picked_before_something_and_alone_it_is_chance() {
        let shares_with_zero = shares(&TYPE, 1, &[30.0, 0.0]);
        assert!(shares_with_zero[1] == 0.0, "{shares_with_zero:?}");
        assert_eq!(pick(&TYPE, 2, &[0.0, 3.0], &mut fastrand::Rng::with_seed(1)), [1, 0]);
        assert_shares(&shares(&TYPE, 1, &[0.0, -1.0]), &[0.5, 0.5]);
    }
}
