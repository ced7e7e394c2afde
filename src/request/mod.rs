//! A request as the picker sees it: headers, what its parser read from the body, and how its response is observed.

mod body;
mod control;
mod error;
mod headers;
pub mod json;
pub mod parser;
mod prompt;
mod protobuf;
mod restore;
mod salt;
mod usage;
mod wishes;

pub use body::{Body, Pieces};
pub use control::{CONTROL_HEADERS, TrustedHeaders};
pub use error::ParseError;
pub use headers::{Headers, names};
pub use parser::{Intake, ParserSet};
pub use prompt::{BASE_BLOCK_BYTES, BYTES_PER_TOKEN, Prompt, Segment, SegmentKind, TextPrompt};
pub use restore::ModelRestorer;
pub use salt::CacheSalt;
pub use usage::UsageReader;
pub use wishes::{CachePolicy, Stage, StageTimes, Ticket, Wishes, read_priority, read_timeout};

use crate::clock::Moment;
use std::ops::Range;
use std::sync::Arc;

/// Which API a request speaks; decides how its body was read and how its response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// `/v1/chat/completions` and its render twin.
    ChatCompletions,
    /// `/v1/completions` and its render twin.
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/responses`
    Responses,
    /// `/v1/conversations`
    Conversations,
    /// `/v1/images/generations`
    Images,
    /// Anthropic `/v1/messages`
    Messages,
    /// Anthropic `/v1/messages/count_tokens`
    CountTokens,
    /// vLLM `/inference/v1/generate`
    VllmGenerate,
    /// SGLang `/generate`
    SglangGenerate,
    /// vLLM gRPC `Generate`
    VllmGrpcGenerate,
    /// vLLM gRPC `Embed`
    VllmGrpcEmbed,
    /// Anything else: the body is not read.
    Opaque,
}

/// A request parser by its type name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParserKind {
    /// `openai-parser`
    OpenAi,
    /// `anthropic-parser`
    Anthropic,
    /// `vllmhttp-parser`
    VllmHttp,
    /// `sglanghttp-parser`
    SglangHttp,
    /// `vllmgrpc-parser`
    VllmGrpc,
    /// `passthrough-parser`: the fallback for every path
    Passthrough,
}

/// What a parser read from a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The API.
    pub api: Api,
    /// The model that the client asked for.
    pub model: Option<Arc<str>>,
    /// Where the model's JSON string token (quotes included) stands in the body: what a rewrite replaces.
    pub model_span: Option<Range<usize>>,
    /// Whether the client asked for a streamed answer.
    pub stream: bool,
    /// The client's cap on output tokens.
    pub max_output_tokens: Option<u32>,
    /// The cache salt, which seeds the prompt's block chain.
    pub cache_salt: Option<CacheSalt>,
    /// The prompt.
    pub prompt: Prompt,
    /// Hashes of the distinct pictures, sounds and films in it; at most [`MAX_MEDIA`].
    pub media: Vec<u64>,
}

/// Most pictures, sounds and films of one request that are told apart.
pub const MAX_MEDIA: usize = 256;

impl Parsed {
    /// A request of which only the API is known.
    pub fn opaque(api: Api) -> Self {
        Self {
            api,
            model: None,
            model_span: None,
            stream: false,
            max_output_tokens: None,
            cache_salt: None,
            prompt: Prompt::None,
            media: Vec::new(),
        }
    }
}

/// A request that parsed, with everything that scheduling may look at.
#[derive(Clone, Debug)]
pub struct InferenceRequest {
    /// Id from the client, or one made here.
    pub id: Arc<str>,
    /// When its headers came.
    pub received: Moment,
    /// Its headers, control headers that are not trusted already taken out.
    pub headers: Headers,
    /// What the parser read.
    pub parsed: Parsed,
    /// Model that the engine is asked for: after rewrites. Empty when no model is known.
    pub target_model: Arc<str>,
    /// Priority from its objective; negative means it may be shed.
    pub priority: i32,
    /// Whose share of the pool it uses.
    pub fairness_id: Arc<str>,
    /// Size of its body.
    pub body_bytes: usize,
    /// What it asks of the picker.
    pub wishes: Wishes,
}

impl InferenceRequest {
    /// Model that the client asked for, empty when none is known.
    pub fn model(&self) -> &str {
        self.parsed.model.as_deref().unwrap_or_default()
    }
    /// Estimated prompt tokens: exact for token ids, a quarter of the bytes for text, 0 when the prompt is unknown.
    pub fn prompt_tokens(&self) -> u32 {
        self.parsed.prompt.tokens()
    }
}

/// Token counts that an engine reported for one request. A field that it did not report is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: Option<u32>,
    /// Tokens that were generated.
    pub completion: Option<u32>,
    /// Prompt tokens that came from the engine's cache.
    pub cached: Option<u32>,
    /// All tokens.
    pub total: Option<u32>,
}

impl Usage {
    /// Takes over each field that `newer` has.
    pub fn merge(&mut self, newer: Usage) {
        self.prompt = newer.prompt.or(self.prompt);
        self.completion = newer.completion.or(self.completion);
        self.cached = newer.cached.or(self.cached);
        self.total = newer.total.or(self.total);
    }
    /// Whether nothing was reported.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How a request ended, known from the phase of its exchange and never from a gRPC status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The response came to its end.
    Natural,
    /// The picker refused it.
    Refused,
    /// It was taken back to make room for another.
    Evicted,
    /// The proxy closed the stream before the response had ended: the client or the engine went away.
    Disconnected,
    /// The messages of the proxy came in an order that must not occur.
    Protocol,
}

impl Ending {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Natural => "natural",
            Self::Refused => "refused",
            Self::Evicted => "evicted",
            Self::Disconnected => "disconnected",
            Self::Protocol => "protocol",
        }
    }
}
