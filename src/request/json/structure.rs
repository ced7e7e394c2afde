//! One hash for a JSON value of any shape.

use super::{Container, Literal, Running};
use xxhash_rust::xxh64::xxh64;

/// XXH64 over two words.
pub(in crate::request) fn mix(a: u64, b: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&a.to_le_bytes());
    bytes[8..].copy_from_slice(&b.to_le_bytes());
    xxh64(&bytes, 0)
}

/// Members of one object for which a key that stands twice is noticed. Past it such a key counts twice: another hash,
/// never a wrong one for a body without duplicates.
const MAX_DISTINCT: usize = 64;
/// Entries kept over all objects that are open.
const MAX_OPEN: usize = 4096;

/// Members of one object, hashed so that their order does not show and the last of equal keys wins.
#[derive(Clone, Debug, Default)]
pub(in crate::request) struct Members {
    entries: Vec<(u64, u64, usize)>,
    folded: u64,
    folded_bytes: usize,
}

impl Members {
    pub(in crate::request) fn clear(&mut self) {
        self.entries.clear();
        (self.folded, self.folded_bytes) = (0, 0);
    }
    /// Sets the member `key` to a value with this hash and this many bytes.
    pub(in crate::request) fn set(&mut self, key: u64, value: u64, bytes: usize) {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.0 == key) {
            *entry = (key, value, bytes);
        } else if self.entries.len() < MAX_DISTINCT {
            self.entries.push((key, value, bytes));
        } else {
            self.folded = self.folded.wrapping_add(mix(key, value));
            self.folded_bytes += bytes;
        }
    }
    /// Takes the member `key` out.
    pub(in crate::request) fn unset(&mut self, key: u64) {
        self.entries.retain(|e| e.0 != key);
    }
    /// 0 when there is no member.
    pub(in crate::request) fn hash(&self) -> u64 {
        self.entries.iter().fold(self.folded, |sum, (key, value, _)| sum.wrapping_add(mix(*key, *value)))
    }
    /// Bytes of all values.
    pub(in crate::request) fn bytes(&self) -> usize {
        self.folded_bytes + self.entries.iter().map(|e| e.2).sum::<usize>()
    }
}

/// Tags that keep values of different types apart.
mod tag {
    pub(super) const NULL: u64 = 0x6e;
    pub(super) const TRUE: u64 = 0x74;
    pub(super) const FALSE: u64 = 0x66;
    pub(super) const NUMBER: u64 = 0x30;
    pub(super) const STRING: u64 = 0x22;
    pub(super) const ARRAY: u64 = 0x5b;
    pub(super) const OBJECT: u64 = 0x7b;
}

/// The hash of a finished value, and the bytes of its keys and scalars with one for each mark between them: independent
/// of white space and escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::request) struct Hashed {
    pub(in crate::request) hash: u64,
    pub(in crate::request) bytes: usize,
}

#[derive(Debug)]
struct Frame {
    container: Container,
    /// Array: running hash. Object: sum over members that are not in `entries` any more.
    sum: u64,
    /// Where its members start in `entries`.
    from: usize,
    key: u64,
    /// The member under the key that was read last does not count: the bytes known before it.
    skipped: Option<usize>,
}

/// Hashes one JSON value as its tokens come. Objects are hashed over their members in any order; white space and
/// escapes do not show. Numbers count as they are written.
#[derive(Debug, Default)]
pub(in crate::request) struct Structure {
    frames: Vec<Frame>,
    entries: Vec<(u64, u64)>,
    string: Running,
    string_bytes: usize,
    bytes: usize,
    done: Option<u64>,
    /// A key that does not count in objects at this depth (1 = the outermost container).
    ignored: Option<(u64, usize)>,
}

impl Structure {
    /// Starts a new value. The member with the key hash `ignored.0` does not count in objects `ignored.1` deep.
    pub(in crate::request) fn start(&mut self, ignored: Option<(u64, usize)>) {
        self.frames.clear();
        self.entries.clear();
        (self.bytes, self.done, self.ignored) = (0, None, ignored);
    }

    /// The hash of a string value.
    pub(in crate::request) fn of_str(text: &str) -> u64 {
        mix(tag::STRING, xxh64(text.as_bytes(), 0))
    }

    /// The hash, once the value is complete.
    pub(in crate::request) fn done(&self) -> Option<Hashed> {
        self.done.map(|hash| Hashed { hash, bytes: self.bytes })
    }

    pub(in crate::request) fn open(&mut self, container: Container) {
        self.bytes += 1;
        let from = self.entries.len();
        self.frames.push(Frame { container, sum: 0, from, key: 0, skipped: None });
    }

    pub(in crate::request) fn close(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        self.bytes += 1;
        let tag = match frame.container {
            Container::Array => tag::ARRAY,
            Container::Object => tag::OBJECT,
        };
        let members = self.entries.drain(frame.from..);
        let sum = members.fold(frame.sum, |sum, (key, value)| sum.wrapping_add(mix(key, value)));
        self.value(mix(tag, sum));
    }

    pub(in crate::request) fn key(&mut self, hash: u64, len: usize) {
        let depth = self.frames.len();
        if let Some(frame) = self.frames.last_mut() {
            frame.key = hash;
            frame.skipped = (self.ignored == Some((hash, depth))).then_some(self.bytes);
        }
        self.bytes += len + 1;
    }

    pub(in crate::request) fn string_start(&mut self) {
        self.string.reset();
        self.string_bytes = 0;
    }

    pub(in crate::request) fn string_piece(&mut self, piece: &[u8]) {
        self.string.update(piece);
        self.string_bytes += piece.len();
    }

    pub(in crate::request) fn string_end(&mut self) {
        self.bytes += self.string_bytes + 1;
        self.value(mix(tag::STRING, self.string.digest()));
    }

    pub(in crate::request) fn number(&mut self, raw: &[u8]) {
        self.bytes += raw.len() + 1;
        self.value(mix(tag::NUMBER, xxh64(raw, 0)));
    }

    pub(in crate::request) fn literal(&mut self, literal: Literal) {
        self.bytes += 4;
        let tag = match literal {
            Literal::Null => tag::NULL,
            Literal::True => tag::TRUE,
            Literal::False => tag::FALSE,
        };
        self.value(mix(tag, 0));
    }

    fn value(&mut self, hash: u64) {
        let Some(frame) = self.frames.last_mut() else {
            self.done = Some(hash);
            return;
        };
        match frame.container {
            Container::Array => frame.sum = mix(frame.sum, hash),
            Container::Object => {
                if let Some(bytes) = frame.skipped {
                    self.bytes = bytes;
                    return;
                }
                let own = &mut self.entries[frame.from..];
                if let Some(entry) = own.iter_mut().find(|e| e.0 == frame.key) {
                    entry.1 = hash;
                } else if own.len() < MAX_DISTINCT && self.entries.len() < MAX_OPEN {
                    self.entries.push((frame.key, hash));
                } else {
                    frame.sum = frame.sum.wrapping_add(mix(frame.key, hash));
                }
            }
        }
    }
}
