//! How many bytes of request bodies the process holds, and the cap on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the bytes of request bodies in memory, all requests together.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes, none in use.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }
    /// The cap in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }
    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The bytes that one request holds; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    held: usize,
}

impl Permit {
    /// A permit over nothing.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, held: 0 }
    }
    /// Takes `bytes` more, all or none; says whether they fit.
    #[must_use]
    pub fn take(&mut self, bytes: usize) -> bool {
        let limit = self.budget.limit;
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        let taken = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.held += if taken { bytes } else { 0 };
        taken
    }
    /// Takes `bytes` more, over the cap if need be: for what is in memory already and only passes through.
    pub fn take_over(&mut self, bytes: usize) {
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.held += bytes;
    }
    /// Gives `bytes` back; never more than are held.
    pub fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.held);
        self.held -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }
    /// Gives everything back.
    pub fn give_all_back(&mut self) {
        self.give_back(self.held);
    }
    /// Takes over what `other`, a permit of the same budget, holds.
    pub fn absorb(&mut self, mut other: Self) {
        self.held += std::mem::take(&mut other.held);
    }
    /// The cap of the process.
    pub fn limit(&self) -> usize {
        self.budget.limit
    }
    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_all_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let budget = Budget::new(10);
        let mut permit = Permit::new(Arc::clone(&budget));
        assert!(permit.take(7));
        assert!(!permit.take(4));
        assert!(permit.take(3));
        assert!(!permit.take(usize::MAX));
        permit.take_over(5);
        assert_eq!((budget.used(), permit.held()), (15, 15));
        permit.give_back(100);
        assert_eq!(budget.used(), 0);
    }

    proptest! {
        #[test]
        fn nothing_leaks(steps in proptest::collection::vec((0u8..4, 0usize..3, 0usize..2000), 0..60)) {
            let budget = Budget::new(4096);
            let mut permits: Vec<Option<Permit>> = (0..3).map(|_| None).collect();
            for (what, which, bytes) in steps {
                let slot = &mut permits[which];
                let permit = slot.get_or_insert_with(|| Permit::new(Arc::clone(&budget)));
                match what {
                    0 => { let _fits = permit.take(bytes); }
                    1 => permit.take_over(bytes),
                    2 => permit.give_back(bytes),
                    _ => *slot = None,
                }
                let held: usize = permits.iter().flatten().map(Permit::held).sum();
                prop_assert_eq!(budget.used(), held);
            }
            drop(permits);
            prop_assert_eq!(budget.used(), 0);
        }
    }
}
