//! When a metrics page is worth fetching again.
//!
//! A page costs its engine and the picker the same whether it says anything new or not. While requests of this picker are
//! in flight at an endpoint, its page is fetched each period. A page that said the same several times running, of an
//! endpoint that nothing is in flight at, is fetched less and less often, though several times before its numbers would be
//! stale. A page that takes long to come is left alone for as long as it took.

use crate::clock::Moment;
use std::time::Duration;

/// Equal pages in a row before the first pause is doubled.
const EQUAL_AT_FULL_PACE: u32 = 4;
/// Fetches in the time after which numbers are stale, however much the pace slackens.
const FETCHES_UNTIL_STALE: u32 = 4;
/// Fetches that start this much before their time are due: timers are no more exact than that.
const EARLY: Duration = Duration::from_millis(2);

/// The pace of one page's fetches.
#[derive(Debug)]
pub(super) struct Pace {
    period: Duration,
    /// Longest pause; the period itself where the pace never slackens.
    most: Duration,
    equal: u32,
    took: Duration,
    started: Option<Moment>,
}

impl Pace {
    /// A fetch each `period`.
    pub fn steady(period: Duration) -> Self {
        Self { period, most: period, equal: 0, took: Duration::ZERO, started: None }
    }

    /// At best a fetch each `period`, for numbers that are stale after `stale_after`.
    pub fn backing_off(period: Duration, stale_after: Duration) -> Self {
        Self { most: (stale_after / FETCHES_UNTIL_STALE).max(period), ..Self::steady(period) }
    }

    /// Whether a fetch is due at `now`; `busy` says that requests are in flight at the endpoint. Asked each period.
    pub fn due(&self, now: Moment, busy: bool) -> bool {
        let pause = if busy { self.period } else { self.slackened() };
        let pause = pause.max(self.took.saturating_mul(2)).min(self.most);
        self.started.is_none_or(|started| now.since(started) + EARLY >= pause)
    }

    fn slackened(&self) -> Duration {
        let doublings = self.equal.saturating_sub(EQUAL_AT_FULL_PACE);
        self.period.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(self.most)
    }

    /// A fetch that began at `started` took so long; `equal` says that its page said nothing new.
    pub fn came(&mut self, started: Moment, took: Duration, equal: bool) {
        self.started = Some(started);
        self.took = took;
        self.equal = if equal { self.equal.saturating_add(1) } else { 0 };
    }

    /// A fetch failed: the next one is due after a period.
    pub fn failed(&mut self) {
        *self = Self { equal: 0, took: Duration::ZERO, started: None, ..*self };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const PERIOD: Duration = Duration::from_millis(50);
    const STALE: Duration = Duration::from_secs(2);

    /// Pauses between fetches of a page that always comes in `took` and whose pages are equal as `equal` says.
    fn pauses(mut pace: Pace, took: Duration, busy: bool, equal: impl Fn(usize) -> bool) -> Vec<u128> {
        let clock = Clock::manual();
        let mut fetches = Vec::new();
        let origin = clock.now();
        while fetches.len() < 20 {
            let now = clock.now();
            if pace.due(now, busy) {
                pace.came(now, took, equal(fetches.len()));
                fetches.push(now.since(origin).as_millis());
            }
            clock.advance(PERIOD);
        }
        fetches.windows(2).map(|two| two[1] - two[0]).collect()
    }

    #[test]
    fn an_idle_page_that_says_nothing_new_is_fetched_less_and_less_often() {
        let pauses = pauses(Pace::backing_off(PERIOD, STALE), Duration::ZERO, false, |n| n > 0);
        assert_eq!(pauses[..10], [50, 50, 50, 50, 50, 100, 200, 400, 500, 500]);
        assert!(pauses[10..].iter().all(|pause| *pause == 500));
    }

    #[test]
    fn requests_in_flight_and_news_bring_the_full_pace_back() {
        assert!(
            pauses(Pace::backing_off(PERIOD, STALE), Duration::ZERO, true, |_| true).iter().all(|p| *p == 50)
        );
        let news_at_ten = pauses(Pace::backing_off(PERIOD, STALE), Duration::ZERO, false, |n| n % 10 != 0);
        assert_eq!(news_at_ten[9..12], [500, 50, 50]);
    }

    #[test]
    fn a_page_that_takes_long_is_left_alone_for_as_long() {
        let slow = pauses(Pace::backing_off(PERIOD, STALE), Duration::from_millis(120), true, |_| false);
        assert!(slow.iter().all(|pause| *pause == 250), "{slow:?}");
        let slower = pauses(Pace::backing_off(PERIOD, STALE), Duration::from_secs(1), true, |_| false);
        assert!(slower.iter().all(|pause| *pause == 500), "{slower:?}");
    }

    #[test]
    fn a_steady_pace_and_one_bound_by_staleness_never_slacken() {
        for pace in [Pace::steady(PERIOD), Pace::backing_off(PERIOD, PERIOD * 3)] {
            assert!(pauses(pace, Duration::from_millis(80), false, |_| true).iter().all(|p| *p == 50));
        }
    }

    #[test]
    fn a_failure_is_followed_up_at_once() {
        let clock = Clock::manual();
        let mut pace = Pace::backing_off(PERIOD, STALE);
        (0..20).for_each(|_| pace.came(clock.now(), Duration::ZERO, true));
        clock.advance(PERIOD);
        assert!(!pace.due(clock.now(), false));
        pace.failed();
        assert!(pace.due(clock.now(), false));
    }
}
