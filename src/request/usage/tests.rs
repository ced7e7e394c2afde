use super::*;
use crate::request::Usage;

const STREAM: &[u8] = include_bytes!("../../../tests/fixtures/vllm/chat-stream.sse");

fn usage(prompt: u32, completion: u32, cached: Option<u32>, total: u32) -> Usage {
    Usage { prompt: Some(prompt), completion: Some(completion), cached, total: Some(total) }
}

fn read(api: Api, events: bool, body: &[u8], cut: usize) -> (Usage, u64) {
    let mut reader = UsageReader::new(api, events);
    body.chunks(cut).for_each(|chunk| reader.push(chunk));
    (reader.finish(), reader.events())
}

#[test]
fn a_recorded_stream_gives_its_counts_across_every_border() {
    let wanted = (usage(21, 5, None, 26), 7);
    for at in 0..=STREAM.len() {
        let mut reader = UsageReader::new(Api::ChatCompletions, true);
        reader.push(&STREAM[..at]);
        reader.push(&STREAM[at..]);
        assert_eq!((reader.finish(), reader.events()), wanted, "cut at {at}");
    }
    for cut in [1, 2, 7, 100] {
        assert_eq!(read(Api::ChatCompletions, true, STREAM, cut), wanted);
    }
}

#[test]
fn the_last_line_counts_without_its_line_break() {
    let body = b"data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}";
    assert_eq!(read(Api::Completions, true, body, 9), (usage(1, 2, None, 3), 1));
}

#[test]
fn carriage_returns_comments_and_other_fields_do_not_count() {
    let body = b": hi\r\nevent: x\r\nid: 1\r\ndata: {}\r\n\r\ndata:{\"usage\":{\"total_tokens\":4}}\r\ndata: [DONE]\r\n";
    let (usage, events) = read(Api::Completions, true, body, 3);
    assert_eq!((usage.total, events), (Some(4), 2));
}

#[test]
fn plain_answers() {
    let chat = br#"{"model":"m","choices":[{"usage":{"prompt_tokens":99}}],"usage":{"prompt_tokens":10,"completion_tokens":"3","total_tokens":13,"prompt_tokens_details":{"cached_tokens":8}}}"#;
    let responses = br#"{"output":[],"usage":{"input_tokens":21,"input_tokens_details":{"cached_tokens":0},"output_tokens":5,"output_tokens_details":{"cached_tokens":77},"total_tokens":26}}"#;
    let anthropic = br#"{"usage":{"input_tokens":4,"output_tokens":6,"cache_read_input_tokens":2}}"#;
    let sglang = br#"{"text":"x","meta_info":{"prompt_tokens":4,"completion_tokens":1,"cached_tokens":3}}"#;
    for cut in [1, 5, 1000] {
        assert_eq!(read(Api::ChatCompletions, false, chat, cut).0, usage(10, 3, Some(8), 13));
        assert_eq!(read(Api::Responses, false, responses, cut).0, usage(21, 5, Some(0), 26));
        assert_eq!(read(Api::Messages, false, anthropic, cut).0, usage(4, 6, Some(2), 10));
        assert_eq!(read(Api::SglangGenerate, false, sglang, cut).0, usage(4, 1, Some(3), 5));
    }
}

#[test]
fn anthropic_events_are_merged() {
    let body = b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,\"cache_read_input_tokens\":4,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":12}}\n\n";
    for cut in 1..body.len() {
        assert_eq!(read(Api::Messages, true, body, cut), (usage(9, 12, Some(4), 21), 2));
    }
}

#[test]
fn responses_take_the_counts_of_the_last_event_even_when_it_is_long() {
    let filler = "x".repeat(40_000);
    let body = format!(
        "data: {{\"type\":\"response.created\",\"response\":{{\"usage\":null}}}}\n\ndata: {{\"type\":\"response.completed\",\"response\":{{\"output\":[\"{filler}\"],\"usage\":{{\"input_tokens\":1,\"output_tokens\":2,\"total_tokens\":3}}}}}}\n\n"
    );
    for cut in [1, 16_000, 100_000] {
        assert_eq!(read(Api::Responses, true, body.as_bytes(), cut), (usage(1, 2, None, 3), 2));
    }
}

#[test]
fn a_long_line_reads_the_same_in_one_chunk_and_in_many() {
    let filler = "x".repeat(40_000);
    for (end, total) in [("}", Some(3)), ("}}", None)] {
        let body = format!("data: {{\"usage\":{{\"total_tokens\":3}},\"x\":\"{filler}\"{end}\n");
        for cut in [1, 5, 16_384, 100_000] {
            let (usage, events) = read(Api::Completions, true, body.as_bytes(), cut);
            assert_eq!((usage.total, events), (total, 1), "cut by {cut}");
        }
    }
}

#[test]
fn a_long_line_that_is_no_data_is_passed_over() {
    let body = format!(": {}\ndata: {{\"usage\":{{\"total_tokens\":3}}}}\n", "x".repeat(40_000));
    for cut in [1, 3, 15_000, 100_000] {
        let (usage, events) = read(Api::Completions, true, body.as_bytes(), cut);
        assert_eq!((usage.total, events), (Some(3), 1));
    }
}

#[test]
fn sglang_events_carry_running_counts_and_the_last_stands() {
    let body = b"data: {\"meta_info\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"finish_reason\":null}}\n\ndata: {\"meta_info\":{\"prompt_tokens\":4,\"completion_tokens\":8,\"finish_reason\":{\"type\":\"stop\"}}}\n\ndata: [DONE]\n\n";
    assert_eq!(read(Api::SglangGenerate, true, body, 11), (usage(4, 8, None, 12), 2));
}

#[test]
fn answers_that_are_not_what_they_should_be_give_nothing() {
    for body in [&b"<html>usage"[..], b"", b"{\"usage\":[1,2]}", b"{\"usage\":{\"prompt_tokens\":-1}}"] {
        assert!(read(Api::ChatCompletions, false, body, 3).0.is_empty());
        assert!(read(Api::ChatCompletions, true, body, 3).0.is_empty());
        assert!(read(Api::VllmGrpcGenerate, false, body, 3).0.is_empty());
        assert!(read(Api::Opaque, false, body, 3).0.is_empty());
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

#[test]
fn grpc_frames_across_every_border() {
    let chunk = frame(&[0x0a, 9, 0x0a, 1, 5, 0x10, 30, 0x18, 1, 0x20, 16]);
    let complete = frame(&[0x12, 8, 0x0a, 0, 0x18, 30, 0x20, 2, 0x28, 16]);
    let body = [chunk, complete].concat();
    for cut in 1..=body.len() {
        assert_eq!(read(Api::VllmGrpcGenerate, true, &body, cut).0, usage(30, 2, Some(16), 32));
    }
    let embed = frame(&[0x0a, 2, 1, 2, 0x10, 6, 0x18, 2]);
    assert_eq!(read(Api::VllmGrpcEmbed, false, &embed, 1).0.prompt, Some(6));
}
