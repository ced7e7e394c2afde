//! `override_host`: Envoy knows the engines, the picker names one and fallbacks; the first is dead, the second serves.

use crate::needs_envoy;
use crate::support::client;
use crate::support::stack::{self, Plan};
use crate::support::{self, envoy};
use http_body_util::BodyExt;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

const IN_FLIGHT: &str = "pointsman_endpoint_in_flight_requests";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_target_serves_when_the_first_is_dead_and_accounting_moves_to_it() {
    needs_envoy!(
        "envoy_failover::the_second_target_serves_when_the_first_is_dead_and_accounting_moves_to_it"
    );
    let _machine = support::shared().await;
    for version in envoy::versions() {
        let mut stack = Plan::new("override-host", &version).targets(2).decode_step("20ms").start().await;
        let (dead, alive) = (stack.engines[0].address(), stack.engines[1].address());
        stack.engines[0].process.kill();
        // At once and together: the picker takes the engine out as soon as two scrapes were refused.
        let requests = (0..32).map(|number| {
            let text = format!("number {number}");
            let body = json!({"model": stack::MODEL, "messages": [{"role": "user", "content": text}]});
            let client = stack.client.clone();
            async move { client.post("/echo", body.to_string()).await.unwrap() }
        });
        let mut fell_over = 0;
        let answers = futures::future::join_all(requests).await;
        for answer in &answers {
            assert_eq!(answer.status, 200, "Envoy {version}: {}", String::from_utf8_lossy(&answer.body));
            assert_eq!(answer.header("x-inference-pod"), alive);
            let named = answer.received("x-gateway-destination-endpoint").concat();
            fell_over += usize::from(named.starts_with(&dead) && named.ends_with(&alive));
        }
        let sent = answers.len();
        assert!(fell_over > 0, "none of {sent} requests was for the dead engine first");
        println!(
            "override_host, Envoy {version}: {fell_over} of {sent} requests went to the dead engine first"
        );

        let mut answers = Vec::new();
        for number in 0..10 {
            let body = json!({
                "model": stack::MODEL, "stream": true, "max_tokens": 400, "ignore_eos": true,
                "messages": [{"role": "user", "content": format!("long {number}")}],
            });
            let request = stack.client.request("POST", "/v1/chat/completions");
            let mut answer =
                stack.client.open(request.body(client::full(body.to_string())).unwrap()).await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.frame().await.expect("an event").expect("an event");
            answers.push(answer);
        }
        let on = |by_endpoint: &BTreeMap<String, f64>, name: &str| -> f64 {
            by_endpoint.iter().filter(|(key, _)| key.contains(name)).map(|(_, value)| value).sum()
        };
        support::await_within(
            Duration::from_secs(4),
            "all ten are on the engine that serves them",
            || async {
                let by_endpoint = stack.picker.metrics().await.by(IN_FLIGHT, "endpoint");
                (on(&by_endpoint, "engine-0"), on(&by_endpoint, "engine-1")) == (0.0, 10.0)
            },
        )
        .await;
        for answer in answers {
            assert_eq!(client::read(answer).await.unwrap().status, 200);
        }
        stack.await_idle().await;
        stack.assert_clean().await;
    }
}
