//! Token counts out of responses.

use super::{Api, Usage};

/// Reads the token counts of one response while it passes.
#[derive(Debug)]
pub struct UsageReader;

impl UsageReader {
    /// `event_stream` says whether the response's content type is `text/event-stream`.
    pub fn new(_api: Api, _event_stream: bool) -> Self {
        Self
    }
    /// Takes the next chunk, of any size.
    pub fn push(&mut self, _chunk: &[u8]) {}
    /// What was reported so far.
    pub fn usage(&self) -> Usage {
        Usage::default()
    }
    /// The response has ended: what was reported in all.
    pub fn finish(&mut self) -> Usage {
        Usage::default()
    }
    /// `data:` lines so far, without the closing `[DONE]`.
    pub fn events(&self) -> u64 {
        0
    }
}
