//! What is read out of the pages that sources fetch.

pub mod core_metrics;
pub mod models;
mod page;
mod plan;
pub mod topology;

pub use page::{Memo, PageReading};
pub use plan::{CorePlan, EnginePlan, PlanError};
