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
