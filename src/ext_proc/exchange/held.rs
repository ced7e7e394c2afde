//! A request body while it waits for the decision.

use super::super::budget::Permit;
use crate::request::Body;
use bytes::{Bytes, BytesMut};

/// From this many chunks on small ones are put together, so that a body sent byte by byte does not cost 32 bytes of
/// bookkeeping for each.
const LOOSE_CHUNKS: usize = 16;
/// Chunks below this many bytes are small.
const SMALL: usize = 4 * 1024;
/// How large a chunk that was put together grows.
const JOINED: usize = 32 * 1024;

/// The bytes of one body, counted by its permit.
#[derive(Debug)]
pub(super) struct Held {
    body: Body,
    tail: BytesMut,
    pub(super) permit: Permit,
}

impl Held {
    pub(super) fn new(permit: Permit) -> Self {
        Self { body: Body::default(), tail: BytesMut::new(), permit }
    }

    pub(super) fn len(&self) -> usize {
        self.body.len() + self.tail.len()
    }

    /// Appends a chunk; its bytes have been taken from the permit.
    pub(super) fn push(&mut self, chunk: Bytes) {
        if chunk.len() >= SMALL || self.body.chunks().len() < LOOSE_CHUNKS {
            self.flush();
            self.body.push(chunk);
            return;
        }
        if self.tail.capacity() == 0 {
            self.tail.reserve(JOINED);
        }
        self.tail.extend_from_slice(&chunk);
        if self.tail.len() >= JOINED - SMALL {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.body.push(std::mem::take(&mut self.tail).freeze());
        }
    }

    pub(super) fn into_parts(mut self) -> (Body, Permit) {
        self.flush();
        (self.body, self.permit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext_proc::budget::Budget;

    #[test]
    fn a_body_sent_byte_by_byte_is_put_together() {
        let mut held = Held::new(Permit::new(Budget::new(1 << 20)));
        let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        for byte in &bytes {
            held.push(Bytes::copy_from_slice(&[*byte]));
        }
        held.push(Bytes::from(vec![1; SMALL]));
        assert_eq!(held.len(), bytes.len() + SMALL);
        let (body, _permit) = held.into_parts();
        assert!(body.chunks().len() < LOOSE_CHUNKS + 8, "{}", body.chunks().len());
        assert_eq!(body.chunks().concat()[..bytes.len()], bytes);
    }
}
