//! The KV blocks of one engine: reference counts, the keys they can be found by, and the order of eviction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

const NIL: u32 = u32::MAX;

/// Larger tables grow as they fill.
const MAX_RESERVED_KEYS: usize = 1 << 18;

#[derive(Clone, Copy)]
struct Block {
    key: Option<u64>,
    refs: u32,
    prev: u32,
    next: u32,
}

/// Keys are hashes already.
#[derive(Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// A fixed number of blocks. A block is either held (reference count above 0) or in the free list; free blocks may carry a
/// key and be hit again until they are handed out anew, the longest unused first. Every operation is O(1).
pub struct BlockPool {
    blocks: Vec<Block>,
    by_key: HashMap<u64, u32, BuildHasherDefault<KeyHasher>>,
    head: u32,
    tail: u32,
    free: u32,
}

impl BlockPool {
    /// `count` free blocks without keys.
    pub fn new(count: u32) -> Self {
        let blocks = (0..count)
            .map(|i| Block {
                key: None,
                refs: 0,
                prev: if i == 0 { NIL } else { i - 1 },
                next: if i + 1 == count { NIL } else { i + 1 },
            })
            .collect();
        // Half empty: a table near its limit that sees as many removals as insertions fills with graves and slows down.
        let capacity = (count as usize * 2).min(MAX_RESERVED_KEYS);
        let by_key = HashMap::with_capacity_and_hasher(capacity, BuildHasherDefault::default());
        Self { blocks, by_key, head: 0, tail: count - 1, free: count }
    }

    /// Blocks that can be handed out.
    pub fn free(&self) -> u32 {
        self.free
    }

    /// Blocks that are held.
    pub fn used(&self) -> u32 {
        self.blocks.len() as u32 - self.free
    }

    /// Blocks that can be found by a key, held or not.
    pub fn cached(&self) -> usize {
        self.by_key.len()
    }

    /// The block with this key.
    pub fn lookup(&self, key: u64) -> Option<u32> {
        self.by_key.get(&key).copied()
    }

    /// How many leading keys are here, and how many of their blocks are free (and would have to be taken).
    pub fn match_prefix(&self, keys: &[u64]) -> (u32, u32) {
        let mut idle = 0;
        let mut hits = 0;
        for key in keys {
            let Some(block) = self.lookup(*key) else { break };
            hits += 1;
            idle += u32::from(self.blocks[block as usize].refs == 0);
        }
        (hits, idle)
    }

    /// One more reference to a block.
    pub fn acquire(&mut self, block: u32) {
        if self.blocks[block as usize].refs == 0 {
            self.unlink(block);
        }
        self.blocks[block as usize].refs += 1;
    }

    /// A block with one reference and no key, and the key that had to be forgotten for it.
    pub fn allocate(&mut self) -> Option<(u32, Option<u64>)> {
        if self.head == NIL {
            return None;
        }
        let block = self.head;
        self.unlink(block);
        let entry = &mut self.blocks[block as usize];
        entry.refs = 1;
        let evicted = entry.key.take();
        if let Some(key) = evicted {
            self.by_key.remove(&key);
        }
        Some((block, evicted))
    }

    /// Makes a held block findable. False when another block has that key already; this one then stays private.
    pub fn store(&mut self, block: u32, key: u64) -> bool {
        let Entry::Vacant(place) = self.by_key.entry(key) else { return false };
        place.insert(block);
        if let Some(old) = self.blocks[block as usize].key.replace(key) {
            self.by_key.remove(&old);
        }
        true
    }

    /// Gives up a sequence's blocks, last one first, so that the end of a sequence is evicted before its beginning.
    pub fn release_all(&mut self, blocks: &mut Vec<u32>) {
        while let Some(block) = blocks.pop() {
            self.release(block);
        }
    }

    fn release(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        debug_assert!(entry.refs > 0, "block {block} released more often than acquired");
        entry.refs = entry.refs.saturating_sub(1);
        if entry.refs > 0 {
            return;
        }
        if entry.key.is_some() {
            self.push_back(block);
        } else {
            self.push_front(block);
        }
    }

    /// Forgets all keys.
    pub fn forget_keys(&mut self) {
        self.by_key.clear();
        for block in &mut self.blocks {
            block.key = None;
        }
    }

    fn unlink(&mut self, block: u32) {
        let Block { prev, next, .. } = self.blocks[block as usize];
        if prev == NIL {
            self.head = next
        } else {
            self.blocks[prev as usize].next = next
        }
        if next == NIL {
            self.tail = prev
        } else {
            self.blocks[next as usize].prev = prev
        }
        self.free -= 1;
    }

    fn push_back(&mut self, block: u32) {
        let tail = self.tail;
        self.blocks[block as usize].prev = tail;
        self.blocks[block as usize].next = NIL;
        if tail == NIL {
            self.head = block
        } else {
            self.blocks[tail as usize].next = block
        }
        self.tail = block;
        self.free += 1;
    }

    fn push_front(&mut self, block: u32) {
        let head = self.head;
        self.blocks[block as usize].next = head;
        self.blocks[block as usize].prev = NIL;
        if head == NIL {
            self.tail = block
        } else {
            self.blocks[head as usize].prev = block
        }
        self.head = block;
        self.free += 1;
    }

    /// Walks everything and says what is inconsistent. For tests; O(blocks).
    #[cfg(test)]
    pub fn check(&self) -> Result<(), String> {
        let mut seen = 0;
        let (mut at, mut last) = (self.head, NIL);
        while at != NIL {
            let block = &self.blocks[at as usize];
            if block.refs != 0 || block.prev != last {
                return Err(format!("free list broken at {at}"));
            }
            seen += 1;
            (last, at) = (at, block.next);
        }
        let idle = self.blocks.iter().filter(|b| b.refs == 0).count();
        if last != self.tail || seen != self.free as usize || idle != seen {
            return Err(format!("free: list {seen}, counter {}, idle {idle}", self.free));
        }
        let keyed = self.blocks.iter().filter(|b| b.key.is_some()).count();
        if keyed != self.by_key.len()
            || self.by_key.iter().any(|(k, b)| self.blocks[*b as usize].key != Some(*k))
        {
            return Err(format!("{keyed} blocks with keys, {} in the map", self.by_key.len()));
        }
        Ok(())
    }

    /// Sum of all reference counts.
    #[cfg(test)]
    pub fn references(&self) -> u64 {
        self.blocks.iter().map(|b| u64::from(b.refs)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_the_longest_unused_first() {
        let mut pool = BlockPool::new(2);
        let (a, _) = pool.allocate().unwrap();
        let (b, _) = pool.allocate().unwrap();
        assert!(pool.allocate().is_none());
        pool.store(a, 1);
        pool.store(b, 2);
        pool.release_all(&mut vec![a]);
        pool.release_all(&mut vec![b]);
        assert_eq!(pool.allocate(), Some((a, Some(1))));
        assert_eq!(pool.match_prefix(&[2]), (1, 1));
        pool.check().unwrap();
    }

    #[test]
    fn a_hit_block_leaves_the_free_list() {
        let mut pool = BlockPool::new(2);
        let (a, _) = pool.allocate().unwrap();
        pool.store(a, 7);
        pool.release_all(&mut vec![a]);
        pool.acquire(a);
        assert_eq!((pool.free(), pool.match_prefix(&[7])), (1, (1, 0)));
        pool.check().unwrap();
    }

    #[test]
    fn the_same_content_twice_is_found_once() {
        let mut pool = BlockPool::new(2);
        let (a, _) = pool.allocate().unwrap();
        let (b, _) = pool.allocate().unwrap();
        assert!(pool.store(a, 7));
        assert!(!pool.store(b, 7));
        pool.release_all(&mut vec![a, b]);
        // The private one goes first, though it was released later.
        assert_eq!(pool.allocate(), Some((b, None)));
        pool.check().unwrap();
    }

    #[test]
    fn forgetting_keys_keeps_blocks() {
        let mut pool = BlockPool::new(3);
        let (a, _) = pool.allocate().unwrap();
        pool.store(a, 7);
        pool.forget_keys();
        assert_eq!((pool.lookup(7), pool.used(), pool.cached()), (None, 1, 0));
        pool.check().unwrap();
    }
}
