//! The handles of one combination of request labels, resolved once and then shared by every request that has it.

use super::{MetricsHandle, names};
use crate::request::{Ending, Usage};
use metrics::{Counter, Gauge, Histogram};
use std::sync::Arc;
use std::time::Duration;

/// Labels that every request family has, already within their caps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestLabels<'a> {
    pub(super) model: &'a str,
    pub(super) target: &'a str,
    pub(super) fairness: &'a str,
    pub(super) priority: &'a str,
}

impl<'a> RequestLabels<'a> {
    pub(super) fn pairs(self) -> [(&'static str, &'a str); 4] {
        [
            ("model_name", self.model),
            ("target_model_name", self.target),
            ("fairness_id", self.fairness),
            ("priority", self.priority),
        ]
    }
}

/// What is counted per model, target model, fairness id and priority. Recording allocates nothing.
#[derive(Debug)]
pub struct RequestSeries {
    has_model: bool,
    total: Counter,
    size: Histogram,
    running: Gauge,
    ttft_plain: Histogram,
    ttft_streaming: Histogram,
    inter_token: Histogram,
    end: EndSeries,
    endings: Arc<Endings>,
    metrics: MetricsHandle,
    labels: [String; 4],
}

#[derive(Debug)]
struct EndSeries {
    duration: Histogram,
    response_size: Histogram,
    input_tokens: Histogram,
    output_tokens: Histogram,
    cached_tokens: Histogram,
    per_output_token: Histogram,
    streaming_per_token: Histogram,
}

/// Counts a routed request as running until it is dropped.
#[derive(Debug)]
pub struct RunningGuard(Option<Gauge>);

impl Drop for RunningGuard {
    fn drop(&mut self) {
        if let Some(gauge) = &self.0 {
            gauge.decrement(1.0);
        }
    }
}

/// How a routed request went.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// From the request's headers to the end.
    pub duration: Duration,
    /// From the request's headers to the first byte of the response body, when one came.
    pub ttft: Option<Duration>,
    /// Whether the answer was streamed.
    pub streaming: bool,
    /// Tokens that the engine reported.
    pub usage: Usage,
    /// Bytes of the response body; `None` when it was not seen.
    pub response_bytes: Option<usize>,
    /// How it ended.
    pub ending: Ending,
}

/// One counter for each way to end.
#[derive(Debug)]
pub(super) struct Endings([Counter; 5]);

impl Endings {
    pub(super) fn new(metrics: &MetricsHandle) -> Self {
        use Ending::{Disconnected, Evicted, Natural, Protocol, Refused};
        let counter = |e: Ending| metrics.counter(names::ENDED, &[("ending", e.as_str())]);
        Self([Natural, Refused, Evicted, Disconnected, Protocol].map(counter))
    }
    pub(super) fn count(&self, ending: Ending) {
        let place = match ending {
            Ending::Natural => 0,
            Ending::Refused => 1,
            Ending::Evicted => 2,
            Ending::Disconnected => 3,
            Ending::Protocol => 4,
        };
        if let Some(counter) = self.0.get(place) {
            counter.increment(1);
        }
    }
}

impl RequestSeries {
    pub(super) fn new(metrics: &MetricsHandle, labels: RequestLabels<'_>, endings: Arc<Endings>) -> Self {
        let pairs = labels.pairs();
        let histogram = |name| metrics.histogram(name, &pairs);
        let [a, b, c, d] = pairs;
        let ttft =
            |streaming| metrics.histogram(names::REQUEST_TTFT, &[a, b, c, d, ("streaming", streaming)]);
        Self {
            has_model: !labels.model.is_empty(),
            total: metrics.counter(names::REQUEST_TOTAL, &pairs),
            size: histogram(names::REQUEST_SIZE),
            running: metrics.gauge(names::REQUEST_RUNNING, &pairs),
            ttft_plain: ttft("false"),
            ttft_streaming: ttft("true"),
            inter_token: histogram(names::REQUEST_ITL),
            end: EndSeries {
                duration: histogram(names::REQUEST_DURATION),
                response_size: histogram(names::RESPONSE_SIZE),
                input_tokens: histogram(names::REQUEST_INPUT_TOKENS),
                output_tokens: histogram(names::REQUEST_OUTPUT_TOKENS),
                cached_tokens: histogram(names::REQUEST_CACHED_TOKENS),
                per_output_token: histogram(names::REQUEST_NTPOT),
                streaming_per_token: histogram(names::REQUEST_TPOT),
            },
            endings,
            metrics: metrics.clone(),
            labels: pairs.map(|(_, v)| v.to_owned()),
        }
    }

    /// A request with a body of `body_bytes` was routed.
    pub fn routed(&self, body_bytes: usize) {
        self.total.increment(1);
        self.size.record(body_bytes as f64);
    }

    /// Counts a request as running until the guard is dropped; requests without a known model are not counted.
    pub fn running(&self) -> RunningGuard {
        let gauge = self.has_model.then(|| self.running.clone());
        if let Some(gauge) = &gauge {
            gauge.increment(1.0);
        }
        RunningGuard(gauge)
    }

    /// The first byte of the response body came `ttft` after the request's headers.
    pub fn first_byte(&self, ttft: Duration, streaming: bool) {
        let histogram = if streaming { &self.ttft_streaming } else { &self.ttft_plain };
        histogram.record(ttft.as_secs_f64());
    }

    /// Time between two pieces of a streamed answer that were not empty.
    pub fn inter_token(&self, gap: Duration) {
        self.inter_token.record(gap.as_secs_f64());
    }

    /// A routed request failed: `ModelServerError`, or the code of a refusal that came after the route was known.
    pub fn failed(&self, code: &'static str) {
        let [a, b, c, d] = self.label_pairs();
        self.metrics.counter(names::REQUEST_ERROR_TOTAL, &[a, b, c, d, ("error_code", code)]).increment(1);
    }

    /// A routed request ended. Durations, sizes and tokens are counted only for responses that came to their end.
    pub fn finished(&self, finished: &Finished) {
        self.endings.count(finished.ending);
        if finished.ending != Ending::Natural {
            return;
        }
        self.end.duration.record(finished.duration.as_secs_f64());
        if let Some(bytes) = finished.response_bytes {
            self.end.response_size.record(bytes as f64);
        }
        let tokens = |histogram: &Histogram, tokens: Option<u32>| {
            if let Some(tokens) = tokens.filter(|t| *t > 0) {
                histogram.record(f64::from(tokens));
            }
        };
        tokens(&self.end.input_tokens, finished.usage.prompt);
        tokens(&self.end.output_tokens, finished.usage.completion);
        // Zero cached tokens is a finding, not a gap: it is counted whenever the engine says so.
        if let Some(cached) = finished.usage.cached {
            self.end.cached_tokens.record(f64::from(cached));
        }
        self.per_token(finished);
    }

    fn per_token(&self, finished: &Finished) {
        let Some(tokens) = finished.usage.completion.filter(|t| *t > 0) else { return };
        self.end.per_output_token.record(finished.duration.as_secs_f64() / f64::from(tokens));
        let Some(ttft) = finished.ttft.filter(|_| finished.streaming && tokens > 1) else { return };
        let generating = finished.duration.saturating_sub(ttft).as_secs_f64();
        self.end.streaming_per_token.record(generating / f64::from(tokens - 1));
    }

    fn label_pairs(&self) -> [(&'static str, &str); 4] {
        let [model, target, fairness, priority] = &self.labels;
        RequestLabels { model, target, fairness, priority }.pairs()
    }
}
