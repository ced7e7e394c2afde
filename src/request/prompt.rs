//! The prompt of a request, in the form that block hashing and cost estimates need.

use std::ops::Range;

/// Bytes of text in one base block: the 64 tokens that are the smallest effective block of the approximate index, at
/// four bytes a token.
pub const BASE_BLOCK_BYTES: usize = 256;
/// Bytes of text that count as one token where no tokenizer is asked.
pub const BYTES_PER_TOKEN: usize = 4;

/// A prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Prompt {
    /// Unknown: headers only, or a body that is not read.
    #[default]
    None,
    /// Text, already hashed into base blocks while it arrived. Several prompts for a batch.
    Text(Vec<TextPrompt>),
    /// Token ids as the client gave them, one list for each prompt.
    Tokens(Vec<Vec<u32>>),
    /// Block hashes of a trace.
    Blocks {
        /// Hash of each block, in order.
        hashes: Vec<u64>,
        /// Tokens in one block.
        block_tokens: u32,
    },
}

/// One text prompt as the hashes of its segments, in the order in which an engine's chat template renders them: tools,
/// template fields, then messages. The order of keys in the JSON body does not show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextPrompt {
    /// The segments.
    pub segments: Vec<Segment>,
    /// Hashes of the segments' base blocks, one after another.
    pub blocks: Vec<u64>,
}

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// The list of tools.
    Tools,
    /// Fields that shape the chat template (template, its arguments, documents, system text of other APIs).
    Template,
    /// One message or one content part.
    Message,
    /// A plain completion prompt or other input.
    Input,
}

/// A part of a prompt that starts a new block.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// What it is.
    pub kind: SegmentKind,
    /// Hash over what is not its text (role, name, tool calls, …), independent of key order. Folded in before its
    /// blocks, so that the same words from another role give another chain.
    pub meta: u64,
    /// Its blocks in [`TextPrompt::blocks`]. The last may be partial.
    pub blocks: Range<usize>,
    /// Bytes of its unescaped text.
    pub bytes: usize,
    /// Where its text stands in the body, escapes and quotes included; empty where it is not one JSON string.
    pub span: Range<usize>,
}

impl Prompt {
    /// Estimated tokens.
    pub fn tokens(&self) -> u32 {
        let tokens = match self {
            Self::None => 0,
            Self::Text(prompts) => prompts
                .iter()
                .flat_map(|p| &p.segments)
                .map(|s| s.bytes)
                .sum::<usize>()
                .div_ceil(BYTES_PER_TOKEN),
            Self::Tokens(prompts) => prompts.iter().map(Vec::len).sum(),
            Self::Blocks { hashes, block_tokens } => hashes.len() * *block_tokens as usize,
        };
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }
}
