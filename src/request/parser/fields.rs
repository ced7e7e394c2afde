//! Which key of which API means what.

use super::conversation::Media;
use super::inputs::Accepts;
use crate::request::Api;

/// What the next value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// The body itself.
    Root,
    /// Nothing that matters here.
    Skip,
    /// The model's name.
    Model,
    /// Whether the answer is to be streamed.
    Stream,
    /// A cap on output tokens; the lower number wins.
    Cap(usize),
    /// The cache salt.
    Salt,
    /// The list of tools.
    Tools,
    /// A field of the chat template, by its place in [`TEMPLATE_FIELDS`].
    Template(usize),
    /// System text: a string or a list of parts.
    System,
    /// The list of messages.
    Messages,
    /// Messages, or one text.
    Items,
    /// Prompts as texts or token ids.
    Prompt(Accepts),
    /// Token ids beside a text field.
    Ids(Accepts),
    /// An object that holds the cap.
    Sampling,
    /// One message.
    Message,
    /// A message's content.
    Content,
    /// Another member of a message or part, by the hash of its key. A label counts for no bytes.
    Member {
        /// Hash of the key.
        key: u64,
        /// Whether it only labels.
        label: bool,
    },
    /// The `type` of a message or part.
    Type(u64),
    /// One content part.
    Part,
    /// A part's text.
    PartText,
    /// Something shown.
    Media(Media, u64),
}

/// Type that a template field must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Anything.
    Any,
    /// A string.
    Text,
    /// A list.
    List,
    /// An object.
    Map,
    /// A boolean; this one is the default and counts as absent.
    Flag(bool),
}

/// Fields that shape the chat template, and what is said when their type is wrong.
pub(super) const TEMPLATE_FIELDS: [(&[u8], Shape, &str); 7] = [
    (b"chat_template", Shape::Text, "chat_template must be a string"),
    (b"chat_template_kwargs", Shape::Map, "chat_template_kwargs must be an object"),
    (b"documents", Shape::List, "documents must be a list"),
    (b"add_generation_prompt", Shape::Flag(true), "add_generation_prompt must be a boolean"),
    (b"continue_final_message", Shape::Flag(false), "continue_final_message must be a boolean"),
    (b"reasoning_effort", Shape::Any, ""),
    (b"mm_processor_kwargs", Shape::Any, ""),
];

/// What a member of the body is.
pub(super) fn of_body(api: Api, key: &[u8]) -> Slot {
    match key {
        b"model" if api != Api::SglangGenerate => return Slot::Model,
        b"stream" => return Slot::Stream,
        b"cache_salt" if api != Api::SglangGenerate => return Slot::Salt,
        _ => {}
    }
    match api {
        Api::ChatCompletions => of_chat(key),
        Api::Completions => match key {
            b"prompt" => Slot::Prompt(Accepts::Any),
            b"max_tokens" => Slot::Cap(0),
            _ => Slot::Skip,
        },
        Api::Embeddings if key == b"input" => Slot::Prompt(Accepts::Any),
        Api::Images if key == b"prompt" => Slot::Prompt(Accepts::Text),
        Api::Responses => match key {
            b"input" => Slot::Items,
            b"instructions" => Slot::System,
            b"tools" => Slot::Tools,
            b"max_output_tokens" => Slot::Cap(0),
            _ => Slot::Skip,
        },
        Api::Conversations if key == b"items" => Slot::Messages,
        Api::Messages | Api::CountTokens => match key {
            b"messages" => Slot::Messages,
            b"system" => Slot::System,
            b"tools" => Slot::Tools,
            b"max_tokens" => Slot::Cap(0),
            _ => Slot::Skip,
        },
        Api::VllmGenerate => match key {
            b"token_ids" => Slot::Ids(Accepts::Ids),
            b"sampling_params" => Slot::Sampling,
            _ => Slot::Skip,
        },
        Api::SglangGenerate => match key {
            b"input_ids" => Slot::Ids(Accepts::IdLists),
            b"text" => Slot::Prompt(Accepts::Texts),
            b"extra_key" => Slot::Salt,
            b"sampling_params" => Slot::Sampling,
            _ => Slot::Skip,
        },
        _ => Slot::Skip,
    }
}

fn of_chat(key: &[u8]) -> Slot {
    match key {
        b"messages" => Slot::Messages,
        b"tools" => Slot::Tools,
        b"max_completion_tokens" => Slot::Cap(0),
        b"max_tokens" => Slot::Cap(1),
        _ => TEMPLATE_FIELDS.iter().position(|(name, ..)| *name == key).map_or(Slot::Skip, Slot::Template),
    }
}

/// What a member of a message is. Marks that tell an engine where to cache are no part of the prompt: clients move them
/// with every turn. Ids that a server gave to items are not rendered.
pub(super) fn of_message(api: Api, key: &[u8], hash: u64) -> Slot {
    match key {
        b"content" => Slot::Content,
        b"cache_control" => Slot::Skip,
        b"id" | b"status" if matches!(api, Api::Responses | Api::Conversations) => Slot::Skip,
        b"type" => Slot::Type(hash),
        b"role" | b"name" | b"call_id" | b"tool_call_id" => Slot::Member { key: hash, label: true },
        _ => Slot::Member { key: hash, label: false },
    }
}

/// What a member of a content part is.
pub(super) fn of_part(key: &[u8], hash: u64) -> Slot {
    match key {
        b"text" => Slot::PartText,
        b"type" => Slot::Type(hash),
        b"cache_control" => Slot::Skip,
        b"image_url" | b"source" | b"input_image" => Slot::Media(Media::Image, hash),
        b"input_audio" | b"audio_url" => Slot::Media(Media::Audio, hash),
        b"video_url" => Slot::Media(Media::Video, hash),
        b"id" | b"name" | b"tool_use_id" | b"is_error" | b"signature" => {
            Slot::Member { key: hash, label: true }
        }
        _ => Slot::Member { key: hash, label: false },
    }
}

/// What a member of the sampling parameters is.
pub(super) fn of_sampling(api: Api, key: &[u8]) -> Slot {
    match (api, key) {
        (Api::VllmGenerate, b"max_tokens") | (Api::SglangGenerate, b"max_new_tokens") => Slot::Cap(0),
        _ => Slot::Skip,
    }
}
