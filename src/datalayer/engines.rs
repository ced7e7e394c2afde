//! What the metrics of known engines mean, and which counters of theirs never go back while the process lives.

use crate::plugin::EngineSpec;

/// The engine of endpoints without an engine label, unless configured otherwise.
pub const DEFAULT_ENGINE: &str = "vllm";

/// Engines that are known without configuration.
pub fn built_in() -> Vec<EngineSpec> {
    let some = |text: &str| Some(text.to_owned());
    let info = |family: &str, size: &str, blocks: &str| {
        Some((family.to_owned(), size.to_owned(), blocks.to_owned()))
    };
    vec![
        EngineSpec {
            name: DEFAULT_ENGINE.into(),
            queued: some("vllm:num_requests_waiting"),
            running: some("vllm:num_requests_running"),
            kv_usage: some("vllm:kv_cache_usage_perc"),
            lora: some("vllm:lora_requests_info"),
            cache_info: info("vllm:cache_config_info", "block_size", "num_gpu_blocks"),
            ..EngineSpec::default()
        },
        EngineSpec {
            name: "sglang".into(),
            queued: some("sglang:num_queue_reqs"),
            running: some("sglang:num_running_reqs"),
            kv_usage: some("sglang:token_usage"),
            cache_info: info("sglang:cache_config_info", "page_size", "num_pages"),
            ..EngineSpec::default()
        },
        EngineSpec {
            name: "trtllm-serve".into(),
            queued: some("trtllm_num_requests_waiting"),
            running: some("trtllm_num_requests_running"),
            kv_usage: some("trtllm_kv_cache_utilization"),
            cache_block_size: some("trtllm_kv_cache_tokens_per_block"),
            cache_num_blocks: some("trtllm_kv_cache_max_blocks"),
            ..EngineSpec::default()
        },
        EngineSpec {
            name: "triton-tensorrt-llm".into(),
            queued: some("nv_trt_llm_request_metrics{request_type=waiting}"),
            running: some("nv_trt_llm_request_metrics{request_type=scheduled}"),
            kv_usage: some("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"),
            cache_block_size: some("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}"),
            cache_num_blocks: some("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}"),
            ..EngineSpec::default()
        },
        EngineSpec {
            name: "triton".into(),
            queued: some("nv_inference_pending_request_count"),
            running: some("nv_inference_exec_count"),
            ..EngineSpec::default()
        },
    ]
}

/// The process's start, in seconds since the epoch; written by the usual client libraries whatever the engine.
pub const START_TIME: &str = "process_start_time_seconds";

/// Counters that only a new process can set back, whatever engine serves them.
pub const COUNTERS: [&str; 5] = [
    "vllm:prompt_tokens_total",
    "vllm:request_success_total",
    "sglang:prompt_tokens_total",
    "trtllm_request_success_total",
    "nv_inference_request_success",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datalayer::metric_spec::MetricSpec;

    #[test]
    fn every_built_in_spec_can_be_read() {
        for engine in built_in() {
            let texts =
                [&engine.queued, &engine.running, &engine.kv_usage, &engine.lora, &engine.cache_block_size];
            for text in texts.into_iter().flatten().chain(&engine.cache_num_blocks) {
                assert!(text.parse::<MetricSpec>().is_ok(), "{text}");
            }
        }
    }
}
