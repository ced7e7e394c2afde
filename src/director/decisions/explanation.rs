//! A decision written out: what `/debug/decisions` answers and `pointsman explain` prints.

use super::{After, Made, Recorded, ShadowPick, Verdict};
use crate::clock::Moment;
use crate::endpoint::Reading;
use crate::plugin::{Decision, PrefixMatches, ProfileRun};
use crate::pool::{Candidates, Position};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One line of the list of decisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Id of the request.
    pub request_id: String,
    /// How long ago it was decided.
    pub age_ms: u64,
    /// The model that the engine is asked for.
    pub target_model: String,
    /// Estimated prompt tokens.
    pub prompt_tokens: u32,
    /// How long the decision took.
    pub took_us: u64,
    /// Who was chosen.
    pub chosen: Option<String>,
    /// Code of the refusal.
    pub refused: Option<String>,
    /// Status of the response, once it came.
    pub status: Option<u16>,
    /// Prompt tokens that the chosen endpoint was believed to hold.
    pub predicted_cached_tokens: Option<u64>,
    /// Prompt tokens that the engine found in its cache.
    pub reported_cached_tokens: Option<u32>,
}

/// One decision, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// In short.
    #[serde(flatten)]
    pub summary: Summary,
    /// The model that was asked for.
    pub model: String,
    /// Priority of its objective.
    pub priority: i32,
    /// Size of its body.
    pub body_bytes: usize,
    /// Number of the configuration that decided.
    pub generation: u64,
    /// The refusal in words.
    pub refusal: Option<String>,
    /// Every target of the primary profile, the first one preferred.
    pub targets: Vec<String>,
    /// Every endpoint that could have been chosen, with the numbers that counted.
    pub candidates: Vec<CandidateShown>,
    /// The profiles that ran, in order.
    pub profiles: Vec<ProfileShown>,
    /// What shadow profiles would have done, once they have looked.
    #[serde(default)]
    pub shadows: Vec<ShadowShown>,
    /// What happened after the reply.
    pub after: Ended,
}

/// An endpoint with its numbers at the moment of the decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateShown {
    /// Namespace and name.
    pub endpoint: String,
    /// `fresh`, `stale` or `never`.
    pub reading: String,
    /// Age of the engine's numbers.
    pub age_ms: Option<u64>,
    /// Requests waiting there.
    pub waiting: u32,
    /// Requests running there.
    pub running: u32,
    /// Share of its KV cache in use.
    pub kv_usage: f64,
    /// Requests from this picker.
    pub in_flight_requests: u32,
    /// Their estimated tokens.
    pub in_flight_tokens: u64,
    /// Prompt tokens that it was believed to hold.
    pub cached_tokens: Option<u64>,
}

/// What one profile did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileShown {
    /// Its name.
    pub profile: String,
    /// Whether it is the one that counts.
    pub primary: bool,
    /// Its filters in order.
    pub cuts: Vec<CutShown>,
    /// Its scorers in order.
    pub scorers: Vec<ScorerShown>,
    /// The endpoints that were rated, best first. Empty when the filters left none.
    pub ratings: Vec<RatingShown>,
    /// What it chose, the first one preferred.
    pub chosen: Vec<String>,
}

/// What a profile that is only watched would have done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShadowShown {
    /// Its name.
    pub profile: String,
    /// The endpoint that it prefers; `null` where its filters left none.
    pub chosen: Option<String>,
    /// Whether that is where the request went.
    pub same: bool,
    /// Prompt tokens that the endpoint which it prefers was believed to hold.
    pub cached_tokens: Option<u64>,
    /// Prompt tokens that the endpoint where the request went was believed to hold.
    pub real_cached_tokens: Option<u64>,
}

/// What one filter removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CutShown {
    /// The filter.
    pub filter: String,
    /// How many were left.
    pub left: u32,
    /// Who was not.
    pub removed: Vec<String>,
}

/// A scorer of a profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScorerShown {
    /// The scorer.
    pub scorer: String,
    /// Its weight.
    pub weight: f64,
}

/// What the scorers said of one endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatingShown {
    /// The endpoint.
    pub endpoint: String,
    /// Scores from 0 to 1, in the order of the scorers.
    pub scores: Vec<f64>,
    /// The sum of scores times weights.
    pub total: f64,
}

/// What happened after the reply. `null` is what is not known, or not yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Who served, when that was not who was chosen.
    pub served: Option<String>,
    /// From the request's headers to the first byte of the response.
    pub first_byte_ms: Option<f64>,
    /// From the request's headers to the end.
    pub duration_ms: Option<f64>,
    /// Prompt tokens that the engine counted.
    pub prompt_tokens: Option<u32>,
    /// Tokens that it generated.
    pub completion_tokens: Option<u32>,
    /// How it ended; `null` while it is under way.
    pub ending: Option<String>,
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn whole(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn key(candidates: &Candidates, p: Position) -> String {
    candidates.endpoint(p).key.to_string()
}

impl Made {
    fn matches(&self) -> Option<&PrefixMatches> {
        self.candidates.attributes.get(self.prefix?)
    }
    fn cached_tokens(&self, p: Position) -> Option<u64> {
        self.matches().map(|m| u64::from(m.matched(p)) * u64::from(m.block_tokens))
    }
}

impl Summary {
    pub(super) fn of(recorded: &Recorded, now: Moment) -> Self {
        let (made, refused) = match &recorded.verdict {
            Verdict::Routed(made) => (Some(made), None),
            Verdict::Refused { code, .. } => (None, Some((*code).to_owned())),
        };
        let after = recorded.after();
        let asked = &recorded.asked;
        Self {
            request_id: asked.id.to_string(),
            age_ms: whole(now.since(recorded.at).as_millis()),
            target_model: asked.target_model.to_string(),
            prompt_tokens: asked.prompt_tokens,
            took_us: whole(recorded.took.as_micros()),
            chosen: made.map(|m| key(&m.candidates, m.outcome.primary.first())),
            refused,
            status: after.status,
            predicted_cached_tokens: made.and_then(|m| m.cached_tokens(m.outcome.primary.first())),
            reported_cached_tokens: after.usage.cached,
        }
    }
}

impl Explanation {
    pub(super) fn of(recorded: &Recorded, now: Moment) -> Self {
        let (made, refusal) = match &recorded.verdict {
            Verdict::Routed(made) => (Some(made), None),
            Verdict::Refused { message, .. } => (None, Some(message.clone())),
        };
        let (asked, after) = (&recorded.asked, recorded.after());
        Self {
            summary: Summary::of(recorded, now),
            model: asked.model.to_string(),
            priority: asked.priority,
            body_bytes: asked.body_bytes,
            generation: recorded.generation,
            refusal,
            targets: made
                .map_or_else(Vec::new, |m| m.outcome.primary.iter().map(|p| key(&m.candidates, p)).collect()),
            candidates: made.map_or_else(Vec::new, |m| {
                m.candidates.positions().map(|p| CandidateShown::of(m, p)).collect()
            }),
            profiles: made.map_or_else(Vec::new, |m| profiles(m)),
            shadows: made.map_or_else(Vec::new, |m| shadows(m, &after)),
            after: Ended::of(&after),
        }
    }
}

fn profiles(made: &Made) -> Vec<ProfileShown> {
    let shown = |(name, run): (&std::sync::Arc<str>, Option<&ProfileRun>)| ProfileShown {
        profile: name.to_string(),
        primary: **name == *made.outcome.primary_profile,
        cuts: run.map_or_else(Vec::new, |run| cuts(&made.candidates, &run.decision)),
        scorers: run.map_or_else(Vec::new, |run| {
            let scorer =
                |s: &crate::plugin::ScorerRun| ScorerShown { scorer: s.scorer.to_string(), weight: s.weight };
            run.decision.scorers.iter().map(scorer).collect()
        }),
        ratings: run.map_or_else(Vec::new, |run| ratings(&made.candidates, &run.decision)),
        chosen: run
            .map_or_else(Vec::new, |run| run.targets.iter().map(|p| key(&made.candidates, p)).collect()),
    };
    made.outcome.runs.iter().map(shown).collect()
}

fn shadows(made: &Made, after: &After) -> Vec<ShadowShown> {
    let shown = |pick: &ShadowPick| ShadowShown {
        profile: pick.profile.to_string(),
        chosen: pick.chosen.map(|p| key(&made.candidates, p)),
        same: pick.same,
        cached_tokens: pick.predicted.map(|p| p.shadow),
        real_cached_tokens: pick.predicted.map(|p| p.real),
    };
    after.shadows.iter().map(shown).collect()
}

fn cuts(candidates: &Candidates, decision: &Decision) -> Vec<CutShown> {
    let shown = |(i, cut): (usize, &crate::plugin::Cut)| CutShown {
        filter: cut.filter.to_string(),
        left: cut.left,
        removed: decision.removed_by(i).iter().map(|p| key(candidates, *p)).collect(),
    };
    decision.cuts.iter().enumerate().map(shown).collect()
}

/// Best first; equals in the order of the pool.
fn ratings(candidates: &Candidates, decision: &Decision) -> Vec<RatingShown> {
    let rating = |(i, p): (usize, &Position)| RatingShown {
        endpoint: key(candidates, *p),
        scores: (0..decision.scorers.len())
            .map(|s| decision.scores(s).get(i).copied().unwrap_or_default())
            .collect(),
        total: decision.totals.get(i).copied().unwrap_or_default(),
    };
    let mut all: Vec<_> = decision.shortlist.positions().iter().enumerate().map(rating).collect();
    all.sort_by(|a, b| b.total.total_cmp(&a.total));
    all
}

impl CandidateShown {
    fn of(made: &Made, p: Position) -> Self {
        let candidates = &made.candidates;
        let age = candidates.age_seconds(p);
        Self {
            endpoint: key(candidates, p),
            reading: match candidates.reading(p) {
                Reading::Fresh => "fresh",
                Reading::Stale => "stale",
                Reading::Never => "never",
            }
            .to_owned(),
            age_ms: age.is_finite().then(|| whole(Duration::from_secs_f32(age).as_millis())),
            waiting: candidates.waiting(p),
            running: candidates.running(p),
            kv_usage: candidates.kv_usage(p),
            in_flight_requests: candidates.in_flight_requests(p),
            in_flight_tokens: candidates.in_flight_tokens(p),
            cached_tokens: made.cached_tokens(p),
        }
    }
}

impl Ended {
    fn of(after: &After) -> Self {
        Self {
            served: after.served.as_ref().map(ToString::to_string),
            first_byte_ms: after.first_byte.map(millis),
            duration_ms: after.duration.map(millis),
            prompt_tokens: after.usage.prompt,
            completion_tokens: after.usage.completion,
            ending: after.ending.map(|e| e.as_str().to_owned()),
        }
    }
}
