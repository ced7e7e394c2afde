//! From a path to the parser that claims it.

use super::Intake;
use crate::request::{Api, Headers, ParseError, ParserKind};

/// Parsers of a configuration that names none, in this order.
const DEFAULT: [ParserKind; 4] =
    [ParserKind::OpenAi, ParserKind::Anthropic, ParserKind::VllmHttp, ParserKind::Passthrough];
/// Headers that may hold the path, best first.
const PATH_HEADERS: [&str; 3] = [":path", "x-original-path", "x-forwarded-path"];
/// Taken where no header holds a path.
const DEFAULT_PATH: &str = "/v1/completions";

/// The path suffixes that a parser claims.
fn claims(kind: ParserKind) -> &'static [(&'static str, Api)] {
    match kind {
        ParserKind::OpenAi => &[
            ("chat/completions", Api::ChatCompletions),
            ("chat/completions/render", Api::ChatCompletions),
            ("completions", Api::Completions),
            ("completions/render", Api::Completions),
            ("embeddings", Api::Embeddings),
            ("responses", Api::Responses),
            ("conversations", Api::Conversations),
            ("images/generations", Api::Images),
        ],
        ParserKind::Anthropic => &[("messages", Api::Messages), ("messages/count_tokens", Api::CountTokens)],
        ParserKind::VllmHttp => &[("inference/v1/generate", Api::VllmGenerate)],
        ParserKind::SglangHttp => &[("generate", Api::SglangGenerate)],
        ParserKind::VllmGrpc => &[
            ("vllm.grpc.engine.VllmEngine/Generate", Api::VllmGrpcGenerate),
            ("vllm.grpc.engine.VllmEngine/Embed", Api::VllmGrpcEmbed),
        ],
        ParserKind::Passthrough => &[],
    }
}

/// The parsers of a configuration.
#[derive(Clone, Debug)]
pub struct ParserSet {
    claims: Vec<(&'static str, Api)>,
    fallback: bool,
}

impl Default for ParserSet {
    fn default() -> Self {
        Self::new(&DEFAULT)
    }
}

impl ParserSet {
    /// Parsers in order. A kind named twice counts once; passthrough is the fallback for every path and ends the list.
    /// The default of a configuration that names none is [`ParserSet::default`]; an empty list here is empty.
    pub fn new(kinds: &[ParserKind]) -> Self {
        let mut set = Self { claims: Vec::new(), fallback: false };
        for kind in kinds {
            if *kind == ParserKind::Passthrough {
                set.fallback = true;
                break;
            }
            for claim in claims(*kind) {
                if !set.claims.contains(claim) {
                    set.claims.push(*claim);
                }
            }
        }
        set
    }

    /// Opens the intake for a request.
    ///
    /// # Errors
    /// [`ParseError::NoParser`] when no parser claims the path and there is no fallback.
    pub fn open(&self, headers: &Headers) -> Result<Intake, ParseError> {
        let path = path_of(headers);
        self.api_of(path).map(Intake::new).ok_or_else(|| ParseError::NoParser { path: path.to_owned() })
    }

    fn api_of(&self, path: &str) -> Option<Api> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut best: Option<(&str, Api)> = None;
        for (suffix, api) in &self.claims {
            if ends_on_segments(path, suffix) && best.is_none_or(|(known, _)| suffix.len() > known.len()) {
                best = Some((suffix, *api));
            }
        }
        best.map(|(_, api)| api).or(self.fallback.then_some(Api::Opaque))
    }
}

/// The path without its query: the first header of the list that has one.
fn path_of(headers: &Headers) -> &str {
    let path = headers.first_of(&PATH_HEADERS).unwrap_or(DEFAULT_PATH);
    path.split(['?', '#']).next().unwrap_or(path)
}

/// Whether `path` ends with `suffix` and the suffix starts a path segment.
fn ends_on_segments(path: &str, suffix: &str) -> bool {
    path.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn headers(pairs: &[(&str, &'static str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in pairs {
            headers.push(name, Bytes::from_static(value.as_bytes()));
        }
        headers
    }

    fn api(set: &ParserSet, path: &'static str) -> Result<Api, ParseError> {
        set.open(&headers(&[(":path", path)])).map(|intake| intake.api())
    }

    #[test]
    fn the_longest_suffix_on_a_segment_border_wins() {
        let set = ParserSet::default();
        for (path, wanted) in [
            ("/v1/chat/completions", Api::ChatCompletions),
            ("/v1/chat/completions/", Api::ChatCompletions),
            ("/v1/chat/completions/render?x=1", Api::ChatCompletions),
            ("/v1/completions", Api::Completions),
            ("/v1/completions/render", Api::Completions),
            ("/prefix/v1/embeddings", Api::Embeddings),
            ("/v1/responses", Api::Responses),
            ("/v1/conversations", Api::Conversations),
            ("/v1/images/generations", Api::Images),
            ("/v1/messages/", Api::Messages),
            ("/v1/messages/count_tokens", Api::CountTokens),
            ("/inference/v1/generate", Api::VllmGenerate),
            ("/generate", Api::Opaque),
            ("/foo-completions", Api::Opaque),
            ("/v1/models", Api::Opaque),
        ] {
            assert_eq!(api(&set, path), Ok(wanted), "{path}");
        }
    }

    #[test]
    fn the_length_of_a_claim_beats_the_order_of_parsers() {
        let set = ParserSet::new(&[ParserKind::SglangHttp, ParserKind::VllmHttp, ParserKind::VllmGrpc]);
        assert_eq!(api(&set, "/inference/v1/generate"), Ok(Api::VllmGenerate));
        assert_eq!(api(&set, "/generate"), Ok(Api::SglangGenerate));
        assert_eq!(api(&set, "/vllm.grpc.engine.VllmEngine/Embed"), Ok(Api::VllmGrpcEmbed));
        let refused = api(&set, "/v1/chat?q=secret").unwrap_err();
        assert_eq!(refused.to_string(), "no parser registered matching path suffix for: /v1/chat");
    }

    #[test]
    fn what_follows_the_fallback_is_dropped() {
        let set = ParserSet::new(&[ParserKind::Passthrough, ParserKind::OpenAi]);
        assert_eq!(api(&set, "/v1/completions"), Ok(Api::Opaque));
    }

    #[test]
    fn the_path_comes_from_the_first_header_that_has_one() {
        let set = ParserSet::default();
        let open = |pairs: &[(&str, &'static str)]| set.open(&headers(pairs)).map(|i| i.api());
        assert_eq!(open(&[]), Ok(Api::Completions));
        assert_eq!(open(&[(":path", ""), ("x-original-path", "/v1/embeddings")]), Ok(Api::Embeddings));
        assert_eq!(open(&[("x-forwarded-path", "/v1/responses")]), Ok(Api::Responses));
        assert_eq!(
            open(&[("x-forwarded-path", "/v1/responses"), (":path", "/v1/messages")]),
            Ok(Api::Messages)
        );
    }
}
