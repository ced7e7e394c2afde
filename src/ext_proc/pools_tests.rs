//! Which pool a first message belongs to, and what becomes of those that belong to none.

use super::*;
use crate::ext_proc::testing::{Fake, Script, header_list, request_headers, response_headers, with_metadata};
use crate::proto::ext_proc::Reply;
use crate::proto::metadata::{Namespace, Struct};
use crate::telemetry::recorder::Scale;

const ATTRIBUTE: &str = "xds.route_metadata.filter_metadata['pointsman']['pool']";
const NOW: Moment = Moment::from_nanos(1);
const HEADER: &str = "x-inference-pool";

fn lane() -> Lane<Fake> {
    let meters = Arc::new(Meters::new(false));
    let router = Fake::new(Script::default());
    Lane { router, budget: Budget::new(1 << 20), meters, scope: Scope::default() }
}

fn named(names: &[&str]) -> Named<Fake> {
    Named { names: names.iter().map(|name| Arc::from(*name)).collect(), lane: lane() }
}

fn pools(header: Option<&'static str>) -> (Pools<Fake>, MetricsHandle) {
    let metrics = MetricsHandle::new(false, Scale::SeveralPools);
    let signs =
        Signs { header: header.map(Bytes::from), attribute: Bytes::from_static(ATTRIBUTE.as_bytes()) };
    let others = vec![named(&["other/b", "other/b"]), named(&["c", "default/c"])];
    (Pools::several(named(&["a", "default/a"]), others, signs, &metrics), metrics)
}

fn fields(pairs: &[(&'static str, Kind)]) -> Struct {
    let mut fields = Struct::default();
    for (name, kind) in pairs {
        fields.push(*name, kind.clone());
    }
    fields
}

fn text(value: &'static str) -> Kind {
    Kind::Text(Bytes::from_static(value.as_bytes()))
}

fn metadata(kind: Kind) -> Metadata {
    let value = Some(fields(&[(FIELD, kind)]));
    Metadata { filter_metadata: vec![Namespace { key: Bytes::from_static(NAMESPACE.as_bytes()), value }] }
}

fn with_attribute(mut message: ProcessingRequest, kind: Kind) -> ProcessingRequest {
    let value = Some(fields(&[("xds.route_name", text("r")), (ATTRIBUTE, kind)]));
    message.attributes = vec![Namespace { key: Bytes::from_static(b"envoy.filters.http.ext_proc"), value }];
    message
}

fn post(headers: &[(&str, &str)]) -> ProcessingRequest {
    let all: Vec<_> =
        [(":method", "POST"), (":path", "/x")].into_iter().chain(headers.iter().copied()).collect();
    request_headers(&all, false)
}

/// The place of the pool, or the status of the refusal.
fn outcome(pools: &Pools<Fake>, mut message: ProcessingRequest) -> Result<usize, i32> {
    match pools.chooser().unwrap().choose(None, &mut message, NOW) {
        Choice::Pool(Place(place), _) => Ok(place),
        Choice::Refused(refusal) => match refusal.response.unwrap() {
            Reply::Immediate(immediate) => Err(immediate.status.unwrap().code),
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn one_pool_needs_no_choice() {
    assert!(Pools::one(lane()).chooser().is_none());
}

#[test]
fn metadata_comes_before_the_attribute_and_that_before_the_header() {
    let (pools, _) = pools(Some(HEADER));
    for (message, expected) in [
        (post(&[(HEADER, "a")]), Ok(0)),
        (post(&[(HEADER, " default/a ")]), Ok(0)),
        (post(&[(HEADER, "other/b")]), Ok(1)),
        (with_attribute(post(&[(HEADER, "a")]), text("c")), Ok(2)),
        (with_metadata(with_attribute(post(&[(HEADER, "a")]), text("c")), metadata(text("other/b"))), Ok(1)),
        // What a route does not have comes without a value, and as an empty text from some versions.
        (with_attribute(post(&[(HEADER, "a")]), Kind::Null(0)), Ok(0)),
        (with_attribute(post(&[(HEADER, "a")]), text("")), Ok(0)),
        // A name that is not known is never passed over for the next.
        (with_attribute(post(&[(HEADER, "a")]), text("nobody")), Err(404)),
        (with_metadata(post(&[(HEADER, "a")]), metadata(text(""))), Err(404)),
        (with_metadata(post(&[(HEADER, "a")]), metadata(Kind::Number(1.0))), Err(404)),
        (post(&[(HEADER, "A")]), Err(404)),
        (post(&[(HEADER, "b")]), Err(404)),
        (post(&[(HEADER, "")]), Err(404)),
        (post(&[(HEADER, "\0several")]), Err(404)),
        (post(&[(HEADER, "a"), (HEADER, "a")]), Ok(0)),
        (post(&[(HEADER, "a"), (HEADER, "c")]), Err(404)),
        (post(&[]), Err(404)),
    ] {
        assert_eq!(outcome(&pools, message.clone()), expected, "{message:?}");
    }
}

#[test]
fn the_header_is_taken_out_whatever_chose_the_pool() {
    let (pools, _) = pools(Some(HEADER));
    for (message, there) in [
        (post(&[("X-Inference-Pool", "a"), ("x-mine", "1")]), true),
        (with_attribute(post(&[(HEADER, "forged"), ("x-mine", "1")]), text("c")), true),
        (with_attribute(post(&[("x-mine", "1")]), text("c")), false),
    ] {
        let mut message = message;
        let Choice::Pool(_, header) = pools.chooser().unwrap().choose(None, &mut message, NOW) else {
            panic!()
        };
        assert_eq!(header.is_some(), there);
        let Some(Event::RequestHeaders(request)) = message.request else { panic!() };
        let expected = header_list(&[(":method", "POST"), (":path", "/x"), ("x-mine", "1")]);
        assert_eq!(request.headers, expected);
    }
}

#[test]
fn what_the_proxy_calls_for_the_stream_comes_first() {
    let (pools, _) = pools(Some(HEADER));
    for (called, expected) in [("c", Some(Place(2))), ("default/a", Some(Place(0))), ("nobody", None)] {
        let mut message = with_metadata(post(&[(HEADER, "a")]), metadata(text("other/b")));
        let called = Some(Bytes::from(called));
        let place = match pools.chooser().unwrap().choose(called, &mut message, NOW) {
            Choice::Pool(place, header) => header.map(|_| place),
            Choice::Refused(_) => None,
        };
        assert_eq!(place, expected);
    }
}

#[test]
fn without_the_flag_no_header_counts() {
    let (pools, _) = pools(None);
    assert_eq!(outcome(&pools, post(&[(HEADER, "a")])), Err(404));
    assert_eq!(outcome(&pools, with_attribute(post(&[(HEADER, "a")]), text("c"))), Ok(2));
}

#[test]
fn who_belongs_to_no_pool_is_counted_and_told_nothing_of_the_pools() {
    let (pools, metrics) = pools(Some(HEADER));
    for message in [post(&[]), post(&[(HEADER, "nobody")])] {
        let mut message = message;
        let Choice::Refused(refusal) = pools.chooser().unwrap().choose(None, &mut message, NOW) else {
            panic!()
        };
        let said = format!("{refusal:?}");
        assert!(!said.contains("other/b") && !said.contains("nobody"), "{said}");
    }
    let page = metrics.render();
    for line in [
        "pointsman_attempts_total 2\n",
        "pointsman_refusals_total{code=\"NotFound\"} 2\n",
        "pointsman_requests_ended_total{ending=\"refused\"} 2\n",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
}

#[test]
fn an_answer_of_the_proxy_without_a_request_passes() {
    let (pools, metrics) = pools(Some(HEADER));
    assert_eq!(outcome(&pools, response_headers(&[(":status", "408")], true)), Ok(0));
    assert!(metrics.render().contains("pointsman_attempts_total 0\n"));
}

proptest::proptest! {
    /// Whatever clients write, the gateway's word stands and nothing of the header is left.
    #[test]
    fn no_client_header_steers_past_the_route(names in proptest::collection::vec("[xX]-[iI]nference-[pP]ool|x-other", 0..5),
                                              values in proptest::collection::vec("[ -~]{0,12}|a|c", 5)) {
        let (pools, _) = pools(Some(HEADER));
        let headers: Vec<_> = names.iter().zip(&values).map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut message = with_attribute(post(&headers), text("c"));
        let choice = pools.chooser().unwrap().choose(None, &mut message, NOW);
        proptest::prop_assert!(matches!(choice, Choice::Pool(Place(2), _)));
        let Some(Event::RequestHeaders(request)) = message.request else { panic!() };
        let left = request.headers.unwrap().headers;
        proptest::prop_assert!(left.iter().all(|h| !h.key.eq_ignore_ascii_case(HEADER.as_bytes())));
        proptest::prop_assert_eq!(left.len(), 2 + names.iter().filter(|n| *n == "x-other").count());
    }
}

#[test]
fn only_what_could_be_a_name_is_repeated_in_the_log() {
    assert_eq!(shown(b"ns/pool-1"), "ns/pool-1");
    for odd in [&b"\xff"[..], b"a b", b"", b"\0several", &[b'a'; 400]] {
        assert_eq!(shown(odd), "(not the name of a pool)");
    }
}
