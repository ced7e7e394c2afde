//! Objects with their versions, and the history that watches are served from.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where objects of one kind are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// `v1` or `group/version`.
    pub home: String,
    /// Empty for kinds of the whole cluster.
    pub namespace: String,
    pub plural: String,
}

/// One change: the object before and after.
#[derive(Clone, Debug)]
pub struct Change {
    pub version: u64,
    pub place: Place,
    pub before: Option<Arc<Value>>,
    pub after: Option<Arc<Value>>,
}

/// The objects.
#[derive(Default)]
pub struct Store {
    version: u64,
    objects: BTreeMap<Place, BTreeMap<String, Arc<Value>>>,
    log: Vec<Change>,
    /// Watches from below this version are too old.
    floor: u64,
    created: u64,
}

impl Store {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn floor(&self) -> u64 {
        self.floor
    }

    pub fn compact(&mut self) {
        // One version is skipped, so that even a watch that saw everything is behind.
        self.version += 1;
        self.floor = self.version;
        self.log.clear();
    }

    pub fn get(&self, place: &Place, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(place)?.get(name)
    }

    /// Objects of a place after `after` in order of their names.
    pub fn list(&self, place: &Place, after: &str) -> impl Iterator<Item = (&String, &Arc<Value>)> {
        let after = after.to_owned();
        self.objects
            .get(place)
            .into_iter()
            .flatten()
            .filter(move |(name, _)| after.is_empty() || **name > after)
    }

    /// Stores an object as a new version, with what a server adds.
    pub fn put(&mut self, place: &Place, mut object: Value) -> Arc<Value> {
        self.version += 1;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let before = self.get(place, &name).cloned();
        let meta = object["metadata"].as_object_mut().expect("metadata");
        match &before {
            Some(old) => {
                meta.insert("uid".into(), old["metadata"]["uid"].clone());
                meta.insert("creationTimestamp".into(), old["metadata"]["creationTimestamp"].clone());
            }
            None => {
                self.created += 1;
                meta.insert("uid".into(), json!(format!("uid-{}", self.created)));
                let at = format!("2026-01-01T00:{:02}:{:02}Z", self.created / 60 % 60, self.created % 60);
                meta.entry("creationTimestamp").or_insert(json!(at));
            }
        }
        meta.insert("resourceVersion".into(), json!(self.version.to_string()));
        if !place.namespace.is_empty() {
            meta.insert("namespace".into(), json!(place.namespace));
        }
        let object = Arc::new(object);
        self.objects.entry(place.clone()).or_default().insert(name, Arc::clone(&object));
        let after = Some(Arc::clone(&object));
        self.log.push(Change { version: self.version, place: place.clone(), before, after });
        object
    }

    /// Takes an object away.
    pub fn remove(&mut self, place: &Place, name: &str) -> Option<Arc<Value>> {
        let mut before = Value::clone(&*self.objects.get_mut(place)?.remove(name)?);
        self.version += 1;
        before["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let before = Arc::new(before);
        let change =
            Change { version: self.version, place: place.clone(), before: Some(before.clone()), after: None };
        self.log.push(change);
        Some(before)
    }

    /// What happened at a place after `version`.
    pub fn since(&self, place: &Place, version: u64) -> Vec<Change> {
        let start = self.log.partition_point(|change| change.version <= version);
        self.log[start..].iter().filter(|change| change.place == *place).cloned().collect()
    }
}
