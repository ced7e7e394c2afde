//! Bodies that must be refused, with what is said.

use super::{read, read_in};
use crate::request::{Api, ParseError};

fn said(api: Api, body: &[u8]) -> String {
    let whole = read_in(api, body, body.len()).unwrap_err();
    for cut in [1, 2, 3, 7] {
        assert_eq!(read_in(api, body, cut).unwrap_err(), whole, "in chunks of {cut}");
    }
    whole.to_string()
}

#[test]
fn what_is_not_json_says_what_and_where() {
    let deep = [b"{\"a\":".as_slice(), &vec![b'['; 100_000]].concat();
    let table: [(&[u8], &str); 16] = [
        (b"", "unexpected end of JSON at byte 0"),
        (b"hello", "expected a value at byte 0"),
        (b"null", "the body is not a JSON object at byte 0"),
        (b"[1]", "the body is not a JSON object at byte 0"),
        (b"\xef\xbb\xbf{}", "expected a value at byte 0"),
        (b"{\"model\":\"m\"", "unexpected end of JSON at byte 12"),
        (b"{\"messages\":[{\"content\":\"abc", "unexpected end of JSON at byte 28"),
        (b"{} x", "something follows the end of the JSON value at byte 3"),
        (b"{\"a\":1,}", "expected a key at byte 7"),
        (b"{\"a\" 1}", "expected `:` at byte 5"),
        (b"{\"a\":01}", "expected `,` or the end of the list or object at byte 6"),
        (b"{\"a\":nul}", "misspelt null, true or false at byte 8"),
        (b"{\"a\":\"\xff\"}", "text is not valid UTF-8 at byte 6"),
        (b"{\"a\":\"x\n\"}", "a control character stands unescaped in a string at byte 7"),
        (b"{\"a\":\"\\ud800x\"}", "half a surrogate pair in a string at byte 12"),
        (&deep, "nested deeper than 512 levels at byte 516"),
    ];
    for (body, wanted) in table {
        assert_eq!(
            said(Api::ChatCompletions, body),
            format!("error unmarshaling request bodyMap: {wanted}"),
            "{:?}",
            String::from_utf8_lossy(&body[..body.len().min(40)])
        );
    }
}

#[test]
fn every_api_names_the_field_that_it_lacks() {
    for (api, wanted) in [
        (Api::ChatCompletions, "invalid chat completions request: must have valid messages field"),
        (Api::Completions, "invalid completions request: must have prompt field"),
        (Api::Embeddings, "invalid embeddings request: must have input field"),
        (Api::Responses, "invalid responses request: must have input field"),
        (Api::Conversations, "invalid conversations request: must have items field"),
        (Api::Images, "invalid images generations request: must have prompt field"),
        (Api::Messages, "invalid messages request: must have valid messages field"),
        (Api::VllmGenerate, "invalid generate request: must have token_ids field"),
        (Api::SglangGenerate, "invalid generate request: must have input_ids or text field"),
    ] {
        for body in [
            "{}",
            r#"{"model":"m"}"#,
            r#"{"messages":null,"prompt":null,"input":null,"items":null,"token_ids":null}"#,
            r#"{"messages":[],"prompt":"","input":null,"items":[],"token_ids":[],"input_ids":[]}"#,
            r#"{"messages":[],"prompt":[],"items":[],"token_ids":[],"text":[]}"#,
        ] {
            if api == Api::Images && body.contains("\"prompt\":[]") {
                continue;
            }
            assert_eq!(said(api, body.as_bytes()), wanted, "{body}");
        }
    }
}

#[test]
fn known_fields_of_a_wrong_type_are_refused() {
    let chat = |fields: &str| format!(r#"{{"messages":[{{"role":"user","content":"a"}}],{fields}}}"#);
    let table = [
        (Api::ChatCompletions, chat(r#""tools":"x""#), "tools must be a list"),
        (Api::ChatCompletions, chat(r#""documents":{}"#), "documents must be a list"),
        (Api::ChatCompletions, chat(r#""chat_template":1"#), "chat_template must be a string"),
        (
            Api::ChatCompletions,
            chat(r#""chat_template_kwargs":[]"#),
            "chat_template_kwargs must be an object",
        ),
        (Api::ChatCompletions, chat(r#""cache_salt":7"#), "the cache salt must be a string"),
        (
            Api::ChatCompletions,
            chat(r#""add_generation_prompt":"yes""#),
            "add_generation_prompt must be a boolean",
        ),
        (Api::ChatCompletions, r#"{"messages":"hi"}"#.into(), "must have valid messages field"),
        (Api::ChatCompletions, r#"{"messages":["hi"]}"#.into(), "every message must be an object"),
        (
            Api::ChatCompletions,
            r#"{"messages":[{"content":7}]}"#.into(),
            "content must be a string, a list of parts or null",
        ),
        (
            Api::ChatCompletions,
            r#"{"messages":[{"content":["a"]}]}"#.into(),
            "every content part must be an object",
        ),
        (
            Api::ChatCompletions,
            r#"{"messages":[{"content":[{"type":"text","text":[]}]}]}"#.into(),
            "the text of a content part must be a string",
        ),
        (Api::Completions, r#"{"prompt":["a",1]}"#.into(), "the prompt mixes types"),
        (Api::Completions, r#"{"prompt":[1,[2]]}"#.into(), "the prompt mixes types"),
        (Api::Completions, r#"{"prompt":[-1]}"#.into(), "a token id is not a whole number in 32 bits"),
        (
            Api::Completions,
            r#"{"prompt":[4294967296]}"#.into(),
            "a token id is not a whole number in 32 bits",
        ),
        (Api::Completions, r#"{"prompt":[1.5]}"#.into(), "a token id is not a whole number in 32 bits"),
        (
            Api::Completions,
            r#"{"prompt":{}}"#.into(),
            "the prompt must be a string, a list of strings or a list of token ids",
        ),
        (
            Api::VllmGenerate,
            r#"{"token_ids":["a"]}"#.into(),
            "the prompt has elements of a type that is not accepted here",
        ),
        (Api::Responses, r#"{"input":7}"#.into(), "input must be a string or a list of items"),
        (
            Api::Messages,
            r#"{"messages":[{}],"system":7}"#.into(),
            "system text must be a string or a list of parts",
        ),
    ];
    for (api, body, wanted) in table {
        assert_eq!(
            said(api, body.as_bytes()),
            format!("invalid {} request: {wanted}", api.label()),
            "{body}"
        );
    }
}

#[test]
fn a_wrong_field_that_stands_again_is_forgiven() {
    let body = r#"{"messages":7,"tools":"x","messages":[{"content":"a"}],"tools":[]}"#;
    assert!(read(Api::ChatCompletions, body).is_ok());
}

#[test]
fn what_is_not_json_is_said_even_after_a_wrong_field() {
    let refused = read(Api::ChatCompletions, r#"{"tools":"x","#).unwrap_err();
    assert!(matches!(refused, ParseError::Malformed { .. }));
}

#[test]
fn counting_tokens_is_left_to_the_engine() {
    let parsed = read(Api::CountTokens, r#"{"model":"m","messages":7"#).unwrap();
    assert_eq!(parsed.model.as_deref(), Some("m"));
}

#[test]
fn a_body_that_is_not_read_is_never_refused() {
    assert!(read(Api::Opaque, "\u{0}not json").is_ok());
}

#[test]
fn more_segments_than_can_be_kept_are_refused() {
    let body = format!(r#"{{"messages":[{}{{}}]}}"#, "{},".repeat(70_000));
    let refused = read(Api::ChatCompletions, &body).unwrap_err().to_string();
    assert!(refused.ends_with("more messages and parts than can be kept"), "{refused}");
    let body = format!(r#"{{"prompt":[{}""]}}"#, "\"\",".repeat(70_000));
    let refused = read(Api::Completions, &body).unwrap_err().to_string();
    assert!(refused.ends_with("more prompts than can be kept"), "{refused}");
    let body = format!(r#"{{"prompt":[{}1]}}"#, "1,".repeat(8 << 20));
    let refused = read(Api::Completions, &body).unwrap_err().to_string();
    assert!(refused.ends_with("more token ids than can be kept"), "{refused}");
}
