//! Everything of one configuration that a request meets, built whole and swapped whole.

use super::Shadow;
use crate::plugin::{
    Admitter, AttributeReporter, CostModel, DataProducer, FairnessSource, Hold, PreRequest, PrefixMatches,
    ResponseHook, ResponseReader, SaturationDetector,
};
use crate::pool::{AttributeId, Columns};
use crate::request::parser::ParserSet;
use crate::scheduling::Scheduler;
use std::fmt;
use std::sync::Arc;

/// The plugins of one configuration, wired. Immutable: another configuration is another plan, and a request keeps the
/// one that it started with.
pub struct Plan {
    /// Counts the plans of this process, from 1.
    pub generation: u64,
    /// XXH64 of the configuration's text, as 16 hexadecimal digits: tells whether two replicas run the same one.
    pub digest: Arc<str>,
    /// Chooses among the candidates.
    pub scheduler: Scheduler,
    /// Profiles that are only watched.
    pub shadow: Option<Shadow>,
    /// Estimates what a request costs where it goes.
    pub cost: Arc<dyn CostModel>,
    /// Producers of attributes, each after those whose attributes it reads.
    pub producers: Vec<(Arc<str>, Arc<dyn DataProducer>)>,
    /// Hooks before a request leaves, in order of the configuration.
    pub pre_request: Vec<(Arc<str>, Arc<dyn PreRequest>)>,
    /// Hooks on the response, in order of the configuration.
    pub response: Vec<(Arc<str>, Arc<dyn ResponseHook>)>,
    /// What holds requests back before they are decided, in order of the configuration.
    pub holds: Vec<(Arc<str>, Arc<dyn Hold>)>,
    /// Admitters, in order of the configuration.
    pub admitters: Vec<(Arc<str>, Arc<dyn Admitter>)>,
    /// Whose share of the pool a request uses when no header says it; the first that knows counts.
    pub fairness: Vec<(Arc<str>, Arc<dyn FairnessSource>)>,
    /// Numbers that the proxy learns when a response ends.
    pub reporters: Vec<(Arc<str>, Arc<dyn AttributeReporter>)>,
    /// Says how full the pool is.
    pub saturation: Arc<dyn SaturationDetector>,
    /// Request parsers in order of precedence; a fallback is the last.
    pub parsers: ParserSet,
    /// What the prefix producer, if there is one, says of the candidates.
    pub prefix: Option<AttributeId<PrefixMatches>>,
    /// Columns of the candidates that any plugin of the plan reads.
    pub columns: Columns,
    /// Plugins that are worse off where the proxy does not show response bodies, and how.
    pub response_readers: Vec<ResponseReader>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn names<T: ?Sized>(list: &[(Arc<str>, Arc<T>)]) -> Vec<&str> {
            list.iter().map(|(name, _)| &**name).collect()
        }
        f.debug_struct("Plan")
            .field("generation", &self.generation)
            .field("digest", &self.digest)
            .field("scheduler", &self.scheduler)
            .field("shadow", &self.shadow)
            .field("producers", &names(&self.producers))
            .field("pre_request", &names(&self.pre_request))
            .field("response", &names(&self.response))
            .field("parsers", &self.parsers)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}
