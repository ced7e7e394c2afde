//! Every metric family of the picker in one table: name, type, unit, help, labels and the older name it also goes by.
//!
//! Code that counts something uses the constants; the recorder reads buckets, help texts and older twins from
//! [`FAMILIES`]; `docs/metrics.md` is written from it and tested against it. Names that start with `llm_d_epp_` and
//! their labels are the reference picker's, `llmd_epp_` those of the design documents, `pointsman_` ours.

use super::buckets;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts per bucket; the upper bounds, without infinity.
    Histogram(&'static [f64]),
}

/// The older name under which the same events are counted when legacy metrics are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// The name.
    pub name: &'static str,
    /// Its labels, each with the label of the new family that it takes its value from.
    pub labels: &'static [(&'static str, &'static str)],
}

/// The label that names the pool where a process serves several.
pub const POOL_LABEL: &str = "inference_pool";

/// One metric family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What one unit of its value is.
    pub unit: &'static str,
    /// Its labels in the order in which they are written.
    pub labels: &'static [&'static str],
    /// Help text, without the prefixes that the reference puts before its own.
    pub help: &'static str,
    /// Its older twin.
    pub old: Option<Old>,
}

impl Family {
    /// The help line: the reference's families carry their stability level in front.
    pub fn help_line(&self) -> String {
        if self.name.starts_with("llm_d_epp_") {
            format!("[ALPHA] {}", self.help)
        } else {
            self.help.to_owned()
        }
    }
    /// The help line of the older twin.
    pub fn old_help_line(&self) -> String {
        format!("[ALPHA] [Deprecated: Use {}] {}", self.name, self.help)
    }
    /// The type as Prometheus spells it.
    pub fn type_word(&self) -> &'static str {
        match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

/// The family with this name.
pub fn family(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.name == name)
}

macro_rules! old_twin {
    () => { None };
    ($name:literal [$($pair:tt),*]) => { Some(Old { name: $name, labels: &[$(old_twin!(@ $pair)),*] }) };
    (@ $label:literal) => { ($label, $label) };
    (@ ($old:literal = $new:literal)) => { ($old, $new) };
}

macro_rules! families {
    ($($id:ident = $name:literal, $kind:expr, $unit:literal, [$($label:literal),*], $help:literal
        $(, was $old:literal [$($pair:tt),*])?;)*) => {
        $(#[doc = $help] pub const $id: &str = $name;)*
        /// All families.
        pub const FAMILIES: &[Family] = &[$(Family {
            name: $name, kind: $kind, unit: $unit, labels: &[$($label),*], help: $help,
            old: old_twin!($($old [$($pair),*])?),
        }),*];
    };
}

use Kind::{Counter as C, Gauge as G, Histogram as H};

families! {
    // Requests.
    REQUEST_TOTAL = "llm_d_epp_request_total", C, "requests",
        ["model_name", "target_model_name", "fairness_id", "priority"],
        "Requests with a body that were routed. Refused and header-only requests are not in it.",
        was "inference_objective_request_total" ["model_name", "target_model_name", "priority"];
    REQUEST_ERROR_TOTAL = "llm_d_epp_request_error_total", C, "requests",
        ["model_name", "target_model_name", "fairness_id", "priority", "error_code"],
        "Requests that were refused or failed, at most once each.",
        was "inference_objective_request_error_total" ["model_name", "target_model_name", "error_code"];
    REQUEST_DURATION = "llm_d_epp_request_duration_seconds", H(buckets::GEN), "seconds",
        ["model_name", "target_model_name", "fairness_id", "priority"],
        "From the request's headers to the end of its response.",
        was "inference_objective_request_duration_seconds" ["model_name", "target_model_name"];
    REQUEST_SIZE = "llm_d_epp_request_size_bytes", H(buckets::REQSZ), "bytes",
        ["model_name", "target_model_name", "fairness_id", "priority"],
        "Size of request bodies.",
        was "inference_objective_request_sizes" ["model_name", "target_model_name"];
    RESPONSE_SIZE = "llm_d_epp_response_size_bytes", H(buckets::RESPSZ), "bytes",
        ["model_name", "target_model_name", "fairness_id", "priority"],
        "Size of response bodies.",
        was "inference_objective_response_sizes" ["model_name", "target_model_name"];
    REQUEST_INPUT_TOKENS = "llm_d_epp_request_input_tokens", H(buckets::INTOK), "tokens",
        ["model_name", "target_model_name", "fairness_id", "priority"],
        "Prompt tokens that the engine reported.",
        was "inference_objective_input_tokens" ["model_name", "target_model_name"];
    REQUEST_OUTPUT_TOKENS = "llm_d_epp_request_output_tokens", H(buckets::OUTTOK), "tokens",
        ["model_name", "target_model_name", "fairness_id", "priority"],
        "Generated tokens that the engine reported.",
        was "inference_objective_output_tokens" ["model_name", "target_model_name"];
    REQUEST_CACHED_TOKENS = "llm_d_epp_request_cached_tokens", H(buckets::INTOK), "tokens",
        ["model_name", "target_model_name", "fairness_id", "priority"],
        "Prompt tokens that the engine took from its cache.",
        was "inference_objective_prompt_cached_tokens" ["model_name", "target_model_name"];
    REQUEST_RUNNING = "llm_d_epp_request_running", G, "requests",
        ["model_name", "target_model_name", "fairness_id", "priority"],
        "Requests that were routed and have not ended.",
        was "inference_objective_running_requests" ["model_name"];
    REQUEST_NTPOT = "llm_d_epp_request_ntpot_seconds", H(buckets::NTPOT), "seconds",
        ["model_name", "target_model_name", "fairness_id", "priority"],
        "Request duration divided by generated tokens.",
        was "inference_objective_normalized_time_per_output_token_seconds" ["model_name", "target_model_name"];
    REQUEST_TTFT = "llm_d_epp_request_ttft_seconds", H(buckets::TTFT), "seconds",
        ["model_name", "target_model_name", "fairness_id", "priority", "streaming"],
        "From the request's headers to the first byte of the response body.";
    REQUEST_TPOT = "llm_d_epp_request_streaming_tpot_seconds", H(buckets::TPOT), "seconds",
        ["model_name", "target_model_name", "fairness_id", "priority"],
        "Time per generated token after the first one, streamed answers only.";
    REQUEST_ITL = "llm_d_epp_request_streaming_itl_seconds", H(buckets::ITL), "seconds",
        ["model_name", "target_model_name", "fairness_id", "priority"],
        "Time between two pieces of a streamed answer.";
    REQUEST_PROCESSING = "llm_d_epp_request_processing_duration_seconds", H(buckets::REQPROC), "seconds", [],
        "Time that the picker itself spent on the request path.";
    RESPONSE_PROCESSING = "llm_d_epp_response_processing_duration_seconds", H(buckets::RESPPROC), "seconds", [],
        "Time that the picker itself spent on the response path.";

    // Pool.
    AVERAGE_KV = "llm_d_epp_average_kv_cache_utilization", G, "ratio", ["name"],
        "Mean share of KV cache in use over endpoints with a fresh reading; absent when there is none.",
        was "inference_pool_average_kv_cache_utilization" ["name"];
    AVERAGE_QUEUE = "llm_d_epp_average_queue_size", G, "requests", ["name"],
        "Mean number of requests that wait in an engine, over endpoints with a fresh reading.",
        was "inference_pool_average_queue_size" ["name"];
    AVERAGE_RUNNING = "llm_d_epp_average_running_requests", G, "requests", ["name"],
        "Mean number of requests that run in an engine, over endpoints with a fresh reading.",
        was "inference_pool_average_running_requests" ["name"];
    STD_DEV_KV = "llm_d_epp_std_dev_kv_cache_utilization", G, "ratio", ["name"],
        "Sample standard deviation of the share of KV cache in use.";
    STD_DEV_QUEUE = "llm_d_epp_std_dev_queue_size", G, "requests", ["name"],
        "Sample standard deviation of the number of waiting requests.";
    STD_DEV_RUNNING = "llm_d_epp_std_dev_running_requests", G, "requests", ["name"],
        "Sample standard deviation of the number of running requests.";
    POOL_SATURATION = "llm_d_epp_flow_control_pool_saturation", G, "ratio", ["inference_pool", "stage"],
        "How full the pool is by the defaults of utilization-detector: the mean over its endpoints of the larger of queue / 5 and KV cache / 0.8. An endpoint without a fresh reading counts as full, and so does a pool without endpoints. `stage` is always `effective`.",
        was "inference_extension_flow_control_pool_saturation" ["inference_pool", "stage"];
    READY_ENDPOINTS = "llm_d_epp_ready_endpoints", G, "endpoints", ["name"],
        "Endpoints of the pool.",
        was "inference_pool_ready_pods" ["name"];
    PER_ENDPOINT_QUEUE = "llm_d_epp_per_endpoint_queue_size", G, "requests", ["name", "model_server_endpoint"],
        "Requests that wait in one engine, as last read.",
        was "inference_pool_per_pod_queue_size" ["name", ("model_server_pod" = "model_server_endpoint")];

    // Scheduling.
    SCHEDULER_E2E = "llm_d_epp_scheduler_e2e_duration_seconds", H(buckets::FAST), "seconds", [],
        "Time of one scheduling decision.",
        was "inference_extension_scheduler_e2e_duration_seconds" [];
    SCHEDULER_ATTEMPTS = "llm_d_epp_scheduler_attempts_total", C, "decisions",
        ["status", "target_model_name", "endpoint_name", "namespace", "port"],
        "Scheduling decisions by result and by the endpoint that was picked.",
        was "inference_extension_scheduler_attempts_total"
            ["status", "target_model_name", ("pod_name" = "endpoint_name"), "namespace", "port"];
    PLUGIN_DURATION = "llm_d_epp_plugin_duration_seconds", H(buckets::FAST), "seconds",
        ["extension_point", "plugin_type", "plugin_name"],
        "Time of one call of a plugin.",
        was "inference_extension_plugin_duration_seconds" ["extension_point", "plugin_type", "plugin_name"];
    MODEL_REWRITES = "llm_d_epp_model_rewrite_decisions_total", C, "requests",
        ["model_rewrite_name", "model_name", "target_model"],
        "Requests whose model was rewritten.",
        was "inference_extension_model_rewrite_decisions_total" ["model_rewrite_name", "model_name", "target_model"];
    INFO = "llm_d_epp_info", G, "1", ["commit", "build_ref"],
        "Always 1; the labels say which build this is.",
        was "inference_extension_info" ["commit", "build_ref"];

    // Data layer.
    POLL_ERRORS = "llm_d_epp_datalayer_poll_errors_total", C, "polls", ["source_type"],
        "Polls of a data source that failed.",
        was "llm_d_inference_scheduler_datalayer_poll_errors_total" ["source_type"];
    EXTRACT_ERRORS = "llm_d_epp_datalayer_extract_errors_total", C, "polls", ["source_type", "extractor_type"],
        "Answers of a data source that an extractor could not read.",
        was "llm_d_inference_scheduler_datalayer_extract_errors_total" ["source_type", "extractor_type"];

    // ext_proc streams.
    STREAMS_IN_FLIGHT = "llm_d_epp_extproc_streams_inflight", G, "streams", [],
        "Open ext_proc streams; only with --enable-grpc-stream-metrics.";
    STREAM_DURATION = "llm_d_epp_extproc_stream_duration_seconds", H(buckets::EXTPROC), "seconds", [],
        "Life of an ext_proc stream; only with --enable-grpc-stream-metrics.";
    STREAMS_TOTAL = "llm_d_epp_extproc_streams_total", C, "streams", ["code"],
        "Ended ext_proc streams by gRPC status; how a request ended is in pointsman_requests_ended_total.";

    // Approximate prefix cache.
    PREFIX_SIZE = "llm_d_epp_prefix_indexer_size", G, "blocks", ["plugin_name", "plugin_type"],
        "Blocks in the approximate prefix index.",
        was "inference_extension_prefix_indexer_size" [];
    PREFIX_HIT_RATIO = "llm_d_epp_prefix_indexer_hit_ratio", H(buckets::RATIO), "ratio", ["plugin_name", "plugin_type"],
        "Predicted share of the prompt that the picked endpoint has cached.",
        was "inference_extension_prefix_indexer_hit_ratio" [];
    PREFIX_HIT_BYTES = "llm_d_epp_prefix_indexer_hit_bytes", H(buckets::HITBYTES), "bytes",
        ["plugin_name", "plugin_type"],
        "Predicted bytes of the prompt that the picked endpoint has cached.",
        was "inference_extension_prefix_indexer_hit_bytes" [];

    // Names of the design documents where the reference has no equal.
    DECISIONS = "llmd_epp_scheduling_decisions_total", C, "decisions", ["result"],
        "Scheduling decisions: success, no_pods (the pool or the subset is empty) or filtered_out.";
    CANDIDATES = "llmd_epp_candidate_pods_total", C, "endpoints", [],
        "Endpoints that decisions began with, added up.";
    FILTERED = "llmd_epp_filtered_pods_total", C, "endpoints", [],
        "Endpoints that filters took out, added up.";
    SCORED = "llmd_epp_scored_pods_total", C, "endpoints", [],
        "Endpoints that were scored, added up.";
    CACHE_HIT_RATE = "llmd_epp_cache_hit_rate", G, "ratio", ["pod"],
        "Predicted share of prompt bytes found in the prefix index, over all requests sent to an endpoint.";
    CACHE_PREFIX_BYTES = "llmd_epp_cache_prefix_length_bytes", H(buckets::HITBYTES), "bytes", ["pod"],
        "Predicted length of the cached prefix of a request, at the endpoint it was sent to.";
    SESSION_HITS = "llmd_epp_session_affinity_hits_total", C, "requests", [],
        "Requests with a session whose endpoint was among the candidates.";
    SESSION_MISSES = "llmd_epp_session_affinity_misses_total", C, "requests", [],
        "Requests with a session whose endpoint was gone, or that came without one.";

    // Ours.
    ATTEMPTS = "pointsman_attempts_total", C, "requests", [],
        "Requests that came in, whatever became of them: the base for error ratios.";
    REFUSALS = "pointsman_refusals_total", C, "requests", ["code"],
        "Requests that the picker answered itself with an error, by error code.";
    ENDED = "pointsman_requests_ended_total", C, "requests", ["ending"],
        "Requests by how they ended: natural, refused, evicted, disconnected or protocol.";
    BLIND = "pointsman_blind_requests_total", C, "requests", ["mode"],
        "Requests decided without their body, because the proxy's body mode hides it until the decision.";
    UNSEEN_RESPONSES = "pointsman_unseen_responses_total", C, "responses", ["mode"],
        "Responses whose body the proxy does not show: NONE as configured, SKIPPED at the picker's wish.";
    RESPONSE_PIECES = "pointsman_response_body_messages_total", C, "messages", [],
        "Pieces of response bodies that the proxy sent to the picker.";
    BUFFERED_BYTES = "pointsman_buffered_bytes", G, "bytes", [],
        "Bytes of request bodies in memory, all requests together.";
    PREFIX_ENTRIES = "pointsman_prefix_index_entries", G, "entries", [],
        "Entries in the prefix index of the whole process.";
    PREFIX_BYTES = "pointsman_prefix_index_bytes", G, "bytes", [],
        "Memory of the prefix index of the whole process.";
    SUSPECTS = "pointsman_suspect_endpoints", G, "endpoints", ["name"],
        "Endpoints that passive health holds back.";
    ENDPOINT_SUSPECT = "pointsman_endpoint_suspect", G, "1", ["name", "endpoint"],
        "1 while passive health holds this endpoint back, else 0.";
    SUSPICIONS = "pointsman_endpoint_suspicions_total", C, "changes", ["reason"],
        "How often endpoints became suspect, by what they did.";
    SUSPICIONS_OVER_CAP = "pointsman_endpoint_suspicions_over_cap_total", C, "changes", ["reason"],
        "How often an endpoint failed and was trusted on, because half of the pool is suspect already.";
    RESTARTS = "pointsman_endpoint_restarts_total", C, "restarts", ["reason"],
        "New processes seen behind endpoints, by what gave them away.";
    READINGS = "pointsman_endpoint_readings", G, "endpoints", ["name", "reading"],
        "Endpoints by how far their metrics can be trusted: fresh, stale or never read.";
    ENDPOINT_REQUESTS = "pointsman_endpoint_in_flight_requests", G, "requests", ["name", "endpoint"],
        "Requests that this process sent to an endpoint and that have not ended.";
    ENDPOINT_TOKENS = "pointsman_endpoint_in_flight_tokens", G, "tokens", ["name", "endpoint"],
        "Estimated tokens of those requests.";
    SCRAPES = "pointsman_scrapes_total", C, "scrapes", ["source_type", "outcome"],
        "Polls of endpoints by outcome: ok, or how they failed.";
    SCRAPE_SECONDS = "pointsman_scrape_duration_seconds", H(buckets::RESPPROC), "seconds", ["source_type"],
        "From the start of a poll to the published numbers, of polls that succeeded.";
    SCRAPE_FAILING = "pointsman_scrape_failing", G, "1", ["source_type", "endpoint"],
        "1 while a data source of an endpoint fails, else 0.";
    CONFIG_GENERATION = "pointsman_config_generation", G, "1", [],
        "Number of the configuration in use; grows with every reload that was taken.";
    CONFIG_RELOADS = "pointsman_config_reloads_total", C, "reloads", ["outcome"],
        "Changed configuration files that were taken, or refused because something was wrong with them.";
    CONTROL_HEADERS_REMOVED = "pointsman_control_headers_removed_total", C, "headers", [],
        "Control headers that clients sent and that were taken out because they are not trusted.";
    UNKNOWN_MODEL = "pointsman_unknown_model_requests_total", C, "requests", [],
        "Requests for a model that no endpoint lists.";
    HELD = "pointsman_held_requests_total", C, "requests", ["plugin_name"],
        "Requests that a plugin held back for a short while, so that those that come together are decided together.";
    SHADOW_DECISIONS = "pointsman_shadow_decisions_total", C, "decisions", ["profile", "outcome"],
        "Decisions that a shadow profile looked at: it would have chosen the same endpoint, a different one, or its filters would have left none.";
    SHADOW_PROMPT = "pointsman_shadow_prompt_tokens_total", C, "tokens", ["profile"],
        "Prompt tokens, in whole blocks, of the decisions in which a shadow profile had a choice.";
    SHADOW_CACHED = "pointsman_shadow_cached_tokens_total", C, "tokens", ["profile", "pick"],
        "Of these, tokens that were believed to be cached at the shadow's choice (shadow) and where the request went (real).";
    SHADOW_IN_FLIGHT = "pointsman_shadow_in_flight_requests_total", C, "requests", ["profile", "pick"],
        "Requests in flight, summed over the same decisions, at the shadow's choice (shadow) and where the request went (real).";
    SHADOW_DROPPED = "pointsman_shadow_dropped_total", C, "decisions", [],
        "Decisions that shadow profiles did not look at, because too many were waiting for them.";
    EXPRESSION_FAULTS = "pointsman_expression_faults_total", C, "answers", ["plugin_name", "fault"],
        "Endpoints for which a CEL expression had no answer; nothing is taken out of service for it.";
    STREAMS_OPEN = "pointsman_streams_open", G, "streams", [],
        "Open ext_proc streams.";
    DRAINING = "pointsman_draining", G, "1", [],
        "1 once the picker was told to stop and finishes what is in flight.";
    LABELS_FOLDED = "pointsman_label_values_folded_total", C, "requests", ["label"],
        "Requests whose label value was written as `other` because the cap on distinct values is reached.";
    LOGS_DROPPED = "pointsman_log_lines_dropped_total", C, "lines", [],
        "Log lines that were dropped because standard error did not take them fast enough.";
    DECISION_LOG_LINES = "pointsman_decision_log_lines_total", C, "lines", ["outcome"],
        "Lines of --decision-log: written, dropped because the writer was not fast enough, or failed to be written.";
    LEADER = "pointsman_leader", G, "1", [],
        "1 while this replica leads, with --ha-enable-leader-election.";
    KUBE_WATCH_STATE = "pointsman_kube_watch_state", G, "1", ["kind"],
        "1 while the Kubernetes API is followed for this kind, 0 while it cannot be and the last state is served on.";
    KUBE_LISTS = "pointsman_kube_lists_total", C, "lists", ["kind"],
        "Full lists that the Kubernetes API was asked for: one at the start, one for each watch that expired.";
    KUBE_FAILURES = "pointsman_kube_failures_total", C, "failures", ["kind", "verb", "reason"],
        "Requests to the Kubernetes API that failed, by verb and reason.";
    KUBE_MALFORMED = "pointsman_kube_malformed_objects", G, "objects", ["kind"],
        "Kubernetes objects that are skipped because they cannot be understood; the log names them.";

    // The process, read when the page is asked for.
    PROCESS_CPU = "process_cpu_seconds_total", C, "seconds", [],
        "Processor time used by the process.";
    PROCESS_MEMORY = "process_resident_memory_bytes", G, "bytes", [],
        "Resident memory of the process.";
    PROCESS_VIRTUAL = "process_virtual_memory_bytes", G, "bytes", [],
        "Virtual memory of the process.";
    PROCESS_FDS = "process_open_fds", G, "descriptors", [],
        "Open file descriptors.";
    PROCESS_MAX_FDS = "process_max_fds", G, "descriptors", [],
        "Most file descriptors that the process may open.";
    PROCESS_START = "process_start_time_seconds", G, "seconds", [],
        "Start of the process, seconds since 1970.";
}

/// Families that are counted from the bodies of responses: they stay empty where the proxy does not show those.
pub const OF_RESPONSE_BODIES: [&str; 8] = [
    RESPONSE_SIZE,
    REQUEST_INPUT_TOKENS,
    REQUEST_OUTPUT_TOKENS,
    REQUEST_CACHED_TOKENS,
    REQUEST_NTPOT,
    REQUEST_TTFT,
    REQUEST_TPOT,
    REQUEST_ITL,
];

/// Those of [`OF_RESPONSE_BODIES`] that need what stands in a body, not only its pieces and their times.
pub const OF_USAGE: [&str; 5] =
    [REQUEST_INPUT_TOKENS, REQUEST_OUTPUT_TOKENS, REQUEST_CACHED_TOKENS, REQUEST_NTPOT, REQUEST_TPOT];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_no_response_bodies_cost_is_told_in_the_docs() {
        let page = include_str!("../../docs/envoy.md");
        let (_, lost) = page.split_once("<!-- unseen: begin -->").unwrap();
        let (lost, _) = lost.split_once("<!-- unseen: end -->").unwrap();
        let told: BTreeSet<&str> = lost.split('`').filter(|word| word.starts_with("llm_d_epp_")).collect();
        assert_eq!(told, OF_RESPONSE_BODIES.into_iter().collect());
        assert!(OF_USAGE.iter().all(|name| OF_RESPONSE_BODIES.contains(name)));
    }

    #[test]
    fn no_name_stands_twice_and_old_labels_come_from_new_ones() {
        let mut seen = BTreeSet::new();
        for family in FAMILIES {
            assert!(seen.insert(family.name), "{} stands twice", family.name);
            let Some(old) = family.old else { continue };
            assert!(seen.insert(old.name), "{} stands twice", old.name);
            for (_, from) in old.labels {
                assert!(family.labels.contains(from), "{}: {from}", family.name);
            }
        }
    }

    #[test]
    fn names_follow_the_conventions() {
        for family in FAMILIES {
            if family.kind == Kind::Counter {
                assert!(family.name.ends_with("_total"), "{}", family.name);
            }
            assert!(!family.help.is_empty() && family.help.ends_with('.'), "{}", family.name);
        }
    }
}
