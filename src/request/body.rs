//! A request body as the chunks in which it came.

use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

/// A body, never joined and never copied: chunks in order, empty ones left out.
#[derive(Clone, Debug, Default)]
pub struct Body {
    chunks: Vec<Bytes>,
    len: usize,
}

impl Body {
    /// Appends a chunk.
    pub fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        if !chunk.is_empty() {
            self.chunks.push(chunk);
        }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunks in order.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The same body with the bytes of `span` replaced. What stands around it is shared, not copied. A span that
    /// reaches over the end is cut to it.
    pub fn splice(&self, span: Range<usize>, replacement: Bytes) -> Body {
        let end = span.end.min(self.len);
        let start = span.start.min(end);
        let mut out = Body { chunks: Vec::with_capacity(self.chunks.len() + 2), len: 0 };
        self.slice_into(0..start, &mut out);
        out.push(replacement);
        self.slice_into(end..self.len, &mut out);
        out
    }

    /// Pieces of at most `max` bytes (1 at least), each a slice of one chunk: a border of two chunks is also one of two
    /// pieces. An empty body has none.
    pub fn pieces(self, max: usize) -> Pieces {
        Pieces { chunks: self.chunks.into(), max: max.max(1) }
    }

    fn slice_into(&self, span: Range<usize>, out: &mut Body) {
        let mut at = 0;
        for chunk in &self.chunks {
            let (from, to) = (span.start.max(at), span.end.min(at + chunk.len()));
            if from < to {
                out.push(chunk.slice(from - at..to - at));
            }
            at += chunk.len();
            if at >= span.end {
                break;
            }
        }
    }
}

/// Iterator of [`Body::pieces`].
#[derive(Debug)]
pub struct Pieces {
    chunks: VecDeque<Bytes>,
    max: usize,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let front = self.chunks.front_mut()?;
        if front.len() > self.max {
            return Some(front.split_to(self.max));
        }
        self.chunks.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(bytes: &[u8], cut: usize) -> Body {
        let mut body = Body::default();
        for chunk in bytes.chunks(cut) {
            body.push(Bytes::copy_from_slice(chunk));
        }
        body
    }

    proptest! {
        #[test]
        fn splicing_equals_cutting_the_joined_body(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in 1usize..40, a in 0usize..220, b in 0usize..220, max in 0usize..50,
        ) {
            let (from, to) = (a.min(b), a.max(b));
            let spliced = body(&bytes, cut).splice(from..to, Bytes::from_static(b"new"));
            let (from, to) = (from.min(bytes.len()), to.min(bytes.len()));
            let wanted = [&bytes[..from], b"new", &bytes[to..]].concat();
            prop_assert_eq!(spliced.len(), wanted.len());
            let pieces: Vec<Bytes> = spliced.pieces(max).collect();
            prop_assert!(pieces.iter().all(|p| !p.is_empty() && p.len() <= max.max(1)));
            prop_assert_eq!(pieces.concat(), wanted);
        }
    }

    #[test]
    fn an_empty_body_has_no_pieces() {
        let mut body = Body::default();
        body.push(Bytes::new());
        assert!(body.is_empty());
        assert_eq!(body.pieces(10).count(), 0);
    }

    #[test]
    fn pieces_share_the_memory_of_their_chunk() {
        let chunk = Bytes::from(vec![7u8; 100]);
        let start = chunk.as_ptr();
        let mut body = Body::default();
        body.push(chunk);
        assert_eq!(body.pieces(60).map(|p| p.as_ptr()).collect::<Vec<_>>(), [start, start.wrapping_add(60)]);
    }
}
