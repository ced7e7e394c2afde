//! A hash table of small records: the records lie densely in a vector, an open-addressed table of 4-byte cells finds
//! them. Both shrink again, so that what was evicted gives its memory back.

/// A record that knows the hash it is found under.
pub(super) trait Keyed {
    /// The hash; unique among the records of one table.
    fn hash(&self) -> u64;
}

const EMPTY: u32 = u32::MAX;

/// Worst bytes of cells for one record while the table grows: 4 bytes a cell, filled to 53 % right after growing.
pub(super) const CELL_BYTES: usize = 8;

/// The table. Indices of records change when others are removed; [`Dense::remove`] says which.
pub(super) struct Dense<T> {
    records: Vec<T>,
    cells: Vec<u32>,
}

impl<T: Keyed> Dense<T> {
    pub(super) const fn new() -> Self {
        Self { records: Vec::new(), cells: Vec::new() }
    }
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.records.get(index as usize)
    }
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.records.get_mut(index as usize)
    }
    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.records.capacity() * size_of::<T>() + self.cells.capacity() * size_of::<u32>()
    }

    /// Index of the record with this hash.
    pub(super) fn find(&self, hash: u64) -> Option<u32> {
        self.cell_of(hash).map(|cell| self.cells[cell])
    }

    /// Adds a record whose hash is not in the table; returns its index. Room is made for `most` records, no more, while
    /// there are not as many.
    pub(super) fn push(&mut self, record: T, most: usize) -> u32 {
        if (self.records.len() + 1) * 5 > self.cells.len() * 4 {
            self.rehash((self.cells.len() * 3 / 2).max(16));
        }
        if self.records.len() == self.records.capacity() {
            // An eighth at a time keeps the slack small; a record is moved about eight times in all.
            let step = (self.records.len() / 8).max(16);
            let left = most.checked_sub(self.records.len()).filter(|left| *left > 0);
            self.records.reserve_exact(left.map_or(step, |left| step.min(left)));
        }
        let index = u32::try_from(self.records.len()).unwrap_or(EMPTY);
        let hash = record.hash();
        self.records.push(record);
        self.place(hash, index);
        index
    }

    /// Takes the record at `index` out. The last record, if it was another, is at `index` afterwards.
    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let hash = self.get(index)?.hash();
        self.clear_cell(self.cell_of(hash)?);
        let last = u32::try_from(self.records.len() - 1).unwrap_or(EMPTY);
        if index != last
            && let Some(cell) = self.records.last().and_then(|moved| self.cell_of(moved.hash()))
        {
            self.cells[cell] = index;
        }
        let removed = self.records.swap_remove(index as usize);
        self.shrink();
        Some(removed)
    }

    fn shrink(&mut self) {
        let len = self.records.len();
        if len + 64 < self.records.capacity() / 4 * 3 {
            self.records.shrink_to(len + len / 8);
        }
        if len * 3 + 64 < self.cells.len() {
            self.rehash((len * 3 / 2).max(16));
        }
    }

    fn rehash(&mut self, cells: usize) {
        self.cells = vec![EMPTY; cells];
        for index in 0..self.records.len() {
            self.place(self.records[index].hash(), u32::try_from(index).unwrap_or(EMPTY));
        }
    }

    fn home(&self, hash: u64) -> usize {
        // Multiplying spreads hashes that differ in low bits only; the high half then picks the cell.
        let mixed = u128::from(hash.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        usize::try_from((mixed * self.cells.len() as u128) >> 64).unwrap_or(0)
    }

    fn after(&self, cell: usize) -> usize {
        if cell + 1 == self.cells.len() { 0 } else { cell + 1 }
    }

    fn cell_of(&self, hash: u64) -> Option<usize> {
        if self.cells.is_empty() {
            return None;
        }
        let mut cell = self.home(hash);
        loop {
            let index = self.cells[cell];
            if index == EMPTY {
                return None;
            }
            if self.records[index as usize].hash() == hash {
                return Some(cell);
            }
            cell = self.after(cell);
        }
    }

    fn place(&mut self, hash: u64, index: u32) {
        let mut cell = self.home(hash);
        while self.cells[cell] != EMPTY {
            cell = self.after(cell);
        }
        self.cells[cell] = index;
    }

    /// Empties a cell and moves later ones of the same run back, so that no search stops too early.
    fn clear_cell(&mut self, mut hole: usize) {
        let mut cell = hole;
        loop {
            cell = self.after(cell);
            let index = self.cells[cell];
            if index == EMPTY {
                break;
            }
            let home = self.home(self.records[index as usize].hash());
            let stays = if hole <= cell { hole < home && home <= cell } else { hole < home || home <= cell };
            if !stays {
                self.cells[hole] = index;
                hole = cell;
            }
        }
        self.cells[hole] = EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    impl Keyed for u64 {
        fn hash(&self) -> u64 {
            *self
        }
    }

    proptest! {
        /// Against a set of the standard library, with hashes close together so that runs are long.
        #[test]
        fn it_behaves_like_a_set(steps in prop::collection::vec((0_u64..200, any::<bool>()), 0..800)) {
            let mut table = Dense::new();
            let mut model = HashSet::new();
            for (hash, add) in steps {
                let found = table.find(hash);
                prop_assert_eq!(found.is_some(), model.contains(&hash));
                match found {
                    None if add => {
                        table.push(hash, usize::MAX);
                        model.insert(hash);
                    }
                    Some(index) if !add => {
                        prop_assert_eq!(table.remove(index), Some(hash));
                        model.remove(&hash);
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for hash in model {
                let index = table.find(hash).unwrap();
                prop_assert_eq!(table.get(index), Some(&hash));
            }
        }
    }

    #[test]
    fn memory_comes_back() {
        let mut table = Dense::new();
        (0..10_000_u64).for_each(|h| _ = table.push(h, usize::MAX));
        let full = table.bytes();
        assert!(full <= 10_000 * (9 + CELL_BYTES), "{full}");
        (0..9_900_u64).for_each(|h| _ = table.find(h).and_then(|i| table.remove(i)));
        assert!(table.bytes() * 20 < full, "{} of {full}", table.bytes());
    }

    #[test]
    fn a_table_that_is_to_have_so_many_has_room_for_no_more() {
        for most in [1_usize, 15, 100, 10_000] {
            let mut table = Dense::new();
            for hash in 0..most as u64 {
                table.push(hash, most);
                assert!(table.records.capacity() <= most, "{most}");
            }
            table.push(most as u64, most);
            assert_eq!(table.len(), most + 1);
        }
    }
}
