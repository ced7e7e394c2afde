//! Profiles that are only watched: once the reply is out they are run over what the request was decided on, and where
//! they would have chosen otherwise is counted.
//!
//! A shadow's choice is nobody's: no reservation, no hook, no session comes of it. It sees the very numbers and the very
//! random numbers of the real choice, so that equal profiles choose alike; but a plugin that real profiles share has by then
//! learnt of the real choice. What it needs is what the decision left behind
//! (the plan, the request without its body, the frozen candidates), so that it can be run at any time; a bounded queue
//! holds that until a thread of its own comes by.

mod queue;

pub use queue::Shadows;

use super::Plan;
use super::decision_log;
use super::decisions::{Made, Recorded};
use crate::plugin::{DataProducer, Departure, HeaderEdits, PreRequest, PrefixMatches};
use crate::pool::{Candidates, Position};
use crate::request::InferenceRequest;
use crate::scheduling::Profile;
use crate::telemetry::names;
use metrics::Counter;
use std::fmt;
use std::sync::Arc;

type Named<T> = Vec<(Arc<str>, Arc<T>)>;

/// The shadow profiles of a plan, and what only they need.
pub struct Shadow {
    watched: Vec<Watched>,
    /// Producers whose attributes only these profiles read.
    producers: Named<dyn DataProducer>,
    /// What these producers learn of where requests really go.
    witnesses: Named<dyn PreRequest>,
    dropped: Counter,
}

struct Watched {
    profile: Profile,
    series: Series,
}

/// What a shadow profile would have done with one request.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowPick {
    /// Its name.
    pub profile: Arc<str>,
    /// The endpoint that it prefers, among the candidates of the decision; `None` where its filters left none.
    pub chosen: Option<Position>,
    /// Whether that is where the request went.
    pub same: bool,
    /// What was believed to be cached, where a producer says it.
    pub predicted: Option<Predicted>,
}

/// Prompt tokens that endpoints were believed to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predicted {
    /// In whole blocks of the prompt.
    pub prompt: u64,
    /// At the shadow's choice.
    pub shadow: u64,
    /// Where the request went.
    pub real: u64,
}

/// A decision that shadow profiles have yet to look at.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) plan: Arc<Plan>,
    pub(super) request: Arc<InferenceRequest>,
    pub(super) made: Arc<Made>,
    pub(super) record: Option<Arc<Recorded>>,
    /// As they were before the real profiles used them.
    pub(super) rng: fastrand::Rng,
}

impl Work {
    /// About how many bytes it holds on to: what is left of a request is seldom more than its body.
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.made.bytes()
            + self.request.body_bytes.max(decision_log::weight(&self.request))
    }

    /// Runs the shadow profiles, counts, and adds what they say to the record.
    fn carry_out(self) {
        let Some(shadow) = &self.plan.shadow else { return };
        let picks = shadow.rehearse(&self);
        if let Some(record) = &self.record {
            record.happened(|after| after.shadows = picks);
        }
    }

    /// Counts that there was no room for it.
    fn give_up(self) {
        Self::count_dropped(&self.plan);
    }

    fn count_dropped(plan: &Plan) {
        if let Some(shadow) = &plan.shadow {
            shadow.dropped.increment(1);
        }
    }
}

impl Shadow {
    /// The shadow `profiles` with the `producers` that only they need and what these learn when a request leaves. `None`
    /// without a profile. Make it where the plan's metrics are counted.
    pub fn new(
        profiles: Vec<Profile>,
        producers: Named<dyn DataProducer>,
        witnesses: Named<dyn PreRequest>,
    ) -> Option<Self> {
        let watched = |profile: Profile| Watched { series: Series::new(&profile.name), profile };
        (!profiles.is_empty()).then(|| Self {
            watched: profiles.into_iter().map(watched).collect(),
            producers,
            witnesses,
            dropped: metrics::counter!(names::SHADOW_DROPPED),
        })
    }

    /// The profiles in order of the configuration.
    pub fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.watched.iter().map(|w| &w.profile)
    }

    fn rehearse(&self, work: &Work) -> Vec<ShadowPick> {
        let over = (!self.producers.is_empty()).then(|| self.produce(work));
        let candidates = over.as_ref().unwrap_or(&work.made.candidates);
        let real = work.made.outcome.primary.first();
        let matches = work.plan.prefix.and_then(|id| candidates.attributes.get(id));
        let look = |watched: &Watched| {
            let mut rng = work.rng.clone();
            let run = watched.profile.rehearse(&work.request, candidates, &mut rng).ok();
            let chosen = run.map(|run| run.targets.first());
            let predicted = matches.zip(chosen).map(|(m, chosen)| Predicted::of(m, chosen, real));
            let name = Arc::clone(&watched.profile.name);
            let pick = ShadowPick { profile: name, chosen, same: chosen == Some(real), predicted };
            watched.series.count(&pick, candidates, real);
            pick
        };
        let picks = self.watched.iter().map(look).collect();
        let departure = Departure { request: &work.request, candidates, outcome: &work.made.outcome };
        for (_, witness) in &self.witnesses {
            witness.before_send(&departure, &mut HeaderEdits::default());
        }
        picks
    }

    /// The candidates of the decision with the attributes that only shadow profiles read.
    fn produce(&self, work: &Work) -> Candidates {
        let mut over = Candidates::over(Arc::clone(&work.made) as Arc<_>);
        for (name, producer) in &self.producers {
            if let Err(problem) = producer.produce(&work.request, &mut over) {
                tracing::warn!(producer = %name, %problem, "a data producer of shadow profiles gave nothing");
            }
        }
        over
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let producers: Vec<_> = self.producers.iter().map(|(name, _)| &**name).collect();
        let profiles: Vec<_> = self.profiles().collect();
        f.debug_struct("Shadow")
            .field("profiles", &profiles)
            .field("producers", &producers)
            .finish_non_exhaustive()
    }
}

impl Predicted {
    fn of(matches: &PrefixMatches, shadow: Position, real: Position) -> Self {
        let tokens = |blocks: u32| u64::from(blocks) * u64::from(matches.block_tokens);
        Self {
            prompt: tokens(matches.total_blocks),
            shadow: tokens(matches.matched(shadow)),
            real: tokens(matches.matched(real)),
        }
    }
}

/// What is counted of one profile.
struct Series {
    same: Counter,
    different: Counter,
    none: Counter,
    prompt: Counter,
    cached: Pair,
    in_flight: Pair,
}

/// A number at the shadow's choice and where requests went.
struct Pair {
    shadow: Counter,
    real: Counter,
}

impl Pair {
    fn new(family: &'static str, profile: &str) -> Self {
        let of =
            |pick: &'static str| metrics::counter!(family, "profile" => profile.to_owned(), "pick" => pick);
        Self { shadow: of("shadow"), real: of("real") }
    }

    fn add(&self, shadow: u64, real: u64) {
        self.shadow.increment(shadow);
        self.real.increment(real);
    }
}

impl Series {
    fn new(profile: &str) -> Self {
        let outcome = |outcome: &'static str| metrics::counter!(names::SHADOW_DECISIONS, "profile" => profile.to_owned(), "outcome" => outcome);
        Self {
            same: outcome("same"),
            different: outcome("different"),
            none: outcome("none"),
            prompt: metrics::counter!(names::SHADOW_PROMPT, "profile" => profile.to_owned()),
            cached: Pair::new(names::SHADOW_CACHED, profile),
            in_flight: Pair::new(names::SHADOW_IN_FLIGHT, profile),
        }
    }

    /// Sums are over the decisions in which the profile had a choice, so that both sides are of the same requests.
    fn count(&self, pick: &ShadowPick, candidates: &Candidates, real: Position) {
        let Some(chosen) = pick.chosen else { return self.none.increment(1) };
        if pick.same { &self.same } else { &self.different }.increment(1);
        let in_flight = |p: Position| u64::from(candidates.in_flight_requests(p));
        self.in_flight.add(in_flight(chosen), in_flight(real));
        if let Some(predicted) = pick.predicted {
            self.prompt.increment(predicted.prompt);
            self.cached.add(predicted.shadow, predicted.real);
        }
    }
}
