//! Responses in every mode.

use crate::ext_proc::testing::*;
use crate::plugin::HeaderEdits;
use crate::proto::ext_proc::BodySendMode;
use crate::proto::metadata::{Kind, Metadata, Namespace, Struct};
use crate::request::{Ending, names};
use bytes::Bytes;

fn routed(script: Script, response: BodySendMode) -> Driver {
    let mut driver = Driver::new(script);
    let get = request_headers(&[(":method", "GET"), (":path", "/v1/models")], true);
    driver.send(with_modes(get, BodySendMode::FullDuplexStreamed, response));
    driver.take();
    driver
}

const OK: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/json")];
const SSE: [(&str, &str); 2] = [(":status", "200"), ("content-type", "Text/Event-Stream; charset=utf-8")];

#[test]
fn full_duplex_passes_every_piece_and_its_end() {
    let mut driver = routed(Script::default(), BodySendMode::FullDuplexStreamed);
    driver.send(response_headers(&OK, false)).send(response_body("one", false));
    driver.send(response_body([7; 130_000], false)).send(response_body("", true));
    let out = seen(&driver.take());
    assert_eq!(out[0].what, "response_headers");
    let sizes: Vec<_> = out[1..].iter().map(|s| s.bytes.as_ref().unwrap().len()).collect();
    assert_eq!(sizes, [3, 62_000, 62_000, 6_000, 0]);
    assert!(out.last().unwrap().end_of_stream);
    assert_eq!((driver.endings(), driver.fake.log.lock().response_bytes), (vec![Ending::Natural], 130_003));
    driver.send(response_body("", true));
    assert!(driver.take().is_empty(), "a second end is tolerated");
    driver.close();
    assert_eq!(driver.endings().len(), 1);
}

#[test]
fn what_is_reported_goes_with_the_last_reply_alone() {
    for mode in [BodySendMode::FullDuplexStreamed, BodySendMode::Streamed] {
        let mut driver = routed(Script { reports: true, ..Script::default() }, mode);
        driver
            .send(response_headers(&OK, false))
            .send(response_body("{", false))
            .send(response_body("", true));
        let out = driver.take();
        let (last, others) = out.split_last().unwrap();
        assert!(others.iter().all(|reply| reply.dynamic_metadata.is_none()));
        let metadata = last.dynamic_metadata.as_ref().unwrap();
        let Some(Kind::Struct(fields)) = metadata.get("n") else { panic!("{metadata:?}") };
        assert_eq!(fields.get("a"), Some(&Kind::Number(15.0)));
    }
}

#[test]
fn trailers_end_a_response() {
    let mut driver = routed(Script::default(), BodySendMode::FullDuplexStreamed);
    driver
        .send(response_headers(&SSE, false))
        .send(response_body("data: x\n\n", false))
        .send(response_trailers());
    assert_eq!(kinds(&driver.take()), ["response_headers", "response_body", "response_trailers"]);
    assert_eq!(driver.endings(), [Ending::Natural]);
}

#[test]
fn streamed_and_buffered_pieces_get_an_empty_answer_each() {
    for mode in [BodySendMode::Streamed, BodySendMode::Buffered, BodySendMode::BufferedPartial] {
        let mut driver = routed(Script::default(), mode);
        driver.send(response_headers(&OK, false)).send(response_body("{}", true));
        let out = seen(&driver.take());
        assert_eq!((out[1].what, out[1].bytes.clone()), ("response_body", None));
        assert_eq!(driver.endings(), [Ending::Natural]);
        driver.send(response_body("", true));
        assert_eq!(kinds(&driver.take()), ["response_body"], "each message waits for an answer");
    }
}

#[test]
fn a_response_that_stops_halfway_is_disconnected_and_one_cut_by_the_proxy_is_not() {
    let mut driver = routed(Script::default(), BodySendMode::FullDuplexStreamed);
    driver.send(response_headers(&SSE, false)).send(response_body("data: x\n\n", false)).close();
    assert_eq!(driver.endings(), [Ending::Disconnected]);
    let mut cut = routed(Script::default(), BodySendMode::BufferedPartial);
    cut.send(response_headers(&OK, false)).send(response_body("{", false)).close();
    assert_eq!(cut.endings(), [Ending::Natural]);
}

#[test]
fn an_event_stream_is_not_left_in_the_proxys_buffer() {
    let mut driver = routed(Script::default(), BodySendMode::Buffered);
    driver.send(response_headers(&SSE, false));
    let mode = driver.take()[0].mode_override.unwrap();
    assert_eq!(mode.response_body_mode, i32::from(BodySendMode::Streamed));
    assert_eq!(mode.request_body_mode, i32::from(BodySendMode::FullDuplexStreamed));
    assert_eq!((mode.request_trailer_mode, mode.response_trailer_mode), (1, 1), "trailers are still shown");
    let mut plain = routed(Script::default(), BodySendMode::Buffered);
    plain.send(response_headers(&OK, false));
    assert!(plain.take()[0].mode_override.is_none());
}

#[test]
fn status_and_served_endpoint_reach_the_route_and_edits_reach_the_client() {
    let mut edits = HeaderEdits::default();
    edits.set("x-session-token", "abc");
    let mut driver = routed(Script { response_edits: edits, ..Script::default() }, BodySendMode::None);
    let mut fields = Struct::default();
    fields.push(names::SERVED, Kind::Text(Bytes::from_static(b"10.0.0.2:8000")));
    let key = Bytes::from_static(names::LB_NAMESPACE.as_bytes());
    let metadata = Metadata { filter_metadata: vec![Namespace { key, value: Some(fields) }] };
    driver.send(with_metadata(response_headers(&[(":status", "503")], true), metadata));
    assert_eq!(set_header(&driver.take()[0], "x-session-token").as_deref(), Some("abc"));
    let log = driver.fake.log.lock();
    assert_eq!((log.status, log.served.clone()), (Some(503), vec![Some("10.0.0.2:8000".to_owned())]));
}

#[test]
fn a_length_that_may_change_is_taken_out() {
    let restore = Script { restore: Some(("target".into(), "asked-for".into())), ..Script::default() };
    let mut driver = routed(restore.clone(), BodySendMode::FullDuplexStreamed);
    driver.send(response_headers(&OK, false));
    assert_eq!(mutation(&driver.take()[0]).remove_headers, [Bytes::from_static(b"content-length")]);
    let mut encoded = routed(restore, BodySendMode::FullDuplexStreamed);
    encoded.send(response_headers(&[(":status", "200"), ("content-encoding", "gzip")], false));
    assert!(mutation(&encoded.take()[0]).remove_headers.is_empty(), "what is encoded passes as it is");
}

#[test]
fn a_proxy_that_hides_response_headers_is_understood() {
    let mut driver = routed(Script::default(), BodySendMode::Streamed);
    driver.send(response_body("{}", true));
    assert_eq!(kinds(&driver.take()), ["response_body"]);
    assert_eq!(driver.endings(), [Ending::Natural]);
}

#[test]
fn responses_without_a_request_pass_unchanged() {
    let mut driver = Driver::new(Script::default());
    driver.send(response_headers(&OK, false)).send(response_body("abc", false)).send(response_trailers());
    let out = seen(&driver.take());
    assert_eq!(
        out.iter().map(|s| s.what).collect::<Vec<_>>(),
        ["response_headers", "response_body", "response_trailers"]
    );
    assert_eq!(out[1].bytes.as_deref(), Some(&b"abc"[..]));
    let mut buffered = Driver::new(Script::default());
    let first = with_modes(response_headers(&OK, false), BodySendMode::None, BodySendMode::Buffered);
    buffered.send(first).send(response_body("abc", true)).send(response_body("", true));
    assert_eq!(seen(&buffered.take())[1].bytes, None);
}

#[test]
fn the_proxys_own_answer_gives_a_request_up() {
    let mut driver = Driver::new(Script::default());
    driver.send(request_headers(&[(":path", "/v1/completions")], false)).send(request_body("{", false));
    assert_eq!(driver.budget.used(), 1);
    driver.send(response_headers(&[(":status", "504")], true));
    assert_eq!(kinds(&driver.take()), ["response_headers"]);
    assert_eq!(driver.budget.used(), 0);
    driver.send(request_body("late", true));
    assert!(driver.take().is_empty() && driver.end.is_none());

    let mut waiting = Driver::new(Script { opaque: true, ..Script::default() });
    waiting.slow = true;
    waiting.send(request_headers(&[(":path", "/x")], false)).send(request_body("{}", true));
    assert!(waiting.exchange.awaits_decision());
    waiting.send(response_headers(&[(":status", "504")], true));
    assert!(!waiting.exchange.awaits_decision());
    waiting.decide();
    assert_eq!(
        (kinds(&waiting.take()), waiting.endings()),
        (vec!["response_headers"], vec![Ending::Disconnected])
    );
}
