//! Recorded traffic: what is accepted stands in the JSON lines, in order of arrival; what is not has a line.

use super::pieces::choice;
use pointsman::replay::{TraceError, Traced, read_lines};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

type Read = Result<Vec<Traced>, TraceError>;

fn read(text: &[u8], limit: Option<usize>) -> Read {
    read_lines(Path::new("t"), text, limit)
}

fn is_blank(line: &[u8]) -> bool {
    std::str::from_utf8(line).is_ok_and(|text| text.trim().is_empty())
}

/// Lines that hold something.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|b| *b == b'\n').filter(|line| !is_blank(line)).collect()
}

/// A line as JSON has it; `None` where a field is not what it should be. What stands in fields that nobody reads may be
/// more than a `Value` can hold: then there is nothing to compare with.
fn expected(line: &[u8]) -> Option<Traced> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let number = |name: &str| value.get(name).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let at = |name: &str| Duration::try_from_secs_f64(value.get(name)?.as_f64()? / 1000.0).ok();
    let blocks = |name: &str, read: fn(&Value) -> Option<u64>| {
        value.get(name)?.as_array()?.iter().map(read).collect::<Option<Vec<u64>>>()
    };
    if line.windows(10).any(|w| w == b"\"hash_ids\"") {
        return Some(Traced {
            at: at("timestamp")?,
            prompt_tokens: number("input_length")?,
            output_tokens: number("output_length")?.max(1),
            blocks: blocks("hash_ids", Value::as_u64)?,
            block_tokens: 512,
            session: None,
            model: None,
        });
    }
    Some(Traced {
        at: at("at_ms")?,
        prompt_tokens: number("prompt_tokens")?,
        output_tokens: number("output_tokens").unwrap_or(1).max(1),
        blocks: blocks("blocks", |v| u64::from_str_radix(v.as_str()?, 16).ok())?,
        block_tokens: number("block_tokens")?,
        session: text("session"),
        model: text("model"),
    })
}

/// The request as a line of our own form.
fn written(it: &Traced) -> String {
    let blocks: Vec<String> = it.blocks.iter().map(|b| format!("{b:x}")).collect();
    let line = json!({
        "at_ms": it.at.as_secs_f64() * 1000.0,
        "prompt_tokens": it.prompt_tokens,
        "output_tokens": it.output_tokens,
        "block_tokens": it.block_tokens,
        "blocks": blocks,
        "session": it.session,
        "model": it.model,
    });
    format!("{line}\n")
}

fn check_accepted(trace: &[Traced], lines: &[&[u8]]) {
    assert_eq!(trace.len(), lines.len(), "a request for each line");
    assert!(trace.windows(2).all(|pair| pair[0].at <= pair[1].at), "not in order of arrival");
    for it in trace {
        assert!(it.prompt_tokens > 0 && it.output_tokens > 0 && it.block_tokens > 0, "{it:?}");
    }
    if lines.iter().all(|line| serde_json::from_slice::<Value>(line).is_ok()) {
        let mut wanted: Vec<Traced> =
            lines.iter().map(|line| expected(line).expect("an accepted line has its fields")).collect();
        wanted.sort_by_key(|it| it.at);
        assert_eq!(trace, wanted);
    }
    let text: String = trace.iter().map(written).collect();
    let back = read(text.as_bytes(), None).expect("what is written is read");
    for (one, other) in trace.iter().zip(back) {
        // Milliseconds in a JSON number are not exact beyond some days.
        let apart = one.at.abs_diff(other.at).as_secs_f64();
        assert!(apart <= 1e-6 + one.at.as_secs_f64() * 1e-9, "{one:?} became {other:?}");
        assert_eq!(*one, Traced { at: one.at, ..other });
    }
}

/// The first byte is a limit, the rest the file.
pub fn check(data: &[u8]) {
    let (limit, text) = choice(data);
    let (limit, lines) = (usize::from(limit), lines(text));
    let whole = read(text, None);
    let some = read(text, Some(limit));
    match &whole {
        Ok(trace) => check_accepted(trace, &lines),
        Err(TraceError::Empty { .. }) => assert!(lines.is_empty(), "nothing read of {} lines", lines.len()),
        Err(TraceError::Line { line, what, .. }) => {
            assert!(!what.is_empty());
            let all: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
            let before = all[..line - 1].concat();
            assert!(!matches!(read(&before, None), Err(TraceError::Line { .. })), "an earlier line is wrong");
            assert!(matches!(read(all[line - 1], None), Err(TraceError::Line { line: 1, .. })), "it is fine");
        }
        Err(other) => panic!("{other}"),
    }
    // Lines beyond the limit are not looked at.
    let first = lines[..limit.min(lines.len())].concat();
    match (some, read(&first, None)) {
        (Ok(some), Ok(first)) => assert_eq!(some, first),
        (Err(TraceError::Empty { .. }), Err(TraceError::Empty { .. })) => {}
        (Err(TraceError::Line { .. }), Err(TraceError::Line { .. })) => {}
        (some, first) => panic!("{some:?} is not {first:?}"),
    }
}
