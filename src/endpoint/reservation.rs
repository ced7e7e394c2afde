//! One request on one endpoint, counted from the pick to the end.

use super::{Endpoint, EndpointKey};
use std::sync::Arc;

/// What a request does on the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationRole {
    /// Generates the answer.
    Decode,
    /// Computes the prompt for another endpoint.
    Prefill,
    /// Encodes images, audio or video for another endpoint.
    Encode,
}

/// Estimated tokens of a request, split by when they are given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Given back when the first byte of the answer comes (prompt tokens that were computed by then).
    pub until_first_byte: u32,
    /// Given back when the request ends.
    pub until_end: u32,
}

/// Holds a request's place on an endpoint. Released exactly once: by [`Reservation::first_byte`] in part, by drop in full.
#[derive(Debug)]
pub struct Reservation {
    endpoint: Arc<Endpoint>,
    role: ReservationRole,
    cost: Cost,
    held: i64,
}

impl Reservation {
    /// Counts one request with `cost` on `endpoint`.
    pub fn new(endpoint: Arc<Endpoint>, role: ReservationRole, cost: Cost) -> Self {
        let held = i64::from(cost.until_first_byte) + i64::from(cost.until_end);
        endpoint.live.add(1, held);
        Self { endpoint, role, cost, held }
    }

    /// The first byte of the answer came: the prompt's share is given back.
    pub fn first_byte(&mut self) {
        let back = i64::from(std::mem::take(&mut self.cost.until_first_byte));
        self.endpoint.live.add(0, -back);
        self.held -= back;
    }

    /// Another endpoint serves the request than was planned: the count moves there.
    pub fn move_to(&mut self, endpoint: Arc<Endpoint>) {
        self.endpoint.live.add(-1, -self.held);
        endpoint.live.add(1, self.held);
        self.endpoint = endpoint;
    }

    /// Where the request is.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Identity of the endpoint.
    pub fn key(&self) -> &EndpointKey {
        &self.endpoint.key
    }

    /// What the request does there.
    pub fn role(&self) -> ReservationRole {
        self.role
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.endpoint.live.add(-1, -self.held);
    }
}
