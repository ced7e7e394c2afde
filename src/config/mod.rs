//! Configuration: flags and variables of the picker, and the EndpointPickerConfig document.
//!
//! [`flags::parse`] makes [`EppOptions`] from a command line. Everything that is wrong is reported at once.

pub mod flags;

mod diff;
mod document;
mod edit;
mod error;
mod forms;
mod node;
mod options;
mod parameters;
pub mod parsers;
mod resolve;
mod schema;
mod suggest;
mod units;
mod write;

pub use diff::diff;
pub use document::{
    DataLayer, Document, FeatureGates, FlowControl, PluginSpec, ProfileSpec, Reference, decode, modernized,
};
pub use error::{ConfigErrors, Findings, Place, Problem};
pub use node::{Data, Key, Node};
pub use options::{
    AdminOptions, ClusterOptions, ConfigSource, DecisionLogOptions, EppOptions, Limits, ListenOptions,
    LogLevel, LogTarget, MetricsOptions, OverBudget, PoolGroup, PoolOptions, ResponseBodies, TlsOptions,
    TracingOptions,
};
pub use parameters::{Misfit, misfits};
pub use resolve::{DEFAULT_DOCUMENT, Loaded, Resolved, resolve};
pub use schema::document_schema;
pub use suggest::hint;
pub use write::{Line, Written, lines, write};
