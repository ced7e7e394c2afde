//! One inference endpoint: who it is, where it listens, what is known of its load, and whether it can be trusted.
//!
//! An [`Endpoint`] is immutable. What changes while requests fly (the last metrics sample, requests in flight, health,
//! incarnation) lives in its [`Live`] part, which survives every change of the immutable part.

mod address;
pub mod health;
mod identity;
mod live;
mod reservation;
mod sample;

pub use address::{Host, HostPort, InvalidAddress};
pub use identity::{EndpointKey, Incarnation, Labels, Occupant, POD_HOSTNAME, Role, Slot};
pub use live::{Live, LoadSnapshot};
pub use reservation::{Cost, Reservation, ReservationRole};
pub use sample::{CacheGeometry, LoraState, Reading, Sample, ScalarId};

use std::sync::Arc;

/// An endpoint as its discovery describes it, together with its live state.
#[derive(Debug)]
pub struct Endpoint {
    /// Who it is; never an address.
    pub key: EndpointKey,
    /// Its dense place in the pool.
    pub slot: Slot,
    /// Where it takes requests.
    pub address: HostPort,
    /// `address` as the destination header wants it (`ip:port`, IPv6 bracketed), rendered once.
    pub destination: Arc<str>,
    /// Where its metrics are served: the same host, perhaps another port.
    pub metrics_address: HostPort,
    /// Labels of the pod, or of the file entry.
    pub labels: Labels,
    /// Parsed from the role label.
    pub role: Role,
    /// Value of the engine-type label, when there is one.
    pub engine: Option<Arc<str>>,
    /// What discovery knows of the process behind it (pod UID and container start): a change is a new incarnation.
    pub process_mark: Option<Arc<str>>,
    /// The state that changes while requests fly.
    pub live: Arc<Live>,
}

/// Label that names an endpoint's role.
pub const ROLE_LABEL: &str = "llm-d.ai/role";
/// Label that names the engine behind an endpoint; the second spelling is the older one.
pub const ENGINE_LABELS: [&str; 2] = ["llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type"];

impl Endpoint {
    /// The endpoint's slot and incarnation now: the key under which cache indexes know it.
    pub fn occupant(&self) -> Occupant {
        Occupant { slot: self.slot, incarnation: self.live.incarnation() }
    }
}
