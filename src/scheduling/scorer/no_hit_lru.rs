//! `no-hit-lru-scorer`: spreads requests that no endpoint has in its prefix cache over the endpoints in turn.
//!
//! A request is *cold* when no rated endpoint holds a block of it; a warm one gives 0.5 to all and leaves the order as it
//! is. For a cold one of n endpoints, those that never served a cold request come first, in their order `i = 0..`, with
//! `1 - i / (n - 1)`; the others get `max(0, 1 - (never used + rank) / (n - 1))` with their rank among all remembered
//! ones, the one unused for longest being 0. A single endpoint gets 1.
//!
//! The order is kept for at most `lruSize` engine processes; one that restarted counts as never used. It is updated when
//! a cold request leaves, for the first target of the primary profile and of the profile `prefill`.
//!
//! ```yaml
//! - type: no-hit-lru-scorer
//!   parameters:
//!     lruSize: 1024                      # endpoints; 0 or less means the default
//!     prefixMatchInfoProducerName: approx-prefix-cache-producer
//!     prefixPluginType: ""               # accepted from older configurations, without effect, as prefixPluginName
//! ```

use crate::endpoint::Occupant;
use crate::plugin::{
    BuildContext, BuildError, Cycle, Departure, HeaderEdits, PluginType, PreRequest, PrefixMatches, Roles,
    Score, Scorer, Scores, Shortlist, Stability,
};
use crate::pool::{AttributeId, Candidates};
use crate::reuse::{Reusable, Reused, Shelf};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::LocalKey;

pub(super) const TYPE: PluginType =
    PluginType { name: "no-hit-lru-scorer", stability: Stability::Beta, build };

const DEFAULT_SIZE: usize = 1024;
/// Profile whose first target is used besides the primary one's.
const PREFILL_PROFILE: &str = "prefill";

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    lru_size: i64,
    prefix_match_info_producer_name: String,
    #[serde(rename = "prefixPluginType", skip_serializing)]
    _plugin_type: Option<String>,
    #[serde(rename = "prefixPluginName", skip_serializing)]
    _plugin_name: Option<String>,
}

struct NoHitLru {
    matches: AttributeId<PrefixMatches>,
    uses: Arc<Uses>,
}

/// Which processes served cold requests, the one unused for longest first.
struct Uses {
    most: usize,
    order: Mutex<VecDeque<Occupant>>,
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let most = usize::try_from(written.lru_size).ok().filter(|n| *n > 0).unwrap_or(DEFAULT_SIZE);
    ctx.in_force("lruSize", most);
    let producer = &written.prefix_match_info_producer_name;
    let producer = ctx.producer("prefixMatchInfoProducerName", producer, PrefixMatches::PRODUCER);
    let plugin = Arc::new(NoHitLru {
        matches: ctx.consumes(PrefixMatches::KIND, Some(producer), PrefixMatches::PRODUCER),
        uses: ctx.state.get_or_insert(ctx.name, most as u64, || Uses { most, order: Mutex::default() }),
    });
    Ok(Roles {
        scorer: Some(Arc::clone(&plugin) as Arc<dyn Scorer>),
        pre_request: Some(plugin),
        ..Roles::default()
    })
}

/// What one rating works with.
#[derive(Default)]
struct Ranks {
    /// By slot, 1 more than the index in the shortlist.
    places: Vec<usize>,
    /// Index in the shortlist and place in the order of use.
    used: Vec<(usize, usize)>,
}

impl Reusable for Ranks {
    fn shelf() -> &'static LocalKey<Shelf<Self>> {
        thread_local! {
            static SHELF: Shelf<Ranks> = const { Shelf::new() };
        }
        &SHELF
    }
    fn empty(&mut self) {
        self.places.clear();
        self.used.clear();
    }
    fn room(&self) -> usize {
        self.places.capacity()
    }
}

impl Uses {
    fn touch(&self, occupant: Occupant) {
        let mut order = self.order.lock();
        if let Some(at) = order.iter().position(|o| *o == occupant) {
            order.remove(at);
        } else if order.len() >= self.most {
            order.pop_front();
        }
        order.push_back(occupant);
    }

    fn score(&self, candidates: &Candidates, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        #[allow(clippy::cast_precision_loss, reason = "a number of endpoints")]
        let step = |place: usize| 1.0 - place as f64 / (shortlist.len() - 1) as f64;
        let occupants = || shortlist.positions().iter().map(|p| candidates.occupant(*p));
        // Index in the shortlist by slot, 0 where there is none: one pass over the order finds every rank.
        let slots = occupants().map(|o| o.slot.0 as usize + 1).max().unwrap_or(0);
        let mut ranks = Reused::<Ranks>::take();
        let Ranks { places, used } = &mut *ranks;
        places.resize(slots, 0);
        for (i, occupant) in occupants().enumerate() {
            places[occupant.slot.0 as usize] = i + 1;
        }
        let order = self.order.lock();
        let find = |occupant: &Occupant| {
            let i = places.get(occupant.slot.0 as usize)?.checked_sub(1)?;
            (candidates.occupant(shortlist.positions()[i]) == *occupant).then_some(i)
        };
        used.extend(order.iter().enumerate().filter_map(|(rank, o)| Some((find(o)?, rank))));
        drop(order);
        let never_used = shortlist.len() - used.len();
        for (i, rank) in used.drain(..) {
            scores.set(i, Score::new(step(never_used + rank)));
            places[candidates.occupant(shortlist.positions()[i]).slot.0 as usize] = 0;
        }
        let unused = occupants().enumerate().filter(|(_, o)| places[o.slot.0 as usize] > 0);
        for (place, (i, _)) in unused.enumerate() {
            scores.set(i, Score::new(step(place)));
        }
    }
}

impl Scorer for NoHitLru {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        let matches = cycle.candidates.attributes.get(self.matches);
        let warm = matches.is_some_and(|m| shortlist.positions().iter().any(|p| m.matched(*p) > 0));
        if warm || shortlist.len() == 1 {
            let score = Score::new(if warm { 0.5 } else { 1.0 });
            (0..shortlist.len()).for_each(|i| scores.set(i, score));
        } else if !shortlist.is_empty() {
            self.uses.score(cycle.candidates, shortlist, scores);
        }
    }
}

impl PreRequest for NoHitLru {
    fn before_send(&self, departure: &Departure<'_>, _: &mut HeaderEdits) {
        let (candidates, outcome) = (departure.candidates, departure.outcome);
        let matches = candidates.attributes.get(self.matches);
        if matches.is_some_and(|m| m.matched_blocks.iter().any(|blocks| *blocks > 0)) {
            return;
        }
        let primary = outcome.primary.first();
        self.uses.touch(candidates.occupant(primary));
        let prefill = outcome.runs.get(PREFILL_PROFILE).map(|run| run.targets.first());
        if let Some(prefill) = prefill.filter(|p| *p != primary) {
            self.uses.touch(candidates.occupant(prefill));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::plugin::{AttributeTable, ProfileRuns, SchedulingOutcome, StateStore, Targets};
    use crate::pool::Position;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, assert_scores, build_in, freeze, request, score_with};
    use serde_json::json;

    struct Bench {
        roles: Roles,
        candidates: Candidates,
    }

    impl Bench {
        fn new(pods: usize, matched: Option<&[u32]>) -> Self {
            Self::over(&StateStore::default(), pods, matched)
        }

        fn over(state: &StateStore, pods: usize, matched: Option<&[u32]>) -> Self {
            let mut table = AttributeTable::default();
            let parameters = json!({"lruSize": 3, "prefixPluginType": "x", "prefixPluginName": "y"});
            let roles = build_in(&TYPE, parameters, state, &Clock::manual(), &mut table).unwrap();
            let mut candidates = freeze(&vec![Row::default(); pods]);
            if let Some(matched) = matched {
                let matches = PrefixMatches {
                    total_blocks: 10,
                    block_tokens: 1,
                    matched_blocks: matched.to_vec(),
                    chains: Default::default(),
                };
                candidates.attributes.set(AttributeId::new(0), matches);
            }
            Self { roles, candidates }
        }

        fn scores(&self) -> Vec<f64> {
            let scorer = self.roles.scorer.as_ref().unwrap();
            score_with(&**scorer, &request("m", Prompt::None), &self.candidates)
        }

        fn send(&self, to: u32) {
            let outcome = SchedulingOutcome {
                primary_profile: "default".into(),
                primary: Targets::one(Position(to)),
                runs: ProfileRuns::default(),
            };
            let request = request("m", Prompt::None);
            let departure = Departure { request: &request, candidates: &self.candidates, outcome: &outcome };
            let hook = self.roles.pre_request.as_ref().unwrap();
            hook.before_send(&departure, &mut HeaderEdits::default());
        }
    }

    #[test]
    fn cold_requests_of_the_catalogue_go_round() {
        let bench = Bench::new(3, Some(&[0, 0, 0]));
        assert_scores(&bench.scores(), &[1.0, 0.5, 0.0]);
        let mut picks = Vec::new();
        for _ in 0..4 {
            let scores = bench.scores();
            let best = (0..3).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
            bench.send(u32::try_from(best).unwrap());
            picks.push(best);
            if picks.len() == 1 {
                assert_scores(&bench.scores(), &[0.0, 1.0, 0.5]);
            }
        }
        assert_eq!(picks, [0, 1, 2, 0]);
    }

    #[test]
    fn warm_requests_and_single_endpoints() {
        let warm = Bench::new(3, Some(&[0, 2, 0]));
        assert_scores(&warm.scores(), &[0.5; 3]);
        warm.send(0);
        assert_scores(&Bench::new(1, None).scores(), &[1.0]);
        assert_scores(&Bench::new(0, None).scores(), &[]);
    }

    #[test]
    fn a_warm_request_leaves_the_order_as_it_is_and_the_order_is_bounded() {
        let state = StateStore::default();
        Bench::over(&state, 5, Some(&[1, 0, 0, 0, 0])).send(0);
        let cold = Bench::over(&state, 5, None);
        assert_scores(&cold.scores(), &[1.0, 0.75, 0.5, 0.25, 0.0]);
        (0..5).for_each(|pod| cold.send(pod));
        // Three are remembered: 2, 3, 4.
        assert_scores(&cold.scores(), &[1.0, 0.75, 0.5, 0.25, 0.0]);
        cold.send(2);
        assert_scores(&cold.scores(), &[1.0, 0.75, 0.0, 0.5, 0.25]);
    }
}
