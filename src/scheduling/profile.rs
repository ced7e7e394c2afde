//! One scheduling profile: filters narrow, scorers rate, one picker chooses.

use crate::plugin::{
    Cut, Cycle, Decision, Filter, Picker, ProfileRun, ProfileRuns, Ranked, ScheduleError, WeightedScorer,
};
use crate::pool::Candidates;
use crate::request::{InferenceRequest, Stage, Wishes};
use crate::reuse::Reused;
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
        self.choose(
            &Cycle { request, candidates, profile: &self.name, done, shadow: false },
            &request.wishes,
            rng,
        )
    }

    /// What the profile would choose if it were asked. Nothing is counted, and no time is noted for the answer.
    pub fn rehearse(
        &self,
        request: &InferenceRequest,
        candidates: &Candidates,
        rng: &mut fastrand::Rng,
    ) -> Result<ProfileRun, ScheduleError> {
        let done = ProfileRuns::default();
        let cycle = Cycle { request, candidates, profile: &self.name, done: &done, shadow: true };
        self.choose(&cycle, &Wishes::default(), rng)
    }

    /// `times` is where the time of filters and scorers is noted.
    fn choose(
        &self,
        cycle: &Cycle<'_>,
        times: &Wishes,
        rng: &mut fastrand::Rng,
    ) -> Result<ProfileRun, ScheduleError> {
        let mut decision = Reused::<Decision>::take();
        decision.shortlist.reset(cycle.candidates);
        times.measure(Stage::Filter, || self.filter(cycle, &mut decision))?;
        times.measure(Stage::Score, || decision.rate(cycle, &self.scorers));
        let ranked = Ranked::new(decision.shortlist.positions(), &decision.totals);
        let ranked = ranked.ok_or_else(|| self.nothing_left("", 0))?;
        let targets = self.picker.pick(&ranked, rng);
        Ok(ProfileRun { targets, decision })
    }

    fn filter(&self, cycle: &Cycle<'_>, decision: &mut Decision) -> Result<(), ScheduleError> {
        let before = decision.shortlist.len();
        for (name, _, filter) in &self.filters {
            filter.filter(cycle, &mut decision.shortlist);
            if decision.shortlist.is_empty() {
                return Err(self.nothing_left(name, before));
            }
            let left = u32::try_from(decision.shortlist.len()).unwrap_or(u32::MAX);
            decision.cuts.push(Cut { filter: Arc::clone(name), left });
        }
        Ok(())
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
