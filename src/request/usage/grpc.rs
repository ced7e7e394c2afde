//! Counts in the answers of vLLM's gRPC API.

use crate::request::protobuf::{Delimited, Fields, Frames};
use crate::request::{Api, Usage};

/// Reads `GenerateResponse` (1 chunk: 2 prompt, 3 completion, 4 cached; 2 complete: 3 prompt, 4 completion, 5 cached) and
/// `EmbedResponse` (2 prompt tokens) frames.
#[derive(Debug)]
pub(super) struct GrpcCounts {
    frames: Frames,
    seen: Seen,
}

#[derive(Debug)]
struct Seen {
    api: Api,
    usage: Usage,
}

impl GrpcCounts {
    pub(super) fn new(api: Api) -> Self {
        Self { frames: Frames::default(), seen: Seen { api, usage: Usage::default() } }
    }
    pub(super) fn push(&mut self, chunk: &[u8]) {
        // A bad frame stays with the reader: nothing more is read.
        let _ = self.frames.push(chunk, &mut self.seen);
    }
    /// Counts that are all zero mean that nothing was reported.
    pub(super) fn usage(&self) -> Usage {
        let usage = self.seen.usage;
        let known = usage.prompt.unwrap_or(0) > 0 || usage.completion.unwrap_or(0) > 0;
        if known { usage } else { Usage::default() }
    }
}

impl Fields for Seen {
    fn frame(&mut self) {}
    fn delimited(&mut self, path: &[u32]) -> Delimited {
        match (self.api, path) {
            (Api::VllmGrpcGenerate, [1 | 2]) => Delimited::Message,
            _ => Delimited::Skip,
        }
    }
    fn varint(&mut self, path: &[u32], value: u64) {
        let field = match (self.api, path) {
            (Api::VllmGrpcGenerate, [1, 2] | [2, 3]) | (Api::VllmGrpcEmbed, [2]) => &mut self.usage.prompt,
            (Api::VllmGrpcGenerate, [1, 3] | [2, 4]) => &mut self.usage.completion,
            (Api::VllmGrpcGenerate, [1, 4] | [2, 5]) => &mut self.usage.cached,
            _ => return,
        };
        *field = Some(u32::try_from(value).unwrap_or(u32::MAX));
    }
    fn bytes(&mut self, _path: &[u32], _piece: &[u8], _last: bool) {}
}
