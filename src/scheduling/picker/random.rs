//! `random-picker`: uniformly at random, whatever the totals.
//!
//! ```yaml
//! - type: random-picker
//!   parameters: {maxNumOfEndpoints: 1}
//! ```

use super::common;
use crate::plugin::{BuildContext, BuildError, Picker, PluginType, Ranked, Roles, Stability, Targets};
use std::sync::Arc;

pub(super) const TYPE: PluginType = PluginType { name: "random-picker", stability: Stability::Beta, build };

struct RandomPicker {
    most: usize,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let most = common::most(ctx)?;
    Ok(Roles { picker: Some(Arc::new(RandomPicker { most })), ..Roles::default() })
}

impl Picker for RandomPicker {
    fn pick(&self, ranked: &Ranked<'_>, rng: &mut fastrand::Rng) -> Targets {
        common::best(ranked, self.most, rng, |_, _| 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::tests::{assert_shares, pick, shares};
    use super::*;

    #[test]
    fn everybody_has_the_same_chance() {
        assert_shares(&shares(&TYPE, 1, &[9.0, 1.0, 0.0, 4.0]), &[0.25; 4]);
        assert_shares(&shares(&TYPE, 3, &[9.0, 1.0, 0.0, 4.0]), &[0.75; 4]);
        assert_eq!(pick(&TYPE, 9, &[1.0, 2.0], &mut fastrand::Rng::with_seed(1)).len(), 2);
    }
}
