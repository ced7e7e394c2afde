//! Responses whose bodies nobody wants to read.

use crate::ext_proc::exchange::{Limits, ResponseBodies};
use crate::ext_proc::testing::*;
use crate::proto::ext_proc::BodySendMode::{self, Buffered, BufferedPartial, FullDuplexStreamed, Streamed};
use crate::request::{Ending, Usage};

const OK: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/json")];
const SSE: [(&str, &str); 2] = [(":status", "200"), ("content-type", "text/event-stream")];
const ANSWER: &str = r#"{"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
const SKIPPED: i32 = 2;

/// A routed request whose response's headers are still to come.
fn skipping(script: Script, request: BodySendMode, response: BodySendMode) -> Driver {
    let limits = Limits { response_bodies: ResponseBodies::Skip, ..Limits::default() };
    let mut driver = Driver::with(script, limits, 1 << 30);
    let get = request_headers(&[(":method", "GET"), (":path", "/v1/models")], true);
    driver.send(with_modes(get, request, response));
    driver.take();
    driver
}

#[test]
fn the_proxy_is_asked_to_send_no_more_of_the_response_and_the_request_stays() {
    for response in [Streamed, Buffered, BufferedPartial] {
        for request in [Streamed, Buffered, BodySendMode::None] {
            for headers in [OK, SSE] {
                let mut driver = skipping(Script::default(), request, response);
                driver.send(response_headers(&headers, false));
                let mode = driver.take()[0].mode_override.unwrap();
                assert_eq!((mode.request_body_mode, mode.response_body_mode), (request.into(), 0));
                assert_eq!((mode.request_trailer_mode, mode.response_trailer_mode), (1, SKIPPED));
                assert!(driver.fake.log.lock().unseen, "its size is not known");
                assert!(driver.end.is_none(), "the stream stays open to the end of the response");
                driver.close();
                assert_eq!(driver.endings(), [Ending::Natural], "{request:?} {response:?}");
            }
        }
    }
}

#[test]
fn full_duplex_takes_no_override_and_passes_unread() {
    for (request, response) in [(Buffered, FullDuplexStreamed), (FullDuplexStreamed, FullDuplexStreamed)] {
        let mut driver = skipping(Script::default(), request, response);
        driver.send(response_headers(&OK, false)).send(response_body(ANSWER, true));
        let out = driver.take();
        assert!(out[0].mode_override.is_none());
        assert_eq!(seen(&out)[1].bytes.as_deref(), Some(ANSWER.as_bytes()));
        let log = driver.fake.log.lock();
        assert_eq!((log.usage, log.response_bytes, log.unseen), (Usage::default(), ANSWER.len(), false));
    }
    let mut mixed = skipping(Script::default(), FullDuplexStreamed, Streamed);
    mixed.send(response_headers(&OK, false)).send(response_body(ANSWER, false));
    assert!(mixed.take()[0].mode_override.is_none());
    mixed.close();
    assert_eq!(mixed.endings(), [Ending::Disconnected], "the proxy would have told the end");
}

#[test]
fn a_proxy_that_sends_bodies_all_the_same_is_answered_and_tells_the_end() {
    let mut driver = skipping(Script::default(), Streamed, Streamed);
    driver.send(response_headers(&OK, false)).send(response_body(ANSWER, false));
    driver.send(response_body("", true));
    assert_eq!(kinds(&driver.take()), ["response_headers", "response_body", "response_body"]);
    assert_eq!(driver.endings(), [Ending::Natural]);
    let mut broken = skipping(Script::default(), Streamed, Streamed);
    broken.send(response_headers(&OK, false)).send(response_body(ANSWER, false)).close();
    assert_eq!(broken.endings(), [Ending::Disconnected]);
}

#[test]
fn a_body_in_which_a_name_must_be_put_back_is_shown() {
    let restore = Script { restore: Some(("target".into(), "asked-for".into())), ..Script::default() };
    let mut driver = skipping(restore.clone(), Streamed, Streamed);
    driver.send(response_headers(&OK, false)).send(response_body(r#"{"model":"target"}"#, true));
    let out = driver.take();
    assert!(out[0].mode_override.is_none());
    assert_eq!(seen(&out)[1].bytes.as_deref(), Some(&br#"{"model":"asked-for"}"#[..]));
    assert!(!driver.fake.log.lock().unseen);
    // What is encoded cannot be changed, so it need not be seen.
    let mut encoded = skipping(restore, Streamed, Streamed);
    encoded.send(response_headers(&[(":status", "200"), ("content-encoding", "gzip")], false));
    assert!(encoded.take()[0].mode_override.is_some());
}

#[test]
fn a_response_without_a_body_and_a_tunnel_ask_for_nothing_of_their_own() {
    let mut driver = skipping(Script::default(), Streamed, Streamed);
    driver.send(response_headers(&[(":status", "204")], true));
    assert!(driver.take()[0].mode_override.is_none());
    assert!(!driver.fake.log.lock().unseen, "nothing is nothing to see");
    assert_eq!(driver.endings(), [Ending::Natural]);
    let mut tunnel = skipping(Script::default(), Streamed, BodySendMode::None);
    tunnel.send(response_headers(&[(":status", "101")], false));
    assert!(tunnel.take()[0].mode_override.is_none());
}

#[test]
fn bodies_that_are_wanted_are_read_and_those_hidden_by_the_proxy_are_known_to_be() {
    for (mode, unseen) in [(Streamed, false), (BodySendMode::None, true)] {
        let mut driver = Driver::new(Script::default());
        let get = request_headers(&[(":method", "GET"), (":path", "/v1/models")], true);
        driver.send(with_modes(get, Streamed, mode)).send(response_headers(&OK, false));
        assert!(driver.take()[1].mode_override.is_none());
        assert_eq!(driver.fake.log.lock().unseen, unseen);
    }
}
