//! Messages (or system texts) in the making: text into blocks, everything else into one hash a message.

use super::rope::{Mark, Rope};
use crate::request::json::{Hashed, Members, Structure, mix};
use crate::request::{MAX_MEDIA, SegmentKind, TextPrompt};

/// What a content part shows besides text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// An image.
    Image,
    /// A sound.
    Audio,
    /// A film.
    Video,
}

impl Media {
    /// Bytes that it counts for: its tokens at four bytes each. An image of 640x360 at 1,024 pixels a token, 10 s of film
    /// as two such frames a second, and a short sound; the picker does not decode media.
    fn bytes(self) -> usize {
        match self {
            Self::Image => 900,
            Self::Audio => 2_000,
            Self::Video => 18_000,
        }
    }
}

/// A list of messages. A message of one text part equals one whose content is that text.
#[derive(Debug)]
pub(super) struct Conversation {
    kind: SegmentKind,
    rope: Rope,
    count: usize,
    message: Members,
    message_from: Option<Mark>,
    part: Members,
    part_from: Option<Mark>,
    media: usize,
    /// Hash of what the open part shows.
    shown: Option<u64>,
    /// Hashes of what the parts up to now show, and how many there were when the open message began.
    media_hashes: Vec<u64>,
    message_media: usize,
}

impl Conversation {
    pub(super) fn new(kind: SegmentKind) -> Self {
        Self {
            kind,
            rope: Rope::default(),
            count: 0,
            message: Members::default(),
            message_from: None,
            part: Members::default(),
            part_from: None,
            media: 0,
            shown: None,
            media_hashes: Vec::new(),
            message_media: 0,
        }
    }

    /// Messages so far.
    pub(super) fn count(&self) -> usize {
        self.count
    }
    /// Whether it has more parts than can be kept.
    pub(super) fn overflown(&self) -> bool {
        self.rope.overflown()
    }
    /// All that was read.
    pub(super) fn take(&mut self) -> TextPrompt {
        self.rope.take()
    }
    /// Hashes of the distinct pictures, sounds and films.
    pub(super) fn take_media(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.media_hashes)
    }
    /// The field stands again: what came before does not count.
    pub(super) fn reset(&mut self) {
        self.rope.back_to(Mark::default());
        self.count = 0;
        (self.message_from, self.part_from) = (None, None);
        self.media_hashes.clear();
    }

    pub(super) fn message_start(&mut self) {
        self.count += 1;
        self.message.clear();
        self.message_from = Some(self.rope.mark());
        self.message_media = self.media_hashes.len();
    }
    /// `content` starts, maybe again.
    pub(super) fn content_start(&mut self) {
        if let Some(mark) = self.message_from {
            self.rope.back_to(mark);
            self.media_hashes.truncate(self.message_media);
        }
    }
    /// Forgets a member of the part or message that is open.
    pub(super) fn unset(&mut self, key: u64) {
        self.members().unset(key);
    }
    /// A member besides text; its bytes count as content unless they only label it.
    pub(super) fn member(&mut self, key: u64, value: Hashed, label: bool) {
        let bytes = if label { 0 } else { value.bytes };
        self.members().set(key, value.hash, bytes);
    }
    fn members(&mut self) -> &mut Members {
        if self.part_from.is_some() { &mut self.part } else { &mut self.message }
    }
    pub(super) fn message_end(&mut self) {
        let Some(from) = self.message_from.take() else { return };
        let (meta, bytes) = (self.message.hash(), self.message.bytes());
        if bytes > 0 {
            self.rope.spread(self.kind, 0, meta, bytes);
        }
        match self.rope.segments().get_mut(from.segments) {
            Some(first) if first.meta == 0 => first.meta = meta,
            Some(first) => first.meta = mix(meta, first.meta),
            None => self.rope.spread(self.kind, meta, 0, 0),
        }
    }

    pub(super) fn part_start(&mut self) {
        self.part.clear();
        self.media = 0;
        self.shown = None;
        self.part_from = Some(self.rope.mark());
    }
    /// The part's text starts, maybe again.
    pub(super) fn part_text_start(&mut self) {
        if let Some(mark) = self.part_from {
            self.rope.back_to(mark);
        }
    }
    /// The part shows something.
    pub(super) fn media(&mut self, key: u64, media: Media, value: Hashed) {
        self.part.set(key, value.hash, 0);
        self.media = media.bytes();
        self.shown = Some(value.hash);
    }
    pub(super) fn part_end(&mut self) {
        let Some(from) = self.part_from.take() else { return };
        if let Some(hash) = self.shown.take()
            && self.media_hashes.len() < MAX_MEDIA
            && !self.media_hashes.contains(&hash)
        {
            self.media_hashes.push(hash);
        }
        let (meta, bytes) = (self.part.hash(), self.part.bytes() + self.media);
        let kind = self.kind;
        if let Some(text) = self.rope.segments().get_mut(from.segments) {
            text.meta = meta;
            if bytes > 0 {
                self.rope.spread(kind, 0, meta, bytes);
            }
        } else if meta != 0 {
            self.rope.spread(kind, meta, meta, bytes);
        }
    }

    pub(super) fn text_start(&mut self, at: usize) {
        self.rope.text_start(at);
    }
    pub(super) fn text_piece(&mut self, piece: &[u8]) {
        self.rope.text_piece(piece);
    }
    pub(super) fn text_end(&mut self, end: usize) {
        self.rope.text_end(self.kind, end);
    }
    /// The body was cut: what is open ends here.
    pub(super) fn cut(&mut self) {
        self.rope.text_cut(self.kind);
        self.part_end();
        self.message_end();
    }
}

/// Whether a part of this type is plain text, as which its type does not show.
pub(super) fn is_text_type(hash: u64) -> bool {
    ["text", "input_text", "output_text"].iter().any(|name| Structure::of_str(name) == hash)
}
