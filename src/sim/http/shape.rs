//! The JSON of the three APIs, as recorded from vLLM 0.32.0.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::prepare::Api;
use crate::sim::engine::FinishReason;

const FINGERPRINT: &str = "vllm-0.32.0-sim";

/// Tokens of a whole request.
#[derive(Clone, Copy)]
pub struct Usage {
    pub prompt: u64,
    pub completion: u64,
    pub cached: u64,
}

/// Tokens that came since the last chunk, each a text of its own.
pub struct Chunk {
    pub index: usize,
    pub texts: Vec<String>,
    /// Whether these are the first of their choice.
    pub first: bool,
    /// Why it ended, on the last chunk.
    pub end: Option<FinishReason>,
    /// Prompt tokens that were cached.
    pub cached: u32,
}

/// Writes the answers to one request.
pub struct Shape {
    api: Api,
    id: String,
    model: String,
    created: u64,
    max_tokens: Option<u32>,
    /// What a stream of `/v1/responses` has said so far; it is repeated at the end.
    said: String,
    ended: FinishReason,
}

fn reason(end: FinishReason) -> &'static str {
    match end {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Abort => "abort",
    }
}

impl Usage {
    fn completions(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "completion_tokens": self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        })
    }

    fn responses(self) -> Value {
        json!({
            "input_tokens": self.prompt,
            "input_tokens_details": {
                "cached_tokens": self.cached, "cache_write_tokens": 0, "input_tokens_per_turn": [],
                "cached_tokens_per_turn": [],
            },
            "output_tokens": self.completion,
            "output_tokens_details": {
                "reasoning_tokens": 0, "tool_output_tokens": 0, "output_tokens_per_turn": [],
                "tool_output_tokens_per_turn": [],
            },
            "total_tokens": self.prompt + self.completion,
        })
    }
}

impl Shape {
    pub fn new(api: Api, id: &str, model: &str, created: u64, max_tokens: Option<u32>) -> Self {
        let prefix = match api {
            Api::Chat => "chatcmpl-",
            Api::Completions => "cmpl-",
            Api::Responses => "resp_",
        };
        let id = format!("{prefix}{id}");
        Self {
            api,
            id,
            model: model.into(),
            created,
            max_tokens,
            said: String::new(),
            ended: FinishReason::Stop,
        }
    }

    /// The whole answer.
    pub fn plain(&self, choices: &[(String, FinishReason)], usage: Usage) -> Value {
        match self.api {
            Api::Chat => self.plain_chat(choices, usage),
            Api::Completions => self.plain_completions(choices, usage),
            Api::Responses => {
                let (text, end) = choices.first().map_or(("", FinishReason::Stop), |(t, e)| (t.as_str(), *e));
                self.response(text, Some((end, usage)))
            }
        }
    }

    fn plain_chat(&self, choices: &[(String, FinishReason)], usage: Usage) -> Value {
        let choice = |(index, (text, end)): (usize, &(String, FinishReason))| {
            json!({
                "index": index,
                "message": {
                    "role": "assistant", "content": text, "refusal": null, "annotations": null, "audio": null,
                    "function_call": null, "reasoning": null,
                },
                "logprobs": null, "finish_reason": reason(*end), "stop_reason": null, "token_ids": null,
                "routed_experts": null,
            })
        };
        json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": choices.iter().enumerate().map(choice).collect::<Vec<_>>(),
            "service_tier": null, "system_fingerprint": FINGERPRINT, "usage": usage.completions(),
            "prompt_logprobs": null, "prompt_token_ids": null, "prompt_text": null, "kv_transfer_params": null,
            "ec_transfer_params": null, "metrics": null,
        })
    }

    fn plain_completions(&self, choices: &[(String, FinishReason)], usage: Usage) -> Value {
        let choice = |(index, (text, end)): (usize, &(String, FinishReason))| {
            json!({
                "index": index, "text": text, "logprobs": null, "finish_reason": reason(*end), "stop_reason": null,
                "token_ids": null, "prompt_logprobs": null, "prompt_token_ids": null, "routed_experts": null,
            })
        };
        json!({
            "id": self.id, "object": "text_completion", "created": self.created, "model": self.model,
            "choices": choices.iter().enumerate().map(choice).collect::<Vec<_>>(),
            "service_tier": null, "system_fingerprint": FINGERPRINT, "usage": usage.completions(),
            "kv_transfer_params": null, "ec_transfer_params": null, "metrics": null,
        })
    }

    /// The object of `/v1/responses`; without an end it is in progress.
    fn response(&self, text: &str, end: Option<(FinishReason, Usage)>) -> Value {
        let cut = end.is_some_and(|(e, _)| e == FinishReason::Length);
        let status = if end.is_none() {
            "in_progress"
        } else if cut {
            "incomplete"
        } else {
            "completed"
        };
        let output = end.map(|_| {
            json!({
                "id": self.message_id(), "content": [self.part(text)], "role": "assistant",
                "status": "completed", "type": "message", "phase": null,
            })
        });
        json!({
            "id": self.id, "created_at": self.created,
            "incomplete_details": cut.then(|| json!({"reason": "max_output_tokens"})),
            "instructions": null, "metadata": null, "model": self.model, "object": "response",
            "output": output.into_iter().collect::<Vec<_>>(),
            "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "none", "tools": [], "top_p": 1.0,
            "background": false, "max_output_tokens": self.max_tokens, "max_tool_calls": null,
            "previous_response_id": null, "prompt": null, "reasoning": null, "service_tier": "auto", "status": status,
            "text": null, "top_logprobs": null, "truncation": "disabled", "usage": end.map(|(_, u)| u.responses()),
            "user": null, "presence_penalty": 0.0, "frequency_penalty": 0.0, "kv_transfer_params": null,
            "ec_transfer_params": null, "input_messages": null, "output_messages": null,
        })
    }

    fn message_id(&self) -> String {
        self.id.replacen("resp_", "msg_", 1)
    }

    fn part(&self, text: &str) -> Value {
        json!({"annotations": [], "text": text, "type": "output_text", "logprobs": null})
    }

    /// What a stream starts with, when the first token is out.
    pub fn opening(&self, out: &mut String) {
        match self.api {
            Api::Chat => {
                let choice = json!({
                    "index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null,
                });
                let mut chunk = self.chunk_of(vec![choice]);
                chunk["prompt_token_ids"] = Value::Null;
                chunk["prompt_text"] = Value::Null;
                data(out, &chunk);
            }
            Api::Completions => {}
            Api::Responses => {
                let response = self.response("", None);
                event(out, "response.created", json!({"response": response.clone()}));
                event(out, "response.in_progress", json!({"response": response}));
                let item = json!({
                    "id": self.message_id(), "content": [], "role": "assistant", "status": "in_progress",
                    "type": "message",
                });
                event(out, "response.output_item.added", json!({"output_index": 0, "item": item}));
                let added = json!({
                    "item_id": self.message_id(), "output_index": 0, "content_index": 0, "part": self.part(""),
                });
                event(out, "response.content_part.added", added);
            }
        }
    }

    /// One event for each token.
    pub fn chunk(&mut self, chunk: &Chunk, out: &mut String) {
        let last = chunk.texts.len().saturating_sub(1);
        for (i, text) in chunk.texts.iter().enumerate() {
            let end = chunk.end.filter(|_| i == last);
            self.ended = end.unwrap_or(self.ended);
            let mut choice = match self.api {
                Api::Chat => json!({"index": chunk.index, "delta": {"content": text}}),
                Api::Completions => json!({"index": chunk.index, "text": text}),
                Api::Responses => {
                    self.said.push_str(text);
                    let delta = json!({
                        "item_id": self.message_id(), "output_index": 0, "content_index": 0, "delta": text,
                        "logprobs": [],
                    });
                    event(out, "response.output_text.delta", delta);
                    continue;
                }
            };
            choice["logprobs"] = Value::Null;
            choice["finish_reason"] = end.map(reason).into();
            if end.is_some() {
                choice["stop_reason"] = Value::Null;
            }
            choice["token_ids"] = Value::Null;
            data(out, &self.chunk_of(vec![choice]));
        }
    }

    /// What a stream ends with.
    pub fn closing(&self, usage: Usage, include_usage: bool, out: &mut String) {
        if self.api == Api::Responses {
            let done = json!({
                "item_id": self.message_id(), "output_index": 0, "content_index": 0, "text": self.said, "logprobs": [],
            });
            event(out, "response.output_text.done", done);
            let response = self.response(&self.said, Some((self.ended, usage)));
            let item = response["output"][0].clone();
            event(out, "response.output_item.done", json!({"output_index": 0, "item": item}));
            event(out, "response.completed", json!({"response": response}));
            return;
        }
        if include_usage {
            let mut chunk = self.chunk_of(vec![]);
            chunk["usage"] = usage.completions();
            chunk["system_fingerprint"] = FINGERPRINT.into();
            data(out, &chunk);
        }
        out.push_str("data: [DONE]\n\n");
    }

    fn chunk_of(&self, choices: Vec<Value>) -> Value {
        let object = if self.api == Api::Chat { "chat.completion.chunk" } else { "text_completion" };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }
}

fn data(out: &mut String, value: &Value) {
    let _ = write!(out, "data: {value}\n\n");
}

fn event(out: &mut String, kind: &str, mut value: Value) {
    value["type"] = kind.into();
    let _ = write!(out, "event: {kind}\ndata: {value}\n\n");
}
