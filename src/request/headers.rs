//! Request and response headers, and the names that mean something here.

use bytes::Bytes;

/// Header names, all lower case. Where a second name is given it is the older alias.
pub mod names {
    /// Where the request is to go: `ip:port`, further ones as ordered fallbacks.
    pub const DESTINATION: &str = "x-gateway-destination-endpoint";
    /// Where it really went, in filter metadata.
    pub const SERVED: &str = "x-gateway-destination-endpoint-served";
    /// Subset hint, in filter metadata.
    pub const SUBSET: &str = "x-gateway-destination-endpoint-subset";
    /// Namespace of the subset hint in filter metadata.
    pub const SUBSET_NAMESPACE: &str = "envoy.lb.subset_hint";
    /// Namespace of the destination in dynamic metadata.
    pub const LB_NAMESPACE: &str = "envoy.lb";
    /// Name of the objective.
    pub const OBJECTIVE: [&str; 2] = ["x-llm-d-inference-objective", "x-gateway-inference-objective"];
    /// Fairness id.
    pub const FAIRNESS: [&str; 2] = ["x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id"];
    /// Target model.
    pub const MODEL_REWRITE: [&str; 3] =
        ["x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite", "x-model-override"];
    /// Priority: `high`, `normal`, `low` or a number.
    pub const PRIORITY: &str = "x-priority";
    /// How much prefix caches count: `prefer-hit` or `ignore`.
    pub const CACHE_POLICY: &str = "x-cache-policy";
    /// How long choosing an endpoint may take.
    pub const REQUEST_TIMEOUT: &str = "x-request-timeout";
    /// Asks for the headers that tell the decision.
    pub const DECISION_HEADERS: &str = "x-decision-headers";
    /// The endpoint that was chosen, in a response.
    pub const SELECTED_POD: &str = "x-selected-pod";
    /// Whether it was believed to hold any of the prompt, in a response.
    pub const CACHE_HIT: &str = "x-cache-hit";
    /// Tokens of the prompt that it was believed to hold, in a response.
    pub const CACHE_PREFIX_LENGTH: &str = "x-cache-prefix-length";
    /// Milliseconds from the question to the choice, in a response.
    pub const SCHEDULING_TIME_MS: &str = "x-scheduling-time-ms";
    /// Milliseconds in filters, in a response.
    pub const FILTER_TIME_MS: &str = "x-filter-time-ms";
    /// Milliseconds in scorers, in a response.
    pub const SCORER_TIME_MS: &str = "x-scorer-time-ms";
    /// Time-to-first-token objective in milliseconds.
    pub const SLO_TTFT: [&str; 2] = ["x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"];
    /// Time-per-output-token objective in milliseconds.
    pub const SLO_TPOT: [&str; 2] = ["x-llm-d-slo-tpot-ms", "x-slo-tpot-ms"];
    /// Prefill endpoint.
    pub const PREFILLER: &str = "x-prefiller-host-port";
    /// Encode endpoints.
    pub const ENCODERS: &str = "x-encoder-hosts-ports";
    /// Data-parallel endpoint behind a primary port.
    pub const DATA_PARALLEL: &str = "x-data-parallel-host-port";
    /// Endpoint to pull KV cache from.
    pub const KV_SOURCE: &str = "x-kv-cache-source-host-port";
    /// Why a request was refused.
    pub const DROPPED_REASON: &str = "x-llm-d-request-dropped-reason";
    /// Request id.
    pub const REQUEST_ID: &str = "x-request-id";
    /// Session token.
    pub const SESSION_TOKEN: &str = "x-session-token";
}

/// Headers in the order in which they came, names lower-cased, repeated ones kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Box<str>, Bytes)>);

impl Headers {
    /// Adds a header; the name is lower-cased.
    pub fn push(&mut self, name: &str, value: Bytes) {
        self.0.push((name.to_ascii_lowercase().into_boxed_str(), value));
    }
    /// The last value of `name` as text; `None` when absent or not UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_bytes(name).and_then(|v| std::str::from_utf8(v).ok())
    }
    /// The last value of `name` as bytes.
    pub fn get_bytes(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().rev().find(|(n, _)| &**n == name).map(|(_, v)| v)
    }
    /// The value under the first of `names` that is present and not blank, trimmed.
    pub fn first_of(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|n| self.get(n).map(str::trim).filter(|v| !v.is_empty()))
    }
    /// Whether `name` is there at all.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| &**n == name)
    }
    /// Takes every header called `name` out; says whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(n, _)| &**n != name);
        self.0.len() != before
    }
    /// All headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.0.iter().map(|(n, v)| (&**n, v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_cased_and_the_last_value_wins() {
        let mut headers = Headers::default();
        headers.push("X-A", Bytes::from_static(b"1"));
        headers.push("x-a", Bytes::from_static(b" 2 "));
        headers.push("x-b", Bytes::from_static(b"  "));
        assert_eq!(headers.get("x-a"), Some(" 2 "));
        assert_eq!(headers.first_of(&["x-b", "x-a"]), Some("2"));
        assert!(headers.remove("x-a"));
        assert!(!headers.contains("x-a"));
    }
}
