//! State that outlives the plugins that use it.

use parking_lot::Mutex;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

type Key = (TypeId, Arc<str>, u64);

/// State of plugins, keyed by its type, the plugin's instance name and a fingerprint of the parameters that shape it.
/// A plan built anew finds what still fits and starts afresh where the shape changed.
#[derive(Default)]
pub struct StateStore(Mutex<HashMap<Key, Arc<dyn Any + Send + Sync>>>);

impl StateStore {
    /// The state under this key, made by `make` when there is none.
    pub fn get_or_insert<T: Any + Send + Sync>(
        &self,
        instance: &str,
        fingerprint: u64,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let key = (TypeId::of::<T>(), Arc::from(instance), fingerprint);
        let mut held = self.0.lock();
        if let Some(found) = held.get(&key).and_then(|any| Arc::clone(any).downcast::<T>().ok()) {
            return found;
        }
        let made = Arc::new(make());
        held.insert(key, Arc::clone(&made) as Arc<dyn Any + Send + Sync>);
        made
    }
    /// Drops every state that nothing but the store holds: called after a plan was swapped.
    pub fn drop_unused(&self) {
        self.0.lock().retain(|_, state| Arc::strong_count(state) > 1);
    }
    /// How many states are held.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }
    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl std::fmt::Debug for StateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateStore({} states)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_found_again_and_what_nobody_uses_is_dropped() {
        let store = StateStore::default();
        let first = store.get_or_insert("a", 1, || 5_u32);
        assert!(Arc::ptr_eq(&first, &store.get_or_insert("a", 1, || 6)));
        assert!(!Arc::ptr_eq(&first, &store.get_or_insert("a", 2, || 6)));
        store.drop_unused();
        assert_eq!(store.len(), 1);
    }
}
