//! What the response tells of the decision, where a flag or a trusted header asks for it.

use super::Plan;
use crate::plugin::HeaderEdits;
use crate::pool::{Candidates, Position};
use crate::request::{InferenceRequest, Stage, StageTimes, names};
use std::sync::Arc;
use std::time::Duration;

/// The answers to one request.
#[derive(Debug)]
pub(super) struct Answers {
    pod: String,
    /// Tokens of the prompt that the chosen endpoint was believed to hold; `None` without a prefix producer.
    cached_tokens: Option<u64>,
    scheduling: Duration,
    stages: Arc<StageTimes>,
}

impl Answers {
    /// The answers, when the request is to have any. `chosen` is where it goes.
    pub(super) fn of(
        plan: &Plan,
        request: &InferenceRequest,
        candidates: &Candidates,
        chosen: Position,
        scheduling: Duration,
    ) -> Option<Self> {
        let stages = Arc::clone(request.wishes.stages.as_ref()?);
        let matches = plan.prefix.and_then(|id| candidates.attributes.get(id));
        let tokens = |blocks: u32, each: u32| u64::from(blocks) * u64::from(each);
        Some(Self {
            pod: candidates.endpoint(chosen).key.to_string(),
            cached_tokens: matches.map(|m| tokens(m.matched(chosen), m.block_tokens)),
            scheduling,
            stages,
        })
    }

    /// Puts the answers into the response's headers.
    pub(super) fn write(&self, request_id: &str, edits: &mut HeaderEdits) {
        edits.set(names::REQUEST_ID, request_id.to_owned());
        edits.set(names::SELECTED_POD, self.pod.clone());
        if let Some(tokens) = self.cached_tokens {
            edits.set(names::CACHE_HIT, if tokens > 0 { "true" } else { "false" });
            edits.set(names::CACHE_PREFIX_LENGTH, tokens.to_string());
        }
        let times = [
            (names::SCHEDULING_TIME_MS, self.scheduling),
            (names::FILTER_TIME_MS, self.stages.of(Stage::Filter)),
            (names::SCORER_TIME_MS, self.stages.of(Stage::Score)),
        ];
        for (name, time) in times {
            edits.set(name, format!("{:.3}", time.as_secs_f64() * 1000.0));
        }
    }
}
