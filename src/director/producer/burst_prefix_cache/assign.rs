//! Which replica each request of a burst goes to.
//!
//! Requests with the same chain form a group when there are two or more of them. Longest first, a group goes to the
//! replica with the least of this burst so far (the first of equal ones), whole or `most` at a time. With `colocate` over 0
//! a group prefers the replica that got a chain sharing the longest beginning of at least that many blocks, while that
//! one has less than its even share; a single request follows such a chain, too, and is left alone otherwise.

/// How bursts are assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rules {
    /// Most requests of a group that go to one replica in a row; `None` is all of them.
    pub(super) most: Option<usize>,
    /// Least number of leading blocks for the sake of which groups go together; 0 is never.
    pub(super) colocate: usize,
    /// Whether load is counted in blocks, not in requests.
    pub(super) by_tokens: bool,
}

/// The replica of each chain, `None` where it may go anywhere.
pub(super) fn assign(chains: &[Vec<u64>], replicas: usize, rules: Rules) -> Vec<Option<usize>> {
    let mut to = vec![None; chains.len()];
    if replicas == 0 {
        return to;
    }
    let (groups, single) = grouped(chains);
    let weight = |i: usize| if rules.by_tokens { chains[i].len() } else { 1 };
    let total: usize = groups.iter().flatten().map(|i| weight(*i)).sum();
    let mut placed = Placed { load: vec![0; replicas], chains: vec![Vec::new(); replicas] };
    for group in &groups {
        for part in group.chunks(rules.most.unwrap_or(group.len()).max(1)) {
            let chain = &chains[part[0]];
            let near = placed.nearest(chain, rules.colocate, total.div_ceil(replicas));
            let replica = near.unwrap_or_else(|| placed.least());
            placed.load[replica] += part.iter().map(|i| weight(*i)).sum::<usize>();
            placed.chains[replica].push(chain);
            part.iter().for_each(|i| to[*i] = Some(replica));
        }
    }
    for i in single {
        to[i] = placed.nearest(&chains[i], rules.colocate, usize::MAX);
        if let Some(replica) = to[i] {
            placed.load[replica] += weight(i);
        }
    }
    to
}

/// Groups of equal chains, the longest first, else in order of their first members; and the chains that stand alone.
fn grouped(chains: &[Vec<u64>]) -> (Vec<Vec<usize>>, Vec<usize>) {
    let mut order = Vec::new();
    let mut members = std::collections::HashMap::new();
    for (i, chain) in chains.iter().enumerate().filter(|(_, chain)| !chain.is_empty()) {
        members
            .entry(chain.as_slice())
            .or_insert_with(|| {
                order.push(chain.as_slice());
                Vec::new()
            })
            .push(i);
    }
    let all = order.into_iter().filter_map(|chain| members.remove(chain));
    let (mut groups, single): (Vec<_>, Vec<_>) = all.partition(|group: &Vec<usize>| group.len() > 1);
    groups.sort_by_key(|group| std::cmp::Reverse(chains[group[0]].len()));
    (groups, single.into_iter().flatten().collect())
}

/// What the replicas got up to now.
struct Placed<'a> {
    load: Vec<usize>,
    chains: Vec<Vec<&'a Vec<u64>>>,
}

impl Placed<'_> {
    fn least(&self) -> usize {
        let least = self.load.iter().enumerate().min_by_key(|(_, load)| **load);
        least.map_or(0, |(replica, _)| replica)
    }

    /// The replica under `share` with the longest beginning of at least `colocate` blocks in common with `chain`.
    fn nearest(&self, chain: &[u64], colocate: usize, share: usize) -> Option<usize> {
        if colocate == 0 {
            return None;
        }
        let common = |other: &[u64]| chain.iter().zip(other).take_while(|(a, b)| a == b).count();
        let longest = |replica: usize| self.chains[replica].iter().map(|c| common(c)).max().unwrap_or(0);
        let open = (0..self.load.len()).filter(|r| self.load[*r] < share);
        let near = open.map(|r| (longest(r), r)).filter(|(blocks, _)| *blocks >= colocate);
        near.max_by_key(|(blocks, replica)| (*blocks, std::cmp::Reverse(*replica)))
            .map(|(_, replica)| replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Rules = Rules { most: None, colocate: 0, by_tokens: false };

    fn times(chain: &[u64], n: usize) -> Vec<Vec<u64>> {
        vec![chain.to_vec(); n]
    }

    /// How many requests each replica got.
    fn counts(chains: &[Vec<u64>], replicas: usize, rules: Rules) -> Vec<usize> {
        let to = assign(chains, replicas, rules);
        (0..replicas).map(|r| to.iter().filter(|t| **t == Some(r)).count()).collect()
    }

    #[test]
    fn bursts_of_the_catalogue() {
        let eight = times(&[1, 2, 3], 8);
        let most = |k| Rules { most: Some(k), ..PLAIN };
        assert_eq!(counts(&eight, 4, PLAIN), [8, 0, 0, 0]);
        assert_eq!(counts(&eight, 4, most(2)), [2, 2, 2, 2]);
        assert_eq!(counts(&eight, 4, most(4)), [4, 4, 0, 0]);
        assert_eq!(counts(&eight, 2, most(2)), [4, 4]);
        assert_eq!(assign(&[vec![1], vec![]], 2, PLAIN), [None, None]);
        assert_eq!(counts(&[eight, times(&[9], 8)].concat(), 4, PLAIN), [8, 8, 0, 0]);
    }

    #[test]
    fn families_of_the_catalogue() {
        let near = |colocate| Rules { colocate, ..PLAIN };
        let families = [[1, 2, 3], [1, 2, 4], [7, 8, 5], [7, 8, 6]].map(|chain| times(&chain, 2)).concat();
        let pairs = |to: Vec<Option<usize>>| to.chunks(2).map(|p| p[0].unwrap()).collect::<Vec<_>>();
        assert_eq!(pairs(assign(&families, 2, near(2))), [0, 0, 1, 1]);
        assert_eq!(pairs(assign(&families, 2, near(3))), [0, 1, 0, 1]);
        let four = [[1, 2, 3], [1, 2, 4], [1, 2, 5], [1, 2, 6]].map(|chain| times(&chain, 2)).concat();
        assert_eq!(counts(&four, 4, near(2)), [2, 2, 2, 2]);
        let with_single = [times(&[1, 2, 3], 2), vec![vec![1, 2, 9], vec![5, 5, 5]]].concat();
        assert_eq!(assign(&with_single, 3, near(2)), [Some(0), Some(0), Some(0), None]);
        let long = [times(&[1, 2, 3, 4], 2), times(&[5], 2), times(&[6], 2)].concat();
        let by_tokens = Rules { by_tokens: true, ..PLAIN };
        assert_eq!(pairs(assign(&long, 2, by_tokens)), [0, 1, 1]);
    }

    proptest! {
        #[test]
        fn every_member_of_a_group_has_a_place(
            chains in prop::collection::vec(prop::collection::vec(0_u64..3, 0..4), 0..40),
            replicas in 0_usize..5,
            most in prop::option::of(1_usize..4),
            colocate in 0_usize..3,
        ) {
            let to = assign(&chains, replicas, Rules { most, colocate, by_tokens: false });
            prop_assert_eq!(to.len(), chains.len());
            for (chain, to) in chains.iter().zip(&to) {
                let group = chains.iter().filter(|c| *c == chain).count() > 1 && !chain.is_empty();
                prop_assert!(to.is_none_or(|r| r < replicas));
                prop_assert!(replicas == 0 || !group || to.is_some());
                prop_assert!(!chain.is_empty() || to.is_none());
            }
        }
    }
}
