//! Finds the counts in one JSON value, be it a whole answer or one event.

use crate::request::json::{Container, Literal, Sink};
use crate::request::{Api, Usage};

/// Deepest place of a count: `response.usage.input_tokens_details.cached_tokens`.
const DEEPEST: usize = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Key {
    #[default]
    Other,
    /// `response` or `message`: an event that wraps the answer.
    Wrapper,
    Usage,
    Details,
    Prompt,
    Completion,
    Total,
    Cached,
}

/// Listens to a scanner and keeps the counts.
#[derive(Debug)]
pub(super) struct Counts {
    api: Api,
    depth: usize,
    /// The key under which each level stands.
    keys: [Key; DEEPEST],
    digits: Vec<u8>,
    pub(super) usage: Usage,
}

impl Counts {
    pub(super) fn new(api: Api) -> Self {
        Self { api, depth: 0, keys: [Key::Other; DEEPEST], digits: Vec::new(), usage: Usage::default() }
    }

    fn classify(&self, name: &[u8]) -> Key {
        match name {
            b"usage" if self.api != Api::SglangGenerate => Key::Usage,
            b"meta_info" if self.api == Api::SglangGenerate => Key::Usage,
            b"response" if self.api == Api::Responses => Key::Wrapper,
            b"message" if self.api == Api::Messages => Key::Wrapper,
            b"prompt_tokens_details" | b"input_tokens_details" => Key::Details,
            b"prompt_tokens" | b"input_tokens" => Key::Prompt,
            b"completion_tokens" | b"output_tokens" => Key::Completion,
            b"total_tokens" => Key::Total,
            b"cached_tokens" | b"cache_read_input_tokens" => Key::Cached,
            _ => Key::Other,
        }
    }

    fn count(&mut self, value: u32) {
        let Some(path) = self.keys.get(..self.depth) else { return };
        let path = path.strip_prefix(&[Key::Wrapper]).unwrap_or(path);
        let field = match path {
            [Key::Usage, Key::Prompt] => &mut self.usage.prompt,
            [Key::Usage, Key::Completion] => &mut self.usage.completion,
            [Key::Usage, Key::Total] => &mut self.usage.total,
            [Key::Usage, Key::Cached] | [Key::Usage, Key::Details, Key::Cached] => &mut self.usage.cached,
            _ => return,
        };
        *field = Some(value);
    }
}

fn number(raw: &[u8]) -> Option<u32> {
    let value: f64 = std::str::from_utf8(raw).ok()?.trim().parse().ok()?;
    (value >= 0.0 && value.fract() == 0.0).then_some(value as u32)
}

impl Sink for Counts {
    fn open(&mut self, _container: Container) {
        if let Some(key) = self.keys.get_mut(self.depth) {
            *key = Key::Other;
        }
        self.depth += 1;
    }
    fn close(&mut self) {
        self.depth -= 1;
    }
    fn key(&mut self, name: &[u8], _hash: u64, _len: usize) {
        let key = self.classify(name);
        if let Some(level) = self.depth.checked_sub(1).and_then(|at| self.keys.get_mut(at)) {
            *level = key;
        }
    }
    fn string_start(&mut self, _at: usize) {
        self.digits.clear();
    }
    fn string_piece(&mut self, piece: &[u8]) {
        // Twenty digits are more than any count has; a longer text is none.
        let room = 21usize.saturating_sub(self.digits.len());
        self.digits.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    fn string_end(&mut self, _end: usize) {
        if self.digits.len() <= 20
            && self.digits.first().is_some_and(u8::is_ascii_digit)
            && let Some(value) = number(&self.digits)
        {
            self.count(value);
        }
    }
    fn number(&mut self, raw: &[u8]) {
        if self.keys.get(self.depth.wrapping_sub(1)).is_some_and(|key| *key != Key::Other)
            && let Some(value) = number(raw)
        {
            self.count(value);
        }
    }
    fn literal(&mut self, _literal: Literal) {}
}
