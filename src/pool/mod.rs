//! The published view of one pool: events fold into an index, the index publishes snapshots, a request freezes one.
//!
//! One task owns the [`PoolWriter`]; everyone else holds a [`PoolReader`]. A snapshot is of one moment and is only
//! replaced when something changed, so a request that loaded it sees endpoints, objectives and rewrites that belong
//! together.

mod attributes;
mod candidates;
mod index;
mod publish;

pub use attributes::{AttributeId, Attributes};
pub use candidates::{Candidates, Columns, Position};
pub use index::{EndpointSpec, PoolEvent, PoolIndex};
pub use publish::{PoolReader, PoolWriter, channel};

use crate::endpoint::{Endpoint, EndpointKey};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which pool a snapshot describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Name that stands in metrics.
    pub name: Arc<str>,
    /// Namespace of the pool.
    pub namespace: Arc<str>,
}

/// One rule of a model rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteRule {
    /// Name of the object the rule stands in.
    pub object: Arc<str>,
    /// Incoming models it is for; empty means every model.
    pub models: Vec<Arc<str>>,
    /// Targets with their weights, `None` where no weight is given.
    pub targets: Vec<(Arc<str>, Option<u32>)>,
}

/// The pool at one moment.
#[derive(Debug)]
pub struct PoolSnapshot {
    /// Grows with every publication.
    pub generation: u64,
    /// The pool, `None` until discovery knows it (or after it was deleted).
    pub spec: Option<PoolSpec>,
    /// Whether discovery has delivered its first complete list.
    pub synced: bool,
    /// Endpoints in order of their keys.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Priority of each objective by its name.
    pub objectives: BTreeMap<Arc<str>, i32>,
    /// Rewrite rules in order of precedence.
    pub rewrites: Vec<RewriteRule>,
    /// Priority of requests that name no objective, by the model they ask for.
    pub model_priorities: BTreeMap<Arc<str>, i32>,
}

impl PoolSnapshot {
    /// An empty pool that nobody has described yet.
    pub fn unknown() -> Self {
        Self {
            generation: 0,
            spec: None,
            synced: false,
            endpoints: Vec::new(),
            objectives: BTreeMap::new(),
            rewrites: Vec::new(),
            model_priorities: BTreeMap::new(),
        }
    }
    /// The endpoint with this identity.
    pub fn endpoint(&self, key: &EndpointKey) -> Option<&Arc<Endpoint>> {
        self.endpoints.binary_search_by(|e| e.key.cmp(key)).ok().and_then(|i| self.endpoints.get(i))
    }
    /// The endpoint that listens on `destination` (`ip:port`, IPv6 bracketed).
    pub fn endpoint_at(&self, destination: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.iter().find(|e| &*e.destination == destination)
    }
}
