//! What to do with a value, by what it is for and what type it has.

use super::{Action, Document, Pieces, Walked};
use crate::request::json::{Container, Literal};
use crate::request::parser::fields::{Shape, Slot, TEMPLATE_FIELDS};
use crate::request::parser::inputs::{Accepts, Item};

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool(bool),
    Null,
}

impl From<Container> for Kind {
    fn from(container: Container) -> Self {
        match container {
            Container::Array => Self::Array,
            Container::Object => Self::Object,
        }
    }
}

impl From<Literal> for Kind {
    fn from(literal: Literal) -> Self {
        match literal {
            Literal::Null => Self::Null,
            Literal::True => Self::Bool(true),
            Literal::False => Self::Bool(false),
        }
    }
}

const CACHE_CONTROL: &[u8] = b"cache_control";

impl Document {
    /// What the value that starts is for.
    fn next_slot(&self) -> Slot {
        match self.walked.last() {
            Some(Walked::Messages) => Slot::Message,
            Some(Walked::Parts { .. }) => Slot::Part,
            Some(Walked::Prompts(accepts)) => Slot::Prompt(*accepts),
            Some(Walked::Ids(accepts)) => Slot::Ids(*accepts),
            _ => self.slot,
        }
    }

    /// Decides about the value that starts.
    pub(super) fn begin(&mut self, kind: Kind) -> Action {
        self.current = self.next_slot();
        let action = match self.walked.last() {
            Some(Walked::Prompts(accepts) | Walked::Ids(accepts)) => self.element(kind, *accepts),
            Some(Walked::IdList) => self.listed_id(kind),
            _ => self.value(kind),
        };
        if action == Action::Hash {
            // Tools carry marks that tell the engine where to cache; they are no part of the prompt.
            let ignored =
                (self.current == Slot::Tools).then(|| (xxhash_rust::xxh64::xxh64(CACHE_CONTROL, 0), 2));
            self.structure.start(ignored);
        }
        action
    }

    fn value(&mut self, kind: Kind) -> Action {
        match (self.current, kind) {
            (Slot::Skip, _) => Action::Ignore,
            (Slot::Root, Kind::Object) => Action::Walk(Walked::Body),
            (Slot::Root, _) => {
                self.not_an_object = true;
                Action::Ignore
            }
            (Slot::Model, Kind::String) | (Slot::Salt, Kind::String) => Action::Capture,
            (Slot::Stream, Kind::Bool(_)) | (Slot::Cap(_), Kind::Number) => Action::Scalar,
            (Slot::Model | Slot::Stream | Slot::Cap(_), _) => Action::Ignore,
            (Slot::Sampling, Kind::Object) => Action::Walk(Walked::Sampling),
            (Slot::Sampling, _) => Action::Ignore,
            (Slot::Message, Kind::Object) => Action::Walk(Walked::Message),
            (Slot::Part, Kind::Object) => Action::Walk(Walked::Part),
            (Slot::Message | Slot::Part, _) => self.refuse(),
            (_, Kind::Null) => Action::Ignore,
            (Slot::Template(place), _) => self.template_field(TEMPLATE_FIELDS[place].1, kind),
            (Slot::Tools, Kind::Array) => Action::Hash,
            (Slot::Member { .. } | Slot::Type(_) | Slot::Media(..), _) => Action::Hash,
            (Slot::Messages | Slot::Items, Kind::Array) => {
                self.has_items = true;
                Action::Walk(Walked::Messages)
            }
            (Slot::Content, Kind::Array) => Action::Walk(Walked::Parts { system: false }),
            (Slot::System, Kind::Array) => Action::Walk(Walked::Parts { system: true }),
            (Slot::Content | Slot::System | Slot::PartText | Slot::Items, Kind::String) => Action::Text,
            (Slot::Prompt(accepts), Kind::String) if accepts.texts() => Action::Text,
            (Slot::Prompt(accepts), Kind::Array) if accepts != Accepts::Text => {
                Action::Walk(Walked::Prompts(accepts))
            }
            (Slot::Ids(accepts), Kind::Array) => Action::Walk(Walked::Ids(accepts)),
            _ => self.refuse(),
        }
    }

    fn template_field(&mut self, shape: Shape, kind: Kind) -> Action {
        match (shape, kind) {
            (Shape::Flag(default), Kind::Bool(value)) if value == default => Action::Ignore,
            (Shape::Any, _)
            | (Shape::Text, Kind::String)
            | (Shape::List, Kind::Array)
            | (Shape::Map, Kind::Object)
            | (Shape::Flag(_), Kind::Bool(_)) => Action::Hash,
            _ => self.refuse(),
        }
    }

    /// An element of a list of prompts.
    fn element(&mut self, kind: Kind, accepts: Accepts) -> Action {
        let (item, action) = match kind {
            Kind::String => (Item::Text, Action::Text),
            Kind::Number => (Item::Id, Action::Scalar),
            Kind::Array => (Item::Ids, Action::Walk(Walked::IdList)),
            _ => return self.refuse(),
        };
        let slot = self.current;
        match self.inputs(slot).element(item, accepts) {
            Ok(()) => action,
            Err(what) => {
                self.problem(what);
                Action::Ignore
            }
        }
    }

    fn listed_id(&mut self, kind: Kind) -> Action {
        // The list around this one says whose ids they are.
        let around = self.walked.len().checked_sub(2).and_then(|at| self.walked.get(at));
        self.current = match around {
            Some(Walked::Ids(accepts)) => Slot::Ids(*accepts),
            _ => Slot::Prompt(Accepts::Any),
        };
        if kind == Kind::Number { Action::Scalar } else { self.refuse() }
    }

    /// The value has a type that its field cannot have.
    fn refuse(&mut self) -> Action {
        self.problem(match self.current {
            Slot::Messages => "must have valid messages field",
            Slot::Message => "every message must be an object",
            Slot::Part => "every content part must be an object",
            Slot::Content => "content must be a string, a list of parts or null",
            Slot::PartText => "the text of a content part must be a string",
            Slot::System => "system text must be a string or a list of parts",
            Slot::Items => "input must be a string or a list of items",
            Slot::Tools => "tools must be a list",
            Slot::Salt => "the cache salt must be a string",
            Slot::Template(place) => TEMPLATE_FIELDS[place].2,
            _ => "the prompt must be a string, a list of strings or a list of token ids",
        });
        Action::Ignore
    }

    /// A string value starts at `at`, in a place that is walked.
    pub(super) fn begin_string(&mut self, at: usize) -> Pieces {
        match self.begin(Kind::String) {
            Action::Hash => {
                self.structure.string_start();
                Pieces::Hash
            }
            Action::Capture => {
                self.captured.clear();
                self.at = at;
                Pieces::Capture
            }
            Action::Text => self.begin_text(at),
            _ => Pieces::None,
        }
    }

    fn begin_text(&mut self, at: usize) -> Pieces {
        if matches!(self.current, Slot::Prompt(_) | Slot::Ids(_)) {
            self.prompt.text_start(at);
            return Pieces::Prompt;
        }
        match self.current {
            Slot::System => self.enter(Walked::Parts { system: true }),
            Slot::Items => self.text_item(),
            _ => {}
        }
        self.conversation().text_start(at);
        Pieces::Conversation
    }

    /// A container that is walked through starts.
    pub(super) fn enter(&mut self, walked: Walked) {
        match walked {
            Walked::Message => self.conversation().message_start(),
            Walked::Parts { system: true } => {
                self.conversation().message_start();
                self.label(b"role", "system");
            }
            Walked::Part => self.conversation().part_start(),
            _ => {}
        }
    }

    /// The whole input is one text, which means the same as one message of the user.
    fn text_item(&mut self) {
        self.has_items = true;
        self.conversation().message_start();
        self.label(b"role", "user");
    }

    fn label(&mut self, key: &[u8], value: &str) {
        use crate::request::json::{Hashed, Structure};
        let value = Hashed { hash: Structure::of_str(value), bytes: 0 };
        self.conversation().member(xxhash_rust::xxh64::xxh64(key, 0), value, true);
    }
}
