//! What the edge counts. Handles are resolved once, so that a request pays an atomic and no lookup.

use crate::plugin::ResponseReader;
use crate::telemetry::names::{
    BLIND, CONTROL_HEADERS_REMOVED, OF_RESPONSE_BODIES, OF_USAGE, REQUEST_PROCESSING, RESPONSE_PIECES,
    RESPONSE_PROCESSING, STREAM_DURATION, STREAMS_IN_FLIGHT, STREAMS_OPEN, STREAMS_TOTAL, UNSEEN_RESPONSES,
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
    response_pieces: Counter,
    hidden: Counter,
    skipped: Counter,
    blindness_was_said: AtomicBool,
    /// One for each [`Unseen`].
    unseen_was_said: [AtomicBool; 4],
}

/// Why the body of a response is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unseen {
    /// The proxy is configured not to show it.
    Hidden,
    /// The proxy was asked not to show it.
    Skipped,
    /// It is shown although nobody wants it, because the body modes allow no override.
    Unavoidable,
    /// It is shown although the proxy was asked not to.
    Insisted,
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
            response_pieces: counter!(RESPONSE_PIECES),
            hidden: counter!(UNSEEN_RESPONSES, "mode" => "NONE"),
            skipped: counter!(UNSEEN_RESPONSES, "mode" => "SKIPPED"),
            blindness_was_said: AtomicBool::new(false),
            unseen_was_said: Default::default(),
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

    /// A piece of a response's body came.
    pub(super) fn response_piece(&self) {
        self.response_pieces.increment(1);
    }

    /// A response's body is not read. What that costs is said once for each reason; `readers` are the plugins that are
    /// worse off.
    pub(super) fn unseen(&self, why: Unseen, readers: impl FnOnce() -> Vec<ResponseReader>) {
        match why {
            Unseen::Hidden => self.hidden.increment(1),
            Unseen::Skipped => self.skipped.increment(1),
            Unseen::Unavoidable | Unseen::Insisted => {}
        }
        let said = self.unseen_was_said.get(why as usize);
        if said.is_some_and(|said| !said.swap(true, Ordering::Relaxed)) {
            say_unseen(why, &readers());
        }
    }

    pub(super) fn control_headers_removed(&self, count: usize) {
        if count > 0 {
            self.control_headers_removed.increment(count as u64);
        }
    }
}

fn say_unseen(why: Unseen, readers: &[ResponseReader]) {
    let plugins = readers.iter().map(|(name, without)| format!("{name} {without}")).collect::<Vec<_>>();
    let plugins = if plugins.is_empty() { "none".to_owned() } else { plugins.join("; ") };
    let (all, usage) = (OF_RESPONSE_BODIES.join(", "), OF_USAGE.join(", "));
    match why {
        Unseen::Hidden => tracing::info!(
            empty_metrics = all,
            plugins_worse_off = plugins,
            "the proxy does not show response bodies (response_body_mode: NONE)"
        ),
        Unseen::Skipped => tracing::info!(
            empty_metrics = all,
            plugins_worse_off = plugins,
            "the proxy is asked not to send response bodies (--response-bodies=skip)"
        ),
        Unseen::Unavoidable => tracing::warn!(
            empty_metrics = usage,
            "--response-bodies=skip: response bodies pass unread, but they still pass, because the proxy takes no \
             override in full duplex; to save that, set response_body_mode: NONE in the proxy's ext_proc filter"
        ),
        Unseen::Insisted => tracing::warn!(
            empty_metrics = usage,
            "--response-bodies=skip: the proxy was asked not to send response bodies and sends them; set \
             allow_mode_override: true, or response_body_mode: NONE, in the proxy's ext_proc filter"
        ),
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}
