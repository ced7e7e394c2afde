//! `burst-prefix-cache-producer`: requests that come together with the same prompt go together, before any cache can
//! know of them.
//!
//! Requests that arrive within a window are held until it closes (or until `maxBatchSize` have come) and are assigned at
//! once: those with the same prompt as a group, the longest group first, each to the replica with the least of this burst so
//! far. The outcome is a full prefix match on the assigned endpoint, for a `prefix-cache-scorer`
//! that names this producer; other plugins and profiles still have their say. A request without a readable prompt does not
//! wait, nor does one longer than its `x-request-timeout`.
//!
//! ```yaml
//! - type: burst-prefix-cache-producer
//!   parameters:
//!     windowDurationMs: 100              # milliseconds, 1 to 10000: what a request may wait
//!     maxPerReplica: -1                  # of one group in a row; -1 is all of them
//!     blockSizeTokens: 64
//!     maxPrefixTokensToMatch: 0          # tokens; 0 is 2048 blocks
//!     minColocateBlocks: 0               # blocks that groups must share to go together; 0 is never
//!     maxBatchSize: 1000                 # requests; -1 is 65536
//!     balanceBy: requests                # or tokens
//! ```

mod assign;

use crate::clock::{Clock, Moment};
use crate::endpoint::Occupant;
use crate::kv::chain::chains;
use crate::plugin::{
    BuildContext, BuildError, DataProducer, Held, Hold, PluginType, PrefixMatches, ProduceError, Roles,
    Stability,
};
use crate::pool::{AttributeId, Candidates};
use crate::request::InferenceRequest;
use crate::telemetry::names;
use assign::{Rules, assign};
use metrics::Counter;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh64::xxh64;

pub(super) const TYPE: PluginType =
    PluginType { name: "burst-prefix-cache-producer", stability: Stability::Alpha, build };

/// Blocks that count where the configuration gives no cap in tokens.
const DEFAULT_BLOCKS: u32 = 2048;
/// Requests of one window when the configuration gives no cap.
const MOST: usize = 65_536;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    window_duration_ms: u64,
    max_per_replica: i64,
    block_size_tokens: u32,
    max_prefix_tokens_to_match: u32,
    min_colocate_blocks: u32,
    max_batch_size: i64,
    balance_by: Balance,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Balance {
    Requests,
    Tokens,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            window_duration_ms: 100,
            max_per_replica: -1,
            block_size_tokens: 64,
            max_prefix_tokens_to_match: 0,
            min_colocate_blocks: 0,
            max_batch_size: 1000,
            balance_by: Balance::Requests,
        }
    }
}

/// The parameters in force.
#[derive(Clone, Copy, Debug)]
struct Settings {
    window: Duration,
    block_tokens: u32,
    most_blocks: u32,
    most_requests: usize,
    rules: Rules,
}

struct BurstPrefixCache {
    settings: Settings,
    open: Arc<Open>,
    held: Counter,
    clock: Clock,
    matches: AttributeId<PrefixMatches>,
}

/// The window that is open.
#[derive(Default)]
struct Open(Mutex<Option<Arc<Batch>>>);

/// The requests of one window.
struct Batch {
    closes: Moment,
    /// Closed before its time because it is full.
    full: CancellationToken,
    chains: Mutex<Vec<Vec<u64>>>,
    /// Where each goes, worked out once by the first that asks.
    assigned: OnceLock<Vec<Option<Occupant>>>,
}

/// One request's place in a batch.
struct Ticket {
    batch: Arc<Batch>,
    index: usize,
    blocks: u32,
}

fn settings(written: &Parameters) -> Result<Settings, BuildError> {
    let refuse = |told: &str| Err(BuildError::Parameters(told.to_owned()));
    if !(1..=10_000).contains(&written.window_duration_ms) {
        return refuse("`windowDurationMs` must be from 1 to 10000");
    }
    if written.block_size_tokens == 0 {
        return refuse("`blockSizeTokens` must be greater than 0");
    }
    let limit = |value: i64| match value {
        -1 => Some(None),
        value => usize::try_from(value).ok().filter(|n| *n > 0).map(Some),
    };
    let Some(most) = limit(written.max_per_replica) else {
        return refuse("`maxPerReplica` must be greater than 0, or -1 for no limit");
    };
    let Some(batch) = limit(written.max_batch_size) else {
        return refuse("`maxBatchSize` must be greater than 0, or -1 for no limit");
    };
    let most_blocks = match written.max_prefix_tokens_to_match {
        0 => DEFAULT_BLOCKS,
        tokens => tokens / written.block_size_tokens,
    };
    let colocate = written.min_colocate_blocks as usize;
    let by_tokens = written.balance_by == Balance::Tokens;
    Ok(Settings {
        window: Duration::from_millis(written.window_duration_ms),
        block_tokens: written.block_size_tokens,
        most_blocks,
        most_requests: batch.unwrap_or(MOST).min(MOST),
        rules: Rules { most, colocate, by_tokens },
    })
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written: Parameters = ctx.settings()?;
    let settings = settings(&written)?;
    let fingerprint = xxh64(format!("{written:?}").as_bytes(), 0);
    let plugin = Arc::new(BurstPrefixCache {
        settings,
        open: ctx.state.get_or_insert(ctx.name, fingerprint, Open::default),
        held: metrics::counter!(names::HELD, "plugin_name" => ctx.name.to_string()),
        clock: ctx.clock.clone(),
        matches: ctx.produces(PrefixMatches::KIND),
    });
    Ok(Roles { hold: Some(Arc::clone(&plugin) as Arc<dyn Hold>), producer: Some(plugin), ..Roles::default() })
}

impl Open {
    /// Puts a chain into the window that is open, or opens one.
    fn join(&self, chain: Vec<u64>, now: Moment, settings: &Settings) -> Ticket {
        let blocks = u32::try_from(chain.len()).unwrap_or(u32::MAX);
        let mut open = self.0.lock();
        let usable = open.take().filter(|b| now < b.closes && !b.full.is_cancelled());
        let batch = usable.unwrap_or_else(|| {
            Arc::new(Batch {
                closes: now.plus(settings.window),
                full: CancellationToken::new(),
                chains: Mutex::default(),
                assigned: OnceLock::new(),
            })
        });
        let mut chains = batch.chains.lock();
        chains.push(chain);
        let index = chains.len() - 1;
        if chains.len() >= settings.most_requests {
            batch.full.cancel();
        }
        drop(chains);
        *open = Some(Arc::clone(&batch));
        Ticket { batch, index, blocks }
    }
}

impl Batch {
    fn place(&self, index: usize, candidates: &Candidates, rules: Rules) -> Option<Occupant> {
        let work = || {
            let to = assign(&self.chains.lock(), candidates.len(), rules);
            to.into_iter().map(|replica| candidates.occupants().get(replica?).copied()).collect()
        };
        self.assigned.get_or_init(work).get(index).copied().flatten()
    }
}

impl Hold for BurstPrefixCache {
    fn enter(&self, request: &InferenceRequest) -> Option<Held> {
        let parsed = &request.parsed;
        let (salt, tokens) = (parsed.cache_salt.as_ref(), self.settings.block_tokens);
        let all = chains(&parsed.prompt, &request.target_model, salt, tokens, self.settings.most_blocks);
        let chain = all.into_iter().next()?;
        self.held.increment(1);
        let ticket = Arc::new(self.open.join(chain, self.clock.now(), &self.settings));
        let batch = Arc::clone(&ticket.batch);
        Some(Held { ticket, until: batch.closes, early: batch.full.clone() })
    }
}

impl DataProducer for BurstPrefixCache {
    fn produce(&self, request: &InferenceRequest, candidates: &mut Candidates) -> Result<(), ProduceError> {
        let held = request.wishes.ticket.as_ref().and_then(|any| any.downcast_ref::<Ticket>());
        let Some(ticket) = held else { return Ok(()) };
        let place = ticket.batch.place(ticket.index, candidates, self.settings.rules);
        let matched = |o: &Occupant| if Some(*o) == place { ticket.blocks } else { 0 };
        let found = PrefixMatches {
            total_blocks: ticket.blocks,
            block_tokens: self.settings.block_tokens,
            matched_blocks: candidates.occupants().iter().map(matched).collect(),
            chains: Default::default(),
        };
        candidates.attributes.set(self.matches, found);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, request};
    use super::*;
    use crate::request::Prompt;
    use serde_json::json;

    fn ask(prompt: &[u32]) -> InferenceRequest {
        request("m", Prompt::Tokens(vec![prompt.to_vec()]))
    }

    #[test]
    fn requests_of_one_window_go_together() {
        let fixture = Fixture::new();
        let roles = fixture.build(&TYPE, json!({"blockSizeTokens": 2})).unwrap();
        let (hold, producer) = (roles.hold.unwrap(), roles.producer.unwrap());
        let id = fixture.attribute::<PrefixMatches>(PrefixMatches::KIND, TYPE.name);
        let closes = fixture.clock.now().plus(Duration::from_millis(100));
        let prompts = [[1, 2, 3, 4], [9, 9, 9, 9], [1, 2, 3, 4], [9, 9, 9, 9], [5, 6, 7, 8]];
        let held = prompts.iter().map(|prompt| {
            let mut request = ask(prompt);
            let held = hold.enter(&request).unwrap();
            assert_eq!((held.until, held.early.is_cancelled()), (closes, false));
            request.wishes.ticket = Some(held.ticket);
            fixture.clock.advance(Duration::from_millis(10));
            request
        });
        let held: Vec<_> = held.collect();
        assert!(hold.enter(&request("m", Prompt::None)).is_none(), "nothing to compare");
        let mut matched = Vec::new();
        for request in &held {
            let mut candidates = fixture.candidates(3);
            producer.produce(request, &mut candidates).unwrap();
            matched.push(candidates.attributes.get(id).unwrap().matched_blocks.clone());
        }
        let (first, second) = (vec![2, 0, 0], vec![0, 2, 0]);
        assert_eq!(matched, [first.clone(), second.clone(), first, second, vec![0, 0, 0]]);
        fixture.clock.advance(Duration::from_millis(50));
        assert!(hold.enter(&ask(&[1])).unwrap().until > closes, "that window is over");
    }

    #[test]
    fn a_full_window_closes_at_once_and_the_next_request_opens_another() {
        let fixture = Fixture::new();
        let hold = fixture.build(&TYPE, json!({"maxBatchSize": 2})).unwrap().hold.unwrap();
        let a = hold.enter(&ask(&[1])).unwrap();
        assert!(!a.early.is_cancelled());
        let b = hold.enter(&ask(&[1])).unwrap();
        assert!(a.early.is_cancelled() && b.early.is_cancelled());
        assert!(!hold.enter(&ask(&[1])).unwrap().early.is_cancelled());
    }

    #[test]
    fn a_request_that_was_not_held_is_left_alone() {
        let fixture = Fixture::new();
        let producer = fixture.build(&TYPE, json!({})).unwrap().producer.unwrap();
        let mut candidates = fixture.candidates(2);
        producer.produce(&ask(&[1]), &mut candidates).unwrap();
        let id = fixture.attribute::<PrefixMatches>(PrefixMatches::KIND, TYPE.name);
        assert!(candidates.attributes.get(id).is_none());
    }

    #[test]
    fn parameters_of_the_catalogue() {
        let refused = [
            json!({"windowDurationMs": 0}),
            json!({"windowDurationMs": 10_001}),
            json!({"maxPerReplica": 0}),
            json!({"maxPerReplica": -2}),
            json!({"blockSizeTokens": 0}),
            json!({"maxBatchSize": 0}),
            json!({"balanceBy": "bogus"}),
        ];
        let fixture = Fixture::new();
        for parameters in refused {
            assert!(fixture.build(&TYPE, parameters.clone()).is_err(), "{parameters}");
        }
        for parameters in [json!({}), json!({"maxBatchSize": -1, "balanceBy": "tokens", "maxPerReplica": 3})]
        {
            assert!(fixture.build(&TYPE, parameters.clone()).is_ok(), "{parameters}");
        }
    }
}
