//! What the cluster says, folded into what the pool should be: objects in, [`PoolEvent`]s out. No task, no clock, no IO.
//!
//! Nothing is said until the pool is known, its pods are listed, and each policy kind was listed or could not be; then
//! all of it is said at once. From there a change of one object is the events of that object, and a list is one event.
//! When the pool goes, everything it had goes; policies are remembered and hold again when it returns.

use super::facts::{ModelFacts, ObjectiveFacts, PodFacts, PoolFacts, PoolRef, RewriteFacts, Seen, Target};
use super::kind::{Kind, OLD_GROUP};
use crate::endpoint::{EndpointKey, Host, HostPort};
use crate::pool::{EndpointSpec, PoolEvent, PoolSpec, RewriteRule};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A change of the objects of one kind.
#[derive(Clone, Debug)]
pub enum Change<F> {
    /// All of them.
    Listed(Vec<Seen<F>>),
    /// One is new or changed.
    Applied(Seen<F>),
    /// One is gone.
    Deleted(Arc<str>),
    /// They could not be listed: nothing is known, and nobody should wait for them.
    Unavailable,
}

/// A change of anything.
#[derive(Clone, Debug)]
pub enum Input {
    /// Of the pool.
    Pool(Change<PoolFacts>),
    /// Of its pods.
    Pods(Change<PodFacts>),
    /// Of objectives.
    Objectives(Change<ObjectiveFacts>),
    /// Of rewrites.
    Rewrites(Change<RewriteFacts>),
    /// Of InferenceModels.
    Models(Change<ModelFacts>),
}

/// An object that cannot be understood, or is understood again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
    /// What is wrong with it; `None` when it is right again.
    pub fault: Option<String>,
}

/// The pool that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name and namespace.
    pub spec: PoolSpec,
    /// Its API group.
    pub group: Arc<str>,
}

struct Table<F> {
    objects: BTreeMap<Arc<str>, F>,
    /// Whether the list was seen, or could not be.
    tried: bool,
}

impl<F> Default for Table<F> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), tried: false }
    }
}

/// The objects, and what was said of them.
pub struct Reducer {
    identity: Identity,
    /// Endpoints without a pool object.
    fixed: Option<Target>,
    pools: Table<PoolFacts>,
    pods: Table<PodFacts>,
    objectives: Table<ObjectiveFacts>,
    rewrites: Table<RewriteFacts>,
    models: Table<ModelFacts>,
    /// Whether the pool was said.
    said: bool,
    faults: BTreeMap<(Kind, Arc<str>), String>,
    remarks: Vec<Remark>,
}

impl Reducer {
    /// For an InferencePool.
    pub fn of_pool(identity: Identity) -> Self {
        Self {
            identity,
            fixed: None,
            pools: Table::default(),
            pods: Table::default(),
            objectives: Table::default(),
            rewrites: Table::default(),
            models: Table::default(),
            said: false,
            faults: BTreeMap::new(),
            remarks: Vec::new(),
        }
    }

    /// For pods that are chosen without an InferencePool: there are no policies.
    pub fn of_selector(identity: Identity, target: Target) -> Self {
        let mut reducer = Self { fixed: Some(target), ..Self::of_pool(identity) };
        (reducer.objectives.tried, reducer.rewrites.tried, reducer.models.tried) = (true, true, true);
        reducer
    }

    /// The endpoints that are wanted; `None` while there is no pool.
    pub fn target(&self) -> Option<&Target> {
        self.fixed.as_ref().or_else(|| self.pool()?.target.as_ref())
    }

    /// What the pool's endpoints speak, empty where it is not said.
    pub fn app_protocol(&self) -> &str {
        self.pool().map_or("", |pool| &pool.app_protocol)
    }

    fn pool(&self) -> Option<&PoolFacts> {
        self.pools.objects.get(&self.identity.spec.name)
    }

    /// What there is to say about malformed objects since this was last asked: each fault once.
    pub fn remarks(&mut self) -> Vec<Remark> {
        std::mem::take(&mut self.remarks)
    }

    /// How many objects are left out because they are malformed.
    pub fn malformed(&self, kind: Kind) -> usize {
        self.faults.keys().filter(|(k, _)| *k == kind).count()
    }

    /// Whether everything was seen that must be seen before anybody is served.
    fn complete(&self) -> bool {
        let policies = self.objectives.tried && self.rewrites.tried && self.models.tried;
        self.target().is_some() && self.pods.tried && policies
    }

    /// Takes one change and says what follows from it.
    pub fn apply(&mut self, input: Input) -> Vec<PoolEvent> {
        let before = self.target().cloned();
        let events = match input {
            Input::Pool(change) => {
                self.take(|r| &mut r.pools, Kind::Pool, change);
                self.after_pool(before.as_ref())
            }
            Input::Pods(change) => self.take_pods(change),
            Input::Objectives(change) => {
                self.take(|r| &mut r.objectives, Kind::Objective, change);
                vec![PoolEvent::Objectives(self.priorities())]
            }
            Input::Rewrites(change) => {
                self.take(|r| &mut r.rewrites, Kind::Rewrite, change);
                vec![PoolEvent::Rewrites(self.rules())]
            }
            Input::Models(change) => {
                self.take(|r| &mut r.models, Kind::Model, change);
                vec![PoolEvent::Rewrites(self.rules()), PoolEvent::ModelPriorities(self.model_priorities())]
            }
        };
        self.say(events)
    }

    /// Lets events pass while the pool is said, and says everything or takes it back when that changes.
    fn say(&mut self, events: Vec<PoolEvent>) -> Vec<PoolEvent> {
        match (self.said, self.complete()) {
            (false, false) => Vec::new(),
            (true, true) => events,
            (false, true) => {
                self.said = true;
                self.everything()
            }
            (true, false) => {
                self.said = false;
                Self::nothing()
            }
        }
    }

    /// What is said when there is no pool any more.
    pub fn nothing() -> Vec<PoolEvent> {
        vec![
            PoolEvent::Pool(None),
            PoolEvent::Endpoints(Vec::new()),
            PoolEvent::Objectives(BTreeMap::new()),
            PoolEvent::Rewrites(Vec::new()),
            PoolEvent::ModelPriorities(BTreeMap::new()),
        ]
    }

    fn everything(&self) -> Vec<PoolEvent> {
        vec![
            PoolEvent::Pool(Some(self.identity.spec.clone())),
            PoolEvent::Endpoints(self.endpoints()),
            PoolEvent::Objectives(self.priorities()),
            PoolEvent::Rewrites(self.rules()),
            PoolEvent::ModelPriorities(self.model_priorities()),
        ]
    }

    fn after_pool(&mut self, before: Option<&Target>) -> Vec<PoolEvent> {
        if self.target().is_none() {
            // Their watch ends with the pool; when it returns they are listed anew.
            self.pods = Table::default();
            self.faults.retain(|(kind, _), _| *kind != Kind::Pod);
        }
        let same = self.target() == before;
        if same { Vec::new() } else { vec![PoolEvent::Endpoints(self.endpoints())] }
    }

    fn take_pods(&mut self, change: Change<PodFacts>) -> Vec<PoolEvent> {
        let one = match &change {
            Change::Applied(seen) => Some(Arc::clone(&seen.name)),
            Change::Deleted(name) => Some(Arc::clone(name)),
            Change::Unavailable => return Vec::new(),
            Change::Listed(_) => None,
        };
        let former = one.as_ref().map(|name| self.endpoints_of(name)).unwrap_or_default();
        self.take(|r| &mut r.pods, Kind::Pod, change);
        let Some(name) = one else { return vec![PoolEvent::Endpoints(self.endpoints())] };
        let now = self.endpoints_of(&name);
        let kept: BTreeSet<u16> = now.iter().map(|spec| spec.key.rank).collect();
        let gone = former.into_iter().map(|spec| spec.key).filter(|key| !kept.contains(&key.rank));
        gone.map(PoolEvent::Remove).chain(now.into_iter().map(PoolEvent::Upsert)).collect()
    }

    /// Folds a change into a table. A malformed object leaves what was last known of it.
    fn take<F>(&mut self, table: impl Fn(&mut Self) -> &mut Table<F>, kind: Kind, change: Change<F>) {
        match change {
            Change::Unavailable => table(self).tried = true,
            Change::Deleted(name) => {
                table(self).objects.remove(&name);
                self.faults.remove(&(kind, name));
            }
            Change::Applied(seen) => {
                self.note(kind, &seen);
                if let Ok(facts) = seen.facts {
                    table(self).objects.insert(seen.name, facts);
                }
            }
            Change::Listed(list) => {
                let there: BTreeSet<Arc<str>> = list.iter().map(|seen| Arc::clone(&seen.name)).collect();
                self.faults.retain(|(k, name), _| *k != kind || there.contains(name));
                table(self).objects.retain(|name, _| there.contains(name));
                for seen in list {
                    self.note(kind, &seen);
                    if let Ok(facts) = seen.facts {
                        table(self).objects.insert(seen.name, facts);
                    }
                }
                table(self).tried = true;
            }
        }
    }

    fn note<F>(&mut self, kind: Kind, seen: &Seen<F>) {
        let place = (kind, Arc::clone(&seen.name));
        let fault = seen.facts.as_ref().err().cloned();
        let known = self.faults.get(&place);
        if known == fault.as_ref() {
            return;
        }
        self.remarks.push(Remark { kind, name: Arc::clone(&seen.name), fault: fault.clone() });
        match fault {
            Some(fault) => self.faults.insert(place, fault),
            None => self.faults.remove(&place),
        };
    }

    fn endpoints(&self) -> Vec<EndpointSpec> {
        self.pods.objects.keys().flat_map(|name| self.endpoints_of(name)).collect()
    }

    /// The endpoints of one pod: one for each active port of the pool.
    fn endpoints_of(&self, name: &Arc<str>) -> Vec<EndpointSpec> {
        let (Some(target), Some(pod)) = (self.target(), self.pods.objects.get(name)) else {
            return Vec::new();
        };
        let Some(ip) = pod.ip.filter(|_| pod.ready && target.selector.matches(&pod.labels)) else {
            return Vec::new();
        };
        let active = |port: u16| pod.active_ports.as_ref().is_none_or(|ports| ports.contains(&port));
        let ranks = (0_u16..).zip(target.ports.iter().copied());
        ranks
            .filter(|(_, port)| active(*port))
            .map(|(rank, port)| EndpointSpec {
                key: EndpointKey {
                    namespace: Arc::clone(&self.identity.spec.namespace),
                    name: Arc::clone(name),
                    rank,
                },
                address: HostPort { host: Host::Ip(ip), port },
                metrics_address: None,
                labels: pod.shared_labels.clone(),
                process_mark: Some(Arc::clone(&pod.process)),
            })
            .collect()
    }

    fn is_ours(&self, pool: &PoolRef) -> bool {
        pool.name == *self.identity.spec.name && *pool.group() == *self.identity.group
    }

    /// An InferenceModel is older than today's pool group, so one that names the old group is ours as well.
    fn is_our_model(&self, model: &ModelFacts) -> bool {
        let pool = &model.pool_ref;
        self.is_ours(pool) || (pool.name == *self.identity.spec.name && pool.group() == OLD_GROUP)
    }

    fn priorities(&self) -> BTreeMap<Arc<str>, i32> {
        let ours = self.objectives.objects.iter().filter(|(_, o)| self.is_ours(&o.pool_ref));
        ours.map(|(name, o)| (Arc::clone(name), o.priority)).collect()
    }

    /// Our InferenceModels, the oldest first.
    fn our_models(&self) -> Vec<(&Arc<str>, &ModelFacts)> {
        let mut ours: Vec<_> = self.models.objects.iter().filter(|(_, m)| self.is_our_model(m)).collect();
        ours.sort_by(|(a, x), (b, y)| (&x.created, a).cmp(&(&y.created, b)));
        ours
    }

    fn model_priorities(&self) -> BTreeMap<Arc<str>, i32> {
        // Inserted from the youngest to the oldest: the oldest of a model name stays.
        let youngest_first = self.our_models().into_iter().rev();
        youngest_first.map(|(_, m)| (Arc::clone(&m.model), m.priority)).collect()
    }

    /// Rules in order of precedence: by age of their objects, in order within one; those of InferenceModels come last.
    fn rules(&self) -> Vec<RewriteRule> {
        let mut ours: Vec<_> =
            self.rewrites.objects.iter().filter(|(_, r)| self.is_ours(&r.pool_ref)).collect();
        ours.sort_by(|(a, x), (b, y)| (&x.created, a).cmp(&(&y.created, b)));
        let rewrites = ours.into_iter().flat_map(|(object, facts)| {
            facts.rules.iter().map(|rule| RewriteRule {
                object: Arc::clone(object),
                models: rule.models.clone(),
                targets: rule.targets.clone(),
            })
        });
        let models = self.our_models().into_iter().filter(|(_, m)| !m.targets.is_empty());
        let models = models.map(|(object, m)| RewriteRule {
            object: Arc::clone(object),
            models: vec![Arc::clone(&m.model)],
            targets: m.targets.clone(),
        });
        rewrites.chain(models).collect()
    }
}

#[cfg(test)]
#[path = "reducer_tests.rs"]
mod tests;
