//! The Envoy edge: the external-processing service, from bytes on a socket to envelopes for the director and back.
//!
//! [`exchange`] is the protocol as a state machine without IO; [`ExtProc`] drives one for each stream; [`server`] binds
//! the service to a port.

pub mod budget;
pub mod exchange;
mod headers;
mod metadata;
mod meters;
mod mode;
pub mod pools;
pub mod reject;
mod reply;
pub mod server;
mod service;
mod stream;
#[cfg(test)]
mod testing;
pub mod tls;
mod tls_clients;

pub use exchange::{Limits, OverBudget, ResponseBodies};
pub use meters::Meters;
pub use mode::{BodyMode, Modes};
pub use pools::{Lane, Pools};
pub use reply::MAX_PIECE;
pub use service::ExtProc;
