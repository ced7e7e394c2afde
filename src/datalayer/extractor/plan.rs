//! Engine specs compiled into what the scanner looks for.

use crate::datalayer::engines::{COUNTERS, START_TIME};
use crate::datalayer::metric_spec::{InvalidSpec, MetricSpec};
use crate::datalayer::scan::{Scanner, TooManyFamilies};
use crate::endpoint::Endpoint;
use crate::plugin::EngineSpec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why engine specs cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// A metric cannot be read.
    #[error("engine `{engine}`, {field}: {source}")]
    Spec {
        /// The engine.
        engine: String,
        /// The field of the engine's configuration.
        field: String,
        /// What is wrong.
        source: InvalidSpec,
    },
    /// Too many metrics.
    #[error("engine `{engine}`: {source}")]
    Families {
        /// The engine.
        engine: String,
        /// What is wrong.
        source: TooManyFamilies,
    },
    /// The default engine is not among the engines.
    #[error("`defaultEngine` is `{0}`, which is no known engine")]
    DefaultEngine(String),
}

/// What a series is read for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Waiting,
    Running,
    KvUsage,
    Lora,
    CacheInfo { block_label: String, count_label: String },
    BlockSize,
    BlockCount,
    Scalar(usize),
    StartTime,
    Counter(usize),
}

impl Field {
    /// Whether the value belongs to the cache's geometry, which a process never changes.
    fn is_geometry(&self) -> bool {
        matches!(self, Self::CacheInfo { .. } | Self::BlockSize | Self::BlockCount)
    }
    /// Whether a page without it is worth a word; engines may leave the others out.
    fn is_required(&self) -> bool {
        !matches!(self, Self::Lora | Self::StartTime | Self::Counter(_))
    }
}

/// One thing to read from the series of a family.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub field: Field,
    pub labels: Vec<(String, String)>,
    /// The metric as configured, for messages.
    pub text: String,
    pub required: bool,
}

/// How the pages of one engine are read.
#[derive(Debug)]
pub struct EnginePlan {
    /// Name of the engine.
    pub name: Arc<str>,
    pub(super) scanner: Scanner,
    /// What each family of the scanner is read for.
    pub(super) wants: Vec<Vec<Want>>,
    /// Families needed only until the cache's geometry is known.
    pub(super) geometry_only: u64,
    /// Number of configured metrics in a sample.
    pub(super) scalars: usize,
}

/// Collects wants by family.
#[derive(Default)]
struct Families {
    names: Vec<String>,
    wants: Vec<Vec<Want>>,
}

impl Families {
    fn add(&mut self, spec: MetricSpec, text: &str, field: Field) {
        let place = self.names.iter().position(|n| *n == spec.name).unwrap_or_else(|| {
            self.names.push(spec.name);
            self.wants.push(Vec::new());
            self.names.len() - 1
        });
        let required = field.is_required();
        self.wants[place].push(Want { field, labels: spec.labels, text: text.to_owned(), required });
    }
}

impl EnginePlan {
    /// Compiles `spec`. `scalars` gives the place of each configured metric in a sample; metrics that nobody reads
    /// are left out.
    pub fn new(spec: &EngineSpec, scalars: &[String]) -> Result<Self, PlanError> {
        let mut families = Families::default();
        for (name, text, field) in fields(spec) {
            let Some(text) = text.filter(|t| !t.trim().is_empty()) else { continue };
            families.add(read(spec, name, text)?, text, field);
        }
        for (attribute, text) in &spec.custom {
            if let Some(place) = scalars.iter().position(|s| s == attribute) {
                families.add(read(spec, attribute, text)?, text, Field::Scalar(place));
            }
        }
        let bare = |name: &str| MetricSpec { name: name.to_owned(), labels: Vec::new() };
        families.add(bare(START_TIME), START_TIME, Field::StartTime);
        for (place, counter) in COUNTERS.into_iter().enumerate() {
            families.add(bare(counter), counter, Field::Counter(place));
        }
        let scanner = Scanner::new(families.names.iter().map(String::as_str))
            .map_err(|source| PlanError::Families { engine: spec.name.to_string(), source })?;
        let geometry =
            families.wants.iter().enumerate().filter(|(_, w)| w.iter().all(|w| w.field.is_geometry()));
        let geometry_only = geometry.fold(0, |mask, (bit, _)| mask | 1 << bit);
        Ok(Self {
            name: Arc::clone(&spec.name),
            scanner,
            wants: families.wants,
            geometry_only,
            scalars: scalars.len(),
        })
    }
}

/// The fields of a spec by the names that they have in the configuration.
fn fields(spec: &EngineSpec) -> impl Iterator<Item = (&'static str, Option<&str>, Field)> {
    let info = spec.cache_info.as_ref().map(|(family, block, count)| {
        (family.as_str(), Field::CacheInfo { block_label: block.clone(), count_label: count.clone() })
    });
    [
        ("queuedRequestsSpec", spec.queued.as_deref(), Field::Waiting),
        ("runningRequestsSpec", spec.running.as_deref(), Field::Running),
        ("kvUsageSpec", spec.kv_usage.as_deref(), Field::KvUsage),
        ("loraSpec", spec.lora.as_deref(), Field::Lora),
        ("cacheBlockSizeSpec", spec.cache_block_size.as_deref(), Field::BlockSize),
        ("cacheNumBlocksSpec", spec.cache_num_blocks.as_deref(), Field::BlockCount),
    ]
    .into_iter()
    .chain(info.map(|(family, field)| ("cacheInfoSpec", Some(family), field)))
}

fn read(spec: &EngineSpec, field: &str, text: &str) -> Result<MetricSpec, PlanError> {
    text.parse().map_err(|source| PlanError::Spec {
        engine: spec.name.to_string(),
        field: field.to_owned(),
        source,
    })
}

/// The plans of all engines, and how an endpoint's is chosen.
#[derive(Debug)]
pub struct CorePlan {
    label: Option<Arc<str>>,
    default: Arc<EnginePlan>,
    engines: BTreeMap<Arc<str>, Arc<EnginePlan>>,
}

impl CorePlan {
    /// Compiles the engines. Of several with one name the last is taken.
    pub fn new(
        label: Option<Arc<str>>,
        default: &str,
        engines: &[EngineSpec],
        scalars: &[String],
    ) -> Result<Self, PlanError> {
        let compile =
            |spec: &EngineSpec| Ok((Arc::clone(&spec.name), Arc::new(EnginePlan::new(spec, scalars)?)));
        let engines: BTreeMap<_, _> = engines.iter().map(compile).collect::<Result<_, PlanError>>()?;
        let default =
            engines.get(default).cloned().ok_or_else(|| PlanError::DefaultEngine(default.to_owned()))?;
        Ok(Self { label, default, engines })
    }

    /// The plan for this endpoint: by the configured label, else by the usual ones, else the default engine. A label
    /// that names an unknown engine counts as none; the second value says so.
    pub fn choose(&self, endpoint: &Endpoint) -> (&Arc<EnginePlan>, Option<Arc<str>>) {
        let own = self.label.as_ref().and_then(|key| endpoint.labels.get(key)).map(Arc::from);
        let Some(wanted) = own.or_else(|| endpoint.engine.clone()) else { return (&self.default, None) };
        match self.engines.get(&wanted) {
            Some(plan) => (plan, None),
            None => (&self.default, Some(wanted)),
        }
    }
}
