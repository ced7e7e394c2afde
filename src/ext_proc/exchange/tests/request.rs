//! The request in full-duplex mode, and what holds in every mode.

use super::super::{Limits, OverBudget};
use crate::director::{SubsetEntry, SubsetHint};
use crate::ext_proc::testing::*;
use crate::proto::ext_proc::{ProcessingRequest, Reply};
use crate::proto::metadata::{Kind, Metadata, Namespace, Struct};
use crate::request::{Ending, names};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

const BODY: &str = r#"{"model":"small","prompt":"Zwölf Boxkämpfer jagen Viktor"}"#;

fn chat(extra: &[(&str, &str)], end_of_stream: bool) -> ProcessingRequest {
    let mut pairs =
        vec![(":method", "POST"), (":path", "/v1/completions"), ("content-type", "application/json")];
    pairs.extend(extra);
    request_headers(&pairs, end_of_stream)
}

#[test]
fn the_header_reply_waits_for_the_pick_and_the_body_follows() {
    let mut driver = Driver::new(Script { id: Some("made-here".to_owned()), ..Script::default() });
    driver.send(chat(&[], false));
    assert!(driver.take().is_empty());
    driver.send(request_body(&BODY.as_bytes()[..20], false));
    assert!(driver.take().is_empty());
    assert_eq!(driver.budget.used(), 20);
    driver.send(request_body(&BODY.as_bytes()[20..], false)).send(request_body("", true));
    let out = driver.take();
    assert_eq!(kinds(&out), ["request_headers", "request_body"]);
    assert_eq!(set_header(&out[0], names::DESTINATION).as_deref(), Some(DESTINATION));
    assert_eq!(set_header(&out[0], names::REQUEST_ID).as_deref(), Some("made-here"));
    assert_eq!(set_header(&out[0], "content-length"), None);
    let Some(Reply::RequestHeaders(headers)) = &out[0].response else { panic!() };
    assert!(headers.response.as_ref().unwrap().clear_route_cache);
    let Some(Kind::Struct(lb)) = out[0].dynamic_metadata.as_ref().unwrap().get(names::LB_NAMESPACE) else {
        panic!()
    };
    assert_eq!(lb.get(names::DESTINATION), Some(&Kind::Text(Bytes::from_static(DESTINATION.as_bytes()))));
    let body = &seen(&out)[1];
    assert_eq!((body.bytes.as_deref(), body.end_of_stream), (Some(BODY.as_bytes()), true));
    assert_eq!(driver.budget.used(), 0);
}

#[test]
fn only_what_changes_is_sent_and_control_headers_of_clients_are_taken_out() {
    let mut driver = Driver::new(Script::default());
    let forged = [
        (names::DESTINATION, "1.2.3.4:5"),
        (names::PREFILLER, "1.2.3.4:5"),
        ("x-slo-ttft-ms", "1"),
        ("cookie", "a"),
    ];
    driver.send(chat(&forged, false)).send(request_body(BODY, true));
    let changes = mutation(&driver.take()[0]);
    assert_eq!(changes.set_headers.len(), 1);
    assert_eq!(changes.set_headers[0].append_action, 2);
    assert_eq!(
        changes.remove_headers,
        [names::PREFILLER, "x-slo-ttft-ms"].map(|n| Bytes::from_static(n.as_bytes()))
    );
}

#[test]
fn a_rewrite_replaces_one_span_and_tells_the_new_length() {
    let span = BODY.find(r#""small""#).unwrap();
    let rewrite = Some((span..span + 7, Bytes::from_static(br#""larger-model""#)));
    let mut driver = Driver::new(Script { rewrite, ..Script::default() });
    driver.send(chat(&[("content-length", &BODY.len().to_string())], false)).send(request_body(BODY, true));
    let out = driver.take();
    let wanted = BODY.replace("small", "larger-model");
    assert_eq!(set_header(&out[0], "content-length"), Some(wanted.len().to_string()));
    assert_eq!(seen(&out)[1].bytes.as_deref(), Some(wanted.as_bytes()));
}

#[test]
fn trailers_end_a_body_and_are_answered() {
    let mut driver = Driver::new(Script::default());
    driver.send(chat(&[], false)).send(request_body(BODY, false)).send(request_trailers());
    let out = seen(&driver.take());
    assert_eq!(
        out.iter().map(|s| s.what).collect::<Vec<_>>(),
        ["request_headers", "request_body", "request_trailers"]
    );
    assert!(!out[1].end_of_stream);
}

#[test]
fn an_empty_body_is_one_empty_piece() {
    let mut driver = Driver::new(Script { opaque: true, ..Script::default() });
    driver.send(chat(&[], false)).send(request_body("", true));
    let out = seen(&driver.take());
    assert_eq!(out.len(), 2);
    assert_eq!((out[1].bytes.as_deref(), out[1].end_of_stream), (Some(&b""[..]), true));
}

#[test]
fn a_request_without_body_is_decided_on_its_headers() {
    let mut driver = Driver::new(Script::default());
    driver.send(request_headers(&[(":method", "GET"), (":path", "/v1/models")], true));
    assert_eq!(kinds(&driver.take()), ["request_headers"]);
    assert_eq!(driver.fake.log.lock().bodies, [("absent", 0)]);
    driver.send(response_headers(&[(":status", "200")], true));
    assert_eq!(driver.endings(), [Ending::Natural]);
}

#[test]
fn tunnels_are_decided_on_their_headers_and_pass() {
    for pairs in
        [[(":method", "CONNECT"), (":path", "/")], [("upgrade", "websocket"), (":path", "/v1/realtime")]]
    {
        let mut driver = Driver::new(Script::default());
        driver.send(request_headers(&pairs, false));
        assert_eq!(kinds(&driver.take()), ["request_headers"]);
        driver.send(response_headers(&[(":status", "101")], false)).send(request_body("ping", false));
        driver.send(response_body("pong", false));
        let out = seen(&driver.take());
        assert_eq!(out[1].bytes.as_deref(), Some(&b"ping"[..]));
        assert_eq!(out[2].bytes.as_deref(), Some(&b"pong"[..]));
        driver.close();
        assert_eq!(driver.endings(), [Ending::Natural]);
    }
}

fn hint(text: &'static str) -> Metadata {
    let mut fields = Struct::default();
    fields.push(names::SUBSET, Kind::Text(Bytes::from_static(text.as_bytes())));
    let key = Bytes::from_static(names::SUBSET_NAMESPACE.as_bytes());
    Metadata { filter_metadata: vec![Namespace { key, value: Some(fields) }] }
}

#[test]
fn the_latest_hint_wins_whatever_message_it_came_with() {
    let only = |text| SubsetHint::Only(vec![SubsetEntry::parse(text).unwrap()]);
    let mut driver = Driver::new(Script::default());
    driver.send(with_metadata(chat(&[], false), hint("10.0.0.1")));
    driver.send(with_metadata(request_body(BODY, false), Metadata::default()));
    driver.send(with_metadata(request_body("", true), hint("[fd00::2]:80")));
    assert_eq!(driver.fake.log.lock().subsets, [only("[fd00::2]:80")]);
    let mut headers_only = Driver::new(Script::default());
    headers_only.send(with_metadata(chat(&[], true), hint("10.0.0.1:9")));
    assert_eq!(headers_only.fake.log.lock().subsets, [only("10.0.0.1:9")]);
    let mut nonsense = Driver::new(Script::default());
    nonsense.send(with_metadata(chat(&[], true), hint("%%")));
    assert_eq!(nonsense.fake.log.lock().subsets, [SubsetHint::Only(Vec::new())]);
}

#[test]
fn refusals_end_the_stream_and_are_counted_once() {
    let mut by_router = Driver::new(Script { refuse: true, ..Script::default() });
    by_router.send(chat(&[], false)).send(request_body(BODY, true));
    assert_eq!(status_of(&by_router.take()), 503);
    assert_eq!((by_router.end, by_router.budget.used()), (Some(Ok(())), 0));
    assert!(by_router.fake.log.lock().refused.is_empty(), "the router counts its own");
    let mut no_parser = Driver::new(Script::default());
    no_parser.send(request_headers(&[(":path", "/nobody")], false));
    assert_eq!(status_of(&no_parser.take()), 400);
    assert_eq!(no_parser.fake.log.lock().refused, ["BadRequest"]);
}

#[test]
fn a_body_over_the_cap_is_refused_early_when_it_is_announced() {
    let limits = Limits { max_body_bytes: 100, ..Limits::default() };
    let mut announced = Driver::with(Script::default(), limits, 1000);
    announced.send(chat(&[("content-length", "101")], false));
    assert_eq!(status_of(&announced.take()), 413);
    let mut sent = Driver::with(Script::default(), limits, 1000);
    sent.send(chat(&[], false)).send(request_body([b'x'; 100], false));
    assert!(sent.take().is_empty());
    sent.send(request_body("y", false));
    assert_eq!(status_of(&sent.take()), 413);
    assert_eq!((sent.end, sent.budget.used()), (Some(Ok(())), 0));
}

#[test]
fn over_the_budget_a_body_is_refused_or_passes_unread() {
    let refuse = Limits::default();
    let mut refused = Driver::with(Script::default(), refuse, 50);
    refused
        .send(chat(&[], false))
        .send(request_body([b'x'; 40], false))
        .send(request_body([b'x'; 20], false));
    assert_eq!(status_of(&refused.take()), 503);
    assert_eq!(refused.fake.log.lock().refused, ["ServiceUnavailable"]);
    assert_eq!(refused.budget.used(), 0);

    let pass = Limits { over_budget: OverBudget::DecideOnHeaders, ..Limits::default() };
    let mut passed = Driver::with(Script::default(), pass, 50);
    passed.send(chat(&[], false)).send(request_body([b'x'; 40], false)).send(request_body([b'y'; 20], false));
    assert_eq!(passed.fake.log.lock().bodies, [("hidden", 60)]);
    passed.send(request_body("zz", false)).send(request_body("", true));
    let out = seen(&passed.take());
    let bytes: Vec<u8> = out.iter().filter_map(|s| s.bytes.clone()).flatten().collect();
    assert_eq!(bytes, [vec![b'x'; 40], vec![b'y'; 20], b"zz".to_vec()].concat());
    assert!(out.iter().rev().skip(1).all(|s| !s.end_of_stream) && out.last().unwrap().end_of_stream);
    assert_eq!(passed.budget.used(), 0);
}

#[test]
fn a_body_without_progress_ends_in_408() {
    let limits = Limits { body_idle: Duration::from_secs(5), ..Limits::default() };
    let mut driver = Driver::with(Script::default(), limits, 1000);
    driver.send(chat(&[], false));
    driver.now = driver.now.plus(Duration::from_secs(4));
    driver.send(request_body("{", false));
    let deadline = driver.exchange.deadline().unwrap();
    assert_eq!(deadline, driver.now.plus(Duration::from_secs(5)));
    driver.now = driver.now.plus(Duration::from_secs(4));
    driver.send(request_body("", false));
    assert_eq!(driver.exchange.deadline(), Some(deadline), "an empty message is no progress");
    let early = driver.exchange.on_deadline(driver.now);
    driver.follow(early);
    assert!(driver.take().is_empty());
    let late = driver.exchange.on_deadline(deadline);
    driver.follow(late);
    assert_eq!(status_of(&driver.take()), 408);
    assert_eq!((driver.end, driver.exchange.deadline()), (Some(Ok(())), None));
}

#[test]
fn a_message_over_the_servers_limit_is_a_413_while_a_body_is_collected() {
    let mut driver = Driver::new(Script::default());
    driver.send(chat(&[], false));
    let step = driver.exchange.on_oversized();
    driver.follow(step);
    assert_eq!(status_of(&driver.take()), 413);
}

#[test]
fn an_eviction_answers_429_until_the_response_has_ended() {
    let mut driver = Driver::new(Script::default());
    driver.send(chat(&[], false)).send(request_body(BODY, true));
    driver.take();
    let step = driver.exchange.on_evicted(Some("evicted-priority"));
    driver.follow(step);
    let out = driver.take();
    assert_eq!(status_of(&out), 429);
    assert_eq!(set_header(&out[0], names::DROPPED_REASON).as_deref(), Some("evicted-priority"));
    assert_eq!((driver.endings(), driver.end), (vec![Ending::Evicted], Some(Ok(()))));

    let mut done = Driver::new(Script::default());
    done.send(chat(&[], true)).send(response_headers(&[(":status", "204")], true));
    done.take();
    let step = done.exchange.on_evicted(None);
    done.follow(step);
    assert_eq!((done.endings(), done.end, done.out.len()), (vec![Ending::Natural], None, 0));
}

#[test]
fn hidden_control_characters_and_odd_bytes_in_headers_change_nothing() {
    let mut driver = Driver::new(Script { id: Some("a\r\nx-evil: 1".to_owned()), ..Script::default() });
    let huge = "x".repeat(200_000);
    driver.send(chat(&[("x-huge", &huge), ("x-lines", "a\nb"), ("", "nameless")], false));
    driver.send(request_body(BODY, true));
    let changes = mutation(&driver.take()[0]);
    assert_eq!(changes.set_headers.len(), 1, "only the destination");
}

#[test]
fn scores_are_shown_when_the_route_has_them() {
    let scores = Some(vec![(Arc::from("10.0.0.1:8000"), 2.5)]);
    let mut driver = Driver::new(Script { scores, ..Script::default() });
    driver.send(chat(&[], true));
    let metadata = driver.take()[0].dynamic_metadata.clone().unwrap();
    let Some(Kind::Struct(lb)) = metadata.get(names::LB_NAMESPACE) else { panic!() };
    let Some(Kind::Struct(rated)) = lb.get("x-gateway-destination-endpoint-scores") else { panic!() };
    assert_eq!(rated.get("10.0.0.1:8000"), Some(&Kind::Number(2.5)));
}

proptest! {
    /// However a body is split, the same replies come.
    #[test]
    fn any_split_gives_the_same_replies(
        text in "[a-zäß€𝄞\"\\\\]{0,400}", repeat in 1usize..400, cuts in proptest::collection::vec(0usize..60_000, 0..12),
    ) {
        let prompt = serde_json::Value::from(text.repeat(repeat)).to_string();
        let body = format!(r#"{{"model":"small","prompt":{prompt}}}"#);
        let run = |cuts: &[usize]| {
            let at = body.find(r#""small""#).unwrap_or(0);
            let rewrite = Some((at..at + 7, Bytes::from_static(b"\"m\"")));
            let mut driver = Driver::new(Script { rewrite, ..Script::default() });
            driver.send(chat(&[], false));
            let mut from = 0;
            for cut in cuts {
                let to = (*cut).clamp(from, body.len());
                driver.send(request_body(&body.as_bytes()[from..to], false));
                from = to;
            }
            driver.send(request_body(&body.as_bytes()[from..], true));
            let bodies = driver.fake.log.lock().bodies.clone();
            (driver.take(), bodies)
        };
        let mut sorted = cuts.clone();
        sorted.sort_unstable();
        let (whole, split) = (run(&[]), run(&sorted));
        prop_assert_eq!(whole, split);
    }
}
