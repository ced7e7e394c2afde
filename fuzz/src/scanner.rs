//! The JSON scanner against `serde_json`, whole and in pieces.

use super::pieces::{choice, pieces};
use pointsman::request::json::{Container, Lexer, Literal, MAX_DEPTH, MAX_KEY, Problem, Sink};
use serde_json::{Map, Value};

/// `serde_json` follows values this deep.
const THEIR_DEPTH: usize = 127;

/// Builds the document out of what the scanner reports.
#[derive(Default)]
struct Builder {
    open: Vec<(Value, Option<String>)>,
    key: Option<String>,
    text: Vec<u8>,
    from: usize,
    strings: Vec<(usize, usize)>,
    root: Option<Value>,
}

impl Builder {
    fn value(&mut self, value: Value) {
        match self.open.last_mut() {
            None => assert!(self.root.replace(value).is_none(), "two values"),
            Some((Value::Array(items), _)) => items.push(value),
            Some((Value::Object(map), _)) => {
                map.insert(self.key.take().expect("a key before each member"), value);
            }
            Some(_) => unreachable!(),
        }
    }
}

impl Sink for Builder {
    fn open(&mut self, container: Container) {
        let empty = match container {
            Container::Array => Value::Array(Vec::new()),
            Container::Object => Value::Object(Map::new()),
        };
        self.open.push((empty, self.key.take()));
        assert!(self.open.len() <= MAX_DEPTH);
    }
    fn close(&mut self) {
        let (value, key) = self.open.pop().expect("something open");
        self.key = key;
        self.value(value);
    }
    fn key(&mut self, name: &[u8], hash: u64, len: usize) {
        if len > MAX_KEY {
            assert!(name.is_empty());
            self.key = Some(stand_in(hash, len));
        } else {
            assert_eq!((hash, len), (xxhash_rust::xxh64::xxh64(name, 0), name.len()));
            self.key = Some(String::from_utf8(name.to_vec()).expect("a key that is UTF-8"));
        }
    }
    fn string_start(&mut self, at: usize) {
        self.text.clear();
        self.from = at;
    }
    fn string_piece(&mut self, piece: &[u8]) {
        assert!(!piece.is_empty());
        self.text.extend_from_slice(piece);
    }
    fn string_end(&mut self, end: usize) {
        let text = String::from_utf8(std::mem::take(&mut self.text)).expect("a string that is UTF-8");
        self.strings.push((self.from, end));
        self.value(text.into());
    }
    fn number(&mut self, raw: &[u8]) {
        self.value(serde_json::from_slice(raw).unwrap_or(Value::Null));
    }
    fn literal(&mut self, literal: Literal) {
        self.value(match literal {
            Literal::Null => Value::Null,
            Literal::True => true.into(),
            Literal::False => false.into(),
        });
    }
}

/// What stands for a key that is too long to be reported.
fn stand_in(hash: u64, len: usize) -> String {
    format!("a key of {len} bytes with the hash {hash:x}: {}", "x".repeat(MAX_KEY))
}

/// `value` with each key as the scanner reports it.
fn as_reported(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(as_reported).collect(),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| {
                let long = key.len() > MAX_KEY;
                let key = if long {
                    stand_in(xxhash_rust::xxh64::xxh64(key.as_bytes(), 0), key.len())
                } else {
                    key
                };
                (key, as_reported(value))
            })
            .collect(),
        other => other,
    }
}

type Read = Result<(Value, Vec<(usize, usize)>), Problem>;

fn scan(how: u8, text: &[u8]) -> Read {
    let (mut lexer, mut sink) = (Lexer::default(), Builder::default());
    let mut pushed = Ok(());
    for piece in pieces(how, text) {
        pushed = pushed.and(lexer.push(piece, &mut sink));
    }
    let finished = lexer.finish(&mut sink);
    assert!(pushed.is_ok() || pushed == finished, "another problem at the end");
    finished.map(|()| (sink.root.expect("a value"), sink.strings))
}

/// The first byte says how the text behind it is cut.
pub fn check(data: &[u8]) {
    let (how, text) = choice(data);
    let whole = scan(0, text);
    assert_eq!(scan(how, text), whole, "cut by {how}");
    if text.len() <= 256 {
        assert_eq!(scan(1, text), whole, "byte by byte");
    }
    match (serde_json::from_slice::<Value>(text), whole) {
        (Ok(theirs), Ok((ours, strings))) => {
            assert_eq!(ours, as_reported(theirs));
            for (from, end) in strings {
                assert!(
                    serde_json::from_slice::<String>(&text[from..end]).is_ok(),
                    "a span that is no string"
                );
            }
        }
        (Err(_), Err(problem)) => assert!(problem.offset <= text.len()),
        (Err(e), Ok((ours, _))) => {
            let e = e.to_string();
            let deep = e.contains("recursion limit") && depth(&ours) > THEIR_DEPTH;
            assert!(deep || e.contains("out of range"), "accepted, but: {e}");
        }
        (Ok(_), Err(problem)) => {
            // Numbers of more than a KiB are one of the deliberate differences.
            assert!(problem.what.starts_with("a number has more"), "refused: {problem:?}");
        }
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
