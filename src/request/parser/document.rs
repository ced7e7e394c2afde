//! Walks a JSON body while it arrives and keeps what scheduling needs of it.

use super::conversation::Conversation;
use super::fields::{self, Slot, TEMPLATE_FIELDS};
use super::inputs::{Accepts, Inputs, whole};
use crate::request::json::{Container, Hashed, Literal, Sink, Structure};
use crate::request::{Api, CacheSalt, SegmentKind};
use std::ops::Range;
use std::sync::Arc;

mod begin;
mod finish;

/// Longest model name.
const MAX_MODEL: usize = 4096;
/// Longest cache salt that is read.
const MAX_SALT: usize = 64 * 1024;

/// A container that is walked through, not just skipped or hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walked {
    Body,
    Messages,
    Message,
    /// A list of parts; a system text ends with it.
    Parts {
        system: bool,
    },
    Part,
    Prompts(Accepts),
    IdList,
    Ids(Accepts),
    Sampling,
}

/// What to do with the value that starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Walk(Walked),
    Hash,
    Capture,
    Text,
    /// A scalar whose value is looked at.
    Scalar,
    Ignore,
}

/// Who gets the tokens of the value that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Walk,
    Hash,
    /// Containers open inside the ignored value.
    Ignore(usize),
}

/// Who gets the pieces of the string that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pieces {
    None,
    Hash,
    Capture,
    Conversation,
    Prompt,
}

/// What is known of the body so far.
#[derive(Debug)]
pub(super) struct Document {
    api: Api,
    mode: Mode,
    walked: Vec<Walked>,
    /// What the next value is; of lists, it follows from the list.
    slot: Slot,
    /// What the value that is hashed or read is.
    current: Slot,
    pieces: Pieces,
    captured: Vec<u8>,
    at: usize,
    structure: Structure,
    /// Whether the system text is being read, not the messages.
    in_system: bool,
    root_key: u64,
    /// First problem of each field of the body. Words only.
    problems: Vec<(u64, &'static str)>,
    not_an_object: bool,

    model: Option<(Arc<str>, Range<usize>)>,
    stream: bool,
    caps: [Option<u64>; 2],
    salt: Option<CacheSalt>,
    tools: Option<Hashed>,
    template: [Option<Hashed>; TEMPLATE_FIELDS.len()],
    system: Conversation,
    messages: Conversation,
    prompt: Inputs,
    ids: Inputs,
    has_items: bool,
}

impl Document {
    pub(super) fn new(api: Api) -> Self {
        Self {
            api,
            mode: Mode::Walk,
            walked: Vec::new(),
            slot: Slot::Root,
            current: Slot::Root,
            pieces: Pieces::None,
            captured: Vec::new(),
            at: 0,
            structure: Structure::default(),
            in_system: false,
            root_key: 0,
            problems: Vec::new(),
            not_an_object: false,
            model: None,
            stream: false,
            caps: [None; 2],
            salt: None,
            tools: None,
            template: [None; TEMPLATE_FIELDS.len()],
            system: Conversation::new(SegmentKind::Template),
            messages: Conversation::new(SegmentKind::Message),
            prompt: Inputs::default(),
            ids: Inputs::default(),
            has_items: false,
        }
    }

    fn conversation(&mut self) -> &mut Conversation {
        if self.in_system { &mut self.system } else { &mut self.messages }
    }

    fn inputs(&mut self, slot: Slot) -> &mut Inputs {
        if matches!(slot, Slot::Ids(_)) { &mut self.ids } else { &mut self.prompt }
    }

    fn problem(&mut self, what: &'static str) {
        let field = self.root_key;
        if !self.problems.iter().any(|(known, _)| *known == field) {
            self.problems.push((field, what));
        }
    }

    /// A key of the body: the last of equal keys wins, so what an earlier one gave is forgotten.
    fn body_key(&mut self, name: &[u8], hash: u64) -> Slot {
        self.root_key = hash;
        self.problems.retain(|(field, _)| *field != hash);
        let slot = fields::of_body(self.api, name);
        match slot {
            Slot::Model => self.model = None,
            Slot::Stream => self.stream = false,
            Slot::Cap(place) => self.caps[place] = None,
            Slot::Salt => self.salt = None,
            Slot::Tools => self.tools = None,
            Slot::Template(place) => self.template[place] = None,
            Slot::System => self.system.reset(),
            Slot::Messages | Slot::Items => {
                self.messages.reset();
                self.has_items = false;
            }
            Slot::Prompt(_) => self.prompt.reset(),
            Slot::Ids(_) => self.ids.reset(),
            Slot::Sampling => self.caps[0] = None,
            _ => {}
        }
        self.in_system = slot == Slot::System;
        slot
    }

    fn inner_key(&mut self, walked: Walked, name: &[u8], hash: u64) -> Slot {
        let slot = match walked {
            Walked::Message => fields::of_message(self.api, name, hash),
            Walked::Part => fields::of_part(name, hash),
            Walked::Sampling => fields::of_sampling(self.api, name),
            _ => Slot::Skip,
        };
        match slot {
            Slot::Content => self.conversation().content_start(),
            Slot::PartText => self.conversation().part_text_start(),
            Slot::Member { key, .. } | Slot::Type(key) | Slot::Media(_, key) => {
                self.conversation().unset(key);
            }
            Slot::Cap(place) => self.caps[place] = None,
            _ => {}
        }
        slot
    }

    /// A container that was walked through ends.
    fn leave(&mut self, walked: Walked) {
        match walked {
            Walked::Message | Walked::Parts { system: true } => self.conversation().message_end(),
            Walked::Part => self.conversation().part_end(),
            _ => {}
        }
    }

    /// A value that was hashed is complete.
    fn hashed(&mut self, value: Hashed) {
        match self.current {
            Slot::Tools => self.tools = Some(value),
            Slot::Template(place) => self.template[place] = Some(value),
            Slot::Member { key, label } => self.conversation().member(key, value, label),
            Slot::Type(key) => {
                let neutral = super::conversation::is_text_type(value.hash)
                    || value.hash == Structure::of_str("message");
                if !neutral {
                    self.conversation().member(key, value, true);
                }
            }
            Slot::Media(media, key) => self.conversation().media(key, media, value),
            _ => {}
        }
    }

    fn check_hashed(&mut self) {
        if let Some(value) = self.structure.done() {
            self.mode = Mode::Walk;
            self.hashed(value);
        }
    }

    fn captured(&mut self, end: usize) {
        let captured = std::mem::take(&mut self.captured);
        match self.current {
            Slot::Model if captured.len() > MAX_MODEL => {
                self.problem("the model name has more than 4096 bytes");
            }
            Slot::Model => {
                if let Ok(name) = std::str::from_utf8(&captured) {
                    self.model = Some((name.into(), self.at..end));
                }
            }
            Slot::Salt if captured.len() > MAX_SALT => {
                self.problem("the cache salt has more than 65536 bytes");
            }
            Slot::Salt if !captured.is_empty() => self.salt = Some(CacheSalt::new(&captured)),
            _ => {}
        }
    }

    fn text_end(&mut self, end: usize) {
        match self.pieces {
            Pieces::Conversation => {
                self.conversation().text_end(end);
                if matches!(self.current, Slot::System | Slot::Items) {
                    self.conversation().message_end();
                }
            }
            Pieces::Prompt => self.prompt.text_end(end),
            _ => {}
        }
    }
}

impl Sink for Document {
    fn open(&mut self, container: Container) {
        match self.mode {
            Mode::Ignore(depth) => self.mode = Mode::Ignore(depth + 1),
            Mode::Hash => self.structure.open(container),
            Mode::Walk => match self.begin(container.into()) {
                Action::Walk(walked) => {
                    self.walked.push(walked);
                    self.enter(walked);
                }
                Action::Hash => {
                    self.mode = Mode::Hash;
                    self.structure.open(container);
                }
                _ => self.mode = Mode::Ignore(1),
            },
        }
    }

    fn close(&mut self) {
        match self.mode {
            Mode::Ignore(1) => self.mode = Mode::Walk,
            Mode::Ignore(depth) => self.mode = Mode::Ignore(depth - 1),
            Mode::Hash => {
                self.structure.close();
                self.check_hashed();
            }
            Mode::Walk => {
                if let Some(walked) = self.walked.pop() {
                    self.leave(walked);
                }
            }
        }
    }

    fn key(&mut self, name: &[u8], hash: u64, len: usize) {
        match self.mode {
            Mode::Ignore(_) => {}
            Mode::Hash => self.structure.key(hash, len),
            Mode::Walk => {
                self.slot = match self.walked.last() {
                    Some(Walked::Body) | None => self.body_key(name, hash),
                    Some(walked) => self.inner_key(*walked, name, hash),
                };
            }
        }
    }

    fn string_start(&mut self, at: usize) {
        self.pieces = match self.mode {
            Mode::Ignore(_) => Pieces::None,
            Mode::Hash => {
                self.structure.string_start();
                Pieces::Hash
            }
            Mode::Walk => self.begin_string(at),
        };
    }

    fn string_piece(&mut self, piece: &[u8]) {
        match self.pieces {
            Pieces::None => {}
            Pieces::Hash => self.structure.string_piece(piece),
            Pieces::Capture => {
                // One byte over the limit shows that it was passed.
                let room = (MAX_SALT + 1).saturating_sub(self.captured.len());
                self.captured.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            Pieces::Conversation => self.conversation().text_piece(piece),
            Pieces::Prompt => self.prompt.text_piece(piece),
        }
    }

    fn string_end(&mut self, end: usize) {
        match self.pieces {
            Pieces::None => {}
            Pieces::Hash => {
                self.structure.string_end();
                self.check_hashed();
            }
            Pieces::Capture => self.captured(end),
            Pieces::Conversation | Pieces::Prompt => self.text_end(end),
        }
        self.pieces = Pieces::None;
    }

    fn number(&mut self, raw: &[u8]) {
        match self.mode {
            Mode::Ignore(_) => {}
            Mode::Hash => self.structure.number(raw),
            Mode::Walk => match self.begin(begin::Kind::Number) {
                Action::Hash => {
                    self.structure.number(raw);
                    self.check_hashed();
                }
                Action::Scalar => match self.current {
                    Slot::Cap(place) => self.caps[place] = whole(raw),
                    slot => {
                        if let Err(what) = self.inputs(slot).id(raw) {
                            self.problem(what);
                        }
                    }
                },
                _ => {}
            },
        }
    }

    fn literal(&mut self, literal: Literal) {
        match self.mode {
            Mode::Ignore(_) => {}
            Mode::Hash => self.structure.literal(literal),
            Mode::Walk => match self.begin(literal.into()) {
                Action::Hash => {
                    self.structure.literal(literal);
                    self.check_hashed();
                }
                Action::Scalar if self.current == Slot::Stream => {
                    self.stream = literal == Literal::True;
                }
                _ => {}
            },
        }
    }
}
