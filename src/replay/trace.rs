//! Recorded traffic: Mooncake's public traces and a form of our own, both JSON lines.

use serde::Deserialize;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tokens that one id of a Mooncake trace stands for.
const MOONCAKE_BLOCK_TOKENS: u32 = 512;
/// Longest line; a prompt of ten million tokens has less.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// One recorded request.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    /// When it arrived, since the start of the recording.
    pub at: Duration,
    /// Length of its prompt, at least 1.
    pub prompt_tokens: u32,
    /// Length of its answer, at least 1.
    pub output_tokens: u32,
    /// Identities of the prompt's blocks, each together with all before it.
    pub blocks: Vec<u64>,
    /// Tokens in one of them.
    pub block_tokens: u32,
    /// Whose conversation it belongs to, when that was recorded.
    pub session: Option<String>,
    /// The model that was asked for, when that was recorded.
    pub model: Option<String>,
}

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("trace {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A line is not what it should be.
    #[error("trace {}, line {line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// There is no request in it.
    #[error("trace {}: no request in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the trace at `path`, at most `limit` requests of it, in order of arrival. Empty lines are passed over.
///
/// # Errors
/// Names the line that cannot be read.
pub fn read(path: &Path, limit: Option<usize>) -> Result<Vec<Traced>, TraceError> {
    let file =
        std::fs::File::open(path).map_err(|cause| TraceError::File { path: path.to_owned(), cause })?;
    read_lines(path, BufReader::new(file), limit)
}

/// The same of text that is open already; `path` is what errors call it.
///
/// # Errors
/// Names the line that cannot be read.
pub fn read_lines(
    path: &Path,
    mut reader: impl BufRead,
    limit: Option<usize>,
) -> Result<Vec<Traced>, TraceError> {
    let file_error = |cause| TraceError::File { path: path.to_owned(), cause };
    let (mut trace, mut text, mut line) = (Vec::new(), String::new(), 0);
    while limit.is_none_or(|limit| trace.len() < limit) {
        text.clear();
        line += 1;
        let wrong = |what: String| TraceError::Line { path: path.to_owned(), line, what };
        match (&mut reader).take(MAX_LINE_BYTES).read_line(&mut text) {
            Ok(0) => break,
            Ok(bytes) if bytes as u64 == MAX_LINE_BYTES => {
                return Err(wrong(format!("longer than {MAX_LINE_BYTES} bytes")));
            }
            Ok(_) if text.trim().is_empty() => {}
            Ok(_) => trace.push(parse(&text).map_err(wrong)?),
            Err(cause) if cause.kind() == std::io::ErrorKind::InvalidData => {
                return Err(wrong("not UTF-8".to_owned()));
            }
            Err(cause) => return Err(file_error(cause)),
        }
    }
    if trace.is_empty() {
        return Err(TraceError::Empty { path: path.to_owned() });
    }
    trace.sort_by_key(|t: &Traced| t.at);
    Ok(trace)
}

/// Moves a trace, which is in order of arrival, so that its first request comes at once: a log counts from 1970 on.
pub(super) fn begin_at_once(trace: &mut [Traced]) {
    let first = trace.first().map_or(Duration::ZERO, |request| request.at);
    trace.iter_mut().for_each(|request| request.at -= first);
}

#[derive(Deserialize)]
struct Mooncake {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    hash_ids: Vec<u64>,
}

/// A line of our own form.
#[derive(Deserialize)]
struct Logged {
    at_ms: f64,
    prompt_tokens: u32,
    output_tokens: Option<u32>,
    block_tokens: u32,
    /// Hexadecimal: JSON numbers of other tools lose the low bits of 64.
    blocks: Vec<String>,
    session: Option<String>,
    model: Option<String>,
}

/// Reads one line of either form.
pub(super) fn parse(line: &str) -> Result<Traced, String> {
    if line.contains("\"hash_ids\"") {
        let read: Mooncake =
            serde_json::from_str(line).map_err(|e| format!("no line of a Mooncake trace: {e}"))?;
        return Ok(Traced {
            at: millis(read.timestamp)?,
            prompt_tokens: positive(read.input_length, "input_length")?,
            output_tokens: read.output_length.max(1),
            blocks: read.hash_ids,
            block_tokens: MOONCAKE_BLOCK_TOKENS,
            session: None,
            model: None,
        });
    }
    let read: Logged = serde_json::from_str(line).map_err(|e| {
        format!("neither a line of a Mooncake trace (no `hash_ids`) nor one with `at_ms` and `blocks`: {e}")
    })?;
    let blocks = read.blocks.iter().map(|hex| u64::from_str_radix(hex, 16)).collect::<Result<_, _>>();
    Ok(Traced {
        at: millis(read.at_ms)?,
        prompt_tokens: positive(read.prompt_tokens, "prompt_tokens")?,
        output_tokens: read.output_tokens.unwrap_or(1).max(1),
        blocks: blocks.map_err(|_| "`blocks` are hexadecimal numbers of 64 bits".to_owned())?,
        block_tokens: positive(read.block_tokens, "block_tokens")?,
        session: read.session,
        model: read.model,
    })
}

fn millis(ms: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(ms / 1000.0).map_err(|_| format!("{ms} is no time in milliseconds"))
}

fn positive(number: u32, field: &str) -> Result<u32, String> {
    if number == 0 { Err(format!("`{field}` must be at least 1")) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let mooncake = r#"{"timestamp": 1500, "input_length": 700, "output_length": 0, "hash_ids": [0, 7]}"#;
        let read = parse(mooncake).unwrap();
        assert_eq!(read.at, Duration::from_millis(1500));
        assert_eq!((read.prompt_tokens, read.output_tokens, read.block_tokens), (700, 1, 512));
        let logged = r#"{"at_ms":2.5,"prompt_tokens":130,"output_tokens":9,"block_tokens":64,"blocks":["ffffffffffffffff","a"],"session":"s1","other":1}"#;
        let read = parse(logged).unwrap();
        assert_eq!(read.at, Duration::from_micros(2500));
        assert_eq!((read.blocks, read.session.as_deref()), (vec![u64::MAX, 10], Some("s1")));
    }

    #[test]
    fn a_log_that_counts_from_1970_begins_at_once() {
        let line = |at: &str| {
            parse(&format!(r#"{{"at_ms":{at},"prompt_tokens":1,"block_tokens":64,"blocks":[]}}"#)).unwrap()
        };
        let mut trace = vec![line("1795292770123.456"), line("1795292770125.957")];
        begin_at_once(&mut trace);
        assert_eq!(trace[0].at, Duration::ZERO);
        assert!(
            trace[1].at.abs_diff(Duration::from_micros(2501)) < Duration::from_micros(1),
            "{:?}",
            trace[1].at
        );
        begin_at_once(&mut []);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, wanted) in [
            ("{}", "neither a line of a Mooncake trace"),
            (r#"{"hash_ids": [], "timestamp": 1}"#, "missing field `input_length`"),
            (r#"{"timestamp": -1, "input_length": 7, "output_length": 1, "hash_ids": []}"#, "-1 is no time"),
            (
                r#"{"timestamp": 1, "input_length": 0, "output_length": 1, "hash_ids": []}"#,
                "must be at least 1",
            ),
            (r#"{"at_ms":1,"prompt_tokens":1,"block_tokens":64,"blocks":["x"]}"#, "hexadecimal"),
            ("no json", "neither"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }

    #[test]
    fn a_file_is_read_in_order_of_arrival_and_errors_name_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        let line =
            |at| format!(r#"{{"timestamp": {at}, "input_length": 7, "output_length": 1, "hash_ids": [1]}}"#);
        std::fs::write(&path, format!("{}\n\n{}\n{}", line(20), line(10), line(30))).unwrap();
        let at = |limit| read(&path, limit).unwrap().iter().map(|t| t.at.as_millis()).collect::<Vec<_>>();
        assert_eq!((at(None), at(Some(2))), (vec![10, 20, 30], vec![10, 20]));
        std::fs::write(&path, format!("{}\nnonsense\n", line(20))).unwrap();
        assert!(read(&path, None).unwrap_err().to_string().contains("t.jsonl, line 2: "));
        std::fs::write(&path, "\n").unwrap();
        assert!(read(&path, None).unwrap_err().to_string().ends_with("no request in it"));
        assert!(read(&folder.path().join("none"), None).unwrap_err().to_string().contains("none"));
    }
}
