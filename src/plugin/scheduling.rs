//! Filters, scorers, pickers and profile handlers: choosing endpoints, pure and synchronous.

use super::{BuildError, Scores};
use crate::pool::{Candidates, Position};
use crate::request::{CachePolicy, InferenceRequest};
use crate::reuse::{Reusable, Reused, Shelf};
use std::sync::Arc;
use std::thread::LocalKey;

/// Everything a plugin may look at while one profile runs.
#[derive(Clone, Copy, Debug)]
pub struct Cycle<'a> {
    /// The request.
    pub request: &'a InferenceRequest,
    /// The frozen endpoints.
    pub candidates: &'a Candidates,
    /// Name of the profile that runs.
    pub profile: &'a str,
    /// Profiles that ran before in this request.
    pub done: &'a ProfileRuns,
    /// Whether the profile is only watched: nothing comes of it, so nothing is to be counted.
    pub shadow: bool,
}

/// The positions still in play, in the order of the candidates unless a filter orders them, and those that are not
/// any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shortlist {
    kept: Vec<Position>,
    removed: Vec<Position>,
}

impl Shortlist {
    /// Every candidate.
    pub fn all(candidates: &Candidates) -> Self {
        let mut all = Self::default();
        all.reset(candidates);
        all
    }
    /// Every candidate again, in the memory that is there.
    pub fn reset(&mut self, candidates: &Candidates) {
        self.clear();
        self.kept.extend(candidates.positions());
        // So that filters find room whatever they remove.
        self.removed.reserve(self.kept.len());
    }
    /// Keeps the positions that `keep` wants.
    pub fn retain(&mut self, mut keep: impl FnMut(Position) -> bool) {
        let removed = &mut self.removed;
        self.kept.retain(|p| {
            let keeps = keep(*p);
            if !keeps {
                removed.push(*p);
            }
            keeps
        });
    }
    /// Keeps those that are among `positions`, in their order.
    pub fn replace(&mut self, positions: &[Position]) {
        self.retain(|p| positions.contains(&p));
        self.kept.sort_unstable_by_key(|p| positions.iter().position(|wanted| wanted == p));
    }
    /// The positions.
    pub fn positions(&self) -> &[Position] {
        &self.kept
    }
    /// What was removed, first to last.
    pub fn removed(&self) -> &[Position] {
        &self.removed
    }
    /// How many are left.
    pub fn len(&self) -> usize {
        self.kept.len()
    }
    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
    fn clear(&mut self) {
        self.kept.clear();
        self.removed.clear();
    }
}

/// Narrows the shortlist. Leaving none makes the profile fail.
pub trait Filter: Send + Sync {
    /// Removes from `shortlist` what may not serve the request.
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist);
}

/// Rates the shortlist. A position that is not set stays at 0.
pub trait Scorer: Send + Sync {
    /// Writes a score for each position of `shortlist` at the same index of `scores`.
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>);
}

/// A scorer in a profile.
#[derive(Clone)]
pub struct WeightedScorer {
    /// Instance name.
    pub name: Arc<str>,
    /// Plugin type.
    pub plugin_type: &'static str,
    /// What its scores are multiplied by. Any finite number; they need not sum to one.
    pub weight: f64,
    /// The scorer.
    pub scorer: Arc<dyn Scorer>,
}

impl WeightedScorer {
    /// Whether it rates what endpoints hold of the prompt.
    fn is_prefix(&self) -> bool {
        matches!(self.plugin_type, "prefix-cache-scorer" | "precise-prefix-cache-scorer")
    }

    /// The weight of this scorer, one of `all` of a profile, for a request that wants `policy`. To prefer hits is to
    /// add to a prefix scorer what all others weigh together.
    pub fn weight_for(&self, policy: CachePolicy, all: &[Self]) -> f64 {
        match policy {
            CachePolicy::Ignore if self.is_prefix() => 0.0,
            CachePolicy::PreferHit if self.is_prefix() => {
                self.weight.abs() + all.iter().filter(|s| !s.is_prefix()).map(|s| s.weight.abs()).sum::<f64>()
            }
            _ => self.weight,
        }
    }
}

/// A non-empty list of positions with their weighted sums, as a picker sees it.
#[derive(Clone, Copy, Debug)]
pub struct Ranked<'a> {
    positions: &'a [Position],
    totals: &'a [f64],
}

impl<'a> Ranked<'a> {
    /// `None` when there is nothing to choose from or the lengths differ.
    pub fn new(positions: &'a [Position], totals: &'a [f64]) -> Option<Self> {
        (!positions.is_empty() && positions.len() == totals.len()).then_some(Self { positions, totals })
    }
    /// Positions with their totals.
    pub fn iter(&self) -> impl Iterator<Item = (Position, f64)> + '_ {
        self.positions.iter().copied().zip(self.totals.iter().copied())
    }
    /// How many there are; at least one.
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.positions.len()
    }
    /// The first one: what a picker falls back on.
    pub fn first(&self) -> Position {
        self.positions[0]
    }
}

/// A non-empty list of chosen positions in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    first: Position,
    rest: Reused<Fallbacks>,
}

/// Targets after the first one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fallbacks(Vec<Position>);

crate::reusable_list!(Fallbacks, 0);

impl Clone for Fallbacks {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
    fn clone_from(&mut self, source: &Self) {
        self.0.clone_from(&source.0);
    }
}

impl Targets {
    /// One target.
    pub fn one(first: Position) -> Self {
        Self { first, rest: Reused::default() }
    }
    /// `first`, then `rest`.
    pub fn new(first: Position, rest: impl IntoIterator<Item = Position>) -> Self {
        let mut fallbacks = Reused::<Fallbacks>::take();
        fallbacks.0.extend(rest);
        Self { first, rest: fallbacks }
    }
    /// The one that is preferred.
    pub fn first(&self) -> Position {
        self.first
    }
    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = Position> + '_ {
        std::iter::once(self.first).chain(self.rest.0.iter().copied())
    }
}

/// Chooses among rated positions; cannot fail because [`Ranked`] is never empty.
pub trait Picker: Send + Sync {
    /// The targets, best first.
    fn pick(&self, ranked: &Ranked<'_>, rng: &mut fastrand::Rng) -> Targets;
}

/// What one filter did to the shortlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Instance name of the filter.
    pub filter: Arc<str>,
    /// How many were left after it.
    pub left: u32,
}

/// One scorer of a profile's run; [`Decision::scores`] has what it said.
#[derive(Clone, Debug, PartialEq)]
pub struct ScorerRun {
    /// Instance name of the scorer.
    pub scorer: Arc<str>,
    /// Its weight.
    pub weight: f64,
}

/// The record of one profile's run: what explanations, logs and metrics read.
///
/// It holds for as long as its owner likes, beside the candidates that its positions belong to. Its memory is
/// [`Reused`]: a record that is dropped makes the next one free.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What each filter left.
    pub cuts: Vec<Cut>,
    /// Positions that were rated, and those that filters removed.
    pub shortlist: Shortlist,
    /// The scorers in order.
    pub scorers: Vec<ScorerRun>,
    /// What the scorers said before weighing, one after another, each aligned with `shortlist`.
    scores: Vec<f64>,
    /// Weighted sums, aligned with `shortlist`.
    pub totals: Vec<f64>,
}

impl Reusable for Decision {
    fn shelf() -> &'static LocalKey<Shelf<Self>> {
        thread_local! {
            static SHELF: Shelf<Decision> = const { Shelf::new() };
        }
        &SHELF
    }
    fn empty(&mut self) {
        self.cuts.clear();
        self.shortlist.clear();
        self.scorers.clear();
        self.scores.clear();
        self.totals.clear();
    }
    fn room(&self) -> usize {
        self.shortlist.kept.capacity().max(self.scores.capacity())
    }
}

impl Decision {
    /// Runs the scorers over the shortlist as it is. The total of an endpoint is the sum of its scores times their
    /// weights.
    pub fn rate(&mut self, cycle: &Cycle<'_>, scorers: &[WeightedScorer]) {
        self.totals.resize(self.shortlist.len(), 0.0);
        for weighted in scorers {
            self.add(cycle, weighted, weighted.weight_for(cycle.request.wishes.cache, scorers));
        }
    }

    fn add(&mut self, cycle: &Cycle<'_>, weighted: &WeightedScorer, weight: f64) {
        let (from, n) = (self.scores.len(), self.shortlist.len());
        self.scores.resize(from + n, 0.0);
        let said = &mut self.scores[from..];
        weighted.scorer.score(cycle, &self.shortlist, &mut Scores::over(said));
        for (total, score) in self.totals.iter_mut().zip(said) {
            *total += *score * weight;
        }
        self.scorers.push(ScorerRun { scorer: Arc::clone(&weighted.name), weight });
    }

    /// What the `scorer`-th of the scorers said before weighing, aligned with the shortlist; empty when there are fewer.
    pub fn scores(&self, scorer: usize) -> &[f64] {
        let n = self.shortlist.len();
        self.scores.get(scorer * n..(scorer + 1) * n).unwrap_or_default()
    }

    /// The positions that the `cut`-th filter removed; empty when there are fewer filters.
    pub fn removed_by(&self, cut: usize) -> &[Position] {
        let all = self.shortlist.len() + self.shortlist.removed.len();
        let left = |cut: usize| self.cuts.get(cut).map(|c| c.left as usize);
        let before = cut.checked_sub(1).map_or(Some(all), left);
        let (Some(before), Some(after)) = (before, left(cut)) else { return &[] };
        self.shortlist.removed.get(all - before..all - after).unwrap_or_default()
    }
}

/// A profile that ran and chose.
#[derive(Clone, Debug)]
pub struct ProfileRun {
    /// What it chose.
    pub targets: Targets,
    /// How.
    pub decision: Reused<Decision>,
}

/// Profiles that ran, in the order in which they did; `None` for one that left no endpoint.
#[derive(Clone, Debug, Default)]
pub struct ProfileRuns(Reused<Runs>);

#[derive(Clone, Debug, Default)]
struct Runs(Vec<(Arc<str>, Option<ProfileRun>)>);

crate::reusable_list!(Runs, 0);

impl ProfileRuns {
    /// No runs yet, in memory that an earlier request left.
    pub fn reused() -> Self {
        Self(Reused::take())
    }
    /// Adds a run.
    pub fn push(&mut self, profile: Arc<str>, run: Option<ProfileRun>) {
        self.0.0.push((profile, run));
    }
    /// Whether `profile` ran, successfully or not.
    pub fn ran(&self, profile: &str) -> bool {
        self.0.0.iter().any(|(name, _)| &**name == profile)
    }
    /// The run of `profile` if it chose anything.
    pub fn get(&self, profile: &str) -> Option<&ProfileRun> {
        self.0.0.iter().find(|(name, _)| &**name == profile).and_then(|(_, run)| run.as_ref())
    }
    /// All runs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Option<&ProfileRun>)> {
        self.0.0.iter().map(|(name, run)| (name, run.as_ref()))
    }
    /// How many ran.
    pub fn len(&self) -> usize {
        self.0.0.len()
    }
    /// Whether none ran.
    pub fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }
}

/// What scheduling came to: the primary profile always chose something.
#[derive(Clone, Debug)]
pub struct SchedulingOutcome {
    /// Name of the primary profile.
    pub primary_profile: Arc<str>,
    /// Its targets.
    pub primary: Targets,
    /// Every run.
    pub runs: ProfileRuns,
}

/// Why scheduling failed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScheduleError {
    /// The filters of the primary profile left no endpoint.
    #[error("filter `{filter}` of profile `{profile}` left none of {before} endpoints for this request")]
    Filtered {
        /// The profile.
        profile: Arc<str>,
        /// The filter that removed the last one.
        filter: Arc<str>,
        /// How many candidates the profile started with.
        before: usize,
    },
    /// The profile handler named no profile to run.
    #[error("no scheduling profile fits this request: {0}")]
    NoProfile(String),
}

/// Says which profiles run, and which result is the one that counts.
pub trait ProfileHandler: Send + Sync {
    /// Whether the handler can work with the `configured` profiles; asked once, when the plan is built.
    fn accepts(&self, _configured: &[Arc<str>]) -> Result<(), BuildError> {
        Ok(())
    }
    /// The profile to run next, given `configured` ones (in order of the configuration) and those that ran; `None`, or
    /// one that ran already, ends the loop.
    fn next(
        &self,
        request: &InferenceRequest,
        configured: &[Arc<str>],
        done: &ProfileRuns,
    ) -> Option<Arc<str>>;
    /// Name of the primary profile among those that ran.
    fn primary(&self, request: &InferenceRequest, done: &ProfileRuns) -> Result<Arc<str>, ScheduleError>;
    /// A profile among `configured` ones, or missing there, that the handler asks for by name whatever a request says.
    fn names(&self, _configured: &[Arc<str>]) -> Option<&str> {
        None
    }
    /// Port that requests go to in place of the chosen endpoints' own ones, when there is one.
    fn destination_port(&self) -> Option<u16> {
        None
    }
}
