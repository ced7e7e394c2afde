//! The request parsers: any cut gives the same request, and another spelling of the same JSON gives the same prompt.

use super::pieces::{choice, pieces};
use bytes::Bytes;
use pointsman::request::json::{Container, Lexer, Literal, Sink};
use pointsman::request::{Api, Headers, ParseError, Parsed, ParserKind, ParserSet, Prompt};
use serde_json::Value;

const PATHS: [&str; 12] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/conversations",
    "/v1/images/generations",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/inference/v1/generate",
    "/generate",
    "/vllm.grpc.engine.VllmEngine/Generate",
    "/vllm.grpc.engine.VllmEngine/Embed",
];

const KINDS: [ParserKind; 5] = [
    ParserKind::OpenAi,
    ParserKind::Anthropic,
    ParserKind::VllmHttp,
    ParserKind::SglangHttp,
    ParserKind::VllmGrpc,
];

fn read(path: &'static str, how: u8, body: &[u8], cut: bool) -> Result<Parsed, ParseError> {
    let mut headers = Headers::default();
    headers.push(":path", Bytes::from_static(path.as_bytes()));
    let mut intake = ParserSet::new(&KINDS).open(&headers)?;
    for piece in pieces(how, body) {
        intake.push(piece)?;
    }
    if cut { Ok(intake.finish_cut()) } else { intake.finish() }
}

/// What must not depend on how a body is written: all but the spans.
fn essence(mut parsed: Parsed) -> Parsed {
    parsed.model_span = None;
    if let Prompt::Text(prompts) = &mut parsed.prompt {
        prompts.iter_mut().flat_map(|p| &mut p.segments).for_each(|s| s.span = 0..0);
    }
    parsed
}

/// Counts what makes another spelling of a body another body.
#[derive(Default)]
struct Traits {
    keys: usize,
    /// A number that `serde_json` writes in another way.
    odd_number: bool,
}

impl Sink for Traits {
    fn open(&mut self, _: Container) {}
    fn close(&mut self) {}
    fn key(&mut self, _: &[u8], _: u64, _: usize) {
        self.keys += 1;
    }
    fn string_start(&mut self, _: usize) {}
    fn string_piece(&mut self, _: &[u8]) {}
    fn string_end(&mut self, _: usize) {}
    fn number(&mut self, raw: &[u8]) {
        let theirs = serde_json::from_slice::<Value>(raw).map(|v| v.to_string());
        self.odd_number |= theirs.map_or(true, |text| text.as_bytes() != raw);
    }
    fn literal(&mut self, _: Literal) {}
}

fn keys(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(keys).sum(),
        Value::Object(map) => map.len() + map.values().map(keys).sum::<usize>(),
        _ => 0,
    }
}

/// `value` with the members of each object in opposite order.
fn turned(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(turned).collect(),
        Value::Object(map) => Value::Object(map.iter().rev().map(|(k, v)| (k.clone(), turned(v))).collect()),
        other => other.clone(),
    }
}

/// The first byte chooses the API, the second how the body behind it is cut.
pub fn check(data: &[u8]) {
    let (api, data) = choice(data);
    let (how, body) = choice(data);
    let path = PATHS[usize::from(api) % PATHS.len()];
    let whole = read(path, 0, body, false);
    // Of a text that breaks off at a mistake, the bytes just before it are known or not, as the cuts fall.
    if path.starts_with("/vllm.") || Lexer::default().push(body, &mut Traits::default()).is_ok() {
        let so_far = read(path, 0, body, true);
        assert_eq!(read(path, how, body, true), so_far, "cut short, in pieces of {how}");
    } else if path.ends_with("count_tokens") {
        return;
    }
    assert_eq!(read(path, how, body, false), whole, "cut by {how}");
    if path.starts_with("/vllm.") {
        return;
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => agrees(path, body, &value, whole),
        Err(e) if e.to_string().contains("recursion") || e.to_string().contains("out of range") => {}
        Err(e) => {
            let lenient = path.ends_with("count_tokens");
            assert!(lenient || matches!(whole, Err(ParseError::Malformed { .. })), "accepted, but: {e}");
        }
    }
}

/// The body is JSON and says `value`.
fn agrees(path: &'static str, body: &[u8], value: &Value, whole: Result<Parsed, ParseError>) {
    let mut traits = Traits::default();
    let _ = Lexer::default().push(body, &mut traits);
    if let Ok(parsed) = &whole {
        shows(value, body, parsed);
    }
    // A mistake under a key that stands again deeper down is told all the same, so spellings are compared without.
    if traits.odd_number || traits.keys != keys(value) || traits.keys > 60 {
        return;
    }
    let whole = whole.map(essence).map_err(|e| std::mem::discriminant(&e));
    for other in [value.to_string(), turned(value).to_string(), format!("{value:#}")] {
        let again = read(path, 0, other.as_bytes(), false);
        assert_eq!(again.map(essence).map_err(|e| std::mem::discriminant(&e)), whole, "{other}");
    }
}

/// The fields that have one place in every API.
fn shows(value: &Value, body: &[u8], parsed: &Parsed) {
    let lenient = parsed.api == Api::CountTokens;
    assert!(lenient || value.is_object());
    if parsed.api != Api::SglangGenerate {
        let model = value.get("model").and_then(Value::as_str);
        assert!(parsed.model.as_deref() == model || lenient);
    }
    if let (Some(model), Some(span)) = (&parsed.model, &parsed.model_span) {
        let token: String = serde_json::from_slice(&body[span.clone()]).expect("a JSON string in the span");
        assert_eq!(token, **model);
    }
    let stream = value.get("stream").and_then(Value::as_bool).unwrap_or(false);
    assert!(parsed.stream == stream || lenient);
    if let Prompt::Text(prompts) = &parsed.prompt {
        for segment in prompts.iter().flat_map(|p| &p.segments).filter(|s| !s.span.is_empty()) {
            let text: String = serde_json::from_slice(&body[segment.span.clone()]).expect("a JSON string");
            assert_eq!(text.len(), segment.bytes);
            assert!(segment.blocks.len() == text.len().div_ceil(pointsman::request::BASE_BLOCK_BYTES));
        }
    }
    plain_prompt(value, parsed);
}

/// A completion's prompt that is one string: its blocks are those of the text.
fn plain_prompt(value: &Value, parsed: &Parsed) {
    let (Api::Completions, Some(text)) = (parsed.api, value.get("prompt").and_then(Value::as_str)) else {
        return;
    };
    let Prompt::Text(prompts) = &parsed.prompt else { panic!("no text read of {text:?}") };
    let blocks = text.as_bytes().chunks(pointsman::request::BASE_BLOCK_BYTES);
    let wanted: Vec<u64> = blocks.map(|block| xxhash_rust::xxh64::xxh64(block, 0)).collect();
    assert_eq!(prompts[0].blocks, wanted);
}
