//! The inside of strings: runs without escapes, escapes, and UTF-8 across chunk borders.

use super::Problem;

/// Where a run of plain string bytes ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// At a quote.
    Quote,
    /// At a backslash.
    Backslash,
    /// At the end of the chunk.
    Chunk,
}

/// Bytes that are searched without the set-up cost of a wide search: texts full of escapes have short runs.
const NEAR: usize = 16;

/// The length of the plain run at the start of `bytes`, and what ends it.
pub(super) fn plain_run(bytes: &[u8]) -> (usize, Stop) {
    let near = bytes.len().min(NEAR);
    let found = match bytes[..near].iter().position(|b| matches!(b, b'"' | b'\\')) {
        None if near == NEAR => memchr::memchr2(b'"', b'\\', &bytes[NEAR..]).map(|at| at + NEAR),
        found => found,
    };
    match found {
        Some(at) if bytes[at] == b'"' => (at, Stop::Quote),
        Some(at) => (at, Stop::Backslash),
        None => (bytes.len(), Stop::Chunk),
    }
}

/// A backslash this near makes a text one full of escapes: [`dense_run`] reads it faster than one run at a time.
pub(super) const DENSE_REACH: usize = 128;
/// Room for what [`dense_run`] unescapes at once.
pub(super) const DENSE: usize = 512;
/// Bytes looked at in one step.
const WORD: usize = size_of::<u64>();

/// Unescapes the start of `bytes`, ASCII text with escapes, into `out`: bytes written and bytes taken. It stops before
/// all that needs a closer look: a quote, bytes that are not plain ASCII, surrogates, escapes that are wrong or cut; and
/// where no escape came for [`DENSE_REACH`] bytes.
pub(super) fn dense_run(bytes: &[u8], out: &mut [u8; DENSE]) -> (usize, usize) {
    let (mut len, mut at, mut plain) = (0, 0, 0);
    // A character has at most three bytes here.
    while len + WORD <= DENSE && plain < DENSE_REACH {
        if let Some((word, _)) = bytes[at..].split_first_chunk::<WORD>() {
            let run = ordinary(u64::from_le_bytes(*word));
            // What is copied beyond the run is written over.
            out[len..len + WORD].copy_from_slice(word);
            (len, at, plain) = (len + run, at + run, plain + run);
            if run == WORD {
                continue;
            }
        }
        let Some(byte) = bytes.get(at) else { break };
        if *byte == b'\\' {
            let Some((c, taken)) = whole_escape(&bytes[at + 1..]) else { break };
            let Some(room) = out.get_mut(len..len + 3) else { break };
            len += c.encode_utf8(room).len();
            at += 1 + taken;
            plain = 0;
        } else if matches!(*byte, b'"' | 0..0x20 | 0x80..) {
            break;
        } else {
            let Some(room) = out.get_mut(len) else { break };
            *room = *byte;
            (len, at, plain) = (len + 1, at + 1, plain + 1);
        }
    }
    (len, at)
}

/// How many bytes of a word, from its lowest on, are ASCII that needs no closer look: no quote, backslash or control
/// character. Borrows of the subtractions only reach bytes after the first that does, so the first one found is right.
fn ordinary(word: u64) -> usize {
    const EACH: u64 = u64::MAX / 0xff;
    const HIGH: u64 = EACH * 0x80;
    let zero = |x: u64| x.wrapping_sub(EACH) & !x;
    let quote = zero(word ^ (EACH * b'"' as u64));
    let backslash = zero(word ^ (EACH * b'\\' as u64));
    let control = word.wrapping_sub(EACH * 0x20) & !word;
    let special = (quote | backslash | control | word) & HIGH;
    special.trailing_zeros() as usize / 8
}

/// The character that the bytes after a backslash stand for, and how many they are.
fn whole_escape(rest: &[u8]) -> Option<(char, usize)> {
    let first = *rest.first()?;
    if first != b'u' {
        return simple(first).map(|c| (c, 1));
    }
    let digit = |value: u32, byte: &u8| Some(value << 4 | (*byte as char).to_digit(16)?);
    let value = rest.get(1..5)?.iter().try_fold(0, digit)?;
    char::from_u32(value).map(|c| (c, 5))
}

/// What a plain run holds besides ASCII from 0x20 on.
struct Classes {
    control: bool,
    wide: bool,
}

/// Looks at all bytes at once: the loop has no exit, so that it compiles to vector instructions.
fn classes(run: &[u8]) -> Classes {
    let (mut low, mut high) = (u8::MAX, 0);
    for byte in run {
        low = low.min(*byte);
        high |= *byte;
    }
    Classes { control: low < 0x20, wide: high >= 0x80 }
}

/// Checks that a string's bytes are UTF-8 without control characters, run by run, chunk by chunk.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// The start of a character that the last chunk cut.
    cut: [u8; 4],
    len: usize,
    /// Offset of that character.
    at: usize,
}

const BAD_UTF8: &str = "text is not valid UTF-8";
const CONTROL: &str = "a control character stands unescaped in a string";

impl Utf8 {
    /// Whether no character is cut.
    pub(super) fn idle(&self) -> bool {
        self.len == 0
    }

    /// Checks a plain run that starts at `offset`. `ends` is false when the run goes on in the next chunk.
    pub(super) fn check(&mut self, run: &[u8], offset: usize, ends: bool) -> Result<(), Problem> {
        let done = self.complete(run)?;
        let (run, offset) = (&run[done..], offset + done);
        let classes = classes(run);
        let control = if classes.control { run.iter().position(|b| *b < 0x20) } else { None };
        let plain = &run[..control.unwrap_or(run.len())];
        if classes.wide {
            self.check_wide(plain, offset)?;
        }
        if self.len > 0 && (ends || control.is_some()) {
            return Err(Problem { what: BAD_UTF8, offset: self.at });
        }
        match control {
            Some(at) => Err(Problem { what: CONTROL, offset: offset + at }),
            None => Ok(()),
        }
    }

    /// Completes the character that the last chunk cut; returns how many bytes of `run` that took.
    fn complete(&mut self, run: &[u8]) -> Result<usize, Problem> {
        let mut taken = 0;
        while self.len > 0 {
            let Some(byte) = run.get(taken) else { break };
            self.cut[self.len] = *byte;
            self.len += 1;
            taken += 1;
            match std::str::from_utf8(&self.cut[..self.len]) {
                Ok(_) => self.len = 0,
                Err(e) if e.error_len().is_some() => {
                    return Err(Problem { what: BAD_UTF8, offset: self.at });
                }
                Err(_) => {}
            }
        }
        Ok(taken)
    }

    fn check_wide(&mut self, run: &[u8], offset: usize) -> Result<(), Problem> {
        let Err(e) = std::str::from_utf8(run) else { return Ok(()) };
        let at = e.valid_up_to();
        if e.error_len().is_some() {
            return Err(Problem { what: BAD_UTF8, offset: offset + at });
        }
        let rest = &run[at..];
        self.cut[..rest.len()].copy_from_slice(rest);
        self.len = rest.len();
        self.at = offset + at;
        Ok(())
    }
}

/// Where in an escape sequence the scanner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// After the backslash. `high` is the leading surrogate that this escape must complete.
    Start { high: Option<u16> },
    /// Inside `\u`: digits so far and their value.
    Hex { digits: u8, value: u16, high: Option<u16> },
    /// After a leading surrogate: a backslash must follow.
    Low { high: u16 },
}

/// What a byte does to an escape sequence.
pub(super) enum Step {
    /// It goes on.
    More(Escape),
    /// It stands for this character.
    Char(char),
}

const BAD_ESCAPE: &str = "invalid escape in a string";
const LONE: &str = "half a surrogate pair in a string";

impl Escape {
    /// Takes the next byte.
    pub(super) fn step(self, byte: u8) -> Result<Step, &'static str> {
        match self {
            Self::Low { high } if byte == b'\\' => Ok(Step::More(Self::Start { high: Some(high) })),
            Self::Low { .. } => Err(LONE),
            Self::Start { high } if byte == b'u' => Ok(Step::More(Self::Hex { digits: 0, value: 0, high })),
            Self::Start { high: Some(_) } => Err(LONE),
            Self::Start { high: None } => simple(byte).map(Step::Char).ok_or(BAD_ESCAPE),
            Self::Hex { digits, value, high } => {
                let digit = (byte as char).to_digit(16).ok_or(BAD_ESCAPE)? as u16;
                let value = value << 4 | digit;
                if digits < 3 {
                    return Ok(Step::More(Self::Hex { digits: digits + 1, value, high }));
                }
                unit(value, high)
            }
        }
    }
}

/// The character that a one-letter escape stands for.
fn simple(byte: u8) -> Option<char> {
    Some(match byte {
        b'"' | b'\\' | b'/' => byte as char,
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        _ => return None,
    })
}

/// A UTF-16 unit, after the leading surrogate `high` if there was one.
fn unit(value: u16, high: Option<u16>) -> Result<Step, &'static str> {
    let units = match (high, value) {
        (None, 0xD800..=0xDBFF) => return Ok(Step::More(Escape::Low { high: value })),
        (None, _) => [value, 0],
        (Some(high), _) => [high, value],
    };
    let len = 1 + usize::from(high.is_some());
    match char::decode_utf16(units[..len].iter().copied()).next() {
        Some(Ok(c)) => Ok(Step::Char(c)),
        _ => Err(LONE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(word: [u8; WORD]) -> usize {
        let needs_a_look = |b: &u8| matches!(*b, b'"' | b'\\' | 0..0x20 | 0x80..);
        word.iter().position(needs_a_look).unwrap_or(WORD)
    }

    #[test]
    fn every_byte_is_seen_at_every_place() {
        for byte in 0..=u8::MAX {
            for at in 0..WORD {
                let mut word = [b'a'; WORD];
                word[at] = byte;
                assert_eq!(ordinary(u64::from_le_bytes(word)), naive(word), "{byte} at {at}");
            }
        }
    }

    #[test]
    fn escapes_are_taken_up_to_the_end_of_the_room() {
        let text = r"\n".repeat(DENSE);
        let mut out = [0; DENSE];
        let (len, taken) = dense_run(text.as_bytes(), &mut out);
        assert_eq!((taken, out[..len].iter().all(|b| *b == b'\n')), (2 * len, true));
        assert!(len > DENSE - WORD);
        assert_eq!(dense_run(br#"ab\"c"d"#, &mut out), (4, 5));
        assert_eq!(&out[..4], br#"ab"c"#);
        assert_eq!(dense_run(br"abcdefghij\u00", &mut out), (10, 10), "a cut escape stays");
    }

    proptest! {
        #[test]
        fn words_are_measured_as_byte_by_byte(word in any::<[u8; WORD]>()) {
            prop_assert_eq!(ordinary(u64::from_le_bytes(word)), naive(word));
        }
    }
}
