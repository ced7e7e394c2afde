//! What happens to one request, from what the proxy said of it to the route it takes.

mod admitter;
mod answers;
mod candidates;
mod decide;
pub mod decision_log;
pub mod decisions;
mod envelope;
mod error;
mod hook;
mod identify;
mod observer;
mod options;
mod plan;
mod producer;
mod route;
mod seam;
mod shadow;
mod subset;

pub use decide::{Director, Entered, Wait};
pub use decision_log::DecisionLog;
pub use decisions::Decisions;
pub use envelope::{BodyView, Envelope};
pub use error::{ErrorClass, RouteError};
pub use options::{Options, Services, UnknownModel};
pub use plan::Plan;
pub use producer::prefix_index;
pub use route::Route;
pub use seam::{RoutedRequest, Router};
pub use shadow::{Predicted, Shadow, ShadowPick, Shadows};
pub use subset::{SubsetEntry, SubsetHint};

/// The plugin types of this layer.
pub fn tables() -> [&'static [crate::plugin::PluginType]; 4] {
    [producer::TABLE, observer::TABLE, admitter::TABLE, hook::TABLE]
}

#[cfg(test)]
mod tests;
