//! Gives the client back the model name that it asked for.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

/// The key, quotes included.
const KEY: &[u8] = b"\"model\"";
/// White space that may stand around the colon; with more of it the value is left as it is.
const MAX_SPACE: usize = 64;

/// Replaces, in a JSON or event-stream response, the value of every key `model` whose value is the model that was
/// served, by the one that was asked for. It does so at any depth, since events wrap answers; inside a string (as in the
/// arguments of a tool call) quotes are escaped, so nothing there looks like a key. All other bytes pass as they are,
/// shared and not copied; what a chunk border cuts is held back until it is decided: at most the key, its spaces and the
/// served name with every character escaped.
#[derive(Debug)]
pub struct ModelRestorer {
    target: Box<[u8]>,
    replacement: Bytes,
    place: Place,
    /// Bytes held back from earlier chunks, all of the match that is open.
    held: BytesMut,
    /// Whether the byte before was a backslash.
    escaped: bool,
    /// Value seen so far, unescaped.
    value: Value,
    value_at: usize,
    same: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing is open.
    Idle,
    /// So many bytes of the key were seen.
    Key(usize),
    /// After the key; white space so far.
    BeforeColon(usize),
    /// After the colon; white space so far.
    BeforeValue(usize),
    /// In the value.
    Value,
}

/// What a byte does to the match that is open.
enum Step {
    More,
    /// The value ended and is the served model.
    Found,
    /// No match; the byte belongs to what follows.
    Failed,
}

impl ModelRestorer {
    /// `target` is what the engine calls itself, `incoming` what the client asked for.
    pub fn new(target: &str, incoming: &str) -> Self {
        Self {
            target: target.as_bytes().into(),
            replacement: serde_json::to_vec(incoming).unwrap_or_else(|_| b"\"\"".to_vec()).into(),
            place: Place::Idle,
            held: BytesMut::new(),
            escaped: false,
            value: Value::default(),
            value_at: 0,
            same: target == incoming,
        }
    }

    /// Takes the next chunk and gives what can be sent on, in order; after `end` nothing is held back.
    pub fn push(&mut self, chunk: Bytes, end: bool) -> Vec<Bytes> {
        let mut out = Vec::new();
        if self.same {
            keep(&mut out, chunk);
            return out;
        }
        // Offset of the first byte that is not yet in `out`.
        let mut sent = 0;
        let mut at = 0;
        // Where the open match starts in this chunk; what is held comes before.
        let mut start = 0;
        while at < chunk.len() {
            if self.place == Place::Idle {
                at = self.search(&chunk, at);
                start = at;
                if at < chunk.len() {
                    self.place = Place::Key(1);
                    at += 1;
                }
                continue;
            }
            match self.step(chunk[at], self.held.len() + at - start) {
                Step::More => at += 1,
                Step::Failed => {
                    // The byte before may have come with an earlier chunk.
                    let before = at.checked_sub(1).map_or(self.held.last(), |before| chunk.get(before));
                    self.escaped = before == Some(&b'\\');
                    keep(&mut out, self.held.split().freeze());
                    self.place = Place::Idle;
                }
                Step::Found => {
                    at += 1;
                    self.found(&chunk, sent, start, &mut out);
                    sent = at;
                    self.place = Place::Idle;
                    self.escaped = false;
                }
            }
        }
        self.rest(&chunk, sent, start, end, &mut out);
        out
    }

    /// The first byte of `chunk[at..]` that may open a match, or the end.
    fn search(&mut self, chunk: &[u8], mut at: usize) -> usize {
        loop {
            let rest = &chunk[at..];
            let next = match memmem::find(rest, KEY) {
                Some(found) => found,
                // The key may start in the last bytes and go on in the next chunk.
                None => {
                    let tail = rest.len().saturating_sub(KEY.len() - 1);
                    (tail..rest.len()).find(|from| KEY.starts_with(&rest[*from..])).unwrap_or(rest.len())
                }
            };
            let found = at + next;
            let escaped = match found.checked_sub(1) {
                Some(before) => chunk[before] == b'\\',
                None => self.escaped,
            };
            if found == chunk.len() {
                self.escaped = if chunk.is_empty() { self.escaped } else { chunk.ends_with(b"\\") };
                return found;
            }
            if !escaped {
                return found;
            }
            at = found + 1;
        }
    }

    /// Takes a byte that stands `offset` bytes after the start of the match.
    fn step(&mut self, byte: u8, offset: usize) -> Step {
        let space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.place = match self.place {
            Place::Key(seen) if KEY.get(seen) == Some(&byte) => {
                if seen + 1 < KEY.len() {
                    Place::Key(seen + 1)
                } else {
                    Place::BeforeColon(0)
                }
            }
            Place::BeforeColon(n) if space && n < MAX_SPACE => Place::BeforeColon(n + 1),
            Place::BeforeColon(_) if byte == b':' => Place::BeforeValue(0),
            Place::BeforeValue(n) if space && n < MAX_SPACE => Place::BeforeValue(n + 1),
            Place::BeforeValue(_) if byte == b'"' => {
                self.value = Value::default();
                self.value_at = offset;
                Place::Value
            }
            Place::Value => return self.value.step(byte, &self.target),
            _ => return Step::Failed,
        };
        Step::More
    }

    /// Sends what stands before the value, then the other name.
    fn found(&mut self, chunk: &Bytes, sent: usize, start: usize, out: &mut Vec<Bytes>) {
        let held = self.held.len();
        if self.value_at < held {
            // The value began in an earlier chunk, so the match is all that this chunk holds before here.
            self.held.truncate(self.value_at);
            keep(out, self.held.split().freeze());
        } else {
            keep(out, self.held.split().freeze());
            keep(out, chunk.slice(sent..start + self.value_at - held));
        }
        out.push(self.replacement.clone());
    }

    /// The chunk is through: sends what is decided, holds the rest.
    fn rest(&mut self, chunk: &Bytes, sent: usize, start: usize, end: bool, out: &mut Vec<Bytes>) {
        if self.place != Place::Idle && !end {
            keep(out, chunk.slice(sent..start.max(sent)));
            self.held.extend_from_slice(&chunk[start.max(sent)..]);
            return;
        }
        self.place = Place::Idle;
        keep(out, self.held.split().freeze());
        keep(out, chunk.slice(sent..));
    }
}

fn keep(out: &mut Vec<Bytes>, piece: Bytes) {
    if !piece.is_empty() {
        out.push(piece);
    }
}

/// Compares a JSON string with a name, byte by byte as it comes.
#[derive(Debug, Default)]
struct Value {
    matched: usize,
    /// The escape sequence that is open, from its backslash on; a pair of surrogates is one.
    escape: Vec<u8>,
}

impl Value {
    fn step(&mut self, byte: u8, name: &[u8]) -> Step {
        if !self.escape.is_empty() {
            self.escape.push(byte);
            return self.unescape(name);
        }
        match byte {
            b'"' if self.matched == name.len() => Step::Found,
            b'\\' => {
                self.escape.push(byte);
                Step::More
            }
            _ if name.get(self.matched) == Some(&byte) && byte != b'"' => {
                self.matched += 1;
                Step::More
            }
            _ => Step::Failed,
        }
    }

    fn unescape(&mut self, name: &[u8]) -> Step {
        let quoted = [b"\"", self.escape.as_slice(), b"\""].concat();
        let Ok(text) = serde_json::from_slice::<String>(&quoted) else {
            // `\uD83D\uDE00` is the longest: with as many bytes and still no character it never becomes one.
            return if self.escape.len() < 12 { Step::More } else { Step::Failed };
        };
        self.escape.clear();
        if name[self.matched..].starts_with(text.as_bytes()) {
            self.matched += text.len();
            return Step::More;
        }
        Step::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn restore(body: &[u8], target: &str, incoming: &str, cuts: &[usize]) -> Vec<u8> {
        let mut restorer = ModelRestorer::new(target, incoming);
        let mut rest = Bytes::copy_from_slice(body);
        let mut out = Vec::new();
        for cut in cuts {
            let chunk = rest.split_to((*cut).min(rest.len()));
            out.extend(restorer.push(chunk, false));
        }
        out.extend(restorer.push(rest, true));
        out.concat()
    }

    /// The same with the whole body in hand.
    fn naive(body: &str, target: &str, incoming: &str) -> String {
        let mut out = String::new();
        let mut rest = body;
        while let Some(at) = rest.find("\"model\"") {
            let (before, after) = rest.split_at(at);
            out.push_str(before);
            let value = after[7..].trim_start().strip_prefix(':').map(str::trim_start);
            let key_escaped = before.ends_with('\\') || (before.is_empty() && out.ends_with('\\'));
            if let Some(value) = value.filter(|v| v.starts_with('"') && !key_escaped) {
                let mut strings = serde_json::Deserializer::from_str(value).into_iter::<String>();
                if let Some(Ok(name)) = strings.next()
                    && name == target
                {
                    out.push_str(&after[..after.len() - value.len()]);
                    out.push_str(&serde_json::to_string(incoming).unwrap());
                    rest = &value[strings.byte_offset()..];
                    continue;
                }
            }
            out.push_str(&after[..1]);
            rest = &after[1..];
        }
        out + rest
    }

    #[test]
    fn names_are_restored_in_every_legal_form_across_every_border() {
        for (body, wanted) in [
            (r#"{"model":"t/1","x":1}"#, r#"{"model":"asked","x":1}"#),
            (r#"{"model" : "t\/1"}"#, r#"{"model" : "asked"}"#),
            ("{\"model\"\n:\t\"\\u0074/1\"}", "{\"model\"\n:\t\"asked\"}"),
            (r#"{"model":"t/12"}"#, r#"{"model":"t/12"}"#),
            (r#"{"model":"other","m":{"model":"t/1"}}"#, r#"{"model":"other","m":{"model":"asked"}}"#),
            (r#"{"a":"\"model\":\"t/1\""}"#, r#"{"a":"\"model\":\"t/1\""}"#),
            (r#"{"say \"model":"t/1"}"#, r#"{"say \"model":"t/1"}"#),
            (r#"{"model":7,"model":null,"model":"t/1"}"#, r#"{"model":7,"model":null,"model":"asked"}"#),
            (r#"["model","model","t/1"]"#, r#"["model","model","t/1"]"#),
            (
                "data: {\"model\":\"t/1\"}\n\ndata: {\"model\":\"t/1\"}\n\n",
                "data: {\"model\":\"asked\"}\n\ndata: {\"model\":\"asked\"}\n\n",
            ),
            (r#"{"model":"t/1"#, r#"{"model":"t/1"#),
            // No JSON either of them; in the first the key's quote is escaped, in the second one before it.
            (r#"{"model":"t\"model":"t/1"}"#, r#"{"model":"t\"model":"t/1"}"#),
            (r#"{"x\"""model":"t/1"}"#, r#"{"x\"""model":"asked"}"#),
            ("", ""),
        ] {
            for at in 0..=body.len() {
                let got = restore(body.as_bytes(), "t/1", "asked", &[at]);
                assert_eq!(String::from_utf8(got).unwrap(), wanted, "cut at {at}");
            }
            let got = restore(body.as_bytes(), "t/1", "asked", &vec![1; body.len()]);
            assert_eq!(String::from_utf8(got).unwrap(), wanted, "byte by byte");
        }
    }

    #[test]
    fn the_name_that_was_asked_for_is_escaped() {
        assert_eq!(restore(br#"{"model":"t"}"#, "t", "a\"b", &[]), br#"{"model":"a\"b"}"#);
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let mut restorer = ModelRestorer::new("target", "x");
        let mut most = 0;
        restorer.push(Bytes::from_static(b"{\"model\":"), false);
        for _ in 0..10_000 {
            restorer.push(Bytes::from_static(b" "), false);
            most = most.max(restorer.held.len());
        }
        assert!(most <= KEY.len() + 2 * MAX_SPACE + 2, "{most}");
    }

    #[test]
    fn bytes_that_are_not_replaced_are_shared() {
        let chunk = Bytes::from_static(br#"{"id":"1","model":"t","z":[]}"#);
        let out = ModelRestorer::new("t", "u").push(chunk.clone(), false);
        assert_eq!(out.len(), 3);
        assert_eq!(out[0].as_ptr(), chunk.as_ptr());
        assert_eq!(out[2], &br#","z":[]}"#[..]);
    }

    fn member() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            r#""model":"t/1""#,
            "\"model\" :\n \"t\\/1\"",
            r#""model":"\u0074/1""#,
            r#""model":"other""#,
            r#""model":"t/1x""#,
            r#""model":"model""#,
            r#""model":null"#,
            r#""model":{"model":"t/1"}"#,
            r#""x":"\"model\":\"t/1\"""#,
            r#""say \"model":"t/1""#,
            r#""é":["model","t/1","mod"]"#,
            r#""mod":1"#,
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn it_equals_replacement_in_the_whole_body(
            members in prop::collection::vec(member(), 0..12),
            cuts in prop::collection::vec(0usize..19, 0..30),
        ) {
            let body = format!("{{{}}}", members.join(","));
            let got = restore(body.as_bytes(), "t/1", "asked", &cuts);
            prop_assert_eq!(String::from_utf8(got).unwrap(), naive(&body, "t/1", "asked"));
        }
    }
}
