//! Collects one object key.

use super::{MAX_KEY, Running};
use xxhash_rust::xxh64::xxh64;

/// A key on its way in: its first bytes as they are, all of them as a hash.
#[derive(Debug)]
pub(super) struct KeyBuffer {
    bytes: [u8; MAX_KEY],
    len: usize,
    /// Set once the key outgrew `bytes`.
    long: Option<Box<Running>>,
}

impl KeyBuffer {
    pub(super) fn new() -> Self {
        Self { bytes: [0; MAX_KEY], len: 0, long: None }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.long = None;
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        let end = self.len + piece.len();
        if let Some(hash) = &mut self.long {
            hash.update(piece);
        } else if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(piece);
        } else {
            let mut hash = Box::new(Running::default());
            hash.update(&self.bytes[..self.len]);
            hash.update(piece);
            self.long = Some(hash);
        }
        self.len = end;
    }

    /// Name (empty when too long), hash, length.
    pub(super) fn get(&self) -> (&[u8], u64, usize) {
        match &self.long {
            Some(hash) => (&[], hash.digest(), self.len),
            None => (&self.bytes[..self.len], xxh64(&self.bytes[..self.len], 0), self.len),
        }
    }
}
