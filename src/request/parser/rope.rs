//! Hashes the text of a prompt into base blocks, segment by segment, while it arrives.

use crate::request::json::mix;
use crate::request::{BASE_BLOCK_BYTES, Segment, SegmentKind, TextPrompt};
use xxhash_rust::xxh64::xxh64;

/// Most segments of one prompt; more is refused, since each costs memory that its few bytes of body do not show.
pub(super) const MAX_SEGMENTS: usize = 65_536;

/// Cuts a text into base blocks and hashes them. Whole blocks are hashed where they lie; only what a piece border cuts
/// is copied.
#[derive(Debug)]
struct BlockHasher {
    buffer: [u8; BASE_BLOCK_BYTES],
    fill: usize,
}

impl BlockHasher {
    fn push(&mut self, mut piece: &[u8], blocks: &mut Vec<u64>) {
        if self.fill > 0 {
            let (head, rest) = piece.split_at(piece.len().min(BASE_BLOCK_BYTES - self.fill));
            self.buffer[self.fill..self.fill + head.len()].copy_from_slice(head);
            self.fill += head.len();
            piece = rest;
            if self.fill < BASE_BLOCK_BYTES {
                return;
            }
            blocks.push(xxh64(&self.buffer, 0));
            self.fill = 0;
        }
        let mut whole = piece.chunks_exact(BASE_BLOCK_BYTES);
        blocks.extend(whole.by_ref().map(|block| xxh64(block, 0)));
        let rest = whole.remainder();
        self.buffer[..rest.len()].copy_from_slice(rest);
        self.fill = rest.len();
    }

    fn finish(&mut self, blocks: &mut Vec<u64>) {
        if self.fill > 0 {
            blocks.push(xxh64(&self.buffer[..self.fill], 0));
            self.fill = 0;
        }
    }
}

/// Segments in the making.
#[derive(Debug)]
pub(super) struct Rope {
    prompt: TextPrompt,
    hasher: BlockHasher,
    /// The text that is open: where it starts in the body, its first block, its bytes.
    open: Option<(usize, usize, usize)>,
    overflow: bool,
}

/// A place in a rope to go back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) segments: usize,
    blocks: usize,
}

impl Default for Rope {
    fn default() -> Self {
        Self {
            prompt: TextPrompt::default(),
            hasher: BlockHasher { buffer: [0; BASE_BLOCK_BYTES], fill: 0 },
            open: None,
            overflow: false,
        }
    }
}

impl Rope {
    pub(super) fn mark(&self) -> Mark {
        Mark { segments: self.prompt.segments.len(), blocks: self.prompt.blocks.len() }
    }
    /// Forgets everything after `mark`.
    pub(super) fn back_to(&mut self, mark: Mark) {
        self.prompt.segments.truncate(mark.segments);
        self.prompt.blocks.truncate(mark.blocks);
        self.hasher.fill = 0;
        self.open = None;
    }
    /// Whether there were more than [`MAX_SEGMENTS`].
    pub(super) fn overflown(&self) -> bool {
        self.overflow
    }
    pub(super) fn segments(&mut self) -> &mut [Segment] {
        &mut self.prompt.segments
    }
    pub(super) fn take(&mut self) -> TextPrompt {
        std::mem::take(&mut self.prompt)
    }

    /// A text starts; `at` is the offset of its opening quote.
    pub(super) fn text_start(&mut self, at: usize) {
        self.hasher.fill = 0;
        self.open = Some((at, self.prompt.blocks.len(), 0));
    }
    pub(super) fn text_piece(&mut self, piece: &[u8]) {
        if let Some((_, _, bytes)) = &mut self.open {
            *bytes += piece.len();
            self.hasher.push(piece, &mut self.prompt.blocks);
        }
    }
    /// The text is complete and becomes a segment, unless it is empty.
    pub(super) fn text_end(&mut self, kind: SegmentKind, end: usize) {
        self.hasher.finish(&mut self.prompt.blocks);
        if let Some((at, from, bytes)) = self.open.take()
            && bytes > 0
        {
            self.push(kind, 0, from, bytes, at..end);
        }
    }
    /// The body was cut inside a text: its whole blocks become a segment.
    pub(super) fn text_cut(&mut self, kind: SegmentKind) {
        if let Some((_, from, bytes)) = self.open.take() {
            let bytes = bytes - self.hasher.fill;
            self.hasher.fill = 0;
            if bytes > 0 {
                self.push(kind, 0, from, bytes, 0..0);
            }
        }
    }
    /// A value known by one hash becomes a segment of as many blocks as text of its size would have.
    pub(super) fn spread(&mut self, kind: SegmentKind, meta: u64, hash: u64, bytes: usize) {
        let from = self.prompt.blocks.len();
        let blocks = bytes.div_ceil(BASE_BLOCK_BYTES) as u64;
        self.prompt.blocks.extend((0..blocks).map(|index| mix(hash, index)));
        self.push(kind, meta, from, bytes, 0..0);
    }

    fn push(
        &mut self,
        kind: SegmentKind,
        meta: u64,
        from: usize,
        bytes: usize,
        span: std::ops::Range<usize>,
    ) {
        if self.prompt.segments.len() < MAX_SEGMENTS {
            let blocks = from..self.prompt.blocks.len();
            self.prompt.segments.push(Segment { kind, meta, blocks, bytes, span });
        } else {
            self.prompt.blocks.truncate(from);
            self.overflow = true;
        }
    }
}

/// Puts the segments of `parts` one after another.
pub(super) fn join(parts: impl IntoIterator<Item = TextPrompt>) -> TextPrompt {
    let mut whole = TextPrompt::default();
    for part in parts {
        if whole.segments.is_empty() {
            whole = part;
            continue;
        }
        let shift = whole.blocks.len();
        whole.blocks.extend_from_slice(&part.blocks);
        whole.segments.extend(part.segments.into_iter().map(|mut segment| {
            segment.blocks = segment.blocks.start + shift..segment.blocks.end + shift;
            segment
        }));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hashed(text: &[u8], cuts: &[usize]) -> TextPrompt {
        let mut rope = Rope::default();
        rope.text_start(0);
        let mut rest = text;
        for cut in cuts {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            rope.text_piece(piece);
            rest = after;
        }
        rope.text_piece(rest);
        rope.text_end(SegmentKind::Input, text.len() + 2);
        rope.take()
    }

    proptest! {
        #[test]
        fn pieces_do_not_show(
            text in proptest::collection::vec(any::<u8>(), 1..2000),
            cuts in proptest::collection::vec(0usize..700, 0..8),
        ) {
            let prompt = hashed(&text, &cuts);
            let wanted: Vec<u64> = text.chunks(BASE_BLOCK_BYTES).map(|b| xxh64(b, 0)).collect();
            prop_assert_eq!(&prompt.blocks, &wanted);
            prop_assert_eq!(prompt.segments[0].bytes, text.len());
        }
    }

    #[test]
    fn a_cut_text_keeps_its_whole_blocks_only() {
        let mut rope = Rope::default();
        rope.text_start(5);
        rope.text_piece(&[b'a'; 600]);
        rope.text_cut(SegmentKind::Input);
        let prompt = rope.take();
        assert_eq!((prompt.blocks.len(), prompt.segments[0].bytes), (2, 512));
    }

    #[test]
    fn going_back_forgets_blocks_and_segments() {
        let mut rope = Rope::default();
        rope.spread(SegmentKind::Tools, 1, 2, 300);
        let mark = rope.mark();
        rope.spread(SegmentKind::Message, 1, 2, 700);
        rope.back_to(mark);
        let prompt = rope.take();
        assert_eq!((prompt.blocks.len(), prompt.segments.len()), (2, 1));
        assert_ne!(prompt.blocks[0], prompt.blocks[1]);
    }

    #[test]
    fn joined_segments_keep_their_blocks() {
        let (a, b) = (hashed(&[b'a'; 300], &[]), hashed(&[b'b'; 10], &[]));
        let whole = join([a.clone(), TextPrompt::default(), b.clone()]);
        assert_eq!(whole.blocks, [a.blocks, b.blocks].concat());
        assert_eq!(whole.segments[1].blocks, 2..3);
    }

    #[test]
    fn segments_are_bounded() {
        let mut rope = Rope::default();
        (0..=MAX_SEGMENTS).for_each(|i| rope.spread(SegmentKind::Message, 1, i as u64, 1));
        assert!(rope.overflown());
        assert_eq!(rope.take().blocks.len(), MAX_SEGMENTS);
    }
}
