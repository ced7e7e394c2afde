//! The contracts that every plugin and the framework share.
//!
//! A plugin is built from its parameters and fills one or more [`Roles`]. It holds parameters only: what must outlive a
//! reload (prefix index, sessions, LRUs) it takes from the [`StateStore`]. Everything it does while a request waits is
//! synchronous and pure over its inputs.

mod build;
mod data;
mod known;
mod known_parameters;
mod request_control;
mod scheduling;
mod score;
mod shape;
mod state;
mod timed;
pub mod units;

pub use build::{
    AttributeNeed, AttributeTable, BuildContext, BuildError, PluginType, Registry, ResponseReader, Stability,
};
pub use data::{
    DiscoverySpec, EncoderMatches, EngineSpec, ExtractorSpec, HttpSource, Policies, PrefixMatches,
    SessionKey, SourceSpec, TokenCosts, TopologyLabels,
};
pub use known::{KNOWN, Known, Parameters, Part};
pub use request_control::{
    AdmissionView, Admitter, AttributeReporter, CostModel, DataProducer, Departure, FairnessSource,
    HeaderEdits, Held, Hold, PreRequest, ProduceError, ReportedAttribute, ResponseHook, ResponseView,
    SaturationDetector, Verdict,
};
pub use scheduling::{
    Cut, Cycle, Decision, Filter, Picker, ProfileHandler, ProfileRun, ProfileRuns, Ranked, ScheduleError,
    SchedulingOutcome, Scorer, ScorerRun, Shortlist, Targets, WeightedScorer,
};
pub use score::{Score, Scores};
pub use shape::{Described, Shape};
pub use state::StateStore;
pub use timed::timed;

use crate::request::ParserKind;
use std::sync::Arc;

/// What one plugin instance can be used as; a plugin fills as many roles as it has.
#[derive(Clone, Default)]
pub struct Roles {
    /// Narrows candidates.
    pub filter: Option<Arc<dyn Filter>>,
    /// Rates candidates.
    pub scorer: Option<Arc<dyn Scorer>>,
    /// Chooses among rated candidates.
    pub picker: Option<Arc<dyn Picker>>,
    /// Says which profiles run.
    pub profile_handler: Option<Arc<dyn ProfileHandler>>,
    /// Writes attributes of candidates before scheduling.
    pub producer: Option<Arc<dyn DataProducer>>,
    /// Holds requests back for a short while.
    pub hold: Option<Arc<dyn Hold>>,
    /// Says which requests may go on to scheduling.
    pub admitter: Option<Arc<dyn Admitter>>,
    /// Says whose share of the pool a request uses.
    pub fairness: Option<Arc<dyn FairnessSource>>,
    /// Estimates the cost of requests.
    pub cost: Option<Arc<dyn CostModel>>,
    /// Looks at the outcome before the request leaves.
    pub pre_request: Option<Arc<dyn PreRequest>>,
    /// Looks at the response.
    pub response: Option<Arc<dyn ResponseHook>>,
    /// Works out a number that the proxy learns when a response ends.
    pub reporter: Option<Arc<dyn AttributeReporter>>,
    /// Says how full the pool is.
    pub saturation: Option<Arc<dyn SaturationDetector>>,
    /// A request parser.
    pub parser: Option<ParserKind>,
    /// A data source.
    pub source: Option<SourceSpec>,
    /// An extractor of a data source.
    pub extractor: Option<ExtractorSpec>,
    /// A discovery.
    pub discovery: Option<DiscoverySpec>,
}
