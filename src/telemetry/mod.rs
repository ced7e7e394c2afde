//! What operators see: metrics, logs, traces.
//!
//! Metric names and their meaning stand in one table, [`names`]. Code counts through the `metrics` macros with those
//! names, or, on the path of a request, through handles that were resolved once ([`requests`], [`plugins`]). The
//! [`recorder`] turns it all into one page and writes the older twin of a family beside it when asked to.

pub mod buckets;
pub mod cardinality;
#[cfg(test)]
mod docs;
mod histogram;
pub mod logs;
pub mod names;
pub mod plugins;
pub mod pool_gauges;
mod process;
pub mod recorder;
pub mod redact;
pub mod requests;
pub mod scope;
mod series;
mod text;
pub mod traces;

pub use recorder::MetricsHandle;
pub use requests::RequestMetrics;
pub use scope::Scope;
pub use series::{Finished, RequestSeries, RunningGuard};
