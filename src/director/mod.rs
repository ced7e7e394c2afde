//! What happens to one request, from what the proxy said of it to the route it takes.

mod envelope;
mod error;
mod plan;
mod seam;
mod subset;

pub use envelope::{BodyView, Envelope};
pub use error::{ErrorClass, RouteError};
pub use plan::Plan;
pub use seam::{RoutedRequest, Router};
pub use subset::{SubsetEntry, SubsetHint};
