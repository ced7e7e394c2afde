//! The engine as a pure event-driven model: continuous batching over a paged, prefix-cached KV store.
//!
//! It holds no clock, does no IO and draws no randomness but from its own seeded generator: the caller says what time it is.
//! The same calls with the same times give the same events. A real-time driver (`sim::driver`) and a replay on a virtual
//! clock use it alike:
//!
//! 1. [`Engine::submit`] and [`Engine::cancel`] at the current time;
//! 2. [`Engine::next_event`] says when something happens next;
//! 3. [`Engine::advance`] to that time (or any later one) appends what happened.

mod blocks;
mod latency;
mod request;
mod step;
#[cfg(test)]
mod tests;
mod time;
mod timed;
#[cfg(test)]
mod trace_tests;

use std::collections::{BTreeMap, HashMap};

pub use blocks::BlockPool;
pub use latency::{Gaussian, Latency, StepCost, TimedCost};
pub use request::{
    AdapterId, BlockKeys, Event, EventKind, FinishReason, Refusal, Request, RequestId, Summary,
};
pub use time::Time;

use request::Seq;

/// What an engine is made of. All sizes are in tokens, sequences or blocks.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Tokens of one KV block; at least 1.
    pub block_size: u32,
    /// KV blocks in all; at least 1.
    pub num_blocks: u32,
    /// Sequences that may run at once.
    pub max_num_seqs: u32,
    /// Tokens computed in one step, prefill and decode together.
    pub max_num_batched_tokens: u32,
    /// Longest prompt plus output that is accepted.
    pub max_model_len: u32,
    /// Requests that may wait; one more is refused with [`Refusal::QueueFull`].
    pub max_waiting: u32,
    /// Different adapters that may run at once.
    pub max_loras: u32,
    /// Whether full blocks are kept for later requests.
    pub prefix_caching: bool,
    /// Whether [`EventKind::BlockStored`] and [`EventKind::BlockRemoved`] are reported.
    pub block_events: bool,
    /// Whether a [`EventKind::Token`] is reported for every token after the first.
    pub token_events: bool,
    /// How long things take.
    pub latency: Latency,
    /// Seed of the only randomness there is: the spread of [`Latency::Timed`].
    pub seed: u64,
}

impl Default for EngineConfig {
    /// An 8B model on one 80 GB H100: 400,000 tokens of KV cache, vLLM's usual limits.
    fn default() -> Self {
        Self {
            block_size: 16,
            num_blocks: 25_000,
            max_num_seqs: 256,
            max_num_batched_tokens: 8192,
            max_model_len: 131_072,
            max_waiting: 1000,
            max_loras: 1,
            prefix_caching: true,
            block_events: false,
            token_events: true,
            latency: Latency::default(),
            seed: 0,
        }
    }
}

/// Order of the waiting queue: lower priority value first, then by arrival. A preempted request keeps its arrival.
type WaitKey = (i32, u64);

/// One simulated engine. See the module for how to drive it.
pub struct Engine {
    config: EngineConfig,
    pool: BlockPool,
    seqs: Vec<Option<Seq>>,
    vacant: Vec<u32>,
    by_id: HashMap<RequestId, u32>,
    running: Vec<u32>,
    waiting: BTreeMap<WaitKey, u32>,
    /// The head that did not fit, and the free blocks there were: looked at again once there are more.
    blocked: Option<(WaitKey, u32)>,
    arrivals: u64,
    /// Work that came while nothing was under way.
    ready_at: Option<Time>,
    /// End of the step that is being computed.
    step_end: Option<Time>,
    timers: timed::Timers,
    rng: fastrand::Rng,
    slowdown: f64,
    adapters_running: Vec<u32>,
    adapters_waiting: Vec<u32>,
}

impl Engine {
    /// An idle engine with an empty cache. Zero sizes count as 1.
    pub fn new(mut config: EngineConfig) -> Self {
        for size in [
            &mut config.block_size,
            &mut config.num_blocks,
            &mut config.max_num_seqs,
            &mut config.max_num_batched_tokens,
            &mut config.max_loras,
        ] {
            *size = (*size).max(1);
        }
        Self {
            pool: BlockPool::new(config.num_blocks),
            seqs: Vec::new(),
            vacant: Vec::new(),
            by_id: HashMap::new(),
            running: Vec::new(),
            waiting: BTreeMap::new(),
            blocked: None,
            arrivals: 0,
            ready_at: None,
            step_end: None,
            timers: timed::Timers::default(),
            rng: fastrand::Rng::with_seed(config.seed),
            slowdown: 1.0,
            adapters_running: Vec::new(),
            adapters_waiting: Vec::new(),
            config,
        }
    }

    /// Puts a request into the waiting queue. `now` must not be before any time given earlier.
    ///
    /// # Errors
    /// Nothing changes when the queue is full, the request can never fit, or its id is in use.
    pub fn submit(&mut self, now: Time, request: Request) -> Result<(), Refusal> {
        let total = u64::from(request.prompt_tokens) + u64::from(request.output_tokens);
        let capacity = u64::from(self.config.num_blocks) * u64::from(self.config.block_size);
        let limit = capacity.min(u64::from(self.config.max_model_len));
        if total > limit || request.prompt_tokens == 0 || request.output_tokens == 0 {
            return Err(Refusal::Length { tokens: total, limit });
        }
        if self.by_id.contains_key(&request.id) {
            return Err(Refusal::DuplicateId);
        }
        if self.waiting.len() >= self.config.max_waiting as usize && !self.has_free_seat() {
            return Err(Refusal::QueueFull { limit: self.config.max_waiting });
        }
        self.arrivals += 1;
        let key = (request.priority, self.arrivals);
        let id = request.id;
        let seq = Seq::new(request, key, now);
        if let Some(adapter) = seq.adapter {
            *counter(&mut self.adapters_waiting, adapter) += 1;
        }
        let slot = self.place(seq);
        self.by_id.insert(id, slot);
        self.waiting.insert(key, slot);
        self.wake(now);
        Ok(())
    }

    /// With a queue of length 0 a request may still go straight to a free seat.
    fn has_free_seat(&self) -> bool {
        self.running.len() + self.waiting.len() < self.config.max_num_seqs as usize
    }

    fn wake(&mut self, now: Time) {
        self.ready_at = Some(self.ready_at.map_or(now, |t| t.min(now)));
    }

    fn place(&mut self, seq: Seq) -> u32 {
        if let Some(slot) = self.vacant.pop() {
            self.seqs[slot as usize] = Some(seq);
            return slot;
        }
        self.seqs.push(Some(seq));
        (self.seqs.len() - 1) as u32
    }

    /// Ends a request that its client gave up. Its blocks are free at once. The summary of what it got, or `None` when it
    /// is not (or no longer) here.
    pub fn cancel(&mut self, now: Time, id: RequestId) -> Option<Summary> {
        let slot = *self.by_id.get(&id)?;
        let waiting = self.seq(slot).map(|s| s.key).filter(|key| self.waiting.remove(key).is_some());
        if waiting.is_none() {
            self.running.retain(|s| *s != slot);
        }
        let summary = self.retire(slot, now, FinishReason::Abort, waiting.is_some());
        self.wake(now);
        summary
    }

    /// When the engine next has something to say; `None` while it has no work.
    pub fn next_event(&self) -> Option<Time> {
        let under_way = match self.config.latency {
            Latency::Step(_) => self.step_end,
            Latency::Timed(_) => self.timers.next(),
        };
        match (under_way, self.ready_at) {
            // A step that is under way takes new work only at its end.
            (Some(end), Some(_)) if matches!(self.config.latency, Latency::Step(_)) => Some(end),
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Lets time pass up to and including `now`; what happened is appended to `out` in order of time.
    pub fn advance(&mut self, now: Time, out: &mut Vec<Event>) {
        match self.config.latency.clone() {
            Latency::Step(cost) => self.advance_steps(now, &cost, out),
            Latency::Timed(cost) => self.advance_timed(now, &cost, out),
        }
    }

    /// Forgets every cached block; running requests keep theirs, unseen by others.
    pub fn reset_prefix_cache(&mut self) {
        self.pool.forget_keys();
    }

    /// Makes everything slower (above 1) or faster from the next step on.
    pub fn set_slowdown(&mut self, factor: f64) {
        if factor.is_finite() && factor > 0.0 {
            self.slowdown = factor;
        }
    }

    /// Requests that run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Share of the blocks that requests hold, 0 to 1. Blocks kept only for later hits do not count, as in vLLM.
    pub fn kv_usage(&self) -> f64 {
        f64::from(self.pool.used()) / f64::from(self.config.num_blocks)
    }

    /// Blocks that can be hit by a later request.
    pub fn cached_blocks(&self) -> usize {
        self.pool.cached()
    }

    /// How many leading tokens of a prompt with these keys are in the cache now. Does not touch the LRU order.
    pub fn cached_prefix(&self, keys: &BlockKeys) -> u32 {
        self.pool.match_prefix(keys.as_slice()).0 * self.config.block_size
    }

    /// Requests of each adapter that run, by [`AdapterId`].
    pub fn adapters_running(&self) -> &[u32] {
        &self.adapters_running
    }

    /// Requests of each adapter that wait, by [`AdapterId`].
    pub fn adapters_waiting(&self) -> &[u32] {
        &self.adapters_waiting
    }

    /// What the engine was made of.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    fn seq(&self, slot: u32) -> Option<&Seq> {
        self.seqs.get(slot as usize).and_then(Option::as_ref)
    }

    fn seq_mut(&mut self, slot: u32) -> Option<&mut Seq> {
        self.seqs.get_mut(slot as usize).and_then(Option::as_mut)
    }

    /// Takes a sequence out for good: blocks released, slot vacant.
    fn retire(&mut self, slot: u32, at: Time, reason: FinishReason, waited: bool) -> Option<Summary> {
        let mut seq = self.seqs.get_mut(slot as usize)?.take()?;
        self.pool.release_all(&mut seq.blocks);
        self.by_id.remove(&seq.id);
        self.vacant.push(slot);
        if let Some(adapter) = seq.adapter {
            let counters = if waited { &mut self.adapters_waiting } else { &mut self.adapters_running };
            *counter(counters, adapter) -= 1;
        }
        Some(seq.summary(at, reason))
    }

    /// Sends the sequence that started last back to wait; it will compute its tokens again, as far as they left the cache.
    fn preempt_last(&mut self, at: Time, out: &mut Vec<Event>) -> Option<u32> {
        let slot = self.running.pop()?;
        let seq = self.seqs.get_mut(slot as usize)?.as_mut()?;
        self.pool.release_all(&mut seq.blocks);
        seq.computed = 0;
        seq.scheduled = 0;
        seq.preemptions += 1;
        seq.epoch += 1;
        let (key, id, adapter) = (seq.key, seq.id, seq.adapter);
        if let Some(adapter) = adapter {
            *counter(&mut self.adapters_running, adapter) -= 1;
            *counter(&mut self.adapters_waiting, adapter) += 1;
        }
        self.waiting.insert(key, slot);
        out.push(Event { at, id, kind: EventKind::Preempted });
        Some(slot)
    }

    /// Gives a running sequence the blocks for `tokens` computed tokens, preempting later ones when there are none.
    /// False when it had to give way itself.
    fn grow_or_preempt(&mut self, slot: u32, tokens: u32, at: Time, out: &mut Vec<Event>) -> bool {
        while !self.grow(slot, tokens, at, out) {
            if self.preempt_last(at, out).is_none_or(|victim| victim == slot) {
                return false;
            }
        }
        true
    }

    /// Allocates up to `tokens` computed tokens and enters the blocks that become full into the cache.
    fn grow(&mut self, slot: u32, tokens: u32, at: Time, out: &mut Vec<Event>) -> bool {
        let Some(seq) = self.seqs.get_mut(slot as usize).and_then(Option::as_mut) else { return false };
        let needed = tokens.div_ceil(self.config.block_size) as usize;
        if needed.saturating_sub(seq.blocks.len()) > self.pool.free() as usize {
            return false;
        }
        let id = seq.id;
        while seq.blocks.len() < needed {
            let Some((block, evicted)) = self.pool.allocate() else { return false };
            seq.blocks.push(block);
            if let Some(key) = evicted.filter(|_| self.config.block_events) {
                out.push(Event { at, id, kind: EventKind::BlockRemoved { key } });
            }
        }
        if self.config.prefix_caching {
            let full = ((tokens / self.config.block_size) as usize).min(seq.keys.len());
            for i in seq.stored..full {
                let (key, parent) =
                    (seq.keys.as_slice()[i], i.checked_sub(1).map(|p| seq.keys.as_slice()[p]));
                if self.pool.store(seq.blocks[i], key) && self.config.block_events {
                    out.push(Event { at, id, kind: EventKind::BlockStored { key, parent } });
                }
            }
            seq.stored = seq.stored.max(full);
        }
        true
    }

    /// Starts waiting requests in order, each with at most `budget` tokens (what is left of it comes back), until a seat,
    /// the budget or the blocks run out. Requests of an adapter that may not run yet are passed over.
    fn admit(&mut self, at: Time, mut budget: u32, whole: bool, out: &mut Vec<Event>) -> u32 {
        let mut cursor: Option<WaitKey> = None;
        while budget > 0 && self.running.len() < self.config.max_num_seqs as usize {
            let next = match cursor {
                None => self.waiting.iter().next(),
                Some(c) => {
                    self.waiting.range((std::ops::Bound::Excluded(c), std::ops::Bound::Unbounded)).next()
                }
            };
            let Some((&key, &slot)) = next else { break };
            cursor = Some(key);
            if self.blocked.is_some_and(|(k, free)| k == key && self.pool.free() <= free) {
                break;
            }
            if self.adapter_must_wait(slot) {
                continue;
            }
            let Some(taken) = self.start(slot, at, if whole { u32::MAX } else { budget }, out) else {
                self.blocked = Some((key, self.pool.free()));
                break;
            };
            self.waiting.remove(&key);
            self.running.push(slot);
            if !whole {
                budget -= taken;
            }
        }
        budget
    }

    fn adapter_must_wait(&self, slot: u32) -> bool {
        let Some(adapter) = self.seq(slot).and_then(|s| s.adapter) else { return false };
        let running = self.adapters_running.get(adapter.index()).copied().unwrap_or(0);
        running == 0
            && self.adapters_running.iter().filter(|n| **n > 0).count() >= self.config.max_loras as usize
    }

    /// Looks up the cached prefix of a waiting sequence and takes blocks for its first chunk. The tokens of that chunk,
    /// or `None` (and nothing changed) when the blocks do not suffice. The last known token is always computed.
    fn start(&mut self, slot: u32, at: Time, budget: u32, out: &mut Vec<Event>) -> Option<u32> {
        let block_size = self.config.block_size;
        let seq = self.seqs.get_mut(slot as usize)?.as_mut()?;
        let known = seq.known();
        let mut hits = 0;
        let mut idle = 0;
        if self.config.prefix_caching {
            let most = (((known - 1) / block_size) as usize).min(seq.keys.len());
            (hits, idle) = self.pool.match_prefix(&seq.keys.as_slice()[..most]);
        }
        let cached = hits * block_size;
        let chunk = (known - cached).min(budget);
        let fresh = (cached + chunk).div_ceil(block_size) - hits;
        if fresh + idle > self.pool.free() {
            return None;
        }
        for key in &seq.keys.as_slice()[..hits as usize] {
            if let Some(block) = self.pool.lookup(*key) {
                self.pool.acquire(block);
                seq.blocks.push(block);
            }
        }
        seq.stored = hits as usize;
        seq.computed = cached;
        seq.scheduled = chunk;
        let first = seq.started.is_none();
        if first {
            seq.started = Some(at);
            seq.cached_tokens = cached.min(seq.prompt_tokens - 1);
        }
        let (id, adapter, kind) =
            (seq.id, seq.adapter, EventKind::Started { cached_tokens: seq.cached_tokens });
        if let Some(adapter) = adapter {
            *counter(&mut self.adapters_waiting, adapter) -= 1;
            *counter(&mut self.adapters_running, adapter) += 1;
        }
        if first {
            out.push(Event { at, id, kind });
        }
        // Cannot fail: the blocks were counted above.
        self.grow(slot, cached + chunk, at, out);
        Some(chunk)
    }

    /// Adds one token to a sequence whose known tokens are all computed. True when that was the last one; the sequence is
    /// then retired and must leave `running`.
    fn emit_token(&mut self, slot: u32, at: Time, out: &mut Vec<Event>) -> bool {
        let token_events = self.config.token_events;
        let Some(seq) = self.seq_mut(slot) else { return true };
        seq.generated += 1;
        let id = seq.id;
        let index = seq.generated;
        if index == 1 {
            seq.first_token = Some(at);
            out.push(Event { at, id, kind: EventKind::FirstToken });
        } else if token_events {
            out.push(Event { at, id, kind: EventKind::Token { index } });
        }
        if index < seq.output_tokens {
            return false;
        }
        let reason = seq.natural_end;
        if let Some(summary) = self.retire(slot, at, reason, false) {
            out.push(Event { at, id, kind: EventKind::Finished(summary) });
        }
        true
    }
}

fn counter(counters: &mut Vec<u32>, adapter: AdapterId) -> &mut u32 {
    if counters.len() <= adapter.index() {
        counters.resize(adapter.index() + 1, 0);
    }
    &mut counters[adapter.index()]
}
