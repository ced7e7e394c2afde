//! Folds what discovery says into snapshots. A plain struct: no task, no lock.

use super::{PoolSnapshot, PoolSpec, RewriteRule};
use crate::endpoint::{
    ENGINE_LABELS, Endpoint, EndpointKey, HostPort, Incarnation, Labels, Live, ROLE_LABEL, Role, Slot,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An endpoint as discovery describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Who it is.
    pub key: EndpointKey,
    /// Where it takes requests.
    pub address: HostPort,
    /// Where its metrics are, when not at `address`.
    pub metrics_address: Option<HostPort>,
    /// Its labels.
    pub labels: Labels,
    /// What discovery knows of the process (pod UID and container start); a change is a new incarnation.
    pub process_mark: Option<Arc<str>>,
}

/// One thing that discovery says.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolEvent {
    /// The pool exists and looks like this; `None` when it was deleted.
    Pool(Option<PoolSpec>),
    /// The complete list of endpoints: what is not in it is gone.
    Endpoints(Vec<EndpointSpec>),
    /// One endpoint is new or changed.
    Upsert(EndpointSpec),
    /// One endpoint is gone.
    Remove(EndpointKey),
    /// The complete list of objectives with their priorities.
    Objectives(BTreeMap<Arc<str>, i32>),
    /// The complete list of rewrite rules in order of precedence.
    Rewrites(Vec<RewriteRule>),
    /// The complete list of priorities by model name.
    ModelPriorities(BTreeMap<Arc<str>, i32>),
}

/// The state behind the snapshots.
#[derive(Debug, Default)]
pub struct PoolIndex {
    generation: u64,
    spec: Option<PoolSpec>,
    synced: bool,
    endpoints: BTreeMap<EndpointKey, Arc<Endpoint>>,
    objectives: BTreeMap<Arc<str>, i32>,
    rewrites: Vec<RewriteRule>,
    model_priorities: BTreeMap<Arc<str>, i32>,
    free: Vec<Slot>,
    /// Next incarnation of every slot ever handed out; its length is the number of slots.
    next_incarnation: Vec<u32>,
}

impl PoolIndex {
    /// Takes one event; returns whether anything changed.
    pub fn apply(&mut self, event: PoolEvent) -> bool {
        match event {
            PoolEvent::Pool(spec) => replace(&mut self.spec, spec),
            PoolEvent::Objectives(list) => replace(&mut self.objectives, list),
            PoolEvent::Rewrites(list) => replace(&mut self.rewrites, list),
            PoolEvent::ModelPriorities(list) => replace(&mut self.model_priorities, list),
            PoolEvent::Upsert(spec) => self.upsert(spec),
            PoolEvent::Remove(key) => self.remove(&key),
            PoolEvent::Endpoints(list) => self.reset(list),
        }
    }

    /// The state as a snapshot of a new generation.
    pub fn snapshot(&mut self) -> PoolSnapshot {
        self.generation += 1;
        PoolSnapshot {
            generation: self.generation,
            spec: self.spec.clone(),
            synced: self.synced,
            endpoints: self.endpoints.values().cloned().collect(),
            objectives: self.objectives.clone(),
            rewrites: self.rewrites.clone(),
            model_priorities: self.model_priorities.clone(),
        }
    }

    fn reset(&mut self, list: Vec<EndpointSpec>) -> bool {
        let mut changed = !std::mem::replace(&mut self.synced, true);
        // The last of several entries with one identity wins, as with upserts.
        let wanted: BTreeMap<_, _> = list.into_iter().map(|spec| (spec.key.clone(), spec)).collect();
        let gone: Vec<_> = self.endpoints.keys().filter(|key| !wanted.contains_key(key)).cloned().collect();
        for key in gone {
            changed |= self.remove(&key);
        }
        for spec in wanted.into_values() {
            changed |= self.upsert(spec);
        }
        changed
    }

    fn upsert(&mut self, spec: EndpointSpec) -> bool {
        let former = self.endpoints.get(&spec.key);
        if former.is_some_and(|e| same(e, &spec)) {
            return false;
        }
        let (slot, live) = match former {
            Some(e) => {
                // Another address or another process mark is another process in the same place.
                if e.address != spec.address || e.process_mark != spec.process_mark {
                    let next = e.live.begin_incarnation();
                    self.next_incarnation[e.slot.0 as usize] = next.0 + 1;
                }
                (e.slot, Arc::clone(&e.live))
            }
            None => self.take_slot(),
        };
        self.endpoints.insert(spec.key.clone(), Arc::new(build(spec, slot, live)));
        true
    }

    fn remove(&mut self, key: &EndpointKey) -> bool {
        let Some(endpoint) = self.endpoints.remove(key) else { return false };
        // The poller may have begun incarnations of its own; the next occupant starts past all of them. The spare
        // thousand covers a poller that is just about to begin one.
        let next = endpoint.live.incarnation().0.saturating_add(1000);
        self.next_incarnation[endpoint.slot.0 as usize] = next;
        self.free.push(endpoint.slot);
        true
    }

    fn take_slot(&mut self) -> (Slot, Arc<Live>) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.next_incarnation.push(0);
            Slot(u32::try_from(self.next_incarnation.len() - 1).unwrap_or(u32::MAX))
        });
        (slot, Arc::new(Live::new(Incarnation(self.next_incarnation[slot.0 as usize]))))
    }
}

fn replace<T: PartialEq>(place: &mut T, value: T) -> bool {
    let changed = *place != value;
    *place = value;
    changed
}

fn same(endpoint: &Endpoint, spec: &EndpointSpec) -> bool {
    endpoint.address == spec.address
        && endpoint.metrics_address == *spec.metrics_address.as_ref().unwrap_or(&spec.address)
        && endpoint.labels == spec.labels
        && endpoint.process_mark == spec.process_mark
}

fn build(spec: EndpointSpec, slot: Slot, live: Arc<Live>) -> Endpoint {
    Endpoint {
        slot,
        live,
        destination: spec.address.to_string().into(),
        metrics_address: spec.metrics_address.unwrap_or_else(|| spec.address.clone()),
        role: Role::from_label(spec.labels.get(ROLE_LABEL)),
        engine: ENGINE_LABELS.iter().find_map(|key| spec.labels.get(key)).map(Into::into),
        address: spec.address,
        key: spec.key,
        labels: spec.labels,
        process_mark: spec.process_mark,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(name: &str, port: u16) -> EndpointSpec {
        EndpointSpec {
            key: EndpointKey { namespace: "default".into(), name: name.into(), rank: 0 },
            address: format!("10.0.0.1:{port}").parse().unwrap(),
            metrics_address: None,
            labels: Labels::default(),
            process_mark: None,
        }
    }

    #[test]
    fn a_slot_is_reused_with_a_later_incarnation() {
        let mut index = PoolIndex::default();
        index.apply(PoolEvent::Upsert(spec("a", 1)));
        let first = index.snapshot().endpoints[0].occupant();
        index.apply(PoolEvent::Remove(spec("a", 1).key));
        index.apply(PoolEvent::Upsert(spec("b", 2)));
        let second = index.snapshot().endpoints[0].occupant();
        assert_eq!(first.slot, second.slot);
        assert!(second.incarnation > first.incarnation);
    }

    #[test]
    fn another_address_is_another_incarnation_and_other_labels_are_not() {
        let mut index = PoolIndex::default();
        index.apply(PoolEvent::Upsert(spec("a", 1)));
        let first = index.snapshot().endpoints[0].occupant();
        let mut labelled = spec("a", 1);
        labelled.labels = [("x".to_owned(), "y".to_owned())].into_iter().collect();
        assert!(index.apply(PoolEvent::Upsert(labelled)));
        assert_eq!(index.snapshot().endpoints[0].occupant(), first);
        index.apply(PoolEvent::Upsert(spec("a", 2)));
        assert!(index.snapshot().endpoints[0].occupant().incarnation > first.incarnation);
    }

    #[test]
    fn a_repeated_event_changes_nothing() {
        let mut index = PoolIndex::default();
        assert!(index.apply(PoolEvent::Endpoints(vec![spec("a", 1)])));
        assert!(!index.apply(PoolEvent::Endpoints(vec![spec("a", 1)])));
        assert!(!index.apply(PoolEvent::Upsert(spec("a", 1))));
        assert!(!index.apply(PoolEvent::Remove(spec("b", 1).key)));
    }

    proptest! {
        /// Any history of upserts and removals ends in the same view as one list of what is left, and no two
        /// endpoints ever share a slot.
        #[test]
        fn replaying_events_equals_one_reset(steps in prop::collection::vec((0u8..6, 1u16..4, any::<bool>()), 0..60)) {
            let mut stepwise = PoolIndex::default();
            let mut left = BTreeMap::new();
            for (name, port, add) in steps {
                let spec = spec(&name.to_string(), port);
                if add {
                    left.insert(spec.key.clone(), spec.clone());
                    stepwise.apply(PoolEvent::Upsert(spec));
                } else {
                    left.remove(&spec.key);
                    stepwise.apply(PoolEvent::Remove(spec.key));
                }
                let slots: std::collections::BTreeSet<_> = stepwise.endpoints.values().map(|e| e.slot).collect();
                prop_assert_eq!(slots.len(), stepwise.endpoints.len());
            }
            let mut at_once = PoolIndex::default();
            at_once.apply(PoolEvent::Endpoints(left.into_values().collect()));
            let view = |i: &mut PoolIndex| {
                i.snapshot().endpoints.iter().map(|e| (e.key.clone(), e.address.clone())).collect::<Vec<_>>()
            };
            prop_assert_eq!(view(&mut stepwise), view(&mut at_once));
        }
    }
}
