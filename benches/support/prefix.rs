//! Chains of 10,000 tokens and an index that is full of them.

use pointsman::endpoint::{Incarnation, Occupant, Slot};
use pointsman::kv::chain::chains;
use pointsman::kv::index::{IndexChange, IndexDelta, IndexSource, PrefixIndex, Space, Tier};
use pointsman::request::Prompt;

const TOKENS: u32 = 10_000;
const BLOCK: u32 = 64;
/// The one producer.
pub const SPACE: Space = Space(1);

/// `n` processes.
pub fn occupants(n: u32) -> Vec<Occupant> {
    (0..n).map(|slot| Occupant { slot: Slot(slot), incarnation: Incarnation(0) }).collect()
}

/// The chain of a prompt whose first `shared` tokens all prompts have.
pub fn chain(own: u32, shared: u32) -> Vec<u64> {
    let id = |i: u32| if i < shared { i } else { own.wrapping_mul(1_000_003).wrapping_add(i) };
    chains(&Prompt::Tokens(vec![(0..TOKENS).map(id).collect()]), "model", None, BLOCK, 2048).remove(0)
}

/// Says that `occupant` holds `blocks`.
pub fn store(index: &PrefixIndex, occupant: Occupant, blocks: &[u64]) {
    index.apply(&IndexDelta {
        space: SPACE,
        occupant,
        source: IndexSource::Assumed,
        sequence: 0,
        change: IndexChange::Store { tier: Tier::Device, blocks, capacity: None },
    });
}

/// An index in which every endpoint holds `chains` chains that share their first 6,000 tokens.
pub fn filled(endpoints: u32, chains: u32) -> PrefixIndex {
    let index = PrefixIndex::new(1 << 30);
    for occupant in occupants(endpoints) {
        (0..chains).for_each(|i| store(&index, occupant, &chain(occupant.slot.0 * chains + i, 6000)));
    }
    index
}
