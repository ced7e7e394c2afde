//! gRPC frames and protobuf fields, taken apart while they arrive.
//!
//! Only what a few fields of two messages need: varints, nested messages up to three deep, strings and packed numbers.
//! Wire format: <https://protobuf.dev/programming-guides/encoding/>; frames: one flag byte (1 = compressed), four bytes of
//! length, big endian, then the message.

/// Deepest nesting that is looked at.
const MAX_DEPTH: usize = 3;

/// What a length-delimited field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delimited {
    /// A message whose fields are wanted.
    Message,
    /// Bytes that are wanted.
    Bytes,
    /// Packed varints that are wanted.
    Packed,
    /// Nothing that is wanted.
    Skip,
}

/// Who is told of fields. `path` holds the field numbers from the outermost message inwards.
pub(super) trait Fields {
    /// A frame starts.
    fn frame(&mut self);
    /// What the length-delimited field is.
    fn delimited(&mut self, path: &[u32]) -> Delimited;
    /// A varint, alone or one of many packed ones.
    fn varint(&mut self, path: &[u32], value: u64);
    /// The next piece of bytes that were wanted; the last one may be empty.
    fn bytes(&mut self, path: &[u32], piece: &[u8], last: bool);
}

/// The payload is no plain gRPC frame of protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadFrame;

#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    shift: u32,
}

impl Varint {
    /// Takes a byte; gives the value after the last one.
    fn push(&mut self, byte: u8) -> Result<Option<u64>, BadFrame> {
        if self.shift > 63 {
            return Err(BadFrame);
        }
        self.value |= u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        if byte & 0x80 != 0 {
            return Ok(None);
        }
        let value = self.value;
        *self = Self::default();
        Ok(Some(value))
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header {
        seen: usize,
        length: usize,
    },
    Tag,
    Number,
    Length,
    /// This many bytes are not wanted.
    Skip(usize),
    /// Bytes of a wanted field up to this offset.
    Bytes(usize),
    /// Packed varints up to this offset.
    Packed(usize),
    Bad,
}

/// Takes frames apart, chunk by chunk, in constant memory.
#[derive(Debug)]
pub(super) struct Frames {
    state: State,
    varint: Varint,
    /// Field numbers; the last is that of the field being read.
    path: [u32; MAX_DEPTH],
    /// Where each open message ends, counted from the start of the frame's message.
    ends: [usize; MAX_DEPTH],
    depth: usize,
    at: usize,
    /// Frames that are complete.
    done: u64,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            state: State::Header { seen: 0, length: 0 },
            varint: Varint::default(),
            path: [0; MAX_DEPTH],
            ends: [0; MAX_DEPTH],
            depth: 0,
            at: 0,
            done: 0,
        }
    }
}

impl Frames {
    /// Takes the next chunk.
    ///
    /// # Errors
    /// The payload is not what it should be; every later call says so too.
    pub(super) fn push(&mut self, mut chunk: &[u8], fields: &mut impl Fields) -> Result<(), BadFrame> {
        while !chunk.is_empty() {
            match self.step(chunk, fields) {
                Ok(taken) => chunk = &chunk[taken..],
                Err(bad) => {
                    self.state = State::Bad;
                    return Err(bad);
                }
            }
        }
        Ok(())
    }

    /// Frames that are complete, none of them bad; `None` while one is open or after a bad one.
    pub(super) fn complete(&self) -> Option<u64> {
        matches!(self.state, State::Header { seen: 0, .. }).then_some(self.done)
    }

    fn path(&self) -> &[u32] {
        &self.path[..self.depth]
    }

    /// Takes at least one byte.
    fn step(&mut self, chunk: &[u8], fields: &mut impl Fields) -> Result<usize, BadFrame> {
        let byte = chunk[0];
        let left = |end: usize| chunk.len().min(end - self.at);
        let taken = match self.state {
            State::Bad => return Err(BadFrame),
            State::Header { seen, length } => return self.header(seen, length, byte, fields).map(|()| 1),
            State::Skip(end) => left(end),
            State::Bytes(end) => {
                let taken = left(end);
                fields.bytes(self.path(), &chunk[..taken], self.at + taken == end);
                taken
            }
            State::Tag | State::Number | State::Length | State::Packed(_) => 1,
        };
        self.at += taken;
        match self.state {
            State::Skip(end) | State::Bytes(end) if self.at == end => self.state = State::Tag,
            State::Skip(_) | State::Bytes(_) => return Ok(taken),
            _ => {
                if let Some(value) = self.varint.push(byte)? {
                    self.number(value, fields)?;
                } else if self.past_end() {
                    return Err(BadFrame);
                }
            }
        }
        self.close();
        Ok(taken)
    }

    /// Whether the innermost message (or packed field) ended inside a number.
    fn past_end(&self) -> bool {
        let end = match self.state {
            State::Packed(end) => end,
            _ => self.ends[self.depth - 1],
        };
        self.at >= end
    }

    fn header(
        &mut self,
        seen: usize,
        length: usize,
        byte: u8,
        fields: &mut impl Fields,
    ) -> Result<(), BadFrame> {
        if seen == 0 && byte != 0 {
            return Err(BadFrame);
        }
        let length = length << 8 | usize::from(byte);
        if seen < 4 {
            self.state = State::Header { seen: seen + 1, length };
            return Ok(());
        }
        fields.frame();
        (self.at, self.depth, self.ends[0], self.state) = (0, 1, length, State::Tag);
        self.close();
        Ok(())
    }

    /// A varint is complete: a tag, a value or a length.
    fn number(&mut self, value: u64, fields: &mut impl Fields) -> Result<(), BadFrame> {
        match self.state {
            State::Tag => self.tag(value),
            State::Number => {
                fields.varint(self.path(), value);
                self.state = State::Tag;
                Ok(())
            }
            State::Length => self.length(value, fields),
            State::Packed(end) => {
                fields.varint(self.path(), value);
                if self.at == end {
                    self.state = State::Tag;
                }
                Ok(())
            }
            _ => Err(BadFrame),
        }
    }

    fn tag(&mut self, value: u64) -> Result<(), BadFrame> {
        let field = u32::try_from(value >> 3).map_err(|_| BadFrame)?;
        if field == 0 {
            return Err(BadFrame);
        }
        self.path[self.depth - 1] = field;
        self.state = match value & 7 {
            0 => State::Number,
            1 => State::Skip(self.room(8)?),
            2 => State::Length,
            5 => State::Skip(self.room(4)?),
            _ => return Err(BadFrame),
        };
        // A value must follow within the message.
        if self.at < self.ends[self.depth - 1] { Ok(()) } else { Err(BadFrame) }
    }

    /// Where the next `length` bytes end; they must lie in the innermost message.
    fn room(&self, length: u64) -> Result<usize, BadFrame> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        end.filter(|end| *end <= self.ends[self.depth - 1]).ok_or(BadFrame)
    }

    fn length(&mut self, length: u64, fields: &mut impl Fields) -> Result<(), BadFrame> {
        let end = self.room(length)?;
        let wanted = fields.delimited(self.path());
        self.state = match wanted {
            Delimited::Message if self.depth < MAX_DEPTH => {
                self.ends[self.depth] = end;
                self.depth += 1;
                State::Tag
            }
            Delimited::Bytes if length > 0 => State::Bytes(end),
            Delimited::Bytes => {
                fields.bytes(self.path(), &[], true);
                State::Tag
            }
            Delimited::Packed if length > 0 => State::Packed(end),
            Delimited::Skip if length > 0 => State::Skip(end),
            _ if length == 0 => State::Tag,
            _ => State::Skip(end),
        };
        Ok(())
    }

    /// Closes every message that ends here.
    fn close(&mut self) {
        while matches!(self.state, State::Tag)
            && self.varint.shift == 0
            && self.depth > 0
            && self.at >= self.ends[self.depth - 1]
        {
            self.depth -= 1;
            if self.depth == 0 {
                self.done += 1;
                self.state = State::Header { seen: 0, length: 0 };
            }
        }
    }
}
