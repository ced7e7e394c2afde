//! How a snapshot gets from its one writer to everyone.

use super::{PoolEvent, PoolIndex, PoolSnapshot};
use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;
use tokio::sync::watch;

/// The one writer of a pool's snapshots.
#[derive(Debug)]
pub struct PoolWriter {
    index: PoolIndex,
    current: Arc<ArcSwap<PoolSnapshot>>,
    generation: watch::Sender<u64>,
}

/// Cheap access to the current snapshot.
#[derive(Clone, Debug)]
pub struct PoolReader {
    current: Arc<ArcSwap<PoolSnapshot>>,
    generation: watch::Receiver<u64>,
}

/// A writer and its first reader, starting with an unknown pool.
pub fn channel() -> (PoolWriter, PoolReader) {
    let current = Arc::new(ArcSwap::from_pointee(PoolSnapshot::unknown()));
    let (send, receive) = watch::channel(0);
    let writer = PoolWriter { index: PoolIndex::default(), current: Arc::clone(&current), generation: send };
    (writer, PoolReader { current, generation: receive })
}

impl PoolWriter {
    /// Folds the events in and publishes once, and only if anything changed. Returns whether it did.
    pub fn apply(&mut self, events: impl IntoIterator<Item = PoolEvent>) -> bool {
        let mut changed = false;
        for event in events {
            changed |= self.index.apply(event);
        }
        if changed {
            let snapshot = self.index.snapshot();
            let generation = snapshot.generation;
            self.current.store(Arc::new(snapshot));
            self.generation.send_replace(generation);
        }
        changed
    }
}

impl PoolReader {
    /// The current snapshot, counted: take it once per request.
    pub fn load(&self) -> Arc<PoolSnapshot> {
        self.current.load_full()
    }
    /// The current snapshot, uncounted: for a short look.
    pub fn peek(&self) -> Guard<Arc<PoolSnapshot>> {
        self.current.load()
    }
    /// Waits until a snapshot is published that this reader has not waited for yet; `false` when the writer is gone.
    pub async fn changed(&mut self) -> bool {
        self.generation.changed().await.is_ok()
    }
}
