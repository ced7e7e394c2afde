//! Each body mode with each Envoy: every request lands where the picker sent it, byte for byte, and nothing stays behind.

use crate::needs_envoy;
use crate::support::stack::{Plan, Stack};
use crate::support::{self, envoy, mixed};
use std::collections::BTreeMap;

const MIXED_REQUESTS: u64 = 2_000;

async fn mixed_requests_land_where_picked(variant: &str, change: impl Fn(Plan) -> Plan) {
    let _machine = support::shared().await;
    for version in envoy::versions() {
        let stack = change(Plan::new(variant, &version)).start().await;
        let before = picks(&stack).await;
        let engines = mixed::run(&stack.client, MIXED_REQUESTS, 16).await;
        assert_eq!(engines, difference(&picks(&stack).await, &before), "served against picked, by engine");
        println!("{variant}, Envoy {version}: {MIXED_REQUESTS} requests, by engine {engines:?}");
        assert_eq!(engines.len(), stack.engines.len(), "every engine serves: {engines:?}");
        stack.await_idle().await;
        stack.assert_clean().await;
    }
}

/// How often the picker chose each engine so far, by address.
async fn picks(stack: &Stack) -> BTreeMap<String, u64> {
    let page = stack.picker.metrics().await;
    let by_port = page.by("llm_d_epp_scheduler_attempts_total", "port");
    let ports = by_port.into_iter().filter(|(port, _)| !port.is_empty());
    ports.map(|(port, count)| (format!("127.0.0.1:{port}"), count as u64)).collect()
}

fn difference(after: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    after.iter().map(|(key, count)| (key.clone(), count - before.get(key).copied().unwrap_or(0))).collect()
}

macro_rules! mode {
    ($name:ident, $variant:literal) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            needs_envoy!(concat!("envoy_modes::", stringify!($name)));
            mixed_requests_land_where_picked($variant, |plan| plan).await;
        }
    };
}

mode!(mixed_requests_full_duplex, "full-duplex");
mode!(mixed_requests_no_response_body, "no-response-body");
mode!(mixed_requests_buffered, "buffered");
mode!(mixed_requests_buffered_partial, "buffered-partial");
mode!(mixed_requests_streamed, "streamed");
mode!(mixed_requests_none, "none");
mode!(mixed_requests_override_host, "override-host");

/// Takes the retry out of the shipped `override_host` configuration, whose bodies then may be full duplex.
fn full_duplex_without_retry(plan: Plan) -> Plan {
    let retry = "                            retry_policy:
                              retry_on: connect-failure,refused-stream,reset-before-request
                              num_retries: 1
";
    plan.edit(retry, "")
        .edit("request_body_mode: BUFFERED", "request_body_mode: FULL_DUPLEX_STREAMED")
        .edit("request_trailer_mode: SKIP", "request_trailer_mode: SEND")
        .edit("response_body_mode: STREAMED", "response_body_mode: FULL_DUPLEX_STREAMED")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_requests_override_host_full_duplex_without_retry() {
    needs_envoy!("envoy_modes::mixed_requests_override_host_full_duplex_without_retry");
    mixed_requests_land_where_picked("override-host", full_duplex_without_retry).await;
}
