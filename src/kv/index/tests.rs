use super::*;
use crate::endpoint::{Incarnation, Slot};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SPACE: Space = Space(1);

fn occupant(slot: u32, incarnation: u32) -> Occupant {
    Occupant { slot: Slot(slot), incarnation: Incarnation(incarnation) }
}

fn delta<'a>(occupant: Occupant, change: IndexChange<'a>) -> IndexDelta<'a> {
    IndexDelta { space: SPACE, occupant, source: IndexSource::Assumed, sequence: 0, change }
}

fn store(index: &PrefixIndex, at: Occupant, blocks: &[u64], capacity: u32) {
    let capacity = NonZeroU32::new(capacity);
    index.apply(&delta(at, IndexChange::Store { tier: Tier::Device, blocks, capacity }));
}

fn lookup(index: &PrefixIndex, occupants: &[Occupant], chain: &[u64]) -> Vec<u32> {
    let mut matched = vec![0; occupants.len()];
    index.lookup(SPACE, occupants, chain, &mut matched);
    matched
}

fn roomy() -> PrefixIndex {
    PrefixIndex::new(64 << 20)
}

/// A chain of `len` hashes that no other seed shares.
fn chain(seed: u64, len: u64) -> Vec<u64> {
    (0..len).map(|i| xxhash_rust::xxh64::xxh64(&i.to_le_bytes(), seed)).collect()
}

#[test]
fn matches_are_contiguous_from_the_first_block() {
    let index = roomy();
    let (a, b, c) = (occupant(0, 0), occupant(1, 0), occupant(2, 0));
    store(&index, a, &[1, 2, 3], 0);
    store(&index, b, &[1, 2, 3, 4], 0);
    index.apply(&delta(b, IndexChange::Remove { tier: Tier::Device, blocks: &[2] }));
    // b has a hole at the second block: what comes after it does not count.
    assert_eq!(lookup(&index, &[a, b, c], &[1, 2, 3, 4]), [3, 1, 0]);
    assert_eq!(lookup(&index, &[a, b, c], &[9, 1, 2]), [0, 0, 0]);
    assert_eq!(lookup(&index, &[a, b, c], &[]), [0, 0, 0]);
}

#[test]
fn several_chains_add_up() {
    let index = roomy();
    let a = occupant(0, 0);
    store(&index, a, &[1, 2], 0);
    store(&index, a, &[5], 0);
    let mut matched = [0];
    index.lookup(SPACE, &[a], &[1, 2, 3], &mut matched);
    index.lookup(SPACE, &[a], &[5, 6], &mut matched);
    assert_eq!(matched, [3]);
}

#[test]
fn a_restarted_process_has_nothing_at_once_and_its_entries_are_purged_later() {
    let index = roomy();
    let blocks = chain(1, 1000);
    store(&index, occupant(3, 7), &blocks, 0);
    assert_eq!(lookup(&index, &[occupant(3, 7)], &blocks), [1000]);
    assert_eq!(lookup(&index, &[occupant(3, 8)], &blocks), [0]);
    store(&index, occupant(3, 8), &blocks[..5], 0);
    assert_eq!(lookup(&index, &[occupant(3, 7)], &blocks), [0]);
    assert_eq!(lookup(&index, &[occupant(3, 8)], &blocks), [5]);
    // A late change of the former process is ignored.
    store(&index, occupant(3, 7), &blocks, 0);
    assert_eq!(index.stats().ignored, 1);
    for _ in 0..20 {
        index.retain(SPACE, |_| true);
    }
    let stats = index.stats();
    assert_eq!((stats.entries, stats.owners, stats.purged), (5, 1, 1000));
    assert_eq!(lookup(&index, &[occupant(3, 8)], &blocks), [5]);
}

#[test]
fn who_left_is_retired_and_a_clear_forgets_everything() {
    let index = roomy();
    store(&index, occupant(0, 0), &[1], 0);
    store(&index, occupant(1, 0), &[1, 2], 0);
    index.retain(SPACE, |o| o.slot.0 == 1);
    assert_eq!(lookup(&index, &[occupant(0, 0), occupant(1, 0)], &[1, 2]), [0, 2]);
    index.apply(&delta(occupant(1, 0), IndexChange::Clear));
    assert_eq!(lookup(&index, &[occupant(1, 0)], &[1, 2]), [0]);
    index.retain(SPACE, |_| true);
    assert_eq!((index.stats().entries, index.stats().blocks), (0, 0));
}

#[test]
fn spaces_do_not_see_each_other() {
    let index = roomy();
    store(&index, occupant(0, 0), &[1], 0);
    let mut matched = [0];
    index.lookup(Space(2), &[occupant(0, 0)], &[1], &mut matched);
    assert_eq!(matched, [0]);
}

#[test]
fn a_sequence_that_is_not_newer_is_ignored() {
    let index = roomy();
    let event = |sequence, blocks: &[u64]| {
        index.apply(&IndexDelta {
            space: SPACE,
            occupant: occupant(0, 0),
            source: IndexSource::Event,
            sequence,
            change: IndexChange::Store { tier: Tier::Device, blocks, capacity: None },
        });
    };
    event(2, &[1]);
    event(2, &[2]);
    event(3, &[3]);
    assert_eq!((index.stats().entries, index.stats().ignored), (2, 1));
}

#[test]
fn an_endpoint_forgets_what_is_unused_for_longest() {
    let index = roomy();
    let a = [occupant(0, 0)];
    store(&index, a[0], &[1], 2);
    store(&index, a[0], &[2], 2);
    store(&index, a[0], &[3], 2);
    assert_eq!([1, 2, 3].map(|b| lookup(&index, &a, &[b])[0]), [0, 1, 1]);
    // Of a chain that does not fit, the beginning is kept.
    store(&index, a[0], &[10, 11, 12], 2);
    assert_eq!(lookup(&index, &a, &[10, 11, 12]), [2]);
    assert_eq!(index.stats().evicted, 4);
}

#[test]
fn the_bound_in_bytes_holds_and_the_oldest_go_first() {
    let max = 100 * 1000 * ENTRY_BYTES;
    let index = PrefixIndex::new(max);
    for i in 0..400 {
        store(&index, occupant(i % 7, 0), &chain(u64::from(i), 1000), 0);
        assert!(index.stats().bytes <= max);
    }
    let held = |i: u32| lookup(&index, &[occupant(i % 7, 0)], &chain(u64::from(i), 1000))[0];
    assert_eq!((held(0), held(250)), (0, 0));
    assert_eq!((held(399), held(350)), (1000, 1000));
    let allocated = index.allocated_bytes();
    assert!(allocated < max + max / 20, "{allocated} bytes allocated, bound {max}");
}

#[test]
fn memory_of_one_entry() {
    for (holders, most) in [(1, 64), (2, 64), (8, 64), (100, 64), (1000, 64)] {
        let index = PrefixIndex::new(1 << 30);
        let chains: Vec<_> =
            (0..(200_000 / holders / 100).max(1)).map(|c| chain(u64::from(c), 100)).collect();
        for slot in 0..holders {
            chains.iter().for_each(|c| store(&index, occupant(slot, 0), c, 0));
        }
        let stats = index.stats();
        let per_entry = index.allocated_bytes() / stats.entries;
        println!(
            "{holders} holders of each block: {} entries, {per_entry} bytes allocated each, {} charged each",
            stats.entries,
            stats.bytes / stats.entries
        );
        assert!(per_entry <= most, "{per_entry} bytes with {holders} holders");
    }
}

#[test]
fn a_chain_over_the_bound_is_cut() {
    let index = PrefixIndex::new(10 * ENTRY_BYTES);
    store(&index, occupant(0, 0), &chain(1, 100), 0);
    assert_eq!(lookup(&index, &[occupant(0, 0)], &chain(1, 100)), [10]);
    let nothing = PrefixIndex::new(0);
    store(&nothing, occupant(0, 0), &[1], 0);
    assert_eq!(nothing.stats().entries, 0);
}

#[test]
fn many_threads_leave_consistent_counts() {
    let index = PrefixIndex::new(3000 * ENTRY_BYTES);
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let index = &index;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(u64::from(thread));
                for round in 0..400 {
                    let blocks = chain(rng.u64(0..20), 60);
                    let at = occupant(rng.u32(0..12), round / 100);
                    match rng.u32(0..10) {
                        0 => index.apply(&delta(at, IndexChange::Clear)),
                        1 => index.retain(SPACE, |o| o.slot.0 != at.slot.0),
                        2 => index
                            .apply(&delta(at, IndexChange::Remove { tier: Tier::Device, blocks: &blocks })),
                        3..6 => store(index, at, &blocks, 500),
                        _ => assert!(lookup(index, &[at], &blocks)[0] <= 60),
                    }
                }
            });
        }
    });
    assert!(index.stats().bytes <= 3000 * ENTRY_BYTES);
    index.retain(SPACE, |_| false);
    while index.purge_some() > 0 || !index.retired.lock().is_empty() {}
    let stats = index.stats();
    assert_eq!((stats.entries, stats.blocks, stats.bytes, stats.owners), (0, 0, 0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Store(u32, usize, usize),
    Remove(u32, u64),
    Restart(u32),
    Clear(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u32..5, 0_usize..4, 1_usize..7).prop_map(|(s, c, n)| Step::Store(s, c, n)),
        1 => (0_u32..5, 0_u64..28).prop_map(|(s, b)| Step::Remove(s, b)),
        1 => (0_u32..5).prop_map(Step::Restart),
        1 => (0_u32..5).prop_map(Step::Clear),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    /// Against plain sets without bounds: after any history each endpoint matches what its process holds.
    #[test]
    fn it_agrees_with_plain_sets(steps in steps()) {
        let index = roomy();
        let chains: Vec<Vec<u64>> = (0..4).map(|c| (0..7).map(|b| c * 7 + b).collect()).collect();
        let mut now = [0_u32; 5];
        let mut model: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Store(slot, c, n) => {
                    store(&index, occupant(slot, now[slot as usize]), &chains[c][..n], 0);
                    model.entry(slot).or_default().extend(&chains[c][..n]);
                }
                Step::Remove(slot, block) => {
                    let change = IndexChange::Remove { tier: Tier::Device, blocks: &[block] };
                    index.apply(&delta(occupant(slot, now[slot as usize]), change));
                    model.entry(slot).or_default().remove(&block);
                }
                Step::Restart(slot) => {
                    now[slot as usize] += 1;
                    model.remove(&slot);
                }
                Step::Clear(slot) => {
                    index.apply(&delta(occupant(slot, now[slot as usize]), IndexChange::Clear));
                    model.remove(&slot);
                }
            }
        }
        let occupants: Vec<_> = (0..5).map(|s| occupant(s, now[s as usize])).collect();
        for chain in &chains {
            let wanted: Vec<_> = (0..5)
                .map(|s| {
                    let held = model.get(&s).cloned().unwrap_or_default();
                    u32::try_from(chain.iter().take_while(|b| held.contains(b)).count()).unwrap()
                })
                .collect();
            prop_assert_eq!(lookup(&index, &occupants, chain), wanted);
        }
    }
}
