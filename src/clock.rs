//! Time as an argument. Nothing below `app` reads the system clock by itself, so tests and simulations hand time in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A moment on a process-local monotonic clock, in nanoseconds since the clock was made. Always at least 1, so that 0
/// can stand for "never" in atomics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanos` nanoseconds after the clock's origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(if nanos == 0 { 1 } else { nanos })
    }
    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
    /// The moment `by` later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Where time comes from: the system, or a hand that tests and simulations move.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The operating system's monotonic clock, counted from `origin`.
    System {
        /// When the clock was made.
        origin: Instant,
    },
    /// A clock that stands still until it is moved.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system clock, starting now.
    pub fn system() -> Self {
        // One second of head start keeps "now - something" representable right after the start.
        Self::System {
            origin: Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or_else(Instant::now),
        }
    }
    /// A clock moved by hand, starting at one second.
    pub fn manual() -> Self {
        Self::Manual(Arc::new(AtomicU64::new(1_000_000_000)))
    }
    /// The current moment.
    pub fn now(&self) -> Moment {
        match self {
            Self::System { origin } => {
                Moment::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
            }
            Self::Manual(nanos) => Moment::from_nanos(nanos.load(Ordering::Relaxed)),
        }
    }
    /// Moves a manual clock forward; does nothing to the system clock.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(nanos) = self {
            nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = Clock::manual();
        let start = clock.now();
        assert_eq!(clock.now(), start);
        clock.advance(Duration::from_millis(5));
        assert_eq!(clock.now().since(start), Duration::from_millis(5));
        assert_eq!(start.since(clock.now()), Duration::ZERO);
    }
}
