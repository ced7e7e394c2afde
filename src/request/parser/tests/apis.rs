//! What is read of each API.

use super::{read, read_in};
use crate::kv::chain::chains;
use crate::request::{Api, Parsed, Prompt, Segment, SegmentKind};

fn ok(api: Api, body: &str) -> Parsed {
    read(api, body).unwrap_or_else(|e| panic!("{e}: {body}"))
}

fn segments(parsed: &Parsed) -> &[Segment] {
    match &parsed.prompt {
        Prompt::Text(prompts) => &prompts[0].segments,
        other => panic!("no text: {other:?}"),
    }
}

fn chain(api: Api, body: &str) -> Vec<u64> {
    let parsed = ok(api, body);
    let all = chains(
        &parsed.prompt,
        parsed.model.as_deref().unwrap_or_default(),
        parsed.cache_salt.as_ref(),
        64,
        4096,
    );
    all.into_iter().next().unwrap_or_default()
}

const CHAT: Api = Api::ChatCompletions;

#[test]
fn a_chat_gives_model_stream_cap_salt_and_segments_in_order() {
    let body = r#"{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi \u00e9"}],
        "stream":true, "max_tokens":7, "max_completion_tokens":5, "cache_salt":"s",
        "tools":[{"type":"function","function":{"name":"f"}}], "documents":["d"], "model" : "llama"}"#;
    let parsed = ok(CHAT, body);
    assert_eq!(parsed.model.as_deref(), Some("llama"));
    assert_eq!(&body[parsed.model_span.clone().unwrap()], "\"llama\"");
    assert_eq!((parsed.stream, parsed.max_output_tokens), (true, Some(5)));
    assert_eq!(parsed.cache_salt.as_ref().unwrap().as_bytes(), b"s");
    let kinds: Vec<_> = segments(&parsed).iter().map(|s| s.kind).collect();
    use SegmentKind::*;
    assert_eq!(kinds, [Tools, Template, Message, Message]);
    let spans: Vec<_> = segments(&parsed).iter().map(|s| &body[s.span.clone()]).collect();
    assert_eq!(spans, ["", "", "\"be brief\"", "\"hi \\u00e9\""]);
    assert_eq!(segments(&parsed)[3].bytes, 5);
}

#[test]
fn caps_are_whole_numbers_or_the_next_key() {
    for (fields, wanted) in [
        (r#""max_completion_tokens":3"#, Some(3)),
        (r#""max_completion_tokens":0,"max_tokens":9"#, Some(0)),
        (r#""max_completion_tokens":"3","max_tokens":9"#, Some(9)),
        (r#""max_completion_tokens":-3,"max_tokens":9.0"#, Some(9)),
        (r#""max_completion_tokens":1.5,"max_tokens":null"#, None),
        (r#""max_tokens":9,"max_tokens":-1"#, None),
        (r#""max_tokens":5000000000"#, Some(u32::MAX)),
    ] {
        let parsed = ok(CHAT, &format!(r#"{{{fields},"messages":[{{"content":"a"}}]}}"#));
        assert_eq!(parsed.max_output_tokens, wanted, "{fields}");
    }
}

#[test]
fn model_and_stream_of_another_type_do_not_count_and_the_last_wins() {
    let parsed = ok(CHAT, r#"{"model":7,"stream":"yes","messages":[{}]}"#);
    assert_eq!((parsed.model, parsed.stream), (None, false));
    let body = r#"{"model":"a","stream":true,"messages":[{"content":"x"}],"model":"b","stream":false,"messages":[{"content":"y"}]}"#;
    let parsed = ok(CHAT, body);
    assert_eq!((parsed.model.as_deref(), parsed.stream), (Some("b"), false));
    assert_eq!(&body[parsed.model_span.clone().unwrap()], "\"b\"");
    assert_eq!(parsed.prompt, ok(CHAT, r#"{"messages":[{"content":"y"}]}"#).prompt.clone_at(&parsed));
}

impl Prompt {
    /// The same prompt with the spans of another, which stand elsewhere in another body.
    fn clone_at(&self, other: &Parsed) -> Prompt {
        match (self.clone(), &other.prompt) {
            (Prompt::Text(mut own), Prompt::Text(others)) => {
                for (own, other) in own.iter_mut().zip(others) {
                    for (own, other) in own.segments.iter_mut().zip(&other.segments) {
                        own.span = other.span.clone();
                    }
                }
                Prompt::Text(own)
            }
            (own, _) => own,
        }
    }
}

#[test]
fn a_model_with_escapes_is_unescaped_and_its_span_is_the_token() {
    let body = r#"{"model":"a\/b\u0022","messages":[{"content":"a"}]}"#;
    for cut in 1..body.len() {
        let parsed = read_in(CHAT, body.as_bytes(), cut).unwrap();
        assert_eq!(parsed.model.as_deref(), Some("a/b\""));
        assert_eq!(&body[parsed.model_span.unwrap()], r#""a\/b\u0022""#);
    }
}

fn chat(content: &str, more: &str) -> Vec<u64> {
    chain(CHAT, &format!(r#"{{"model":"m","messages":[{{"role":"user","content":{content}}}]{more}}}"#))
}

#[test]
fn a_string_equals_one_text_part() {
    assert_eq!(chat(r#""hello""#, ""), chat(r#"[{"type":"text","text":"hello"}]"#, ""));
    assert_eq!(chat(r#""hello""#, ""), chat(r#"[{"text":"hello","type":"text"}]"#, ""));
    let marked = r#"[{"type":"text","text":"hello","cache_control":{"type":"ephemeral"}}]"#;
    assert_eq!(chat(r#""hello""#, ""), chat(marked, ""));
    assert_ne!(chat(r#""hello""#, ""), chat(r#"[{"type":"text","text":"hello!"}]"#, ""));
    assert_eq!(ok(CHAT, r#"{"messages":[{"content":null}]}"#), ok(CHAT, r#"{"messages":[{"content":""}]}"#));
}

#[test]
fn absent_null_and_default_template_fields_add_nothing() {
    let plain = chat(r#""a""#, "");
    for same in [
        r#","tools":[]"#,
        r#","tools":null,"documents":null"#,
        r#","add_generation_prompt":true"#,
        r#","continue_final_message":false"#,
        r#","temperature":0.5,"user":"u""#,
    ] {
        assert_eq!(chat(r#""a""#, same), plain, "{same}");
    }
}

#[test]
fn everything_that_shapes_the_prompt_changes_block_0() {
    let tool = |name: &str| format!(r#","tools":[{{"type":"function","function":{{"name":"{name}"}}}}]"#);
    let plain = chat(r#""a""#, "");
    let others = [
        tool("f"),
        tool("g"),
        r#","cache_salt":"s""#.into(),
        r#","chat_template":"t""#.into(),
        r#","chat_template_kwargs":{"enable_thinking":false}"#.into(),
        r#","documents":[{"text":"d"}]"#.into(),
        r#","add_generation_prompt":false"#.into(),
        r#","reasoning_effort":"low""#.into(),
        r#","model":"lora""#.into(),
    ];
    let mut seen = vec![plain[0]];
    for other in &others {
        let chain = chat(r#""a""#, other);
        assert!(chain.iter().all(|hash| !seen.contains(hash)), "{other}");
        seen.push(chain[0]);
    }
}

#[test]
fn role_name_and_tool_calls_show() {
    let of = |message: &str| chain(CHAT, &format!(r#"{{"messages":[{message},{{"content":"end"}}]}}"#));
    let all = [
        of(r#"{"role":"user","content":"a"}"#),
        of(r#"{"role":"assistant","content":"a"}"#),
        of(r#"{"role":"user","name":"n","content":"a"}"#),
        of(r#"{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}"#),
        of(r#"{"role":"assistant","content":null,"tool_calls":[{"id":"2"}]}"#),
        of(r#"{"role":"assistant","content":"a","tool_calls":[{"id":"2"}]}"#),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a.last() != b.last() && a[0] != b[0]), "{i}");
    }
    let swapped = of(r#"{"content":"a","tool_calls":[{"id":"2"}],"role":"assistant"}"#);
    assert_eq!(swapped, all[5]);
}

#[test]
fn media_is_known_by_its_address() {
    let of = |url: &str| {
        chat(
            &format!(
                r#"[{{"type":"text","text":"look"}},{{"type":"image_url","image_url":{{"url":"{url}"}}}}]"#
            ),
            "",
        )
    };
    let (a, b) = (of("http://a"), of("http://b"));
    assert_eq!((a[0], a.len()), (b[0], 5));
    assert!(a[1..].iter().all(|hash| !b.contains(hash)));
    let sound = |data: &str| {
        chat(&format!(r#"[{{"type":"input_audio","input_audio":{{"data":"{data}","format":"wav"}}}}]"#), "")
    };
    assert_ne!(sound("AA")[0], sound("AB")[0]);
}

/// The catalogue's estimates of a picture and a film whose size is not known.
#[test]
fn media_count_the_usual_size() {
    let tokens = |part: &str| {
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"{part}","{part}":{{"url":"http://a"}}}}]}}]}}"#
        );
        ok(CHAT, &body).prompt.tokens()
    };
    let (picture, film) = (tokens("image_url"), tokens("video_url"));
    assert!((225..240).contains(&picture) && (4500..4515).contains(&film), "{picture} {film}");
}

#[test]
fn distinct_media_are_listed_once_each_and_few() {
    let image = |url: &str| format!(r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#);
    let media = |parts: &[String], more: &str| {
        let content = parts.join(",");
        ok(CHAT, &format!(r#"{{"messages":[{{"role":"user","content":[{content}]{more}}}]}}"#)).media
    };
    let text = r#"{"type":"text","text":"look"}"#.to_owned();
    let (a, b) = (image("http://a"), image("http://b"));
    assert!(media(std::slice::from_ref(&text), "").is_empty());
    let two = media(&[a.clone(), text.clone(), b.clone(), a.clone()], "");
    assert_eq!(two.len(), 2);
    assert_eq!(media(&[b.clone(), a.clone()], ""), [two[1], two[0]]);
    let replaced = media(&[a, b.clone()], &format!(r#","content":[{text},{b}]"#));
    assert_eq!(replaced, two[1..], "the last of equal keys counts");
    let many: Vec<_> = (0..300).map(|i| image(&i.to_string())).collect();
    assert_eq!(media(&many, "").len(), crate::request::MAX_MEDIA);
}

#[test]
fn a_longer_conversation_keeps_the_chain_of_the_shorter() {
    let first = format!(r#"{{"role":"system","content":"{}"}}"#, "word ".repeat(200));
    let short = chain(CHAT, &format!(r#"{{"messages":[{first}]}}"#));
    let long = chain(CHAT, &format!(r#"{{"messages":[{first},{{"role":"user","content":"next"}}]}}"#));
    assert_eq!((short.len(), long.len()), (4, 5));
    assert_eq!(long[..4], short);
}

#[test]
fn completions_take_texts_and_token_ids() {
    let of = |prompt: &str| ok(Api::Completions, &format!(r#"{{"prompt":{prompt},"max_tokens":4}}"#));
    assert_eq!(of("[1,2,4294967295]").prompt, Prompt::Tokens(vec![vec![1, 2, u32::MAX]]));
    assert_eq!(of("[[1,2],[3]]").prompt, Prompt::Tokens(vec![vec![1, 2], vec![3]]));
    assert_eq!(of("[1.0]").prompt, Prompt::Tokens(vec![vec![1]]));
    let Prompt::Text(two) = of(r#"["ab","c"]"#).prompt else { panic!() };
    assert_eq!(two.iter().map(|p| p.segments[0].bytes).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(of(r#""ab""#).max_output_tokens, Some(4));
    assert_eq!(
        chain(Api::Completions, r#"{"prompt":"ab"}"#),
        chain(Api::Completions, r#"{"prompt":["ab"]}"#)
    );
}

#[test]
fn embeddings_and_images_take_their_input() {
    assert_eq!(ok(Api::Embeddings, r#"{"input":[5,6]}"#).prompt.tokens(), 2);
    assert_eq!(ok(Api::Embeddings, r#"{"input":"abcdefgh"}"#).prompt.tokens(), 2);
    assert_eq!(ok(Api::Images, r#"{"prompt":"abcdefgh","n":2,"size":"1x1"}"#).prompt.tokens(), 2);
    assert!(read(Api::Images, r#"{"prompt":["a"]}"#).is_err());
}

#[test]
fn responses_take_a_text_or_items() {
    let api = Api::Responses;
    let text = chain(api, r#"{"input":"hi"}"#);
    assert_eq!(text, chain(api, r#"{"input":[{"role":"user","content":"hi"}]}"#));
    let item = r#"{"input":[{"type":"message","id":"i1","role":"user","content":[{"type":"input_text","text":"hi"}]}]}"#;
    assert_eq!(text, chain(api, item));
    assert_ne!(text[0], chain(api, r#"{"input":"hi","instructions":"be kind"}"#)[0]);
    assert_ne!(text[0], chain(api, r#"{"input":"hi","tools":[{"type":"web"}]}"#)[0]);
    let out =
        |v: &str| chain(api, &format!(r#"{{"input":[{{"type":"function_call_output","output":"{v}"}}]}}"#));
    assert_ne!(out("a"), out("b"));
    assert_eq!(ok(api, r#"{"input":"","max_output_tokens":9,"stream":true}"#).max_output_tokens, Some(9));
}

#[test]
fn conversations_take_items() {
    let of =
        |c: &str| chain(Api::Conversations, &format!(r#"{{"items":[{{"role":"user","content":{c}}}]}}"#));
    assert_eq!(of(r#""a""#), of(r#"[{"type":"input_text","text":"a"}]"#));
}

#[test]
fn anthropic_takes_system_tools_and_messages() {
    let api = Api::Messages;
    let of = |system: &str| {
        chain(
            api,
            &format!(
                r#"{{"model":"c","max_tokens":8,"system":{system},"messages":[{{"role":"user","content":"a"}}]}}"#
            ),
        )
    };
    let marked = r#"[{"type":"text","text":"be kind","cache_control":{"type":"ephemeral"}}]"#;
    assert_eq!(of(r#""be kind""#), of(marked));
    assert_ne!(of(r#""be kind""#)[0], of(r#""be rude""#)[0]);
    let tools = |more: &str| {
        chain(
            api,
            &format!(
                r#"{{"tools":[{{"name":"f","input_schema":{{}}{more}}}],"messages":[{{"content":"a"}}]}}"#
            ),
        )
    };
    assert_eq!(tools(""), tools(r#","cache_control":{"type":"ephemeral"}"#));
    assert_ne!(tools("")[0], tools(r#","strict":true"#)[0]);
    let result = |text: &str| {
        chain(
            api,
            &format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t","content":"{text}"}}]}}]}}"#
            ),
        )
    };
    assert_ne!(result("a"), result("b"));
    assert_eq!(result(&"a".repeat(600)).len(), 3);
    assert_eq!(ok(api, r#"{"messages":[{}],"max_tokens":8}"#).max_output_tokens, Some(8));
}

#[test]
fn engines_own_apis_take_token_ids() {
    let vllm = ok(
        Api::VllmGenerate,
        r#"{"model":"m","token_ids":[1,2],"sampling_params":{"max_tokens":3},"cache_salt":"s","stream":true}"#,
    );
    assert_eq!((vllm.prompt.clone(), vllm.max_output_tokens), (Prompt::Tokens(vec![vec![1, 2]]), Some(3)));
    assert!(vllm.cache_salt.is_some() && vllm.stream && vllm.model_span.is_some());
    let sglang = |body: &str| ok(Api::SglangGenerate, body);
    let one =
        sglang(r#"{"input_ids":[1],"sampling_params":{"max_new_tokens":3},"extra_key":"k","model":"m"}"#);
    assert_eq!(
        (one.prompt, one.max_output_tokens, one.model),
        (Prompt::Tokens(vec![vec![1]]), Some(3), None)
    );
    assert!(one.cache_salt.is_some());
    assert_eq!(sglang(r#"{"input_ids":[[1],[2]]}"#).prompt, Prompt::Tokens(vec![vec![1], vec![2]]));
    assert_eq!(sglang(r#"{"input_ids":[1],"text":"abcd"}"#).prompt.tokens(), 1);
    assert_eq!(sglang(r#"{"text":["abcd","abcd"]}"#).prompt.tokens(), 2);
}

#[test]
fn a_cut_body_gives_what_is_known() {
    let body = format!(
        r#"{{"model":"m","stream":true,"messages":[{{"role":"system","content":"one"}},{{"role":"user","content":"{}"#,
        "x".repeat(600)
    );
    let mut intake = super::Intake::new(CHAT);
    intake.push(body.as_bytes()).unwrap();
    let cut = intake.finish_cut();
    assert_eq!((cut.model.as_deref(), cut.stream), (Some("m"), true));
    let known = chains(&cut.prompt, "m", None, 64, 99);
    let whole = ok(CHAT, &format!("{body}and more\"}}]}}"));
    let all = chains(&whole.prompt, "m", None, 64, 99);
    assert_eq!((known[0].len(), &known[0][..]), (3, &all[0][..3]));
}

#[test]
fn a_body_cut_anywhere_never_panics() {
    let body = r#"{"system":[{"type":"text","text":"s"}],"tools":[{"a":1}],"messages":[{"role":"user","content":[{"type":"text","text":"hello"},{"type":"image","source":{"data":"AA"}}]}],"prompt":["ab",[1]],"input_ids":[[1]]}"#;
    for api in [CHAT, Api::Completions, Api::Messages, Api::Responses, Api::SglangGenerate] {
        for end in 0..=body.len() {
            let mut intake = super::Intake::new(api);
            intake.push(&body.as_bytes()[..end]).unwrap();
            let cut = intake.finish_cut();
            assert_eq!(cut.api, api);
            chains(&cut.prompt, "", None, 64, 99);
        }
    }
}
