//! The scanner's state machine.

use super::key::KeyBuffer;
use super::number::Place;
use super::string::{DENSE, DENSE_REACH, Escape, Step, Stop, Utf8, dense_run, plain_run};
use super::{Container, Literal, MAX_DEPTH, MAX_NUMBER, Problem, Sink};

/// What may come next.
#[derive(Clone, Copy, Debug)]
enum State {
    /// A value.
    Value,
    /// A value or `]`: after `[`.
    ValueOrEnd,
    /// A key or `}`: after `{`.
    KeyOrEnd,
    /// A key: after `,` in an object.
    Key,
    /// A colon.
    Colon,
    /// A comma or the end of the container.
    CommaOrEnd,
    /// White space only.
    Done,
    /// More of a string.
    String,
    /// More of an escape sequence.
    Escape(Escape),
    /// More of a number.
    Number(Place),
    /// More of a literal name, this many bytes known.
    Literal(Literal, usize),
}

/// The scanner: see the module. Once a problem was found it stays.
#[derive(Debug)]
pub struct Lexer {
    state: State,
    /// One bit for each open container, innermost at `depth - 1`: set for objects.
    objects: [u64; MAX_DEPTH / 64],
    depth: usize,
    /// Offset of the current chunk.
    base: usize,
    in_key: bool,
    key: KeyBuffer,
    utf8: Utf8,
    /// A number that a chunk border cut.
    number: Vec<u8>,
    problem: Option<Problem>,
}

impl Default for Lexer {
    fn default() -> Self {
        Self {
            state: State::Value,
            objects: [0; MAX_DEPTH / 64],
            depth: 0,
            base: 0,
            in_key: false,
            key: KeyBuffer::new(),
            utf8: Utf8::default(),
            number: Vec::new(),
            problem: None,
        }
    }
}

type Next = Result<usize, Problem>;

impl Lexer {
    /// Scans the next chunk.
    ///
    /// # Errors
    /// The first problem of the text, again with every later call. It is the same for any chunking.
    pub fn push<S: Sink>(&mut self, bytes: &[u8], sink: &mut S) -> Result<(), Problem> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let mut at = 0;
        while at < bytes.len() {
            match self.step(bytes, at, sink) {
                Ok(next) => at = next,
                Err(problem) => {
                    self.problem = Some(problem);
                    return Err(problem);
                }
            }
        }
        self.base += bytes.len();
        Ok(())
    }

    /// The text has ended.
    ///
    /// # Errors
    /// The first problem, if any; a text that is not complete is one.
    pub fn finish<S: Sink>(&mut self, sink: &mut S) -> Result<(), Problem> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        if let State::Number(place) = self.state
            && place.complete()
            && self.depth == 0
        {
            let number = std::mem::take(&mut self.number);
            sink.number(&number);
            self.after_value();
        }
        match self.state {
            State::Done => Ok(()),
            _ => Err(Problem { what: "unexpected end of JSON", offset: self.base }),
        }
    }

    fn problem(&self, what: &'static str, at: usize) -> Problem {
        Problem { what, offset: self.base + at }
    }

    /// Takes at least one byte of `bytes[at..]`; returns where to go on.
    fn step<S: Sink>(&mut self, bytes: &[u8], at: usize, sink: &mut S) -> Next {
        match self.state {
            State::String => self.string(bytes, at, sink),
            State::Escape(escape) => self.escape(escape, bytes[at], at, sink),
            State::Number(place) => self.number(place, bytes, at, sink),
            State::Literal(literal, known) => self.literal(literal, known, bytes[at], at, sink),
            _ => self.structure(bytes, at, sink),
        }
    }

    fn structure<S: Sink>(&mut self, bytes: &[u8], at: usize, sink: &mut S) -> Next {
        let byte = bytes[at];
        if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            return Ok(at + 1);
        }
        match (self.state, byte) {
            (State::ValueOrEnd, b']') | (State::KeyOrEnd, b'}') => self.close(sink),
            (State::KeyOrEnd | State::Key, b'"') => {
                self.in_key = true;
                self.key.clear();
                self.state = State::String;
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::CommaOrEnd, b',') => {
                self.state = if self.in_object() { State::Key } else { State::Value };
            }
            (State::CommaOrEnd, b'}') if self.in_object() => self.close(sink),
            (State::CommaOrEnd, b']') if !self.in_object() => self.close(sink),
            (State::Value | State::ValueOrEnd, _) => return self.value(bytes, at, sink),
            (state, _) => return Err(self.problem(expected(state), at)),
        }
        Ok(at + 1)
    }

    fn value<S: Sink>(&mut self, bytes: &[u8], at: usize, sink: &mut S) -> Next {
        match bytes[at] {
            b'"' => {
                sink.string_start(self.base + at);
                self.in_key = false;
                self.state = State::String;
            }
            b'{' => self.open(Container::Object, at, sink)?,
            b'[' => self.open(Container::Array, at, sink)?,
            b'n' => self.state = State::Literal(Literal::Null, 1),
            b't' => self.state = State::Literal(Literal::True, 1),
            b'f' => self.state = State::Literal(Literal::False, 1),
            byte => {
                let Some(place) = Place::first(byte) else {
                    return Err(self.problem("expected a value", at));
                };
                self.number.clear();
                return self.number_from(place, bytes, at, at + 1, sink);
            }
        }
        Ok(at + 1)
    }

    fn in_object(&self) -> bool {
        let top = self.depth.saturating_sub(1);
        self.objects[top / 64] >> (top % 64) & 1 == 1
    }

    fn open<S: Sink>(&mut self, container: Container, at: usize, sink: &mut S) -> Result<(), Problem> {
        if self.depth == MAX_DEPTH {
            return Err(self.problem("nested deeper than 512 levels", at));
        }
        let (word, bit) = (self.depth / 64, 1 << (self.depth % 64));
        match container {
            Container::Object => {
                self.objects[word] |= bit;
                self.state = State::KeyOrEnd;
            }
            Container::Array => {
                self.objects[word] &= !bit;
                self.state = State::ValueOrEnd;
            }
        }
        self.depth += 1;
        sink.open(container);
        Ok(())
    }

    fn close<S: Sink>(&mut self, sink: &mut S) {
        self.depth -= 1;
        sink.close();
        self.after_value();
    }

    fn after_value(&mut self) {
        self.state = if self.depth == 0 { State::Done } else { State::CommaOrEnd };
    }

    fn string<S: Sink>(&mut self, bytes: &[u8], at: usize, sink: &mut S) -> Next {
        let (len, stop) = plain_run(&bytes[at..]);
        if stop == Stop::Backslash && len < DENSE_REACH && self.utf8.idle() {
            let mut scratch = [0; DENSE];
            let (len, taken) = dense_run(&bytes[at..], &mut scratch);
            if taken > 0 {
                self.piece(&scratch[..len], sink);
                return Ok(at + taken);
            }
        }
        let end = at + len;
        let run = &bytes[at..end];
        self.utf8.check(run, self.base + at, stop != Stop::Chunk)?;
        if len > 0 {
            self.piece(run, sink);
        }
        match stop {
            Stop::Chunk => return Ok(end),
            Stop::Backslash => self.state = State::Escape(Escape::Start { high: None }),
            Stop::Quote if self.in_key => {
                let (name, hash, len) = self.key.get();
                sink.key(name, hash, len);
                self.state = State::Colon;
            }
            Stop::Quote => {
                sink.string_end(self.base + end + 1);
                self.after_value();
            }
        }
        Ok(end + 1)
    }

    fn piece<S: Sink>(&mut self, piece: &[u8], sink: &mut S) {
        if self.in_key {
            self.key.push(piece);
        } else {
            sink.string_piece(piece);
        }
    }

    fn escape<S: Sink>(&mut self, escape: Escape, byte: u8, at: usize, sink: &mut S) -> Next {
        match escape.step(byte).map_err(|what| self.problem(what, at))? {
            Step::More(escape) => self.state = State::Escape(escape),
            Step::Char(c) => {
                self.piece(c.encode_utf8(&mut [0; 4]).as_bytes(), sink);
                self.state = State::String;
            }
        }
        Ok(at + 1)
    }

    fn number<S: Sink>(&mut self, place: Place, bytes: &[u8], at: usize, sink: &mut S) -> Next {
        self.number_from(place, bytes, at, at, sink)
    }

    /// A number, of which `bytes[start..at]` is known to belong to it and is not yet in `self.number`.
    fn number_from<S: Sink>(
        &mut self,
        mut place: Place,
        bytes: &[u8],
        start: usize,
        mut at: usize,
        sink: &mut S,
    ) -> Next {
        while let Some(next) = bytes.get(at).and_then(|b| place.next(*b)) {
            place = next;
            at += 1;
            if place == Place::Whole {
                at += bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
            }
        }
        let known = self.number.len();
        if known + (at - start) > MAX_NUMBER {
            return Err(self.problem("a number has more than 1024 bytes", start + MAX_NUMBER - known));
        }
        if at == bytes.len() {
            self.number.extend_from_slice(&bytes[start..at]);
            self.state = State::Number(place);
            return Ok(at);
        }
        if !place.complete() {
            return Err(self.problem("invalid number", at));
        }
        if known == 0 {
            sink.number(&bytes[start..at]);
        } else {
            self.number.extend_from_slice(&bytes[start..at]);
            let number = std::mem::take(&mut self.number);
            sink.number(&number);
        }
        self.after_value();
        Ok(at)
    }

    fn literal<S: Sink>(
        &mut self,
        literal: Literal,
        known: usize,
        byte: u8,
        at: usize,
        sink: &mut S,
    ) -> Next {
        let name: &[u8] = match literal {
            Literal::Null => b"null",
            Literal::True => b"true",
            Literal::False => b"false",
        };
        if name.get(known) != Some(&byte) {
            return Err(self.problem("misspelt null, true or false", at));
        }
        if known + 1 < name.len() {
            self.state = State::Literal(literal, known + 1);
        } else {
            sink.literal(literal);
            self.after_value();
        }
        Ok(at + 1)
    }
}

fn expected(state: State) -> &'static str {
    match state {
        State::KeyOrEnd => "expected a key or `}`",
        State::Key => "expected a key",
        State::Colon => "expected `:`",
        State::CommaOrEnd => "expected `,` or the end of the list or object",
        State::Done => "something follows the end of the JSON value",
        _ => "expected a value",
    }
}
