//! From what was read of a JSON body to the parsed request.

use super::Document;
use crate::request::json::{Hashed, Problem, mix};
use crate::request::parser::rope::{Rope, join};
use crate::request::{Api, ParseError, Parsed, Prompt, SegmentKind};

/// Kept apart from every hash of a message.
const TOOLS: u64 = 0x746f_6f6c_7300_0001;
const TEMPLATE: u64 = 0x7465_6d70_6c00_0001;

impl Document {
    /// The body is complete, and `scanned` says whether it is JSON.
    pub(in crate::request::parser) fn finish(
        self,
        scanned: Result<(), Problem>,
    ) -> Result<Parsed, ParseError> {
        if let Err(problem) = scanned {
            return Err(malformed(problem));
        }
        if self.not_an_object {
            return Err(malformed(Problem { what: "the body is not a JSON object", offset: 0 }));
        }
        if let Some((_, what)) = self.problems.first() {
            return Err(self.invalid(what));
        }
        if self.messages.overflown() || self.system.overflown() {
            return Err(self.invalid("more messages and parts than can be kept"));
        }
        match self.missing() {
            Some(what) => Err(self.invalid(what)),
            None => Ok(self.parsed()),
        }
    }

    /// The body was cut, or is not worth refusing: what is known.
    pub(in crate::request::parser) fn finish_cut(mut self) -> Parsed {
        self.messages.cut();
        self.system.cut();
        self.prompt.cut();
        self.parsed()
    }

    fn invalid(&self, what: &str) -> ParseError {
        ParseError::Invalid { api: self.api, problem: what.to_owned() }
    }

    /// The required field that is not there.
    fn missing(&self) -> Option<&'static str> {
        let (there, what) = match self.api {
            Api::ChatCompletions | Api::Messages => {
                (self.messages.count() > 0, "must have valid messages field")
            }
            Api::Conversations => (self.messages.count() > 0, "must have items field"),
            Api::Responses => (self.has_items, "must have input field"),
            Api::Completions | Api::Images => (!self.prompt.is_empty(), "must have prompt field"),
            Api::Embeddings => (!self.prompt.is_empty(), "must have input field"),
            Api::VllmGenerate => (!self.ids.is_empty(), "must have token_ids field"),
            Api::SglangGenerate => {
                (!(self.ids.is_empty() && self.prompt.is_empty()), "must have input_ids or text field")
            }
            _ => (true, ""),
        };
        (!there).then_some(what)
    }

    fn parsed(mut self) -> Parsed {
        let mut parsed = Parsed::opaque(self.api);
        if let Some((model, span)) = self.model.take() {
            parsed.model = Some(model);
            parsed.model_span = Some(span);
        }
        parsed.stream = self.stream;
        let cap = self.caps.iter().flatten().next();
        parsed.max_output_tokens = cap.map(|cap| u32::try_from(*cap).unwrap_or(u32::MAX));
        parsed.cache_salt = self.salt.take();
        parsed.media = self.messages.take_media();
        parsed.prompt = self.prompt();
        parsed
    }

    fn prompt(mut self) -> Prompt {
        if !self.ids.is_empty() {
            return self.ids.into_prompt();
        }
        if !self.prompt.is_empty() {
            return self.prompt.into_prompt();
        }
        let mut head = Rope::default();
        if let Some(tools) = self.tools {
            // An empty list is rendered as none at all.
            if tools.bytes > 2 {
                head.spread(SegmentKind::Tools, mix(TOOLS, tools.hash), tools.hash, tools.bytes);
            }
        }
        if let Some(fields) = self.template_fields() {
            head.spread(SegmentKind::Template, mix(TEMPLATE, fields.hash), fields.hash, fields.bytes);
        }
        let whole = join([head.take(), self.system.take(), self.messages.take()]);
        if whole.segments.is_empty() { Prompt::None } else { Prompt::Text(vec![whole]) }
    }

    /// All template fields as one value; `None` when there is none.
    fn template_fields(&self) -> Option<Hashed> {
        let mut all: Option<Hashed> = None;
        for (place, field) in self.template.iter().enumerate() {
            if let Some(field) = field {
                let known = all.unwrap_or(Hashed { hash: 0, bytes: 0 });
                all = Some(Hashed {
                    hash: mix(mix(known.hash, place as u64), field.hash),
                    bytes: known.bytes + field.bytes,
                });
            }
        }
        all
    }
}

fn malformed(problem: Problem) -> ParseError {
    ParseError::Malformed { problem: problem.what.to_owned(), offset: problem.offset }
}
