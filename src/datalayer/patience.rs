//! How long one scrape of a metrics page may take before it counts as timed out.
//!
//! A hang has to be noticed within a second, by two timeouts in a row; a page that is merely slow has to be read all
//! the same. So a page that usually comes soon is given up soon, twice, and then gets all the time there is.

use crate::endpoint::health::SCRAPES_TO_SUSPECT;
use std::time::Duration;

/// A page is never given up before this.
const SHORTEST: Duration = Duration::from_millis(250);
/// A page is given this many times what it took lately.
const TIMES: u32 = 3;
/// What is left of a slow page's time in memory with each faster page: half of it after 35 pages.
const KEPT: f64 = 0.98;

/// The patience with one page.
#[derive(Debug)]
pub(super) struct Patience {
    most: Duration,
    /// About the longest that a page took lately; absent while none came.
    lately: Option<Duration>,
    timeouts: u32,
}

impl Patience {
    /// With a page of which nothing is known: `most`, which is never exceeded.
    pub fn new(most: Duration) -> Self {
        Self { most, lately: None, timeouts: 0 }
    }

    /// How long the next scrape may take.
    pub fn limit(&self) -> Duration {
        match self.lately {
            Some(lately) if self.timeouts < SCRAPES_TO_SUSPECT => {
                lately.saturating_mul(TIMES).max(SHORTEST).min(self.most)
            }
            _ => self.most,
        }
    }

    /// The page came after so long.
    pub fn came(&mut self, took: Duration) {
        self.timeouts = 0;
        let before = self.lately.unwrap_or_default().mul_f64(KEPT);
        self.lately = Some(took.max(before));
    }

    /// The page did not come in time. True for the first time in a row: then the next scrape should follow at once.
    pub fn timed_out(&mut self) -> bool {
        self.timeouts = self.timeouts.saturating_add(1);
        self.timeouts == 1
    }

    /// Nothing listens there: what answers next is another process, which may be slow at first.
    pub fn refused(&mut self) {
        self.lately = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(1);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn two_timeouts_of_a_quick_page_take_half_a_second_and_then_it_has_time() {
        let mut patience = Patience::new(MOST);
        assert_eq!(patience.limit(), MOST, "nothing is known yet");
        patience.came(millis(3));
        assert_eq!(patience.limit(), SHORTEST);
        assert!(patience.timed_out());
        assert_eq!(patience.limit(), SHORTEST);
        assert!(!patience.timed_out());
        assert_eq!(patience.limit(), MOST, "it may be slow and no more");
        patience.came(millis(3));
        assert_eq!(patience.limit(), SHORTEST);
        patience.refused();
        assert_eq!(patience.limit(), MOST);
    }

    #[test]
    fn a_slow_page_gets_its_time_and_is_remembered_for_a_while() {
        let mut patience = Patience::new(MOST);
        patience.came(millis(200));
        assert_eq!(patience.limit(), millis(600));
        patience.came(millis(500));
        assert_eq!(patience.limit(), MOST);
        for _ in 0..20 {
            patience.came(millis(1));
        }
        assert!(patience.limit() > SHORTEST);
        for _ in 0..200 {
            patience.came(millis(1));
        }
        assert_eq!(patience.limit(), SHORTEST);
    }

    #[test]
    fn a_configured_timeout_below_the_shortest_holds() {
        let mut patience = Patience::new(millis(100));
        patience.came(millis(1));
        assert_eq!(patience.limit(), millis(100));
    }
}
