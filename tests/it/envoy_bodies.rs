//! Bodies arrive byte for byte, in each body mode, quickly and slowly, from one byte to 64 MiB.

use crate::needs_envoy;
use crate::support::client::{self, Answer, Broken, Client};
use crate::support::mixed::{multi_byte_text, split};
use crate::support::stack::{self, Plan, Stack};
use crate::support::{self, envoy};
use bytes::Bytes;
use std::time::Duration;
use xxhash_rust::xxh64::xxh64;

const MIB: usize = 1 << 20;

/// What a picker in full duplex takes: around the borders of pieces, messages and windows.
const SIZES: [usize; 13] =
    [1, 2, 3, 1_023, 61_999, 62_000, 62_001, 65_536, MIB - 1, MIB, MIB + 1, 4 * MIB + 1, 17 * MIB + 3];

/// Just over what Envoy, or the picker by default, takes.
const CAP: usize = 64 * MIB;

/// A chat request of exactly `bytes` bytes, most of them multi-byte text; smaller than any chat, it is no JSON.
fn chat_of(bytes: usize, seed: u64) -> Bytes {
    let (head, tail) = (
        format!(r#"{{"model":"{}","max_tokens":2,"messages":[{{"role":"user","content":""#, stack::MODEL),
        r#""}]}"#,
    );
    let Some(room) = bytes.checked_sub(head.len() + tail.len()) else {
        return vec![b'x'; bytes].into();
    };
    let mut text = head;
    text.reserve(bytes);
    let content = multi_byte_text(room.min(MIB), seed).replace(['"', '\n'], "_");
    while text.len() + content.len() + tail.len() <= bytes {
        text.push_str(&content);
    }
    for character in content.chars() {
        if text.len() + character.len_utf8() + tail.len() > bytes {
            break;
        }
        text.push(character);
    }
    let missing = bytes - text.len() - tail.len();
    text.push_str(&"x".repeat(missing));
    text.push_str(tail);
    text.into()
}

/// Sends `body` as a chat to an engine that only tells what it received.
async fn upload(client: &Client, body: &Bytes, pause: Option<Duration>) -> Result<Answer, Broken> {
    let small = body.len() < 200;
    let path = if small { "/echo" } else { "/v1/chat/completions" };
    let request =
        client.request("POST", path).header("content-type", "application/json").header("x-sim-sink", "1");
    let body = match pause {
        Some(pause) => client::pieces(split(body, body.len() as u64), pause),
        None => client::full(body.clone()),
    };
    client.send_within(Duration::from_secs(240), request.body(body).unwrap()).await
}

fn assert_intact(answer: &Answer, body: &Bytes, what: &str) {
    assert_eq!(answer.status, 200, "{what}: {}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("x-sim-body-bytes"), body.len().to_string(), "{what}");
    assert_eq!(answer.header("x-sim-body-xxh64"), format!("{:016x}", xxh64(body, 0)), "{what}");
    let destination = answer.received("x-gateway-destination-endpoint");
    assert_eq!(destination, [answer.header("x-inference-pod")], "{what}");
}

/// Sizes at once, sizes in slow pieces, and one of 64 MiB; all must arrive as they were sent.
async fn bodies_arrive(variant: &str, sizes: &[usize]) {
    let _machine = support::shared().await;
    for version in envoy::versions() {
        let stack = Plan::new(variant, &version).start().await;
        for &size in sizes {
            let body = chat_of(size, size as u64);
            assert_eq!(body.len(), size);
            for pause in [None, Some(Duration::ZERO)] {
                let answer = upload(&stack.client, &body, pause).await.unwrap();
                assert_intact(
                    &answer,
                    &body,
                    &format!("{variant}, Envoy {version}, {size} bytes, pieces {pause:?}"),
                );
            }
        }
        slow_bodies_arrive(&stack, &format!("{variant}, Envoy {version}")).await;
        let largest = chat_of(CAP, 64);
        let answer = upload(&stack.client, &largest, Some(Duration::ZERO)).await.unwrap();
        assert_intact(&answer, &largest, &format!("{variant}, Envoy {version}, 64 MiB"));
        stack.await_idle().await;
        stack.assert_clean().await;
    }
}

/// Bodies in pieces with pauses: one below and one far above what Envoy holds.
async fn slow_bodies_arrive(stack: &Stack, what: &str) {
    for size in [3_000, 3 * MIB] {
        let body = chat_of(size, 7);
        let answer = upload(&stack.client, &body, Some(Duration::from_millis(150))).await.unwrap();
        assert_intact(&answer, &body, &format!("{what}, {size} bytes slowly"));
    }
}

macro_rules! bodies {
    ($name:ident, $variant:literal, $sizes:expr) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            needs_envoy!(concat!("envoy_bodies::", stringify!($name)));
            bodies_arrive($variant, $sizes).await;
        }
    };
}

const FEW: [usize; 4] = [1, 62_001, MIB + 1, 5 * MIB];

bodies!(bodies_full_duplex, "full-duplex", &SIZES);
bodies!(bodies_no_response_body, "no-response-body", &FEW);
bodies!(bodies_buffered, "buffered", &FEW);
// Not just above Envoy's buffer of 1 MiB: Envoy 1.40.0 may hang there by itself (docs/envoy.md).
bodies!(bodies_buffered_partial, "buffered-partial", &[1, 62_001, MIB - 1, 5 * MIB]);
bodies!(bodies_streamed, "streamed", &FEW);
bodies!(bodies_none, "none", &FEW);
bodies!(bodies_override_host, "override-host", &FEW);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_cap_is_413_by_the_picker_in_full_duplex_and_by_envoy_when_buffered() {
    needs_envoy!("envoy_bodies::a_body_over_the_cap_is_413");
    let _machine = support::shared().await;
    for variant in ["full-duplex", "buffered"] {
        let stack = Plan::new(variant, &envoy::newest()).start().await;
        let refused = upload(&stack.client, &chat_of(CAP + 1, 1), Some(Duration::ZERO)).await.unwrap();
        assert_eq!(refused.status, 413, "{variant}: {}", String::from_utf8_lossy(&refused.body));
        if variant == "full-duplex" {
            assert!(refused.json()["error"]["message"].is_string(), "the refusal says why");
        }
        let next = chat_of(1_000, 2);
        let answer = upload(&stack.client, &next, None).await.unwrap();
        assert_intact(&answer, &next, "after the refusal");
        stack.await_idle().await;
    }
}
