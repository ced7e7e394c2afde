//! Tests of the parsers as a whole.

mod apis;
mod bad;
mod equal;

use super::Intake;
use crate::request::{Api, ParseError, Parsed};

/// Reads a body in chunks of `cut` bytes.
pub(super) fn read_in(api: Api, body: &[u8], cut: usize) -> Result<Parsed, ParseError> {
    let mut intake = Intake::new(api);
    for chunk in body.chunks(cut.max(1)) {
        intake.push(chunk).unwrap();
    }
    intake.finish()
}

/// Reads a body whole.
pub(super) fn read(api: Api, body: &str) -> Result<Parsed, ParseError> {
    read_in(api, body.as_bytes(), body.len())
}
