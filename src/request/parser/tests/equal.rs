//! Equal prompts stay equal, however they are written and cut: any order of keys, legal escapes, white space, chunks.

use super::read_in;
use crate::kv::chain::chains;
use crate::request::{Api, Parsed, Prompt};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Writes a value as another client might: members in any order, white space and escapes where they are legal.
fn write(value: &Value, rng: &mut fastrand::Rng, out: &mut String) {
    space(rng, out);
    match value {
        Value::String(text) => write_text(text, rng, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                write(item, rng, out);
            }
            space(rng, out);
            out.push(']');
        }
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            rng.shuffle(&mut members);
            out.push('{');
            for (i, (key, value)) in members.into_iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                space(rng, out);
                write_text(key, rng, out);
                space(rng, out);
                out.push(':');
                write(value, rng, out);
            }
            space(rng, out);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
    space(rng, out);
}

fn space(rng: &mut fastrand::Rng, out: &mut String) {
    while rng.u8(..) < 60 {
        out.push(rng.choice([' ', '\n', '\t', '\r']).unwrap());
    }
}

fn write_text(text: &str, rng: &mut fastrand::Rng, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        let must = c < ' ' || c == '"' || c == '\\';
        if rng.u8(..) < 30 || (must && rng.bool()) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let hex = format!("\\u{unit:04x}");
                out.push_str(&if rng.bool() { hex.to_uppercase().replace("\\U", "\\u") } else { hex });
            }
        } else if must {
            out.push_str(serde_json::to_string(&c).unwrap().trim_matches('"'));
            if c == '"' {
                out.push('"');
            }
        } else if c == '/' && rng.bool() {
            out.push_str("\\/");
        } else {
            out.push(c);
        }
    }
    out.push('"');
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z \"\\\\/\n\u{1}é漢😀]{0,12}",
        (1usize..700, "[a-zé😀\"\n]{1,3}").prop_map(|(n, word)| word.repeat(n)),
    ]
}

fn content() -> impl Strategy<Value = Value> {
    let part = prop_oneof![
        3 => text().prop_map(|t| json!({"type": "text", "text": t})),
        1 => text().prop_map(|u| json!({"type": "image_url", "image_url": {"url": u, "detail": "low"}})),
        1 => text().prop_map(|d| json!({"type": "input_audio", "input_audio": {"data": d, "format": "wav"}})),
    ];
    prop_oneof![
        3 => text().prop_map(Value::from),
        1 => Just(Value::Null),
        2 => prop::collection::vec(part, 0..4).prop_map(Value::from),
    ]
}

fn message() -> impl Strategy<Value = Value> {
    (
        prop::sample::select(vec!["system", "user", "assistant", "tool"]),
        content(),
        any::<(bool, bool)>(),
        text(),
    )
        .prop_map(|(role, content, (named, calls), word)| {
            let mut message = json!({"role": role, "content": content});
            if named {
                message["name"] = json!(word);
            }
            if calls {
                message["tool_calls"] = json!([{"id": "c1", "function": {"name": "f", "arguments": word}}]);
            }
            message
        })
}

prop_compose! {
    fn chat()(
        messages in prop::collection::vec(message(), 1..6),
        tools in prop::collection::vec(text(), 0..3),
        fields in any::<[bool; 5]>(),
        word in text(),
    ) -> Value {
        let mut body = json!({"model": "org/m\"x", "messages": messages, "stream": fields[0]});
        if !tools.is_empty() {
            body["tools"] = tools.iter()
                .map(|t| json!({"type": "function", "function": {"name": t, "parameters": {"a": 1.5, "b": [true, null, {}]}}}))
                .collect();
        }
        if fields[1] { body["cache_salt"] = json!(word); }
        if fields[2] { body["chat_template_kwargs"] = json!({"x": word, "y": 2}); }
        if fields[3] { body["documents"] = json!([{"title": word}]); }
        if fields[4] { body["max_tokens"] = json!(17); }
        body
    }
}

/// What must not depend on how a body is written: all but the spans.
fn essence(mut parsed: Parsed) -> (Parsed, Vec<Vec<u64>>) {
    parsed.model_span = None;
    if let Prompt::Text(prompts) = &mut parsed.prompt {
        prompts.iter_mut().flat_map(|p| &mut p.segments).for_each(|s| s.span = 0..0);
    }
    let chain = chains(
        &parsed.prompt,
        parsed.model.as_deref().unwrap_or_default(),
        parsed.cache_salt.as_ref(),
        64,
        u32::MAX,
    );
    (parsed, chain)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_same_chat_gives_the_same_prompt_and_chain(
        body in chat(), seed: u64, cut in prop_oneof![1usize..9, 1usize..2000],
    ) {
        let plain = body.to_string();
        let wanted = essence(read_in(Api::ChatCompletions, plain.as_bytes(), plain.len()).unwrap());
        let mut other = String::new();
        write(&body, &mut fastrand::Rng::with_seed(seed), &mut other);
        prop_assert_eq!(&serde_json::from_str::<Value>(&other).unwrap(), &body);
        let parsed = read_in(Api::ChatCompletions, other.as_bytes(), cut).unwrap();
        let token = &other[parsed.model_span.clone().unwrap()];
        prop_assert_eq!(serde_json::from_str::<String>(token).unwrap(), "org/m\"x");
        prop_assert_eq!(essence(parsed), wanted);
    }

    #[test]
    fn another_tools_list_model_or_salt_leaves_no_block_in_common(body in chat(), which in 0usize..3) {
        let mut other = body.clone();
        match which {
            0 => other["tools"] = json!([{"type": "function", "function": {"name": "only here"}}]),
            1 => other["model"] = json!("some-lora"),
            _ => other["cache_salt"] = json!("only here"),
        }
        let of = |body: &Value| {
            let body = body.to_string();
            essence(read_in(Api::ChatCompletions, body.as_bytes(), body.len()).unwrap()).1.pop()
        };
        if let (Some(a), Some(b)) = (of(&body), of(&other)) {
            prop_assert!(a.iter().all(|hash| !b.contains(hash)));
        }
    }

    #[test]
    fn spans_of_segments_are_their_json_strings(words in prop::collection::vec(text(), 1..5), seed: u64) {
        let messages: Vec<Value> =
            words.iter().filter(|w| !w.is_empty()).map(|w| json!({"role": "user", "content": w})).collect();
        prop_assume!(!messages.is_empty());
        let mut body = String::new();
        write(&json!({"messages": messages}), &mut fastrand::Rng::with_seed(seed), &mut body);
        let parsed = read_in(Api::ChatCompletions, body.as_bytes(), 50).unwrap();
        let Prompt::Text(prompts) = parsed.prompt else { panic!("no text") };
        let read: Vec<String> =
            prompts[0].segments.iter().map(|s| serde_json::from_str(&body[s.span.clone()]).unwrap()).collect();
        prop_assert_eq!(read, words.into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>());
    }

    #[test]
    fn a_mutated_body_gives_the_same_answer_in_any_chunks(
        body in chat(), at: prop::sample::Index, byte: u8, cut in 1usize..40, api in prop::sample::select(vec![
            Api::ChatCompletions, Api::Completions, Api::Responses, Api::Messages, Api::Embeddings,
            Api::SglangGenerate, Api::VllmGenerate, Api::Conversations, Api::Images,
        ]),
    ) {
        let mut bytes = body.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let whole = read_in(api, &bytes, bytes.len());
        prop_assert_eq!(read_in(api, &bytes, cut), whole);
    }
}
