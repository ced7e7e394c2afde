//! Which owners hold which block: one shard of the table from block hash to a set of owners.

use super::dense::{CELL_BYTES, Dense, Keyed};

/// Small number of an owner; as wide as the bit sets that it is a bit of.
pub(super) type OwnerId = u16;

/// Owners of one block: up to three in place, more in a set of their own.
enum Holders {
    Few { len: u8, ids: [OwnerId; 3] },
    Many(u32),
}

/// More than three owners: a list while that is smaller than the bit set.
enum Wide {
    List(Vec<OwnerId>),
    Bits(Vec<u64>),
}

struct Block {
    hash: [u32; 2],
    holders: Holders,
}

impl Keyed for Block {
    fn hash(&self) -> u64 {
        join(self.hash)
    }
}

/// Two halves, so that records need no padding to eight bytes.
pub(super) fn split(hash: u64) -> [u32; 2] {
    #[allow(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
    [(hash >> 32) as u32, hash as u32]
}

/// The hash of two halves.
pub(super) fn join([high, low]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// What a block costs at most besides its wide set: its record with an eighth of slack, and its cells.
pub(super) const BLOCK_BYTES: usize = size_of::<Block>() + size_of::<Block>() / 8 + CELL_BYTES;

/// One shard.
pub(super) struct Shard {
    blocks: Dense<Block>,
    wide: Vec<Wide>,
    free: Vec<u32>,
    wide_bytes: usize,
}

/// How a change altered the size of a shard.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Change {
    pub(super) blocks: isize,
    pub(super) wide_bytes: isize,
}

impl Shard {
    pub(super) const fn new() -> Self {
        Self { blocks: Dense::new(), wide: Vec::new(), free: Vec::new(), wide_bytes: 0 }
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.bytes()
            + self.wide_bytes
            + (self.wide.capacity() - self.wide.len() + self.free.len()) * size_of::<Wide>()
            + self.free.capacity() * size_of::<u32>()
    }

    /// Adds `id` to the owners of `hash`; nothing happens when it is one already.
    pub(super) fn add(&mut self, hash: u64, id: OwnerId) -> Change {
        let before = self.wide_bytes;
        let mut change = Change::default();
        let Some(index) = self.blocks.find(hash) else {
            let holders = Holders::Few { len: 1, ids: [id, 0, 0] };
            self.blocks.push(Block { hash: split(hash), holders }, usize::MAX);
            return Change { blocks: 1, ..change };
        };
        let Self { blocks, wide, free, wide_bytes } = self;
        let Some(block) = blocks.get_mut(index) else { return change };
        match &mut block.holders {
            Holders::Few { len, ids } => {
                let held = &ids[..usize::from(*len)];
                if held.contains(&id) {
                    return change;
                }
                if held.len() < 3 {
                    ids[usize::from(*len)] = id;
                    *len += 1;
                    return change;
                }
                let mut set = Wide::List(ids.to_vec());
                set.add(id);
                *wide_bytes += set.bytes();
                let place = free.pop().unwrap_or_else(|| {
                    wide.push(Wide::List(Vec::new()));
                    u32::try_from(wide.len() - 1).unwrap_or(u32::MAX)
                });
                wide[place as usize] = set;
                block.holders = Holders::Many(place);
            }
            Holders::Many(place) => {
                let set = &mut wide[*place as usize];
                *wide_bytes -= set.bytes();
                set.add(id);
                *wide_bytes += set.bytes();
            }
        }
        change.wide_bytes = self.wide_bytes.cast_signed() - before.cast_signed();
        change
    }

    /// Takes `id` from the owners of `hash`; a block without owners is forgotten.
    pub(super) fn remove(&mut self, hash: u64, id: OwnerId) -> Change {
        let before = self.wide_bytes;
        let mut change = Change::default();
        let Some(index) = self.blocks.find(hash) else { return change };
        let Self { blocks, wide, free, wide_bytes } = self;
        let Some(block) = blocks.get_mut(index) else { return change };
        match &mut block.holders {
            Holders::Few { len, ids } => {
                if let Some(at) = ids[..usize::from(*len)].iter().position(|held| *held == id) {
                    *len -= 1;
                    ids.swap(at, usize::from(*len));
                }
                if *len == 0 {
                    self.blocks.remove(index);
                    change.blocks = -1;
                }
            }
            Holders::Many(place) => {
                let set = &mut wide[*place as usize];
                *wide_bytes -= set.bytes();
                set.remove(id);
                match set.few() {
                    Some(few) => {
                        *set = Wide::List(Vec::new());
                        free.push(*place);
                        block.holders = few;
                    }
                    None => *wide_bytes += set.bytes(),
                }
                change.wide_bytes = self.wide_bytes.cast_signed() - before.cast_signed();
            }
        }
        change
    }

    /// Writes those of `alive` that hold `hash` into `still`, both bit sets of the same length; says whether any does.
    pub(super) fn intersect(&self, hash: u64, alive: &[u64], still: &mut [u64]) -> bool {
        let holders = self.blocks.find(hash).and_then(|index| self.blocks.get(index)).map(|b| &b.holders);
        if let Some(Holders::Many(place)) = holders
            && let Wide::Bits(bits) = &self.wide[*place as usize]
        {
            let mut any = 0;
            for (i, (still, alive)) in still.iter_mut().zip(alive).enumerate() {
                *still = alive & bits.get(i).copied().unwrap_or(0);
                any |= *still;
            }
            return any != 0;
        }
        still.fill(0);
        let ids = match holders {
            None => &[],
            Some(Holders::Few { len, ids }) => &ids[..usize::from(*len)],
            Some(Holders::Many(place)) => match &self.wide[*place as usize] {
                Wide::List(ids) => ids.as_slice(),
                Wide::Bits(_) => &[],
            },
        };
        let mut any = false;
        for id in ids {
            let (word, bit) = place(*id);
            if let (Some(still), Some(alive)) = (still.get_mut(word), alive.get(word)) {
                *still |= alive & bit;
                any |= alive & bit != 0;
            }
        }
        any
    }
}

/// Word and bit of an owner in a bit set.
pub(super) fn place(id: OwnerId) -> (usize, u64) {
    (usize::from(id) / 64, 1 << (id % 64))
}

impl Wide {
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::List(ids) => ids.capacity() * size_of::<OwnerId>(),
                Self::Bits(words) => words.capacity() * size_of::<u64>(),
            }
    }

    fn add(&mut self, id: OwnerId) {
        match self {
            Self::List(ids) => {
                if ids.contains(&id) {
                    return;
                }
                if ids.len() == ids.capacity() {
                    ids.reserve_exact(ids.len() / 4 + 1);
                }
                ids.push(id);
                let highest = ids.iter().copied().max().unwrap_or(0);
                if ids.len() * size_of::<OwnerId>() >= (place(highest).0 + 1) * size_of::<u64>() {
                    let mut words = vec![0; place(highest).0 + 1];
                    for id in ids {
                        let (word, bit) = place(*id);
                        words[word] |= bit;
                    }
                    *self = Self::Bits(words);
                }
            }
            Self::Bits(words) => {
                let (word, bit) = place(id);
                if word >= words.len() {
                    words.reserve_exact(word + 1 - words.len());
                    words.resize(word + 1, 0);
                }
                words[word] |= bit;
            }
        }
    }

    fn remove(&mut self, id: OwnerId) {
        match self {
            Self::List(ids) => ids.retain(|held| *held != id),
            Self::Bits(words) => {
                let (word, bit) = place(id);
                if let Some(word) = words.get_mut(word) {
                    *word &= !bit;
                }
            }
        }
    }

    /// The owners in place, once there are no more than two: one less than fit, so that a set does not flap.
    fn few(&self) -> Option<Holders> {
        let mut ids = [0; 3];
        let mut len = 0_u8;
        let mut take = |id| {
            ids[usize::from(len)] = id;
            len += 1;
            len <= 2
        };
        let fits = match self {
            Self::List(list) => list.iter().all(|id| take(*id)),
            Self::Bits(words) => words.iter().enumerate().all(|(w, word)| {
                let mut word = *word;
                while word != 0 {
                    let bit = word.trailing_zeros();
                    word &= word - 1;
                    if !take(OwnerId::try_from(w * 64 + bit as usize).unwrap_or(OwnerId::MAX)) {
                        return false;
                    }
                }
                true
            }),
        };
        fits.then_some(Holders::Few { len, ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        /// Against sets of the standard library; the sizes that changes report add up to what is there.
        #[test]
        fn it_behaves_like_a_map_of_sets(
            steps in prop::collection::vec((0_u64..4, 0_u16..9, any::<bool>(), any::<bool>()), 0..400)
        ) {
            let mut shard = Shard::new();
            let mut model: BTreeMap<u64, BTreeSet<u16>> = BTreeMap::new();
            let mut size = Change::default();
            for (hash, small, far, add) in steps {
                let id = if far { small * 150 } else { small };
                let change = if add {
                    model.entry(hash).or_default().insert(id);
                    shard.add(hash, id)
                } else {
                    model.entry(hash).or_default().remove(&id);
                    shard.remove(hash, id)
                };
                size.blocks += change.blocks;
                size.wide_bytes += change.wide_bytes;
            }
            model.retain(|_, ids| !ids.is_empty());
            prop_assert_eq!(size.blocks, model.len().cast_signed());
            prop_assert_eq!(size.wide_bytes, shard.wide_bytes.cast_signed());
            let alive = vec![u64::MAX; 20];
            for hash in 0..4 {
                let mut still = vec![7; 20];
                let any = shard.intersect(hash, &alive, &mut still);
                let wanted = model.get(&hash).cloned().unwrap_or_default();
                prop_assert_eq!(any, !wanted.is_empty());
                let got: BTreeSet<u16> =
                    (0..1280).filter(|id| still[place(*id).0] & place(*id).1 != 0).collect();
                prop_assert_eq!(got, wanted);
            }
        }
    }
}
