//! One line of the log.

use super::keyed::BLOCK_TOKENS;
use super::{Entry, Fate, Writing};
use serde::ser::{Serialize, SerializeSeq, Serializer};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What stands in a line. The first seven are what a replay reads; `null` is what is not known. The length of a prompt that
/// was not seen is the one that the engine reported, else 1: each line is a request that can be replayed.
#[derive(serde::Serialize)]
struct Line<'a> {
    at_ms: f64,
    prompt_tokens: u32,
    output_tokens: Option<u32>,
    block_tokens: u32,
    blocks: Hex<'a>,
    session: Option<HexNumber>,
    model: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<&'a str>,
    target_model: &'a str,
    priority: i32,
    generation: u64,
    decision_us: u64,
    endpoints: Vec<Shown<'a>>,
    served: Option<Shown<'a>>,
    outcome: &'a str,
    refused: Option<&'a str>,
    status: Option<u16>,
    ttft_ms: Option<f64>,
    duration_ms: Option<f64>,
    predicted_cached_tokens: Option<u64>,
    reported_cached_tokens: Option<u32>,
    reported_prompt_tokens: Option<u32>,
}

/// Numbers in hexadecimal: JSON numbers of many tools lose the low bits of 64.
struct Hex<'a>(&'a [u64]);
struct HexNumber(u64);
struct Shown<'a>(&'a dyn fmt::Display);

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        self.0.iter().try_for_each(|number| list.serialize_element(&HexNumber(*number)))?;
        list.end()
    }
}

impl Serialize for HexNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

/// Milliseconds, to the microsecond.
fn millis(time: Duration) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        reason = "microseconds since 1970 are below 2^53 until the year 2255"
    )]
    let micros = time.as_micros() as f64;
    micros / 1000.0
}

impl Writing {
    /// Appends the line of `entry` to `out`, its end included.
    pub fn write(&self, entry: &Entry, out: &mut Vec<u8>) {
        let request = &*entry.request;
        let blocks = self.key.blocks(request);
        let after = &entry.after;
        let (outcome, refused) = match &entry.fate {
            Fate::Refused(code) => ("refused", Some(*code)),
            Fate::Routed { .. } => (after.ending.map_or("open", |ending| ending.as_str()), None),
        };
        let (endpoints, predicted) = match &entry.fate {
            Fate::Refused(_) => (Vec::new(), None),
            Fate::Routed { endpoints, predicted } => {
                (endpoints.iter().map(|e| Shown(&e.key)).collect(), *predicted)
            }
        };
        let length = match request.prompt_tokens() {
            0 => after.usage.prompt.unwrap_or(0).max(1),
            estimated => estimated,
        };
        let line = Line {
            at_ms: millis(self.origin.unix + request.received.since(self.origin.at)),
            prompt_tokens: length,
            output_tokens: after.usage.completion,
            block_tokens: BLOCK_TOKENS,
            blocks: Hex(&blocks),
            session: entry.session.map(HexNumber),
            model: request.model(),
            request_id: &request.id,
            pool: entry.pool.as_ref().map(Arc::as_ref),
            target_model: &request.target_model,
            priority: request.priority,
            generation: entry.generation,
            decision_us: u64::try_from(entry.took.as_micros()).unwrap_or(u64::MAX),
            endpoints,
            served: after.served.as_ref().map(|key| Shown(key)),
            outcome,
            refused,
            status: after.status,
            ttft_ms: after.first_byte.map(millis),
            duration_ms: after.duration.map(millis),
            predicted_cached_tokens: predicted,
            reported_cached_tokens: after.usage.cached,
            reported_prompt_tokens: after.usage.prompt,
        };
        // Writing to memory cannot fail, and no key of a map is anything but text.
        if serde_json::to_writer(&mut *out, &line).is_ok() {
            out.push(b'\n');
        }
    }
}
