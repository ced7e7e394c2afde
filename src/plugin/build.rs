//! How plugins are made: tables of types, parameters decoded strictly, attributes declared while building.

use super::shape::{Described, describe};
use super::{Known, Parameters, Roles, StateStore};
use crate::clock::Clock;
use crate::endpoint::ScalarId;
use crate::pool::{AttributeId, Columns};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How settled a plugin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Settled.
    Beta,
    /// May change; loads with a warning unless experimental plugins are allowed.
    Alpha,
    /// Accepted with a warning that names the modern type.
    Deprecated(&'static str),
}

/// Why a plugin could not be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BuildError {
    /// The parameters do not fit.
    #[error("{0}")]
    Parameters(String),
    /// A reference leads nowhere.
    #[error("{0}")]
    Reference(String),
}

/// One row of a plugin table.
#[derive(Clone, Copy)]
pub struct PluginType {
    /// The type's name in configurations.
    pub name: &'static str,
    /// How settled it is.
    pub stability: Stability,
    /// Builds an instance.
    pub build: fn(&mut BuildContext<'_>) -> Result<Roles, BuildError>,
}

impl PluginType {
    /// What it takes as parameters; `None` where it takes none or does not tell.
    pub fn described(&self) -> Option<Described> {
        let mut table = AttributeTable { describing: true, ..AttributeTable::default() };
        // The plugin is not built: the first thing that it does is to ask for its parameters, and that ends it.
        let _asked = self.without_parameters(&mut table);
        let mut described = table.described?;
        // A plugin that can be built from nothing tells better what its parameters come to than their type does.
        let mut table = AttributeTable::default();
        if described.defaults.is_some() && self.without_parameters(&mut table).is_ok() {
            described.defaults = table.settings.into_iter().next().map(|(_, settings)| settings);
        }
        Some(described)
    }

    fn without_parameters(&self, table: &mut AttributeTable) -> Result<Roles, BuildError> {
        (self.build)(&mut BuildContext {
            name: &self.name.into(),
            parameters: &serde_json::Value::Null,
            state: &StateStore::default(),
            clock: &Clock::system(),
            prefix_index_bytes: 1 << 20,
            table,
        })
    }
}

/// All plugin types by name.
#[derive(Default)]
pub struct Registry(BTreeMap<&'static str, PluginType>);

impl Registry {
    /// Joins tables; a name that stands in two of them is a programming error and refused.
    pub fn from_tables(tables: &[&[PluginType]]) -> Result<Self, BuildError> {
        let mut all = BTreeMap::new();
        for row in tables.iter().copied().flatten() {
            if all.insert(row.name, *row).is_some() {
                return Err(BuildError::Reference(format!("plugin type `{}` is registered twice", row.name)));
            }
        }
        Ok(Self(all))
    }
    /// The type called `name`.
    pub fn get(&self, name: &str) -> Option<&PluginType> {
        self.0.get(name)
    }
    /// What the type called `name` takes as parameters, also where it is known by name only; `None` where it takes any.
    pub fn described(&self, name: &str) -> Option<Described> {
        if let Some(row) = self.get(name) {
            return row.described();
        }
        match Known::find(name)?.parameters {
            Parameters::Own(described) => Some(described()),
            Parameters::Like(other) => self.get(other)?.described(),
            Parameters::Ignored => None,
        }
    }
    /// All names in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

/// An attribute that a plugin reads: who must produce it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeNeed {
    /// Instance that reads it.
    pub reader: Arc<str>,
    /// Kind of the attribute.
    pub kind: &'static str,
    /// Instance that must write it.
    pub producer: Arc<str>,
    /// Type that is built under that name when no instance has it; `None` makes a missing producer an error.
    pub default_producer: Option<&'static str>,
    /// Whether the reader does without: a missing producer is then neither built nor an error. An existing one still
    /// comes before the reader.
    pub optional: bool,
}

/// Attributes and configured metrics that the plugins of one plan share.
#[derive(Debug, Default)]
pub struct AttributeTable {
    ids: Vec<(&'static str, Arc<str>, TypeId)>,
    /// What is read.
    pub needs: Vec<AttributeNeed>,
    /// What is written: kind and producer.
    pub offers: Vec<(&'static str, Arc<str>)>,
    /// Names of configured metrics, in order of their [`ScalarId`].
    pub scalars: Vec<String>,
    /// Who reads which configured metric that some engine must define.
    pub scalar_readers: Vec<(Arc<str>, ScalarId)>,
    /// Columns that the plan reads.
    pub columns: Columns,
    /// Instances that are worse off where response bodies are not seen, and how.
    pub response_readers: Vec<ResponseReader>,
    /// Parameters in force, by instance, of the plugins that tell them.
    pub settings: Vec<(Arc<str>, serde_json::Value)>,
    /// Whether plugins are only asked for the shape of their parameters, and not built.
    pub describing: bool,
    /// The shape of the parameters of the plugin that was asked.
    pub described: Option<Described>,
    /// What plugins say about parameters that have no effect: instance and word.
    pub notices: Vec<(Arc<str>, String)>,
}

/// An instance that lives on the bodies of responses, and what becomes of it without them.
pub type ResponseReader = (Arc<str>, &'static str);

impl AttributeTable {
    /// An empty table in which these configured metrics have their places already.
    pub fn with_scalars(names: &[String]) -> Self {
        Self { scalars: names.to_vec(), ..Self::default() }
    }
    fn id<T: Any>(&mut self, kind: &'static str, producer: &str) -> AttributeId<T> {
        let wanted = TypeId::of::<T>();
        let found = self.ids.iter().position(|(k, p, t)| *k == kind && **p == *producer && *t == wanted);
        AttributeId::new(found.unwrap_or_else(|| {
            self.ids.push((kind, producer.into(), wanted));
            self.ids.len() - 1
        }))
    }
    /// The place of the first attribute `kind` of type `T` that anyone writes.
    pub fn offered<T: Any>(&self, kind: &'static str) -> Option<AttributeId<T>> {
        let (_, producer) = self.offers.iter().find(|(k, _)| *k == kind)?;
        let wanted = TypeId::of::<T>();
        self.ids
            .iter()
            .position(|(k, p, t)| *k == kind && p == producer && *t == wanted)
            .map(AttributeId::new)
    }
    /// The place of the configured metric `name`.
    pub fn scalar(&mut self, name: &str) -> ScalarId {
        let found = self.scalars.iter().position(|s| s == name).unwrap_or_else(|| {
            self.scalars.push(name.to_owned());
            self.scalars.len() - 1
        });
        ScalarId(u16::try_from(found).unwrap_or(u16::MAX))
    }
}

/// What a plugin gets to build itself from.
pub struct BuildContext<'a> {
    /// Instance name.
    pub name: &'a Arc<str>,
    /// Parameters as written, `Null` when there are none.
    pub parameters: &'a serde_json::Value,
    /// State that outlives the plan.
    pub state: &'a StateStore,
    /// The clock.
    pub clock: &'a Clock,
    /// Bytes that all approximate prefix indexes of the process may use together.
    pub prefix_index_bytes: usize,
    /// What the plan's plugins share.
    pub table: &'a mut AttributeTable,
}

impl BuildContext<'_> {
    /// The parameters as `T`; absent ones are an empty object. `T` refuses unknown fields itself.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, BuildError> {
        let value = match self.parameters {
            serde_json::Value::Null => serde_json::Value::Object(serde_json::Map::new()),
            other => other.clone(),
        };
        serde_json::from_value(value).map_err(|e| BuildError::Parameters(e.to_string()))
    }
    /// The parameters as `T`, as [`Self::decode`] has them, and told to people who ask what is in force. This is to be the
    /// first thing that a plugin asks for: where only the shape of its parameters is wanted, the asking ends here.
    pub fn settings<T: DeserializeOwned + Serialize>(&mut self) -> Result<T, BuildError> {
        if self.table.describing {
            self.table.described = Some(describe::<T>());
            return Err(BuildError::Parameters("described".to_owned()));
        }
        let settings: T = self.decode()?;
        if let Ok(value) = serde_json::to_value(&settings) {
            self.table.settings.push((Arc::clone(self.name), value));
        }
        Ok(settings)
    }
    /// Says what a parameter came to that was not written, for people who ask what is in force. `field` is its name, or
    /// a path of names with dots between them.
    pub fn in_force(&mut self, field: &str, value: impl Into<serde_json::Value>) {
        let own = self.table.settings.iter_mut().rev().find(|(name, _)| name == self.name);
        let Some(mut at) = own.map(|(_, settings)| settings) else { return };
        for name in field.split('.') {
            if !at.is_object() {
                *at = serde_json::json!({});
            }
            at = &mut at[name];
        }
        *at = value.into();
    }
    /// The producer that the parameter `field` names, the usual one where it names none; said to people who ask what is in
    /// force.
    pub fn producer<'p>(&mut self, field: &str, written: &'p str, usual: &'static str) -> &'p str {
        let name = if written.is_empty() { usual } else { written };
        self.in_force(field, name);
        name
    }
    /// Declares that this instance writes attribute `kind`.
    pub fn produces<T: Any>(&mut self, kind: &'static str) -> AttributeId<T> {
        self.table.offers.push((kind, Arc::clone(self.name)));
        self.table.id(kind, self.name)
    }
    /// Declares that this instance reads attribute `kind`, written by the instance `producer` or, when that is not
    /// configured, by a default one of type `default_producer`.
    pub fn consumes<T: Any>(
        &mut self,
        kind: &'static str,
        producer: Option<&str>,
        default_producer: &'static str,
    ) -> AttributeId<T> {
        let producer = producer.filter(|p| !p.is_empty()).unwrap_or(default_producer);
        self.table.needs.push(AttributeNeed {
            reader: Arc::clone(self.name),
            kind,
            producer: producer.into(),
            default_producer: (producer == default_producer).then_some(default_producer),
            optional: false,
        });
        self.table.id(kind, producer)
    }
    /// Declares that this instance reads attribute `kind` of the instance `producer` if there is one.
    pub fn consumes_if_there<T: Any>(&mut self, kind: &'static str, producer: &str) -> AttributeId<T> {
        self.table.needs.push(AttributeNeed {
            reader: Arc::clone(self.name),
            kind,
            producer: producer.into(),
            default_producer: None,
            optional: true,
        });
        self.table.id(kind, producer)
    }
    /// Declares that this instance reads the configured metric `name`, which some engine must define.
    pub fn reads_scalar(&mut self, name: &str) -> ScalarId {
        let id = self.table.scalar(name);
        self.table.scalar_readers.push((Arc::clone(self.name), id));
        id
    }
    /// Declares that this instance reads these columns of the candidates.
    pub fn reads(&mut self, columns: Columns) {
        self.table.columns = self.table.columns.union(columns);
    }
    /// Says that something that is written has no effect, or not the one that it may be thought to have.
    pub fn notice(&mut self, told: impl Into<String>) {
        self.table.notices.push((Arc::clone(self.name), told.into()));
    }
    /// Declares what becomes of this instance where the proxy does not show response bodies; said in the log then.
    pub fn reads_responses(&mut self, without: &'static str) {
        self.table.response_readers.push((Arc::clone(self.name), without));
    }
}
