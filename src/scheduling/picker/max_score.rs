//! `max-score-picker`: the endpoint with the largest total, ties broken uniformly at random.
//!
//! ```yaml
//! - type: max-score-picker
//!   parameters: {maxNumOfEndpoints: 1}   # more name fallbacks in order; 0 or less means 1
//! ```

use super::common;
use crate::plugin::{BuildContext, BuildError, Picker, PluginType, Ranked, Roles, Stability, Targets};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "max-score-picker", stability: Stability::Beta, build };

struct MaxScorePicker {
    most: usize,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let most = common::most(ctx)?;
    Ok(Roles { picker: Some(Arc::new(MaxScorePicker { most })), ..Roles::default() })
}

impl Picker for MaxScorePicker {
    fn pick(&self, ranked: &Ranked<'_>, rng: &mut fastrand::Rng) -> Targets {
        common::best(ranked, self.most, rng, |total, _| total)
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::tests::{assert_shares, pick, shares};
    use super::*;
    use crate::scheduling::testing::build;
    use serde_json::json;

    #[test]
    fn choices_of_the_catalogue() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut sorted_pair = |totals: &[f64], most| {
            let mut picked = pick(&TYPE, most, totals, &mut rng);
            picked[..2].sort_unstable();
            picked
        };
        assert_eq!(sorted_pair(&[50.0, 50.0, 30.0], 2), [0, 1]);
        assert_eq!(sorted_pair(&[30.0, 25.0, 30.0], 3), [0, 2, 1]);
        assert_eq!(pick(&TYPE, 1, &[10.0, 25.0, 15.0], &mut rng), [1]);
        assert_eq!(pick(&TYPE, 2, &[20.0, 25.0, 30.0], &mut rng), [2, 1]);
        assert_eq!(pick(&TYPE, 4, &[20.0, 25.0, 30.0], &mut rng), [2, 1, 0]);
        assert_eq!(pick(&TYPE, -1, &[-2.0, -1.0], &mut rng), [1]);
    }

    #[test]
    fn ties_are_broken_uniformly() {
        assert_shares(&shares(&TYPE, 1, &[5.0, 5.0, 1.0, 5.0]), &[0.333, 0.333, 0.0, 0.333]);
        assert_shares(&shares(&TYPE, 2, &[5.0, 5.0, 5.0, 5.0]), &[0.5; 4]);
    }

    #[test]
    fn unknown_parameters_are_refused() {
        assert!(build(&TYPE, json!({"maxEndpoints": 1})).is_err());
    }
}
