//! Token counts of responses: the same for any cut, and those that stand in the JSON.

use super::pieces::{choice, pieces};
use pointsman::request::json::{Container, Lexer, Literal, Sink};
use pointsman::request::{Api, Usage, UsageReader};
use serde_json::Value;

const APIS: [Api; 9] = [
    Api::ChatCompletions,
    Api::Responses,
    Api::Messages,
    Api::SglangGenerate,
    Api::Completions,
    Api::VllmGrpcGenerate,
    Api::VllmGrpcEmbed,
    Api::CountTokens,
    Api::Opaque,
];

fn read(api: Api, events: bool, how: u8, body: &[u8]) -> (Usage, u64) {
    let mut reader = UsageReader::new(api, events);
    for piece in pieces(how, body) {
        reader.push(piece);
        let _ = reader.usage();
    }
    let usage = reader.finish();
    assert_eq!(reader.usage(), usage);
    (usage, reader.events())
}

/// The first byte chooses API and form, the second how the body behind it is cut.
pub fn check(data: &[u8]) {
    let (which, data) = choice(data);
    let (how, body) = choice(data);
    let api = APIS[usize::from(which >> 1) % APIS.len()];
    let events = which & 1 == 1;
    let long;
    let body = if which & 0x80 == 0 {
        body
    } else {
        long = widened(body);
        &long
    };
    let whole = read(api, events, 0, body);
    assert_eq!(read(api, events, how, body), whole, "cut by {how}");
    if !events && let Ok(value) = serde_json::from_slice::<Value>(body) {
        let mut members = Members::default();
        let _ = Lexer::default().push(body, &mut members);
        // Of keys that stand twice each is counted as it comes, while `Value` keeps the last.
        if members.0 == count(&value) {
            let mut wanted = Usage::default();
            counts(api, &value, &mut wanted);
            if let (None, Some(prompt), Some(completion)) = (wanted.total, wanted.prompt, wanted.completion) {
                wanted.total = Some(prompt.saturating_add(completion));
            }
            if matches!(api, Api::ChatCompletions | Api::Completions | Api::Responses | Api::Messages) {
                assert_eq!(whole.0, wanted);
            }
        }
    }
}

/// Each byte that no text has becomes a text of some KiB, so that lines pass the length up to which they are kept.
fn widened(body: &[u8]) -> Vec<u8> {
    let (mut out, mut left) = (Vec::new(), 6);
    for byte in body {
        if *byte == 0xff && left > 0 {
            left -= 1;
            out.resize(out.len() + 5000, b'x');
        } else {
            out.push(*byte);
        }
    }
    out
}

/// Reads the counts where they may stand.
fn counts(api: Api, value: &Value, into: &mut Usage) {
    let Value::Object(map) = value else { return };
    let wrapper = match api {
        Api::Responses => "response",
        Api::Messages => "message",
        _ => "",
    };
    for (key, value) in map {
        match (key.as_str(), value) {
            ("usage", Value::Object(usage)) => block(usage, into),
            (key, Value::Object(inner)) if key == wrapper => {
                if let Some(Value::Object(usage)) = inner.get("usage") {
                    block(usage, into);
                }
            }
            _ => {}
        }
    }
}

fn block(usage: &serde_json::Map<String, Value>, into: &mut Usage) {
    for (key, value) in usage {
        let field = match (key.as_str(), value) {
            ("prompt_tokens" | "input_tokens", _) => &mut into.prompt,
            ("completion_tokens" | "output_tokens", _) => &mut into.completion,
            ("total_tokens", _) => &mut into.total,
            ("cached_tokens" | "cache_read_input_tokens", _) => &mut into.cached,
            ("prompt_tokens_details" | "input_tokens_details", Value::Object(details)) => {
                for (key, value) in details {
                    if matches!(key.as_str(), "cached_tokens" | "cache_read_input_tokens") {
                        set(value, &mut into.cached);
                    }
                }
                continue;
            }
            _ => continue,
        };
        set(value, field);
    }
}

fn set(value: &Value, field: &mut Option<u32>) {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) if text.len() <= 20 && text.starts_with(|c: char| c.is_ascii_digit()) => {
            text.trim().parse().ok()
        }
        _ => None,
    };
    if let Some(number) = number.filter(|n| *n >= 0.0 && n.fract() == 0.0) {
        *field = Some(number as u32);
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.len() + map.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

#[derive(Default)]
struct Members(usize);

impl Sink for Members {
    fn open(&mut self, _: Container) {}
    fn close(&mut self) {}
    fn key(&mut self, _: &[u8], _: u64, _: usize) {
        self.0 += 1;
    }
    fn string_start(&mut self, _: usize) {}
    fn string_piece(&mut self, _: &[u8]) {}
    fn string_end(&mut self, _: usize) {}
    fn number(&mut self, _: &[u8]) {}
    fn literal(&mut self, _: Literal) {}
}
