//! Response bodies that nobody reads do not come to the picker, and what that costs is what the docs say.

use crate::needs_envoy;
use crate::support::client::{self, Client};
use crate::support::metrics::Page;
use crate::support::mixed::{self, multi_byte_text};
use crate::support::odd::OddEngine;
use crate::support::stack::{self, Plan, Stack};
use crate::support::{self, envoy};
use bytes::Bytes;
use http_body_util::BodyExt;
use pointsman::telemetry::names::{FAMILIES, Kind, OF_RESPONSE_BODIES, OF_USAGE};
use std::collections::BTreeSet;

const SKIP: &str = "--response-bodies=skip";
const PIECES: &str = "pointsman_response_body_messages_total";
const REQUESTS: u64 = 180;
const STREAMED: &str = "response_body_mode: STREAMED";

/// The shipped configurations in which Envoy takes an override, and how each is changed here.
const OVERRIDABLE: [(&str, &str); 4] = [
    ("streamed", "response_body_mode: STREAMED"),
    ("streamed", "response_body_mode: BUFFERED"),
    ("buffered", "response_body_mode: STREAMED"),
    ("buffered-partial", "response_body_mode: BUFFERED_PARTIAL"),
];

async fn mirrored(client: &Client, size: usize, what: &str) {
    let body = Bytes::from(multi_byte_text(size, size as u64));
    let answer = client.post("/mirror", body.clone()).await.unwrap();
    assert_eq!(answer.status, 200, "{what}");
    assert!(answer.body == body, "{what}: {} of {} bytes came back changed", answer.body.len(), body.len());
}

fn times_said(stack: &Stack, text: &str) -> usize {
    stack.picker.process.log().matches(text).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skipped_bodies_reach_the_client_and_not_the_picker() {
    needs_envoy!("envoy_unseen::skipped_bodies_reach_the_client_and_not_the_picker");
    let _machine = support::shared().await;
    for version in envoy::versions() {
        for (variant, mode) in OVERRIDABLE {
            let what = format!("{variant}, {mode}, Envoy {version}");
            let engine = OddEngine::start().await;
            let plan = Plan::new(variant, &version).own_engines(&[engine.port]).edit(STREAMED, mode);
            let stack = plan.picker(&[SKIP]).start().await;
            for size in [1, 1_000, 62_001, 900_000] {
                mirrored(&stack.client, size, &what).await;
            }
            let with_trailers = stack.client.post("/trailers", "abc").await.unwrap();
            assert_eq!(&with_trailers.body[..], b"abc", "{what}");
            stack.await_idle().await;
            stack.assert_clean().await;
            let page = stack.picker.metrics().await;
            assert_eq!(page.sum(PIECES, &[]), 0.0, "{what}: pieces of responses came to the picker");
            let unseen = page.sum("pointsman_unseen_responses_total", &[("mode", "SKIPPED")]);
            assert!(unseen >= 5.0, "{what}: {unseen}");
            assert_eq!(times_said(&stack, "the proxy is asked not to send response bodies"), 1, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_skipped_answer_is_in_flight_until_it_has_ended() {
    needs_envoy!("envoy_unseen::a_skipped_answer_is_in_flight_until_it_has_ended");
    let _machine = support::shared().await;
    for version in envoy::versions() {
        let stack = Plan::new("streamed", &version).picker(&[SKIP]).decode_step("20ms").start().await;
        let chat = serde_json::json!({"model": stack::MODEL, "stream": true, "max_tokens": 100, "ignore_eos": true,
            "messages": [{"role": "user", "content": "weiter"}]});
        let request = stack.client.request("POST", "/v1/chat/completions");
        let request = request.header("content-type", "application/json");
        let answer = stack.client.open(request.body(client::full(chat.to_string())).unwrap()).await.unwrap();
        let (_, mut body) = answer.into_parts();
        assert!(body.frame().await.unwrap().unwrap().is_data(), "the first token is here");
        support::await_that("the request is seen in flight while its answer comes", || async {
            stack.picker.metrics().await.sum("pointsman_endpoint_in_flight_requests", &[]) > 0.5
        })
        .await;
        let rest = body.collect().await.unwrap().to_bytes();
        assert!(rest.ends_with(b"data: [DONE]\n\n"), "Envoy {version}");
        stack.await_idle().await;
        stack.assert_clean().await;
        assert_eq!(stack.picker.metrics().await.sum(PIECES, &[]), 0.0, "Envoy {version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_that_takes_no_override_is_served_and_told_of() {
    needs_envoy!("envoy_unseen::an_envoy_that_takes_no_override_is_served_and_told_of");
    let _machine = support::shared().await;
    for version in envoy::versions() {
        let forbidden = |plan: Plan| plan.edit("allow_mode_override: true", "allow_mode_override: false");
        for (variant, said) in
            [("streamed", "asked not to send response bodies and sends them"), ("full-duplex", "still pass")]
        {
            let plan = Plan::new(variant, &version).picker(&[SKIP]);
            let stack =
                if variant == "streamed" { forbidden(plan).start().await } else { plan.start().await };
            mixed::run(&stack.client, REQUESTS, 8).await;
            stack.await_idle().await;
            stack.assert_clean().await;
            let page = stack.picker.metrics().await;
            assert!(page.sum(PIECES, &[]) > 0.0, "{variant}, Envoy {version}");
            assert_eq!(times_said(&stack, said), 1, "{variant}, Envoy {version}");
            let full = counted(&page);
            for name in OF_USAGE {
                assert!(!full.contains(name), "{variant}, Envoy {version}: {name} though nobody reads");
            }
            assert!(full.contains("llm_d_epp_request_ttft_seconds"), "times need no reading: {full:?}");
        }
    }
}

/// Families that counted anything, under the newer of their names.
fn counted(page: &Page) -> BTreeSet<&'static str> {
    // Gauges are of the moment, and how polls go is chance.
    let all = FAMILIES.iter().filter(|family| family.kind != Kind::Gauge);
    all.map(|family| family.name)
        .filter(|name| !name.contains("scrape") && !name.contains("poll"))
        .filter(|name| page.sum(name, &[]) > 0.0)
        .collect()
}

/// A plain answer and a streamed one, both with usage.
async fn every_kind_of_answer(client: &Client) {
    for stream in [false, true] {
        let mut chat = serde_json::json!({"model": stack::MODEL, "stream": stream, "max_tokens": 20, "ignore_eos": true,
            "messages": [{"role": "user", "content": "weiter ".repeat(200)}]});
        if stream {
            chat["stream_options"] = serde_json::json!({"include_usage": true});
        }
        let answer = client.post("/v1/chat/completions", chat.to_string()).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body.windows(7).any(|word| word == b"\"usage\""), "the answer tells usage");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_loses_what_the_docs_say_and_nothing_else() {
    needs_envoy!("envoy_unseen::none_loses_what_the_docs_say_and_nothing_else");
    let _machine = support::shared().await;
    for version in envoy::versions() {
        let mut forms = Vec::new();
        for variant in ["full-duplex", "no-response-body"] {
            let stack = Plan::new(variant, &version).decode_step("5ms").start().await;
            every_kind_of_answer(&stack.client).await;
            stack.await_idle().await;
            stack.assert_clean().await;
            forms.push(counted(&stack.picker.metrics().await));
            let told = times_said(&stack, "does not show response bodies (response_body_mode: NONE)");
            assert_eq!(told, usize::from(variant == "no-response-body"), "{variant}, Envoy {version}");
        }
        let lost: BTreeSet<_> = forms[0].difference(&forms[1]).copied().collect();
        let expected: BTreeSet<_> = OF_RESPONSE_BODIES.into_iter().chain([PIECES]).collect();
        assert_eq!(lost, expected, "Envoy {version}");
        let gained: BTreeSet<_> = forms[1].difference(&forms[0]).copied().collect();
        assert_eq!(gained, BTreeSet::from(["pointsman_unseen_responses_total"]), "Envoy {version}");
    }
}
