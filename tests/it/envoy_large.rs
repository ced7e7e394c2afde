//! Many bodies of 64 MiB at once: memory stays within the budget, and everybody else is served meanwhile.
//!
//! How long the others take depends on the machine, since client, Envoy, picker and engines share it. So the same bodies
//! are sent a second time past the picker: what is slow then, too, is not the picker's doing.

use crate::needs_envoy;
use crate::support::client::{self, Client};
use crate::support::odd::OddEngine;
use crate::support::stack::{self, Engine, Plan, Stack};
use crate::support::{self, envoy};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Requests with this header do not pass the picker.
const PAST: &str = "x-past-the-picker";

/// Adds a way to the first engine that Envoy asks nobody about.
fn with_way_past(plan: Plan, engine: u16) -> Plan {
    let route = "                        - match: { prefix: \"/\" }\n";
    let past = format!(
        "                        - match: {{ prefix: \"/\", headers: [{{ name: {PAST}, present_match: true }}] }}
                          route: {{ cluster: past, timeout: 0s }}
                          typed_per_filter_config:
                            envoy.filters.http.ext_proc:
                              \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute
                              disabled: true\n"
    );
    let cluster = format!(
        "  clusters:
    - name: past
      type: STATIC
      connect_timeout: 2s
      per_connection_buffer_limit_bytes: 1048576
      load_assignment:
        cluster_name: past
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {engine} }} }} }}\n"
    );
    plan.edit(route, &format!("{past}{route}")).edit("  clusters:\n", &cluster)
}

/// What the other requests saw while the bodies were under way.
#[derive(Default)]
struct Others {
    headers_only: Vec<Duration>,
    chats: Vec<Duration>,
}

impl Others {
    fn slowest(&self) -> Duration {
        self.headers_only.iter().chain(&self.chats).max().copied().unwrap_or_default()
    }

    fn words(&mut self) -> String {
        let words = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
            format!("{} with p50 {:.0?}, p90 {:.0?}, slowest {:.0?}", times.len(), at(0.5), at(0.9), at(1.0))
        };
        format!("headers only {}; chats {}", words(&mut self.headers_only), words(&mut self.chats))
    }
}

/// Small requests one after the other for as long as it is polled, each on a connection of its own.
async fn others(port: u16, seen: &mut Others) {
    for number in 0_u64.. {
        let client = Client::new(port);
        let start = Instant::now();
        let answer = client.get("/echo").await.unwrap();
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        seen.headers_only.push(start.elapsed());
        let chat = json!({
            "model": stack::MODEL, "max_tokens": 1,
            "messages": [{"role": "user", "content": format!("{number}: {}", "small ".repeat(300))}],
        });
        let client = Client::new(port);
        let start = Instant::now();
        let answer = client.post("/v1/chat/completions", chat.to_string()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        seen.chats.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends `count` bodies at once and small requests beside them; returns the bodies' answers by status.
async fn bodies_and_others(
    stack: &Stack,
    body: &Bytes,
    count: usize,
    past: bool,
) -> (BTreeMap<u16, usize>, Others, Duration) {
    let start = Instant::now();
    let upload = |_| {
        let mut request = stack.client.request("POST", "/echo");
        if past {
            request = request.header(PAST, "1");
        }
        stack.client.send_within(Duration::from_secs(300), request.body(client::full(body.clone())).unwrap())
    };
    let uploads = futures::stream::iter(0..count).map(upload).buffer_unordered(count).collect::<Vec<_>>();
    let mut seen = Others::default();
    let answers = tokio::select! {
        answers = uploads => answers,
        () = others(stack.envoy.port, &mut seen) => unreachable!(),
    };
    let mut by_status = BTreeMap::new();
    for answer in answers {
        *by_status.entry(answer.map_or(0, |answer| answer.status)).or_insert(0) += 1;
    }
    (by_status, seen, start.elapsed())
}

/// `count` bodies of 64 MiB at once within `budget` bytes.
async fn large_bodies_at_once(count: usize, budget: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = Engine::start(9, &[], folder.path());
    engine.await_ready().await;
    let plan =
        Plan::new("full-duplex", &envoy::newest()).picker(&[&format!("--max-buffered-bytes={budget}")]);
    let stack = with_way_past(plan, engine.port).start().await;
    let body = Bytes::from(vec![b'7'; 64 << 20]);
    let start = Instant::now();
    let alone = stack.client.post("/echo", body.clone()).await.unwrap();
    assert_eq!(alone.status, 200);
    println!("one body alone takes {:.0?}", start.elapsed());
    let before = stack.picker.process.resident_bytes();
    let (by_status, mut seen, took) = bodies_and_others(&stack, &body, count, false).await;
    let peak = stack.picker.process.peak_resident_bytes();
    println!(
        "{count} bodies of 64 MiB at once: {by_status:?} within {took:.1?}; memory {} MiB before, {} MiB at most (budget {} MiB); others: {}",
        before / MIB,
        peak / MIB,
        budget / MIB,
        seen.words()
    );
    let (past_status, mut past_seen, took) = bodies_and_others(&stack, &body, count, true).await;
    println!(
        "the same bodies past the picker: {past_status:?} within {took:.1?}; others: {}",
        past_seen.words()
    );
    let (slowest, without) = (seen.slowest(), past_seen.slowest());
    assert!(
        slowest <= 3 * without.max(Duration::from_secs(1)),
        "small requests took up to {slowest:?} beside bodies that pass the picker, {without:?} beside others"
    );
    assert!(by_status.keys().all(|status| matches!(status, 200 | 503)), "{by_status:?}");
    assert!(by_status.contains_key(&200), "{by_status:?}");
    assert!(peak <= budget + 300 * MIB, "{} MiB", peak / MIB);
    stack.await_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_large_bodies_at_once_stay_within_the_budget() {
    needs_envoy!("envoy_large::sixteen_large_bodies_at_once_stay_within_the_budget");
    let _machine = support::alone().await;
    large_bodies_at_once(16, 512 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "moves 25 GiB: make test-long"]
async fn long_two_hundred_large_bodies_at_once_stay_within_the_budget() {
    needs_envoy!("envoy_large::long_two_hundred_large_bodies_at_once_stay_within_the_budget");
    let _machine = support::alone().await;
    large_bodies_at_once(200, 2_048 * MIB).await;
}

/// Small requests after one another, both kinds, each in time.
async fn small_requests_pass(stack: &Stack, what: &str) {
    for number in 0..20 {
        let client = Client::new(stack.envoy.port);
        let get = client.request("GET", "/echo").body(client::empty()).unwrap();
        let post = client.request("POST", "/echo").body(client::full(format!("{number}"))).unwrap();
        for request in [get, post] {
            let answer = client.send_within(Duration::from_secs(20), request).await;
            let answer = answer.unwrap_or_else(|broken| panic!("{what}: request {number}: {broken:?}"));
            assert_eq!(answer.status, 200, "{what}: request {number}");
        }
    }
}

/// Bytes of request bodies in the picker, once they have not changed for half a second.
async fn settled(stack: &Stack) -> f64 {
    let mut last = (-1.0, Instant::now());
    loop {
        let held = stack.picker.metrics().await.sum("pointsman_buffered_bytes", &[]);
        if held != last.0 {
            last = (held, Instant::now());
        } else if last.1.elapsed() > Duration::from_millis(500) {
            return held;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// More bodies that nobody reads than any window between Envoy and picker has room for, both ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_nobody_reads_hold_up_nobody_else() {
    needs_envoy!("envoy_large::bodies_that_nobody_reads_hold_up_nobody_else");
    let _machine = support::alone().await;
    for version in envoy::versions() {
        let engine = OddEngine::start().await;
        let stack = Plan::new("full-duplex", &version).own_engines(&[engine.port]).start().await;
        let body = Bytes::from(vec![b'7'; 16 << 20]);
        let mut uploads = tokio::task::JoinSet::new();
        for _ in 0..24 {
            let request = stack.client.request("POST", "/unread").body(client::full(body.clone())).unwrap();
            let client = stack.client.clone();
            uploads.spawn(async move { client.open(request).await.map(|_| ()) });
        }
        let arrived = || async { engine.unread.load(Relaxed) == 24 };
        support::await_that("the engine has the headers of every upload", arrived).await;
        let held = settled(&stack).await;
        small_requests_pass(&stack, "beside uploads that stand still").await;

        let mut answers = Vec::new();
        for _ in 0..96 {
            let request = stack.client.request("GET", "/endless").body(client::empty()).unwrap();
            let answer = stack.client.open(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            answers.push(answer);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        small_requests_pass(&stack, "beside answers that stand still").await;
        println!(
            "Envoy {version}: 24 uploads of 16 MiB stand still, {:.0} MiB of them in the picker, and 96 answers; memory of the picker {} MiB",
            held / MIB as f64,
            stack.picker.process.resident_bytes() / MIB
        );
        drop((answers, uploads));
        stack.await_idle().await;
    }
}
