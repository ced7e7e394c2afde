//! Messages in orders that must not occur.

use super::super::{Limits, OverBudget, ResponseBodies};
use crate::ext_proc::testing::*;
use crate::proto::ext_proc::{BodySendMode, ProcessingRequest};
use crate::request::Ending;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

fn post() -> ProcessingRequest {
    request_headers(&[(":method", "POST"), (":path", "/x")], false)
}

fn opaque() -> Driver {
    Driver::new(Script { opaque: true, ..Script::default() })
}

#[test]
fn impossible_orders_end_the_stream_with_what_is_wrong() {
    type Make = fn() -> ProcessingRequest;
    let orders: [(&[Make], &str); 7] = [
        (&[|| request_body("x", false)], "request_body came before the request's headers"),
        (&[post, post], "request_headers came before the request's body had ended"),
        (&[post, || response_body("x", true)], "response_body came before the request's body had ended"),
        (
            &[post, || request_body("x", true), || request_body("y", true)],
            "request_body came after the request had ended",
        ),
        (
            &[post, || request_body("x", true), request_trailers],
            "request_trailers came after the request had ended",
        ),
        (&[post, || request_body("x", true), post], "request_headers came after the request was routed"),
        (
            &[|| response_headers(&[], true), || response_headers(&[], true)],
            "response_headers came in a response that no decision belongs to",
        ),
    ];
    for (order, wanted) in orders {
        let mut driver = opaque();
        for make in order {
            driver.send(make());
        }
        let problem = driver.end.unwrap().unwrap_err().to_string();
        assert!(problem.starts_with(wanted), "{problem}");
        assert!(problem.contains("processing mode"), "{problem}");
        assert_eq!(driver.budget.used(), 0);
        let endings = driver.endings();
        assert!(endings.iter().all(|e| *e == Ending::Protocol), "{wanted}: {endings:?}");
    }
}

#[test]
fn after_the_response_had_ended_nothing_can_follow_but_the_end_again() {
    let mut driver = opaque();
    driver.send(post()).send(request_body("x", true)).send(response_headers(&[(":status", "200")], true));
    driver.send(request_body("", true)).send(response_body("", true));
    assert!(driver.end.is_none());
    driver.send(response_body("x", true));
    assert!(driver.end.unwrap().is_err());
    assert_eq!(driver.endings(), [Ending::Natural]);
}

#[test]
fn an_engine_may_answer_before_the_request_has_ended() {
    let mut driver = opaque();
    driver.send(with_modes(post(), BodySendMode::Streamed, BodySendMode::Streamed));
    driver.send(request_body("a", false)).send(response_headers(&[(":status", "413")], true));
    driver.send(request_body("b", true));
    assert_eq!(
        kinds(&driver.take()),
        ["request_headers", "request_body", "response_headers", "request_body"]
    );
    assert!(driver.end.is_none());
}

#[test]
fn unknown_messages_are_passed_over() {
    let mut driver = opaque();
    driver.send(ProcessingRequest::default()).send(post()).send(ProcessingRequest::default());
    driver.send(request_body("x", true));
    assert_eq!(kinds(&driver.take()), ["request_headers", "request_body"]);
}

/// One move of a proxy, a router or the clock that may come at any time.
#[derive(Clone, Debug)]
enum Move {
    Send(u8, Vec<u8>, bool),
    Decide,
    Evict,
    Tick,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        12 => (0u8..6, proptest::collection::vec(any::<u8>(), 0..200), any::<bool>())
            .prop_map(|(kind, bytes, end)| Move::Send(kind, bytes, end)),
        3 => Just(Move::Decide),
        1 => Just(Move::Evict),
        1 => Just(Move::Tick),
    ]
}

fn event(kind: u8, bytes: &[u8], end: bool) -> ProcessingRequest {
    let odd = String::from_utf8_lossy(bytes).into_owned();
    let pairs = [
        (":path", "/x"),
        (odd.as_str(), odd.as_str()),
        ("upgrade", if bytes.len() > 190 { "ws" } else { "" }),
    ];
    match kind {
        0 => request_headers(&pairs, end),
        1 => request_body(bytes, end),
        2 => request_trailers(),
        3 => response_headers(&pairs, end),
        4 => response_body(bytes, end),
        _ => response_trailers(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever comes in whatever order: nothing panics, a routed request ends exactly once, no byte stays counted.
    #[test]
    fn any_order_of_messages_ends_without_a_leak(
        steps in proptest::collection::vec(moves(), 0..25),
        begin in any::<bool>(), modes in (0i32..6, 0i32..6),
        slow in any::<bool>(), refuse in any::<bool>(), on_headers in any::<bool>(), skip in any::<bool>(),
        budget in 0usize..600, max_body_bytes in 0usize..600,
    ) {
        let over_budget = if on_headers { OverBudget::DecideOnHeaders } else { OverBudget::Refuse };
        let response_bodies = if skip { ResponseBodies::Skip } else { ResponseBodies::Read };
        let limits =
            Limits { max_body_bytes, body_idle: Duration::from_secs(1), over_budget, response_bodies };
        let mut driver = Driver::with(Script { opaque: true, refuse, ..Script::default() }, limits, budget);
        driver.slow = slow;
        let mut first = if begin { vec![Move::Send(0, vec![b'a'], false)] } else { Vec::new() };
        first.extend(steps);
        for (index, step) in first.into_iter().enumerate() {
            if driver.end.is_some() {
                break;
            }
            match step {
                Move::Send(kind, bytes, end) => {
                    let mut message = event(kind, &bytes, end);
                    if index == 0 {
                        message.protocol_config = Some(crate::proto::ext_proc::ProtocolConfiguration {
                            request_body_mode: modes.0,
                            response_body_mode: modes.1,
                        });
                    }
                    driver.send(message);
                }
                Move::Decide => { driver.decide(); }
                Move::Evict => {
                    let step = driver.exchange.on_evicted(None);
                    driver.follow(step);
                }
                Move::Tick => {
                    driver.now = driver.now.plus(Duration::from_secs(2));
                    let step = driver.exchange.on_deadline(driver.now);
                    driver.follow(step);
                }
            }
        }
        driver.close();
        driver.decide();
        let (fake, budget) = (Arc::clone(&driver.fake), Arc::clone(&driver.budget));
        prop_assert!(driver.exchange.is_drained() && !driver.exchange.awaits_decision());
        drop(driver);
        prop_assert_eq!(budget.used(), 0);
        let log = fake.log.lock();
        let given = if refuse { 0 } else { log.routed };
        prop_assert!(log.routed <= 1);
        prop_assert_eq!(log.endings.len(), given, "{:?}", log.endings);
    }
}
