//! What all pickers share: how many endpoints they name, and the order of chance.

use crate::plugin::{BuildContext, BuildError, Ranked, Targets};
use crate::pool::Position;
use crate::reuse::Reused;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    max_num_of_endpoints: i64,
}

/// Most endpoints that a picker names, from its parameters: 1 unless a larger number is given.
pub(super) fn most(ctx: &mut BuildContext<'_>) -> Result<usize, BuildError> {
    let most = ctx.settings::<Parameters>()?.max_num_of_endpoints.max(1);
    ctx.in_force("maxNumOfEndpoints", most);
    Ok(usize::try_from(most).unwrap_or(usize::MAX))
}

/// The first `most` positions by descending `key`, ties in an order of chance.
pub(super) fn best(
    ranked: &Ranked<'_>,
    most: usize,
    rng: &mut fastrand::Rng,
    mut key: impl FnMut(f64, &mut fastrand::Rng) -> f64,
) -> Targets {
    if most == 1 {
        return Targets::one(single_best(ranked, rng, key));
    }
    let mut keyed = Reused::<Keyed>::take();
    keyed.0.extend(ranked.iter().map(|(p, total)| (p, key(total, rng))));
    rng.shuffle(&mut keyed.0);
    // What is equal is in an order of chance already, so that the sort may leave it in any.
    keyed.0.sort_unstable_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut positions = keyed.0.iter().take(most).map(|(p, _)| *p);
    let first = positions.next().unwrap_or_else(|| ranked.first());
    Targets::new(first, positions)
}

/// Positions with what they are ordered by.
#[derive(Default)]
struct Keyed(Vec<(Position, f64)>);

crate::reusable_list!(Keyed, 0);

/// The same for one position, in one pass: the n-th of equal ones replaces the choice with probability 1/n.
fn single_best(
    ranked: &Ranked<'_>,
    rng: &mut fastrand::Rng,
    mut key: impl FnMut(f64, &mut fastrand::Rng) -> f64,
) -> Position {
    let mut choice = (ranked.first(), f64::NEG_INFINITY, 0_u32);
    for (position, total) in ranked.iter() {
        let key = key(total, rng);
        match key.total_cmp(&choice.1) {
            std::cmp::Ordering::Greater => choice = (position, key, 1),
            std::cmp::Ordering::Equal => {
                choice.2 += 1;
                if rng.u32(0..choice.2) == 0 {
                    choice.0 = position;
                }
            }
            std::cmp::Ordering::Less => {}
        }
    }
    choice.0
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::plugin::PluginType;
    use crate::scheduling::testing::build;
    use serde_json::json;

    /// Picks once from endpoints 0, 1, … with these totals.
    pub(crate) fn pick(row: &PluginType, most: i64, totals: &[f64], rng: &mut fastrand::Rng) -> Vec<u32> {
        let picker = build(row, json!({"maxNumOfEndpoints": most})).unwrap().picker.unwrap();
        let positions: Vec<_> = (0..u32::try_from(totals.len()).unwrap()).map(Position).collect();
        let targets = picker.pick(&Ranked::new(&positions, totals).unwrap(), rng);
        targets.iter().map(|p| p.0).collect()
    }

    /// Share of 10,000 draws in which each endpoint was among the picked ones.
    pub(crate) fn shares(row: &PluginType, most: i64, totals: &[f64]) -> Vec<f64> {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts = vec![0.0; totals.len()];
        for _ in 0..10_000 {
            for p in pick(row, most, totals, &mut rng) {
                counts[p as usize] += 1.0 / 10_000.0;
            }
        }
        counts
    }

    /// Asserts that shares agree to five points.
    #[track_caller]
    pub(crate) fn assert_shares(got: &[f64], wanted: &[f64]) {
        assert!(got.iter().zip(wanted).all(|(g, w)| (g - w).abs() < 0.05), "got {got:?}, wanted {wanted:?}");
    }
}
