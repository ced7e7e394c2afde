//! The blocks of one owner in order of their last use.

use super::dense::{CELL_BYTES, Dense, Keyed};
use super::holders::{join, split};

const NONE: u32 = u32::MAX;

struct Node {
    hash: [u32; 2],
    newer: u32,
    older: u32,
    used: u32,
}

impl Keyed for Node {
    fn hash(&self) -> u64 {
        join(self.hash)
    }
}

/// What one entry costs at most: its node with an eighth of slack, and its cells.
pub(super) const NODE_BYTES: usize = size_of::<Node>() + size_of::<Node>() / 8 + CELL_BYTES;

/// The blocks. Times are ticks of the index.
pub(super) struct Recency {
    nodes: Dense<Node>,
    newest: u32,
    oldest: u32,
}

impl Recency {
    pub(super) const fn new() -> Self {
        Self { nodes: Dense::new(), newest: NONE, oldest: NONE }
    }
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.nodes.bytes()
    }
    /// When the entry that is unused for longest was used.
    pub(super) fn oldest_use(&self) -> Option<u32> {
        self.nodes.get(self.oldest).map(|node| node.used)
    }

    /// Makes `hash` the newest; says whether it was not there before. Up to `most` entries take the memory of as many.
    pub(super) fn touch(&mut self, hash: u64, now: u32, most: usize) -> bool {
        let found = self.nodes.find(hash);
        let index = match found {
            Some(index) => {
                self.unlink(index);
                index
            }
            None => self.nodes.push(Node { hash: split(hash), newer: NONE, older: NONE, used: now }, most),
        };
        if let Some(node) = self.nodes.get_mut(index) {
            (node.newer, node.older, node.used) = (NONE, self.newest, now);
        }
        self.set_newer(self.newest, index);
        if self.oldest == NONE {
            self.oldest = index;
        }
        self.newest = index;
        found.is_none()
    }

    /// Takes `hash` out; says whether it was there.
    pub(super) fn remove(&mut self, hash: u64) -> bool {
        let found = self.nodes.find(hash);
        if let Some(index) = found {
            self.take(index);
        }
        found.is_some()
    }

    /// Takes the one that is unused for longest out.
    pub(super) fn pop_oldest(&mut self) -> Option<u64> {
        let index = self.oldest;
        let hash = self.nodes.get(index)?.hash();
        self.take(index);
        Some(hash)
    }

    fn take(&mut self, index: u32) {
        self.unlink(index);
        self.nodes.remove(index);
        // The last node moved into the gap: whoever pointed at it follows.
        let moved = self.nodes.get(index).map(|node| (node.newer, node.older));
        if let Some((newer, older)) = moved {
            self.set_older(newer, index);
            self.set_newer(older, index);
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some((newer, older)) = self.nodes.get(index).map(|node| (node.newer, node.older)) else { return };
        self.set_older(newer, older);
        self.set_newer(older, newer);
    }

    /// Sets what comes after the node `of`, or the newest end when there is no such node.
    fn set_older(&mut self, of: u32, older: u32) {
        match self.nodes.get_mut(of) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
    }

    fn set_newer(&mut self, of: u32, newer: u32) {
        match self.nodes.get_mut(of) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Touch(u64),
        Remove(u64),
        Pop,
    }

    proptest! {
        /// Against a plain list, oldest first.
        #[test]
        fn it_keeps_the_order_of_use(
            steps in prop::collection::vec(
                prop_oneof![
                    4 => (0_u64..30).prop_map(Step::Touch),
                    1 => (0_u64..30).prop_map(Step::Remove),
                    1 => Just(Step::Pop),
                ],
                0..400,
            )
        ) {
            let mut recency = Recency::new();
            let mut model: Vec<(u64, u32)> = Vec::new();
            for (now, step) in (0_u32..).zip(steps) {
                match step {
                    Step::Touch(hash) => {
                        let known = model.iter().any(|(h, _)| *h == hash);
                        model.retain(|(h, _)| *h != hash);
                        model.push((hash, now));
                        prop_assert_eq!(recency.touch(hash, now, usize::MAX), !known);
                    }
                    Step::Remove(hash) => {
                        let known = model.iter().any(|(h, _)| *h == hash);
                        model.retain(|(h, _)| *h != hash);
                        prop_assert_eq!(recency.remove(hash), known);
                    }
                    Step::Pop => {
                        let wanted = (!model.is_empty()).then(|| model.remove(0).0);
                        prop_assert_eq!(recency.pop_oldest(), wanted);
                    }
                }
                prop_assert_eq!(recency.oldest_use(), model.first().map(|(_, used)| *used));
            }
            while let Some(hash) = recency.pop_oldest() {
                prop_assert_eq!(hash, model.remove(0).0);
            }
            prop_assert!(model.is_empty() && recency.len() == 0);
        }
    }
}
