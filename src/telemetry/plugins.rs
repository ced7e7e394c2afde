//! How long plugins take.

use super::names;
use metrics::Histogram;
use std::time::{Duration, Instant};

/// Where in a request's way a plugin is called: values of the label `extension_point`.
pub mod point {
    /// Reading a request body.
    pub const REQUEST_PARSING: &str = "RequestParsing";
    /// Reading a response body.
    pub const RESPONSE_PARSING: &str = "ResponseParsing";
    /// Writing attributes before scheduling.
    pub const DATA_PRODUCER: &str = "DataProducer";
    /// Letting a request in.
    pub const ADMISSION: &str = "Admission";
    /// Choosing the profiles that run.
    pub const PROFILE_PICKER: &str = "ProfilePicker";
    /// Narrowing candidates.
    pub const FILTER: &str = "Filter";
    /// Rating candidates.
    pub const SCORER: &str = "Scorer";
    /// Choosing among rated candidates.
    pub const PICKER: &str = "Picker";
    /// Making one outcome of all profiles.
    pub const PROCESS_PROFILES_RESULTS: &str = "ProcessProfilesResults";
    /// Looking at the outcome before the request leaves.
    pub const PRE_REQUEST: &str = "PreRequest";
    /// The response's headers came.
    pub const RESPONSE_RECEIVED: &str = "ResponseReceived";
    /// A piece of the response came.
    pub const RESPONSE_STREAMING: &str = "ResponseStreaming";
}

/// Times the calls of one plugin at one point. Made when the plan is built; recording allocates nothing.
#[derive(Clone, Debug)]
pub struct PluginTimer(Histogram);

impl PluginTimer {
    /// A timer on the process's metrics. Before the recorder is installed it times nothing.
    pub fn new(extension_point: &'static str, plugin_type: &str, plugin_name: &str) -> Self {
        Self(metrics::histogram!(
            names::PLUGIN_DURATION,
            "extension_point" => extension_point,
            "plugin_type" => plugin_type.to_owned(),
            "plugin_name" => plugin_name.to_owned(),
        ))
    }
    /// Makes one call and records how long it took. Reads the system clock itself: nothing is decided by it.
    pub fn time<R>(&self, call: impl FnOnce() -> R) -> R {
        let began = Instant::now();
        let result = call();
        self.record(began.elapsed());
        result
    }
    /// One call took `took`.
    pub fn record(&self, took: Duration) {
        self.0.record(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::MetricsHandle;

    #[test]
    fn a_call_is_counted_under_both_names() {
        let metrics = MetricsHandle::detached(true);
        metrics::with_local_recorder(&metrics, || {
            PluginTimer::new(point::SCORER, "queue-scorer", "q").record(Duration::from_micros(150));
        });
        let labels = r#"extension_point="Scorer",plugin_type="queue-scorer",plugin_name="q""#;
        for name in ["llm_d_epp_plugin_duration_seconds", "inference_extension_plugin_duration_seconds"] {
            assert!(metrics.render().contains(&format!("{name}_bucket{{{labels},le=\"0.0002\"}} 1\n")));
        }
    }
}
