//! What operators ask the picker: is it well (gRPC and HTTP), what does it count, what does it know.

mod answer;
pub mod auth;
pub mod health;
pub mod http;
mod live;
pub mod review;
pub mod state;

pub use auth::DebugAccess;
pub use health::HealthServer;
pub use http::{AdminError, AdminServer, Pages};
pub use review::{Protection, Reviewer, Verdict};
pub use state::{State, StateSource};
