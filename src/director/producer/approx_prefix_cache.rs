//! `approx-prefix-cache-producer`: how much of the prompt each candidate holds in its prefix cache, as far as can be
//! assumed from the requests that went there.
//!
//! The prompt becomes a chain of block hashes ([`crate::kv::chain`]); a lookup in the process's [`PrefixIndex`] counts
//! for each candidate the leading blocks that it holds. When a request leaves, its chain is recorded for the first target
//! of the primary profile and of the profile `prefill`. Nothing is taken back when the request fails.
//!
//! Blocks count from the first one on without a gap, where the reference also counts blocks after a gap: an engine
//! cannot use those. Capacity is in blocks of this producer: what the engine's own cache holds, in tokens, divided by
//! the effective block size.
//!
//! ```yaml
//! - type: approx-prefix-cache-producer
//!   parameters:
//!     autoTune: true                 # block size and capacity from the engines' cache geometry where it is known
//!     blockSizeTokens: 16            # effective sizes under 64 are raised to 64; text is in steps of 64
//!     maxPrefixTokensToMatch: 131072
//!     maxPrefixBlocksToMatch: 2048   # used when the cap in tokens is 0; 0 is no cap
//!     lruCapacityPerServer: 31250    # blocks; where the engine does not say
//!     blockSize: 16                  # older name of blockSizeTokens
//! ```

use crate::endpoint::{CacheGeometry, Incarnation, Occupant};
use crate::kv::chain::{BASE_BLOCK_TOKENS, chains_into};
use crate::kv::index::{IndexChange, IndexDelta, IndexSource, PrefixIndex, Space, Tier};
use crate::plugin::{
    BuildContext, BuildError, DataProducer, Departure, HeaderEdits, PluginType, PreRequest, PrefixMatches,
    ProduceError, Roles, Stability, StateStore,
};
use crate::pool::{AttributeId, Candidates, Columns, PoolSnapshot, Position};
use crate::request::{BYTES_PER_TOKEN, InferenceRequest, Prompt};
use crate::reuse::Reused;
use crate::telemetry::names;
use metrics::{Gauge, Histogram};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use xxhash_rust::xxh64::xxh64;

pub(super) const TYPE: PluginType =
    PluginType { name: PrefixMatches::PRODUCER, stability: Stability::Beta, build };

const DEFAULT_BLOCK_TOKENS: u32 = 16;
const LEAST_BLOCK_TOKENS: u32 = 64;
const DEFAULT_CAPACITY: NonZeroU32 = match NonZeroU32::new(31_250) {
    Some(blocks) => blocks,
    None => NonZeroU32::MIN,
};
/// Profile whose first target holds the prompt's blocks besides the primary one.
const PREFILL_PROFILE: &str = "prefill";

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    auto_tune: bool,
    block_size_tokens: u32,
    #[serde(skip_serializing)]
    block_size: Option<u32>,
    max_prefix_tokens_to_match: u32,
    max_prefix_blocks_to_match: u32,
    lru_capacity_per_server: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            auto_tune: true,
            block_size_tokens: DEFAULT_BLOCK_TOKENS,
            block_size: None,
            max_prefix_tokens_to_match: 131_072,
            max_prefix_blocks_to_match: 2048,
            lru_capacity_per_server: 0,
        }
    }
}

/// The parameters in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    auto_tune: bool,
    block_tokens: u32,
    max_tokens: u32,
    max_blocks: u32,
    capacity: NonZeroU32,
}

impl Settings {
    fn new(written: &Parameters) -> Result<Self, BuildError> {
        let older = written.block_size.filter(|_| written.block_size_tokens == DEFAULT_BLOCK_TOKENS);
        let block_tokens = older.unwrap_or(written.block_size_tokens);
        if block_tokens == 0 && !written.auto_tune {
            return Err(BuildError::Parameters(
                "`blockSizeTokens` must be greater than 0 when `autoTune` is false".to_owned(),
            ));
        }
        let capacity = u32::try_from(written.lru_capacity_per_server).ok().and_then(NonZeroU32::new);
        Ok(Self {
            auto_tune: written.auto_tune,
            block_tokens,
            max_tokens: written.max_prefix_tokens_to_match,
            max_blocks: written.max_prefix_blocks_to_match,
            capacity: capacity.unwrap_or(DEFAULT_CAPACITY),
        })
    }

    /// Tokens in one block for a request: the engines' size when they say one, at least 64, and for text in steps of the
    /// blocks that it is hashed in.
    fn effective_block_tokens(&self, prompt: &Prompt, said: Option<u32>) -> u32 {
        let wanted = said.filter(|tokens| self.auto_tune && *tokens > 0).unwrap_or(self.block_tokens);
        let raised = wanted.max(LEAST_BLOCK_TOKENS);
        match prompt {
            Prompt::Text(_) => raised.next_multiple_of(BASE_BLOCK_TOKENS),
            Prompt::Blocks { block_tokens, .. } => *block_tokens,
            Prompt::None | Prompt::Tokens(_) => raised,
        }
    }

    fn most_blocks(&self, block_tokens: u32) -> u32 {
        match (self.max_tokens, self.max_blocks) {
            (0, 0) => u32::MAX,
            (0, blocks) => blocks,
            (tokens, _) => tokens / block_tokens.max(1),
        }
    }

    fn capacity(&self, engine: Option<CacheGeometry>, block_tokens: u32) -> NonZeroU32 {
        let tokens = engine.map_or(0, |g| u64::from(g.block_tokens) * u64::from(g.blocks));
        let blocks = u32::try_from(tokens / u64::from(block_tokens.max(1))).unwrap_or(u32::MAX);
        NonZeroU32::new(blocks).filter(|_| self.auto_tune).unwrap_or(self.capacity)
    }
}

struct ApproxPrefixCache {
    settings: Settings,
    index: Arc<PrefixIndex>,
    space: Space,
    seen: Arc<SeenGeneration>,
    matches: AttributeId<PrefixMatches>,
    series: Series,
}

/// What this producer reports, as handles that were resolved once.
struct Series {
    blocks: Gauge,
    entries: Gauge,
    bytes: Gauge,
    hit_ratio: Histogram,
    hit_bytes: Histogram,
}

impl Series {
    fn new(plugin: &str) -> Self {
        let labels = || [("plugin_name", plugin.to_owned()), ("plugin_type", TYPE.name.to_owned())];
        Self {
            blocks: metrics::gauge!(names::PREFIX_SIZE, &labels()),
            entries: metrics::gauge!(names::PREFIX_ENTRIES),
            bytes: metrics::gauge!(names::PREFIX_BYTES),
            hit_ratio: metrics::histogram!(names::PREFIX_HIT_RATIO, &labels()),
            hit_bytes: metrics::histogram!(names::PREFIX_HIT_BYTES, &labels()),
        }
    }

    fn size(&self, index: &PrefixIndex) {
        let size = index.size();
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        for (gauge, value) in
            [(&self.blocks, size.blocks), (&self.entries, size.entries), (&self.bytes, size.bytes)]
        {
            gauge.set(value as f64);
        }
    }

    fn hit(&self, matches: &PrefixMatches, target: Position) {
        if matches.total_blocks > 0 {
            let tokens = f64::from(matches.matched(target)) * f64::from(matches.block_tokens);
            self.hit_ratio.record(matches.ratio(target));
            self.hit_bytes.record(tokens * BYTES_PER_TOKEN as f64);
        }
    }
}

/// The last snapshot whose endpoints the index was compared with.
#[derive(Default)]
struct SeenGeneration(AtomicU64);

/// The process's approximate index in `state`, bounded by `max_bytes`: the one that all producers share.
pub fn index(state: &StateStore, max_bytes: usize) -> Arc<PrefixIndex> {
    state.get_or_insert("approximate prefix index", max_bytes as u64, || PrefixIndex::new(max_bytes))
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let settings = Settings::new(&ctx.settings()?)?;
    ctx.in_force("lruCapacityPerServer", settings.capacity.get());
    if settings.block_tokens < LEAST_BLOCK_TOKENS && !settings.auto_tune {
        let written = settings.block_tokens;
        ctx.notice(format!("blocks of {written} tokens are raised to {LEAST_BLOCK_TOKENS}"));
    }
    ctx.reads(Columns { cache: true, ..Columns::default() });
    let producer = Arc::new(ApproxPrefixCache {
        settings,
        index: index(ctx.state, ctx.prefix_index_bytes),
        space: Space(xxh64(ctx.name.as_bytes(), 0)),
        seen: ctx.state.get_or_insert(ctx.name, 0, SeenGeneration::default),
        matches: ctx.produces(PrefixMatches::KIND),
        series: Series::new(ctx.name),
    });
    Ok(Roles {
        producer: Some(Arc::clone(&producer) as Arc<dyn DataProducer>),
        pre_request: Some(producer),
        ..Roles::default()
    })
}

impl ApproxPrefixCache {
    /// Drops what belongs to endpoints that are gone, once for each snapshot.
    fn follow(&self, pool: &PoolSnapshot) {
        if self.seen.0.fetch_max(pool.generation, Relaxed) >= pool.generation {
            return;
        }
        let mut live: Vec<Option<Incarnation>> = Vec::new();
        for Occupant { slot, incarnation } in pool.endpoints.iter().map(|e| e.occupant()) {
            let slot = slot.0 as usize;
            if live.len() <= slot {
                live.resize(slot + 1, None);
            }
            live[slot] = Some(incarnation);
        }
        self.index.retain(self.space, |o| live.get(o.slot.0 as usize) == Some(&Some(o.incarnation)));
    }

    fn record(&self, candidates: &Candidates, matches: &PrefixMatches, target: Position) {
        let capacity = self.settings.capacity(candidates.cache(target), matches.block_tokens);
        for blocks in matches.chains.iter() {
            self.index.apply(&IndexDelta {
                space: self.space,
                occupant: candidates.occupant(target),
                source: IndexSource::Assumed,
                sequence: 0,
                change: IndexChange::Store { tier: Tier::Device, blocks, capacity: Some(capacity) },
            });
        }
    }
}

impl DataProducer for ApproxPrefixCache {
    fn produce(&self, request: &InferenceRequest, candidates: &mut Candidates) -> Result<(), ProduceError> {
        self.follow(candidates.snapshot());
        let prompt = &request.parsed.prompt;
        let said = candidates.positions().find_map(|p| candidates.cache(p).map(|g| g.block_tokens));
        let block_tokens = self.settings.effective_block_tokens(prompt, said);
        let most = self.settings.most_blocks(block_tokens);
        let mut found = candidates.attributes.spare(self.matches);
        let salt = request.parsed.cache_salt.as_ref();
        found.chains = Reused::take();
        chains_into(prompt, &request.target_model, salt, block_tokens, most, &mut found.chains.0);
        found.matched_blocks.clear();
        found.matched_blocks.resize(candidates.len(), 0);
        for chain in found.chains.iter() {
            self.index.lookup(self.space, candidates.occupants(), chain, &mut found.matched_blocks);
        }
        let total = found.chains.iter().map(Vec::len).sum::<usize>();
        found.total_blocks = u32::try_from(total).unwrap_or(u32::MAX);
        found.block_tokens = block_tokens;
        candidates.attributes.set(self.matches, found);
        Ok(())
    }
}

impl PreRequest for ApproxPrefixCache {
    fn before_send(&self, departure: &Departure<'_>, _: &mut HeaderEdits) {
        let Some(matches) = departure.candidates.attributes.get(self.matches) else { return };
        let primary = departure.outcome.primary.first();
        self.series.hit(matches, primary);
        self.record(departure.candidates, matches, primary);
        let prefill = departure.outcome.runs.get(PREFILL_PROFILE).map(|run| run.targets.first());
        if let Some(prefill) = prefill.filter(|p| *p != primary) {
            self.record(departure.candidates, matches, prefill);
        }
        self.series.size(&self.index);
    }
}

#[cfg(test)]
mod tests;
