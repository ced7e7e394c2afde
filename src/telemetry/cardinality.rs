//! Keeps the number of label values bounded whatever clients send.

use dashmap::DashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What stands in place of a value that came after the cap was reached.
pub const OTHER: &str = "other";
/// Longest label value that is written; a longer one is folded into [`OTHER`].
pub const MAX_VALUE_BYTES: usize = 256;

/// The first `cap` distinct values keep their name, later ones become [`OTHER`]. Pinned values always keep it and
/// use up nothing; the empty value stays empty.
#[derive(Debug)]
pub struct Budget {
    known: DashMap<Arc<str>, ()>,
    used: AtomicUsize,
    cap: usize,
}

impl Budget {
    /// A budget of `cap` values.
    pub fn new(cap: usize) -> Self {
        Self { known: DashMap::new(), used: AtomicUsize::new(0), cap }
    }

    /// Gives `value` its name for good, outside the budget: names that the configuration holds.
    pub fn pin(&self, value: &str) {
        self.known.insert(value.into(), ());
    }

    /// The label for `value`: itself or [`OTHER`]. Allocates only for a value that is new.
    pub fn label<'a>(&self, value: &'a str) -> &'a str {
        if value.is_empty() || self.known.contains_key(value) {
            return value;
        }
        if value.len() > MAX_VALUE_BYTES {
            return OTHER;
        }
        let take = |used: usize| (used < self.cap).then_some(used + 1);
        if self.used.fetch_update(Relaxed, Relaxed, take).is_err() {
            return OTHER;
        }
        if self.known.insert(value.into(), ()).is_some() {
            // Someone else brought the same value in at the same moment: one place is enough for both.
            self.used.fetch_sub(1, Relaxed);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_cap_become_other() {
        let budget = Budget::new(2);
        budget.pin("pinned");
        assert_eq!(
            ["a", "b", "c", "a", "pinned", ""].map(|v| budget.label(v)),
            ["a", "b", OTHER, "a", "pinned", ""]
        );
    }

    #[test]
    fn an_overlong_value_costs_nothing() {
        let budget = Budget::new(1);
        let long = "x".repeat(MAX_VALUE_BYTES + 1);
        assert_eq!(budget.label(&long), OTHER);
        assert_eq!(budget.label("a"), "a");
    }

    #[test]
    fn the_cap_holds_when_many_threads_bring_values() {
        let budget = Budget::new(50);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..200).for_each(|i| drop(budget.label(&i.to_string()).to_owned())));
            }
        });
        assert_eq!((0..200).filter(|i| budget.label(&i.to_string()) != OTHER).count(), 50);
    }
}
