//! Prompts that are plain text or token ids: one, or a list.

use super::rope::Rope;
use crate::request::{Prompt, SegmentKind, TextPrompt};

/// Most prompts of one request.
const MAX_PROMPTS: usize = 16_384;
/// Most token ids of one request: 32 MiB, and more than any model takes.
pub(super) const MAX_IDS: usize = 8 << 20;

/// What a field may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepts {
    /// A text.
    Text,
    /// A text or a list of texts.
    Texts,
    /// A list of token ids.
    Ids,
    /// A list of token ids or a list of such lists.
    IdLists,
    /// All of it.
    Any,
}

impl Accepts {
    pub(super) fn texts(self) -> bool {
        matches!(self, Self::Text | Self::Texts | Self::Any)
    }
    fn list(self, item: Item) -> bool {
        match item {
            Item::Text => matches!(self, Self::Texts | Self::Any),
            Item::Id => matches!(self, Self::Ids | Self::IdLists | Self::Any),
            Item::Ids => matches!(self, Self::IdLists | Self::Any),
        }
    }
}

/// What a list holds, as its first element says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Texts.
    Text,
    /// Token ids.
    Id,
    /// Lists of token ids.
    Ids,
}

/// A problem in words.
pub(super) type Said = Result<(), &'static str>;

/// The prompts of one field.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    texts: Vec<TextPrompt>,
    ids: Vec<Vec<u32>>,
    /// Ids in all lists.
    known: usize,
    item: Option<Item>,
    rope: Rope,
}

impl Inputs {
    /// The field stands again.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// An element of the list starts.
    pub(super) fn element(&mut self, item: Item, accepts: Accepts) -> Said {
        if !accepts.list(item) {
            return Err("the prompt has elements of a type that is not accepted here");
        }
        match self.item {
            None => self.item = Some(item),
            Some(first) if first != item => return Err("the prompt mixes types"),
            Some(_) => {}
        }
        if item == Item::Ids || (item == Item::Id && self.ids.is_empty()) {
            self.ids.push(Vec::new());
        }
        if self.ids.len().max(self.texts.len()) >= MAX_PROMPTS {
            return Err("more prompts than can be kept");
        }
        Ok(())
    }

    /// A token id, for the list that is open.
    pub(super) fn id(&mut self, raw: &[u8]) -> Said {
        let id = whole(raw).and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or("a token id is not a whole number in 32 bits")?;
        if self.known == MAX_IDS {
            return Err("more token ids than can be kept");
        }
        if let Some(list) = self.ids.last_mut() {
            self.known += 1;
            list.push(id);
        }
        Ok(())
    }

    pub(super) fn text_start(&mut self, at: usize) {
        self.rope.text_start(at);
    }
    pub(super) fn text_piece(&mut self, piece: &[u8]) {
        self.rope.text_piece(piece);
    }
    pub(super) fn text_end(&mut self, end: usize) {
        self.rope.text_end(SegmentKind::Input, end);
        let text = self.rope.take();
        self.texts.push(text);
    }
    /// The body was cut.
    pub(super) fn cut(&mut self) {
        self.rope.text_cut(SegmentKind::Input);
        let text = self.rope.take();
        if !text.segments.is_empty() {
            self.texts.push(text);
        }
    }

    /// Whether nothing was given: no field, an empty text or an empty list.
    pub(super) fn is_empty(&self) -> bool {
        let no_text = match &*self.texts {
            [] => true,
            [one] => one.segments.is_empty() && self.item.is_none(),
            _ => false,
        };
        no_text && self.ids.iter().all(Vec::is_empty)
    }

    /// The prompt.
    pub(super) fn into_prompt(self) -> Prompt {
        match (self.texts.is_empty(), self.ids.is_empty()) {
            (_, false) => Prompt::Tokens(self.ids),
            (false, true) => Prompt::Text(self.texts),
            (true, true) => Prompt::None,
        }
    }
}

/// The value of a JSON number that is whole and not negative, in any spelling (`16`, `16.0`, `1.6e1`).
pub(super) fn whole(raw: &[u8]) -> Option<u64> {
    let digits = |value: u64, b: &u8| {
        b.is_ascii_digit().then(|| value.checked_mul(10)?.checked_add(u64::from(b - b'0'))).flatten()
    };
    if let Some(value) = raw.iter().try_fold(0, digits) {
        return Some(value);
    }
    let value: f64 = std::str::from_utf8(raw).ok()?.parse().ok()?;
    // Above 2^53 a double is no longer exact; the cast saturates.
    (value >= 0.0 && value.fract() == 0.0).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_in_any_spelling() {
        for (raw, wanted) in [
            ("0", Some(0)),
            ("16", Some(16)),
            ("16.0", Some(16)),
            ("1.6e1", Some(16)),
            ("-0", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("1e400", None),
            ("4294967296", Some(1 << 32)),
        ] {
            assert_eq!(whole(raw.as_bytes()), wanted, "{raw}");
        }
        assert_eq!(whole(b"99999999999999999999999"), Some(u64::MAX));
    }
}
