//! The part of an endpoint that changes while requests fly.

use super::{Incarnation, Reading, Sample};
use crate::clock::Moment;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

/// State of one endpoint shared by pollers, requests and debug pages. All of it is read without a lock.
#[derive(Debug)]
pub struct Live {
    incarnation: AtomicU32,
    sample: ArcSwapOption<Sample>,
    /// Samples older than this are stale: the larger of the configured threshold and three poll periods.
    stale_after_nanos: AtomicU64,
    in_flight_requests: AtomicI64,
    in_flight_tokens: AtomicI64,
    suspect: AtomicBool,
    models: ArcSwap<Vec<Arc<str>>>,
    models_known: AtomicBool,
}

/// Requests and tokens in flight on an endpoint, counted by this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadSnapshot {
    /// Requests that were sent there and have not ended.
    pub requests: u32,
    /// Their estimated tokens.
    pub tokens: u64,
}

impl Live {
    /// Fresh state for a slot whose next process is `incarnation`.
    pub fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation: AtomicU32::new(incarnation.0),
            sample: ArcSwapOption::empty(),
            stale_after_nanos: AtomicU64::new(2_000_000_000),
            in_flight_requests: AtomicI64::new(0),
            in_flight_tokens: AtomicI64::new(0),
            suspect: AtomicBool::new(false),
            models: ArcSwap::from_pointee(Vec::new()),
            models_known: AtomicBool::new(false),
        }
    }

    /// Which process is there now.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.load(Relaxed))
    }

    /// Another process took the place: everything learnt of the former one is forgotten.
    pub fn begin_incarnation(&self) -> Incarnation {
        self.sample.store(None);
        self.models_known.store(false, Relaxed);
        Incarnation(self.incarnation.fetch_add(1, Relaxed) + 1)
    }

    /// The last sample of this incarnation.
    pub fn sample(&self) -> Option<Arc<Sample>> {
        self.sample.load_full()
    }

    /// Borrowing access to the last sample; cheaper than [`Live::sample`] and meant to be short.
    pub fn with_sample<R>(&self, read: impl FnOnce(Option<&Sample>) -> R) -> R {
        let guard = self.sample.load();
        read(guard.as_deref())
    }

    /// Publishes a sample.
    pub fn publish(&self, sample: Sample) {
        self.sample.store(Some(Arc::new(sample)));
    }

    /// Sets the age from which samples count as stale.
    pub fn set_stale_after(&self, age: std::time::Duration) {
        self.stale_after_nanos.store(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How far a sample taken at `at` can be trusted at `now`.
    pub fn reading(&self, at: Option<Moment>, now: Moment) -> Reading {
        match at {
            None => Reading::Never,
            Some(at) if now.since(at).as_nanos() > u128::from(self.stale_after_nanos.load(Relaxed)) => {
                Reading::Stale
            }
            Some(_) => Reading::Fresh,
        }
    }

    /// Requests and tokens in flight.
    pub fn load(&self) -> LoadSnapshot {
        LoadSnapshot {
            requests: u32::try_from(self.in_flight_requests.load(Relaxed).max(0)).unwrap_or(u32::MAX),
            tokens: u64::try_from(self.in_flight_tokens.load(Relaxed)).unwrap_or(0),
        }
    }

    pub(super) fn add(&self, requests: i64, tokens: i64) {
        self.in_flight_requests.fetch_add(requests, Relaxed);
        self.in_flight_tokens.fetch_add(tokens, Relaxed);
    }

    /// Whether passive health holds it back: picked only when no other endpoint is left, and for probes.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Relaxed)
    }

    /// Sets what passive health says. Only the health tracker calls this.
    pub fn set_suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Relaxed);
    }

    /// Models that the engine lists, when a models source is configured and has answered.
    pub fn models(&self) -> Option<Arc<Vec<Arc<str>>>> {
        self.models_known.load(Relaxed).then(|| self.models.load_full())
    }

    /// Publishes the models that the engine lists.
    pub fn publish_models(&self, models: Vec<Arc<str>>) {
        self.models.store(Arc::new(models));
        self.models_known.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_new_incarnation_forgets_the_sample() {
        let live = Live::new(Incarnation(4));
        live.publish(Sample::empty(Moment::from_nanos(5)));
        assert!(live.sample().is_some());
        assert_eq!(live.begin_incarnation(), Incarnation(5));
        assert!(live.sample().is_none());
    }

    #[test]
    fn age_decides_between_fresh_and_stale() {
        let live = Live::new(Incarnation(0));
        live.set_stale_after(Duration::from_secs(1));
        let at = Moment::from_nanos(1);
        assert_eq!(live.reading(None, at), Reading::Never);
        assert_eq!(live.reading(Some(at), at.plus(Duration::from_secs(1))), Reading::Fresh);
        assert_eq!(live.reading(Some(at), at.plus(Duration::from_millis(1001))), Reading::Stale);
    }
}
