//! A pool, a state store and an attribute table for the tests of producers.

use crate::clock::{Clock, Moment};
use crate::endpoint::{EndpointKey, Labels};
use crate::plugin::{AttributeTable, BuildContext, BuildError, PluginType, Roles, StateStore};
use crate::pool::{AttributeId, Candidates, Columns, EndpointSpec, PoolEvent, PoolIndex, PoolSnapshot};
use crate::request::{Api, Headers, InferenceRequest, Parsed, Prompt};
use parking_lot::Mutex;
use serde_json::Value;
use std::any::Any;
use std::sync::Arc;

pub(in crate::director) struct Fixture {
    pub state: StateStore,
    pub clock: Clock,
    table: Mutex<AttributeTable>,
    pub pool: Mutex<PoolIndex>,
}

impl Fixture {
    pub fn new() -> Self {
        Self {
            state: StateStore::default(),
            clock: Clock::manual(),
            table: Mutex::default(),
            pool: Mutex::default(),
        }
    }

    pub fn build(&self, row: &PluginType, parameters: Value) -> Result<Roles, BuildError> {
        (row.build)(&mut BuildContext {
            name: &row.name.into(),
            parameters: &parameters,
            state: &self.state,
            clock: &self.clock,
            prefix_index_bytes: 16 << 20,
            table: &mut self.table.lock(),
        })
    }

    /// The place of an attribute as a reader called `reader` would get it.
    pub fn attribute<T: Any>(&self, kind: &'static str, producer: &str) -> AttributeId<T> {
        let mut context = BuildContext {
            name: &"reader".into(),
            parameters: &Value::Null,
            state: &self.state,
            clock: &self.clock,
            prefix_index_bytes: 0,
            table: &mut self.table.lock(),
        };
        context.consumes_if_there(kind, producer)
    }

    /// The pool set to endpoints `0`, `1`, … `n - 1`.
    pub fn resize(&self, n: u16) -> Arc<PoolSnapshot> {
        let specs = (0..n).map(|i| EndpointSpec {
            key: EndpointKey { namespace: "default".into(), name: i.to_string().into(), rank: 0 },
            address: format!("10.0.0.1:{}", 8000 + i).parse().unwrap(),
            metrics_address: None,
            labels: Labels::default(),
            process_mark: None,
        });
        let mut pool = self.pool.lock();
        pool.apply(PoolEvent::Endpoints(specs.collect()));
        Arc::new(pool.snapshot())
    }

    pub fn candidates(&self, n: u16) -> Candidates {
        self.freeze(self.resize(n))
    }

    pub fn freeze(&self, snapshot: Arc<PoolSnapshot>) -> Candidates {
        let rows = 0..u32::try_from(snapshot.endpoints.len()).unwrap();
        Candidates::freeze(snapshot, rows, Columns { cache: true, ..Columns::default() }, self.clock.now())
    }
}

pub(in crate::director) fn request(model: &str, prompt: Prompt) -> InferenceRequest {
    let mut parsed = Parsed::opaque(Api::Completions);
    parsed.prompt = prompt;
    InferenceRequest {
        id: "r".into(),
        received: Moment::from_nanos(1),
        headers: Headers::default(),
        parsed,
        target_model: model.into(),
        priority: 0,
        fairness_id: "default-flow".into(),
        body_bytes: 0,
        wishes: Default::default(),
    }
}
