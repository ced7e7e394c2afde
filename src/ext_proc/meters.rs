//! What the edge counts. Handles are resolved once, so that a request pays an atomic and no lookup.

use crate::telemetry::names::{
    BLIND, CONTROL_HEADERS_REMOVED, REQUEST_PROCESSING, RESPONSE_PROCESSING, STREAM_DURATION,
    STREAMS_IN_FLIGHT, STREAMS_OPEN, STREAMS_TOTAL,
};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Counters of the edge. Made after the recorder is installed; without a recorder they count nothing.
pub struct Meters {
    open: Gauge,
    control_headers_removed: Counter,
    ended_ok: Counter,
    streams: Option<(Gauge, Histogram)>,
    request_busy: Histogram,
    response_busy: Histogram,
    blindness_was_said: AtomicBool,
}

impl Meters {
    /// Meters; `stream_metrics` adds the reference's gauge and histogram of streams.
    pub fn new(stream_metrics: bool) -> Self {
        Self {
            open: gauge!(STREAMS_OPEN),
            control_headers_removed: counter!(CONTROL_HEADERS_REMOVED),
            ended_ok: counter!(STREAMS_TOTAL, "code" => "OK"),
            streams: stream_metrics.then(|| (gauge!(STREAMS_IN_FLIGHT), histogram!(STREAM_DURATION))),
            request_busy: histogram!(REQUEST_PROCESSING),
            response_busy: histogram!(RESPONSE_PROCESSING),
            blindness_was_said: AtomicBool::new(false),
        }
    }

    pub(super) fn stream_opened(&self) {
        self.open.increment(1.0);
        if let Some((in_flight, _)) = &self.streams {
            in_flight.increment(1.0);
        }
    }

    /// A stream ended; `code` is the gRPC status that it ended with, if it was not OK.
    pub(super) fn stream_ended(&self, code: Option<&'static str>, lasted: Duration) {
        self.open.decrement(1.0);
        if let Some((in_flight, duration)) = &self.streams {
            in_flight.decrement(1.0);
            duration.record(lasted.as_secs_f64());
        }
        match code {
            None => self.ended_ok.increment(1),
            Some(code) => counter!(STREAMS_TOTAL, "code" => code).increment(1),
        }
    }

    /// Time that the picker itself spent on the two paths of a request; a response may never have come.
    pub(super) fn busy(&self, request: Duration, response: Option<Duration>) {
        self.request_busy.record(request.as_secs_f64());
        if let Some(response) = response {
            self.response_busy.record(response.as_secs_f64());
        }
    }

    /// A request is decided without its body. Said once in the log, counted always.
    pub(super) fn blind(&self, mode: &'static str) {
        counter!(BLIND, "mode" => mode).increment(1);
        if !self.blindness_was_said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                mode,
                "requests are decided without their body: plugins that read model or prompt see neither; \
                 for better picks set request_body_mode: FULL_DUPLEX_STREAMED in the proxy's ext_proc filter \
                 (mode OVER_BUDGET: raise --max-buffered-bytes)"
            );
        }
    }

    pub(super) fn control_headers_removed(&self, count: usize) {
        if count > 0 {
            self.control_headers_removed.increment(count as u64);
        }
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}
