use super::testing::{Row, assert_scores, build, freeze, request};
use super::*;
use crate::endpoint::LoraState;
use crate::plugin::{Cycle, Filter, Registry, Score, Scorer, Scores, Shortlist, WeightedScorer};
use crate::request::Prompt;
use serde_json::json;

/// A plugin type of this layer by its name.
pub(super) fn plugin_type(name: &str) -> PluginType {
    *Registry::from_tables(&tables()).unwrap().get(name).unwrap()
}

/// A scheduler of one profile with these scorers, max-score picker and single-profile handler.
pub(super) fn scheduler(
    scorers: Vec<WeightedScorer>,
    filters: Vec<(Arc<str>, &'static str, Arc<dyn Filter>)>,
) -> Scheduler {
    let role = |name| build(&plugin_type(name), json!({})).unwrap();
    let picker = role("max-score-picker").picker.unwrap();
    let profile = Profile { name: "default".into(), filters, scorers, picker };
    Scheduler::new(vec![profile], role("single-profile-handler").profile_handler.unwrap()).unwrap()
}

fn weighted(name: &'static str, weight: f64) -> WeightedScorer {
    let scorer = build(&plugin_type(name), json!({})).unwrap().scorer.unwrap();
    WeightedScorer { name: name.into(), plugin_type: name, weight, scorer }
}

/// Gives every position the same raw number.
struct Constant(f64);

impl Scorer for Constant {
    fn score(&self, _: &Cycle<'_>, _: &Shortlist, scores: &mut Scores<'_>) {
        (0..scores.len()).for_each(|i| scores.set(i, Score::new(self.0)));
    }
}

/// Keeps positions below a bound.
struct Below(u32);

impl Filter for Below {
    fn filter(&self, _: &Cycle<'_>, shortlist: &mut Shortlist) {
        shortlist.retain(|p| p.0 < self.0);
    }
}

fn totals(scorers: &[(f64, f64)]) -> Vec<f64> {
    let scorers = scorers.iter().map(|(value, weight)| WeightedScorer {
        name: "constant".into(),
        plugin_type: "constant",
        weight: *weight,
        scorer: Arc::new(Constant(*value)),
    });
    let outcome = scheduler(scorers.collect(), Vec::new())
        .run(&request("m", Prompt::None), &freeze(&[Row::default()]), &mut fastrand::Rng::with_seed(1))
        .unwrap();
    outcome.runs.get("default").unwrap().decision.totals.clone()
}

#[test]
fn totals_are_weighted_sums_of_clamped_scores() {
    assert_scores(&totals(&[(0.3, 1.0), (0.8, 1.0)]), &[1.1]);
    assert_scores(&totals(&[(0.3, 60.0), (0.8, 40.0)]), &[50.0]);
    assert_scores(&totals(&[(-0.5, 1.0), (1.5, 1.0)]), &[1.0]);
    assert_scores(&totals(&[]), &[0.0]);
}

#[test]
fn the_record_says_what_each_scorer_said() {
    let weights = [(0.3, 60.0), (0.8, 40.0)];
    let scorers = weights.map(|(value, weight)| WeightedScorer {
        name: format!("always {value}").into(),
        plugin_type: "constant",
        weight,
        scorer: Arc::new(Constant(value)),
    });
    let filters = vec![(Arc::from("below"), "below", Arc::new(Below(2)) as Arc<dyn Filter>)];
    let rows = vec![Row::default(); 3];
    let outcome = scheduler(scorers.into(), filters)
        .run(&request("m", Prompt::None), &freeze(&rows), &mut fastrand::Rng::with_seed(1))
        .unwrap();
    // A copy outlives what it was made from.
    let kept = outcome.runs.get("default").unwrap().decision.clone();
    drop(outcome);
    let names: Vec<_> = kept.scorers.iter().map(|s| (&*s.scorer, s.weight)).collect();
    assert_eq!(names, [("always 0.3", 60.0), ("always 0.8", 40.0)]);
    assert_eq!([kept.scores(0), kept.scores(1), kept.scores(2)], [&[0.3, 0.3][..], &[0.8, 0.8], &[]]);
    assert_scores(&kept.totals, &[50.0, 50.0]);
}

#[test]
fn filters_narrow_one_after_another_and_an_empty_shortlist_is_said() {
    let below = |n: u32| (Arc::from(format!("below-{n}")), "below", Arc::new(Below(n)) as Arc<dyn Filter>);
    let rows = vec![Row::default(); 4];
    let mut rng = fastrand::Rng::with_seed(1);
    let run = |filters, rng: &mut fastrand::Rng| {
        scheduler(Vec::new(), filters).run(&request("m", Prompt::None), &freeze(&rows), rng)
    };
    let outcome = run(vec![below(3), below(2)], &mut rng).unwrap();
    let decision = &outcome.runs.get("default").unwrap().decision;
    assert_eq!(decision.cuts.iter().map(|c| c.left).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(decision.shortlist.len(), 2);
    let removed = |cut| decision.removed_by(cut).iter().map(|p| p.0).collect::<Vec<_>>();
    assert_eq!([removed(0), removed(1), removed(2)], [vec![3], vec![2], vec![]]);
    let error = run(vec![below(3), below(0)], &mut rng).unwrap_err();
    assert_eq!(
        error.to_string(),
        "filter `below-0` of profile `default` left none of 4 endpoints for this request"
    );
}

#[test]
fn the_default_scheduler_picks_the_endpoint_of_the_catalogue() {
    let row = |waiting, kv, active: &[&str]| Row {
        waiting: Some(waiting),
        kv: Some(kv),
        lora: Some(LoraState {
            max_active: 2,
            active: active.iter().map(|a| Arc::from(*a)).collect(),
            waiting: Vec::new(),
        }),
        ..Row::default()
    };
    let rows = [row(0, 0.2, &["foo", "bar"]), row(0, 0.2, &["foo", "critical"]), row(10, 0.8, &["foo"])];
    let scorers = ["kv-cache-utilization-scorer", "queue-scorer", "lora-affinity-scorer"]
        .map(|name| weighted(name, 1.0));
    let outcome = scheduler(scorers.into(), Vec::new())
        .run(&request("critical", Prompt::None), &freeze(&rows), &mut fastrand::Rng::with_seed(1))
        .unwrap();
    assert_eq!(outcome.primary.first().0, 1);
    assert_scores(&outcome.runs.get("default").unwrap().decision.totals[1..2], &[2.8]);
}

#[test]
fn a_cache_policy_changes_the_weight_of_prefix_scorers_alone() {
    use crate::request::CachePolicy;
    let mut prefix = weighted("queue-scorer", 2.0);
    prefix.plugin_type = "prefix-cache-scorer";
    let all = [prefix, weighted("queue-scorer", 3.0), weighted("kv-cache-utilization-scorer", -1.5)];
    let weights = |policy| all.iter().map(|s| s.weight_for(policy, &all)).collect::<Vec<_>>();
    assert_eq!(weights(CachePolicy::Configured), [2.0, 3.0, -1.5]);
    assert_eq!(weights(CachePolicy::Ignore), [0.0, 3.0, -1.5]);
    assert_eq!(weights(CachePolicy::PreferHit), [6.5, 3.0, -1.5]);
}

#[test]
fn no_candidates_and_no_profiles_are_errors() {
    let run = scheduler(Vec::new(), Vec::new()).run(
        &request("m", Prompt::None),
        &freeze(&[]),
        &mut fastrand::Rng::with_seed(1),
    );
    assert!(run.is_err());
    let handler = build(&plugin_type("single-profile-handler"), json!({})).unwrap().profile_handler.unwrap();
    assert!(Scheduler::new(Vec::new(), handler).is_err());
}

mod every_scorer {
    use super::*;
    use crate::clock::Clock;
    use crate::endpoint::Reading;
    use crate::plugin::{AttributeTable, PrefixMatches, StateStore, TokenCosts};
    use crate::pool::AttributeId;
    use crate::scheduling::testing::{build_in, score_with};
    use proptest::prelude::*;

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let reading = prop_oneof![Just(Reading::Fresh), Just(Reading::Stale), Just(Reading::Never)];
        let number = || prop::option::of(prop_oneof![0_u32..20, any::<u32>()]);
        let usage = prop::option::of(prop_oneof![0.0..1.0_f64, any::<f64>()]);
        let lora = prop::option::of((0_u32..4, 0_usize..4, any::<bool>()));
        let row = (reading, number(), number(), usage, lora, 0_u32..20, any::<u32>(), any::<f64>());
        let row = row.prop_map(|(reading, waiting, running, kv, lora, in_flight, tokens, scalar)| Row {
            scalars: vec![scalar],
            reading,
            waiting,
            running,
            kv,
            lora: lora.map(|(max_active, active, waits)| LoraState {
                max_active,
                active: vec!["m".into(); active],
                waiting: if waits { vec!["n".into()] } else { Vec::new() },
            }),
            in_flight,
            tokens,
            ..Row::default()
        });
        prop::collection::vec(row, 1..12)
    }

    /// Parameters of the scorers that cannot do without.
    fn least(name: &str) -> serde_json::Value {
        match name {
            "endpoint-attribute-scorer" => {
                json!({"attributeKey": "a", "algorithm": {"type": "linear_lower_is_better"}})
            }
            "cel-scorer" => json!({"expression": "1.0"}),
            "header-label-affinity-scorer" => json!({"headerName": "x-session-token", "labelKey": "l"}),
            _ => json!({}),
        }
    }

    proptest! {
        #[test]
        fn stays_between_0_and_1(
            rows in rows(),
            matched in prop::collection::vec(any::<u32>(), 0..12),
            total_blocks in any::<u32>(),
            token in "\\PC{0,12}",
        ) {
            let mut candidates = freeze(&rows);
            let mut request = super::super::testing::request_with("x-session-token", &token);
            request.target_model = "m".into();
            for row in super::super::scorer::TABLE {
                let mut table = AttributeTable::default();
                let roles = build_in(row, least(row.name), &StateStore::default(), &Clock::manual(), &mut table).unwrap();
                // The one attribute that a scorer reads has place 0 in a table of its own.
                if ["prefix-cache-scorer", "no-hit-lru-scorer"].contains(&row.name) {
                    let matched_blocks = matched.clone();
                    let found = PrefixMatches { total_blocks, block_tokens: 64, matched_blocks, chains: Default::default() };
                    candidates.attributes.set(AttributeId::new(0), found);
                } else {
                    let costs = TokenCosts { uncached: matched.clone(), output: None };
                    candidates.attributes.set(AttributeId::new(0), costs);
                }
                for score in score_with(&*roles.scorer.unwrap(), &request, &candidates) {
                    prop_assert!((0.0..=1.0).contains(&score), "{} gave {score}", row.name);
                }
            }
        }

        #[test]
        fn an_outage_of_metrics_for_everybody_leaves_all_equal(n in 1_usize..12, never in any::<bool>()) {
            let reading = if never { Reading::Never } else { Reading::Stale };
            let rows: Vec<_> = (0..n)
                .map(|i| Row { reading, waiting: u32::try_from(i).ok(), kv: Some(0.1), ..Row::default() })
                .collect();
            let candidates = freeze(&rows);
            for name in
                ["queue-scorer", "running-requests-size-scorer", "kv-cache-utilization-scorer", "load-aware-scorer"]
            {
                let roles = build(&plugin_type(name), json!({})).unwrap();
                let scores = score_with(&*roles.scorer.unwrap(), &request("m", Prompt::None), &candidates);
                prop_assert!(scores.iter().all(|s| *s == scores[0]), "{name}: {scores:?}");
            }
        }
    }
}
