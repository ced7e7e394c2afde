//! Why a request cannot be read.

use super::Api;

/// Why a request cannot be read. Never carries content of the request.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// No configured parser claims the path.
    #[error("no parser registered matching path suffix for: {path}")]
    NoParser {
        /// The path, without its query.
        path: String,
    },
    /// The body is not what its API says.
    #[error("error unmarshaling request bodyMap: {problem} at byte {offset}")]
    Malformed {
        /// What is wrong.
        problem: String,
        /// Where.
        offset: usize,
    },
    /// The body is JSON, but lacks what its API needs.
    #[error("invalid {} request: {problem}", api.label())]
    Invalid {
        /// The API.
        api: Api,
        /// What is wrong, e.g. `must have prompt field`.
        problem: String,
    },
}

impl Api {
    /// How error messages call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Conversations => "conversations",
            Self::Images => "images generations",
            Self::Messages => "messages",
            Self::CountTokens => "count tokens",
            Self::VllmGenerate | Self::SglangGenerate => "generate",
            Self::VllmGrpcGenerate => "gRPC generate",
            Self::VllmGrpcEmbed => "gRPC embed",
            Self::Opaque => "opaque",
        }
    }
}
