//! What goes wrong on demand.

use serde::{Deserialize, Serialize};

/// How `/metrics` misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MetricsFault {
    /// Not at all.
    #[default]
    Ok,
    /// Answers after `metrics_delay_ms`.
    Slow,
    /// Never answers.
    Hang,
    /// 404.
    Missing,
    /// 200 with a page that is no metrics page.
    Garbage,
}

/// The faults in force. `POST /admin/faults` sets the keys it names and leaves the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Accept requests (all but `/admin`) and never answer, until this is lifted.
    #[serde(default)]
    pub hang: bool,
    /// Close the connection instead of answering (all but `/admin`).
    #[serde(default)]
    pub refuse: bool,
    /// Share of inference requests, 0 to 1, that are answered with an error.
    #[serde(default)]
    pub error_rate: f64,
    /// Which errors, drawn evenly; empty means `server_error`.
    #[serde(default)]
    pub error_types: Vec<FailureType>,
    /// What `/metrics` does.
    #[serde(default)]
    pub metrics: MetricsFault,
    /// Delay of a slow `/metrics`.
    #[serde(default = "default_metrics_delay")]
    pub metrics_delay_ms: u64,
    /// Close the connection after so many tokens of an answer.
    #[serde(default)]
    pub die_after_tokens: Option<u32>,
    /// Every step takes so many times as long.
    #[serde(default = "default_slowdown")]
    pub slowdown: f64,
}

fn default_metrics_delay() -> u64 {
    2000
}

fn default_slowdown() -> f64 {
    1.0
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            hang: false,
            refuse: false,
            error_rate: 0.0,
            error_types: Vec::new(),
            metrics: MetricsFault::Ok,
            metrics_delay_ms: default_metrics_delay(),
            die_after_tokens: None,
            slowdown: default_slowdown(),
        }
    }
}

impl Faults {
    /// These faults with the keys of a JSON object set anew.
    ///
    /// # Errors
    /// A sentence that names the key that is wrong.
    pub fn patched(&self, patch: &serde_json::Map<String, serde_json::Value>) -> Result<Self, String> {
        let mut whole = match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(whole)) => whole,
            _ => return Err("the faults have no JSON form".into()),
        };
        whole.extend(patch.iter().map(|(k, v)| (k.clone(), v.clone())));
        let faults: Self = serde_json::from_value(whole.into()).map_err(|e| e.to_string())?;
        if !(0.0..=1.0).contains(&faults.error_rate) {
            return Err(format!("error_rate is {}, must be from 0 to 1", faults.error_rate));
        }
        if !(faults.slowdown.is_finite() && faults.slowdown > 0.0) {
            return Err(format!("slowdown is {}, must be above 0", faults.slowdown));
        }
        Ok(faults)
    }
}

/// An injected failure, named as llm-d-inference-sim names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum FailureType {
    /// 429
    RateLimit,
    /// 401
    InvalidApiKey,
    /// 400
    ContextLength,
    /// 500
    ServerError,
    /// 400
    InvalidRequest,
    /// 404
    ModelNotFound,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(json: serde_json::Value) -> Result<Faults, String> {
        Faults::default().patched(json.as_object().unwrap())
    }

    #[test]
    fn a_patch_sets_only_its_keys() {
        let once = patch(serde_json::json!({"hang": true, "error_rate": 0.5, "error_types": ["rate_limit"]}))
            .unwrap();
        assert_eq!(once.error_types, [FailureType::RateLimit]);
        let twice =
            once.patched(serde_json::json!({"hang": false, "metrics": "slow"}).as_object().unwrap()).unwrap();
        assert_eq!((twice.hang, twice.error_rate, twice.metrics), (false, 0.5, MetricsFault::Slow));
    }

    #[test]
    fn a_wrong_patch_names_the_key() {
        for (json, key) in [
            (serde_json::json!({"hnag": true}), "hnag"),
            (serde_json::json!({"error_rate": 50}), "error_rate"),
            (serde_json::json!({"slowdown": 0}), "slowdown"),
            (serde_json::json!({"metrics": "odd"}), "odd"),
        ] {
            assert!(patch(json).unwrap_err().contains(key), "{key}");
        }
    }
}
