//! The request in the other body modes.

use crate::ext_proc::testing::*;
use crate::proto::ext_proc::{BodySendMode, ProcessingRequest};
use crate::request::{Ending, names};
use bytes::Bytes;

const BODY: &str = r#"{"model":"small","prompt":"hello"}"#;

fn headers(mode: BodySendMode) -> ProcessingRequest {
    let pairs = [(":method", "POST"), (":path", "/v1/completions"), (names::DESTINATION, "6.6.6.6:6")];
    with_modes(request_headers(&pairs, false), mode, BodySendMode::None)
}

fn rewrite() -> Script {
    let at = BODY.find(r#""small""#).unwrap();
    Script { rewrite: Some((at..at + 7, Bytes::from_static(b"\"other\""))), ..Script::default() }
}

#[test]
fn buffered_answers_headers_with_nothing_and_picks_on_the_body() {
    let mut driver = Driver::new(Script::default());
    driver.send(headers(BodySendMode::Buffered));
    let out = driver.take();
    assert_eq!(kinds(&out), ["request_headers"]);
    assert!(mutation(&out[0]).set_headers.is_empty());
    driver.send(request_body(BODY, true));
    let out = driver.take();
    assert_eq!(kinds(&out), ["request_body"]);
    assert_eq!(set_header(&out[0], names::DESTINATION).as_deref(), Some(DESTINATION));
    assert_eq!(seen(&out)[0].bytes, None, "an unchanged body is not sent back");
    assert!(out[0].dynamic_metadata.is_some());
    assert_eq!(driver.fake.log.lock().bodies, [("whole", BODY.len())]);
    assert_eq!(driver.budget.used(), 0);
}

#[test]
fn buffered_replaces_the_whole_body_on_a_rewrite() {
    let mut driver = Driver::new(rewrite());
    driver.send(headers(BodySendMode::Buffered)).send(request_body(BODY, true));
    let out = driver.take();
    assert_eq!(seen(&out)[1].bytes.as_deref(), Some(BODY.replace("small", "other").as_bytes()));
    assert_eq!(set_header(&out[1], "content-length"), None, "the length is the same");
}

#[test]
fn buffered_with_trailers_picks_on_the_body() {
    let mut driver = Driver::new(Script::default());
    driver.send(headers(BodySendMode::Buffered)).send(request_body(BODY, false));
    assert_eq!(kinds(&driver.take()), ["request_headers", "request_body"]);
    driver.send(request_trailers());
    assert_eq!(kinds(&driver.take()), ["request_trailers"]);
    assert_eq!(driver.fake.log.lock().bodies, [("whole", BODY.len())]);
}

#[test]
fn a_cut_body_is_decided_from_what_is_there() {
    let mut driver = Driver::new(Script::default());
    driver.send(headers(BodySendMode::BufferedPartial)).send(request_body(&BODY.as_bytes()[..20], false));
    let out = driver.take();
    assert_eq!(kinds(&out), ["request_headers", "request_body"]);
    assert_eq!(set_header(&out[1], names::DESTINATION).as_deref(), Some(DESTINATION));
    assert_eq!(driver.fake.log.lock().bodies, [("cut", 20)]);
}

#[test]
fn a_cut_body_with_another_model_gets_a_length_only_when_it_was_announced() {
    let at = BODY.find(r#""small""#).unwrap();
    let longer =
        Script { rewrite: Some((at..at + 7, Bytes::from_static(b"\"longer\""))), ..Script::default() };
    for (announced, wanted) in [(None, None), (Some("1000"), Some("1001"))] {
        let mut driver = Driver::new(longer.clone());
        let mut pairs = vec![(":path", "/v1/completions")];
        pairs.extend(announced.map(|a| ("content-length", a)));
        let first = request_headers(&pairs, false);
        driver.send(with_modes(first, BodySendMode::BufferedPartial, BodySendMode::None));
        driver.send(request_body(&BODY.as_bytes()[..30], false));
        assert_eq!(set_header(&driver.take()[1], "content-length").as_deref(), wanted);
    }
}

#[test]
fn streamed_and_none_pick_on_the_headers_and_only_watch_the_body() {
    for mode in [BodySendMode::Streamed, BodySendMode::None] {
        let mut driver = Driver::new(rewrite());
        driver.send(headers(mode));
        let out = driver.take();
        assert_eq!(kinds(&out), ["request_headers"]);
        assert_eq!(set_header(&out[0], names::DESTINATION).as_deref(), Some(DESTINATION));
        assert_eq!(driver.fake.log.lock().bodies, [("hidden", 0)]);
        driver
            .send(request_body(&BODY.as_bytes()[..9], false))
            .send(request_body(&BODY.as_bytes()[9..], true));
        let out = seen(&driver.take());
        assert_eq!(out.len(), 2, "each piece is answered");
        assert!(out.iter().all(|s| s.what == "request_body" && s.bytes.is_none()));
    }
}

#[test]
fn pieces_that_come_before_the_decision_are_answered_after_it() {
    let mut driver = Driver::new(Script::default());
    driver.slow = true;
    driver.send(headers(BodySendMode::Streamed)).send(request_body("a", false)).send(request_trailers());
    assert!(driver.take().is_empty());
    driver.decide();
    assert_eq!(kinds(&driver.take()), ["request_headers", "request_body", "request_trailers"]);
}

#[test]
fn with_no_response_bodies_the_end_of_the_stream_is_the_end_of_the_response() {
    let mut driver = Driver::new(Script::default());
    driver.send(headers(BodySendMode::Buffered)).send(request_body(BODY, true));
    driver.send(response_headers(&[(":status", "200")], false)).close();
    assert_eq!(driver.endings(), [Ending::Natural]);
    let mut gone = Driver::new(Script::default());
    gone.send(headers(BodySendMode::Buffered)).send(request_body(BODY, true)).close();
    assert_eq!(gone.endings(), [Ending::Disconnected]);
}

#[test]
fn a_tunnel_in_another_mode_asks_for_no_bodies() {
    let mut driver = Driver::new(Script::default());
    let upgrade = request_headers(&[("upgrade", "websocket"), (":path", "/")], false);
    driver.send(with_modes(upgrade, BodySendMode::Buffered, BodySendMode::Streamed));
    let mode = driver.take()[0].mode_override.unwrap();
    assert_eq!((mode.request_body_mode, mode.response_body_mode), (0, 0));
    driver.send(response_headers(&[(":status", "101")], false));
    let again = driver.take()[0].mode_override.unwrap();
    assert_eq!((again.request_body_mode, again.response_body_mode), (0, 0), "not brought back");
}

#[test]
fn a_request_of_trailers_alone_is_still_decided() {
    let mut driver = Driver::new(Script { opaque: true, ..Script::default() });
    driver.send(headers(BodySendMode::Buffered)).send(request_trailers());
    let out = driver.take();
    assert_eq!(kinds(&out), ["request_headers", "request_trailers"]);
    assert!(out[1].dynamic_metadata.is_some());
}
