//! Token counts out of responses, read while they pass.

mod counts;
mod events;
mod grpc;

use super::json::Lexer;
use super::{Api, Usage};
use counts::Counts;
use events::EventStream;
use grpc::GrpcCounts;

/// Reads the token counts of one response. Its memory does not grow with the response: at most one line of 16 KiB.
#[derive(Debug)]
pub struct UsageReader {
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// Nothing is known about the answer's form.
    Opaque,
    Json {
        lexer: Box<Lexer>,
        counts: Counts,
    },
    Events(Box<EventStream>),
    Grpc(Box<GrpcCounts>),
}

impl UsageReader {
    /// `event_stream` says whether the response's content type is `text/event-stream`.
    pub fn new(api: Api, event_stream: bool) -> Self {
        let form = match api {
            Api::Opaque | Api::CountTokens => Form::Opaque,
            Api::VllmGrpcGenerate | Api::VllmGrpcEmbed => Form::Grpc(Box::new(GrpcCounts::new(api))),
            _ if event_stream => Form::Events(Box::new(EventStream::new(api))),
            _ => Form::Json { lexer: Box::default(), counts: Counts::new(api) },
        };
        Self { form }
    }

    /// Takes the next chunk, of any size. A response that is not in its API's form is no error: nothing is read of it.
    pub fn push(&mut self, chunk: &[u8]) {
        match &mut self.form {
            Form::Opaque => {}
            Form::Json { lexer, counts } => {
                // A problem stays with the scanner: it takes nothing more.
                let _ = lexer.push(chunk, counts);
            }
            Form::Events(events) => events.push(chunk),
            Form::Grpc(frames) => frames.push(chunk),
        }
    }

    /// What was reported so far. Where the engine gave no total it is the sum of prompt and completion.
    pub fn usage(&self) -> Usage {
        let mut usage = match &self.form {
            Form::Opaque => Usage::default(),
            Form::Json { counts, .. } => counts.usage,
            Form::Events(events) => events.usage(),
            Form::Grpc(frames) => frames.usage(),
        };
        if let (None, Some(prompt), Some(completion)) = (usage.total, usage.prompt, usage.completion) {
            usage.total = Some(prompt.saturating_add(completion));
        }
        usage
    }

    /// The response has ended (a last line without its line break counts): what was reported in all.
    pub fn finish(&mut self) -> Usage {
        if let Form::Events(events) = &mut self.form {
            events.finish();
        }
        self.usage()
    }

    /// `data:` lines so far, without the closing `[DONE]`.
    pub fn events(&self) -> u64 {
        match &self.form {
            Form::Events(events) => events.count(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests;
