//! A JSON scanner that is fed chunk by chunk and builds nothing.
//!
//! It accepts what RFC 8259 calls a JSON text, as `serde_json` does, with four deliberate differences: values nest at
//! most [`MAX_DEPTH`] deep (and cost no stack); a number has at most [`MAX_NUMBER`] bytes; a number that overflows a
//! double is no error, since nothing here computes with it; of a key that stands twice both values are reported, and who
//! listens lets the last win. Its memory is a few hundred bytes and one key.

mod key;
mod lexer;
mod number;
mod string;
mod structure;
#[cfg(test)]
mod tests;

pub use lexer::Lexer;
pub(super) use structure::{Hashed, Members, Structure, mix};

use xxhash_rust::xxh64::Xxh64;

/// A hash over bytes that come in pieces.
struct Running(Xxh64);

impl Default for Running {
    fn default() -> Self {
        Self(Xxh64::new(0))
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running(..)")
    }
}

impl Running {
    fn reset(&mut self) {
        self.0.reset(0);
    }
    fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }
    fn digest(&self) -> u64 {
        self.0.digest()
    }
}

/// Deepest nesting of arrays and objects.
pub const MAX_DEPTH: usize = 512;
/// Longest number in bytes.
pub const MAX_NUMBER: usize = 1024;
/// Keys up to this many bytes are reported in full.
pub const MAX_KEY: usize = 64;

/// What is wrong with a text, and at which byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What, in words; never content of the text.
    pub what: &'static str,
    /// Offset from the start of the text.
    pub offset: usize,
}

/// An array or an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// `[…]`
    Array,
    /// `{…}`
    Object,
}

/// A literal name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true`
    True,
    /// `false`
    False,
}

/// Who listens to a [`Lexer`]. Calls come in the order of the text, whatever its chunks; only the pieces of a string
/// depend on them. Everything heard so far is well formed.
pub trait Sink {
    /// An array or object starts.
    fn open(&mut self, container: Container);
    /// The innermost container ends.
    fn close(&mut self);
    /// A member's key, unescaped. `name` is the whole key if it has at most [`MAX_KEY`] bytes, else empty; `hash` is the
    /// XXH64 of all of it.
    fn key(&mut self, name: &[u8], hash: u64, len: usize);
    /// A string value starts; `at` is the offset of its opening quote.
    fn string_start(&mut self, at: usize);
    /// The next unescaped bytes of the string; a piece may end inside a character.
    fn string_piece(&mut self, piece: &[u8]);
    /// The string ends; `end` is the offset after its closing quote.
    fn string_end(&mut self, end: usize);
    /// A number as it is written.
    fn number(&mut self, raw: &[u8]);
    /// A literal name.
    fn literal(&mut self, literal: Literal);
}
