//! Server-sent events: lines across chunk borders.

use super::counts::Counts;
use crate::request::json::Lexer;
use crate::request::{Api, Usage};
use memchr::memchr;
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// A line up to this long is kept until it is whole; a longer one is scanned as it comes.
const MAX_LINE: usize = 16 * 1024;

/// The words that an event with counts has, made ready once: making one ready costs as much as looking for it.
static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("usage"));
static META_INFO: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("meta_info"));

/// The line that is open.
#[derive(Debug)]
enum Line {
    /// All of it that came so far is in `carry`.
    Kept,
    /// Too long to keep: a `data:` line in the scanner.
    Scanned(Box<Lexer>, Counts),
    /// Too long to keep, and no data.
    Skipped,
}

/// Counts over the events of one stream.
#[derive(Debug)]
pub(super) struct EventStream {
    api: Api,
    word: &'static Finder<'static>,
    carry: Vec<u8>,
    line: Line,
    usage: Usage,
    count: u64,
}

impl EventStream {
    pub(super) fn new(api: Api) -> Self {
        let word: &'static Finder<'static> = if api == Api::SglangGenerate { &META_INFO } else { &USAGE };
        Self { api, word, carry: Vec::new(), line: Line::Kept, usage: Usage::default(), count: 0 }
    }
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn push(&mut self, mut chunk: &[u8]) {
        while let Some(at) = memchr(b'\n', chunk) {
            self.part(&chunk[..at], true);
            chunk = &chunk[at + 1..];
        }
        if !chunk.is_empty() {
            self.part(chunk, false);
        }
    }

    /// The stream has ended: so has its last line.
    pub(super) fn finish(&mut self) {
        self.part(&[], true);
    }

    /// The next bytes of the open line; `ends` says whether it ends with them.
    fn part(&mut self, bytes: &[u8], ends: bool) {
        match &mut self.line {
            Line::Kept if ends && self.carry.is_empty() && bytes.len() <= MAX_LINE => self.whole(bytes),
            Line::Kept if self.carry.len() + bytes.len() <= MAX_LINE => {
                self.carry.extend_from_slice(bytes);
                if ends {
                    let line = std::mem::take(&mut self.carry);
                    self.whole(&line);
                    self.carry = line;
                    self.carry.clear();
                }
            }
            Line::Kept => self.outgrow(bytes, ends),
            Line::Scanned(lexer, counts) => {
                // A problem stays with the scanner.
                let well_formed = lexer.push(bytes, counts).is_ok();
                if ends {
                    self.count += 1;
                    if well_formed {
                        self.usage.merge(counts.usage);
                    }
                    self.line = Line::Kept;
                }
            }
            Line::Skipped if ends => self.line = Line::Kept,
            Line::Skipped => {}
        }
    }

    /// The open line is too long to keep: what came goes into the scanner.
    fn outgrow(&mut self, bytes: &[u8], ends: bool) {
        let mut start = std::mem::take(&mut self.carry);
        if start.len() < 6 {
            let missing = bytes.len().min(6 - start.len());
            start.extend_from_slice(&bytes[..missing]);
            return self.scan(start, &bytes[missing..], ends);
        }
        self.scan(start, bytes, ends);
    }

    fn scan(&mut self, start: Vec<u8>, bytes: &[u8], ends: bool) {
        self.line = match data_of(&start) {
            Some(data) => {
                let (mut lexer, mut counts) = (Box::<Lexer>::default(), Counts::new(self.api));
                let _ = lexer.push(data, &mut counts);
                Line::Scanned(lexer, counts)
            }
            None => Line::Skipped,
        };
        self.part(bytes, ends);
    }

    fn whole(&mut self, line: &[u8]) {
        let Some(data) = data_of(line) else { return };
        let data = data.strip_suffix(b"\r").unwrap_or(data);
        if data == b"[DONE]" {
            return;
        }
        self.count += 1;
        // Most events carry no counts, and looking for the word is far cheaper than scanning.
        if self.word.find(data).is_some() {
            let mut counts = Counts::new(self.api);
            if Lexer::default().push(data, &mut counts).is_ok() {
                self.usage.merge(counts.usage);
            }
        }
    }
}

/// What stands after `data:` and at most one space.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    let data = line.strip_prefix(b"data:")?;
    Some(data.strip_prefix(b" ").unwrap_or(data))
}
