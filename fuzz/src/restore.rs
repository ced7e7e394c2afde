//! The model's name put back in a response: in pieces as in the whole body.

use super::pieces::{choice, pieces};
use bytes::Bytes;
use pointsman::request::ModelRestorer;

const NAMES: [(&str, &str); 4] = [("t/1", "asked"), ("m", "a\"b"), ("mödel😀", "x"), ("same", "same")];
/// With more white space than this beside the colon a value is left as it is.
const MAX_SPACE: usize = 64;

fn restore(how: u8, body: &[u8], (target, incoming): (&str, &str)) -> Vec<u8> {
    let mut restorer = ModelRestorer::new(target, incoming);
    let mut out: Vec<Bytes> = Vec::new();
    for piece in pieces(how, body) {
        out.extend(restorer.push(Bytes::copy_from_slice(piece), false));
    }
    out.extend(restorer.push(Bytes::new(), true));
    out.concat()
}

/// The same with the whole body in hand.
fn naive(body: &str, (target, incoming): (&str, &str)) -> String {
    let (mut out, mut rest) = (String::new(), body);
    while let Some(at) = rest.find("\"model\"") {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let escaped = out.ends_with('\\');
        let value =
            after[7..].trim_start_matches(SPACE).strip_prefix(':').map(|v| v.trim_start_matches(SPACE));
        if let Some(value) = value.filter(|v| v.starts_with('"') && !escaped) {
            let mut strings = serde_json::Deserializer::from_str(value).into_iter::<String>();
            if strings.next().is_some_and(|name| name.is_ok_and(|name| name == target)) {
                out.push_str(&after[..after.len() - value.len()]);
                out.push_str(&serde_json::to_string(incoming).expect("a name"));
                rest = &value[strings.byte_offset()..];
                continue;
            }
        }
        out.push_str(&after[..1]);
        rest = &after[1..];
    }
    out + rest
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// The first byte chooses the names, the second how the body behind it is cut.
pub fn check(data: &[u8]) {
    let (which, data) = choice(data);
    let (how, body) = choice(data);
    let names = NAMES[usize::from(which) % NAMES.len()];
    let whole = restore(0, body, names);
    assert_eq!(restore(how, body, names), whole, "cut by {how}");
    if names.0 == names.1 {
        assert_eq!(whole, body);
    } else if let Ok(text) = std::str::from_utf8(body)
        && is_made_of_json(text)
        && !long_space(body)
    {
        assert_eq!(String::from_utf8_lossy(&whole), naive(text, names));
    }
}

/// Whether it is JSON, or lines of events that are. In other texts a string may be value and key at once.
fn is_made_of_json(text: &str) -> bool {
    let json = |text: &str| {
        serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>().all(|value| value.is_ok())
    };
    json(text) || text.lines().all(|line| json(line.strip_prefix("data: ").unwrap_or(line)))
}

fn long_space(body: &[u8]) -> bool {
    body.windows(MAX_SPACE + 1).any(|w| w.iter().all(u8::is_ascii_whitespace))
}
