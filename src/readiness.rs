//! Whether requests should be sent here: a set of named gates, all of which must be open, and a drain that closes them
//! for good.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Debug)]
struct Inner {
    gates: Mutex<BTreeMap<Arc<str>, bool>>,
    draining: std::sync::atomic::AtomicBool,
    ready: watch::Sender<bool>,
}

/// The gates of the process. Clones share them.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Inner>);

/// One gate; closed until opened. Dropping it leaves it as it is.
#[derive(Clone, Debug)]
pub struct Gate {
    name: Arc<str>,
    readiness: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// No gate yet, so ready.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            gates: Mutex::default(),
            draining: std::sync::atomic::AtomicBool::new(false),
            ready: watch::channel(true).0,
        }))
    }

    /// Adds a closed gate; `name` says what is waited for ("pool", "plugin kv-index").
    pub fn gate(&self, name: impl Into<Arc<str>>) -> Gate {
        let name = name.into();
        self.0.gates.lock().insert(Arc::clone(&name), false);
        self.publish();
        Gate { name, readiness: self.clone() }
    }

    /// Whether every gate is open and no drain has begun.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Names of the gates that are closed.
    pub fn waiting_for(&self) -> Vec<Arc<str>> {
        self.0.gates.lock().iter().filter(|(_, open)| !**open).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// The process is going away: never ready again.
    pub fn drain(&self) {
        self.0.draining.store(true, std::sync::atomic::Ordering::SeqCst);
        self.publish();
    }

    /// Whether the process is going away.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Follows [`Readiness::is_ready`].
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    fn publish(&self) {
        // Judged inside the watch's own lock, so that two changes at once cannot publish in the wrong order.
        self.0.ready.send_if_modified(|ready| {
            let now = !self.is_draining() && self.0.gates.lock().values().all(|open| *open);
            std::mem::replace(ready, now) != now
        });
    }
}

impl Gate {
    /// Opens or closes the gate.
    pub fn set(&self, open: bool) {
        if let Some(gate) = self.readiness.0.gates.lock().get_mut(&self.name) {
            *gate = open;
        }
        self.readiness.publish();
    }
    /// Opens the gate.
    pub fn open(&self) {
        self.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gate_must_be_open() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (pool, plugin) = (readiness.gate("pool"), readiness.gate("plugin"));
        pool.open();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.waiting_for(), [Arc::from("plugin")]);
        plugin.open();
        assert!(readiness.is_ready());
        pool.set(false);
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn a_drain_is_final_and_followers_hear_of_it() {
        let readiness = Readiness::new();
        let mut watch = readiness.watch();
        assert!(*watch.borrow_and_update());
        readiness.drain();
        assert!(watch.changed().await.is_ok());
        assert!(!*watch.borrow_and_update());
        readiness.gate("late").open();
        assert!(!readiness.is_ready());
        assert!(readiness.is_draining());
    }
}
