//! The last decisions, kept for whoever asks why: a ring that is bounded in number and in bytes.
//!
//! A decision is kept as it was made: the frozen candidates, what every filter removed and every scorer said. Nothing is
//! written out until somebody asks, so that a request pays for a lock and a few moves. What happened after the reply is
//! added as it becomes known.

mod explanation;
#[cfg(test)]
mod tests;

pub use explanation::{
    CandidateShown, CutShown, Ended, Explanation, ProfileShown, RatingShown, ScorerShown, ShadowShown,
    Summary,
};

use super::ShadowPick;
use crate::clock::{Clock, Moment};
use crate::endpoint::EndpointKey;
use crate::plugin::{PrefixMatches, SchedulingOutcome};
use crate::pool::{AttributeId, Candidates};
use crate::request::{Ending, InferenceRequest, Usage};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Most decisions; 0 keeps none.
    pub decisions: usize,
    /// Most bytes of all together. The newest one is kept whatever it takes.
    pub bytes: usize,
}

/// What is said of a request, without anything that its body or its headers held.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its id.
    pub id: Arc<str>,
    /// When its headers came.
    pub received: Moment,
    /// The model that was asked for.
    pub model: Arc<str>,
    /// The model that the engine is asked for.
    pub target_model: Arc<str>,
    /// Priority of its objective.
    pub priority: i32,
    /// Estimated prompt tokens.
    pub prompt_tokens: u32,
    /// Size of its body.
    pub body_bytes: usize,
}

impl Asked {
    /// What is said of `request`.
    pub fn of(request: &InferenceRequest) -> Self {
        Self {
            id: Arc::clone(&request.id),
            received: request.received,
            model: request.parsed.model.clone().unwrap_or_default(),
            target_model: Arc::clone(&request.target_model),
            priority: request.priority,
            prompt_tokens: request.prompt_tokens(),
            body_bytes: request.body_bytes,
        }
    }
}

/// A choice as it was made.
#[derive(Debug)]
pub struct Made {
    /// The endpoints with their numbers, and what producers wrote of them.
    pub candidates: Candidates,
    /// Cuts, scores, totals, targets.
    pub outcome: SchedulingOutcome,
    /// Where prefix matches stand in the attributes.
    pub prefix: Option<AttributeId<PrefixMatches>>,
}

impl Made {
    /// About how many bytes it holds on to.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.candidates.len() * ROW_BYTES
    }
}

impl AsRef<Candidates> for Made {
    fn as_ref(&self) -> &Candidates {
        &self.candidates
    }
}

/// What a request came to.
#[derive(Debug)]
pub enum Verdict {
    /// It was routed.
    Routed(Arc<Made>),
    /// It was refused.
    Refused {
        /// Code of the error.
        code: &'static str,
        /// The error.
        message: String,
    },
}

/// What happened after the reply.
#[derive(Clone, Debug, Default)]
pub struct After {
    /// Who served it, when that was not who was chosen.
    pub served: Option<EndpointKey>,
    /// Status of the response.
    pub status: Option<u16>,
    /// From the request's headers to the first byte of the response.
    pub first_byte: Option<Duration>,
    /// From the request's headers to the end.
    pub duration: Option<Duration>,
    /// What the engine reported.
    pub usage: Usage,
    /// How it ended; `None` while it is under way.
    pub ending: Option<Ending>,
    /// What shadow profiles would have done, once they have looked.
    pub shadows: Vec<ShadowPick>,
}

/// One decision.
#[derive(Debug)]
pub struct Recorded {
    /// The request.
    pub asked: Asked,
    /// When the decision was made.
    pub at: Moment,
    /// How long it took, from the whole body to the choice.
    pub took: Duration,
    /// Number of the configuration that made it.
    pub generation: u64,
    /// What it came to.
    pub verdict: Verdict,
    bytes: usize,
    after: Mutex<After>,
}

impl Recorded {
    /// A record; `verdict` is what the request came to.
    pub fn new(asked: Asked, at: Moment, took: Duration, generation: u64, verdict: Verdict) -> Self {
        let bytes = weight(&verdict);
        Self { asked, at, took, generation, verdict, bytes, after: Mutex::default() }
    }

    /// Adds what happened after the reply.
    pub fn happened(&self, change: impl FnOnce(&mut After)) {
        change(&mut self.after.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What happened after the reply, as far as it is known.
    pub fn after(&self) -> After {
        self.after.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Bytes of one candidate's row over all columns, scores of four scorers included.
const ROW_BYTES: usize = 160;

/// About how many bytes a record holds on to.
fn weight(verdict: &Verdict) -> usize {
    let made = if let Verdict::Routed(made) = verdict { made.bytes() } else { 0 };
    size_of::<Recorded>() + made
}

/// The ring.
pub struct Decisions {
    keep: Keep,
    clock: Clock,
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    kept: VecDeque<Arc<Recorded>>,
    bytes: usize,
    made: u64,
}

impl Decisions {
    /// An empty ring that keeps at most `keep`.
    pub fn new(keep: Keep, clock: Clock) -> Self {
        Self { keep, clock, ring: Mutex::default() }
    }

    /// Whether anything is kept at all.
    pub fn is_on(&self) -> bool {
        self.keep.decisions > 0
    }

    /// Keeps a decision; the oldest ones give way.
    pub fn push(&self, recorded: Recorded) -> Arc<Recorded> {
        let recorded = Arc::new(recorded);
        let mut gone = Vec::new();
        {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.made += 1;
            ring.bytes += recorded.bytes;
            ring.kept.push_back(Arc::clone(&recorded));
            while ring.kept.len() > self.keep.decisions.max(1)
                || (ring.bytes > self.keep.bytes && ring.kept.len() > 1)
            {
                let Some(oldest) = ring.kept.pop_front() else { break };
                ring.bytes -= oldest.bytes;
                gone.push(oldest);
            }
        }
        // Freed outside of the lock: a record of a large pool takes a while.
        drop(gone);
        recorded
    }

    /// How many decisions were made since the start, kept or not.
    pub fn made(&self) -> u64 {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).made
    }

    /// The newest decisions first, at most `most`.
    pub fn newest(&self, most: usize) -> Vec<Summary> {
        let kept: Vec<_> = {
            let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.kept.iter().rev().take(most).map(Arc::clone).collect()
        };
        let now = self.clock.now();
        kept.iter().map(|recorded| Summary::of(recorded, now)).collect()
    }

    /// The newest decision on the request `id`.
    pub fn explain(&self, id: &str) -> Option<Explanation> {
        let found = {
            let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.kept.iter().rev().find(|r| *r.asked.id == *id).map(Arc::clone)
        };
        found.map(|recorded| Explanation::of(&recorded, self.clock.now()))
    }
}

impl fmt::Debug for Decisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decisions").field("keep", &self.keep).finish_non_exhaustive()
    }
}
