//! How long to wait before the next try: growing from one failure to the next, never less than what the server asks.

use std::time::Duration;

/// First pause after a failure.
const FIRST: Duration = Duration::from_millis(250);
/// Longest pause of our own making.
const LONGEST: Duration = Duration::from_secs(30);
/// Longest pause that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(120);
/// A watch that stood so long was a good one.
pub const STEADY: Duration = Duration::from_secs(10);

/// Pauses between tries of one kind.
#[derive(Debug)]
pub struct Pace {
    next: Duration,
    next_list: Duration,
    rng: fastrand::Rng,
}

impl Pace {
    /// Begins with the shortest pause.
    pub fn new(seed: u64) -> Self {
        Self { next: FIRST, next_list: FIRST, rng: fastrand::Rng::with_seed(seed) }
    }

    /// The pause after a failure. `asked` is what the server wants at least. Spread over a fifth either way, so that
    /// pickers that lost the server together do not come back together.
    pub fn failed(&mut self, asked: Option<Duration>) -> Duration {
        let pause = Self::grow(&mut self.next, &mut self.rng);
        pause.max(asked.unwrap_or_default().min(LONGEST_ASKED))
    }

    /// The pause before everything is listed anew, because what was known is too old. It grows apart from failures: after
    /// a long one the server is back and the list is what is missing, yet a server that refuses every watch is not listed
    /// in a tight loop.
    pub fn expired(&mut self) -> Duration {
        Self::grow(&mut self.next_list, &mut self.rng)
    }

    fn grow(next: &mut Duration, rng: &mut fastrand::Rng) -> Duration {
        let pause = next.mul_f64(0.8 + 0.4 * rng.f64());
        *next = (*next * 2).min(LONGEST);
        pause
    }

    /// The pause after a watch that ended without an error after `open`: none after a good one; a server that ends
    /// watches at once is not asked in a tight loop either.
    pub fn ended(&mut self, open: Duration) -> Duration {
        self.stood(open);
        if open >= STEADY { Duration::ZERO } else { self.failed(None) }
    }

    /// Forgets former failures if a watch that failed had stood for `open` before.
    pub fn stood(&mut self, open: Duration) {
        if open >= STEADY {
            (self.next, self.next_list) = (FIRST, FIRST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew_after_a_good_watch() {
        let mut pace = Pace::new(1);
        let pauses: Vec<_> = (0..12).map(|_| pace.failed(None)).collect();
        assert!(pauses[0] < Duration::from_millis(301), "{pauses:?}");
        assert!(pauses[11] >= Duration::from_secs(24) && pauses[11] <= Duration::from_secs(36), "{pauses:?}");
        pace.stood(Duration::from_secs(1));
        assert!(pace.failed(None) > Duration::from_secs(20), "a short watch proves nothing");
        pace.stood(STEADY);
        assert!(pace.failed(None) < Duration::from_millis(301));
        assert_eq!(pace.ended(STEADY), Duration::ZERO);
    }

    #[test]
    fn a_list_that_is_needed_after_a_long_failure_comes_soon_but_not_again_and_again() {
        let mut pace = Pace::new(2);
        for _ in 0..20 {
            pace.failed(None);
        }
        assert!(pace.expired() < Duration::from_millis(301));
        let next: Duration = (0..12).map(|_| pace.expired()).sum();
        assert!(next > Duration::from_secs(120), "{next:?}");
        pace.stood(STEADY);
        assert!(pace.expired() < Duration::from_millis(301));
    }

    proptest! {
        /// Whatever happens, in 100 tries of which no watch stands, at least half an hour passes; and the server's wish
        /// is kept up to its bound.
        #[test]
        fn there_is_no_tight_loop(seed: u64, steps in prop::collection::vec((any::<bool>(), 0u64..200), 100)) {
            let mut pace = Pace::new(seed);
            let mut total = Duration::ZERO;
            for (clean, asked) in steps {
                let asked = Duration::from_secs(asked);
                let pause = if clean { pace.ended(Duration::from_secs(1)) } else { pace.failed(Some(asked)) };
                prop_assert!(clean || pause >= asked.min(LONGEST_ASKED));
                total += pause;
            }
            prop_assert!(total > Duration::from_secs(1800));
        }
    }
}
