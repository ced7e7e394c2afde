//! Each body mode with each Envoy: every request lands where the picker sent it, byte for byte, and nothing stays behind.

use crate::needs_envoy;
use crate::support::{self, envoy, mixed, stack::Plan};

const MIXED_REQUESTS: u64 = 2_000;

async fn mixed_requests_land_where_picked(variant: &str) {
    let _machine = support::shared().await;
    for version in envoy::versions() {
        let stack = Plan::new(variant, &version).start().await;
        let engines = mixed::run(&stack.client, MIXED_REQUESTS, 16).await;
        println!("{variant}, Envoy {version}: {MIXED_REQUESTS} requests, by engine {engines:?}");
        assert_eq!(engines.len(), stack.engines.len(), "every engine serves: {engines:?}");
        stack.await_idle().await;
        stack.assert_clean().await;
    }
}

macro_rules! mode {
    ($name:ident, $variant:literal) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            needs_envoy!(concat!("envoy_modes::", stringify!($name)));
            mixed_requests_land_where_picked($variant).await;
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
