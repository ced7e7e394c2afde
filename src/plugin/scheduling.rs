//! Filters, scorers, pickers and profile handlers: choosing endpoints, pure and synchronous.

use super::{BuildError, Scores};
use crate::pool::{Candidates, Position};
use crate::request::InferenceRequest;
use std::sync::Arc;

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
}

/// The positions still in play, in the order of the candidates unless a filter orders them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortlist(Vec<Position>);

impl Shortlist {
    /// Every candidate.
    pub fn all(candidates: &Candidates) -> Self {
        Self(candidates.positions().collect())
    }
    /// Keeps the positions that `keep` wants.
    pub fn retain(&mut self, mut keep: impl FnMut(Position) -> bool) {
        self.0.retain(|p| keep(*p));
    }
    /// Replaces the list; what is not in the present list is left out.
    pub fn replace(&mut self, positions: &[Position]) {
        let kept: Vec<_> = positions.iter().copied().filter(|p| self.0.contains(p)).collect();
        self.0 = kept;
    }
    /// The positions.
    pub fn positions(&self) -> &[Position] {
        &self.0
    }
    /// The positions, taken out.
    pub fn into_positions(self) -> Vec<Position> {
        self.0
    }
    /// How many are left.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
    rest: Vec<Position>,
}

impl Targets {
    /// One target.
    pub fn one(first: Position) -> Self {
        Self { first, rest: Vec::new() }
    }
    /// `first`, then `rest`.
    pub fn new(first: Position, rest: Vec<Position>) -> Self {
        Self { first, rest }
    }
    /// The one that is preferred.
    pub fn first(&self) -> Position {
        self.first
    }
    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = Position> + '_ {
        std::iter::once(self.first).chain(self.rest.iter().copied())
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

/// What one scorer said, aligned with [`Decision::shortlist`].
#[derive(Clone, Debug, PartialEq)]
pub struct ScorerRun {
    /// Instance name of the scorer.
    pub scorer: Arc<str>,
    /// Its weight.
    pub weight: f64,
    /// Its scores before weighing.
    pub scores: Vec<f64>,
}

/// The record of one profile's run: what explanations, logs and metrics read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What each filter left.
    pub cuts: Vec<Cut>,
    /// Positions that were rated.
    pub shortlist: Vec<Position>,
    /// What each scorer said.
    pub scorers: Vec<ScorerRun>,
    /// Weighted sums, aligned with `shortlist`.
    pub totals: Vec<f64>,
}

/// A profile that ran and chose.
#[derive(Clone, Debug)]
pub struct ProfileRun {
    /// What it chose.
    pub targets: Targets,
    /// How.
    pub decision: Decision,
}

/// Profiles that ran, in the order in which they did; `None` for one that left no endpoint.
#[derive(Clone, Debug, Default)]
pub struct ProfileRuns(Vec<(Arc<str>, Option<ProfileRun>)>);

impl ProfileRuns {
    /// Adds a run.
    pub fn push(&mut self, profile: Arc<str>, run: Option<ProfileRun>) {
        self.0.push((profile, run));
    }
    /// Whether `profile` ran, successfully or not.
    pub fn ran(&self, profile: &str) -> bool {
        self.0.iter().any(|(name, _)| &**name == profile)
    }
    /// The run of `profile` if it chose anything.
    pub fn get(&self, profile: &str) -> Option<&ProfileRun> {
        self.0.iter().find(|(name, _)| &**name == profile).and_then(|(_, run)| run.as_ref())
    }
    /// All runs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Option<&ProfileRun>)> {
        self.0.iter().map(|(name, run)| (name, run.as_ref()))
    }
    /// How many ran.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether none ran.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
    /// Profiles to run next, given `configured` ones (in order of the configuration) and those that ran; empty ends the loop.
    fn next(&self, request: &InferenceRequest, configured: &[Arc<str>], done: &ProfileRuns) -> Vec<Arc<str>>;
    /// Name of the primary profile among those that ran.
    fn primary(&self, request: &InferenceRequest, done: &ProfileRuns) -> Result<Arc<str>, ScheduleError>;
    /// Port that requests go to in place of the chosen endpoints' own ones, when there is one.
    fn destination_port(&self) -> Option<u16> {
        None
    }
}
