//! What the edge hands over: one request as far as the proxy showed it.

use super::SubsetHint;
use crate::clock::Moment;
use crate::request::{Headers, Parsed};

/// How much of the body the proxy showed.
#[derive(Debug)]
pub enum BodyView {
    /// There is no body: GET, HEAD, CONNECT, an upgrade.
    Absent,
    /// There is one, but this processing mode does not show it before the pick.
    Hidden,
    /// All of it was read.
    Whole(Parsed),
    /// The proxy cut it; this is what stands in the part that came.
    Cut(Parsed),
}

/// One request for the director.
#[derive(Debug)]
pub struct Envelope {
    /// When its headers came.
    pub received: Moment,
    /// Its headers as they came, pseudo-headers included.
    pub headers: Headers,
    /// Which endpoints the proxy allows.
    pub subset: SubsetHint,
    /// What is known of the body.
    pub body: BodyView,
    /// Bytes of the body that came.
    pub body_bytes: usize,
}
