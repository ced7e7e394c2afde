//! Where pages come from: sources as plugins, and the client that reads their pages.

mod http;
pub mod metrics;
pub mod models;
mod page;
mod parameters;
mod tls;

pub use http::{FetchError, PageReader};
pub use page::Page;
pub use tls::{TlsError, client_config};
