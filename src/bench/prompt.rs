//! Request bodies: chat completions whose text is partly shared by many requests and partly their own.
//!
//! Text is cut out of one pool made before the run, so a request costs the generator a copy and never JSON work. Every
//! prompt's own part begins with an identity that no other has: nothing after it can be found in a cache by accident.

use bytes::{BufMut as _, Bytes, BytesMut};
use std::fmt::Write as _;

/// Text is cut at multiples of this; no escape sequence crosses such a place.
const CELL: usize = 64;
const HEAD: &[u8] = br#"{"model":"bench","stream":true,"messages":[{"role":"user","content":""#;
const TURN: &[u8] = br#""},{"role":"assistant","content":"So it is."},{"role":"user","content":""#;
const TAIL: &[u8] = br#""}]}"#;
/// Hexadecimal digits of an identity and a space.
const IDENTITY: usize = 17;
const WORDS: &[&str] = &[
    "the",
    "engine",
    "holds",
    "a",
    "block",
    "of",
    "keys",
    "and",
    "values",
    "while",
    "another",
    "request",
    "waits",
    "for",
    "its",
    "turn",
    "in",
    "queue",
    "because",
    "prefill",
    "takes",
    "longer",
    "than",
    "decode",
    "at",
    "this",
    "length",
    "\\n",
    "said",
    "\\\"yes\\\"",
    "then",
    "index",
    "1024",
    "tokens",
    "later",
];

/// What prompts are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Length of a first turn's whole body.
    pub bytes: usize,
    /// Which share of it begins other requests' bodies, too.
    pub shared: f64,
    /// How many different beginnings there are.
    pub groups: usize,
    /// By how much each further turn of a session is longer.
    pub turn_bytes: usize,
}

/// Makes prompts of one shape.
#[derive(Clone, Debug)]
pub struct Prompts {
    shape: Shape,
    pool: Bytes,
    shared_len: usize,
    seed: u64,
}

impl Prompts {
    /// Prompts of `shape` with up to `turns` turns; the same seed makes the same prompts.
    pub fn new(shape: Shape, turns: usize, seed: u64) -> Self {
        let longest = shape.bytes + turns * shape.turn_bytes;
        let cells = (2 * longest / CELL + 1).max(65_536);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pool = BytesMut::with_capacity(cells * CELL);
        for _ in 0..cells {
            cell(&mut pool, &mut random);
        }
        let text = shape.bytes.saturating_sub(HEAD.len() + TAIL.len() + IDENTITY);
        let shared_len = cells_of((text as f64 * shape.shared) as usize);
        Self { shape, pool: pool.freeze(), shared_len, seed }
    }

    /// The body of turn `turn` (from 0) of the session `id`. It begins with the whole of the turn before it.
    pub fn body(&self, id: u64, turn: usize) -> Body {
        let group = if self.shape.groups == 0 { 0 } else { id % self.shape.groups as u64 };
        let mut segments = vec![Bytes::from_static(HEAD)];
        if self.shared_len > 0 {
            segments.push(self.cut(mix(self.seed ^ 0x5eed, group), self.shared_len));
        }
        let mut identity = String::with_capacity(IDENTITY);
        let _written = write!(identity, "{:016x} ", mix(self.seed, id));
        segments.push(identity.into());
        let fixed = HEAD.len() + TAIL.len() + IDENTITY + self.shared_len;
        self.text(&mut segments, mix(id, 0), self.shape.bytes.saturating_sub(fixed));
        for turn in 1..=turn {
            segments.push(Bytes::from_static(TURN));
            let length = self.shape.turn_bytes.saturating_sub(TURN.len());
            self.text(&mut segments, mix(id, turn as u64), length);
        }
        segments.push(Bytes::from_static(TAIL));
        let length = segments.iter().map(Bytes::len).sum();
        Body { segments: segments.into_iter(), front: Bytes::new(), remaining: length }
    }

    /// Text of `length` bytes: whole cells and a filling.
    fn text(&self, segments: &mut Vec<Bytes>, place: u64, length: usize) {
        let whole = cells_of(length);
        if whole > 0 {
            segments.push(self.cut(place, whole));
        }
        if whole < length {
            segments.push(Bytes::from_static(&[b'.'; CELL]).slice(..length - whole));
        }
    }

    fn cut(&self, place: u64, length: usize) -> Bytes {
        let cells = (self.pool.len() - length) / CELL;
        let at = (place % (cells as u64 + 1)) as usize * CELL;
        self.pool.slice(at..at + length)
    }
}

fn cells_of(length: usize) -> usize {
    length / CELL * CELL
}

/// Spreads numbers that follow each other (the finalizer of splitmix64).
fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(b).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn cell(pool: &mut BytesMut, random: &mut fastrand::Rng) {
    let end = pool.len() + CELL;
    loop {
        let word = WORDS[random.usize(..WORDS.len())].as_bytes();
        if pool.len() + word.len() + 1 > end {
            break;
        }
        pool.put_slice(word);
        pool.put_u8(b' ');
    }
    pool.put_bytes(b'-', end - pool.len());
}

/// One request's body, copied out piece by piece.
#[derive(Debug)]
pub struct Body {
    segments: std::vec::IntoIter<Bytes>,
    front: Bytes,
    remaining: usize,
}

impl Body {
    /// Bytes that are left.
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// Moves the next `length` bytes to `out`, or all that are left.
    pub fn copy(&mut self, length: usize, out: &mut BytesMut) {
        let mut wanted = length.min(self.remaining);
        self.remaining -= wanted;
        while wanted > 0 {
            if self.front.is_empty() {
                let Some(next) = self.segments.next() else { return };
                self.front = next;
            }
            let part = self.front.split_to(wanted.min(self.front.len()));
            wanted -= part.len();
            out.extend_from_slice(&part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(mut body: Body) -> Vec<u8> {
        let (length, mut out) = (body.remaining(), BytesMut::new());
        while body.remaining() > 0 {
            body.copy(1000, &mut out);
        }
        assert_eq!(out.len(), length);
        out.to_vec()
    }

    fn content(body: &[u8]) -> Vec<String> {
        let json: serde_json::Value = serde_json::from_slice(body).unwrap();
        let messages = json["messages"].as_array().unwrap();
        messages.iter().map(|m| m["content"].as_str().unwrap().to_owned()).collect()
    }

    fn common(a: &[u8], b: &[u8]) -> usize {
        a.iter().zip(b).take_while(|(x, y)| x == y).count()
    }

    const SHAPE: Shape = Shape { bytes: 10_000, shared: 0.5, groups: 4, turn_bytes: 700 };

    #[test]
    fn bodies_are_json_of_the_length_asked_for() {
        for bytes in [1024, 10_000, 100_001, 4 << 20] {
            for shared in [0.0, 0.3, 0.99] {
                let prompts = Prompts::new(Shape { bytes, shared, groups: 3, turn_bytes: 0 }, 1, 7);
                for id in 0..5 {
                    let body = whole(prompts.body(id, 0));
                    assert_eq!((body.len(), content(&body).len()), (bytes, 1));
                }
            }
        }
    }

    #[test]
    fn a_group_shares_as_much_as_it_says_and_groups_share_nothing() {
        let prompts = Prompts::new(SHAPE, 1, 7);
        let [a, b, other] = [0, 4, 1].map(|id| whole(prompts.body(id, 0)));
        let shared = common(&a, &b);
        assert!((4_800..5_100).contains(&shared), "{shared}");
        assert!(common(&a, &other) < HEAD.len() + 20, "{}", common(&a, &other));
    }

    #[test]
    fn a_turn_begins_with_the_one_before_it() {
        let prompts = Prompts::new(SHAPE, 4, 7);
        let turns: Vec<_> = (0..4).map(|turn| whole(prompts.body(9, turn))).collect();
        for (turn, pair) in turns.windows(2).enumerate() {
            assert_eq!(pair[1].len(), pair[0].len() + 700);
            assert!(common(&pair[0], &pair[1]) >= pair[0].len() - TAIL.len());
            assert_eq!(content(&pair[1]).len(), 3 + 2 * turn);
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_prompts() {
        let [a, b, c] = [1, 1, 2].map(|seed| whole(Prompts::new(SHAPE, 1, seed).body(3, 0)));
        assert!(a == b && a != c);
    }
}
