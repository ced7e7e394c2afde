//! Text in and out: a cheap deterministic tokenizer, the chat template, and the words that are generated.
//!
//! A token is a piece of four bytes, or up to seven where a character crosses the fourth. Pieces start anew with each
//! segment (a message, the tools), and a generated token is exactly one piece; so the answer to one turn, sent back as a
//! message of the next, gives the tokens that were generated, and the engine's cache hits them.

use std::borrow::Cow;

use serde::Deserialize;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Ids below this mark structure; pieces never get them.
const SPECIALS: u32 = 16;
const BEGIN: u32 = 0;
const TOOLS: u32 = 1;
const END: u32 = 2;
const OTHER: u32 = 3;
const SYSTEM: u32 = 4;
const USER: u32 = 5;
const ASSISTANT: u32 = 6;
const TOOL: u32 = 7;

/// The pieces of a text, in order; together they are the text.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len().min(4);
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        Some(piece)
    })
}

/// The id of a piece: a hash of 31 bits that is never a special id.
pub fn token_id(piece: &str) -> u32 {
    let bytes = piece.as_bytes();
    let mixed = match bytes {
        [a, b, c, d] => {
            (u64::from(u32::from_le_bytes([*a, *b, *c, *d])) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32
        }
        _ => xxh3_64(bytes),
    };
    ((mixed as u32) >> 1).max(SPECIALS)
}

/// Appends the tokens of a text.
pub fn tokenize(text: &str, out: &mut Vec<u32>) {
    out.reserve(text.len() / 4 + 1);
    out.extend(pieces(text).map(token_id));
}

/// A message of a chat, as far as it matters here.
#[derive(Deserialize)]
pub struct Message<'a> {
    #[serde(borrow, default)]
    role: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
    #[serde(default)]
    tool_calls: Option<serde_json::Value>,
}

/// Text, or parts.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Content<'a> {
    /// Plain text.
    Text(#[serde(borrow)] Cow<'a, str>),
    /// Typed parts: text, and others that count as their JSON.
    Parts(Vec<serde_json::Value>),
}

impl Content<'_> {
    fn tokenize(&self, out: &mut Vec<u32>) {
        match self {
            Self::Text(text) => tokenize(text, out),
            Self::Parts(parts) => {
                for part in parts {
                    match part.get("text").and_then(serde_json::Value::as_str) {
                        Some(text) => tokenize(text, out),
                        None => tokenize(&part.to_string(), out),
                    }
                }
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.to_string(),
            Self::Parts(parts) => {
                parts.iter().filter_map(|p| p.get("text").and_then(serde_json::Value::as_str)).collect()
            }
        }
    }
}

impl<'a> Message<'a> {
    /// A message with this content.
    pub fn of(role: &'a str, content: Option<Content<'a>>) -> Self {
        Self { role: role.into(), content, tool_calls: None }
    }

    /// The same message, borrowed.
    pub fn reborrow(&'a self) -> Self {
        let content = self.content.as_ref().map(|content| match content {
            Content::Text(text) => Content::Text(Cow::Borrowed(&**text)),
            Content::Parts(parts) => Content::Parts(parts.clone()),
        });
        Self { role: Cow::Borrowed(&*self.role), content, tool_calls: self.tool_calls.clone() }
    }
}

/// The tokens of a chat: tools, then the messages in order, then the start of the answer.
pub fn chat_prompt(tools: Option<&serde_json::Value>, messages: &[Message<'_>]) -> Vec<u32> {
    let mut out = vec![BEGIN];
    if let Some(tools) = tools.filter(|t| t.as_array().is_none_or(|a| !a.is_empty())) {
        out.push(TOOLS);
        tokenize(&tools.to_string(), &mut out);
        out.push(END);
    }
    for message in messages {
        out.push(match &*message.role {
            "system" | "developer" => SYSTEM,
            "user" => USER,
            "assistant" => ASSISTANT,
            "tool" => TOOL,
            _ => OTHER,
        });
        if let Some(content) = &message.content {
            content.tokenize(&mut out);
        }
        if let Some(calls) = &message.tool_calls {
            tokenize(&calls.to_string(), &mut out);
        }
        out.push(END);
    }
    out.push(ASSISTANT);
    out
}

/// The text of the last message of the user: what echo mode answers.
pub fn last_user_text(messages: &[Message<'_>]) -> String {
    let last = messages.iter().rev().find(|m| m.role == "user").or(messages.last());
    last.and_then(|m| m.content.as_ref()).map(Content::text).unwrap_or_default()
}

/// Each is four bytes, hence one token.
const WORDS: [&str; 64] = [
    " the", " and", " for", " you", " are", " not", " but", " all", " can", " had", " her", " was", " one",
    " our", " out", " day", " get", " has", " him", " how", " man", " new", " now", " old", " see", " two",
    " way", " who", " boy", " did", " its", " let", " put", " say", " she", " too", " use", " yes", " far",
    " few", " got", " own", " run", " set", " top", " try", " why", " ask", " big", " car", " cut", " end",
    " eye", " job", " key", " law", " lot", " map", " net", " pay", " red", " sea", " sun", " win",
];

/// What a request will be answered, token by token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Words drawn by this seed; any number of them.
    Words(u64),
    /// The pieces of a text.
    Echo(Vec<Box<str>>),
}

impl Answer {
    /// The words that a prompt gets under a seed.
    pub fn words(seed: u64, prompt: &[u32]) -> Self {
        let tail = &prompt[prompt.len().saturating_sub(64)..];
        let mixed =
            tail.iter().fold(seed ^ prompt.len() as u64, |h, t| xxh3_64_with_seed(&t.to_le_bytes(), h));
        Self::Words(mixed)
    }

    /// The text itself; an empty one becomes a space, since an answer has at least one token.
    pub fn echo(text: &str) -> Self {
        let text = if text.is_empty() { " " } else { text };
        Self::Echo(pieces(text).map(Into::into).collect())
    }

    /// Token `index` of the answer as text.
    pub fn piece(&self, index: u32) -> &str {
        match self {
            Self::Words(seed) => WORDS[(xxh3_64_with_seed(&index.to_le_bytes(), *seed) % 64) as usize],
            Self::Echo(pieces) => pieces.get(index as usize).map_or(" ", |p| p),
        }
    }

    /// Tokens `from` up to before `to` as text.
    pub fn text(&self, from: u32, to: u32) -> String {
        (from..to).map(|i| self.piece(i)).collect()
    }

    /// The ids of the first `count` tokens.
    pub fn tokens(&self, count: u32) -> impl Iterator<Item = u32> + '_ {
        (0..count).map(|i| token_id(self.piece(i)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages(json: &str) -> Vec<Message<'_>> {
        serde_json::from_str(json).unwrap()
    }

    proptest! {
        #[test]
        fn pieces_make_up_the_text(text in "\\PC{0,80}") {
            let all: Vec<&str> = pieces(&text).collect();
            prop_assert_eq!(&all.concat(), &text);
            prop_assert!(all.iter().all(|p| p.len() <= 7));
            prop_assert!(all.iter().all(|p| token_id(p) >= SPECIALS));
        }
    }

    #[test]
    fn words_are_one_token_each() {
        assert!(WORDS.iter().all(|w| pieces(w).count() == 1 && w.len() == 4));
    }

    #[test]
    fn an_answer_sent_back_gives_the_generated_tokens() {
        let first = chat_prompt(None, &messages(r#"[{"role":"user","content":"hello there"}]"#));
        for answer in [Answer::words(1, &first), Answer::echo("so groß wie möglich")] {
            let count = if matches!(answer, Answer::Words(_)) { 9 } else { 6 };
            let said = serde_json::to_string(&answer.text(0, count)).unwrap();
            let body = format!(
                r#"[{{"role":"user","content":"hello there"}},{{"role":"assistant","content":{said}}},{{"role":"user","content":"go on"}}]"#
            );
            let second = chat_prompt(None, &messages(&body));
            let expected: Vec<u32> = first.iter().copied().chain(answer.tokens(count)).collect();
            assert_eq!(second[..expected.len()], expected);
        }
    }

    #[test]
    fn tools_come_first_and_parts_read_as_text() {
        let tools = serde_json::json!([{"type": "function"}]);
        let plain = chat_prompt(Some(&tools), &messages(r#"[{"role":"user","content":"abcdefg"}]"#));
        let parts = messages(r#"[{"role":"user","content":[{"type":"text","text":"abcdefg"}]}]"#);
        assert_eq!(plain, chat_prompt(Some(&tools), &parts));
        assert_eq!(plain[..2], [BEGIN, TOOLS]);
        assert_eq!(last_user_text(&parts), "abcdefg");
        assert_eq!(chat_prompt(Some(&serde_json::json!([])), &parts), chat_prompt(None, &parts));
    }

    #[test]
    fn the_same_seed_says_the_same() {
        let (a, b) = (Answer::words(1, &[1, 2]), Answer::words(2, &[1, 2]));
        assert_eq!(a.text(0, 30), Answer::words(1, &[1, 2]).text(0, 30));
        assert_ne!(a.text(0, 30), b.text(0, 30));
    }
}
