//! One scheduling profile: filters narrow, scorers rate, one picker chooses.

use crate::plugin::{
    Cut, Cycle, Decision, Filter, Picker, ProfileRun, ProfileRuns, Ranked, ScheduleError, ScorerRun, Scores,
    Shortlist, WeightedScorer,
};
use crate::pool::Candidates;
use crate::request::InferenceRequest;
use std::fmt;
use std::sync::Arc;

/// A profile with its plugins in order of the configuration.
pub struct Profile {
    /// Its name.
    pub name: Arc<str>,
    /// Filters: instance name, plugin type, filter. Each sees what the one before left.
    pub filters: Vec<(Arc<str>, &'static str, Arc<dyn Filter>)>,
    /// Scorers with their weights.
    pub scorers: Vec<WeightedScorer>,
    /// The picker.
    pub picker: Arc<dyn Picker>,
}

impl Profile {
    /// Filters, rates and picks. The total of an endpoint is the sum of its scores times their weights, without any
    /// normalisation; without scorers every total is 0.
    pub fn run(
        &self,
        request: &InferenceRequest,
        candidates: &Candidates,
        done: &ProfileRuns,
        rng: &mut fastrand::Rng,
    ) -> Result<ProfileRun, ScheduleError> {
        let cycle = Cycle { request, candidates, profile: &self.name, done };
        let mut shortlist = Shortlist::all(candidates);
        let cuts = self.filter(&cycle, &mut shortlist)?;
        let (scorers, totals) = self.score(&cycle, &shortlist);
        let ranked = Ranked::new(shortlist.positions(), &totals).ok_or_else(|| self.nothing_left("", 0))?;
        let targets = self.picker.pick(&ranked, rng);
        let decision = Decision { cuts, shortlist: shortlist.into_positions(), scorers, totals };
        Ok(ProfileRun { targets, decision })
    }

    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) -> Result<Vec<Cut>, ScheduleError> {
        let before = shortlist.len();
        let mut cuts = Vec::with_capacity(self.filters.len());
        for (name, _, filter) in &self.filters {
            filter.filter(cycle, shortlist);
            if shortlist.is_empty() {
                return Err(self.nothing_left(name, before));
            }
            cuts.push(Cut {
                filter: Arc::clone(name),
                left: u32::try_from(shortlist.len()).unwrap_or(u32::MAX),
            });
        }
        Ok(cuts)
    }

    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist) -> (Vec<ScorerRun>, Vec<f64>) {
        let mut totals = vec![0.0; shortlist.len()];
        let mut runs = Vec::with_capacity(self.scorers.len());
        for weighted in &self.scorers {
            let mut scores = vec![0.0; shortlist.len()];
            weighted.scorer.score(cycle, shortlist, &mut Scores::over(&mut scores));
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += score * weighted.weight;
            }
            runs.push(ScorerRun { scorer: Arc::clone(&weighted.name), weight: weighted.weight, scores });
        }
        (runs, totals)
    }

    fn nothing_left(&self, filter: &str, before: usize) -> ScheduleError {
        ScheduleError::Filtered { profile: Arc::clone(&self.name), filter: filter.into(), before }
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filters: Vec<_> = self.filters.iter().map(|(name, ..)| &**name).collect();
        let scorers: Vec<_> = self.scorers.iter().map(|s| (&*s.name, s.weight)).collect();
        f.debug_struct("Profile")
            .field("name", &self.name)
            .field("filters", &filters)
            .field("scorers", &scorers)
            .finish_non_exhaustive()
    }
}
