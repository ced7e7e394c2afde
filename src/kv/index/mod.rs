//! Which endpoint is believed to hold which blocks.
//!
//! Fed by [`IndexDelta`] alone. A lookup walks one chain once for all endpoints and counts, for each, the blocks that it
//! holds from the first one on without a gap.
//!
//! Two structures hold it: shards of a table from block hash to the set of owners, read under a shared lock; and for
//! each owner its blocks in order of use, under a lock of its own. An owner is one process in one slot, so that a process that
//! left or restarted has no owner any more and nothing of it can be found, before its entries are purged.
//!
//! Lock order: retired, owners, recency, shard. No guard leaves this module.

mod dense;
mod holders;
mod owners;
mod recency;

use crate::endpoint::Occupant;
use crate::reuse::{Reusable, Reused, Shelf};
use holders::{BLOCK_BYTES, Change, Shard, place};
use owners::{Found, Owner, Owners};
use parking_lot::{Mutex, MutexGuard, RwLock};
use recency::{NODE_BYTES, Recency};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::LocalKey;

/// Most bytes that one (block, endpoint) pair is charged with when no other endpoint holds the block.
pub const ENTRY_BYTES: usize = NODE_BYTES + BLOCK_BYTES;

const SHARDS: usize = 64;
/// Entries evicted, or purged, at a time.
const BATCH: usize = 64;
/// Most blocks that an owner holds beyond its capacity while a chain is stored. A chain whose own end is the oldest there
/// is loses of it what came new, once for each part: the larger the parts, the less is stored again.
const STORED_AT_ONCE: usize = 256;

/// Keeps the entries of different producers apart, whose blocks are of different sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Space(pub u64);

/// Where a delta comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IndexSource {
    /// Assumed from where a request was sent.
    Assumed,
    /// An event of the engine.
    Event,
    /// Another replica.
    Peer,
}

/// Which memory of the endpoint a delta is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The accelerator's own.
    Device,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexChange<'a> {
    /// These blocks of one chain are held now, in order from the first.
    Store {
        /// Where.
        tier: Tier,
        /// Their hashes.
        blocks: &'a [u64],
        /// Most blocks that the endpoint can hold: beyond it those go that are unused for longest.
        capacity: Option<NonZeroU32>,
    },
    /// These blocks are not held any more.
    Remove {
        /// Where.
        tier: Tier,
        /// Their hashes.
        blocks: &'a [u64],
    },
    /// Nothing is held any more.
    Clear,
}

/// The only way into the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexDelta<'a> {
    /// Whose blocks: of which producer.
    pub space: Space,
    /// Whose blocks: of which process.
    pub occupant: Occupant,
    /// Where the delta comes from.
    pub source: IndexSource,
    /// Position in its source's stream, from 1; what is not newer than the last one is ignored. 0 is always taken.
    pub sequence: u64,
    /// What changed.
    pub change: IndexChange<'a>,
}

/// How large the index is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexSize {
    /// Pairs of block and endpoint.
    pub entries: usize,
    /// Distinct blocks.
    pub blocks: usize,
    /// Bytes charged for them.
    pub bytes: usize,
}

/// What is in the index, and what went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    /// Pairs of block and endpoint.
    pub entries: usize,
    /// Distinct blocks.
    pub blocks: usize,
    /// Bytes charged for them, never over the bound for longer than one change takes.
    pub bytes: usize,
    /// The bound.
    pub max_bytes: usize,
    /// Processes that hold blocks.
    pub owners: usize,
    /// Entries that went to make room, since the start.
    pub evicted: u64,
    /// Entries of processes that left, restarted or were cleared, since the start.
    pub purged: u64,
    /// Deltas that were late: of a former process, or not newer than the last one.
    pub ignored: u64,
}

/// The index.
pub struct PrefixIndex {
    shards: Vec<RwLock<Shard>>,
    owners: RwLock<Owners>,
    retired: Mutex<Vec<Arc<Owner>>>,
    max_bytes: usize,
    entries: AtomicUsize,
    blocks: AtomicIsize,
    wide_bytes: AtomicIsize,
    tick: AtomicU32,
    evicted: AtomicU64,
    purged: AtomicU64,
    ignored: AtomicU64,
}

/// What one lookup works with, by owner: who holds everything so far, who holds the next block too, and which row an
/// owner is.
#[derive(Default)]
struct Lookup {
    alive: Vec<u64>,
    still: Vec<u64>,
    rows: Vec<u32>,
}

impl Reusable for Lookup {
    fn shelf() -> &'static LocalKey<Shelf<Self>> {
        thread_local! {
            static SHELF: Shelf<Lookup> = const { Shelf::new() };
        }
        &SHELF
    }
    fn empty(&mut self) {
        self.alive.clear();
        self.still.clear();
        self.rows.clear();
    }
    fn room(&self) -> usize {
        self.rows.capacity()
    }
}

impl PrefixIndex {
    /// An empty index that holds at most `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::new(Shard::new())).collect(),
            owners: RwLock::default(),
            retired: Mutex::default(),
            max_bytes,
            entries: AtomicUsize::new(0),
            blocks: AtomicIsize::new(0),
            wide_bytes: AtomicIsize::new(0),
            tick: AtomicU32::new(0),
            evicted: AtomicU64::new(0),
            purged: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
        }
    }

    /// Takes a change in.
    pub fn apply(&self, delta: &IndexDelta<'_>) {
        let Some(owner) = self.owner_for(delta) else {
            self.ignored.fetch_add(1, Relaxed);
            return;
        };
        match delta.change {
            IndexChange::Store { tier: Tier::Device, blocks, capacity } => {
                let fits = &blocks[..blocks.len().min(self.max_bytes / ENTRY_BYTES)];
                self.make_room(fits.len() * ENTRY_BYTES);
                self.store(&owner, fits, capacity);
                self.make_room(0);
            }
            IndexChange::Remove { tier: Tier::Device, blocks } => self.remove(&owner, blocks),
            IndexChange::Clear => {
                let settled = self.owners.write().settle(delta.space, delta.occupant);
                if let Some((fresh, former)) = settled {
                    *fresh.sequence.lock() = *owner.sequence.lock();
                    self.retired.lock().extend(former);
                }
            }
        }
        self.purge_some();
    }

    /// Adds to `matched`, for each of `occupants`, how many leading blocks of `chain` it holds without a gap.
    pub fn lookup(&self, space: Space, occupants: &[Occupant], chain: &[u64], matched: &mut [u32]) {
        let owners = self.owners.read();
        let words = owners.ids().div_ceil(64);
        let mut scratch = Reused::<Lookup>::take();
        let Lookup { alive, still, rows } = &mut *scratch;
        alive.resize(words, 0);
        still.resize(words, 0);
        rows.resize(owners.ids(), u32::MAX);
        let (mut alive, mut still) = (&mut alive[..], &mut still[..]);
        let mut any = false;
        for (row, occupant) in (0_u32..).zip(occupants) {
            if let Some(id) = owners.id(space, *occupant) {
                let (word, bit) = place(id);
                alive[word] |= bit;
                rows[usize::from(id)] = row;
                any = true;
            }
        }
        // The shared lock on the owners stays to the end, so that no id passes to another owner meanwhile.
        let mut add = |set: &[u64], minus: &[u64], depth: u32| {
            for (word, (set, minus)) in set.iter().zip(minus).enumerate() {
                let mut left = set & !minus;
                while left != 0 {
                    let row = rows[word * 64 + left.trailing_zeros() as usize];
                    if let Some(count) = matched.get_mut(row as usize) {
                        *count = count.saturating_add(depth);
                    }
                    left &= left - 1;
                }
            }
        };
        let mut depth = 0;
        for hash in chain {
            if !any {
                return;
            }
            any = self.shard(*hash).read().intersect(*hash, alive, still);
            add(alive, still, depth);
            std::mem::swap(&mut alive, &mut still);
            depth += 1;
        }
        still.fill(0);
        add(alive, still, depth);
    }

    /// Makes everything of `space` unreachable whose process is not `live`, and purges some of it.
    pub fn retain(&self, space: Space, live: impl Fn(Occupant) -> bool) {
        let gone = self.owners.write().retire(space, live);
        self.retired.lock().extend(gone);
        self.purge_some();
    }

    /// How large it is, without any lock.
    pub fn size(&self) -> IndexSize {
        IndexSize {
            entries: self.entries.load(Relaxed),
            blocks: self.blocks.load(Relaxed).max(0).cast_unsigned(),
            bytes: self.charged(),
        }
    }

    /// Sizes and counts.
    pub fn stats(&self) -> IndexStats {
        let IndexSize { entries, blocks, bytes } = self.size();
        IndexStats {
            entries,
            blocks,
            bytes,
            max_bytes: self.max_bytes,
            owners: self.owners.read().iter().count(),
            evicted: self.evicted.load(Relaxed),
            purged: self.purged.load(Relaxed),
            ignored: self.ignored.load(Relaxed),
        }
    }

    /// Bytes that are really allocated now; walks every part of the index, so it is for tests and benchmarks.
    pub fn allocated_bytes(&self) -> usize {
        let owners = self.owners.read();
        self.shards.iter().map(|s| s.read().bytes() + size_of::<RwLock<Shard>>()).sum::<usize>()
            + owners.iter().map(|o| o.recency.lock().bytes() + size_of::<Owner>()).sum::<usize>()
    }

    fn owner_for(&self, delta: &IndexDelta<'_>) -> Option<Arc<Owner>> {
        let found = self.owners.read().find(delta.space, delta.occupant);
        let owner = match found {
            Found::Owner(owner) => owner,
            Found::Outdated => return None,
            Found::Nobody => self.settle(delta)?,
        };
        if delta.sequence > 0 {
            let mut last = owner.sequence.lock();
            if delta.sequence <= *last {
                return None;
            }
            *last = delta.sequence;
        }
        Some(owner)
    }

    fn settle(&self, delta: &IndexDelta<'_>) -> Option<Arc<Owner>> {
        let mut owners = self.owners.write();
        let (owner, former) = match owners.find(delta.space, delta.occupant) {
            Found::Owner(owner) => (owner, None),
            Found::Outdated => return None,
            Found::Nobody => owners.settle(delta.space, delta.occupant)?,
        };
        drop(owners);
        self.retired.lock().extend(former);
        Some(owner)
    }

    fn store(&self, owner: &Owner, blocks: &[u64], capacity: Option<NonZeroU32>) {
        let now = self.tick.fetch_add(1, Relaxed);
        let mut recency = owner.recency.lock();
        if owner.retired.load(Relaxed) {
            return;
        }
        let most = capacity.map_or(usize::MAX, |c| c.get() as usize);
        let mut evicted = 0;
        // Last block first: of one chain the later blocks are the older ones, so eviction shortens chains from the end
        // and leaves no gaps. A part at a time, so that a long chain does not stretch the memory of a full owner.
        for part in blocks.rchunks(STORED_AT_ONCE) {
            for hash in part.iter().rev() {
                if recency.touch(*hash, now, most.saturating_add(STORED_AT_ONCE)) {
                    self.entries.fetch_add(1, Relaxed);
                    self.count(self.shard(*hash).write().add(*hash, owner.id));
                }
            }
            let excess = recency.len().saturating_sub(most);
            evicted += self.evict(owner, &mut recency, excess);
        }
        self.evicted.fetch_add(evicted as u64, Relaxed);
        finish(owner, recency);
    }

    fn remove(&self, owner: &Owner, blocks: &[u64]) {
        let mut recency = owner.recency.lock();
        for hash in blocks {
            if recency.remove(*hash) {
                self.entries.fetch_sub(1, Relaxed);
                self.count(self.shard(*hash).write().remove(*hash, owner.id));
            }
        }
        finish(owner, recency);
    }

    /// Takes up to `most` entries out, those first that are unused for longest; returns how many.
    fn evict(&self, owner: &Owner, recency: &mut Recency, most: usize) -> usize {
        for done in 0..most {
            let Some(hash) = recency.pop_oldest() else { return done };
            self.entries.fetch_sub(1, Relaxed);
            self.count(self.shard(hash).write().remove(hash, owner.id));
        }
        most
    }

    /// Evicts until `needed` more bytes fit: first what cannot be found any more, then batches of the owner whose oldest
    /// entry is unused for longest.
    fn make_room(&self, needed: usize) {
        while self.charged() + needed > self.max_bytes {
            if self.purge_some() > 0 {
                continue;
            }
            let now = self.tick.load(Relaxed);
            let oldest = {
                let owners = self.owners.read();
                let holding = owners.iter().filter(|o| o.entries.load(Relaxed) > 0);
                holding.max_by_key(|o| now.wrapping_sub(o.oldest_use.load(Relaxed))).map(Arc::clone)
            };
            let Some(owner) = oldest else { return };
            let mut recency = owner.recency.lock();
            let evicted = self.evict(&owner, &mut recency, BATCH);
            finish(&owner, recency);
            self.evicted.fetch_add(evicted as u64, Relaxed);
        }
    }

    /// Purges a batch of entries of owners that went; returns how many entries.
    fn purge_some(&self) -> usize {
        let mut retired = self.retired.lock();
        let Some(owner) = retired.last().map(Arc::clone) else { return 0 };
        let mut recency = owner.recency.lock();
        let purged = self.evict(&owner, &mut recency, BATCH);
        let empty = recency.len() == 0;
        finish(&owner, recency);
        if empty {
            retired.pop();
            drop(retired);
            self.owners.write().forget(owner.id);
        }
        self.purged.fetch_add(purged as u64, Relaxed);
        purged
    }

    fn charged(&self) -> usize {
        let shared = self.blocks.load(Relaxed) * BLOCK_BYTES.cast_signed() + self.wide_bytes.load(Relaxed);
        self.entries.load(Relaxed) * NODE_BYTES + shared.max(0).cast_unsigned()
    }

    fn count(&self, change: Change) {
        if change.blocks != 0 {
            self.blocks.fetch_add(change.blocks, Relaxed);
        }
        if change.wide_bytes != 0 {
            self.wide_bytes.fetch_add(change.wide_bytes, Relaxed);
        }
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }
}

/// Says what the owner holds where it can be read without its lock.
fn finish(owner: &Owner, recency: MutexGuard<'_, Recency>) {
    owner.entries.store(u32::try_from(recency.len()).unwrap_or(u32::MAX), Relaxed);
    owner.oldest_use.store(recency.oldest_use().unwrap_or(0), Relaxed);
}

impl fmt::Debug for PrefixIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrefixIndex").field(&self.stats()).finish()
    }
}

#[cfg(test)]
mod tests;
