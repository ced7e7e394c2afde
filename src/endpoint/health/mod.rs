//! Passive health: endpoints that refuse, hang or fail are held back before many requests are lost on them.
//!
//! An endpoint becomes *suspect* after two refused or timed-out scrapes in a row, or five requests in a row that ended
//! in 5xx or a reset. Timeouts count only while no request is answered in between: who answers does not hang. While suspect it gets no request unless no other endpoint is left, except for one probe a second.
//! A probe that is answered below 500 brings it back with its full share. After refusals on its own port probes wait
//! until something answers there again; after scrapes that merely hang they do not, and once a request is answered the
//! broken page counts no more until it works: an outage of metrics must not become an outage of serving.
//!
//! At most half of the pool (rounded down, so nobody in a pool of one) is suspect at once. Further endpoints that fail
//! are not held back, which is said once for each, and take the first place that becomes free.

mod ward;

pub use ward::{
    Cause, Change, PROBE_INTERVAL, REQUESTS_TO_SUSPECT, SCRAPES_TO_SUSPECT, ScrapeFailure, Suspicion, Ward,
};

use super::{Endpoint, EndpointKey};
use crate::clock::{Clock, Moment};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Counter: how often endpoints became suspect. Label `reason`.
pub const METRIC_SUSPICIONS: &str = "pointsman_endpoint_suspicions_total";
/// Counter: how often an endpoint failed but half of the pool was suspect already. Label `reason`.
pub const METRIC_HELD_BACK: &str = "pointsman_endpoint_suspicions_over_cap_total";

#[derive(Debug, Default)]
struct State {
    ward: Ward,
    /// Members about which anything bad is remembered.
    troubled: usize,
    endpoints: HashMap<u32, Arc<Endpoint>>,
}

/// Watches over the endpoints of a pool. Events may come from any task; those that change nothing cost one load.
#[derive(Debug)]
pub struct HealthTracker {
    state: Mutex<State>,
    /// Whether anything bad is remembered of anyone; while not, good news needs no lock.
    troubled: AtomicBool,
    clock: Clock,
}

impl HealthTracker {
    /// Nobody watched yet.
    pub fn new(clock: Clock) -> Self {
        Self { state: Mutex::default(), troubled: AtomicBool::new(false), clock }
    }

    /// Makes `endpoints` the pool. Call it with every new snapshot; events of endpoints outside the pool are ignored.
    pub fn set_pool(&self, endpoints: &[Arc<Endpoint>]) {
        let state = &mut *self.state.lock();
        let slots: Vec<u32> = endpoints.iter().map(|e| e.slot.0).collect();
        let replaced: Vec<u32> = endpoints
            .iter()
            .filter(|e| state.endpoints.get(&e.slot.0).is_some_and(|former| !same_process(former, e)))
            .map(|e| e.slot.0)
            .collect();
        let next: HashMap<u32, Arc<Endpoint>> = endpoints.iter().map(|e| (e.slot.0, Arc::clone(e))).collect();
        for (slot, former) in &state.endpoints {
            let stays = next.get(slot).is_some_and(|e| Arc::ptr_eq(&e.live, &former.live));
            if !stays && former.live.is_suspect() {
                former.live.set_suspect(false);
            }
        }
        state.endpoints = next;
        let changes = state.ward.set_members(&slots, &replaced);
        for (slot, change) in changes {
            if let Some(endpoint) = state.endpoints.get(&slot) {
                announce(endpoint, change);
            }
        }
        state.troubled = state.ward.len() - state.ward.untroubled();
        self.troubled.store(state.troubled > 0, Relaxed);
    }

    /// A scrape of the endpoint's metrics failed.
    pub fn scrape_failed(&self, endpoint: &Endpoint, failure: ScrapeFailure) {
        self.event(endpoint, |ward, slot, now| ward.scrape_failed(slot, failure, now));
    }

    /// A scrape of the endpoint's metrics succeeded.
    pub fn scrape_ok(&self, endpoint: &Endpoint) {
        if self.troubled.load(Relaxed) {
            self.event(endpoint, |ward, slot, _now| {
                ward.scrape_ok(slot);
                None
            });
        }
    }

    /// A request that was sent there ended in 5xx or a reset before its answer began.
    pub fn request_failed(&self, endpoint: &Endpoint) {
        self.event(endpoint, Ward::request_failed);
    }

    /// A request that was sent there was answered below 500. Call it when the response headers come, not when the
    /// answer ends: a long answer must not keep a recovered endpoint waiting.
    pub fn request_ok(&self, endpoint: &Endpoint) {
        if self.troubled.load(Relaxed) {
            self.event(endpoint, Ward::request_ok);
        }
    }

    /// Whether the next request may go to this endpoint as a probe: true at most once a second per suspect endpoint,
    /// never for others. Whoever gets `true` must send the request there.
    pub fn take_probe(&self, endpoint: &Endpoint, now: Moment) -> bool {
        endpoint.live.is_suspect() && {
            let state = &mut *self.state.lock();
            state.knows(endpoint) && state.ward.take_probe(endpoint.slot.0, now)
        }
    }

    /// The suspicion of this endpoint.
    pub fn suspicion(&self, endpoint: &Endpoint) -> Option<Suspicion> {
        let state = self.state.lock();
        state.knows(endpoint).then(|| state.ward.suspicion(endpoint.slot.0)).flatten()
    }

    /// Everyone who is suspect.
    pub fn suspects(&self) -> Vec<(EndpointKey, Suspicion)> {
        let state = self.state.lock();
        let named = |(slot, suspicion)| Some((state.endpoints.get(&slot)?.key.clone(), suspicion));
        state.ward.suspects().filter_map(named).collect()
    }

    fn event(&self, endpoint: &Endpoint, apply: impl FnOnce(&mut Ward, u32, Moment) -> Option<Change>) {
        let now = self.clock.now();
        let state = &mut *self.state.lock();
        if !state.knows(endpoint) {
            return;
        }
        let slot = endpoint.slot.0;
        let before = state.ward.is_troubled(slot);
        // Announced under the lock, so that two changes of one endpoint cannot overtake each other.
        if let Some(change) = apply(&mut state.ward, slot, now) {
            announce(endpoint, change);
        }
        let after = state.ward.is_troubled(slot);
        state.troubled = state.troubled + usize::from(after) - usize::from(before);
        self.troubled.store(state.troubled > 0, Relaxed);
    }
}

impl State {
    /// Whether the slot is still this endpoint's: a slot is reused after its endpoint left.
    fn knows(&self, endpoint: &Endpoint) -> bool {
        self.endpoints.get(&endpoint.slot.0).is_some_and(|known| Arc::ptr_eq(&known.live, &endpoint.live))
    }
}

fn same_process(a: &Endpoint, b: &Endpoint) -> bool {
    Arc::ptr_eq(&a.live, &b.live) && a.address == b.address && a.process_mark == b.process_mark
}

fn announce(endpoint: &Endpoint, change: Change) {
    let (key, address) = (&endpoint.key, &endpoint.address);
    match change {
        Change::Suspected(cause) => {
            endpoint.live.set_suspect(true);
            metrics::counter!(METRIC_SUSPICIONS, "reason" => cause.label()).increment(1);
            let reason = cause.label();
            tracing::warn!(%key, %address, reason, "endpoint is suspect: it gets only probes while others are left");
        }
        Change::HeldBack(cause) => {
            metrics::counter!(METRIC_HELD_BACK, "reason" => cause.label()).increment(1);
            let reason = cause.label();
            tracing::warn!(%key, %address, reason, "endpoint fails but keeps its share: half of the pool is suspect already");
        }
        Change::Recovered { after } => {
            endpoint.live.set_suspect(false);
            tracing::info!(%key, %address, suspect_ms = after.as_millis(), "endpoint answers again: it has its full share back");
        }
        Change::Released => {
            endpoint.live.set_suspect(false);
            tracing::info!(%key, %address, "endpoint is no longer suspect: its process or the pool's size changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{HostPort, Incarnation, Labels, Live, Role, Slot};
    use std::time::Duration;

    fn endpoint(slot: u32, port: u16) -> Arc<Endpoint> {
        let address: HostPort = format!("10.0.0.1:{port}").parse().unwrap();
        Arc::new(Endpoint {
            key: EndpointKey { namespace: "default".into(), name: format!("e{slot}").into(), rank: 0 },
            slot: Slot(slot),
            destination: address.to_string().into(),
            metrics_address: address.clone(),
            address,
            labels: Labels::default(),
            role: Role::Unlabelled,
            engine: None,
            process_mark: None,
            live: Arc::new(Live::new(Incarnation(0))),
        })
    }

    #[test]
    fn the_flag_that_scheduling_reads_follows_the_rules() {
        let clock = Clock::manual();
        let tracker = HealthTracker::new(clock.clone());
        let pool = [endpoint(0, 1), endpoint(1, 2)];
        tracker.set_pool(&pool);
        for _ in 0..REQUESTS_TO_SUSPECT {
            tracker.request_failed(&pool[0]);
        }
        assert!(pool[0].live.is_suspect() && !pool[1].live.is_suspect());
        assert_eq!(tracker.suspects().len(), 1);
        assert!(!tracker.take_probe(&pool[0], clock.now()));
        clock.advance(Duration::from_secs(1));
        assert!(tracker.take_probe(&pool[0], clock.now()));
        assert!(!tracker.take_probe(&pool[1], clock.now()), "who is not suspect needs no probe");
        tracker.request_ok(&pool[0]);
        assert!(!pool[0].live.is_suspect());
        assert!(!tracker.troubled.load(Relaxed), "the fast path is open again");
    }

    #[test]
    fn a_process_that_was_replaced_or_left_is_not_judged_by_the_former_one() {
        let tracker = HealthTracker::new(Clock::manual());
        let pool = [endpoint(0, 1), endpoint(1, 2)];
        tracker.set_pool(&pool);
        for _ in 0..REQUESTS_TO_SUSPECT {
            tracker.request_failed(&pool[0]);
        }
        let newcomer = endpoint(0, 9);
        tracker.set_pool(&[Arc::clone(&newcomer), Arc::clone(&pool[1])]);
        assert!(!pool[0].live.is_suspect() && !newcomer.live.is_suspect());
        for _ in 0..REQUESTS_TO_SUSPECT {
            tracker.request_failed(&pool[0]);
        }
        assert!(!newcomer.live.is_suspect(), "late news of who left the slot is ignored");
    }
}
