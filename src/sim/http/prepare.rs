//! From a request body to generations for the engine.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::app::App;
use super::reply::ApiError;
use crate::sim::config::Mode;
use crate::sim::engine::{AdapterId, BlockKeys, FinishReason, Request};
use crate::sim::text::{Answer, Content, Message, chat_prompt, last_user_text, pieces, tokenize};

/// Which API a body came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Chat,
    Completions,
    Responses,
}

/// The fields of all three APIs that matter here; others are ignored, as vLLM ignores them.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    messages: Option<Vec<Message<'a>>>,
    #[serde(borrow, default)]
    prompt: Option<Prompt<'a>>,
    #[serde(borrow, default)]
    input: Option<Input<'a>>,
    #[serde(borrow, default)]
    instructions: Option<Cow<'a, str>>,
    #[serde(default)]
    tools: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    max_output_tokens: Option<u32>,
    min_tokens: Option<u32>,
    ignore_eos: Option<bool>,
    n: Option<u32>,
    seed: Option<i64>,
    priority: Option<i32>,
    #[serde(borrow, default)]
    cache_salt: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Tokens(Vec<u32>),
    Texts(#[serde(borrow)] Vec<Cow<'a, str>>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Messages(#[serde(borrow)] Vec<Message<'a>>),
}

/// One generation and the text it will give.
pub struct Job {
    pub request: Request,
    pub answer: Answer,
}

/// What a request asks for.
pub struct Prepared {
    pub model: String,
    pub jobs: Vec<Job>,
    pub stream: bool,
    pub include_usage: bool,
    pub max_tokens: Option<u32>,
}

impl Prepared {
    pub fn prompt_tokens(&self) -> u64 {
        self.jobs.iter().map(|j| u64::from(j.request.prompt_tokens)).sum()
    }

    pub fn output_tokens(&self) -> u64 {
        self.jobs.iter().map(|j| u64::from(j.request.output_tokens)).sum()
    }
}

/// Reads a body. Pure but for the ids it draws; takes time in proportion to the body.
pub fn prepare(app: &App, api: Api, body: &[u8]) -> Result<Prepared, ApiError> {
    let fields: Fields<'_> = serde_json::from_slice(body)
        .map_err(|e| ApiError::bad_request(None, format!("The request body is not as expected: {e}.")))?;
    if fields.n.is_some_and(|n| n != 1) {
        return Err(ApiError::bad_request(
            Some("n"),
            "This server generates one choice per prompt: n must be 1.",
        ));
    }
    let model = fields.model.as_deref().map_or_else(|| app.names[0].clone(), str::to_owned);
    let adapter = app.adapter_of(&model)?;
    let mut key_seed = adapter.map_or(0, |a| u64::from(a.0) + 1);
    if let Some(salt) = &fields.cache_salt {
        key_seed = xxh3_64_with_seed(salt.as_bytes(), key_seed);
    }
    let prompts = prompts(api, &fields)?;
    let max_tokens = match api {
        Api::Responses => fields.max_output_tokens,
        Api::Chat => fields.max_completion_tokens.or(fields.max_tokens),
        // The default of the API.
        Api::Completions => Some(fields.max_tokens.unwrap_or(16)),
    };
    let jobs = prompts
        .into_iter()
        .map(|(tokens, echo)| job(app, &fields, max_tokens, adapter, key_seed, &tokens, &echo))
        .collect::<Result<_, _>>()?;
    Ok(Prepared {
        model,
        jobs,
        stream: fields.stream.unwrap_or(false),
        include_usage: fields.stream_options.and_then(|o| o.include_usage).unwrap_or(false),
        max_tokens,
    })
}

/// Each prompt's tokens, and the text that echo mode would answer.
fn prompts(api: Api, fields: &Fields<'_>) -> Result<Vec<(Vec<u32>, String)>, ApiError> {
    match api {
        Api::Chat => match &fields.messages {
            Some(messages) if !messages.is_empty() => {
                Ok(vec![(chat_prompt(fields.tools.as_ref(), messages), last_user_text(messages))])
            }
            _ => Err(ApiError::bad_request(
                Some("messages"),
                "messages: a list of at least one message is needed.",
            )),
        },
        Api::Completions => completion_prompts(fields.prompt.as_ref()),
        Api::Responses => {
            let mut messages = Vec::new();
            messages.extend(fields.instructions.as_deref().map(|text| Message::new("system", text)));
            match &fields.input {
                Some(Input::Text(text)) => messages.push(Message::new("user", text)),
                Some(Input::Messages(list)) if !list.is_empty() => {
                    messages.extend(list.iter().map(Message::reborrow))
                }
                _ => {
                    return Err(ApiError::bad_request(
                        Some("input"),
                        "input: a text or a list of messages is needed.",
                    ));
                }
            }
            Ok(vec![(chat_prompt(fields.tools.as_ref(), &messages), last_user_text(&messages))])
        }
    }
}

fn completion_prompts(prompt: Option<&Prompt<'_>>) -> Result<Vec<(Vec<u32>, String)>, ApiError> {
    let of_text = |text: &str| {
        let mut tokens = Vec::new();
        tokenize(text, &mut tokens);
        (tokens, text.to_owned())
    };
    let of_tokens = |tokens: &Vec<u32>| (tokens.clone(), String::new());
    let prompts: Vec<_> = match prompt {
        Some(Prompt::Text(text)) => vec![of_text(text)],
        Some(Prompt::Tokens(tokens)) => vec![of_tokens(tokens)],
        Some(Prompt::Texts(texts)) => texts.iter().map(|t| of_text(t)).collect(),
        Some(Prompt::TokenLists(lists)) => lists.iter().map(of_tokens).collect(),
        None => vec![],
    };
    if prompts.is_empty() || prompts.iter().any(|(tokens, _)| tokens.is_empty()) {
        return Err(ApiError::bad_request(
            Some("prompt"),
            "prompt: a text, a list of texts or token ids is needed.",
        ));
    }
    if prompts.len() > 1024 {
        return Err(ApiError::bad_request(Some("prompt"), "prompt: at most 1024 prompts in one request."));
    }
    Ok(prompts)
}

fn job(
    app: &App,
    fields: &Fields<'_>,
    max_tokens: Option<u32>,
    adapter: Option<AdapterId>,
    key_seed: u64,
    tokens: &[u32],
    echo: &str,
) -> Result<Job, ApiError> {
    let seed = app.config.seed ^ fields.seed.unwrap_or(0).cast_unsigned();
    let words = Answer::words(seed, tokens);
    let Answer::Words(drawn) = words else { return Err(ApiError::bad_request(None, "no answer")) };
    let natural = match app.config.mode {
        Mode::Echo => u32::try_from(pieces(echo).count()).unwrap_or(u32::MAX).max(1),
        Mode::Random if fields.ignore_eos == Some(true) => u32::MAX,
        Mode::Random => natural_length(max_tokens, &mut fastrand::Rng::with_seed(drawn)),
    };
    let answer = if app.config.mode == Mode::Echo { Answer::echo(echo) } else { words };
    let natural = natural.max(fields.min_tokens.unwrap_or(0));
    let limit = room(tokens.len(), max_tokens, app.config.engine.max_model_len)?;
    let (output, natural_end) =
        if natural <= limit { (natural, FinishReason::Stop) } else { (limit, FinishReason::Length) };
    let all = tokens.iter().copied().chain(answer.tokens(output));
    let request = Request {
        id: app.driver.next_id(),
        prompt_tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
        output_tokens: output,
        keys: BlockKeys::from_tokens(key_seed, all, app.config.engine.block_size),
        adapter,
        priority: fields.priority.unwrap_or(0),
        natural_end,
    };
    Ok(Job { request, answer })
}

/// How many tokens there may be.
fn room(prompt: usize, max_tokens: Option<u32>, model: u32) -> Result<u32, ApiError> {
    let asked = u64::from(max_tokens.unwrap_or(1));
    if asked == 0 {
        return Err(ApiError::bad_request(Some("max_tokens"), "max_tokens must be at least 1."));
    }
    if prompt as u64 + asked > u64::from(model) {
        return Err(ApiError::bad_request(
            Some("input_tokens"),
            format!(
                "The maximum context length is {model} tokens; the prompt has {prompt} and at least {asked} are to be \
                 generated. Shorten the prompt or max_tokens."
            ),
        ));
    }
    Ok(max_tokens.unwrap_or(model - prompt as u32))
}

/// When the model would end by itself: with a limit, 85 % of answers end before it, spread over six parts as
/// llm-d-inference-sim spreads them (20, 30, 20, 5, 10 %, the rest runs into the limit); without one, 40 ± 20 tokens.
fn natural_length(limit: Option<u32>, rng: &mut fastrand::Rng) -> u32 {
    let Some(limit) = limit else {
        let normal: f64 = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
        return (40.0 + 20.0 * normal).clamp(1.0, 200.0) as u32;
    };
    let part = match rng.u32(0..100) {
        0..20 => 0,
        20..50 => 1,
        50..70 => 2,
        70..75 => 3,
        75..85 => 4,
        _ => return u32::MAX,
    };
    let width = f64::from(limit) / 6.0;
    ((width * (f64::from(part) + rng.f64())) as u32).max(1)
}

/// The tokens of `/tokenize`: a `prompt` or `messages`.
pub fn tokens_of(body: &[u8]) -> Result<Vec<u32>, ApiError> {
    let fields: Fields<'_> = serde_json::from_slice(body)
        .map_err(|e| ApiError::bad_request(None, format!("The request body is not as expected: {e}.")))?;
    let api = if fields.messages.is_some() { Api::Chat } else { Api::Completions };
    Ok(prompts(api, &fields)?.into_iter().next().map(|p| p.0).unwrap_or_default())
}

impl<'a> Message<'a> {
    fn new(role: &'a str, text: &'a str) -> Self {
        Self::of(role, Some(Content::Text(text.into())))
    }
}
